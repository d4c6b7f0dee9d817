//! The `ci-watchdog` program; what it does is in the library.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ci_watchdog::cli::main()
}
