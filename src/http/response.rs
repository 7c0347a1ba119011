//! Responses: checks of what the application says, framing, and the rendered head.
//!
//! The checks run inside `start_response`, where PEP 3333 wants errors raised: an application can
//! neither split a response (CR, LF) nor touch the connection, which belongs to the server.

#![forbid(unsafe_code)]

use std::fmt;

use super::Version;
use super::grammar::{decimal, is_text_byte, is_token, trim_ows};
use super::page::Form;

/// The interim response that asks the client for the body (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Ends a chunked body; no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What a checked field means to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldKind {
    Plain,
    /// Kept back by the caller: [`write_head`] writes the framing.
    ContentLength(u64),
    /// The application's own; ours is left out.
    Date,
    /// The application's own; ours is left out.
    Server,
}

/// Why `start_response` raises; names and values are escaped for display.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadResponse {
    Status(String),
    InterimStatus(u16),
    StatusControl(String),
    Name(String),
    Value {
        name: String,
        byte: u8,
    },
    HopByHop(String),
    Length(String),
    /// Found by the caller, who sees all fields.
    RepeatedLength,
}

impl fmt::Display for BadResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadResponse::Status(status) => write!(
                f,
                "status '{status}' is not three digits, a space and a reason"
            ),
            BadResponse::InterimStatus(code) => {
                write!(f, "status {code} is interim and cannot end a request")
            }
            BadResponse::StatusControl(status) => {
                write!(f, "status '{status}' contains a control character")
            }
            BadResponse::Name(name) => write!(f, "header name '{name}' is not a token"),
            BadResponse::Value { name, byte } => write!(
                f,
                "value of header '{name}' contains the control character 0x{byte:02x}"
            ),
            BadResponse::HopByHop(name) => write!(
                f,
                "header '{name}' is hop-by-hop and belongs to the server (PEP 3333)"
            ),
            BadResponse::Length(value) => {
                write!(f, "Content-Length '{value}' is not a decimal number")
            }
            BadResponse::RepeatedLength => f.write_str("Content-Length is given twice"),
        }
    }
}

impl std::error::Error for BadResponse {}

#[cold]
fn shown(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(80)];
    shown.escape_ascii().to_string()
}

/// The code of `"NNN reason"`. The reason may be empty and may be Latin-1 (RFC 9112 §4).
pub fn check_status(status: &[u8]) -> Result<u16, BadResponse> {
    let (code, reason) = match status {
        [a, b, c] => ([a, b, c], b"".as_slice()),
        [a, b, c, b' ', reason @ ..] => ([a, b, c], reason),
        _ => return Err(BadResponse::Status(shown(status))),
    };
    if !code.iter().all(|digit| digit.is_ascii_digit()) || *code[0] == b'0' {
        return Err(BadResponse::Status(shown(status)));
    }
    if !reason.iter().all(|&b| is_text_byte(b)) {
        return Err(BadResponse::StatusControl(shown(status)));
    }
    let code = code
        .iter()
        .fold(0, |n, &digit| n * 10 + u16::from(digit - b'0'));
    match code {
        100..=199 => Err(BadResponse::InterimStatus(code)),
        _ => Ok(code),
    }
}

/// Checks one field of the application.
pub fn check_field(name: &[u8], value: &[u8]) -> Result<FieldKind, BadResponse> {
    if !is_token(name) {
        return Err(BadResponse::Name(shown(name)));
    }
    if let Some(&byte) = value.iter().find(|&&b| !is_text_byte(b)) {
        let name = shown(name);
        return Err(BadResponse::Value { name, byte });
    }
    if is_hop_by_hop(name) {
        return Err(BadResponse::HopByHop(shown(name)));
    }
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"date") => Ok(FieldKind::Date),
        6 if name.eq_ignore_ascii_case(b"server") => Ok(FieldKind::Server),
        14 if name.eq_ignore_ascii_case(b"content-length") => decimal(trim_ows(value))
            .map(FieldKind::ContentLength)
            .ok_or_else(|| BadResponse::Length(shown(value))),
        _ => Ok(FieldKind::Plain),
    }
}

/// The list of RFC 2616 §13.5.1 that PEP 3333 names and `wsgiref.util.is_hop_by_hop` holds, and
/// `Trailer`, as the field is really called.
fn is_hop_by_hop(name: &[u8]) -> bool {
    let names: &[&[u8]] = match name.len() {
        2 => &[b"te"],
        7 => &[b"trailer", b"upgrade"],
        8 => &[b"trailers"],
        10 => &[b"connection", b"keep-alive"],
        17 => &[b"transfer-encoding"],
        18 => &[b"proxy-authenticate"],
        19 => &[b"proxy-authorization"],
        _ => &[],
    };
    names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// 1xx, 204 and 304 end with their head (RFC 9112 §6.3).
pub fn forbids_body(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Head,
    Other,
}

/// What the connection is to do after the response, as far as the caller knows: `Close` when the
/// client does not let it persist or the server leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    Persist,
    Close,
}

/// The request, as far as the framing of its response depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    pub version: Version,
    pub method: Method,
    pub after: After,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delimiter {
    Length(u64),
    Chunked,
    /// The end of the connection.
    Close,
    /// No field about the length: the head ends the response.
    Head,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    Send,
    /// The application's bytes are counted and thrown away.
    Discard,
}

/// The `Connection` field of the response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connection {
    /// 1.1 persists without a word.
    Unsaid,
    /// What a 1.0 client that asked for it waits for.
    KeepAlive,
    Close,
}

