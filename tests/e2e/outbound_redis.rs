//! Outbound Redis: the commands of both interfaces, grants, and shared connections.

use rcgen::{CertificateParams, KeyPair};
use spinfer_tests::{Launch, Manifest, PATIENCE, Redis, Spinfer};

/// The paths of the interfaces: of the current spin-sdk, and of earlier SDKs.
const INTERFACES: [&str; 2] = ["/new/redis", "/older/redis"];

fn manifest(allowed: &str) -> Manifest {
    let settings = format!("allowed_outbound_hosts = [\"{allowed}\"]");
    Manifest::default().with("/new/...", "new", "stores", &settings).with(
        "/older/...",
        "older",
        "stores_older",
        &settings,
    )
}

/// Both guests with a grant for `redis`.
fn up(redis: &Redis) -> Spinfer {
    Launch::new(&manifest(&redis.url())).up()
}

/// The results of opening `address` and of each line of a script.
fn run_script(spinfer: &Spinfer, path: &str, address: &str, script: &[&str]) -> Vec<String> {
    let body = [&[&*format!("open {address}")], script].concat().join("\n");
    let response = spinfer.post(path, body);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.text().lines().map(str::to_owned).collect()
}

/// Checks the result of each line of a script.
fn check(spinfer: &Spinfer, path: &str, address: &str, script: &[(&str, &str)]) {
    let lines: Vec<_> = script.iter().map(|(line, _)| *line).collect();
    let results = run_script(spinfer, path, address, &lines);
    assert_eq!(results[0], "ok", "{path}");
    let expected: Vec<_> = script.iter().map(|(_, result)| *result).collect();
    assert_eq!(results[1..], expected, "{path}: {lines:?}");
}

#[test]
fn every_command_works_through_every_interface() {
    let redis = Redis::start();
    let spinfer = up(&redis);
    for path in INTERFACES {
        let script = [
            ("get k", "none"),
            ("set k v", "ok"),
            ("get k", "v"),
            ("incr n", "1"),
            ("incr n", "2"),
            ("sadd s a b c", "3"),
            ("sadd s c d", "1"),
            ("smembers s", "a,b,c,d"),
            ("srem s a none", "1"),
            ("smembers s", "b,c,d"),
            ("del k n none", "2"),
            ("get k", "none"),
            ("execute PING", "+PONG"),
            ("execute set k #7", "+OK"),
            ("execute GET k", "7"),
            ("execute GET none", "nil"),
            ("execute INCRBY k #35", "#42"),
            ("execute RPUSH l a b", "#2"),
            ("execute LRANGE l #0 #-1", "a,b"),
            ("execute EVAL return{1,{2,'a'},false} #0", "#1,#2,a,nil"),
            ("del k l s", "3"),
        ];
        check(&spinfer, path, &redis.url(), &script);
    }
}

#[test]
fn published_message_reaches_its_subscribers() {
    let redis = Redis::start();
    let spinfer = up(&redis);
    let mut connection = redis.connect();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut subscription = connection.as_pubsub();
    subscription.subscribe("news").unwrap();
    for path in INTERFACES {
        check(&spinfer, path, &redis.url(), &[(&format!("publish news from{path}"), "ok")]);
        let message = subscription.get_message().unwrap();
        assert_eq!(message.get_payload::<String>().unwrap(), format!("from{path}"));
    }
}

#[test]
fn errors_map_to_their_variants() {
    let redis = Redis::start();
    let spinfer = up(&redis);
    let (url, port) = (redis.url(), redis.port());
    for path in INTERFACES {
        for address in [
            "nothing".to_owned(),
            format!("http://127.0.0.1:{port}"),
            "unix:///tmp/redis.sock".into(),
            // Each differs from the grant in one part.
            format!("rediss://127.0.0.1:{port}"),
            format!("redis://localhost:{port}"),
            "redis://127.0.0.1".into(),
        ] {
            let results = run_script(&spinfer, path, &address, &["get k"]);
            assert_eq!(results, ["Error::InvalidAddress", "nothing is open"], "{path}: {address}");
        }
        let script = [
            ("set k v", "ok"),
            ("incr k", "Error::TypeError"),
            ("sadd k v", "Error::TypeError"),
            ("execute RPUSH l a", "#1"),
            ("get l", "Error::TypeError"),
            ("incr l", "Error::TypeError"),
            ("del k l", "2"),
        ];
        check(&spinfer, path, &url, &script);
        let script = ["execute NONSENSE", "execute GET", "execute SUBSCRIBE c", "execute monitor"];
        let script = [&script[..], &["execute CLIENT reply OFF", "get k"]].concat();
        let results = run_script(&spinfer, path, &url, &script);
        for (result, part) in results[1..].iter().zip([
            "unknown command",
            "wrong number of arguments",
            "SUBSCRIBE is not supported by this interface",
            "MONITOR is not supported by this interface",
            "CLIENT is not supported by this interface",
        ]) {
            assert!(result.starts_with("Error::Other(") && result.contains(part), "{result}");
        }
        assert_eq!(results[6], "none");
    }
}

