//! Components as Spin's toolchains build them: imports without a grant, core modules, handlers of release
//! candidates of WASI.

use spinfer_tests::{CORE_MODULES, GUESTS, Launch, Manifest, Redis, run};

/// Calls without a grant return the interface's own error, as in Spin. Interpreters import every
/// interface of their SDK, so none may keep a component from being served.
#[test]
fn imports_without_a_grant_return_the_error_of_their_interface() {
    let manifest = Manifest::default().with("/...", "all", "ungranted", "");
    let spinfer = Launch::new(&manifest).uncached().up();
    let response = spinfer.get("/");
    let text = response.text();
    let lines: Vec<_> = text.lines().collect();
    let expected = [
        "spin:key-value: Error::AccessDenied",
        "spin:redis: Error::InvalidAddress",
        "spin:mqtt: Error::ConnectionFailed(\"",
        "spin:mysql: MysqlError(Error::ConnectionFailed(\"",
        "spin:postgres: PgError(Error::ConnectionFailed(\"",
        "spin:sqlite: Error::AccessDenied",
        "fermyon:spin/llm: Error::RuntimeError(\"this host does not provide large language models\")",
        "fermyon:spin/mqtt: Error::ConnectionFailed(\"",
        "fermyon:spin/mysql: Error::ConnectionFailed(\"",
        "fermyon:spin/postgres: Error::ConnectionFailed(\"",
        "fermyon:spin/sqlite: Error::AccessDenied",
        "fermyon:spin/sqlite of Spin 1: Error::AccessDenied",
    ];
    assert_eq!((response.status, lines.len()), (200, expected.len()), "{text}");
    for (line, start) in lines.iter().zip(expected) {
        assert!(line.starts_with(start), "{line:?} does not start with {start:?}");
    }
    assert_eq!(spinfer.get("/again").status, 200);

    let log = spinfer.log();
    let imports: Vec<_> =
        log.lines().filter(|line| line.contains("imports what this host")).collect();
    let [line] = imports.as_slice() else { panic!("{log}") };
    assert!(
        line.contains("component=\"all\"") && line.contains("fermyon:spin/llm@2.0.0"),
        "{line}"
    );
    assert_eq!(log.matches("fermyon:spin/llm@2.0.0#infer").count(), 1, "once, not per call: {log}");
    assert!(!log.contains("secret"), "{log}");
}

/// The component is invalid past its imports: it is refused before it would be compiled.
#[test]
fn missing_imports_are_refused_before_compiling() {
    let body = "local.get 0 ".repeat(100_000);
    let text = format!(
        "(component (import \"own:thing/it@1.0.0\" (instance (export \"f\" (func))))
            (core module (func (param i32) (result i32) {body})))"
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.wasm"), wat::parse_str(text).unwrap()).unwrap();
    let manifest = "spin_manifest_version = 2\n[application]\nname = 'a'\n[[trigger.http]]\nroute = '/'\n\
                    component = { source = 'a.wasm' }\n";
    std::fs::write(dir.path().join("spin.toml"), manifest).unwrap();
    let (status, output) = Launch::from_file(dir.path().join("spin.toml")).check();
    assert!(!status.success() && !output.contains("compiling"), "{output}");
    assert!(output.contains("own:thing/it@1.0.0: compose the component"), "{output}");
}

/// A manifest with the core module `guest`.
fn core_module(guest: &str, settings: &str) -> String {
    let base = Manifest::default();
    format!(
        "{}[[trigger.http]]\nroute = \"/...\"\ncomponent = \"module\"\n[component.module]\n\
         source = \"{CORE_MODULES}/{guest}.wasm\"\n{settings}\n",
        base.text()
    )
}

/// Rust for `wasm32-wasip1`, as spin-sdk 3 builds.
#[test]
fn core_module_is_served_as_a_component() {
    let spinfer = Launch::from_text(&core_module("hello_p2", "")).uncached().up();
    let response = spinfer.get("/a?b");
    assert_eq!((response.status, &*response.text()), (200, "hello from 0.2 at /a?b"));
    // Through the adapter of preview 1.
    let clocks = spinfer.get("/clocks").text();
    let times: Vec<u64> = clocks.split(' ').map(|time| time.parse().unwrap()).collect();
    let [elapsed, before, after] = times[..] else { panic!("{clocks}") };
    assert!(elapsed >= 20 && after >= before + 20, "{clocks}");
    assert_eq!(spinfer.get("/trap").status, 500);
    assert_eq!(spinfer.get("/").status, 200);
}

