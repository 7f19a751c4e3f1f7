//! The level of the cache that nodes share: a Redis.
//!
//! It is asked on behalf of whoever leads a flight, and told by a task of its own, so that nobody
//! waits for what is stored. A request waits for it for [`Settings::timeout`] at most. Whatever
//! fails, the connection is given up at once and nobody waits again, until another was made and has
//! answered within that time: [`stay_connected`](Shared::attend).

mod link;
mod reply_limit;
mod settings;
mod value;
mod watch;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::future::join_all;
use redis::{RedisError, Value, cmd};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tracing::{debug, info, warn};

use super::entry::Entry;
use super::generation::{Generations, Scope};
use super::key::Key;
use super::memory::Memory;
use link::{Commands, Dialer};
pub use settings::{Given, KEYS, Place, Settings};

/// While it is not known what others have forgotten, no answer is given that is older.
pub const UNWATCHED: Duration = Duration::from_secs(5);

/// Between two tries to connect: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// A node that was told nothing for a while may not be the last that hears: so long it waits for what
/// others have to tell, who try again and connect as it did.
const SETTLED: Duration = Duration::from_secs(5);
/// A connection that lasted so long was a good one: the next pause is a short one. A busy machine
/// alone makes an answer late now and then.
const LASTED: Duration = Duration::from_secs(1);
/// Answers on their way, and the bytes of them. Beyond it an answer is not stored.
const QUEUE: usize = 4096;
const QUEUE_BYTES: usize = 32 << 20;
/// Answers stored at a time, and how long they may take.
const AT_A_TIME: usize = 64;
const STORE_TIMEOUT: Duration = Duration::from_secs(1);
/// An answer of so many bytes is encoded elsewhere.
const LONG: usize = 64 << 10;
/// A Redis that takes no more, as it is full, is not told of more for so long.
const FULL: Duration = Duration::from_secs(1);

/// What came of it, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    /// No answer in time, or an error.
    pub failures: AtomicU64,
    /// Not asked, as it did not answer before.
    pub skipped: AtomicU64,
    /// Values that are not what was stored.
    pub foreign: AtomicU64,
    pub stored: AtomicU64,
    /// It is full, slow or away.
    pub not_stored: AtomicU64,
}

/// An answer to be stored.
#[derive(Debug)]
struct Letter {
    key: Key,
    entry: Arc<Entry>,
    lasts: Duration,
}

/// Who asks does not wait behind long answers that are stored.
#[derive(Clone)]
struct Links {
    asking: Commands,
    storing: Commands,
}

/// It was not asked, or did not say what it has.
#[derive(Clone, Copy, Debug)]
pub struct NoAnswer;

