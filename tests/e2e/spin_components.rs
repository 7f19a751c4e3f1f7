//! Components as Spin's toolchains build them: imports without a grant.

use spinfer_tests::{Launch, Manifest};

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
