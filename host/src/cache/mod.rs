//! The response cache: an answer that its component allows to be given again is made once
//! (RFC 9111, for requests with a body too: the body is part of the key).
//!
//! It lies above the instances and below the routes: what a component answers depends on its code,
//! its models, what it was given to read, and the request. All of that is in the key ([`key`]), so
//! that a new version never gives an old answer. Nothing is kept that its component does not allow
//! by `Cache-Control` ([`control`]). Where it says so, bodies count by what they mean ([`body_key`]).
//!
//! ```text
//! look_up -> kept in memory?              fresh: the answer
//!                                         stale, or soon: the answer, and a new one is made
//!         -> in the making?               wait for it (flight)
//!         -> kept by another node?        into memory, and the same again (shared)
//!         -> none: a Ticket               the component is asked, and keep has the answer
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::body::Body;
use crate::error::Failure;

mod body_key;
pub mod canonical;
pub mod control;
pub mod counts;
pub mod entry;
mod flight;
pub mod generation;
mod headers;
pub mod key;
pub mod memory;
pub mod shared;
mod status;

pub use body_key::BodyKey;
use body_key::BodyKeys;
use control::{allowed, asked, varies};
use counts::{Counts, Level, Outcome};
use entry::{Entry, Kept, State};
use flight::{Boarding, Flights, Landed, Lead};
use generation::{Generations, Scope, Scopes};
use key::Key;
pub use key::Origin;
use memory::Memory;
use shared::{Shared, UNWATCHED};
use status::Forwarded;

/// A component whose last answers were all not to be kept, so many of them, is no longer looked up
/// until it gives one that is.
const ANSWERS_IN_VAIN: u32 = 64;

/// How much is kept, and of what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of all answers. Without any there is no cache.
    pub memory: u64,
    /// Of one.
    pub answer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 64 << 20, answer: 1 << 20 }
    }
}

/// `[cache]` in the runtime config.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub limits: Limits,
    pub shared: Option<shared::Settings>,
}

/// How often a request may ask the shared level: for its own answer, and if that is one of several,
/// for which.
const ASKED_MOST: usize = 2;

/// The answers of all components.
#[derive(Debug)]
pub struct Cache {
    limits: Limits,
    memory: Arc<Memory>,
    shared: Option<Shared>,
    flights: Arc<Flights>,
    generations: Generations,
}

/// A component, as the cache knows it.
#[derive(Debug)]
pub struct Source {
    origin: Origin,
    /// Its last answers that were not to be kept.
    in_vain: AtomicU32,
    /// Whether there ever was one that was, or is likely to be.
    keeps: AtomicBool,
    body_keys: BodyKeys,
}

/// What there is for a request.
#[derive(Debug)]
pub enum Found {
    /// Its answer.
    Answer(Response<Body>),
    /// An answer that may be given, and is to be made again.
    Ageing(Response<Body>, Ticket),
    /// Nothing: the component is to be asked.
    Nothing(Ticket),
}

/// Which other nodes have heard that something is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// Nothing is shared: this node is for itself.
    Nobody,
    All,
    /// As soon as the Redis takes it: it does not answer, or is full.
    Later,
}

/// A request whose component is asked, and what its answer is for.
#[derive(Debug)]
pub enum Ticket {
    /// There is no cache.
    NoCache,
    /// For itself.
    Alone(Forwarded),
    /// To be kept, if it may be.
    ToKeep(Box<Place>),
}

/// A request that is looked up.
#[derive(Clone, Copy)]
struct Question<'a> {
    key: Key,
    generation: u64,
    by: Option<BodyKey>,
    head: &'a Parts,
    body: &'a Bytes,
    authorized: bool,
}

/// Where an answer goes.
#[derive(Debug)]
pub struct Place {
    why: Forwarded,
    asked: Instant,
    key: Key,
    /// What the key was made by.
    generation: u64,
    by: Option<BodyKey>,
    /// The request: it may turn out that the answer depends on its headers, or on less than its body.
    head: Parts,
    body: Bytes,
    authorized: bool,
    /// `None` if nobody waits for it.
    lead: Option<Lead>,
}

impl Source {
    /// It is `likely` to give answers that are kept, or it is not known before it does.
    #[must_use]
    pub fn new(origin: Origin, likely: bool) -> Self {
        let (in_vain, keeps) = (AtomicU32::new(0), AtomicBool::new(likely));
        Self { origin, in_vain, keeps, body_keys: BodyKeys::default() }
    }