/// A Redis that several nodes share.
pub struct Shared {
    settings: Settings,
    dialer: Dialer,
    /// `None` while nobody is to ask it, and how many there were.
    links: RwLock<(Option<Links>, u64)>,
    broken: Notify,
    watched: AtomicBool,
    letters: mpsc::Sender<Letter>,
    letterbox: Mutex<mpsc::Receiver<Letter>>,
    waiting_bytes: AtomicUsize,
    counts: Counts,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Shared {
    /// Not connected yet: see [`Shared::attend`].
    #[must_use]
    pub fn new(settings: Settings, tls: TlsConnector) -> Self {
        let (letters, letterbox) = mpsc::channel(QUEUE);
        Self {
            dialer: Dialer::new(settings.place.clone(), tls),
            settings,
            links: RwLock::new((None, 0)),
            broken: Notify::new(),
            watched: AtomicBool::new(false),
            letters,
            letterbox: Mutex::new(letterbox),
            waiting_bytes: AtomicUsize::new(0),
            counts: Counts::default(),
        }
    }

    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether it is asked at present.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.links.read().unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    /// Whether all is known that others have forgotten.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// What it has for a key. Takes [`Settings::timeout`] at most.
    pub async fn get(&self, key: &Key) -> Result<Option<Entry>, NoAnswer> {
        let Counts { hits, misses, failures, skipped, foreign, .. } = &self.counts;
        let (asking, number) = {
            let current = self.links.read().unwrap_or_else(PoisonError::into_inner);
            (current.0.as_ref().map(|links| links.asking.clone()), current.1)
        };
        let Some(mut asking) = asking else {
            count(skipped);
            return Err(NoAnswer);
        };
        let question = cmd("GET").arg(self.name(key)).take();
        match timeout(self.settings.timeout, asking.ask(&question)).await {
            Ok(Ok(Value::Nil)) => count(misses),
            Ok(Ok(Value::BulkString(value))) => match value::decode(key, &value) {
                Ok(entry) => {
                    count(hits);
                    return Ok(Some(entry));
                }
                Err(error) => {
                    count(foreign);
                    debug!(%error, "a value in the Redis is not used");
                }
            },
            Ok(Ok(_)) => count(foreign),
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => count(foreign),
            Ok(Err(error)) => {
                count(failures);
                self.give_up(number, &error);
                return Err(NoAnswer);
            }
            Err(_) => {
                count(failures);
                self.give_up(number, &format_args!("no answer in {:?}", self.settings.timeout));
                return Err(NoAnswer);
            }
        }
        Ok(None)
    }

    /// Stores an answer that is good for `lasts`, soon, if it is there.
    pub fn put(&self, key: Key, entry: &Arc<Entry>, lasts: Duration) {
        let bytes = entry.size();
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let letter = Letter { key, entry: Arc::clone(entry), lasts };
        let fits = before + bytes <= QUEUE_BYTES && self.is_connected();
        if !fits || self.letters.try_send(letter).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            count(&self.counts.not_stored);
        }
    }

