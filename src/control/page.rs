//! The HTTP side of the control socket and of `--metrics-bind`: three pages, read with the same
//! strict parser as requests to the application.

use crate::http::head::{self, Framing, Limits, Parsed};
use crate::http::response::{self, After, Asked, Body, Method, ResponseHead};
use crate::http::{DateCache, Version};

/// One HTTP request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// What is wanted, or the status that says why it is not there.
    pub wanted: Result<Wanted, u16>,
    /// HEAD.
    pub without_body: bool,
    /// The client names the OpenMetrics format in `Accept`.
    pub open_metrics: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The reply to `stats`, as JSON.
    Stats,
    /// OpenMetrics text, or that of Prometheus 0.0.4 for a client that does not ask for the former.
    Metrics,
    /// 200 while every app serves, else 503; one line of text.
    Health,
}

impl Page {
    /// For an answer to what is no HTTP request.
    pub fn of_error(status: u16) -> Page {
        Page {
            wanted: Err(status),
            without_body: false,
            open_metrics: false,
        }
    }
}

const MEDIA_TYPE: &[u8] = b"application/openmetrics-text";

/// `None` while the head is not complete.
pub(super) fn read(bytes: &[u8], scanned: &mut usize) -> Option<Page> {
    let limits = Limits {
        head: super::MAX_REQUEST / 2,
        ..Limits::default()
    };
    if !head::is_complete(bytes, &limits, scanned) {
        return None;
    }
    let mut scratch = head::scratch();
    let head = match head::parse(bytes, &limits, &mut scratch) {
        Ok(Parsed::Complete(head)) => head,
        Ok(Parsed::Partial) => return None,
        Err(refusal) => return Some(Page::of_error(refusal.status())),
    };
    let wanted = match (head.method, head.target.path) {
        _ if !matches!(head.framing, Framing::None | Framing::Length(0)) => Err(413),
        (b"GET" | b"HEAD", b"/stats") => Ok(Wanted::Stats),
        (b"GET" | b"HEAD", b"/metrics") => Ok(Wanted::Metrics),
        (b"GET" | b"HEAD", b"/health") => Ok(Wanted::Health),
        (b"GET" | b"HEAD", _) => Err(404),
        _ => Err(405),
    };
    let accept = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("accept");
    let names = |value: &[u8]| {
        value
            .windows(MEDIA_TYPE.len())
            .any(|part| part == MEDIA_TYPE)
    };
    Some(Page {
        wanted,
        without_body: head.method == b"HEAD",
        open_metrics: head.fields.iter().filter(accept).any(|f| names(f.value)),
    })
}

/// A whole response, after which the connection is closed.
pub fn respond(page: Page, status: u16, kind: &str, body: &[u8], unix_seconds: u64) -> Vec<u8> {
    let asked = Asked {
        version: Version::Http11,
        method: match page.without_body {
            true => Method::Head,
            false => Method::Other,
        },
        after: After::Close,
    };
    let line = format!("{status} {}", response::reason(status));
    let mut fields = format!("Content-Type: {kind}\r\nCache-Control: no-store\r\n");
    if status == 405 {
        fields += "Allow: GET, HEAD\r\n";
    }
    let delivery = response::framing(asked, status, None, Some(body.len() as u64));
    let mut date = DateCache::new();
    let mut answer = Vec::with_capacity(256 + body.len());
    let head = ResponseHead {
        status: line.as_bytes(),
        fields: fields.as_bytes(),
        date: Some(date.render(unix_seconds)),
        server: Some(b"rswsgi"),
        delivery,
    };
    response::write_head(&mut answer, &head);
    if delivery.body == Body::Send {
        answer.extend_from_slice(body);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        read(text.as_bytes(), &mut 0).expect("a whole head")
    }

    #[test]
    fn there_are_three_pages() {
        for (line, wanted) in [
            ("GET /stats", Ok(Wanted::Stats)),
            ("GET /metrics?x=1", Ok(Wanted::Metrics)),
            ("HEAD /health", Ok(Wanted::Health)),
            ("GET /", Err(404)),
            ("POST /stats", Err(405)),
            ("DELETE /stats", Err(405)),
        ] {
            let page = page(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert_eq!(page.wanted, wanted, "{line}");
            assert_eq!(page.without_body, line.starts_with("HEAD"));
        }
        let without_host = page("GET /stats HTTP/1.1\r\n\r\n");
        assert_eq!(without_host.wanted, Err(400));
        let with_body = page("GET /stats HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n");
        assert_eq!(with_body.wanted, Err(413));
    }

    #[test]
    fn what_prometheus_accepts_decides_the_format() {
        let of = |accept: &str| {
            let text = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n");
            page(&text).open_metrics
        };
        assert!(of(
            "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3\r\n"
        ));
        assert!(!of("Accept: */*\r\n"));
        assert!(!of(""));
    }

    #[test]
    fn a_response_ends_the_connection_and_says_so() {
        let page = page("GET /x HTTP/1.0\r\n\r\n");
        let text = respond(page, 404, "text/plain", b"no\n", 0);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: rswsgi\r\nContent-Length: 3\r\n\
             Connection: close\r\n\r\nno\n"
        );
        let head = Page {
            without_body: true,
            ..page
        };
        let text = respond(head, 200, "text/plain", b"ok\n", 0);
        assert!(text.ends_with(b"Content-Length: 3\r\nConnection: close\r\n\r\n"));
    }
}
