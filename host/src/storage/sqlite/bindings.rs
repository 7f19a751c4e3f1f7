//! Binds labels to databases, opens those of the components, and executes `--sqlite`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::sync::Semaphore;

use super::connection::{ComponentPermits, Database, SqliteConnection};
use super::file::open_file;
use super::{
    BUSY_TIMEOUT, DEFAULT, DatabaseConfig, MAX_ALL_CONNECTIONS, MAX_FILE, MAX_MEMORY,
    MAX_TRANSACTION, SqliteError,
};

/// File of the default database in the state folder, as in Spin.
const DEFAULT_FILE: &str = "sqlite_db.db";

/// The databases that the operator has bound, by label.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// Folder of the default database.
    pub folder: PathBuf,
    pub databases: BTreeMap<String, DatabaseConfig>,
}

/// The databases that one component is granted, by label.
#[derive(Debug, Default)]
pub struct ComponentDatabases {
    databases: HashMap<String, Arc<Database>>,
    permits: ComponentPermits,
}

impl ComponentDatabases {
    #[must_use]
    pub fn get(&self, label: &str) -> Option<&Arc<Database>> {
        self.databases.get(label)
    }

    /// Opens a connection to a database of this component.
    ///
    /// # Errors
    /// The file cannot be opened, or too many connections are open.
    pub async fn connect(&self, database: &Database) -> Result<SqliteConnection, SqliteError> {
        database.connect(&self.permits).await
    }
}

impl Bindings {
    /// The database to which `label` is bound. The default one needs no binding.
    #[must_use]
    pub fn get(&self, label: &str) -> Option<DatabaseConfig> {
        let default =
            || DatabaseConfig { path: self.folder.join(DEFAULT_FILE), max_size: MAX_FILE };
        let bound = self.databases.get(label).cloned();
        bound.or_else(|| (label == DEFAULT).then(default))
    }

    /// Opens the databases of the components, given by the labels of each. A file is created if it does
    /// not exist.
    ///
    /// # Errors
    /// A label is not bound, or a file cannot be used.
    pub fn open<'a>(
        &self,
        components: impl Iterator<Item = &'a [String]>,
    ) -> Result<Vec<ComponentDatabases>> {
        let connections = Arc::new(Semaphore::new(MAX_ALL_CONNECTIONS));
        let mut opened = BTreeMap::<&str, Arc<Database>>::new();
        let mut databases = |label: &'a String| {
            if let Some(database) = opened.get(label.as_str()) {
                return Ok((label.clone(), Arc::clone(database)));
            }
            let DatabaseConfig { path, max_size } =
                self.get(label).with_context(|| unbound(label))?;
            let path = create(label, &path, max_size)?;
            let connections = Arc::clone(&connections);
            let database = Arc::new(Database {
                path,
                max_size,
                max_transaction: MAX_TRANSACTION,
                connections,
            });
            opened.insert(label, Arc::clone(&database));
            Ok((label.clone(), database))
        };
        let components = components.map(|labels| {
            let databases = labels.iter().map(&mut databases).collect::<Result<_>>()?;
            Ok(ComponentDatabases { databases, permits: ComponentPermits::default() })
        });
        components.collect()
    }

    /// Executes the statements of `--sqlite`, in their order.
    ///
    /// # Errors
    /// A label is not bound, a file cannot be read, or a statement fails.
    pub fn execute(&self, statements: &[InitialStatements]) -> Result<()> {
        for InitialStatements { label, file, sql } in statements {
            let shown = file.as_ref().map_or_else(
                || format!("--sqlite \"{sql}\""),
                |file| format!("--sqlite @{}", file.display()),
            );
            let run = || {
                let DatabaseConfig { path, max_size } =
                    self.get(label).with_context(|| unbound(label))?;
                let path = create(label, &path, max_size)?;
                let sql = match file {
                    None => sql.clone(),
                    Some(file) => std::fs::read_to_string(file)?,
                };
                let connection = open_file(&path, max_size, BUSY_TIMEOUT, false)?;
                anyhow::Ok(connection.execute_batch(&sql)?)
            };
            run().with_context(|| format!("{shown}: database `{label}`"))?;
        }
        Ok(())
    }
}

/// Creates the file at `path` if it does not exist, and checks that it is a database. Returns the path
/// without symbolic links.
fn create(label: &str, path: &Path, max_size: u64) -> Result<PathBuf> {
    let create = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let connection = open_file(path, max_size, BUSY_TIMEOUT, true)?;
        // Of this process: it can be lowered later, not raised.
        connection.pragma_update_and_check(None, "hard_heap_limit", MAX_MEMORY, |_| Ok(()))?;
        anyhow::Ok(path.canonicalize()?)
    };
    create().with_context(|| {
        format!(
            "SQLite database `{label}`: {}: cannot be used; write another `path` in \
             [sqlite_database.{label}] of a --runtime-config-file",
            path.display()
        )
    })
}

/// The message for a label that is not bound.
#[must_use]
pub fn unbound(label: &str) -> String {
    format!(
        "no SQLite database is bound to \"{label}\"; write [sqlite_database.{label}] into a \
         --runtime-config-file, with type = \"spin\" and the `path` of a file"
    )
}

/// `--sqlite STATEMENT` or `--sqlite @FILE[:LABEL]`, as in Spin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialStatements {
    label: String,
    /// Where the statements are, if not in `sql`.
    file: Option<PathBuf>,
    sql: String,
}

impl std::str::FromStr for InitialStatements {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(location) = text.strip_prefix('@') else {
            return Ok(Self { label: DEFAULT.into(), file: None, sql: text.into() });
        };
        let (file, label) = location.split_once(':').unwrap_or((location, DEFAULT));
        let (file, label) = (file.trim(), label.trim());
        if file.is_empty() || label.is_empty() {
            bail!("write a statement, @FILE, or @FILE:LABEL for another database than `default`");
        }
        Ok(Self { label: label.into(), file: Some(file.into()), sql: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_is_a_statement_or_a_file_with_a_label() {
        let parsed = |text: &str| {
            let InitialStatements { label, file, sql } = text.parse().ok()?;
            Some((label, file, sql))
        };
        let file = |file: &str, label: &str| Some((label.into(), Some(file.into()), String::new()));
        assert_eq!(parsed("SELECT 1"), Some(("default".into(), None, "SELECT 1".into())));
        assert_eq!(parsed("@a.sql"), file("a.sql", "default"));
        assert_eq!(parsed("@dir/a.sql:users"), file("dir/a.sql", "users"));
        for text in ["@", "@:", "@a.sql:", "@:users"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
