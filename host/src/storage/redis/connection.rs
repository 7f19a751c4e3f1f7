//! A connection to Redis: a task pipelines the commands of many callers, and reads the replies in the
//! same order.

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
use super::{COMMAND_TIMEOUT, RedisError};

/// Maximum number of commands in flight on one connection; further callers wait.
const MAX_IN_FLIGHT: usize = 128;
/// Maximum number of commands that wait to be written: each may be large.
const MAX_UNWRITTEN: usize = 4;
/// Minimum size of a read, in bytes.
const READ: usize = 16 << 10;
/// Maximum memory of a reply that needs no permit, in bytes.
const SMALL: usize = 64 << 10;

pub(crate) trait RedisStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> RedisStream for S {}

/// Permits for replies that are not small.
#[derive(Clone, Debug)]
pub(super) struct ReplyPermits {
    /// Those of all components together.
    pub(super) all: Arc<Semaphore>,
    /// Those of this component.
    pub(super) own: Arc<Semaphore>,
}

/// The permits of one reply, held while it is in memory.
type ReplyPermit = [OwnedSemaphorePermit; 2];

impl ReplyPermits {
    /// Acquires the component's permit first, so that no component waits for the shared one with
    /// several replies.
    async fn take(&self) -> Result<ReplyPermit, String> {
        let take = async |permits: &Arc<Semaphore>| {
            Arc::clone(permits).acquire_owned().await.map_err(|e| e.to_string())
        };
        Ok([take(&self.own).await?, take(&self.all).await?])
    }
}

/// A reply as received.
struct RawReply {
    bytes: Bytes,
    _permit: Option<ReplyPermit>,
}

/// A command, and the caller that waits for its reply.
struct PendingCommand {
    command: Vec<u8>,
    reply: oneshot::Sender<RawReply>,
}

/// State of a connection, shared with its task.
#[derive(Debug, Default)]
struct LinkState {
    /// Number of bytes received.
    received: AtomicU64,
    /// Whether it is unusable, even if its task has not ended.
    broken: AtomicBool,
    /// Why it was closed.
    close_reason: OnceLock<String>,
}

impl LinkState {
    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn set_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}

/// A connection with the commands of many callers in flight. Closed on drop.
pub struct RedisConnection {
    commands: mpsc::Sender<PendingCommand>,
    in_flight: Semaphore,
    state: Arc<LinkState>,
    driver: JoinHandle<()>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

impl RedisConnection {
    /// Opens a connection over `stream`, and logs in with `settings`.
    pub(super) async fn open(
        stream: Box<dyn RedisStream>,
        settings: &RedisConnectionInfo,
        reply_permits: ReplyPermits,
        permits: [OwnedSemaphorePermit; 2],
    ) -> Result<Self, RedisError> {
        let (commands, queue) = mpsc::channel(MAX_UNWRITTEN);
        let state = Arc::new(LinkState::default());
        let driver = tokio::spawn(drive(stream, queue, reply_permits, Arc::clone(&state)));
        let in_flight = Semaphore::new(MAX_IN_FLIGHT);
        let connection = Self { commands, in_flight, state, driver, _permits: permits };
        connection.log_in(settings).await?;
        Ok(connection)
    }

