//! The standard door: `wasi:http/handler`, which every WASI 0.3 host calls. The request body is read
//! in one call if its length is announced, and the response body is written in one. Headers are read
//! when they are needed. The host limits the size of bodies.

use spin_sdk::wasip3::exports::http::handler::Guest;
use spin_sdk::wasip3::http::types;
use spin_sdk::wasip3::wit_bindgen::{StreamReader, StreamResult};
use spin_sdk::wasip3::{wit_future, wit_stream};

use super::{Doors, background};
use crate::handler::handle;
use crate::model::Model;
use crate::request::{Method, Request, RequestHeaders};
use crate::response::Response;

/// Initial capacity for a body of unknown length, in bytes: one read is enough for most predictions.
const FIRST_READ_BYTES: usize = 4096;
/// Maximum initial capacity, in bytes. Memory for more is taken as it arrives, whatever is announced.
const MAX_FIRST_READ_BYTES: usize = 1 << 20;

impl<M: Model> Guest for Doors<M> {
    async fn handle(request: types::Request) -> Result<types::Response, types::ErrorCode> {
        send(handle::<M>(&receive(request).await?))
    }
}

async fn receive(request: types::Request) -> Result<Request, types::ErrorCode> {
    let method = request.get_method().into();
    let path_with_query = request.get_path_with_query().unwrap_or_default();
    let headers = request.get_headers();
    let body = match method {
        // No operation reads it.
        Method::Get | Method::Head => Vec::new(),
        Method::Post | Method::Other => {
            let length = headers.get("content-length");
            let length = length.first().and_then(|value| str::from_utf8(value).ok()?.parse().ok());
            receive_body(request, length).await?
        }
    };
    Ok(Request { method, path_with_query, headers: RequestHeaders::OnDemand(headers), body })
}

async fn receive_body(
    request: types::Request,
    length: Option<usize>,
) -> Result<Vec<u8>, types::ErrorCode> {
    let (_handled, handled) = wit_future::new(|| Ok(()));
    let (body, trailers) = types::Request::consume_body(request, handled);
    let body = read(body, length).await;
    if length != Some(body.len()) {
        // Fails if the body was cut off.
        trailers.await?;
    }
    Ok(body)
}

/// Reads `length` bytes, or to the end: detecting the end costs another read.
async fn read(mut stream: StreamReader<u8>, length: Option<usize>) -> Vec<u8> {
    let capacity = length.unwrap_or(FIRST_READ_BYTES).min(MAX_FIRST_READ_BYTES);
    let mut body = Vec::with_capacity(capacity);
    while length != Some(body.len()) {
        let (result, read) = stream.read(body).await;
        body = read;
        match result {
            StreamResult::Complete(_) => body.reserve(1),
            StreamResult::Dropped | StreamResult::Cancelled => break,
        }
    }
    body
}

fn send(response: Response) -> Result<types::Response, types::ErrorCode> {
    let length = ("content-length", response.body.len().to_string().into());
    let headers = response.headers.into_iter().chain([length]);
    let headers = headers.map(|(name, value)| (name.to_owned(), value.into_owned().into_bytes()));
    let headers = types::Headers::from_list(&headers.collect::<Vec<_>>())
        .map_err(|error| internal(format!("the response's headers: {error:?}")))?;
    let (mut body, reader) = wit_stream::new();
    let (trailers, no_trailers) = wit_future::new(|| Ok(None));
    let (sent, _transmitted) = types::Response::new(headers, Some(reader), no_trailers);
    // 200 is the initial status.
    if response.status != 200 {
        sent.set_status_code(response.status)
            .map_err(|()| internal(format!("{} is not a status", response.status)))?;
    }
    background::start(async move {
        // An incomplete write means that the client disconnected.
        body.write_all(response.body).await;
        drop(body);
        drop(trailers.write(Ok(None)).await);
    });
    Ok(sent)
}

fn internal(problem: String) -> types::ErrorCode {
    types::ErrorCode::InternalError(Some(problem))
}

impl From<types::Method> for Method {
    fn from(method: types::Method) -> Self {
        match method {
            types::Method::Get => Self::Get,
            types::Method::Head => Self::Head,
            types::Method::Post => Self::Post,
            types::Method::Put
            | types::Method::Delete
            | types::Method::Connect
            | types::Method::Options
            | types::Method::Trace
            | types::Method::Patch
            | types::Method::Other(_) => Self::Other,
        }
    }
}
