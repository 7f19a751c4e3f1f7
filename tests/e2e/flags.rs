//! The flags that `spinfer up` shares with Spin, and `spinfer check`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use spinfer_tests::{GUESTS, Launch, Manifest, STANDARD_DOOR, root, run, wait_until};
use tempfile::TempDir;

use super::doors;

fn probe(settings: &str) -> Manifest {
    Manifest::default().with("/...", "probe", "probe", settings)
}

/// A folder with `manifest` and other files.
fn folder(manifest: &str, files: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files.iter().chain(&[("spin.toml", manifest)]) {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let path = dir.path().join("spin.toml");
    (dir, path)
}

/// `spinfer check` of the manifest at `path`: whether it succeeds, and its output.
fn check(path: &Path, flags: &[&str]) -> (bool, String) {
    checked(Launch::from_file(path).flags(flags))
}

fn checked(launch: Launch) -> (bool, String) {
    let (status, text) = launch.check();
    assert!(status.success() || status.code() == Some(1), "{status}: {text}");
    (status.success(), text)
}

#[test]
fn env_flag_overrides_the_environment_of_the_manifest() {
    let manifest = probe("environment = { A = \"1\", B = \"1\" }");
    let spinfer = Launch::new(&manifest).flags(&["-e", "B=2", "--env", "C=a=b"]).up();
    for (name, value) in [("A", "1"), ("B", "2"), ("C", "a=b")] {
        assert_eq!(spinfer.get(&format!("/environment?{name}")).text(), value);
    }
}

#[test]
fn component_id_flag_selects_the_components_to_serve() {
    let manifest = Manifest::default()
        .with("/one", "one", "probe", "")
        .with("/two", "two", "nowhere", "")
        .with("/three/...", "three", "probe", "");
    let (_dir, path) = folder(&manifest.text().replace("nowhere.wasm", "probe.wasm"), &[]);
    let spinfer = Launch::from_file(&path).flags(&["-c", "one", "--component-id", "three"]).up();
    let status = |path| spinfer.get(&format!("{path}?spin-headers")).status;
    assert_eq!([status("/one"), status("/two"), status("/three/x")], [200, 404, 200]);
    let (right, output) = check(&path, &["-c", "four"]);
    assert!(
        !right && output.contains("--component-id: [component.four] does not exist"),
        "{output}"
    );
}

#[test]
fn flags_limit_instance_reuse_idle_time_and_request_time() {
    let manifest = probe("tool.spinfer.reuse.requests = 5\ntool.spinfer.limits.idle = \"1h\"");
    let flags = ["--max-instance-reuse-count", "1", "--request-timeout", "300ms"];
    let spinfer = Launch::new(&manifest).flags(&flags).up();
    for _ in 0..3 {
        assert_eq!(spinfer.get("/count").text(), "1", "each request has a new instance");
    }
    assert_eq!(spinfer.get("/loop").status, 504);

    let flags = ["--idle-instance-timeout", "100ms"];
    let spinfer = Launch::new(&manifest).admin().flags(&flags).up();
    assert_eq!(spinfer.get("/count").text(), "1");
    let ended = "spinfer_instances_ended_total{component=\"probe\",reason=\"idle\"} ";
    wait_until("the idle instance is dropped", || {
        let metrics = spinfer.admin().send("GET", "/metrics", &[], b"").text();
        metrics.lines().any(|line| line.strip_prefix(ended).is_some_and(|count| count != "0"))
    });
    assert_eq!(spinfer.get("/count").text(), "1", "the next has a new one");
}

#[test]
fn concurrent_reuse_flag_limits_concurrent_requests_per_instance() {
    for (manifest, flag) in [(1, "2"), (2, "1")] {
        let manifest = format!("{STANDARD_DOOR}tool.spinfer.reuse.concurrency = {manifest}\n");
        let flags = ["--max-instance-concurrent-reuse-count", flag];
        // They do not meet if the guest has not yet started to wait for the body: another try.
        let met = (0..10).any(|_| doors::meet(&Launch::new(&probe(&manifest)).flags(&flags).up()));
        assert_eq!(met, flag == "2", "{flag} at a time");
    }
}

/// Each instance draws its own number from the range.
#[test]
fn reuse_count_range_limits_requests_per_instance() {
    for door in ["", STANDARD_DOOR] {
        let manifest = probe(&format!("{door}tool.spinfer.reuse.min_idle = 0\n"));
        let spinfer = Launch::new(&manifest).flags(&["--max-instance-reuse-count", "2..4"]).up();
        let counts = (0..60).map(|_| spinfer.get("/count").text().parse().unwrap());
        let counts: Vec<usize> = counts.collect();
        let reached = |count| counts.iter().filter(|&&other| other == count).count();
        assert_eq!(reached(1) + reached(2) + reached(3), counts.len(), "{door}{counts:?}");
        // All but those that could serve more: behind the standard door an instance is available again
        // a moment after its response, and the next request may start another one.
        assert!(reached(1) - reached(2) <= 2, "{door}{counts:?}");
        assert!(0 < reached(3) && reached(3) < reached(2), "{door}{counts:?}");
    }
    let (_dir, path) = folder(probe("").text(), &[]);
    let path = path.to_str().unwrap();
    for (flag, value, part) in [
        ("--max-instance-reuse-count", "4..4", "is an empty range"),
        ("--max-instance-concurrent-reuse-count", "few", "write 8 or 1..8"),
        ("--request-timeout", "1..x", "\"x\" is not a duration"),
    ] {
        let (status, output) = run(&["check", "--from", path, flag, value]);
        assert!(!status.success() && output.contains(part), "{output}");
    }
}

#[test]
fn find_free_port_takes_the_next_free_port() {
    // Ports above the ephemeral range.
    let (taken, port) = (61_000..65_000)
        .find_map(|port| Some((TcpListener::bind(("127.0.0.1", port)).ok()?, port)))
        .unwrap();
    let listen = format!("127.0.0.1:{port}");
    let spinfer = Launch::new(&probe("")).listen(&listen).flags(&["--find-free-port"]).up();
    let port_taken = spinfer.address().port();
    assert!((port + 1..port + 10).contains(&port_taken), "{port_taken} after {port}");
    drop(taken);
}

#[test]
fn log_dir_writes_component_output_to_files() {
    let logs = tempfile::tempdir().unwrap();
    let flags = ["-L", logs.path().to_str().unwrap()];
    let spinfer = Launch::new(&probe("")).flags(&flags).up();
    assert_eq!(spinfer.get("/log?to-be-kept").status, 200);
    let file = logs.path().join("probe_stderr.txt");
    wait_until("the line is in the file", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text == "to-be-kept\n")
    });
    assert_eq!(std::fs::read_to_string(logs.path().join("probe_stdout.txt")).unwrap(), "");
    spinfer.wait_for_log("to-be-kept");
}

