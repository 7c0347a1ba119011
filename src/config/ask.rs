//! One request that is to be answered without a server: `rswsgi request`.

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::before_fork::{WarmUp, read_warm_up};

/// The request, and what is to be shown of its response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub method: String,
    pub to: WarmUp,
    pub fields: Vec<(String, String)>,
    /// Names of fields that are not to be sent.
    pub without: Vec<String>,
    pub show_head: ShowHead,
}

/// Where status and fields of the response go; its body goes to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShowHead {
    Stderr,
    Stdout,
    Nowhere,
}

/// The body of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Text(String),
    File(PathBuf),
    Stdin,
}

impl Ask {
    /// What is asked when nobody says what.
    pub(super) fn page() -> Ask {
        Ask {
            method: "GET".into(),
            to: WarmUp {
                host: "localhost".into(),
                target: "/".into(),
                is_https: false,
            },
            fields: Vec::new(),
            without: Vec::new(),
            show_head: ShowHead::Stderr,
        }
    }

    /// The head of the request; `length` is that of its body.
    pub fn head(&self, length: Option<u64>) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.to.target);
        let mut usual = vec![("Host", self.to.host.clone())];
        if self.to.is_https {
            usual.push(("X-Forwarded-Proto", "https".into()));
        }
        usual.push((
            "User-Agent",
            concat!("rswsgi/", env!("CARGO_PKG_VERSION")).into(),
        ));
        usual.push(("Accept", "*/*".into()));
        if length.is_some() {
            let form = "application/x-www-form-urlencoded";
            usual.push(("Content-Type", form.into()));
        }
        let given = |name: &str| {
            let mut names = self.fields.iter().map(|(name, _)| name);
            let mut without = self.without.iter();
            names.any(|given| given.eq_ignore_ascii_case(name))
                || without.any(|given| given.eq_ignore_ascii_case(name))
        };
        for (name, value) in usual.iter().filter(|(name, _)| !given(name)) {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        for (name, value) in &self.fields {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if let Some(length) = length {
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        head + "\r\n"
    }
}

/// `/path?query` or `http://host/path`; what cannot stand in a request is percent-encoded, as a browser
/// would.
pub(super) fn read_path(text: &str) -> Result<WarmUp, String> {
    let text = text.split('#').next().unwrap_or_default();
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_graphic() {
            true => encoded.push(char::from(byte)),
            false => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    read_warm_up(&encoded)
}

/// `Name: value`; with `Name:` the field is not sent.
pub(super) fn read_field(text: &str) -> Result<(String, Option<String>), String> {
    let bad = || format!("{text:?} is not NAME: VALUE");
    let (name, value) = text.split_once(':').ok_or_else(bad)?;
    let (name, value) = (name.trim(), value.trim());
    if !is_token(name) || value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(bad());
    }
    if ["content-length", "transfer-encoding"].contains(&&*name.to_ascii_lowercase()) {
        return Err(format!("{name} follows from --data"));
    }
    let value = (!value.is_empty()).then(|| value.to_owned());
    Ok((name.to_owned(), value))
}

pub(super) fn read_method(text: &str) -> Result<String, String> {
    match is_token(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not a method such as GET or POST")),
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

/// Several stand one after the other, joined by `&`; a file stands alone.
pub(super) fn read_data(texts: &[String]) -> Result<Option<Data>, String> {
    let file = |text: &String| text.strip_prefix('@').map(str::to_owned);
    match texts {
        [] => Ok(None),
        [single] => Ok(Some(match file(single).as_deref() {
            None => Data::Text(single.clone()),
            Some("-") => Data::Stdin,
            Some("") => return Err("a file is missing after '@'".into()),
            Some(path) => Data::File(path.into()),
        })),
        several => match several.iter().any(|text| text.starts_with('@')) {
            true => Err("a file is to be the only --data".into()),
            false => Ok(Some(Data::Text(several.join("&")))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, fields: &[(&str, &str)]) -> Ask {
        Ask {
            method: method.into(),
            to: read_path(path).unwrap(),
            fields: fields
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            without: Vec::new(),
            show_head: ShowHead::Nowhere,
        }
    }

    #[test]
    fn the_head_has_what_a_client_would_send() {
        let agent = concat!("User-Agent: rswsgi/", env!("CARGO_PKG_VERSION"), "\r\n");
        assert_eq!(
            ask("GET", "/a?b=c", &[]).head(None),
            format!("GET /a?b=c HTTP/1.1\r\nHost: localhost\r\n{agent}Accept: */*\r\n\r\n")
        );
        let fields = [
            ("host", "x"),
            ("user-agent", "me"),
            ("Accept", "a/b"),
            ("Cookie", "c"),
        ];
        assert_eq!(
            ask("PUT", "https://y.org/", &fields).head(Some(3)),
            "PUT / HTTP/1.1\r\nX-Forwarded-Proto: https\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             host: x\r\nuser-agent: me\r\nAccept: a/b\r\nCookie: c\r\nContent-Length: 3\r\n\r\n"
        );
        let mut ask = ask("GET", "/", &[]);
        ask.without = vec!["accept".into(), "USER-AGENT".into()];
        assert_eq!(ask.head(None), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }

    #[test]
    fn paths_are_encoded_and_fragments_left_out() {
        let target = |text| read_path(text).map(|to| to.target);
        assert_eq!(target("/ä b%20?q=1#top"), Ok("/%C3%A4%20b%20?q=1".into()));
        assert_eq!(target("http://x.org"), Ok("/".into()));
        assert!(target("a").is_err() && target("").is_err());
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for bad in [
            "",
            "Name",
            ": x",
            "a b: c",
            "a: b\r\nc: d",
            "Content-Length: 3",
        ] {
            assert!(read_field(bad).is_err(), "{bad:?}");
        }
        assert_eq!(read_field("A:"), Ok(("A".into(), None)));
        assert_eq!(read_field("A: b:c "), Ok(("A".into(), Some("b:c".into()))));
        assert!(read_method("GE T").is_err() && read_method("PURGE").is_ok());
        let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            read_data(&own(&["a=1", "b"])),
            Ok(Some(Data::Text("a=1&b".into())))
        );
        assert_eq!(read_data(&own(&["@-"])), Ok(Some(Data::Stdin)));
        assert_eq!(read_data(&own(&["@x"])), Ok(Some(Data::File("x".into()))));
        assert!(read_data(&own(&["@x", "a"])).is_err() && read_data(&own(&["@"])).is_err());
    }
}
