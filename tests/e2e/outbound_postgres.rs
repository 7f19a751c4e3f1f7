//! Outbound PostgreSQL: every type through every interface, errors, grants, limits, TLS, and servers that
//! fail.

use std::time::Instant;

use rcgen::{CertificateParams, KeyPair};
use spinfer_tests::{
    Launch, Manifest, POSTGRES_PASSWORD, POSTGRES_USER, Postgres, Spinfer, wait_until,
};

/// `spin:postgres@4.2.0`, `spin:postgres@3.0.0` and `fermyon:spin/postgres@2.0.0`.
const INTERFACES: [&str; 3] = ["/new/postgres", "/older/postgres-3", "/older/postgres"];

fn launch(hosts: &str, settings: &str) -> Launch {
    let settings = format!("allowed_outbound_hosts = [{hosts}]\n{settings}");
    // The tables of the settings follow those of their component.
    let of = |id: &str| settings.replace("ID", id);
    let manifest = Manifest::default().with("/new/...", "new", "stores", &of("new"));
    Launch::new(&manifest.with("/older/...", "older", "stores_older", &of("older"))).uncached()
}

/// The host, with a grant for the server.
fn up(server: &Postgres) -> Spinfer {
    launch(&format!("\"postgres://127.0.0.1:{}\"", server.port()), "").up()
}

/// The result of each line of a script.
fn run_script(spinfer: &Spinfer, path: &str, script: &[&str]) -> Vec<String> {
    let response = spinfer.post(path, script.join("\n"));
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    let lines: Vec<_> = response.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), script.len(), "{path}: {lines:?}");
    lines
}

/// The results of the script after it has opened `address`.
fn run_at(spinfer: &Spinfer, path: &str, address: &str, script: &[&str]) -> Vec<String> {
    let open = format!("open {address}");
    let mut results = run_script(spinfer, path, &[&[&*open], script].concat());
    assert_eq!(results.remove(0), "ok", "{path}");
    results
}

#[test]
fn every_type_of_postgresql_is_exact_both_ways() {
    let server = Postgres::start();
    let (spinfer, address) = (up(&server), server.address("127.0.0.1", ""));
    let types = |path: &str| {
        let line = run_at(&spinfer, path, &address, &["types"]).remove(0);
        line.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        types(INTERFACES[0]),
        [
            "Boolean(true)",
            "Int8(-128)",
            "Int16(-32768)",
            "Int32(-2147483648)",
            "Int64(-9223372036854775808)",
            "Floating32(0.1)",
            "Floating64(-1e-300)",
            "Str(\"a\\\"é'\\\\\")",
            "Str(\"v\")",
            "Binary([0,255])",
            "Date((2024,2,29))",
            "Date((-43,3,15))",
            "Time((23,59,59,999999000))",
            "Datetime((1969,12,31,23,59,59,1000))",
            "Datetime((2024,7,1,12,0,0,0))",
            "Datetime((1970,1,1,23,59,59,0))",
            "Uuid(\"67e55044-10b1-426f-9247-bb680e5fe0c8\")",
            // The bytes of `{"a": 12345678901234567890.50}`.
            "Jsonb([123,34,97,34,58,32,49,50,51,52,53,54,55,56,57,48,49,50,51,52,53,54,55,56,57,48,46,\
             53,48,125])",
            "Decimal(\"-123456789012345678901234567890.0500\")",
            "Decimal(\"NaN\")",
            "RangeInt32((Some((1,Inclusive)),Some((6,Exclusive))))",
            "RangeInt64((None,Some((-1,Exclusive))))",
            "RangeDecimal((Some((\"0.10\",Exclusive)),None))",
            "ArrayInt32([Some(1),None])",
            "ArrayInt64([])",
            "ArrayDecimal([Some(\"100000000000000000000\"),None])",
            "ArrayStr([Some(\"a,\\\"b\\\\\"),Some(\"NULL\"),None])",
            "Interval(Interval{micros:-9223372036854775807,days:30,months:-25})",
            "DbNull",
            "Unsupported([2,32,0,4,10,0,0,1])",
        ]
    );
    assert_eq!(
        types(INTERFACES[1]),
        [
            "Boolean(false)",
            "Int8(7)",
            "Int16(7)",
            "Int32(7)",
            "Int64(7)",
            "Floating32(0.5)",
            "Floating64(0.1)",
            "Str(\"a\")",
            "Binary([1])",
            "Date((2024,2,29))",
            "Time((1,2,3,4000))",
            "Datetime((2024,1,2,3,4,5,6000))",
            "Datetime((1970,1,1,0,1,0,0))",
            "DbNull",
            "Unsupported",
        ]
    );
    assert_eq!(
        types(INTERFACES[2]),
        [
            "Boolean(false)",
            "Int16(7)",
            "Int16(7)",
            "Int32(7)",
            "Int64(7)",
            "Int16(255)",
            "Int32(65535)",
            "Int64(4294967295)",
            "Int64(9223372036854775807)",
            "Floating32(0.5)",
            "Floating64(0.1)",
            "Str(\"a\")",
            "Binary([1])",
            "DbNull",
            "Unsupported",
        ]
    );
}