#[test]
fn profile_flag_selects_a_profile_of_the_manifest() {
    let settings = "environment = { WHICH = \"release\" }\n\
                    [component.probe.profile.debug]\nenvironment = { WHICH = \"debug\" }";
    let which = |arguments: &[&str]| {
        let spinfer = Launch::new(&probe(settings)).flags(arguments).up();
        spinfer.get("/environment?WHICH").text()
    };
    assert_eq!((which(&[]), which(&["--profile", "debug"])), ("release".into(), "debug".into()));
    let (_dir, path) = folder(probe(settings).text(), &[]);
    let (right, output) = check(&path, &["--profile", "other"]);
    assert!(!right && output.contains("no component has a profile `other`"), "{output}");
}

/// An invalid value is noticed in the grant that uses it; it is not printed.
#[test]
fn variable_flags_override_the_environment_and_files() {
    let settings = "allowed_outbound_hosts = [\"http://x:{{ port }}\"]\n";
    let variables = "[variables]\nport = { default = \"hush\" }\n";
    let (dir, path) = folder(&format!("{}{variables}", probe(settings).text()), &[]);
    let (config, dotenv) = (dir.path().join("runtime-config.toml"), dir.path().join(".env"));
    let configure = |value: &str| {
        let provider = "[[variables_provider]]\ntype = 'static'\n";
        std::fs::write(&config, format!("{provider}values = {{ port = '{value}' }}\n")).unwrap();
    };
    let launch =
        || Launch::from_file(&path).flags(&["--runtime-config-file", config.to_str().unwrap()]);
    let wrong = |(right, output): (bool, String)| {
        let part =
            "allowed_outbound_hosts[0]: \"http://x:{{ port }}\" has a port that is not a number";
        assert!(!right && output.contains(part) && !output.contains("hush"), "{output}");
    };
    let right = |(right, output): (bool, String)| assert!(right, "{output}");

    wrong(check(&path, &[]));
    configure("80");
    right(checked(launch()));
    std::fs::write(&dotenv, "SPIN_VARIABLE_PORT=hush").unwrap();
    wrong(checked(launch()));
    right(checked(launch().env("SPIN_VARIABLE_PORT", "80")));
    let flagged = |value| launch().flags(&["--variable", value]);
    wrong(checked(flagged("port=hush").env("SPIN_VARIABLE_PORT", "80")));
    right(checked(flagged("port=80").env("SPIN_VARIABLE_PORT", "hush")));
}

