//! What a supervisor and a master say to each other, as JSON over a [`Channel`].
//!
//! A master runs as the application's user: to the supervisor its reports are untrusted. They are
//! bounded by the channel, and no number in them is acted upon.

use serde::{Deserialize, Serialize};

use crate::config::{Ask, Settings};
use crate::control::{Kind, Resize, Stack, Workers};
use crate::net::ListenerSpec;
use crate::sys::seqpacket::{Channel, MAX_MESSAGE};

/// The version of this program; supervisor and extension module have to be of the same when a master
/// starts. Later they need not be: a supervisor that replaced itself (SIGUSR2) goes on with the masters
/// of the version before. So an [`Order`] and a [`Report`] keep their form once released; new variants
/// may be added, and a master that does not know an order says so in the log and goes on.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a master is started for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Purpose {
    Serve,
    /// Import the application, report, leave.
    Check,
    /// The same, with one request between: the master has its body as standard input.
    Request {
        ask: Ask,
        has_body: bool,
    },
    /// Show what keeps the application from being served, until a change makes another generation.
    Explain,
}

/// The first message to a master.
#[derive(Debug, Serialize, Deserialize)]
pub struct Assignment {
    pub version: String,
    pub purpose: Purpose,
    pub generation: u64,
    /// Whose child the master is; it leaves when that one is gone.
    pub supervisor: i32,
    pub settings: Settings,
    /// Inherited under the same numbers.
    pub listeners: Vec<ListenerSpec>,
    pub scoreboard: i32,
    /// Shared memory about logs.
    pub desk: i32,
    /// Where there is an access log: its shared memory, and the pipe that wakes its reader.
    pub access: Option<(i32, i32)>,
    /// With `--reload`: the pipe for the directories of modules, and the notice.
    pub development: Option<[i32; 2]>,
    /// Both ends of the relay, if connections are to travel.
    pub relay: Option<[i32; 2]>,
    pub stderr: Stderr,
}

/// What descriptor 2 of a master and its workers is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stderr {
    /// That of the supervisor.
    Inherited,
    /// A pipe to the supervisor, which takes frames.
    Pipe,
}

/// What a master says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// All workers of the pool could serve; for [`Purpose::Check`], the application is loaded.
    Ready { python: String, import_millis: u64 },
    /// The generation cannot be brought up.
    Failed { reason: String, traceback: String },
    /// The request of [`Purpose::Request`] has been answered; the text says what went wrong.
    Answered {
        status: u16,
        failure: Option<String>,
    },
    /// The file that asks for a reload was touched.
    Touched,
    /// The end of what an order with this ticket has asked for.
    Done { ticket: Ticket, done: Done },
    /// The stack of one worker; it may be only its start.
    Stack { ticket: Ticket, stack: Box<Stack> },
    /// More of the stack of this slot.
    More {
        ticket: Ticket,
        slot: u32,
        text: String,
    },
}

/// Tells the answer to one order from that to another.
pub type Ticket = u64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// The pool has another size.
    Resized {
        min: u32,
        max: u32,
    },
    /// So many workers are to be replaced.
    Recycling {
        workers: u32,
    },
    /// All stacks have been sent.
    Traced,
    /// The scoreboard has a new sample of the memory.
    Sampled,
    Refused {
        kind: Kind,
        error: String,
    },
}

/// What a supervisor says after the assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Take connections: what a generation that is ready waits for. Until then it serves nobody, so
    /// that it can be given up at any moment.
    Serve,
    /// Finish what runs, then leave.
    Drain,
    /// The same, while another generation serves, which takes over the connections.
    HandOver,
    /// Leave now.
    Stop,
    /// So many workers more or, below zero, fewer.
    Scale { by: i32 },
    /// The same, or so many; with an answer.
    Resize { ticket: Ticket, resize: Resize },
    /// Replace the workers, or the one in this slot, as planned.
    Recycle { ticket: Ticket, worker: Option<u32> },
    /// Send the Python stacks of these workers.
    Trace { ticket: Ticket, workers: Workers },
    /// Note in the scoreboard how much memory the workers use.
    Sample { ticket: Ticket },
}

/// The longest text in a report; JSON may take six bytes for one.
pub const MAX_TEXT: usize = MAX_MESSAGE / 16;

/// Keeps the start and, above all, the end of a long text.
fn shorten(text: String) -> String {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let start = text.floor_char_boundary(MAX_TEXT / 4);
    let end = text.ceil_char_boundary(text.len() - MAX_TEXT / 2);
    format!("{}\n[...]\n{}", &text[..start], &text[end..])
}

impl Report {
    pub fn answered(status: u16, failure: Option<String>) -> Self {
        let failure = failure.map(shorten);
        Report::Answered { status, failure }
    }

    pub fn failed(reason: impl Into<String>, traceback: impl Into<String>) -> Self {
        Report::Failed {
            reason: shorten(reason.into()),
            traceback: shorten(traceback.into()),
        }
    }
}

pub fn send<T: Serialize>(channel: &Channel, message: &T) -> std::io::Result<()> {
    channel.send(&serde_json::to_vec(message)?)
}

pub fn read<'a, T: Deserialize<'a>>(message: &'a [u8]) -> std::io::Result<T> {
    Ok(serde_json::from_slice(message)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_report_fits_a_message_and_keeps_the_end_of_the_traceback() {
        let text = "\u{1}".repeat(1 << 20) + "ValueError: the end";
        let report = Report::failed(text.clone(), text);
        let message = serde_json::to_vec(&report).unwrap();
        assert!(message.len() <= MAX_MESSAGE, "{}", message.len());
        let Report::Failed { traceback, .. } = read(&message).unwrap() else {
            panic!("another report");
        };
        assert!(traceback.ends_with("ValueError: the end"));
    }
}
