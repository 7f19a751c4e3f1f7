//! The host that a request is for (RFC 3986, 3.2.2; RFC 9110, 7.2): in the `Host` header of HTTP/1, in
//! `:authority` of HTTP/2, or in a request target in absolute form.

use std::net::{Ipv6Addr, SocketAddr};

use http::Version;
use http::header::HOST;
use http::request::Parts;

use super::reserved::INTERNAL;

/// Maximum length of a host, in bytes: that of a name in the DNS.
const MAX_HOST: usize = 255;

/// A host, with a port or without. It is the whole authority of a URL that it becomes a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub host: &'a str,
    pub port: Option<u16>,
}

/// Why a request has no valid host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the Host header is missing; send exactly one")]
    Missing,
    #[error("the Host header is repeated; send exactly one")]
    Repeated,
    #[error("the host of the request {0}; send a name or an address, with or without a port")]
    Invalid(&'static str),
    #[error("the Host header differs from the host in the request target; send the same")]
    Mismatch,
}

impl<'a> Authority<'a> {
    /// Parses `host` or `host:port`, without user information. The port may be empty.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &'a [u8]) -> Result<Self, HostError> {
        let text = std::str::from_utf8(text)
            .map_err(|_| HostError::Invalid("contains characters that are not ASCII"))?;
        let colon = match text.strip_prefix('[') {
            Some(literal) => {
                let end = literal.find(']').ok_or(HostError::Invalid("has no closing bracket"))?;
                let address = literal[..end].parse::<Ipv6Addr>();
                address.map_err(|_| HostError::Invalid("is not an IPv6 address"))?;
                let after = end + 2;
                match text.as_bytes().get(after) {
                    None => None,
                    Some(b':') => Some(after),
                    Some(_) => return Err(HostError::Invalid("continues after the bracket")),
                }
            }
            None => text.find(':'),
        };
        let (host, port) = match colon {
            Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
            None => (text, None),
        };
        if !host.starts_with('[') {
            check_name(host)?;
        }
        let port = match port {
            None | Some("") => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                let port = port.parse();
                Some(port.map_err(|_| HostError::Invalid("has a port above 65535"))?)
            }
            Some(_) => return Err(HostError::Invalid("has a port that is not a number")),
        };
        Ok(Self { host, port })
    }

    /// The host that the request `head` is for; `None` in a request of HTTP/1.0 that has none.
    ///
    /// # Errors
    /// The host is missing or invalid, or there are several.
    pub fn of(head: &'a Parts, scheme: &str) -> Result<Option<Self>, HostError> {
        let mut headers = head.headers.get_all(HOST).iter();
        let header = headers.next().map(|value| Self::parse(value.as_bytes())).transpose()?;
        if headers.next().is_some() {
            return Err(HostError::Repeated);
        }
        let target = head.uri.authority();
        let target = target.map(|target| Self::parse(target.as_str().as_bytes())).transpose()?;
        match (header, target) {
            (Some(header), Some(target)) if !header.is_same(target, scheme) => {
                Err(HostError::Mismatch)
            }
            // RFC 9112, 3.2: also with a target in absolute form.
            (None, Some(_)) if head.version == Version::HTTP_11 => Err(HostError::Missing),
            (Some(host), _) | (None, Some(host)) => Ok(Some(host)),
            (None, None) if head.version <= Version::HTTP_10 => Ok(None),
            (None, None) => Err(HostError::Missing),
        }
    }

    /// Whether it is the host name of a component, in any spelling.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        let name = self.host.strip_suffix('.').unwrap_or(self.host).as_bytes();
        let start = name.len().saturating_sub(INTERNAL.len());
        name[start..].eq_ignore_ascii_case(INTERNAL.as_bytes())
    }

    /// Whether `other` is the same, given that a port that is missing is the default one of `scheme`.
    #[must_use]
    pub fn is_same(&self, other: Self, scheme: &str) -> bool {
        let default = if scheme == "https" { 443 } else { 80 };
        let port = |of: &Self| of.port.unwrap_or(default);
        self.host.eq_ignore_ascii_case(other.host) && port(self) == port(&other)
    }
}

/// Checks a registered name or IPv4 address: `reg-name` of RFC 3986, without percent-encoding.
fn check_name(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(HostError::Invalid("is empty"));
    }
    if name.len() > MAX_HOST {
        return Err(HostError::Invalid("is longer than 255 characters"));
    }
    // Percent-encoding stands for characters that no name in the DNS has, and few parsers of URLs accept it.
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
    if !name.bytes().all(valid) {
        return Err(HostError::Invalid("contains a character that no host has"));
    }
    Ok(())
}

