//! Memory, asked for before it is needed: an instance that runs out of it traps, and the answer would be
//! a 500 that says nothing of what to send instead.

use std::hint::black_box;

use crate::error::Error;

/// So much is there, and not asked for.
const LITTLE: usize = 64 << 10;

/// What an allocation takes beside what it holds.
pub(crate) const ALLOCATION_BYTES: usize = 16;

/// Refuses if there is no memory for so many strings of `bytes` together.
pub(crate) fn check_strings(count: usize, bytes: usize) -> Result<(), Error> {
    check(count.saturating_mul(ALLOCATION_BYTES).saturating_add(bytes))
}

/// Room for an answer, if there are `beside` more bytes for what it is made of.
#[inline(never)]
pub(crate) fn room(answer: usize, beside: usize) -> Result<Vec<u8>, Error> {
    let mut room = Vec::new();
    if answer.saturating_add(beside) <= LITTLE {
        room.reserve_exact(answer);
    } else {
        reserve(&mut room, answer)?;
        check(beside)?;
    }
    Ok(room)
}

/// Refuses if there is no memory for so many bytes more than the little that is there.
pub(crate) fn check_more(bytes: usize) -> Result<(), Error> {
    if bytes <= LITTLE { Ok(()) } else { check(bytes) }
}

/// Makes room for so many more bytes, unless they are a little.
pub(crate) fn grow_large(room: &mut Vec<u8>, bytes: usize) -> Result<(), Error> {
    if bytes > LITTLE { reserve(room, bytes) } else { Ok(()) }
}

#[inline(never)]
fn check(bytes: usize) -> Result<(), Error> {
    let mut room = Vec::<u8>::new();
    reserve(&mut room, bytes)?;
    // What is never looked at would not be allocated either.
    black_box(&room);
    Ok(())
}

/// Makes room for so many more.
pub(crate) fn reserve<T>(items: &mut Vec<T>, more: usize) -> Result<(), Error> {
    items.try_reserve_exact(more).map_err(|_| too_much())
}

#[cold]
#[inline(never)]
pub(crate) fn too_much() -> Error {
    Error::too_large(
        "this takes more memory than the component has (`limits.instance_memory`): send it in several \
         requests, with fewer rows in each",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_413() {
        let most = usize::MAX / 2;
        for error in [room(most, 0).map(drop), room(0, most).map(drop), check_strings(most, most)] {
            let error = error.unwrap_err();
            assert_eq!(error.status(), 413);
            assert!(error.to_string().contains("fewer rows"), "{error}");
        }
        assert!(room(usize::MAX, usize::MAX).is_err());
    }
}
