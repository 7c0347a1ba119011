//! The form of a line: `common`, `combined`, `json`, or a text with `%(name)s` in it, as gunicorn has it.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{Line, OTHERS, Record};
use super::values::{self, Calendar};
use crate::sys::clock::Nanos;

const COMMON: &str = r#"%(h)s - - [%(time)s] "%(r)s" %(s)s %(b)s"#;
const COMBINED: &str = r#"%(h)s - - [%(time)s] "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;
/// The members of a JSON line, in their order.
const JSON: &[&str] = &[
    "time_iso",
    "peer",
    "method",
    "path",
    "query",
    "protocol",
    "status",
    "bytes",
    "outcome",
    "total_ms",
    "app_ms",
    "queue_ms",
    "referer",
    "user_agent",
    "id",
    "app",
    "generation",
    "worker",
    "pid",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Nothing,
    Time,
    TimeIso,
    Peer,
    Port,
    Request,
    Method,
    Target,
    Path,
    Query,
    Protocol,
    Status,
    Bytes,
    BytesOrDash,
    Referer,
    UserAgent,
    QueueMillis,
    AppMillis,
    TotalMillis,
    Seconds,
    WholeSeconds,
    WholeMillis,
    Micros,
    Id,
    Outcome,
    App,
    Generation,
    Worker,
    Pid,
}

/// The letters are those of gunicorn and Apache.
const NAMES: &[(&str, Name)] = &[
    ("l", Name::Nothing),
    ("u", Name::Nothing),
    ("t", Name::Time),
    ("time", Name::Time),
    ("time_iso", Name::TimeIso),
    ("h", Name::Peer),
    ("peer", Name::Peer),
    ("port", Name::Port),
    ("r", Name::Request),
    ("request", Name::Request),
    ("m", Name::Method),
    ("method", Name::Method),
    ("target", Name::Target),
    ("U", Name::Path),
    ("path", Name::Path),
    ("q", Name::Query),
    ("query", Name::Query),
    ("H", Name::Protocol),
    ("protocol", Name::Protocol),
    ("s", Name::Status),
    ("status", Name::Status),
    ("B", Name::Bytes),
    ("bytes", Name::Bytes),
    ("b", Name::BytesOrDash),
    ("f", Name::Referer),
    ("referer", Name::Referer),
    ("a", Name::UserAgent),
    ("user_agent", Name::UserAgent),
    ("queue_ms", Name::QueueMillis),
    ("app_ms", Name::AppMillis),
    ("total_ms", Name::TotalMillis),
    ("L", Name::Seconds),
    ("T", Name::WholeSeconds),
    ("M", Name::WholeMillis),
    ("D", Name::Micros),
    ("id", Name::Id),
    ("outcome", Name::Outcome),
    ("app", Name::App),
    ("generation", Name::Generation),
    ("worker", Name::Worker),
    ("p", Name::Pid),
    ("pid", Name::Pid),
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Value(Name),
    /// `[21/Nov/2026:05:39:56 +0000]`
    BracketedTime,
    /// Index among the fields of the record.
    Field(usize),
    /// A member of a JSON object: what stands before it, and its value.
    Member(String, Name),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Format {
    source: String,
    pieces: Vec<Piece>,
    request_fields: Vec<String>,
    response_fields: Vec<String>,
}

impl From<Format> for String {
    fn from(format: Format) -> String {
        format.source
    }
}

impl TryFrom<String> for Format {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Format::parse(&text)
    }
}

impl Format {
    pub fn parse(text: &str) -> Result<Format, String> {
        let mut format = Format {
            source: text.to_owned(),
            pieces: Vec::new(),
            request_fields: Vec::new(),
            response_fields: Vec::new(),
        };
        match text {
            "common" => format.read(COMMON)?,
            "combined" => format.read(COMBINED)?,
            "json" => format.pieces = json(),
            text if text.contains('%') => format.read(text)?,
            _ => {
                return Err(format!(
                    "{text:?} is neither common, combined or json nor has it a %(name)s in it"
                ));
            }
        }
        Ok(format)
    }

    pub fn request_fields(&self) -> &[String] {
        &self.request_fields
    }

    pub fn response_fields(&self) -> &[String] {
        &self.response_fields
    }

    fn read(&mut self, text: &str) -> Result<(), String> {
        if text.chars().any(char::is_control) {
            return Err("a control character would break the lines".into());
        }
        // Fields of responses come behind those of requests, whose number is known at the end only.
        let mut outgoing = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let inner = rest
                .strip_prefix('(')
                .and_then(|rest| rest.split_once(")s"));
            let Some((name, after)) = inner else {
                let start: String = rest.chars().take(12).collect();
                return Err(format!("\"%{start}\" is no %(name)s; '%' itself is %%"));
            };
            rest = after;
            if !literal.is_empty() {
                self.pieces
                    .push(Piece::Literal(std::mem::take(&mut literal)));
            }
            let piece = self.piece(name)?;
            if piece == Piece::Field(usize::MAX) {
                outgoing.push(self.pieces.len());
            }
            self.pieces.push(piece);
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            self.pieces.push(Piece::Literal(literal));
        }
        for (index, at) in outgoing.into_iter().enumerate() {
            self.pieces[at] = Piece::Field(self.request_fields.len() + index);
        }
        Ok(())
    }

    /// A field of the response is to be numbered by the caller.
    fn piece(&mut self, name: &str) -> Result<Piece, String> {
        if name == "t" {
            return Ok(Piece::BracketedTime);
        }
        if let Some((_, name)) = NAMES.iter().find(|(text, _)| *text == name) {
            return Ok(Piece::Value(*name));
        }
        let field = name.strip_prefix('{').and_then(|name| name.split_once('}'));
        let (fields, field, is_request) = match field {
            Some((field, "i")) => (&mut self.request_fields, field, true),
            Some((field, "o")) => (&mut self.response_fields, field, false),
            _ => {
                let close =
                    |text: &&str| text.len() > 1 && text.starts_with(&name[..1.min(name.len())]);
                let names = NAMES.iter().map(|(text, _)| *text);
                let hint = names.filter(close).collect::<Vec<_>>().join(", ");
                return Err(match hint.is_empty() {
                    true => format!("%({name})s is unknown"),
                    false => format!("%({name})s is unknown; there is {hint}"),
                });
            }
        };
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if field.is_empty() || field.len() > 64 || !field.bytes().all(is_token) {
            return Err(format!("{field:?} is no name of a header"));
        }
        if fields.len() == OTHERS {
            return Err(format!("more than {OTHERS} headers are not kept"));
        }
        fields.push(field.to_owned());
        Ok(Piece::Field(match is_request {
            true => fields.len() - 1,
            false => usize::MAX,
        }))
    }
}

