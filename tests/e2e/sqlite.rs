//! SQLite databases over HTTP: every interface, what components share, restarts, limits, `--sqlite`.

use spinfer_tests::{Launch, Manifest, Spinfer};

/// The paths of the interfaces: of the current spin-sdk, of Spin 3, and of Spin 2.
const INTERFACES: [&str; 3] = ["/new/sqlite", "/older/sqlite-3", "/older/sqlite"];

fn both(settings: &str) -> Manifest {
    Manifest::default().with("/new/...", "new", "stores", settings).with(
        "/older/...",
        "older",
        "stores_older",
        settings,
    )
}

fn up(settings: &str) -> Spinfer {
    Launch::new(&both(settings)).up()
}

/// The result of each line of a script.
fn run_script(spinfer: &Spinfer, path: &str, script: &[&str]) -> Vec<String> {
    let response = spinfer.post(path, script.join("\n"));
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    let lines: Vec<_> = response.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), script.len(), "{path}: {lines:?}");
    lines
}

/// Checks the result of each line of a script.
fn check(spinfer: &Spinfer, path: &str, script: &[(&str, &str)]) {
    let lines: Vec<_> = script.iter().map(|(line, _)| *line).collect();
    let expected: Vec<_> = script.iter().map(|(_, result)| *result).collect();
    assert_eq!(run_script(spinfer, path, &lines), expected, "{path}: {lines:?}");
}

#[test]
fn every_sqlite_interface_creates_inserts_and_selects() {
    let spinfer = up("sqlite_databases = [\"default\"]");
    for path in INTERFACES {
        let script = [
            ("open default", "ok"),
            ("execute - CREATE TABLE t (a INTEGER, b REAL, c TEXT, d BLOB, e)", ""),
            ("execute i:1,r:0.5,t:x,b:00ff,null INSERT INTO t VALUES (?, ?, ?, ?, ?)", ""),
            (
                "execute i:-9223372036854775808,r:-0.1,t:ä,b:,i:9223372036854775807 INSERT INTO t VALUES (?1, ?2, ?3, ?4, ?5)",
                "",
            ),
            (
                "execute - SELECT * FROM t ORDER BY a DESC",
                "a,b,c,d,e|i:1,r:0.5,t:x,b:00ff,null|\
                 i:-9223372036854775808,r:-0.1,t:ä,b:,i:9223372036854775807",
            ),
            ("execute t:x SELECT count(*) AS n FROM t WHERE c = :name", "n|i:1"),
            ("execute - BEGIN", ""),
            ("execute - DELETE FROM t", ""),
            ("execute - ROLLBACK", ""),
            ("execute - SELECT count(*) FROM t", "count(*)|i:2"),
            ("execute - BEGIN", ""),
            ("execute - DELETE FROM t", ""),
            ("execute - COMMIT", ""),
            ("execute - SELECT count(*) FROM t", "count(*)|i:0"),
            ("execute - DROP TABLE t", ""),
        ];
        check(&spinfer, path, &script);
    }
    for path in &INTERFACES[..2] {
        let script = [
            ("open default", "ok"),
            ("rowid", "0"),
            ("execute - CREATE TABLE t (v)", ""),
            ("execute - INSERT INTO t VALUES (1), (2), (3)", ""),
            ("changes", "3"),
            ("rowid", "3"),
            ("execute - UPDATE t SET v = 0 WHERE v > 1", ""),
            ("changes", "2"),
            ("execute - DROP TABLE t", ""),
        ];
        check(&spinfer, path, &script);
    }
    let numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000)";
    let (count, crowd) = (format!("count {numbers} SELECT n FROM c"), "crowd 20 SELECT 1");
    check(&spinfer, "/new/sqlite", &[("open default", "ok"), (&count, "1000"), (crowd, "20")]);
}

#[test]
fn sqlite_errors_name_the_problem() {
    let spinfer = up("sqlite_databases = [\"default\"]");
    for path in INTERFACES {
        let script = [
            "open secret",
            "open default",
            "execute - SELECT * FROM missing",
            "execute i:1 SELECT ?, ?",
            "execute - SELECT 1; SELECT 2",
            "execute r:NaN SELECT ?",
            "execute - ATTACH '/etc/passwd' AS p",
            "execute - SELECT zeroblob(20000000)",
            "execute - SELECT 1",
        ];
        let results = run_script(&spinfer, path, &script);
        assert_eq!(results[0], "Error::AccessDenied", "{path}");
        let parts = [
            "no such table: missing",
            "Got 1, needed 2",
            "execute one statement at a time",
            "parameter 1 is not a number",
            "ATTACH, DETACH and VACUUM are not permitted",
            "too big",
        ];
        for (result, part) in results[2..].iter().zip(parts) {
            let is_io = result.starts_with("Error::Io(");
            assert!(is_io && result.contains(part), "{path}: {result}");
        }
        assert_eq!(results[8], "1|i:1", "{path}: the connection is still usable");
        let many = ["open default"; 17];
        let results = run_script(&spinfer, path, &many);
        assert!(results[..16].iter().all(|result| result == "ok"), "{path}: {results:?}");
        assert!(results[16].contains("too many connections open (at most 16)"), "{path}");
    }
    // A component without grants.
    let spinfer = up("");
    for path in INTERFACES {
        assert_eq!(run_script(&spinfer, path, &["open default"]), ["Error::AccessDenied"]);
    }
}

