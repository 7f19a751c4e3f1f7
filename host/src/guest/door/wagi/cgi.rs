//! CGI as Wagi speaks it: the request as arguments and environment variables, the response as the
//! output of a command. Without I/O.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, LOCATION};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::super::check_status;
use crate::http::reserved::HOST_HEADERS;
use crate::http::spin_headers::{RequestOrigin, SpinHeader};

/// The arguments of a command without a setting: the path, and the parts of the query.
pub const DEFAULT_ARGV: &str = "${SCRIPT_NAME} ${ARGS}";

/// Variables with the value of a header that the host adds.
const HOST_VARIABLES: [(&str, SpinHeader); 7] = [
    ("PATH_INFO", SpinHeader::PathInfo),
    ("X_FULL_URL", SpinHeader::FullUrl),
    ("X_MATCHED_ROUTE", SpinHeader::MatchedRoute),
    ("X_COMPONENT_ROUTE", SpinHeader::ComponentRoute),
    ("X_RAW_COMPONENT_ROUTE", SpinHeader::RawComponentRoute),
    ("X_BASE_PATH", SpinHeader::BasePath),
    ("X_CLIENT_ADDR", SpinHeader::ClientAddr),
];

/// The arguments of the command, by the template `argv`: `${SCRIPT_NAME}` is the path, and `${ARGS}`
/// the parts of the query, such as `x=1`, which are not decoded.
#[must_use]
pub(super) fn arguments(argv: &str, head: &Parts) -> Vec<String> {
    let query = head.uri.query().unwrap_or_default();
    let query: Vec<_> =
        query.split('&').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    argv.split_ascii_whitespace()
        .flat_map(|word| match word {
            "${ARGS}" => query.clone(),
            word => vec![word.replace("${SCRIPT_NAME}", head.uri.path())],
        })
        .collect()
}

/// The environment of the command for a request with a body of `length` bytes.
#[must_use]
pub(super) fn environment(
    head: &Parts,
    length: usize,
    origin: &RequestOrigin<'_>,
) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let header = |name: &HeaderName| head.headers.get(name).map(text).unwrap_or_default();
    let mut host = header(&HOST);
    if host.is_empty() {
        // HTTP/2 sends it as `:authority`.
        host = head.uri.authority().map_or("localhost", |host| host.as_str()).to_owned();
    }
    let host = host.as_str();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (host, if origin.client.scheme == "https" { "443" } else { "80" }),
    };
    let path = origin.route.rest(head.uri.path()).to_owned();
    let decoded = percent_decoded(&path);
    let address = origin.client.address.ip().to_string();
    let script = origin.value(&SpinHeader::ComponentRoute, head).as_ref().map(text);
    let mut variables = vec![
        ("AUTH_TYPE", String::new()),
        ("CONTENT_LENGTH", length.to_string()),
        ("CONTENT_TYPE", header(&CONTENT_TYPE)),
        ("GATEWAY_INTERFACE", "CGI/1.1".into()),
        ("PATH_TRANSLATED", decoded),
        ("QUERY_STRING", head.uri.query().unwrap_or_default().to_owned()),
        ("REMOTE_ADDR", address.clone()),
        ("REMOTE_HOST", address),
        ("REMOTE_USER", String::new()),
        ("REQUEST_METHOD", head.method.to_string()),
        ("SCRIPT_NAME", script.unwrap_or_default()),
        ("SERVER_NAME", name.to_owned()),
        ("SERVER_PORT", port.to_owned()),
        ("SERVER_PROTOCOL", "HTTP/1.1".into()),
        ("SERVER_SOFTWARE", "WAGI/1".into()),
        ("X_RAW_PATH_INFO", path),
    ];
    for (name, header) in &HOST_VARIABLES {
        let value = origin.value(header, head);
        variables.push((name, value.as_ref().map(text).unwrap_or_default()));
    }
    let mut variables: Vec<_> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for name in head.headers.keys().filter(|name| is_passed(name)) {
        let values: Vec<_> = head.headers.get_all(name).iter().map(text).collect();
        let name = name.as_str().to_ascii_uppercase().replace('-', "_");
        variables.push((format!("HTTP_{name}"), values.join(", ")));
    }
    // A variable cannot contain a zero byte.
    variables.retain(|(_, value)| !value.contains('\0'));
    variables
}

/// Whether a client's header becomes a variable: not credentials; not `Proxy`, since `HTTP_PROXY` is a
/// setting of HTTP clients; and none with the variable of a header that the host adds.
fn is_passed(name: &HeaderName) -> bool {
    ![AUTHORIZATION, CONNECTION].contains(name)
        && name.as_str() != "proxy"
        && !name.as_str().contains('_')
        && SpinHeader::named(name).is_none()
}

