//! What proxies say about a request they pass on: `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`, or
//! `Forwarded` (RFC 7239).
//!
//! Anybody can send these fields, so they count only when the sender is a trusted proxy, and only as far
//! as trusted proxies have written them: addresses are walked from the right, where the nearest proxy
//! has added its own, to the first one that is not trusted. Of what is no list of hops the last value
//! counts, which is that of the nearest proxy whether it adds or replaces. `Forwarded` and the `X-`
//! fields are never read together: a proxy that sets one passes on whatever a client writes into the
//! other.

#![forbid(unsafe_code)]

mod element;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::grammar::{decimal, trim_ows};
use super::refusal::Refusal;
use super::target::{is_host, split_host};
use element::Element;

/// A field that says something about who asked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Forwarded,
    For,
    Proto,
    Host,
    Port,
}

impl Field {
    pub const ALL: [Field; 5] = [
        Field::Forwarded,
        Field::For,
        Field::Proto,
        Field::Host,
        Field::Port,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Field::Forwarded => "forwarded",
            Field::For => "x-forwarded-for",
            Field::Proto => "x-forwarded-proto",
            Field::Host => "x-forwarded-host",
            Field::Port => "x-forwarded-port",
        }
    }
}

/// The fields that a trusted proxy is known to set or to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Believed(u8);

impl Believed {
    #[must_use]
    pub fn with(self, field: Field) -> Believed {
        Believed(self.0 | 1 << field as u8)
    }

    pub fn has(self, field: Field) -> bool {
        self.0 & 1 << field as u8 != 0
    }
}

/// Who has sent a request, as far as these fields are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender<'b> {
    /// No proxies are known: the fields are the application's business alone.
    Unjudged,
    /// No trusted proxy: nothing it says about others counts.
    Stranger,
    Proxy(Forwarded<'b>),
}

/// What a trusted proxy says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded<'b> {
    pub client: Client,
    pub scheme: Option<Scheme>,
    /// Valid and not empty.
    pub host: Option<Cow<'b, [u8]>>,
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Client {
    /// Nobody was named: the proxy asks for itself.
    #[default]
    Sender,
    /// Port 0 when it was not told.
    At(SocketAddr),
    /// Somebody whose address was withheld or cannot be read.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn read(text: &[u8]) -> Result<Scheme, Refusal> {
        // A WebSocket handshake is a request of HTTP, and some proxies name it so.
        let is = |name: &str| text.eq_ignore_ascii_case(name.as_bytes());
        match () {
            () if is("https") || is("wss") => Ok(Scheme::Https),
            () if is("http") || is("ws") => Ok(Scheme::Http),
            () => Err(Refusal::BadForwarded),
        }
    }

    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl<'b> Forwarded<'b> {
    /// Reads the fields of a request that a trusted proxy has sent.
    ///
    /// # Errors
    /// [`Refusal::BadForwarded`] for what cannot be read in exactly one way, addresses apart: one that
    /// is no address is [`Client::Unknown`].
    pub fn read(
        fields: &[httparse::Header<'b>],
        believed: Believed,
        trusts: impl Fn(IpAddr) -> bool,
    ) -> Result<Forwarded<'b>, Refusal> {
        if believed.has(Field::Forwarded) {
            return standard(fields, trusts);
        }
        let last = |field: Field| {
            let values = from_the_right(fields, field);
            Some(values)
                .filter(|_| believed.has(field))
                .and_then(|mut v| v.next())
        };
        let client = match believed.has(Field::For) {
            true => walk(from_the_right(fields, Field::For).map(node), trusts).0,
            false => Client::Sender,
        };
        Ok(Forwarded {
            client,
            scheme: last(Field::Proto).map(Scheme::read).transpose()?,
            host: last(Field::Host)
                .map(|host| valid_host(host.into()))
                .transpose()?,
            port: last(Field::Port).map(valid_port).transpose()?,
        })
    }

    pub fn is_https(&self) -> bool {
        self.scheme == Some(Scheme::Https)
    }

    /// The host as the client has named it, given the one that the proxy has: without the default
    /// port of the scheme where the port was forwarded.
    pub fn host<'a>(&'a self, host: Option<&'a [u8]>) -> Option<Cow<'a, [u8]>> {
        let host = self.host.as_deref().or(host)?;
        let Some(port) = self.port else {
            return Some(host.into());
        };
        let (name, _) = split_host(host);
        if name.is_empty() || port == self.scheme.unwrap_or(Scheme::Http).default_port() {
            return Some(name.into());
        }
        let mut text = name.to_vec();
        text.extend_from_slice(format!(":{port}").as_bytes());
        Some(text.into())
    }
}

/// Whether the application sees a field. With trusted proxies in force, what it sees of these fields
/// was written or passed on by one of them, and is one that it is known to set.
pub fn is_shown(name: &[u8], sender: &Sender<'_>, believed: Believed) -> bool {
    let Some(kind) = Kind::of(name) else {
        return true;
    };
    match (sender, kind) {
        (Sender::Unjudged, _) => true,
        (Sender::Stranger, _) | (_, Kind::Disguised) => false,
        (Sender::Proxy(_), Kind::Decisive(field)) => believed.has(field),
        (Sender::Proxy(_), Kind::Other) => true,
    }
}

