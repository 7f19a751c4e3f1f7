//! The log's SQLite file: tables, version, and how it is opened. docs/prediction-log.md documents
//! it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

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

/// Version 1.
const CREATE: &str = "
CREATE TABLE sources (
    id         INTEGER PRIMARY KEY,
    model      TEXT NOT NULL,
    version    TEXT NOT NULL,
    route      TEXT NOT NULL,
    component  TEXT NOT NULL,
    experiment TEXT NOT NULL,
    variant    TEXT NOT NULL,
    UNIQUE (model, version, route, component, experiment, variant)
) STRICT;
CREATE TABLE predictions (
    id         BLOB NOT NULL,
    row        INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    source     INTEGER NOT NULL REFERENCES sources (id),
    cache      TEXT NOT NULL,
    status     INTEGER NOT NULL,
    latency_us INTEGER NOT NULL,
    trace_id   TEXT,
    inputs     TEXT NOT NULL,
    outputs    TEXT NOT NULL,
    attributes TEXT NOT NULL,
    omitted    TEXT,
    PRIMARY KEY (id, row)
) WITHOUT ROWID, STRICT;
CREATE TABLE feedback (
    prediction_id BLOB NOT NULL,
    row           INTEGER NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('label', 'value', 'reward')),
    label         TEXT,
    number        REAL,
    time          INTEGER NOT NULL,
    received      INTEGER NOT NULL,
    PRIMARY KEY (prediction_id, row, kind)
) WITHOUT ROWID, STRICT;
CREATE INDEX feedback_received ON feedback (received);
CREATE TABLE models (
    model         TEXT NOT NULL,
    version       TEXT NOT NULL,
    labels        TEXT NOT NULL,
    probabilities TEXT,
    PRIMARY KEY (model, version)
) WITHOUT ROWID, STRICT;
CREATE VIEW prediction_log AS
    SELECT lower(hex(p.id)) AS id, p.row, p.time,
        strftime('%Y-%m-%dT%H:%M:%fZ', p.time / 1000000.0, 'unixepoch') AS time_text,
        s.model, s.version, s.route, s.component,
        nullif(s.experiment, '') AS experiment, nullif(s.variant, '') AS variant,
        p.cache, p.status, p.latency_us, p.trace_id,
        p.inputs, p.outputs, p.attributes, p.omitted,
        (SELECT label FROM feedback f
            WHERE f.prediction_id = p.id AND f.row = p.row AND f.kind = 'label') AS label,
        (SELECT number FROM feedback f
            WHERE f.prediction_id = p.id AND f.row = p.row AND f.kind = 'value') AS value,
        (SELECT number FROM feedback f
            WHERE f.prediction_id = p.id AND f.row = p.row AND f.kind = 'reward') AS reward
    FROM predictions p JOIN sources s ON s.id = p.source;
";

/// What version 2 has beyond version 1, in steps that depend on no other.
const VERSION_2: &[&str] = &[UNITS, RETENTION, OUTBOX, EXPERIMENTS, SAMPLE, EPOCHS];

/// What is known of each unit of an experiment: of its records, and of their feedback. The id tells
/// files apart whose counts are added; a recovered file has that of the damaged one, which is older,
/// too.
const EXPERIMENTS: &str = "
CREATE TABLE experiment_units (
    experiment     TEXT NOT NULL,
    unit           TEXT NOT NULL,
    variant        TEXT NOT NULL,
    first          INTEGER NOT NULL,
    last           INTEGER NOT NULL,
    predictions    INTEGER NOT NULL,
    covariate      REAL,
    labels         INTEGER NOT NULL DEFAULT 0,
    correct        INTEGER NOT NULL DEFAULT 0,
    numbers        INTEGER NOT NULL DEFAULT 0,
    absolute_error REAL NOT NULL DEFAULT 0,
    rewards        INTEGER NOT NULL DEFAULT 0,
    reward         REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment, unit)
) WITHOUT ROWID, STRICT;
CREATE TABLE experiment_file (
    id      TEXT NOT NULL PRIMARY KEY,
    created INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
INSERT INTO experiment_file
    VALUES (lower(hex(randomblob(16))), CAST(strftime('%s', 'now') AS INTEGER));
";

/// The unit that a router assigned, the probability with which its variant was drawn, and the variant
/// that failed before, if control served instead of it.
const UNITS: &str = "
ALTER TABLE predictions ADD COLUMN unit TEXT;
ALTER TABLE predictions ADD COLUMN propensity REAL;
ALTER TABLE predictions ADD COLUMN failed_over TEXT;
DROP VIEW prediction_log;
CREATE VIEW prediction_log AS
    SELECT lower(hex(p.id)) AS id, p.row, p.time,
        strftime('%Y-%m-%dT%H:%M:%fZ', p.time / 1000000.0, 'unixepoch') AS time_text,
        s.model, s.version, s.route, s.component,
        nullif(s.experiment, '') AS experiment, nullif(s.variant, '') AS variant,
        p.unit, p.propensity, p.failed_over, p.cache, p.status, p.latency_us, p.trace_id,
        p.inputs, p.outputs, p.attributes, p.omitted,
        (SELECT label FROM feedback f
            WHERE f.prediction_id = p.id AND f.row = p.row AND f.kind = 'label') AS label,
        (SELECT number FROM feedback f
            WHERE f.prediction_id = p.id AND f.row = p.row AND f.kind = 'value') AS value,
        (SELECT number FROM feedback f
            WHERE f.prediction_id = p.id AND f.row = p.row AND f.kind = 'reward') AS reward
    FROM predictions p JOIN sources s ON s.id = p.source;
";

/// The time by which records expired last: a clock that is far ahead of it may be wrong.
const RETENTION: &str = "
CREATE TABLE retention (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    time INTEGER NOT NULL
) STRICT;
";

/// What sinks have not received, in order, and how far each sink is.
const OUTBOX: &str = "
CREATE TABLE outbox (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('record', 'label', 'value', 'reward')),
    id   BLOB NOT NULL,
    row  INTEGER NOT NULL,
    time INTEGER NOT NULL
) STRICT;
CREATE TABLE sinks (
    name     TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    lost     INTEGER NOT NULL DEFAULT 0,
    producer TEXT NOT NULL DEFAULT (lower(hex(randomblob(16))))
) WITHOUT ROWID, STRICT;
";

