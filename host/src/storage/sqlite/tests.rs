//! Databases through their API: what statements may do, exact values, limits, and cancellation.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::connection::ComponentPermits;
use super::*;
use crate::process::memory_budget::MemoryBudget;

const MIB: u64 = 1 << 20;

/// A database in a folder of its own, and the permits of one component.
struct Fixture {
    database: Database,
    permits: ComponentPermits,
    memory: MemoryBudget,
    dir: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::with(MIB, MAX_TRANSACTION)
    }

    fn with(max_size: u64, max_transaction: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("a.db");
        drop(open_file(&path, max_size, BUSY_TIMEOUT, true).unwrap());
        let connections = Arc::new(Semaphore::new(MAX_ALL_CONNECTIONS));
        let database = Database { path, max_size, max_transaction, connections };
        let memory = MemoryBudget::new(64 << 20, "limits.instance_memory");
        Self { database, permits: ComponentPermits::default(), memory, dir }
    }

    async fn connect(&self) -> SqliteConnection {
        self.database.connect(&self.permits).await.unwrap()
    }

    async fn run(
        &self,
        connection: &SqliteConnection,
        sql: &str,
        parameters: &[Value],
    ) -> Result<Vec<Vec<Value>>, SqliteError> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let memory = self.memory.clone();
        let result = connection.execute(sql.into(), parameters.to_vec(), deadline, memory).await;
        result.map(|result| result.into_parts().1)
    }

    async fn error(&self, connection: &SqliteConnection, sql: &str) -> String {
        match self.run(connection, sql, &[]).await {
            Err(error) => error.to_string(),
            Ok(rows) => panic!("{sql}: {rows:?}"),
        }
    }
}

#[tokio::test]
async fn values_are_exact() {
    let it = Fixture::new();
    let connection = it.connect().await;
    it.run(&connection, "CREATE TABLE t (v)", &[]).await.unwrap();
    let values = [
        Value::Null,
        Value::Integer(i64::MIN),
        Value::Integer(i64::MAX),
        Value::Real(f64::INFINITY),
        Value::Real(f64::NEG_INFINITY),
        Value::Real(-0.1),
        Value::Real(5e-324),
        Value::Text("ä\0ö".into()),
        Value::Text(String::new()),
        Value::Blob(vec![0, 255, 128]),
        Value::Blob(Vec::new()),
    ];
    for value in values {
        let stored = std::slice::from_ref(&value);
        it.run(&connection, "INSERT INTO t VALUES (?)", stored).await.unwrap();
        let read = it.run(&connection, "SELECT v FROM t", &[]).await.unwrap();
        assert_eq!(read, [[value]]);
        it.run(&connection, "DELETE FROM t", &[]).await.unwrap();
    }
    let nan = it.run(&connection, "INSERT INTO t VALUES (?)", &[Value::Real(f64::NAN)]).await;
    assert!(nan.unwrap_err().to_string().starts_with("parameter 1 is not a number"));
    let text = it.error(&connection, "SELECT 1, CAST(x'61ff' AS TEXT) AS name").await;
    assert_eq!(text, "column 2, \"name\": the text is not UTF-8; select CAST(... AS BLOB)");
}

