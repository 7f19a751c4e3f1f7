//! `spinfer watch`: changes of the manifest, of files and of sources.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use spinfer_tests::{GUESTS, Launch, PATIENCE, Spinfer, wait_until};

/// The body of `GET /`; `None` while nothing serves.
fn body(spinfer: &Spinfer) -> Option<String> {
    let mut stream = TcpStream::connect(spinfer.address()).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

fn wait_for_body(spinfer: &Spinfer, expected: &str) {
    wait_until(&format!("{expected:?} is served"), || body(spinfer).as_deref() == Some(expected));
}

/// A manifest whose response is `text`.
fn response(text: &str) -> String {
    format!(
        "spin_manifest_version = 2\n[application]\nname = 'watched'\n[[trigger.http]]\n\
         route = '/'\nstatic_response = {{ body = '{text}' }}\n"
    )
}

fn watch(folder: &Path, flags: &[&str]) -> Spinfer {
    Launch::from_file(folder.join("spin.toml")).flags(flags).watch()
}

#[test]
fn change_of_the_manifest_is_served_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spin.toml");
    std::fs::write(&path, response("one")).unwrap();
    let mut spinfer = watch(folder.path(), &[]);
    assert_eq!(body(&spinfer).as_deref(), Some("one"));

    std::fs::write(&path, response("two")).unwrap();
    spinfer.wait_for_log("watch: spin.toml changed");
    wait_for_body(&spinfer, "two");

    std::fs::write(&path, "spin_manifest_version = ").unwrap();
    spinfer.wait_for_log("watch: not served; still serving the version before");
    assert!(spinfer.log().contains("TOML parse error"), "{}", spinfer.log());
    assert_eq!(body(&spinfer).as_deref(), Some("two"));

    // As editors do: another file is renamed over it.
    std::fs::write(folder.path().join("new.toml"), response("three")).unwrap();
    std::fs::rename(folder.path().join("new.toml"), &path).unwrap();
    wait_for_body(&spinfer, "three");

    spinfer.terminate();
    assert!(spinfer.wait().success());
    assert!(
        TcpStream::connect(spinfer.address()).is_err(),
        "the server exits with `spinfer watch`"
    );
}

#[test]
fn change_of_a_source_is_built_and_served() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    std::fs::create_dir_all(base.join("app/src")).unwrap();
    std::fs::create_dir_all(base.join("text")).unwrap();
    std::fs::write(base.join("app/src/greeting.txt"), "one").unwrap();
    // The build command writes the file that the component reads.
    std::fs::write(
        base.join("spin.toml"),
        format!(
            "spin_manifest_version = 2\n[application]\nname = 'watched'\n[[trigger.http]]\n\
             route = '/...'\ncomponent = 'probe'\n[component.probe]\nsource = '{GUESTS}/probe.wasm'\n\
             files = [{{ source = 'text', destination = '/text' }}]\n\
             [component.probe.build]\nworkdir = 'app'\nwatch = ['src/**/*.txt']\n\
             command = 'grep -v broken src/greeting.txt > ../text/new && mv ../text/new ../text/greeting'\n"
        ),
    )
    .unwrap();
    let spinfer = watch(base, &[]);
    let read = || {
        let response = TcpStream::connect(spinfer.address()).ok().map(|_| ());
        response.map(|()| spinfer.get("/read?/text/greeting").text())
    };
    wait_until("the first build is served", || read().as_deref() == Some("one\n"));

    std::fs::write(base.join("app/src/greeting.txt"), "broken").unwrap();
    spinfer.wait_for_log("watch: not built; still serving the version before");
    assert_eq!(read().as_deref(), Some("one\n"));

    std::fs::write(base.join("app/src/greeting.txt"), "two").unwrap();
    spinfer.wait_for_log_times("watch: app/src/greeting.txt changed", 2);
    wait_until("the built file is served", || read().as_deref() == Some("two\n"));
}

#[test]
fn change_is_served_while_other_files_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spin.toml");
    std::fs::write(&path, response("one")).unwrap();
    let spinfer = watch(folder.path(), &["--debounce", "500ms"]);
    std::fs::write(&path, response("two")).unwrap();
    wait_until("the change is served", || {
        std::fs::write(folder.path().join("other.txt"), "other").unwrap();
        body(&spinfer).as_deref() == Some("two")
    });
}

#[test]
fn components_are_built_once_with_the_variable_of_the_build_flag() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spin.toml");
    std::fs::write(
        &path,
        format!(
            "spin_manifest_version = 2\n[application]\nname = 'watched'\n[[trigger.http]]\n\
             route = '/...'\ncomponent = 'probe'\n[component.probe]\nsource = '{GUESTS}/probe.wasm'\n\
             build = {{ command = 'echo built >> builds' }}\n"
        ),
    )
    .unwrap();
    let spinfer = Launch::from_file(path).env("SPIN_ALWAYS_BUILD", "1").watch();
    assert_eq!(spinfer.get("/count").status, 200);
    let builds = std::fs::read_to_string(folder.path().join("builds")).unwrap();
    assert_eq!(builds, "built\n");
}

#[test]
fn server_that_has_exited_is_started_again_by_the_next_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spin.toml");
    std::fs::write(&path, response("one")).unwrap();
    let spinfer = watch(folder.path(), &[]);
    let id = spinfer_of(&spinfer);
    let killed = std::process::Command::new("kill").args(["-KILL", &id]).status().unwrap();
    assert!(killed.success());
    spinfer.wait_for_log("watch: `spinfer up` ended; waiting for a change");
    assert_eq!(body(&spinfer), None);
    std::fs::write(&path, response("two")).unwrap();
    wait_for_body(&spinfer, "two");
}

/// The process id of the server of `spinfer watch`.
fn spinfer_of(watch: &Spinfer) -> String {
    let id = watch.id();
    let path = format!("/proc/{id}/task/{id}/children");
    std::fs::read_to_string(path).unwrap().split_whitespace().next().unwrap().to_owned()
}