/// How one response is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    pub delimiter: Delimiter,
    pub body: Body,
    pub connection: Connection,
}

impl Delivery {
    pub fn after(self) -> After {
        match self.connection {
            Connection::Close => After::Close,
            Connection::Unsaid | Connection::KeepAlive => After::Persist,
        }
    }
}

/// Decides the framing of a response (RFC 9112 §6.3), the only place that does.
///
/// `declared` is the application's `Content-Length`; `known` the length of a body that is complete
/// before the head is sent, as when the iterable has one item (PEP 3333).
pub fn framing(asked: Asked, status: u16, declared: Option<u64>, known: Option<u64>) -> Delivery {
    let (delimiter, body) = match (asked.method, status) {
        // RFC 9110 §8.6: 204 never has a length; 304 may repeat that of the 200.
        (_, 100..=199 | 204) => (Delimiter::Head, Body::Discard),
        (_, 304) => (
            declared.map_or(Delimiter::Head, Delimiter::Length),
            Body::Discard,
        ),
        // RFC 9110 §15.3.6: no content, and 205 is not among the codes that end with their head.
        (_, 205) => (Delimiter::Length(0), Body::Discard),
        // RFC 9110 §9.3.2: the length of the answer to GET. An application that leaves the body
        // out for HEAD does not tell it.
        (Method::Head, _) => {
            let length = declared.or(known.filter(|&length| length > 0));
            (
                length.map_or(Delimiter::Head, Delimiter::Length),
                Body::Discard,
            )
        }
        (Method::Other, _) => match (declared.or(known), asked.version) {
            (Some(length), _) => (Delimiter::Length(length), Body::Send),
            (None, Version::Http11) => (Delimiter::Chunked, Body::Send),
            (None, Version::Http10) => (Delimiter::Close, Body::Send),
        },
    };
    let connection = match (delimiter, asked.after, asked.version) {
        (Delimiter::Close, ..) | (_, After::Close, _) => Connection::Close,
        (_, After::Persist, Version::Http10) => Connection::KeepAlive,
        (_, After::Persist, Version::Http11) => Connection::Unsaid,
    };
    Delivery {
        delimiter,
        body,
        connection,
    }
}

/// One response head; all of its parts are checked.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// `NNN reason` as the application gave it.
    pub status: &'a [u8],
    /// Rendered by [`write_field`], without `Content-Length`.
    pub fields: &'a [u8],
    /// `None` when the application sent its own.
    pub date: Option<&'a [u8; 29]>,
    /// `None` when the application sent its own, or the server does not name itself.
    pub server: Option<&'a [u8]>,
    pub delivery: Delivery,
}

/// Appends `name: value` and CRLF.
#[inline]
pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head with its empty line. The version is always 1.1, also towards a 1.0 client
/// (RFC 9110 §6.2).
pub fn write_head(out: &mut Vec<u8>, head: &ResponseHead<'_>) {
    // Everything of ours fits in 192 bytes beside the server's name.
    let server = head.server.unwrap_or_default();
    out.reserve(192 + head.status.len() + head.fields.len() + server.len());
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status);
    // RFC 9112 §4: the space stands even before an empty reason.
    out.extend_from_slice(if head.status.len() == 3 {
        b" \r\n"
    } else {
        b"\r\n"
    });
    out.extend_from_slice(head.fields);
    if let Some(date) = head.date {
        write_field(out, b"Date", date);
    }
    if let Some(server) = head.server {
        write_field(out, b"Server", server);
    }
    match head.delivery.delimiter {
        Delimiter::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Delimiter::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Delimiter::Close | Delimiter::Head => {}
    }
    out.extend_from_slice(match head.delivery.connection {
        Connection::Unsaid => b"\r\n",
        Connection::KeepAlive => b"Connection: keep-alive\r\n\r\n",
        Connection::Close => b"Connection: close\r\n\r\n",
    });
}

/// The size line of a chunk of `size` bytes. Never 0, which would end the body: an empty item of
/// the application is not sent at all.
pub fn chunk_prefix(size: usize, buf: &mut [u8; 18]) -> &[u8] {
    debug_assert!(size > 0, "a chunk of no bytes ends the body");
    let mut at = 16;
    let mut rest = size;
    buf[16..].copy_from_slice(b"\r\n");
    loop {
        at -= 1;
        buf[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            return &buf[at..];
        }
    }
}

/// A response of the server's own.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    pub status: u16,
    pub method: Method,
    pub form: Form,
    pub page: &'a [u8],
}

/// Appends a whole error response and closes the connection with it. The number of bytes that are its
/// head.
pub fn write_refusal(
    out: &mut Vec<u8>,
    refused: Refused<'_>,
    date: Option<&[u8; 29]>,
    server: Option<&[u8]>,
) -> usize {
    let line = format!("{} {}", refused.status, reason(refused.status));
    let asked = Asked {
        version: Version::Http11,
        method: refused.method,
        after: After::Close,
    };
    let length = Some(refused.page.len() as u64);
    let delivery = framing(asked, refused.status, None, length);
    let mut fields = Vec::new();
    write_field(&mut fields, b"Content-Type", refused.form.content_type());
    let head = ResponseHead {
        status: line.as_bytes(),
        fields: &fields,
        date,
        server,
        delivery,
    };
    let before = out.len();
    write_head(out, &head);
    let length = out.len() - before;
    if delivery.body == Body::Send {
        out.extend_from_slice(refused.page);
    }
    length
}

/// The phrase of the IANA registry for the codes the server itself answers with.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests;
