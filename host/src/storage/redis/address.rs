//! The address of a Redis.

use std::fmt;
use std::sync::Arc;

use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
};

/// `redis://[user][:password@]host[:port][/database]`, or `rediss` for TLS; `valkey` and `valkeys`
/// are the same.
#[derive(Clone)]
pub struct Address {
    /// As it is written.
    pub(super) text: Arc<str>,
    pub scheme: String,
    pub host: String,
    pub port: u16,
    pub(super) tls: bool,
    pub(super) settings: RedisConnectionInfo,
}

/// It may hold a password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, .. } = self;
        f.debug_struct("Address").field("scheme", scheme).field("at", &(host, port)).finish()
    }
}

impl Address {
    /// Parses an address. An error does not repeat the text, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || "write \"redis://host:6379\", or \"rediss://host:6379\" for TLS".to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        let scheme = scheme.to_ascii_lowercase();
        let tls = match scheme.as_str() {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(form()),
        };
        // TLS is ours: the library would need it as a feature to take the scheme.
        let parsed = format!("redis://{rest}").into_connection_info().map_err(|_| form())?;
        let ConnectionAddr::Tcp(host, port) = parsed.addr() else { return Err(form()) };
        let settings = parsed.redis_settings().clone();
        let (host, port) = (host.clone(), *port);
        Ok(Self { text: text.into(), scheme, host, port, tls, settings })
    }

    /// As the library has it, which then says who it is.
    pub(crate) fn info(&self, protocol: ProtocolVersion) -> ConnectionInfo {
        let Self { host, port, tls, settings, .. } = self;
        let (host, port) = (host.clone(), *port);
        let addr = if *tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let settings = settings.clone().set_protocol(protocol);
        let settings = settings.set_lib_name("spinfer", env!("CARGO_PKG_VERSION"));
        let info = addr.into_connection_info().expect("an address is one already");
        info.set_redis_settings(settings)
    }

    /// The same elsewhere.
    pub(crate) fn at(&self, host: String, port: u16) -> Self {
        Self { host, port, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_says_where_and_how() {
        for (text, scheme, host, port, tls) in [
            ("redis://localhost", "redis", "localhost", 6379, false),
            ("REDIS://localhost:1", "redis", "localhost", 1, false),
            ("rediss://user:pass@h.example:7/3", "rediss", "h.example", 7, true),
            ("valkeys://[::1]", "valkeys", "::1", 6379, true),
        ] {
            let address = Address::parse(text).unwrap();
            let Address { scheme: s, host: h, port: p, tls: t, .. } = &address;
            assert_eq!((s.as_str(), h.as_str(), *p, *t), (scheme, host, port, tls), "{text}");
            assert!(!format!("{address:?}").contains("pass"));
        }
        for text in ["", "localhost:6379", "http://h", "unix:///hush", "redis+unix:///hush"] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains("redis://host:6379") && !error.contains("hush"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_refused(text in "(redis|rediss)://.*|.*") {
            let _ = Address::parse(&text);
        }
    }
}
