//! Recovery of a damaged file: what can be read of it is copied into a new file, which replaces it.
//! The damaged file is kept under another name. SQLite checks the structure of pages, not their
//! content: values that were changed on the disk, and are still values of their column, are copied
//! unchanged.
//!
//! A crash at any moment leaves either the damaged file in place, or a complete new one: the damaged
//! file is renamed only when the new one is complete ([`adopt`]).

mod gaps;
mod table;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};
use tracing::warn;

use super::epochs;
use super::schema::{self, SchemaError};
use table::TableCopy;

/// Time after which the rest of a damaged file is given up. A file of the default maximum size takes
/// about half of it.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time for the check of a file when it is opened: a file of some hundred megabytes is checked as a
/// whole.
const CHECK: Duration = Duration::from_secs(1);
/// Number of instructions of SQLite's virtual machine between two looks at the clock.
const CHECK_INTERVAL: i32 = 1_000;

/// What was recovered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    /// Prediction records.
    pub(super) records: u64,
    /// Feedback items.
    pub(super) feedback: u64,
    /// Whether the time did not suffice for all of the file.
    pub(super) timed_out: bool,
}

/// Checks the structure of the file, for at most [`CHECK`]. Damage in what was not checked by then
/// is found when it is read.
///
/// # Errors
/// [`SchemaError::Damaged`] names the damage.
pub(super) fn check(connection: &mut Connection) -> Result<(), SchemaError> {
    let end = Instant::now() + CHECK;
    connection.progress_handler(CHECK_INTERVAL, Some(move || Instant::now() >= end))?;
    let result: rusqlite::Result<String> =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match result {
        Ok(result) if result == "ok" => Ok(()),
        Ok(damage) => Err(SchemaError::Damaged(damage)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Completes a recovery that was interrupted between its two renamings.
pub(super) fn adopt(path: &Path) -> std::io::Result<()> {
    let complete = recovering(path);
    if !path.exists() && complete.exists() {
        fs::rename(complete, path)?;
    }
    Ok(())
}

/// Replaces the file at `path`, whose `damage` was found, by what can be read of it, and moves it
/// aside. No connection of this process may be open.
pub(super) fn replace(path: &Path, damage: &SchemaError) -> Result<(), SchemaError> {
    let damaged = File::open(path)?;
    // Several processes may write the file: one of them recovers it. SQLite does not use this lock.
    match damaged.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let problem = "another process recovers the damaged file";
            return Err(SchemaError::Io(std::io::Error::other(problem)));
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let new = recovering(path);
    remove(&new)?;
    let recovered = match copy(path, &new, Instant::now() + TIMEOUT) {
        Ok(recovered) => Some(recovered),
        // The log goes on in any case: the disk may have no space for a copy.
        Err(error) => {
            let path = path.display();
            warn!(%path, %error, "nothing can be recovered from the damaged prediction log");
            remove(&new)?;
            None
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let aside = schema::move_aside(path, now.as_secs())?;
    if recovered.is_some() {
        fs::rename(&new, path)?;
    }
    let Recovered { records, feedback, timed_out } = recovered.unwrap_or_default();
    let rest = if timed_out { "the time did not suffice for others" } else { "others are lost" };
    warn!(
        error = %damage, path = %path.display(), kept_as = %aside.display(),
        "the prediction log is damaged: recovered {records} records and {feedback} items of feedback \
         into a new file; {rest}"
    );
    Ok(())
}

/// The new file while it is incomplete.
fn recovering(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-recovering");
    name.into()
}

/// Removes the file at `path` and its write-ahead log.
fn remove(path: &Path) -> std::io::Result<()> {
    for file in [path.to_owned(), schema::wal(path), schema::shared_memory(path)] {
        match fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Copies what can be read of the file at `damaged` into a new file at `new`, until `end`.
fn copy(damaged: &Path, new: &Path, end: Instant) -> Result<Recovered, SchemaError> {
    let to = schema::open(new)?;
    // Rows may refer to others that are lost.
    to.pragma_update(None, "foreign_keys", false)?;
    let mut recovered = Recovered::default();
    // Without a readable first page there is nothing to recover.
    if let Ok(from) = open_damaged(damaged) {
        for name in tables(&to)? {
            let Some(mut table) = TableCopy::new(&from, &to, &name, end)? else { continue };
            let rows = table.run()?;
            recovered.timed_out |= table.timed_out();
            match &*name {
                "predictions" => recovered.records = rows,
                "feedback" => recovered.feedback = rows,
                _ => {}
            }
        }
        // Records without their source cannot be read.
        let lost =
            to.execute("DELETE FROM predictions WHERE source NOT IN (SELECT id FROM sources)", [])?;
        recovered.records -= lost as u64;
        epochs::rebuild(&to)?;
    }
    to.close().map_err(|(_, error)| error)?;
    if schema::wal(new).exists() {
        return Err(SchemaError::Io(std::io::Error::other("the new file cannot be completed")));
    }
    File::open(new)?.sync_all()?;
    Ok(recovered)
}

/// Opens a damaged file so that everything can be read that its pages have. Changes nothing.
fn open_damaged(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Also if the file is shorter than its first page states.
    connection.pragma_update(None, "writable_schema", true)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// The tables of a new file, each after those it refers to.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'
         ORDER BY rowid",
    )?;
    statement.query_map([], |row| row.get(0))?.collect()
}
