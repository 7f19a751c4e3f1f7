//! The tables of the log's file, and how a file of an older version gets those that it lacks.

use rusqlite::{Connection, TransactionBehavior};

use super::{APPLICATION, FOREIGN, SchemaError, VERSION, version};

/// Version 1, without its view.
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
";

/// What version 2 has beyond version 1, in steps that depend on no other. A file of a development
/// version may lack some of them.
const VERSION_2: [Step; 6] = [
    Step { table: "predictions", column: "unit", sql: UNITS },
    Step { table: "predictions", column: "sample", sql: SAMPLE },
    Step { table: "predictions", column: "epoch", sql: EPOCHS },
    Step { table: "retention", column: "time", sql: RETENTION },
    Step { table: "outbox", column: "seq", sql: OUTBOX },
    Step { table: "experiment_units", column: "run", sql: EXPERIMENTS },
];

/// A change of the schema.
#[derive(Debug)]
struct Step {
    /// A column that a file has after it, and its table.
    table: &'static str,
    column: &'static str,
    sql: &'static str,
}

/// The view, which is created after the last step.
const VIEW: &str = "
DROP VIEW IF EXISTS prediction_log;
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

/// What is known of each unit of an experiment: of its records, and of their feedback. The id tells
/// files apart whose counts are added; a recovered file has that of the damaged one, which is older,
/// too. Units of a development version, which did not know the run of its experiment, count anew.
const EXPERIMENTS: &str = "
DROP TABLE IF EXISTS experiment_units;
CREATE TABLE experiment_units (
    experiment     TEXT NOT NULL,
    unit           TEXT NOT NULL,
    run            TEXT NOT NULL,
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
CREATE TABLE IF NOT EXISTS experiment_file (
    id      TEXT NOT NULL PRIMARY KEY,
    created INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
INSERT INTO experiment_file
    SELECT lower(hex(randomblob(16))), CAST(strftime('%s', 'now') AS INTEGER)
    WHERE NOT EXISTS (SELECT 1 FROM experiment_file);
";

/// The unit that a router assigned, the probability with which its variant was drawn, and the variant
/// that failed before, if control served instead of it.
const UNITS: &str = "
ALTER TABLE predictions ADD COLUMN unit TEXT;
ALTER TABLE predictions ADD COLUMN propensity REAL;
ALTER TABLE predictions ADD COLUMN failed_over TEXT;
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
const SAMPLE: &str = "ALTER TABLE predictions ADD COLUMN sample REAL";

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

/// Creates the tables of the present version, or those that an older version lacks.
pub(super) fn upgrade(connection: &mut Connection) -> Result<(), SchemaError> {
    // Only one of several processes does it.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if version(&transaction)? == 0 {
        let tables: i64 =
            transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 {
            return Err(SchemaError::Foreign(FOREIGN.into()));
        }
        transaction.execute_batch(CREATE)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
    }
    let missing = missing_steps(&transaction)?;
    if !missing.is_empty() {
        missing.iter().try_for_each(|step| transaction.execute_batch(step.sql))?;
        transaction.execute_batch(VIEW)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Whether a file has everything of the present version.
pub(super) fn is_complete(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(missing_steps(connection)?.is_empty())
}

/// The steps that a file with tables lacks.
fn missing_steps(connection: &Connection) -> rusqlite::Result<Vec<&'static Step>> {
    let mut missing = Vec::new();
    let mut statement = connection
        .prepare("SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)")?;
    for step in &VERSION_2 {
        if !statement.query_row([step.table, step.column], |row| row.get::<_, bool>(0))? {
            missing.push(step);
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::prediction_log::schema::{FILE, open, open_existing, open_to_read};

    /// Creates a file with a record that has these steps, and the view of its version.
    fn create_old(path: &Path, version: i64, steps: &[&Step]) {
        const RECORD: &str = "
            INSERT INTO sources VALUES (1, 'iris', '1', '/...', 'iris', '', '');
            INSERT INTO predictions VALUES
                (x'01', 0, 5, 1, 'miss', 200, 9, NULL, '{}', '{}', '{}', NULL);
            CREATE VIEW prediction_log AS SELECT id, time FROM predictions;";
        let old = Connection::open(path).unwrap();
        old.execute_batch(CREATE).unwrap();
        old.execute_batch(RECORD).unwrap();
        steps.iter().for_each(|step| old.execute_batch(step.sql).unwrap());
        old.pragma_update(None, "application_id", APPLICATION).unwrap();
        old.pragma_update(None, "user_version", version).unwrap();
    }

    fn assert_upgraded(connection: &Connection) {
        let read = |row: &rusqlite::Row<'_>| {
            let [propensity, sample]: [Option<f64>; 2] = [row.get(2)?, row.get(3)?];
            Ok((row.get::<_, String>(0)?, row.get(1)?, propensity, sample))
        };
        let select = "SELECT id, time, propensity, sample FROM prediction_log";
        let record = connection.query_row(select, [], read).unwrap();
        assert_eq!(record, ("01".into(), 5, None, None));
        assert_eq!(version(connection).unwrap(), VERSION);
        assert!(missing_steps(connection).unwrap().is_empty());
    }

    #[test]
    fn old_file_is_upgraded_with_its_records_by_writer_and_reader() {
        let opens: [fn(&Path) -> Connection; 2] =
            [|path| open(path).unwrap(), |path| open_to_read(path).unwrap().unwrap()];
        for open in opens {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(FILE);
            create_old(&path, 1, &[]);
            assert!(open_existing(&path).unwrap().is_none(), "it waits for the writer");
            assert_upgraded(&open(&path));
            assert!(open_existing(&path).unwrap().is_some());
        }
    }

    #[test]
    fn file_of_version_2_without_a_step_is_completed() {
        for (missing, step) in VERSION_2.iter().enumerate() {
            let others = VERSION_2.iter().enumerate().filter(|(index, _)| *index != missing);
            let others: Vec<_> = others.map(|(_, step)| step).collect();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(FILE);
            create_old(&path, 2, &others);
            assert!(open_existing(&path).unwrap().is_none(), "{step:?}");
            assert_upgraded(&open_to_read(&path).unwrap().unwrap());
        }
    }
}
