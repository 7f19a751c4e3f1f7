//! The sources of the values of an application's variables.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

/// Default prefix of the environment variables that contain values.
pub const PREFIX: &str = "SPIN_VARIABLE";

/// A source of values: a map of variables' names, in lower case, to values.
#[derive(Default)]
pub struct Provider(HashMap<String, String>);

/// Shows names only: values may be secret.
impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Provider {
    /// A provider of the given values.
    pub fn fixed(values: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(values.into_iter().collect())
    }

    /// The values of `--variable` flags, each of them `name=value`, `name=@file` for a file's whole
    /// text, or `@file.json` or `@file.toml` for a table of values. Of equal names the last one
    /// wins.
    ///
    /// # Errors
    /// Names an invalid flag or file, without values.
    pub fn flags(flags: &[String]) -> Result<Self> {
        let mut values = HashMap::new();
        for flag in flags {
            match (flag.strip_prefix('@'), flag.split_once('=')) {
                (Some(path), _) => values.extend(read_table(Path::new(path))?),
                (None, Some((name, value))) => {
                    let value = match value.strip_prefix('@') {
                        None => value.to_owned(),
                        Some(path) => read(Path::new(path))?,
                    };
                    values.insert(name.to_owned(), value);
                }
                (None, None) => bail!(
                    "--variable: write `name=value`, `name=@file`, `@file.json` or `@file.toml`"
                ),
            }
        }
        Ok(Self(values))
    }

    /// The variables of `environment` that start with `prefix` and an underscore; all, if `prefix`
    /// is empty.
    pub fn environment(
        prefix: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let values = environment.into_iter().filter_map(|(name, value)| {
            let name = match prefix {
                "" => name.as_str(),
                _ => name.strip_prefix(prefix)?.strip_prefix('_')?,
            };
            Some((name.to_ascii_lowercase(), value))
        });
        Self(values.collect())
    }

    /// The variables of a file in the form of `.env` (lines of `NAME=value`) that start with `prefix`
    /// and an underscore; all, if `prefix` is empty.
    ///
    /// # Errors
    /// Names the file, without its text.
    pub fn dotenv(prefix: &str, path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|_| anyhow!("{}: cannot be read", path.display()))?;
        Self::lines(prefix, file).with_context(|| path.display().to_string())
    }

    pub(crate) fn lines(prefix: &str, text: impl Read) -> Result<Self> {
        let lines = dotenvy::from_read_iter(text);
        // The library's error would repeat the line, which may hold a secret.
        let values = lines.collect::<Result<Vec<_>, _>>().map_err(|_| {
            anyhow!(
                "a line is not `NAME=value`; put a value that contains blanks or quotes in quotes"
            )
        })?;
        Ok(Self::environment(prefix, values))
    }

    /// These values, and those of `others` under other names.
    #[must_use]
    pub fn over(self, mut others: Self) -> Self {
        others.0.extend(self.0);
        others
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&String> {
        self.0.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }
}

/// Reads a table of values in JSON or TOML. An error does not repeat the text, which may be secret.
fn read_table(path: &Path) -> Result<Vec<(String, String)>> {
    let text = read(path)?;
    let strings: Option<Vec<_>> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => {
            let table: serde_json::Map<_, _> = serde_json::from_str(&text).map_err(|e| {
                anyhow!("{}: not a JSON object, at line {}", path.display(), e.line())
            })?;
            table
                .into_iter()
                .map(|(name, value)| Some((name, value.as_str()?.to_owned())))
                .collect()
        }
        Some("toml") => {
            let table: toml::Table = toml::from_str(&text)
                .map_err(|e| anyhow!("{}: not TOML: {}", path.display(), e.message()))?;
            table
                .into_iter()
                .map(|(name, value)| Some((name, value.as_str()?.to_owned())))
                .collect()
        }
        _ => bail!(
            "--variable: @{} must end in .json or .toml; write `name=@file` for one variable",
            path.display()
        ),
    };
    strings.with_context(|| format!("{}: every value must be a string", path.display()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("--variable: {}", path.display()))
}

/// The variables of a component, with templates resolved.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(Vec<(String, String)>);

/// Shows names only: values may be secret.
impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl Deref for Variables {
    type Target = [(String, String)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(flags: &[&str]) -> Result<Provider, String> {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Provider::flags(&flags).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn flag_is_a_value_a_file_or_a_table_of_values() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let text = write("text", "a\nb=c\n");
        let json = write("v.json", r#"{"one": "1", "two": "2"}"#);
        let toml = write("v.toml", "two = 'II'\nthree = 'III'");
        let given = [
            "four=4=4".to_owned(),
            format!("five=@{text}"),
            format!("@{json}"),
            format!("@{toml}"),
            "empty=".into(),
        ];
        let values = Provider::flags(&given).unwrap();
        for (name, value) in [
            ("one", "1"),
            ("two", "II"),
            ("three", "III"),
            ("four", "4=4"),
            ("five", "a\nb=c\n"),
            ("empty", ""),
        ] {
            assert_eq!(values.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn error_does_not_repeat_values() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        for (flag, part) in [
            ("hush".to_owned(), "write `name=value`"),
            (format!("@{}", write("a.json", "{\"token\": 7777777}")), "must be a string"),
            (format!("@{}", write("b.json", "[\"hush\"]")), "not a JSON object, at line 1"),
            (format!("@{}", write("c.toml", "token = 7777777")), "must be a string"),
            (format!("@{}", write("d.toml", "token = hush")), "not TOML"),
            (format!("@{}", write("e.txt", "hush")), "must end in .json or .toml"),
            ("a=@/nowhere".into(), "/nowhere"),
        ] {
            let error = flags(&[&flag]).unwrap_err();
            assert!(error.contains(part), "{flag}: {error}");
            assert!(!error.contains("hush") && !error.contains("7777777"), "{error}");
        }
        let path = dir.path().join(".env");
        std::fs::write(&path, "SPIN_VARIABLE_TOKEN='hush").unwrap();
        let error = format!("{:#}", Provider::dotenv(PREFIX, &path).unwrap_err());
        assert!(error.contains("not `NAME=value`") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn environment_and_dotenv_are_read_by_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        std::fs::write(&path, "# of tests\nSPIN_VARIABLE_API_TOKEN=\"a b\"\nOTHER=1\n").unwrap();
        let values = Provider::dotenv(PREFIX, &path).unwrap();
        assert_eq!(values.names().collect::<Vec<_>>(), ["api_token"]);
        assert_eq!(values.get("api_token").unwrap(), "a b");
        let environment = [("P_A".to_owned(), "1".to_owned()), ("PB".into(), "2".into())];
        let values = Provider::environment("", environment.clone());
        assert_eq!((values.get("p_a").unwrap().as_str(), values.names().count()), ("1", 2));
        let values = Provider::environment("P", environment);
        assert_eq!(values.names().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn values_are_not_in_debug_output() {
        let variables: Variables = [("name".to_owned(), "hush".to_owned())].into_iter().collect();
        assert_eq!(format!("{variables:?}"), r#"{"name"}"#);
        let provider = Provider::fixed(variables.to_vec());
        assert_eq!(format!("{provider:?}"), r#"{"name"}"#);
    }
}