#[tokio::test]
async fn statements_that_leave_the_database_are_refused() {
    let it = Fixture::new();
    let connection = it.connect().await;
    it.run(&connection, "CREATE TABLE t (v)", &[]).await.unwrap();
    let other = it.dir.path().join("other.db");
    for (sql, part) in [
        (&*format!("ATTACH '{}' AS b", other.display()), "ATTACH, DETACH and VACUUM"),
        ("ATTACH ':memory:' AS b", "ATTACH, DETACH and VACUUM"),
        ("DETACH main", "ATTACH, DETACH and VACUUM"),
        (&*format!("VACUUM INTO '{}'", other.display()), "ATTACH, DETACH and VACUUM"),
        ("VACUUM", "ATTACH, DETACH and VACUUM"),
        ("SELECT load_extension('/lib/a.so')", "load_extension"),
        ("PRAGMA writable_schema = 1", "PRAGMA writable_schema is not permitted"),
        ("PRAGMA temp_store_directory = '/'", "PRAGMA temp_store_directory is not permitted"),
        ("PRAGMA journal_mode = delete", "PRAGMA journal_mode is not permitted"),
        ("PRAGMA journal_mode = off", "PRAGMA journal_mode is not permitted"),
        ("PRAGMA locking_mode = exclusive", "PRAGMA locking_mode is not permitted"),
        ("PRAGMA max_page_count = 1000000", "PRAGMA max_page_count is not permitted"),
        ("PRAGMA hard_heap_limit = 1", "PRAGMA hard_heap_limit is not permitted"),
        ("PRAGMA soft_heap_limit = 1", "PRAGMA soft_heap_limit is not permitted"),
        ("PRAGMA trusted_schema = 1", "PRAGMA trusted_schema is not permitted"),
        ("PRAGMA database_list", "PRAGMA database_list is not permitted"),
        ("SELECT * FROM pragma_database_list", "PRAGMA database_list is not permitted"),
        ("CREATE VIRTUAL TABLE d USING dbstat", "the module dbstat are not permitted"),
        ("INSERT INTO sqlite_schema VALUES (1, 2, 3, 4, 5)", "may not be modified"),
        ("SELECT 1; SELECT 2", "execute one statement at a time"),
        ("CREATE TABLE b (v); INSERT INTO b VALUES (1)", "execute one statement at a time"),
        ("", "the statement is empty"),
        ("-- nothing", "the statement is empty"),
        ("SELECT 1\0; DROP TABLE t", "NUL"),
        ("SELEC 1", "near \"SELEC\": syntax error (at byte 0 of the statement)"),
    ] {
        let error = it.error(&connection, sql).await;
        assert!(error.contains(part), "{sql}: {error}");
    }
    let mut files: Vec<_> = std::fs::read_dir(it.dir.path()).unwrap().flatten().collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    let names: Vec<_> = files.iter().map(|file| file.file_name().into_string().unwrap()).collect();
    assert_eq!(names, ["a.db", "a.db-shm", "a.db-wal"]);
    // A statement of thousands, which must not recurse.
    let many = "SELECT 1;".repeat(100_000);
    assert!(it.error(&connection, &many).await.contains("one statement at a time"));
}

#[tokio::test]
async fn statements_of_applications_are_permitted() {
    let it = Fixture::new();
    let connection = it.connect().await;
    for sql in [
        "PRAGMA journal_mode = WAL",
        "PRAGMA busy_timeout = 60000",
        "PRAGMA cache_size = -1000000",
        "PRAGMA temp_store = memory",
        "PRAGMA foreign_keys = ON",
        "PRAGMA synchronous = NORMAL",
        "PRAGMA user_version = 7",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT) STRICT; -- a comment",
        "CREATE INDEX i ON t (v)",
        "CREATE TRIGGER n AFTER INSERT ON t BEGIN UPDATE t SET v = v || '!' WHERE id = new.id; END",
        "CREATE VIEW w AS SELECT upper(v) AS v FROM t",
        "CREATE VIRTUAL TABLE f USING fts5(body)",
        "INSERT INTO f VALUES ('the quick brown fox')",
        "CREATE TEMP TABLE s (v)",
        "ALTER TABLE t ADD COLUMN n INTEGER DEFAULT 0",
        "SAVEPOINT one",
        "INSERT INTO t (v) VALUES ('a') RETURNING id",
        "RELEASE one",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 10) SELECT sum(n) FROM c",
        "SELECT json_extract('{\"a\": 1}', '$.a'), * FROM w",
        "SELECT * FROM pragma_table_info('t')",
        "ANALYZE",
        "REINDEX",
        "DROP TABLE s",
    ] {
        let result = it.run(&connection, sql, &[]).await;
        assert!(result.is_ok(), "{sql}: {result:?}");
    }
    let rows = it.run(&connection, "SELECT v FROM w", &[]).await.unwrap();
    assert_eq!(rows, [[Value::Text("A!".into())]]);
    let timeout = it.run(&connection, "PRAGMA busy_timeout", &[]).await.unwrap();
    assert_eq!(timeout, [[Value::Integer(5000)]], "a hint has no effect");
    let found = it.run(&connection, "SELECT * FROM f WHERE f MATCH 'quick'", &[]).await.unwrap();
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn size_of_database_result_and_memory_is_limited() {
    let it = Fixture::new();
    let connection = it.connect().await;
    it.run(&connection, "CREATE TABLE t (v)", &[]).await.unwrap();
    let full = it.run(&connection, "INSERT INTO t VALUES (zeroblob(2000000))", &[]).await;
    assert_eq!(full, Err(SqliteError::Full));
    let numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000000) ";
    let rows = it.error(&connection, &format!("{numbers} SELECT n FROM c")).await;
    assert!(rows.starts_with("the result exceeds 16777216 bytes"), "{rows}");
    let wide = it.error(&connection, "SELECT zeroblob(9000000), zeroblob(9000000)").await;
    assert!(wide.starts_with("the result exceeds 16777216 bytes"), "{wide}");
    let long = it.error(&connection, "SELECT zeroblob(20000000)").await;
    assert!(long.contains("too big"), "{long}");
    let text = format!("SELECT '{}'", "x".repeat(2 << 20));
    let text = it.error(&connection, &text).await;
    assert!(text.contains("too long"), "{text}");
    let columns: Vec<_> = (0..100).map(|_| "hex(zeroblob(8000000))").collect();
    // As in production: the limit is one of the process.
    let admin = rusqlite::Connection::open_in_memory().unwrap();
    admin.pragma_update_and_check(None, "hard_heap_limit", MAX_MEMORY, |_| Ok(())).unwrap();
    let memory = it.error(&connection, &format!("SELECT {}", columns.join(","))).await;
    assert!(memory.contains("more memory than SQLite has"), "{memory}");
    // Nothing is held after a failure.
    assert_eq!(it.memory.used(), 0);
    assert_eq!(it.run(&connection, "SELECT 1", &[]).await, Ok(vec![vec![Value::Integer(1)]]));
}

