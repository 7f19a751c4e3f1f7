//! Experiments with a known truth, in which the verdict is looked at after every prediction, and
//! from 1,000 of them on after every 0.1 to 0.2 %.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers of a simulation"
)]

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand_distr::{Distribution, Exp1, StandardNormal, StandardUniform};
use spinfer_statistics::comparison::{Estimator, Scale};
use spinfer_statistics::guard::{Detector, Outcomes};
use spinfer_statistics::moments::PairMoments;
use spinfer_statistics::sample_ratio::{SplitCounts, ratio_test};
use spinfer_statistics::thompson::{Posterior, allocations, best};
use spinfer_statistics::verdict::{Decision, Strata, VerdictSettings, comparisons, decide};

pub(crate) type Source = Xoshiro256PlusPlus;

/// The outcome of a prediction: its value, and the covariate of its unit.
pub(crate) type Draw = fn(&mut Source, &Unit) -> (f64, f64);

/// What a prediction depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    /// 0 is control.
    pub(crate) arm: usize,
    /// Property of the unit, from 0 to 1.
    pub(crate) property: f64,
    /// Number of the period of equal allocations.
    pub(crate) period: usize,
}

/// How units are assigned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plan {
    /// In these shares, control first.
    Fixed(&'static [f64]),
    /// In periods, each with its number of units and the treatment's share; the last one goes on.
    Periods(&'static [(u64, f64)]),
    /// The treatment has 10 % until its mean is above control's by a standard error, as of a
    /// hurried operator, and 50 % from then on.
    Eager,
    /// By Thompson sampling after every 250 units; the number of arms.
    Bandit(usize),
}

/// How units make predictions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Visits {
    /// One each.
    One,
    /// 1 to 20 each, at once.
    Cluster,
    /// 1 to 20 each, of which each counts as a unit: wrong.
    Copies,
    /// One at first. Four of five predictions are of units that have made one before.
    Return,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) scale: Scale,
    pub(crate) estimator: Estimator,
    pub(crate) plan: Plan,
    pub(crate) visits: Visits,
    pub(crate) draw: Draw,
}

pub(crate) fn uniform(source: &mut Source) -> f64 {
    StandardUniform.sample(source)
}

fn normal(source: &mut Source) -> f64 {
    StandardNormal.sample(source)
}

fn exponential(source: &mut Source) -> f64 {
    Exp1.sample(source)
}

pub(crate) fn binary(source: &mut Source, rate: f64) -> f64 {
    if uniform(source) < rate { 1.0 } else { 0.0 }
}

const EVEN: Plan = Plan::Fixed(&[0.5, 0.5]);
const UNEVEN: Plan = Plan::Fixed(&[0.9, 0.1]);
const FOUR: Plan = Plan::Fixed(&[0.25; 4]);
/// A ramp from a tenth to a half.
const RAMP: Plan = Plan::Periods(&[(1_000, 0.1), (u64::MAX, 0.5)]);
/// Stopped, and started again.
const STOPPED: Plan = Plan::Periods(&[(400, 0.5), (400, 0.0), (u64::MAX, 0.5)]);

const SHARE_05: Draw = |s, _| (binary(s, 0.5), 0.0);
const SHARE_01: Draw = |s, _| (binary(s, 0.1), 0.0);
const SHARE_002: Draw = |s, _| (binary(s, 0.02), 0.0);
const NORMAL: Draw = |s, _| (normal(s), 0.0);
const EXPONENTIAL: Draw = |s, _| (exponential(s), 0.0);
const LOG_NORMAL: Draw = |s, _| (normal(s).exp(), 0.0);
/// The covariate explains three quarters of the variance.
const COVARIATE: Draw = |s, _| {
    let covariate = normal(s);
    (0.75_f64.sqrt() * covariate + 0.5 * normal(s), covariate)
};
/// The covariate is the rate, from 0 to 1.
const SHARE_COVARIATE: Draw = |s, unit| (binary(s, unit.property), unit.property);
/// Units whose predictions are mostly right, or mostly wrong.
const CLUSTERED: Draw = |s, unit| (binary(s, if unit.property < 0.5 { 0.2 } else { 0.8 }), 0.0);
/// Units whose values are alike, and skewed.
const CLUSTERED_VALUES: Draw = |s, unit| (3.0 * unit.property + exponential(s), 0.0);
/// The level changes at every period: without strata, that of control is above the treatment's.
const MOVING_SHARE: Draw =
    |s, unit| (binary(s, if unit.period % 2 == 0 { 0.5 } else { 0.05 }), 0.0);
const MOVING_VALUES: Draw = |s, unit| {
    let level = if unit.period % 2 == 0 { 0.0 } else { 3.0 };
    (level + (1.0 + level) * normal(s), 0.0)
};

