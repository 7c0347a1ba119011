//! Packets of the control channel: a header of two 16-bit numbers, then as many bytes as the first one
//! says. Everything is in host byte order and nothing is aligned.

#![forbid(unsafe_code)]

/// Bytes before the payload: its length, the command.
pub const HEADER: usize = 4;
/// The most that the length can say.
pub const MAX_PAYLOAD: usize = u16::MAX as usize;

/// What both sides may say; other numbers are for later versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Nop,
    Request,
    Method,
    Uri,
    ScriptName,
    PathInfo,
    QueryString,
    Header,
    Parameter,
    Status,
    NoData,
    Data,
    Length,
    Stop,
    Premature,
    RemoteHost,
    Metric,
    DocumentRoot,
    Tls,
}

impl Command {
    const ALL: [Command; 19] = [
        Command::Nop,
        Command::Request,
        Command::Method,
        Command::Uri,
        Command::ScriptName,
        Command::PathInfo,
        Command::QueryString,
        Command::Header,
        Command::Parameter,
        Command::Status,
        Command::NoData,
        Command::Data,
        Command::Length,
        Command::Stop,
        Command::Premature,
        Command::RemoteHost,
        Command::Metric,
        Command::DocumentRoot,
        Command::Tls,
    ];

    pub fn of(number: u16) -> Option<Command> {
        Command::ALL.get(usize::from(number)).copied()
    }

    pub fn number(self) -> u16 {
        self as u16
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    pub command: u16,
    pub payload: &'a [u8],
}

/// What has arrived and was not taken yet; packets may be split and joined anywhere.
#[derive(Debug, Default)]
pub struct Packets {
    bytes: Vec<u8>,
    at: usize,
}

impl Packets {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The first packet, if all of it is there. It stays.
    pub fn first(&self) -> Option<Packet<'_>> {
        let (header, rest) = self.bytes[self.at..].split_first_chunk::<HEADER>()?;
        let [a, b, c, d] = *header;
        let payload = rest.get(..usize::from(u16::from_ne_bytes([a, b])))?;
        Some(Packet {
            command: u16::from_ne_bytes([c, d]),
            payload,
        })
    }

    /// The first packet; it is gone.
    pub fn take(&mut self) -> Option<Packet<'_>> {
        let length = self.first()?.payload.len();
        let start = self.at + HEADER;
        self.at = start + length;
        let header = self.bytes[start - 2..start].first_chunk::<2>()?;
        Some(Packet {
            command: u16::from_ne_bytes(*header),
            payload: &self.bytes[start..self.at],
        })
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// What has not been taken, for whoever goes on with this connection.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Gives large memory back. Only for an empty one.
    pub fn shrink(&mut self) {
        const KEPT: usize = 8 * 1024;
        if self.is_empty() {
            self.bytes.clear();
            self.at = 0;
            self.bytes.shrink_to(KEPT);
        }
    }
}

/// Appends a packet. The payload is no longer than [`MAX_PAYLOAD`].
pub fn put(out: &mut Vec<u8>, command: Command, payload: &[&[u8]]) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    debug_assert!(length <= MAX_PAYLOAD);
    out.extend_from_slice(&(length as u16).to_ne_bytes());
    out.extend_from_slice(&command.number().to_ne_bytes());
    for part in payload {
        out.extend_from_slice(part);
    }
}

/// An integer of two or four bytes: specifications and programs differ.
pub fn short_number(payload: &[u8]) -> Option<u32> {
    match payload {
        [a, b] => Some(u16::from_ne_bytes([*a, *b]).into()),
        [a, b, c, d] => Some(u32::from_ne_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// An integer of eight bytes.
pub fn long_number(payload: &[u8]) -> Option<u64> {
    payload.try_into().ok().map(u64::from_ne_bytes)
}
