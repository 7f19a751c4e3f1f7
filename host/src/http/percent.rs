//! Normalization of percent-encoded paths (RFC 3986, 6.2.2).

use std::borrow::Cow;
use std::fmt::Write;

/// Decodes unreserved characters in `path`, and encodes everything else that is or has to be encoded in
/// upper-case hexadecimal. Encoded reserved characters stay encoded: `%2F` is no separator. Dot segments
/// are not resolved: `..` is a segment in any encoding.
#[must_use]
pub fn normalize(path: &str) -> Cow<'_, str> {
    if path.bytes().all(|byte| byte != b'%' && byte.is_ascii()) {
        return Cow::Borrowed(path);
    }
    let mut normal = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let decoded = (byte == b'%').then(|| encoded(after)).flatten();
        let (byte, is_encoded) = decoded.map_or((byte, false), |byte| (byte, true));
        if is_encoded {
            rest = &after[2..];
        }
        let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if byte.is_ascii() && (is_unreserved || !is_encoded) {
            normal.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(normal, "%{byte:02X}");
        }
    }
    Cow::Owned(normal)
}

/// `text` as one segment of a path.
#[must_use]
pub fn encode_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

/// The byte encoded by the first two characters, which are hexadecimal digits.
fn encoded(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn segment_is_encoded_in_its_normal_form() {
        for (text, segment) in [("my_model-1.0~", "my_model-1.0~"), ("a b/é%", "a%20b%2F%C3%A9%25")]
        {
            assert_eq!(encode_segment(text), segment);
            assert_eq!(normalize(segment), segment);
        }
    }

    #[test]
    fn equivalent_paths_have_one_normal_form() {
        for (path, normal) in [
            ("/v2/models/my_model", "/v2/models/my_model"),
            ("/v2/models/my%5Fmodel", "/v2/models/my_model"),
            ("/v2/models/iris%2Dclassifier/infer", "/v2/models/iris-classifier/infer"),
            ("/%7e%7E", "/~~"),
            ("/a%2Fb%2fc", "/a%2Fb%2Fc"),
            ("/a%3ab:", "/a%3Ab:"),
            ("/%2e%2E/", "/../"),
            ("/%c3%a9\u{e9}", "/%C3%A9%C3%A9"),
            ("/%", "/%"),
            ("/%4", "/%4"),
            ("/%zz%41", "/%zzA"),
            ("/%25%35%46", "/%255F"),
            ("/%20", "/%20"),
        ] {
            assert_eq!(normalize(path), normal, "{path}");
        }
    }

    proptest! {
        #[test]
        fn normalization_is_idempotent_and_keeps_segments(path in "(/|%2[fF]|%[0-9a-fA-F]{2}|%|\\PC){0,20}") {
            let normal = normalize(&path).into_owned();
            prop_assert_eq!(normalize(&normal), normal.as_str());
            prop_assert_eq!(normal.matches('/').count(), path.matches('/').count());
            prop_assert!(normal.is_ascii());
        }
    }
}