#[test]
fn sqlite_database_persists_and_is_shared_by_label() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let manifest = both("sqlite_databases = [\"default\", \"other\"]");
    let launch = || {
        let launch = Launch::new(&manifest).state_dir(state);
        let config = "[sqlite_database.other]\ntype = \"spin\"\npath = \"DIR/some/where.db\"\n";
        launch.runtime_config(&config.replace("DIR", state.to_str().unwrap()))
    };
    let (create, insert) = ("execute - CREATE TABLE t (v)", "execute - INSERT INTO t VALUES (7)");
    let first = launch().up();
    check(&first, "/new/sqlite", &[("open default", "ok"), (create, ""), (insert, "")]);
    let read = "execute - SELECT v FROM t";
    for path in INTERFACES {
        check(&first, path, &[("open default", "ok"), (read, "v|i:7")]);
        let other = run_script(&first, path, &["open other", read]).remove(1);
        assert!(other.contains("no such table: t"), "{path}: {other}");
    }
    drop(first);
    let second = launch().up();
    check(&second, "/older/sqlite", &[("open default", "ok"), (read, "v|i:7")]);
    // Where Spin has it, so that an application migrated from Spin finds its data.
    assert!(state.join("sqlite_db.db").is_file());
    assert!(state.join("some/where.db").is_file());
}

#[test]
fn full_sqlite_database_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.db");
    let config = format!(
        "[sqlite_database.small]\ntype = \"spin\"\npath = \"{}\"\nmax_size = \"64KiB\"\n",
        path.display()
    );
    let spinfer = Launch::new(&both("sqlite_databases = [\"small\"]")).runtime_config(&config).up();
    check(&spinfer, "/new/sqlite", &[("open small", "ok"), ("execute - CREATE TABLE t (v)", "")]);
    for path in INTERFACES {
        let insert = "execute - INSERT INTO t VALUES (zeroblob(200000))";
        check(&spinfer, path, &[("open small", "ok"), (insert, "Error::DatabaseFull")]);
    }
}

#[test]
fn slow_sqlite_statement_does_not_delay_other_requests() {
    let settings = "sqlite_databases = [\"default\"]\ntool.spinfer.limits.deadline = \"2s\"";
    let spinfer = up(settings);
    let endless = "execute - WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) \
                   SELECT count(*) FROM c";
    for slow in INTERFACES {
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| {
                let script = ["open default", endless].join("\n");
                spinfer.post(slow, script)
            });
            let mut others = 0;
            while !slow.is_finished() {
                for path in INTERFACES {
                    check(
                        &spinfer,
                        path,
                        &[("open default", "ok"), ("execute - SELECT 1", "1|i:1")],
                    );
                }
                others += 1;
            }
            let response = slow.join().unwrap();
            // The guest received the error, or was ended, at the deadline.
            let in_time = response.status == 200 && response.text().contains("timed out");
            assert!(in_time || response.status == 504, "{}", response.text());
            assert!(others > 3, "{others} others meanwhile");
        });
    }
}

#[test]
fn sqlite_flag_executes_statements_before_serving() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seed.sql");
    std::fs::write(&file, "CREATE TABLE u (v); INSERT INTO u VALUES ('seed');").unwrap();
    let config = format!(
        "[sqlite_database.users]\ntype = \"spin\"\npath = \"{}\"\n",
        folder.path().join("users.db").display()
    );
    let manifest = both("sqlite_databases = [\"default\", \"users\"]");
    let launch = || Launch::new(&manifest).runtime_config(&config);
    let at_users = format!("@{}:users", file.display());
    let flags = [
        "--sqlite",
        "CREATE TABLE t AS SELECT 1 AS v",
        "--sqlite",
        "INSERT INTO t VALUES (2)",
        "--sqlite",
        &at_users,
    ];
    let spinfer = launch().flags(&flags).up();
    let script = [("open default", "ok"), ("execute - SELECT v FROM t", "v|i:1|i:2")];
    check(&spinfer, "/new/sqlite", &script);
    let script = [("open users", "ok"), ("execute - SELECT v FROM u", "v|t:seed")];
    check(&spinfer, "/older/sqlite", &script);
    for (flag, part) in [
        ("SELEC 1", "--sqlite \"SELEC 1\": database `default`: near \"SELEC\""),
        ("@/missing.sql", "--sqlite @/missing.sql: database `default`: No such file"),
        ("@/missing.sql:nowhere", "no SQLite database is bound to \"nowhere\""),
        ("@:users", "write a statement, @FILE, or @FILE:LABEL"),
    ] {
        let text = launch().flags(&["--sqlite", flag]).refused();
        assert!(text.contains(part), "{flag}: {text}");
    }
}

#[test]
fn unbound_sqlite_label_is_refused_at_startup() {
    let settings = "sqlite_databases = [\"default\", \"users\"]";
    let manifest = Manifest::default().with("/...", "a", "stores", settings);
    let text = Launch::new(&manifest).refused();
    let part = "component.a.sqlite_databases: no SQLite database is bound to \"users\"; write \
                [sqlite_database.users] into a --runtime-config-file";
    assert!(text.contains(part), "{text}");
    let config = "[sqlite_database.users]\ntype = \"libsql\"\nurl = \"https://a\"\n";
    let text = Launch::new(&manifest).runtime_config(config).refused();
    assert!(text.contains("type = \"libsql\" is not supported"), "{text}");
    let config = "[sqlite_database.users]\ntype = \"spin\"\npath = \"/dev/null/a.db\"\n";
    let (status, text) = Launch::new(&manifest).runtime_config(config).check();
    assert!(!status.success());
    assert!(text.contains("SQLite database `users`: /dev/null/a.db: cannot be used"), "{text}");
}