    /// Tells other nodes what is forgotten; whether they will hear of it now.
    pub async fn tell(&self, scope: &Scope, number: u64) -> bool {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner).0.clone();
        let Some(Links { mut asking, .. }) = links else { return false };
        let told = cmd("HSET").arg(self.hash()).arg(scope.to_string()).arg(number).take();
        matches!(timeout(STORE_TIMEOUT, asking.ask(&told)).await, Ok(Ok(_)))
    }

    /// Sees to its connections and to what is to be stored, forever.
    pub async fn attend(&self, generations: &Generations, memory: &Arc<Memory>) {
        tokio::join!(self.stay_connected(), self.watch(generations, memory), self.store());
    }

    async fn stay_connected(&self) {
        let mut pauses = Pauses::default();
        let mut known = false;
        loop {
            match self.connect().await {
                Ok(links) => {
                    self.set_links(links);
                    info!("answers are shared: the Redis answers");
                    known = false;
                    let since = Instant::now();
                    self.broken.notified().await;
                    pauses.lasted(since.elapsed());
                }
                Err(error) if !known => {
                    known = true;
                    warn!(error = format!("{error:#}"), "answers are not shared, but in memory");
                }
                Err(error) => debug!(error = format!("{error:#}"), "the Redis does not answer"),
            }
            sleep(pauses.next()).await;
        }
    }

    /// Connections that answer in time.
    async fn connect(&self) -> anyhow::Result<Links> {
        let limit = self.settings.timeout;
        let dial = |response| self.dialer.commands(response);
        let (mut asking, storing) = tokio::try_join!(dial(limit), dial(STORE_TIMEOUT))?;
        let probe = cmd("EXISTS").arg(self.hash()).take();
        let answer = timeout(limit, asking.ask(&probe)).await;
        answer.map_err(|_| anyhow::anyhow!("no answer in {limit:?}"))??;
        Ok(Links { asking, storing })
    }

    fn set_links(&self, links: Links) {
        let mut current = self.links.write().unwrap_or_else(PoisonError::into_inner);
        *current = (Some(links), current.1 + 1);
    }

    /// Nobody asks the connections of this number any more.
    fn give_up(&self, number: u64, why: &dyn fmt::Display) {
        let mut current = self.links.write().unwrap_or_else(PoisonError::into_inner);
        if current.1 == number && current.0.take().is_some() {
            drop(current);
            warn!(%why, "the Redis is not asked for a while: answers are not shared, but in memory");
            self.broken.notify_one();
        }
    }

    async fn watch(&self, generations: &Generations, memory: &Arc<Memory>) {
        let mut pauses = Pauses::default();
        // What others forgot before this node was there they have told, but for a Redis that was away.
        let mut settled = Duration::ZERO;
        loop {
            let since = Instant::now();
            let watched = || self.watched.fetch_or(since.elapsed() >= settled, Ordering::Relaxed);
            let hash = self.hash();
            let end = watch::watch(&self.dialer, &hash, generations, memory, watched).await;
            if let (true, Err(error)) = (self.watched.swap(false, Ordering::Relaxed), end) {
                let error = format!("{error:#}");
                settled = SETTLED;
                warn!(error, "it is not known what other nodes forget; answers last {UNWATCHED:?}");
            }
            pauses.lasted(since.elapsed());
            sleep(pauses.next()).await;
        }
    }

    async fn store(&self) {
        let mut letterbox = self.letterbox.lock().await;
        let mut letters = Vec::with_capacity(AT_A_TIME);
        let mut full_since: Option<Instant> = None;
        while letterbox.recv_many(&mut letters, AT_A_TIME).await > 0 {
            let bytes: usize = letters.iter().map(|letter| letter.entry.size()).sum();
            let is_full = full_since.is_some_and(|since| since.elapsed() < FULL);
            let (storing, number) = {
                let current = self.links.read().unwrap_or_else(PoisonError::into_inner);
                let links = current.0.as_ref().filter(|_| !is_full);
                (links.map(|links| links.storing.clone()), current.1)
            };
            let total = letters.len() as u64;
            let mut stored = 0;
            if let Some(storing) = storing {
                let all = join_all(letters.drain(..).map(|l| self.store_one(&storing, l)));
                match timeout(STORE_TIMEOUT, all).await {
                    Ok(outcomes) => {
                        stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
                        full_since = None;
                        for error in outcomes.into_iter().filter_map(Result::err) {
                            // It answers still, and only that it does not take any: it is full.
                            // A replica that was the master says where it is not to be told.
                            if error.code().is_some_and(|code| code != "READONLY") {
                                full_since = Some(Instant::now());
                            } else {
                                self.give_up(number, &error);
                            }
                        }
                    }
                    Err(_) => self.give_up(number, &format_args!("no answer in {STORE_TIMEOUT:?}")),
                }
            }
            letters.clear();
            self.counts.stored.fetch_add(stored, Ordering::Relaxed);
            self.counts.not_stored.fetch_add(total - stored, Ordering::Relaxed);
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    async fn store_one(&self, storing: &Commands, letter: Letter) -> Result<(), RedisError> {
        let Letter { key, entry, lasts } = letter;
        let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut set = cmd("SET");
        let value = if entry.size() > LONG {
            // It takes long enough to be noticed by those who wait for this thread.
            let encoding = spawn_blocking(move || value::encode(&key, &entry)).await;
            encoding.map_err(|_| std::io::Error::other("the host ends"))?
        } else {
            value::encode(&key, &entry)
        };
        set.arg(self.name(&key)).arg(value).arg("PX").arg(lasts);
        storing.clone().ask(&set).await.map(drop)
    }

    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.settings.prefix)
    }

    /// The name of the hash of generations.
    fn hash(&self) -> String {
        format!("{}generations", self.settings.prefix)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// From one try to the next: longer and longer.
#[derive(Debug)]
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSES.0)
    }
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSES.1);
        pause
    }

    fn lasted(&mut self, lasted: Duration) {
        if lasted >= LASTED {
            self.0 = PAUSES.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_begin_again_after_a_good_connection() {
        let mut pauses = Pauses::default();
        let millis: Vec<_> = (0..8).map(|_| pauses.next().as_millis()).collect();
        assert_eq!(millis, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        pauses.lasted(LASTED / 2);
        assert_eq!(pauses.next(), PAUSES.1);
        pauses.lasted(LASTED);
        assert_eq!(pauses.next(), PAUSES.0);
    }
}
