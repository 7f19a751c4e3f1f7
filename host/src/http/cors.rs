//! Cross-origin resource sharing (the Fetch standard, 3.2): which pages of other sites may call the
//! application from a browser. Disabled without `[application.tool.spinfer.cors]`.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN,
};
use http::{Method, Response, StatusCode, Uri};
use serde::Deserialize;

use crate::config::limits::{MAX_DURATION, some_duration};
use crate::http::body::Body;
use crate::http::error_response::error_response;
use crate::http::vary;
use crate::process::text::shortened;

/// The wildcard of each list.
const ANY: &str = "*";
/// Default time for which browsers cache a preflight response.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Defaults: what the protocols need in addition to what the Fetch standard always allows.
const METHODS: [&str; 3] = ["GET", "HEAD", "POST"];
const HEADERS: [&str; 2] = ["content-type", "inference-header-content-length"];
const EXPOSED: [&str; 1] = ["inference-header-content-length"];

/// `[application.tool.spinfer.cors]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct CorsConfig {
    pub allow_origins: Vec<String>,
    pub allow_methods: Option<Vec<String>>,
    pub allow_headers: Option<Vec<String>>,
    pub expose_headers: Option<Vec<String>>,
    #[serde(default)]
    pub allow_credentials: bool,
    #[serde(default, with = "some_duration")]
    pub max_age: Option<Duration>,
}

/// The CORS headers of responses.
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Origins,
    methods: HeaderValue,
    headers: HeaderValue,
    exposed: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

#[derive(Clone, Debug)]
enum Origins {
    Any,
    Listed(Vec<HeaderValue>),
}

impl Cors {
    /// Resolves `config`.
    ///
    /// # Errors
    /// The key that is invalid, and why.
    pub fn new(config: &CorsConfig) -> Result<Self, (&'static str, String)> {
        let CorsConfig {
            allow_origins,
            allow_methods,
            allow_headers,
            expose_headers,
            allow_credentials,
            max_age,
        } = config;
        let credentials = *allow_credentials;
        let list =
            |key, given: &Option<Vec<String>>, default: &[&str], is_valid: fn(&str) -> bool| {
                let default = || default.iter().map(|name| (*name).to_owned()).collect();
                let names = given.clone().unwrap_or_else(default);
                joined(&names, credentials, is_valid).map_err(|problem| (key, problem))
            };
        let is_method = |name: &str| Method::from_bytes(name.as_bytes()).is_ok();
        let is_header = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok();
        let methods = list("allow_methods", allow_methods, &METHODS, is_method)?;
        let headers = list("allow_headers", allow_headers, &HEADERS, is_header)?;
        let exposed = list("expose_headers", expose_headers, &EXPOSED, is_header)?;
        let max_age = max_age.unwrap_or(MAX_AGE);
        if max_age > MAX_DURATION {
            return Err(("max_age", "must be at most a day, for example \"10m\"".into()));
        }
        Ok(Self {
            origins: origins(allow_origins, credentials).map_err(|p| ("allow_origins", p))?,
            methods,
            headers,
            exposed: (!exposed.is_empty()).then_some(exposed),
            credentials,
            max_age: HeaderValue::from(max_age.as_secs()),
        })
    }

    /// The response to a preflight request, if this is one: what a page may send. The component never
    /// receives the request.
    #[must_use]
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        if *method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let origin = headers.get(ORIGIN)?;
        if self.allowed(Some(origin)).is_none() {
            let origin = String::from_utf8_lossy(origin.as_bytes());
            let origin = shortened(&origin);
            let problem = format!(
                "{origin} is not in cors.allow_origins: its pages may not call this application"
            );
            return Some(error_response(StatusCode::FORBIDDEN, &problem));
        }
        let mut response = Response::new(Body::whole(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let allowed = response.headers_mut();
        allowed.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        if headers.contains_key(ACCESS_CONTROL_REQUEST_HEADERS) && !self.headers.is_empty() {
            allowed.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
        }
        allowed.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        Some(response)
    }

    /// Adds the headers by which a browser passes a response of any status to a page of `origin`. They
    /// replace the component's own headers of the same names.
    pub fn mark(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if matches!(self.origins, Origins::Listed(_)) {
            vary::add(headers, &ORIGIN);
        }
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            headers.remove(name);
        }
        let Some(allowed) = self.allowed(origin) else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(exposed) = &self.exposed {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    /// The value of `Access-Control-Allow-Origin` for a page of `origin`; `None` if it is not allowed.
    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        let origin = origin?;
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static(ANY)),
            Origins::Listed(origins) => origins.contains(origin).then(|| origin.clone()),
        }
    }
}

fn origins(given: &[String], credentials: bool) -> Result<Origins, String> {
    if given.is_empty() {
        return Err(
            "expected origins, such as [\"https://app.example.com\"], or [\"*\"] for all".into()
        );
    }
    if given.iter().any(|origin| origin == ANY) {
        if credentials {
            return Err(
                "\"*\" with allow_credentials would let every site act for your users; list the origins"
                    .into(),
            );
        }
        return match given.len() {
            1 => Ok(Origins::Any),
            _ => Err("\"*\" includes all others; remove them".into()),
        };
    }
    let origin = |origin: &String| {
        let invalid = || {
            format!(
                "\"{origin}\" is not an origin as browsers send it; expected a scheme, a host and any \
                 non-default port, without a path, such as \"https://app.example.com\""
            )
        };
        let uri: Uri = origin.parse().map_err(|_| invalid())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(invalid());
        };
        let has_default_port =
            matches!((scheme, uri.port_u16()), ("http", Some(80)) | ("https", Some(443)));
        let written = format!("{scheme}://{authority}");
        if written != *origin || written != origin.to_ascii_lowercase() || has_default_port {
            return Err(invalid());
        }
        HeaderValue::from_str(origin).map_err(|_| invalid())
    };
    given.iter().map(origin).collect::<Result<_, _>>().map(Origins::Listed)
}