const fn plain(name: &'static str, scale: Scale, plan: Plan, draw: Draw) -> Case {
    Case { name, scale, estimator: Estimator::Mean, plan, visits: Visits::One, draw }
}

const fn adjusted(case: Case) -> Case {
    Case { estimator: Estimator::Adjusted, ..case }
}

const fn visited(estimator: Estimator, visits: Visits, case: Case) -> Case {
    Case { estimator, visits, ..case }
}

/// Experiments in which no variant differs.
pub(crate) const WITHOUT_DIFFERENCE: &[Case] = &[
    plain("share 0.5", Scale::Share, EVEN, SHARE_05),
    plain("share 0.5", Scale::Share, UNEVEN, SHARE_05),
    plain("share 0.5", Scale::Share, FOUR, SHARE_05),
    plain("share 0.1", Scale::Share, EVEN, SHARE_01),
    plain("share 0.1", Scale::Share, UNEVEN, SHARE_01),
    plain("share 0.02", Scale::Share, EVEN, SHARE_002),
    plain("share 0.02", Scale::Share, UNEVEN, SHARE_002),
    plain("normal", Scale::Number, EVEN, NORMAL),
    plain("normal", Scale::Number, UNEVEN, NORMAL),
    plain("normal", Scale::Number, FOUR, NORMAL),
    plain("exponential", Scale::Number, EVEN, EXPONENTIAL),
    plain("exponential", Scale::Number, UNEVEN, EXPONENTIAL),
    plain("log-normal", Scale::Number, EVEN, LOG_NORMAL),
    adjusted(plain("normal, CUPED", Scale::Number, EVEN, COVARIATE)),
    adjusted(plain("normal, CUPED", Scale::Number, UNEVEN, COVARIATE)),
    adjusted(plain("share, CUPED", Scale::Share, EVEN, SHARE_COVARIATE)),
    visited(
        Estimator::Ratio,
        Visits::Cluster,
        plain("share, per prediction, 1 to 20 of a unit", Scale::Share, EVEN, CLUSTERED),
    ),
    visited(
        Estimator::Ratio,
        Visits::Cluster,
        plain("value, per prediction, 1 to 20 of a unit", Scale::Number, UNEVEN, CLUSTERED_VALUES),
    ),
    visited(
        Estimator::Ratio,
        Visits::Return,
        plain("share, per prediction, units return", Scale::Share, EVEN, CLUSTERED),
    ),
    visited(
        Estimator::Mean,
        Visits::Return,
        plain("share, per unit, units return", Scale::Share, EVEN, CLUSTERED),
    ),
    plain("share, 0.5 then 0.05", Scale::Share, RAMP, MOVING_SHARE),
    plain("share, 0.5 then 0.05", Scale::Share, STOPPED, MOVING_SHARE),
    plain("normal, deviation 1 then 4", Scale::Number, RAMP, MOVING_VALUES),
    plain("normal", Scale::Number, Plan::Eager, NORMAL),
    plain("normal", Scale::Number, Plan::Bandit(2), NORMAL),
    plain("normal, deviation 1 and 4", Scale::Number, Plan::Bandit(2), MOVING_VALUES),
    plain("normal", Scale::Number, Plan::Bandit(4), NORMAL),
];

/// What would be wrong.
pub(crate) const PREDICTIONS_AS_UNITS: Case = visited(
    Estimator::Mean,
    Visits::Copies,
    plain(
        "share, 1 to 20 predictions of a unit, each counted as a unit: wrong",
        Scale::Share,
        EVEN,
        CLUSTERED,
    ),
);

