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
    /// Waiting for a header of the PROXY protocol, or for the rest of one in `input`.
    Proxy,
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
    /// Of the peer, or as the header of the PROXY protocol has named it.
    address: Option<SocketAddr>,
    /// Who sends the request at hand, behind all trusted proxies.
    client: Option<SocketAddr>,
    /// The same for the environ, with whom it was made for.
    peer: Option<(Option<SocketAddr>, Peer)>,
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
        let address = match address {
            Address::Inet(address) => Some(address),
            Address::Local => None,
        };
        Self {
            outlet: Some(Box::new(outlet)),
            epoch: 0,
            was_served: false,
            origin,
            address,
            client: address,
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
        let client = self.client;
        if self
            .peer
            .as_ref()
            .is_some_and(|(made_for, _)| *made_for != client)
        {
            self.peer = None;
        }
        let made = || (client, Peer::new(py, client));
        &self.peer.get_or_insert_with(made).1
    }

    /// `None` for a peer on a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The header of the PROXY protocol has named somebody else than the peer.
    pub fn set_address(&mut self, address: SocketAddr) {
        self.address = Some(address);
        self.client = self.address;
    }

    /// `None` for a client without an address, or with one that a proxy withholds. The port is 0 where
    /// it is not known.
    pub fn client(&self) -> Option<SocketAddr> {
        self.client
    }

    pub fn set_client(&mut self, client: Option<SocketAddr>) {
        self.client = client;
    }

    /// Who it is, for the log.
    pub fn describe(&self) -> String {
        match self.client {
            None => "a local client".into(),
            Some(client) if client.port() == 0 => client.ip().to_string(),
            Some(client) => client.to_string(),
        }
    }

    /// No request is at hand, or only a part of its head.
    pub fn awaits_head(&self) -> bool {
        matches!(self.phase, Phase::Head { .. } | Phase::Proxy)
    }

    /// Nothing of a request has arrived and nothing of a response waits.
    pub fn is_idle(&self) -> bool {
        self.awaits_head() && self.input.is_empty()
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
