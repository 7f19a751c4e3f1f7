//! Streamed bodies: slow, cut off, of another length than announced, and in both directions at once.

use std::hint::black_box;

use spin_sdk::wasip3::clocks::monotonic_clock::wait_for;
use spin_sdk::wasip3::http::client;
use spin_sdk::wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use spin_sdk::wasip3::wit_bindgen::{FutureReader, StreamReader, StreamWriter};
use spin_sdk::wasip3::{spawn, wit_future, wit_stream};

/// The result of a body: its trailers, or why it broke off.
type BodyEnd = Result<Option<Fields>, ErrorCode>;

/// `None` for another path.
pub(crate) async fn respond(
    path: &str,
    query: &str,
    request: Request,
) -> Option<Result<Response, ErrorCode>> {
    let (first, second) = query.split_once('&').unwrap_or((query, ""));
    let number = |text: &str| text.parse().unwrap_or(0);
    Some(match path {
        // `<parts>&<milliseconds>`: that many parts, with a pause after each.
        "/events" => {
            let (count, pause) = (number(first), number(second));
            Ok(streamed(Fields::new(), async move |mut body| {
                for n in 0..count {
                    if !body.write_all(format!("event {n}\n").into_bytes()).await.is_empty() {
                        break;
                    }
                    wait_for(pause * 1_000_000).await;
                }
                Ok(None)
            }))
        }
        // Some bytes, and then harm.
        "/break" => {
            let how = first.to_owned();
            // The end decides whether it can be cached.
            let headers = Fields::new();
            let _ = headers.set("cache-control", &[b"max-age=60".to_vec()]);
            Ok(streamed(headers, async move |mut body| {
                body.write_all(b"begun".to_vec()).await;
                wait_for(100_000_000).await;
                match &*how {
                    "trap" => std::process::abort(),
                    "compute" => loop {
                        black_box(0);
                    },
                    "stall" => wait_for(u64::MAX).await,
                    _ => {}
                }
                Err(ErrorCode::InternalError(Some("gave up".into())))
            }))
        }
        // `<announced>&<sent>` bytes, in one write.
        "/length" => {
            let sent = usize::try_from(number(second)).unwrap_or(usize::MAX);
            let headers = Fields::new();
            let _ = headers.set("content-length", &[first.as_bytes().to_vec()]);
            Ok(streamed(headers, async move |mut body| {
                body.write_all(vec![b'x'; sent]).await;
                Ok(None)
            }))
        }
        "/status" => {
            let response = crate::concurrent::respond(b"body".to_vec());
            if response.set_status_code(first.parse().unwrap_or_default()).is_err() {
                return Some(Err(ErrorCode::InternalError(Some("refused".into()))));
            }
            Ok(response)
        }
        // The request's body, once the head of the response is sent.
        "/duplex" => {
            let (mut input, end) = consume(request);
            Ok(streamed(Fields::new(), async move |mut body| {
                loop {
                    let part = read(&mut input).await;
                    if part.is_empty() || !body.write_all(part).await.is_empty() {
                        return end.await;
                    }
                }
            }))
        }
        // Reads the request's body after the response, and prints whether it was complete.
        "/receive" => {
            let (input, end) = consume(request);
            spawn(async move {
                let received = input.collect().await.len();
                println!("received {received} bytes, complete: {}", end.await.is_ok());
            });
            Ok(crate::concurrent::respond(Vec::new()))
        }
        // Sends a body to `<authority>/<path>` only after the head of the response, and returns what comes back.
        "/call" => call(first, false).await,
        // The same, but fails in the middle of the body.
        "/call-and-trap" => call(first, true).await,
        _ => return None,
    })
}

async fn call(url: &str, traps: bool) -> Result<Response, ErrorCode> {
    let (authority, path) = url.split_once('/').unwrap_or((url, ""));
    let (mut body, reader) = wit_stream::new();
    let (trailers, no_trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), Some(reader), no_trailers, None);
    let _ = request.set_method(&Method::Post);
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some(authority));
    let _ = request.set_path_with_query(Some(&format!("/{path}")));
    let response = client::send(request).await?;
    let status = response.get_status_code();
    let (_, received) = wit_future::new(|| Ok(()));
    let (mut input, end) = Response::consume_body(response, received);
    let mut text = format!("{status}");
    let is_read = body.write_all(b"first".to_vec()).await.is_empty();
    if is_read && traps {
        wait_for(100_000_000).await;
        std::process::abort();
    }
    text.push_str(&format!(" {}", String::from_utf8_lossy(&read(&mut input).await)));
    if is_read {
        body.write_all(b"second".to_vec()).await;
    }
    drop(body);
    drop(trailers.write(Ok(None)).await);
    let rest = input.collect().await;
    text.push_str(&format!(" {}, complete: {}", String::from_utf8_lossy(&rest), end.await.is_ok()));
    Ok(crate::concurrent::respond(text.into_bytes()))
}

fn consume(request: Request) -> (StreamReader<u8>, FutureReader<BodyEnd>) {
    let (_, received) = wit_future::new(|| Ok(()));
    Request::consume_body(request, received)
}

/// The next part; empty at the end.
async fn read(input: &mut StreamReader<u8>) -> Vec<u8> {
    let (_, part) = input.read(Vec::with_capacity(1 << 16)).await;
    part
}

/// A response whose body `write` writes, with the result of `write` as its end.
fn streamed(
    headers: Fields,
    write: impl AsyncFnOnce(StreamWriter<u8>) -> BodyEnd + 'static,
) -> Response {
    let (body, reader) = wit_stream::new();
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(reader), trailers);
    spawn(async move {
        let ended = write(body).await;
        drop(end.write(ended).await);
    });
    response
}
