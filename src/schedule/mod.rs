//! Decisions about processes, without processes: an event and the time in, what to do out.

#![forbid(unsafe_code)]

mod backoff;
mod pool;

pub use backoff::{Backoff, STABLE};
pub use pool::{Pool, Verdict};
