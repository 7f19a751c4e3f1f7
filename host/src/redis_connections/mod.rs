//! Connections to Redis, for guests and for stores: shared by all who have the same address, made
//! when they are needed, and again when they have broken. A Redis that is slow, gone, or answers
//! without end costs a command [`COMMAND_TIMEOUT`] at most, and is an error of it.

mod address;
mod stream;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisError, Value, from_redis_value};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::blocked_networks::BlockedNetworks;

pub use address::Address;
pub(crate) use stream::Wire;
use stream::{Measured, Stream};

/// To connect, TLS and login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For a command's answer, a connection that has to be made first included.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections of all guests, unless the runtime config says otherwise.
pub const CONNECTIONS: usize = 256;
/// A connection nobody uses is kept for so long.
const IDLE: Duration = Duration::from_secs(60);

/// Why a command has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "this host has {most} connections to Redis, as many as it may; outbound_redis.max_connections \
         in the runtime config allows more"
    )]
    TooMany { most: usize },
    #[error("the answer is of another type: {0}")]
    Type(String),
    #[error("the Redis did not answer within {COMMAND_TIMEOUT:?}")]
    Late,
    #[error("cannot connect to the Redis: {0}")]
    Connect(String),
    #[error("{0}")]
    Command(String),
}

impl Error {
    /// What Redis answers, or how the connection broke.
    fn of(error: &RedisError) -> Self {
        match error.code() {
            Some("WRONGTYPE") => Self::Type(error.to_string()),
            _ => Self::Command(error.to_string()),
        }
    }
}

/// So many connections, and the ways to where they go.
pub struct Connections {
    connector: Arc<Connector>,
    /// By address as it is written, password included.
    links: Mutex<HashMap<String, Arc<Link>>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("most", &self.connector.most).finish_non_exhaustive()
    }
}

impl Connections {
    /// None yet, `most` at a time; certificates are checked as `tls` says.
    #[must_use]
    pub fn new(most: usize, tls: Arc<ClientConfig>) -> Self {
        let (permits, tls) = (Arc::new(Semaphore::new(most)), TlsConnector::from(tls));
        let connector = Connector { most, permits, tls, blocked: BlockedNetworks::default() };
        Self { connector: Arc::new(connector), links: Mutex::default() }
    }

    /// The same, none of which are to networks that are blocked.
    #[must_use]
    pub fn blocking(self, blocked: BlockedNetworks) -> Self {
        let Connector { most, permits, tls, .. } = &*self.connector;
        let (permits, tls) = (Arc::clone(permits), tls.clone());
        Self { connector: Arc::new(Connector { most: *most, permits, tls, blocked }), ..self }
    }

    /// The way to an address; it is connected when it is used.
    pub fn link(&self, address: &Address) -> Result<Arc<Link>, Error> {
        let most = self.connector.most;
        let mut links = self.links();
        if let Some(link) = links.get(&address.text) {
            link.touch();
            return Ok(Arc::clone(link));
        }
        if links.len() >= most {
            return Err(Error::TooMany { most });
        }
        let link = Arc::new(Link {
            address: address.clone(),
            connector: Arc::clone(&self.connector),
            shared: AsyncMutex::default(),
            used: Mutex::new(Instant::now()),
        });
        links.insert(address.text.clone(), Arc::clone(&link));
        Ok(link)
    }

    /// Drops the ways nobody has used for long.
    pub fn drop_idle(&self, now: Instant) {
        self.links().retain(|_, link| {
            Arc::strong_count(link) > 1 || now.saturating_duration_since(link.used()) < IDLE
        });
    }

