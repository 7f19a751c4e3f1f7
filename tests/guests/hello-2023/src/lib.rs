//! A handler of `wasi:http` 0.2.0-rc-2023-10-18, as in components of spin-sdk 2. It responds with the request: method,
//! path, `x-sent` and body. `/via/<path>` requests `/<path>` of this application and relays the response; `/via-host/<host>`
//! requests `http://<host>/`. `/status/<status>` responds with that status,
//! `/environment/<name>` with a variable and `/file/<path>` with a file, through Rust's standard library.

mod bindings {
    #![expect(unsafe_code, reason = "generated")]

    wit_bindgen::generate!({
        path: "../../../wit/wasi-http-2023-10-18",
        inline: "
            package spinfer:hello;
            world hello {
                import wasi:io/poll@0.2.0-rc-2023-10-18;
                import wasi:io/streams@0.2.0-rc-2023-10-18;
                import wasi:http/types@0.2.0-rc-2023-10-18;
                import wasi:http/outgoing-handler@0.2.0-rc-2023-10-18;
                export wasi:http/incoming-handler@0.2.0-rc-2023-10-18;
            }
        ",
        world: "spinfer:hello/hello",
        generate_all,
    });

    export!(Hello);

    pub(crate) struct Hello;
}

use bindings::exports::wasi::http::incoming_handler::Guest;
use bindings::wasi::http::outgoing_handler;
use bindings::wasi::http::types::{
    Error, Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest,
    OutgoingResponse, RequestOptions, ResponseOutparam, Scheme,
};
use bindings::wasi::io::poll;
use bindings::wasi::io::streams::StreamError;

impl Guest for bindings::Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let (status, text) = if let Some(path) = path.strip_prefix("/via") {
            match fetch(path) {
                Ok((status, text)) => (status, format!("via {status}: {text}")),
                Err(error) => (200, format!("{error:?}")),
            }
        } else if let Some(name) = path.strip_prefix("/environment/") {
            (200, std::env::var(name).unwrap_or_default())
        } else if let Some(path) = path.strip_prefix("/file") {
            (200, std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string()))
        } else {
            let status = path.strip_prefix("/status/").and_then(|status| status.parse().ok());
            let sent = request.headers().get("x-sent").concat();
            let body = request.consume().map(|body| read(&body)).unwrap_or_default();
            let (method, sent) = (request.method(), String::from_utf8_lossy(&sent).into_owned());
            let body = String::from_utf8_lossy(&body).into_owned();
            (status.unwrap_or(200), format!("{method:?} {path} {sent:?} {body:?}"))
        };
        let headers = Fields::new(&[("content-type".to_owned(), b"text/plain".to_vec())]);
        headers.append("x-version", b"2023-10-18");
        let response = OutgoingResponse::new(status, &headers);
        let body = response.write().expect("taken once");
        ResponseOutparam::set(out, Ok(response));
        write(&body, text.as_bytes());
        OutgoingBody::finish(body, None);
    }
}

/// Writes what the stream takes and waits for it, as spin-sdk 2 does.
fn write(body: &OutgoingBody, mut bytes: &[u8]) {
    let stream = body.write().expect("taken once");
    let ready = stream.subscribe();
    while !bytes.is_empty() {
        let Ok(room) = stream.check_write() else { return };
        let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(0)));
        if now.is_empty() {
            poll::poll_list(&[&ready]);
        } else if stream.write(now).is_err() {
            return;
        }
        bytes = later;
    }
    let _ = stream.blocking_flush();
}

fn read(body: &IncomingBody) -> Vec<u8> {
    let stream = body.stream().expect("taken once");
    let (ready, mut bytes) = (stream.subscribe(), Vec::new());
    loop {
        match stream.read(64 << 10) {
            Ok(read) if read.is_empty() => poll::poll_one(&ready),
            Ok(read) => bytes.extend(read),
            Err(StreamError::Closed) => return bytes,
            Err(StreamError::LastOperationFailed(error)) => panic!("{}", error.to_debug_string()),
        }
    }
}

/// Status and body of `/<path>` of this application, or of another host for `-host/<host>`.
fn fetch(path: &str) -> Result<(u16, String), Error> {
    let headers = Fields::new(&[("x-sent".to_owned(), b"relayed".to_vec())]);
    let (scheme, host, path) = match path.strip_prefix("-host/") {
        Some(host) => (Some(Scheme::Http), Some(host), "/"),
        None => (Some(Scheme::Http), None, path),
    };
    let request = OutgoingRequest::new(&Method::Post, Some(path), scheme.as_ref(), host, &headers);
    let body = request.write().expect("taken once");
    let options = RequestOptions {
        connect_timeout_ms: Some(5000),
        first_byte_timeout_ms: None,
        between_bytes_timeout_ms: None,
    };
    let response = outgoing_handler::handle(request, Some(options))?;
    write(&body, b"from inside");
    OutgoingBody::finish(body, None);
    let response = loop {
        match response.get() {
            Some(response) => break response.expect("taken once")?,
            None => poll::poll_one(&response.subscribe()),
        }
    };
    let body = response.consume().expect("taken once");
    let text = String::from_utf8_lossy(&read(&body)).into_owned();
    Ok((response.status(), text))
}
