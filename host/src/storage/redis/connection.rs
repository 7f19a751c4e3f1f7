//! One connection: a task writes the commands of many, and reads the answers in their order.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use futures::future::join_all;
use redis::{Cmd, FromRedisValue, RedisConnectionInfo, Value, cmd, from_redis_value};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, ReadHalf, WriteHalf,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};

use super::reply::{self, Malformed, Scan};
use super::{COMMAND_TIMEOUT, Error};

/// Commands whose answers are on their way over one connection; who comes then waits.
const ON_THEIR_WAY: usize = 128;
/// Commands that are not yet written: each may be long.
const UNWRITTEN: usize = 4;
/// Bytes that are read at a time at the least.
const READ: usize = 16 << 10;
/// Memory an answer takes without asking.
const SMALL: usize = 64 << 10;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Places for answers that are not small.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Of all components, and of one.
    pub(super) all: Arc<Semaphore>,
    pub(super) own: Arc<Semaphore>,
}

/// The place of one answer, for as long as it is in memory.
type Place = [OwnedSemaphorePermit; 2];

impl Places {
    /// One of the component's first, so that none waits for all with several.
    async fn take(&self) -> Result<Place, String> {
        let take = async |places: &Arc<Semaphore>| {
            Arc::clone(places).acquire_owned().await.map_err(|e| e.to_string())
        };
        Ok([take(&self.own).await?, take(&self.all).await?])
    }
}

/// An answer as it came.
struct Raw {
    bytes: Bytes,
    _place: Option<Place>,
}

/// A command, and who waits for its answer.
struct Ask {
    command: Vec<u8>,
    answer: oneshot::Sender<Raw>,
}

/// What is known of a connection.
#[derive(Debug, Default)]
struct State {
    /// Bytes that have come.
    heard: AtomicU64,
    /// It is of no use any more, though it may not have ended.
    broken: AtomicBool,
    /// How it ended.
    end: OnceLock<String>,
}

impl State {
    fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn set_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}

/// One connection, with the answers of many on their way. It ends when it is dropped.
pub struct Connection {
    asks: mpsc::Sender<Ask>,
    on_their_way: Semaphore,
    state: Arc<State>,
    driver: JoinHandle<()>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Over `stream`, logged in as `settings` say.
    pub(super) async fn open(
        stream: Box<dyn Stream>,
        settings: &RedisConnectionInfo,
        places: Places,
        permits: [OwnedSemaphorePermit; 2],
    ) -> Result<Self, Error> {
        let (asks, asked) = mpsc::channel(UNWRITTEN);
        let state = Arc::new(State::default());
        let driver = tokio::spawn(drive(stream, asked, places, Arc::clone(&state)));
        let on_their_way = Semaphore::new(ON_THEIR_WAY);
        let connection = Self { asks, on_their_way, state, driver, _permits: permits };
        connection.log_in(settings).await?;
        Ok(connection)
    }

    async fn log_in(&self, settings: &RedisConnectionInfo) -> Result<(), Error> {
        let mut commands = Vec::new();
        if let Some(password) = settings.password() {
            commands.push(cmd("AUTH").arg(settings.username()).arg(password).take());
        }
        if settings.db() != 0 {
            commands.push(cmd("SELECT").arg(settings.db()).take());
        }
        let needed = commands.len();
        for (key, value) in [("LIB-NAME", "spinfer"), ("LIB-VER", env!("CARGO_PKG_VERSION"))] {
            commands.push(cmd("CLIENT").arg("SETINFO").arg(key).arg(value).take());
        }
        let answers = join_all(commands.iter().map(|command| self.answer::<Value>(command))).await;
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                // Those before 7.2 do not know the last two.
                Err(error) if index < needed || !self.is_open() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The answer to a command.
    pub async fn answer<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.answer_by(command, Instant::now() + COMMAND_TIMEOUT).await
    }

    pub(super) async fn answer_by<T: FromRedisValue>(
        &self,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<T, Error> {
        let heard = self.state.heard();
        let answer = timeout_at(deadline.into(), self.ask(command.get_packed_command())).await;
        let Ok(answer) = answer else {
            // Another may be what is slow. If nothing came at all, this one is lost.
            if self.state.heard() == heard {
                self.close();
            }
            return Err(Error::Late);
        };
        let Some(Raw { bytes, _place }) = answer else {
            self.state.set_broken();
            let end = self.state.end.get().map_or("for no known reason", String::as_str);
            return Err(Error::Command(format!("the connection to the Redis has ended: {end}")));
        };
        let value = reply::value(&bytes).map_err(|malformed| {
            self.close();
            Error::Command(malformed.to_string())
        })?;
        drop(bytes);
        let value = value.extract_error().map_err(|e| Error::of(&e))?;
        from_redis_value(value).map_err(|e| Error::Type(e.to_string()))
    }

    /// What is answered; none if the connection ended first.
    async fn ask(&self, command: Vec<u8>) -> Option<Raw> {
        let _on_its_way = self.on_their_way.acquire().await.ok()?;
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask { command, answer }).await.ok()?;
        answered.await.ok()
    }

