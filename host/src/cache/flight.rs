//! Requests for the same answer at the same time: one of them, the leader, has it made, the others
//! wait for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout_at;

use super::entry::Entry;
use super::key::Key;
use super::memory::FirstBits;

/// What became of a leader's request.
#[derive(Clone, Debug)]
pub(super) enum Landed {
    /// An answer, for all who have this key.
    Answer(Key, Arc<Entry>),
    /// It failed, or its answer is for itself alone: each has to ask.
    Alone,
    /// There is an answer, and its end comes as its leader's client reads it: of this moment.
    Coming(Instant),
}

/// Who reads slowly keeps those who wait for the same answer no longer than this.
const COMING: Duration = Duration::from_millis(100);

/// `None` while it is under way.
type News = Option<Landed>;

/// The requests under way.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<UnderWay>);

type UnderWay = HashMap<Key, Flight, BuildHasherDefault<FirstBits>>;

#[derive(Debug, Default)]
struct Flight {
    /// Since when its answer comes.
    coming: Option<Instant>,
    /// Made for the first who waits: most have nobody.
    news: Option<watch::Sender<News>>,
}

/// Who comes to a key.
#[derive(Debug)]
pub(super) enum Boarding {
    First(Lead),
    Later(Follow),
}

/// Has the answer made. Whoever waits is told when this is given up, too.
#[derive(Debug)]
pub(super) struct Lead {
    key: Key,
    flights: Arc<Flights>,
    landed: News,
}

/// Waits for it.
#[derive(Debug)]
pub(super) struct Follow(watch::Receiver<News>);

impl Flights {
    pub(super) fn board(self: &Arc<Self>, key: Key) -> Boarding {
        match self.lock().entry(key) {
            Slot::Occupied(mut flight) => Boarding::Later(flight.get_mut().follow()),
            Slot::Vacant(slot) => {
                slot.insert(Flight::default());
                Boarding::First(Lead { key, flights: Arc::clone(self), landed: None })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    fn follow(&mut self) -> Follow {
        let coming = self.coming.map(Landed::Coming);
        Follow(self.news.get_or_insert_with(|| watch::Sender::new(coming)).subscribe())
    }
}

impl Lead {
    /// Tells everybody.
    pub(super) fn land(mut self, landed: Landed) {
        self.landed = Some(landed);
    }

    /// Tells them that it begins.
    pub(super) fn comes(&self) {
        let now = Instant::now();
        if let Some(flight) = self.flights.lock().get_mut(&self.key) {
            flight.coming = Some(now);
            if let Some(news) = &flight.news {
                news.send_replace(Some(Landed::Coming(now)));
            }
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let flight = self.flights.lock().remove(&self.key);
        if let (Some(news), Some(landed)) = (flight.and_then(|f| f.news), self.landed.take()) {
            news.send_replace(Some(landed));
        }
    }
}

impl Follow {
    /// What became of it; `None` if its leader was given up, for one that waits to be the next.
    pub(super) async fn landed(mut self) -> Option<Landed> {
        let news = self.0.wait_for(Option::is_some).await.ok()?.clone();
        let Some(Landed::Coming(since)) = news else { return news };
        let ends = |news: &News| !matches!(news, Some(Landed::Coming(_)));
        match timeout_at((since + COMING).into(), self.0.wait_for(ends)).await {
            Ok(news) => news.ok()?.clone(),
            Err(_) => Some(Landed::Alone),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::cache::key::Origin;

    fn key(path: &str) -> Key {
        let request = Request::get(path).body(()).unwrap();
        Origin::new([]).key(0, &request.into_parts().0, ("", b""), &[])
    }

    #[tokio::test]
    async fn one_leads_and_the_others_hear_of_it() {
        let flights = Arc::new(Flights::default());
        let Boarding::First(lead) = flights.board(key("/a")) else { panic!("nobody leads") };
        let followers: Vec<_> = (0..3)
            .map(|_| match flights.board(key("/a")) {
                Boarding::Later(follow) => tokio::spawn(follow.landed()),
                Boarding::First(_) => panic!("two lead"),
            })
            .collect();
        assert!(matches!(flights.board(key("/b")), Boarding::First(_)), "of another key");
        lead.land(Landed::Alone);
        for follower in followers {
            assert!(matches!(follower.await.unwrap(), Some(Landed::Alone)));
        }
        assert!(matches!(flights.board(key("/a")), Boarding::First(_)), "it has landed");
    }

    #[tokio::test]
    async fn who_reads_slowly_keeps_nobody_for_long() {
        let flights = Arc::new(Flights::default());
        let Boarding::First(lead) = flights.board(key("/a")) else { panic!("nobody leads") };
        let follow = || match flights.board(key("/a")) {
            Boarding::Later(follow) => follow.landed(),
            Boarding::First(_) => panic!("two lead"),
        };
        let begun = follow();
        lead.comes();
        for follower in [begun, follow()] {
            assert!(matches!(follower.await, Some(Landed::Alone)));
        }
    }

    #[tokio::test]
    async fn a_leader_that_is_gone_makes_room_for_the_next() {
        let flights = Arc::new(Flights::default());
        let Boarding::First(lead) = flights.board(key("/a")) else { panic!("nobody leads") };
        let Boarding::Later(follow) = flights.board(key("/a")) else { panic!("two lead") };
        drop(lead);
        assert!(follow.landed().await.is_none());
        let Boarding::First(next) = flights.board(key("/a")) else { panic!("nobody leads") };
        drop(next);
    }
}