#[test]
fn connection_state_stays_with_its_handle() {
    let redis = Redis::start();
    let spinfer = up(&redis);
    let url = redis.url();
    let open = format!("open {url}");
    for path in INTERFACES {
        assert_eq!(redis.query::<String>(&["FLUSHALL"]), "OK");
        let script = [
            ("set k 0", "ok"),
            ("execute SELECT #1", "+OK"),
            ("get k", "none"),
            ("set k 1", "ok"),
            // A new handle uses the first database.
            (&*open, "ok"),
            ("get k", "0"),
            ("execute MULTI", "+OK"),
            ("set k 2", "ok"),
            // Also while another handle is in a transaction.
            (&*open, "ok"),
            ("get k", "0"),
            ("execute TYPE k", "+string"),
        ];
        check(&spinfer, path, &url, &script);
        let script = [
            ("execute MULTI", "+OK"),
            ("set k 3", "ok"),
            ("execute INCR k", "+QUEUED"),
            ("execute EXEC", "+OK,#4"),
            ("get k", "4"),
            // A blocking command blocks only its own handle.
            ("execute BLPOP none 0.2", "nil"),
        ];
        check(&spinfer, path, &url, &script);
    }
}

/// It gets an error, as the state of the connection is lost, and can continue.
#[test]
fn handle_reconnects_after_losing_its_own_connection() {
    let redis = Redis::start();
    let spinfer = up(&redis);
    for path in INTERFACES {
        assert_eq!(redis.query::<String>(&["FLUSHALL"]), "OK");
        let script = ["set k 0", "execute SELECT #1", "set k 1", "execute QUIT", "get k", "get k"];
        let script = [&script[..], &["execute SELECT #1", "get k", "set k 2", "get k"]].concat();
        let mut results = run_script(&spinfer, path, &redis.url(), &script);
        let lost = results.remove(5);
        assert!(lost.starts_with("Error::Other(") && lost.contains("is lost"), "{path}: {lost}");
        let others = ["ok", "ok", "+OK", "ok", "+OK", "0", "+OK", "1", "ok", "2"];
        assert_eq!(results, others, "{path}");
    }
}

/// A reply over the limit closes its connection, and with it every other request on that connection.
#[test]
fn oversized_reply_does_not_affect_other_components() {
    let redis = Redis::start();
    let mut connection = redis.connect();
    redis::cmd("SET").arg("big").arg(vec![b'x'; 30_000_000]).exec(&mut connection).unwrap();
    redis::cmd("SET").arg("k").arg("v").exec(&mut connection).unwrap();
    let config = format!("[key_value_store.redis]\ntype = \"redis\"\nurl = \"{}\"\n", redis.url());
    let settings =
        format!("allowed_outbound_hosts = [\"{}\"]\nkey_value_stores = [\"redis\"]", redis.url());
    let manifest = Manifest::default().with("/new/...", "new", "stores", &settings).with(
        "/older/...",
        "older",
        "stores_older",
        &settings,
    );
    let spinfer = Launch::new(&manifest).runtime_config(&config).up();
    std::thread::scope(|scope| {
        let greedy = scope.spawn(|| {
            for _ in 0..5 {
                let results =
                    run_script(&spinfer, "/new/redis", &redis.url(), &["execute MGET big big big"]);
                assert!(results[1].contains("more than 64 MiB of memory"), "{results:?}");
                let results = run_script(&spinfer, "/new/key-value", "redis", &["get big"]);
                assert!(results[1].contains("more than 16777216 bytes"), "{results:?}");
            }
        });
        let mut others = 0;
        while !greedy.is_finished() {
            check(&spinfer, "/older/redis", &redis.url(), &[("get k", "v")]);
            check(&spinfer, "/older/wasi", "redis", &[("get k", "v")]);
            others += 1;
        }
        greedy.join().unwrap();
        assert!(others > 5, "{others} others meanwhile");
    });
}

