//! Sources of `spinfer pull mlflow`: MLflow URIs and folders.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};

use super::paths;

/// The location of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// `models:/iris/3`: a version of a registered model.
    Version { name: String, version: u32 },
    /// `models:/iris@champion`: the version of an alias.
    Alias { name: String, alias: String },
    /// `models:/iris/latest`: the version with the highest number.
    Latest { name: String },
    /// `models:/m-4fccab87...`: a logged model, by id.
    LoggedModel { id: String },
    /// `runs:/<run id>/<path>`: a model logged by a run, by name or artifact path.
    Run { id: String, path: String },
    /// `mlflow-artifacts:/<path>`: a folder of the server's artifact store.
    Artifacts { uri: String },
    /// A local folder with an `MLmodel` file.
    Folder(PathBuf),
}

/// The valid forms, for messages.
const FORMS: &str = "write models:/<name>/<version>, models:/<name>@<alias>, models:/<name>/latest, \
                     models:/m-<model id>, runs:/<run id>/<name>, mlflow-artifacts:/<path>, or a folder \
                     with an MLmodel file";

impl FromStr for ModelSource {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        ensure!(!text.is_empty(), "the source is empty; {FORMS}");
        ensure!(
            !text.contains(char::is_control),
            "the source contains a control character; {FORMS}"
        );
        let Some((scheme, rest)) = split_scheme(text) else {
            return Ok(Self::Folder(PathBuf::from(text)));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "models" => model(text, rest),
            "runs" => run(text, rest),
            "mlflow-artifacts" => Ok(Self::Artifacts { uri: format!("mlflow-artifacts:{rest}") }),
            "file" => file(text),
            _ => bail!("{text}: spinfer does not read {scheme}: URIs; {FORMS}"),
        }
    }
}

impl fmt::Display for ModelSource {
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

/// The scheme of a URI and the rest after its colon; `None` for a path.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut letters = scheme.chars();
    let is_scheme = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    (is_scheme && rest.starts_with('/')).then_some((scheme, rest))
}

/// Parses the `rest` after `models:`, which includes the slash.
fn model(text: &str, rest: &str) -> Result<ModelSource> {
    let path = rest.trim_start_matches('/');
    ensure!(
        rest.len() - path.len() == 1,
        "{text}: only models of the tracking server are supported; write models:/<name>/<version>, with \
         --tracking-uri"
    );
    let Some((name, suffix)) = path.trim_end_matches('/').split_once('/') else {
        return named(text, path.trim_end_matches('/'));
    };
    ensure!(!name.trim().is_empty(), "{text}: the name of the model is missing; {FORMS}");
    ensure!(!suffix.contains('/'), "{text}: a version cannot have a path; {FORMS}");
    let name = name.to_owned();
    if suffix.eq_ignore_ascii_case("latest") {
        return Ok(ModelSource::Latest { name });
    }
    if suffix.bytes().all(|byte| byte.is_ascii_digit()) {
        let Ok(version) = suffix.parse() else { bail!("{text}: the version number is too large") };
        return Ok(ModelSource::Version { name, version });
    }
    bail!(
        "{text}: stages such as \"{suffix}\" are deprecated in MLflow and not supported; set an alias \
         and write models:/{name}@<alias>, or write models:/{name}/<version>"
    )
}

/// Parses a model without a version: by alias, or by id.
fn named(text: &str, path: &str) -> Result<ModelSource> {
    ensure!(!path.trim().is_empty(), "{text}: the name of the model is missing; {FORMS}");
    match path.rsplit_once('@') {
        Some((name, alias)) if !name.is_empty() && !alias.is_empty() => {
            Ok(ModelSource::Alias { name: name.to_owned(), alias: alias.to_owned() })
        }
        Some(_) => bail!("{text}: the name or the alias is missing; write models:/<name>@<alias>"),
        None if path.starts_with("m-") => Ok(ModelSource::LoggedModel { id: path.to_owned() }),
        None => bail!(
            "{text}: the version is missing; write models:/{path}/<version>, models:/{path}@<alias> or \
             models:/{path}/latest"
        ),
    }
}

