//! The moments of a numeric field's bins, standardized: in standard deviations of the reference,
//! from its mean.

use anyhow::{Result, ensure};
use spinfer_statistics::wasserstein::BinMoments;

/// The moments of reference data.
#[derive(Debug, PartialEq)]
pub struct ReferenceMoments {
    pub mean: f64,
    pub std: f64,
    /// Of each bin, standardized.
    pub bins: Vec<BinMoments>,
}

impl ReferenceMoments {
    pub(super) fn new(
        mean: f64,
        std: f64,
        means: &[f64],
        deviations: &[f64],
        counts: &[u64],
    ) -> Result<Self> {
        for (key, values) in [("means", means), ("deviations", deviations)] {
            let finite = values.iter().all(|value| value.is_finite());
            ensure!(
                finite && values.len() == counts.len(),
                "{key}: must have a number for each of {} bins",
                counts.len()
            );
        }
        ensure!(
            deviations.iter().all(|&deviation| deviation >= 0.0),
            "deviations: must be positive"
        );
        ensure!(mean.is_finite() && std > 0.0 && std.is_finite(), "std: must be positive");
        let bins =
            means.iter().zip(deviations).zip(counts).map(|((&of_bin, &deviation), &count)| {
                let deviation = deviation / std;
                BinMoments { weight: float(count), mean: (of_bin - mean) / std, deviation }
            });
        Ok(Self { mean, std, bins: bins.collect() })
    }

    /// `value` in standard deviations from the mean.
    #[must_use]
    pub fn standardized(&self, value: f64) -> f64 {
        (value - self.mean) / self.std
    }
}

#[expect(clippy::cast_precision_loss, reason = "rows are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
