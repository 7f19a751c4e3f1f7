//! Bounds on bytes that the host holds in memory on behalf of clients and guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit on bytes held at the same time, shared by its clones.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    /// Bytes charged at present.
    used: AtomicUsize,
    /// Maximum of `used`, in bytes.
    limit: usize,
    setting: &'static str,
}

/// A charge that would exceed the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} bytes would be held in memory, and the limit is {limit} ({setting})")]
pub struct OverBudget {
    /// Bytes that would be held with the charge.
    pub needed: usize,
    /// The limit of the budget, in bytes.
    pub limit: usize,
    /// Name of the setting that sets the limit.
    pub setting: &'static str,
}

impl MemoryBudget {
    /// A budget of `limit` bytes, as `setting` sets it.
    #[must_use]
    pub fn new(limit: usize, setting: &'static str) -> Self {
        Self(Arc::new(BudgetState { used: AtomicUsize::new(0), limit, setting }))
    }

    /// Charges `bytes` until the result is dropped. A charge of nothing always fits.
    ///
    /// # Errors
    /// The budget is exceeded; nothing is charged then.
    pub fn charge(&self, bytes: usize) -> Result<Charge, OverBudget> {
        let mut charge = self.empty_charge();
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// A charge of nothing, to grow.
    #[must_use]
    pub fn empty_charge(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }

    /// Bytes charged at present.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}

/// A part of a [`MemoryBudget`] that is in use.
#[derive(Debug)]
pub struct Charge {
    budget: MemoryBudget,
    bytes: usize,
}

impl Charge {
    /// Bytes that are charged.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges `bytes` more.
    ///
    /// # Errors
    /// The budget is exceeded; the charge stays what it was.
    pub fn grow(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let BudgetState { used, limit, setting } = &*self.budget.0;
        let needed = used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if bytes > 0 && needed > *limit {
            used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(OverBudget { needed, limit: *limit, setting });
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Releases `bytes` of the charge, or all of it if it is smaller.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_of_all_clones_count_until_dropped() {
        let budget = MemoryBudget::new(10, "max_size");
        let clone = budget.clone();
        let first = budget.charge(6).unwrap();
        let mut second = clone.charge(4).unwrap();
        assert_eq!(
            budget.charge(1).unwrap_err(),
            OverBudget { needed: 11, limit: 10, setting: "max_size" }
        );
        assert!(budget.charge(0).is_ok(), "nothing always fits");
        drop(first);
        assert_eq!(budget.used(), 4);
        second.grow(6).unwrap();
        assert!(second.grow(1).is_err());
        assert_eq!(budget.used(), 10, "a refused charge leaves nothing behind");
        second.shrink(7);
        assert_eq!(budget.used(), 3);
        second.shrink(100);
        assert_eq!(budget.used(), 0, "no more is released than was charged");
        drop(second);
        assert_eq!((budget.used(), clone.used()), (0, 0));
    }

    #[test]
    fn overflowing_charge_is_refused() {
        let budget = MemoryBudget::new(10, "max_size");
        let _charge = budget.charge(10).unwrap();
        assert!(budget.charge(usize::MAX).is_err());
        assert_eq!(budget.used(), 10);
    }
}
