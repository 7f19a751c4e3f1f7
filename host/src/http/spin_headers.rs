//! What Spin tells a component about a request, in headers of its own, and what this host does beside
//! them: a client's headers of these names never reach one. Behind the fast door a value is made only for a component that asks.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use crate::prediction_log::{PREDICTION_ID, RequestPredictions, header_value};
use crate::http::route::{ANY, PATH_MATCH, Pattern};

/// How a request came to a component.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// What its path matched.
    pub route: &'a Pattern,
    pub client: Client,
    /// Where its component's predictions go, if they are logged.
    pub predictions: Option<&'a Arc<RequestPredictions>>,
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub address: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Components of this application the request has come through; none if it comes from outside.
    pub hops: usize,
}

/// One of these headers. The name of each is its key in [`NAMES`].
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
    /// The one called `name`.
    #[must_use]
    pub fn named(name: &HeaderName) -> Option<Self> {
        if name.as_str().starts_with(PATH_MATCH) {
            return Some(Self::PathMatch(name.clone()));
        }
        let known = NAMES.into_iter().find(|(known, _)| known == name);
        known.map(|(_, header)| header)
    }
}

impl Origin<'static> {
    /// Of a request that came without a route, or from the host itself.
    #[must_use]
    pub fn inside() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { route: &ANY, client: Client { address, scheme: "http", hops: 0 }, predictions: None }
    }
}

impl Origin<'_> {
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
            // As in Spin, the root is nothing, and without the `/...` only here.
            SpinHeader::MatchedRoute => match route.to_string() {
                root if root == "/" => "".into(),
                shown => shown.into(),
            },
            SpinHeader::ComponentRoute => {
                route.raw().strip_suffix("/...").unwrap_or(route.raw()).into()
            }
            SpinHeader::RawComponentRoute => route.raw().into(),
            SpinHeader::BasePath => "/".into(),
            SpinHeader::ClientAddr => self.client.address.to_string().into(),
            SpinHeader::PredictionId => return self.predictions.map(|of| header_value(of.id())),
            SpinHeader::PathMatch(name) => {
                route.parameters(path).find(|(parameter, _)| *parameter == name)?.1.into()
            }
        };
        // A URI holds nothing that a header cannot.
        HeaderValue::from_bytes(value.as_bytes()).ok()
    }

    /// Puts them all into `head`, and takes out what a client has sent in their names.
    pub fn put_into(&self, head: &mut Parts) {
        remove(&mut head.headers);
        let parameters = self.route.parameters(head.uri.path());
        let parameters: Vec<_> = parameters
            .map(|(name, _)| (name.clone(), SpinHeader::PathMatch(name.clone())))
            .collect();
        for (name, header) in NAMES.into_iter().chain(parameters) {
            if let Some(value) = self.value(&header, head) {
                head.headers.insert(name, value);
            }
        }
    }
}

fn remove(headers: &mut HeaderMap) {
    let ours =
        |name: &&HeaderName| name.as_str().starts_with("spin") && SpinHeader::named(name).is_some();
    let sent: Vec<_> = headers.keys().filter(ours).cloned().collect();
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

    /// What a component sees of a request for `uri` on `route`, in the order of the names.
    fn seen(route: &str, uri: &str, sent: &[(&str, &str)]) -> Vec<String> {
        let mut request = Request::post(uri);
        for (name, value) in sent {
            request = request.header(*name, *value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let route = Pattern::parse(route).unwrap();
        let address = "127.0.0.1:8777".parse().unwrap();
        let client = Client { address, scheme: "https", hops: 0 };
        let origin = Origin { route: &route, client, predictions: None };
        origin.put_into(&mut head);
        let mut seen: Vec<_> =
            head.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        seen.sort_unstable();
        seen
    }

    #[test]
    fn a_component_is_told_what_spin_tells() {
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
    fn what_a_client_sends_in_these_names_is_not_seen() {
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
    fn bytes_beyond_ascii_pass() {
        let seen = seen("/:name", "/%C3%A9", &[]);
        assert!(seen.contains(&"spin-path-match-name: %C3%A9".to_owned()), "{seen:?}");
    }
}
