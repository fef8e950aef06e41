//! Whose address a request is from, for the limits by address: pure. That of the connection, unless it is a proxy's whom the configuration trusts: then
//! the nearest of `X-Forwarded-For` that is no trusted proxy itself. What stands before that was said by somebody who may lie.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

/// `X-Forwarded-For`: addresses that a request came by, each appended by the next proxy.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Networks whose `X-Forwarded-For` is believed: `10.0.0.0/8`, or one address. Empty: nobody's is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address.
    pub fn client(&self, connected: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = connected.to_canonical();
        if !self.has(nearest) {
            return nearest;
        }
        // bytes: what a client has written before our proxies may be anything
        let said: Vec<&[u8]> =
            headers.get_all(FORWARDED_FOR).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).collect();
        for entry in said.into_iter().rev() {
            // what is no address was not written by a proxy of ours: whoever handed it on is the last that is known
            let Some(address) = std::str::from_utf8(entry).ok().and_then(|entry| address_in(entry.trim())) else { break };
            nearest = address;
            if !self.has(nearest) {
                break;
            }
        }
        nearest
    }
}

/// An address, as proxies write it: bare, or with a port, or in brackets.
fn address_in(entry: &str) -> Option<IpAddr> {
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || entry.parse().ok().map(|address: SocketAddr| address.ip());
    entry.parse().ok().or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

impl<'de> Deserialize<'de> for TrustedProxies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let networks = Vec::<String>::deserialize(deserializer)?;
        let network = |text: &String| {
            let one = || text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
            let parsed = text.parse::<IpNet>().or_else(|_| one()).ok();
            // addresses are compared as IPv4 where they are
            let good = parsed.filter(|network| network.addr() == network.addr().to_canonical());
            good.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no network such as \"10.0.0.0/8\" and no address")))
        };
        networks.iter().map(network).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn trusted(networks: &[&str]) -> TrustedProxies {
        TrustedProxies::deserialize(serde_json::json!(networks)).unwrap()
    }

    fn client(proxies: &TrustedProxies, connected: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        proxies.client(connected.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_proxies_of_ours_are_believed_and_only_what_they_saw() {
        let ours = trusted(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]);
        for (connected, lines, is) in [
            ("203.0.113.1", &["198.51.100.9"][..], "203.0.113.1"), // a stranger who claims to be a proxy
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.9"], "198.51.100.9"),
            ("::ffff:10.0.0.1", &["198.51.100.9"], "198.51.100.9"),
            ("10.0.0.1", &["6.6.6.6, 198.51.100.9"], "198.51.100.9"), // the client wrote the first
            ("10.0.0.1", &["6.6.6.6", "198.51.100.9, 192.0.2.7"], "198.51.100.9"), // two of ours, in two lines
            ("10.0.0.1", &["198.51.100.9:4711"], "198.51.100.9"),
            ("10.0.0.1", &["[2001:470::1]:443 ,2001:db8::5"], "2001:470::1"),
            ("10.0.0.1", &["[2001:470::1]"], "2001:470::1"),
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.9, "], "10.0.0.1"),
            ("10.0.0.1", &["6.6.6.6, <script>, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"), // a client of our own network
        ] {
            assert_eq!(client(&ours, connected, lines), is, "{connected} {lines:?}");
        }
        assert_eq!(client(&TrustedProxies::default(), "10.0.0.1", &["198.51.100.9"]), "10.0.0.1");
    }

    #[test]
    fn what_is_no_network_is_named() {
        for bad in ["proxy.example", "10.0.0.0/33", "::ffff:10.0.0.0/104", ""] {
            let why = TrustedProxies::deserialize(serde_json::json!(["10.0.0.0/8", bad])).unwrap_err();
            assert!(why.to_string().contains(&format!("{bad:?}")), "{why}");
        }
        assert_eq!(client(&trusted(&["::ffff:10.0.0.1"]), "10.0.0.1", &["198.51.100.9"]), "198.51.100.9");
    }

    proptest! {
        /// Whatever a client writes before what our proxy has appended, it is who it is.
        #[test]
        fn nothing_a_client_writes_changes_who_it_is(claims: Vec<u8>) {
            let ours = trusted(&["10.0.0.0/8"]);
            // what a header may hold
            let mut claims: Vec<u8> = claims.into_iter().filter(|byte| *byte >= b' ' && *byte != 0x7f).collect();
            let mut two = HeaderMap::new();
            two.append(FORWARDED_FOR, HeaderValue::from_bytes(&claims).unwrap());
            two.append(FORWARDED_FOR, HeaderValue::from_static("198.51.100.9"));
            claims.extend_from_slice(b",198.51.100.9");
            let one = HeaderMap::from_iter([(FORWARDED_FOR.parse().unwrap(), HeaderValue::from_bytes(&claims).unwrap())]);
            for headers in [one, two] {
                prop_assert_eq!(ours.client([10, 0, 0, 1].into(), &headers).to_string(), "198.51.100.9");
            }
        }
    }
}
