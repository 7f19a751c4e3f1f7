use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::format::{Kind, Start, Unavailable, Variant};
use crate::unit::Unit;

/// An experiment with control and a number of treatments.
fn experiment(treatments: usize) -> Experiment {
    let names = (0..treatments).map(|index| format!("t{index}"));
    let variants = [CONTROL.to_owned()].into_iter().chain(names).enumerate();
    let variants = variants.map(|(index, name)| Variant {
        name,
        component: format!("c{index}"),
        model: None,
        allocation: if index == 0 { 1.0 } else { 0.0 },
        shadow: false,
    });
    Experiment {
        name: "iris".into(),
        model: "iris".into(),
        unit: Unit::Header("x-user-id".into()),
        force: None,
        kind: Kind::Experiment,
        start: Start::Automatic,
        holdout: 0.0,
        namespace: None,
        target: None,
        unavailable: Unavailable::Fail,
        alpha: 0.05,
        minimum_sample: 100,
        metric: None,
        guardrails: Vec::new(),
        variants: variants.collect(),
    }
}

/// The split with these shares of the treatments; control has the rest.
fn split(shares: &[f64]) -> Split {
    let treatments = shares.iter().enumerate().map(|(index, share)| (format!("t{index}"), *share));
    let control = (CONTROL.to_owned(), (1.0 - shares.iter().sum::<f64>()).max(0.0));
    let allocations: BTreeMap<_, _> = treatments.chain([control]).collect();
    let change = Change { allocations, ..Change::default() };
    Split::new(&experiment(shares.len()), &change).unwrap()
}

/// The variant of every bucket.
fn all(split: &Split) -> Vec<usize> {
    (0..BUCKETS).map(|bucket| split.at(bucket)).collect()
}

/// Number of buckets of each variant.
fn counts(split: &Split, variants: usize) -> Vec<usize> {
    let mut counts = vec![0; variants];
    all(split).into_iter().for_each(|variant| counts[variant] += 1);
    counts
}

#[test]
fn a_treatment_has_the_front_of_its_slot() {
    let variants = all(&split(&[0.1, 0.2]));
    let expected = |bucket: usize| match bucket {
        0..1000 => 1,
        5000..7000 => 2,
        _ => 0,
    };
    assert_eq!(variants, (0..10_000).map(expected).collect::<Vec<_>>());
}

#[test]
fn a_share_above_its_slot_takes_the_end_of_other_slots() {
    let variants = all(&split(&[0.7, 0.1]));
    let expected = |bucket: usize| match bucket {
        0..5000 | 8000.. => 1,
        5000..6000 => 2,
        _ => 0,
    };
    assert_eq!(variants, (0..10_000).map(expected).collect::<Vec<_>>());
}

#[test]
fn shares_of_whole_buckets_are_exact() {
    assert_eq!(counts(&split(&[0.1, 0.2, 0.3]), 4), [4000, 1000, 2000, 3000]);
    assert_eq!(counts(&split(&[0.2; 5]), 6), [0, 2000, 2000, 2000, 2000, 2000]);
    assert_eq!(counts(&split(&[1.0]), 2), [0, 10_000]);
    assert_eq!(counts(&split(&[0.0, 1.0, 0.0]), 4), [0, 0, 10_000, 0]);
    assert_eq!(counts(&split(&[0.0]), 2), [10_000, 0]);
    assert_eq!(counts(&split(&[]), 1), [10_000]);
}

/// Assignments are the same on every node and in every version: another hash or other segments
/// would reassign every unit. The expected ones were computed by GrowthBook's rule, without this
/// code.
#[test]
fn assignments_are_stable() {
    let split = split(&[0.5]);
    let of = |unit: &str| split.variant(Some(unit.as_bytes()));
    let assigned: Vec<_> = (0..16).map(|index| of(&format!("user-{index}"))).collect();
    assert_eq!(assigned, PINNED);
}

const PINNED: [usize; 16] = [1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0];

/// Shares of up to five treatments, which sum to at most 1.
fn shares(treatments: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(0.0..1.0_f64, treatments).prop_flat_map(|weights| {
        (Just(weights), 0.0..=1.0_f64).prop_map(|(weights, all)| {
            let sum: f64 = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            weights.iter().map(|weight| weight / sum * all).collect()
        })
    })
}

/// Asserts that a ramp of the treatment `raised` moves units only from control to it.
fn check_ramp(before: &[f64], raised: usize, after: f64) {
    let mut shares = before.to_vec();
    shares[raised] = after;
    let moved = all(&split(before)).into_iter().zip(all(&split(&shares)));
    for (from, to) in moved.filter(|(from, to)| from != to) {
        assert_eq!((from, to), (0, raised + 1), "{before:?}, {raised} to {after}");
    }
}

proptest! {
    #[test]
    fn shares_are_those_of_the_allocations(shares in shares(1..6)) {
        let counts = counts(&split(&shares), shares.len() + 1);
        for (share, count) in shares.iter().zip(&counts[1..]) {
            let segments = (shares.len() * 2) as f64;
            let wanted = share * f64::from(BUCKETS);
            prop_assert!((wanted - *count as f64).abs() <= segments, "{shares:?}: {counts:?}");
        }
    }

    #[test]
    fn segments_are_disjoint(shares in shares(1..6)) {
        let mut segments = split(&shares).segments;
        segments.sort_by_key(|segment| segment.start);
        prop_assert!(segments.is_sorted_by(|a, b| a.end <= b.start), "{segments:?}");
        prop_assert!(segments.iter().all(|segment| segment.end <= WHOLE));
    }

    #[test]
    fn ramps_of_two_treatments_take_only_from_control(
        shares in shares(1..3), raised in 0..2_usize, by in 0.0..=1.0_f64,
    ) {
        let raised = raised % shares.len();
        let left = 1.0 - shares.iter().sum::<f64>();
        check_ramp(&shares, raised, shares[raised] + left.max(0.0) * by);
    }

    #[test]
    fn ramps_within_slots_take_only_from_control(
        shares in shares(3..6), raised in 0..5_usize, by in 0.0..=1.0_f64,
    ) {
        let slot = 1.0 / shares.len() as f64;
        let mut shares: Vec<_> = shares.iter().map(|share| share.min(slot)).collect();
        let raised = raised % shares.len();
        // The raised treatment may exceed its slot.
        let left = 1.0 - shares.iter().sum::<f64>();
        let after = shares[raised] + left.max(0.0) * by;
        check_ramp(&shares, raised, after);
        shares[raised] = after;
        let left = 1.0 - shares.iter().sum::<f64>();
        check_ramp(&shares, raised, after + left.max(0.0) * by);
    }

    #[test]
    fn a_unit_has_one_variant(unit in proptest::collection::vec(any::<u8>(), 0..40), shares in shares(1..4)) {
        let (one, other) = (split(&shares), split(&shares));
        prop_assert_eq!(one.variant(Some(&unit)), other.variant(Some(&unit)));
    }
}

#[test]
fn units_are_distributed_by_the_allocations() {
    const UNITS: u32 = 100_000;
    let split = split(&[0.25, 0.1]);
    let mut counts = [0_u32; 3];
    for unit in 0..UNITS {
        counts[split.variant(Some(format!("user-{unit}").as_bytes()))] += 1;
    }
    for (count, share) in counts.iter().zip([0.65, 0.25, 0.1]) {
        // Five standard deviations of a binomial.
        let deviation = (f64::from(UNITS) * share * (1.0_f64 - share)).sqrt();
        let off = (f64::from(*count) - f64::from(UNITS) * share).abs();
        assert!(off < 5.0 * deviation, "{counts:?}");
    }
}