fn json() -> Vec<Piece> {
    let member = |(index, name): (usize, &&str)| {
        let before = if index == 0 { '{' } else { ',' };
        let key = if *name == "time_iso" { "time" } else { name };
        let found = NAMES.iter().find(|(text, _)| text == name);
        let name = found.map_or(Name::Nothing, |(_, name)| *name);
        Piece::Member(format!("{before}\"{key}\":"), name)
    };
    let members = JSON.iter().enumerate().map(member);
    members.chain([Piece::Literal("}".into())]).collect()
}

/// What is the same for the records of one worker.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub app: &'a str,
    pub generation: u64,
    pub worker: usize,
    /// What is to be added to a time of the monotonic clock for one of the calendar.
    pub unix: Nanos,
}

impl Format {
    /// Appends one line with its end.
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        record: &Record<'_>,
        context: &Context<'_>,
        calendar: &mut Calendar,
    ) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::BracketedTime => {
                    out.push(b'[');
                    value(out, Name::Time, record, context, calendar, Style::Text);
                    out.push(b']');
                }
                Piece::Value(name) => value(out, *name, record, context, calendar, Style::Text),
                Piece::Field(index) => {
                    let field = record.others.get(*index).copied();
                    values::text(out, field.unwrap_or_default());
                }
                Piece::Member(before, name) => {
                    out.extend_from_slice(before.as_bytes());
                    if let Name::TimeIso = name {
                        out.push(b'"');
                    }
                    value(out, *name, record, context, calendar, Style::Json);
                    if let Name::TimeIso = name {
                        out.push(b'"');
                    }
                }
            }
        }
        out.push(b'\n');
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Text,
    Json,
}

fn value(
    out: &mut Vec<u8>,
    name: Name,
    record: &Record<'_>,
    context: &Context<'_>,
    calendar: &mut Calendar,
    style: Style,
) {
    let text = |out: &mut Vec<u8>, value: &[u8]| match style {
        Style::Text => values::text(out, value),
        Style::Json => values::json(out, value),
    };
    let done = &record.done;
    let (method, target, protocol): (&[u8], &[u8], &[u8]) = match record.line {
        Line::Whole {
            method,
            target,
            is_11,
        } => (
            method,
            target,
            if is_11 { b"HTTP/1.1" } else { b"HTTP/1.0" },
        ),
        Line::Raw(line) => (b"", line, b""),
    };
    let (path, query) = match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &b""[..]),
    };
    let unix = Duration::from_nanos(record.arrived.saturating_add(context.unix));
    match name {
        Name::Nothing => out.push(b'-'),
        Name::Time => calendar.common(out, unix),
        Name::TimeIso => calendar.iso(out, unix),
        Name::Peer => match record.peer {
            // A client on a Unix socket has no address.
            None => text(out, b""),
            Some(peer) => text(out, peer.ip().to_string().as_bytes()),
        },
        Name::Port => values::number(out, record.peer.map_or(0, |peer| peer.port()).into()),
        Name::Request => match method {
            b"" => text(out, target),
            method => {
                text(out, method);
                out.push(b' ');
                text(out, target);
                out.push(b' ');
                text(out, protocol);
            }
        },
        Name::Method => text(out, method),
        Name::Target => text(out, target),
        Name::Path => text(out, path),
        Name::Query => text(out, query),
        Name::Protocol => text(out, protocol),
        Name::Status if done.status == 0 && style == Style::Text => {
            out.extend_from_slice(b"000");
        }
        Name::Status => values::number(out, done.status.into()),
        Name::Bytes => values::number(out, done.bytes),
        Name::BytesOrDash if done.bytes == 0 => out.push(b'-'),
        Name::BytesOrDash => values::number(out, done.bytes),
        Name::Referer => text(out, record.referer),
        Name::UserAgent => text(out, record.agent),
        Name::QueueMillis => values::thousandths(out, values::micros(done.queue)),
        Name::AppMillis => values::thousandths(out, values::micros(done.app)),
        Name::TotalMillis => values::thousandths(out, values::micros(done.total)),
        Name::Seconds => values::thousandths(out, values::micros(done.total) / 1000),
        Name::WholeSeconds => values::number(out, values::micros(done.total) / 1_000_000),
        Name::WholeMillis => values::number(out, values::micros(done.total) / 1000),
        Name::Micros => values::number(out, values::micros(done.total)),
        Name::Id => text(out, record.id),
        Name::Outcome => text(out, done.ending.name().as_bytes()),
        Name::App => text(out, context.app.as_bytes()),
        Name::Generation => values::number(out, context.generation),
        Name::Worker => values::number(out, context.worker as u64),
        Name::Pid => values::number(out, record.pid.into()),
    }
}

#[cfg(test)]
mod tests;
