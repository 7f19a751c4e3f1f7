//! Authorizes requests to the admin plane. With a token, a request must carry it; beyond loopback a
//! token is required. Without one, any process on this machine is admitted, but no page of another
//! site in a browser on it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use http::header::AUTHORIZATION;
use http::request::Parts;
use sha2::{Digest, Sha256};

use super::refusal::Refusal;
use crate::http::authority::{Authority, HostError};

/// Environment variable of the token. A command line would be readable for every user.
pub const TOKEN: &str = "SPINFER_ADMIN_TOKEN";

/// Authorization scheme of the token (RFC 6750, 2.1).
pub const BEARER: &str = "Bearer ";

/// Minimum length of a token, in bytes: a shorter one could be guessed.
const MIN_TOKEN: usize = 16;

/// Checks requests to the admin plane.
#[derive(Debug)]
pub struct Guard(Option<TokenDigest>);

/// The SHA-256 of a token. Digests are compared, so that the time of a comparison reveals nothing
/// about the token.
struct TokenDigest([u8; 32]);

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

impl TokenDigest {
    fn new(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl Guard {
    /// A guard of the admin plane at `address`.
    ///
    /// # Errors
    /// Fails if `token` is weak, or missing though `address` is not on loopback.
    pub fn new(token: Option<&str>, address: SocketAddr) -> Result<Self> {
        ensure!(
            token.is_some() || address.ip().is_loopback(),
            "the admin plane at {address} is reachable from other machines: set {TOKEN} to a token \
             that clients must send, serve it on 127.0.0.1, or disable it with --no-admin"
        );
        let valid = |token: &str| {
            token.len() >= MIN_TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        ensure!(
            token.is_none_or(valid),
            "{TOKEN}: must have at least {MIN_TOKEN} characters of visible ASCII, without spaces; \
             `openssl rand -hex 32` generates one"
        );
        Ok(Self(token.map(|token| TokenDigest::new(token.as_bytes()))))
    }

    pub(super) fn check(&self, head: &Parts) -> Result<(), Refusal> {
        // Also of HTTP/1.0: without a host, a page of another site could have sent the request.
        let host = Authority::of(head, "http")?.ok_or(HostError::Missing)?.host;
        match &self.0 {
            Some(token) => {
                let given = head.headers.get(AUTHORIZATION).map(|value| value.as_bytes());
                let given = given.and_then(|value| value.split_at_checked(BEARER.len()));
                let given = given.filter(|(kind, _)| kind.eq_ignore_ascii_case(BEARER.as_bytes()));
                let valid = given.is_some_and(|(_, given)| TokenDigest::new(given).0 == token.0);
                if valid { Ok(()) } else { Err(Refusal::Token) }
            }
            // Another site's name may resolve to this address (DNS rebinding), and a browser would
            // let its pages read the response.
            None if is_address_or_localhost(host) => Ok(()),
            None => Err(Refusal::OtherSite { host: host.to_owned() }),
        }
    }
}

/// Whether `host` is an IP address or `localhost`.
fn is_address_or_localhost(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host).parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn guard(token: Option<&str>, address: &str) -> Result<Guard, String> {
        Guard::new(token, address.parse().unwrap()).map_err(|error| error.to_string())
    }

    fn check(guard: &Guard, target: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.check(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn token_is_required_beyond_loopback() {
        for address in ["127.0.0.1:0", "127.1.2.3:3001", "[::1]:3001"] {
            assert!(guard(None, address).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:3001", "[::]:3001", "10.0.0.1:3001"] {
            let error = guard(None, address).unwrap_err();
            assert!(error.contains(TOKEN) && error.contains("--no-admin"), "{error}");
            assert!(guard(Some(SECRET), address).is_ok(), "{address}");
        }
        for token in ["", "short", "with spaces in it, 1234", "ümlaut-0123456789"] {
            let error = guard(Some(token), "127.0.0.1:3001").unwrap_err();
            assert!(error.contains("at least 16") && (token.is_empty() || !error.contains(token)));
        }
    }

    #[test]
    fn request_with_the_token_is_admitted() {
        let guard = guard(Some(SECRET), "0.0.0.0:3001").unwrap();
        let host = ("host", "admin.example.com");
        let with = |value: &str| check(&guard, "/", &[host, ("authorization", value)]);
        assert_eq!(with(&format!("Bearer {SECRET}")), Ok(()));
        assert_eq!(with(&format!("bearer {SECRET}")), Ok(()));
        for wrong in ["", "Bearer", "Bearer ", "Bearer x", SECRET, "Basic 0123456789abcdef"] {
            assert_eq!(with(wrong), Err(Refusal::Token), "{wrong}");
        }
        assert_eq!(check(&guard, "/", &[host]), Err(Refusal::Token));
        let token = format!("Bearer {SECRET}");
        let without_host = check(&guard, "/", &[("authorization", &token)]);
        assert_eq!(without_host, Err(Refusal::Host(HostError::Missing)));
        assert!(!format!("{guard:?}").contains(SECRET));
    }

    #[test]
    fn host_of_another_site_is_refused_without_a_token() {
        let guard = guard(None, "127.0.0.1:3001").unwrap();
        let with = |hosts: &[&str]| {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            check(&guard, "/", &headers)
        };
        for host in ["localhost", "LocalHost:3001", "127.0.0.1", "127.0.0.1:9", "[::1]:3001"] {
            assert_eq!(with(&[host]), Ok(()), "{host}");
        }
        for host in ["example.com", "example.com:3001", "localhost.example.com", "127.0.0.1.nip.io"]
        {
            assert!(matches!(with(&[host]), Err(Refusal::OtherSite { .. })), "{host}");
        }
        for host in ["", "[x]", "localhost/", "localhost@example.com", "localhost:x"] {
            assert!(matches!(with(&[host]), Err(Refusal::Host(HostError::Invalid(_)))), "{host}");
        }
        let repeated = Err(Refusal::Host(HostError::Repeated));
        assert_eq!(with(&["localhost", "localhost"]), repeated);
        assert_eq!(with(&["localhost", "example.com"]), repeated);
        assert_eq!(with(&[]), Err(Refusal::Host(HostError::Missing)));
        let old = Request::get("/").version(http::Version::HTTP_10).body(()).unwrap();
        let missing = Err(Refusal::Host(HostError::Missing));
        assert_eq!(guard.check(&old.into_parts().0), missing, "also of HTTP/1.0");
    }

    #[test]
    fn target_of_another_site_is_refused_whatever_its_host_header() {
        let guard = guard(None, "127.0.0.1:3001").unwrap();
        let target = "http://example.com/stats";
        let with = |host| check(&guard, target, &[("host", host)]);
        assert_eq!(with("localhost"), Err(Refusal::Host(HostError::Mismatch)));
        assert!(matches!(with("example.com"), Err(Refusal::OtherSite { .. })));
    }
}
