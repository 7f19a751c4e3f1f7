//! Connections to Redis, for guests and for key-value stores. Each component has its own connections,
//! which its instances share; they are opened on use, and again after a failure. A server that is
//! slow, unreachable or sends endless replies costs a command at most [`COMMAND_TIMEOUT`] and a bounded
//! amount of memory, and the command fails.

mod address;
mod client;
mod connection;
pub(crate) mod reply;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use crate::config::blocked_networks::BlockedNetworks;

pub use address::Address;
use client::Connector;
pub use client::RedisClient;
pub(crate) use client::dial;
pub use connection::RedisConnection;
pub(crate) use connection::RedisStream;

/// Timeout for the reply to a command, including a connection that has to be opened first.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Default maximum number of connections of all guests.
pub const DEFAULT_MAX_CONNECTIONS: usize = 256;
/// Maximum number of connections of one component, so that it cannot take all.
const MAX_PER_COMPONENT: usize = 64;
/// Maximum number of replies in memory that are not small, over all components; each takes at most
/// 64 MiB.
const MAX_LARGE_REPLIES: usize = 4;
/// Maximum number of such replies of one component.
const MAX_LARGE_REPLIES_PER_COMPONENT: usize = 1;
/// Idle timeout of a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    #[error(
        "the limit of {limit} connections to Redis is reached; outbound_redis.max_connections in the \
         runtime config sets the limit of all components"
    )]
    TooMany { limit: usize },
    #[error("the reply has another type: {0}")]
    Type(String),
    #[error("no reply from Redis within {COMMAND_TIMEOUT:?}")]
    Timeout,
    #[error(
        "{0}; the handle's own connection is lost with its state (SELECT, MULTI, ...): the next \
         command uses a new one"
    )]
    Lost(String),
    #[error("cannot connect to Redis: {0}")]
    Connect(String),
    #[error("{0}")]
    Command(String),
}

impl RedisError {
    /// The error that Redis replied, or that of the connection.
    fn of(error: &redis::RedisError) -> Self {
        match error.code() {
            Some("WRONGTYPE") => Self::Type(error.to_string()),
            _ => Self::Command(error.to_string()),
        }
    }
}

/// The connections of all components.
#[derive(Clone, Debug)]
pub struct RedisConnections(Arc<SharedConnections>);

/// What all components share.
struct SharedConnections {
    /// Maximum number of connections.
    limit: usize,
    permits: Arc<Semaphore>,
    large_replies: Arc<Semaphore>,
    tls: TlsConnector,
    blocked: BlockedNetworks,
    components: Mutex<Vec<Weak<ComponentConnections>>>,
}

impl fmt::Debug for SharedConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedConnections").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl RedisConnections {
    /// At most `limit` connections, none of them to a network that is `blocked`; `tls` verifies
    /// certificates.
    #[must_use]
    pub fn new(limit: usize, tls: Arc<ClientConfig>, blocked: BlockedNetworks) -> Self {
        Self(Arc::new(SharedConnections {
            limit,
            permits: Arc::new(Semaphore::new(limit)),
            large_replies: Arc::new(Semaphore::new(MAX_LARGE_REPLIES)),
            tls: TlsConnector::from(tls),
            blocked,
            components: Mutex::default(),
        }))
    }

    /// The connections of one more component.
    #[must_use]
    pub fn for_component(&self) -> Arc<ComponentConnections> {
        let connector = Connector {
            all: Arc::clone(&self.0),
            permits: Arc::new(Semaphore::new(MAX_PER_COMPONENT)),
            large_replies: Arc::new(Semaphore::new(MAX_LARGE_REPLIES_PER_COMPONENT)),
        };
        let component = Arc::new(ComponentConnections { connector, clients: Mutex::default() });
        self.0.components.lock().push(Arc::downgrade(&component));
        component
    }

    /// Closes the connections that have been idle for `IDLE_TIMEOUT`.
    pub fn drop_idle(&self, now: Instant) {
        let is_idle = |client: &RedisClient| {
            now.saturating_duration_since(client.last_used()) >= IDLE_TIMEOUT
        };
        self.0.drop_unused(is_idle);
    }
}

impl SharedConnections {
    /// Drops the clients that no handle or store holds and that are `unneeded`, with their connections.
    fn drop_unused(&self, unneeded: impl Fn(&RedisClient) -> bool) {
        for component in self.components.lock().iter().filter_map(Weak::upgrade) {
            component.drop_unused(&unneeded);
        }
    }
}

