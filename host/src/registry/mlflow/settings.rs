//! Where the tracking server is and how to sign in, as MLflow's own clients are told.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Url;

/// Where the tracking server is.
pub const TRACKING_URI: &str = "MLFLOW_TRACKING_URI";
/// Makes MLflow's clients take any certificate. Not honoured here.
pub const INSECURE_TLS: &str = "MLFLOW_TRACKING_INSECURE_TLS";
const USERNAME: &str = "MLFLOW_TRACKING_USERNAME";
const PASSWORD: &str = "MLFLOW_TRACKING_PASSWORD";
const TOKEN: &str = "MLFLOW_TRACKING_TOKEN";
const TIMEOUT: &str = "MLFLOW_HTTP_REQUEST_TIMEOUT";

/// For how long a server may send nothing, unless `MLFLOW_HTTP_REQUEST_TIMEOUT` says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// A tracking server as the command line and the environment name it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Without user and password.
    pub base: Url,
    pub credentials: Credentials,
    /// For how long the server may send nothing.
    pub timeout: Duration,
}

/// How to sign in.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    None,
    Basic { username: String, password: String },
    Bearer(String),
}

/// What is secret stays so in logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Basic { .. } => "basic",
            Self::Bearer(_) => "bearer",
        })
    }
}

impl Settings {
    /// From `--tracking-uri`, if it is given, and the environment.
    pub fn read(given: Option<&str>, environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name| environment(name).filter(|value: &String| !value.is_empty());
        let (text, from) = match given {
            Some(text) => (text.to_owned(), "--tracking-uri"),
            None => match variable(TRACKING_URI) {
                Some(text) => (text, TRACKING_URI),
                None => bail!(
                    "no tracking server is named; write --tracking-uri http://localhost:5000, or set \
                     {TRACKING_URI}"
                ),
            },
        };
        let mut base = parse(&text).with_context(|| from.to_owned())?;
        let credentials = credentials(&base, &variable)?;
        // Nothing of it may be shown, and it goes into a header.
        let cleared = base.set_username("").and_then(|()| base.set_password(None));
        cleared.map_err(|()| anyhow::anyhow!("{from}: a user has no place in this URL"))?;
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

/// The URL; an error does not repeat it, as it may hold a password.
fn parse(text: &str) -> Result<Url> {
    let base = Url::parse(text.trim())
        .context("not the URL of a tracking server; write http://localhost:5000")?;
    ensure!(
        matches!(base.scheme(), "http" | "https"),
        "{}: is not supported: a tracking server is reached over http or https; start one with `mlflow \
         server`, or name the model's folder itself",
        base.scheme()
    );
    ensure!(
        base.query().is_none() && base.fragment().is_none(),
        "a tracking server's URL has no ? and no #; write http://localhost:5000"
    );
    Ok(base)
}

/// As in MLflow: a user before a token. What the URL says comes first.
fn credentials(
    base: &Url,
    variable: &impl Fn(&'static str) -> Option<String>,
) -> Result<Credentials> {
    if !base.username().is_empty() {
        return Ok(Credentials::Basic {
            username: decode(base.username()),
            password: decode(base.password().unwrap_or_default()),
        });
    }
    match (variable(USERNAME), variable(PASSWORD), variable(TOKEN)) {
        (Some(username), Some(password), _) => Ok(Credentials::Basic { username, password }),
        (Some(_), None, None) => bail!("{USERNAME} is set, and {PASSWORD} is not"),
        (None, Some(_), None) => bail!("{PASSWORD} is set, and {USERNAME} is not"),
        (_, _, Some(token)) => Ok(Credentials::Bearer(token)),
        (None, None, None) => Ok(Credentials::None),
    }
}

/// A part of a URL as it was before it was written into one.
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

    fn read(given: Option<&str>, environment: &[(&str, &str)]) -> Result<Settings> {
        Settings::read(given, |name| {
            let found = environment.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_flag_comes_before_the_environment() {
        let environment = [(TRACKING_URI, "http://b:1/x/"), (TIMEOUT, "7")];
        let settings = read(Some("http://a:2"), &environment).unwrap();
        assert_eq!(settings.base.as_str(), "http://a:2/");
        let settings = read(None, &environment).unwrap();
        assert_eq!(settings.base.as_str(), "http://b:1/x/");
        assert_eq!(settings.timeout, Duration::from_secs(7));
        assert_eq!(settings.credentials, Credentials::None);
    }

    #[test]
    fn credentials_are_of_the_url_or_of_the_environment() {
        let user = [(USERNAME, "u"), (PASSWORD, "p"), (TOKEN, "t")];
        let basic = |username: &str, password: &str| Credentials::Basic {
            username: username.into(),
            password: password.into(),
        };
        assert_eq!(read(Some("http://a"), &user).unwrap().credentials, basic("u", "p"));
        let settings = read(Some("http://x%40y:p%25q%@a:5/"), &user).unwrap();
        assert_eq!(settings.credentials, basic("x@y", "p%q%"));
        assert_eq!(settings.base.as_str(), "http://a:5/");
        let token = [(TOKEN, "t")];
        let credentials = read(Some("http://a"), &token).unwrap().credentials;
        assert_eq!(credentials, Credentials::Bearer("t".into()));
        assert_eq!(format!("{credentials:?}"), "bearer");
    }

    #[test]
    fn messages_say_what_to_set_and_no_secret() {
        for (given, environment, problem) in [
            (None, vec![], "--tracking-uri http://localhost:5000"),
            (Some("sqlite:///secret"), vec![], "sqlite: is not supported"),
            (Some("secret"), vec![], "not the URL"),
            (Some("http://a/?secret"), vec![], "has no ?"),
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
