//! Allocations of a request in the host: `cargo bench --workspace --bench allocations`. Unlike
//! times they are the same on a busy machine. Prints Markdown.
//!
//! Allocated bytes over those of the body tell how often a large body is copied. Allocations of a guest
//! are in its linear memory and do not count.

mod one_model;

use std::alloc::System;
use std::convert::Infallible;
use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::MapErr;
use http_body_util::{BodyExt, Full};
use spinfer::host::Host;
use spinfer::http::spin_headers::RequestOrigin;
use spinfer::request;
use spinfer_benches::application::{INFER, IRIS, PREDICT, infer_rows, iris_model};
use spinfer_benches::image::{self, BINARY_HEADER};
use spinfer_benches::reference::{self, Image, Iris, Service};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Number of rows of a large batch.
const ROWS: u32 = 1000;

/// Maximum difference that drift makes to the allocations of a request, on any thread: looks for alarms
/// allocate, once a second, but no record does.
const MAX_OF_DRIFT: f64 = 0.9;

/// A request, and how often it is sent and counted. The same number precedes the counted ones as a
/// warm-up, so that an instance exists and the host has measured the time of an inference.
struct Case {
    name: &'static str,
    operation: &'static str,
    body: Bytes,
    /// Length of the JSON in front of binary data.
    binary: Option<usize>,
    requests: usize,
}

type Body = MapErr<Full<Bytes>, fn(Infallible) -> hyper::Error>;

impl Case {
    fn small(name: &'static str, operation: &'static str, body: &'static str) -> Self {
        Self {
            name,
            operation,
            body: Bytes::from_static(body.as_bytes()),
            binary: None,
            requests: 1000,
        }
    }

    fn large(name: &'static str, body: impl Into<Bytes>, binary: Option<usize>) -> Self {
        Self { name, operation: "infer", body: body.into(), binary, requests: 50 }
    }

    fn post(&self) -> Request<Body> {
        let never: fn(Infallible) -> hyper::Error = |never| match never {};
        let request = Request::post(format!("{IRIS}/{}", self.operation))
            .header("host", "localhost")
            .header("content-type", "application/json");
        let request = match self.binary {
            Some(length) => request.header(BINARY_HEADER, length),
            None => request,
        };
        request.body(Full::new(self.body.clone()).map_err(never)).expect("a valid request")
    }

    /// Allocations of all requests, including responses and their bodies, and the writing of their
    /// records by `host`.
    async fn count<B>(
        &self,
        host: Option<&Host>,
        serve: impl AsyncFn(Request<Body>) -> Response<B>,
    ) -> Result<Stats>
    where
        B: hyper::body::Body<Error: std::fmt::Debug>,
    {
        let requests: Vec<_> = (0..self.requests).map(|_| self.post()).collect();
        let region = Region::new(ALLOCATOR);
        for request in requests {
            let response = serve(request).await;
            ensure!(response.status() == StatusCode::OK, "{}: {}", self.name, response.status());
            response.into_body().collect().await.expect("a body");
        }
        // Another thread writes the records.
        let log = host.and_then(Host::prediction_log);
        while log.is_some_and(|log| log.accounting().pending > 0) {
            tokio::task::yield_now().await;
        }
        Ok(region.change())
    }

    /// A row of the table, after a warm-up, and the allocations of a request.
    async fn row<B>(
        &self,
        server: &str,
        host: Option<&Host>,
        serve: impl AsyncFn(Request<Body>) -> Response<B>,
    ) -> Result<(String, f64)>
    where
        B: hyper::body::Body<Error: std::fmt::Debug>,
    {
        self.count(host, &serve).await?;
        let Stats { allocations, reallocations, bytes_allocated, .. } =
            self.count(host, &serve).await?;
        let each = |count: usize| count as f64 / self.requests as f64;
        let (allocations, bytes) = (each(allocations), each(bytes_allocated));
        let row = format!(
            "| {}, {server} | {allocations:.1} | {:.1} | {bytes:.0} | {:.1} |",
            self.name,
            each(reallocations),
            bytes / self.body.len() as f64,
        );
        Ok((row, allocations))
    }
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("image");
    image::write(&image)?;
    let (binary, json) = image::binary();
    let iris_cases = [
        Case::small("predict", PREDICT.name, PREDICT.body),
        Case::small("infer", INFER.name, INFER.body),
        Case::large("infer of 1,000 rows", infer_rows(ROWS), None),
    ];
    let image_cases = [
        Case::large("image, binary", binary, Some(json)),
        Case::large("image, JSON", image::json(), None),
    ];
    writeln!(
        std::io::stdout(),
        "| request | allocations | reallocations | bytes | bytes / body |\n\
         | --- | --- | --- | --- | --- |"
    )?;
    let iris = iris_model("1");
    measure(&iris_cases, &iris, &Iris::load(&iris.join("model.onnx"), None, None)?)?;
    measure(&image_cases, &image, &Image::load(&image.join("model.onnx"), None, None)?)
}

/// The settings that are compared. Drift is on by default.
const SETTINGS: [(&str, &str); 3] = [
    ("fast door", "door = 'fast'"),
    ("fast door without drift", "door = 'fast'\ndrift.enabled = false"),
    ("standard door", "door = 'standard'"),
];

/// Prints the rows of `cases`, which are requests to the model folder `model`.
fn measure(cases: &[Case], model: &Path, native: &impl Service) -> Result<()> {
    let runtime = Runtime::new()?;
    let mut out = std::io::stdout().lock();
    for case in cases {
        let serve = async |request: Request<Body>| reference::handle(native, request).await;
        let (row, _) = runtime.block_on(case.row("native reference", None, serve))?;
        writeln!(out, "{row}")?;
    }
    let mut of_predict = Vec::new();
    for (name, settings) in SETTINGS {
        let dir = tempfile::tempdir()?;
        let host = {
            let _in = runtime.enter();
            one_model::host(model, settings, false, dir.path())?
        };
        for case in cases {
            let client = RequestOrigin::inside().client;
            let serve =
                async |request: Request<Body>| request::handle(&host, client, request).await;
            let (row, allocations) = runtime.block_on(case.row(name, Some(&host), serve))?;
            writeln!(out, "{row}")?;
            if case.name == PREDICT.name {
                of_predict.push(allocations);
            }
        }
    }
    let [with_drift, without, ..] = of_predict[..] else { return Ok(()) };
    ensure!(
        with_drift - without < MAX_OF_DRIFT,
        "drift allocates for each record: {with_drift} allocations a request, {without} without"
    );
    Ok(())
}
