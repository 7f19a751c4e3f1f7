//! The allocations of a bandit.

use std::collections::BTreeMap;

use spinfer_experiment::format::MetricKind;
use spinfer_experiment::progress::EventKind;
use spinfer_experiment::{Change, Experiment};
use spinfer_statistics::moments::PairMoments;
use spinfer_statistics::thompson::{Posterior, allocations, best};

use super::Next;
use crate::experiment::assessment::{unit_metrics, unit_strata};
use crate::experiment::nodes::AllCounts;
use crate::experiment::text::{number, percent, unit_count};

/// Minimum length of the first period of a bandit's allocations, in milliseconds.
const REALLOCATION: u64 = 60_000;
/// Largest minimum length of a period, in milliseconds: 30 days.
const LONGEST_PERIOD: u64 = 30 * 86_400_000;
/// Minimum change of an allocation of a bandit.
const MIN_REALLOCATION: f64 = 0.01;
/// Units with a reward that each variant needs before allocations follow the rewards.
const MIN_REWARDS: u64 = 10;

/// The allocations of a bandit by the rewards so far, or by another metric that it maximises.
pub(super) fn reallocate(
    experiment: &Experiment,
    change: &Change,
    counts: &AllCounts,
    minimum: f64,
    time: u64,
) -> Next {
    let since = change.epochs.last().map_or(0, |epoch| epoch.from);
    if time.saturating_sub(since) < minimum_period(change.epochs.len()) {
        return None;
    }
    let metrics = unit_metrics(experiment);
    let kind = experiment.metric.as_ref().map_or(MetricKind::Reward, |metric| metric.kind);
    let names = experiment.assignable().map(|(_, variant)| &variant.name);
    let names: Vec<&String> =
        names.filter(|name| !change.rolled_back.contains_key(*name)).collect();
    let rewards = names.iter().map(|name| {
        let strata = unit_strata(counts, &metrics, kind, name).unwrap_or_default();
        strata.iter().fold(PairMoments::default(), |all, cell| all.merged(cell))
    });
    let rewards: Vec<PairMoments> = rewards.collect();
    let probabilities = best(&posteriors(&rewards)?)?;
    let shares = allocations(&probabilities, minimum)?;
    let before = change.shares(experiment);
    let moved = names
        .iter()
        .zip(&shares)
        .map(|(name, share)| (share - before.get(*name).copied().unwrap_or(0.0)).abs());
    if moved.fold(0.0, f64::max) < MIN_REALLOCATION {
        return None;
    }
    let detail = names.iter().zip(&shares).zip(&rewards).map(|((name, share), rewards)| {
        let PairMoments { n, mean_value, .. } = rewards;
        format!("{name} {} ({kind} {} of {})", percent(*share), number(*mean_value), unit_count(*n))
    });
    let detail = detail.collect::<Vec<_>>().join(", ");
    let shares: BTreeMap<String, f64> = names.into_iter().cloned().zip(shares).collect();
    Some((change.ramp(experiment, &shares).ok()?, EventKind::Reallocated, detail))
}

/// Minimum length of the last of `periods`, in milliseconds: 25 % more than of the one before. So
/// a year has at most 57 periods, and the verdict, which needs all of them, lasts. Thompson sampling
/// with geometrically growing batches has the asymptotic regret of one that follows each reward (Karbasi,
/// Mirrokni and Shadravan: "Parallelizing Thompson Sampling", NeurIPS 2021).
fn minimum_period(periods: usize) -> u64 {
    let longer = |length: u64, _| (length + length / 4).min(LONGEST_PERIOD);
    (1..periods).fold(REALLOCATION, longer)
}

/// The posteriors of all variants, once each has rewards: of shares if every variance is possible for
/// rewards from 0 to 1, of which the posterior is then at least as wide as the normal one.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn posteriors(rewards: &[PairMoments]) -> Option<Vec<Posterior>> {
    let is_share = |moments: &PairMoments| {
        let PairMoments { n, mean_value: mean, value_squares, .. } = moments;
        let maximum = *n as f64 * mean * (1.0 - mean);
        (0.0..=1.0).contains(mean) && *value_squares <= maximum + 1e-9
    };
    if rewards.iter().any(|moments| moments.n < MIN_REWARDS) {
        return None;
    }
    if rewards.iter().all(is_share) {
        return Some(rewards.iter().map(Posterior::of_shares).collect());
    }
    rewards.iter().map(Posterior::of_numbers).collect()
}

