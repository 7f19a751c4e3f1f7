//! What `spinfer pull mlflow` takes: the URIs of MLflow, or a folder.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};

use super::paths;

/// Which model is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `models:/iris/3`: a version of a registered model.
    Version { name: String, version: u32 },
    /// `models:/iris@champion`: the version an alias points at.
    Alias { name: String, alias: String },
    /// `models:/iris/latest`: the version with the highest number.
    Latest { name: String },
    /// `models:/m-4fccab87...`: a logged model, by its id.
    LoggedModel { id: String },
    /// `runs:/<run id>/<path>`: the model a run logged, by its name or its artifact path.
    Run { id: String, path: String },
    /// `mlflow-artifacts:/<path>`: a folder of the server's artifact store.
    Artifacts { uri: String },
    /// A folder of this machine that holds an `MLmodel`.
    Folder(PathBuf),
}

/// What may be written, for messages.
const FORMS: &str = "write models:/<name>/<version>, models:/<name>@<alias>, models:/<name>/latest, \
                     models:/m-<model id>, runs:/<run id>/<name>, mlflow-artifacts:/<path>, or a folder \
                     that holds an MLmodel";

impl FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        ensure!(!text.is_empty(), "the source is empty; {FORMS}");
        ensure!(!text.contains(char::is_control), "the source holds a control character; {FORMS}");
        let Some((scheme, rest)) = split_scheme(text) else {
            return Ok(Self::Folder(PathBuf::from(text)));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "models" => model(text, rest),
            "runs" => run(text, rest),
            "mlflow-artifacts" => Ok(Self::Artifacts { uri: format!("mlflow-artifacts:{rest}") }),
            "file" => file(text),
            _ => bail!("{text}: spinfer does not read {scheme}: itself; {FORMS}"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { name, version } => write!(f, "models:/{name}/{version}"),
            Self::Alias { name, alias } => write!(f, "models:/{name}@{alias}"),
            Self::Latest { name } => write!(f, "models:/{name}/latest"),
            Self::LoggedModel { id } => write!(f, "models:/{id}"),
            Self::Run { id, path } if path.is_empty() => write!(f, "runs:/{id}"),
            Self::Run { id, path } => write!(f, "runs:/{id}/{path}"),
            Self::Artifacts { uri } => f.write_str(uri),
            Self::Folder(path) => path.display().fmt(f),
        }
    }
}

/// The scheme of a URI, and what comes after its colon. A path has none.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut letters = scheme.chars();
    let is_scheme = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    (is_scheme && rest.starts_with('/')).then_some((scheme, rest))
}

/// `rest` is what comes after `models:`, with its slash.
fn model(text: &str, rest: &str) -> Result<Source> {
    let path = rest.trim_start_matches('/');
    ensure!(
        rest.len() - path.len() == 1,
        "{text}: a model of another server than the tracking server is not supported; write \
         models:/<name>/<version>, with --tracking-uri"
    );
    let Some((name, suffix)) = path.trim_end_matches('/').split_once('/') else {
        return named(text, path.trim_end_matches('/'));
    };
    ensure!(!name.trim().is_empty(), "{text}: no model is named; {FORMS}");
    ensure!(!suffix.contains('/'), "{text}: a version has no folders; {FORMS}");
    let name = name.to_owned();
    if suffix.eq_ignore_ascii_case("latest") {
        return Ok(Source::Latest { name });
    }
    if suffix.bytes().all(|byte| byte.is_ascii_digit()) {
        let Ok(version) = suffix.parse() else { bail!("{text}: no version has that number") };
        return Ok(Source::Version { name, version });
    }
    bail!(
        "{text}: stages such as \"{suffix}\" are deprecated in MLflow, and are not supported; give the \
         version an alias, and write models:/{name}@<alias>, or models:/{name}/<version>"
    )
}

