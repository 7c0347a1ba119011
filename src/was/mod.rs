//! WAS, the Web Application Socket of CM4all, without I/O: packets, requests, responses, and the state
//! of one connection.
//!
//! Bytes and counts in, packets and verdicts out: nothing here reads a descriptor or a clock, and nothing
//! here knows Python. Only 64-bit counts keep the two sides of a WAS connection in step, there is no
//! marker to find it again, so whatever breaks a rule ends the connection ([`Violation`]); what is merely
//! too much or not understood is answered ([`Refusal`]).

#![forbid(unsafe_code)]

mod packet;
mod reply;
mod request;
mod session;
mod status;

pub use packet::{Command, HEADER, MAX_PAYLOAD, Packets};
pub use reply::{Content, Head, Metric, TooLarge, check_fields};
pub use request::{Limits, Method, Refusal, Request};
pub use session::{Happened, Session, State, Upload};
pub use status::{client_status, is_empty};

use std::fmt;

/// Why a connection cannot go on: after it the two sides may count differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A command at a time at which it is not allowed.
    Unexpected(u16),
    /// A payload that its command does not have.
    Malformed(u16),
    /// A command that a request has once only.
    Repeated(u16),
    /// Lengths of the request body that contradict each other or what has come of it.
    Length,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |number: &u16| match Command::of(*number) {
            Some(command) => format!("{command:?}").to_uppercase(),
            None => format!("command {number}"),
        };
        match self {
            Violation::Unexpected(number) => write!(f, "unexpected {}", name(number)),
            Violation::Malformed(number) => write!(f, "malformed {}", name(number)),
            Violation::Repeated(number) => write!(f, "repeated {}", name(number)),
            Violation::Length => f.write_str("the lengths of the request body contradict"),
        }
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests;
