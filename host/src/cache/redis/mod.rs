//! The level of the cache that nodes share: a Redis, a Redis Cluster, or a master behind Sentinels.
//!
//! ```text
//! lookup ── get ───────> connection for queries ─────┐
//! purge ─── publish ───> connection for queries ─────┤
//! store ─── put ─> queue ─> connection for writes ───┼──> Redis   <prefix><key>          responses
//! watch ───────────────> connection to one node ─────┘            <prefix>generations    purges
//! ```
//!
//! The leader of a flight queries it. A task of its own writes to it, so that no request waits for a
//! write. A request waits for at most [`RedisSettings::timeout`]. After any failure the connections are
//! closed at once and no request waits, until new connections have replied within that time.

mod link;
mod reply_limit;
mod settings;
mod value;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::RwLock;
use redis::{RedisError, Value, cmd};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tracing::{debug, info, warn};

use super::entry::CacheEntry;
use super::generation::{Generations, PurgeScope};
use super::key::CacheKey;
use super::memory::MemoryCache;
pub(crate) use link::{Commands, Dialer};
pub(crate) use settings::addresses;
pub use settings::{KEYS, RedisConfig, RedisSettings, RedisTopology};

/// Maximum age of a response while purges of other nodes are not received.
pub const MAX_DISCONNECTED_AGE: Duration = Duration::from_secs(5);

/// Delay between attempts to connect: the first, and the maximum.
const RECONNECT_DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Time after a reconnection during which purges may still be missing: other nodes lost their
/// connections too, and publish theirs when they have reconnected.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// After a connection that lasted this long, the delays start again at the first: a busy machine alone
/// delays a reply over the timeout now and then.
const STABLE_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of queued responses; others are not stored.
const MAX_QUEUED: usize = 4096;
/// Maximum size of queued responses, in bytes.
const MAX_QUEUED_BYTES: usize = 32 << 20;
/// Maximum number of responses written at the same time.
const MAX_BATCH: usize = 64;
/// Timeout of a write.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);
/// Larger responses, in bytes, are encoded on another thread.
const MAX_INLINE_ENCODING: usize = 64 << 10;
/// Time for which nothing is written to a Redis that has rejected a write because it is full.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct RedisCounts {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    /// Queries that timed out or failed.
    pub failures: AtomicU64,
    /// Queries skipped while disconnected.
    pub skipped: AtomicU64,
    /// Foreign values: stored by something other than a host.
    pub foreign: AtomicU64,
    pub stored: AtomicU64,
    /// Responses dropped because Redis was full, slow or disconnected.
    pub not_stored: AtomicU64,
}

/// A response in the queue to be stored.
#[derive(Debug)]
struct QueuedEntry {
    key: CacheKey,
    entry: Arc<CacheEntry>,
    expires_in: Duration,
}

/// Separate connections, so that queries do not wait behind large writes.
#[derive(Clone)]
struct Links {
    queries: Commands,
    writes: Commands,
}

/// Redis is disconnected, or did not reply in time.
#[derive(Clone, Copy, Debug)]
pub struct Unavailable;

/// A Redis that several nodes share.
pub struct RedisCache {
    settings: RedisSettings,
    dialer: Dialer,
    /// `None` while disconnected; and the number of connections so far.
    links: RwLock<(Option<Links>, u64)>,
    disconnected: Notify,
    receives_invalidations: AtomicBool,
    queue: mpsc::Sender<QueuedEntry>,
    queued: Mutex<mpsc::Receiver<QueuedEntry>>,
    queued_bytes: AtomicUsize,
    counts: RedisCounts,
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RedisCache {
    /// Connects once [`Self::run`] is called.
    #[must_use]
    pub fn new(settings: RedisSettings, tls: TlsConnector) -> Self {
        let (queue, queued) = mpsc::channel(MAX_QUEUED);
        Self {
            dialer: Dialer::new(settings.topology.clone(), tls),
            settings,
            links: RwLock::new((None, 0)),
            disconnected: Notify::new(),
            receives_invalidations: AtomicBool::new(false),
            queue,
            queued: Mutex::new(queued),
            queued_bytes: AtomicUsize::new(0),
            counts: RedisCounts::default(),
        }
    }

    #[must_use]
    pub fn counts(&self) -> &RedisCounts {
        &self.counts
    }

    /// Whether queries are sent at present.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.links.read().0.is_some()
    }

    /// Whether purges of other nodes are received at present.
    #[must_use]
    pub fn receives_invalidations(&self) -> bool {
        self.receives_invalidations.load(Ordering::Relaxed)
    }

