//! The command line of Tilewright.

use std::process::ExitCode;

fn main() -> ExitCode {
    tilewright::cli::main()
}