    async fn log_in(&self, settings: &RedisConnectionInfo) -> Result<(), RedisError> {
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
        let replies = join_all(commands.iter().map(|command| self.query::<Value>(command))).await;
        for (index, reply) in replies.into_iter().enumerate() {
            match reply {
                // Redis before 7.2 does not support the last two.
                Err(error) if index < needed || !self.is_open() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends a command. Returns the reply.
    ///
    /// # Errors
    /// The command fails or times out, or the connection is closed.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        self.query_by(command, Instant::now() + COMMAND_TIMEOUT).await
    }

    pub(super) async fn query_by<T: FromRedisValue>(
        &self,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<T, RedisError> {
        let received = self.state.received();
        let reply = timeout_at(deadline.into(), self.send(command.get_packed_command())).await;
        let Ok(reply) = reply else {
            // A reply before this one may be slow. If nothing was received, the connection is dead.
            if self.state.received() == received {
                self.close();
            }
            return Err(RedisError::Timeout);
        };
        let Some(RawReply { bytes, _permit }) = reply else {
            self.state.set_broken();
            let reason = self.state.close_reason.get().map_or("unknown reason", String::as_str);
            return Err(RedisError::Command(format!("connection to Redis closed: {reason}")));
        };
        let value = reply::value(&bytes).map_err(|malformed| {
            self.close();
            RedisError::Command(malformed.to_string())
        })?;
        drop(bytes);
        let value = value.extract_error().map_err(|e| RedisError::of(&e))?;
        from_redis_value(value).map_err(|e| RedisError::Type(e.to_string()))
    }

    /// Sends a command. Returns the reply; `None` if the connection is closed first.
    async fn send(&self, command: Vec<u8>) -> Option<RawReply> {
        let _in_flight = self.in_flight.acquire().await.ok()?;
        let (reply, received) = oneshot::channel();
        self.commands.send(PendingCommand { command, reply }).await.ok()?;
        received.await.ok()
    }

    /// Closes the connection: commands in flight fail.
    fn close(&self) {
        self.state.set_broken();
        self.driver.abort();
    }

    /// Whether the connection is usable.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.driver.is_finished() && !self.state.is_broken()
    }
}

#[cfg(test)]
impl RedisConnection {
    pub(super) fn received(&self) -> u64 {
        self.state.received()
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Writes commands and reads replies until one of both ends.
async fn drive(
    stream: Box<dyn RedisStream>,
    mut queue: mpsc::Receiver<PendingCommand>,
    reply_permits: ReplyPermits,
    state: Arc<LinkState>,
) {
    let (from, to) = tokio::io::split(stream);
    let (written, mut callers) = mpsc::unbounded_channel();
    let reader = ReplyReader { from, buffer: BytesMut::new(), reply_permits, state: &state };
    let result = tokio::select! {
        result = write(to, &mut queue, &written) => result,
        result = reader.read(&mut callers) => result,
    };
    let reason = result.err().unwrap_or_else(|| "not used any more".into());
    state.set_broken();
    // Before the callers that wait are dropped, as they report it.
    let _ = state.close_reason.set(reason);
}

type ReadResult = Result<(), String>;

/// Writes commands. Passes the caller of each to the reader, in order.
async fn write(
    to: WriteHalf<Box<dyn RedisStream>>,
    queue: &mut mpsc::Receiver<PendingCommand>,
    written: &mpsc::UnboundedSender<oneshot::Sender<RawReply>>,
) -> ReadResult {
    let mut to = BufWriter::new(to);
    while let Some(PendingCommand { command, reply }) = queue.recv().await {
        // A command whose caller was dropped is not sent.
        if !reply.is_closed() {
            written.send(reply).map_err(|e| e.to_string())?;
            to.write_all(&command).await.map_err(|e| e.to_string())?;
        }
        if queue.is_empty() {
            to.flush().await.map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

struct ReplyReader<'a> {
    from: ReadHalf<Box<dyn RedisStream>>,
    buffer: BytesMut,
    reply_permits: ReplyPermits,
    state: &'a LinkState,
}

impl ReplyReader<'_> {
    /// Reads replies, and sends each to the caller of the oldest command.
    async fn read(
        mut self,
        callers: &mut mpsc::UnboundedReceiver<oneshot::Sender<RawReply>>,
    ) -> ReadResult {
        loop {
            if self.buffer.is_empty() {
                self.fill(READ).await?;
            }
            let raw = timeout(COMMAND_TIMEOUT, self.reply()).await;
            let raw = raw.map_err(|_| format!("incomplete reply after {COMMAND_TIMEOUT:?}"))??;
            if reply::is_push(&raw.bytes) {
                continue;
            }
            let Ok(caller) = callers.try_recv() else {
                return Err("reply without a command".into());
            };
            // Fails if the caller was dropped.
            let _ = caller.send(raw);
        }
    }

    /// The next reply, once it is complete.
    async fn reply(&mut self) -> Result<RawReply, String> {
        let (mut scan, mut permit) = (Scan::default(), None);
        loop {
            let complete = scan.advance(&self.buffer).map_err(|e: Malformed| e.to_string())?;
            if permit.is_none() && scan.memory() > SMALL {
                permit = Some(self.reply_permits.take().await?);
            }
            if let Some(length) = complete {
                return Ok(RawReply { bytes: self.take(length), _permit: permit });
            }
            // A string states its length in advance.
            self.fill(scan.missing(self.buffer.len()).max(READ)).await?;
        }
    }

    async fn fill(&mut self, capacity: usize) -> Result<(), String> {
        self.buffer.reserve(capacity);
        match self.from.read_buf(&mut self.buffer).await {
            Ok(0) => Err("closed by Redis".into()),
            Ok(bytes) => {
                self.state.received.fetch_add(bytes as u64, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Splits off the first bytes: neither part keeps the memory of the other.
    fn take(&mut self, length: usize) -> Bytes {
        if length <= READ {
            let bytes = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            return bytes;
        }
        let rest = BytesMut::from(&self.buffer[length..]);
        self.buffer.truncate(length);
        std::mem::replace(&mut self.buffer, rest).freeze()
    }
}
