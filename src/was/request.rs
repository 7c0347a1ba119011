//! A request while its metadata arrives, in any order.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::Violation;
use super::packet::{Command, short_number};

/// By number; the first one means nothing.
const METHODS: [&str; 18] = [
    "",
    "HEAD",
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "PATCH",
    "REPORT",
    "QUERY",
];

/// By its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method(u32);

impl Method {
    pub const GET: Method = Method(2);

    /// `None`: a number that was given a meaning after this program was written.
    pub fn name(self) -> Option<&'static str> {
        let name = METHODS.get(usize::try_from(self.0).ok()?)?;
        (!name.is_empty()).then_some(name)
    }
}

/// Bounds on what a request may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of each part of the address.
    pub uri: usize,
    /// Bytes of all metadata together.
    pub metadata: usize,
    /// Headers, and as many parameters.
    pub fields: usize,
}

/// Why a request is answered by the server itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    UriTooLong,
    MetadataTooLarge,
    /// A header whose name or value HTTP does not have.
    BadField,
    /// Nothing says what is asked for.
    NoUri,
    UnknownMethod,
}

impl Refusal {
    pub fn status(self) -> u16 {
        match self {
            Refusal::UriTooLong => 414,
            Refusal::MetadataTooLarge => 431,
            Refusal::BadField | Refusal::NoUri => 400,
            Refusal::UnknownMethod => 501,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Refusal::UriTooLong => "address too long",
            Refusal::MetadataTooLarge => "headers or parameters too large",
            Refusal::BadField => "malformed header",
            Refusal::NoUri => "no address",
            Refusal::UnknownMethod => "unknown method",
        }
    }
}

type Span = Range<usize>;

/// What has been said of a request so far. Kept from one to the next: its memory is used again.
#[derive(Debug, Default)]
pub struct Request {
    text: Vec<u8>,
    method: Option<Method>,
    uri: Option<Span>,
    script_name: Option<Span>,
    path_info: Option<Span>,
    query_string: Option<Span>,
    remote_host: Option<Span>,
    document_root: Option<Span>,
    headers: Vec<(Span, Span)>,
    parameters: Vec<(Span, Span)>,
    tls: bool,
    metrics: bool,
    underscores: bool,
    refusal: Option<Refusal>,
}

impl Request {
    /// Forgets what was said, and gives large memory back.
    pub fn clear(&mut self) {
        const KEPT: usize = 16 * 1024;
        let Request {
            mut text,
            mut headers,
            mut parameters,
            ..
        } = std::mem::take(self);
        text.clear();
        text.shrink_to(KEPT);
        headers.clear();
        parameters.clear();
        *self = Request {
            text,
            headers,
            parameters,
            ..Request::default()
        };
    }

    /// Takes one packet of metadata.
    pub fn take(
        &mut self,
        command: Command,
        payload: &[u8],
        limits: &Limits,
    ) -> Result<(), Violation> {
        let malformed = Violation::Malformed(command.number());
        match command {
            Command::Method => {
                let method = Method(short_number(payload).ok_or(malformed)?);
                match self.method.replace(method) {
                    Some(other) if other != method => Err(Violation::Repeated(command.number())),
                    _ => Ok(()),
                }
            }
            Command::Uri
            | Command::ScriptName
            | Command::PathInfo
            | Command::QueryString
            | Command::RemoteHost
            | Command::DocumentRoot => self.take_text(command, payload, limits),
            Command::Header | Command::Parameter => {
                let at = memchr::memchr(b'=', payload).filter(|at| *at > 0);
                self.take_pair(command, payload, at.ok_or(malformed)?, limits);
                Ok(())
            }
            Command::Tls => {
                self.tls = true;
                Ok(())
            }
            Command::Metric => {
                self.metrics = true;
                Ok(())
            }
            _ => Err(Violation::Unexpected(command.number())),
        }
    }

