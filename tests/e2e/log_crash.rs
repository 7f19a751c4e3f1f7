//! `kill -9` under load, a few dozen times on one log: the ids that clients received are compared with
//! the records in the file.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use spinfer_tests::{Launch, Manifest, create_state_dir, run, wait_until};

const KILLS: usize = 24;
/// Number of clients of each mode.
const CLIENTS: usize = 4;
/// What the modes other than synchronous may lose: docs/prediction-log.md states 200 ms and the time of
/// a write, which on a busy machine takes longer than its milliseconds.
const WINDOW: Duration = Duration::from_secs(2);

const SYNCHRONOUS: &str = "synchronous";
const DURABLE: &str = "durable";
const BEST_EFFORT: &str = "best-effort";

/// What one client received from one host.
struct Session {
    mode: &'static str,
    /// The ids in the order of their responses, with the times of arrival.
    acknowledged: Vec<(String, Instant)>,
    killed: Instant,
}

/// The id of one prediction; `None` once the host has been killed.
fn predict(stream: &mut TcpStream, mode: &str) -> Option<String> {
    const BODY: &str = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;
    let length = BODY.len();
    let request = format!(
        "POST /{mode}/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{BODY}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut received = Vec::new();
    let mut part = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&received);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let header = |name: &str| {
                let lines = head.lines().filter_map(|line| line.split_once(": "));
                lines.clone().find(|line| line.0 == name).map(|line| line.1.to_owned())
            };
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            if body.len() >= header("content-length")?.parse().ok()? {
                return Some(header("spinfer-prediction-id").expect("it is logged"));
            }
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return None,
            Ok(read) => received.extend_from_slice(&part[..read]),
        }
    }
}

/// Serves `launch` under the load of clients of `modes` for `time`, and kills it.
fn serve_and_kill(launch: Launch, modes: &[&'static str], time: Duration) -> Vec<Session> {
    let mut spinfer = launch.up();
    // Records wait until the file is open: one that is on disk shows that it is.
    let id = predict(&mut spinfer.connect(), SYNCHRONOUS).expect("it serves");
    let start = Instant::now();
    let responses = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let client = |mode: &'static str| {
            let (mut stream, responses) = (spinfer.connect(), &responses);
            scope.spawn(move || {
                let mut acknowledged = Vec::new();
                while let Some(id) = predict(&mut stream, mode) {
                    acknowledged.push((id, Instant::now()));
                    responses.fetch_add(1, Ordering::Relaxed);
                }
                (mode, acknowledged)
            })
        };
        let clients: Vec<_> = modes.iter().flat_map(|mode| [*mode; CLIENTS]).map(client).collect();
        wait_until("it was under load", || {
            start.elapsed() >= time && responses.load(Ordering::Relaxed) >= clients.len()
        });
        let killed = Instant::now();
        spinfer.kill();
        let sessions = clients.into_iter().map(|client| {
            let (mode, acknowledged) = client.join().unwrap();
            Session { mode, acknowledged, killed }
        });
        let first = Session { mode: SYNCHRONOUS, acknowledged: vec![(id, start)], killed };
        sessions.chain([first]).collect()
    })
}

/// The ids in the file. No id may be there twice.
fn recorded(manifest: &Path, state: &Path) -> HashSet<String> {
    let [manifest, state] = [manifest, state].map(|path| path.to_str().unwrap());
    let arguments =
        ["log", "export", "--from", manifest, "--state-dir", state, "--format", "csv", "-o", "-"];
    let (status, text) = run(&arguments);
    assert!(status.success(), "{text}");
    let is_id = |id: &&str| id.len() == 36;
    let mut ids = HashSet::new();
    for id in text.lines().filter_map(|line| line.split(',').next()).filter(is_id) {
        assert!(ids.insert(id.to_owned()), "{id} is there twice");
    }
    ids
}

#[test]
fn kill_loses_no_acknowledged_record_beyond_what_the_mode_allows() {
    let folder = tempfile::tempdir().unwrap();
    let (path, state) = (folder.path().join("spin.toml"), folder.path().join("state"));
    create_state_dir(&state);
    let mut manifest = Manifest::default();
    for (number, mode) in [SYNCHRONOUS, DURABLE, BEST_EFFORT].into_iter().enumerate() {
        let settings = format!("tool.spinfer.prediction_log.mode = \"{mode}\"\n");
        manifest =
            manifest.with_iris(&format!("iris-{number}"), 1, &format!("/{mode}/..."), &settings);
    }
    std::fs::write(&path, manifest.text()).unwrap();
    let mut sessions = Vec::new();
    for round in 0..KILLS {
        // Records of synchronous requests take those of others along: so each alone, and all together.
        let (modes, time): (&[_], _) = match round % 3 {
            0 => (&[SYNCHRONOUS], 100),
            1 => (&[DURABLE, BEST_EFFORT], 2300),
            _ => (&[SYNCHRONOUS, DURABLE, BEST_EFFORT], 200),
        };
        // At another point of a batch each time.
        let time = Duration::from_millis(time + 17 * round as u64);
        let launch = Launch::from_file(&path).state_dir(&state).uncached();
        sessions.extend(serve_and_kill(launch, modes, time));
    }
    let recorded = recorded(&path, &state);
    let mut counts = Vec::new();
    for mode in [SYNCHRONOUS, DURABLE, BEST_EFFORT] {
        let (mut acknowledged, mut lost) = (0, 0);
        for session in sessions.iter().filter(|session| session.mode == mode) {
            acknowledged += session.acknowledged.len();
            // Records are written in the order of their responses: what is lost is the end.
            let first_lost = session.acknowledged.iter().position(|(id, _)| !recorded.contains(id));
            let Some(first_lost) = first_lost else { continue };
            let tail = &session.acknowledged[first_lost..];
            lost += tail.len();
            assert!(tail.iter().all(|(id, _)| !recorded.contains(id)), "{mode}: a record between");
            let age = session.killed.saturating_duration_since(tail[0].1);
            assert!(age < WINDOW, "{mode}: a record of {age:?} before the kill is lost");
        }
        assert!(acknowledged >= KILLS / 3 * CLIENTS, "{mode}: {acknowledged} responses");
        counts.push((mode, acknowledged, lost));
    }
    assert_eq!(counts[0].2, 0, "synchronous: {counts:?}");
    // Otherwise all records were on disk before the kills, and the test shows nothing.
    assert!(counts[2].2 > 0, "{counts:?}");
}
