//! The addresses that are not on the public internet, by the registries of IANA
//! (`iana-ipv4-special-registry`, `iana-ipv6-special-registry`), as of 2026.
//!
//! `std`'s `is_global` is not stable, and crates that classify addresses lag behind the registries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Addresses of one purpose.
#[derive(Debug, PartialEq)]
pub(super) struct Range {
    /// What its addresses are.
    pub(super) what: &'static str,
    /// Who says so.
    pub(super) source: &'static str,
}

const fn range(what: &'static str, source: &'static str) -> Range {
    Range { what, source }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 4], prefix: u8) -> Ipv6Net {
    let [a, b, c, d] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

static V4: [(Ipv4Net, Range); 17] = [
    (v4(0, 0, 0, 0, 8), range("unspecified", "RFC 1122")),
    (v4(10, 0, 0, 0, 8), range("private", "RFC 1918")),
    (v4(100, 64, 0, 0, 10), range("shared by carriers (CGNAT)", "RFC 6598")),
    (v4(127, 0, 0, 0, 8), range("loopback", "RFC 1122")),
    // Where clouds have their metadata: 169.254.169.254.
    (v4(169, 254, 0, 0, 16), range("link-local", "RFC 3927")),
    (v4(172, 16, 0, 0, 12), range("private", "RFC 1918")),
    (v4(192, 0, 0, 0, 24), range("for protocols", "RFC 6890")),
    (v4(192, 0, 2, 0, 24), range("for documentation", "RFC 5737")),
    (v4(192, 88, 99, 0, 24), range("of 6to4 relays", "RFC 7526")),
    (v4(192, 168, 0, 0, 16), range("private", "RFC 1918")),
    (v4(198, 18, 0, 0, 15), range("for benchmarks", "RFC 2544")),
    (v4(198, 51, 100, 0, 24), range("for documentation", "RFC 5737")),
    (v4(203, 0, 113, 0, 24), range("for documentation", "RFC 5737")),
    (v4(224, 0, 0, 0, 4), range("multicast", "RFC 5771")),
    (v4(255, 255, 255, 255, 32), range("broadcast", "RFC 8190")),
    (v4(240, 0, 0, 0, 4), range("reserved", "RFC 1112")),
    // Public by its number, and in every virtual machine the platform's own.
    (v4(168, 63, 129, 16, 32), range("the platform's metadata", "Azure")),
];

/// Only what is within 2000::/3 can be public.
static V6: [(Ipv6Net, Range); 14] = [
    (v6([0, 0, 0, 0], 128), range("unspecified", "RFC 4291")),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), range("loopback", "RFC 4291")),
    (v6([0, 0, 0, 0], 96), range("IPv4-compatible", "RFC 4291")),
    (v6([0x64, 0xff9b, 1, 0], 48), range("translated locally (NAT64)", "RFC 8215")),
    (v6([0x100, 0, 0, 0], 64), range("discarded", "RFC 6666")),
    (v6([0x2001, 0, 0, 0], 32), range("a Teredo tunnel's", "RFC 4380")),
    (v6([0x2001, 2, 0, 0], 48), range("for benchmarks", "RFC 5180")),
    (v6([0x2001, 0xdb8, 0, 0], 32), range("for documentation", "RFC 3849")),
    (v6([0x2001, 0, 0, 0], 23), range("for protocols", "RFC 2928")),
    (v6([0x2002, 0, 0, 0], 16), range("a 6to4 tunnel's", "RFC 3056")),
    (v6([0x3fff, 0, 0, 0], 20), range("for documentation", "RFC 9637")),
    (v6([0xfc00, 0, 0, 0], 7), range("private", "RFC 4193")),
    (v6([0xfe80, 0, 0, 0], 10), range("link-local", "RFC 4291")),
    (v6([0xff00, 0, 0, 0], 8), range("multicast", "RFC 4291")),
];

static GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0], 3);
static OTHER_V6: Range = range("reserved", "RFC 4291");
/// Stands for the IPv4 address in its last 32 bits: RFC 6052.
static NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0], 96);

/// Why an address is not on the public internet; none if it is.
pub(super) fn not_public(address: IpAddr) -> Option<&'static Range> {
    match address.to_canonical() {
        IpAddr::V4(address) => of_v4(address),
        IpAddr::V6(address) if NAT64.contains(&address) => {
            let [.., a, b, c, d] = address.octets();
            of_v4(Ipv4Addr::new(a, b, c, d))
        }
        IpAddr::V6(address) => V6
            .iter()
            .find(|(network, _)| network.contains(&address))
            .map(|(_, range)| range)
            .or_else(|| (!GLOBAL_V6.contains(&address)).then_some(&OTHER_V6)),
    }
}

fn of_v4(address: Ipv4Addr) -> Option<&'static Range> {
    V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, range)| range)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn each_range_ends_where_its_document_says() {
        for (inside, outside) in [
            ("0.255.255.255", "1.0.0.0"),
            ("10.255.255.255", "11.0.0.0"),
            ("100.64.0.0", "100.63.255.255"),
            ("100.127.255.255", "100.128.0.0"),
            ("127.255.255.255", "128.0.0.0"),
            ("169.254.169.254", "169.253.255.255"),
            ("172.16.0.0", "172.15.255.255"),
            ("172.31.255.255", "172.32.0.0"),
            ("192.0.0.192", "192.0.1.0"),
            ("192.0.2.255", "192.0.3.0"),
            ("192.88.99.1", "192.88.98.255"),
            ("192.168.255.255", "192.169.0.0"),
            ("198.18.0.0", "198.17.255.255"),
            ("198.19.255.255", "198.20.0.0"),
            ("198.51.100.7", "198.51.101.0"),
            ("203.0.113.7", "203.0.112.255"),
            ("224.0.0.0", "223.255.255.255"),
            ("255.255.255.255", "9.9.9.9"),
            ("168.63.129.16", "168.63.129.17"),
            ("::", "2600::"),
            ("::1", "2606:4700::1111"),
            ("::127.0.0.1", "2a00::"),
            ("::ffff:10.0.0.1", "::ffff:8.8.8.8"),
            ("64:ff9b::a00:1", "64:ff9b::808:808"),
            ("64:ff9b:1::808:808", "2001:4860:4860::8888"),
            ("100::1", "2400::1"),
            ("2001::1", "2001:200::1"),
            ("2001:2::1", "2001:400::1"),
            ("2001:db8::1", "2001:db9::1"),
            ("2002:808:808::1", "2003::1"),
            ("3fff:fff::1", "3fff:1000::1"),
            ("5f00::1", "3ffe::1"),
            ("fd00:ec2::254", "2620::1"),
            ("fe80::1", "2c00::1"),
            ("fec0::1", "2800::1"),
            ("ff02::1", "2a01::1"),
        ] {
            assert!(not_public(inside.parse().unwrap()).is_some(), "{inside} is not public");
            assert_eq!(not_public(outside.parse().unwrap()), None, "{outside} is public");
        }
    }
}