/// What a name stands for, to an application that finds it in capitals and with `_` for `-`.
enum Kind {
    Decisive(Field),
    /// `X-Forwarded-Prefix`, `X-Real-IP` and the like: applications may believe it, we do not read it.
    Other,
    /// One of both, spelled with `_`.
    Disguised,
}

impl Kind {
    fn of(name: &[u8]) -> Option<Kind> {
        // Nearly all names end here.
        if name.len() < 9 || !matches!(name[0] | 0x20, b'x' | b'f') {
            return None;
        }
        let plain = |byte: u8| match byte {
            b'_' => b'-',
            other => other.to_ascii_lowercase(),
        };
        let starts = |wanted: &str| {
            let start = name.iter().zip(wanted.bytes());
            name.len() >= wanted.len() && start.into_iter().all(|(a, b)| plain(*a) == b)
        };
        let is = |wanted: &str| name.len() == wanted.len() && starts(wanted);
        if !(starts("x-forwarded-") || is("forwarded") || is("x-real-ip")) {
            return None;
        }
        if name.contains(&b'_') {
            return Some(Kind::Disguised);
        }
        let field = Field::ALL.into_iter().find(|field| is(field.name()));
        Some(field.map_or(Kind::Other, Kind::Decisive))
    }
}

/// The values of a list, the last one first, from all fields of the name (RFC 9110 §5.3); without
/// empty ones (§5.6.1).
fn from_the_right<'b>(
    fields: &[httparse::Header<'b>],
    field: Field,
) -> impl Iterator<Item = &'b [u8]> {
    let named = fields.iter().rev();
    let named = named.filter(move |f| f.name.eq_ignore_ascii_case(field.name()));
    let values = named.flat_map(|f| f.value.rsplit(|byte| *byte == b','));
    values.map(trim_ows).filter(|value| !value.is_empty())
}

/// Follows the addresses to the first one that is not trusted, and says how many were looked at.
fn walk(
    nodes: impl Iterator<Item = Option<SocketAddr>>,
    trusts: impl Fn(IpAddr) -> bool,
) -> (Client, usize) {
    let (mut client, mut seen) = (Client::Sender, 0);
    for node in nodes {
        seen += 1;
        match node {
            // Who passed it on is known, who asked is not: to name the proxy would make everybody
            // look like it.
            None => return (Client::Unknown, seen),
            Some(address) => {
                client = Client::At(address);
                if !trusts(address.ip()) {
                    break;
                }
            }
        }
    }
    (client, seen)
}

/// One hop: `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7`, `[2001:db8::7]`, `[2001:db8::7]:4711`. `None`
/// for `unknown`, for a name that hides an address (RFC 7239 §6.3), and for whatever else is there.
fn node(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']')?;
        let port = match rest {
            "" => 0,
            rest => node_port(rest.strip_prefix(':')?)?,
        };
        return Some(address(ip.parse::<Ipv6Addr>().ok()?.into(), port));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(address(ip, 0));
    }
    let (ip, port) = text.rsplit_once(':')?;
    Some(address(
        ip.parse::<Ipv4Addr>().ok()?.into(),
        node_port(port)?,
    ))
}

/// Of a number or a name that hides one.
fn node_port(text: &str) -> Option<u16> {
    match text.strip_prefix('_') {
        Some(_) => Some(0),
        None => decimal(text.as_bytes()).and_then(|port| u16::try_from(port).ok()),
    }
}

/// An IPv4 address in the clothes of IPv6 would slip through the networks.
fn address(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

fn valid_host(host: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, Refusal> {
    match !host.is_empty() && is_host(&host) {
        true => Ok(host),
        false => Err(Refusal::BadForwarded),
    }
}

fn valid_port(text: &[u8]) -> Result<u16, Refusal> {
    let port = decimal(text).and_then(|port| u16::try_from(port).ok());
    port.filter(|port| *port > 0).ok_or(Refusal::BadForwarded)
}

/// `Forwarded`: each proxy adds an element, so scheme and host are those of the element that names the
/// client. A client cannot make its element run into that of a proxy: an open quote of its own ends at
/// the first one of the proxy, and what follows is no element.
fn standard<'b>(
    fields: &[httparse::Header<'b>],
    trusts: impl Fn(IpAddr) -> bool,
) -> Result<Forwarded<'b>, Refusal> {
    let mut elements: Vec<Element<'b>> = Vec::new();
    for field in fields {
        if field.name.eq_ignore_ascii_case(Field::Forwarded.name()) {
            element::read(field.value, &mut elements).ok_or(Refusal::BadForwarded)?;
        }
    }
    let nodes = elements.iter().rev();
    let nodes = nodes.map(|element| element.client.as_deref().and_then(node));
    let (client, seen) = walk(nodes, trusts);
    if seen == 0 {
        return Ok(Forwarded::default());
    }
    let element = elements.swap_remove(elements.len() - seen);
    let scheme = element.scheme.map(|scheme| Scheme::read(&scheme));
    Ok(Forwarded {
        client,
        scheme: scheme.transpose()?,
        host: element.host.map(valid_host).transpose()?,
        port: None,
    })
}

#[cfg(test)]
mod tests;
