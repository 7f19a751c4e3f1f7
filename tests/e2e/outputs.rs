//! The output of commands: on a terminal, into a pipe without a reader, on a full disk.

use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use spinfer_tests::{Launch, Manifest, PATIENCE, binary, create_state_dir, root, wait_until};

use super::add::AppFolder;

/// Runs the command with a standard output and a standard error that have no reader.
fn without_reader(arguments: &[&str]) -> std::process::Child {
    let closed = || {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        writer
    };
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null()).stdout(closed()).stderr(closed());
    command.spawn().unwrap()
}

/// `spinfer add model.onnx | true` adds the model, and so do all commands what they are for.
#[test]
fn commands_complete_without_a_reader() {
    let application = AppFolder::new();
    let from = application.path("spin.toml");
    let from = from.to_str().unwrap();
    let file = iris();
    let add = ["add", file.to_str().unwrap(), "--from", from, "--name", "iris"];
    assert!(without_reader(&add).wait().unwrap().success());
    let added = application.path("models/iris/1/model.onnx");
    assert!(added.exists());
    let state = application.path("state");
    create_state_dir(&state);
    for arguments in [
        &["models", "--from", from][..],
        &["check", "--from", from, "--state-dir", state.to_str().unwrap()],
        &["build", "--from", from],
        &["new", "other", "--from", from],
        &["--help"],
    ] {
        let status = without_reader(arguments).wait().unwrap();
        assert!(status.success(), "{arguments:?}: {status}");
    }
    assert!(application.path("components/other/Cargo.toml").exists());
    // A failure is one all the same.
    let again = [&add[..], &["--version", "1"]].concat();
    assert_eq!(without_reader(&again).wait().unwrap().code(), Some(1), "the version exists");
    assert_eq!(without_reader(&["check", "--from", "nowhere"]).wait().unwrap().code(), Some(1));
}

#[test]
fn a_host_without_a_reader_serves() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("spin.toml");
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    std::fs::write(&from, manifest.text()).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let state = dir.path().join("state");
    create_state_dir(&state);
    let [listen, state] = [address.to_string(), state.to_str().unwrap().to_owned()];
    let from = from.to_str().unwrap();
    let mut host = without_reader(&[
        "up",
        "--from",
        from,
        "--listen",
        &listen,
        "--no-admin",
        "--state-dir",
        &state,
        "--drain",
        "0",
        "--log-requests",
    ]);
    wait_until("it serves", || TcpStream::connect(address).is_ok());
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /log?line HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }
    let stopped = Command::new("kill").args(["-TERM", &host.id().to_string()]).status();
    assert!(stopped.unwrap().success());
    assert_eq!(host.wait().unwrap().code(), Some(0));
}

/// Runs `spinfer` with files of at most `blocks` of 512 bytes, as on a disk that is full then.
fn with_small_files(blocks: usize, arguments: &[&str]) -> Output {
    Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", &blocks.to_string()])
        .arg(binary())
        .args(arguments)
        .output()
        .unwrap()
}

/// `add` writes all of its files or none, so that the next one does not build on a half of them.
#[test]
fn add_on_a_full_disk_writes_nothing() {
    let application = AppFolder::new();
    let from = application.path("spin.toml");
    let from = from.to_str().unwrap();
    let file = iris();
    let add = ["add", file.to_str().unwrap(), "--from", from, "--name", "iris"];
    let before = application.tree();
    let size = std::fs::metadata(generic_model()).unwrap().len();
    // From a limit that nothing fits into to one below the largest file, the component.
    for blocks in [0, 1, 8, 100, usize::try_from(size / 512 - 1).unwrap()] {
        let output = with_small_files(blocks, &add);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{blocks} blocks: {text}");
        assert!(text.contains("File too large"), "{blocks} blocks: {text}");
        assert_eq!(application.tree(), before, "{blocks} blocks");
    }
    let (added, text) = application.add(&file, &["--name", "iris"]);
    assert!(added, "{text}");
    assert_same_file(&application.path("components/generic-model.wasm"), &generic_model());
    // The next one finds the component, and fails when it writes the model.
    let before = application.tree();
    assert_eq!(with_small_files(0, &add).status.code(), Some(1));
    assert_eq!(application.tree(), before);
    let spinfer = application.up();
    let response = spinfer.post("/v2/models/iris/predict", r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#);
    assert_eq!(response.status, 200, "{}", response.text());
}

/// What an interrupted copy has left is not used.
#[test]
fn add_replaces_a_damaged_component_and_keeps_another_version() {
    let file = iris();
    let whole = std::fs::read(generic_model()).unwrap();
    let other = b"\0asm\x0d\0\x01\0";
    for (existing, after, note) in [
        (&whole[..whole.len() / 2], &*whole, "was damaged, and is replaced"),
        (b"", &whole, "was damaged, and is replaced"),
        (&*whole, &whole, ""),
        (other, other, "is of another version of spinfer, and is unchanged"),
    ] {
        let application = AppFolder::new();
        let path = application.path("components/generic-model.wasm");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, existing).unwrap();
        let (added, text) = application.add(&file, &[]);
        assert!(added && text.contains(note), "{text}");
        assert_eq!(text.contains("generic-model.wasm"), !note.is_empty(), "{text}");
        assert!(std::fs::read(&path).unwrap() == after, "{note}");
    }
}

fn iris() -> PathBuf {
    root().join("models/iris-classifier/1/model.onnx")
}

