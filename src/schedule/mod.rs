//! Decisions about processes, without processes: an event and the time in, what to do out.

#![forbid(unsafe_code)]

mod backoff;
mod changes;
mod elastic;
mod generations;
mod pool;
pub mod stuck;
pub mod turns;

pub use changes::{Changes, Moment};
pub use elastic::{Demand, Look, Step, WINDOW};
pub use generations::{
    Action, Cause, Event, FirstFailure, Generations, News, Number, Quiet, Stage, Standing, Terms,
};
pub use pool::{Bounds, Pool, Verdict};
