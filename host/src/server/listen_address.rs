//! Addresses to listen on, as given on the command line: an IP address or a host name, and a port.
//!
//! An address is bound at the start and listened on when the application is loaded: an address in use is
//! reported at once, and clients are refused until they can be served.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use tokio::net::{TcpListener, TcpSocket};

/// Host of an address that is only a port.
const DEFAULT_HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Number of connections that the system keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// `127.0.0.1:3000`, `[::1]:3000`, `localhost:3000`, or a port on loopback: `3000` or `:3000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    host: ListenHost,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ListenHost {
    Ip(IpAddr),
    Name(String),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        if text.parse::<IpAddr>().is_ok() || text.starts_with('[') && text.ends_with(']') {
            return Err("the port is missing; write 127.0.0.1:3000, or [::1]:3000 for IPv6".into());
        }
        let is_port = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (name, port) = match text.rsplit_once(':') {
            None if is_port => ("", text),
            None => {
                return Err(
                    "the port is missing; write IP:PORT or NAME:PORT, localhost:3000".into()
                );
            }
            Some(parts) => parts,
        };
        let port = port.parse().map_err(|_| format!("`{port}` is not a port; 0 is any"))?;
        if name.is_empty() {
            return Ok(SocketAddr::new(DEFAULT_HOST, port).into());
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !name.chars().all(fits) {
            return Err(format!(
                "`{name}` is neither an IP address nor the name of a host; write an IPv6 address in \
                 brackets: [::1]:3000"
            ));
        }
        Ok(Self { host: ListenHost::Name(name.to_owned()), port })
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: ListenHost::Ip(address.ip()), port: address.port() }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            ListenHost::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            ListenHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl ListenAddress {
    /// Its addresses, IPv4 first, which most clients of a host name try first.
    ///
    /// # Errors
    /// The host name cannot be resolved.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>> {
        let name = match &self.host {
            ListenHost::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, self.port)]),
            ListenHost::Name(name) => name,
        };
        let found = (name.as_str(), self.port).to_socket_addrs();
        let found = found.with_context(|| {
            format!(
                "the host name `{name}` of {self} cannot be resolved; check it, or write an IP address"
            )
        })?;
        let mut addresses: Vec<_> = found.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.dedup();
        if addresses.is_empty() {
            bail!("the host name `{name}` of {self} has no address");
        }
        Ok(addresses)
    }
}

/// An address that is bound, and refuses connections until [`Self::listen`].
#[derive(Debug)]
pub struct BoundAddress {
    socket: TcpSocket,
    address: SocketAddr,
}

impl BoundAddress {
    /// Binds the first of `addresses` that belongs to this machine. An address in use is an error, not
    /// skipped: clients of the name would reach the other process.
    ///
    /// # Errors
    /// The address is in use or cannot be bound, or none belongs to this machine.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for &address in addresses {
            match Self::bind_one(address) {
                Err(error) if is_elsewhere(&error) => failure = error,
                bound => return bound,
            }
        }
        Err(failure)
    }

    fn bind_one(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections of an earlier process that are being closed do not keep the address in use.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { address: socket.local_addr()?, socket })
    }

    /// The address, with the port that the system chose instead of 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to listen, within a runtime.
    ///
    /// # Errors
    /// Another process that had bound the address too listens on it.
    pub fn listen(self) -> io::Result<TcpListener> {
        self.socket.listen(BACKLOG)
    }
}

/// Whether the address, or its family, does not belong to this machine.
fn is_elsewhere(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_host_names_are_parsed() {
        for text in [
            "127.0.0.1:3000",
            "[::1]:3000",
            "0.0.0.0:0",
            "localhost:3000",
            "my-host.example:80",
            "a_b:1",
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_port_alone_is_on_loopback() {
        for text in ["3000", ":3000"] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), "127.0.0.1:3000", "{text}");
        }
        assert_eq!(":0".parse::<ListenAddress>().unwrap().to_string(), "127.0.0.1:0");
    }

    #[test]
    fn an_invalid_address_is_refused_with_a_correction() {
        for (text, part) in [
            ("localhost", "the port is missing"),
            ("localhost:http", "`http` is not a port"),
            ("localhost:65536", "`65536` is not a port"),
            ("65536", "`65536` is not a port"),
            (":", "`` is not a port"),
            ("127.0.0.1", "the port is missing"),
            ("::1", "the port is missing; write 127.0.0.1:3000, or [::1]:3000"),
            ("[::1]", "[::1]:3000"),
            ("my:host:3000", "[::1]:3000"),
            ("http://localhost:3000", "neither"),
            ("", "the port is missing"),
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_host_name_is_resolved_and_an_unknown_one_named_in_the_error() {
        let address: ListenAddress = "localhost:0".parse().unwrap();
        let addresses = address.resolve().unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
        assert!(addresses.is_sorted_by_key(SocketAddr::is_ipv6), "{addresses:?}");
        let unknown: ListenAddress = "nowhere.invalid:80".parse().unwrap();
        let error = unknown.resolve().unwrap_err().to_string();
        assert!(error.contains("`nowhere.invalid`"), "{error}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_skipped_and_one_in_use_is_not() {
        let elsewhere: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let here: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let bound = BoundAddress::bind(&[elsewhere, here]).unwrap();
        let taken = bound.address();
        assert!(taken.ip().is_loopback() && taken.port() != 0);
        let connected = std::net::TcpStream::connect(taken);
        assert_eq!(connected.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let listener = bound.listen().unwrap();
        assert_eq!(listener.local_addr().unwrap(), taken);
        std::net::TcpStream::connect(taken).unwrap();
        let error = BoundAddress::bind(&[taken, here]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
