//! Summarizes a column of reference data, as `models/README.md` describes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::file::Summary;

/// Number of bins of a numeric field: deciles, so that all have equally many values.
const BINS: usize = 10;

/// The present values of a column, in the tensor's precision.
#[derive(Clone, Debug)]
pub enum PresentValues {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

/// Summarizes numbers: counts between decile edges, and moments. A decile between two values is the
/// lower one. The values must not contain NaN.
#[must_use]
pub fn summarize_numbers(values: PresentValues, missing: u64) -> Summary {
    match values {
        PresentValues::Single(mut values) => {
            values.sort_unstable_by(f32::total_cmp);
            // The shortest decimals, not the exact values of the 32-bit floats.
            let next = |x: &f32| shortest(x.next_up());
            summarize(&values, missing, |&x| shortest(x), |x| shortest(narrow(x)), next)
        }
        PresentValues::Double(mut values) => {
            values.sort_unstable_by(f64::total_cmp);
            summarize(&values, missing, |&x| x, |x| x, |x| x.next_up())
        }
    }
}

/// The shortest decimal that parses to the same 32-bit float.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

#[expect(clippy::cast_possible_truncation, reason = "to the nearest 32-bit float")]
fn narrow(value: f64) -> f32 {
    value as f32
}

/// Summarizes `sorted` values. `wide` converts a value to `f64`, `round` a computed number to the
/// form in the file; `next` is the next greater value.
fn summarize<T: PartialOrd>(
    sorted: &[T],
    missing: u64,
    wide: impl Fn(&T) -> f64,
    round: impl Fn(f64) -> f64,
    next: impl Fn(&T) -> f64,
) -> Summary {
    let mut edges: Vec<f64> = Vec::new();
    let mut counts = Vec::new();
    let mut below = 0;
    let last = sorted.len().saturating_sub(1);
    for decile in (1..BINS).filter_map(|i| sorted.get(last / BINS * i + last % BINS * i / BINS)) {
        let end = sorted.partition_point(|value| value <= decile);
        let Some(next) = sorted.get(end) else { break };
        if end == below {
            continue;
        }
        let (low, high) = (wide(decile), wide(next));
        let middle = round(f64::midpoint(low, high));
        // Nothing lies between adjacent floats: then the edge is the greater one.
        let edge = if middle > low && middle <= high { middle } else { high };
        if !edge.is_finite() {
            break;
        }
        edges.push(edge);
        counts.push((end - below) as u64);
        below = end;
    }
    counts.push((sorted.len() - below) as u64);
    // Any other value than a constant is in another bin.
    let constant = sorted.first().zip(sorted.last()).filter(|(first, last)| first == last);
    let around = constant.map(|(value, _)| (wide(value), next(value)));
    if let Some((value, next)) = around.filter(|(_, next)| next.is_finite()) {
        edges = vec![value, next];
        counts = vec![0, sorted.len() as u64, 0];
    }
    let count = sorted.len() as u64;
    let moment = |term: &dyn Fn(f64) -> f64| {
        sorted.iter().map(|value| term(wide(value))).sum::<f64>() / float(count)
    };
    let mean = moment(&|x| x);
    let std = moment(&|x| (x - mean).powi(2)).sqrt();
    let finite = |x: f64| Some(x).filter(|x| x.is_finite());
    let (means, deviations) = bin_moments(sorted, &counts, &wide, &round).unzip();
    Summary::Number {
        edges,
        counts,
        count,
        missing,
        mean: finite(round(mean)),
        std: finite(round(std)),
        min: sorted.first().and_then(|value| finite(wide(value))),
        max: sorted.last().and_then(|value| finite(wide(value))),
        means,
        deviations,
    }
}

/// Mean and standard deviation of the values of each bin; 0 for an empty bin. `None` if a value is
/// infinite.
fn bin_moments<T>(
    sorted: &[T],
    counts: &[u64],
    wide: impl Fn(&T) -> f64,
    round: impl Fn(f64) -> f64,
) -> Option<(Vec<f64>, Vec<f64>)> {
    let mut values = sorted.iter();
    let moments: Vec<(f64, f64)> = counts
        .iter()
        .map(|&count| {
            let of_bin: Vec<f64> =
                values.by_ref().take(usize::try_from(count).unwrap_or(0)).map(&wide).collect();
            // Rounding would give equal values a deviation.
            match (of_bin.first(), of_bin.last()) {
                (None, _) => return (0.0, 0.0),
                (Some(first), Some(last)) if first == last => return (*first, 0.0),
                _ => {}
            }
            let n = float(count);
            let mean = of_bin.iter().sum::<f64>() / n;
            let variance = of_bin.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            (round(mean), round(variance.sqrt()))
        })
        .collect();
    let finite = |&(mean, deviation): &(f64, f64)| mean.is_finite() && deviation.is_finite();
    moments.iter().all(finite).then(|| moments.into_iter().unzip())
}

#[expect(clippy::cast_precision_loss, reason = "rows are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Summarizes classes: how often each of `classes` occurs.
///
/// # Errors
/// The first value that is none of the `classes`.
pub fn summarize_categories(values: &[i64], missing: u64, classes: &[i64]) -> Result<Summary, i64> {
    let mut counts: BTreeMap<i64, u64> = classes.iter().map(|&class| (class, 0)).collect();
    for value in values {
        *counts.get_mut(value).ok_or(*value)? += 1;
    }
    Ok(Summary::Category {
        values: classes.iter().map(|&class| Value::from(class)).collect(),
        counts: classes.iter().map(|class| counts[class]).collect(),
        count: values.len() as u64,
        missing,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(summary: &Summary) -> (&[f64], &[u64]) {
        match summary {
            Summary::Number { edges, counts, .. } => (edges, counts),
            Summary::Category { .. } => panic!("{summary:?}"),
        }
    }

    #[test]
    fn summary_equals_the_one_computed_by_hand() {
        // Of 11 values the deciles are the values of index 1 to 9.
        let values = (0..11).map(|x| x as f32 / 10.0).collect();
        let summary = summarize_numbers(PresentValues::Single(values), 2);
        let (edges, counts) = parts(&summary);
        assert_eq!(edges, [0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95]);
        assert_eq!(counts, [2, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        let Summary::Number { count, missing, mean, std, min, max, .. } = summary else { panic!() };
        assert_eq!((count, missing, mean, min, max), (11, 2, Some(0.5), Some(0.0), Some(1.0)));
        assert!((std.unwrap() - 0.1_f64.sqrt()).abs() < 1e-7, "population: {std:?}");
    }

    #[test]
    fn moments_of_bins_are_those_of_their_values() {
        let values = (0..30).map(f64::from).collect();
        let summary = summarize_numbers(PresentValues::Double(values), 0);
        let Summary::Number { means: Some(means), deviations: Some(deviations), counts, .. } =
            summary
        else {
            panic!()
        };
        assert_eq!((counts[0], means[0], means[9]), (3, 1.0, 28.0));
        assert!((deviations[0] - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12, "{deviations:?}");
        let infinite = summarize_numbers(PresentValues::Double(vec![0.0, f64::INFINITY]), 0);
        assert!(matches!(infinite, Summary::Number { means: None, deviations: None, .. }));
    }

    #[test]
    fn equal_deciles_give_one_edge_and_adjacent_floats_the_greater() {
        let summary =
            summarize_numbers(PresentValues::Double([vec![0.0; 80], vec![1.0; 20]].concat()), 0);
        assert_eq!(parts(&summary), (&[0.5][..], &[80, 20][..]));
        let (zero, next) = (0.0, f32::from_bits(1));
        let summary = summarize_numbers(PresentValues::Single(vec![zero, zero, next, next]), 0);
        assert_eq!(parts(&summary), (&[shortest(next)][..], &[2, 2][..]));
        let summary = summarize_numbers(PresentValues::Single(vec![0.1; 5]), 0);
        let (edges, counts) = parts(&summary);
        assert!(edges[0] == 0.1 && edges[1] > 0.1 && edges[1] < 0.100_000_02, "{edges:?}");
        assert_eq!(counts, [0, 5, 0], "any other value than a constant is in another bin");
        for value in [0.0, 3.0, -1e30, 1e300] {
            let summary = summarize_numbers(PresentValues::Double(vec![value; 2]), 0);
            let (edges, counts) = parts(&summary);
            assert!(edges[0] == value && edges[1] > value && counts == [0, 2, 0], "{edges:?}");
        }
        let infinite = summarize_numbers(PresentValues::Double(vec![f64::INFINITY; 2]), 0);
        assert_eq!(parts(&infinite), (&[][..], &[2][..]));
        let summary = summarize_numbers(PresentValues::Single(Vec::new()), 3);
        assert_eq!(parts(&summary), (&[][..], &[0][..]));
    }

    #[test]
    fn unknown_class_is_returned_as_the_error() {
        assert_eq!(summarize_categories(&[1, 7], 0, &[0, 1]), Err(7));
        let summary = summarize_categories(&[1, 1, 3], 1, &[3, 1, 0]).unwrap();
        let Summary::Category { counts, count, missing, .. } = summary else { panic!() };
        assert_eq!((counts, count, missing), (vec![1, 2, 0], 3, 1));
    }

    proptest! {
        #[test]
        fn each_bin_has_the_values_between_its_edges(
            values in prop::collection::vec(-1e3_f32..1e3, 0..300),
            grain in 1_u32..200,
        ) {
            let values: Vec<f32> =
                values.iter().map(|x| (x / grain as f32).round() * grain as f32).collect();
            let summary = summarize_numbers(PresentValues::Single(values.clone()), 0);
            let (edges, counts) = parts(&summary);
            prop_assert!(edges.is_sorted_by(|a, b| a < b) && edges.len() < BINS);
            let mut found = vec![0; edges.len() + 1];
            for &x in &values {
                let constant = counts.len() == 3 && counts[0] + counts[2] == 0;
                prop_assert!(constant || !edges.contains(&f64::from(x)));
                found[edges.partition_point(|&edge| edge <= f64::from(x))] += 1;
            }
            prop_assert_eq!(&found, counts);
        }
    }
}
