//! `allowed_outbound_hosts`: the hosts that a component may connect to, in Spin's form
//! `scheme://host[:port]`. Each part may be `*`. The host may also be `*.domain`, an address, a
//! network (`10.0.0.0/8`) or `self`, the application itself; the port may be a range (`8000..9000`,
//! with an exclusive end).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;

use ipnet::IpNet;

/// The hosts that a component may connect to; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboundHosts(Vec<OutboundHost>);

impl OutboundHosts {
    pub fn add(&mut self, host: OutboundHost) {
        self.0.push(host);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the component may connect to `host`, a name or an address; an IPv6 address may be in
    /// brackets. `port` defaults to the scheme's.
    #[must_use]
    pub fn allows(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let scheme = scheme.to_ascii_lowercase();
        let host = host.to_ascii_lowercase();
        let Some(port) = port.or_else(|| default_port(&scheme)) else { return false };
        // `*` does not match an empty host.
        if host.is_empty() {
            return false;
        }
        let address = address(&host);
        self.0.iter().any(|allowed| {
            allowed.scheme.allows(&scheme)
                && allowed.host.allows(&host, address)
                && allowed.port.allows(port)
        })
    }

    /// Whether the component may connect to any host by `scheme`, which is in lower case.
    #[must_use]
    pub fn allows_scheme(&self, scheme: &str) -> bool {
        self.0.iter().any(|allowed| allowed.scheme.allows(scheme))
    }

    /// Whether the component may send requests to its own application. Their scheme does not matter, as
    /// in Spin: with a path alone, an SDK sends any.
    #[must_use]
    pub fn allows_self(&self) -> bool {
        self.0.iter().any(|allowed| {
            ["http", "https"].iter().any(|scheme| allowed.scheme.allows(scheme))
                && matches!(allowed.host, HostPattern::Any | HostPattern::Itself)
        })
    }
}

/// One entry of `allowed_outbound_hosts`.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboundHost {
    scheme: SchemePattern,
    host: HostPattern,
    port: PortPattern,
}

/// Shows no field: their values may come from a secret variable.
impl fmt::Debug for OutboundHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundHost").finish_non_exhaustive()
    }
}

/// The schemes that an entry allows, in lower case.
#[derive(Clone, PartialEq, Eq)]
enum SchemePattern {
    Any,
    One(String),
}

#[derive(Clone, PartialEq, Eq)]
enum HostPattern {
    Any,
    Itself,
    /// Subdomains of a domain, with its leading dot: `.example.com`.
    Under(String),
    Network(IpNet),
    One(String),
}

#[derive(Clone, PartialEq, Eq)]
enum PortPattern {
    Any,
    Within(Range<u16>),
    One(u16),
}

/// The fix in messages: the form of an entry.
const FORM: &str = "write \"scheme://host:port\", for example \"https://example.com\" or \
                    \"redis://localhost:6379\"; each part may be `*`";

impl OutboundHost {
    /// Parses an entry whose templates are resolved.
    ///
    /// # Errors
    /// Describes the problem, without the text, which may be secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) =
            text.trim().split_once("://").ok_or_else(|| format!("has no scheme; {FORM}"))?;
        let scheme = SchemePattern::parse(scheme)?;
        let (host, port) = split_port(rest)?;
        Ok(Self {
            host: HostPattern::parse(host)?,
            port: PortPattern::parse(port, &scheme)?,
            scheme,
        })
    }
}

/// Splits `host:port`, which a single slash may follow. An absent port is empty.
fn split_port(text: &str) -> Result<(&str, &str), String> {
    let colon = match text.rfind(']') {
        Some(bracket) => text[bracket..].find(':').map(|at| bracket + at),
        None => text.rfind(':'),
    };
    let (host, port) = match colon {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    };
    match port.split_once('/') {
        None => Ok((host, port)),
        Some((port, "")) => Ok((host, port)),
        Some(_) => Err(format!("has a path, but only whole hosts can be allowed; {FORM}")),
    }
}

impl SchemePattern {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "*" => Ok(Self::Any),
            _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphabetic()) => {
                Ok(Self::One(text.to_ascii_lowercase()))
            }
            _ => Err(format!("has a scheme that does not consist of letters; {FORM}")),
        }
    }

    fn allows(&self, scheme: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one == scheme,
        }
    }
}

