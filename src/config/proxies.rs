//! Whose word about the client counts: `--trusted-proxies`, and which of their fields:
//! `--forwarded-fields`.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::layers::Layers;
use crate::error::Result;

/// Nobody by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxies {
    pub trusted: Vec<Trusted>,
    pub fields: Vec<ForwardedField>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Trusted {
    /// Whoever may connect to a Unix socket.
    Unix,
    Network(Network),
}

/// Addresses with a common start. IPv4 in IPv6 is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    start: IpAddr,
    bits: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedField {
    Forwarded,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XForwardedPort,
}

/// What every proxy is told to set.
const USUAL: [ForwardedField; 2] = [
    ForwardedField::XForwardedFor,
    ForwardedField::XForwardedProto,
];

impl Proxies {
    /// Whether a peer is a trusted proxy; one without an address is on a Unix socket.
    pub fn trust(&self, peer: Option<SocketAddr>) -> bool {
        match peer {
            Some(address) => self.trust_address(address.ip()),
            None => self.trusted.contains(&Trusted::Unix),
        }
    }

    pub fn trust_address(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|trusted| match trusted {
            Trusted::Unix => false,
            Trusted::Network(network) => network.contains(address),
        })
    }
}

pub(super) fn resolve(layers: &Layers) -> Result<Proxies> {
    let mut fields: Vec<ForwardedField> = several(layers, "forwarded-fields")?;
    if fields.is_empty() {
        fields = USUAL.to_vec();
    }
    // A proxy that sets the one passes on what clients write into the others.
    let mixed = fields.contains(&ForwardedField::Forwarded)
        && fields.iter().any(|f| *f != ForwardedField::Forwarded);
    if mixed {
        let reason = "forwarded cannot be combined with others: a proxy that sets one of them passes on \
            what clients write into the other";
        layers.check("forwarded-fields", Err::<(), _>(reason.to_owned()))?;
    }
    Ok(Proxies {
        trusted: several(layers, "trusted-proxies")?,
        fields,
    })
}

/// A list whose values may also stand in one text, between commas.
fn several<T: FromStr<Err = String>>(layers: &Layers, name: &str) -> Result<Vec<T>> {
    let values = layers.list(name, |text| text.split(',').map(str::parse).collect())?;
    let values: Vec<Vec<T>> = values;
    Ok(values.into_iter().flatten().collect())
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        let (bits, start, address) = match (self.start, address.to_canonical()) {
            (IpAddr::V4(start), IpAddr::V4(address)) => {
                (32, start.to_bits().into(), address.to_bits().into())
            }
            (IpAddr::V6(start), IpAddr::V6(address)) => (128, start.to_bits(), address.to_bits()),
            _ => return false,
        };
        let differs: u128 = start ^ address;
        // Shifting by all bits is no shift in Rust.
        differs
            .checked_shr(bits - u32::from(self.bits))
            .unwrap_or(0)
            == 0
    }

    fn host_bits(self) -> Network {
        let mask = |bits: u32| {
            u128::MAX
                .checked_shl(bits - u32::from(self.bits))
                .unwrap_or(0)
        };
        let start = match self.start {
            IpAddr::V4(ip) => {
                let mask = u32::try_from(mask(32) & u128::from(u32::MAX)).unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & mask(128)).into()),
        };
        Network { start, ..self }
    }
}

impl FromStr for Trusted {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Trusted, String> {
        match text.trim() {
            "unix" => Ok(Trusted::Unix),
            text => text.parse().map(Trusted::Network),
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Network, String> {
        let wrong = || {
            format!(
                "{text:?} is neither an address, nor a network such as 10.0.0.0/8, nor \"unix\"; everybody \
                 is 0.0.0.0/0, ::/0"
            )
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let start: IpAddr = address.parse().map_err(|_| wrong())?;
        if start != start.to_canonical() {
            return Err(format!(
                "{text:?} is IPv4 written as IPv6; write the IPv4 address"
            ));
        }
        let most = if start.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => super::value::number(bits)
                .ok()
                .and_then(|bits| u8::try_from(bits).ok())
                .filter(|bits| *bits <= most)
                .ok_or_else(wrong)?,
        };
        let network = Network { start, bits };
        let clean = network.host_bits();
        match clean == network {
            true => Ok(network),
            false => Err(format!(
                "{text:?} has bits behind its prefix; did you mean \"{clean}\" or \"{start}\"?"
            )),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.start, self.bits)
    }
}

impl FromStr for ForwardedField {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<ForwardedField, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "forwarded" => Ok(ForwardedField::Forwarded),
            "x-forwarded-for" => Ok(ForwardedField::XForwardedFor),
            "x-forwarded-proto" => Ok(ForwardedField::XForwardedProto),
            "x-forwarded-host" => Ok(ForwardedField::XForwardedHost),
            "x-forwarded-port" => Ok(ForwardedField::XForwardedPort),
            _ => Err(format!(
                "{text:?} is not one of x-forwarded-for, x-forwarded-proto, x-forwarded-host, \
                 x-forwarded-port, forwarded"
            )),
        }
    }
}

impl TryFrom<String> for Trusted {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Trusted, String> {
        text.parse()
    }
}

impl From<Trusted> for String {
    fn from(trusted: Trusted) -> String {
        match trusted {
            Trusted::Unix => "unix".to_owned(),
            Trusted::Network(network) => network.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(trusted: &str) -> Proxies {
        Proxies {
            trusted: trusted
                .split(',')
                .map(|text| text.parse().unwrap())
                .collect(),
            fields: USUAL.to_vec(),
        }
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.7/32", "::ffff:192.0.2.7", "::192.0.2.7"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::7", "192.0.2.7"),
            ("::1", "::1", "::2"),
            ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
            ("fe80::/10", "febf::1", "fec0::"),
        ] {
            let proxies = proxies(network);
            assert!(proxies.trust_address(inside.parse().unwrap()), "{network}");
            assert!(
                !proxies.trust_address(outside.parse().unwrap()),
                "{network}"
            );
            assert!(!proxies.trust(None), "{network}");
        }
    }

    #[test]
    fn unix_is_those_without_an_address() {
        assert!(proxies("unix").trust(None));
        assert!(!proxies("unix").trust("127.0.0.1:1".parse().ok()));
        assert!(proxies("::1, unix").trust(None));
        assert!(!Proxies::default().trust(None));
    }

    #[test]
    fn what_is_no_network_is_refused_with_advice() {
        for (text, advice) in [
            ("10.0.0.1/8", "\"10.0.0.0/8\""),
            ("2001:db8::1/32", "\"2001:db8::/32\""),
            ("::ffff:10.0.0.1", "write the IPv4 address"),
            ("10.0.0.0/33", "10.0.0.0/8"),
            ("::/129", "10.0.0.0/8"),
            ("10.0.0.0/", "10.0.0.0/8"),
            ("10.0.0.0/-1", "10.0.0.0/8"),
            ("10.0.0", "10.0.0.0/8"),
            ("*", "0.0.0.0/0, ::/0"),
            ("localhost", "nor \"unix\""),
            ("", "neither"),
        ] {
            let reason = text.parse::<Trusted>().unwrap_err();
            assert!(reason.contains(advice), "{reason}");
        }
    }

    #[test]
    fn what_is_sent_to_a_master_comes_back() {
        let sent = proxies("unix,10.0.0.0/8,::1");
        let json = serde_json::to_string(&sent).unwrap();
        assert_eq!(serde_json::from_str::<Proxies>(&json).unwrap(), sent);
    }
}
