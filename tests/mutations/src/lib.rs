//! Runs a fuzz target briefly, in an ordinary test: on its seeds, and on mutations of them. `make fuzz` runs
//! the same targets for long, guided by coverage.

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Number of mutated inputs per target, unless `PROPTEST_CASES` is set.
const CASES: u32 = 2000;
/// Processor time for one input in a debug build, in ticks of proc(5): 5 seconds.
const MAX_TICKS: u64 = 500;

/// Tokens that break parsers.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\xf0\x9f\x8c\xb8",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[",
    b"\"",
    b"'",
    b"\\u0000",
    b",",
    b":",
    b"=",
    b"\n",
    b"/",
    b"%",
    b"*",
    b"...",
    b"{{",
    b"}}",
    b"-1",
    b"0",
    b"4294967296",
    b"18446744073709551615",
    b"1e999",
    b"NaN",
    b"null",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
];

/// A mutation of an input. Indices are relative to its length.
#[derive(Clone, Debug)]
enum Change {
    Byte(prop::sample::Index, u8),
    Insert(prop::sample::Index, &'static [u8]),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize, usize),
    Truncate(prop::sample::Index),
    /// The rest is replaced by that of another seed.
    Splice(prop::sample::Index, prop::sample::Index, prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (place(), prop::sample::select(TOKENS)).prop_map(|(at, token)| Change::Insert(at, token)),
        (place(), 1..20_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (place(), 1..30_usize, 1..200_usize)
            .prop_map(|(at, length, n)| Change::Repeat(at, length, n)),
        place().prop_map(Change::Truncate),
        (place(), place(), place()).prop_map(|(at, seed, from)| Change::Splice(at, seed, from)),
    ]
}

impl Change {
    fn apply(&self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let within = |at: &prop::sample::Index, length: usize| at.index(length + 1);
        match self {
            Self::Byte(at, byte) => {
                if !input.is_empty() {
                    let at = at.index(input.len());
                    input[at] = *byte;
                }
            }
            Self::Insert(at, token) => {
                let at = within(at, input.len());
                input.splice(at..at, token.iter().copied());
            }
            Self::Remove(at, length) => {
                let at = within(at, input.len());
                input.drain(at..input.len().min(at + length));
            }
            Self::Repeat(at, length, times) => {
                let at = within(at, input.len());
                let part = input[at..input.len().min(at + length)].repeat(*times);
                input.splice(at..at, part);
            }
            Self::Truncate(at) => input.truncate(within(at, input.len())),
            Self::Splice(at, seed, from) => {
                let other = seed.get(seeds);
                input.truncate(within(at, input.len()));
                input.extend_from_slice(&other[within(from, other.len())..]);
            }
        }
    }
}

/// Processor time of this thread in user mode, in hundredths of a second; 0 without proc(5). Unlike wall-clock
/// time it does not depend on the load of the machine.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // The fields after the name, which is in parentheses.
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    fields.split(' ').nth(11).and_then(|ticks| ticks.parse().ok()).unwrap_or_default()
}

/// Runs `target` on its seeds, the files in `fuzz/seeds/<name>`, and on mutations of them.
///
/// # Panics
/// If the target panics or takes too long, with the smallest input found for which it does.
pub fn run_briefly(name: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let files = folder.read_dir().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
    paths.sort_unstable();
    let read = |path| std::fs::read(path).unwrap_or_else(|e| panic!("a seed of {name}: {e}"));
    let seeds: Vec<Vec<u8>> = paths.iter().map(read).collect();
    let run = |input: &[u8]| {
        let start = ticks();
        target(input);
        let ticks = ticks() - start;
        assert!(ticks < MAX_TICKS, "took {ticks} ticks");
    };
    seeds.iter().for_each(|seed| run(seed));
    run(b"");
    let configured = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = configured.unwrap_or(CASES);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let inputs = (any::<prop::sample::Index>(), prop::collection::vec(change(), 1..8));
    let ran = TestRunner::new(config).run(&inputs, |(seed, changes)| {
        let mut input = seed.get(&seeds).clone();
        changes.iter().for_each(|change| change.apply(&mut input, &seeds));
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&input)));
        ran.map_err(|_| TestCaseError::fail(format!("on b\"{}\"", input.escape_ascii())))
    });
    if let Err(error) = ran {
        panic!("the fuzz target {name} failed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::run_briefly;

    #[test]
    fn every_seed_is_run_and_mutated() {
        let runs = std::cell::Cell::new(0);
        run_briefly("template", |_| runs.set(runs.get() + 1));
        assert!(runs.get() > 10, "{}", runs.get());
    }

    #[test]
    #[should_panic(expected = "the fuzz target template failed")]
    fn failing_input_is_found() {
        run_briefly("template", |input| assert!(!input.ends_with(b"{{"), "on purpose"));
    }
}