impl HostPattern {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(network) = text.replace(['[', ']'], "").parse::<IpNet>() {
            return Ok(Self::Network(network.trunc()));
        }
        let host = text.trim_end_matches('/').to_ascii_lowercase();
        if host.contains('/') {
            return Err(format!("has a path, or an invalid network (10.0.0.0/8 is one); {FORM}"));
        }
        if let Some(address) = address(&host) {
            return Ok(Self::Network(address.into()));
        }
        match host.as_str() {
            "*" => return Ok(Self::Any),
            "self" | "self.alt" => return Ok(Self::Itself),
            _ => {}
        }
        let (name, under) = match host.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (host.as_str(), false),
        };
        if name.contains('*') {
            return Err("`*` matches a whole host, or every subdomain of a domain: \
                        \"https://*.example.com\""
                .into());
        }
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if name.is_empty() || !name.bytes().all(valid) {
            return Err(format!("has a host that is neither a name nor an address; {FORM}"));
        }
        Ok(if under { Self::Under(format!(".{name}")) } else { Self::One(host) })
    }

    fn allows(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::Any => true,
            Self::Itself => false,
            Self::Under(domain) => host.ends_with(domain),
            Self::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Self::One(one) => host == one,
        }
    }
}

/// Parses an address, in brackets or not. An IPv4-mapped IPv6 address becomes the IPv4 address.
fn address(host: &str) -> Option<IpAddr> {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().ok()?.into(),
        None => host.parse::<IpAddr>().ok()?,
    };
    Some(address.to_canonical())
}

impl PortPattern {
    fn parse(text: &str, scheme: &SchemePattern) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<u16>().map_err(
                |_| "has a port that is not a number up to 65535, `*` or a range (8000..9000)",
            )
        };
        match (text, scheme) {
            ("*", _) => Ok(Self::Any),
            ("", SchemePattern::Any) => {
                Err("needs a port, as its scheme is `*`: \"*://host:*\"".into())
            }
            ("", SchemePattern::One(scheme)) => default_port(scheme)
                .map(Self::One)
                .ok_or_else(|| format!("needs a port, as `{scheme}` has no default port")),
            (text, _) => match text.split_once("..") {
                None => Ok(Self::One(number(text)?)),
                Some((start, end)) => {
                    let range = number(start)?..number(end)?;
                    if range.is_empty() {
                        return Err("has an empty port range, as its end is exclusive".into());
                    }
                    Ok(Self::Within(range))
                }
            },
        }
    }

    fn allows(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Within(range) => range.contains(&port),
            Self::One(one) => *one == port,
        }
    }
}

