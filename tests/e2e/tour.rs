//! docs/tour.md as a reader follows it: its commands are run one after the other in one shell, and
//! what they print is compared with what the page shows.
//!
//! A block of ```` ```sh ```` is run, and a block that follows it directly is what it has to print:
//! `…` stands for anything within a line, and for any number of lines where it stands alone.
//! ```` ```sh setup ```` is what a reader needs and the tests have already.
//! ```` ```sh background ```` goes on until the end of the tour.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use spinfer_tests::{OciRegistry, binary, root, state_dir};

/// How long one block may take: one trains models, one compiles components.
const PATIENCE: Duration = Duration::from_secs(240);

/// Printed after each block, with its exit status.
const DONE: &str = "__the block is done:";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Run,
    Background,
    Setup,
    /// Of whatever language: shown, or expected of the block before.
    Shown,
}

#[derive(Debug)]
struct Block {
    kind: Kind,
    line: usize,
    text: String,
    /// Nothing but blank lines stands between this block and the one before.
    follows: bool,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    let mut follows = false;
    for (number, line) in (1..).zip(page.lines()) {
        match (open, line.strip_prefix("```")) {
            (false, Some(info)) => {
                let kind = match info.trim() {
                    "sh" => Kind::Run,
                    "sh background" => Kind::Background,
                    "sh setup" => Kind::Setup,
                    _ => Kind::Shown,
                };
                blocks.push(Block { kind, line: number, text: String::new(), follows });
                open = true;
            }
            (true, Some("")) => (open, follows) = (false, true),
            (true, _) => {
                let text = &mut blocks.last_mut().expect("one is open").text;
                text.push_str(line);
                text.push('\n');
            }
            (false, None) => follows &= line.is_empty(),
        }
    }
    assert!(!open, "a block of the page has no end");
    blocks
}

/// Whether `line` is `pattern`, in which `…` stands for anything.
fn is_like(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// Whether `lines` are like `patterns`, of which one that is `…` alone stands for any number.
fn are_like(patterns: &[&str], lines: &[&str]) -> bool {
    match (patterns.split_first(), lines.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((&"…", patterns)), _) => {
            (0..=lines.len()).any(|skipped| are_like(patterns, &lines[skipped..]))
        }
        (Some((pattern, patterns)), Some((line, lines))) => {
            is_like(pattern, line) && are_like(patterns, lines)
        }
        (Some(_), None) => false,
    }
}

/// A shell in which one block is run after the other.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Shell {
    fn start(folder: &Path, environment: &[(&str, String)]) -> Self {
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(folder)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash starts");
        let mut input = child.stdin.take().expect("piped");
        // What is printed to either stream, in order; and what it started ends with it.
        writeln!(input, "exec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT").unwrap();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (lines, output) = mpsc::channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        Self { child, input, output }
    }

    /// What `text` prints, and its exit status.
    fn run(&mut self, text: &str) -> (Vec<String>, String) {
        writeln!(self.input, "{text}\necho; echo '{DONE}' $?").expect("the shell is there");
        let end = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.output.recv_timeout(left) else {
                panic!("the block does not end:\n{text}\nit printed:\n{}", lines.join("\n"));
            };
            if let Some(status) = line.strip_prefix(DONE) {
                // The line before it, which ends one that has no end.
                while lines.last().is_some_and(String::is_empty) {
                    lines.pop();
                }
                return (lines, status.trim().to_owned());
            }
            lines.push(line);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = writeln!(self.input, "exit");
        let _ = self.child.wait();
    }
}

#[test]
fn a_page_is_read_block_by_block() {
    let page = "a\n```sh\nls\n```\n\n```text\nx\n```\nb\n```sh setup\ny\n```\n```toml\nz\n```\n";
    let blocks = blocks(page);
    let seen: Vec<_> = blocks.iter().map(|b| (b.kind, b.line, &*b.text, b.follows)).collect();
    assert_eq!(
        seen,
        [
            (Kind::Run, 2, "ls\n", false),
            (Kind::Shown, 6, "x\n", true),
            (Kind::Setup, 10, "y\n", false),
            (Kind::Shown, 13, "z\n", true),
        ]
    );
}

#[test]
fn what_differs_each_time_is_left_out() {
    for (pattern, line, like) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a…", "ab", true),
        ("…b", "ab", true),
        ("a…c…e", "abcde", true),
        ("a…c…e", "abde", false),
        ("…", "", true),
    ] {
        assert_eq!(is_like(pattern, line), like, "{pattern} {line}");
    }
    assert!(are_like(&["a", "…", "z"], &["a", "b", "c", "z"]));
    assert!(!are_like(&["a", "z"], &["a", "b", "z"]));
}

/// The commands of the page, with what they print compared.
fn follow(page: &str, shell: &mut Shell) {
    let blocks = blocks(page);
    let mut printed: Vec<String> = Vec::new();
    for block in &blocks {
        let Block { kind, line, text, follows } = block;
        match kind {
            Kind::Run => {
                let (lines, status) = shell.run(text.trim_end());
                let shown = lines.join("\n");
                assert_eq!(status, "0", "docs/tour.md:{line}:\n{text}\nprinted:\n{shown}");
                printed = lines;
            }
            Kind::Background => {
                let text = text.trim_end();
                let (_, status) = shell.run(&format!("( exec {text}\n) >>background.log 2>&1 &"));
                assert_eq!(status, "0", "docs/tour.md:{line}");
            }
            Kind::Shown if *follows => {
                let patterns: Vec<&str> = text.lines().collect();
                let lines: Vec<&str> = printed.iter().map(String::as_str).collect();
                assert!(
                    are_like(&patterns, &lines),
                    "docs/tour.md:{line} shows:\n{text}\nand this was printed:\n{}",
                    lines.join("\n")
                );
            }
            Kind::Setup | Kind::Shown => {}
        }
    }
}

#[test]
fn the_tour_does_what_it_says() {
    let registry = OciRegistry::start();
    let page = std::fs::read_to_string(root().join("docs/tour.md")).expect("the page is there");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let own = [
        binary().parent().expect("it is in a folder").to_owned(),
        root().join("target/python/bin"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)));
    let environment = [
        ("PATH", path.expect("folders without a colon").to_string_lossy().into_owned()),
        ("PYTHONPATH", root().join("clients/python/src").display().to_string()),
        // No byte code in the repository.
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("SPINFER", root().display().to_string()),
        ("REGISTRY", registry.address().to_owned()),
        ("XDG_CACHE_HOME", state_dir().display().to_string()),
    ];
    let page = with_ports(&page, free_port(), free_port());
    follow(&page, &mut Shell::start(folder.path(), &environment));
}

/// The page for other ports than the default ones: other applications are served on this machine at
/// the same time.
fn with_ports(page: &str, data: u16, admin: u16) -> String {
    let page = page.replace(":3000", &format!(":{data}")).replace(":3001", &format!(":{admin}"));
    let mut lines = String::new();
    for line in page.lines() {
        lines.push_str(line);
        if ["spinfer experiment ", "spinfer drift "].iter().any(|asks| line.starts_with(asks)) {
            let _ = write!(lines, " --admin 127.0.0.1:{admin}");
        }
        lines.push('\n');
    }
    lines
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").port()
}
