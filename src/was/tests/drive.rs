//! Plays a script of bytes against a [`Session`]: packets of a client, well-formed or not, and steps of
//! the server, in any order. Beside it runs a model of what a client has been told, by which both must
//! stay in step. Used by the tests and by the fuzz target.

use super::*;

const LIMITS: Limits = Limits {
    uri: 64,
    metadata: 512,
    fields: 8,
};

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

/// What a client knows of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Empty,
    Body { length: Option<u64> },
    Premature,
}

/// The exchange as a client counts it.
#[derive(Debug)]
struct Model {
    told: Told,
    /// Bytes in the pipe of the response, and of the request body out of its pipe.
    written: u64,
    read: u64,
    stopped: bool,
}

impl Model {
    fn is_over(&self) -> bool {
        match self.told {
            Told::Nothing => false,
            Told::Empty | Told::Premature => true,
            Told::Body { length } => length == Some(self.written),
        }
    }

    /// Hears what the server has said; fails as a client would.
    fn hear(&mut self, out: &mut Vec<u8>) {
        let mut packets = Packets::default();
        packets.push(&std::mem::take(out));
        while let Some(packet) = packets.take() {
            let payload = packet.payload;
            let number = || u64::from_ne_bytes(payload.try_into().expect("eight bytes"));
            let command = Command::of(packet.command).expect("a command that exists");
            match (command, self.told) {
                (Command::Status | Command::Header, Told::Nothing) => {}
                (Command::NoData, Told::Nothing) => self.told = Told::Empty,
                (Command::Data, Told::Nothing) => self.told = Told::Body { length: None },
                (Command::Length, Told::Body { length: None }) => {
                    assert!(number() >= self.written, "more was written than announced");
                    let length = Some(number());
                    self.told = Told::Body { length };
                }
                (Command::Premature, told) => {
                    assert_ne!(told, Told::Premature, "told twice");
                    assert_eq!(number(), self.written, "the pipe holds something else");
                    let may_be = self.stopped || matches!(told, Told::Body { .. });
                    assert!(may_be, "PREMATURE without DATA or STOP");
                    self.told = Told::Premature;
                }
                (Command::Stop, told) => {
                    assert!(!self.is_over(), "STOP after the end of the response");
                    assert_ne!(told, Told::Premature);
                }
                other => panic!("out of step: {other:?}"),
            }
        }
        assert!(packets.is_empty(), "half a packet was sent");
    }
}

fn put_packet(script: &mut Script<'_>, wire: &mut Vec<u8>) {
    let command = u16::from(script.byte() % 21);
    let payload = match script.byte() % 7 {
        0 => Vec::new(),
        1 => u64::from(script.byte() % 32).to_ne_bytes().to_vec(),
        2 => u64::MAX.to_ne_bytes().to_vec(),
        3 => u32::from(script.byte()).to_ne_bytes().to_vec(),
        4 => b"name=value".to_vec(),
        5 => vec![b'/'; usize::from(script.byte()) * 257],
        _ => {
            let most = usize::from(script.byte() % 32);
            script.bytes(most)
        }
    };
    wire.extend((payload.len() as u16).to_ne_bytes());
    wire.extend(command.to_ne_bytes());
    wire.extend(payload);
}

/// A conversation of a client and a server; panics when they fall out of step.
pub fn converse(script: &[u8]) {
    let script = &mut Script(script);
    let (mut session, mut request) = (Session::new(), Request::default());
    let (mut wire, mut out) = (Vec::new(), Vec::new());
    let mut model = Model {
        told: Told::Body { length: Some(0) },
        written: 0,
        read: 0,
        stopped: false,
    };
    while let Some(step) = script.next() {
        match step % 16 {
            0..=6 => put_packet(script, &mut wire),
            7 => {
                let most = usize::from(script.byte() % 16);
                wire.extend(script.bytes(most));
            }
            8 => respond(&mut session, &mut out, Some(u64::from(script.byte() % 8))),
            9 => respond(&mut session, &mut out, None),
            10 if !session.is_answered() => session.refuse_upload(&mut out),
            11 => session.cut(&mut out),
            12 => session.end(&mut out, session.sent(), &[]),
            13 if session.is_writable() && !session.is_answered() => {
                session.was_written(1);
                model.written += 1;
            }
            14 => {
                let count = session.readable().min(u64::from(script.byte()));
                session.was_read(count).expect("no more than was allowed");
                model.read += count;
            }
            15 => {
                let waits = session.rest_of_input().len();
                let resumes = session.is_between() && waits == 0;
                if resumes {
                    session = Session::resume(session.state(), &[]);
                }
            }
            _ => {}
        }
        model.hear(&mut out);
        let length = wire.len();
        let piece = match script.byte() {
            byte @ 0..=63 => usize::from(byte).min(length),
            _ => length,
        };
        session.receive(&wire[..piece]);
        wire.drain(..piece);
        if !listen(&mut session, &mut request, &mut out, &mut model) {
            return;
        }
        check(&mut session, &request, &model);
    }
}

