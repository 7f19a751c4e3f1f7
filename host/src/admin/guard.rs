//! Who may ask. Beyond loopback only who has the token; on loopback, without one, everybody on this
//! machine, and no page of another site in a browser on it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST};
use sha2::{Digest, Sha256};

use super::refusal::Refusal;

/// Where the token is, in the environment: on a command line everybody could read it.
pub const TOKEN: &str = "SPINFER_ADMIN_TOKEN";

/// How a request gives it (RFC 6750, 2.1).
pub const BEARER: &str = "Bearer ";

/// A shorter one could be guessed.
const TOKEN_LEAST: usize = 16;

/// Lets requests in.
#[derive(Debug)]
pub struct Guard(Option<Token>);

/// The SHA-256 of a token. Digests are compared: how long that takes says nothing of the token.
struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

impl Token {
    fn new(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl Guard {
    /// With this `token`, if there is one; beyond loopback there has to be.
    pub fn new(token: Option<&str>, address: SocketAddr) -> Result<Self> {
        ensure!(
            token.is_some() || address.ip().is_loopback(),
            "the admin plane at {address} could be reached from other machines: set {TOKEN} to a \
             token that clients have to give, or serve it on 127.0.0.1, or not at all (--no-admin)"
        );
        let fits = |token: &str| {
            token.len() >= TOKEN_LEAST && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        ensure!(
            token.is_none_or(fits),
            "{TOKEN}: a token has at least {TOKEN_LEAST} characters, visible ASCII without spaces; \
             `openssl rand -hex 32` makes one"
        );
        Ok(Self(token.map(|token| Token::new(token.as_bytes()))))
    }

    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.0 {
            Some(token) => {
                let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
                let given = given.and_then(|value| value.split_at_checked(BEARER.len()));
                let given = given.filter(|(kind, _)| kind.eq_ignore_ascii_case(BEARER.as_bytes()));
                let right = given.is_some_and(|(_, given)| Token::new(given).0 == token.0);
                if right { Ok(()) } else { Err(Refusal::Token) }
            }
            // A name that leads here is another site's, whose pages a browser would let read this.
            None => {
                let host = headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
                match host.filter(|host| !is_here(host)) {
                    Some(host) => Err(Refusal::Host { host: host.into_owned() }),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Whether `host`, with a port or without, is an address, or this machine's name for itself.
fn is_here(host: &str) -> bool {
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
    fn beyond_loopback_there_is_a_token() {
        for address in ["127.0.0.1:0", "127.1.2.3:3001", "[::1]:3001"] {
            assert!(guard(None, address).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:3001", "[::]:3001", "10.0.0.1:3001"] {
            let said = guard(None, address).unwrap_err();
            assert!(said.contains(TOKEN) && said.contains("--no-admin"), "{said}");
            assert!(guard(Some(SECRET), address).is_ok(), "{address}");
        }
        for token in ["", "short", "with spaces in it, 1234", "ümlaut-0123456789"] {
            let said = guard(Some(token), "127.0.0.1:3001").unwrap_err();
            assert!(said.contains("at least 16") && (token.is_empty() || !said.contains(token)));
        }
    }

    #[test]
    fn who_has_the_token_is_let_in() {
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
    fn pages_of_other_sites_are_not() {
        let guard = guard(None, "127.0.0.1:3001").unwrap();
        for host in ["localhost", "LocalHost:3001", "127.0.0.1", "127.0.0.1:9", "[::1]:3001"] {
            assert_eq!(check(&guard, "host", host), Ok(()), "{host}");
        }
        for host in ["example.com", "example.com:3001", "localhost.example.com", "[x]", ""] {
            assert!(matches!(check(&guard, "host", host), Err(Refusal::Host { .. })), "{host}");
        }
        assert_eq!(guard.check(&HeaderMap::new()), Ok(()), "no browser leaves it out");
    }

    proptest! {
        #[test]
        fn no_host_panics(host in "[ -~é]{0,40}") {
            let _ = is_here(&host);
        }
    }
}