/// `address` as the value of a `Host` header.
#[must_use]
pub fn of_address(address: SocketAddr) -> String {
    // Without the zone of an IPv6 address, which is of this machine.
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn valid_authorities_are_split_into_host_and_port() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("Example.com:8080", "Example.com", Some(8080)),
            ("example.com:", "example.com", None),
            ("example.com:0080", "example.com", Some(80)),
            ("example.com.", "example.com.", None),
            ("a_b-c~d", "a_b-c~d", None),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
            ("!$&'()*+,;=", "!$&'()*+,;=", None),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::ff00:42:8329]:3000", "[2001:db8::ff00:42:8329]", Some(3000)),
            ("[::ffff:192.0.2.1]:", "[::ffff:192.0.2.1]", None),
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), Ok(Authority { host, port }), "{text}");
        }
    }

    #[test]
    fn invalid_authorities_are_refused_with_the_problem() {
        let long = "a".repeat(256);
        for (text, problem) in [
            ("", "is empty"),
            (":80", "is empty"),
            ("bank.com/admin?x=", "character"),
            ("bank.com?x", "character"),
            ("bank.com#x", "character"),
            ("bank.com\\x", "character"),
            ("user@bank.com", "character"),
            ("user:secret@bank.com", "port that is not a number"),
            ("a b", "character"),
            ("a\tb", "character"),
            ("a\u{7f}", "character"),
            ("<script>", "character"),
            ("b\u{fc}cher.example", "character"),
            ("b%C3%BCcher.example", "character"),
            ("a.spin%2Einternal", "character"),
            ("a:b", "port that is not a number"),
            ("a:+80", "port that is not a number"),
            ("a:80:80", "port that is not a number"),
            ("::1", "is empty"),
            ("a:65536", "port above 65535"),
            ("a:99999999999999999999", "port above 65535"),
            ("[::1", "no closing bracket"),
            ("[::1]x", "continues after the bracket"),
            ("[::1]80", "continues after the bracket"),
            ("[]", "not an IPv6 address"),
            ("[1]", "not an IPv6 address"),
            ("[fe80::1%25eth0]", "not an IPv6 address"),
            ("[127.0.0.1]", "not an IPv6 address"),
            ("a]", "character"),
            (&long, "longer than 255"),
        ] {
            let error = Authority::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!(Authority::parse(b"\xff").unwrap_err().to_string().contains("not ASCII"));
    }

    fn of(version: Version, target: &str, hosts: &[&str]) -> Result<Option<String>, HostError> {
        let mut request = Request::get(target).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let authority = Authority::of(&head, "http")?;
        Ok(authority.map(|Authority { host, port }| format!("{host} {port:?}")))
    }

    #[test]
    fn request_has_exactly_one_host() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        let invalid = |found: &Result<_, _>| matches!(found, Err(HostError::Invalid(_)));
        assert_eq!(of(Version::HTTP_10, "/", &[]), Ok(None));
        assert_eq!(of(Version::HTTP_10, "/", &["a:1"]), some("a Some(1)"));
        assert_eq!(of(Version::HTTP_10, "http://b/", &[]), some("b None"));
        for version in [Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(of(version, "/", &[]), Err(HostError::Missing));
            assert_eq!(of(version, "/", &["a"]), some("a None"));
            assert_eq!(of(version, "http://a/", &["A:80"]), some("A Some(80)"));
            assert_eq!(of(version, "http://a/", &["b"]), Err(HostError::Mismatch));
            assert_eq!(of(version, "http://a/", &["a:81"]), Err(HostError::Mismatch));
            assert_eq!(of(version, "/", &["a", "a"]), Err(HostError::Repeated));
            assert!(invalid(&of(version, "http://u@a/", &[])), "user information");
            assert!(invalid(&of(version, "/", &["a/b"])));
            assert!(invalid(&of(version, "http://a/", &["a/b"])));
        }
        assert_eq!(of(Version::HTTP_11, "http://a/", &[]), Err(HostError::Missing));
        assert_eq!(of(Version::HTTP_2, "http://a/", &[]), some("a None"));
    }

    #[test]
    fn component_host_names_are_recognised_in_any_spelling() {
        let is_internal = |host: &str| Authority::parse(host.as_bytes()).unwrap().is_internal();
        for host in
            ["a.spin.internal", "A.Spin.Internal", "a.spin.internal:80", "x.y.spin.internal."]
        {
            assert!(is_internal(host), "{host}");
        }
        for host in ["spin.internal", "a.spin.internal.org", "internal", "[::1]:80"] {
            assert!(!is_internal(host), "{host}");
        }
    }

    #[test]
    fn local_address_is_a_valid_host() {
        for (address, host) in [
            ("127.0.0.1:3000", "127.0.0.1:3000"),
            ("[::1]:80", "[::1]:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("[fe80::1%3]:80", "[fe80::1]:80"),
        ] {
            assert_eq!(of_address(address.parse().unwrap()), host);
        }
    }

    proptest! {
        /// In a URL, a host that was accepted is the host, and what follows it is not.
        #[test]
        fn accepted_host_is_the_host_of_its_url(
            text in "[a-zA-Z0-9.:%\\[\\]@/?#\\\\ ~_-]{0,12}|(\\[[0-9a-f:.]{0,12}\\]|[a-z0-9.%-]{1,9})(:[0-9]{0,6})?|\\PC{0,8}",
        ) {
            if let Ok(Authority { host, port }) = Authority::parse(text.as_bytes()) {
                let url: http::Uri = format!("http://{text}/path?query").parse().unwrap();
                prop_assert_eq!(url.host(), Some(host));
                prop_assert_eq!(url.port_u16(), port);
                prop_assert_eq!(url.path(), "/path");
                prop_assert_eq!(url.query(), Some("query"));
            }
        }

        #[test]
        fn host_with_a_port_is_accepted(host in "[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?(\\.[a-z]{2,5}){0,3}", port: u16) {
            let text = format!("{host}:{port}");
            let parsed = Authority::parse(text.as_bytes());
            prop_assert_eq!(parsed, Ok(Authority { host: &host, port: Some(port) }));
        }
    }
}
