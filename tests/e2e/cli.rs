//! The command line, and the mistakes that it reports before the host listens.

use spinfer_tests::{GUESTS, Launch, Manifest, root, run, run_in};

#[test]
fn help_lists_commands_and_flags() {
    for (arguments, parts) in [
        (
            &["--help"][..],
            &[
                "spinfer up",
                "curl",
                "build",
                "spinfer check",
                "spinfer add",
                "spinfer models",
                "spinfer cache",
                "new",
            ][..],
        ),
        (
            &["up", "--help"],
            &[
                "--from",
                "--listen",
                "--state-dir",
                "--quiet",
                "--build",
                "--env",
                "--variable",
                "--runtime-config-file",
                "--log-dir",
                "--component-id",
                "--max-instance-reuse-count",
                "--max-instance-concurrent-reuse-count",
                "--idle-instance-timeout",
                "--request-timeout",
                "--find-free-port",
                "--profile",
                "--admin",
                "--no-admin",
            ],
        ),
    ] {
        let (status, text) = run(arguments);
        assert!(status.success());
        for part in parts {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}

#[test]
fn startup_prints_the_address_and_the_door_of_each_route() {
    let spinfer = Launch::new(&Manifest::default().with("/a/...", "probe", "probe", "")).up();
    assert_ne!(spinfer.address().port(), 0);
    spinfer.wait_for_output("/a/...  probe (fast door)");
}

#[test]
fn log_format_json_writes_one_object_per_line() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).flags(&["--log-format", "json"]).up();
    assert_eq!(spinfer.get("/log?line-one").status, 200);
    spinfer.wait_for_log("line-one");
    for line in spinfer.log().lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("each line is an object");
        assert!(line["level"].is_string(), "{line}");
    }
}

#[test]
fn quiet_prints_only_the_address() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let mut spinfer = Launch::new(&manifest).flags(&["--quiet"]).up();
    assert_eq!(spinfer.get("/log?hidden").status, 200);
    spinfer.terminate();
    assert!(spinfer.wait().success());
    assert_eq!(spinfer.log(), "");
}

#[test]
fn taken_listen_address_is_refused() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).up();
    let listen = spinfer.address().to_string();
    let text = Launch::new(&manifest).listen(&listen).refused();
    assert!(text.contains(&format!("cannot listen on {listen}")), "{text}");
}

/// An address in use is an error before anything is compiled: the component's source does not exist.
#[test]
fn taken_listen_address_is_reported_first() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let manifest = Manifest::default().with("/...", "nowhere", "nowhere", "");
    let text = Launch::new(&manifest).listen(&listen).refused();
    assert!(text.contains(&format!("cannot listen on {listen}")), "{text}");
    assert!(!text.contains("nowhere"), "{text}");
    let text = Launch::new(&manifest).admin_at(&listen).refused();
    assert!(text.contains(&format!("cannot listen on {listen} for the admin plane")), "{text}");
}

#[test]
fn a_port_alone_is_on_loopback() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    for listen in ["0", ":0"] {
        let spinfer = Launch::new(&manifest).listen(listen).admin_at(listen).up();
        for address in [spinfer.address(), spinfer.admin_address()] {
            assert!(address.ip().is_loopback() && address.port() != 0, "{listen}: {address}");
        }
    }
}

#[test]
fn the_environment_sets_the_listen_address() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spin.toml"), Manifest::default().text()).unwrap();
    let from = dir.path().to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let variable = [("SPIN_HTTP_LISTEN_ADDR", address.as_str())];
    let (status, text) = run_in(&variable, &["up", "--from", from, "--no-admin"]);
    assert!(!status.success() && text.contains(&format!("cannot listen on {address}")), "{text}");
    // The flag overrides it.
    let arguments = ["up", "--from", from, "--no-admin", "--listen", "nowhere.invalid:1"];
    let (status, text) = run_in(&variable, &arguments);
    assert!(!status.success() && text.contains("nowhere.invalid"), "{text}");
}

