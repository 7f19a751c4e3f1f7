//! URL and credentials of the tracking server, configured as for MLflow's own clients.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Url;

/// Variable with the URL of the tracking server.
pub const TRACKING_URI: &str = "MLFLOW_TRACKING_URI";
/// Variable that disables certificate verification in MLflow's clients. Not honoured here.
pub const INSECURE_TLS: &str = "MLFLOW_TRACKING_INSECURE_TLS";
const USERNAME: &str = "MLFLOW_TRACKING_USERNAME";
const PASSWORD: &str = "MLFLOW_TRACKING_PASSWORD";
const TOKEN: &str = "MLFLOW_TRACKING_TOKEN";
const TIMEOUT: &str = "MLFLOW_HTTP_REQUEST_TIMEOUT";

/// Default of `MLFLOW_HTTP_REQUEST_TIMEOUT`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The tracking server of the command line and the environment.
#[derive(Clone, Debug)]
pub struct MlflowSettings {
    /// URL without user and password.
    pub base: Url,
    pub credentials: MlflowCredentials,
    /// Maximum time without data from the server.
    pub timeout: Duration,
}

/// Credentials for the tracking server.
#[derive(Clone, PartialEq, Eq)]
pub enum MlflowCredentials {
    None,
    Basic { username: String, password: String },
    Bearer(String),
}

/// Omits the secrets.
impl fmt::Debug for MlflowCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Basic { .. } => "basic",
            Self::Bearer(_) => "bearer",
        })
    }
}

impl MlflowSettings {
    /// Reads `--tracking-uri`, if it is given, and the environment.
    ///
    /// # Errors
    /// If no server is set, or a value is invalid.
    pub fn read(given: Option<&str>, environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name| environment(name).filter(|value: &String| !value.is_empty());
        let (text, from) = match given {
            Some(text) => (text.to_owned(), "--tracking-uri"),
            None => match variable(TRACKING_URI) {
                Some(text) => (text, TRACKING_URI),
                None => bail!(
                    "no tracking server is set; pass --tracking-uri http://localhost:5000, or set \
                     {TRACKING_URI}"
                ),
            },
        };
        let mut base = parse(&text).with_context(|| from.to_owned())?;
        let credentials = credentials(&base, &variable)?;
        // The credentials are sent in a header, and must not appear in messages.
        let cleared = base.set_username("").and_then(|()| base.set_password(None));
        cleared.map_err(|()| anyhow::anyhow!("{from}: this URL cannot contain a user"))?;
        let timeout = match variable(TIMEOUT) {
            Some(seconds) => {
                let seconds: u64 =
                    seconds.trim().parse().ok().filter(|&s| s > 0).with_context(|| {
                        format!(
                            "{TIMEOUT}: expected a number of seconds, 1 or more, got {seconds:?}"
                        )
                    })?;
                Duration::from_secs(seconds)
            }
            None => DEFAULT_TIMEOUT,
        };
        Ok(Self { base, credentials, timeout })
    }
}

/// Parses the URL. Errors do not quote it, as it may contain a password.
fn parse(text: &str) -> Result<Url> {
    let base = Url::parse(text.trim())
        .context("not the URL of a tracking server; write http://localhost:5000")?;
    ensure!(
        matches!(base.scheme(), "http" | "https"),
        "{}: URLs are not supported, only http and https; start a tracking server with `mlflow server`, \
         or pass the model's folder",
        base.scheme()
    );
    ensure!(
        base.query().is_none() && base.fragment().is_none(),
        "the URL of a tracking server cannot contain ? or #; write http://localhost:5000"
    );
    Ok(base)
}

/// The credentials of the URL, or else a user, or else a token, as in MLflow.
fn credentials(
    base: &Url,
    variable: &impl Fn(&'static str) -> Option<String>,
) -> Result<MlflowCredentials> {
    if !base.username().is_empty() {
        return Ok(MlflowCredentials::Basic {
            username: decode(base.username()),
            password: decode(base.password().unwrap_or_default()),
        });
    }
    match (variable(USERNAME), variable(PASSWORD), variable(TOKEN)) {
        (Some(username), Some(password), _) => Ok(MlflowCredentials::Basic { username, password }),
        (Some(_), None, None) => bail!("{USERNAME} is set, but {PASSWORD} is not; set both"),
        (None, Some(_), None) => bail!("{PASSWORD} is set, but {USERNAME} is not; set both"),
        (_, _, Some(token)) => Ok(MlflowCredentials::Bearer(token)),
        (None, None, None) => Ok(MlflowCredentials::None),
    }
}

/// Percent-decodes a part of a URL.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: Option<&str>, environment: &[(&str, &str)]) -> Result<MlflowSettings> {
        MlflowSettings::read(given, |name| {
            let found = environment.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn flag_takes_precedence_over_the_environment() {
        let environment = [(TRACKING_URI, "http://b:1/x/"), (TIMEOUT, "7")];
        let settings = read(Some("http://a:2"), &environment).unwrap();
        assert_eq!(settings.base.as_str(), "http://a:2/");
        let settings = read(None, &environment).unwrap();
        assert_eq!(settings.base.as_str(), "http://b:1/x/");
        assert_eq!(settings.timeout, Duration::from_secs(7));
        assert_eq!(settings.credentials, MlflowCredentials::None);
    }

    #[test]
    fn credentials_come_from_the_url_or_the_environment() {
        let user = [(USERNAME, "u"), (PASSWORD, "p"), (TOKEN, "t")];
        let basic = |username: &str, password: &str| MlflowCredentials::Basic {
            username: username.into(),
            password: password.into(),
        };
        assert_eq!(read(Some("http://a"), &user).unwrap().credentials, basic("u", "p"));
        let settings = read(Some("http://x%40y:p%25q%@a:5/"), &user).unwrap();
        assert_eq!(settings.credentials, basic("x@y", "p%q%"));
        assert_eq!(settings.base.as_str(), "http://a:5/");
        let token = [(TOKEN, "t")];
        let credentials = read(Some("http://a"), &token).unwrap().credentials;
        assert_eq!(credentials, MlflowCredentials::Bearer("t".into()));
        assert_eq!(format!("{credentials:?}"), "bearer");
    }

    #[test]
    fn messages_name_the_fix_and_contain_no_secret() {
        for (given, environment, problem) in [
            (None, vec![], "--tracking-uri http://localhost:5000"),
            (Some("sqlite:///secret"), vec![], "sqlite: URLs are not supported"),
            (Some("secret"), vec![], "not the URL"),
            (Some("http://a/?secret"), vec![], "cannot contain ?"),
            (Some("http://a"), vec![(USERNAME, "secret")], "MLFLOW_TRACKING_PASSWORD is not"),
            (Some("http://a"), vec![(PASSWORD, "secret")], "MLFLOW_TRACKING_USERNAME is not"),
            (Some("http://a"), vec![(TIMEOUT, "0")], "a number of seconds"),
        ] {
            let error = format!("{:#}", read(given, &environment).unwrap_err());
            assert!(error.contains(problem), "{given:?}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
