//! While an application is written: what is shown while its last reload has failed, and the telling of its
//! modules.

#![forbid(unsafe_code)]

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;

use pyo3::prelude::*;

use super::environ::{Peer, Place};
use crate::config::Audience;
use crate::http::page::Form;
use crate::http::{Head, Pages};

/// The longest text that is shown.
const LONGEST: u64 = 1 << 20;

/// Fields by which proxies tell of themselves.
const MARKS: [&str; 8] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
];

pub struct Development {
    /// Written by the supervisor: a length, and a text of it.
    notice: File,
    audience: Audience,
    /// Tells which modules have been imported since its last call.
    tell: Py<PyAny>,
}

impl Development {
    pub fn new(notice: File, audience: Audience, tell: Py<PyAny>) -> Self {
        Self {
            notice,
            audience,
            tell,
        }
    }

    pub fn tell(&self, py: Python<'_>) {
        // The application is not to suffer when that goes wrong.
        let _ = self.tell.call0(py);
    }

    /// What is to be answered instead, while the last reload has failed.
    pub fn page(&self, head: &Head<'_, '_>, peer: &Peer, pages: &Pages) -> Option<(Form, Vec<u8>)> {
        let text = self.notice()?;
        let accept = head
            .fields
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case("accept"))
            .map(|field| field.value);
        if !self.may_see(head, peer) {
            return Some(pages.page(500, accept));
        }
        let (form, _) = Pages::default().page(500, accept);
        Some(match form {
            Form::Html => (form, html(&text).into_bytes()),
            Form::Plain => (form, format!("{TITLE}\n\n{text}\n").into_bytes()),
            Form::Json => {
                let problem = serde_json::json!({"title": TITLE, "status": 500, "detail": text});
                (form, problem.to_string().into_bytes())
            }
        })
    }

    fn notice(&self) -> Option<String> {
        let mut length = [0; 8];
        self.notice.read_exact_at(&mut length, 0).ok()?;
        let length = u64::from_ne_bytes(length).min(LONGEST);
        if length == 0 {
            return None;
        }
        let mut text = vec![0; usize::try_from(length).ok()?];
        self.notice.read_exact_at(&mut text, 8).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// A traceback shows source code.
    fn may_see(&self, head: &Head<'_, '_>, peer: &Peer) -> bool {
        match self.audience {
            Audience::Everyone => true,
            Audience::Nobody => false,
            Audience::Local => {
                let is_mark = |name: &str| MARKS.iter().any(|mark| mark.eq_ignore_ascii_case(name));
                let is_local = match peer.place() {
                    Place::UnixSocket => true,
                    Place::Loopback => head.host.is_some_and(cannot_be_rebound),
                    Place::Elsewhere => false,
                };
                is_local && !head.fields.iter().any(|field| is_mark(field.name))
            }
        }
    }
}

/// Whether a `Host` names this machine whatever the DNS says: a page of another site whose name has been
/// made to mean this machine would be of the same origin (DNS rebinding). RFC 6761 §6.3 is on `localhost`.
fn cannot_be_rebound(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, rest)| {
            let is_end = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
            address.parse::<Ipv6Addr>().is_ok() && is_end
        });
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_own = name.parse::<Ipv4Addr>().is_ok() || last.eq_ignore_ascii_case("localhost");
    is_own && is_port(port)
}

const TITLE: &str = "The application cannot be reloaded";

fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{TITLE}</title>\n\
         <h1>{TITLE}</h1>\n<pre>{escaped}</pre>\n<p>It is tried again when a file changes.</p>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_cannot_be_rebound() {
        for (host, expected) in [
            ("127.0.0.1", true),
            ("127.0.0.1:8000", true),
            ("192.0.2.7:8000", true),
            ("[::1]", true),
            ("[::1]:8000", true),
            ("localhost", true),
            ("LocalHost:8000", true),
            ("shop.localhost", true),
            ("shop.localhost:8000", true),
            ("", false),
            (":8000", false),
            ("::1", false),
            ("[::1", false),
            ("[::1]x", false),
            ("[rebound.example]", false),
            ("rebound.example", false),
            ("rebound.example:8000", false),
            ("localhost.rebound.example", false),
            ("notlocalhost", false),
            ("127.0.0.1.rebound.example", false),
            ("127.0.0.1:x", false),
            ("localhost:8000:1", false),
            ("\u{e9}.example", false),
        ] {
            assert_eq!(cannot_be_rebound(host.as_bytes()), expected, "{host}");
        }
        assert!(!cannot_be_rebound(b"\xff.localhost"));
    }

    #[test]
    fn a_traceback_is_text_and_no_markup() {
        let page = html("File \"<x>\" & 'y' <script>alert(1)</script>");
        assert!(
            page.contains("File &quot;&lt;x&gt;&quot; &amp; &#39;y&#39; &lt;script&gt;"),
            "{page}"
        );
        assert!(!page.contains("<script>"), "{page}");
    }
}
