//! Decisions about processes, without processes: an event and the time in, what to do out.

#![forbid(unsafe_code)]

mod backoff;
mod generations;
mod pool;

pub use generations::{
    Action, Cause, Event, Generations, News, Number, Quiet, Stage, Standing, Terms,
};
pub use pool::{Pool, Verdict};
