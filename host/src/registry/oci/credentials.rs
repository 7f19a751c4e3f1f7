//! Credentials of registries, stored as Docker stores them: in `config.json` in `DOCKER_CONFIG` or
//! `~/.docker`, or by the credential helpers configured there. `docker login`, `oras login` and `spinfer
//! registry login` share them.

use std::env;
use std::fs::{self, DirBuilder};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
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

use super::error::OciError;
use super::reference::RegistryHost;
use super::sensitive_header::header_value;
use crate::process::atomic_file::{self, Existing};

/// Permissions of the file, which has passwords.
const PRIVATE: u32 = 0o600;
/// Timeout of a credential helper, which may prompt the user.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// Key of Docker Hub in the configuration.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// Output of a helper without credentials for a host.
const NOT_FOUND: &str = "credentials not found";

/// Credentials for a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryCredentials {
    Password {
        user: String,
        password: String,
    },
    /// A refresh token, exchanged for an access token.
    IdentityToken(String),
}

/// Omits the secrets.
impl std::fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
            Self::IdentityToken(_) => f.debug_struct("IdentityToken").finish_non_exhaustive(),
        }
    }
}

impl RegistryCredentials {
    /// The `Authorization: Basic` header for `host`.
    pub(super) fn basic(&self, host: &RegistryHost) -> Result<HeaderValue, OciError> {
        let (user, password) = match self {
            Self::Password { user, password } => (user.as_str(), password.as_str()),
            // The user name is the convention of registries that issue such tokens.
            Self::IdentityToken(token) => ("<token>", token.as_str()),
        };
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        header_value(&format!("Basic {encoded}"), host.as_str())
    }

    /// The stored credentials for `host`, if there are any.
    ///
    /// # Errors
    /// If the configuration is damaged or a credential helper fails.
    pub fn find(host: &RegistryHost) -> Result<Option<Self>> {
        let Some(path) = config_path().filter(|path| path.exists()) else { return Ok(None) };
        let server = server(host);
        let requested = server.clone();
        let (send, receive) = mpsc::channel();
        // On a thread of its own: a helper is an external program that may hang.
        std::thread::Builder::new().name("credentials".into()).spawn(move || {
            // After the timeout, the receiver is dropped.
            let _ = send.send(docker_credential::get_credential(&requested));
        })?;
        let found = receive.recv_timeout(HELPER_TIMEOUT);
        let found = found.map_err(|_| {
            anyhow!("the credential helper for {server} did not respond within {HELPER_TIMEOUT:?}")
        });
        let problem = |problem: String| anyhow!("{}: {problem}", path.display());
        match found.with_context(|| path.display().to_string())? {
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                Ok(Some(Self::Password { user, password }))
            }
            Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Self::IdentityToken(token))),
            Err(Failure::NoCredentialConfigured | Failure::ConfigNotFound) => Ok(None),
            // The output may contain a secret: it is not shown.
            Err(Failure::HelperFailure { stdout, stderr, .. })
                if stdout.contains(NOT_FOUND) || stderr.contains(NOT_FOUND) =>
            {
                Ok(None)
            }
            Err(Failure::HelperFailure { helper, .. }) => {
                Err(problem(format!("{helper} failed for {server}")))
            }
            Err(Failure::HelperCommunicationError) => {
                Err(problem(format!("the credential helper for {server} cannot be run")))
            }
            Err(Failure::MalformedHelperResponse) => {
                Err(problem(format!("the credential helper for {server} returned no credentials")))
            }
            Err(Failure::CredentialDecodingError | Failure::CredentialMismatchError) => {
                Err(problem(format!("auths.{server:?} is damaged; log in again")))
            }
            Err(Failure::ConfigReadError) => Err(problem("is not a Docker configuration".into())),
        }
    }
}

/// Path of Docker's configuration.
#[must_use]
pub fn config_path() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(folder.join("config.json"))
}

/// The key of `host` in the configuration.
fn server(host: &RegistryHost) -> String {
    match host.as_str() {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        host => host.to_owned(),
    }
}

/// The location of stored credentials.
#[derive(Debug, PartialEq, Eq)]
pub enum CredentialLocation {
    File(PathBuf),
    /// A credential helper, by the name of its program.
    Helper(String),
}