    fn links(&self) -> MutexGuard<'_, HashMap<String, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream to a Redis in no network that is `blocked`, over TLS with `tls`. It breaks off when an
/// answer gets too long.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    tls: Option<&TlsConnector>,
    blocked: &BlockedNetworks,
) -> io::Result<(Measured, Arc<Wire>)> {
    let addresses = blocked.filter(lookup_host((host, port)).await?).map_err(io::Error::other)?;
    let stream = TcpStream::connect(&addresses[..]).await?;
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match tls {
        Some(tls) => {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            Box::new(tls.connect(name, stream).await?)
        }
        None => Box::new(stream),
    };
    let wire = Arc::new(Wire::default());
    Ok((Measured { stream, wire: Arc::clone(&wire) }, wire))
}

/// What makes connections.
struct Connector {
    most: usize,
    permits: Arc<Semaphore>,
    tls: TlsConnector,
    blocked: BlockedNetworks,
}

impl Connector {
    async fn connect(&self, address: &Address) -> Result<Connection, Error> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_| Error::TooMany { most: self.most })?;
        let connected = timeout(CONNECT_TIMEOUT, self.connect_late(address, permit)).await;
        connected.unwrap_or_else(|_| Err(Error::Connect(format!("not in {CONNECT_TIMEOUT:?}"))))
    }

    async fn connect_late(
        &self,
        address: &Address,
        permit: OwnedSemaphorePermit,
    ) -> Result<Connection, Error> {
        let failed = |error: &dyn fmt::Display| Error::Connect(error.to_string());
        let Address { host, port, .. } = address;
        let tls = address.tls.then_some(&self.tls);
        let dialled = dial(host, *port, tls, &self.blocked).await;
        let (stream, wire) = dialled.map_err(|e| failed(&e))?;
        // Time is ours to measure: a command waits for its connection too.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let made = MultiplexedConnection::new_with_config(&address.settings, stream, config).await;
        let (commands, driver) = made.map_err(|e| failed(&e))?;
        wire.answered();
        let driver = tokio::spawn(driver);
        Ok(Connection { commands, driver, wire, silent: AtomicBool::new(false), _permit: permit })
    }
}

/// The way to one address.
pub struct Link {
    address: Address,
    connector: Arc<Connector>,
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
    /// The connection all share, made if there is none that works.
    pub async fn connection(&self) -> Result<Arc<Connection>, Error> {
        self.touch();
        let mut shared = self.shared.lock().await;
        if let Some(connection) = shared.as_ref().filter(|connection| connection.is_open()) {
            return Ok(Arc::clone(connection));
        }
        // Its permit is free before another is asked for, if nobody uses it.
        *shared = None;
        let connection = Arc::new(self.connector.connect(&self.address).await?);
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
        self.connector.connect(&self.address).await
    }

    /// The answer to a command, over the connection all share.
    pub async fn answer<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let connection = timeout_at(deadline.into(), self.connection()).await;
        connection.map_err(|_| Error::Late)??.answer_by(command, deadline).await
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection, with the answers of many on their way. It ends when it is dropped.
pub struct Connection {
    commands: MultiplexedConnection,
    driver: JoinHandle<()>,
    wire: Arc<Wire>,
    /// Nothing at all came for as long as a command may take.
    silent: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

impl Connection {
    /// The answer to a command.
    pub async fn answer<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.answer_by(command, Instant::now() + COMMAND_TIMEOUT).await
    }

