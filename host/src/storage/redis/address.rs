//! Addresses of Redis servers.

use std::fmt;
use std::sync::Arc;

use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
};

/// `redis://[user][:password@]host[:port][/database]`, or `rediss` for TLS. The schemes `valkey` and
/// `valkeys` mean the same.
#[derive(Clone)]
pub struct Address {
    /// The address as written.
    pub(super) text: Arc<str>,
    pub scheme: String,
    pub host: String,
    pub port: u16,
    pub(super) tls: bool,
    pub(super) settings: RedisConnectionInfo,
}

/// Without the settings, which may contain a password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, .. } = self;
        f.debug_struct("Address").field("scheme", scheme).field("at", &(host, port)).finish()
    }
}

impl Address {
    /// Parses an address.
    ///
    /// # Errors
    /// The text is not an address. The message does not repeat it, as it may contain a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || "write \"redis://host:6379\", or \"rediss://host:6379\" for TLS".to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        let scheme = scheme.to_ascii_lowercase();
        let tls = match scheme.as_str() {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(form()),
        };
        // The host handles TLS: the library parses these schemes only with a feature for it.
        let parsed = format!("redis://{rest}").into_connection_info().map_err(|_| form())?;
        let ConnectionAddr::Tcp(host, port) = parsed.addr() else { return Err(form()) };
        let settings = parsed.redis_settings().clone();
        let (host, port) = (host.clone(), *port);
        Ok(Self { text: text.into(), scheme, host, port, tls, settings })
    }

    /// The address in the library's type, with the client name of this host.
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
        let info = addr.into_connection_info().expect("a `ConnectionAddr` always converts");
        info.set_redis_settings(settings)
    }

    /// The same settings with another host and port.
    pub(crate) fn at(&self, host: String, port: u16) -> Self {
        Self { host, port, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_parsed_or_refused() {
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
        fn any_text_is_parsed_or_refused(text in "(redis|rediss)://.*|.*") {
            let _ = Address::parse(&text);
        }
    }
}
