//! Flights: concurrent requests with the same key are collapsed into one. The first leads: it has the
//! response computed. The others follow: they wait for it.
//!
//! ```text
//! first request ─ board ─> Lead ─────── streaming ──────────> land
//!                           │ dropped       │                   │
//! others ──────── board ─> Follow           │                   │
//!                           v               v                   v
//!                           the next leads  wait a short while  Response: served to all
//!                                           for its end         Uncached: each is forwarded
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::entry::CacheEntry;
use super::key::CacheKey;
use super::memory::FirstBits;

/// The state of a leader's request, as followers see it.
#[derive(Clone, Debug)]
pub(super) enum Landed {
    /// A response for all requests with this key.
    Response(CacheKey, Arc<CacheEntry>),
    /// It failed, or its response is not stored: each follower is forwarded to the component.
    Uncached,
    /// Its response has been streamed to the leader's client since then, and is stored once complete.
    Streaming(Instant),
}

/// Maximum time for which followers wait for a streamed response: a leader's client may read slowly.
const MAX_STREAM_WAIT: Duration = Duration::from_millis(100);

/// `None` while the leader waits for its component.
type FlightState = Option<Landed>;

/// Number of tables, so that requests on different threads rarely wait for each other.
const SHARDS: usize = 16;

/// The flights of all keys, in tables by the last bits of the key.
#[derive(Debug, Default)]
pub(super) struct Flights([Shard; SHARDS]);

/// A table with cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<FlightTable>);

type FlightTable = HashMap<CacheKey, Flight, BuildHasherDefault<FirstBits>>;

#[derive(Debug, Default)]
struct Flight {
    /// When its response started to be streamed.
    streaming_since: Option<Instant>,
    /// Created for the first follower: most flights have none.
    sender: Option<watch::Sender<FlightState>>,
}

/// The part of a request in a flight.
#[derive(Debug)]
pub(super) enum Boarding {
    First(Lead),
    Later(Follow),
}

/// The leader of a flight. If it is dropped before it lands, a follower becomes the next leader.
#[derive(Debug)]
pub(super) struct Lead {
    key: CacheKey,
    /// `None` once it has left.
    flights: Option<Arc<Flights>>,
    landed: FlightState,
}

/// A follower of a flight.
#[derive(Debug)]
pub(super) struct Follow(watch::Receiver<FlightState>);

impl Flights {
    /// Joins the flight of `key`, or starts it.
    pub(super) fn board(self: &Arc<Self>, key: CacheKey) -> Boarding {
        match self.lock(&key).entry(key) {
            Slot::Occupied(mut flight) => Boarding::Later(flight.get_mut().follow()),
            Slot::Vacant(slot) => {
                slot.insert(Flight::default());
                Boarding::First(Lead { key, flights: Some(Arc::clone(self)), landed: None })
            }
        }
    }

    fn lock(&self, key: &CacheKey) -> MutexGuard<'_, FlightTable> {
        self.0[usize::from(key.bytes()[15]) % SHARDS].0.lock()
    }
}

impl Flight {
    fn follow(&mut self) -> Follow {
        let state = self.streaming_since.map(Landed::Streaming);
        Follow(self.sender.get_or_insert_with(|| watch::Sender::new(state)).subscribe())
    }
}

impl Lead {
    /// Ends the flight with a result for all followers.
    pub(super) fn land(mut self, landed: Landed) {
        self.landed = Some(landed);
    }

    /// Ends the flight if it has no follower. Otherwise it continues, and its leader is returned.
    pub(super) fn leave(mut self) -> Option<Self> {
        let flights = self.flights.take()?;
        let mut table = flights.lock(&self.key);
        let is_followed = table.get(&self.key).is_some_and(|flight| flight.sender.is_some());
        if !is_followed {
            table.remove(&self.key);
            return None;
        }
        drop(table);
        self.flights = Some(flights);
        Some(self)
    }

