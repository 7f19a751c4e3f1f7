//! Compression of responses, where the client accepts it and it saves enough.

use std::net::IpAddr;

use bytes::Bytes;
use flate2::{Compress, Compression as Level, FlushCompress, Status};
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderMap, HeaderName, HeaderValue,
};
use http::{Method, Response, StatusCode};
use tokio::task::yield_now;

use super::{AcceptEncoding, Coding};
use crate::http::body::Body;
use crate::http::body::response_memory::ResponseMemory;
use crate::http::vary;

/// Minimum size of a body to compress, in bytes: a smaller one fits into a packet with its headers
/// without compression (benches/RESULTS.md).
const MIN_SIZE: usize = 1 << 10;
/// Number of bytes compressed before the task yields to others on its thread: 0.1 ms for JSON, 0.5 ms for
/// floats.
const PIECE: usize = 16 << 10;
/// Number of bytes at the start of a longer body that are compressed to estimate the ratio.
const SAMPLE: usize = 4 << 10;
/// Size of the largest window, in bits.
const WINDOW: u8 = 15;

/// Headers that depend on the exact bytes of the body.
const BYTE_HEADERS: [HeaderName; 5] = [
    CONTENT_ENCODING,
    CONTENT_RANGE,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
];

/// The same response, compressed if its client accepts that and it saves enough. The compressed body is
/// held in `memory` for `client`.
pub async fn compress(
    mut response: Response<Body>,
    accepted: AcceptEncoding,
    method: &Method,
    memory: &ResponseMemory,
    client: Option<IpAddr>,
) -> Response<Body> {
    let Some(length) = response.body().whole_size().filter(|_| may_be_coded(&response)) else {
        return response;
    };
    let worthwhile = length >= MIN_SIZE && is_compressible(response.headers());
    let forced = accepted.refuses_identity() && length > 0;
    if !worthwhile && !forced {
        return response;
    }
    vary::add(response.headers_mut(), &ACCEPT_ENCODING);
    let Some(coding) = accepted.choose().filter(|_| *method != Method::HEAD) else {
        return response;
    };
    let Some(bytes) = response.body_mut().take_whole() else { return response };
    // Boxed, since it is rare and would enlarge the task of every connection.
    let compressed = Box::pin(compressed(&bytes, coding, forced)).await;
    let held = compressed.and_then(|compressed| memory.try_hold(compressed.into(), client).ok());
    let Some(body) = held.map(Body::whole) else {
        *response.body_mut() = Body::whole(bytes);
        return response;
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(CONTENT_LENGTH);
    weaken(headers);
    *response.body_mut() = body;
    response
}

/// Whether a coding may be applied to a response.
fn may_be_coded(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let status = response.status();
    let has_body = ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    has_body
        && status != StatusCode::PARTIAL_CONTENT
        && !BYTE_HEADERS.iter().any(|name| headers.contains_key(name))
        && !forbids_transform(headers)
}

/// Whether `Cache-Control` contains `no-transform` (RFC 9111, 5.2.2.6).
fn forbids_transform(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"))
}

/// Whether bodies of this type are usually compressible. For tensors (`application/octet-stream`) a sample
/// decides: classes are, probabilities as FP32 are not.
fn is_compressible(headers: &HeaderMap) -> bool {
    const TYPES: [&str; 6] = [
        "application/json",
        "application/javascript",
        "application/octet-stream",
        "application/x-ndjson",
        "application/xml",
        "image/svg+xml",
    ];
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // Events have to arrive one by one.
    let is_text = kind.starts_with("text/") && kind != "text/event-stream";
    is_text || kind.ends_with("+json") || TYPES.contains(&kind.as_str())
}

/// `bytes` compressed; `None` if that saves less than 20 % and is not `forced`. From 20 % on, a client on
/// 100 Mbit/s receives its response earlier.
async fn compressed(bytes: &Bytes, coding: Coding, forced: bool) -> Option<Vec<u8>> {
    // Higher levels save little more of model outputs, and take several times as long.
    let compress = || match coding {
        Coding::Gzip => Compress::new_gzip(Level::fast(), WINDOW),
        Coding::Deflate => Compress::new(Level::fast(), true),
    };
    let saves_enough = |from: usize, to: usize| forced || to <= from - from / 5;
    if bytes.len() > PIECE {
        let mut output = Vec::new();
        feed(&mut compress(), &bytes[..SAMPLE], &mut output, true)?;
        if !saves_enough(SAMPLE, output.len()) {
            return None;
        }
    }
    let mut compress = compress();
    let mut output = Vec::with_capacity(bytes.len() / 4 + 64);
    let mut pieces = bytes.chunks(PIECE).peekable();
    while let Some(piece) = pieces.next() {
        let is_last = pieces.peek().is_none();
        feed(&mut compress, piece, &mut output, is_last)?;
        if !is_last {
            yield_now().await;
        }
    }
    saves_enough(bytes.len(), output.len()).then_some(output)
}

/// Compresses all of `piece`, and appends it to `output`. `None` on a failure, which is not expected.
fn feed(
    compress: &mut Compress,
    mut piece: &[u8],
    output: &mut Vec<u8>,
    is_last: bool,
) -> Option<()> {
    let flush = if is_last { FlushCompress::Finish } else { FlushCompress::None };
    loop {
        output.reserve(PIECE / 4);
        let before = compress.total_in();
        let status = compress.compress_vec(piece, output, flush).ok()?;
        let used = usize::try_from(compress.total_in() - before).ok()?;
        piece = piece.get(used..)?;
        let is_done = if is_last { status == Status::StreamEnd } else { piece.is_empty() };
        if is_done {
            return Some(());
        }
    }
}

/// Makes the `ETag` weak, since the bytes differ from those it identifies (RFC 9110, 8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let strong = headers.get(ETAG).map(HeaderValue::as_bytes).filter(|tag| tag.starts_with(b"\""));
    if let Some(strong) = strong {
        match HeaderValue::from_bytes(&[b"W/", strong].concat()) {
            Ok(weak) => headers.insert(ETAG, weak),
            Err(_) => headers.remove(ETAG),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::{GzDecoder, ZlibDecoder};
    use http::header::VARY;
    use http_body_util::BodyExt;

    use super::*;

    fn response(length: usize, headers: &[(&'static str, &'static str)]) -> Response<Body> {
        let text: Vec<u8> = b"0.1,0.25,".iter().copied().cycle().take(length).collect();
        let mut response = Response::new(Body::whole(text));
        for (name, value) in headers {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        response
    }

    /// Headers and decoded body of the response that a client receives.
    async fn sent(response: Response<Body>, accept: &str, method: Method) -> (HeaderMap, Vec<u8>) {
        let accept = HeaderValue::from_str(accept).unwrap();
        let accepted = HeaderMap::from_iter([(ACCEPT_ENCODING, accept)]);
        let accepted = AcceptEncoding::of(&accepted);
        let memory = ResponseMemory::new(1 << 20, 1 << 20);
        let response = compress(response, accepted, &method, &memory, None).await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let mut decoded = Vec::new();
        match head.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            Some(b"gzip") => drop(GzDecoder::new(&*bytes).read_to_end(&mut decoded).unwrap()),
            Some(b"deflate") => drop(ZlibDecoder::new(&*bytes).read_to_end(&mut decoded).unwrap()),
            _ => decoded.extend_from_slice(&bytes),
        }
        (head.headers, decoded)
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    #[tokio::test]
    async fn compressible_responses_are_compressed_for_clients_that_accept_it() {
        for length in [MIN_SIZE, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 3] {
            let expected = response(length, &[]).into_body().take_whole().unwrap();
            for (accept, coding) in [("gzip", "gzip"), ("deflate", "deflate"), ("br, *", "gzip")] {
                let (headers, body) = sent(response(length, &[JSON]), accept, Method::GET).await;
                assert_eq!(headers[CONTENT_ENCODING], coding);
                assert_eq!(headers[VARY], "accept-encoding");
                assert!(body == expected, "{length} {accept}");
            }
        }
    }

    #[tokio::test]
    async fn vary_is_sent_to_every_client() {
        for accept in ["", "br", "gzip;q=0", "gzip"] {
            let (headers, _) = sent(response(5000, &[JSON]), accept, Method::HEAD).await;
            assert_eq!(
                (headers.get(CONTENT_ENCODING), &headers[VARY]),
                (None, &"accept-encoding".parse().unwrap())
            );
        }
        let given = response(5000, &[JSON, ("vary", "origin")]);
        let (headers, _) = sent(given, "gzip", Method::GET).await;
        assert_eq!(headers[VARY], "origin, accept-encoding");
    }

    #[tokio::test]
    async fn incompressible_and_untransformable_responses_are_unchanged() {
        let octets = ("content-type", "application/octet-stream");
        for (status, length, headers) in [
            (200, MIN_SIZE - 1, &[JSON][..]),
            (200, 5000, &[]),
            (200, 5000, &[("content-type", "image/png")]),
            (200, 5000, &[("content-type", "text/event-stream")]),
            (200, 5000, &[JSON, ("content-encoding", "br")]),
            (200, 5000, &[JSON, ("cache-control", "max-age=3, No-Transform")]),
            (200, 5000, &[JSON, ("content-digest", "sha-256=:x:")]),
            (206, 5000, &[JSON, ("content-range", "bytes 0-4999/9000")]),
            (204, 5000, &[JSON]),
            (304, 5000, &[JSON]),
        ] {
            let mut given = response(length, headers);
            *given.status_mut() = StatusCode::from_u16(status).unwrap();
            let before = given.headers().clone();
            assert_eq!(sent(given, "gzip", Method::GET).await.0, before, "{status} {headers:?}");
        }
        // A few and many rows of probabilities as FP32.
        for rows in [500, 10_000] {
            let floats =
                std::iter::repeat_with(fastrand::f32).take(rows).flat_map(f32::to_le_bytes);
            let floats: Vec<u8> = floats.collect();
            let mut given = response(0, &[octets]);
            *given.body_mut() = Body::whole(floats.clone());
            let (headers, body) = sent(given, "gzip", Method::GET).await;
            assert!(headers.get(CONTENT_ENCODING).is_none() && headers.contains_key(VARY));
            assert!(body == floats);
        }
        let labels = std::iter::repeat_with(|| fastrand::i64(0..3)).take(5000);
        let labels: Vec<u8> = labels.flat_map(i64::to_le_bytes).collect();
        let mut given = response(0, &[octets]);
        *given.body_mut() = Body::whole(labels.clone());
        let (headers, body) = sent(given, "gzip", Method::GET).await;
        assert_eq!((&headers[CONTENT_ENCODING], body == labels), (&"gzip".parse().unwrap(), true));
    }

    #[tokio::test]
    async fn response_is_compressed_if_identity_is_refused() {
        for accept in ["gzip, identity;q=0", "gzip, *;q=0"] {
            let (headers, body) = sent(response(10, &[]), accept, Method::GET).await;
            assert_eq!((&headers[CONTENT_ENCODING], body.len()), (&"gzip".parse().unwrap(), 10));
        }
    }

    #[tokio::test]
    async fn etag_becomes_weak() {
        for (given, expected) in [("\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\"")] {
            let given = response(5000, &[JSON, ("etag", given), ("content-length", "5000")]);
            let (headers, _) = sent(given, "gzip", Method::GET).await;
            assert_eq!(
                (&headers[ETAG], headers.get(CONTENT_LENGTH)),
                (&expected.parse().unwrap(), None)
            );
        }
    }
}
