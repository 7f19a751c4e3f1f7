//! A `wasi:http/incoming-handler` of WASI 0.2, as in components built before WASI 0.3. `.../path-info` returns the
//! header `spin-path-info`; `reach` uses other interfaces.

mod reach;

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
        let text = if path.ends_with("/path-info") {
            request.headers().get("spin-path-info").concat()
        } else if let Some(text) = reach::respond(plain, query) {
            text.into_bytes()
        } else {
            format!("hello from 0.2 at {path}").into_bytes()
        };
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("taken once");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("taken once");
        stream.blocking_write_and_flush(&text).expect("the client is connected");
        drop(stream);
        OutgoingBody::finish(body, None).expect("finished once");
    }
}
