//! Charges of bodies to the host's memory budgets: one for request bodies, one for responses.

use bytes::Bytes;
use http_body::SizeHint;

use crate::process::memory_budget::{Charge, MemoryBudget, OverBudget};

/// Maximum size, in bytes, of the request bodies of all requests that are admitted whole and wait for
/// an instance, and of all responses that clients have not read yet.
pub const MAX_BODIES: usize = 256 << 20;
/// Responses that are shorter, in bytes, are not charged: the state of a request takes more.
const MIN_CHARGED: usize = 1 << 10;

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

/// `bytes`, charged to `budget` until their last part is dropped.
///
/// # Errors
/// The budget is exceeded.
pub fn charged(bytes: Bytes, budget: &MemoryBudget) -> Result<Bytes, OverBudget> {
    if bytes.len() < MIN_CHARGED {
        return Ok(bytes);
    }
    let _charge = budget.charge(bytes.len())?;
    Ok(Bytes::from_owner(ChargedBytes { bytes, _charge }))
}

struct ChargedBytes {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for ChargedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::Body;

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

    #[test]
    fn responses_are_charged_until_their_last_part_is_dropped() {
        let budget = MemoryBudget::new(3 * MIN_CHARGED, "bodies");
        let bytes = |length: usize| Bytes::from(vec![7; length]);
        let mut whole = charged(bytes(2 * MIN_CHARGED), &budget).unwrap();
        let end = whole.split_off(2 * MIN_CHARGED - 1);
        drop(whole);
        assert_eq!((budget.used(), &*end), (2 * MIN_CHARGED, &[7][..]), "a part keeps all of it");
        assert!(charged(bytes(MIN_CHARGED + 1), &budget).is_err());
        assert_eq!(budget.used(), 2 * MIN_CHARGED, "a refused charge leaves nothing behind");
        assert_eq!(charged(bytes(MIN_CHARGED - 1), &budget).unwrap(), bytes(MIN_CHARGED - 1));
        assert!(Body::whole(bytes(2 * MIN_CHARGED)).charged(&budget).is_err());
        drop(end);
        assert!(Body::whole(bytes(2 * MIN_CHARGED)).charged(&budget).is_ok());
        assert_eq!(budget.used(), 0);
    }
}
