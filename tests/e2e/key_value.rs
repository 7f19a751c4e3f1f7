//! Key-value stores: every interface with every type of store, limits, and a Redis that is unavailable,
//! slow or full.

use spinfer_tests::{GUESTS, Launch, Manifest, Redis, Spinfer, run_in, wait_until};

/// The paths of the interfaces: of the current spin-sdk, of earlier SDKs, and of WASI.
const INTERFACES: [&str; 3] = ["/new/key-value", "/older/key-value", "/older/wasi"];

/// Both guests with grants for these stores, which the runtime config binds.
fn up(labels: &str, config: &str) -> Spinfer {
    up_with(&format!("key_value_stores = [{labels}]"), config)
}

fn up_with(settings: &str, config: &str) -> Spinfer {
    let launch = Launch::new(&both(settings));
    let config = config.replace("DIR", launch.folder().to_str().unwrap());
    launch.runtime_config(&config).up()
}

fn both(settings: &str) -> Manifest {
    Manifest::default().with("/new/...", "new", "stores", settings).with(
        "/older/...",
        "older",
        "stores_older",
        settings,
    )
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

/// The labels and the runtime config of a store of every type.
fn every_kind(redis: &Redis) -> (String, String) {
    let config = format!(
        "[key_value_store.file]\ntype = \"spin\"\npath = \"DIR/some/where.db\"\n\
         [key_value_store.redis]\ntype = \"redis\"\nurl = \"{}\"\n\
         [key_value_store.memory]\ntype = \"memory\"\n",
        redis.url()
    );
    ("\"file\", \"redis\", \"memory\"".into(), config)
}

const KINDS: [&str; 3] = ["file", "redis", "memory"];

#[test]
fn every_interface_works_with_every_type_of_store() {
    let redis = Redis::start();
    let (labels, config) = every_kind(&redis);
    let spinfer = up(&labels, &config);
    for path in INTERFACES {
        for kind in KINDS {
            let script = [
                (&*format!("open {kind}"), "ok"),
                ("get a", "none"),
                ("exists a", "false"),
                ("set a 1", "ok"),
                ("set a 2", "ok"),
                ("set ä ö", "ok"),
                ("fill long 16777216", "ok"),
                ("get a", "2"),
                ("get ä", "ö"),
                ("get long", "16777216 bytes"),
                ("exists a", "true"),
                ("keys", "a,long,ä"),
                ("delete a", "ok"),
                ("delete a", "ok"),
                ("get a", "none"),
                ("delete long", "ok"),
                ("keys", "ä"),
                ("delete ä", "ok"),
                ("keys", ""),
            ];
            check(&spinfer, path, &script);
        }
    }
}

#[test]
fn entries_are_shared_between_interfaces() {
    let redis = Redis::start();
    let (labels, config) = every_kind(&redis);
    let spinfer = up(&labels, &config);
    for kind in KINDS {
        let open = format!("open {kind}");
        for (index, writer) in INTERFACES.iter().enumerate() {
            check(&spinfer, writer, &[(&open, "ok"), (&format!("set k {index}"), "ok")]);
            for reader in INTERFACES {
                check(&spinfer, reader, &[(&open, "ok"), ("get k", &index.to_string())]);
            }
        }
    }
    assert_eq!(
        redis.query::<String>(&["GET", "k"]),
        "2",
        "the key in Redis is the key of the entry"
    );
}

#[test]
fn wasi_batch_and_atomic_operations_work() {
    let redis = Redis::start();
    let (labels, config) = every_kind(&redis);
    let spinfer = up(&labels, &config);
    for kind in KINDS {
        let open = format!("open {kind}");
        let script = [
            (&*open, "ok"),
            ("set-many a=1 b=2 c=3", "ok"),
            ("get-many c none a c", "c=3,none=none,a=1,c=3"),
            ("delete-many a none b", "ok"),
            ("keys", "c"),
            ("set-many", "ok"),
            ("get-many", ""),
            ("delete-many", "ok"),
            ("increment n 5", "5"),
            ("increment n -7", "-2"),
            // The handle has seen that there is no value.
            ("cas s", "ok"),
            ("swap 1", "ok"),
            ("get s", "1"),
            // A write in between: the swap fails, and its new handle has seen the value.
            ("cas s", "ok"),
            ("set s 2", "ok"),
            ("swap 3", "another value"),
            ("get s", "2"),
            ("current", "2"),
            ("swap 3", "ok"),
            ("get s", "3"),
            // Or the handle reads the current value.
            ("cas s", "ok"),
            ("set s 4", "ok"),
            ("current", "4"),
            ("swap 5", "ok"),
            ("get s", "5"),
            // A deleted entry differs too.
            ("cas s", "ok"),
            ("delete s", "ok"),
            ("swap 6", "another value"),
            ("current", "none"),
            ("swap 7", "ok"),
            ("get s", "7"),
        ];
        check(&spinfer, "/older/wasi", &script);
    }
    // Counters are stored as Spin stores them.
    assert_eq!(redis.query::<i64>(&["GET", "n"]), -2);
}

#[test]
fn denied_and_oversized_operations_map_to_their_errors() {
    let config = "[key_value_store.memory]\ntype = \"memory\"\nmax_size = \"1MiB\"\n";
    let spinfer = up("\"memory\"", config);
    for path in INTERFACES {
        let many = ["open memory"; 257];
        let mut results =
            run_script(&spinfer, path, &[&many[..], &["close", "open memory"]].concat());
        let after = results.split_off(257);
        let full = results.pop().unwrap();
        assert!(results.iter().all(|result| result == "ok"), "{path}");
        assert_eq!(after, ["ok", "ok"], "{path}");

        let refused =
            run_script(&spinfer, path, &["open default", "open memory", "fill k 16778241"]);
        assert_eq!(refused[0], "Error::AccessDenied", "{path}");
        let other = |result: &str, part: &str| {
            assert!(result.starts_with("Error::Other(") && result.contains(part), "{result}");
        };
        other(&refused[2], "more than 16777216 bytes");
        if path == "/older/wasi" {
            other(&full, "too many stores are open");
        } else {
            assert_eq!(full, "Error::StoreTableFull", "{path}");
        }
        let long = format!("set {} v", "k".repeat(1025));
        let refused = run_script(&spinfer, path, &["open memory", &long, "fill k 2000000", "keys"]);
        other(&refused[1], "a key of 1025 bytes");
        other(&refused[2], "the store is full");
        assert_eq!(refused[3], "", "nothing was stored");
    }
    let long = format!("get {}", "k".repeat(1025));
    let text = ["open memory", "set n many", "increment n 1", &long];
    let results = run_script(&spinfer, "/older/wasi", &text);
    assert!(results[2].contains("4 bytes is not a number"), "{results:?}");
}

#[test]
fn keys_per_batch_are_limited() {
    let redis = Redis::start();
    let (labels, config) = every_kind(&redis);
    let spinfer = up(&labels, &config);
    for kind in KINDS {
        let script = ["many set 10000", "many get 10000", "many delete 10000", "count"];
        let open = format!("open {kind}");
        let results = run_script(&spinfer, "/older/wasi", &[&[&*open], &script[..]].concat());
        assert_eq!(results[1..4], ["ok", "10000", "ok"], "{kind}");
        for operation in ["get", "set", "delete"] {
            let many = format!("many {operation} 1000000");
            let problem = run_script(&spinfer, "/older/wasi", &[&open, &many]).remove(1);
            let part = "1000000 keys in a batch exceed the limit of 10000: use several batches";
            assert!(problem.starts_with("Error::Other(") && problem.contains(part), "{problem}");
        }
    }
}

#[test]
fn values_held_by_handles_are_charged_to_the_instance() {
    let config = "[key_value_store.memory]\ntype = \"memory\"\n";
    let settings =
        "key_value_stores = [\"memory\"]\ntool.spinfer.limits.instance_memory = \"32MiB\"";
    let spinfer = up_with(settings, config);
    let script = ["open memory", "fill k 5000000", "hold k 6", "hold k 7", "hold k 6"];
    let results = run_script(&spinfer, "/older/wasi", &script);
    assert_eq!(results[2], "6");
    assert!(results[3].contains("limits.instance_memory"), "{results:?}");
    assert_eq!(results[4], "6", "dropped values are free again");
}

/// Calls that wait for a store hold their arguments.
#[test]
fn values_of_pending_calls_are_charged_to_the_instance() {
    let redis = Redis::start();
    let config = "[key_value_store.file]\ntype = \"spin\"\npath = \"DIR/kv.db\"\n";
    let settings = format!(
        "key_value_stores = [\"file\"]\nallowed_outbound_hosts = [\"{}\"]\n\
         tool.spinfer.limits.instance_memory = \"32MiB\"",
        redis.url()
    );
    let spinfer = up_with(&settings, config);
    for (path, open) in
        [("/new/key-value", "open file".into()), ("/new/redis", format!("open {}", redis.url()))]
    {
        let results = run_script(&spinfer, path, &[&open, "crowd 64 1000000", "crowd 16 1000000"]);
        let (taken, refused) = results[1].split_once(" taken, ").unwrap();
        // Some finish before others start.
        assert!((16..64).contains(&taken.parse().unwrap()), "{path}: {results:?}");
        assert!(refused.contains("limits.instance_memory"), "{path}: {results:?}");
        assert_eq!(results[2], "16 taken, None", "{path}: finished calls are free again");
    }
}

#[test]
fn keys_are_streamed_page_by_page() {
    let redis = Redis::start();
    let mut connection = redis.connect();
    let mut fill = redis::pipe();
    for index in 0..3000 {
        fill.set(format!("{index:0>1000}"), "").ignore();
    }
    // A key that a component cannot represent.
    fill.set(b"\xff".to_vec(), "").ignore();
    fill.exec(&mut connection).unwrap();
    let (labels, config) = every_kind(&redis);
    let spinfer = up(&labels, &config);
    assert_eq!(run_script(&spinfer, "/new/key-value", &["open redis", "count"])[1], "3000");
    assert_eq!(run_script(&spinfer, "/older/key-value", &["open redis", "count"])[1], "3000");
}

/// As in Spin: a component that ignores cursors receives every key.
#[test]
fn wasi_lists_all_keys_at_once_and_refuses_foreign_cursors() {
    let redis = Redis::start();
    let (labels, config) = every_kind(&redis);
    let spinfer = up(&labels, &config);
    for kind in KINDS {
        let open = format!("open {kind}");
        let script = [&*open, "many set 10000", "count", "count-from 0", "count-from k"];
        let results = run_script(&spinfer, "/older/wasi", &script);
        assert_eq!(results[2], "10000 keys, 1 pages", "{kind}");
        for foreign in &results[3..] {
            let part = "Error::Other(\"list-keys: this cursor is not supported";
            assert!(foreign.starts_with(part), "{kind}: {foreign}");
        }
    }
}

#[test]
fn wasi_lists_more_than_16_mib_of_keys_in_parts() {
    let redis = Redis::start();
    let mut fill = redis::pipe();
    for index in 0..18_000 {
        fill.set(format!("{index:0>1000}"), "").ignore();
    }
    fill.exec(&mut redis.connect()).unwrap();
    let (labels, config) = every_kind(&redis);
    let spinfer = up(&labels, &config);
    let pages = run_script(&spinfer, "/older/wasi", &["open redis", "count"]).remove(1);
    assert_eq!(pages, "18000 keys, 2 pages");
    let all = run_script(&spinfer, "/older/key-value", &["open redis", "count"]).remove(1);
    assert!(all.contains("the keys take more than 16777216 bytes"), "{all}");
}

/// It is where Spin has it, so that an application migrated from Spin finds its entries.
#[test]
fn default_store_persists_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let manifest = both("key_value_stores = [\"default\"]");
    let first = Launch::new(&manifest).state_dir(state).up();
    check(&first, "/new/key-value", &[("open default", "ok"), ("set k kept", "ok")]);
    drop(first);
    let second = Launch::new(&manifest).state_dir(state).up();
    check(&second, "/older/wasi", &[("open default", "ok"), ("get k", "kept")]);
    // A second host has the same file open.
    let third = Launch::new(&manifest).state_dir(state).up();
    check(&third, "/older/key-value", &[("open default", "ok"), ("set k both", "ok")]);
    check(&second, "/new/key-value", &[("open default", "ok"), ("get k", "both")]);
    assert!(state.join("sqlite_key_value.db").is_file());

    // Without --state-dir.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spin.toml");
    std::fs::write(&path, manifest.text()).unwrap();
    let cache = [("XDG_CACHE_HOME", dir.path().to_str().unwrap())];
    let from = ["--from", path.to_str().unwrap()];
    let (status, text) = run_in(&cache, &[&["check"][..], &from].concat());
    assert!(status.success(), "{text}");
    assert!(!dir.path().join(".spin").exists(), "check leaves the state unchanged");
    // Exits once it has opened the store.
    let up = ["up", "--no-admin", "--listen", "127.0.0.1:0", "--sqlite", "no statement"];
    let (status, text) = run_in(&cache, &[&up[..], &from].concat());
    assert!(!status.success() && text.contains("--sqlite"), "{text}");
    assert!(dir.path().join(".spin/sqlite_key_value.db").is_file());
}