#[test]
fn postgresql_statements_and_transactions_work_through_every_interface() {
    let server = Postgres::start();
    let (spinfer, address) = (up(&server), server.address("127.0.0.1", ""));
    for path in INTERFACES {
        let script = [
            "execute CREATE TABLE animals (name text PRIMARY KEY, legs int4)",
            "execute INSERT INTO animals VALUES ('cat', 4), ('snake', NULL)",
            "query SELECT name, legs FROM animals ORDER BY name",
            "query-with cat SELECT legs FROM animals WHERE name = $1",
            "query SELECT legs FROM animals WHERE false",
            "execute BEGIN",
            "execute DELETE FROM animals",
            "execute ROLLBACK",
            "execute SELECT * FROM animals",
            "execute DROP TABLE animals",
        ];
        let results = run_at(&spinfer, path, &address, &script);
        let expected = [
            "0",
            "2",
            "name Str,legs Int32|Str(\"cat\"),Int32(4)|Str(\"snake\"),DbNull",
            "legs Int32|Int32(4)",
            "legs Int32",
            "0",
            "2",
            "0",
            "2",
            "0",
        ];
        assert_eq!(results, expected, "{path}");
    }
    let results = run_at(
        &spinfer,
        INTERFACES[0],
        &address,
        &[
            "query SELECT 'a'::json AS a, int4range(3, 3) AS b, ARRAY[1.5]::numeric[] AS c",
            "query SELECT '\"a\"'::json AS a, int4range(3, 3) AS b, ARRAY[1.5]::numeric[] AS c",
            "crowd 20 SELECT 1",
            "count SELECT generate_series(1, 1000)",
        ],
    );
    assert!(results[0].contains("invalid input syntax for type json"), "{results:?}");
    let expected = "a Other(\"json\"),b RangeInt32,c ArrayDecimal|Unsupported([34,97,34]),\
                    RangeInt32((Some((0,Inclusive)),Some((0,Exclusive)))),ArrayDecimal([Some(\"1.5\")])";
    assert_eq!(results[1..], [expected, "20", "1000"]);
}

/// Spin 1: the address is in each call.
#[test]
fn postgresql_of_spin_1_opens_a_connection_for_each_call() {
    let server = Postgres::start();
    let address = server.address("127.0.0.1", "");
    let hosts = format!("allowed_outbound_hosts = [\"postgres://127.0.0.1:{}\"]", server.port());
    let base = Manifest::default();
    let manifest = format!(
        "{}[[trigger.http]]\nroute = \"/...\"\ncomponent = \"module\"\n[component.module]\n\
         source = \"{}/hello_spin_1.wasm\"\n{hosts}\n",
        base.text(),
        spinfer_tests::CORE_MODULES
    );
    let spinfer = Launch::from_text(&manifest).uncached().up();
    let result = spinfer.post("/postgres", &address).text();
    let error = "1 a true PgError::QueryFailed(\"ERROR: table \\\"spin_1\\\" does not exist\")";
    assert_eq!(result, error);
    let denied = spinfer.post("/postgres", "postgres://me@127.0.0.1:1/").text();
    assert!(denied.starts_with("PgError::ConnectionFailed(\""), "{denied}");
}

