//! Settings: one declaration each, from the command line to [`Settings`].

#![forbid(unsafe_code)]

mod bind;
mod setting;
mod target;
mod value;
mod workers;

pub use bind::{Bind, DEFAULT_BIND, FIRST_FD, SOCKET_PATH_LENGTH};
pub use setting::{Environment, Kind, Section, Setting, TakesEffect, Value};
pub use target::Target;
pub use value::{show_duration, show_size};
pub use workers::{MAX_WORKERS, Pool, Workers};