/// The probability with which the request of a record was logged.
const SAMPLE: &str = "
ALTER TABLE predictions ADD COLUMN sample REAL;
DROP VIEW prediction_log;
CREATE VIEW prediction_log AS
    SELECT lower(hex(p.id)) AS id, p.row, p.time,
        strftime('%Y-%m-%dT%H:%M:%fZ', p.time / 1000000.0, 'unixepoch') AS time_text,
        s.model, s.version, s.route, s.component,
        nullif(s.experiment, '') AS experiment, nullif(s.variant, '') AS variant,
        p.unit, p.propensity, p.failed_over, p.cache, p.status, p.latency_us, p.sample, p.trace_id,
        p.inputs, p.outputs, p.attributes, p.omitted,
        (SELECT label FROM feedback f
            WHERE f.prediction_id = p.id AND f.row = p.row AND f.kind = 'label') AS label,
        (SELECT number FROM feedback f
            WHERE f.prediction_id = p.id AND f.row = p.row AND f.kind = 'value') AS value,
        (SELECT number FROM feedback f
            WHERE f.prediction_id = p.id AND f.row = p.row AND f.kind = 'reward') AS reward
    FROM predictions p JOIN sources s ON s.id = p.source;
";

/// The epochs in which rows were written, and the last one that was exported to each destination.
const EPOCHS: &str = "
CREATE TABLE epochs (
    number   INTEGER PRIMARY KEY,
    records  INTEGER NOT NULL DEFAULT 0,
    feedback INTEGER NOT NULL DEFAULT 0,
    first_id BLOB
) STRICT;
INSERT INTO epochs (number, records, feedback, first_id)
    SELECT 0, count(*), (SELECT count(*) FROM feedback), min(id) FROM predictions;
INSERT INTO epochs (number) VALUES (1);
CREATE TABLE exports (
    destination TEXT PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    pending     INTEGER,
    name        TEXT
) WITHOUT ROWID, STRICT;
ALTER TABLE predictions ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE feedback ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
CREATE INDEX feedback_epoch ON feedback (epoch);
";

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

/// Creates the tables of the present version, or those that an older version lacks.
fn upgrade(connection: &mut Connection) -> Result<(), SchemaError> {
    // Only one of several processes does it.
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut version = version(&transaction)?;
    if version == 0 {
        let tables: i64 =
            transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 {
            return Err(SchemaError::Foreign(FOREIGN.into()));
        }
        transaction.execute_batch(CREATE)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        version = 1;
    }
    if version == 1 {
        VERSION_2.iter().try_for_each(|step| transaction.execute_batch(step))?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(())
}

const FOREIGN: &str =
    "the file is a database of another program: move it, or use another --state-dir";

/// Opens the file at `path` for writing alongside the writer, which creates and upgrades it; `None`
/// if it has not done so yet.
pub(super) fn open_existing(path: &Path) -> Result<Option<Connection>, SchemaError> {
    if !path.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "synchronous", "normal")?;
    Ok((version(&connection)? == VERSION).then_some(connection))
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
    let version = version(&connection)?;
    if version > 0 && version < VERSION {
        upgrade(&mut connection)?;
    }
    connection.pragma_update(None, "query_only", true)?;
    Ok((version > 0).then_some(connection))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_version_1_is_upgraded_with_its_records_by_writer_and_reader() {
        const RECORD: &str = "
            INSERT INTO sources VALUES (1, 'iris', '1', '/...', 'iris', '', '');
            INSERT INTO predictions VALUES
                (x'01', 0, 5, 1, 'miss', 200, 9, NULL, '{}', '{}', '{}', NULL);";
        let opens: [fn(&Path) -> Connection; 2] =
            [|path| open(path).unwrap(), |path| open_to_read(path).unwrap().unwrap()];
        for open in opens {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(FILE);
            let old = Connection::open(&path).unwrap();
            old.execute_batch(CREATE).unwrap();
            old.execute_batch(RECORD).unwrap();
            old.pragma_update(None, "application_id", APPLICATION).unwrap();
            old.pragma_update(None, "user_version", 1).unwrap();
            drop(old);
            let connection = open(&path);
            let read = |row: &rusqlite::Row<'_>| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, Option<f64>>(2)?))
            };
            let select = "SELECT id, time, propensity FROM prediction_log";
            assert_eq!(connection.query_row(select, [], read).unwrap(), ("01".into(), 5, None));
            assert_eq!(version(&connection).unwrap(), VERSION);
        }
    }
}
