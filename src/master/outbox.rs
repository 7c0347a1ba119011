//! Reports that wait for the supervisor to take them: nothing a master does waits for it.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::ErrorKind;

use crate::link::Report;
use crate::log;
use crate::sys::seqpacket::Channel;

#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// Beyond it, what is only informative is thrown away: the stacks of a thousand workers fit.
const MOST: usize = 32 << 20;

impl Outbox {
    pub fn put(&mut self, report: &Report) {
        let optional = matches!(report, Report::Stack { .. } | Report::More { .. });
        match serde_json::to_vec(report) {
            Ok(_) if optional && self.bytes > MOST => {}
            Ok(message) => {
                self.bytes += message.len();
                self.waiting.push_back(message);
            }
            Err(error) => log::error!("cannot report to the supervisor: {error}"),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends as much as the channel takes.
    pub fn flush(&mut self, channel: &Channel) {
        while let Some(message) = self.waiting.front() {
            match channel.send(message) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The supervisor is gone, or the message is one that no channel takes.
                Ok(()) | Err(_) => {
                    self.bytes -= message.len();
                    self.waiting.pop_front();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{self, Done};
    use crate::sys::seqpacket::Received;

    #[test]
    fn keeps_the_order_and_never_waits() {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut outbox = Outbox::default();
        for ticket in 0..100 {
            // More together than a channel holds.
            let text = "x".repeat(30_000);
            outbox.put(&Report::More {
                ticket,
                slot: 0,
                text,
            });
        }
        let done = Done::Traced;
        outbox.put(&Report::Done { ticket: 100, done });
        for expected in 0..=100 {
            outbox.flush(&ours);
            let Ok(Received::Message(message)) = theirs.receive() else {
                panic!("nothing came");
            };
            match link::read(&message).unwrap() {
                Report::More { ticket, .. } | Report::Done { ticket, .. } => {
                    assert_eq!(ticket, expected);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(outbox.is_empty());
        drop(theirs);
        outbox.put(&Report::Done {
            ticket: 1,
            done: Done::Sampled,
        });
        outbox.flush(&ours);
        assert!(outbox.is_empty());
    }
}
