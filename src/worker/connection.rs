//! What a worker knows of one client connection.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::Shutdown;
use pyo3::prelude::*;

use super::body::Body;
use super::outlet::Outlet;
use crate::access::Ticket;
use crate::sys::clock::Nanos;
use crate::sys::socket::Peer as Address;
use crate::wsgi::Peer;

/// Where the exchange on a connection stands.
pub enum Phase {
    /// Waiting for a head, or for the rest of one in `input`; scanned so far up to the number.
    Head { scanned: usize },
    /// The head is complete, its body is not.
    Body { head: Vec<u8>, body: Body },
    /// The response waits for the socket.
    Flush,
    /// Nothing more is sent; what the client still sends is thrown away, so that it can read the
    /// response before a reset reaches it (RFC 9112 §9.6).
    Linger,
}

pub struct Connection {
    /// Lent to the WSGI layer while a request runs.
    pub outlet: Option<Box<Outlet>>,
    /// Which of all accepted connections it is.
    pub epoch: u32,
    /// The application has answered a request on it.
    pub was_served: bool,
    /// Index of the listener.
    pub origin: usize,
    address: Option<SocketAddr>,
    peer: Option<Peer>,
    pub phase: Phase,
    /// Received, not yet used.
    pub input: Vec<u8>,
    /// When the client has to have done its next step.
    pub deadline: Nanos,
    /// What the epoll set watches; `None` before the connection is in it.
    pub watched: Option<EpollFlags>,
    /// Another request stands in `input` and has its turn: what follows can wait, an end above all.
    pub has_turn: bool,
    /// The request that is not over, for the access log.
    pub ticket: Option<Ticket>,
    /// When its first byte came, and when the last bytes did; known only with an access log.
    pub arrived: Nanos,
    pub received: Nanos,
}

impl Connection {
    pub fn new(outlet: Outlet, origin: usize, address: Address) -> Self {
        Self {
            outlet: Some(Box::new(outlet)),
            epoch: 0,
            was_served: false,
            origin,
            address: match address {
                Address::Inet(address) => Some(address),
                Address::Local => None,
            },
            peer: None,
            phase: Phase::Head { scanned: 0 },
            input: Vec::new(),
            deadline: Nanos::MAX,
            watched: None,
            has_turn: false,
            ticket: None,
            arrived: 0,
            received: 0,
        }
    }

    pub fn outlet(&mut self) -> &mut Outlet {
        self.outlet
            .as_mut()
            .expect("lent only while a request runs")
    }

    pub fn peer(&mut self, py: Python<'_>) -> &Peer {
        let address = self.address;
        self.peer.get_or_insert_with(|| Peer::new(py, address))
    }

    /// `None` for a client on a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Who it is, for the log.
    pub fn describe(&self) -> String {
        self.address
            .map_or_else(|| "a local client".into(), |address| address.to_string())
    }

    /// Nothing of a request has arrived and nothing of a response waits.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Head { .. }) && self.input.is_empty()
    }

    /// What to watch for in this phase.
    pub fn interest(&self) -> EpollFlags {
        match self.phase {
            Phase::Flush => EpollFlags::EPOLLOUT,
            _ if self.has_turn => EpollFlags::empty(),
            _ => EpollFlags::EPOLLIN,
        }
    }

    /// Bytes of bodies held in memory.
    pub fn held(&self) -> usize {
        match &self.phase {
            Phase::Body { body, .. } => body.in_memory(),
            _ => 0,
        }
    }

    pub fn shut_down(&mut self, how: Shutdown) {
        let socket = self.outlet().socket();
        let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), how);
    }

    /// Makes the close that follows a reset.
    pub fn abort_on_close(&mut self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let socket = self.outlet().socket();
        let option = nix::sys::socket::sockopt::Linger;
        let _ = nix::sys::socket::setsockopt(&socket, option, &linger);
    }
}
