//! Allocations of a request in the host: `cargo bench --workspace --bench allocations`. Unlike
//! times they are the same on a busy machine. Prints Markdown.
//!
//! Allocations of a guest are in its linear memory and do not count.

mod in_process;

use std::alloc::System;
use std::convert::Infallible;
use std::io::Write;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::combinators::MapErr;
use http_body_util::{BodyExt, Full};
use spinfer::host::Host;
use spinfer::http::spin_headers::RequestOrigin;
use spinfer::request;
use spinfer_benches::application::{INFER, IRIS, Operation, PREDICT};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Number of counted requests. The same number precedes them as a warm-up, so that an instance
/// exists and the host has measured the time of an inference.
const REQUESTS: usize = 1000;

/// Maximum difference that drift makes to the allocations of a request, on any thread: looks for alarms
/// allocate, once a second, but no record does.
const MAX_OF_DRIFT: f64 = 0.9;

type Body = MapErr<Full<Bytes>, fn(Infallible) -> hyper::Error>;

fn post(operation: Operation<'static>) -> Request<Body> {
    let never: fn(Infallible) -> hyper::Error = |never| match never {};
    Request::post(format!("{IRIS}/{}", operation.name))
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(operation.body.as_bytes())).map_err(never))
        .expect("a valid request")
}

/// Allocations of all `requests`, including responses and their bodies, and the writing of their records.
async fn serve(host: &Host, requests: Vec<Request<Body>>) -> Stats {
    let region = Region::new(ALLOCATOR);
    for request in requests {
        let response = request::handle(host, RequestOrigin::inside().client, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.expect("a body");
    }
    // Another thread writes the records.
    while host.prediction_log().is_some_and(|log| log.accounting().pending > 0) {
        tokio::task::yield_now().await;
    }
    region.change()
}

fn main() -> std::io::Result<()> {
    let runtime = Runtime::new()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "| request | allocations | reallocations | bytes |\n| --- | --- | --- | --- |")?;
    let cases = [
        ("fast door", "door = 'fast'"),
        ("fast door without drift", "door = 'fast'\ndrift.enabled = false"),
        ("standard door", "door = 'standard'"),
    ];
    let mut of_predict = Vec::new();
    for (case, settings) in cases {
        let host = {
            let _in = runtime.enter();
            in_process::host(settings)
        };
        for operation in [PREDICT, INFER] {
            let requests = || (0..REQUESTS).map(|_| post(operation)).collect();
            runtime.block_on(serve(&host, requests()));
            let Stats { allocations, reallocations, bytes_allocated, .. } =
                runtime.block_on(serve(&host, requests()));
            let each = |count: usize| count as f64 / REQUESTS as f64;
            writeln!(
                out,
                "| {}, {case} | {:.1} | {:.1} | {:.0} |",
                operation.name,
                each(allocations),
                each(reallocations),
                each(bytes_allocated),
            )?;
            if operation.name == PREDICT.name {
                of_predict.push(each(allocations));
            }
        }
    }
    let [with_drift, without, ..] = of_predict[..] else { return Ok(()) };
    assert!(
        with_drift - without < MAX_OF_DRIFT,
        "drift allocates for each record: {with_drift} allocations a request, {without} without"
    );
    Ok(())
}
