//! The `spinfer` binary: see [`spinfer::cli`].

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request allocates some dozens of times, on the thread that polls it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    spinfer::cli::main()
}
