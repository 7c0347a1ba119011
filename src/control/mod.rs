//! The control protocol: what can be asked of a server on its control socket, and what it answers.
//! Pure: bytes in, requests out, replies to bytes. Who may ask, and what becomes of it, is the
//! supervisor's business; the client (`rswsgictl`) reads the same structures.
//!
//! Two languages on one socket, told apart by the first byte of a connection:
//!
//! - `{`: JSON lines. One request per line, one reply per line, in the order of the requests; the next
//!   request is looked at when the reply before it has been sent. [`Request`], [`Reply`].
//! - a capital letter: one HTTP/1.x request, `GET /stats`, `/metrics` or `/health`, after which the
//!   connection is closed. [`Page`].
//!
//! Numbers: durations are seconds, sizes are bytes, and the names of the fields say so (`_seconds`,
//! `_bytes`). Counters end in nothing particular, never go down while the server runs (over respawn,
//! reload and upgrade) and are not reset by reading. A field that is not known is `null`.

#![forbid(unsafe_code)]

mod hosting;
mod input;
mod page;
mod place;
mod reply;
mod request;
pub mod stats;

pub use hosting::{AppEntry, AppList, AppLog, AppStory, LogTail, Start, Why};
pub use input::{Asked, Input};
pub use page::{Page, Wanted, respond};
pub use place::{DIRECTORIES, SUFFIX, directories};
pub use reply::{
    AppConfig, Config, Kind, Level, Ping, Recycled, Refused, Reloaded, ReloadedApp, Reply, Scaled,
    ScaledApp, SettingInForce, Stack, Stopping, Trace, read_reply,
};
pub use request::{HowToStop, Request, Resize, VERBS, Verb, Workers};
pub use stats::Stats;

/// The version of the language: `"v"` of a request.
pub const VERSION: u32 = 1;

/// The version of the structure of [`Stats`]: raised when a field changes its meaning or goes; new
/// fields may come without.
pub const SCHEMA: u32 = 1;

/// The longest request, with its line break or the end of its head.
pub const MAX_REQUEST: usize = 64 * 1024;