#[test]
fn required_variable_is_accepted_from_every_source() {
    let settings =
        "[variables]\none = { required = true }\ntwo = { required = true, secret = true }\n";
    let (dir, path) = folder(&format!("{}{settings}", probe("").text()), &[]);
    let (right, output) = check(&path, &[]);
    assert!(!right);
    for part in [
        "variables.one: is required and has no value",
        "--variable two=...",
        "SPIN_VARIABLE_TWO",
        ".env next to the manifest",
        "[[variables_provider]]",
    ] {
        assert!(output.contains(part), "{part} is not in\n{output}");
    }
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (right, output) = check(&path, &["--variable", "one=1", "--variable", "two=hush"]);
    assert!(right, "{output}");
    let table = format!("@{}", write("values.json", r#"{"one": "1", "two": "hush"}"#));
    assert!(check(&path, &["--variable", &table]).0);
    let config = write(
        "runtime-config.toml",
        "[[variables_provider]]\ntype = 'static'\nvalues = { one = '1', two = 'hush' }\n",
    );
    assert!(check(&path, &["--runtime-config-file", &config]).0);
    write(".env", "SPIN_VARIABLE_ONE=1\nSPIN_VARIABLE_TWO=hush\n");
    assert!(check(&path, &[]).0);
    for (flag, part) in [
        ("three=hush", "--variable three: [variables.three] does not exist"),
        ("hush", "write `name=value`"),
    ] {
        let (right, output) = check(&path, &["--variable", flag]);
        assert!(!right && output.contains(part), "{output}");
        assert!(flag == "hush" || !output.contains("hush"), "{output}");
    }
}

#[test]
fn build_needs_no_variable_values() {
    let settings =
        "allowed_outbound_hosts = [\"https://{{ host }}\"]\nvariables = { h = \"{{ host }}\" }\n";
    let variables = "[variables]\nhost = { required = true }\n";
    let (_dir, path) = folder(&format!("{}{variables}", probe(settings).text()), &[]);
    let (path, state) = (path.to_str().unwrap(), tempfile::tempdir().unwrap());
    let state_dir = state.path().to_str().unwrap();
    let (status, output) = run(&["build", "--aot", "--from", path, "--state-dir", state_dir]);
    assert!(status.success() && output.contains("1 components compiled"), "{output}");
}

#[test]
fn invalid_runtime_config_is_refused_at_startup() {
    for (text, part) in [
        ("state_dri = 'x'", "state_dri: unknown key; expected one of"),
        ("[key_value_store.default]\ntype = 'redis'", "[key_value_store.default]: url: write"),
        ("[sqlite_database.default]\ntype = 'libsql'", "type = \"libsql\" is not supported"),
        ("[[variables_provider]]\ntype = 'vault'\nurl = 'x'", "\"vault\" is not supported yet"),
    ] {
        let (right, output) = checked(Launch::new(&probe("")).runtime_config(text));
        assert!(
            !right && output.contains(part) && output.contains("runtime-config.toml"),
            "{output}"
        );
    }
    let nowhere = ["--runtime-config-file", "/nowhere.toml"];
    let (right, output) = checked(Launch::new(&probe("")).flags(&nowhere));
    assert!(!right && output.contains("/nowhere.toml"), "{output}");
}

#[test]
fn check_accepts_the_example_application() {
    let (right, output) = check(&root().join("spin.toml"), &[]);
    assert!(right && output.contains("no problems found (7 routes, 6 components)"), "{output}");
}

/// For every component at once, with what to do.
#[test]
fn check_reports_missing_imports_exports_and_operators() {
    let component = |text: &str| wat::parse_str(text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let interface = "(instance (export \"open\" (func)))";
    let wants = format!(
        "(component (import \"wasi:blobstore/container@0.2.0-draft\" {interface}) \
                    (import \"own:thing/it@1.0.0\" {interface}))"
    );
    write("wants.wasm", &component(&wants));
    write("silent.wasm", &component("(component)"));
    write("text.wasm", b"not WebAssembly");
    let mut manifest = "spin_manifest_version = 2\n[application]\nname = 'a'\n".to_owned();
    for id in ["wants", "silent", "text"] {
        manifest += &format!(
            "[[trigger.http]]\nroute = '/{id}'\ncomponent = '{id}'\n[component.{id}]\nsource = '{id}.wasm'\n"
        );
    }
    let path = write("spin.toml", manifest.as_bytes());
    let (right, output) = check(Path::new(&path), &[]);
    assert!(!right);
    for part in [
        "component `wants`",
        "wasi:blobstore/container@0.2.0-draft: blob stores are not supported yet",
        "own:thing/it@1.0.0: compose the component with one that exports it",
        "component `silent`",
        "it exports no HTTP handler",
        "component `text`",
        "text.wasm: it is not a component: it is a text file that starts with \"not WebAssembly\"",
    ] {
        assert!(output.contains(part), "{part:?} is not in\n{output}");
    }

    let graph = root().join("tests/models/unsupported-op.onnx");
    std::fs::create_dir(dir.path().join("model")).unwrap();
    std::fs::copy(graph, dir.path().join("model/model.onnx")).unwrap();
    let manifest = format!(
        "spin_manifest_version = 2\n[application]\nname = 'a'\n[[trigger.http]]\nroute = '/'\n\
         component = {{ source = '{GUESTS}/probe.wasm', files = [{{ source = 'model', destination = '/models/odd' }}] }}\n"
    );
    let path = write("spin.toml", manifest.as_bytes());
    let (right, output) = check(Path::new(&path), &[]);
    assert!(!right && output.contains("model `odd`") && output.contains("Det"), "{output}");
}

#[test]
fn key_value_flag_sets_entries_of_the_default_store() {
    let stores = "key_value_stores = [\"default\"]";
    let manifest = Manifest::default().with("/...", "stores", "stores", stores);
    let launch = Launch::new(&manifest).flags(&["--key-value", "a=1", "--key-value", "b=x=y"]);
    let spinfer = launch.up();
    let response = spinfer.post("/key-value", "open default\nget a\nget b\nkeys");
    assert_eq!(response.text().lines().collect::<Vec<_>>(), ["ok", "1", "x=y", "a,b"]);

    let text = Launch::new(&probe("")).flags(&["--key-value", "a=1"]).refused();
    assert!(text.contains("--key-value: no component has the default store"), "{text}");
    let text = Launch::new(&probe("")).flags(&["--key-value", "a"]).refused();
    assert!(text.contains("write NAME=VALUE"), "{text}");
}

#[test]
fn follow_flag_logs_the_output_of_the_named_components() {
    let manifest =
        Manifest::default().with("/log", "a", "probe", "").with("/other/log", "b", "probe", "");
    let spinfer = Launch::new(&manifest).flags(&["--follow", "b"]).up();
    for path in ["/log?of-a", "/other/log?of-b"] {
        assert_eq!(spinfer.get(path).status, 200);
    }
    spinfer.wait_for_log("of-b");
    assert!(!spinfer.log().contains("of-a"), "{}", spinfer.log());
    let text = Launch::new(&manifest).flags(&["--follow", "c"]).refused();
    assert!(text.contains("--follow: [component.c] does not exist"), "{text}");
}

#[test]
fn truncate_logs_flag_empties_the_files_of_log_dir() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probe_stderr.txt");
    let written = |flags: &[&str], line: &str| {
        let launch = Launch::new(&probe("")).flags(flags);
        let spinfer = launch.env("SPIN_LOG_DIR", folder.path().to_str().unwrap()).up();
        assert_eq!(spinfer.get(&format!("/log?{line}")).status, 200);
        wait_until("the line is written", || {
            std::fs::read_to_string(&file).is_ok_and(|text| text.contains(line))
        });
        std::fs::read_to_string(&file).unwrap()
    };
    assert_eq!(written(&[], "one"), "one\n");
    assert_eq!(written(&[], "two"), "one\ntwo\n", "appended without the flag");
    assert_eq!(written(&["--truncate-logs"], "three"), "three\n");
}

#[test]
fn flags_and_variables_of_spin_are_supported_or_refused_with_what_to_use() {
    let harmless = [
        "--disable-pooling",
        "--direct-mounts",
        "--temp=/tmp/spin",
        "--cache-dir=/tmp/cache",
        "--disable-cache",
    ];
    let spinfer = Launch::new(&probe("")).flags(&harmless).up();
    assert_eq!(spinfer.get("/count").status, 200);
    spinfer.wait_for_log("--disable-pooling has no effect: ");
    for (flag, part) in [
        ("--allow-transient-write", "mounted files are read-only"),
        ("--from-registry=ghcr.io/a/b:1", "spinfer registry"),
        ("--insecure", "--insecure-http HOST"),
        ("--format=json", "spinfer routes --json"),
    ] {
        let text = Launch::new(&probe("")).flags(&[flag]).refused();
        assert!(text.contains(part), "{flag}: {text}");
    }
    let text = Launch::new(&probe("")).env("SPIN_MAX_INSTANCE_MEMORY", "65536").refused();
    assert!(text.contains("limits.instance_memory is 65536"), "{text}");
    let spinfer = Launch::new(&probe(""))
        .env("SPIN_HTTP_IDLE_INSTANCE_TIMEOUT_SECS", "5")
        .env("SPIN_VARIABLE_UNUSED", "1")
        .up();
    assert_eq!(spinfer.get("/count").status, 200);
}

#[test]
fn variable_of_a_flag_without_a_value_is_a_number_or_a_word() {
    for value in ["1", "true"] {
        let spinfer = Launch::new(&probe("build = { command = \"true\" }"))
            .env("DISABLE_WASMTIME_CACHE", value)
            .env("SPIN_ALWAYS_BUILD", value)
            .up();
        spinfer.wait_for_log("--disable-cache has no effect: ");
        spinfer.wait_for_log("[1/1] probe: true");
    }
    for value in ["0", "false"] {
        let spinfer = Launch::new(&probe("build = { command = \"false\" }"))
            .env("SPIN_ALWAYS_BUILD", value)
            .up();
        assert_eq!(spinfer.get("/count").status, 200);
    }
}
