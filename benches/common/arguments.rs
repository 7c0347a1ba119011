//! Arguments that benchmarks have in common.

use clap::{Arg, ArgAction, value_parser};

/// A number from 1.
pub fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .default_value(default)
        .value_parser(value_parser!(u32).range(1..))
        .help(help)
}

/// `cargo bench` passes this to every bench target.
pub fn bench() -> Arg {
    Arg::new("bench")
        .long("bench")
        .hide(true)
        .action(ArgAction::SetTrue)
}
