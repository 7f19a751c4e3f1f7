//! Networks that no component may connect to, whatever its manifest allows: the runtime config's
//! `[outbound_networking]`. Checked on the addresses a name resolves to, which are then the ones
//! connected to: the name may resolve to others the next time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

/// The networks that `private` stands for: those that are not globally reachable (IANA's registries
/// of special-purpose addresses, RFC 6890).
const PRIVATE: [&str; 29] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001:2::/48",
    "2001:10::/28",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Blocked networks; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockedNetworks(Arc<[IpNet]>);

impl BlockedNetworks {
    /// Parses entries, each of them `private`, a network or an address.
    ///
    /// # Errors
    /// Describes the first invalid entry.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut networks = Vec::new();
        for entry in entries {
            if entry == "private" {
                networks.extend(PRIVATE.iter().filter_map(|network| network.parse::<IpNet>().ok()));
                continue;
            }
            let address = entry.parse::<IpAddr>().map(IpNet::from);
            let network = entry.parse::<IpNet>().or(address).map_err(|_| {
                format!("\"{entry}\" is not a network; write \"10.0.0.0/8\", or \"private\"")
            })?;
            networks.push(network.trunc());
        }
        Ok(Self(networks.into()))
    }

    /// Whether connections to `address` are blocked.
    #[must_use]
    pub fn blocks(&self, address: IpAddr) -> bool {
        let within = |address: IpAddr| self.0.iter().any(|network| network.contains(&address));
        within(address) || embedded_ipv4(address).is_some_and(|inner| within(inner.into()))
    }

    /// Whether `host`, as in a URL, is an address that is blocked. A name is not.
    #[must_use]
    pub fn blocks_host(&self, host: &str) -> bool {
        let address = host.trim_matches(['[', ']']).parse();
        address.is_ok_and(|address| self.blocks(address))
    }

    /// The `addresses` that are not blocked.
    ///
    /// # Errors
    /// `PermissionDenied` if all of at least one address are blocked.
    pub fn filter(
        &self,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> io::Result<Vec<SocketAddr>> {
        let (blocked, allowed): (Vec<_>, Vec<_>) =
            addresses.partition(|address| self.blocks(address.ip()));
        if allowed.is_empty() && !blocked.is_empty() {
            let problem = "its address is blocked by outbound_networking.block_networks";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
        }
        Ok(allowed)
    }
}

/// The IPv4 address embedded in an IPv6 address: packets to the latter may reach the former.
fn embedded_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    /// Prefix of addresses that a gateway translates (RFC 6052).
    const TRANSLATED: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];
    /// First segment of addresses in a 6to4 tunnel, `2002:<address>::/48` (RFC 3056).
    const TUNNELLED: u16 = 0x2002;
    let IpAddr::V6(address) = address else { return None };
    let segments = address.segments();
    let ipv4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [TUNNELLED, high, low, ..] => Some(ipv4(high, low)),
        [start @ .., high, low] if start == TRANSLATED => Some(ipv4(high, low)),
        // IPv4-mapped, or IPv4-compatible, its deprecated predecessor.
        _ => Ipv6Addr::to_ipv4(&address),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocked(entries: &[&str]) -> BlockedNetworks {
        BlockedNetworks::parse(entries.iter().copied()).unwrap()
    }

    #[test]
    fn private_networks_are_blocked_in_every_form_and_others_are_not() {
        assert!(PRIVATE.iter().all(|network| network.parse::<IpNet>().is_ok()));
        let private = blocked(&["private"]);
        for address in [
            "0.0.0.0",
            "10.10.10.10",
            "100.64.1.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.10.10.10",
            "64:ff9b::10.0.0.1",
            "2002:0a00:0001::1",
            "fc00::f00d",
            "fd00:ec2::254",
            "fe80::1",
        ] {
            assert!(private.blocks(address.parse().unwrap()), "{address}");
            assert!(private.blocks_host(address) && private.blocks_host(&format!("[{address}]")));
        }
        for address in [
            "1.1.1.1",
            "172.32.0.1",
            "::ffff:1.1.1.1",
            "2600::beef",
            "64:ff9b::1.1.1.1",
            "2002:0101::",
        ] {
            assert!(!private.blocks(address.parse().unwrap()), "{address}");
        }
        assert!(!private.blocks_host("localhost"), "a name is checked once it is resolved");
        assert!(!BlockedNetworks::default().blocks("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn blocked_addresses_are_filtered_out() {
        let some = blocked(&["8.8.8.8/16", "1.1.1.1", "2600:f00d::/32"]);
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let all = addresses(&["8.8.4.4:1", "8.9.4.4:2", "[2600:f00d::1]:3", "[::ffff:1.1.1.1]:4"]);
        assert_eq!(some.filter(all.iter().copied()).unwrap(), addresses(&["8.9.4.4:2"]));
        let none = some.filter(all[..1].iter().copied()).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(some.filter(std::iter::empty()).unwrap(), []);
    }

    #[test]
    fn invalid_network_is_rejected() {
        for entry in ["", "Private", "10.0.0.0/33", "example.com", "10.0.0"] {
            let error = BlockedNetworks::parse([entry]).unwrap_err();
            assert!(error.contains("is not a network; write \"10.0.0.0/8\""), "{entry}: {error}");
        }
    }

    proptest! {
        #[test]
        fn network_blocks_its_addresses_also_as_ipv4_mapped_ones(
            bits: u32,
            length in 0_u8..=32,
            other: u32,
        ) {
            let some = blocked(&[&format!("{}/{length}", Ipv4Addr::from(bits))]);
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            let inside = bits & mask == other & mask;
            let other = Ipv4Addr::from(other);
            prop_assert_eq!(some.blocks(other.into()), inside);
            prop_assert_eq!(some.blocks(other.to_ipv6_mapped().into()), inside);
        }
    }
}