#[test]
fn hosts_share_a_redis_store() {
    let redis = Redis::start();
    let (labels, config) = every_kind(&redis);
    let (one, other) = (up(&labels, &config), up(&labels, &config));
    check(&one, "/new/key-value", &[("open redis", "ok"), ("set k 1", "ok")]);
    check(&other, "/older/wasi", &[("open redis", "ok"), ("get k", "1"), ("increment k 1", "2")]);
    check(&one, "/older/key-value", &[("open redis", "ok"), ("get k", "2")]);
    // Stores in memory are not shared.
    check(&one, "/new/key-value", &[("open memory", "ok"), ("set k 1", "ok")]);
    check(&other, "/new/key-value", &[("open memory", "ok"), ("get k", "none")]);
}

/// Concurrent clients on two hosts increment one counter.
#[test]
fn concurrent_increments_are_not_lost() {
    const EACH: usize = 25;
    let redis = Redis::start();
    let (labels, config) = every_kind(&redis);
    let hosts = [up(&labels, &config), up(&labels, &config)];
    std::thread::scope(|scope| {
        for host in hosts.iter().cycle().take(8) {
            scope.spawn(|| {
                for kind in KINDS {
                    let open = format!("open {kind}");
                    let script = [&[&*open][..], &["increment n 1"; EACH]].concat();
                    run_script(host, "/older/wasi", &script);
                }
            });
        }
    });
    for kind in KINDS {
        let get = [&*format!("open {kind}"), "increment n 0"];
        let counts = hosts.each_ref().map(|host| run_script(host, "/older/wasi", &get).remove(1));
        let all = if kind == "redis" { 8 * EACH } else { 4 * EACH };
        assert_eq!(counts, [all.to_string(), all.to_string()], "{kind}");
    }
}

