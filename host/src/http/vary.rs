//! Additions of the host to `Vary` (RFC 9110, 12.5.5).

use http::header::{HeaderMap, HeaderName, HeaderValue, VARY};

/// Declares that the response depends on the request header `name`.
pub fn add(headers: &mut HeaderMap, name: &HeaderName) {
    let values = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    let mut named: Vec<&str> = values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|named| !named.is_empty())
        .collect();
    if named.iter().any(|named| *named == "*" || named.eq_ignore_ascii_case(name.as_str())) {
        return;
    }
    named.push(name.as_str());
    // Parts of valid values are valid.
    if let Ok(all) = HeaderValue::from_str(&named.join(", ")) {
        headers.insert(VARY, all);
    }
}

#[cfg(test)]
mod tests {
    use http::header::ORIGIN;

    use super::*;

    #[test]
    fn name_is_added_once() {
        for (before, after) in [
            (&[][..], "origin"),
            (&["accept"], "accept, origin"),
            (&["accept, x-a", "x-b,"], "accept, x-a, x-b, origin"),
            (&["Accept, Origin"], "Accept, Origin"),
            (&["*"], "*"),
        ] {
            let mut headers: HeaderMap =
                before.iter().map(|value| (VARY, HeaderValue::from_static(value))).collect();
            add(&mut headers, &ORIGIN);
            assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), [after]);
        }
    }
}
