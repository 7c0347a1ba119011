//! While an application is written: what is shown while its last reload has failed, and the telling of its
//! modules.

#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;

use pyo3::prelude::*;

use super::environ::Peer;
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
                peer.is_local() && !head.fields.iter().any(|field| is_mark(field.name))
            }
        }
    }
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
    fn a_traceback_is_text_and_no_markup() {
        let page = html("File \"<x>\" & 'y' <script>alert(1)</script>");
        assert!(
            page.contains("File &quot;&lt;x&gt;&quot; &amp; &#39;y&#39; &lt;script&gt;"),
            "{page}"
        );
        assert!(!page.contains("<script>"), "{page}");
    }
}
