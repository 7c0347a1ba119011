//! Decisions about processes, without processes: an event and the time in, what to do out.

#![forbid(unsafe_code)]

mod backoff;
mod elastic;
mod pool;
mod stuck;

pub use backoff::{Backoff, STABLE};
pub use elastic::{Demand, Look, Step, WINDOW};
pub use pool::{Bounds, Pool, Verdict};
pub use stuck::{Action, Running, Watch};