#[test]
fn unavailable_redis_is_an_error_until_it_returns() {
    let mut redis = Redis::start();
    let (labels, config) = every_kind(&redis);
    let spinfer = up(&labels, &config);
    let set = [("open redis", "ok"), ("set k v", "ok")];
    for path in INTERFACES {
        check(&spinfer, path, &set);
        redis.kill();
        let results =
            run_script(&spinfer, path, &["open redis", "get k", "open memory", "set k v"]);
        // The second one if the host has not noticed yet that the connection is closed.
        let expected = ["cannot connect", "connection to Redis closed"];
        let mut expected = expected.iter().map(|text| format!("Error::Other(\"{text}"));
        assert!(expected.any(|start| results[1].starts_with(&start)), "{results:?}");
        assert_eq!((&*results[0], &*results[3]), ("ok", "ok"), "other stores are not affected");
        redis.restart();
        check(&spinfer, path, &set);
        // The connection is closed. A call before the host notices is an error.
        redis.restart();
        wait_until("the host has reconnected", || {
            let result = run_script(&spinfer, path, &["open redis", "get k"]).remove(1);
            assert!(result == "none" || result.starts_with("Error::Other("), "{result}");
            result == "none"
        });
    }
}

#[test]
fn silent_redis_times_out_its_call_and_does_not_block_others() {
    let redis = Redis::start();
    let (labels, config) = every_kind(&redis);
    let spinfer = up(&labels, &config);
    for path in INTERFACES {
        check(&spinfer, path, &[("open redis", "ok"), ("set k v", "ok")]);
        redis.pause();
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| run_script(&spinfer, path, &["open redis", "get k"]));
            let mut others = 0;
            while !slow.is_finished() {
                check(&spinfer, path, &[("open memory", "ok"), ("set k v", "ok")]);
                others += 1;
            }
            let results = slow.join().unwrap();
            assert!(results[1].starts_with("Error::Other("), "{results:?}");
            assert!(results[1].contains("no reply from Redis within 2s"), "{results:?}");
            assert!(others > 10, "{others} others meanwhile");
        });
        redis.resume();
        check(&spinfer, path, &[("open redis", "ok"), ("get k", "v")]);
    }
}

