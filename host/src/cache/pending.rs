//! A request that is looked up, and what is done with the answer if there was none.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, Uri};

use super::control::Asked;
use super::counts::Outcome;
use super::flight::{Landed, Lead};
use super::key::{Key, Origin};
use super::status::Forwarded;
use super::vary::{Guess, Terms};
use crate::http::body::Body;

/// What there is for a request.
#[derive(Debug)]
pub enum Found {
    /// Its answer.
    Answer(Response<Body>),
    /// The answer to another request that was in flight.
    Collapsed(Response<Body>),
    /// An answer that may be given, and is to be made again.
    Ageing(Response<Body>, Ticket),
    /// Nothing: the component is to be asked.
    Nothing(Ticket),
}

/// A request whose component is asked, and what its answer is for.
#[derive(Debug)]
pub enum Ticket {
    /// There is no cache.
    NoCache,
    /// For itself.
    Alone(Forwarded, Method),
    /// To be kept, if it may be.
    ToKeep(Box<Place>),
}

/// A request that is looked up.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) key: Key,
    /// What the key was made by.
    pub(super) guess: &'a Guess,
    pub(super) generation: u64,
    pub(super) head: &'a Parts,
    pub(super) body: &'a Bytes,
    pub(super) asked: &'a Asked,
    /// Nothing is good for longer.
    pub(super) longest: Duration,
}

/// Where an answer goes.
#[derive(Debug)]
pub struct Place {
    pub(super) why: Forwarded,
    pub(super) since: Instant,
    pub(super) key: Key,
    pub(super) authorized: bool,
    /// What the key was made by.
    pub(super) terms: Terms,
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// If no answer to these said yet what it depends on.
    unsure: Option<Unsure>,
    /// `None` if nobody waits for it.
    lead: Option<Lead>,
}

/// What it takes to make another key.
#[derive(Debug)]
struct Unsure {
    generation: u64,
    head: Parts,
    body: Bytes,
}

impl Question<'_> {
    /// `answer`, and another is made.
    pub(super) fn again(self, answer: Response<Body>, lead: Lead) -> Found {
        Found::Ageing(answer, self.to_keep(Forwarded::Stale, Some(lead)))
    }

    pub(super) fn to_keep(self, why: Forwarded, lead: Option<Lead>) -> Ticket {
        let Self { key, guess, generation, head, body, asked, .. } = self;
        let unsure = || Unsure { generation, head: copied(head), body: body.clone() };
        let place = Place {
            why,
            since: Instant::now(),
            key,
            authorized: asked.authorized,
            terms: guess.terms.clone(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            unsure: (!guess.known).then(unsure),
            lead,
        };
        Ticket::ToKeep(Box::new(place))
    }
}

impl Ticket {
    /// What that is to the one who asked, if there is a cache.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::NoCache => None,
            Self::Alone(Forwarded::Bypass, _) => Some(Outcome::Bypass),
            Self::Alone(..) | Self::ToKeep(_) => Some(Outcome::Miss),
        }
    }
}

impl Place {
    /// Its answer depends on `terms`. `None` if it was taken for something else, and it is too late to
    /// say where the answer goes.
    pub(super) fn by(mut self: Box<Self>, terms: Terms, origin: &Origin) -> Option<Box<Self>> {
        if terms != self.terms {
            let Unsure { generation, head, body } = self.unsure.take()?;
            self.key = terms.key(origin, generation, &head, &body);
            self.terms = terms;
        }
        Some(self)
    }

    /// Whether an answer to this method and path said before what it depends on.
    pub(super) fn is_sure(&self) -> bool {
        self.unsure.is_none()
    }

    /// The answer comes.
    pub(super) fn comes(&self) {
        self.lead.iter().for_each(Lead::comes);
    }

    /// Tells whoever waits.
    pub(super) fn land(self, landed: Landed) {
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
