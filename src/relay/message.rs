//! One connection as a message: what its next worker has to know, without I/O.
//!
//! ```text
//!  0  "RLY" format | 4 front end, cause, traits, family of the peer | 8 listener, port
//! 12  bytes of input | 16 mark of the listener | 24 sent | 32 left | 40 arrived | 48 received
//! 56  address of the peer | 72 its scope, 4 bytes of nothing | 80 input ...
//! ```
//!
//! Numbers are little-endian, times those of the monotonic clock, which all processes of a machine
//! share. Whoever changes the form changes [`FORMAT`] with it: generations of different formats have
//! relays of their own, and a message that comes in another form all the same is refused, never read.

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::sys::clock::Nanos;

pub const FORMAT: u8 = 2;
const MAGIC: [u8; 3] = *b"RLY";

/// Bytes before the input.
pub const HEADER: usize = 80;
/// The most input that travels; a connection with more of it stays where it is.
pub const MOST_INPUT: usize = 60 * 1024;
/// The longest message.
pub const LONGEST: usize = HEADER + MOST_INPUT;

/// The protocol that is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrontEnd {
    Http = 1,
    /// Three descriptors; the input begins with what is said of the response before.
    Was,
}

impl FrontEnd {
    /// Of one connection.
    pub fn descriptors(self) -> usize {
        match self {
            FrontEnd::Http => 1,
            FrontEnd::Was => 3,
        }
    }
}

/// Why a connection changes its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// The application runs, and the client has sent a request.
    Busy = 1,
    /// The worker leaves.
    Drain,
    /// The worker is about to be killed.
    Stuck,
    /// More requests have come at once than one worker should serve.
    Balance,
}

/// What else there is to know of a connection, yes or no each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traits(u8);

impl Traits {
    /// The application has answered a request on it.
    pub const SERVED: Traits = Traits(1);
    /// The client was told to go on with its body (100).
    pub const CONTINUED: Traits = Traits(2);
    /// A child that an application has forked may hold its descriptor: the close alone does not end it.
    pub const SHARED: Traits = Traits(4);
    /// The header of the PROXY protocol, with which it begins, has not come.
    pub const UNNAMED: Traits = Traits(8);
    /// It is a Unix socket, whatever address its peer is said to have.
    pub const LOCAL: Traits = Traits(16);
    /// The header of the PROXY protocol has said that it is not known whose it is.
    pub const ANONYMOUS: Traits = Traits(32);
    const ALL: u8 = 63;

    pub fn with(self, trait_: Traits, applies: bool) -> Traits {
        Traits(self.0 | if applies { trait_.0 } else { 0 })
    }

    pub fn set(&mut self, trait_: Traits) {
        self.0 |= trait_.0;
    }

    pub fn clear(&mut self, trait_: Traits) {
        self.0 &= !trait_.0;
    }

    pub fn has(self, trait_: Traits) -> bool {
        self.0 & trait_.0 != 0
    }
}

/// A listener, in a way that another generation can check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub index: u16,
    pub hash: u64,
}

impl Mark {
    pub fn new(index: usize, name: &str) -> Mark {
        // FNV-1a: the same in every process.
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Mark {
            index: u16::try_from(index).unwrap_or(u16::MAX),
            hash: name.bytes().fold(0xcbf2_9ce4_8422_2325, fold),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub front_end: FrontEnd,
    pub cause: Cause,
    pub traits: Traits,
    pub listener: Mark,
    /// `None` for one on a Unix socket that nobody has named.
    pub peer: Option<SocketAddr>,
    pub sent: Nanos,
    /// When the client has to have done its next step; `Nanos::MAX` for never.
    pub deadline: Nanos,
    /// When the first byte of the request came, and when the last ones did; 0 if nobody wants to know.
    pub arrived: Nanos,
    pub received: Nanos,
    /// What the client has sent and nobody has used.
    pub input: &'a [u8],
}

/// Why a message is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strange {
    /// It comes from another version.
    Format(u8),
    Malformed,
}

impl std::fmt::Display for Strange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Strange::Format(format) => write!(f, "its format is {format}, not {FORMAT}"),
            Strange::Malformed => f.write_str("it is malformed"),
        }
    }
}

