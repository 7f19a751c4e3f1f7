//! Simulates experiments: how often a winner is false, and how soon effects, broken splits and
//! breaches are found. Prints the tables of docs/verdicts.md.
//!
//! ```sh
//! cargo run --release -p spinfer-statistics --example experiments [<runs>]
//! ```

#![expect(clippy::print_stdout, reason = "a command")]

mod simulation;

use simulation::{
    Guarded, PREDICTIONS_AS_UNITS, WITH_DIFFERENCE, WITHOUT_DIFFERENCE, invalid_split, median,
};

fn main() {
    let runs = std::env::args().nth(1).and_then(|runs| runs.parse().ok()).unwrap_or(400);
    false_winners(runs);
    effects(runs);
    splits(runs);
    guardrails(runs);
}

fn per_cent(count: usize, runs: u64) -> String {
    format!("{:.1} %", 100.0 * count as f64 / runs as f64)
}

fn false_winners(runs: u64) {
    const PREDICTIONS: u64 = 8_000;
    println!("\n{runs} experiments each, up to {PREDICTIONS} predictions, alpha = 0.05\n");
    println!("| outcome | shares | `minimum_sample` 20 | 100 | 400 |");
    println!("| --- | --- | --- | --- | --- |");
    for case in WITHOUT_DIFFERENCE.iter().chain([&PREDICTIONS_AS_UNITS]) {
        let found = [20, 100, 400]
            .map(|minimum| per_cent(case.decided(runs, minimum, PREDICTIONS).len(), runs));
        println!("| {} | {} | {} |", case.name, case.plan.describe(), found.join(" | "));
    }
}

fn effects(runs: u64) {
    const UNITS: u64 = 8_000;
    println!("\n{runs} experiments, equal shares, minimum_sample = 100, up to {UNITS} units\n");
    println!("| effect | found | units (median) |");
    println!("| --- | --- | --- |");
    for (effect, case) in WITH_DIFFERENCE {
        let units = case.decided(runs, 100, UNITS);
        println!("| {effect} | {} | {} |", per_cent(units.len(), runs), median(units));
    }
}

fn splits(runs: u64) {
    const UNITS: u64 = 10_000;
    println!("\n{runs} experiments, a look at every unit, up to {UNITS}\n");
    println!("| share of the treatment, instead of 0.5 | invalid | units (median) |");
    println!("| --- | --- | --- |");
    for share in [0.5, 0.52, 0.55, 0.6] {
        let units: Vec<u64> =
            (0..runs).filter_map(|seed| invalid_split(seed, share, UNITS)).collect();
        let found = per_cent(units.len(), runs);
        let median = if share == 0.5 { "-".to_owned() } else { median(units).to_string() };
        println!("| {share} | {found} | {median} |");
    }
}

fn guardrails(runs: u64) {
    const LOOKS: u64 = 2_000;
    println!("\n{runs} runs of up to {LOOKS} looks, max_increase = 0.01\n");
    println!("| error rates | requests in a look | breached | requests of the variant (median) |");
    println!("| --- | --- | --- | --- |");
    for rates in [[0.02, 0.03], [0.0, 0.02], [0.0, 0.05], [0.0, 0.1], [0.0, 1.0]] {
        for requests in [[50.0, 50.0], [0.9, 0.1], [0.1, 0.9]] {
            let guarded = Guarded { rates, requests, declared: 8_640_000.0 };
            let looks: Vec<u64> = (0..runs).filter_map(|seed| guarded.alarm(seed, LOOKS)).collect();
            let found = per_cent(looks.len(), runs);
            let of_variant = median(looks) as f64 * requests[1];
            println!("| {rates:?} | {requests:?} | {found} | {of_variant:.0} |");
        }
    }
}
