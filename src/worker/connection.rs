//! What a worker knows of one client connection.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::Shutdown;
use pyo3::prelude::*;

use super::body::Body;
use super::outlet::Outlet;
use crate::access::Ticket;
use crate::relay::{MOST_INPUT, Traits};
use crate::sys::clock::Nanos;
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
    socket: Arc<OwnedFd>,
    /// Lent to the WSGI layer while a request runs.
    pub outlet: Option<Box<Outlet>>,
    /// Which of all accepted connections it is.
    pub epoch: u32,
    pub traits: Traits,
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
    pub fn new(outlet: Outlet, origin: usize, address: Option<SocketAddr>) -> Self {
        Self {
            socket: outlet.share_socket(),
            outlet: Some(Box::new(outlet)),
            epoch: 0,
            traits: Traits::default(),
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

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Who sends the request, for the application; made once for all of the same client.
    pub fn take_peer(&mut self, py: Python<'_>) -> Peer {
        match self.peer.take() {
            Some((made_for, peer)) if made_for == self.client => peer,
            // The proxy is here, but not who is behind it.
            _ if self.traits.has(Traits::ANONYMOUS) => {
                Peer::new(py, self.client).placed_elsewhere()
            }
            _ => Peer::new(py, self.client),
        }
    }

    pub fn give_peer(&mut self, peer: Peer) {
        self.peer = Some((self.client, peer));
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

    /// Nothing of a request has arrived, none runs, and nothing of a response waits.
    pub fn is_idle(&self) -> bool {
        self.outlet.is_some() && self.awaits_head() && self.input.is_empty()
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

    /// What another worker needs to go on with the connection, in pieces that belong together; `None`
    /// while something is half done on it.
    pub fn freight(&self) -> Option<[&[u8]; 2]> {
        let outlet = self.outlet.as_ref()?;
        let input = match &self.phase {
            Phase::Head { .. } | Phase::Proxy => [&self.input[..], &[]],
            Phase::Body { head, body } if self.input.is_empty() => [&head[..], body.as_received()?],
            Phase::Body { .. } | Phase::Flush | Phase::Linger => return None,
        };
        let fits = input[0].len() + input[1].len() <= MOST_INPUT;
        (fits && outlet.is_quiet()).then_some(input)
    }

    pub fn shut_down(&mut self, how: Shutdown) {
        let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), how);
    }

    /// Makes the close that follows a reset.
    pub fn abort_on_close(&mut self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let socket = self.socket();
        let option = nix::sys::socket::sockopt::Linger;
        let _ = nix::sys::socket::setsockopt(&socket, option, &linger);
    }
}

/// What a connection that has left leaves behind: objects of Python, and what is written in other books.
pub struct Remains {
    /// Bytes of its body that were in memory.
    pub held: usize,
    pub ticket: Option<Ticket>,
    _peer: Option<(Option<SocketAddr>, Peer)>,
}

impl Remains {
    /// Closes our descriptor.
    pub fn of(connection: Connection) -> Self {
        Self {
            held: connection.held(),
            ticket: connection.ticket,
            _peer: connection.peer,
        }
    }
}
