//! CPython, as the rest of the program wants to see it: native strings, calls, forks, tracebacks.
//! The second of the two places where `unsafe` is allowed: what PyO3 does not offer on the stable
//! ABI, or not without a detour, is called here through `pyo3::ffi`.
#![allow(unsafe_code)]

mod arenas;
mod call;
mod collector;
mod immortal;
mod pools;
mod process;
mod startup;
mod text;

pub use arenas::{image, watch_arenas};
pub use call::{call2, has_length_one, iterate, next, references};
pub use collector::Collector;
pub use immortal::make_immortal;
pub use pools::fill_gaps;
pub use process::{Fork, fork, leave, run_signal_handlers, soon};
pub use startup::{Failure, ForkHooks, PRINT_STACKS, SOFT_DEADLINE, Startup, Threads, traceback};
pub use text::{Native, latin1, native};
