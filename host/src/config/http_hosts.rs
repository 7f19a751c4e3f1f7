//! `allowed_http_hosts`, the predecessor of `allowed_outbound_hosts`: hosts without a scheme, for HTTP
//! and HTTPS.

use super::outbound_hosts::OutboundHost;

/// The entry that allows every host.
const ALL: &str = "insecure:allow-all";

/// The entries of `allowed_outbound_hosts` that allow what `text` allows.
///
/// # Errors
/// Describes the problem.
pub fn outbound_entries(text: &str) -> Result<Vec<String>, String> {
    let entries = match text {
        ALL => vec!["http://*:*".into(), "https://*:*".into(), "http://self".into()],
        "self" => vec!["http://self".into()],
        _ => {
            let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
            let host = host.unwrap_or(text).trim_end_matches('/');
            vec![format!("http://{host}"), format!("https://{host}")]
        }
    };
    let valid = entries.iter().try_for_each(|entry| OutboundHost::parse(entry).map(drop));
    match valid {
        Ok(()) if text == ALL || !text.contains('*') => Ok(entries),
        _ => Err(format!(
            "\"{text}\" is not a host; write `allowed_outbound_hosts` instead, with entries such as \
             \"https://example.com\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_becomes_entries_for_http_and_https() {
        for (text, expected) in [
            ("example.com", &["http://example.com", "https://example.com"][..]),
            ("https://example.com/", &["http://example.com", "https://example.com"]),
            ("http://a:81", &["http://a:81", "https://a:81"]),
            ("localhost:3001", &["http://localhost:3001", "https://localhost:3001"]),
            ("[::1]:8001", &["http://[::1]:8001", "https://[::1]:8001"]),
            ("self", &["http://self"]),
            (ALL, &["http://*:*", "https://*:*", "http://self"]),
        ] {
            assert_eq!(outbound_entries(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn entry_that_is_no_host_is_rejected() {
        for text in ["", "ftp://a", "http://a/b", "a:b", "*", "*.a.com", "user@a", "redis://a"] {
            let error = outbound_entries(text).unwrap_err();
            assert!(error.contains("is not a host"), "{text}: {error}");
        }
    }
}
