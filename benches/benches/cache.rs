//! Times of a request in the response cache, without a component: `cargo bench --workspace --bench
//! cache`. The body is a prediction's, compared as JSON, and the response that of the iris classifier.
//!
//! - `hit`: looked up, and served from memory
//! - `miss/not admitted`: looked up, and not stored: the first request with its key
//! - `miss/stored`: looked up and stored, while another response is evicted

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{Request, Response};
use spinfer::cache::admission::AdmissionPolicy;
use spinfer::cache::counts::RouteCacheCounts;
use spinfer::cache::generation::PurgeScopes;
use spinfer::cache::{
    CacheLimits, CacheSettings, ComponentCacheState, KeyPrefix, Lookup, ResponseCache,
};
use spinfer::http::body::Body;
use tokio::runtime::Runtime;

const RESPONSE: &str = r#"{"model":"iris-classifier","version":"1","prediction":"setosa","probability":0.9801706,"probabilities":{"setosa":0.9801706,"versicolor":0.019829417,"virginica":3.524596e-8}}"#;
/// Memory of the cache that stores each response, in bytes: some thousand responses.
const MEMORY: u64 = 4 << 20;

/// A cache, and a component whose responses are cacheable.
struct CachedComponent {
    cache: Arc<ResponseCache>,
    state: ComponentCacheState,
    scopes: PurgeScopes,
    counts: RouteCacheCounts,
    head: Parts,
}

impl CachedComponent {
    fn new(admission: AdmissionPolicy) -> Self {
        let limits = CacheLimits { memory: MEMORY, ..CacheLimits::default() };
        let settings = CacheSettings { limits, admission, ..CacheSettings::default() };
        let cache = Arc::new(ResponseCache::new(&settings, None));
        let request = Request::post("/v2/models/iris-classifier/predict")
            .header(CONTENT_TYPE, "application/json");
        Self {
            scopes: cache.scopes([]),
            cache,
            state: ComponentCacheState::new(KeyPrefix::new([&b"iris"[..]]), true),
            counts: RouteCacheCounts::default(),
            head: request.body(()).expect("valid").into_parts().0,
        }
    }

    /// Looks up a request, and stores `response` if there is none. Returns whether there is one.
    async fn request(&self, body: &Bytes, response: Response<Body>) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        let Self { cache, state, scopes, counts, head } = self;
        let found = cache.look_up(state, scopes, counts, head, Some(body), deadline).await;
        match found.expect("not only-if-cached") {
            Lookup::Miss(pending) => {
                black_box(cache.store(state, pending, Ok(response)).expect("a response"));
                false
            }
            found => {
                black_box(found);
                true
            }
        }
    }
}

/// A request body that is different for each `number`.
fn body(number: u64) -> Bytes {
    format!("{{\"features\": [5.1, 3.5, 1.4, {number}]}}").into()
}

/// A component's response.
fn response() -> Response<Body> {
    Response::builder()
        .header(CONTENT_TYPE, "application/json")
        .header(CACHE_CONTROL, "max-age=300")
        .header(HeaderName::from_static("spinfer-body-key"), "json")
        .body(Body::whole(RESPONSE))
        .expect("valid")
}

fn misses(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    for (name, admission) in
        [("not admitted", AdmissionPolicy::Second), ("stored", AdmissionPolicy::First)]
    {
        let (component, mut number) = (CachedComponent::new(admission), 0);
        let mut next = || {
            number += 1;
            (body(number), response())
        };
        // Until the memory is full.
        for _ in 0..MEMORY / 256 {
            let (body, response) = next();
            runtime.block_on(component.request(&body, response));
        }
        c.bench_function(&format!("miss/{name}"), |b| {
            b.to_async(&runtime).iter_batched(
                &mut next,
                |(body, response)| {
                    let component = &component;
                    async move { component.request(&body, response).await }
                },
                BatchSize::SmallInput,
            );
        });
        let not_admitted = component.cache.not_admitted();
        assert_eq!(not_admitted > 0, admission == AdmissionPolicy::Second);
    }
}

fn hits(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let (component, body) = (CachedComponent::new(AdmissionPolicy::First), body(0));
    runtime.block_on(component.request(&body, response()));
    assert!(runtime.block_on(component.request(&body, response())), "a hit");
    c.bench_function("hit", |b| {
        b.to_async(&runtime).iter_batched(
            response,
            |response| {
                let (component, body) = (&component, &body);
                async move { component.request(body, response).await }
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = misses, hits
}
criterion_main!(benches);