impl Message<'_> {
    /// What stands before `length` bytes of input, which follow.
    pub fn header(&self, length: usize) -> [u8; HEADER] {
        let (family, port, address, scope) = match self.peer {
            None => (0, 0, [0; 16], 0),
            Some(SocketAddr::V4(peer)) => (4, peer.port(), peer.ip().to_ipv6_mapped().octets(), 0),
            Some(SocketAddr::V6(peer)) => (6, peer.port(), peer.ip().octets(), peer.scope_id()),
        };
        let mut header = [0; HEADER];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            header[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC);
        put(&[FORMAT, self.front_end as u8, self.cause as u8]);
        put(&[self.traits.0, family]);
        put(&self.listener.index.to_le_bytes());
        put(&port.to_le_bytes());
        put(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        for number in [
            self.listener.hash,
            self.sent,
            self.deadline,
            self.arrived,
            self.received,
        ] {
            put(&number.to_le_bytes());
        }
        put(&address);
        put(&scope.to_le_bytes());
        header
    }

    pub fn read(bytes: &[u8]) -> Result<Message<'_>, Strange> {
        let Some((header, input)) = bytes.split_at_checked(HEADER) else {
            return Err(Strange::Malformed);
        };
        let (magic, mut rest) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(Strange::Malformed);
        }
        let [format, front_end, cause, traits, family] = take(&mut rest);
        if format != FORMAT {
            return Err(Strange::Format(format));
        }
        let index = u16::from_le_bytes(take(&mut rest));
        let port = u16::from_le_bytes(take(&mut rest));
        let length = u32::from_le_bytes(take(&mut rest));
        let [hash, sent, deadline, arrived, received] =
            [(); 5].map(|()| u64::from_le_bytes(take(&mut rest)));
        let address = Ipv6Addr::from(take::<16>(&mut rest));
        let scope = u32::from_le_bytes(take(&mut rest));
        let peer = match (family, address.to_ipv4_mapped()) {
            (0, _) => None,
            (4, Some(address)) => Some(SocketAddr::new(IpAddr::V4(address), port)),
            (6, _) => Some(SocketAddrV6::new(address, port, 0, scope).into()),
            _ => return Err(Strange::Malformed),
        };
        let front_end = match front_end {
            1 => FrontEnd::Http,
            2 => FrontEnd::Was,
            _ => return Err(Strange::Malformed),
        };
        let cause = match cause {
            1 => Cause::Busy,
            2 => Cause::Drain,
            3 => Cause::Stuck,
            4 => Cause::Balance,
            _ => return Err(Strange::Malformed),
        };
        if traits > Traits::ALL || input.len() > MOST_INPUT || input.len() != length as usize {
            return Err(Strange::Malformed);
        }
        Ok(Message {
            front_end,
            cause,
            traits: Traits(traits),
            listener: Mark { index, hash },
            peer,
            sent,
            deadline,
            arrived,
            received,
            input,
        })
    }
}