#[test]
fn postgresql_errors_map_to_their_variants() {
    let server = Postgres::start();
    let spinfer = up(&server);
    let address = server.address("127.0.0.1", "");
    let wrong = address.replace(POSTGRES_PASSWORD, "hush-hush");
    for path in INTERFACES {
        let new = path == INTERFACES[0];
        for (address, part) in [
            (wrong.as_str(), "password authentication failed for user"),
            (
                "postgres://me:hush-hush@127.0.0.1:1/db",
                "127.0.0.1:1 is not in allowed_outbound_hosts",
            ),
            (
                "postgres://me:hush-hush@localhost:1/db",
                "localhost:1 is not in allowed_outbound_hosts",
            ),
            ("mysql://me:hush-hush@127.0.0.1/db", "not a connection string of PostgreSQL"),
            ("postgres://me:hush-hush@%2Ftmp/db", "is a Unix socket"),
        ] {
            let refused = run_script(&spinfer, path, &[&format!("open {address}")]).remove(0);
            assert!(refused.contains("Error::ConnectionFailed(\""), "{path}: {refused}");
            assert!(refused.contains(part) && !refused.contains("hush-hush"), "{path}: {refused}");
        }
        // Each host of an address is checked, also one that is not tried.
        let several = format!("open {}", address.replace("@", "@127.0.0.1:1,"));
        let refused = run_script(&spinfer, path, &[&several]).remove(0);
        assert!(refused.contains("127.0.0.1:1 is not in allowed_outbound_hosts"), "{refused}");

        let results = run_at(
            &spinfer,
            path,
            &address,
            &[
                "query SELECT nothing",
                "execute SELECT $1::int4",
                "query-with x SELECT $1::int4",
                "query SELECT 1; SELECT 2",
                "query SELECT 'infinity'::date AS d",
                "query SELECT '{{1}}'::int4[] AS d",
                "query SELECT 1 AS a",
            ],
        );
        let failed = |message: &str| match new {
            true => format!(
                "PgError(Error::QueryFailed(QueryError::DbError(DbError {{ as-text: \"{message}"
            ),
            false => format!("Error::QueryFailed(\"{message}"),
        };
        let starts = [
            failed("ERROR: column \\\"nothing\\\" does not exist"),
            "Error::BadParameter(\"the statement has 1 parameters, and 0 were passed\")".into(),
            failed("ERROR: invalid input syntax for type integer: \\\"x\\\""),
            failed("ERROR: cannot insert multiple commands"),
        ];
        for (result, start) in results.iter().zip(&starts) {
            assert!(result.contains(start), "{path}: {result} {start}");
        }
        // Versions without dates and arrays do not pass them on.
        let infinite = "ValueConversionFailed(\"column 1, \\\"d\\\": the date is infinite";
        assert!(results[4].contains(infinite), "{path}: {}", results[4]);
        assert!(results[5].contains("several dimensions"), "{path}: {}", results[5]);
        assert_eq!(
            results[6], "a Int32|Int32(1)",
            "{path}: errors of a statement leave the connection"
        );
    }
    let unique = run_at(
        &spinfer,
        INTERFACES[0],
        &address,
        &[
            "execute CREATE TABLE t (a int4 CONSTRAINT only_one UNIQUE)",
            "execute INSERT INTO t VALUES (1)",
            "execute INSERT INTO t VALUES (1)",
        ],
    )
    .remove(2);
    for part in [
        "severity: \"ERROR\", code: \"23505\"",
        "detail: Some(\"Key (a)=(1) already exists.\")",
        "(\"constraint\", \"only_one\")",
        "(\"table\", \"t\")",
    ] {
        assert!(unique.contains(part), "{part}: {unique}");
    }
    let log = spinfer.log();
    assert!(!log.contains("hush-hush") && !log.contains(POSTGRES_PASSWORD), "{log}");

    let blocked = "[outbound_networking]\nblock_networks = [\"private\"]";
    let spinfer = launch("\"postgres://*:*\"", "").runtime_config(blocked).up();
    for path in INTERFACES {
        for host in ["127.0.0.1", "localhost"] {
            let open = format!("open {}", server.address(host, ""));
            let refused = run_script(&spinfer, path, &[&open]).remove(0);
            assert!(refused.contains("blocked by outbound_networking"), "{path}: {refused}");
        }
    }
}

