//! Which responses are admitted to the cache, through its interface.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Request, Response};

use super::admission::{AdmissionPolicy, EXPENSIVE};
use super::counts::RouteCacheCounts;
use super::generation::{PurgeScope, PurgeScopes};
use super::status::Forwarded;
use super::{
    CacheLimits, CacheSettings, CacheStatus, ComponentCacheState, KeyPrefix, Lookup, Pending,
    ResponseCache,
};
use crate::http::body::Body;

/// How a response was computed; `None` if it was cached.
type Computed = Option<CacheStatus>;

const NOT_ADMITTED: Computed = Some(CacheStatus::NotAdmitted);
const STORED: Computed = Some(CacheStatus::Stored(Forwarded::Miss));
const HIT: Computed = None;

/// A cache, and a component whose responses are cacheable.
struct CachedComponent {
    cache: Arc<ResponseCache>,
    state: ComponentCacheState,
    scopes: PurgeScopes,
    counts: RouteCacheCounts,
    /// The head of its requests.
    head: Parts,
    /// Headers of its responses.
    headers: HeaderMap,
    /// Time that it takes for a response.
    cost: Duration,
}

impl CachedComponent {
    fn new(admission: AdmissionPolicy, memory: u64) -> Self {
        let limits = CacheLimits { memory, ..CacheLimits::default() };
        let settings = CacheSettings { limits, admission, ..CacheSettings::default() };
        let cache = Arc::new(ResponseCache::new(&settings, None));
        let scopes = cache.scopes([]);
        Self {
            cache,
            state: ComponentCacheState::new(KeyPrefix::new([&b"component"[..]]), true),
            scopes,
            counts: RouteCacheCounts::default(),
            head: Request::post("/predict").body(()).unwrap().into_parts().0,
            headers: HeaderMap::from_iter([(
                CACHE_CONTROL,
                HeaderValue::from_static("max-age=60"),
            )]),
            cost: Duration::ZERO,
        }
    }

    async fn look_up(&self, body: &str) -> Lookup {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let deadline = Instant::now() + Duration::from_secs(60);
        let Self { cache, state, scopes, counts, head, .. } = self;
        let found = cache.look_up(state, scopes, counts, head, Some(&body), deadline).await;
        found.expect("not only-if-cached")
    }

    /// Computes the response to a request that was looked up.
    fn respond(&self, mut pending: Pending) -> Computed {
        if let Pending::ToStore(store) = &mut pending {
            // A start in the future takes no time, however busy the machine is.
            store.start = match self.cost {
                Duration::ZERO => Instant::now() + Duration::from_secs(3600),
                cost => Instant::now() - cost,
            };
        }
        let mut response = Response::new(Body::whole("a response"));
        response.headers_mut().clone_from(&self.headers);
        let (mut response, status) =
            self.cache.store(&self.state, pending, Ok(response)).expect("a response");
        assert_eq!(response.body_mut().take_whole().unwrap(), "a response");
        assert!(status.is_some(), "it is cacheable");
        status
    }

