//! Connection strings: `postgres://user:password@host:port/database`, or `host=... user=...`.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs};

/// The scheme of addresses in `allowed_outbound_hosts`.
pub const SCHEME: &str = "postgres";
const PORT: u16 = 5432;
/// Maximum number of hosts in a connection string: they are tried one after the other.
const MAX_HOSTS: usize = 8;
/// Maximum length of a connection string, in bytes.
const MAX_LENGTH: usize = 16 << 10;
const FORM: &str = "write \"postgres://user:password@host:5432/database\" or \"host=host port=5432 \
                    user=user password=password dbname=database\"";

/// A host that is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLocation {
    pub host: String,
    pub port: u16,
}

/// A parsed connection string.
#[derive(Clone)]
pub struct PostgresAddress {
    /// In the order in which they are tried.
    pub servers: Vec<ServerLocation>,
    /// What a login needs: user, password, database.
    pub(super) login: Config,
}

/// Without the login, which may contain a password.
impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresAddress").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl PostgresAddress {
    /// Parses a connection string.
    ///
    /// # Errors
    /// Describes the problem, without the text, which may contain a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("the address is longer than {MAX_LENGTH} bytes"));
        }
        let login: Config = text
            .parse()
            .map_err(|_| format!("the address is not a connection string of PostgreSQL; {FORM}"))?;
        if !login.get_hostaddrs().is_empty() {
            return Err(
                "the address has `hostaddr`; write the address of the server as `host`".into()
            );
        }
        if login.get_user().is_none_or(str::is_empty) {
            return Err(format!("the address has no user; {FORM}"));
        }
        let (hosts, ports) = (login.get_hosts(), login.get_ports());
        if hosts.is_empty() || hosts.len() > MAX_HOSTS {
            return Err(format!(
                "the address has {} hosts, and must have 1 to {MAX_HOSTS}; {FORM}",
                hosts.len()
            ));
        }
        if ports.len() > 1 && ports.len() != hosts.len() {
            return Err(
                "the address has a number of ports that is neither 1 nor that of its hosts".into(),
            );
        }
        let server = |(index, host): (usize, &Host)| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
            match host {
                Host::Tcp(host) if !host.is_empty() => {
                    let host = host.trim_matches(['[', ']']).to_owned();
                    Ok(ServerLocation { host, port })
                }
                Host::Tcp(_) => Err(format!("the address has an empty host; {FORM}")),
                Host::Unix(_) => {
                    Err(format!("the address is a Unix socket, which is not supported; {FORM}"))
                }
            }
        };
        let servers = hosts.iter().enumerate().map(server);
        let mut servers = servers.collect::<Result<Vec<_>, _>>()?;
        if login.get_load_balance_hosts() == LoadBalanceHosts::Random {
            fastrand::shuffle(&mut servers);
        }
        Ok(Self { servers, login })
    }

    /// Whether, and how, connections are encrypted.
    pub(super) fn tls(&self) -> (SslMode, SslNegotiation) {
        (self.login.get_ssl_mode(), self.login.get_ssl_negotiation())
    }

    /// Timeout of one host, if the address has one.
    pub(super) fn connect_timeout(&self) -> Option<Duration> {
        self.login.get_connect_timeout().copied()
    }

    /// Whether a server must, or must not, be read-only.
    pub(super) fn read_only(&self) -> Option<bool> {
        match self.login.get_target_session_attrs() {
            TargetSessionAttrs::ReadOnly => Some(true),
            TargetSessionAttrs::ReadWrite => Some(false),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_parsed_or_refused() {
        for (text, servers) in [
            ("postgres://me:hush@h", &[("h", 5432)][..]),
            ("postgresql://me@h:7/db?sslmode=require", &[("h", 7)]),
            ("postgres://me@[::1]:7/db", &[("::1", 7)]),
            ("host=a,b user=me port=7 password='hush'", &[("a", 7), ("b", 7)]),
            ("postgres://me@a:1,b:2,c/db", &[("a", 1), ("b", 2), ("c", 5432)]),
        ] {
            let address = PostgresAddress::parse(text).unwrap();
            let found: Vec<_> =
                address.servers.iter().map(|server| (server.host.as_str(), server.port)).collect();
            assert_eq!(found, servers, "{text}");
            assert!(!format!("{address:?}").contains("hush"), "{address:?}");
        }
        for (text, part) in [
            ("", "has no user"),
            ("hush", "not a connection string"),
            ("mysql://me:hush@h", "not a connection string"),
            ("host=h user=me password=hu sh=1", "not a connection string"),
            ("postgres://me:hush@h?sslmode=hush", "not a connection string"),
            ("postgres://h/db", "has no user"),
            ("user=me password=hush", "has 0 hosts"),
            ("host=a,b,c,d,e,f,g,h,i user=me", "has 9 hosts"),
            ("host=a,b,c port=1,2 user=me", "a number of ports"),
            ("host=h hostaddr=10.0.0.1 user=me", "write the address of the server as `host`"),
            ("host=/var/run/postgresql user=me", "is a Unix socket"),
            ("postgres://me:hush@%2Fvar%2Frun/db", "is a Unix socket"),
            ("host=a,,b user=me", "has an empty host"),
        ] {
            let problem = PostgresAddress::parse(text).unwrap_err();
            assert!(problem.contains(part) && !problem.contains("hush"), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(postgres://|host=a user=b |).*") {
            let _ = PostgresAddress::parse(&text);
        }
    }
}
