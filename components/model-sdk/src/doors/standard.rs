//! The standard door: `wasi:http/handler`, which every WASI 0.3 host calls. The request body is read
//! whole, and the response body is written in one call. The host limits the size of bodies.

use spin_sdk::wasip3::exports::http::handler::Guest;
use spin_sdk::wasip3::http::types;
use spin_sdk::wasip3::wit_bindgen::{StreamReader, StreamResult};
use spin_sdk::wasip3::{spawn, wit_future, wit_stream};

use super::Doors;
use crate::handler::handle;
use crate::hooks::ModelHooks;
use crate::model::Model;
use crate::request::{Method, Request};
use crate::response::Response;

/// Initial capacity for the body, in bytes: one read is enough for most predictions.
const FIRST_READ_BYTES: usize = 4096;
/// The request's id in the prediction log: an instance may have several requests in flight.
const PREDICTION_ID: &str = "spinfer-prediction-id";

impl<M: Model> Guest for Doors<M> {
    async fn handle(request: types::Request) -> Result<types::Response, types::ErrorCode> {
        send(handle::<M>(&receive(request, ModelHooks::of::<M>().needed_headers()).await?))
    }
}

async fn receive(
    request: types::Request,
    needed_headers: &[&str],
) -> Result<Request, types::ErrorCode> {
    let method = request.get_method().into();
    let path_with_query = request.get_path_with_query().unwrap_or_default();
    let sent = request.get_headers();
    let mut headers = Vec::new();
    for (index, name) in (0..).zip(needed_headers) {
        headers.extend(sent.get(name).into_iter().map(|value| (index, value)));
    }
    let prediction_id = sent.get(PREDICTION_ID).pop().and_then(|id| String::from_utf8(id).ok());
    let length = sent.get("content-length");
    let length = length.first().and_then(|value| str::from_utf8(value).ok()?.parse().ok());
    let (_handled, handled) = wit_future::new(|| Ok(()));
    let (body, trailers) = types::Request::consume_body(request, handled);
    let body = read(body, length).await;
    if length != Some(body.len()) {
        // Fails if the body was cut off.
        trailers.await?;
    }
    Ok(Request { method, path_with_query, headers, prediction_id, body })
}

/// Reads `length` bytes, or to the end: detecting the end costs another read.
async fn read(mut stream: StreamReader<u8>, length: Option<usize>) -> Vec<u8> {
    let mut body = Vec::with_capacity(FIRST_READ_BYTES);
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
    spawn(async move {
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