    /// Sends a request with `body`.
    async fn send(&self, body: &str) -> Computed {
        match self.look_up(body).await {
            Lookup::Miss(pending) => self.respond(pending),
            Lookup::Hit(..) => HIT,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn response_is_stored_from_its_second_request_on() {
    let component = CachedComponent::new(AdmissionPolicy::Second, 64 << 20);
    assert_eq!(component.send("a").await, NOT_ADMITTED);
    assert_eq!(component.send("b").await, NOT_ADMITTED);
    assert_eq!(component.cache.memory().usage(), (0, 0));
    assert_eq!(component.send("a").await, STORED);
    assert_eq!(component.send("a").await, HIT);
    assert_eq!(component.cache.not_admitted(), 2);
    // Purged responses have other keys.
    component.cache.purge(&PurgeScope::Everything).await.unwrap();
    let sent = [component.send("a").await, component.send("a").await, component.send("a").await];
    assert_eq!(sent, [NOT_ADMITTED, STORED, HIT]);
}

#[tokio::test]
async fn response_is_stored_at_its_first_request_if_configured() {
    let component = CachedComponent::new(AdmissionPolicy::First, 64 << 10);
    for n in 0..100 {
        assert_eq!(component.send(&n.to_string()).await, STORED);
        assert_eq!(component.send(&n.to_string()).await, HIT);
    }
    assert_eq!(component.cache.not_admitted(), 0);
}

#[tokio::test]
async fn request_that_waits_for_a_response_is_its_second() {
    let component = CachedComponent::new(AdmissionPolicy::Second, 64 << 20);
    let Lookup::Miss(pending) = component.look_up("a").await else { panic!("a hit") };
    let respond = async { component.respond(pending) };
    // The first future is polled first, and waits.
    let (second, first) = tokio::join!(component.look_up("a"), respond);
    assert!(matches!(second, Lookup::Collapsed(..)), "{second:?}");
    assert_eq!(first, STORED);
    assert_eq!(component.send("a").await, HIT);
    assert_eq!(component.cache.not_admitted(), 0);
}

#[tokio::test]
async fn response_that_replaces_a_cached_one_or_was_demanded_is_stored() {
    let mut component = CachedComponent::new(AdmissionPolicy::Second, 64 << 20);
    component.head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    assert_eq!(component.send("a").await, Some(CacheStatus::Stored(Forwarded::Request)));
    component.head.headers.clear();
    assert_eq!(component.send("a").await, HIT);

    // Too old at once.
    component.headers.insert(AGE, HeaderValue::from_static("100"));
    let sent = [component.send("b").await, component.send("b").await];
    assert_eq!(sent, [NOT_ADMITTED, STORED]);
    for _ in 0..2 {
        assert_eq!(component.send("b").await, Some(CacheStatus::Stored(Forwarded::Stale)));
    }
}

#[tokio::test]
async fn adaptive_admission_stores_first_responses_while_nearly_empty_or_expensive() {
    let mut component = CachedComponent::new(AdmissionPolicy::Adaptive, 64 << 10);
    let mut first = 0;
    while component.send(&first.to_string()).await == STORED {
        assert_eq!(component.send(&first.to_string()).await, HIT);
        first += 1;
    }
    // 10 % of the memory, in responses of some 400 bytes.
    let (entries, bytes) = component.cache.memory().usage();
    assert_eq!(entries, first);
    assert!((6553..7000).contains(&bytes), "{bytes}");
    assert_eq!(component.send("cheap").await, NOT_ADMITTED);
    assert_eq!(component.send("cheap").await, STORED);

    component.cost = EXPENSIVE;
    assert_eq!(component.send("expensive").await, STORED);
    component.cost = Duration::ZERO;
    assert_eq!(component.send("another").await, NOT_ADMITTED);
    // Empty again.
    component.cache.purge(&PurgeScope::Everything).await.unwrap();
    assert_eq!(component.send("another").await, STORED);
}

#[tokio::test]
async fn memory_stays_bounded_for_many_distinct_keys() {
    // About ten times the number of responses that fit.
    const KEYS: usize = 200_000;
    const MEMORY: u64 = 8 << 20;
    let component = CachedComponent::new(AdmissionPolicy::Adaptive, MEMORY);
    let mut stored = 0;
    for n in 0..KEYS {
        stored += usize::from(component.send(&n.to_string()).await == STORED);
    }
    let (entries, bytes) = component.cache.memory().usage();
    // 10 % of the memory, then less than 1 % of the others: false positives.
    let bound = MEMORY / 10 + KEYS as u64 / 100 * (bytes / entries as u64);
    assert!(bytes < bound, "{bytes} of {bound}");
    assert_eq!((entries, component.cache.memory().evicted()), (stored, 0));
    assert_eq!(component.cache.not_admitted(), (KEYS - stored) as u64);
    assert_eq!(Arc::strong_count(&component.cache.flights), 1, "no request is in flight");
}
