//! Exchanges purges with other nodes.
//!
//! All nodes share one hash of generations in Redis. The server notifies each node when it changes
//! (`CLIENT TRACKING` in broadcast mode with the hash's key as prefix, Redis 6). A node reads it then,
//! and every [`POLL_INTERVAL`] in case a notification was lost or the server no longer replies:
//!
//! ```text
//! node A: purge model iris ── HSET generations "model iris" n ──> Redis
//!                                                                   │ invalidate
//! node B: its generation of model iris = max(own, n) <── HMGET ─────┘
//!         a greater one of its own is written back ──── HSET ──> Redis
//! ```
//!
//! So a purge during an interruption is published once Redis replies again.
//!
//! Only this key is tracked. Responses are not: one that is refreshed on another node does not make the
//! older one invalid, which its component allows to be served for its lifetime; and a notification to
//! each node for each stored response would cost more than everything else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::aio::ConnectionLike;
use redis::{Cmd, PushInfo, PushKind, Value, cmd, from_redis_value};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::link::{Bounded, Dialer};
use crate::cache::generation::Generations;
use crate::cache::memory::MemoryCache;

/// Interval at which the hash is read, and the timeout of each command.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Exchanges generations over one connection until that fails. `synchronized` is called whenever all
/// generations in Redis are known here.
pub(super) async fn watch(
    dialer: &Dialer,
    hash: &str,
    generations: &Generations,
    memory: &Arc<MemoryCache>,
    synchronized: impl Fn() -> bool,
) -> Result<()> {
    let changed = Arc::new(Notify::new());
    let (notify, memory) = (Arc::clone(&changed), Arc::clone(memory));
    let listener = move |push: PushInfo| {
        if push.kind == PushKind::Invalidate {
            // The database was flushed, cached responses included: the same is intended here.
            if push.data.iter().all(|keys| *keys == Value::Nil) {
                memory.clear();
            }
            notify.notify_one();
        }
        Ok::<_, Infallible>(())
    };
    let mut connection = dialer.node_of(hash, Arc::new(listener)).await?;
    let tracking = ["TRACKING", "ON", "BCAST", "PREFIX", hash];
    send(&mut connection, cmd("CLIENT").arg(&tracking)).await?;
    let mut refused = false;
    loop {
        synchronize(&mut connection, hash, generations, &mut refused).await?;
        synchronized();
        // After a notification or the interval.
        let _ = timeout(POLL_INTERVAL, changed.notified()).await;
    }
}

/// Adopts greater generations from Redis, and writes back those that are greater here. A value that is
/// not a number counts as 0. `refused` keeps the warning of a full Redis from being repeated.
async fn synchronize(
    connection: &mut Bounded,
    hash: &str,
    generations: &Generations,
    refused: &mut bool,
) -> Result<()> {
    let scopes = generations.known();
    let names: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let theirs = send(connection, cmd("HMGET").arg(hash).arg(&names)).await?;
    let theirs: Vec<Option<Vec<u8>>> = from_redis_value(theirs)
        .with_context(|| format!("the key {hash} does not hold a hash of generations"))?;
    ensure!(
        theirs.len() == scopes.len(),
        "{hash}: the reply has another number of values than requested"
    );
    let theirs = theirs.iter().map(|number| str::from_utf8(number.as_ref()?).ok()?.parse().ok());
    let theirs: Vec<u64> = theirs.map(Option::unwrap_or_default).collect();
    let mut newer = Vec::new();
    for (((scope, name), theirs), ours) in
        scopes.iter().zip(&names).zip(theirs).zip(generations.numbers())
    {
        if !generations.join(scope, theirs) {
            debug!(%scope, theirs, "a generation too far in the future is ignored");
        } else if theirs < ours {
            newer.push((name, ours));
        }
    }
    if !newer.is_empty() {
        let raise = cmd("HSET").arg(hash).arg(&newer).take();
        let reply = connection.req_packed_command(&raise);
        match timeout(POLL_INTERVAL, reply).await.context("no reply")? {
            // Not from a former master, which is a read-only replica now.
            Err(error) if error.code().is_some_and(|code| code != "READONLY") => {
                if !std::mem::replace(refused, true) {
                    warn!(%error, "Redis rejects purges of this node; other nodes follow when it accepts them");
                }
            }
            reply => {
                reply?;
                *refused = false;
            }
        }
    }
    Ok(())
}

async fn send(connection: &mut Bounded, command: &Cmd) -> Result<Value> {
    let reply = timeout(POLL_INTERVAL, connection.req_packed_command(command)).await;
    Ok(reply.context("no reply")??)
}
