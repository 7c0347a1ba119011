//! The rules of the protocol, one by one, and what holds whatever arrives.

use super::packet::put;
use super::*;

mod chance;
mod drive;
mod fuzz;
mod reply;
mod request;
mod session;

const LIMITS: Limits = Limits {
    uri: 4096,
    metadata: 65536,
    fields: 100,
};

fn packet(command: Command, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, command, &[payload]);
    bytes
}

fn raw(command: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(command.to_ne_bytes());
    bytes.extend(payload);
    bytes
}

fn number(command: Command, number: u64) -> Vec<u8> {
    packet(command, &number.to_ne_bytes())
}

/// A session, what it has answered and what happened.
#[derive(Default)]
struct Case {
    session: Session,
    request: Request,
    out: Vec<u8>,
    seen: Vec<&'static str>,
}

impl Case {
    fn hear(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.session.receive(bytes);
        loop {
            let name = match self.session.next(&mut self.out)? {
                None => return Ok(()),
                Some(Happened::Metadata(command, payload)) => {
                    self.request.take(command, payload, &LIMITS)?;
                    continue;
                }
                Some(Happened::Begun) => {
                    self.request.clear();
                    "begun"
                }
                Some(Happened::Complete) => "complete",
                Some(Happened::Announced) => "announced",
                Some(Happened::Cut) => "cut",
                Some(Happened::Stopped) => "stopped",
            };
            self.seen.push(name);
        }
    }

    /// One that has heard all this.
    fn of(packets: &[Vec<u8>]) -> Case {
        let mut case = Case::default();
        case.hear(&packets.concat()).unwrap();
        case
    }

    fn violation(packets: &[Vec<u8>]) -> Violation {
        Case::default().hear(&packets.concat()).unwrap_err()
    }

    fn answers(&mut self) -> Vec<(Command, Vec<u8>)> {
        let mut packets = Packets::default();
        packets.push(&std::mem::take(&mut self.out));
        let mut found = Vec::new();
        while let Some(packet) = packets.take() {
            let command = Command::of(packet.command).unwrap();
            found.push((command, packet.payload.to_vec()));
        }
        assert!(packets.is_empty());
        found
    }

    fn commands(&mut self) -> Vec<Command> {
        self.answers().into_iter().map(|answer| answer.0).collect()
    }

    fn respond(&mut self, length: Option<u64>) {
        let head = Head {
            status: 200,
            fields: b"",
            content: Content::Body { length },
        };
        self.session.respond(&mut self.out, &head, &[]);
    }
}

fn get() -> Vec<Vec<u8>> {
    vec![
        packet(Command::Request, b""),
        packet(Command::Uri, b"/a?b"),
        packet(Command::NoData, b""),
    ]
}

fn post() -> Vec<Vec<u8>> {
    vec![
        packet(Command::Request, b""),
        packet(Command::Method, &3u32.to_ne_bytes()),
        packet(Command::Uri, b"/"),
        packet(Command::Data, b""),
    ]
}

fn and(mut packets: Vec<Vec<u8>>, more: Vec<u8>) -> Vec<Vec<u8>> {
    packets.push(more);
    packets
}