#[test]
fn postgresql_statement_is_cancelled_when_its_request_ends() {
    let server = Postgres::start();
    let hosts = format!("\"postgres://127.0.0.1:{}\"", server.port());
    let limits = "[component.ID.tool.spinfer.limits]\ndeadline = \"2s\"";
    let (spinfer, address) = (launch(&hosts, limits).up(), server.address("127.0.0.1", ""));
    let others = "query SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                  AND pid <> pg_backend_pid()";
    for path in INTERFACES {
        let begin = Instant::now();
        let response = spinfer.post(path, format!("open {address}\nexecute SELECT pg_sleep(600)"));
        assert_eq!(response.status, 504, "{path}: {}", response.text());
        assert!(begin.elapsed().as_secs() < 60, "{path}");
        wait_until("the statement is cancelled and its connection closed", || {
            run_at(&spinfer, path, &address, &[others]) == ["count Int64|Int64(0)"]
        });
    }
}

#[test]
fn postgresql_result_is_bounded() {
    let server = Postgres::start();
    let (spinfer, address) = (up(&server), server.address("127.0.0.1", ""));
    for path in INTERFACES {
        let count = "count SELECT repeat('x', 1000) FROM generate_series(1, 10000)";
        assert_eq!(run_at(&spinfer, path, &address, &[count]), ["10000"], "{path}");
        for (statement, part) in [
            (
                "query SELECT repeat('x', 1000) FROM generate_series(1, 100000)",
                "the result exceeds",
            ),
            ("query SELECT repeat('x', 20000000)", "a row or message of"),
            // A few kilobytes on the wire, and 130 MB of digits.
            (
                "query SELECT array_agg('1e131071'::numeric) FROM generate_series(1, 1000)",
                "the result exceeds",
            ),
        ] {
            let script = [statement, "query SELECT 1"];
            let results = run_at(&spinfer, path, &address, &script);
            assert!(results[0].contains(part), "{path}: {}", results[0]);
            assert!(results[1].contains("open another one"), "{path}: {}", results[1]);
        }
    }
    let hosts = format!("\"postgres://127.0.0.1:{}\"", server.port());
    let limits = "[component.ID.tool.spinfer.limits]\ninstance_memory = \"12MiB\"";
    let small = launch(&hosts, limits).up();
    let large = "query SELECT repeat('x', 1000) FROM generate_series(1, 13000)";
    let result = run_at(&small, INTERFACES[0], &address, &[large]).remove(0);
    assert!(result.contains("limits.instance_memory"), "{result}");
}

#[test]
fn lost_postgresql_server_is_an_error_until_it_returns() {
    let mut server = Postgres::start();
    let (spinfer, address) = (up(&server), server.address("127.0.0.1", ""));
    for path in INTERFACES {
        std::thread::scope(|scope| {
            let sleep = || {
                run_at(&spinfer, path, &address, &["query SELECT pg_sleep(600)", "query SELECT 1"])
            };
            let sleeping = scope.spawn(sleep);
            wait_until("the statement is executed", || {
                let active = "query SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(600)' \
                              AND state = 'active' AND pid <> pg_backend_pid()";
                run_at(&spinfer, path, &address, &[active]) == ["count Int64|Int64(1)"]
            });
            server.kill();
            let results = sleeping.join().unwrap();
            assert!(results[0].contains("Error::QueryFailed("), "{path}: {}", results[0]);
            assert!(results[1].contains("open another one"), "{path}: {}", results[1]);
        });
        let refused = run_script(&spinfer, path, &[&format!("open {address}")]).remove(0);
        assert!(refused.contains("Error::ConnectionFailed("), "{path}: {refused}");
        server.restart();
        wait_until("a connection is opened again", || {
            run_at(&spinfer, path, &address, &["query SELECT 1 AS a"]) == ["a Int32|Int32(1)"]
        });
    }
}