/// The connections of one component, so that neither it nor a slow server affects other components.
#[derive(Debug)]
pub struct ComponentConnections {
    connector: Connector,
    /// By address as written, including the password.
    clients: Mutex<HashMap<Arc<str>, Arc<RedisClient>>>,
}

impl ComponentConnections {
    /// The client of an address, which connects on use.
    ///
    /// # Errors
    /// The component has clients of too many addresses.
    pub fn client(&self, address: &Address) -> Result<Arc<RedisClient>, RedisError> {
        if let Some(client) = self.clients.lock().get(&address.text) {
            client.touch();
            return Ok(Arc::clone(client));
        }
        if self.clients.lock().len() >= MAX_PER_COMPONENT {
            self.drop_unused(|_| true);
        }
        let mut clients = self.clients.lock();
        if clients.len() >= MAX_PER_COMPONENT {
            return Err(RedisError::TooMany { limit: MAX_PER_COMPONENT });
        }
        let client = clients
            .entry(Arc::clone(&address.text))
            .or_insert_with(|| Arc::new(RedisClient::new(address.clone(), self.connector.clone())));
        Ok(Arc::clone(client))
    }

    fn drop_unused(&self, unneeded: impl Fn(&RedisClient) -> bool) {
        let is_used =
            |client: &Arc<RedisClient>| Arc::strong_count(client) > 1 || !unneeded(client);
        self.clients.lock().retain(|_, client| is_used(client));
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::reply::MAX_MEMORY;
    use super::*;

    fn connections(limit: usize) -> RedisConnections {
        RedisConnections::new(
            limit,
            crate::http::client_tls::client().unwrap(),
            BlockedNetworks::default(),
        )
    }

    /// A server that completes the handshake of each connection, and replies to the first command with
    /// `reply`, sent `times` times. It closes no connection.
    async fn serving(reply: impl Into<Vec<u8>>, times: usize) -> Address {
        let reply = Arc::new(reply.into());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("redis://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let reply = Arc::clone(&reply);
                tokio::spawn(async move {
                    let (mut received, mut part) = (Vec::new(), [0; 4096]);
                    // Two commands, with the client's name and version.
                    while received.iter().filter(|byte| **byte == b'*').count() < 2
                        || !received.ends_with(b"\r\n")
                    {
                        let read = stream.read(&mut part).await.unwrap_or(0);
                        received.extend(&part[..read]);
                        if read == 0 {
                            return;
                        }
                    }
                    let _ = stream.write_all(b"+OK\r\n+OK\r\n").await;
                    let _ = stream.read(&mut part).await;
                    for _ in 0..times {
                        if stream.write_all(&reply).await.is_err() {
                            return;
                        }
                    }
                    // Until the client disconnects.
                    while stream.read(&mut part).await.is_ok_and(|read| read > 0) {}
                });
            }
        });
        Address::parse(&address).unwrap()
    }

    #[tokio::test]
    async fn refused_connection_is_an_error_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("redis://{}", listener.local_addr().unwrap());
        drop(listener);
        let client =
            connections(1).for_component().client(&Address::parse(&address).unwrap()).unwrap();
        let result = client.query::<Value>(&redis::cmd("PING")).await;
        assert!(matches!(result, Err(RedisError::Connect(_))), "{result:?}");
    }

    #[tokio::test]
    async fn oversized_reply_closes_the_connection_before_it_is_received() {
        let mut endless = b"+".to_vec();
        endless.resize(1 << 20, b'a');
        let lists = [b"*1000000\r\n".to_vec(), b":1\r\n".repeat(1000)].concat();
        for (reply, times) in [(endless, 1000), (b"$2000000000\r\n0".to_vec(), 1), (lists, 1000)] {
            let address = serving(reply, times).await;
            let client = connections(1).for_component().client(&address).unwrap();
            // A busy machine may not read as much within the command timeout: try again.
            let (connection, problem) = loop {
                let connection = client.connection().await.unwrap();
                match client.query::<Value>(&redis::cmd("GET")).await {
                    Err(RedisError::Timeout) => {}
                    Err(RedisError::Command(problem)) if problem.contains("incomplete reply") => {}
                    Err(RedisError::Command(problem)) => break (connection, problem),
                    result => panic!("{result:?}"),
                }
            };
            assert!(problem.contains("more than 64 MiB of memory"), "{problem}");
            assert!(!connection.is_open());
            assert!(connection.received() <= (MAX_MEMORY / 2 + (2 << 20)) as u64);
        }
    }

    #[tokio::test]
    async fn invalid_reply_is_an_error_and_the_next_command_uses_a_new_connection() {
        for garbage in [
            &b"\0\x01\xff garbage\r\n"[..],
            b"*2147483647\r\n:1\r\n$-9\r\n?",
            b"%-5\r\n|9\r\n",
            b"$1\r\nabc",
            // One reply too many.
            b"+a\r\n+b\r\n",
        ] {
            let address = serving(garbage, 1).await;
            let client = connections(1).for_component().client(&address).unwrap();
            for _ in 0..2 {
                let connection = client.connection().await.unwrap();
                let result = client.query::<String>(&redis::cmd("GET")).await;
                assert!(result.is_err() || result == Ok("a".into()), "{result:?}");
                while connection.is_open() {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    #[tokio::test]
    async fn silent_server_times_out_and_the_next_command_uses_a_new_connection() {
        // Silent from the start, or in the middle of a reply.
        for beginning in ["", "*3\r\n$5\r\nab"] {
            let address = serving(beginning, 1).await;
            let client = connections(2).for_component().client(&address).unwrap();
            let first = client.connection().await.unwrap();
            let start = Instant::now();
            let result = client.query::<Value>(&redis::cmd("PING")).await;
            assert!(result.is_err(), "{result:?}");
            assert!(start.elapsed() >= COMMAND_TIMEOUT);
            while first.is_open() {
                tokio::task::yield_now().await;
            }
            assert!(!Arc::ptr_eq(&first, &client.connection().await.unwrap()));
        }
    }

    /// Large replies wait for each other, within a component and over all.
    #[tokio::test]
    async fn memory_of_large_replies_is_limited_over_all_components() {
        let large = [b"$1000000\r\n".to_vec(), vec![b'a'; 1_000_000], b"\r\n".to_vec()].concat();
        let address = serving(large, 1).await;
        let all = connections(10);
        let taken = Arc::clone(&all.0.large_replies)
            .acquire_many_owned(u32::try_from(MAX_LARGE_REPLIES).unwrap())
            .await;
        let client = all.for_component().client(&address).unwrap();
        let get = redis::cmd("GET");
        let mut reply = Box::pin(client.query::<Vec<u8>>(&get));
        let connection = client.connection().await.unwrap();
        // The reply has started to arrive, and is not read further.
        let waits = async {
            while connection.received() < 20 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = waits => {}
            reply = &mut reply => panic!("{reply:?}"),
        }
        drop(taken);
        assert_eq!(reply.await.map(|reply| reply.len()), Ok(1_000_000));
        assert_eq!(all.0.large_replies.available_permits(), MAX_LARGE_REPLIES);
    }

    #[tokio::test]
    async fn component_has_its_own_connections_up_to_its_limit() {
        let address = serving("+OK\r\n", 1).await;
        let all = connections(10 * MAX_PER_COMPONENT);
        let (one, other) = (all.for_component(), all.for_component());
        let (mine, theirs) = (one.client(&address).unwrap(), other.client(&address).unwrap());
        let (mine, theirs) = (mine.connection().await.unwrap(), theirs.connection().await.unwrap());
        assert!(!Arc::ptr_eq(&mine, &theirs));
        let client = one.client(&address).unwrap();
        assert!(Arc::ptr_eq(&mine, &client.connection().await.unwrap()));
        let mut taken = Vec::new();
        for _ in 1..MAX_PER_COMPONENT {
            taken.push(client.own_connection().await.unwrap());
        }
        let refused = client.own_connection().await.map(drop);
        assert_eq!(refused, Err(RedisError::TooMany { limit: MAX_PER_COMPONENT }));
        assert!(other.client(&address).unwrap().own_connection().await.is_ok());
    }

    #[tokio::test]
    async fn connections_are_limited_and_idle_ones_are_closed() {
        let address = serving("+OK\r\n", 1).await;
        let all = connections(1);
        let (one, other) = (all.for_component(), all.for_component());
        let client = one.client(&address).unwrap();
        let shared = client.connection().await.unwrap();
        let too_many = |result: Result<(), RedisError>| {
            assert_eq!(result, Err(RedisError::TooMany { limit: 1 }));
        };
        too_many(client.own_connection().await.map(drop));
        too_many(other.client(&address).unwrap().connection().await.map(drop));
        drop((shared, client));
        all.drop_idle(Instant::now());
        assert_eq!(one.clients.lock().len(), 1);
        // An unused connection is closed for one that is needed, or after the idle timeout.
        assert!(other.client(&address).unwrap().connection().await.is_ok());
        assert_eq!(one.clients.lock().len(), 0);
        all.drop_idle(Instant::now() + IDLE_TIMEOUT);
        assert_eq!(other.clients.lock().len(), 0);
    }
}
