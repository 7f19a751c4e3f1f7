//! The headers in which Spin describes a request to its component, and those that this host adds to them.
//! A client's headers of these names never reach a component. Behind the fast door, a value is computed
//! only for a component that requests it.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{self, Authority, Scheme, Uri};

use crate::http::route::{ANY, PATH_MATCH, Pattern};
use crate::prediction_log::{PREDICTION_ID, RequestPredictions, header_value};

/// How a request reached its component.
#[derive(Clone, Copy, Debug)]
pub struct RequestOrigin<'a> {
    /// The route that its path matched.
    pub route: &'a Pattern,
    pub client: RequestSource,
    /// Collects the component's predictions, if they are logged.
    pub predictions: Option<&'a Arc<RequestPredictions>>,
}

/// The source of a request: a client, or another component.
#[derive(Clone, Copy, Debug)]
pub struct RequestSource {
    pub address: SocketAddr,
    /// The address of this host that it is connected to.
    pub local: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Number of components of this application that the request has passed through; 0 from outside.
    pub hops: usize,
}

impl RequestSource {
    /// The address that memory is held for; `None` for a request of a component.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        (self.address.port() != 0).then(|| self.address.ip())
    }
}

/// One of these headers. `NAMES` has the name of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpinHeader {
    PathInfo,
    FullUrl,
    MatchedRoute,
    ComponentRoute,
    RawComponentRoute,
    BasePath,
    ClientAddr,
    /// The value of a route's parameter.
    PathMatch(HeaderName),
    /// The id of the request in the prediction log, if it is logged.
    PredictionId,
}

const NAMES: [(HeaderName, SpinHeader); 8] = [
    (HeaderName::from_static("spin-path-info"), SpinHeader::PathInfo),
    (HeaderName::from_static("spin-full-url"), SpinHeader::FullUrl),
    (HeaderName::from_static("spin-matched-route"), SpinHeader::MatchedRoute),
    (HeaderName::from_static("spin-component-route"), SpinHeader::ComponentRoute),
    (HeaderName::from_static("spin-raw-component-route"), SpinHeader::RawComponentRoute),
    (HeaderName::from_static("spin-base-path"), SpinHeader::BasePath),
    (HeaderName::from_static("spin-client-addr"), SpinHeader::ClientAddr),
    (PREDICTION_ID, SpinHeader::PredictionId),
];

impl SpinHeader {
    /// The header with this name.
    #[must_use]
    pub fn named(name: &HeaderName) -> Option<Self> {
        if name.as_str().starts_with(PATH_MATCH) {
            return Some(Self::PathMatch(name.clone()));
        }
        let known = NAMES.into_iter().find(|(known, _)| known == name);
        known.map(|(_, header)| header)
    }
}

impl RequestOrigin<'static> {
    /// The origin of a request without a route, or of the host itself.
    #[must_use]
    pub fn inside() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            route: &ANY,
            client: RequestSource { address, local: address, scheme: "http", hops: 0 },
            predictions: None,
        }
    }
}

impl RequestOrigin<'_> {
    /// The value of `header` for the request `head`.
    #[must_use]
    pub fn value(&self, header: &SpinHeader, head: &Parts) -> Option<HeaderValue> {
        let path = head.uri.path();
        let route = self.route;
        let value: Cow<'_, str> = match header {
            SpinHeader::PathInfo => route.rest(path).into(),
            SpinHeader::FullUrl => {
                let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
                format!("{}://{}{target}", self.client.scheme, host(head)).into()
            }
            SpinHeader::MatchedRoute => return route.headers().matched.clone(),
            SpinHeader::ComponentRoute => return route.headers().component.clone(),
            SpinHeader::RawComponentRoute => return route.headers().raw.clone(),
            SpinHeader::BasePath => return Some(HeaderValue::from_static("/")),
            SpinHeader::ClientAddr => self.client.address.to_string().into(),
            SpinHeader::PredictionId => return self.predictions.map(|of| header_value(of.id())),
            SpinHeader::PathMatch(name) => {
                route.parameters(path).find(|(parameter, _)| *parameter == name)?.1.into()
            }
        };
        // Everything in a URI is valid in a header.
        HeaderValue::from_bytes(value.as_bytes()).ok()
    }

    /// The URL of the request `head` for `wasi:http`, which has no `Host` header in its model: with the
    /// scheme of the connection and the host, as Spin passes it.
    #[must_use]
    pub fn url(&self, head: &Parts) -> Option<Uri> {
        let host = || Authority::try_from(head.headers.get(HOST)?.as_bytes()).ok();
        let mut url = uri::Parts::default();
        url.scheme = Some(if self.client.scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
        url.authority = head.uri.authority().cloned().or_else(host);
        url.path_and_query = head.uri.path_and_query().cloned();
        Uri::from_parts(url).ok()
    }

    /// Adds all of them to `head`, and removes headers of these names that the client has sent.
    pub fn put_into(&self, head: &mut Parts) {
        remove(&mut head.headers);
        let parameters = self.route.parameters(head.uri.path());
        let parameters: Vec<_> = parameters
            .map(|(name, _)| (name.clone(), SpinHeader::PathMatch(name.clone())))
            .collect();
        head.headers.reserve(NAMES.len() + parameters.len());
        for (name, header) in NAMES.into_iter().chain(parameters) {
            if let Some(value) = self.value(&header, head) {
                head.headers.insert(name, value);
            }
        }
    }
}

