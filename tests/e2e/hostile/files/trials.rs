use std::io::Write;
use std::process::Command;

use spinfer_tests::{GUESTS, Launch, Manifest, binary, state_dir, wait_until};

use super::HEAD;
use super::onnx::{product, tiled};

/// Processor time, in the ticks of proc(5).
const TICKS_PER_SECOND: u64 = 100;

/// The fields of a process after its name: its state, its parent, and as the twelfth its processor
/// time in user mode (proc(5)).
fn stat(id: &str, field: usize) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(field)?.parse().ok()
}

/// The process of a graph trial of the process `host`, once the trial has computed for a while.
fn trial_of(host: u32) -> Option<String> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let mut ids = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    ids.find(|id| {
        let started = stat(id, 11) >= Some(TICKS_PER_SECOND / 5);
        started && stat(id, 1) == Some(host.into())
    })
}

/// Whether a process has exited. A zombie, for which no parent may wait, has no command line.
fn has_exited(id: &str) -> bool {
    std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default().is_empty()
}

#[test]
fn trial_process_exits_with_its_host() {
    /// Half of the processor time after which the trial would be terminated anyway.
    const MAX_TICKS: u64 = 15 * TICKS_PER_SECOND;
    let grant = "tool.spinfer.load_graphs = true\ntool.spinfer.limits.deadline = \"60s\"";
    let manifest = Manifest::default().with("/...", "probe", "probe", grant);
    let mut spinfer = Launch::new(&manifest).up();
    let (graph, mut stream) = (product(1000, 2000), spinfer.connect());
    let head =
        format!("POST /nn/load HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", graph.len());
    stream.write_all(&[head.as_bytes(), &graph].concat()).unwrap();
    let mut trial = None;
    wait_until("the trial computes", || {
        trial = trial_of(spinfer.id());
        trial.is_some()
    });
    let host = spinfer.id().to_string();
    assert!(Command::new("kill").args(["-KILL", &host]).status().unwrap().success());
    assert!(!spinfer.wait().success());
    let (trial, mut ticks) = (trial.unwrap(), 0);
    wait_until("the trial exits", || {
        ticks = stat(&trial, 11).unwrap_or(ticks);
        has_exited(&trial)
    });
    assert!(ticks < MAX_TICKS, "it stopped at its own limit, after {ticks} ticks");
}

/// A host under a resource limit passes a lower one to the trial.
#[test]
fn graph_trial_runs_under_the_cpu_limit_of_its_host() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("odd")).unwrap();
    std::fs::write(dir.path().join("odd/model.onnx"), tiled("x", 1 << 10)).unwrap();
    let path = dir.path().join("spin.toml");
    let text = format!(
        "{HEAD}[[trigger.http]]\nroute = '/'\ncomponent = 'a'\n[component.a]\n\
         source = '{GUESTS}/probe.wasm'\n\
         files = [{{ source = 'odd', destination = '/models/odd' }}]\n"
    );
    std::fs::write(&path, text).unwrap();
    let limited = "ulimit -t 25 && exec \"$0\" check --from \"$1\" --state-dir \"$2\"";
    let output = Command::new("sh")
        .args(["-c", limited])
        .args([binary(), path, state_dir()])
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&printed));
}
