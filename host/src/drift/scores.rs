//! The scores of one field: its part of the window against its part of the baseline.

use spinfer_statistics::kolmogorov_smirnov::binned;
use spinfer_statistics::population_stability::psi;
use spinfer_statistics::share::{self, Share};
use spinfer_statistics::wasserstein::{self, BinMoments, BinnedDistance};
use spinfer_statistics::{chi_squared, jensen_shannon};

use super::baseline::{BaselineField, Bins, ReferenceMoments};
use super::layout::CounterRange;
use super::report::{
    ChiSquaredReport, DriftKind, FieldReport, Reading, Status, UnseenCount, UnseenReport,
    WassersteinGap, WassersteinReport,
};
use super::settings::DriftSettings;
use super::window::WindowSnapshot;

/// Number of unseen categories in a report.
const MOST_FREQUENT: usize = 5;
/// 95 % of samples of `n` without a category are of a population that has less than `3 / n` of it
/// (Hanley and Lippman-Hand 1983, "If nothing goes wrong, is everything all right?", JAMA 249).
const RULE_OF_THREE: f64 = 3.0;

/// A field's part of a window.
pub(super) struct FieldWindow<'a> {
    field: &'a BaselineField,
    slot: &'a CounterRange,
    snapshot: &'a WindowSnapshot,
    /// Number of values in each bin, and their weights.
    counts: &'a [u64],
    weights: &'a [f64],
    effective: f64,
}

impl<'a> FieldWindow<'a> {
    pub(super) fn new(
        field: &'a BaselineField,
        slot: &'a CounterRange,
        snapshot: &'a WindowSnapshot,
    ) -> Self {
        let counts = snapshot.counts.get(slot.bins.clone()).unwrap_or_default();
        let weights = snapshot.weights.get(slot.bins.clone()).unwrap_or_default();
        let effective = snapshot.effective(slot.bins.clone());
        Self { field, slot, snapshot, counts, weights, effective }
    }

    /// The report, without an alarm. `enough` is whether the window has the minimum number of
    /// records.
    pub(super) fn report(&self, settings: &DriftSettings, enough: bool) -> FieldReport {
        let Self { field, counts, .. } = self;
        let n: u64 = counts.iter().sum();
        let missing = self.snapshot.counts.get(self.slot.missing()).copied().unwrap_or_default();
        let of_baseline =
            Share { count: field.missing, of: field.counts.iter().sum::<u64>() + field.missing };
        let scored = enough && self.effective >= f64::from(settings.minimum);
        let scaled = self.scaled();
        let psi = if scored { psi(&field.counts, &scaled) } else { None };
        let psi = psi.map(|psi| psi.index);
        let numbers = matches!(field.bins, Bins::Number { .. });
        let test = psi.and_then(|_| chi_squared::homogeneity(&field.counts, &scaled));
        let wasserstein = match scored {
            _ if !numbers => None,
            true => Some(self.wasserstein()),
            false => Some(Err(WassersteinGap::NotEnoughData)),
        };
        let status = match n + missing {
            0 if enough => Status::NotLogged,
            _ if psi.is_none() => Status::NotEnoughData,
            _ => Status::Ok,
        };
        FieldReport {
            name: field.name.clone(),
            kind: if numbers { DriftKind::Number } else { DriftKind::Category },
            status,
            since: None,
            n,
            effective_n: self.effective,
            missing,
            missing_share: self.missing_share(),
            baseline_missing_share: of_baseline.value(),
            psi,
            psi_reading: psi.map(Reading::of),
            ks: psi.filter(|_| numbers).and_then(|_| binned(&field.counts, &scaled)),
            js: psi.and_then(|_| jensen_shannon::distance(&field.counts, &scaled)),
            chi_squared: test.map(|test| ChiSquaredReport {
                statistic: test.statistic,
                degrees: test.degrees,
                p_value: test.p_value,
            }),
            wasserstein: wasserstein.and_then(Result::ok),
            wasserstein_reason: wasserstein.and_then(Result::err),
            p_value: None,
            unseen: self.unseen(n),
            bins: bin_names(&field.bins),
            baseline: shares(&field.counts.iter().map(|&count| float(count)).collect::<Vec<_>>()),
            current: shares(self.weights),
        }
    }