    fn take_text(
        &mut self,
        command: Command,
        payload: &[u8],
        limits: &Limits,
    ) -> Result<(), Violation> {
        let place = match command {
            Command::Uri => &self.uri,
            Command::ScriptName => &self.script_name,
            Command::PathInfo => &self.path_info,
            Command::QueryString => &self.query_string,
            Command::RemoteHost => &self.remote_host,
            _ => &self.document_root,
        };
        if place.is_some() {
            return Err(Violation::Repeated(command.number()));
        }
        let is_address = !matches!(command, Command::RemoteHost | Command::DocumentRoot);
        let fits = !is_address || payload.len() <= limits.uri;
        if !fits {
            self.refuse(Refusal::UriTooLong);
        }
        let span = match fits {
            true => self.keep(payload, limits),
            false => 0..0,
        };
        *match command {
            Command::Uri => &mut self.uri,
            Command::ScriptName => &mut self.script_name,
            Command::PathInfo => &mut self.path_info,
            Command::QueryString => &mut self.query_string,
            Command::RemoteHost => &mut self.remote_host,
            _ => &mut self.document_root,
        } = Some(span);
        Ok(())
    }

    fn take_pair(&mut self, command: Command, payload: &[u8], at: usize, limits: &Limits) {
        let is_header = command == Command::Header;
        let count = match is_header {
            true => self.headers.len(),
            false => self.parameters.len(),
        };
        if count >= limits.fields {
            return self.refuse(Refusal::MetadataTooLarge);
        }
        let (name, value) = (&payload[..at], &payload[at + 1..]);
        if is_header {
            if !name.iter().all(|b| is_token_byte(*b)) || value.iter().any(|b| is_control(*b)) {
                return self.refuse(Refusal::BadField);
            }
            self.underscores |= name.contains(&b'_');
        }
        let whole = self.keep(payload, limits);
        if whole.is_empty() {
            return;
        }
        let pair = (
            whole.start..whole.start + at,
            whole.start + at + 1..whole.end,
        );
        match is_header {
            true => self.headers.push(pair),
            false => self.parameters.push(pair),
        }
    }

    fn keep(&mut self, bytes: &[u8], limits: &Limits) -> Span {
        if self.text.len() + bytes.len() > limits.metadata {
            self.refuse(Refusal::MetadataTooLarge);
            return 0..0;
        }
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        start..self.text.len()
    }

    /// The first reason counts.
    fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    /// All of it is there: why it cannot be served, if it cannot.
    pub fn refusal(&self) -> Option<Refusal> {
        let has_address = [&self.uri, &self.script_name, &self.path_info];
        match self.refusal {
            Some(refusal) => Some(refusal),
            None if self.method().name().is_none() => Some(Refusal::UnknownMethod),
            None if has_address.iter().all(|part| part.is_none()) => Some(Refusal::NoUri),
            None => None,
        }
    }

    pub fn method(&self) -> Method {
        self.method.unwrap_or(Method::GET)
    }

    fn text(&self, span: &Option<Span>) -> Option<&[u8]> {
        span.as_ref().map(|span| &self.text[span.clone()])
    }

    pub fn uri(&self) -> Option<&[u8]> {
        self.text(&self.uri)
    }

    pub fn script_name(&self) -> Option<&[u8]> {
        self.text(&self.script_name)
    }

    /// Percent-decoded by the client.
    pub fn path_info(&self) -> Option<&[u8]> {
        self.text(&self.path_info)
    }

    pub fn query_string(&self) -> Option<&[u8]> {
        self.text(&self.query_string)
    }

    /// The address of the visitor.
    pub fn remote_host(&self) -> Option<&[u8]> {
        self.text(&self.remote_host)
    }

    pub fn document_root(&self) -> Option<&[u8]> {
        self.text(&self.document_root)
    }

    /// The names are tokens.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.pairs(&self.headers)
    }

    pub fn parameters(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.pairs(&self.parameters)
    }

    fn pairs<'a>(
        &'a self,
        pairs: &'a [(Span, Span)],
    ) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> {
        let text = |span: &Span| &self.text[span.clone()];
        pairs
            .iter()
            .map(move |(name, value)| (text(name), text(value)))
    }

    /// It came to the client over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    pub fn wants_metrics(&self) -> bool {
        self.metrics
    }

    /// Some header has `_` in its name.
    pub fn has_underscores(&self) -> bool {
        self.underscores
    }
}

/// RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §5.5: HTAB is the only control character that a value may hold.
fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}
