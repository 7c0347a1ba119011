//! Pages for the responses that the server itself makes: which form the client would rather have,
//! what stands in it, and what an operator has put in its place. They tell the status and nothing else.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::grammar::trim_ows;
use super::response::reason;

/// The form of a page. The order decides where a client likes several equally.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Form {
    Plain,
    Html,
    Json,
}

impl Form {
    pub const ALL: [Form; 3] = [Form::Plain, Form::Html, Form::Json];

    pub fn content_type(self) -> &'static [u8] {
        match self {
            Form::Plain => b"text/plain; charset=utf-8",
            Form::Html => b"text/html; charset=utf-8",
            // RFC 9457 §3: problem details.
            Form::Json => b"application/problem+json",
        }
    }

    /// Of the file that replaces the page.
    pub fn extension(self) -> &'static str {
        match self {
            Form::Plain => "txt",
            Form::Html => "html",
            Form::Json => "json",
        }
    }

    /// Whether a media type without wildcards means this form.
    fn is(self, media: &[u8]) -> bool {
        let one_of = |names: &[&str]| {
            names
                .iter()
                .any(|name| media.eq_ignore_ascii_case(name.as_bytes()))
        };
        match self {
            Form::Plain => one_of(&["text/plain"]),
            Form::Html => one_of(&["text/html", "application/xhtml+xml"]),
            Form::Json => one_of(&["application/json", "application/problem+json"]),
        }
    }

    fn is_text(self) -> bool {
        self != Form::Json
    }
}

/// How much a client wants a form, by `Accept` (RFC 9110 §12.5.1): its quality in thousandths, and the
/// place of the range that says so.
fn wish(accept: &[u8], form: Form) -> (u32, usize) {
    let mut found: Option<(u8, u32, usize)> = None;
    for (place, range) in accept.split(|byte| *byte == b',').enumerate().take(64) {
        let mut parts = range.split(|byte| *byte == b';');
        let media = trim_ows(parts.next().unwrap_or_default());
        let precision = match media {
            b"*/*" => 1,
            b"text/*" if form.is_text() => 2,
            b"application/*" if !form.is_text() => 2,
            media if form.is(media) => 3,
            _ => continue,
        };
        let quality = parts.find_map(|part| quality(trim_ows(part)));
        // The most precise range counts, and the first of those.
        if found.is_none_or(|(before, ..)| precision > before) {
            found = Some((precision, quality.unwrap_or(1000), place));
        }
    }
    found.map_or((0, usize::MAX), |(_, quality, place)| (quality, place))
}

/// `q=0.75` in thousandths.
fn quality(parameter: &[u8]) -> Option<u32> {
    let value = match parameter {
        [b'q' | b'Q', b'=', value @ ..] => value,
        _ => return None,
    };
    let (whole, fraction) = match value {
        [whole] => (whole, &b""[..]),
        [whole, b'.', fraction @ ..] => (whole, fraction),
        _ => return Some(0),
    };
    let mut digits = fraction.iter().chain(b"000").take(3);
    let digits = digits.try_fold(0, |sum: u32, digit| {
        Some(sum * 10 + char::from(*digit).to_digit(10)?)
    });
    match whole {
        b'1' => Some(1000),
        b'0' => Some(digits.unwrap_or(0)),
        _ => Some(0),
    }
}

/// What an operator has put in the place of our own pages.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pages(BTreeMap<(Statuses, Form), Vec<u8>>);

/// What one file is for; the more precise one comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Statuses {
    One(u16),
    Class(u16),
}

impl Pages {
    /// Takes the page of a file named `500.html`, `4xx.json`, `503.txt`. False for other names.
    pub fn add(&mut self, file: &str, content: Vec<u8>) -> bool {
        let Some((stem, extension)) = file.split_once('.') else {
            return false;
        };
        let form = Form::ALL.into_iter().find(|f| f.extension() == extension);
        let statuses = match stem.as_bytes() {
            [class @ (b'4' | b'5'), b'x', b'x'] => Some(Statuses::Class(u16::from(class - b'0'))),
            [b'4' | b'5', _, _] => stem.parse().ok().map(Statuses::One),
            _ => None,
        };
        match (statuses, form) {
            (Some(statuses), Some(form)) => {
                self.0.insert((statuses, form), content);
                true
            }
            _ => false,
        }
    }

    fn own(&self, status: u16, form: Form) -> Option<&[u8]> {
        let exact = self.0.get(&(Statuses::One(status), form));
        let class = || self.0.get(&(Statuses::Class(status / 100), form));
        exact.or_else(class).map(Vec::as_slice)
    }