#[test]
fn core_module_is_compiled_once() {
    let state = tempfile::tempdir().unwrap();
    let check = || {
        let launch = Launch::from_text(&core_module("hello_p2", ""));
        launch.state_dir(state.path()).check()
    };
    let compiled = || {
        let files = std::fs::read_dir(state.path().join("compiled")).unwrap();
        let modified = files.map(|file| file.unwrap().metadata().unwrap().modified().unwrap());
        modified.collect::<Vec<_>>()
    };
    let (status, output) = check();
    assert!(status.success(), "{output}");
    let first = compiled();
    assert!(!first.is_empty());
    let (status, output) = check();
    assert!(status.success(), "{output}");
    assert_eq!(compiled(), first);
}

#[test]
fn core_module_that_is_no_component_is_refused_with_what_to_build() {
    let component = |start: &str| {
        wat::parse_str(format!("(module (memory (export \"memory\") 1) {start})")).unwrap()
    };
    for (module, expected) in [
        (
            component("(func (export \"_start\"))"),
            "it is a command (wasi:cli/run), not an HTTP handler",
        ),
        (component("(func (export \"handle-http-request\"))"), "build it with spin-sdk 3 or later"),
        (
            component("(func (export \"handle\"))"),
            "it has no component types; build it with spin-sdk",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.wasm"), module).unwrap();
        let manifest = Manifest::default().and(
            "[[trigger.http]]\nroute = '/'\ncomponent = 'a'\n[component.a]\nsource = 'a.wasm'\n",
        );
        std::fs::write(dir.path().join("spin.toml"), manifest.text()).unwrap();
        let (status, output) = Launch::from_file(dir.path().join("spin.toml")).check();
        assert!(!status.success() && output.contains(expected), "{expected}:\n{output}");
        assert!(output.contains("component `a`"), "{output}");
    }
}

#[test]
fn core_module_with_a_main_function_is_run_as_a_command() {
    let executor = "route = \"/...\"\nexecutor = { type = \"wagi\" }";
    let manifest = core_module("command", "").replace("route = \"/...\"", executor);
    let spinfer = Launch::from_text(&manifest).uncached().up();
    let response = spinfer.post("/a?b=1", "body");
    assert_eq!((response.status, &*response.text()), (200, "POST /a b=1  body"));
}

#[test]
fn core_module_can_be_optimized() {
    let dir = tempfile::tempdir().unwrap();
    let (file, path) = (dir.path().join("module.wasm"), dir.path().join("spin.toml"));
    std::fs::copy(format!("{CORE_MODULES}/hello_p2.wasm"), &file).unwrap();
    let before = file.metadata().unwrap().len();
    let manifest = Manifest::default()
        .and("[[trigger.http]]\nroute = '/...'\ncomponent = { source = 'module.wasm' }\n");
    std::fs::write(&path, manifest.text()).unwrap();
    let (status, output) = run(&["build", "--optimize", "--from", path.to_str().unwrap()]);
    assert!(status.success() && file.metadata().unwrap().len() < before, "{output}");
    let spinfer = Launch::from_file(&path).keep(dir).up();
    assert_eq!(spinfer.get("/a").text(), "hello from 0.2 at /a");
}

/// spin-sdk 2 for Rust, as a component and as the core module that it builds.
#[test]
fn handler_of_spin_sdk_2_is_served() {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("note.txt"), "mounted").unwrap();
    let settings = format!(
        "environment = {{ GREETING = \"hello\" }}\nallowed_outbound_hosts = [\"http://self\"]\n\
         files = [{{ source = \"{}\", destination = \"/files\" }}]",
        files.path().display()
    );
    for folder in [CORE_MODULES, GUESTS] {
        let manifest = core_module("hello_2023", &settings).replace(CORE_MODULES, folder);
        let spinfer = Launch::from_text(&manifest).uncached().up();
        let large = "x".repeat(300_000);
        let response = spinfer.send("PUT", "/a?b", &[("x-sent", "header")], large.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("x-version"), Some("2023-10-18"));
        assert_eq!(response.text(), format!("Method::Put /a?b \"header\" {large:?}"));
        assert_eq!(spinfer.get("/status/418").status, 418);
        assert_eq!(spinfer.get("/environment/GREETING").text(), "hello");
        assert_eq!(spinfer.get("/file/files/note.txt").text(), "mounted");
        let relayed = "via 200: Method::Post /inner?c \"relayed\" \"from inside\"";
        assert_eq!(spinfer.get("/via/inner?c").text(), relayed);
        let denied = spinfer.get("/via-host/example.com").text();
        assert!(denied.contains("HttpRequestDenied"), "{denied}");
        // What this version cannot report traps; the next request has a new instance.
        assert_eq!(spinfer.get("/status/1").status, 500);
        assert_eq!(spinfer.get("/").status, 200);
    }
}

