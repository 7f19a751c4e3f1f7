//! `fermyon:spin/http`: outbound requests with buffered bodies.

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use wasmtime::Result;
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpHooks};

use super::HttpView;
use super::wit::http as wit;
use super::wit::http_types::{self, HttpError};

impl wit::Host for HttpView<'_> {
    async fn send_request(
        &mut self,
        request: http_types::Request,
    ) -> Result<Result<http_types::Response, HttpError>> {
        let request = match convert(request) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        let io = Box::new(std::future::ready(Ok(())));
        let response = self.outbound.clone().send_request(request, None, io);
        let response = match Box::into_pin(response).await {
            Ok((response, _)) => self.buffered(response).await,
            Err(error) => Err(error.into()),
        };
        Ok(response)
    }
}

impl HttpView<'_> {
    /// The whole response, charged to the instance while it is read.
    async fn buffered(
        &self,
        response: Response<WasiBody>,
    ) -> Result<http_types::Response, HttpError> {
        let (head, mut body) = response.into_parts();
        let (mut bytes, mut charges) = (Vec::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(HttpError::from)?;
            // Trailers have no place in this version.
            let Ok(data) = frame.into_data() else { continue };
            charges.push(self.memory.charge(data.len()).map_err(|_| HttpError::RuntimeError)?);
            bytes.extend_from_slice(&data);
        }
        let headers = head.headers.iter().filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        });
        Ok(http_types::Response {
            status: head.status.as_u16(),
            headers: Some(headers.collect()),
            body: Some(bytes),
        })
    }
}

fn convert(request: http_types::Request) -> Result<Request<WasiBody>, HttpError> {
    let uri: Uri = request.uri.parse().map_err(|_| HttpError::InvalidUrl)?;
    let authority = uri.authority().map(|authority| authority.as_str().to_owned());
    let body = Full::new(Bytes::from(request.body.unwrap_or_default()));
    let body = body.map_err(|never| match never {}).boxed_unsync();
    let mut converted = Request::new(body);
    *converted.method_mut() = match request.method {
        http_types::Method::Get => Method::GET,
        http_types::Method::Post => Method::POST,
        http_types::Method::Put => Method::PUT,
        http_types::Method::Delete => Method::DELETE,
        http_types::Method::Patch => Method::PATCH,
        http_types::Method::Head => Method::HEAD,
        http_types::Method::Options => Method::OPTIONS,
    };
    *converted.uri_mut() = uri;
    let headers = converted.headers_mut();
    for (name, value) in request.headers {
        let name = HeaderName::try_from(name).map_err(|_| HttpError::RequestError)?;
        headers.append(name, HeaderValue::try_from(value).map_err(|_| HttpError::RequestError)?);
    }
    if let Some(authority) = authority {
        let host = HeaderValue::try_from(authority).map_err(|_| HttpError::InvalidUrl)?;
        headers.entry(HOST).or_insert(host);
    }
    Ok(converted)
}

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        match error {
            Error::HttpRequestDenied => Self::DestinationNotAllowed,
            Error::ConnectionLimitReached => Self::TooManyRequests,
            Error::HttpRequestUriInvalid => Self::InvalidUrl,
            _ => Self::RequestError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> http_types::Request {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        http_types::Request {
            method: http_types::Method::Post,
            uri: uri.into(),
            headers: headers.collect(),
            params: Vec::new(),
            body: None,
        }
    }

    #[test]
    fn request_has_the_host_of_its_url() {
        let converted = convert(request("http://b:81/x?y", &[("accept", "*/*")])).unwrap();
        assert_eq!(
            (converted.method(), converted.headers()[HOST].as_bytes()),
            (&Method::POST, &b"b:81"[..])
        );
        let converted = convert(request("http://b/", &[("Host", "other")])).unwrap();
        assert_eq!(converted.headers().get_all(HOST).iter().collect::<Vec<_>>(), ["other"]);
        assert!(convert(request("/path", &[])).unwrap().headers().is_empty());
    }

    #[test]
    fn invalid_request_is_an_error() {
        assert!(matches!(convert(request("http://[", &[])), Err(HttpError::InvalidUrl)));
        for header in [("a b", "c"), ("a", "b\nc")] {
            assert!(matches!(convert(request("/", &[header])), Err(HttpError::RequestError)));
        }
    }
}
