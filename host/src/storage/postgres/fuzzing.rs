//! The fuzz targets of what a server sends, which a guest chooses.

use std::pin::pin;

use super::decode;
use super::framing::{Allowance, BoundedMessages, Framing};
use super::result::{OVERHEAD, ResultSize};
use crate::fuzzing::{Pieces, read_all};
use crate::process::memory_budget::MemoryBudget;

/// Limit of the memory, in bytes.
const MEMORY: usize = 1 << 20;

/// A value: its type in the first byte, and its bytes. Its memory is charged.
pub fn postgres_value(data: &[u8]) {
    let Some((&index, raw)) = data.split_first() else { return };
    let types = decode::types();
    let memory = MemoryBudget::new(MEMORY, "limit");
    let mut size = ResultSize::new(&memory);
    let decoded = decode::value(&types[usize::from(index) % types.len()], raw, &mut size);
    if let Ok(value) = decoded {
        assert!(value.heap_size() <= size.bytes() + OVERHEAD);
    }
    assert!(memory.used() <= MEMORY);
}

/// The messages of a server. The first byte has their start, whether their number is bounded, and the
/// size of the pieces in which they are received. They arrive unchanged, or the connection fails.
pub fn postgres_messages(data: &[u8]) {
    let Some((&first, sent)) = data.split_first() else { return };
    let framing = if first & 1 == 0 { Framing::MESSAGES } else { Framing::TlsReply };
    let allowance = Allowance::of_login();
    if first & 2 != 0 {
        allowance.unbound();
    }
    let memory = MemoryBudget::new(MEMORY, "limit");
    let pieces = Pieces { rest: sent, piece: usize::from(first >> 2).max(1) };
    let stream = pin!(BoundedMessages::new(pieces, framing, &allowance, &memory));
    if let Ok(received) = read_all(stream) {
        assert_eq!(received, sent);
    }
}
