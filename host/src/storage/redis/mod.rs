//! Connections to Redis, for guests and for stores: each component has its own, shared by its
//! instances, made when they are needed, and again when they have broken. A Redis that is slow, gone,
//! or answers without end costs a command [`COMMAND_TIMEOUT`] at most, is an error of it, and takes
//! only so much memory.

mod address;
pub(crate) mod reply;
mod connection;
mod link;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use redis::RedisError;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use crate::config::blocked_networks::BlockedNetworks;

pub use address::Address;
pub use connection::Connection;
pub(crate) use connection::Stream;
pub use link::Link;
use link::Means;
pub(crate) use link::dial;

/// For a command's answer, a connection that has to be made first included.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections of all guests, unless the runtime config says otherwise.
pub const CONNECTIONS: usize = 256;
/// Connections of one component among those, so that it cannot take all.
const OF_ONE: usize = 64;
/// Answers in memory that are not small, of all and of one component: each is of 64 MiB at most.
const LARGE_ANSWERS: usize = 4;
const LARGE_OF_ONE: usize = 1;
/// A connection nobody uses is kept for so long.
const IDLE: Duration = Duration::from_secs(60);

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "there are {most} connections to Redis, as many as there may be; \
         outbound_redis.max_connections in the runtime config says how many of all components"
    )]
    TooMany { most: usize },
    #[error("the answer is of another type: {0}")]
    Type(String),
    #[error("the Redis did not answer within {COMMAND_TIMEOUT:?}")]
    Late,
    #[error(
        "{0}; the connection this handle had for itself is lost, and what was set on it (SELECT, \
         MULTI, ...): the next command has another"
    )]
    Lost(String),
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

/// So many connections.
#[derive(Clone, Debug)]
pub struct Connections(Arc<All>);

/// What all components have in common.
struct All {
    most: usize,
    permits: Arc<Semaphore>,
    large_answers: Arc<Semaphore>,
    tls: TlsConnector,
    blocked: BlockedNetworks,
    shares: Mutex<Vec<Weak<Share>>>,
}

impl fmt::Debug for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("All").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Connections {
    /// None yet, `most` at a time, none of them to a network that is `blocked`; certificates are
    /// checked as `tls` says.
    #[must_use]
    pub fn new(most: usize, tls: Arc<ClientConfig>, blocked: BlockedNetworks) -> Self {
        Self(Arc::new(All {
            most,
            permits: Arc::new(Semaphore::new(most)),
            large_answers: Arc::new(Semaphore::new(LARGE_ANSWERS)),
            tls: TlsConnector::from(tls),
            blocked,
            shares: Mutex::default(),
        }))
    }

    /// What one more component connects by.
    #[must_use]
    pub fn share(&self) -> Arc<Share> {
        let means = Means {
            all: Arc::clone(&self.0),
            permits: Arc::new(Semaphore::new(OF_ONE)),
            large_answers: Arc::new(Semaphore::new(LARGE_OF_ONE)),
        };
        let share = Arc::new(Share { means, links: Mutex::default() });
        lock(&self.0.shares).push(Arc::downgrade(&share));
        share
    }

    /// Drops the ways nobody has used for long.
    pub fn drop_idle(&self, now: Instant) {
        self.0.drop_unused(|link| now.saturating_duration_since(link.used()) >= IDLE);
    }
}