/// spin-sdk 6.0.0 for Rust; Python's SDK imports the candidate and the release.
#[test]
fn release_candidate_with_the_types_of_the_release_is_served() {
    let settings = "environment = { GREETING = \"hello\" }";
    let manifest = Manifest::default().with("/...", "candidate", "hello_p3_rc", settings);
    let spinfer = Launch::new(&manifest).uncached().up();
    let response = spinfer.get("/a?b");
    assert_eq!((response.status, &*response.text()), (200, "/a?b hello hello"));
    let denied = spinfer.get("/via/example.com").text();
    assert!(denied.contains("HttpRequestDenied"), "{denied}");
}

/// TinyGo's SDK, as the core module that it builds.
#[test]
fn handler_of_spin_1_is_served() {
    let redis = Redis::start();
    let address = format!("redis://127.0.0.1:{}", redis.port());
    let settings = format!(
        "key_value_stores = [\"default\"]\nvariables = {{ greeting = \"hello\" }}\n\
         allowed_outbound_hosts = [\"http://self\", \"{address}\"]"
    );
    let manifest =
        core_module("hello_spin_1", &settings).replace("\"/...\"", "\"/a/...\"").replace(
            "[component.module]",
            "[[trigger.http]]\nroute = \"/...\"\ncomponent = \"module\"\n[component.module]",
        );
    let spinfer = Launch::from_text(&manifest).uncached().up();
    let large = "x".repeat(200_000);
    let response = spinfer.send("PATCH", "/a/b?c=d", &[("x-sent", "header")], large.as_bytes());
    let expected = format!("Method::Patch /a/b?c=d header /b 0 {large}");
    assert_eq!((response.status, response.text()), (200, expected));
    assert_eq!(response.header("content-type"), Some("text/plain"));

    let refused = spinfer.send("TRACE", "/", &[], b"");
    assert_eq!((refused.status, refused.header("allow").is_some()), (405, true));
    assert_eq!(spinfer.get("/status/404").status, 404);
    assert_eq!(spinfer.get("/status/99").status, 500, "not a status");

    assert_eq!(spinfer.get("/config/greeting").text(), "Ok(\"hello\")");
    let undefined = spinfer.get("/config/other").text();
    assert!(undefined.starts_with("Err(Error::Other(\"the variable `other`"), "{undefined}");

    let lines = spinfer.get("/key-value").text();
    assert_eq!(
        lines.lines().collect::<Vec<_>>(),
        [
            "Ok(\"1\")",
            "Err(Error::NoSuchKey)",
            "Ok(true) Ok([\"a\"])",
            "Ok(()) Ok(false)",
            "Err(Error::AccessDenied)",
            "Err(Error::InvalidStore)",
            "Err(Error::InvalidStore)",
        ]
    );

    assert_eq!(spinfer.post("/redis", &address).text(), "8 8 0 2 1 [\"b\"] true 2");
    let denied = spinfer.post("/redis", "redis://127.0.0.1:1").text();
    assert_eq!(denied, "Error { code: 1, name: \"error\", message: \"\" }");

    let relayed = spinfer.post("/fetch", "/a/inner?e").text();
    assert_eq!(relayed, "200: Method::Post /a/inner?e relayed /inner 0 inner");
    let denied = spinfer.post("/fetch", "http://example.com/").text();
    assert!(denied.contains("destination-not-allowed"), "{denied}");
    let invalid = spinfer.post("/fetch", "http://[").text();
    assert!(invalid.contains("invalid-url"), "{invalid}");
}

#[test]
fn body_that_is_larger_than_a_handler_of_spin_1_accepts_is_413() {
    for limit in ["request_body", "buffered_body"] {
        let settings = format!("[component.module.tool.spinfer.limits]\n{limit} = \"1KiB\"");
        let spinfer = Launch::from_text(&core_module("hello_spin_1", &settings)).uncached().up();
        assert_eq!(spinfer.post("/", "x".repeat(1025)).status, 413, "{limit}");
        assert_eq!(spinfer.post("/", "x".repeat(1024)).status, 200, "{limit}");
    }
}
