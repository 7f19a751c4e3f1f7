//! Generates `docs/onnx-support.md`.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::case::Case;
use crate::outcome::Outcome;
use crate::{SetResults, count_standard};

/// Maximum number of cases that are named for a reason.
const NAMES_SHOWN: usize = 6;
const COLUMNS: usize = 10;

pub(crate) fn of(found: &[SetResults]) -> String {
    let mut page = String::from(
        "# ONNX support\n\n\
         The host serves a graph with correct results, or refuses it at load time with the reason. This page \
         lists the results of every test of the ONNX standard, and of models as teams export them, run \
         through the backends as the host loads them. `tests/onnx_suite` generates the page, and fails if \
         the refusals differ from it.\n\n\
         ```sh\n\
         make onnx-support   # prepare the cases, run them, regenerate this page\n\
         ```\n\n\
         - *Correct*: for the standard's tests, the standard's outputs within its own tolerance; for models, \
         ONNX Runtime's outputs for one row and for seven, within 1e-4 (FP16: 5e-3); for an invalid request, \
         an error that names the mistake.\n\
         - *ONNX Runtime*: the result of ONNX Runtime itself, called from Python.\n\
         - *lean* and *onnxruntime*: the backends. The first that has all of a graph's operators runs it.\n\
         - *Rounded differently*, *ONNX Runtime's results*, *refused*, *refused at run time*: listed \
         below.\n\n\
         ## Results\n\n\
         | set | cases | correct in ONNX Runtime | correct | by lean | by onnxruntime | rounded differently | ONNX Runtime's results | refused | refused at run time | wrong, or another error |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut sum = [0; COLUMNS];
    for SetResults { set, what, cases } in found {
        let counts = counts(cases);
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        row(&mut page, &format!("{set}: {what}"), counts);
    }
    row(&mut page, "all", sum);
    let (passed, correct) = count_standard(found);
    let percent = correct * 100 / passed.max(1);
    let _ = writeln!(
        page,
        "\nOf the {passed} tests of the standard that ONNX Runtime passes, {correct} are correct here ({percent} %)."
    );
    others(&mut page, found);
    refusals(&mut page, found);
    page
}

/// The counts of a set, in the order of the table's columns.
fn counts(cases: &[(Case, Outcome)]) -> [usize; COLUMNS] {
    let of = |is: &dyn Fn(&Case, &Outcome) -> bool| {
        cases.iter().filter(|(case, outcome)| is(case, outcome)).count()
    };
    let by = |name: &str| of(&|_, outcome| matches!(outcome, Outcome::Correct(by) if *by == name));
    [
        cases.len(),
        of(&|case, _| case.onnxruntime.is_correct()),
        of(&|_, outcome| outcome.is_correct()),
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

/// The cases in which ONNX Runtime's results differ from the standard's.
fn others(page: &mut String, found: &[SetResults]) {
    page.push_str(
        "\n## Rounded differently\n\n\
         Within 0.1 % of the largest element of the standard's output, but outside its tolerance, \
         which is 1e-7 where the expected number is 0: sums of large numbers that cancel, and FP16.\n\n",
    );
    let rounded = listed(found, |outcome| matches!(outcome, Outcome::Rounded));
    let _ = writeln!(page, "{rounded}");
    page.push_str(
        "\n## ONNX Runtime's results\n\n\
         ONNX Runtime computes another result than the standard's test expects. The host serves ONNX \
         Runtime's result.\n\n\
         | test | operators | difference |\n| --- | --- | --- |\n",
    );
    for (case, outcome) in found.iter().flat_map(|found| &found.cases) {
        if let Outcome::AsOnnxRuntime(how) = outcome {
            let _ = writeln!(page, "| {} | {} | {how} |", case.name, case.operators.join(", "));
        }
    }
}

/// The names of the cases whose outcome `is` selects.
fn listed(found: &[SetResults], is: impl Fn(&Outcome) -> bool) -> String {
    let cases = found.iter().flat_map(|found| &found.cases);
    let names = cases.filter(|(_, outcome)| is(outcome)).map(|(case, _)| case.name.as_str());
    let names: Vec<_> = names.collect();
    if names.is_empty() { "None.".into() } else { format!("{}.", names.join(", ")) }
}

/// The refused cases by reason.
fn refusals(page: &mut String, found: &[SetResults]) {
    page.push_str(
        "\n## Refused\n\nAt load time: by `spinfer add`, and before the host is ready.\n\n",
    );
    by_reason(page, found, |outcome| match outcome {
        Outcome::Refused(why) => Some(reason(why)),
        _ => None,
    });
    page.push_str(
        "\n## Refused at run time\n\nONNX Runtime loads these graphs, but cannot compute them on the test's \
         inputs: a client error (400).\n\n",
    );
    by_reason(page, found, |outcome| match outcome {
        Outcome::RefusedRun(why) => Some(reason(why)),
        _ => None,
    });
}

/// A table of the cases for which `of` returns a reason.
fn by_reason(page: &mut String, found: &[SetResults], of: impl Fn(&Outcome) -> Option<String>) {
    let mut by_reason: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for SetResults { set, cases, .. } in found {
        for (case, outcome) in cases {
            if let Some(reason) = of(outcome) {
                let entry = (format!("{set}/{}", case.name), case.onnxruntime.is_correct());
                by_reason.entry(reason).or_default().push(entry);
            }
        }
    }
    page.push_str(
        "| reason | cases | correct in ONNX Runtime | examples |\n| --- | --- | --- | --- |\n",
    );
    for (reason, entries) in by_reason {
        let correct = entries.iter().filter(|(_, is_correct)| *is_correct).count();
        let names: Vec<_> =
            entries.iter().take(NAMES_SHOWN).map(|(name, _)| name.as_str()).collect();
        let _ =
            writeln!(page, "| {reason} | {} | {correct} | {} |", entries.len(), names.join(", "));
    }
}

/// The reason of ONNX Runtime, without the names of a graph.
fn reason(why: &str) -> String {
    let why = why.split_once("onnxruntime: ").map_or(why, |(_, why)| why);
    let mut text = String::new();
    for (n, part) in why.split('`').enumerate() {
        text.push_str(if n % 2 == 0 { part } else { "`...`" });
    }
    text.replace(['\n', '|'], " ")
}