/// The names as the value of one header.
fn joined(
    names: &[String],
    credentials: bool,
    is_valid: fn(&str) -> bool,
) -> Result<HeaderValue, String> {
    for name in names {
        if name == ANY && credentials {
            return Err(
                "with allow_credentials, \"*\" is no wildcard for browsers; list the names".into(),
            );
        }
        if name == ANY && names.len() > 1 {
            return Err("\"*\" includes all others; remove them".into());
        }
        if !is_valid(name) {
            return Err(format!("\"{name}\" is not a valid name"));
        }
    }
    HeaderValue::from_str(&names.join(", ")).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Cors, (&'static str, String)> {
        Cors::new(&toml::from_str(text).unwrap())
    }

    #[test]
    fn invalid_config_is_refused_with_its_key() {
        const A: &str = "allow_origins = ['https://a.example']\n";
        for (text, key, part) in [
            ("allow_origins = []", "allow_origins", "expected origins"),
            ("allow_origins = ['*']\nallow_credentials = true", "allow_origins", "every site"),
            ("allow_origins = ['*', 'https://a.example']", "allow_origins", "remove them"),
            ("allow_origins = ['a.example']", "allow_origins", "is not an origin"),
            ("allow_origins = ['https://a.example/']", "allow_origins", "without a path"),
            ("allow_origins = ['https://a.example/x']", "allow_origins", "without a path"),
            ("allow_origins = ['https://A.example']", "allow_origins", "is not an origin"),
            ("allow_origins = ['https://a.example:443']", "allow_origins", "non-default port"),
            ("allow_origins = ['null']", "allow_origins", "is not an origin"),
            (&format!("{A}allow_methods = ['G T']"), "allow_methods", "\"G T\""),
            (&format!("{A}allow_headers = ['a b']"), "allow_headers", "\"a b\""),
            (&format!("{A}allow_headers = ['*', 'a']"), "allow_headers", "remove them"),
            (
                &format!("{A}expose_headers = ['*']\nallow_credentials = true"),
                "expose_headers",
                "no wildcard",
            ),
            (&format!("{A}max_age = '2days'"), "max_age", "at most a day"),
        ] {
            let (actual, problem) = config(text).unwrap_err();
            assert!(actual == key && problem.contains(part), "{text}: {actual}: {problem}");
        }
    }

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        of.iter().map(header).collect()
    }

    #[test]
    fn allowed_origin_receives_cors_headers() {
        let some =
            config("allow_origins = ['https://a.example', 'http://localhost:5173']").unwrap();
        let any = config("allow_origins = ['*']\nexpose_headers = []").unwrap();
        let marked = |cors: &Cors, origin: Option<&'static str>, of| {
            let mut headers = headers(of);
            cors.mark(origin.map(HeaderValue::from_static).as_ref(), &mut headers);
            headers
        };
        let component = [("access-control-allow-origin", "*"), ("vary", "accept")];
        let seen = marked(&some, Some("https://a.example"), &component);
        assert_eq!(seen["access-control-allow-origin"], "https://a.example");
        assert_eq!(seen["access-control-expose-headers"], "inference-header-content-length");
        assert_eq!(seen["vary"], "accept, origin");
        for origin in [None, Some("https://b.example"), Some("null"), Some("https://a.example.org")]
        {
            let seen = marked(&some, origin, &component);
            assert_eq!(seen.get("access-control-allow-origin"), None, "{origin:?}");
            assert_eq!(seen["vary"], "accept, origin", "{origin:?}");
        }
        let seen = marked(&any, Some("https://b.example"), &[]);
        assert_eq!(seen, headers(&[("access-control-allow-origin", "*")]));
        assert!(marked(&any, None, &[]).is_empty());
        let text = "allow_origins = ['https://a.example']\nallow_credentials = true";
        let seen = marked(&config(text).unwrap(), Some("https://a.example"), &[]);
        assert_eq!(seen["access-control-allow-credentials"], "true");
    }

    #[test]
    fn preflight_requests_are_recognised() {
        let cors = config("allow_origins = ['https://a.example']\nmax_age = '1h'").unwrap();
        let preflight = headers(&[
            ("origin", "https://a.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ]);
        let response = cors.preflight(&Method::OPTIONS, &preflight).unwrap();
        assert_eq!(response.status(), 204);
        let sent = response.headers();
        assert_eq!(sent["access-control-allow-methods"], "GET, HEAD, POST");
        assert_eq!(
            sent["access-control-allow-headers"],
            "content-type, inference-header-content-length"
        );
        assert_eq!(sent["access-control-max-age"], "3600");
        assert!(cors.preflight(&Method::POST, &preflight).is_none());
        let without_method = headers(&[("origin", "https://a.example")]);
        assert!(cors.preflight(&Method::OPTIONS, &without_method).is_none());
        let other =
            headers(&[("origin", "https://b.example"), ("access-control-request-method", "POST")]);
        assert_eq!(cors.preflight(&Method::OPTIONS, &other).unwrap().status(), 403);
    }
}