#[cfg(test)]
mod tests {
    use spinfer_experiment::progress::{Event, MAX_EPOCHS};

    use super::*;
    use crate::experiment::fixtures::experiment;
    use crate::experiment::ledger::event;
    use crate::experiment::supervisor::first_of_new_run;
    use crate::prediction_log::unit_totals::VariantUnits;

    fn rewards(rewards: &[f64]) -> AllCounts {
        let of = |rewards: &[f64]| {
            let mut moments = PairMoments::default();
            rewards.iter().for_each(|reward| moments.add(*reward, 0.0));
            let none = vec![PairMoments::default()];
            let metrics = vec![vec![moments], none.clone(), none, vec![moments]];
            VariantUnits { predictions: moments.n, units: vec![moments.n], moments: metrics }
        };
        let low: Vec<f64> = rewards.iter().map(|reward| reward / 2.0).collect();
        let units = [("control", of(&low)), ("treatment", of(rewards))];
        let units = units.map(|(name, units)| (name.to_owned(), units));
        AllCounts { units: BTreeMap::from(units), requests: BTreeMap::new() }
    }

    #[test]
    fn bandit_follows_rewards_and_keeps_the_minimum() {
        let bandit = experiment("kind = \"bandit\"\nminimum_allocation = 0.1", 0.1);
        let counts = rewards(&[0.9; 50]);
        let (after, kind, detail) =
            reallocate(&bandit, &Change::default(), &counts, 0.1, REALLOCATION).unwrap();
        assert_eq!(kind, EventKind::Reallocated);
        assert_eq!(after.allocations["treatment"], 0.9, "{detail}");
        assert!(detail.contains("treatment 90.0 % (reward 0.9000 of 50 units)"), "{detail}");
        assert_eq!(reallocate(&bandit, &after, &counts, 0.1, REALLOCATION), None);
        assert_eq!(reallocate(&bandit, &Change::default(), &counts, 0.1, REALLOCATION - 1), None);
        let few = rewards(&[0.9; 9]);
        assert_eq!(reallocate(&bandit, &Change::default(), &few, 0.1, REALLOCATION), None);
        // Rewards above 1 without variance have no posterior.
        assert_eq!(
            reallocate(&bandit, &Change::default(), &rewards(&[9.0; 50]), 0.1, REALLOCATION),
            None
        );
    }

    /// Rewards that change the best variant at each reallocation.
    #[test]
    fn bandit_of_a_year_has_its_first_period() {
        const START: u64 = 1_700_000_000_000;
        const DAY: u64 = 86_400_000;
        let bandit = experiment("kind = \"bandit\"\nminimum_allocation = 0.1", 0.1);
        let treatment_is_best = rewards(&[0.9; 50]);
        let mut control_is_best = treatment_is_best.clone();
        for (name, of) in [("control", "treatment"), ("treatment", "control")] {
            let units = treatment_is_best.units[of].clone();
            control_is_best.units.insert(name.to_owned(), units);
        }
        let mut change = first_of_new_run(&bandit, START);
        let (mut time, mut length) = (START, REALLOCATION);
        for counts in [&treatment_is_best, &control_is_best].into_iter().cycle() {
            time += length;
            if time > START + 365 * DAY {
                break;
            }
            assert_eq!(reallocate(&bandit, &change, counts, 0.1, time - 1), None);
            let (after, kind, detail) = reallocate(&bandit, &change, counts, 0.1, time).unwrap();
            let event = Event { time, ..event("a", kind, detail) };
            change = after.after(&change, &bandit, event);
            length = (length + length / 4).min(30 * DAY);
        }
        assert!((50..MAX_EPOCHS).contains(&change.epochs.len()), "{}", change.epochs.len());
        assert_eq!(change.epochs[0].from, START);
    }

    #[test]
    fn bandit_follows_its_metric() {
        let metric = "metric = { kind = \"accuracy\" }";
        let bandit =
            experiment(&format!("kind = \"bandit\"\nminimum_allocation = 0.1\n{metric}"), 0.1);
        let mut counts = rewards(&[0.9; 50]);
        // The second metric is accuracy, the last one is the reward.
        counts.units.values_mut().for_each(|units| units.moments.swap(1, 3));
        let next = reallocate(&bandit, &Change::default(), &counts, 0.1, REALLOCATION);
        let (after, _, detail) = next.unwrap();
        assert_eq!(after.allocations["treatment"], 0.9, "{detail}");
        assert!(detail.contains("treatment 90.0 % (accuracy 0.9000 of 50 units)"), "{detail}");
    }
}
