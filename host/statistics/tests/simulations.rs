//! Simulations of experiments with fixed seeds: what is declared, measured. docs/experiments.md has
//! the tables that they print, with `SPINFER_SIMULATIONS=400`.

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand_distr::{Distribution, Exp1, StandardNormal, StandardUniform};
use spinfer_statistics::comparison::{Estimator, Scale};
use spinfer_statistics::guard::{Detector, Outcomes};
use spinfer_statistics::moments::PairMoments;
use spinfer_statistics::sample_ratio::{SplitCounts, ratio_test};
use spinfer_statistics::thompson::{Posterior, allocations, best};
use spinfer_statistics::verdict::{Decision, VerdictSettings, comparisons, decide};

type Source = Xoshiro256PlusPlus;

fn uniform(source: &mut Source) -> f64 {
    StandardUniform.sample(source)
}

fn binary(source: &mut Source, rate: f64) -> f64 {
    if uniform(source) < rate { 1.0 } else { 0.0 }
}

fn settings(minimum_sample: u64, scale: Scale) -> VerdictSettings {
    VerdictSettings {
        alpha: 0.05,
        minimum_sample,
        margin: None,
        higher_is_better: true,
        estimator: Estimator::Mean,
        scale,
    }
}

/// An experiment in which every unit is looked at.
struct Design<'a> {
    settings: VerdictSettings,
    /// Share of each arm, control first.
    shares: &'a [f64],
    /// Number of units of all arms in the whole experiment.
    units: u64,
    /// Draws the value and the companion of a unit of an arm.
    unit: &'a dyn Fn(&mut Source, usize) -> (f64, f64),
}

impl Design<'_> {
    /// The first decision, and after how many units.
    fn run(&self, source: &mut Source) -> Option<(Decision, u64)> {
        let mut arms = vec![vec![PairMoments::default()]; self.shares.len()];
        for units in 1..=self.units {
            let mut at = uniform(source);
            let arm = self.shares.iter().position(|share| {
                at -= share;
                at < 0.0
            });
            let arm = arm.unwrap_or(0);
            let (value, companion) = (self.unit)(source, arm);
            arms[arm][0].add(value, companion);
            if arms.iter().any(|arm| arm[0].n < self.settings.minimum_sample) {
                continue;
            }
            let found = comparisons(&arms[0], &arms[1..], &self.settings);
            let decision = decide(&found, &self.settings);
            if decision != Decision::Running {
                return Some((decision, units));
            }
        }
        None
    }

    /// Share of `runs` with a decision, and the median of the units that those took.
    fn decided(&self, runs: u64) -> (f64, u64) {
        let mut units = Vec::new();
        for seed in 0..runs {
            let mut source = Source::seed_from_u64(seed);
            units.extend(self.run(&mut source).map(|(_, units)| units));
        }
        units.sort_unstable();
        let median = units.get(units.len() / 2).copied().unwrap_or(0);
        (units.len() as f64 / runs as f64, median)
    }
}

/// Three standard errors of a share `p` over `runs`: what chance may add.
fn noise(p: f64, runs: u64) -> f64 {
    3.0 * (p * (1.0 - p) / runs as f64).sqrt()
}

