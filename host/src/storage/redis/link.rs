//! The way of one component to one address: how a connection is made, and made again.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::connection::Places;
use super::{Address, All, COMMAND_TIMEOUT, Connection, Error, OF_ONE, Stream, lock};
use crate::config::blocked_networks::BlockedNetworks;

/// To connect, TLS and login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a component's connections are made with.
#[derive(Clone, Debug)]
pub(super) struct Means {
    pub(super) all: Arc<All>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) large_answers: Arc<Semaphore>,
}

impl Means {
    async fn connect(&self, address: &Address) -> Result<Connection, Error> {
        let permits = self.permits().or_else(|_| {
            // What nobody uses gives way to what is needed.
            self.all.drop_unused(|_| true);
            self.permits()
        })?;
        let connected = timeout(CONNECT_TIMEOUT, self.connect_late(address, permits)).await;
        connected.unwrap_or_else(|_| Err(Error::Connect(format!("not in {CONNECT_TIMEOUT:?}"))))
    }

    fn permits(&self) -> Result<[OwnedSemaphorePermit; 2], Error> {
        let take = |permits: &Arc<Semaphore>, most| {
            let permit = Arc::clone(permits).try_acquire_owned();
            permit.map_err(|_| Error::TooMany { most })
        };
        Ok([take(&self.permits, OF_ONE)?, take(&self.all.permits, self.all.most)?])
    }

    async fn connect_late(
        &self,
        address: &Address,
        permits: [OwnedSemaphorePermit; 2],
    ) -> Result<Connection, Error> {
        let failed = |error: &dyn fmt::Display| Error::Connect(error.to_string());
        let Address { host, port, .. } = address;
        let tls = address.tls.then_some(&self.all.tls);
        let stream = dial(host, *port, tls, &self.all.blocked).await.map_err(|e| failed(&e))?;
        let (all, own) = (Arc::clone(&self.all.large_answers), Arc::clone(&self.large_answers));
        let opened = Connection::open(stream, &address.settings, Places { all, own }, permits);
        opened.await.map_err(|error| failed(&error))
    }
}

/// A stream to a Redis in no network that is `blocked`, over TLS with `tls`.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    tls: Option<&TlsConnector>,
    blocked: &BlockedNetworks,
) -> io::Result<Box<dyn Stream>> {
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

/// The way of one component to one address.
pub struct Link {
    address: Address,
    means: Means,
    /// Held while it is connected: who comes meanwhile waits for the same.
    shared: AsyncMutex<Option<Arc<Connection>>>,
    used: Mutex<Instant>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Link {
    /// To `address`; it is connected when it is used.
    pub(super) fn new(address: Address, means: Means) -> Self {
        Self { address, means, shared: AsyncMutex::default(), used: Mutex::new(Instant::now()) }
    }

    /// The connection its instances share, made if there is none that works.
    pub async fn connection(&self) -> Result<Arc<Connection>, Error> {
        self.touch();
        let mut shared = self.shared.lock().await;
        if let Some(connection) = shared.as_ref().filter(|connection| connection.is_open()) {
            return Ok(Arc::clone(connection));
        }
        // Its permit is free before another is asked for, if nobody uses it.
        *shared = None;
        let connection = Arc::new(self.means.connect(&self.address).await?);
        *shared = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Waits until there is one.
    pub async fn connected(&self) -> Result<(), Error> {
        let connection = timeout(COMMAND_TIMEOUT, self.connection()).await;
        connection.map_err(|_| Error::Late)?.map(drop)
    }

    /// A connection that nobody else has.
    pub async fn own_connection(&self) -> Result<Connection, Error> {
        self.means.connect(&self.address).await
    }

    /// The answer to a command, over the connection its instances share.
    pub async fn answer<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let connection = timeout_at(deadline.into(), self.connection()).await;
        connection.map_err(|_| Error::Late)??.answer_by(command, deadline).await
    }

    pub(super) fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }

    pub(super) fn used(&self) -> Instant {
        *lock(&self.used)
    }
}