    async fn answer_by<T: FromRedisValue>(
        &self,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<T, Error> {
        let heard = self.wire.heard();
        let mut commands = self.commands.clone();
        let answer = timeout_at(deadline.into(), commands.send_packed_command(command)).await;
        let Ok(answer) = answer else {
            // Another may be what is slow. If nothing came at all, this one is lost.
            if self.wire.heard() == heard {
                self.silent.store(true, Ordering::Relaxed);
            }
            return Err(Error::Late);
        };
        self.wire.answered();
        let value = answer.and_then(Value::extract_error).map_err(|e| Error::of(&e))?;
        from_redis_value(value).map_err(|e| Error::Type(e.to_string()))
    }

    fn is_open(&self) -> bool {
        !self.driver.is_finished() && !self.silent.load(Ordering::Relaxed)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::stream::ANSWER_MOST;
    use super::*;

    fn connections(most: usize) -> Connections {
        Connections::new(most, crate::trust::client().unwrap())
    }

    /// A server that answers each connection's handshake and then `answer`, over and over.
    async fn serving(answer: &'static [u8]) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("redis://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // The client's name and version are set in one write; each is answered.
                    let mut part = [0; 4096];
                    let _ = stream.read(&mut part).await;
                    let _ = stream.write_all(b"+OK\r\n+OK\r\n").await;
                    let _ = stream.read(&mut part).await;
                    while !answer.is_empty() && stream.write_all(answer).await.is_ok() {}
                    // Silent: until the client goes.
                    let _ = stream.read(&mut part).await;
                });
            }
        });
        Address::parse(&address).unwrap()
    }

    #[tokio::test]
    async fn nobody_there_is_an_error_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("redis://{}", listener.local_addr().unwrap());
        drop(listener);
        let link = connections(1).link(&Address::parse(&address).unwrap()).unwrap();
        let answer = link.answer::<Value>(&redis::cmd("PING")).await;
        assert!(matches!(answer, Err(Error::Connect(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn an_answer_without_end_ends_the_connection() {
        // The beginning of a string of 2 GB, then zeros for ever.
        let mut endless = b"$2000000000\r\n".to_vec();
        endless.resize(1 << 16, b'0');
        let address = serving(endless.leak()).await;
        let link = connections(1).link(&address).unwrap();
        let connection = link.connection().await.unwrap();
        let answer = link.answer::<Value>(&redis::cmd("GET")).await;
        assert!(matches!(answer, Err(Error::Command(_) | Error::Late)), "{answer:?}");
        while connection.is_open() {
            tokio::task::yield_now().await;
        }
        let held = connection.wire.unanswered();
        assert!(held <= ANSWER_MOST + (1 << 20), "{held}");
    }

    #[tokio::test]
    async fn garbage_is_an_error_and_the_next_has_another_connection() {
        for garbage in
            [&b"\0\x01\xff garbage\r\n"[..], b"*2147483647\r\n:1\r\n$-9\r\n?", b"%-5\r\n|9\r\n"]
        {
            let address = serving(garbage).await;
            let link = connections(1).link(&address).unwrap();
            for _ in 0..2 {
                let answer = link.answer::<String>(&redis::cmd("GET")).await;
                assert!(answer.is_err(), "{answer:?}");
            }
        }
    }

    #[tokio::test]
    async fn silence_costs_a_command_its_time_and_the_next_another_connection() {
        let address = serving(b"").await;
        let link = connections(2).link(&address).unwrap();
        let first = link.connection().await.unwrap();
        let began = Instant::now();
        let answer = link.answer::<Value>(&redis::cmd("PING")).await;
        assert!(matches!(answer, Err(Error::Late)), "{answer:?}");
        assert!(began.elapsed() >= COMMAND_TIMEOUT);
        assert!(!first.is_open());
        assert!(!Arc::ptr_eq(&first, &link.connection().await.unwrap()));
    }

    #[tokio::test]
    async fn there_are_so_many_connections_and_idle_ones_go() {
        let address = serving(b"+OK\r\n").await;
        let all = connections(1);
        let link = all.link(&address).unwrap();
        let shared = link.connection().await.unwrap();
        assert!(Arc::ptr_eq(&shared, &all.link(&address).unwrap().connection().await.unwrap()));
        let another = link.own_connection().await;
        assert!(matches!(another, Err(Error::TooMany { most: 1 })), "{another:?}");
        let elsewhere = all.link(&Address::parse("redis://elsewhere").unwrap());
        assert!(matches!(elsewhere, Err(Error::TooMany { most: 1 })), "{elsewhere:?}");
        drop((shared, link));
        all.drop_idle(Instant::now());
        assert_eq!(all.links().len(), 1);
        all.drop_idle(Instant::now() + IDLE);
        assert_eq!(all.links().len(), 0);
        assert!(all.link(&address).unwrap().own_connection().await.is_ok());
    }
}