impl All {
    /// Drops the ways nobody has that are not `needed` any more, and their connections.
    fn drop_unused(&self, unneeded: impl Fn(&Link) -> bool) {
        for share in lock(&self.shares).iter().filter_map(Weak::upgrade) {
            share.drop_unused(&unneeded);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One component's part of the connections: what it does to one, or what a Redis does, is nothing to
/// the others.
#[derive(Debug)]
pub struct Share {
    means: Means,
    /// By address as it is written, password included.
    links: Mutex<HashMap<Arc<str>, Arc<Link>>>,
}

impl Share {
    /// The way to an address; it is connected when it is used.
    pub fn link(&self, address: &Address) -> Result<Arc<Link>, Error> {
        if let Some(link) = lock(&self.links).get(&address.text) {
            link.touch();
            return Ok(Arc::clone(link));
        }
        if lock(&self.links).len() >= OF_ONE {
            self.drop_unused(|_| true);
        }
        let mut links = lock(&self.links);
        if links.len() >= OF_ONE {
            return Err(Error::TooMany { most: OF_ONE });
        }
        let link = links
            .entry(Arc::clone(&address.text))
            .or_insert_with(|| Arc::new(Link::new(address.clone(), self.means.clone())));
        Ok(Arc::clone(link))
    }

    fn drop_unused(&self, unneeded: impl Fn(&Link) -> bool) {
        lock(&self.links).retain(|_, link| Arc::strong_count(link) > 1 || !unneeded(link));
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::reply::MAX_MEMORY;
    use super::*;

    fn connections(most: usize) -> Connections {
        Connections::new(most, crate::http::client_tls::client().unwrap(), BlockedNetworks::default())
    }

    /// A server that answers each connection's handshake, and then the first command with `answer`,
    /// which is sent `times` times; it closes no connection.
    async fn serving(answer: impl Into<Vec<u8>>, times: usize) -> Address {
        let answer = Arc::new(answer.into());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("redis://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let (mut said, mut part) = (Vec::new(), [0; 4096]);
                    // The client's name and version; each is answered.
                    while said.iter().filter(|byte| **byte == b'*').count() < 2
                        || !said.ends_with(b"\r\n")
                    {
                        let read = stream.read(&mut part).await.unwrap_or(0);
                        said.extend(&part[..read]);
                        if read == 0 {
                            return;
                        }
                    }
                    let _ = stream.write_all(b"+OK\r\n+OK\r\n").await;
                    let _ = stream.read(&mut part).await;
                    for _ in 0..times {
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                    // Until the client goes.
                    while stream.read(&mut part).await.is_ok_and(|read| read > 0) {}
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
        let link = connections(1).share().link(&Address::parse(&address).unwrap()).unwrap();
        let answer = link.answer::<Value>(&redis::cmd("PING")).await;
        assert!(matches!(answer, Err(Error::Connect(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn an_answer_that_takes_too_much_memory_ends_the_connection_before_it_has_come() {
        let mut endless = b"+".to_vec();
        endless.resize(1 << 20, b'a');
        let lists = [b"*1000000\r\n".to_vec(), b":1\r\n".repeat(1000)].concat();
        for (answer, times) in [(endless, 1000), (b"$2000000000\r\n0".to_vec(), 1), (lists, 1000)] {
            let address = serving(answer, times).await;
            let link = connections(1).share().link(&address).unwrap();
            // A busy machine may not read so much in the time a command has: it is asked again.
            let (connection, problem) = loop {
                let connection = link.connection().await.unwrap();
                match link.answer::<Value>(&redis::cmd("GET")).await {
                    Err(Error::Late) => {}
                    Err(Error::Command(problem)) if problem.contains("was not whole") => {}
                    Err(Error::Command(problem)) => break (connection, problem),
                    answer => panic!("{answer:?}"),
                }
            };
            assert!(problem.contains("more than 64 MiB of memory"), "{problem}");
            assert!(!connection.is_open());
            assert!(connection.heard() <= (MAX_MEMORY / 2 + (2 << 20)) as u64);
        }
    }

    #[tokio::test]
    async fn garbage_is_an_error_and_the_next_has_another_connection() {
        for garbage in [
            &b"\0\x01\xff garbage\r\n"[..],
            b"*2147483647\r\n:1\r\n$-9\r\n?",
            b"%-5\r\n|9\r\n",
            b"$1\r\nabc",
            // One more than asked for.
            b"+a\r\n+b\r\n",
        ] {
            let address = serving(garbage, 1).await;
            let link = connections(1).share().link(&address).unwrap();
            for _ in 0..2 {
                let connection = link.connection().await.unwrap();
                let answer = link.answer::<String>(&redis::cmd("GET")).await;
                assert!(answer.is_err() || answer == Ok("a".into()), "{answer:?}");
                while connection.is_open() {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    #[tokio::test]
    async fn silence_costs_a_command_its_time_and_the_next_another_connection() {
        // Silent from the start, or in the middle of an answer.
        for beginning in ["", "*3\r\n$5\r\nab"] {
            let address = serving(beginning, 1).await;
            let link = connections(2).share().link(&address).unwrap();
            let first = link.connection().await.unwrap();
            let began = Instant::now();
            let answer = link.answer::<Value>(&redis::cmd("PING")).await;
            assert!(answer.is_err(), "{answer:?}");
            assert!(began.elapsed() >= COMMAND_TIMEOUT);
            while first.is_open() {
                tokio::task::yield_now().await;
            }
            assert!(!Arc::ptr_eq(&first, &link.connection().await.unwrap()));
        }
    }

    /// Answers that are not small wait for each other, of one component and of all.
    #[tokio::test]
    async fn memory_for_answers_is_bounded_all_together() {
        let large = [b"$1000000\r\n".to_vec(), vec![b'a'; 1_000_000], b"\r\n".to_vec()].concat();
        let address = serving(large, 1).await;
        let all = connections(10);
        let taken = Arc::clone(&all.0.large_answers)
            .acquire_many_owned(u32::try_from(LARGE_ANSWERS).unwrap())
            .await;
        let link = all.share().link(&address).unwrap();
        let get = redis::cmd("GET");
        let mut answer = Box::pin(link.answer::<Vec<u8>>(&get));
        let connection = link.connection().await.unwrap();
        // It has begun to come, and stays where it is.
        let waits = async {
            while connection.heard() < 20 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = waits => {}
            answer = &mut answer => panic!("{answer:?}"),
        }
        drop(taken);
        assert_eq!(answer.await.map(|answer| answer.len()), Ok(1_000_000));
        assert_eq!(all.0.large_answers.available_permits(), LARGE_ANSWERS);
    }

    #[tokio::test]
    async fn a_component_has_its_own_connections_and_not_all() {
        let address = serving("+OK\r\n", 1).await;
        let all = connections(10 * OF_ONE);
        let (one, other) = (all.share(), all.share());
        let (mine, theirs) = (one.link(&address).unwrap(), other.link(&address).unwrap());
        let (mine, theirs) = (mine.connection().await.unwrap(), theirs.connection().await.unwrap());
        assert!(!Arc::ptr_eq(&mine, &theirs));
        let link = one.link(&address).unwrap();
        assert!(Arc::ptr_eq(&mine, &link.connection().await.unwrap()));
        let mut taken = Vec::new();
        for _ in 1..OF_ONE {
            taken.push(link.own_connection().await.unwrap());
        }
        let refused = link.own_connection().await.map(drop);
        assert_eq!(refused, Err(Error::TooMany { most: OF_ONE }));
        assert!(other.link(&address).unwrap().own_connection().await.is_ok());
    }

    #[tokio::test]
    async fn there_are_so_many_connections_and_idle_ones_go() {
        let address = serving("+OK\r\n", 1).await;
        let all = connections(1);
        let (one, other) = (all.share(), all.share());
        let link = one.link(&address).unwrap();
        let shared = link.connection().await.unwrap();
        let too_many = |answer: Result<(), Error>| {
            assert_eq!(answer, Err(Error::TooMany { most: 1 }));
        };
        too_many(link.own_connection().await.map(drop));
        too_many(other.link(&address).unwrap().connection().await.map(drop));
        drop((shared, link));
        all.drop_idle(Instant::now());
        assert_eq!(lock(&one.links).len(), 1);
        // What nobody uses gives way at once, and goes by itself later.
        assert!(other.link(&address).unwrap().connection().await.is_ok());
        assert_eq!(lock(&one.links).len(), 0);
        all.drop_idle(Instant::now() + IDLE);
        assert_eq!(lock(&other.links).len(), 0);
    }
}