/// The next bytes of a header, which is long enough for all that is taken.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (taken, left) = rest.split_at(N);
    *rest = left;
    taken.try_into().expect("it has that many bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message<'static> {
        Message {
            front_end: FrontEnd::Http,
            cause: Cause::Busy,
            traits: Traits::SERVED.with(Traits::SHARED, true),
            listener: Mark::new(3, "http://127.0.0.1:80"),
            peer: Some(([192, 0, 2, 1], 5000).into()),
            sent: 5,
            deadline: u64::MAX,
            arrived: 1 << 40,
            received: 7,
            input: b"GET / HTT",
        }
    }

    fn written(message: &Message<'_>) -> Vec<u8> {
        let mut bytes = message.header(message.input.len()).to_vec();
        bytes.extend_from_slice(message.input);
        bytes
    }

    /// Linear congruential, after Knuth.
    fn random(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let six = SocketAddrV6::new("fe80::7".parse().unwrap(), 65_535, 0, 2);
        let mapped = SocketAddrV6::new("::ffff:1.2.3.4".parse().unwrap(), 1, 0, 0);
        for peer in [None, message().peer, Some(six.into()), Some(mapped.into())] {
            for cause in [Cause::Busy, Cause::Drain, Cause::Stuck, Cause::Balance] {
                let sent = Message {
                    peer,
                    cause,
                    ..message()
                };
                assert_eq!(Message::read(&written(&sent)), Ok(sent));
            }
        }
        let largest = [7; MOST_INPUT];
        let sent = Message {
            input: &largest,
            ..message()
        };
        assert_eq!(Message::read(&written(&sent)), Ok(sent));
        assert_eq!(written(&sent).len(), LONGEST);
    }

    #[test]
    fn traits_are_independent() {
        let all = [
            Traits::SERVED,
            Traits::CONTINUED,
            Traits::SHARED,
            Traits::UNNAMED,
            Traits::LOCAL,
            Traits::ANONYMOUS,
        ];
        for one in all {
            let only = Traits::default().with(one, true);
            let had: Vec<_> = all.into_iter().filter(|other| only.has(*other)).collect();
            assert_eq!(had, [one]);
            assert_eq!(Traits::default().with(one, false), Traits::default());
        }
    }

    #[test]
    fn another_format_is_named_and_not_read() {
        let mut bytes = written(&message());
        bytes[3] = 9;
        assert_eq!(Message::read(&bytes), Err(Strange::Format(9)));
        assert_eq!(
            Strange::Format(9).to_string(),
            "its format is 9, not 2",
            "the log says so"
        );
        bytes.truncate(4);
        assert_eq!(Message::read(&bytes), Err(Strange::Malformed));
    }

    #[test]
    fn refuses_what_no_worker_has_sent() {
        let good = written(&message());
        assert!(Message::read(&good).is_ok());
        for (at, byte) in [
            (0, b'x'),
            (4, 0),
            (4, 9),
            (5, 0),
            (5, 5),
            (6, 64),
            (7, 5),
            // An IPv4 address that is none.
            (66, 0),
            (12, 8),
            (15, 1),
        ] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert_eq!(Message::read(&bytes), Err(Strange::Malformed), "{at}");
        }
        let mut long = good.clone();
        long.resize(LONGEST + 1, 0);
        long[12..16].copy_from_slice(&(MOST_INPUT as u32 + 1).to_le_bytes());
        assert_eq!(Message::read(&long), Err(Strange::Malformed));
    }

    #[test]
    fn random_bytes_are_never_taken_for_more_than_there_is() {
        let mut state = 1;
        let good = written(&message());
        for round in 0..20_000 {
            let mut bytes = good.clone();
            bytes.truncate((random(&mut state) as usize) % (good.len() + 1));
            for _ in 0..round % 7 {
                let length = bytes.len().max(1) as u64;
                let at = (random(&mut state) % length) as usize;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random(&mut state) as u8;
                }
            }
            if let Ok(message) = Message::read(&bytes) {
                assert_eq!(message.input.len() + HEADER, bytes.len());
                assert_eq!(written(&message)[..72], bytes[..72]);
            }
        }
        for length in 0..2 * HEADER {
            let bytes: Vec<u8> = (0..length).map(|_| random(&mut state) as u8).collect();
            assert!(Message::read(&bytes).is_err());
        }
    }

    #[test]
    fn listeners_are_told_apart() {
        let one = Mark::new(0, "http://127.0.0.1:80");
        assert_eq!(one, Mark::new(0, "http://127.0.0.1:80"));
        assert_ne!(one.hash, Mark::new(0, "http://127.0.0.1:81").hash);
    }
}