/// Number of simulated experiments. The tables of docs/experiments.md have 400, and take minutes.
fn runs() -> u64 {
    std::env::var("SPINFER_SIMULATIONS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(60)
}

type Draw = fn(&mut Source, usize) -> (f64, f64);

#[test]
fn false_winners_are_at_most_alpha_when_every_unit_is_looked_at() {
    let draws: [(&str, Scale, Draw); 5] = [
        ("share 0.5", Scale::Share, |s, _| (binary(s, 0.5), 0.0)),
        ("share 0.1", Scale::Share, |s, _| (binary(s, 0.1), 0.0)),
        ("share 0.02", Scale::Share, |s, _| (binary(s, 0.02), 0.0)),
        ("normal", Scale::Number, |s, _| (StandardNormal.sample(s), 0.0)),
        ("exponential", Scale::Number, |s, _| (Exp1.sample(s), 0.0)),
    ];
    let (runs, minimum) = (runs(), 100);
    for (name, scale, unit) in draws {
        for shares in [&[0.5, 0.5][..], &[0.9, 0.1], &[0.25; 4]] {
            let design =
                Design { settings: settings(minimum, scale), shares, units: 2500, unit: &unit };
            let (found, _) = design.decided(runs);
            println!("| {name} | {shares:?} | {minimum} | {:.1} % |", 100.0 * found);
            assert!(found <= 0.05 + noise(0.05, runs), "{name} {shares:?}: {found}");
        }
    }
}

#[test]
fn effect_is_found_and_a_covariate_finds_it_earlier() {
    let runs = runs() / 4;
    let mut medians = Vec::new();
    for (effect, units) in [(0.1, 8_000), (0.2, 2_500)] {
        let unit = move |s: &mut Source, arm: usize| {
            (binary(s, 0.5 + if arm == 1 { effect } else { 0.0 }), 0.0)
        };
        let design = Design {
            settings: settings(100, Scale::Share),
            shares: &[0.5, 0.5],
            units,
            unit: &unit,
        };
        let (power, median) = design.decided(runs);
        println!(
            "| share 0.5 to {} | {:.0} % of {units} units | {median} |",
            0.5 + effect,
            100.0 * power
        );
        assert!(power > 0.9, "effect {effect}: {power}");
        medians.push(median);
    }
    assert!(medians[1] * 2 < medians[0], "{medians:?}");

    // The covariate explains three quarters of the variance.
    let unit = |s: &mut Source, arm: usize| {
        let (covariate, noise): (f64, f64) = (StandardNormal.sample(s), StandardNormal.sample(s));
        let effect = if arm == 1 { 0.3 } else { 0.0 };
        (0.75_f64.sqrt() * covariate + 0.5 * noise + effect, covariate)
    };
    let median = |estimator| {
        let settings = VerdictSettings { estimator, ..settings(100, Scale::Number) };
        let design = Design { settings, shares: &[0.5, 0.5], units: 5_000, unit: &unit };
        let (power, median) = design.decided(runs);
        println!("| +0.3 standard deviations, {estimator:?} | {:.0} % | {median} |", 100.0 * power);
        assert!(power > 0.9, "{estimator:?}: {power}");
        median
    };
    let (plain, adjusted) = (median(Estimator::Mean), median(Estimator::Adjusted));
    assert!(adjusted * 2 < plain, "{adjusted} {plain}");
}

#[test]
fn broken_split_is_caught_and_an_honest_one_is_not() {
    // The test's own false alarms are at most one in 1,000.
    let runs = 20 * runs();
    let alarm = |source: &mut Source, share: f64, looks: u64| {
        let mut split = SplitCounts { units: vec![0; 2], shares: vec![0.5, 0.5] };
        (1..=looks).find(|_| {
            split.units[usize::from(uniform(source) < share)] += 1;
            ratio_test(std::slice::from_ref(&split)).is_some_and(|test| test.is_mismatch())
        })
    };
    let alarms = (0..runs).filter_map(|seed| alarm(&mut Source::seed_from_u64(seed), 0.5, 500));
    let alarms = alarms.count() as f64 / runs as f64;
    println!("| 0.5 as configured | {:.2} % of {runs} |", 100.0 * alarms);
    assert!(alarms <= 0.001 + noise(0.001, runs), "{alarms}");
    for (share, looks) in [(0.55, 6_000), (0.6, 2_000)] {
        let mut caught: Vec<u64> = (0..20)
            .filter_map(|seed| alarm(&mut Source::seed_from_u64(seed), share, looks))
            .collect();
        caught.sort_unstable();
        assert_eq!(caught.len(), 20, "at {share}");
        println!("| {share} instead of 0.5 | caught after {} units (median) |", caught[10]);
    }
}

#[test]
fn guardrail_has_no_false_alarms_at_its_limit_and_catches_a_breach() {
    let run = |source: &mut Source, rates: [f64; 2], looks: u64, limit_looks: f64| {
        let mut detector = Detector::new(0.01, limit_looks);
        let mut known = [Outcomes::default(); 2];
        (1..=looks).find(|_| {
            let batch = rates.map(|rate| Outcomes {
                bad: (0..50).filter(|_| uniform(source) < rate).count() as u64,
                of: 50,
            });
            let alarm = detector.look(known, batch);
            for (known, batch) in known.iter_mut().zip(batch) {
                *known = Outcomes { bad: known.bad + batch.bad, of: known.of + batch.of };
            }
            alarm
        })
    };
    // At the limit itself: with a mean of at least 2,000 looks until an alarm, at most
    // 200 of 2,000 among the first 200.
    let runs = 2 * runs();
    let at_limit = |seed| run(&mut Source::seed_from_u64(seed), [0.02, 0.03], 200, 2_000.0);
    let alarms = (0..runs).filter_map(at_limit).count() as f64 / runs as f64;
    println!("| at the limit | {:.1} % within 10 % of the declared looks |", 100.0 * alarms);
    assert!(alarms <= 0.1 + noise(0.1, runs), "{alarms}");
    for rate in [0.05, 0.1] {
        let breach = |seed| run(&mut Source::seed_from_u64(seed), [0.0, rate], 400, 8_640_000.0);
        let mut looks: Vec<u64> = (0..40).filter_map(breach).collect();
        looks.sort_unstable();
        assert_eq!(looks.len(), 40);
        println!("| {rate} instead of 0 | {} requests of each (median) |", 50 * looks[20]);
    }
}

#[test]
fn bandit_moves_traffic_to_the_best_variant_and_keeps_the_minimum() {
    let rates = [0.4, 0.5, 0.6];
    let (mut best_share, runs) = (0.0, 20);
    for seed in 0..runs {
        let mut source = Source::seed_from_u64(seed);
        let mut rewards = [PairMoments::default(); 3];
        let mut shares = vec![1.0 / 3.0; 3];
        for _ in 0..40 {
            for _ in 0..50 {
                let mut at = uniform(&mut source);
                let arm = shares.iter().position(|share| {
                    at -= share;
                    at < 0.0
                });
                let arm = arm.unwrap_or(0);
                rewards[arm].add(binary(&mut source, rates[arm]), 0.0);
            }
            let posteriors: Vec<Posterior> = rewards.iter().map(Posterior::of_shares).collect();
            shares = allocations(&best(&posteriors), 0.05).unwrap();
            assert!(shares.iter().all(|share| *share >= 0.0499), "{shares:?}");
        }
        best_share += shares[2] / f64::from(u32::try_from(runs).unwrap());
    }
    println!(
        "| bandit, rewards {rates:?} | best variant has {:.0} % after 2,000 units |",
        100.0 * best_share
    );
    assert!(best_share > 0.8, "{best_share}");
}
