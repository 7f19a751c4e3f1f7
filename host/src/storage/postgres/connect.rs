//! Opening a connection: the addresses of a server, TLS, and login.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{CancelToken, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::address::{PostgresAddress, ServerLocation};
use super::connection::{PostgresConnection, read_messages};
use super::framing::{Allowance, BoundedMessages, Framing};
use super::{CONNECT_TIMEOUT, PostgresError};
use crate::config::blocked_networks::BlockedNetworks;
use crate::process::memory_budget::MemoryBudget;

/// The protocol's name in TLS (ALPN), which servers require for TLS from the first byte.
const PROTOCOL: &[u8] = b"postgresql";
/// Maximum size of certificates that a guest trusts, in bytes.
const MAX_CERTIFICATES: usize = 256 << 10;

/// `tls` for PostgreSQL.
pub(super) fn with_protocol(mut tls: ClientConfig) -> ClientConfig {
    tls.alpn_protocols = vec![PROTOCOL.to_vec()];
    tls
}

/// The certificates that a guest trusts, instead of those of the host.
#[derive(Clone)]
pub struct CaRoot(Arc<ClientConfig>);

impl fmt::Debug for CaRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaRoot").finish_non_exhaustive()
    }
}

impl CaRoot {
    /// Parses certificates in PEM.
    ///
    /// # Errors
    /// There is none, or one is invalid.
    pub fn parse(pem: &str) -> Result<Self, String> {
        if pem.len() > MAX_CERTIFICATES {
            return Err(format!("the certificates exceed {MAX_CERTIFICATES} bytes"));
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("invalid PEM: {error}"))?;
            roots.add(certificate).map_err(|error| format!("invalid certificate: {error}"))?;
        }
        if roots.is_empty() {
            return Err("there is no certificate; pass the text of a PEM file, which starts with \
                        \"-----BEGIN CERTIFICATE-----\""
                .into());
        }
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self(Arc::new(with_protocol(tls))))
    }

    pub(super) fn tls(&self) -> &Arc<ClientConfig> {
        &self.0
    }
}

pub(super) type RawStream = BoundedMessages<TcpStream>;
type Rustls = <MakeRustlsConnect as MakeTlsConnect<RawStream>>::TlsConnect;
pub(super) type EncryptedStream = BoundedMessages<<Rustls as TlsConnect<RawStream>>::Stream>;