#[test]
fn host_name_is_accepted_as_listen_address() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).listen("localhost:0").admin_at("localhost:0").up();
    assert!(spinfer.address().ip().is_loopback() && spinfer.address().port() != 0);
    assert_eq!(spinfer.post("/echo", "here").body, b"here");
    assert!(spinfer.admin_address().ip().is_loopback());
    assert_eq!(spinfer.admin().send("GET", "/metrics", &[], b"").status, 200);
}

#[test]
fn invalid_listen_address_is_refused_with_the_fix() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let launch = || Launch::new(&manifest);
    for (launch, part) in [
        (launch().listen("nowhere.invalid:80"), "the host name `nowhere.invalid`"),
        (launch().listen("localhost"), "the port is missing"),
        (launch().admin_at("nowhere.invalid:80"), "the host name `nowhere.invalid`"),
        (launch().admin_at("0.0.0.0:0"), "SPINFER_ADMIN_TOKEN"),
    ] {
        let text = launch.refused();
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn folder_is_accepted_in_place_of_its_manifest() {
    let (status, text) = run(&["build", "--from", root().join("tests").to_str().unwrap()]);
    assert!(!status.success());
    assert!(text.contains("tests/spin.toml: `spinfer add model.onnx` makes one"), "{text}");
}

#[test]
fn build_runs_the_commands_of_each_component_and_reports_progress() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spin.toml");
    let manifest = "spin_manifest_version = 2\n[application]\nname = \"b\"\n\
        [component.one]\nsource = \"one.wasm\"\nbuild.command = \"echo made > one.wasm\"\n\
        [component.two]\nsource = \"two.wasm\"\n[component.two.build]\n\
        command = [\"mkdir -p sub\", \"false\"]\n";
    std::fs::write(&path, manifest).unwrap();
    let (status, text) = run(&["build", "--from", path.to_str().unwrap()]);
    assert_eq!(status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(dir.path().join("one.wasm")).unwrap(), "made\n");
    assert!(dir.path().join("sub").is_dir());
    for part in
        ["[1/2] one: echo made > one.wasm", "[2/2] two: false", "component.two.build.command"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

/// A manifest with `rest` after its mandatory part.
fn manifest(rest: &str) -> String {
    format!("spin_manifest_version = 2\n[application]\nname = \"test\"\n{rest}")
}

#[test]
fn manifest_errors_name_file_key_and_fix() {
    let probe = |more: &str| {
        manifest(&format!(
            "[[trigger.http]]\nroute = \"/...\"\ncomponent = \"probe\"\n\
             [component.probe]\nsource = \"{GUESTS}/probe.wasm\"\n{more}"
        ))
    };
    let twice = "[[trigger.http]]\nroute = \"/...\"\ncomponent = \"probe\"\n";
    for (text, parts) in [
        (String::new(), &["spin.toml", "spin_manifest_version = 2"][..]),
        (
            "spin_manifest_version = 3".into(),
            &["spin_manifest_version", "write `spin_manifest_version = 2`"],
        ),
        ("spin_manifest_version = ".into(), &["spin.toml", "line 1"]),
        (manifest("[aplication]"), &["spin.toml", "unknown field `aplication`"]),
        (manifest("[component.a]\nsorce = 'x'"), &["unknown field `sorce`", "line 5"]),
        (manifest(""), &["trigger.http", "no routes; add [[trigger.http]]"]),
        (
            manifest("[[trigger.http]]\nroute = '/'\ncomponent = 'no'"),
            &["trigger.http[0].component", "[component.no] does not exist"],
        ),
        (probe(&format!("\n{twice}")), &["duplicate route \"/...\"; remove one"]),
        (
            manifest(
                "[[trigger.http]]\nroute = 'x?'\ncomponent = 'a'\n[component.a]\nsource = 'no.wasm'",
            ),
            &[
                "cannot be served:\ntrigger.http[0].route",
                "cannot contain '?'",
                "component.a.source",
                "no.wasm does not exist",
            ],
        ),
        (
            manifest(
                "[[trigger.http]]\nroute = '/'\ncomponent = 'a'\n[component.a]\nsource = 'no.wasm'\nbuild.command = 'true'",
            ),
            &["run `spinfer build`"],
        ),
        (
            probe("files = [{ source = \"nowhere\", destination = \"models\" }]"),
            &["component.probe.files[0]: source: ", "nowhere does not exist", "write \"/models\""],
        ),
        (
            probe("files = [\"static/*\"]"),
            &["component.probe.files[0]: nothing matches \"static/*\"", "does not exist"],
        ),
        (
            probe("files = [{ source = \".\", destination = \"/models/../x\" }]"),
            &["component.probe.files[0]: destination: must not contain `..`"],
        ),
        (
            probe("[variables.token]\nrequired = true"),
            &["variables.token", "--variable token=...", "give it a `default`"],
        ),
        (
            probe("\n[[trigger.http]]\nroute = \"/v2/health/ready\"\ncomponent = \"probe\""),
            &["trigger.http[1].route", "reserved by the host"],
        ),
        (probe("tool.spinfer.door = \"back\""), &["unknown variant `back`"]),
        (
            probe("tool.spinfer.limits.deadline = \"soon\""),
            &["`soon` is not a duration", "write \"30s\""],
        ),
        (
            probe("tool.spinfer.limits.instances = 0"),
            &["component.probe.tool.spinfer: limits.instances", "between 1 and"],
        ),
        (
            manifest(
                "[[trigger.http]]\nroute = '/'\ncomponent = 'a'\n[component.a]\nsource = 'spin.toml'",
            ),
            &["spin.toml: it is not a component: it is a text file"],
        ),
    ] {
        let output = Launch::from_text(&text).refused();
        for part in parts {
            assert!(output.contains(part), "{part:?} is not in the output for\n{text}\n\n{output}");
        }
        assert!(output.contains("spin.toml"), "the file is named: {output}");
    }
}

#[test]
fn tables_of_other_tools_are_ignored() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "tool.other.x = 1");
    assert_eq!(Launch::new(&manifest).up().get("/echo").status, 200);
}

