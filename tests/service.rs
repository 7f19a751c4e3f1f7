//! A component through the host's library, without sockets, where exact deadlines matter.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use spinfer::config::app::App;
use spinfer::config::manifest;
use spinfer::guest::component::Component;
use spinfer::host::Host;
use spinfer::http::body::RequestBody;
use spinfer::http::error::Failure;
use spinfer::http::spin_headers::RequestOrigin;
use spinfer::prediction_log::record::{ColumnValues, Predictions};
use spinfer::prediction_log::{Appended, RequestPredictions};
use spinfer_tests::{Manifest, PATIENCE, STANDARD_DOOR, root};
use uuid::Uuid;

fn probe(settings: &str) -> (Arc<Host>, Arc<Component>) {
    let manifest = Manifest::default().with("/...", "probe", "probe", settings);
    let manifest = manifest::parse(manifest.text()).unwrap();
    let app = App::resolve(&manifest, Path::new(".")).unwrap();
    let host = Host::new(&app, &root().join("target/test-state")).unwrap();
    let service = Arc::clone(host.component("probe").unwrap());
    (host, service)
}

async fn call(service: &Component, path: &str, within: Duration) -> Result<u16, Failure> {
    let head = Request::get(path).body(()).unwrap().into_parts().0;
    let body = RequestBody::Whole(Bytes::new());
    let response =
        service.invoke(head, body, Instant::now() + within, RequestOrigin::inside()).await;
    response.map(|response| response.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_queue_for_a_busy_instance_until_their_deadline() {
    for settings in ["", STANDARD_DOOR] {
        let (_host, service) = probe(&format!("{settings}tool.spinfer.limits.instances = 1\n"));
        let looping = tokio::spawn({
            let service = Arc::clone(&service);
            async move { call(&service, "/loop", Duration::from_secs(2)).await }
        });
        // While the loop has the instance, a request with a short deadline is refused.
        let busy = loop {
            match call(&service, "/echo", Duration::from_millis(100)).await {
                Ok(200) | Err(Failure::Deadline { .. }) => {
                    assert!(!looping.is_finished(), "never busy");
                }
                other => break other,
            }
        };
        assert!(matches!(&busy, Err(Failure::Busy { limit: 1, .. })), "{busy:?}");
        // A request with a long one is served after the loop.
        assert_eq!(call(&service, "/echo", PATIENCE).await.unwrap(), 200);
        let late = looping.await.unwrap();
        assert!(matches!(late, Err(Failure::Deadline { .. })), "{late:?}");
    }
}

/// A computing guest is terminated when its client disconnects, and its instance is free for the next
/// request.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_request_terminates_the_guest() {
    for settings in ["", STANDARD_DOOR] {
        let settings = format!("{settings}tool.spinfer.limits = {{ instances = 1, queue = 1 }}\n");
        let (_host, service) = probe(&settings);
        let looping = tokio::spawn({
            let service = Arc::clone(&service);
            async move { call(&service, "/loop", PATIENCE).await }
        });
        let busy = loop {
            match call(&service, "/echo", Duration::from_millis(100)).await {
                // The queue is full: the loop is in it.
                Ok(200) | Err(Failure::QueueFull { .. } | Failure::Deadline { .. }) => {
                    assert!(!looping.is_finished(), "never busy");
                }
                other => break other,
            }
        };
        assert!(matches!(&busy, Err(Failure::Busy { .. })), "{busy:?}");
        looping.abort();
        assert!(looping.await.unwrap_err().is_cancelled());
        assert_eq!(call(&service, "/echo", PATIENCE / 2).await.unwrap(), 200);
    }
}

/// Each request has its own deadline, also in an instance that served one with a later deadline: with
/// that one the loop would run until the test runner's timeout.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_its_own_deadline() {
    const LATER: Duration = Duration::from_secs(24 * 60 * 60);
    let (_host, service) = probe("");
    assert_eq!(call(&service, "/echo", LATER).await.unwrap(), 200);
    let late = call(&service, "/loop", Duration::from_millis(50)).await;
    assert!(matches!(late, Err(Failure::Deadline { .. })), "{late:?}");
}

/// The predictions that one request with this sepal length appends.
async fn appended(service: &Component, length: u16) -> Vec<Arc<Predictions>> {
    let head = Request::post("/predict").body(()).unwrap().into_parts().0;
    let body = format!(r#"{{"features": [{length}, 3.5, 1.4, 0.2]}}"#);
    let body = RequestBody::Whole(Bytes::from(body));
    let predictions = Arc::new(RequestPredictions::new(Uuid::from_u128(length.into())));
    let origin = RequestOrigin { predictions: Some(&predictions), ..RequestOrigin::inside() };
    let response = service.invoke(head, body, Instant::now() + PATIENCE, origin).await.unwrap();
    assert_eq!(response.status(), 200);
    let appended = response.extensions().get::<Appended>();
    appended.into_iter().flat_map(Appended::iter).cloned().collect()
}

/// Also if one instance serves concurrent requests behind the standard door.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_only_its_own_predictions() {
    for settings in ["", STANDARD_DOOR, "tool.spinfer.reuse.concurrency = 16\n"] {
        let door = if settings.contains("reuse") { STANDARD_DOOR } else { "" };
        let manifest =
            Manifest::default().with_iris("iris", 1, "/...", &format!("{settings}{door}"));
        let manifest = manifest::parse(manifest.text()).unwrap();
        let app = App::resolve(&manifest, Path::new(".")).unwrap();
        let host = Host::new(&app, &root().join("target/test-state")).unwrap();
        let service = host.component("iris").unwrap();
        assert!(service.logs_predictions());
        for round in 0..10 {
            let lengths = round * 50..(round + 1) * 50;
            let all = join_all(lengths.clone().map(|length| appended(service, length))).await;
            for (length, appended) in lengths.zip(all) {
                let [predictions] = &*appended else { panic!("{} blocks", appended.len()) };
                let ColumnValues::Fp32(values) = &predictions.inputs[0].values else {
                    panic!("no FP32")
                };
                assert_eq!(*values, [f32::from(length), 3.5, 1.4, 0.2]);
            }
        }
    }
}