#[test]
fn connections_are_shared_and_reused() {
    let redis = Redis::start();
    let spinfer = up(&redis);
    let url = redis.url();
    std::thread::scope(|scope| {
        for path in INTERFACES.iter().cycle().take(8) {
            scope.spawn(|| {
                for _ in 0..10 {
                    let script =
                        [("execute exists k", "#0"), ("execute TTL k", "#-2"), ("get k", "none")];
                    check(&spinfer, path, &url, &script);
                }
            });
        }
    });
    let clients: String = redis.query(&["CLIENT", "LIST"]);
    let ours = clients.lines().filter(|line| !line.contains("cmd=client")).count();
    assert_eq!(ours, 2, "one for each component: {clients}");
}

#[test]
fn dedicated_connections_per_instance_are_limited() {
    let redis = Redis::start();
    let spinfer = up(&redis);
    let (url, open) = (redis.url(), format!("open {}", redis.url()));
    for path in INTERFACES {
        let script = [&*open, "execute MULTI"].repeat(5);
        let mut results = run_script(&spinfer, path, &url, &script);
        assert_eq!(results.pop().unwrap(), "Error::TooManyConnections", "{path}");
        assert_eq!(results.iter().filter(|result| *result == "+OK").count(), 4, "{path}");
    }
}

#[test]
fn max_connections_is_enforced() {
    let (redis, other) = (Redis::start(), Redis::start());
    let launch = Launch::new(&manifest("redis://127.0.0.1:*"));
    let spinfer = launch.runtime_config("[outbound_redis]\nmax_connections = 1").up();
    for path in INTERFACES {
        check(&spinfer, path, &redis.url(), &[("get k", "none")]);
        // A dedicated connection counts, and so does one to another server.
        let script = ["execute MULTI", &format!("open {}", other.url()), "get k"];
        let results = run_script(&spinfer, path, &redis.url(), &script);
        let many = "Error::TooManyConnections";
        assert_eq!(results, ["ok", many, many, "none"], "{path}");
        // An unused connection is closed for a new one.
        check(&spinfer, path, &other.url(), &[("get k", "none")]);
    }
}

#[test]
fn unavailable_or_silent_redis_is_an_error_until_it_returns() {
    let mut redis = Redis::start();
    let spinfer = up(&redis);
    let url = redis.url();
    for path in INTERFACES {
        check(&spinfer, path, &url, &[("set k v", "ok")]);
        redis.kill();
        let results = run_script(&spinfer, path, &url, &[]);
        assert!(results[0].starts_with("Error::Other(\"cannot connect"), "{results:?}");
        redis.restart();
        check(&spinfer, path, &url, &[("set k v", "ok")]);
        redis.pause();
        let results = run_script(&spinfer, path, &url, &["get k"]);
        let timed_out = results.last().unwrap();
        assert!(
            timed_out.starts_with("Error::Other(") && timed_out.contains("within 2s"),
            "{results:?}"
        );
        redis.resume();
        check(&spinfer, path, &url, &[("get k", "v")]);
    }
}

#[test]
fn tls_certificates_are_verified() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let certificate = file("certificate.pem", &certificate.pem());
    let key = file("key.pem", &key.serialize_pem());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.to_string();
    let tls = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let _redis = Redis::start_with(&[&tls[..], &["--tls-auth-clients", "no"]].concat());
    let url = format!("rediss://localhost:{port}");
    let launch = || Launch::new(&manifest("rediss://localhost:*"));
    let strict = launch().up();
    let trusting = launch().env("SSL_CERT_FILE", &certificate).up();
    for path in INTERFACES {
        let results = run_script(&strict, path, &url, &[]);
        assert!(results[0].contains("invalid peer certificate"), "{results:?}");
        check(&trusting, path, &url, &[("set k v", "ok"), ("get k", "v")]);
    }
}
