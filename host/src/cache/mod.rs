//! The response cache: an answer that its component allows to be given again is made once
//! (RFC 9111, for requests with a body too: the body is part of the key).
//!
//! It lies above the instances and below the routes: what a component answers depends on its code,
//! its models, what it was given to read, and the request. All of that is in the key ([`key`]), so
//! that a new version never gives an old answer. Nothing is kept that its component does not allow
//! by `Cache-Control` ([`control`]). It says, too, which headers of a request count, and how its body
//! does ([`terms`]).
//!
//! ```text
//! look_up -> kept in memory?              fresh: the answer
//!                                         stale, or soon: the answer, and a new one is made
//!         -> in the making?               wait for it (flight)
//!         -> kept by another node?        into memory, and the same again (shared)
//!         -> none: a Ticket               the component is asked, and keep has the answer
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;

use crate::http::body::Body;
use crate::http::error::Failure;
use crate::prediction_log::Appended;

mod body_key;
pub mod canonical;
pub mod control;
pub mod counts;
pub mod entry;
mod component_state;
mod flight;
pub mod generation;
pub mod key;
pub mod memory;
mod pending;
pub mod redis;
mod status;
mod stored;
mod vary;

pub use body_key::BodyKey;
use control::{allowed, asked};
use counts::{Counts, Level, Outcome};
use entry::{Entry, State};
use flight::{Boarding, Flights, Landed};
use generation::{Generations, Scope, Scopes};
pub use key::Origin;
use memory::Memory;
use redis::{Shared, UNWATCHED};
pub use component_state::Source;
use status::Forwarded;
use vary::{Guess, Terms};
pub use pending::{Found, Ticket, copied};
use pending::{Place, Question};

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
    pub shared: Option<redis::Settings>,
}

