//! Simulations of drift alarms with fixed seeds. `examples/drift_alarms` runs larger ones.

#[path = "../examples/drift_alarms/simulation.rs"]
mod simulation;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use simulation::{FieldKind, Setting, Simulation};

const SETTING: Setting =
    Setting { rows: 200, fields: 3, kind: FieldKind::Normal, window: 400, between: 25 };

/// Alarms in `runs` runs without drift.
fn false_alarms(setting: &Setting, runs: u64) -> usize {
    let alarms = (0..runs).filter(|&seed| {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut simulation = Simulation::new(setting, &mut random);
        simulation.smallest_p_value(1_500, &mut random) < 0.2
    });
    alarms.count()
}

/// alpha is 0.2. Each run looks 60 times at up to six starts.
#[test]
fn false_alarms_are_at_most_alpha_with_continuous_looking() {
    let normal = false_alarms(&SETTING, 60);
    assert!(normal <= 12, "{normal} of 60");
    let kind = FieldKind::Categories(&[0.9, 0.08, 0.0195, 0.0005]);
    let categories = false_alarms(&Setting { kind, ..SETTING }, 60);
    assert!(categories <= 12, "{categories} of 60");
}

#[test]
fn shift_is_detected_after_records_that_its_size_needs() {
    let setting = Setting { rows: 2_000, ..SETTING };
    let mut slowest = 0;
    for (shift, maximum) in [(0.5, 400), (1.0, 125)] {
        for seed in 0..10 {
            let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
            let mut simulation = Simulation::new(&setting, &mut random);
            assert_eq!(simulation.first_alarm(500, 0.0, 0.01, &mut random), None, "seed {seed}");
            let delay = simulation.first_alarm(maximum, shift, 0.01, &mut random);
            slowest = slowest.max(delay.unwrap_or_else(|| panic!("{shift}: seed {seed}")));
        }
    }
    assert!(slowest > 50, "alarms need evidence: {slowest}");
}
