//! Facilities of the process: thread priorities, the heap, memory budgets, bounded files and text.

pub(crate) mod atomic_file;
pub mod heap;
pub mod memory_budget;
pub mod open_files;
pub mod priority;
pub mod read_file;
pub mod text;
pub mod toml_text;
pub mod trust;