#[tokio::test]
async fn statement_whose_returned_rows_are_an_error_changes_nothing() {
    let it = Fixture::new();
    let (connection, other) = (it.connect().await, it.connect().await);
    it.run(&connection, "CREATE TABLE t (v)", &[]).await.unwrap();
    for (sql, part) in [
        ("INSERT INTO t VALUES (CAST(x'61ff' AS TEXT)) RETURNING v", "the text is not UTF-8"),
        ("INSERT INTO t VALUES (1), (2) RETURNING zeroblob(9000000)", "the result exceeds"),
    ] {
        let error = it.error(&connection, sql).await;
        assert!(error.contains(part), "{sql}: {error}");
        assert_eq!(it.run(&connection, "SELECT v FROM t", &[]).await, Ok(Vec::new()), "{sql}");
    }
    let one = vec![vec![Value::Integer(1)]];
    let inserted = it.run(&connection, "INSERT INTO t VALUES (1) RETURNING v", &[]).await;
    assert_eq!(inserted, Ok(one.clone()));
    assert_eq!(connection.changes(), 1);
    assert_eq!(it.run(&other, "SELECT v FROM t", &[]).await, Ok(one), "it is committed");
    // Within a transaction of the guest it is a part of that.
    for sql in ["SAVEPOINT one", "UPDATE t SET v = 2 RETURNING v", "ROLLBACK"] {
        it.run(&connection, sql, &[]).await.unwrap();
    }
    let rows = it.run(&other, "SELECT v FROM t", &[]).await.unwrap();
    assert_eq!(rows, [[Value::Integer(1)]]);
}

#[tokio::test]
async fn result_is_charged_to_the_instance() {
    let mut it = Fixture::new();
    it.memory = MemoryBudget::new(1 << 20, "limits.instance_memory");
    let connection = it.connect().await;
    let error = it.error(&connection, "SELECT zeroblob(2000000)").await;
    assert!(error.contains("limits.instance_memory"), "{error}");
    let large = [Value::Blob(vec![0; 2_000_000])];
    let error = it.run(&connection, "SELECT length(?)", &large).await.unwrap_err();
    assert!(error.to_string().contains("limits.instance_memory"), "{error}");
    assert_eq!(it.memory.used(), 0);
}

const ENDLESS: &str =
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";

#[tokio::test]
async fn statement_ends_at_its_deadline_and_with_its_caller() {
    let it = Fixture::new();
    let connection = it.connect().await;
    let deadline = Instant::now() + Duration::from_millis(100);
    let memory = it.memory.clone();
    let error = connection.execute(ENDLESS.into(), Vec::new(), deadline, memory).await.unwrap_err();
    assert!(error.to_string().starts_with("timed out"), "{error}");
    // The caller is dropped: the next statement does not wait for the end of the first.
    let endless = it.run(&connection, ENDLESS, &[]);
    let dropped = tokio::time::timeout(Duration::from_millis(50), endless).await;
    assert!(dropped.is_err());
    assert_eq!(it.run(&connection, "SELECT 1", &[]).await, Ok(vec![vec![Value::Integer(1)]]));
}