impl Plan {
    /// As in a table.
    pub(crate) fn describe(self) -> String {
        let list =
            |shares: &[f64]| shares.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Fixed([first, rest @ ..])
                if rest.iter().all(|share| share == first) && rest.len() > 1 =>
            {
                format!("{} of {first}", rest.len() + 1)
            }
            Self::Fixed(shares) => list(shares),
            Self::Periods(periods) => {
                let shares: Vec<f64> = periods.iter().map(|&(_, share)| share).collect();
                format!("treatment {} in turn", list(&shares))
            }
            Self::Eager => "0.1, and 0.5 once it looks better".to_owned(),
            Self::Bandit(arms) => format!("bandit of {arms}"),
        }
    }

    /// The shares of the first period.
    fn start(self) -> Vec<f64> {
        match self {
            Self::Fixed(shares) => shares.to_vec(),
            Self::Periods(periods) => vec![1.0 - periods[0].1, periods[0].1],
            Self::Eager => vec![0.9, 0.1],
            Self::Bandit(arms) => vec![1.0 / arms as f64; arms],
        }
    }

    /// The shares of the period after `period`, if it starts after `units` units.
    fn next(self, units: u64, period: usize, arms: &[Strata]) -> Option<Vec<f64>> {
        let all: Vec<PairMoments> = arms
            .iter()
            .map(|strata| strata.iter().fold(PairMoments::default(), |all, cell| all.merged(cell)))
            .collect();
        match self {
            Self::Fixed(_) => None,
            Self::Periods(periods) => {
                let end = periods[..=period].iter().fold(0, |end, &(n, _)| n.saturating_add(end));
                let (_, share) = periods.get(period + 1)?;
                (units == end).then(|| vec![1.0 - share, *share])
            }
            Self::Eager => {
                let variance = |moments: &PairMoments| {
                    let n = moments.n as f64;
                    moments.value_squares / (n * (n - 1.0))
                };
                let error = (variance(&all[0]) + variance(&all[1])).sqrt();
                let looks_better = all[1].n > 20 && all[1].mean_value > all[0].mean_value + error;
                (period == 0 && looks_better).then(|| vec![0.5, 0.5])
            }
            Self::Bandit(_) => {
                if !units.is_multiple_of(250) {
                    return None;
                }
                let posteriors =
                    all.iter().map(Posterior::of_numbers).collect::<Option<Vec<_>>>()?;
                allocations(&best(&posteriors)?, 0.05)
            }
        }
    }
}

/// Removes a pair that was added.
fn remove(moments: &mut PairMoments, value: f64, companion: f64) {
    let PairMoments { n, mean_value, mean_companion, value_squares, companion_squares, products } =
        *moments;
    let rest = (n - 1) as f64;
    if n == 1 {
        *moments = PairMoments::default();
        return;
    }
    let mean = |mean: f64, gone: f64| (mean * n as f64 - gone) / rest;
    let (of_values, of_companions) = (mean(mean_value, value), mean(mean_companion, companion));
    let squares = |squares: f64, a: f64, b: f64| (squares - a * b).max(0.0);
    *moments = PairMoments {
        n: n - 1,
        mean_value: of_values,
        mean_companion: of_companions,
        value_squares: squares(value_squares, value - mean_value, value - of_values),
        companion_squares: squares(
            companion_squares,
            companion - mean_companion,
            companion - of_companions,
        ),
        products: products - (value - mean_value) * (companion - of_companions),
    };
}

impl Case {
    fn settings(&self, minimum_sample: u64) -> VerdictSettings {
        VerdictSettings {
            alpha: 0.05,
            minimum_sample,
            margin: None,
            higher_is_better: true,
            estimator: self.estimator,
            scale: self.scale,
        }
    }

    /// After how many predictions, of at most `predictions`, there is a winner.
    fn run(&self, seed: u64, minimum_sample: u64, predictions: u64) -> Option<u64> {
        let mut source = Source::seed_from_u64(seed);
        let settings = self.settings(minimum_sample);
        let mut shares = self.plan.start();
        let mut arms: Vec<Strata> = vec![vec![PairMoments::default()]; shares.len()];
        // Of units that return: what is known of them, and the sum and number of their outcomes.
        let mut known: Vec<(Unit, f64, f64)> = Vec::new();
        let (mut units, mut period) = (0_u64, 0);
        for made in 1..=predictions {
            let returns = matches!(self.visits, Visits::Return)
                && !known.is_empty()
                && uniform(&mut source) < 0.8;
            if returns {
                let index = (uniform(&mut source) * known.len() as f64) as usize;
                let (unit, sum, count) = known[index];
                let (value, _) = (self.draw)(&mut source, &unit);
                let cell = &mut arms[unit.arm][unit.period];
                let of = |sum: f64, count: f64| self.pair(sum, count, 0.0);
                let (before, after) = (of(sum, count), of(sum + value, count + 1.0));
                remove(cell, before.0, before.1);
                cell.add(after.0, after.1);
                known[index] = (unit, sum + value, count + 1.0);
            } else {
                let mut at = uniform(&mut source);
                let arm = shares.iter().position(|share| {
                    at -= share;
                    at < 0.0
                });
                let arm = arm.unwrap_or(0);
                let unit = Unit { arm, property: uniform(&mut source), period };
                let count = match self.visits {
                    Visits::Cluster | Visits::Copies => 1.0 + (20.0 * uniform(&mut source)).floor(),
                    Visits::One | Visits::Return => 1.0,
                };
                let (mut sum, mut covariate) = (0.0, 0.0);
                for _ in 0..count as u64 {
                    let (value, of_unit) = (self.draw)(&mut source, &unit);
                    (sum, covariate) = (sum + value, of_unit);
                }
                units += 1;
                let (value, companion) = self.pair(sum, count, covariate);
                let copies = if matches!(self.visits, Visits::Copies) { count as u64 } else { 1 };
                (0..copies).for_each(|_| arms[arm][period].add(value, companion));
                if matches!(self.visits, Visits::Return) {
                    known.push((unit, sum, count));
                }
            }
            // Every prediction up to 1,000, then every 0.1 to 0.2 %.
            let is_look = made < 500 || made % (made / 500) == 0;
            let size = |arm: &Strata| arm.iter().map(|cell| cell.n).sum::<u64>();
            if is_look && arms.iter().all(|arm| size(arm) >= minimum_sample) {
                let found = comparisons(&arms[0], &arms[1..], &settings);
                if decide(&found, &settings) != Decision::Running {
                    return Some(made);
                }
            }
            if !returns && let Some(next) = self.plan.next(units, period, &arms) {
                shares = next;
                period += 1;
                arms.iter_mut().for_each(|arm| arm.push(PairMoments::default()));
            }
        }
        None
    }