    /// The response stored under `key`. Takes at most [`RedisSettings::timeout`].
    ///
    /// # Errors
    /// Redis is disconnected, fails, or does not reply in time.
    pub async fn get(&self, key: &CacheKey) -> Result<Option<CacheEntry>, Unavailable> {
        let RedisCounts { hits, misses, failures, skipped, foreign, .. } = &self.counts;
        let (queries, number) = {
            let current = self.links.read();
            (current.0.as_ref().map(|links| links.queries.clone()), current.1)
        };
        let Some(mut queries) = queries else {
            count(skipped);
            return Err(Unavailable);
        };
        let query = cmd("GET").arg(self.redis_key(key)).take();
        match timeout(self.settings.timeout, queries.send(&query)).await {
            Ok(Ok(Value::Nil)) => count(misses),
            Ok(Ok(Value::BulkString(value))) => match value::decode(key, &value) {
                Ok(entry) => {
                    count(hits);
                    return Ok(Some(entry));
                }
                Err(error) => {
                    count(foreign);
                    debug!(%error, "a value in Redis is ignored");
                }
            },
            Ok(Ok(_)) => count(foreign),
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => count(foreign),
            Ok(Err(error)) => {
                count(failures);
                self.disconnect(number, &error);
                return Err(Unavailable);
            }
            Err(_) => {
                count(failures);
                self.disconnect(
                    number,
                    &format_args!("no reply within {:?}", self.settings.timeout),
                );
                return Err(Unavailable);
            }
        }
        Ok(None)
    }

