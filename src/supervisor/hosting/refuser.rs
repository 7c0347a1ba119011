//! Tells clients of an app that cannot serve so: the supervisor accepts, writes a fixed answer and closes.
//!
//! Nothing of the request is looked at: what the client has sent is thrown away, so that it can read the
//! answer before it learns that nobody listens. A client gets [`LINGER`], all of them together
//! [`MOST`] places; whoever comes beyond that takes the place of the oldest.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{Shutdown, shutdown};

use crate::net::Listener;
use crate::sys::clock::{self, Nanos, SECOND};
use crate::sys::socket::{self, Push};

const BODY: &str = "503 the application cannot be started now\n";

/// RFC 9110 §15.6.4.
fn answer(unix: u64) -> String {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix));
    format!(
        "HTTP/1.1 503 Service Unavailable\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\
        Cache-Control: no-store\r\n\
        Date: {date}\r\n\
        Server: rswsgi\r\n\
        Content-Length: {}\r\n\
        Retry-After: 5\r\n\
        Connection: close\r\n\r\n\
        {BODY}",
        BODY.len()
    )
}

/// Connections that are accepted per wake-up and listener.
const ACCEPTS: usize = 64;
const MOST: usize = 256;
const LINGER: Nanos = SECOND;
const READ: usize = 16 * 1024;

struct Guest {
    socket: OwnedFd,
    until: Nanos,
}

#[derive(Default)]
pub struct Refuser {
    /// Those that have their answer, the oldest first.
    guests: VecDeque<Guest>,
}

impl Refuser {
    /// Turns away who waits there; how many.
    pub fn turn_away(&mut self, listener: &Listener, now: Nanos) -> u64 {
        let mut count = 0;
        let answer = answer(clock::unix_seconds());
        for _ in 0..ACCEPTS {
            let Ok(Some((socket, _))) = socket::accept(listener.as_fd()) else {
                break;
            };
            count += 1;
            if listener.speaks_was() {
                // Another language: who asks in it learns from the end that nothing comes.
                continue;
            }
            let answer = [IoSlice::new(answer.as_bytes())];
            let sent = socket::send(socket.as_fd(), &answer, Push::Now);
            if sent.is_err() || shutdown(socket.as_raw_fd(), Shutdown::Write).is_err() {
                continue;
            }
            if self.guests.len() >= MOST {
                self.guests.pop_front();
            }
            let until = now.saturating_add(LINGER);
            self.guests.push_back(Guest { socket, until });
        }
        count
    }

    pub fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        let watch = |guest| PollFd::new(AsFd::as_fd(guest), PollFlags::POLLIN);
        self.guests.iter().map(|guest| &guest.socket).map(watch)
    }

    pub fn wake_at(&self) -> Option<Nanos> {
        self.guests.front().map(|guest| guest.until)
    }

    /// Lets go of those that have left or whose time is up.
    pub fn settle(&mut self, now: Nanos) {
        self.guests
            .retain(|guest| guest.until > now && is_there(&guest.socket));
    }
}

/// Throws away what it sends; false at its end.
fn is_there(socket: &OwnedFd) -> bool {
    for _ in 0..4 {
        match socket::receive(socket.as_fd(), &mut [0; READ]) {
            Ok(count) if count > 0 => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Ok(_) | Err(_) => return false,
        }
    }
    true
}