    /// The counts of a sample without weights that is as precise.
    fn scaled(&self) -> Vec<f64> {
        let sum: f64 = self.weights.iter().sum();
        let scale = if sum > 0.0 { self.effective / sum } else { 0.0 };
        self.weights.iter().map(|weight| weight * scale).collect()
    }

    fn missing_share(&self) -> f64 {
        let missing = self.snapshot.weights.get(self.slot.missing()).copied().unwrap_or_default();
        let all = missing + self.weights.iter().sum::<f64>();
        if all > 0.0 { missing / all } else { 0.0 }
    }

    fn wasserstein(&self) -> Result<WassersteinReport, WassersteinGap> {
        let Bins::Number { edges } = &self.field.bins else {
            return Err(WassersteinGap::NoMoments);
        };
        let (Some(reference), Some(sums)) = (&self.field.moments, &self.slot.moments) else {
            return Err(match self.field.constant {
                true => WassersteinGap::Constant,
                false => WassersteinGap::NoMoments,
            });
        };
        let sums = sums.of(self.weights.len(), &self.snapshot.sums);
        let bins = self.weights.iter().zip(sums).map(|(&weight, [sum, squares])| {
            if weight > 0.0 {
                let mean = sum / weight;
                // Rounding may make it slightly negative.
                let deviation = (squares / weight - mean * mean).max(0.0).sqrt();
                BinMoments { weight, mean, deviation }
            } else {
                BinMoments::default()
            }
        });
        let edges: Vec<f64> =
            edges.iter().map(|&edge| ReferenceMoments::standardized(reference, edge)).collect();
        let found = wasserstein::binned(&reference.bins, &bins.collect::<Vec<_>>(), &edges);
        let finite = found.filter(|found| found.distance.is_finite() && found.error.is_finite());
        let BinnedDistance { distance, error } = finite.ok_or(WassersteinGap::Infinite)?;
        Ok(WassersteinReport { distance, error })
    }

    /// The values of categories that the baseline lacks, of `n` values in all.
    fn unseen(&self, n: u64) -> Option<UnseenReport> {
        let Bins::Category(categories) = &self.field.bins else { return None };
        let count = self.counts.get(categories.other()).copied().unwrap_or_default();
        let reference: u64 = self.field.counts.iter().sum();
        let field = self.slot.field;
        let names = self.snapshot.unseen.iter().filter(|(other, ..)| *other == field);
        let mut most_frequent: Vec<_> = names
            .map(|(_, name, count)| UnseenCount { category: name.clone(), count: *count })
            .collect();
        most_frequent
            .sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.category.cmp(&b.category)));
        most_frequent.truncate(MOST_FREQUENT);
        let of_baseline = Share { count: 0, of: reference };
        Some(UnseenReport {
            count,
            share: shares(self.weights).last().copied().unwrap_or_default(),
            baseline_bound: if reference > 0 {
                (RULE_OF_THREE / float(reference)).min(1.0)
            } else {
                1.0
            },
            p_value: share::p_value(of_baseline, Share { count, of: n }),
            most_frequent,
        })
    }
}

fn bin_names(bins: &Bins) -> Vec<String> {
    match bins {
        Bins::Number { edges } => {
            let Some((first, last)) = edges.first().zip(edges.last()) else {
                return vec!["any".to_owned()];
            };
            let inner = edges.windows(2).map(|pair| format!("{} to {}", pair[0], pair[1]));
            let below = std::iter::once(format!("below {first}"));
            below.chain(inner).chain([format!("{last} and above")]).collect()
        }
        Bins::Category(categories) => {
            categories.shown.iter().cloned().chain(["other".to_owned()]).collect()
        }
    }
}

/// Shares of the sum; all zero if the sum is.
fn shares(weights: &[f64]) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| if sum > 0.0 { weight / sum } else { 0.0 }).collect()
}

#[expect(clippy::cast_precision_loss, reason = "rows are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
