//! Users and passwords of registries, where Docker keeps them: `config.json` in `DOCKER_CONFIG`, or in
//! `.docker` in the home folder, and the credential helpers it names. `docker login`, `oras login` and
//! `spinfer registry login` are one.

use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError as Failure, DockerCredential};
use http::HeaderValue;
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use super::auth::header_value;
use super::error::Error;
use super::reference::Host;

/// How long a credential helper may take: it may ask the user.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// What the configuration calls Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// What a helper says of a host it knows nothing of.
const NOT_FOUND: &str = "credentials not found";

/// What shows a registry who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// It is exchanged for a token.
    IdentityToken(String),
}

/// They are secret.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
            Self::IdentityToken(_) => f.debug_struct("IdentityToken").finish_non_exhaustive(),
        }
    }
}

impl Credentials {
    /// As a header of requests to `host`.
    pub(super) fn basic(&self, host: &Host) -> Result<HeaderValue, Error> {
        let (user, password) = match self {
            Self::Password { user, password } => (user.as_str(), password.as_str()),
            // By the convention of those that give such tokens.
            Self::IdentityToken(token) => ("<token>", token.as_str()),
        };
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        header_value(&format!("Basic {encoded}"), host.as_str())
    }

    /// Those for `host`, if there are any.
    pub fn find(host: &Host) -> Result<Option<Self>> {
        let Some(path) = config_path().filter(|path| path.exists()) else { return Ok(None) };
        let server = server(host);
        let asked = server.clone();
        let (send, receive) = mpsc::channel();
        // A helper is another program, and may never end.
        std::thread::Builder::new().name("credentials".into()).spawn(move || {
            // Nobody listens after the timeout.
            let _ = send.send(docker_credential::get_credential(&asked));
        })?;
        let found = receive.recv_timeout(HELPER_TIMEOUT);
        let found = found.map_err(|_| anyhow!("the credential helper does not answer"));
        let problem = |problem: String| anyhow!("{}: {problem}", path.display());
        match found.with_context(|| path.display().to_string())? {
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                Ok(Some(Self::Password { user, password }))
            }
            Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Self::IdentityToken(token))),
            Err(Failure::NoCredentialConfigured | Failure::ConfigNotFound) => Ok(None),
            // What it prints may be a secret.
            Err(Failure::HelperFailure { stdout, stderr, .. })
                if stdout.contains(NOT_FOUND) || stderr.contains(NOT_FOUND) =>
            {
                Ok(None)
            }
            Err(Failure::HelperFailure { helper, .. }) => {
                Err(problem(format!("{helper} fails for {server}")))
            }
            Err(Failure::HelperCommunicationError) => {
                Err(problem(format!("the credential helper for {server} cannot be run")))
            }
            Err(Failure::MalformedHelperResponse) => {
                Err(problem(format!("the credential helper for {server} sends no credentials")))
            }
            Err(Failure::CredentialDecodingError | Failure::CredentialMismatchError) => {
                Err(problem(format!("auths.{server:?} is damaged; log in again")))
            }
            Err(Failure::ConfigReadError) => Err(problem("is not a Docker configuration".into())),
        }
    }
}

/// Where they are.
#[must_use]
pub fn config_path() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(folder.join("config.json"))
}

/// What the configuration calls `host`.
fn server(host: &Host) -> String {
    match host.as_str() {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        host => host.to_owned(),
    }
}

/// Where credentials were put, or removed from.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    File(PathBuf),
    /// A program of this name.
    Helper(String),
}

/// Keeps `credentials` for `host`, by the helper that the configuration names for it, or in the file.
pub fn keep(host: &Host, user: &str, password: &str) -> Result<Kept> {
    let path = config_path().context("neither DOCKER_CONFIG nor HOME is set")?;
    let server = server(host);
    let mut config = Config::read(&path)?;
    if let Some(helper) = config.helper(&server) {
        let entry = json!({ "ServerURL": server, "Username": user, "Secret": password });
        run_helper(&helper, "store", &entry.to_string())?;
        return Ok(Kept::Helper(helper));
    }
    let auth = STANDARD.encode(format!("{user}:{password}"));
    config.auths()?.insert(server, json!({ "auth": auth }));
    config.write()?;
    Ok(Kept::File(path))
}

