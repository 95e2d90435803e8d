//! Where a client is: its address, or the one that a trusted proxy tells.

use http::HeaderMap;
use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Whom limits are counted by: an IPv4 address, or the /64 that one IPv6 customer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpAddr);

impl Source {
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(v6) => {
                let s = v6.segments();
                IpAddr::from([s[0], s[1], s[2], s[3], 0, 0, 0, 0])
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// Addresses of one prefix, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    bits: u128,
    prefix: u32,
    is_v4: bool,
}

/// An address as a number, and how many bits it has.
fn number(ip: IpAddr) -> (u128, u32) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

impl Network {
    fn contains(self, ip: IpAddr) -> bool {
        let (bits, len) = number(ip);
        let shift = len.saturating_sub(self.prefix);
        (len == 32) == self.is_v4
            && bits.checked_shr(shift).unwrap_or(0) == self.bits.checked_shr(shift).unwrap_or(0)
    }
}

/// Not an address, nor one with a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct Malformed(String);

impl FromStr for Network {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let ip: IpAddr = address.trim().parse().map_err(|_| malformed())?;
        let (bits, len) = number(ip);
        let prefix = prefix.map_or(Ok(len), |p| p.trim().parse()).map_err(|_| malformed())?;
        if prefix > len { Err(malformed()) } else { Ok(Self { bits, prefix, is_v4: len == 32 }) }
    }
}

/// Addresses and networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Reads addresses and networks such as `10.0.0.0/8`.
    pub fn parse(texts: &[String]) -> Result<Self, Malformed> {
        texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(Self)
    }

    /// Whether this is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The proxies whose word about a client's address is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Networks);

/// A client as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    pub ip: IpAddr,
    /// It came over TLS, a trusted proxy says.
    pub secure: bool,
}

impl Proxies {
    /// Reads addresses and networks.
    pub fn parse(texts: &[String]) -> Result<Self, Malformed> {
        Networks::parse(texts).map(Self)
    }

    /// Whether this is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(ip)
    }

    /// Who sent a request that came from `peer`. Of `X-Forwarded-For` the last address counts that is not a trusted
    /// proxy itself: everything before it is what clients like to say. Nobody else's headers are looked at.
    pub fn client(&self, headers: &HeaderMap, peer: IpAddr) -> Client {
        if !self.contains(peer) {
            return Client { ip: peer, secure: false };
        }
        let texts = |name: &str| -> Vec<String> {
            let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
            values.flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).collect()
        };
        let mut ip = peer;
        for text in texts(FORWARDED_FOR).iter().rev() {
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            let told = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()));
            // What cannot be read ends the chain: the proxy that wrote it is the best that is known.
            let Some(told) = told else { break };
            ip = told;
            if !self.contains(told) {
                break;
            }
        }
        let secure = texts(FORWARDED_PROTO).last().is_some_and(|p| p.eq_ignore_ascii_case("https"));
        Client { ip, secure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_customers_ipv6_addresses_are_one_source() {
        let same = |a: &str, b: &str| Source::of(ip(a)) == Source::of(ip(b));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let proxies = Proxies::parse(&["10.0.0.0/8".into(), "192.0.2.7".into(), "fd00::/8".into()]).unwrap();
        for inside in ["10.0.0.1", "10.255.1.2", "192.0.2.7", "fd12::1", "::ffff:10.1.1.1"] {
            assert!(proxies.contains(ip(inside)), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "fe80::1", "::a00:1"] {
            assert!(!proxies.contains(ip(outside)), "{outside}");
        }
        assert!(Proxies::parse(&["0.0.0.0/0".into()]).unwrap().contains(ip("8.8.8.8")));
        for bad in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/x"] {
            assert!(Proxies::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_says_where_a_client_is() {
        let proxies = Proxies::parse(&["10.0.0.0/8".into()]).unwrap();
        let case = |peer: &str, forwarded: &[&str], proto: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            if let Some(proto) = proto {
                headers.insert(FORWARDED_PROTO, http::HeaderValue::from_static(proto));
            }
            let client = proxies.client(&headers, ip(peer));
            (client.ip.to_string(), client.secure)
        };
        let known = |text: &str| (text.to_owned(), false);
        assert_eq!(case("203.0.113.5", &["198.51.100.1"], Some("https")), known("203.0.113.5"));
        assert_eq!(case("10.0.0.1", &["198.51.100.1"], Some("https")), ("198.51.100.1".to_owned(), true));
        // What the client itself wrote stands before what the proxy added.
        assert_eq!(case("10.0.0.1", &["1.1.1.1, 198.51.100.1"], None), known("198.51.100.1"));
        assert_eq!(case("10.0.0.1", &["1.1.1.1", "198.51.100.1, 10.0.0.2"], None), known("198.51.100.1"));
        assert_eq!(case("10.0.0.1", &["1.1.1.1, nonsense"], None), known("10.0.0.1"));
        assert_eq!(case("10.0.0.1", &[], None), known("10.0.0.1"));
        assert_eq!(case("10.0.0.1", &["[2001:db8::1]"], None), known("2001:db8::1"));
        assert_eq!(case("10.0.0.1", &["198.51.100.1:4711"], None), known("198.51.100.1"));
    }
}