/// Stores credentials for `host`, with the configured helper or in the file.
///
/// # Errors
/// If the helper fails or the file cannot be written.
pub fn store(host: &RegistryHost, user: &str, password: &str) -> Result<CredentialLocation> {
    let path = config_path().context("neither DOCKER_CONFIG nor HOME is set")?;
    let server = server(host);
    let mut config = DockerConfig::read(&path)?;
    if let Some(helper) = config.helper(&server) {
        let entry = json!({ "ServerURL": server, "Username": user, "Secret": password });
        run_helper(&helper, "store", &entry.to_string())?;
        return Ok(CredentialLocation::Helper(helper));
    }
    let auth = STANDARD.encode(format!("{user}:{password}"));
    config.auths()?.insert(server, json!({ "auth": auth }));
    config.write()?;
    Ok(CredentialLocation::File(path))
}

/// Removes the credentials for `host`; `None` if there were none.
///
/// # Errors
/// If the helper fails or the file cannot be written.
pub fn remove(host: &RegistryHost) -> Result<Option<CredentialLocation>> {
    let path = config_path().context("neither DOCKER_CONFIG nor HOME is set")?;
    let server = server(host);
    let mut config = DockerConfig::read(&path)?;
    if let Some(helper) = config.helper(&server) {
        run_helper(&helper, "erase", &server)?;
        return Ok(Some(CredentialLocation::Helper(helper)));
    }
    if config.auths()?.remove(&server).is_none() {
        return Ok(None);
    }
    config.write()?;
    Ok(Some(CredentialLocation::File(path)))
}

/// Docker's configuration, including the parts that are not used here.
struct DockerConfig {
    path: PathBuf,
    json: Map<String, Value>,
}

impl DockerConfig {
    fn read(path: &Path) -> Result<Self> {
        let json = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| {
                anyhow!("{}: is not a JSON object; fix or delete it", path.display())
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Ok(Self { path: path.to_owned(), json })
    }

    /// The credential helper for `server`.
    fn helper(&self, server: &str) -> Option<String> {
        let own = self.json.get("credHelpers").and_then(|helpers| helpers.get(server));
        let name = own.or_else(|| self.json.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| format!("docker-credential-{name}"))
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>> {
        let auths = self.json.entry("auths").or_insert_with(|| json!({}));
        let path = self.path.display();
        auths.as_object_mut().with_context(|| format!("{path}: `auths` is not an object; fix it"))
    }

    /// Writes the file.
    fn write(&self) -> Result<()> {
        // A symbolic link is followed, not replaced.
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().context("a file is in a folder")?;
        let write = || -> Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let mut text = serde_json::to_vec_pretty(&self.json)?;
            text.push(b'\n');
            Ok(atomic_file::write(&path, &text, PRIVATE, Existing::Replace)?)
        };
        write().with_context(|| path.display().to_string())
    }
}

/// Runs a helper; the input is passed on standard input, as arguments are visible to other users.
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
        _ => bail!("{helper} {action} did not read its input"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(dir: &Path, text: &str) -> DockerConfig {
        let path = dir.join("docker/config.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        DockerConfig::read(&path).unwrap()
    }

    #[test]
    fn other_keys_are_preserved_and_the_file_is_private() {
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
    fn helper_of_the_host_takes_precedence_over_the_default_one() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"credsStore": "pass", "credHelpers": {"a.org": "gcloud", "b.org": ""}}"#;
        let config = config(dir.path(), text);
        assert_eq!(config.helper("a.org").as_deref(), Some("docker-credential-gcloud"));
        assert_eq!(config.helper("b.org"), None);
        assert_eq!(config.helper("c.org").as_deref(), Some("docker-credential-pass"));
    }

    #[test]
    fn invalid_configuration_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, "[1]").unwrap();
        assert!(DockerConfig::read(&path).is_err());
        let mut config = config(dir.path(), r#"{"auths": 1}"#);
        assert!(config.auths().is_err());
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let credentials =
            RegistryCredentials::Password { user: "me".into(), password: "hush".into() };
        let shown =
            format!("{credentials:?} {:?}", RegistryCredentials::IdentityToken("hush".into()));
        assert!(shown.contains("me") && !shown.contains("hush"), "{shown}");
        let host = "r.org".parse().unwrap();
        let header = credentials.basic(&host).unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header.to_str().unwrap(), "Basic bWU6aHVzaA==");
    }
}