    /// The page for a client that sent this `Accept`. One that takes anything gets what the operator has
    /// written, else plain text.
    pub fn page(&self, status: u16, accept: Option<&[u8]>) -> (Form, Vec<u8>) {
        let accept = accept.unwrap_or(b"*/*");
        let best = Form::ALL.into_iter().min_by_key(|form| {
            let (quality, place) = wish(accept, *form);
            let is_own = self.own(status, *form).is_some();
            (std::cmp::Reverse(quality), place, !is_own, *form)
        });
        let form = best.unwrap_or(Form::Plain);
        let own = self.own(status, form).map(<[u8]>::to_vec);
        (form, own.unwrap_or_else(|| built_in(status, form)))
    }
}

fn built_in(status: u16, form: Form) -> Vec<u8> {
    let title = reason(status);
    match form {
        Form::Plain => format!("{status} {title}\n"),
        Form::Html => format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <title>{status} {title}</title>\n<h1>{status} {title}</h1>\n</html>\n"
        ),
        Form::Json => {
            format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status}}}\n")
        }
    }
    .into_bytes()
}

/// The fields of a head that could not be parsed or is not whole: good for the form of a page and for a
/// log, and for no decision.
pub fn raw_fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|byte| *byte == b'\n')
        .skip(1)
        .take_while(|line| !line.trim_ascii().is_empty())
        .take(128)
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
}

/// `Accept` of such a head.
pub fn accept_of(head: &[u8]) -> Option<&[u8]> {
    raw_fields(head)
        .find(|(name, _)| name.eq_ignore_ascii_case(b"accept"))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(pages: &Pages, accept: Option<&str>) -> Form {
        pages.page(500, accept.map(str::as_bytes)).0
    }

    #[test]
    fn the_client_gets_the_form_it_asks_for() {
        let none = Pages::default();
        for (accept, expected) in [
            (None, Form::Plain),
            (Some("*/*"), Form::Plain),
            (Some(""), Form::Plain),
            (Some("image/png"), Form::Plain),
            (
                Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
                Form::Html,
            ),
            (Some("application/json"), Form::Json),
            (Some("application/problem+json"), Form::Json),
            (Some("application/json, text/plain, */*"), Form::Json),
            (Some("text/plain, application/json"), Form::Plain),
            (Some("Application/JSON;q=0.5, TEXT/HTML;q=0.6"), Form::Html),
            (Some("application/*, text/*;q=0.9"), Form::Json),
            (Some("text/plain;q=0, */*"), Form::Html),
            (Some("text/html;q=0.1, */*;q=0.9"), Form::Plain),
            (
                Some("text/html;level=1;q=0.9, text/plain;q=0.8"),
                Form::Html,
            ),
            (Some("text/html;q=x, application/json;q=0.001"), Form::Json),
        ] {
            assert_eq!(form(&none, accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn the_page_tells_the_status_and_nothing_else() {
        let pages = Pages::default();
        let page = |accept: &str| String::from_utf8(pages.page(503, Some(accept.as_bytes())).1);
        assert_eq!(page("*/*").unwrap(), "503 Service Unavailable\n");
        assert!(
            page("text/html")
                .unwrap()
                .contains("<h1>503 Service Unavailable</h1>")
        );
        let json: serde_json::Value =
            serde_json::from_str(&page("application/json").unwrap()).unwrap();
        assert_eq!(json["status"], 503);
        assert_eq!(json["title"], "Service Unavailable");
    }

    #[test]
    fn files_replace_pages_of_one_status_or_of_a_class() {
        let mut pages = Pages::default();
        for (name, taken) in [
            ("500.html", true),
            ("5xx.html", true),
            ("5xx.json", true),
            ("404.txt", true),
            ("index.html", false),
            ("200.html", false),
            ("50x.html", false),
            ("500", false),
            ("500.css", false),
            ("+50.html", false),
        ] {
            assert_eq!(pages.add(name, name.into()), taken, "{name}");
        }
        let page = |status, accept: Option<&str>| {
            let (_, page) = pages.page(status, accept.map(str::as_bytes));
            String::from_utf8(page).unwrap()
        };
        assert_eq!(page(500, Some("text/html")), "500.html");
        assert_eq!(page(502, Some("text/html")), "5xx.html");
        assert_eq!(page(502, Some("application/json")), "5xx.json");
        assert_eq!(page(500, Some("text/plain")), "500 Internal Server Error\n");
        // Who takes anything gets what the operator has written.
        assert_eq!(page(500, Some("*/*")), "500.html");
        assert_eq!(page(404, None), "404.txt");
        assert!(page(404, Some("text/html")).contains("<h1>404"));
    }

    #[test]
    fn accept_is_found_in_what_is_no_good_head() {
        for (head, accept) in [
            (
                &b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n"[..],
                Some(&b"text/html"[..]),
            ),
            (b"\x16\x03\nX\nACCEPT:  a/b \n", Some(b"a/b")),
            (b"accept: text/html\r\n", None),
            (b"GET / HTTP/1.1\r\n\r\nAccept: x\r\n", None),
            (b"GET / HTTP/1.1\r\nAcc", None),
            (b"", None),
        ] {
            assert_eq!(accept_of(head), accept, "{head:?}");
        }
    }
}
