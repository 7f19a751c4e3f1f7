//! One bash per page, which runs its blocks one after the other.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use spinfer_tests::wait_up_to;
use tempfile::TempDir;

use super::output::matches;

/// Maximum duration of one block: some train models or compile components.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(240);
/// Maximum duration of the exit of everything that the blocks have started.
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Printed after each block, with its exit status.
const DONE: &str = "__block finished with status";
/// Written to the output of a background block that exits before the end of the page.
const EXITED: &str = "__background block exited with status";

pub(super) struct Shell {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
    /// Each block as a script, and the output of each background block, by line.
    files: TempDir,
    background: Vec<usize>,
}

impl Shell {
    pub(super) fn start(folder: &Path, environment: &[(&str, String)]) -> Self {
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(folder)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env_remove("SPINFER_LOG")
            .env_remove("SPINFER_ADMIN_TOKEN")
            // A group of its own, by which everything that it starts is stopped.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash starts");
        let input = child.stdin.take().expect("piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let text = String::from_utf8_lossy(&line);
                if sender.send(text.trim_end_matches(['\r', '\n']).to_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        let files = tempfile::tempdir().expect("a temporary folder");
        let mut shell = Self { child, input, output, files, background: Vec::new() };
        // Both streams in order. Every process of the page inherits descriptor 3, so that the pipe is
        // closed once the last one has exited. A block fails with the last of its commands that failed.
        shell.send("exec 2>&1 3>&1\ntrap 'block_status=$?' ERR");
        shell
    }

    fn send(&mut self, commands: &str) {
        writeln!(self.input, "{commands}").expect("the shell is running");
    }

    /// Path of a file of the block at `line`.
    fn file(&self, line: usize, extension: &str) -> PathBuf {
        self.files.path().join(format!("line-{line}.{extension}"))
    }

    fn write_script(&self, line: usize, text: &str) -> String {
        let script = self.file(line, "sh");
        fs::write(&script, text).expect("a temporary file");
        script.display().to_string()
    }

    /// Runs the block at `line`: its output and exit status.
    pub(super) fn run(&mut self, line: usize, text: &str) -> (Vec<String>, String) {
        let script = self.write_script(line, text);
        self.send(&format!(
            "block_status=0\n. '{script}' </dev/null\nprintf '\\n%s %s\\n' '{DONE}' \"$block_status\""
        ));
        let end = Instant::now() + BLOCK_TIMEOUT;
        let mut lines = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.output.recv_timeout(left) else {
                panic!("the block does not finish:\n{text}\nit printed:\n{}", lines.join("\n"));
            };
            if let Some(status) = line.strip_prefix(DONE) {
                // Among them the line break before `DONE`.
                while lines.last().is_some_and(String::is_empty) {
                    lines.pop();
                }
                return (lines, status.trim().to_owned());
            }
            lines.push(line);
        }
    }

    /// Starts the block at `line`.
    pub(super) fn background(&mut self, line: usize, text: &str) {
        let script = self.write_script(line, text);
        let output = self.file(line, "out");
        fs::write(&output, "").expect("a temporary file");
        self.background.push(line);
        self.send(&format!(
            "( . '{script}'; echo '{EXITED}' $? ) </dev/null >'{}' 2>&1 &",
            output.display()
        ));
    }

    /// Waits until the output of the background block at `line` starts with lines that match `patterns`.
    pub(super) fn wait_for_output(&self, line: usize, patterns: &[&str]) {
        let start = [patterns, &["…"]].concat();
        wait_up_to(BLOCK_TIMEOUT, &format!("line {line} prints {patterns:?}"), || {
            let text = self.output_of(line);
            let lines: Vec<&str> = text.lines().collect();
            let found = matches(&start, &lines);
            assert!(
                found || !text.contains(EXITED),
                "the block at line {line} has exited:\n{text}"
            );
            found
        });
    }

    /// What the background block at `line` has printed so far.
    fn output_of(&self, line: usize) -> String {
        let bytes = fs::read(self.file(line, "out")).expect("the file of its output");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Signals every process of the page.
    fn signal(&self, signal: &str) {
        let group = format!("-{}", self.child.id());
        // The group may have exited.
        let _ = Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.signal("-TERM");
        let end = Instant::now() + EXIT_TIMEOUT;
        while self.output.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        self.signal("-KILL");
        let _ = self.child.wait();
        if std::thread::panicking() {
            for line in &self.background {
                let text = self.output_of(*line);
                let _ = writeln!(
                    std::io::stderr(),
                    "--- output of the block at line {line}\n{text}---"
                );
            }
        }
    }
}
