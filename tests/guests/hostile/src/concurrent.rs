//! Harm by streams, futures and tasks of WASI 0.3.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use spin_sdk::wasip3::clocks::monotonic_clock::wait_for;
use spin_sdk::wasip3::http::{client, types};
use spin_sdk::wasip3::wit_bindgen::StreamWriter;
use spin_sdk::wasip3::{cli, spawn, wit_future, wit_stream};

/// Does harm. `None` for another path.
pub(crate) async fn harm(path: &str, query: &str) -> Option<types::Response> {
    match path {
        // No response, and no pending event.
        "/never" => pending().await,
        "/wait" => {
            wait_for(u64::MAX).await;
            Some(respond(Vec::new()))
        }
        // A response that stalls after its first bytes.
        "/unfinished" => Some(streamed(async |mut body| {
            body.write_all(b"begun".to_vec()).await;
            wait_for(u64::MAX).await;
        })),
        // A response without end.
        "/endless" => Some(streamed(
            async |mut body| {
                while body.write_all(vec![b'x'; 1 << 16]).await.is_empty() {}
            },
        )),
        "/streams" => {
            let mut resources = Vec::new();
            loop {
                resources.push(wit_stream::new::<u8>());
            }
        }
        "/futures" => {
            let mut resources = Vec::new();
            loop {
                resources.push(wit_future::new::<Result<(), types::ErrorCode>>(|| Ok(())));
            }
        }
        // Calls in flight, each a task of the host.
        "/tasks" => {
            let mut resources = Vec::new();
            loop {
                resources.push(started(wait_for(u64::MAX)).await);
            }
        }
        // Tasks of the guest, all of which start before the response.
        "/spawn" => {
            (0..100_000).for_each(|_| spawn(wait_for(u64::MAX)));
            wait_for(1).await;
            Some(respond(Vec::new()))
        }
        "/print-0.3" => {
            let (mut writer, reader) = wit_stream::new();
            let printing = cli::stdout::write_via_stream(reader);
            while writer.write_all(b"x\n".repeat(1000)).await.is_empty() {}
            drop(printing);
            Some(respond(Vec::new()))
        }
        // `<count>&<authority>`: concurrent requests; the response is the number of theirs.
        "/requests" => {
            let (count, authority) = query.split_once('&').unwrap_or_default();
            let count: usize = count.parse().unwrap_or_default();
            let mut sent = Vec::new();
            for _ in 0..count {
                sent.push(started(client::send(request(authority))).await);
            }
            let mut responses = 0;
            for response in sent {
                responses += usize::from(response.await.is_ok());
            }
            Some(respond(responses.to_string().into_bytes()))
        }
        _ => None,
    }
}

fn request(authority: &str) -> types::Request {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = types::Request::new(types::Fields::new(), None, trailers, None);
    let _ = request.set_authority(Some(authority));
    let _ = request.set_scheme(Some(&types::Scheme::Http));
    let _ = request.set_path_with_query(Some("/"));
    request
}

/// A future that has been polled, and is pending.
async fn started<F: Future>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        assert!(polled.is_pending(), "completed at once");
        Poll::Ready(())
    })
    .await;
    future
}

/// A response with this body.
pub(crate) fn respond(body: Vec<u8>) -> types::Response {
    streamed(async move |mut writer| {
        writer.write_all(body).await;
    })
}

/// A response whose body `write` writes.
fn streamed(write: impl AsyncFnOnce(StreamWriter<u8>) + 'static) -> types::Response {
    let (body, reader) = wit_stream::new();
    let (trailers, no_trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = types::Response::new(types::Fields::new(), Some(reader), no_trailers);
    spawn(async move {
        write(body).await;
        drop(trailers.write(Ok(None)).await);
    });
    response
}
