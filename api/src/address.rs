//! Where a request comes from: the client's own address, through the proxies that are trusted to tell it.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use axum::http::HeaderMap;

/// A range of addresses, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    base: u128,
    /// How many leading bits count, of 128.
    bits: u32,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn leading(number: u128, bits: u32) -> u128 {
    if bits == 0 { 0 } else { number >> (128 - bits) }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither an address nor a network such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        if bits > width {
            return Err(wrong());
        }
        Ok(Self { base: number(address), bits: 128 - width + bits })
    }
}

impl Network {
    fn has(self, address: IpAddr) -> bool {
        leading(number(address), self.bits) == leading(self.base, self.bits)
    }
}

/// The proxies whose word counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies(pub(crate) Vec<Network>);

impl Proxies {
    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.has(address))
    }

    /// The client: the last address of `X-Forwarded-For` that no trusted proxy has, if a trusted one sent it.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        let mut client = peer;
        let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        let said = lines.iter().rev().flat_map(|line| line.to_str().unwrap_or("?").rsplit(','));
        for text in said {
            if !self.trusts(client) {
                break;
            }
            // What cannot be read was not written by a proxy of ours: the one who handed it on is all that is known.
            let Some(address) = read(text.trim()) else { break };
            client = address;
        }
        client
    }

    /// Whether the client speaks TLS to a trusted proxy.
    pub(crate) fn is_secure(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let said = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        self.trusts(peer.to_canonical())
            && said.is_some_and(|said| said.trim().eq_ignore_ascii_case("https"))
    }
}

/// An address, with a port perhaps.
fn read(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| Some(rest.split_once(']')?.0));
    let without_port = || text.split_once(':').map(|(address, _)| address);
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    address.or_else(|error| without_port().ok_or(error)?.parse()).ok().map(|ip| ip.to_canonical())
}

/// What is counted as one client: an address, or the network of 64 bits that one customer gets.
pub(crate) fn counted(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let network = u128::from(v6) >> 64 << 64;
            format!("{}/64", Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, trusted: &[&str], said: &[&str]) -> String {
        let networks = trusted.iter().map(|text| text.parse().expect("a network")).collect();
        let mut headers = HeaderMap::new();
        for line in said {
            headers.append("x-forwarded-for", line.parse().expect("a header's value"));
        }
        Proxies(networks).client(peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let peer = "10.0.0.1";
        assert_eq!(client(peer, &[], &["1.1.1.1"]), peer);
        assert_eq!(client(peer, &["10.0.0.0/8"], &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client("11.0.0.1", &["10.0.0.0/8"], &["1.1.1.1"]), "11.0.0.1");
        // What the client made up stands left of what the proxy added.
        assert_eq!(client(peer, &["10.0.0.0/8"], &["6.6.6.6, 1.1.1.1"]), "1.1.1.1");
        assert_eq!(client(peer, &["10.0.0.0/8"], &["6.6.6.6", "1.1.1.1, 10.9.9.9"]), "1.1.1.1");
        assert_eq!(client(peer, &["10.0.0.0/8"], &["1.1.1.1, nonsense"]), peer);
        assert_eq!(client(peer, &["10.0.0.1"], &["1.1.1.1:4711"]), "1.1.1.1");
        assert_eq!(
            client("::ffff:10.0.0.1", &["10.0.0.0/8"], &["[2001:db8::1]:80"]),
            "2001:db8::1"
        );
        assert_eq!(client("fd00::1", &["fd00::/8"], &["2001:db8::1"]), "2001:db8::1");
    }

    #[test]
    fn a_network_is_read_strictly() {
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "a/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        let all: Network = "0.0.0.0/0".parse().expect("a network");
        assert!(all.has("1.2.3.4".parse().expect("an address")));
        assert!(!all.has("2001:db8::1".parse().expect("an address")));
    }

    #[test]
    fn a_customer_of_ipv6_counts_as_one() {
        let key = |text: &str| counted(text.parse().expect("an address"));
        assert_eq!(key("2001:db8:1:2:3::4"), key("2001:db8:1:2:ffff::"));
        assert_ne!(key("2001:db8:1:2::"), key("2001:db8:1:3::"));
        assert_eq!(key("::ffff:1.2.3.4"), "1.2.3.4");
    }
}
