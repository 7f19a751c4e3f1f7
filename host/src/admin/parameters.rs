//! Query parameters of the admin plane.

use http::request::Parts;

use super::refusal::Refusal;
use crate::process::text::shortened;

/// The request's query parameters. One that is not `known` is an error.
pub(super) fn parameters(head: &Parts, known: &[&str]) -> Result<Vec<(String, String)>, Refusal> {
    let query = head.uri.query().unwrap_or_default();
    let given = form_urlencoded::parse(query.as_bytes()).into_owned();
    given
        .map(|(name, value)| {
            if known.contains(&name.as_str()) {
                return Ok((name, value));
            }
            let (path, name) = (head.uri.path(), shortened(&name));
            Err(Refusal::Parameter(match known {
                [] => format!("`{name}`: {path} takes no parameters"),
                known => format!("`{name}`: {path} takes {}", known.join(", ")),
            }))
        })
        .collect()
}