fn generic_model() -> PathBuf {
    root().join("target/components/wasm32-wasip2/component/generic_model.wasm")
}

fn assert_same_file(one: &Path, other: &Path) {
    assert!(std::fs::read(one).unwrap() == std::fs::read(other).unwrap(), "{}", one.display());
}

/// What `spinfer up` of the example application shows on a terminal until it is ready; the status after
/// Ctrl-C.
fn on_a_terminal(environment: &[(&str, &str)]) -> (Vec<String>, Option<i32>) {
    let state = tempfile::tempdir().unwrap();
    let own = state.path().join("state");
    create_state_dir(&own);
    let up = format!(
        "exec {} up --listen 127.0.0.1:0 --admin 127.0.0.1:0 --state-dir {}",
        binary().display(),
        own.display()
    );
    let mut terminal = Command::new("script")
        .args(["-qefc", &up, "/dev/null"])
        .current_dir(root())
        .env("TERM", "xterm")
        .env_remove("SPINFER_LOG")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = terminal.stdin.take().unwrap();
    let mut lines = BufReader::new(terminal.stdout.take().unwrap()).lines();
    let mut shown = Vec::new();
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "{shown:#?}");
        let line = lines.next().unwrap_or_else(|| panic!("{shown:#?}")).unwrap();
        let line = line.trim_end_matches('\r').to_owned();
        let is_ready = line.starts_with("ready in");
        shown.push(line);
        if is_ready {
            break;
        }
    }
    let command = shown.last().unwrap().split_once("; try: ").unwrap().1.to_owned();
    let tried =
        Command::new("sh").args(["-c", &format!("{command} --fail --silent")]).output().unwrap();
    assert!(tried.status.success(), "{command}: {tried:?}");
    let model: serde_json::Value = serde_json::from_slice(&tried.stdout).unwrap();
    assert_eq!(model["name"], "iris-classifier");
    // Ctrl-C.
    stdin.write_all(b"\x03").unwrap();
    // What follows is not of interest, but `script` writes it.
    lines.by_ref().for_each(drop);
    (shown, terminal.wait().unwrap().code())
}

#[test]
fn startup_on_a_terminal_is_narrow_and_ends_with_a_request_to_try() {
    let (shown, code) = on_a_terminal(&[("NO_COLOR", "1")]);
    assert_eq!(code, Some(0), "{shown:#?}");
    for line in &shown {
        assert!(line.chars().count() <= 80 && !line.contains('\x1b'), "{line:?} of {shown:#?}");
    }
    let text = shown.join("\n");
    for part in [
        "Serving http://127.0.0.1:",
        "Metrics at http://127.0.0.1:",
        "Routes of models:",
        "graph loaded model=iris-classifier/1",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("Metrics at http://127.0.0.1:0"), "{text}");
    let (shown, _) = on_a_terminal(&[]);
    assert!(shown.iter().any(|line| line.contains("\x1b[32m")), "{shown:#?}");
}

#[test]
fn each_request_is_logged_without_its_query() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).flags(&["--log-requests", "--quiet"]).up();
    assert_eq!(spinfer.get("/echo?key=secret").status, 200);
    assert_eq!(spinfer.get("/nowhere").status, 404);
    spinfer.wait_for_log("path=\"/nowhere\" status=404");
    let log = spinfer.log();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    for part in ["method=GET", "path=\"/echo\"", "status=200", "took=", "route=\"/...\""] {
        assert!(lines[0].contains(part), "{part} is not in {log}");
    }
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_request_that_fails_is_a_warning_with_the_reason() {
    let limits = "tool.spinfer.limits.deadline = \"200ms\"\n";
    let manifest = Manifest::default().with("/...", "probe", "probe", limits);
    let spinfer = Launch::new(&manifest).up();
    // A client's mistake is not one.
    assert_eq!(spinfer.get("/nowhere").status, 404);
    assert_eq!(spinfer.get("/loop?key=secret").status, 504);
    spinfer.wait_for_log("request failed");
    let log = spinfer.log();
    let line = log.lines().find(|line| line.contains("request failed")).unwrap();
    for part in ["WARN", "path=\"/loop\"", "status=504", "route=\"/...\"", "before the deadline"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!log.contains("secret") && log.matches("request failed").count() == 1, "{log}");
}

#[test]
fn the_level_debug_is_that_of_spinfer() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let debug = |filter: &str| {
        let spinfer = Launch::new(&manifest).env("SPINFER_LOG", filter).up();
        assert_eq!(spinfer.post("/echo?key=secret", "x").status, 200);
        spinfer.wait_for_log("served");
        spinfer.log()
    };
    let log = debug("debug");
    for line in log.lines() {
        let is_own = ["spinfer", "guest", "requests"].iter().any(|own| line.contains(own));
        assert!(is_own || !line.contains("DEBUG"), "{line}");
    }
    assert!(!log.contains("secret"), "{log}");
}

/// A folder of native code that another user can change is refused as a whole.
#[test]
fn a_state_directory_that_others_can_write_is_refused() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("open");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o777)).unwrap();
    let text = Launch::new(&manifest).state_dir(&state).refused();
    assert!(text.contains("not safe as the state folder") && text.contains("chmod go-w"), "{text}");
    // One in it can be replaced.
    let text = Launch::new(&manifest).state_dir(state.join("own")).refused();
    assert!(text.contains("where it can be replaced"), "{text}");
    let (status, text) = Launch::new(&manifest).state_dir(&state).check();
    assert!(!status.success() && text.contains("not safe as the state folder"), "{text}");
}