fn remove(headers: &mut HeaderMap) {
    let is_reserved =
        |name: &&HeaderName| name.as_str().starts_with("spin") && SpinHeader::named(name).is_some();
    let sent: Vec<_> = headers.keys().filter(is_reserved).cloned().collect();
    for name in sent {
        headers.remove(name);
    }
}

fn host(head: &Parts) -> &str {
    let header = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    header.or(head.uri.authority().map(|authority| authority.as_str())).unwrap_or("localhost")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// The headers that a component receives for `uri` on `route`, sorted.
    fn seen(route: &str, uri: &str, sent: &[(&str, &str)]) -> Vec<String> {
        let mut request = Request::post(uri);
        for (name, value) in sent {
            request = request.header(*name, *value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let route = Pattern::parse(route).unwrap();
        let address = "127.0.0.1:8777".parse().unwrap();
        let client = RequestSource { address, local: address, scheme: "https", hops: 0 };
        let origin = RequestOrigin { route: &route, client, predictions: None };
        origin.put_into(&mut head);
        let mut seen: Vec<_> =
            head.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        seen.sort_unstable();
        seen
    }

    #[test]
    fn component_receives_the_headers_of_spin() {
        let uri = "/foo/42/bar?key1=value1&key2=value2";
        assert_eq!(
            seen("/foo/:user_id/...", uri, &[("host", "example.dev")]),
            [
                "host: example.dev",
                "spin-base-path: /",
                "spin-client-addr: 127.0.0.1:8777",
                "spin-component-route: /foo/:user_id",
                "spin-full-url: https://example.dev/foo/42/bar?key1=value1&key2=value2",
                "spin-matched-route: /foo/:user_id/...",
                "spin-path-info: /bar",
                "spin-path-match-user-id: 42",
                "spin-raw-component-route: /foo/:user_id/...",
            ]
        );
        assert_eq!(
            seen("/", "/", &[]),
            [
                "spin-base-path: /",
                "spin-client-addr: 127.0.0.1:8777",
                "spin-component-route: /",
                "spin-full-url: https://localhost/",
                "spin-matched-route: ",
                "spin-path-info: ",
                "spin-raw-component-route: /",
            ]
        );
    }

    #[test]
    fn headers_of_the_client_with_these_names_are_removed() {
        let sent = [
            ("Spin-Path-Info", "forged"),
            ("spin-client-addr", "forged"),
            ("spin-client-addr", "twice"),
            ("spin-path-match-other", "forged"),
            ("spin-other", "kept"),
            ("spinfer-prediction-id", "forged"),
        ];
        let seen = seen("/a/...", "/a/b", &sent);
        assert!(!seen.iter().any(|line| line.contains("forged") || line.contains("twice")));
        assert!(seen.contains(&"spin-other: kept".to_owned()));
        assert!(seen.contains(&"spin-path-info: /b".to_owned()));
        assert!(!seen.iter().any(|line| line.starts_with("spin-path-match")));
    }

    #[test]
    fn percent_encoded_parameters_are_passed_unchanged() {
        let seen = seen("/:name", "/%C3%A9", &[]);
        assert!(seen.contains(&"spin-path-match-name: %C3%A9".to_owned()), "{seen:?}");
    }
}
