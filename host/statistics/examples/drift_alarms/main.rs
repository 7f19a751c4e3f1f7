//! Simulates drift alarms: how often they are false, and after how many records they are raised.
//! Prints the tables of docs/drift.md.
//!
//! ```sh
//! cargo run --release -p spinfer-statistics --example drift_alarms [<runs>]
//! ```

#![expect(clippy::print_stdout, reason = "a command")]

mod simulation;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use simulation::{FieldKind, Setting, Simulation};

/// A rare category, and one that the reference data has probably not.
const RARE: &[f64] = &[0.9, 0.08, 0.0195, 0.0005];

fn main() {
    let runs = std::env::args().nth(1).and_then(|runs| runs.parse().ok()).unwrap_or(1_000);
    false_alarms(runs);
    delays(runs);
}

fn false_alarms(runs: u64) {
    const RECORDS: usize = 20_000;
    const ALPHAS: [f64; 3] = [0.01, 0.05, 0.2];
    println!("\n{runs} runs of {RECORDS} records, a look every 50, windows of 1,000\n");
    println!("| fields | reference rows | alpha 0.01 | alpha 0.05 | alpha 0.2 |");
    println!("| --- | --- | --- | --- | --- |");
    let kinds = [("normal", FieldKind::Normal), ("rare categories", FieldKind::Categories(RARE))];
    for (name, kind) in kinds {
        for fields in [1, 8] {
            for rows in [120, 1_000, 10_000] {
                let setting = Setting { rows, fields, kind, window: 1_000, between: 50 };
                let smallest: Vec<f64> = (0..runs)
                    .map(|seed| {
                        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
                        let mut simulation = Simulation::new(&setting, &mut random);
                        simulation.smallest_p_value(RECORDS, &mut random)
                    })
                    .collect();
                let shares = ALPHAS.map(|alpha| {
                    let alarms = smallest.iter().filter(|&&p_value| p_value < alpha).count();
                    format!("{:.1} %", alarms as f64 / runs as f64 * 100.0)
                });
                println!("| {fields} {name} | {rows} | {} |", shares.join(" | "));
            }
        }
    }
}

/// The shift comes after 5,000 records without one.
fn delays(runs: u64) {
    const MAXIMUM: usize = 20_000;
    println!("\n{runs} runs, a look every 20 records, windows of 10,000, alpha 0.01, 8 fields\n");
    println!("| shift | reference rows | median | 90 % | none within {MAXIMUM} |");
    println!("| --- | --- | --- | --- | --- |");
    for shift in [0.25, 0.5, 1.0] {
        for rows in [120, 1_000, 10_000] {
            let kind = FieldKind::Normal;
            let setting = Setting { rows, fields: 8, kind, window: 10_000, between: 20 };
            let mut delays: Vec<usize> = (0..runs)
                .map(|seed| {
                    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
                    let mut simulation = Simulation::new(&setting, &mut random);
                    simulation.first_alarm(5_000, 0.0, 0.0, &mut random);
                    let delay = simulation.first_alarm(MAXIMUM, shift, 0.01, &mut random);
                    delay.unwrap_or(usize::MAX)
                })
                .collect();
            delays.sort_unstable();
            let quantile = |share: usize| match delays[(delays.len() - 1) * share / 100] {
                usize::MAX => "-".to_owned(),
                delay => delay.to_string(),
            };
            let missed = delays.iter().filter(|&&delay| delay == usize::MAX).count();
            let missed = missed as f64 / runs as f64 * 100.0;
            println!("| {shift} | {rows} | {} | {} | {missed:.0} % |", quantile(50), quantile(90));
        }
    }
}