/// False: the connection is over.
fn listen(
    session: &mut Session,
    request: &mut Request,
    out: &mut Vec<u8>,
    model: &mut Model,
) -> bool {
    loop {
        let was_stopped = session.is_stopped();
        let happened = match session.next(out) {
            Err(_) => return false,
            Ok(happened) => happened,
        };
        match happened {
            None => {
                // A STOP after the end of a response is answered and otherwise nothing.
                model.stopped |= !out.is_empty();
                model.hear(out);
                return true;
            }
            Some(Happened::Begun) => {
                model.stopped |= !out.is_empty();
                model.hear(out);
                assert!(model.is_over(), "the next request before the end of one");
                *model = Model {
                    told: Told::Nothing,
                    written: 0,
                    read: 0,
                    stopped: false,
                };
                request.clear();
            }
            Some(Happened::Metadata(command, payload)) => {
                if request.take(command, payload, &LIMITS).is_err() {
                    return false;
                }
            }
            Some(Happened::Stopped) => {
                model.stopped = true;
                model.hear(out);
                assert!(!was_stopped && session.is_stopped());
                assert!(!session.is_writable(), "a stopped response goes on");
            }
            Some(Happened::Complete | Happened::Announced | Happened::Cut) => {}
        }
    }
}

fn respond(session: &mut Session, out: &mut Vec<u8>, length: Option<u64>) {
    let head = Head {
        status: 200,
        fields: b"A: b\r\n",
        content: Content::of(length == Some(7), 200, length),
    };
    session.respond(out, &head, &[]);
}

fn check(session: &mut Session, request: &Request, model: &Model) {
    assert_eq!(session.sent(), model.written);
    if let Some(length) = session.upload_length() {
        let is_known = !session.is_between();
        assert!(!is_known || length == 0 || model.read <= length);
    }
    let before = session.is_between();
    let rests = session.rest();
    if rests && !before {
        assert!(model.is_over(), "at rest in the middle of a response");
        assert!(session.is_drained(), "at rest with a body in the pipe");
        let length = session.upload_length();
        assert_eq!(length.unwrap_or(0), model.read, "bytes left in the pipe");
    }
    // What waits is a packet that is not whole, or one that belongs to the next request.
    let waits = session.rest_of_input();
    if let Some((header, rest)) = waits.split_first_chunk::<HEADER>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let is_request = header[2..] == Command::Request.number().to_ne_bytes();
        assert!(rest.len() < length || is_request || rests);
    }
    let texts = [
        request.uri(),
        request.script_name(),
        request.path_info(),
        request.query_string(),
        request.remote_host(),
        request.document_root(),
    ];
    let texts = texts.into_iter().flatten().map(<[u8]>::len);
    let pairs = request.headers().chain(request.parameters());
    let pairs = pairs.map(|(name, value)| name.len() + 1 + value.len());
    let held: usize = texts.chain(pairs).sum();
    assert!(held <= LIMITS.metadata, "{held} bytes are kept");
    assert!(request.headers().len() <= LIMITS.fields);
    assert!(request.parameters().len() <= LIMITS.fields);
}

/// What bytes mean to a session: events, and the verdict.
fn meaning<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (String, Vec<u8>) {
    let (mut session, mut out, mut seen) = (Session::new(), Vec::new(), String::new());
    for piece in pieces {
        session.receive(piece);
        loop {
            match session.next(&mut out) {
                Ok(None) => break,
                Ok(Some(happened)) => seen.push_str(&format!("{happened:?};")),
                Err(violation) => {
                    seen.push_str(&violation.to_string());
                    return (seen, out);
                }
            }
        }
    }
    (seen, out)
}

/// Bytes mean the same whole, one by one, and cut in two at every point.
pub fn split(bytes: &[u8]) {
    let whole = meaning(std::iter::once(bytes));
    assert_eq!(meaning(bytes.chunks(1)), whole);
    // Longer ones take too long.
    for at in 0..bytes.len().min(256) {
        let (first, second) = bytes.split_at(at);
        assert_eq!(meaning([first, second].into_iter()), whole, "cut at {at}");
    }
}
