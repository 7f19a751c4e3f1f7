//! Authorizes requests to the admin plane. With a token, a request must carry it; beyond loopback a
//! token is required. Without one, any process on this machine is admitted, but no page of another
//! site in a browser on it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST};
use sha2::{Digest, Sha256};

use super::refusal::Refusal;

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

    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.0 {
            Some(token) => {
                let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
                let given = given.and_then(|value| value.split_at_checked(BEARER.len()));
                let given = given.filter(|(kind, _)| kind.eq_ignore_ascii_case(BEARER.as_bytes()));
                let valid = given.is_some_and(|(_, given)| TokenDigest::new(given).0 == token.0);
                if valid { Ok(()) } else { Err(Refusal::Token) }
            }
            // Another site's name may resolve to this address (DNS rebinding), and a browser would
            // let its pages read the response.
            None => {
                let host = headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
                match host.filter(|host| !is_address_or_localhost(host)) {
                    Some(host) => Err(Refusal::Host { host: host.into_owned() }),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Whether `host`, with a port or without, is an IP address or `localhost`.
fn is_address_or_localhost(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_address = inner.unwrap_or(name).parse::<IpAddr>().is_ok();
    is_address || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn guard(token: Option<&str>, address: &str) -> Result<Guard, String> {
        Guard::new(token, address.parse().unwrap()).map_err(|error| error.to_string())
    }

    fn check(guard: &Guard, name: &'static str, value: &str) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        guard.check(&headers)
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
        let with = |value: &str| check(&guard, "authorization", value);
        assert_eq!(with(&format!("Bearer {SECRET}")), Ok(()));
        assert_eq!(with(&format!("bearer {SECRET}")), Ok(()));
        for wrong in ["", "Bearer", "Bearer ", "Bearer x", SECRET, "Basic 0123456789abcdef"] {
            assert_eq!(with(wrong), Err(Refusal::Token), "{wrong}");
        }
        assert_eq!(guard.check(&HeaderMap::new()), Err(Refusal::Token));
        assert!(!format!("{guard:?}").contains(SECRET));
    }

    #[test]
    fn host_of_another_site_is_refused_without_a_token() {
        let guard = guard(None, "127.0.0.1:3001").unwrap();
        for host in ["localhost", "LocalHost:3001", "127.0.0.1", "127.0.0.1:9", "[::1]:3001"] {
            assert_eq!(check(&guard, "host", host), Ok(()), "{host}");
        }
        for host in ["example.com", "example.com:3001", "localhost.example.com", "[x]", ""] {
            assert!(matches!(check(&guard, "host", host), Err(Refusal::Host { .. })), "{host}");
        }
        assert_eq!(guard.check(&HeaderMap::new()), Ok(()), "browsers always send a Host header");
    }

    proptest! {
        #[test]
        fn any_host_header_is_handled(host in "[ -~é]{0,40}") {
            let _ = is_address_or_localhost(&host);
        }
    }
}
