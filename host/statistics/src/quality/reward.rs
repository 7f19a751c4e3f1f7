//! Rewards of predictions.

use super::sum::{Sum, mean};

/// Mean of rewards.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reward {
    n: u64,
    sum: Sum,
}

impl Reward {
    /// Adds a reward. It is ignored if it is not finite.
    pub fn add(&mut self, reward: f64) {
        if reward.is_finite() {
            self.n += 1;
            self.sum.add(reward);
        }
    }

    /// Removes an observation that was [added](Self::add).
    pub fn remove(&mut self, reward: f64) {
        if reward.is_finite() {
            self.n = self.n.saturating_sub(1);
            self.sum.add(-reward);
        }
    }

    /// Adds every observation of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.sum.add(other.sum.value());
    }

    /// Number of observations.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Mean reward; `None` without observations.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        mean(self.sum, self.n)
    }
}
