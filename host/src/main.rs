//! The `spinfer` binary: see [`spinfer::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    spinfer::cli::main()
}