/// The answers of all components.
#[derive(Debug)]
pub struct Cache {
    limits: Limits,
    memory: Arc<Memory>,
    shared: Option<Shared>,
    flights: Arc<Flights>,
    generations: Generations,
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
        let asked = asked(&head.headers);
        let for_all = [Method::GET, Method::POST].contains(&head.method) && !asked.bypass;
        let alone = |why| Found::Nothing(Ticket::Alone(why, head.method.clone()));
        let pays =
            || source.may_keep(&head.method) || source.learned.guess(&head.method, &head.uri).known;
        let body = match body {
            Some(body) if for_all && pays() => body,
            _ if asked.only_if_cached => return Err(not_cached(counts, Outcome::Bypass)),
            _ => return Ok(alone(Forwarded::Bypass)),
        };
        let watched = self.shared.as_ref().is_none_or(Shared::is_watched);
        let longest = if watched { Duration::MAX } else { UNWATCHED };
        let generation = scopes.generation();
        // The rest of the time is for its own.
        let patience = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        loop {
            let guess = &source.learned.guess(&head.method, &head.uri);
            let key = guess.terms.key(&source.origin, generation, head, body);
            let question = Question { key, guess, generation, head, body, asked: &asked, longest };
            let entry = self.memory.get(&key);
            let why = match given(question, Level::Memory, entry.as_deref(), counts) {
                Given::Fresh(answer) => return Ok(Found::Answer(answer)),
                Given::Ageing(answer) => return Ok(self.ageing(question, answer)),
                Given::Nothing(why) => why,
            };
            // What is in the making was asked for before; and nobody is to wait for an answer that
            // is not for others.
            let waits = guess.known || source.keeps() && source.may_keep(&head.method);
            let leads = !asked.renewed && waits;
            if asked.only_if_cached {
                let fetched =
                    if leads { self.fetch(question, entry.as_deref(), counts).await } else { None };
                return match fetched {
                    Some(Given::Fresh(answer) | Given::Ageing(answer)) => Ok(Found::Answer(answer)),
                    Some(Given::Nothing(_)) | None => Err(not_cached(counts, Outcome::Miss)),
                };
            }
            if !leads {
                let why = if asked.renewed { Forwarded::Request } else { why };
                return Ok(Found::Nothing(question.to_keep(why, None)));
            }
            let follow = match self.flights.board(key) {
                Boarding::First(lead) => {
                    return Ok(match self.fetch(question, entry.as_deref(), counts).await {
                        // Who follows finds it in memory.
                        Some(Given::Fresh(answer)) => Found::Answer(answer),
                        Some(Given::Ageing(answer)) => question.again(answer, lead),
                        Some(Given::Nothing(why)) => {
                            Found::Nothing(question.to_keep(why, Some(lead)))
                        }
                        None => Found::Nothing(question.to_keep(why, Some(lead))),
                    });
                }
                Boarding::Later(follow) => follow,
            };
            match timeout_at(patience.into(), follow.landed()).await {
                Ok(Some(Landed::Answer(of, entry))) => {
                    let Guess { terms, .. } = source.learned.guess(&head.method, &head.uri);
                    // It may turn out to depend on what differs between the two.
                    if of == terms.key(&source.origin, generation, head, body) {
                        let mut answer = entry.response(SystemTime::now());
                        status::collapsed(answer.headers_mut(), why);
                        counts.got(Outcome::Collapsed);
                        return Ok(Found::Collapsed(answer));
                    }
                }
                Ok(Some(Landed::Alone | Landed::Coming(_))) | Err(_) => {
                    return Ok(alone(why));
                }
                // Its leader was given up, or what has landed is in memory.
                Ok(None) => {}
            }
        }
    }

    /// An answer that is to be made again, by the first who is given it.
    fn ageing(&self, question: Question<'_>, answer: Response<Body>) -> Found {
        // Who asks for no new answer has none made.
        if question.asked.only_if_cached {
            return Found::Answer(answer);
        }
        match self.flights.board(question.key) {
            Boarding::First(lead) => question.again(answer, lead),
            Boarding::Later(_) => Found::Answer(answer),
        }
    }

    /// What another node has made again meanwhile: whoever waits has it, and the ticket is used. It
    /// comes back if there is nothing.
    pub async fn renewed(&self, ticket: Ticket) -> Option<Ticket> {
        let (Ticket::ToKeep(place), Some(shared)) = (&ticket, &self.shared) else {
            return Some(ticket);
        };
        let key = place.key;
        let there = self.memory.get(&key);
        let newer = |entry: &Entry| {
            there.as_ref().is_none_or(|there| entry.made > there.made)
                && entry.ttl(SystemTime::now()) > 0
        };
        let Some(entry) = shared.get(&key).await.ok().flatten().filter(newer).map(Arc::new) else {
            return Some(ticket);
        };
        self.memory.put(key, Arc::clone(&entry));
        if let Ticket::ToKeep(place) = ticket {
            place.land(Landed::Answer(key, entry));
        }
        None
    }

    /// What another node has kept, if it is newer than what there is, and is in memory then. `None` if
    /// there is nothing.
    async fn fetch(
        &self,
        question: Question<'_>,
        there: Option<&Entry>,
        counts: &Counts,
    ) -> Option<Given> {
        let entry = self.shared.as_ref()?.get(&question.key).await.ok()?;
        let entry = entry.filter(|e| there.is_none_or(|there| e.made > there.made)).map(Arc::new);
        if let Some(entry) = &entry {
            self.memory.put(question.key, Arc::clone(entry));
        }
        // It counts even if memory has no room for it.
        let given = given(question, Level::Redis, entry.as_deref(), counts);
        entry.map(|_| given)
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

    /// Keeps the answer a component gave, if that is allowed, and tells whoever waits for it: at
    /// once, or when all of it was sent.
    pub fn keep(
        self: &Arc<Self>,
        source: &Source,
        ticket: Ticket,
        mut answer: Result<Response<Body>, Failure>,
    ) -> Result<Response<Body>, Failure> {
        let body_key = answer.as_mut().ok().and_then(|answer| BodyKey::take(answer.headers_mut()));
        let place = match ticket {
            Ticket::NoCache => return answer,
            Ticket::Alone(why, method) => {
                let mut answer = answer?;
                if answer.status() == StatusCode::OK {
                    source.learn(&method, allowed(answer.headers(), false).is_some());
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
        let why = place.why;
        let is_ok = answer.status() == StatusCode::OK;
        let given = allowed(answer.headers(), place.authorized);
        // What is wrong with a request says nothing of its component, and whether its answers are kept
        // is not for who has credentials to say.
        if is_ok {
            let others = place.authorized && allowed(answer.headers(), false).is_some();
            source.learn(&place.method, given.is_some() || others);
        }
        let predictions = answer.extensions().get::<Appended>().cloned().unwrap_or_default();
        let fits = self.may_fit(&answer) && predictions.size() <= self.limits.answer;
        let Some(allowed) = given.filter(|_| is_ok && fits) else {
            place.land(Landed::Alone);
            status::forwarded(answer.headers_mut(), why, false);
            return Ok(answer);
        };
        let before = place.is_sure().then_some(&place.terms);
        let terms = Terms::of(answer.headers(), body_key, before);
        if terms != place.terms || !place.is_sure() {
            source.learned.learn(&place.method, &place.uri, &terms);
        }
        let Some(place) = place.by(terms, &source.origin) else {
            status::forwarded(answer.headers_mut(), why, false);
            return Ok(answer);
        };
        let entry = Entry::new(answer.headers(), b"", allowed, Duration::ZERO);
        let entry = entry.with_predictions(predictions);
        // Of a stream nobody knows yet whether it will be kept.
        let is_whole = answer.body().is_whole();
        if !is_whole {
            place.comes();
        }
        let cache = Arc::clone(self);
        let take = move |body: Option<&[u8]>| match body {
            Some(body) => cache.put(*place, entry, body),
            None => place.land(Landed::Alone),
        };
        let mut answer = answer.map(|body| body.copied(self.limits.answer, take));
        status::forwarded(answer.headers_mut(), why, is_whole);
        Ok(answer)
    }

    fn put(&self, place: Place, entry: Entry, body: &[u8]) {
        let (key, entry) = (place.key, Arc::new(entry.complete(body, place.since.elapsed())));
        self.memory.put(key, Arc::clone(&entry));
        if let Some(shared) = &self.shared {
            shared.put(key, &entry, entry.lasts(SystemTime::now()));
        }
        place.land(Landed::Answer(key, entry));
    }

    /// Whether an answer is not known to be too long.
    fn may_fit(&self, answer: &Response<Body>) -> bool {
        answer.body().size_hint().lower() <= self.limits.answer as u64
    }
}

/// What of an entry a request may be given.
enum Given {
    Fresh(Response<Body>),
    /// It is to be made again.
    Ageing(Response<Body>),
    /// Why not.
    Nothing(Forwarded),
}

fn given(question: Question<'_>, level: Level, entry: Option<&Entry>, counts: &Counts) -> Given {
    let now = SystemTime::now();
    let state = |entry: &Entry| entry.state(question.asked, question.longest, now, drawn());
    let found = entry.map(|entry| (entry, state(entry)));
    counts.looked_up(level, found.map(|(_, state)| state));
    match found {
        Some((entry, State::Fresh)) => Given::Fresh(hit(entry, now, level)),
        Some((entry, State::Ageing)) => Given::Ageing(hit(entry, now, level)),
        Some((_, State::Refused)) => Given::Nothing(Forwarded::Request),
        Some((_, State::Stale)) => Given::Nothing(Forwarded::Stale),
        None => Given::Nothing(Forwarded::Miss),
    }
}

fn hit(entry: &Entry, now: SystemTime, level: Level) -> Response<Body> {
    let mut answer = entry.response(now);
    status::hit(answer.headers_mut(), entry.ttl(now), level);
    answer
}

fn not_cached(counts: &Counts, outcome: Outcome) -> Failure {
    counts.got(outcome);
    Failure::NotCached
}

/// Uniform in (0, 1].
fn drawn() -> f64 {
    1.0 - fastrand::f64()
}
