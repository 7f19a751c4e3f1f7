//! The log's SQLite file: its version, and how it is opened. docs/prediction-log.md documents it.

mod tables;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use tables::{is_complete, upgrade};

/// Name of the log's file in the application's state folder.
pub const FILE: &str = "predictions.db";

/// Version of the schema (`PRAGMA user_version`).
pub const VERSION: i64 = 2;
/// `PRAGMA application_id`: "SPFL".
pub const APPLICATION: i64 = 0x5350_464C;

/// Timeout for a lock that another process holds.
const BUSY: Duration = Duration::from_secs(5);
/// Page size, in bytes. Records are keyed rows without a row id: with 4 KiB, those of wide models
/// would need overflow pages.
const PAGE_SIZE: u32 = 16 << 10;
/// Size to which the write-ahead log is truncated after a checkpoint, in bytes.
const WAL_SIZE: u32 = 64 << 20;
/// Maximum number of cached prepared statements; there are fewer.
const STATEMENTS: usize = 32;

/// Why the file cannot be used.
#[derive(Debug)]
pub enum SchemaError {
    Sqlite(rusqlite::Error),
    /// It belongs to another program, or to a later version of this one.
    Foreign(String),
    /// Its structure is damaged.
    Damaged(String),
    Io(std::io::Error),
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => f.write_str("the disk is full"),
                Some(ErrorCode::ReadOnly) => f.write_str("the file is read-only"),
                Some(ErrorCode::CannotOpen) => f.write_str("the file cannot be opened"),
                Some(ErrorCode::DatabaseBusy) => f.write_str("another process locks the file"),
                _ => error.fmt(f),
            },
            Self::Foreign(problem) | Self::Damaged(problem) => f.write_str(problem),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SchemaError {}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<std::io::Error> for SchemaError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl SchemaError {
    /// Whether the file is damaged and must be replaced.
    pub(super) fn is_corruption(&self) -> bool {
        match self {
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ),
            Self::Damaged(_) => true,
            Self::Foreign(_) | Self::Io(_) => false,
        }
    }
}

/// Opens the file at `path` for writing. Creates it if it does not exist.
pub(super) fn open(path: &Path) -> Result<Connection, SchemaError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Both have an effect on a new file only.
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    connection.pragma_update(None, "auto_vacuum", "incremental")?;
    // Readers are not blocked by the writer. A commit survives a crash of this process at once, and
    // of the machine from the next checkpoint on.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_SIZE, |_| Ok(()))?;
    upgrade(&mut connection)?;
    Ok(connection)
}

const FOREIGN: &str =
    "the file is a database of another program: move it, or use another --state-dir";

/// Opens the file at `path` for writing alongside the writer, which creates and upgrades it; `None`
/// if the file does not exist yet.
pub(super) fn open_existing(path: &Path) -> Result<Option<Connection>, SchemaError> {
    if !path.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "synchronous", "normal")?;
    let is_current = version(&connection)? > 0 && is_complete(&connection)?;
    Ok(is_current.then_some(connection))
}

/// Opens the file at `path` for reading; `None` if it does not exist or has no tables yet. A file of an
/// older version is upgraded.
pub(super) fn open_to_read(path: &Path) -> Result<Option<Connection>, SchemaError> {
    if !path.exists() {
        return Ok(None);
    }
    // Reading a write-ahead log requires writing its index, unless the folder is read-only.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).or_else(|_| {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(path, flags)
    })?;
    connection.busy_timeout(BUSY)?;
    let has_tables = version(&connection)? > 0;
    if has_tables && !is_complete(&connection)? {
        upgrade(&mut connection)?;
    }
    connection.pragma_update(None, "query_only", true)?;
    Ok(has_tables.then_some(connection))
}

/// The version of the schema; 0 without tables. Fails for a file that this program cannot read.
fn version(connection: &Connection) -> Result<i64, SchemaError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if version > VERSION && application == APPLICATION {
        return Err(SchemaError::Foreign(format!(
            "the file has schema version {version} of a later spinfer, but this one supports up to \
             {VERSION}: use the later spinfer, or move the file"
        )));
    }
    if (version, application) == (0, 0) || (version >= 1 && application == APPLICATION) {
        return Ok(version);
    }
    Err(SchemaError::Foreign(FOREIGN.into()))
}

/// Renames a damaged file and its write-ahead log, to a name with `time`, in seconds of Unix time.
/// Returns the new path.
pub(super) fn move_aside(path: &Path, time: u64) -> std::io::Result<PathBuf> {
    let mut aside = with_suffix(path, &format!(".corrupt-{time}"));
    for more in 1.. {
        if !aside.exists() {
            break;
        }
        aside = with_suffix(path, &format!(".corrupt-{time}-{more}"));
    }
    std::fs::rename(path, &aside)?;
    for (from, to) in [(wal(path), wal(&aside)), (shared_memory(path), shared_memory(&aside))] {
        match std::fs::rename(from, to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// The write-ahead log of the file at `path`.
pub(super) fn wal(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

/// The index of that write-ahead log, which processes share.
pub(super) fn shared_memory(path: &Path) -> PathBuf {
    with_suffix(path, "-shm")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