/// Connects to the first server that accepts it. The time is divided among the servers.
pub(super) async fn first(
    address: &PostgresAddress,
    tls: &Arc<ClientConfig>,
    blocked: &BlockedNetworks,
    memory: &MemoryBudget,
    permits: [OwnedSemaphorePermit; 2],
) -> Result<PostgresConnection, PostgresError> {
    let count = u32::try_from(address.servers.len()).unwrap_or(u32::MAX).max(1);
    let share = CONNECT_TIMEOUT / count;
    let limit = address.connect_timeout().map_or(share, |timeout| timeout.min(share));
    let mut problems = Vec::new();
    for server in &address.servers {
        let dialer =
            Dialer { tls: Arc::clone(tls), mode: address.tls(), host: server.host.clone() };
        let attempt = timeout(limit, dialer.log_in(address, server, blocked, memory)).await;
        let failed = match attempt {
            Ok(Ok(opened)) => return Ok(PostgresConnection::new(opened, dialer, permits, memory)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("timed out after {limit:?}"),
        };
        let ServerLocation { host, port } = server;
        problems.push(format!("{host}:{port}: {failed}"));
    }
    Err(PostgresError::Connection(problems.join("; ")))
}

/// What a login results in.
pub(super) struct Login {
    pub(super) client: tokio_postgres::Client,
    pub(super) connection: tokio_postgres::Connection<RawStream, EncryptedStream>,
    pub(super) allowance: Allowance,
    /// Where the server is.
    pub(super) peer: SocketAddr,
}

/// Opens streams to one server.
pub(super) struct Dialer {
    tls: Arc<ClientConfig>,
    mode: (SslMode, SslNegotiation),
    /// As in the address: the name in the server's certificate.
    host: String,
}

impl Dialer {
    async fn log_in(
        &self,
        address: &PostgresAddress,
        server: &ServerLocation,
        blocked: &BlockedNetworks,
        memory: &MemoryBudget,
    ) -> Result<Login, PostgresError> {
        let failed = |error: io::Error| PostgresError::Connection(error.to_string());
        let found = lookup_host((server.host.as_str(), server.port)).await.map_err(failed)?;
        let found = blocked.filter(found).map_err(failed)?;
        let stream = TcpStream::connect(&found[..]).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let peer = stream.peer_addr().map_err(failed)?;
        let allowance = Allowance::of_login();
        let stream = self.bounded(stream, &allowance, memory);
        let tls = self.tls(&allowance, memory);
        let opened = address.login.connect_raw(stream, tls).await;
        let (client, connection) = opened.map_err(|error| PostgresError::of_login(&error))?;
        let mut login = Login { client, connection, allowance, peer };
        if let Some(read_only) = address.read_only() {
            login.check_mode(read_only).await?;
        }
        Ok(login)
    }

    /// Cancels the statement that `token` names.
    pub(super) async fn cancel(&self, token: &CancelToken, peer: SocketAddr) -> io::Result<()> {
        let memory = MemoryBudget::new(0, "a cancellation");
        let allowance = Allowance::of_login();
        let stream = self.bounded(TcpStream::connect(peer).await?, &allowance, &memory);
        let tls = self.tls(&allowance, &memory);
        token.cancel_query_raw(stream, tls).await.map_err(io::Error::other)
    }

    fn bounded(
        &self,
        stream: TcpStream,
        allowance: &Allowance,
        memory: &MemoryBudget,
    ) -> RawStream {
        let framing = match self.mode {
            (SslMode::Disable, _) => Framing::MESSAGES,
            (_, SslNegotiation::Direct) => Framing::Encrypted,
            _ => Framing::TlsReply,
        };
        BoundedMessages::new(stream, framing, allowance, memory)
    }

    fn tls(&self, allowance: &Allowance, memory: &MemoryBudget) -> BoundedTls {
        let mut rustls = MakeRustlsConnect::new((*self.tls).clone());
        let Ok(rustls) = MakeTlsConnect::<RawStream>::make_tls_connect(&mut rustls, &self.host);
        BoundedTls { rustls, allowance: allowance.clone(), memory: memory.clone() }
    }
}

impl Login {
    /// Checks whether the server's sessions are read-only.
    async fn check_mode(&mut self, read_only: bool) -> Result<(), PostgresError> {
        let Self { client, connection, .. } = self;
        let shown = client.simple_query("SHOW transaction_read_only");
        let shown = tokio::select! {
            shown = shown => shown.map_err(|error| PostgresError::of_login(&error))?,
            reason = read_messages(connection) => return Err(PostgresError::Connection(reason)),
        };
        let mode = shown.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        if (mode == Some("on")) == read_only {
            return Ok(());
        }
        let mode = if read_only { "not read-only" } else { "read-only" };
        Err(PostgresError::Connection(format!("the server is {mode} (target_session_attrs)")))
    }
}

/// TLS whose messages are bounded.
pub(super) struct BoundedTls {
    rustls: Rustls,
    allowance: Allowance,
    memory: MemoryBudget,
}

impl TlsConnect<RawStream> for BoundedTls {
    type Stream = EncryptedStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<EncryptedStream>> + Send>>;

    fn connect(self, stream: RawStream) -> Self::Future {
        Box::pin(async move {
            let Self { rustls, allowance, memory } = self;
            let stream = rustls.connect(stream).await?;
            Ok(BoundedMessages::new(stream, Framing::MESSAGES, &allowance, &memory))
        })
    }
}