    fn pair(&self, sum: f64, count: f64, covariate: f64) -> (f64, f64) {
        match self.estimator {
            Estimator::Mean | Estimator::Adjusted => (sum / count, covariate),
            Estimator::Ratio => (sum, count),
        }
    }

    /// After how many predictions each of `runs` experiments had a winner.
    pub(crate) fn decided(&self, runs: u64, minimum_sample: u64, predictions: u64) -> Vec<u64> {
        (0..runs).filter_map(|seed| self.run(seed, minimum_sample, predictions)).collect()
    }
}

/// The median; 0 without values.
pub(crate) fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// Experiments with an effect. Control has a mean of 0, or a share of 0.5.
pub(crate) const WITH_DIFFERENCE: &[(&str, Case)] = &[
    (
        "accuracy 0.6 instead of 0.5",
        plain("", Scale::Share, EVEN, |s, unit| (binary(s, 0.5 + 0.1 * unit.arm as f64), 0.0)),
    ),
    (
        "accuracy 0.7 instead of 0.5",
        plain("", Scale::Share, EVEN, |s, unit| (binary(s, 0.5 + 0.2 * unit.arm as f64), 0.0)),
    ),
    (
        "+0.3 standard deviations",
        plain("", Scale::Number, EVEN, |s, unit| {
            let (value, covariate) = COVARIATE(s, unit);
            (value + 0.3 * unit.arm as f64, covariate)
        }),
    ),
    (
        "+0.3 standard deviations, with a covariate that explains three quarters of the variance",
        adjusted(plain("", Scale::Number, EVEN, |s, unit| {
            let (value, covariate) = COVARIATE(s, unit);
            (value + 0.3 * unit.arm as f64, covariate)
        })),
    ),
];

/// The number of units after which the split is invalid, if the treatment gets this share instead of
/// a half.
pub(crate) fn invalid_split(seed: u64, share: f64, units: u64) -> Option<u64> {
    let mut source = Source::seed_from_u64(seed);
    let mut split = SplitCounts { units: vec![0; 2], shares: vec![0.5, 0.5] };
    (1..=units).find(|_| {
        split.units[usize::from(uniform(&mut source) < share)] += 1;
        ratio_test(std::slice::from_ref(&split)).is_some_and(|test| test.is_mismatch())
    })
}

/// A guardrail with `max_increase = 0.01`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guarded {
    /// Rates of bad outcomes of control and of the variant.
    pub(crate) rates: [f64; 2],
    /// Requests of each in a look; below 1, the probability of one request.
    pub(crate) requests: [f64; 2],
    /// Mean number of looks until a false alarm.
    pub(crate) declared: f64,
}

impl Guarded {
    /// The look with the alarm.
    pub(crate) fn alarm(&self, seed: u64, looks: u64) -> Option<u64> {
        let mut source = Source::seed_from_u64(seed);
        let mut detector = Detector::new(0.01, self.declared, 60);
        let mut known = [Outcomes::default(); 2];
        (1..=looks).find(|_| {
            let batch = [0, 1].map(|arm| {
                let requests = self.requests[arm];
                let of = if requests < 1.0 { binary(&mut source, requests) } else { requests };
                let bad = (0..of as u64).filter(|_| uniform(&mut source) < self.rates[arm]).count();
                Outcomes { bad: bad as u64, of: of as u64 }
            });
            let alarm = detector.look(known, batch);
            for (known, batch) in known.iter_mut().zip(batch) {
                *known = Outcomes { bad: known.bad + batch.bad, of: known.of + batch.of };
            }
            alarm
        })
    }
}
