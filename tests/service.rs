//! A component through the host's library, without sockets: what depends on exact deadlines.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use spinfer::app::App;
use spinfer::body::RequestBody;
use spinfer::error::Failure;
use spinfer::host::Host;
use spinfer::manifest;
use spinfer::service::Service;
use spinfer_tests::{Manifest, PATIENCE, STANDARD_DOOR, root};

fn probe(settings: &str) -> (Host, Arc<Service>) {
    let manifest = Manifest::default().with("/...", "probe", "probe", settings);
    let manifest = manifest::parse(manifest.text()).unwrap();
    let app = App::resolve(&manifest, Path::new(".")).unwrap();
    let host = Host::new(&app, &root().join("target/test-state")).unwrap();
    let service = Arc::clone(host.service("probe").unwrap());
    (host, service)
}

async fn call(service: &Service, path: &str, within: Duration) -> Result<u16, Failure> {
    let head = Request::get(path).body(()).unwrap().into_parts().0;
    let body = RequestBody::Whole(Bytes::new());
    let answer = service.invoke(head, body, Instant::now() + within).await;
    answer.map(|response| response.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_instance_is_busy_the_next_request_waits_until_its_deadline() {
    for settings in ["", STANDARD_DOOR] {
        let (_host, service) = probe(&format!("{settings}tool.spinfer.limits.instances = 1\n"));
        let looping = tokio::spawn({
            let service = Arc::clone(&service);
            async move { call(&service, "/loop", Duration::from_secs(2)).await }
        });
        // Once the loop has the instance, who cannot wait is refused.
        let busy = loop {
            match call(&service, "/echo", Duration::from_millis(100)).await {
                Ok(200) | Err(Failure::Deadline { .. }) => {
                    assert!(!looping.is_finished(), "never busy");
                }
                other => break other,
            }
        };
        assert!(matches!(&busy, Err(Failure::Busy { limit: 1, .. })), "{busy:?}");
        // Who can is served when it is free again.
        assert_eq!(call(&service, "/echo", PATIENCE).await.unwrap(), 200);
        let late = looping.await.unwrap();
        assert!(matches!(late, Err(Failure::Deadline { .. })), "{late:?}");
    }
}

/// Behind the standard door a guest works on when nobody waits for its answer, and others wait for
/// their turn as before.
#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_behind_the_standard_door_keeps_the_turn_until_the_guest_is_done() {
    let settings = format!("{STANDARD_DOOR}tool.spinfer.limits = {{ instances = 1, queue = 1 }}\n");
    let (_host, service) = probe(&settings);
    let within = Duration::from_millis(100);
    let looping = tokio::spawn({
        let service = Arc::clone(&service);
        async move { call(&service, "/loop", Duration::from_secs(5)).await }
    });
    let busy = loop {
        match call(&service, "/echo", within).await {
            // Full: the loop waits for its turn.
            Ok(200) | Err(Failure::QueueFull { .. }) => {
                assert!(!looping.is_finished(), "never busy");
            }
            other => break other,
        }
    };
    assert!(matches!(&busy, Err(Failure::Busy { .. })), "{busy:?}");
    looping.abort();
    assert!(looping.await.unwrap_err().is_cancelled());
    // One may wait, and no more than one.
    let many = futures::future::join_all((0..5).map(|_| call(&service, "/echo", within))).await;
    let full = many.iter().filter(|answer| matches!(answer, Err(Failure::QueueFull { .. })));
    let busy = many.iter().filter(|answer| matches!(answer, Err(Failure::Busy { .. })));
    assert_eq!((full.count(), busy.count()), (4, 1), "{many:?}");
    assert_eq!(call(&service, "/echo", PATIENCE).await.unwrap(), 200);
}

/// Each request has its own deadline, whatever the instance served before.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_deadline_after_a_long_one_is_kept() {
    let (_host, service) = probe("");
    assert_eq!(call(&service, "/echo", PATIENCE).await.unwrap(), 200);
    let start = Instant::now();
    let late = call(&service, "/loop", Duration::from_millis(50)).await;
    assert!(matches!(late, Err(Failure::Deadline { .. })), "{late:?}");
    assert!(start.elapsed() < PATIENCE / 2);
}