fn percent_decoded(path: &str) -> String {
    // A query's parser decodes `%2F`; a plus sign stands for itself in a path.
    let query = format!("={}", path.replace('+', "%2B").replace('&', "%26"));
    form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

/// The response in the `output` of a command: headers, an empty line, and the body.
///
/// # Errors
/// What makes it invalid.
pub(super) fn response(output: &Bytes) -> Result<Response<Bytes>, String> {
    let (head, body) = split(output).ok_or("its output has no empty line after the headers")?;
    let head = std::str::from_utf8(head).map_err(|_| "the headers of its output are not text")?;
    let mut headers = HeaderMap::new();
    let mut status = None;
    for line in head.lines() {
        let invalid = || format!("`{}` is not a header", crate::process::text::shortened(line));
        let (name, value) = line.split_once(':').ok_or_else(invalid)?;
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            status = Some(code.parse::<StatusCode>().map_err(|_| invalid())?);
            continue;
        }
        let name: HeaderName = name.parse().map_err(|_| invalid())?;
        let value = HeaderValue::from_str(value).map_err(|_| invalid())?;
        if !HOST_HEADERS.contains(&name) {
            headers.append(name, value);
        }
    }
    if status.is_none() && !headers.contains_key(CONTENT_TYPE) && !headers.contains_key(LOCATION) {
        return Err("its output has none of the headers Content-Type, Location and Status".into());
    }
    let redirects = headers.contains_key(LOCATION);
    let status = status.unwrap_or(if redirects { StatusCode::FOUND } else { StatusCode::OK });
    check_status(status)?;
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// The headers, and the body after the first empty line. Lines end with LF or CRLF.
fn split(output: &Bytes) -> Option<(&[u8], Bytes)> {
    let mut start = 0;
    loop {
        let length = output[start..].iter().position(|byte| *byte == b'\n')?;
        let line = &output[start..start + length];
        let next = start + length + 1;
        if line.is_empty() || line == b"\r" {
            return Some((&output[..start], output.slice(next..)));
        }
        start = next;
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::http::route::Pattern;
    use crate::http::spin_headers::RequestSource;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn arguments_are_the_path_and_the_query() {
        for (argv, uri, expected) in [
            (DEFAULT_ARGV, "/a/b?x=1&y&&z=%20+a", &["/a/b", "x=1", "y", "z=%20+a"][..]),
            (DEFAULT_ARGV, "/", &["/"]),
            (
                "${SCRIPT_NAME} -v /lib/a.rb ${SCRIPT_NAME} ${ARGS}",
                "/s?q=1",
                &["/s", "-v", "/lib/a.rb", "/s", "q=1"],
            ),
            ("run", "/?a", &["run"]),
        ] {
            assert_eq!(arguments(argv, &head(uri, &[])), expected, "{argv} {uri}");
        }
    }

    #[test]
    fn environment_describes_the_request() {
        let route = Pattern::parse("/env/...").unwrap();
        let address = "10.0.0.1:5000".parse().unwrap();
        let client = RequestSource { address, local: address, scheme: "http", hops: 0 };
        let origin = RequestOrigin { route: &route, client, predictions: None };
        let sent = [
            ("host", "example.com:3000"),
            ("content-type", "text/plain"),
            ("x-two", "1"),
            ("x-two", "2"),
            ("authorization", "secret"),
            ("proxy", "http://evil.example"),
            ("spin-client-addr", "forged"),
            ("spin_client_addr", "forged"),
        ];
        let found = environment(&head("/env/a%20b?q=1", &sent), 5, &origin);
        for (name, value) in [
            ("REQUEST_METHOD", "POST"),
            ("CONTENT_LENGTH", "5"),
            ("CONTENT_TYPE", "text/plain"),
            ("QUERY_STRING", "q=1"),
            ("PATH_INFO", "/a%20b"),
            ("PATH_TRANSLATED", "/a b"),
            ("X_RAW_PATH_INFO", "/a%20b"),
            ("SCRIPT_NAME", "/env"),
            ("SERVER_NAME", "example.com"),
            ("SERVER_PORT", "3000"),
            ("REMOTE_ADDR", "10.0.0.1"),
            ("X_MATCHED_ROUTE", "/env/..."),
            ("X_FULL_URL", "http://example.com:3000/env/a%20b?q=1"),
            ("HTTP_X_TWO", "1, 2"),
        ] {
            let of_name: Vec<_> = found.iter().filter(|(other, _)| other == name).collect();
            assert_eq!(of_name, [&(name.to_owned(), value.to_owned())], "{name}");
        }
        for name in ["HTTP_AUTHORIZATION", "HTTP_PROXY", "HTTP_SPIN_CLIENT_ADDR"] {
            assert!(!found.iter().any(|(other, _)| other == name), "{name}");
        }
    }

    #[test]
    fn output_becomes_a_response() {
        for (output, status, header, body) in [
            (
                "Content-Type: text/plain\n\nhello\n\nworld",
                200,
                ("content-type", "text/plain"),
                "hello\n\nworld",
            ),
            ("content-type:a/b\r\nStatus: 404 Not Found\r\n\r\n", 404, ("content-type", "a/b"), ""),
            ("Location: /x\n\n", 302, ("location", "/x"), ""),
            ("Status: 418\nX-A: 1\n\nb", 418, ("x-a", "1"), "b"),
        ] {
            let response = response(&Bytes::from(output)).unwrap();
            assert_eq!(response.status(), status, "{output}");
            assert_eq!(response.headers()[header.0], header.1, "{output}");
            assert_eq!(response.body(), body, "{output}");
        }
    }

    #[test]
    fn invalid_output_is_rejected_with_the_reason() {
        for (output, part) in [
            ("", "no empty line"),
            ("hello", "no empty line"),
            ("\n\nhello", "none of the headers"),
            ("X-A: 1\n\nhello", "none of the headers"),
            ("hello\n\n", "`hello` is not a header"),
            ("Status: many\n\n", "is not a header"),
            ("Status: 101\n\n", "101 is not a final status"),
            ("Content Type: a\n\n", "is not a header"),
        ] {
            let error = response(&Bytes::from(output)).unwrap_err();
            assert!(error.contains(part), "{output:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_output_is_a_response_or_rejected(output: Vec<u8>, text in "(\\PC{0,20}\n){0,4}") {
            let _ = response(&Bytes::from(output));
            let _ = response(&Bytes::from(text));
        }
    }
}
