//! Compares the statistics with SciPy's, on the fixed vectors of `vectors/make.py`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use serde::Deserialize;
use spinfer_statistics::evidence::CountEvidence;
use spinfer_statistics::kolmogorov_smirnov::binned;
use spinfer_statistics::population_stability::psi;
use spinfer_statistics::share::{Share, fisher, p_value};
use spinfer_statistics::{chi_squared, effective_size, jensen_shannon, wasserstein};

/// Maximum difference to SciPy's result, absolute for results up to 1 and relative above.
const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Vectors {
    binned: Vec<Binned>,
    fits: Vec<Fit>,
    shares: Vec<Shares>,
    distances: Vec<Distance>,
    evidence: Vec<Evidence>,
    weighted: Vec<Weighted>,
}

#[derive(Deserialize)]
struct Binned {
    reference: Vec<u64>,
    current: Vec<u64>,
    psi: [f64; 2],
    jensen_shannon: f64,
    ks: f64,
    homogeneity: [f64; 2],
}

#[derive(Deserialize)]
struct Fit {
    observed: Vec<u64>,
    expected: Vec<f64>,
    fit: [f64; 2],
}

#[derive(Deserialize)]
struct Shares {
    shares: [[u64; 2]; 2],
    exact: bool,
    p_value: f64,
}

#[derive(Deserialize)]
struct Distance {
    a: Vec<(f64, f64)>,
    b: Vec<(f64, f64)>,
    distance: f64,
}

#[derive(Deserialize)]
struct Evidence {
    reference: Vec<u64>,
    counts: Vec<u64>,
    ordered: bool,
    ln: f64,
}

#[derive(Deserialize)]
struct Weighted {
    reference: Vec<u64>,
    /// Sum, sum of squares, and effective size.
    weights: [f64; 3],
    counts: Vec<f64>,
    psi: [f64; 2],
    jensen_shannon: f64,
    homogeneity: [f64; 2],
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors/vectors.json")).unwrap()
}

#[track_caller]
fn same(what: &str, found: f64, expected: f64) {
    let difference = (found - expected).abs();
    assert!(difference <= TOLERANCE * expected.abs().max(1.0), "{what}: {found}, not {expected}");
}

#[test]
fn histograms() {
    for case in vectors().binned {
        let Binned { reference, current, .. } = &case;
        let found = psi(reference, current).unwrap();
        same("psi", found.index, case.psi[0]);
        same("psi p", found.p_value, case.psi[1]);
        let found = jensen_shannon::distance(reference, current).unwrap();
        same("jensen-shannon", found, case.jensen_shannon);
        same("ks", binned(reference, current).unwrap(), case.ks);
        let found = chi_squared::homogeneity(reference, current).unwrap();
        same("chi-squared", found.statistic, case.homogeneity[0]);
        same("chi-squared p", found.p_value, case.homogeneity[1]);
    }
}

#[test]
fn goodness_of_fit() {
    for Fit { observed, expected, fit } in vectors().fits {
        let found = chi_squared::goodness_of_fit(&observed, &expected).unwrap();
        same("statistic", found.statistic, fit[0]);
        same("p", found.p_value, fit[1]);
    }
}

#[test]
fn shares() {
    for Shares { shares, exact, p_value: expected } in vectors().shares {
        let [a, b] = shares.map(|[count, of]| Share { count, of });
        same(&format!("{a:?} {b:?}"), p_value(a, b).unwrap(), expected);
        if exact {
            same(&format!("exact {a:?} {b:?}"), fisher(a, b).unwrap(), expected);
        }
    }
}

#[test]
fn distances() {
    for Distance { a, b, distance } in vectors().distances {
        same("wasserstein", wasserstein::distance(&a, &b).unwrap(), distance);
    }
}

#[test]
fn evidence() {
    for Evidence { reference, counts, ordered, ln } in vectors().evidence {
        let constructor = if ordered { CountEvidence::ordered } else { CountEvidence::unordered };
        same(&format!("{reference:?} {counts:?}"), constructor(&reference).ln(&counts), ln);
    }
}

#[test]
fn weighted_histograms() {
    for case in vectors().weighted {
        let Weighted { reference, counts, weights: [sum, squares, size], .. } = &case;
        same("effective size", effective_size(*sum, *squares), *size);
        let found = psi(reference, counts).unwrap();
        same("psi", found.index, case.psi[0]);
        same("psi p", found.p_value, case.psi[1]);
        let found = jensen_shannon::distance(reference, counts).unwrap();
        same("jensen-shannon", found, case.jensen_shannon);
        let found = chi_squared::homogeneity(reference, counts).unwrap();
        same("chi-squared", found.statistic, case.homogeneity[0]);
        same("chi-squared p", found.p_value, case.homogeneity[1]);
    }
}