/// Parses the `rest` after `runs:`, which includes the slash.
fn run(text: &str, rest: &str) -> Result<ModelSource> {
    let path = rest.trim_start_matches('/');
    let (id, path) = path.split_once('/').unwrap_or((path, ""));
    ensure!(!id.is_empty(), "{text}: the id of the run is missing; {FORMS}");
    let path = path.trim_matches('/');
    if !path.is_empty() {
        paths::segments(path).map_err(|problem| anyhow::anyhow!("{text}: {problem}"))?;
    }
    Ok(ModelSource::Run { id: id.to_owned(), path: path.to_owned() })
}

fn file(text: &str) -> Result<ModelSource> {
    let path = reqwest::Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
    match path {
        Some(path) => Ok(ModelSource::Folder(path)),
        None => bail!("{text}: not the path of a local folder; {FORMS}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> ModelSource {
        text.parse().unwrap()
    }

    #[test]
    fn mlflow_uris_and_folders_are_parsed() {
        let name = || "iris".to_owned();
        assert_eq!(parse("models:/iris/3"), ModelSource::Version { name: name(), version: 3 });
        assert_eq!(
            parse("models:/iris@champion"),
            ModelSource::Alias { name: name(), alias: "champion".into() }
        );
        assert_eq!(parse("models:/iris/Latest"), ModelSource::Latest { name: name() });
        assert_eq!(parse("models:/m-12ab"), ModelSource::LoggedModel { id: "m-12ab".into() });
        assert_eq!(
            parse("runs:/ff50/sub/model/"),
            ModelSource::Run { id: "ff50".into(), path: "sub/model".into() }
        );
        assert_eq!(
            parse("runs:/ff50"),
            ModelSource::Run { id: "ff50".into(), path: String::new() }
        );
        assert_eq!(
            parse("mlflow-artifacts:/1/models/x"),
            ModelSource::Artifacts { uri: "mlflow-artifacts:/1/models/x".into() }
        );
        assert_eq!(parse("file:///tmp/a%20b"), ModelSource::Folder("/tmp/a b".into()));
        for path in ["model", "./model", "/srv/m", "a:b", "C:model"] {
            assert_eq!(parse(path), ModelSource::Folder(path.into()), "{path}");
        }
    }

    #[test]
    fn invalid_sources_are_refused_with_the_fix() {
        for (text, problem) in [
            ("", "is empty"),
            ("models:/", "the name of the model is missing"),
            ("models:/iris", "models:/iris/<version>"),
            ("models:/iris/Production", "models:/iris@<alias>"),
            ("models:/iris/1/2", "cannot have a path"),
            ("models:/iris/99999999999", "too large"),
            ("models:/@x", "is missing"),
            ("models://databricks/iris/1", "only models of the tracking server"),
            ("runs:/", "the id of the run is missing"),
            ("runs:/a/../../x", "leads out"),
            ("s3://bucket/x", "does not read s3:"),
            ("file://host/x", "not the path of a local folder"),
        ] {
            let error = format!("{:#}", text.parse::<ModelSource>().unwrap_err());
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn valid_sources_round_trip(text in "(models|runs|file|x)?:?/?/?[a-z0-9@/. -]{0,16}") {
            if let Ok(source) = text.parse::<ModelSource>() {
                let again: ModelSource = source.to_string().parse().unwrap();
                // A folder is displayed as given; a `file:` URI becomes a path.
                prop_assert_eq!(source, again);
            }
        }

        #[test]
        fn names_of_models_are_preserved(name in "[a-zA-Z0-9_. -]{1,20}", version: u32) {
            prop_assume!(!name.trim().is_empty());
            let text = format!("models:/{name}/{version}");
            prop_assert_eq!(text.parse::<ModelSource>().unwrap(), ModelSource::Version { name, version });
        }
    }
}
