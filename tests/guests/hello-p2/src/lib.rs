//! A `wasi:http/incoming-handler` of WASI 0.2, as in components built before WASI 0.3. `.../path-info` returns the
//! header `spin-path-info`, and `.../authority` the authority of the request; `/large?<bytes>` returns that many bytes;
//! `once` fails in several ways; `reach` uses other interfaces; `streams` streams bodies.

mod once;
mod reach;
mod streams;

use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Hello;

wasip2::http::proxy::export!(Hello);

impl wasip2::exports::http::incoming_handler::Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match path.as_str() {
            "/trap" => panic!("asked to"),
            "/loop" => loop {
                std::hint::black_box(0);
            },
            _ => {}
        }
        let (plain, query) = path.split_once('?').unwrap_or((&path, ""));
        if plain.ends_with("/once") {
            once::respond(query, out);
            return;
        }
        if let ("/large", Ok(length)) = (plain, query.parse()) {
            respond(out, 200, &vec![b'x'; length]);
            return;
        }
        let Err((request, out)) = streams::respond(plain, query, request, out) else { return };
        let text = if path.ends_with("/path-info") {
            request.headers().get("spin-path-info").concat()
        } else if path.ends_with("/authority") {
            request.authority().unwrap_or_default().into_bytes()
        } else if let Some(text) = reach::respond(plain, query) {
            text.into_bytes()
        } else {
            format!("hello from 0.2 at {path}").into_bytes()
        };
        respond(out, 200, &text);
    }
}

/// Sends a complete response, or as much of it as the client reads.
fn respond(out: ResponseOutparam, status: u16, text: &[u8]) {
    let body = begin(out, status, text);
    // Fails if the client has disconnected.
    let _ = OutgoingBody::finish(body, None);
}

/// Sends the head of a response and the start of its body.
fn begin(out: ResponseOutparam, status: u16, text: &[u8]) -> OutgoingBody {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a status");
    let body = response.body().expect("taken once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("taken once");
    for part in text.chunks(4096) {
        if stream.blocking_write_and_flush(part).is_err() {
            break;
        }
    }
    drop(stream);
    body
}
