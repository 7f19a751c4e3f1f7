//! What other nodes have forgotten, as they say it.
//!
//! The generations of all nodes are a hash in Redis. The server says when it changes (`CLIENT
//! TRACKING` in broadcast mode with the hash's name as prefix, Redis 6), and it is read then, and
//! every [`BEAT`] in case that a word was lost: who does not answer is not there. A number that is
//! greater here is written there, so that what was forgotten while nobody answered is told later.
//!
//! Only this one key is watched. Answers are not: one that is made again elsewhere does not make
//! the older one wrong, which its component allows for as long as it says; and a word to each node
//! for each answer that is stored would cost more than all else.

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
use crate::cache::memory::Memory;

/// How often it is asked whether all is as it was, and how long an answer may take.
const BEAT: Duration = Duration::from_millis(500);

/// Watches over one connection until that breaks. `watched` is told, again and again, that all is
/// known that others have told of what they forgot.
pub(super) async fn watch(
    dialer: &Dialer,
    hash: &str,
    generations: &Generations,
    memory: &Arc<Memory>,
    watched: impl Fn() -> bool,
) -> Result<()> {
    let changed = Arc::new(Notify::new());
    let (hears, holds) = (Arc::clone(&changed), Arc::clone(memory));
    let news = move |news: PushInfo| {
        if news.kind == PushKind::Invalidate {
            // All is gone, answers too: whoever did that wants them gone here.
            if news.data.iter().all(|keys| *keys == Value::Nil) {
                holds.clear();
            }
            hears.notify_one();
        }
        Ok::<_, Infallible>(())
    };
    let mut connection = dialer.node_of(hash, Arc::new(news)).await?;
    let tracking = ["TRACKING", "ON", "BCAST", "PREFIX", hash];
    ask(&mut connection, cmd("CLIENT").arg(&tracking)).await?;
    let mut refused = false;
    loop {
        agree(&mut connection, hash, generations, &mut refused).await?;
        watched();
        // A word, or its time: both are the same to do.
        let _ = timeout(BEAT, changed.notified()).await;
    }
}

/// Takes the greater number of each, here and there. What is no number is none, and is written over
/// when there is one. That the server takes none, as it is full, is said once.
async fn agree(
    connection: &mut Bounded,
    hash: &str,
    generations: &Generations,
    refused: &mut bool,
) -> Result<()> {
    let scopes = generations.known();
    let names: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let theirs = ask(connection, cmd("HMGET").arg(hash).arg(&names)).await?;
    let theirs: Vec<Option<Vec<u8>>> =
        from_redis_value(theirs).with_context(|| format!("{hash} is not a hash"))?;
    ensure!(theirs.len() == scopes.len(), "{hash}: other numbers than were asked for");
    let theirs = theirs.iter().map(|number| str::from_utf8(number.as_ref()?).ok()?.parse().ok());
    let theirs: Vec<u64> = theirs.map(Option::unwrap_or_default).collect();
    let mut newer = Vec::new();
    for (((scope, name), theirs), ours) in
        scopes.iter().zip(&names).zip(theirs).zip(generations.numbers())
    {
        if !generations.join(scope, theirs) {
            debug!(%scope, theirs, "a number that no clock gives is not used");
        } else if theirs < ours {
            newer.push((name, ours));
        }
    }
    if !newer.is_empty() {
        let told = cmd("HSET").arg(hash).arg(&newer).take();
        let answer = connection.req_packed_command(&told);
        match timeout(BEAT, answer).await.context("it does not answer")? {
            // A replica that was the master says where it is not to be told.
            Err(error) if error.code().is_some_and(|code| code != "READONLY") => {
                if !std::mem::replace(refused, true) {
                    warn!(%error, "other nodes do not hear what is forgotten here: the Redis does not take it");
                }
            }
            answer => {
                answer?;
                *refused = false;
            }
        }
    }
    Ok(())
}

async fn ask(connection: &mut Bounded, command: &Cmd) -> Result<Value> {
    let answer = timeout(BEAT, connection.req_packed_command(command)).await;
    Ok(answer.context("it does not answer")??)
}
