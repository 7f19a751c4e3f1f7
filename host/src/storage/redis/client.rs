//! The client of one component for one address, which connects on use and reconnects.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::connection::ReplyPermits;
use super::{
    Address, COMMAND_TIMEOUT, MAX_PER_COMPONENT, RedisConnection, RedisError, RedisStream,
    SharedConnections,
};
use crate::config::blocked_networks::BlockedNetworks;

/// Timeout for a connection, including TLS and login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens the connections of one component.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) all: Arc<SharedConnections>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) large_replies: Arc<Semaphore>,
}

impl Connector {
    async fn connect(&self, address: &Address) -> Result<RedisConnection, RedisError> {
        let permits = self.permits().or_else(|_| {
            // Unused connections are closed for the one that is needed.
            self.all.drop_unused(|_| true);
            self.permits()
        })?;
        let connected = timeout(CONNECT_TIMEOUT, self.connect_with(address, permits)).await;
        connected.unwrap_or_else(|_| {
            Err(RedisError::Connect(format!("timed out after {CONNECT_TIMEOUT:?}")))
        })
    }

    fn permits(&self) -> Result<[OwnedSemaphorePermit; 2], RedisError> {
        let take = |permits: &Arc<Semaphore>, limit| {
            let permit = Arc::clone(permits).try_acquire_owned();
            permit.map_err(|_| RedisError::TooMany { limit })
        };
        Ok([take(&self.permits, MAX_PER_COMPONENT)?, take(&self.all.permits, self.all.limit)?])
    }

    /// Connects without a timeout.
    async fn connect_with(
        &self,
        address: &Address,
        permits: [OwnedSemaphorePermit; 2],
    ) -> Result<RedisConnection, RedisError> {
        let failed = |error: &dyn fmt::Display| RedisError::Connect(error.to_string());
        let Address { host, port, .. } = address;
        let tls = address.tls.then_some(&self.all.tls);
        let stream = dial(host, *port, tls, &self.all.blocked).await.map_err(|e| failed(&e))?;
        let (all, own) = (Arc::clone(&self.all.large_replies), Arc::clone(&self.large_replies));
        let opened =
            RedisConnection::open(stream, &address.settings, ReplyPermits { all, own }, permits);
        opened.await.map_err(|error| failed(&error))
    }
}

/// Opens a stream to a Redis server, over TLS if there is a `tls` connector.
///
/// # Errors
/// The name cannot be resolved, all its addresses are in `blocked` networks, or the connection fails.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    tls: Option<&TlsConnector>,
    blocked: &BlockedNetworks,
) -> io::Result<Box<dyn RedisStream>> {
    let addresses = blocked.filter(lookup_host((host, port)).await?)?;
    let stream = TcpStream::connect(&addresses[..]).await?;
    stream.set_nodelay(true)?;
    Ok(match tls {
        Some(tls) => {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            Box::new(tls.connect(name, stream).await?)
        }
        None => Box::new(stream),
    })
}

/// The client of one component for one address.
pub struct RedisClient {
    address: Address,
    connector: Connector,
    /// The connection that the instances share. Locked while it is opened, so that concurrent callers
    /// wait for the same connection.
    shared: AsyncMutex<Option<Arc<RedisConnection>>>,
    last_used: Mutex<Instant>,
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient").field("address", &self.address).finish_non_exhaustive()
    }
}

impl RedisClient {
    /// A client of `address`, which is not connected yet.
    pub(super) fn new(address: Address, connector: Connector) -> Self {
        let (shared, last_used) = (AsyncMutex::default(), Mutex::new(Instant::now()));
        Self { address, connector, shared, last_used }
    }

    /// The connection that the instances share. Connects if there is none that is usable.
    ///
    /// # Errors
    /// Connecting fails, or a limit of connections is reached.
    pub async fn connection(&self) -> Result<Arc<RedisConnection>, RedisError> {
        self.touch();
        let mut shared = self.shared.lock().await;
        if let Some(connection) = shared.as_ref().filter(|connection| connection.is_open()) {
            return Ok(Arc::clone(connection));
        }
        // Releases its permits first, if no caller holds the connection.
        *shared = None;
        let connection = Arc::new(self.connector.connect(&self.address).await?);
        *shared = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Connects if there is no usable connection.
    ///
    /// # Errors
    /// As [`Self::connection`], or the command timeout passes.
    pub async fn connect(&self) -> Result<(), RedisError> {
        let connection = timeout(COMMAND_TIMEOUT, self.connection()).await;
        connection.map_err(|_| RedisError::Timeout)?.map(drop)
    }

    /// Opens a connection that only the caller uses.
    ///
    /// # Errors
    /// As [`Self::connection`].
    pub async fn own_connection(&self) -> Result<RedisConnection, RedisError> {
        self.connector.connect(&self.address).await
    }

    /// Sends a command over the connection that the instances share. Returns the reply.
    ///
    /// # Errors
    /// Connecting or the command fails, or the command timeout passes.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let connection = timeout_at(deadline.into(), self.connection()).await;
        connection.map_err(|_| RedisError::Timeout)??.query_by(command, deadline).await
    }

    pub(super) fn touch(&self) {
        *self.last_used.lock() = Instant::now();
    }

    pub(super) fn last_used(&self) -> Instant {
        *self.last_used.lock()
    }
}
