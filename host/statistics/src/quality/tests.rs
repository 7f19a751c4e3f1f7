use proptest::prelude::*;

use super::*;

fn close(value: Option<f64>, expected: f64) {
    let value = value.unwrap();
    assert!((value - expected).abs() < 1e-12, "{value} is not {expected}");
}

/// Truth a a a b b c, predicted a a b b c a.
#[test]
fn accuracy_precision_and_recall_are_those_computed_by_hand() {
    let mut quality = Classification::default();
    for (truth, predicted) in "aaabbc".chars().zip("aabbca".chars()) {
        quality.add(&truth.to_string(), &predicted.to_string(), None);
    }
    assert_eq!(quality.n(), 6);
    close(quality.accuracy(), 3.0 / 6.0);
    let [a, b, c] = &quality.per_class()[..] else { panic!("three classes") };
    assert_eq!((a.support, a.predicted, b.support, b.predicted), (3, 3, 2, 2));
    close(a.precision, 2.0 / 3.0);
    close(a.recall, 2.0 / 3.0);
    close(b.precision, 1.0 / 2.0);
    close(b.recall, 1.0 / 2.0);
    close(c.precision, 0.0);
    close(c.recall, 0.0);
    close(quality.macro_precision(), (2.0 / 3.0 + 0.5) / 3.0);
    close(quality.macro_recall(), (2.0 / 3.0 + 0.5) / 3.0);
    assert_eq!((quality.brier(), quality.brier_n()), (None, 0));
}

#[test]
fn a_class_that_was_never_predicted_has_no_precision_and_counts_as_zero() {
    let mut quality = Classification::default();
    quality.add("a", "a", None);
    quality.add("b", "a", None);
    let [a, b] = &quality.per_class()[..] else { panic!("two classes") };
    close(a.precision, 0.5);
    assert_eq!((b.precision, b.recall), (None, Some(0.0)));
    close(quality.macro_precision(), 0.25);
    close(quality.macro_recall(), 0.5);
}

#[test]
fn the_brier_score_is_that_computed_by_hand() {
    let mut quality = Classification::default();
    quality.add("a", "a", Some((&[0.7, 0.2, 0.1], 0)));
    quality.add("b", "c", Some((&[0.1, 0.3, 0.6], 1)));
    quality.add("c", "c", Some((&[0.0, 0.0, 1.0], 2)));
    let by_hand = ((0.09 + 0.04 + 0.01) + (0.01 + 0.49 + 0.36) + 0.0) / 3.0;
    close(quality.brier(), by_hand);
    quality.add("d", "a", Some((&[1.0, 0.0, 0.0], 3)));
    quality.add("a", "a", Some((&[f64::NAN, 0.0, 0.0], 0)));
    assert_eq!((quality.n(), quality.brier_n()), (5, 3));
    let mut worst = Classification::default();
    worst.add("a", "b", Some((&[0.0, 1.0], 0)));
    close(worst.brier(), 2.0);
}

#[test]
fn errors_of_a_regression_are_those_computed_by_hand() {
    let mut quality = Regression::default();
    for (truth, predicted) in [(3.0, 2.5), (-0.5, 0.0), (2.0, 2.0), (7.0, 8.0)] {
        quality.add(truth, predicted);
    }
    // The example of scikit-learn's documentation: 0.5 and 0.375.
    close(quality.mean_absolute_error(), 0.5);
    close(quality.root_mean_squared_error(), 0.375_f64.sqrt());
    quality.add(f64::NAN, 1.0);
    quality.add(1e300, -1e300);
    assert_eq!(quality.n(), 4, "errors that are not finite are ignored");
    let mut reward = Reward::default();
    [1.0, 0.0, 0.25].into_iter().for_each(|value| reward.add(value));
    close(reward.mean(), 1.25 / 3.0);
}

#[test]
fn without_observations_there_are_no_results() {
    let none = Classification::default();
    assert_eq!((none.accuracy(), none.macro_precision(), none.brier()), (None, None, None));
    let none = Regression::default();
    assert_eq!((none.mean_absolute_error(), none.root_mean_squared_error()), (None, None));
    assert_eq!(Reward::default().mean(), None);
}

proptest! {
    #[test]
    fn removals_and_merges_equal_a_fresh_aggregate(
        remaining in prop::collection::vec((0_usize..3, 0_usize..3, -1e6_f64..1e6), 0..30),
        removed in prop::collection::vec((0_usize..3, 0_usize..3, -1e6_f64..1e6), 0..30),
    ) {
        let name = |class: usize| ["a", "b", "c"][class];
        let probabilities = |number: f64| [number / 2e6, 0.5, -number / 2e6];
        let fill = |observations: &[(usize, usize, f64)]| {
            let (mut classes, mut numbers, mut rewards) =
                (Classification::default(), Regression::default(), Reward::default());
            for &(truth, predicted, number) in observations {
                let all = probabilities(number);
                classes.add(name(truth), name(predicted), Some((&all, truth)));
                numbers.add(number, 1.0);
                rewards.add(number);
            }
            (classes, numbers, rewards)
        };
        let expected = fill(&remaining);
        let mut all = fill(&removed);
        let (classes, numbers, rewards) = &expected;
        all.0.merge(classes);
        all.1.merge(numbers);
        all.2.merge(rewards);
        for &(truth, predicted, number) in &removed {
            let each = probabilities(number);
            all.0.remove(name(truth), name(predicted), Some((&each, truth)));
            all.1.remove(number, 1.0);
            all.2.remove(number);
        }
        prop_assert_eq!(all.0.per_class(), classes.per_class());
        prop_assert_eq!((all.0.n(), all.0.accuracy()), (classes.n(), classes.accuracy()));
        let same = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => (one - other).abs() <= 1e-6 * other.abs().max(1.0),
            (one, other) => one == other,
        };
        prop_assert!(same(all.0.brier(), classes.brier()));
        prop_assert!(same(all.1.mean_absolute_error(), numbers.mean_absolute_error()));
        prop_assert!(same(all.2.mean(), rewards.mean()));
    }
}