    /// Whether it pays to look: it may give answers that are kept.
    #[must_use]
    pub fn may_keep(&self) -> bool {
        self.in_vain.load(Ordering::Relaxed) < ANSWERS_IN_VAIN
    }

    /// Whether it gives answers that are kept, so that it pays to wait for one.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.may_keep() && self.keeps.load(Ordering::Relaxed)
    }

    fn learn(&self, kept: bool) {
        if kept && !self.keeps.load(Ordering::Relaxed) {
            self.keeps.store(true, Ordering::Relaxed);
        }
        if !kept {
            let more = |count: u32| (count < ANSWERS_IN_VAIN).then_some(count + 1);
            let _ = self.in_vain.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        } else if self.in_vain.load(Ordering::Relaxed) > 0 {
            self.in_vain.store(0, Ordering::Relaxed);
        }
    }
}

impl Ticket {
    fn to_keep(why: Forwarded, question: Question<'_>, lead: Option<Lead>) -> Self {
        let Question { key, generation, by, head, body, authorized } = question;
        let (head, body, asked) = (copied(head), body.clone(), Instant::now());
        let place = Place { why, asked, key, generation, by, head, body, authorized, lead };
        Self::ToKeep(Box::new(place))
    }

    /// What that is to the one who asked, if there is a cache.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::NoCache => None,
            Self::Alone(Forwarded::Bypass) => Some(Outcome::Bypass),
            Self::Alone(_) | Self::ToKeep(_) => Some(Outcome::Miss),
        }
    }
}

impl Cache {
    #[must_use]
    pub fn new(limits: Limits, shared: Option<Shared>) -> Self {
        let memory = Arc::new(Memory::new(limits.memory, limits.answer));
        Self {
            limits,
            memory,
            shared,
            flights: Arc::default(),
            generations: Generations::default(),
        }
    }

    /// Sees to what is shared, forever.
    pub async fn attend(&self) {
        if let Some(shared) = &self.shared {
            shared.attend(&self.generations, &self.memory).await;
        }
    }

