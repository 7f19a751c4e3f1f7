//! Fallible allocation. An instance that runs out of memory traps, and the client gets a 500 without
//! the reason; memory that a request determines is reserved first, and the error is 413.

use std::hint::black_box;

use crate::error::Error;

/// Size up to which memory is assumed to be available, in bytes.
const MAX_UNCHECKED: usize = 64 << 10;

/// Overhead of an allocation, in bytes.
pub(crate) const ALLOCATION_BYTES: usize = 16;

/// Fails if there is no memory for `count` strings with `bytes` bytes in total.
pub(crate) fn check_strings(count: usize, bytes: usize) -> Result<(), Error> {
    check(count.saturating_mul(ALLOCATION_BYTES).saturating_add(bytes))
}

/// Allocates a buffer of `capacity` bytes, if there is memory for `others` bytes besides.
#[inline(never)]
pub(crate) fn buffer(capacity: usize, others: usize) -> Result<Vec<u8>, Error> {
    let mut buffer = Vec::new();
    if capacity.saturating_add(others) <= MAX_UNCHECKED {
        buffer.reserve_exact(capacity);
    } else {
        reserve(&mut buffer, capacity)?;
        check(others)?;
    }
    Ok(buffer)
}

/// Fails if there is no memory for `bytes` bytes, without checking small sizes.
pub(crate) fn check_large(bytes: usize) -> Result<(), Error> {
    if bytes <= MAX_UNCHECKED { Ok(()) } else { check(bytes) }
}

/// Reserves `bytes` more bytes of `buffer`, except small sizes.
pub(crate) fn reserve_large(buffer: &mut Vec<u8>, bytes: usize) -> Result<(), Error> {
    if bytes > MAX_UNCHECKED { reserve(buffer, bytes) } else { Ok(()) }
}

/// Fails if there is no memory for `bytes` bytes.
#[inline(never)]
fn check(bytes: usize) -> Result<(), Error> {
    let mut memory = Vec::<u8>::new();
    reserve(&mut memory, bytes)?;
    // An unused allocation would be optimised out.
    black_box(&memory);
    Ok(())
}

/// Reserves capacity for exactly `additional` more items.
pub(crate) fn reserve<T>(items: &mut Vec<T>, additional: usize) -> Result<(), Error> {
    items.try_reserve_exact(additional).map_err(|_| out_of_memory())
}

/// The request does not fit into memory: 413.
#[cold]
#[inline(never)]
pub(crate) fn out_of_memory() -> Error {
    Error::too_large(
        "the request needs more memory than the component has (`limits.instance_memory`); send it in several \
         requests, with fewer rows in each",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insufficient_memory_is_413() {
        let max = usize::MAX / 2;
        for error in [buffer(max, 0).map(drop), buffer(0, max).map(drop), check_strings(max, max)] {
            let error = error.unwrap_err();
            assert_eq!(error.status(), 413);
            assert!(error.to_string().contains("fewer rows"), "{error}");
        }
        assert!(buffer(usize::MAX, usize::MAX).is_err());
    }
}