/// The default port of a scheme, for the schemes that Spin knows.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        "redis" => Some(6379),
        "mqtt" => Some(1883),
        "mysql" => Some(3306),
        "postgres" => Some(5432),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hosts(text: &str) -> OutboundHosts {
        OutboundHosts(vec![OutboundHost::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))])
    }

    #[test]
    fn entry_allows_only_its_scheme_host_and_port() {
        for (entry, yes, no) in [
            (
                "https://example.com",
                &[("https", "example.com", None), ("HTTPS", "Example.COM", Some(443))][..],
                &[
                    ("http", "example.com", None),
                    ("https", "example.com", Some(80)),
                    ("https", "www.example.com", None),
                    ("https", "example.com.evil.org", None),
                    ("https", "notexample.com", None),
                ][..],
            ),
            ("http://example.com:8080/", &[("http", "example.com", Some(8080))], &[]),
            (
                "*://localhost:*",
                &[("http", "localhost", None), ("redis", "localhost", Some(1))],
                &[("http", "127.0.0.1", None), ("other", "localhost", None)],
            ),
            (
                "https://*.example.com",
                &[("https", "a.example.com", None), ("https", "a.b.example.com", None)],
                &[("https", "example.com", None), ("https", "aexample.com", None)],
            ),
            (
                "https://*",
                &[("https", "x", None), ("https", "10.0.0.1", None)],
                &[("http", "x", None)],
            ),
            (
                "*://*:*",
                &[
                    ("http", "x", None),
                    ("postgres", "10.0.0.1", Some(65535)),
                    ("tcp", "::1", Some(1)),
                ],
                &[],
            ),
            (
                "http://h:8000..8002",
                &[("http", "h", Some(8000)), ("http", "h", Some(8001))],
                &[("http", "h", Some(7999)), ("http", "h", Some(8002)), ("http", "h", None)],
            ),
            (
                "redis://10.1.2.3/8:*",
                &[("redis", "10.255.0.1", None), ("redis", "::ffff:10.0.0.1", None)],
                &[("redis", "11.0.0.1", None), ("redis", "ten.org", None)],
            ),
            (
                "redis://fd00::/8:6379",
                &[("redis", "[fd00::1]", None), ("redis", "fdff::1", None)],
                &[("redis", "[fe80::1]", None)],
            ),
            ("http://[::1]", &[("http", "[::1]", None), ("http", "0:0:0:0:0:0:0:1", None)], &[]),
            ("http://[::1]:81", &[("http", "::1", Some(81))], &[("http", "[::1]", None)]),
            ("http://127.0.0.1", &[("http", "127.0.0.1", None)], &[("http", "127.0.0.2", None)]),
            ("http://self", &[], &[("http", "self", None), ("http", "localhost", None)]),
            ("http://a.spin.internal", &[("http", "a.spin.internal", None)], &[]),
        ] {
            let allowed = hosts(entry);
            for (scheme, host, port) in yes {
                assert!(allowed.allows(scheme, host, *port), "{entry}: {scheme} {host} {port:?}");
            }
            for (scheme, host, port) in no {
                assert!(!allowed.allows(scheme, host, *port), "{entry}: {scheme} {host} {port:?}");
            }
        }
        assert!(!OutboundHosts::default().allows("http", "example.com", None), "none by default");
        let mut any = OutboundHosts::default();
        any.add(OutboundHost::parse("*://*:*").unwrap());
        assert!(!any.allows("redis", "", None), "no host at all");
    }

    #[test]
    fn own_application_is_allowed_by_self_or_by_any_host() {
        for (entry, yes) in [
            ("http://self", true),
            ("https://self", true),
            ("http://self.alt", true),
            ("*://self:*", true),
            ("http://*", true),
            ("*://*:*", true),
            ("redis://self", false),
            ("http://localhost", false),
        ] {
            assert_eq!(hosts(entry).allows_self(), yes, "{entry}");
        }
        assert!(!OutboundHosts::default().allows_self());
    }

    #[test]
    fn scheme_is_allowed_by_its_name_or_by_any() {
        for (entry, yes) in
            [("tcp://localhost:1", true), ("*://10.0.0.0/8:*", true), ("udp://*:1", false)]
        {
            assert_eq!(hosts(entry).allows_scheme("tcp"), yes, "{entry}");
        }
        assert!(!OutboundHosts::default().allows_scheme("tcp"));
    }

    #[test]
    fn invalid_entry_is_rejected_with_the_form() {
        for (entry, part) in [
            ("*", "has no scheme"),
            ("example.com", "has no scheme"),
            ("insecure:allow-all", "has no scheme"),
            ("://x:1", "scheme that does not consist"),
            ("ht tp://x", "scheme that does not consist"),
            ("{http,https}://x", "scheme that does not consist"),
            ("http://", "neither a name nor an address"),
            ("http://user@example.com", "neither a name nor an address"),
            ("http://[::1", "neither a name nor an address"),
            ("http://example.com/path", "has a path"),
            ("http://example.com:80/path", "has a path"),
            ("http://10.0.0.0/33", "has a path, or an invalid network"),
            ("http://*.a.*", "`*` matches a whole host"),
            ("http://a*", "`*` matches a whole host"),
            ("*://example.com", "needs a port, as its scheme is `*`"),
            ("ftp://example.com", "needs a port, as `ftp`"),
            ("http://example.com:many", "has a port that is not a number"),
            ("http://example.com:65536", "has a port that is not a number"),
            ("http://example.com:2..2", "has an empty port range"),
        ] {
            let Err(error) = OutboundHost::parse(entry) else { panic!("{entry} is accepted") };
            assert!(error.contains(part), "{entry}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_rejected(text in ".*", host in ".*", port: Option<u16>) {
            if let Ok(host_) = OutboundHost::parse(&text) {
                let _ = OutboundHosts(vec![host_]).allows("http", &host, port);
            }
        }

        #[test]
        fn entry_with_a_port_allows_exactly_its_host_and_port(
            host in "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\\.[a-z]{2,5})?",
            other in "[a-z0-9.-]{1,20}",
            port: u16,
            other_port: u16,
        ) {
            let allowed = hosts(&format!("http://{host}:{port}"));
            prop_assume!(host != "self");
            prop_assert!(allowed.allows("http", &host, Some(port)));
            prop_assert_eq!(allowed.allows("http", &other, Some(port)), other == host);
            prop_assert_eq!(allowed.allows("http", &host, Some(other_port)), other_port == port);
            prop_assert!(!allowed.allows("https", &host, Some(port)));
        }

        #[test]
        fn network_allows_exactly_its_addresses(bits: u32, length in 0_u8..=32, other: u32) {
            let network = std::net::Ipv4Addr::from(bits);
            let allowed = hosts(&format!("http://{network}/{length}:*"));
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            let inside = bits & mask == other & mask;
            let other = std::net::Ipv4Addr::from(other).to_string();
            prop_assert_eq!(allowed.allows("http", &other, None), inside);
        }
    }
}
