//! Facilities of the process: thread priorities and the heap.

pub mod heap;
pub mod priority;
