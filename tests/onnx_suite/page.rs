//! `docs/onnx-support.md`.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::case::Case;
use crate::outcome::Outcome;
use crate::{Found, of_the_standard};

/// Names of cases in a line of refusals.
const NAMES_SHOWN: usize = 6;
const COLUMNS: usize = 10;

pub(crate) fn of(found: &[Found]) -> String {
    let mut page = String::from(
        "# ONNX support\n\n\
         A graph is served with right numbers, or refused when it is loaded, with the reason. This page is \
         the proof: every test of the ONNX standard, and models as teams export them, run through the \
         backends as the host loads them. `tests/onnx_suite` writes it, and fails where it is not what \
         runs.\n\n\
         ```sh\n\
         make onnx-support   # prepare the cases, run them, write this page again\n\
         ```\n\n\
         - *Right* means: of the standard's tests the standard's outputs, within its own tolerance; of \
         models ONNX Runtime's outputs, for one row and for seven, within 1e-4 (of FP16: 5e-3); of a \
         client's mistake an error that names it.\n\
         - *ONNX Runtime* is what ONNX Runtime itself does with the file, called from Python.\n\
         - *lean* and *onnxruntime* are the backends; the first that has all of a graph's operators runs \
         it.\n\
         - *Rounded otherwise*, *ONNX Runtime's numbers*, *refused*, *refused when run*: listed \
         below.\n\n\
         ## Results\n\n\
         | set | cases | right in ONNX Runtime | right | by lean | by onnxruntime | rounded otherwise | ONNX Runtime's numbers | refused | refused when run | wrong, or another error |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut sum = [0; COLUMNS];
    for Found { set, what, cases } in found {
        let counts = counts(cases);
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        row(&mut page, &format!("{set}: {what}"), counts);
    }
    row(&mut page, "all", sum);
    let (passed, right) = of_the_standard(found);
    let percent = right * 100 / passed.max(1);
    let _ = writeln!(
        page,
        "\nOf the {passed} tests of the standard that ONNX Runtime passes, {right} are right here ({percent} %)."
    );
    others(&mut page, found);
    refusals(&mut page, found);
    page
}

/// In the order of the table's columns.
fn counts(cases: &[(Case, Outcome)]) -> [usize; COLUMNS] {
    let of = |is: &dyn Fn(&Case, &Outcome) -> bool| {
        cases.iter().filter(|(case, outcome)| is(case, outcome)).count()
    };
    let by = |name: &str| of(&|_, outcome| matches!(outcome, Outcome::Right(by) if *by == name));
    [
        cases.len(),
        of(&|case, _| case.onnxruntime.is_right()),
        of(&|_, outcome| outcome.is_right()),
        by("lean"),
        by("onnxruntime"),
        of(&|_, outcome| matches!(outcome, Outcome::Rounded)),
        of(&|_, outcome| matches!(outcome, Outcome::AsOnnxRuntime(_))),
        of(&|_, outcome| matches!(outcome, Outcome::Refused(_))),
        of(&|_, outcome| matches!(outcome, Outcome::RefusedRun(_))),
        of(&|_, outcome| matches!(outcome, Outcome::Wrong(_) | Outcome::Failed(_))),
    ]
}

fn row(page: &mut String, name: &str, counts: [usize; COLUMNS]) {
    let cells = counts.map(|count| count.to_string()).join(" | ");
    let _ = writeln!(page, "| {name} | {cells} |");
}

/// Where ONNX Runtime's numbers are others than the standard's.
fn others(page: &mut String, found: &[Found]) {
    page.push_str(
        "\n## Rounded otherwise\n\n\
         Within a thousandth of the largest element of the standard's output, but not within its tolerance, \
         which is 1e-7 where the right number is 0: sums of large numbers that cancel, and FP16.\n\n",
    );
    let rounded = listed(found, |outcome| matches!(outcome, Outcome::Rounded));
    let _ = writeln!(page, "{rounded}");
    page.push_str(
        "\n## ONNX Runtime's numbers\n\n\
         ONNX Runtime computes something else than the standard's test expects. Served with ONNX Runtime's \
         numbers, as everywhere else where ONNX Runtime runs the graph.\n\n\
         | test | operators | difference |\n| --- | --- | --- |\n",
    );
    for (case, outcome) in found.iter().flat_map(|found| &found.cases) {
        if let Outcome::AsOnnxRuntime(how) = outcome {
            let _ = writeln!(page, "| {} | {} | {how} |", case.name, case.operators.join(", "));
        }
    }
}

/// The names of the cases with such an outcome.
fn listed(found: &[Found], is: impl Fn(&Outcome) -> bool) -> String {
    let cases = found.iter().flat_map(|found| &found.cases);
    let names = cases.filter(|(_, outcome)| is(outcome)).map(|(case, _)| case.name.as_str());
    let names: Vec<_> = names.collect();
    if names.is_empty() { "None.".into() } else { format!("{}.", names.join(", ")) }
}

/// What is refused, by the reason.
fn refusals(page: &mut String, found: &[Found]) {
    page.push_str("\n## Refused\n\nWhen the graph is loaded: by `spinfer add`, and before a host is ready.\n\n");
    by_reason(page, found, |outcome| match outcome {
        Outcome::Refused(why) => Some(reason(why)),
        _ => None,
    });
    page.push_str(
        "\n## Refused when run\n\nONNX Runtime loads these and cannot compute them on the test's inputs, which \
         is an error of the client's (400).\n\n",
    );
    by_reason(page, found, |outcome| match outcome {
        Outcome::RefusedRun(why) => Some(reason(why)),
        _ => None,
    });
}

/// A table of the cases that have a reason.
fn by_reason(page: &mut String, found: &[Found], of: impl Fn(&Outcome) -> Option<String>) {
    let mut by_reason: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for Found { set, cases, .. } in found {
        for (case, outcome) in cases {
            if let Some(reason) = of(outcome) {
                let entry = (format!("{set}/{}", case.name), case.onnxruntime.is_right());
                by_reason.entry(reason).or_default().push(entry);
            }
        }
    }
    page.push_str(
        "| reason | cases | right in ONNX Runtime | such as |\n| --- | --- | --- | --- |\n",
    );
    for (reason, entries) in by_reason {
        let right = entries.iter().filter(|(_, is_right)| *is_right).count();
        let names: Vec<_> =
            entries.iter().take(NAMES_SHOWN).map(|(name, _)| name.as_str()).collect();
        let _ = writeln!(page, "| {reason} | {} | {right} | {} |", entries.len(), names.join(", "));
    }
}

/// The general backend's reason, without the names of one graph.
fn reason(why: &str) -> String {
    let why = why.split_once("onnxruntime: ").map_or(why, |(_, why)| why);
    let mut text = String::new();
    for (n, part) in why.split('`').enumerate() {
        text.push_str(if n % 2 == 0 { part } else { "`...`" });
    }
    text.replace(['\n', '|'], " ")
}