#[tokio::test]
async fn slow_statement_does_not_delay_other_connections() {
    let it = Fixture::new();
    let slow = it.connect().await;
    let endless = it.run(&slow, ENDLESS, &[]);
    let others = async {
        for _ in 0..20 {
            let other = it.connect().await;
            it.run(&other, "SELECT 1", &[]).await.unwrap();
        }
    };
    tokio::select! {
        result = endless => panic!("{result:?}"),
        () = others => {}
    }
}

#[tokio::test]
async fn transaction_that_takes_too_long_is_rolled_back() {
    let it = Fixture::with(MIB, Duration::from_millis(200));
    let (one, other) = (it.connect().await, it.connect().await);
    it.run(&one, "CREATE TABLE t (v)", &[]).await.unwrap();
    it.run(&one, "BEGIN IMMEDIATE", &[]).await.unwrap();
    it.run(&one, "INSERT INTO t VALUES (1)", &[]).await.unwrap();
    // Waits for the lock of the first one, which is released although its guest does nothing.
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while it.run(&other, "INSERT INTO t VALUES (2)", &[]).await.is_err() {}
    });
    waited.await.expect("the lock is released");
    // The guest learns of it before it can write outside of a transaction.
    let error = it.error(&one, "INSERT INTO t VALUES (3)").await;
    assert!(error.starts_with("the transaction was rolled back"), "{error}");
    let rows = it.run(&one, "SELECT v FROM t", &[]).await.unwrap();
    assert_eq!(rows, [[Value::Integer(2)]]);
    // And can start again.
    for sql in ["BEGIN", "INSERT INTO t VALUES (4)", "COMMIT"] {
        it.run(&one, sql, &[]).await.unwrap();
    }
}

#[tokio::test]
async fn dropped_connection_rolls_back_and_returns_its_permits() {
    let it = Fixture::new();
    let watcher = it.connect().await;
    it.run(&watcher, "CREATE TABLE t (v)", &[]).await.unwrap();
    for _ in 0..2 * MAX_CONNECTIONS {
        let connection = it.connect().await;
        it.run(&connection, "BEGIN IMMEDIATE", &[]).await.unwrap();
        it.run(&connection, "INSERT INTO t VALUES (1)", &[]).await.unwrap();
    }
    assert_eq!(it.run(&watcher, "SELECT v FROM t", &[]).await, Ok(Vec::new()));
}

#[tokio::test]
async fn connections_of_a_component_are_limited() {
    let it = Fixture::new();
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        open.push(it.connect().await);
    }
    let error = it.database.connect(&it.permits).await.unwrap_err();
    assert!(error.to_string().starts_with("too many connections are open, 64"), "{error}");
    // Those of another component are not affected.
    it.database.connect(&ComponentPermits::default()).await.unwrap();
}

#[tokio::test]
async fn concurrent_transactions_of_many_connections_finish() {
    const EACH: i64 = 5;
    let it = Fixture::new();
    let first = it.connect().await;
    it.run(&first, "CREATE TABLE t (v)", &[]).await.unwrap();
    it.run(&first, "INSERT INTO t VALUES (0)", &[]).await.unwrap();
    let add = async || {
        let connection = it.connect().await;
        for _ in 0..EACH {
            for sql in ["BEGIN IMMEDIATE", "UPDATE t SET v = v + 1", "COMMIT"] {
                it.run(&connection, sql, &[]).await.unwrap();
            }
        }
    };
    futures::future::join_all((0..20).map(|_| add())).await;
    let sum = it.run(&first, "SELECT v FROM t", &[]).await.unwrap();
    assert_eq!(sum, [[Value::Integer(20 * EACH)]]);
}

#[test]
fn file_that_is_no_database_is_refused_with_its_label() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    std::fs::write(&path, "not a database, but long enough to have a header".repeat(9)).unwrap();
    let config = DatabaseConfig { path: path.clone(), max_size: MIB };
    let databases = [("users".to_owned(), config)].into();
    let bindings = Bindings { folder: Path::new("unused").into(), databases };
    let error = bindings.open([["users".to_owned()].as_slice()].into_iter()).unwrap_err();
    let start = format!("SQLite database `users`: {}: cannot be used", path.display());
    assert!(format!("{error:#}").starts_with(&start), "{error:#}");
}