#[test]
fn postgresql_certificates_are_verified() {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let server = Postgres::with_tls(&certificate.pem(), &key.serialize_pem());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("certificate.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let hosts = format!("\"postgres://*:{}\"", server.port());
    let strict = launch(&hosts, "").up();
    let trusting = launch(&hosts, "").env("SSL_CERT_FILE", &file.display().to_string()).up();
    let encrypted = "query SELECT ssl AS a FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    for path in INTERFACES {
        for mode in ["prefer", "require"] {
            let address = server.address("localhost", &format!("sslmode={mode}"));
            let results = run_at(&trusting, path, &address, &[encrypted]);
            assert_eq!(results, ["a Boolean|Boolean(true)"], "{path} {mode}");
            let refused = run_script(&strict, path, &[&format!("open {address}")]).remove(0);
            assert!(refused.contains("invalid peer certificate"), "{path} {mode}: {refused}");
            // The certificate is that of another name.
            let address = server.address("127.0.0.1", &format!("sslmode={mode}"));
            let refused = run_script(&trusting, path, &[&format!("open {address}")]).remove(0);
            assert!(refused.contains("invalid peer certificate"), "{path} {mode}: {refused}");
        }
        let address = server.address("localhost", "sslmode=disable");
        assert_eq!(run_at(&strict, path, &address, &[encrypted]), ["a Boolean|Boolean(false)"]);
    }
    let pem = certificate.pem().replace('\n', "|").replace(' ', "_");
    let address = server.address("localhost", "sslmode=require");
    let script = [&*format!("open-trusting {pem} {address}"), encrypted];
    assert_eq!(run_script(&strict, INTERFACES[0], &script)[1], "a Boolean|Boolean(true)");
    let script = format!("open-trusting hush {address}");
    let refused = run_script(&strict, INTERFACES[0], &[&script]).remove(0);
    assert!(refused.contains("Error::Other(\"there is no certificate"), "{refused}");

    let plain = Postgres::start();
    let spinfer = up(&plain);
    let open = |mode: &str| format!("open {}", plain.address("127.0.0.1", mode));
    assert_eq!(run_script(&spinfer, INTERFACES[0], &[&open("sslmode=prefer")]), ["ok"]);
    let refused = run_script(&spinfer, INTERFACES[0], &[&open("sslmode=require")]).remove(0);
    assert!(refused.contains("server does not support TLS"), "{refused}");
}

/// Of several hosts, the first that accepts the connection is used.
#[test]
fn hosts_of_an_address_are_tried_in_order() {
    let server = Postgres::start();
    let spinfer = launch("\"postgres://127.0.0.1:*\"", "").up();
    let several = |more: &str| {
        format!(
            "postgres://{POSTGRES_USER}:{POSTGRES_PASSWORD}@127.0.0.1:1,127.0.0.1:{}/postgres?{more}",
            server.port()
        )
    };
    for path in INTERFACES {
        let results = run_at(&spinfer, path, &several(""), &["query SELECT 1 AS a"]);
        assert_eq!(results, ["a Int32|Int32(1)"], "{path}");
        let address = several("target_session_attrs=read-write&load_balance_hosts=random");
        assert_eq!(run_at(&spinfer, path, &address, &["execute SELECT 1"]), ["1"], "{path}");
        let open = format!("open {}", several("target_session_attrs=read-only"));
        let refused = run_script(&spinfer, path, &[&open]).remove(0);
        assert!(refused.contains("the server is not read-only"), "{path}: {refused}");
    }
}
