//! Which requests are logged: a share of them by the hash of their ids, and those that are logged with
//! certainty.

use http::StatusCode;
use uuid::Uuid;

/// Which requests are logged.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Share of the requests, from 0 to 1. Errors are always logged.
    pub share: f64,
    /// Whether requests that ask for it are always logged.
    pub on_request: bool,
}

impl Sampling {
    /// The probability with which a request is logged.
    pub(super) fn probability(self, requested: bool, status: StatusCode) -> f64 {
        let is_error = status.is_client_error() || status.is_server_error();
        if is_error || (requested && self.on_request) { 1.0 } else { self.share }
    }
}

/// Selects the requests to log by their ids: all records of a request, or none.
#[derive(Clone, Copy, Debug)]
pub enum Sample {
    All,
    /// Requests whose hash is below the limit.
    Below(u64),
}

impl Sample {
    /// Selects a `share` of the requests, from 0 to 1.
    #[must_use]
    pub fn new(share: f64) -> Self {
        /// Number of hashes, 2^64.
        const HASHES: f64 = 18_446_744_073_709_551_616.0;
        if share >= 1.0 {
            return Self::All;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates at both ends"
        )]
        Self::Below((share * HASHES) as u64)
    }

    /// Whether the request with this id is in the sample.
    #[must_use]
    pub fn includes(self, id: Uuid) -> bool {
        match self {
            Self::All => true,
            Self::Below(limit) => hash(id) < limit,
        }
    }
}

/// Hashes both halves of an id with the finalizer of SplitMix64.
fn hash(id: Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    let mut hash = high.rotate_left(32) ^ low;
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_selects_its_share_of_the_requests_deterministically() {
        let ids: Vec<_> = (0..20_000).map(|_| Uuid::from_u128(fastrand::u128(..))).collect();
        for share in [0.0, 0.01, 0.5, 0.99, 1.0] {
            let sample = Sample::new(share);
            let sampled = ids.iter().filter(|id| sample.includes(**id)).count() as f64;
            let expected = share * ids.len() as f64;
            // Five standard deviations.
            let tolerance = 5.0 * (expected * (1.0 - share)).sqrt();
            assert!((sampled - expected).abs() <= tolerance, "{share}: {sampled}");
            assert!(ids.iter().all(|id| sample.includes(*id) == sample.includes(*id)));
        }
    }
}