    /// Notifies followers that the response is being streamed.
    pub(super) fn streaming(&self) {
        let Some(flights) = &self.flights else { return };
        let now = Instant::now();
        if let Some(flight) = flights.lock(&self.key).get_mut(&self.key) {
            flight.streaming_since = Some(now);
            if let Some(sender) = &flight.sender {
                sender.send_replace(Some(Landed::Streaming(now)));
            }
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let Some(flights) = self.flights.take() else { return };
        let flight = flights.lock(&self.key).remove(&self.key);
        if let (Some(sender), Some(landed)) = (flight.and_then(|f| f.sender), self.landed.take()) {
            sender.send_replace(Some(landed));
        }
    }
}

impl Follow {
    /// Waits for the result; `None` if the leader was dropped, or ended without one.
    pub(super) async fn landed(mut self) -> Option<Landed> {
        let state = self.0.wait_for(Option::is_some).await.ok()?.clone();
        let Some(Landed::Streaming(since)) = state else { return state };
        let has_ended = |state: &FlightState| !matches!(state, Some(Landed::Streaming(_)));
        match timeout_at((since + MAX_STREAM_WAIT).into(), self.0.wait_for(has_ended)).await {
            Ok(state) => state.ok()?.clone(),
            Err(_) => Some(Landed::Uncached),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::cache::key::KeyPrefix;

    fn key(path: &str) -> CacheKey {
        let request = Request::get(path).body(()).unwrap();
        KeyPrefix::new([]).key(0, &request.into_parts().0, ("", b""), &[])
    }

    #[tokio::test]
    async fn first_request_leads_and_others_receive_its_result() {
        let flights = Arc::new(Flights::default());
        let Boarding::First(lead) = flights.board(key("/a")) else { panic!("no leader") };
        let followers: Vec<_> = (0..3)
            .map(|_| match flights.board(key("/a")) {
                Boarding::Later(follow) => tokio::spawn(follow.landed()),
                Boarding::First(_) => panic!("two leaders"),
            })
            .collect();
        assert!(matches!(flights.board(key("/b")), Boarding::First(_)), "another key");
        lead.land(Landed::Uncached);
        for follower in followers {
            assert!(matches!(follower.await.unwrap(), Some(Landed::Uncached)));
        }
        assert!(matches!(flights.board(key("/a")), Boarding::First(_)), "it has landed");
    }

    #[tokio::test]
    async fn followers_do_not_wait_for_a_slow_stream() {
        let flights = Arc::new(Flights::default());
        let Boarding::First(lead) = flights.board(key("/a")) else { panic!("no leader") };
        let follow = || match flights.board(key("/a")) {
            Boarding::Later(follow) => follow.landed(),
            Boarding::First(_) => panic!("two leaders"),
        };
        let early = follow();
        lead.streaming();
        for follower in [early, follow()] {
            assert!(matches!(follower.await, Some(Landed::Uncached)));
        }
    }

    #[tokio::test]
    async fn leader_leaves_only_without_followers() {
        let flights = Arc::new(Flights::default());
        let board = || flights.board(key("/a"));
        let Boarding::First(lead) = board() else { panic!("no leader") };
        let Boarding::Later(follow) = board() else { panic!("two leaders") };
        let lead = lead.leave().expect("it has a follower");
        assert!(matches!(board(), Boarding::Later(_)), "the flight continues");
        lead.land(Landed::Uncached);
        assert!(matches!(follow.landed().await, Some(Landed::Uncached)));

        let Boarding::First(lead) = board() else { panic!("no leader") };
        assert!(lead.leave().is_none());
        // The next flight is not ended by the leader that has left.
        let Boarding::First(next) = board() else { panic!("no leader") };
        assert!(matches!(board(), Boarding::Later(_)));
        drop(next);
    }

    #[tokio::test]
    async fn follower_leads_after_the_leader_is_dropped() {
        let flights = Arc::new(Flights::default());
        let Boarding::First(lead) = flights.board(key("/a")) else { panic!("no leader") };
        let Boarding::Later(follow) = flights.board(key("/a")) else { panic!("two leaders") };
        drop(lead);
        assert!(follow.landed().await.is_none());
        let Boarding::First(next) = flights.board(key("/a")) else { panic!("no leader") };
        drop(next);
    }
}