    /// It is of no use any more: whoever waits for an answer is told.
    fn close(&self) {
        self.state.set_broken();
        self.driver.abort();
    }

    /// Whether it is of use still.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.driver.is_finished() && !self.state.is_broken()
    }
}

#[cfg(test)]
impl Connection {
    pub(super) fn heard(&self) -> u64 {
        self.state.heard()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Writes and reads until one of both ends.
async fn drive(
    stream: Box<dyn Stream>,
    mut asked: mpsc::Receiver<Ask>,
    places: Places,
    state: Arc<State>,
) {
    let (from, to) = tokio::io::split(stream);
    let (wait, mut waiting) = mpsc::unbounded_channel();
    let reader = Reader { from, buffer: BytesMut::new(), places, state: &state };
    let end = tokio::select! {
        end = write(to, &mut asked, &wait) => end,
        end = reader.read(&mut waiting) => end,
    };
    let end = end.err().unwrap_or_else(|| "nobody needs it any more".into());
    state.set_broken();
    // Before those who wait are told that nothing comes.
    let _ = state.end.set(end);
}

type End = Result<(), String>;

/// Writes commands, and has their askers wait.
async fn write(
    to: WriteHalf<Box<dyn Stream>>,
    asked: &mut mpsc::Receiver<Ask>,
    wait: &mpsc::UnboundedSender<oneshot::Sender<Raw>>,
) -> End {
    let mut to = BufWriter::new(to);
    while let Some(Ask { command, answer }) = asked.recv().await {
        // One that nobody waits for any more is not done.
        if !answer.is_closed() {
            wait.send(answer).map_err(|e| e.to_string())?;
            to.write_all(&command).await.map_err(|e| e.to_string())?;
        }
        if asked.is_empty() {
            to.flush().await.map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

struct Reader<'a> {
    from: ReadHalf<Box<dyn Stream>>,
    buffer: BytesMut,
    places: Places,
    state: &'a State,
}

impl Reader<'_> {
    /// Reads answers, and gives each to who has waited longest.
    async fn read(mut self, waiting: &mut mpsc::UnboundedReceiver<oneshot::Sender<Raw>>) -> End {
        loop {
            if self.buffer.is_empty() {
                self.more(READ).await?;
            }
            let raw = timeout(COMMAND_TIMEOUT, self.answer()).await;
            let raw = raw.map_err(|_| {
                format!("an answer began, and was not whole after {COMMAND_TIMEOUT:?}")
            })??;
            if reply::is_push(&raw.bytes) {
                continue;
            }
            let Ok(asker) = waiting.try_recv() else {
                return Err("it answers what nobody has asked".into());
            };
            // The asker may have stopped to wait.
            let _ = asker.send(raw);
        }
    }

    /// The answer that has begun, once it is whole.
    async fn answer(&mut self) -> Result<Raw, String> {
        let (mut scan, mut place) = (Scan::default(), None);
        loop {
            let whole = scan.advance(&self.buffer).map_err(|e: Malformed| e.to_string())?;
            if place.is_none() && scan.memory() > SMALL {
                place = Some(self.places.take().await?);
            }
            if let Some(length) = whole {
                return Ok(Raw { bytes: self.take(length), _place: place });
            }
            // Of a text it is known how long it is.
            self.more(scan.missing(self.buffer.len()).max(READ)).await?;
        }
    }

    async fn more(&mut self, room: usize) -> Result<(), String> {
        self.buffer.reserve(room);
        match self.from.read_buf(&mut self.buffer).await {
            Ok(0) => Err("the Redis has closed it".into()),
            Ok(bytes) => {
                self.state.heard.fetch_add(bytes as u64, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The first bytes, apart from the others: neither keeps the other's memory.
    fn take(&mut self, length: usize) -> Bytes {
        if length <= READ {
            let bytes = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            return bytes;
        }
        let behind = BytesMut::from(&self.buffer[length..]);
        self.buffer.truncate(length);
        std::mem::replace(&mut self.buffer, behind).freeze()
    }
}
