//! One WAS connection: what may be said and read when, and the counts of both bodies.
//!
//! ```text
//! Idle -REQUEST-> Metadata -DATA|NO_DATA-> Exchange -response over, request body consumed-> Idle
//! ```
//!
//! The caller moves the bytes: it gives what the control channel brings to [`Session::receive`], asks
//! [`Session::next`] what that means, tells how many bytes it has read from and written to the pipes,
//! and sends what is appended to `out`, in that order and before it waits.

#![forbid(unsafe_code)]

use super::Violation;
use super::packet::{Command, Packets, long_number, put};
use super::reply::{self, Content, Head, Metric};

/// So much of a body that nobody wants is read rather than stopped: a STOP could meet the end of the
/// body, and one that the client reads after the response is an error to it.
const DRAIN: u64 = 256 * 1024;

/// What the next packet means.
#[derive(Debug, PartialEq, Eq)]
pub enum Happened<'a> {
    /// A new request begins.
    Begun,
    /// Of the request that has begun.
    Metadata(Command, &'a [u8]),
    /// The metadata is complete. What else is there (the length of the body, mostly) is to be taken
    /// before the request is looked at.
    Complete,
    /// The length of the request body is known now.
    Announced,
    /// The client has cut the request body short.
    Cut,
    /// The client wants no more of this response, and has been told how much of it is in its pipe.
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Metadata,
    Exchange,
}

/// The request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// Some of it is to come.
    Open,
    /// There is none, or all of it was read.
    Complete,
    /// The client gave up; what is in the pipe still has to be read.
    Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Download {
    /// Nothing was said.
    Fresh,
    /// It has no body.
    Empty,
    /// A body follows, of this length if it has been told.
    Body { length: Option<u64> },
    /// The client knows that it was cut.
    Premature,
}

#[derive(Debug)]
pub struct Session {
    packets: Packets,
    phase: Phase,
    has_upload: bool,
    announced: Option<u64>,
    received: u64,
    is_cut: bool,
    /// We have said STOP.
    unwanted: bool,
    download: Download,
    sent: u64,
    /// The client has said STOP before it had all.
    is_stopped: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    pub fn new() -> Self {
        Self {
            packets: Packets::default(),
            phase: Phase::Idle,
            has_upload: false,
            announced: None,
            received: 0,
            is_cut: false,
            unwanted: false,
            download: Download::Body { length: Some(0) },
            sent: 0,
            is_stopped: false,
        }
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.packets.push(bytes);
    }

