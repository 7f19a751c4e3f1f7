//! What a record costs.

use super::*;

/// `cargo nextest run -p spinfer drift::tests::cost::cost_of_a_record --run-ignored all --no-capture`
#[test]
#[ignore = "benchmark: prints the cost of a record"]
fn cost_of_a_record() {
    let monitor = iris_monitor();
    let mut random = fastrand::Rng::with_seed(1);
    let entries: Vec<LogEntry> = (0..256)
        .map(|_| {
            let mut entry = iris(&[std::array::from_fn(|_| random.f32() * 7.0)], "versicolor");
            let predictions = Arc::make_mut(&mut entry.predictions);
            let label = Columns { names: names(&["label"]), values: ColumnValues::Int64(vec![1]) };
            let probabilities = Columns {
                names: names(&["probabilities[0]", "probabilities[1]", "probabilities[2]"]),
                values: ColumnValues::Fp32(vec![0.1, 0.8, 0.1]),
            };
            predictions.outputs.extend([label, probabilities]);
            entry
        })
        .collect();
    const ROUNDS: u32 = 4_000;
    let start = std::time::Instant::now();
    for _ in 0..ROUNDS {
        entries.iter().for_each(|entry| monitor.observe(entry));
    }
    let each = start.elapsed() / (ROUNDS * 256);
    let start = std::time::Instant::now();
    let report = monitor.report(now(), None);
    println!("{each:?} per record of iris, {:?} per report", start.elapsed());
    assert!(report.versions[0].window.records >= 9_500);
}
