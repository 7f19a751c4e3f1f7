//! Reads the files of a model, from a local folder or through a tracking server.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Url;

use super::client::MlflowClient;
use super::error::MlflowError;
use super::paths;
use crate::cli::add::external::SideFile;

/// Path of the API by which a tracking server proxies its artifact store.
const PROXY: [&str; 4] = ["api", "2.0", "mlflow-artifacts", "artifacts"];

/// The folder of a model.
#[derive(Debug)]
pub enum ModelFolder<'a> {
    /// A local folder.
    Folder(PathBuf),
    /// A folder behind a tracking server.
    Server { client: &'a MlflowClient, access: ArtifactAccess },
}

/// How the files of a model are requested from a tracking server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArtifactAccess {
    /// By their path in the artifact store that the server proxies.
    Proxied(Vec<String>),
    /// By the version, run or logged model they belong to, with the routes of the server's web UI: the
    /// server reads the store itself.
    Version {
        name: String,
        version: String,
    },
    Run {
        id: String,
        path: String,
    },
    LoggedModel {
        id: String,
    },
}

impl ArtifactAccess {
    /// Access to the folder `uri`: through the proxy of the server at `base` if it serves that store,
    /// otherwise by `owner`.
    ///
    /// # Errors
    /// If the folder is on another server, or its path leads out of the store.
    pub fn at(uri: &str, base: &Url, owner: Self) -> Result<Self> {
        let Some(path) = proxied(uri, base)? else { return Ok(owner) };
        // Segments are escaped when the URL is built; the path of a store is not escaped.
        let segments = if path.is_empty() { Vec::new() } else { paths::segments(path)? };
        let mut segments: Vec<String> = segments.into_iter().map(str::to_owned).collect();
        if let Self::Run { path, .. } = &owner {
            segments.extend(paths::segments(path)?.into_iter().map(str::to_owned));
        }
        Ok(Self::Proxied(segments))
    }

    fn url(&self, client: &MlflowClient, file: &str) -> Result<Url> {
        let file = paths::segments(file)?.join("/");
        match self {
            Self::Proxied(folder) => {
                let folder = folder.iter().map(String::as_str);
                let path: Vec<&str> =
                    PROXY.into_iter().chain(folder).chain(file.split('/')).collect();
                client.url(&path, &[])
            }
            Self::Version { name, version } => client.url(
                &["model-versions", "get-artifact"],
                &[("name", name), ("version", version), ("path", &file)],
            ),
            Self::Run { id, path } => client
                .url(&["get-artifact"], &[("run_id", id), ("path", &format!("{path}/{file}"))]),
            Self::LoggedModel { id } => client.url(
                &["ajax-api", "2.0", "mlflow", "logged-models", id, "artifacts", "files"],
                &[("artifact_file_path", &file)],
            ),
        }
    }
}

/// The path of `uri` in the store proxied by the server at `base`, if it is in that store. Other servers
/// are refused: they would receive the credentials of this one.
fn proxied<'a>(uri: &'a str, base: &Url) -> Result<Option<&'a str>> {
    let Some((scheme, rest)) = uri.split_once(':') else { return Ok(None) };
    let is_own = match scheme {
        "mlflow-artifacts" => true,
        "http" | "https" => false,
        _ => return Ok(None),
    };
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
        None => ("", rest.trim_start_matches('/')),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let own = base.host_str().unwrap_or_default();
    let with_port = base.port_or_known_default().map(|port| format!("{own}:{port}"));
    ensure!(
        host.is_empty() || host == own || with_port.as_deref() == Some(host),
        "{uri}: the artifacts are on another server than {base}; set --tracking-uri to that server"
    );
    if is_own {
        return Ok(Some(path.trim_matches('/')));
    }
    let (_, path) = path.split_once("api/2.0/mlflow-artifacts/artifacts").unwrap_or(("", ""));
    ensure!(!path.is_empty(), "{uri}: not in the artifact store of {base}");
    Ok(Some(path.trim_matches('/')))
}