    #[must_use]
    pub fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }

    /// What the answers under a route belong to, or of whoever has all `scopes` in common.
    pub fn scopes(&self, scopes: impl IntoIterator<Item = Scope>) -> Scopes {
        self.generations.scopes([Scope::Everything].into_iter().chain(scopes))
    }

    /// Forgets the answers of `scope`, those that are being made too, and tells other nodes. Fails
    /// with all there is if it is not among it.
    pub async fn purge(&self, scope: &Scope) -> Result<Told, Vec<Scope>> {
        let number = self.generations.raise(scope).ok_or_else(|| self.generations.known())?;
        if *scope == Scope::Everything {
            // Of another scope it is not known what its answers are.
            self.memory.clear();
        }
        Ok(match &self.shared {
            None => Told::Nobody,
            Some(shared) if shared.tell(scope, number).await => Told::All,
            Some(_) => Told::Later,
        })
    }

    /// What there is for a request to `source` under the route of `scopes`, or will be before the
    /// deadline; `counts` say which. `body` is `None` if it is not whole.
    pub async fn look_up(
        &self,
        source: &Source,
        scopes: &Scopes,
        counts: &Counts,
        head: &Parts,
        body: Option<&Bytes>,
        deadline: Instant,
    ) -> Result<Found, Failure> {
        if self.limits.memory == 0 {
            return Ok(Found::Nothing(Ticket::NoCache));
        }
        let mut asked = asked(&head.headers);
        if self.shared.as_ref().is_some_and(|shared| !shared.is_watched()) {
            asked.max_age = Some(asked.max_age.map_or(UNWATCHED, |age| age.min(UNWATCHED)));
        }
        let for_all = [Method::GET, Method::POST].contains(&head.method) && !asked.bypass;
        let body = match body {
            Some(body) if for_all && source.may_keep() => body,
            _ if asked.only_if_cached => return Err(Failure::NotCached),
            _ => return Ok(Found::Nothing(Ticket::Alone(Forwarded::Bypass))),
        };
        let generation = scopes.generation();
        let (mut level, mut fetched, mut asked_others) = (Level::Memory, None, 0);
        loop {
            let by = source.body_keys.of(head.uri.path());
            let first = body_key::key(&source.origin, generation, head, body, by);
            let authorized = asked.authorized;
            let question = Question { key: first, generation, by, head, body, authorized };
            let to_keep = |why, lead| Ticket::to_keep(why, question, lead);
            // What was fetched counts even if memory has no room for it.
            let kept = fetched.take().unwrap_or_else(|| (first, self.memory.get(&first)));
            let (key, kept) = self.resolve(kept, &head.headers);
            let (entry, now) = (kept.as_deref().and_then(answer), SystemTime::now());
            let found = entry.map(|entry| (entry, entry.state(&asked, now, drawn())));
            counts.looked_up(level, found.map(|(_, state)| state));
            let why = match found {
                Some((entry, State::Fresh)) => return Ok(Found::Answer(hit(entry, now, level))),
                Some((entry, State::Ageing)) => {
                    let answer = hit(entry, now, level);
                    // Who asks for no new answer has none made.
                    let boarding = (!asked.only_if_cached).then(|| self.flights.board(key));
                    return Ok(match boarding {
                        Some(Boarding::First(lead)) => {
                            Found::Ageing(answer, to_keep(Forwarded::Stale, Some(lead)))
                        }
                        Some(Boarding::Later(_)) | None => Found::Answer(answer),
                    });
                }
                Some((_, State::Stale)) => Forwarded::Stale,
                None => Forwarded::Miss,
            };
            let ask_others = asked_others < ASKED_MOST && source.keeps();
            if asked.only_if_cached {
                fetched = if ask_others { self.fetch(key, counts).await } else { None };
                if fetched.is_none() {
                    return Err(Failure::NotCached);
                }
                (level, asked_others) = (Level::Redis, asked_others + 1);
                continue;
            }
            // What is in the making was asked for before.
            if asked.renewed {
                return Ok(Found::Nothing(to_keep(Forwarded::Request, None)));
            }
            // Nobody is to wait for an answer that is not for others.
            if !source.keeps() {
                return Ok(Found::Nothing(to_keep(why, None)));
            }
            let follow = match self.flights.board(key) {
                Boarding::First(lead) => {
                    fetched = if ask_others { self.fetch(key, counts).await } else { None };
                    if fetched.is_none() {
                        return Ok(Found::Nothing(to_keep(why, Some(lead))));
                    }
                    // Who follows finds it in memory.
                    (level, asked_others) = (Level::Redis, asked_others + 1);
                    continue;
                }
                Boarding::Later(follow) => follow,
            };
            // The rest of the time is for its own.
            let patience = deadline.saturating_duration_since(Instant::now()) / 2;
            let Ok(landed) = timeout(patience, follow.landed()).await else {
                return Ok(Found::Nothing(Ticket::Alone(why)));
            };
            match landed {
                Some(Landed::Answer { kept, key, varies }) => {
                    let of_this = if varies.is_empty() {
                        key == first
                    } else {
                        key == first.varied(&varies, &head.headers)
                    };
                    if let (true, Some(entry)) = (of_this, answer(&kept)) {
                        let mut answer = entry.response(SystemTime::now());
                        status::collapsed(answer.headers_mut());
                        counts.got(Outcome::Collapsed);
                        return Ok(Found::Answer(answer));
                    }
                }
                Some(Landed::Alone | Landed::Coming(_)) => {
                    return Ok(Found::Nothing(Ticket::Alone(why)));
                }
                None => {}
            }
        }
    }

    /// Its levels, in the order they are asked.
    #[must_use]
    pub fn levels(&self) -> &'static [Level] {
        if self.shared.is_some() { &Level::ALL } else { &[Level::Memory] }
    }

    /// What is kept in memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How much may be kept.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What another node has kept under this key, and the key. It is in memory then.
    async fn fetch(&self, key: Key, counts: &Counts) -> Option<(Key, Option<Arc<Kept>>)> {
        let Some(kept) = self.shared.as_ref()?.get(&key).await else {
            counts.looked_up(Level::Redis, None);
            return None;
        };
        let kept = Arc::new(kept);
        self.memory.put(key, Arc::clone(&kept));
        Some((key, Some(kept)))
    }

    /// What is kept for a request, and its key: the first one, or where what stands there says so the
    /// key of one of several answers.
    fn resolve(
        &self,
        (key, kept): (Key, Option<Arc<Kept>>),
        headers: &HeaderMap,
    ) -> (Key, Option<Arc<Kept>>) {
        match kept.as_deref() {
            Some(Kept::Varies(names)) => {
                let key = key.varied(names, headers);
                (key, self.memory.get(&key))
            }
            Some(Kept::Answer(_)) | None => (key, kept),
        }
    }

    /// Keeps the answer a component gave, if that is allowed, and tells whoever waits for it: at
    /// once, or when all of it was sent.
    pub fn keep(
        self: &Arc<Self>,
        source: &Source,
        ticket: Ticket,
        mut answer: Result<Response<Body>, Failure>,
    ) -> Result<Response<Body>, Failure> {
        let by = answer.as_mut().ok().and_then(|answer| BodyKey::take(answer.headers_mut()));
        let mut place = match ticket {
            Ticket::NoCache => return answer,
            Ticket::Alone(why) => {
                let mut answer = answer?;
                if answer.status() == StatusCode::OK {
                    source.learn(allowed(answer.headers(), false).is_some());
                }
                status::forwarded(answer.headers_mut(), why, false);
                return Ok(answer);
            }
            Ticket::ToKeep(place) => place,
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                place.land(Landed::Alone);
                return Err(failure);
            }
        };
        let given = allowed(answer.headers(), place.authorized);
        // What is wrong with a request says nothing of its component.
        if answer.status() == StatusCode::OK {
            // Whether its answers are kept is not for who has credentials to say.
            let others = place.authorized && allowed(answer.headers(), false).is_some();
            source.learn(given.is_some() || others);
            if by != place.by {
                source.body_keys.learn(place.head.uri.path(), by);
                let Place { generation, head, body, .. } = &*place;
                place.key = body_key::key(&source.origin, *generation, head, body, by);
            }
        }
        let why = place.why;
        let fits = answer.status() == StatusCode::OK && self.may_fit(&answer);
        let Some(allowed) = given.filter(|_| fits) else {
            place.land(Landed::Alone);
            status::forwarded(answer.headers_mut(), why, false);
            return Ok(answer);
        };
        let entry = Entry::new(answer.headers(), Bytes::new(), allowed, Duration::ZERO);
        let varies = varies(answer.headers()).unwrap_or_default();
        let cache = Arc::clone(self);
        if let Some(lead) = place.lead.as_ref().filter(|_| !is_whole(&answer)) {
            lead.comes();
        }
        let take = move |body| cache.put(*place, entry, varies.into(), body);
        let mut answer = answer.map(|body| body.copied(self.limits.answer, take));
        // Of a stream nobody knows yet whether it will be.
        let stored = is_whole(&answer);
        status::forwarded(answer.headers_mut(), why, stored);
        Ok(answer)
    }

    fn put(&self, place: Place, entry: Entry, varies: Arc<[HeaderName]>, body: Bytes) {
        let entry = entry.complete(body, place.asked.elapsed());
        let lasts = entry.lasts(SystemTime::now());
        let kept = Arc::new(Kept::Answer(entry));
        let key = if varies.is_empty() {
            place.key
        } else {
            self.put_everywhere(place.key, &Arc::new(Kept::Varies(varies.to_vec())), lasts);
            place.key.varied(&varies, &place.head.headers)
        };
        self.put_everywhere(key, &kept, lasts);
        place.land(Landed::Answer { kept, key, varies });
    }

    fn put_everywhere(&self, key: Key, kept: &Arc<Kept>, lasts: Duration) {
        self.memory.put(key, Arc::clone(kept));
        if let Some(shared) = &self.shared {
            shared.put(key, kept, lasts);
        }
    }

    /// Whether an answer is not known to be too long.
    fn may_fit(&self, answer: &Response<Body>) -> bool {
        answer.body().size_hint().lower() <= self.limits.answer as u64
    }
}

impl Place {
    fn land(self, landed: Landed) {
        if let Some(lead) = self.lead {
            lead.land(landed);
        }
    }
}

/// A head without its extensions, which are of its connection.
#[must_use]
pub fn copied(head: &Parts) -> Parts {
    let mut copied = Request::new(()).into_parts().0;
    copied.method = head.method.clone();
    copied.uri = head.uri.clone();
    copied.version = head.version;
    copied.headers = head.headers.clone();
    copied
}

/// Whether all of it is there, or known to come at once.
fn is_whole(answer: &Response<Body>) -> bool {
    answer.body().size_hint().exact().is_some()
}

fn answer(kept: &Kept) -> Option<&Entry> {
    match kept {
        Kept::Answer(entry) => Some(entry),
        Kept::Varies(_) => None,
    }
}

fn hit(entry: &Entry, now: SystemTime, level: Level) -> Response<Body> {
    let mut answer = entry.response(now);
    status::hit(answer.headers_mut(), entry.ttl(now), level);
    answer
}

/// Uniform in (0, 1].
fn drawn() -> f64 {
    1.0 - fastrand::f64()
}