#[test]
fn graph_that_differs_from_its_declared_sha256_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = root().join("models/iris-classifier/1");
    for file in ["model.onnx", "model.toml"] {
        std::fs::copy(model.join(file), dir.path().join(file)).unwrap();
    }
    let text = Manifest::default().with(
        "/...",
        "probe",
        "probe",
        &format!(
            "files = [{{ source = \"{}\", destination = \"/models/iris-classifier\" }}]",
            dir.path().display()
        ),
    );
    let mut graph = std::fs::read(dir.path().join("model.onnx")).unwrap();
    graph[100] ^= 1;
    std::fs::write(dir.path().join("model.onnx"), graph).unwrap();
    let output = Launch::new(&text).refused();
    assert!(output.contains("component.probe.files"), "{output}");
    assert!(output.contains("a version is immutable: restore the file"), "{output}");
}

#[test]
fn unsupported_import_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wants-more.wasm");
    let component =
        r#"(component (import "example:missing/thing@1.0.0" (instance (export "do" (func)))))"#;
    std::fs::write(&path, wat::parse_str(component).unwrap()).unwrap();
    let output = Launch::from_text(&manifest(&format!(
        "[[trigger.http]]\nroute = '/'\ncomponent = 'a'\n[component.a]\nsource = '{}'",
        path.display()
    )))
    .refused();
    assert!(output.contains("component `a`"), "{output}");
    assert!(output.contains("it imports something this host does not provide"), "{output}");
    assert!(output.contains("example:missing/thing"), "{output}");
}

/// An application that works without them is served.
#[test]
fn unsupported_grants_are_warned_about() {
    let check = |settings: &str| {
        Launch::new(&Manifest::default().with("/...", "a", "probe", settings)).check()
    };
    let (status, output) = check("ai_models = [\"llama2-chat\"]");
    assert!(status.success(), "{output}");
    let part = "component.a.ai_models: large language models are not supported yet; this grant has no effect";
    assert!(output.contains("WARN") && output.contains(part), "{output}");
    let (status, output) = check("sqlite_databases = [\"default\"]\nai_models = []");
    assert!(status.success() && !output.contains("WARN"), "{output}");
}