    /// Queues a response to be stored, unless the queue is full or Redis is disconnected.
    pub fn put(&self, key: CacheKey, entry: &Arc<CacheEntry>, expires_in: Duration) {
        let bytes = entry.size();
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let job = QueuedEntry { key, entry: Arc::clone(entry), expires_in };
        let fits = before + bytes <= MAX_QUEUED_BYTES && self.is_connected();
        if !fits || self.queue.try_send(job).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            count(&self.counts.not_stored);
        }
    }

    /// Publishes a purge to other nodes: the new generation of `scope`. Returns whether Redis has
    /// accepted it.
    pub async fn publish(&self, scope: &PurgeScope, number: u64) -> bool {
        let links = self.links.read().0.clone();
        let Some(Links { mut queries, .. }) = links else { return false };
        let raise = cmd("HSET").arg(self.hash()).arg(scope.to_string()).arg(number).take();
        matches!(timeout(STORE_TIMEOUT, queries.send(&raise)).await, Ok(Ok(_)))
    }

    /// Maintains the connections, receives purges of other nodes, and stores queued responses, forever.
    pub async fn run(&self, generations: &Generations, memory: &Arc<MemoryCache>) {
        tokio::join!(self.stay_connected(), self.watch(generations, memory), self.store());
    }

    async fn stay_connected(&self) {
        let mut delays = Delays::default();
        let mut warned = false;
        loop {
            match self.connect().await {
                Ok(links) => {
                    self.set_links(links);
                    info!("connected to Redis: cached responses are shared with other nodes");
                    warned = false;
                    let since = Instant::now();
                    self.disconnected.notified().await;
                    delays.lasted(since.elapsed());
                }
                Err(error) if !warned => {
                    warned = true;
                    let error = format!("{error:#}");
                    warn!(error, "cannot connect to Redis: responses are cached in memory only");
                }
                Err(error) => debug!(error = format!("{error:#}"), "cannot connect to Redis"),
            }
            sleep(delays.next()).await;
        }
    }

    /// Opens connections, and checks that Redis replies in time.
    async fn connect(&self) -> anyhow::Result<Links> {
        let limit = self.settings.timeout;
        let dial = |response| self.dialer.commands(response);
        let (mut queries, writes) = tokio::try_join!(dial(limit), dial(STORE_TIMEOUT))?;
        let probe = cmd("EXISTS").arg(self.hash()).take();
        let reply = timeout(limit, queries.send(&probe)).await;
        reply.map_err(|_| anyhow::anyhow!("no reply within {limit:?}"))??;
        Ok(Links { queries, writes })
    }

    fn set_links(&self, links: Links) {
        let mut current = self.links.write();
        *current = (Some(links), current.1 + 1);
    }

    /// Closes the connections with this number, unless they were replaced already.
    fn disconnect(&self, number: u64, why: &dyn fmt::Display) {
        let mut current = self.links.write();
        if current.1 == number && current.0.take().is_some() {
            drop(current);
            warn!(%why, "disconnected from Redis: responses are cached in memory only");
            self.disconnected.notify_one();
        }
    }

    async fn watch(&self, generations: &Generations, memory: &Arc<MemoryCache>) {
        let mut delays = Delays::default();
        // At the start all earlier purges are in Redis. After an interruption other nodes may have to
        // publish theirs first.
        let mut settle_time = Duration::ZERO;
        let connected = &self.receives_invalidations;
        loop {
            let since = Instant::now();
            let synchronized =
                || connected.fetch_or(since.elapsed() >= settle_time, Ordering::Relaxed);
            let hash = self.hash();
            let end = watch::watch(&self.dialer, &hash, generations, memory, synchronized).await;
            if let (true, Err(error)) = (connected.swap(false, Ordering::Relaxed), end) {
                let error = format!("{error:#}");
                settle_time = SETTLE_TIME;
                warn!(
                    error,
                    "purges of other nodes are not received; cached responses are served up to an age \
                     of {MAX_DISCONNECTED_AGE:?}"
                );
            }
            delays.lasted(since.elapsed());
            sleep(delays.next()).await;
        }
    }

    async fn store(&self) {
        let mut queued = self.queued.lock().await;
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let mut full_since: Option<Instant> = None;
        while queued.recv_many(&mut batch, MAX_BATCH).await > 0 {
            let bytes: usize = batch.iter().map(|job| job.entry.size()).sum();
            let is_full = full_since.is_some_and(|since| since.elapsed() < FULL_PAUSE);
            let (writes, number) = {
                let current = self.links.read();
                let links = current.0.as_ref().filter(|_| !is_full);
                (links.map(|links| links.writes.clone()), current.1)
            };
            let total = batch.len() as u64;
            let mut stored = 0;
            if let Some(writes) = writes {
                let all = join_all(batch.drain(..).map(|job| self.store_one(&writes, job)));
                match timeout(STORE_TIMEOUT, all).await {
                    Ok(outcomes) => {
                        stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
                        full_since = None;
                        for error in outcomes.into_iter().filter_map(Result::err) {
                            // A reply that rejects the write means that Redis is full, except that
                            // of a former master, which is a read-only replica now.
                            if error.code().is_some_and(|code| code != "READONLY") {
                                full_since = Some(Instant::now());
                            } else {
                                self.disconnect(number, &error);
                            }
                        }
                    }
                    Err(_) => {
                        self.disconnect(number, &format_args!("no reply within {STORE_TIMEOUT:?}"));
                    }
                }
            }
            batch.clear();
            self.counts.stored.fetch_add(stored, Ordering::Relaxed);
            self.counts.not_stored.fetch_add(total - stored, Ordering::Relaxed);
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    async fn store_one(&self, writes: &Commands, job: QueuedEntry) -> Result<(), RedisError> {
        let QueuedEntry { key, entry, expires_in } = job;
        let millis = u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut set = cmd("SET");
        let value = if entry.size() > MAX_INLINE_ENCODING {
            // It would delay other tasks of this thread.
            let encoding = spawn_blocking(move || value::encode(&key, &entry)).await;
            encoding.map_err(|_| std::io::Error::other("the host is shutting down"))?
        } else {
            value::encode(&key, &entry)
        };
        set.arg(self.redis_key(&key)).arg(value).arg("PX").arg(millis);
        writes.clone().send(&set).await.map(drop)
    }

    fn redis_key(&self, key: &CacheKey) -> String {
        format!("{}{key}", self.settings.prefix)
    }

    /// The key of the hash of generations.
    fn hash(&self) -> String {
        format!("{}generations", self.settings.prefix)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Delays between attempts to connect, each twice the previous one up to the maximum.
#[derive(Debug)]
struct Delays(Duration);

impl Default for Delays {
    fn default() -> Self {
        Self(RECONNECT_DELAYS.0)
    }
}

impl Delays {
    fn next(&mut self) -> Duration {
        let delay = self.0;
        self.0 = (delay * 2).min(RECONNECT_DELAYS.1);
        delay
    }

    fn lasted(&mut self, lasted: Duration) {
        if lasted >= STABLE_AFTER {
            self.0 = RECONNECT_DELAYS.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_restart_after_a_stable_connection() {
        let mut delays = Delays::default();
        let millis: Vec<_> = (0..8).map(|_| delays.next().as_millis()).collect();
        assert_eq!(millis, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        delays.lasted(STABLE_AFTER / 2);
        assert_eq!(delays.next(), RECONNECT_DELAYS.1);
        delays.lasted(STABLE_AFTER);
        assert_eq!(delays.next(), RECONNECT_DELAYS.0);
    }
}
