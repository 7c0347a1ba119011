//! Orders of the master, one message each, and what a worker tells it.

pub const DRAIN: &[u8] = b"drain";
/// The same, while others serve who take over its connections.
pub const HAND_OVER: &[u8] = b"hand over";
pub const STOP: &[u8] = b"stop";
/// Take connections; a worker does not before it is told to.
pub const SERVE: &[u8] = b"serve";
/// In the other direction: it could serve; it takes connections; it has served as many requests as it is to.
pub const READY: &[u8] = b"ready";
pub const LISTENS: &[u8] = b"listens";
pub const WORN: &[u8] = b"worn";
/// A signal has told it to drain.
pub const LEAVING: &[u8] = b"leaving";
