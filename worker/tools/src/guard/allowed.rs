//! The hosts that the operator of a worker has opened.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use reqwest::Url;

/// `GATHERING_ALLOWED_HOSTS`: names, addresses and networks, between commas. They may be reached whatever their
/// addresses are.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct AllowedHosts {
    names: BTreeSet<String>,
    networks: Vec<IpNet>,
}

impl AllowedHosts {
    pub(super) fn has_name(&self, host: &str) -> bool {
        self.names.contains(host)
    }

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        // A mapped address is another way to write the one within.
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for AllowedHosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut hosts = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if let Ok(network) = entry.parse::<IpNet>() {
                hosts.networks.push(network);
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                hosts.networks.push(address.to_canonical().into());
            } else {
                let name = name(entry).ok_or_else(|| {
                    format!(
                        "GATHERING_ALLOWED_HOSTS takes names, addresses and networks between commas, like \
                         `db.internal,10.1.2.3,fd00::/8`; `{entry}` is none of these"
                    )
                })?;
                hosts.names.insert(name);
            }
        }
        Ok(hosts)
    }
}

/// A name as addresses of requests have it: in lower case, and in ASCII.
fn name(entry: &str) -> Option<String> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let url =
        Url::parse(&format!("http://{entry}/")).ok().filter(|_| entry.chars().all(is_plain))?;
    let host = url.domain()?;
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty()).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn names_addresses_and_networks_are_opened() {
        let hosts: AllowedHosts =
            "Db.Internal., 10.1.2.3,fd00::/8 ,,::ffff:10.9.9.9,bücher.example".parse().unwrap();
        for name in ["db.internal", "xn--bcher-kva.example"] {
            assert!(hosts.has_name(name), "{name}");
        }
        assert!(!hosts.has_name("internal"));
        for (address, open) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.1.2.4", false),
            ("fd12::1", true),
            ("fe80::1", false),
            ("10.9.9.9", true),
        ] {
            assert_eq!(hosts.has_address(address.parse().unwrap()), open, "{address}");
        }
        assert_eq!("".parse(), Ok(AllowedHosts::default()));
    }

    #[test]
    fn a_wrong_setting_names_the_variable_and_the_form_it_wants() {
        for wrong in ["10.0.0.0/33", "a b", "http://x", "x:80", "*", "10.0.0.256", "[::1]"] {
            let error = wrong.parse::<AllowedHosts>().unwrap_err();
            assert!(error.contains("GATHERING_ALLOWED_HOSTS") && error.contains(wrong), "{error}");
        }
    }
}
