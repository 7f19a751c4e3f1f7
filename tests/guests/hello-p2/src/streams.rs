//! Streamed responses, by the last segment of the path: slow, cut off, or of another length than announced.

use std::hint::black_box;
use std::mem::ManuallyDrop;

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{OutputStream, StreamError};

/// Responds; returns the parameters for another path.
pub(crate) fn respond(
    path: &str,
    query: &str,
    request: IncomingRequest,
    out: ResponseOutparam,
) -> Result<(), (IncomingRequest, ResponseOutparam)> {
    let (first, second) = query.split_once('&').unwrap_or((query, ""));
    let number = |text: &str| text.parse().unwrap_or(0);
    let (_, command) = path.rsplit_once('/').unwrap_or_default();
    match command {
        // `<parts>&<milliseconds>`: that many parts, with a pause after each.
        "events" => {
            let (body, stream) = start(out, 200, &[]);
            for n in 0..number(first) {
                if write(&stream, format!("event {n}\n").as_bytes()).is_err() {
                    return Ok(());
                }
                subscribe_duration(number(second) * 1_000_000).block();
            }
            finish(body, stream);
        }
        // Some bytes, and then harm.
        "break" => {
            let (body, stream) = start(out, 200, &[]);
            let _ = write(&stream, b"begun");
            subscribe_duration(100_000_000).block();
            match first {
                "trap" => std::process::abort(),
                "compute" => loop {
                    black_box(0);
                },
                "stall" => subscribe_duration(u64::MAX).block(),
                // Not finished, neither dropped nor kept.
                "leak" => {
                    let _leaked = ManuallyDrop::new((body, stream));
                }
                _ => drop((stream, body)),
            }
        }
        // Computes without end, right after the head.
        "compute" => {
            let _body = start(out, 200, &[]);
            loop {
                black_box(0);
            }
        }
        // `<announced>&<sent>` bytes, in one write.
        "length" => {
            let (body, stream) = start(out, 200, &[("content-length", first)]);
            let _ =
                write(&stream, &vec![b'x'; usize::try_from(number(second)).unwrap_or(usize::MAX)]);
            finish(body, stream);
        }
        "status" => {
            let (body, stream) = start(out, first.parse().unwrap_or_default(), &[]);
            let _ = write(&stream, b"body");
            finish(body, stream);
        }
        // The request's body, once the head of the response is sent.
        "duplex" => {
            let input = request.consume().expect("taken once");
            let from = input.stream().expect("taken once");
            let (body, stream) = start(out, 200, &[]);
            while let Ok(part) = from.blocking_read(4096) {
                if write(&stream, &part).is_err() {
                    return Ok(());
                }
            }
            drop(from);
            drop(IncomingBody::finish(input));
            finish(body, stream);
        }
        _ => return Err((request, out)),
    }
    Ok(())
}

/// Sends the head of the response.
fn start(
    out: ResponseOutparam,
    status: u16,
    headers: &[(&str, &str)],
) -> (OutgoingBody, OutputStream) {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).expect("a valid header");
    }
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).expect("a valid status");
    let body = response.body().expect("taken once");
    let stream = body.write().expect("taken once");
    ResponseOutparam::set(out, Ok(response));
    (body, stream)
}

fn write(stream: &OutputStream, bytes: &[u8]) -> Result<(), StreamError> {
    bytes.chunks(4096).try_for_each(|part| stream.blocking_write_and_flush(part))
}

fn finish(body: OutgoingBody, stream: OutputStream) {
    drop(stream);
    // Fails if the length is not that of the header.
    drop(OutgoingBody::finish(body, None));
}
