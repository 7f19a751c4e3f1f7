//! Lookups and their results. A request without a usable response is pending: it is forwarded to its
//! component, and the response is stored, if it may be, and lands the flight that waits for it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, Uri};

use super::control::RequestDirectives;
use super::counts::Outcome;
use super::flight::{Landed, Lead};
use super::key::{CacheKey, KeyPrefix};
use super::status::{CacheStatus, Forwarded};
use super::vary::{PredictedRule, VaryRule};
use crate::http::body::Body;

/// The result of a lookup.
#[derive(Debug)]
pub enum Lookup {
    /// A cached response.
    Hit(Response<Body>, CacheStatus),
    /// The response to another request that was in flight.
    Collapsed(Response<Body>, CacheStatus),
    /// A cached response, which the caller has to refresh.
    RefreshAhead(Response<Body>, CacheStatus, Pending),
    /// None: the caller has to invoke the component.
    Miss(Pending),
}

/// A request that is forwarded to its component, and how its response is stored.
#[derive(Debug)]
pub enum Pending {
    /// The cache is disabled.
    Disabled,
    /// The response is not stored.
    Uncached(Outcome, Method),
    /// The response is stored, if its headers allow that.
    ToStore(Box<PendingStore>),
}

/// A request, and the key it is looked up by.
#[derive(Clone, Copy)]
pub(super) struct LookupRequest<'a> {
    pub(super) key: CacheKey,
    /// The rule of `key`.
    pub(super) predicted: &'a PredictedRule,
    pub(super) generation: u64,
    pub(super) head: &'a Parts,
    pub(super) body: &'a Bytes,
    pub(super) directives: &'a RequestDirectives,
    /// Maximum age of any response.
    pub(super) age_limit: Duration,
}

/// Where a response is stored, and the flight that waits for it.
#[derive(Debug)]
pub struct PendingStore {
    pub(super) why: Forwarded,
    pub(super) start: Instant,
    pub(super) key: CacheKey,
    pub(super) authorized: bool,
    /// The rule of `key`.
    pub(super) rule: VaryRule,
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// While no response to this method and path has declared a rule.
    rekey: Option<KeyInput>,
    /// `None` if no other request can wait for it.
    lead: Option<Lead>,
}

/// What a key is computed from.
#[derive(Debug)]
struct KeyInput {
    generation: u64,
    head: Parts,
    body: Bytes,
}

impl LookupRequest<'_> {
    /// Serves `response`, and has the caller refresh it.
    pub(super) fn refresh(
        self,
        response: Response<Body>,
        status: CacheStatus,
        lead: Lead,
    ) -> Lookup {
        Lookup::RefreshAhead(response, status, self.to_store(Forwarded::Stale, Some(lead)))
    }

    /// Forwards the request, for a response to be stored.
    pub(super) fn to_store(self, why: Forwarded, lead: Option<Lead>) -> Pending {
        let Self { key, predicted, generation, head, body, directives, .. } = self;
        let input = || KeyInput { generation, head: copied(head), body: body.clone() };
        let store = PendingStore {
            why,
            start: Instant::now(),
            key,
            authorized: directives.authorized,
            rule: predicted.rule.clone(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            rekey: (!predicted.known).then(input),
            lead,
        };
        Pending::ToStore(Box::new(store))
    }
}

impl Pending {
    /// The outcome for the request; `None` if the cache is disabled.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Disabled => None,
            Self::Uncached(outcome, _) => Some(*outcome),
            Self::ToStore(_) => Some(Outcome::Miss),
        }
    }
}

impl PendingStore {
    /// Stores the response by its own `rule`. `None` if another rule was predicted, and the request was
    /// not copied to compute another key.
    pub(super) fn by(mut self: Box<Self>, rule: VaryRule, prefix: &KeyPrefix) -> Option<Box<Self>> {
        if rule != self.rule {
            let KeyInput { generation, head, body } = self.rekey.take()?;
            self.key = rule.key(prefix, generation, &head, &body);
            self.rule = rule;
        }
        Some(self)
    }

    /// Whether a response to this method and path has declared a rule before.
    pub(super) fn is_rule_known(&self) -> bool {
        self.rekey.is_none()
    }

    /// Notifies the flight that the response is being streamed.
    pub(super) fn streaming(&self) {
        self.lead.iter().for_each(Lead::streaming);
    }

    /// Ends the flight if no other request waits for the response. Otherwise the request is still
    /// pending.
    pub(super) fn leave(mut self: Box<Self>) -> Option<Box<Self>> {
        self.lead = Some(self.lead.take()?.leave()?);
        Some(self)
    }

    /// Ends the flight.
    pub(super) fn land(self, landed: Landed) {
        if let Some(lead) = self.lead {
            lead.land(landed);
        }
    }
}

/// A copy of `head` without its extensions, which belong to its connection.
#[must_use]
pub fn copied(head: &Parts) -> Parts {
    let mut copied = Request::new(()).into_parts().0;
    copied.method = head.method.clone();
    copied.uri = head.uri.clone();
    copied.version = head.version;
    copied.headers = head.headers.clone();
    copied
}
