//! Charges of request bodies to the host's memory budget.

use http_body::SizeHint;

use crate::process::memory_budget::{Charge, MemoryBudget, OverBudget};

/// Maximum size, in bytes, of the request bodies of all requests that are admitted whole and wait for
/// an instance, and of all responses that clients have not read yet.
pub const MAX_BODIES: usize = 256 << 20;

/// Charges `budget` for a request body of `size`, if it can be admitted as a `whole` of at most that
/// many bytes; a streamed body is not charged. A body of unknown size is charged for the maximum.
///
/// # Errors
/// The budget is exceeded.
pub fn charge_request(
    budget: &MemoryBudget,
    size: &SizeHint,
    whole: usize,
) -> Result<Charge, OverBudget> {
    let bytes = match size.upper().map(usize::try_from) {
        Some(Ok(bytes)) if bytes <= whole => bytes,
        // It will be streamed.
        Some(_) => 0,
        None => whole,
    };
    budget.charge(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_request_bodies_are_charged_up_to_the_limit() {
        let budget = MemoryBudget::new(100, "bodies");
        let charge = |size: &SizeHint| charge_request(&budget, size, 60);
        let exactly = SizeHint::with_exact;
        let sixty = charge(&exactly(60)).unwrap();
        assert!(charge(&exactly(41)).is_err());
        assert!(charge(&SizeHint::new()).is_err(), "of unknown size: it could be 60 bytes long");
        assert!(charge(&exactly(61)).is_ok(), "it is streamed");
        assert!(charge(&exactly(0)).is_ok(), "there is no body");
        let _forty = charge(&exactly(40)).unwrap();
        assert!(charge(&exactly(1)).is_err());
        drop(sixty);
        assert!(charge(&SizeHint::new()).is_ok(), "a refused charge leaves nothing behind");
    }
}
