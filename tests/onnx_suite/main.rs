//! Every test of the ONNX standard, models as teams export them, and one graph of each kind, loaded and run
//! as by the host. `tests/onnx` prepares the cases (`make onnx-cases`), `docs/onnx-support.md` lists the
//! results.

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

/// The sets in the order of the page, with a description; those of the standard first.
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
    ("kinds", "single attributes, types and shapes, and client errors"),
];

/// Number of sets of the standard.
const STANDARD_SETS: usize = 4;

/// Share of the standard's tests that ONNX Runtime passes and that must be correct here, in percent.
const MIN_CORRECT_PERCENT: usize = 95;

/// A set, and the outcome of each of its cases.
struct SetResults {
    set: &'static str,
    what: &'static str,
    cases: Vec<(Case, Outcome)>,
}

#[test]
fn every_case_is_correct_or_refused_at_load() {
    let folder = root().join("target/onnx-cases");
    let options = BackendOptions::without_trials(&library());
    let untried = options.backends();
    let tried = BackendOptions { program: Some(binary()), ..options }.backends();
    let found: Vec<SetResults> = SETS
        .iter()
        .enumerate()
        .map(|(number, (set, what))| {
            let cases = case::read_set(&folder, set);
            // A process for each of the standard's 2,000 graphs would take minutes.
            let backends = if number < STANDARD_SETS { &untried } else { &tried };
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
    let (passed, correct) = count_standard(&found);
    let page = page::of(&found);
    let path = root().join("docs/onnx-support.md");
    if std::env::var_os("SPINFER_WRITE").is_some() {
        std::fs::write(&path, &page).expect("docs/ can be written");
    }
    assert!(
        bad.is_empty(),
        "{} are wrong, or fail after they are loaded:\n{}",
        bad.len(),
        bad.join("\n")
    );
    assert!(
        correct * 100 >= passed * MIN_CORRECT_PERCENT,
        "only {correct} of the {passed} tests that ONNX Runtime passes are correct"
    );
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        refused(&written) == refused(&page),
        "{} differs from the results: run `make onnx-support`",
        path.display()
    );
}

/// The part of the page that is the same on every processor: the refusals. Elsewhere, rounding may cross a
/// tolerance.
fn refused(page: &str) -> &str {
    page.split_once("## Refused\n").map_or("", |(_, refused)| refused)
}

/// Number of the standard's tests that ONNX Runtime passes, and how many of them are correct.
fn count_standard(found: &[SetResults]) -> (usize, usize) {
    let cases = found[..STANDARD_SETS].iter().flat_map(|found| &found.cases);
    let passed: Vec<_> = cases.filter(|(case, _)| case.onnxruntime.is_correct()).collect();
    let correct = passed.iter().filter(|(_, outcome)| outcome.is_correct()).count();
    (passed.len(), correct)
}

/// ONNX Runtime's library, which `make test` downloads.
fn library() -> PathBuf {
    let library = std::env::var_os("ORT_DYLIB_PATH")
        .map_or_else(|| root().join("target/onnxruntime/libonnxruntime.so"), PathBuf::from);
    assert!(library.exists(), "{} is missing: run `make test`", library.display());
    library
}

/// The results of `work` in order, computed by one thread for each processor.
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