/// A model without a version: by an alias, or by its id.
fn named(text: &str, path: &str) -> Result<Source> {
    ensure!(!path.trim().is_empty(), "{text}: no model is named; {FORMS}");
    match path.rsplit_once('@') {
        Some((name, alias)) if !name.is_empty() && !alias.is_empty() => {
            Ok(Source::Alias { name: name.to_owned(), alias: alias.to_owned() })
        }
        Some(_) => bail!("{text}: a name or an alias is missing; write models:/<name>@<alias>"),
        None if path.starts_with("m-") => Ok(Source::LoggedModel { id: path.to_owned() }),
        None => bail!(
            "{text}: which version is not said; write models:/{path}/<version>, models:/{path}@<alias> \
             or models:/{path}/latest"
        ),
    }
}

/// `rest` is what comes after `runs:`, with its slash.
fn run(text: &str, rest: &str) -> Result<Source> {
    let path = rest.trim_start_matches('/');
    let (id, path) = path.split_once('/').unwrap_or((path, ""));
    ensure!(!id.is_empty(), "{text}: no run is named; {FORMS}");
    let path = path.trim_matches('/');
    if !path.is_empty() {
        paths::segments(path).map_err(|problem| anyhow::anyhow!("{text}: {problem}"))?;
    }
    Ok(Source::Run { id: id.to_owned(), path: path.to_owned() })
}

fn file(text: &str) -> Result<Source> {
    let path = reqwest::Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
    match path {
        Some(path) => Ok(Source::Folder(path)),
        None => bail!("{text}: not the path of a folder; {FORMS}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Source {
        text.parse().unwrap()
    }

    #[test]
    fn mlflow_uris_and_folders() {
        let name = || "iris".to_owned();
        assert_eq!(parse("models:/iris/3"), Source::Version { name: name(), version: 3 });
        assert_eq!(
            parse("models:/iris@champion"),
            Source::Alias { name: name(), alias: "champion".into() }
        );
        assert_eq!(parse("models:/iris/Latest"), Source::Latest { name: name() });
        assert_eq!(parse("models:/m-12ab"), Source::LoggedModel { id: "m-12ab".into() });
        assert_eq!(
            parse("runs:/ff50/sub/model/"),
            Source::Run { id: "ff50".into(), path: "sub/model".into() }
        );
        assert_eq!(parse("runs:/ff50"), Source::Run { id: "ff50".into(), path: String::new() });
        assert_eq!(
            parse("mlflow-artifacts:/1/models/x"),
            Source::Artifacts { uri: "mlflow-artifacts:/1/models/x".into() }
        );
        assert_eq!(parse("file:///tmp/a%20b"), Source::Folder("/tmp/a b".into()));
        for path in ["model", "./model", "/srv/m", "a:b", "C:model"] {
            assert_eq!(parse(path), Source::Folder(path.into()), "{path}");
        }
    }

    #[test]
    fn messages_say_what_to_write() {
        for (text, problem) in [
            ("", "is empty"),
            ("models:/", "no model is named"),
            ("models:/iris", "models:/iris/<version>"),
            ("models:/iris/Production", "models:/iris@<alias>"),
            ("models:/iris/1/2", "no folders"),
            ("models:/iris/99999999999", "no version has that number"),
            ("models:/@x", "is missing"),
            ("models://databricks/iris/1", "another server"),
            ("runs:/", "no run is named"),
            ("runs:/a/../../x", "leads out"),
            ("s3://bucket/x", "does not read s3:"),
            ("file://host/x", "not the path of a folder"),
        ] {
            let error = format!("{:#}", text.parse::<Source>().unwrap_err());
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_source_or_an_error(text in "(models|runs|file|x)?:?/?/?[a-z0-9@/. -]{0,16}") {
            if let Ok(source) = text.parse::<Source>() {
                let again: Source = source.to_string().parse().unwrap();
                // A folder keeps its spelling; `file:` is a path once it is read.
                prop_assert_eq!(source, again);
            }
        }

        #[test]
        fn names_come_back_as_they_were(name in "[a-zA-Z0-9_. -]{1,20}", version: u32) {
            prop_assume!(!name.trim().is_empty());
            let text = format!("models:/{name}/{version}");
            prop_assert_eq!(text.parse::<Source>().unwrap(), Source::Version { name, version });
        }
    }
}