    /// Takes the next packet, if one is there that can be taken now: what belongs to the next request
    /// stays until this one is over.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<Happened<'_>>, Violation> {
        loop {
            let Some(packet) = self.packets.first() else {
                self.packets.shrink();
                return Ok(None);
            };
            let number = packet.command;
            let unexpected = Violation::Unexpected(number);
            let command = Command::of(number);
            if command == Some(Command::Request) && self.phase == Phase::Exchange {
                // The client counts on our reading what it has announced of the body before.
                return match self.is_answered() && self.upload_length().is_some() {
                    true => Ok(None),
                    false => Err(unexpected),
                };
            }
            let length = long_number(packet.payload);
            let length = length.ok_or(Violation::Malformed(number));
            match (self.phase, command) {
                (_, Some(Command::Nop)) => self.drop_first(),
                (Phase::Idle, Some(Command::Request)) => {
                    self.drop_first();
                    self.begin();
                    return Ok(Some(Happened::Begun));
                }
                (Phase::Idle | Phase::Exchange, Some(Command::Stop)) => {
                    self.drop_first();
                    if let Some(stopped) = self.stopped(out) {
                        return Ok(Some(stopped));
                    }
                }
                (Phase::Metadata, Some(Command::NoData | Command::Data)) => {
                    self.has_upload = command == Some(Command::Data);
                    self.phase = Phase::Exchange;
                    self.drop_first();
                    return Ok(Some(Happened::Complete));
                }
                (Phase::Exchange, Some(Command::Length)) => {
                    self.announce(length?, unexpected)?;
                    self.drop_first();
                    return Ok(Some(Happened::Announced));
                }
                (Phase::Exchange, Some(Command::Premature)) => {
                    self.cut_upload(length?, unexpected)?;
                    self.drop_first();
                    return Ok(Some(Happened::Cut));
                }
                // The only way forward for the protocol; between requests there is none.
                (Phase::Metadata | Phase::Exchange, None) => self.drop_first(),
                (Phase::Metadata, Some(command)) => {
                    let Some(packet) = self.packets.take() else {
                        return Ok(None);
                    };
                    return Ok(Some(Happened::Metadata(command, packet.payload)));
                }
                _ => return Err(unexpected),
            }
        }
    }

    fn drop_first(&mut self) {
        self.packets.take();
    }

    fn begin(&mut self) {
        self.phase = Phase::Metadata;
        self.has_upload = false;
        self.announced = None;
        self.received = 0;
        self.is_cut = false;
        self.unwanted = false;
        self.download = Download::Fresh;
        self.sent = 0;
        self.is_stopped = false;
    }

    /// A STOP is answered also when the response was over before it came: the client waits for that.
    fn stopped(&mut self, out: &mut Vec<u8>) -> Option<Happened<'static>> {
        if self.download == Download::Premature {
            return None;
        }
        let was_over = self.is_answered();
        put_number(out, Command::Premature, self.sent);
        self.download = Download::Premature;
        self.is_stopped = !was_over;
        (!was_over).then_some(Happened::Stopped)
    }

    fn announce(&mut self, length: u64, unexpected: Violation) -> Result<(), Violation> {
        let contradicts = self.announced.is_some_and(|before| before != length);
        match self.has_upload {
            false => Err(unexpected),
            true if contradicts || length < self.received => Err(Violation::Length),
            true => {
                self.announced = Some(length);
                Ok(())
            }
        }
    }

    fn cut_upload(&mut self, length: u64, unexpected: Violation) -> Result<(), Violation> {
        let contradicts = self.announced.is_some_and(|before| before < length);
        match self.has_upload {
            false => Err(unexpected),
            true if self.is_cut || contradicts || length < self.received => Err(Violation::Length),
            true => {
                self.announced = Some(length);
                self.is_cut = true;
                Ok(())
            }
        }
    }

    /// How many bytes of the request body may be read from the pipe now, at most.
    pub fn readable(&self) -> u64 {
        match self.announced {
            _ if self.phase != Phase::Exchange || !self.has_upload => 0,
            Some(length) => length - self.received,
            // The client may have stopped sending, and go on with the next request when it has said how
            // much it has sent: that is waited for.
            None if self.unwanted || self.download == Download::Premature => 0,
            None => u64::MAX,
        }
    }

    pub fn was_read(&mut self, bytes: u64) -> Result<(), Violation> {
        self.received = self.received.saturating_add(bytes);
        match self.announced {
            Some(length) if self.received > length => Err(Violation::Length),
            _ => Ok(()),
        }
    }

    pub fn upload(&self) -> Upload {
        match self.announced {
            _ if self.is_cut => Upload::Cut,
            _ if !self.has_upload => Upload::Complete,
            Some(length) if length == self.received => Upload::Complete,
            _ => Upload::Open,
        }
    }

    /// The length of the request body, if there is one and it is known.
    pub fn upload_length(&self) -> Option<u64> {
        match self.has_upload {
            true => self.announced,
            false => Some(0),
        }
    }

    /// Nothing of the request body is left in the pipe, and nothing more comes.
    pub fn is_drained(&self) -> bool {
        !self.has_upload || self.announced == Some(self.received)
    }

    /// The rest of the request body is not wanted. To be called before the response is completed.
    pub fn refuse_upload(&mut self, out: &mut Vec<u8>) {
        let is_small = self.announced.is_some_and(|a| a - self.received <= DRAIN);
        if self.phase == Phase::Exchange && self.has_upload && !is_small && !self.unwanted {
            self.unwanted = true;
            put(out, Command::Stop, &[]);
        }
    }

    /// Begins the response; with the metrics, if it is all of it.
    pub fn respond(&mut self, out: &mut Vec<u8>, head: &Head<'_>, metrics: &[Metric]) {
        if self.download != Download::Fresh || self.phase != Phase::Exchange {
            return;
        }
        reply::put_head(out, head);
        match head.content {
            Content::Nothing { .. } => {
                reply::put_metrics(out, metrics);
                put(out, Command::NoData, &[]);
                self.download = Download::Empty;
            }
            Content::Body { length } => {
                put(out, Command::Data, &[]);
                self.download = Download::Body { length };
                if let Some(length) = length {
                    reply::put_metrics(out, metrics);
                    put_number(out, Command::Length, length);
                }
            }
        }
    }

    /// The body has this length: all of it has been written or soon will be.
    pub fn end(&mut self, out: &mut Vec<u8>, length: u64, metrics: &[Metric]) {
        if self.download == (Download::Body { length: None }) {
            reply::put_metrics(out, metrics);
            put_number(out, Command::Length, length);
            self.download = Download::Body {
                length: Some(length),
            };
        }
    }

    /// So many bytes of the response body have gone into the pipe.
    pub fn was_written(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The rest of the response will not come.
    pub fn cut(&mut self, out: &mut Vec<u8>) {
        if matches!(self.download, Download::Body { .. }) && !self.is_answered() {
            put_number(out, Command::Premature, self.sent);
            self.download = Download::Premature;
        }
    }

    /// The client did not want all of this response.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Whether body bytes may be written.
    pub fn is_writable(&self) -> bool {
        matches!(self.download, Download::Body { .. })
    }

    /// Nothing of the response has been said, nor that there will be none.
    pub fn is_fresh(&self) -> bool {
        self.download == Download::Fresh
    }

    /// The client has all of the response, or knows that it will not get it.
    pub fn is_answered(&self) -> bool {
        match self.download {
            Download::Fresh => false,
            Download::Empty | Download::Premature => true,
            Download::Body { length } => length == Some(self.sent),
        }
    }

    /// Goes on to the next request, if this one is over on both sides.
    pub fn rest(&mut self) -> bool {
        if self.phase == Phase::Exchange && self.is_answered() && self.is_drained() {
            self.phase = Phase::Idle;
        }
        self.phase == Phase::Idle
    }

    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && self.packets.is_empty()
    }

    /// Between two requests.
    pub fn is_between(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// What whoever goes on with this connection has to know; only between requests.
    pub fn state(&self) -> State {
        State {
            sent: self.sent,
            told: self.download == Download::Premature,
        }
    }

    /// What has arrived and was not taken.
    pub fn rest_of_input(&self) -> &[u8] {
        self.packets.rest()
    }

    pub fn resume(state: State, input: &[u8]) -> Self {
        let mut session = Self::new();
        session.sent = state.sent;
        session.download = match state.told {
            true => Download::Premature,
            false => Download::Body {
                length: Some(state.sent),
            },
        };
        session.receive(input);
        session
    }
}

/// Of a connection between two requests: how to answer a STOP that comes late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Bytes of the last response.
    pub sent: u64,
    /// The client has been told so.
    pub told: bool,
}

fn put_number(out: &mut Vec<u8>, command: Command, number: u64) {
    put(out, command, &[&number.to_ne_bytes()]);
}