/// Removes those for `host`; `None`: there were none.
pub fn forget(host: &Host) -> Result<Option<Kept>> {
    let path = config_path().context("neither DOCKER_CONFIG nor HOME is set")?;
    let server = server(host);
    let mut config = Config::read(&path)?;
    if let Some(helper) = config.helper(&server) {
        run_helper(&helper, "erase", &server)?;
        return Ok(Some(Kept::Helper(helper)));
    }
    if config.auths()?.remove(&server).is_none() {
        return Ok(None);
    }
    config.write()?;
    Ok(Some(Kept::File(path)))
}

/// Docker's configuration: all of it, as only a part of it is ours.
struct Config {
    path: PathBuf,
    json: Map<String, Value>,
}

impl Config {
    fn read(path: &Path) -> Result<Self> {
        let json = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|_| anyhow!("{}: is not a JSON object; correct it", path.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Ok(Self { path: path.to_owned(), json })
    }

    /// The program that keeps what is of `server`.
    fn helper(&self, server: &str) -> Option<String> {
        let own = self.json.get("credHelpers").and_then(|helpers| helpers.get(server));
        let name = own.or_else(|| self.json.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| format!("docker-credential-{name}"))
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>> {
        let auths = self.json.entry("auths").or_insert_with(|| json!({}));
        let path = self.path.display();
        auths.as_object_mut().with_context(|| format!("{path}: auths is not an object; correct it"))
    }

    /// All of it, or nothing. It has passwords: it is for this user only.
    fn write(&self) -> Result<()> {
        // A link leads to where it is really kept.
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().context("a file is in a folder")?;
        let write = || -> Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let private = Permissions::from_mode(0o600);
            let mut file: NamedTempFile =
                tempfile::Builder::new().permissions(private).tempfile_in(folder)?;
            serde_json::to_writer_pretty(&mut file, &self.json)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| path.display().to_string())
    }
}

/// Gives a helper its input, which no list of processes shows.
fn run_helper(helper: &str, action: &str, input: &str) -> Result<()> {
    let mut child = Command::new(helper)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{helper}: cannot be run"))?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let status = child.wait().with_context(|| helper.to_owned())?;
    ensure!(status.success(), "{helper} {action} failed: {status}");
    match written {
        Some(Ok(())) => Ok(()),
        _ => bail!("{helper} {action} did not take its input"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, text: &str) -> Config {
        let path = dir.join("docker/config.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        Config::read(&path).unwrap()
    }

    #[test]
    fn other_content_stays_and_the_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"z": 1, "auths": {"b.org": {"auth": "eA=="}}, "a": {"k": [1, 2]}}"#;
        let mut config = config(dir.path(), text);
        config.auths().unwrap().insert("a.org".into(), json!({ "auth": "eQ==" }));
        config.write().unwrap();
        let written: Value = serde_json::from_slice(&fs::read(&config.path).unwrap()).unwrap();
        let auths = json!({ "b.org": { "auth": "eA==" }, "a.org": { "auth": "eQ==" } });
        assert_eq!(written, json!({ "z": 1, "auths": auths, "a": { "k": [1, 2] } }));
        let mode = fs::metadata(&config.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_helper_for_the_host_comes_before_the_one_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"credsStore": "pass", "credHelpers": {"a.org": "gcloud", "b.org": ""}}"#;
        let config = config(dir.path(), text);
        assert_eq!(config.helper("a.org").as_deref(), Some("docker-credential-gcloud"));
        assert_eq!(config.helper("b.org"), None);
        assert_eq!(config.helper("c.org").as_deref(), Some("docker-credential-pass"));
    }

    #[test]
    fn a_file_that_is_no_configuration_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, "[1]").unwrap();
        assert!(Config::read(&path).is_err());
        let mut config = config(dir.path(), r#"{"auths": 1}"#);
        assert!(config.auths().is_err());
    }

    #[test]
    fn credentials_are_not_shown() {
        let credentials = Credentials::Password { user: "me".into(), password: "hush".into() };
        let shown = format!("{credentials:?} {:?}", Credentials::IdentityToken("hush".into()));
        assert!(shown.contains("me") && !shown.contains("hush"), "{shown}");
        let host = "r.org".parse().unwrap();
        let header = credentials.basic(&host).unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header.to_str().unwrap(), "Basic bWU6aHVzaA==");
    }
}
