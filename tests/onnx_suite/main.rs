//! The proof of the backends: every test of the ONNX standard, models as teams export them, and single
//! kinds of graphs, loaded and run as the host does. `tests/onnx` prepares the cases (`make onnx-cases`),
//! `docs/onnx-support.md` says what was found.

mod case;
mod compare;
mod outcome;
mod page;
mod tensors;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use case::Case;
use outcome::Outcome;
use spinfer::inference::BackendOptions;
use spinfer_tests::{binary, root};

/// In the order of the page, each with what it is; those of the standard first.
const SETS: [(&str, &str); 10] = [
    ("node", "the standard's tests of single operators"),
    ("simple", "the standard's small graphs"),
    ("pytorch-converted", "the standard's graphs converted from PyTorch's layers"),
    ("pytorch-operator", "the standard's graphs converted from PyTorch's operators"),
    ("scikit-learn", "scikit-learn by skl2onnx"),
    ("boosting", "LightGBM, XGBoost, CatBoost"),
    ("pytorch", "PyTorch, exported by TorchScript and by dynamo"),
    ("int8", "quantized by `onnxruntime.quantization`"),
    ("float16", "converted to FP16"),
    ("kinds", "single attributes, types, shapes, and mistakes of a client"),
];

/// How many of them are of the standard.
const OF_THE_STANDARD: usize = 4;

/// Of the standard's tests that ONNX Runtime passes, how many in a hundred must be right.
const RIGHT_PERCENT: usize = 95;

/// A set, its cases, and what became of each.
struct SetResults {
    set: &'static str,
    what: &'static str,
    cases: Vec<(Case, Outcome)>,
}

#[test]
fn every_case_is_correct_or_refused_at_load() {
    let folder = root().join("target/onnx-cases");
    let options = BackendOptions::untried(&library());
    let untried = options.backends();
    let tried = BackendOptions { program: Some(binary()), ..options }.backends();
    let found: Vec<SetResults> = SETS
        .iter()
        .enumerate()
        .map(|(number, (set, what))| {
            let cases = case::read_set(&folder, set);
            // A process for each of the standard's two thousand graphs would take minutes.
            let backends = if number < OF_THE_STANDARD { &untried } else { &tried };
            let outcomes = in_parallel(&cases, |case| outcome::of(backends, case));
            SetResults { set, what, cases: cases.into_iter().zip(outcomes).collect() }
        })
        .collect();

    let bad: Vec<String> = found
        .iter()
        .flat_map(|found| found.cases.iter().map(|(case, outcome)| (found.set, case, outcome)))
        .filter_map(|(set, case, outcome)| match outcome {
            Outcome::Wrong(how) => Some(format!("{set}/{}: wrong: {how}", case.name)),
            Outcome::Failed(how) => Some(format!("{set}/{}: failed: {how}", case.name)),
            _ => None,
        })
        .collect();
    let (passed, right) = of_the_standard(&found);
    let page = page::of(&found);
    let path = root().join("docs/onnx-support.md");
    if std::env::var_os("SPINFER_WRITE").is_some() {
        std::fs::write(&path, &page).expect("docs/ can be written");
    }
    assert!(bad.is_empty(), "{} are wrong, or fail once loaded:\n{}", bad.len(), bad.join("\n"));
    assert!(
        right * 100 >= passed * RIGHT_PERCENT,
        "only {right} of the {passed} tests that ONNX Runtime passes are right"
    );
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        refused(&written) == refused(&page),
        "{} is not what runs: run `make onnx-support`",
        path.display()
    );
}

/// The part of the page that is the same on every processor: what is refused, and why. Another one may
/// round a number to the other side of a tolerance.
fn refused(page: &str) -> &str {
    page.split_once("## Refused\n").map_or("", |(_, refused)| refused)
}

/// Of the standard's tests: how many ONNX Runtime passes, and of those how many are right.
fn of_the_standard(found: &[SetResults]) -> (usize, usize) {
    let cases = found[..OF_THE_STANDARD].iter().flat_map(|found| &found.cases);
    let passed: Vec<_> = cases.filter(|(case, _)| case.onnxruntime.is_right()).collect();
    let right = passed.iter().filter(|(_, outcome)| outcome.is_right()).count();
    (passed.len(), right)
}

/// ONNX Runtime's library, as `make test` brings it.
fn library() -> PathBuf {
    let library = std::env::var_os("ORT_DYLIB_PATH")
        .map_or_else(|| root().join("target/onnxruntime/libonnxruntime.so"), PathBuf::from);
    assert!(library.exists(), "{} is missing: run `make test`", library.display());
    library
}

/// `work` on each, in order, over as many threads as there are processors.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