impl ModelFolder<'_> {
    /// Location of `file`, for messages.
    pub fn shown(&self, file: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(file).display().to_string(),
            Self::Server { client, access } => match access.url(client, file) {
                Ok(url) => url.to_string(),
                Err(_) => file.to_owned(),
            },
        }
    }

    /// Reads `file`, at most `limit` bytes.
    ///
    /// # Errors
    /// If the file does not exist, is too large, or cannot be read.
    pub async fn read(&self, file: &str, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self {
            Self::Folder(folder) => {
                let (from, size) = open(folder, file, limit)?;
                from.take(size).read_to_end(&mut bytes).with_context(|| self.shown(file))?;
            }
            Self::Server { client, access } => {
                let take = |part: &[u8]| {
                    bytes.extend_from_slice(part);
                    Ok(())
                };
                download(client, access.url(client, file)?, file, limit, take).await?;
            }
        }
        Ok(bytes)
    }

    /// Opens `file` for random access; a download goes to an unnamed temporary file in `scratch`.
    pub(crate) async fn side_file(
        &self,
        file: &str,
        limit: u64,
        scratch: &Path,
    ) -> Result<SideFile> {
        match self {
            Self::Folder(folder) => {
                let (file, size) = open(folder, file, limit)?;
                Ok(SideFile { file, size })
            }
            Self::Server { client, access } => {
                let mut to = tempfile::tempfile_in(scratch)
                    .with_context(|| format!("{}: cannot be written", scratch.display()))?;
                let mut size = 0;
                let take = |part: &[u8]| {
                    size += part.len() as u64;
                    to.write_all(part)
                };
                download(client, access.url(client, file)?, file, limit, take).await?;
                Ok(SideFile { file: to, size })
            }
        }
    }
}

/// Opens a file of a folder; the file and its size, in bytes.
fn open(folder: &Path, file: &str, limit: u64) -> Result<(File, u64)> {
    let path = folder.join(paths::segments(file)?.join("/"));
    let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.with_context(|| path.display().to_string())?;
    ensure!(metadata.is_file(), "{}: not a file", path.display());
    let size = metadata.len();
    if size > limit {
        return Err(MlflowError::TooLarge { url: path.display().to_string(), limit }.into());
    }
    Ok((file, size))
}

/// Downloads a file, with a progress bar if standard error is a terminal.
async fn download(
    client: &MlflowClient,
    url: Url,
    file: &str,
    limit: u64,
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), MlflowError> {
    let bar = ProgressBar::no_length();
    if let Ok(style) =
        ProgressStyle::with_template("{msg} {bytes}/{total_bytes} {bytes_per_sec} {bar:30}")
    {
        bar.set_style(style);
    }
    bar.set_message(file.escape_debug().to_string());
    let begin = |size: Option<u64>| {
        if let Some(size) = size {
            bar.set_length(size);
        }
    };
    let take_and_show = |part: &[u8]| {
        bar.inc(part.len() as u64);
        take(part)
    };
    let result = client.download(url, limit, begin, take_and_show).await;
    bar.finish_and_clear();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(uri: &str) -> Result<ArtifactAccess> {
        let base = Url::parse("http://ml.example:5000/prefix").unwrap();
        let owner = ArtifactAccess::Run { id: "r".into(), path: "a b/model".into() };
        ArtifactAccess::at(uri, &base, owner)
    }

    #[test]
    fn proxied_artifacts_are_requested_by_path() {
        let proxied = ArtifactAccess::Proxied(
            ["1", "r", "artifacts", "a b", "model"].map(str::to_owned).to_vec(),
        );
        for uri in [
            "mlflow-artifacts:/1/r/artifacts",
            "mlflow-artifacts:///1/r/artifacts/",
            "mlflow-artifacts://ml.example/1/r/artifacts",
            "mlflow-artifacts://ml.example:5000/1/r/artifacts",
            "http://ml.example:5000/prefix/api/2.0/mlflow-artifacts/artifacts/1/r/artifacts",
        ] {
            assert_eq!(at(uri).unwrap(), proxied, "{uri}");
        }
        for uri in ["s3://bucket/1", "file:///mlruns/1", "/mlruns/1", "./mlruns"] {
            assert!(matches!(at(uri).unwrap(), ArtifactAccess::Run { .. }), "{uri}");
        }
    }

    #[test]
    fn other_servers_and_paths_out_of_the_store_are_refused() {
        for (uri, problem) in [
            ("mlflow-artifacts://elsewhere/1", "another server"),
            ("https://elsewhere/api/2.0/mlflow-artifacts/artifacts/1", "another server"),
            ("http://ml.example:5000/secret", "not in the artifact store"),
            ("mlflow-artifacts:/1/../../x", "leads out"),
        ] {
            let error = at(uri).unwrap_err().to_string();
            assert!(error.contains(problem), "{uri}: {error}");
        }
    }
}