#[test]
fn full_redis_reports_oom() {
    let redis = Redis::start_with(&["--maxmemory", "2mb", "--maxmemory-policy", "noeviction"]);
    let (labels, config) = every_kind(&redis);
    let spinfer = up(&labels, &config);
    for path in INTERFACES {
        let script = ["open redis", "fill a 2000000", "fill b 2000000", "get c"];
        let results = run_script(&spinfer, path, &script);
        assert!(
            results[2].starts_with("Error::Other(") && results[2].contains("OOM"),
            "{results:?}"
        );
        assert_eq!(results[3], "none");
        check(&spinfer, path, &[("open redis", "ok"), ("delete a", "ok")]);
    }
}

#[test]
fn unbound_store_label_is_refused_at_startup() {
    let settings = "key_value_stores = [\"default\", \"cache\"]";
    let manifest = Manifest::default().with("/...", "a", "stores", settings);
    let text = Launch::new(&manifest).refused();
    let part = "component.a.key_value_stores: no store is bound to \"cache\"; write \
                [key_value_store.cache] into a --runtime-config-file";
    assert!(text.contains(part), "{text}");

    // A file that cannot be created.
    let config = "[key_value_store.cache]\ntype = \"spin\"\npath = \"/dev/null/kv.db\"\n";
    let (status, text) = Launch::new(&manifest).runtime_config(config).check();
    assert!(!status.success());
    let part = "key-value store `cache`: /dev/null/kv.db: cannot be used; write another `path`";
    assert!(text.contains(part), "{text}");
    assert!(!text.contains(GUESTS), "the component is not to blame: {text}");
}
