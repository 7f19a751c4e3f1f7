//! Compares the statistics of experiments with SciPy's, on the fixed vectors of
//! `vectors/experiments.py`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use serde::Deserialize;
use spinfer_statistics::comparison::{Estimator, Scale, compare, theta};
use spinfer_statistics::confidence_sequence::{Boundary, Interval};
use spinfer_statistics::guard::{Outcomes, log_e_value};
use spinfer_statistics::histogram_quantile::quantile;
use spinfer_statistics::moments::PairMoments;
use spinfer_statistics::sample_ratio::{SplitCounts, ratio_test};
use spinfer_statistics::thompson::{Posterior, best};

/// Maximum difference to SciPy's result, absolute for results up to 1 and relative above.
const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Vectors {
    boundaries: Vec<BoundaryCase>,
    differences: Vec<Difference>,
    strata: Vec<Stratified>,
    ratios: Vec<Ratio>,
    bests: Vec<Best>,
    guards: Vec<Guard>,
    quantiles: Vec<Quantile>,
}

#[derive(Deserialize)]
struct BoundaryCase {
    n_best: f64,
    alpha: f64,
    mixture: f64,
    sizes: Vec<f64>,
    factors: Vec<f64>,
}

#[derive(Deserialize)]
struct Difference {
    kind: String,
    control: [Vec<f64>; 2],
    treatment: [Vec<f64>; 2],
    theta: f64,
    information: f64,
    means: [f64; 2],
    standard_error: f64,
}

#[derive(Deserialize)]
struct Stratified {
    control: Vec<Vec<f64>>,
    treatment: Vec<Vec<f64>>,
    information: f64,
    difference: f64,
    standard_error: f64,
}

#[derive(Deserialize)]
struct Ratio {
    units: Vec<u64>,
    shares: Vec<f64>,
    log_evidence: f64,
    chi_squared_p: f64,
}

#[derive(Deserialize)]
struct Best {
    kind: String,
    parameters: Vec<[f64; 2]>,
    best: Vec<f64>,
}

#[derive(Deserialize)]
struct Guard {
    limit: f64,
    known: [[u64; 2]; 2],
    batch: [[u64; 2]; 2],
    log_e: f64,
}

#[derive(Deserialize)]
struct Quantile {
    q: f64,
    bounds: Vec<f64>,
    counts: Vec<u64>,
    quantile: f64,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors/experiments.json")).unwrap()
}

#[track_caller]
fn same(what: &str, found: f64, expected: f64) {
    let difference = (found - expected).abs();
    assert!(difference <= TOLERANCE * expected.abs().max(1.0), "{what}: {found}, not {expected}");
}

#[test]
fn boundaries() {
    for BoundaryCase { n_best, alpha, mixture, sizes, factors } in vectors().boundaries {
        let found = Boundary::narrowest_at(n_best, alpha).unwrap();
        same("mixture", found.mixture() / mixture, 1.0);
        for (n, factor) in sizes.into_iter().zip(factors) {
            same("factor", found.factor(n), factor);
        }
    }
}

#[test]
fn differences() {
    let boundary = Boundary::narrowest_at(100.0, 0.05).unwrap();
    for case in vectors().differences {
        let estimator = match &*case.kind {
            "mean" => Estimator::Mean,
            "adjusted" => Estimator::Adjusted,
            _ => Estimator::Ratio,
        };
        let arm = |[values, companions]: &[Vec<f64>; 2]| {
            let mut moments = PairMoments::default();
            values.iter().zip(companions).for_each(|(value, other)| moments.add(*value, *other));
            [moments]
        };
        let (a, b) = (arm(&case.control), arm(&case.treatment));
        let theta = if estimator == Estimator::Adjusted { theta(a.iter().chain(&b)) } else { 0.0 };
        same("theta", theta, case.theta);
        let found = compare(&a, &b, (estimator, Scale::Number), theta, &boundary).unwrap();
        same(&case.kind, found.means[0], case.means[0]);
        same(&case.kind, found.means[1], case.means[1]);
        let half = found.difference.upper - found.difference.estimate;
        same(&case.kind, half / boundary.factor(case.information), case.standard_error);
    }
}

#[test]
fn strata() {
    let boundary = Boundary::narrowest_at(100.0, 0.05).unwrap();
    for case in vectors().strata {
        let arm = |strata: &[Vec<f64>]| -> Vec<PairMoments> {
            let moments = |values: &Vec<f64>| {
                let mut moments = PairMoments::default();
                values.iter().for_each(|value| moments.add(*value, 0.0));
                moments
            };
            strata.iter().map(moments).collect()
        };
        let kind = (Estimator::Mean, Scale::Number);
        let found = compare(&arm(&case.control), &arm(&case.treatment), kind, 0.0, &boundary);
        let Interval { estimate, upper, .. } = found.unwrap().difference;
        same("difference", estimate, case.difference);
        let half = upper - estimate;
        same("standard error", half / boundary.factor(case.information), case.standard_error);
    }
}

#[test]
fn sample_ratios() {
    for Ratio { units, shares, log_evidence, chi_squared_p } in vectors().ratios {
        let found = ratio_test(&[SplitCounts { units, shares }]).unwrap();
        same("evidence", found.log_evidence, log_evidence);
        same("chi-squared", found.chi_squared_p, chi_squared_p);
    }
}

#[test]
fn probabilities_to_be_the_best() {
    for Best { kind, parameters, best: expected } in vectors().bests {
        let posterior = |[a, b]: [f64; 2]| match &*kind {
            "beta" => Posterior::Beta { a, b },
            _ => Posterior::Normal { mean: a, deviation: b },
        };
        let posteriors: Vec<Posterior> = parameters.iter().copied().map(posterior).collect();
        let found = best(&posteriors).unwrap();
        for (found, expected) in found.into_iter().zip(expected) {
            same(&format!("{kind} {parameters:?}"), found, expected);
        }
    }
}

#[test]
fn guardrails() {
    for Guard { limit, known, batch, log_e } in vectors().guards {
        let outcomes = |of: [[u64; 2]; 2]| of.map(|[bad, of]| Outcomes { bad, of });
        same("e-value", log_e_value(limit, outcomes(known), outcomes(batch)), log_e);
    }
}

#[test]
fn quantiles() {
    for Quantile { q, bounds, counts, quantile: expected } in vectors().quantiles {
        same("quantile", quantile(q, &bounds, &counts).unwrap(), expected);
    }
}
