//! Which responses have a body, and how long it is (RFC 9110, 6.4.1 and 8.6).

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};

use super::body::Body;

/// Whether responses of `status` have no body.
#[must_use]
pub fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The length of the body that `headers` announce, in bytes.
#[must_use]
pub fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The response to send: without a body if the request or the status excludes one. The length of a
/// body that a `HEAD` request left out is announced if it is known.
#[must_use]
pub fn framed(mut response: Response<Body>, method: &Method) -> Response<Body> {
    let status = response.status();
    if *method == Method::HEAD && !has_no_body(status) {
        let length = response.body().whole_size().filter(|length| *length > 0);
        if let Some(length) = length {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    } else if !has_no_body(status) {
        return response;
    }
    if status == StatusCode::NO_CONTENT {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    *response.body_mut() = Body::whole(Bytes::new());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The announced and the actual length of a response.
    fn sent(
        status: u16,
        announced: Option<u64>,
        length: usize,
        method: &Method,
    ) -> (Option<u64>, usize) {
        let mut response = Response::new(Body::whole(vec![0; length]));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(announced) = announced {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(announced));
        }
        let response = framed(response, method);
        (announced_length(response.headers()), response.body().whole_size().unwrap())
    }

    #[test]
    fn responses_without_a_body_are_framed_as_such() {
        let (get, head) = (&Method::GET, &Method::HEAD);
        assert_eq!(sent(200, None, 3, get), (None, 3), "the connection announces it");
        assert_eq!(sent(200, None, 3, head), (Some(3), 0));
        assert_eq!(sent(200, Some(9), 0, head), (Some(9), 0), "the component knows it");
        assert_eq!(sent(200, None, 0, head), (None, 0), "unknown");
        for method in [get, head] {
            assert_eq!(sent(204, Some(3), 3, method), (None, 0));
            assert_eq!(sent(304, Some(3), 0, method), (Some(3), 0), "of the cached response");
            assert_eq!(sent(304, None, 3, method), (None, 0));
        }
    }
}
