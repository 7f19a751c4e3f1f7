//! Taking in the body of a request: decoded, within the limit and the time it has, in memory that is
//! charged.

use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HeaderValue};
use http::request::Parts;
use http_body::{Body as HttpBody, SizeHint};
use tokio::time::timeout_at;

use super::Coding;
use super::body::Decoded;
use crate::http::body::{RequestBody, charge_request};
use crate::process::memory_budget::{Charge, MemoryBudget};
use crate::http::body::error::BodyError;
use crate::http::error::Failure;

/// The codings of requests that are decoded, as `Accept-Encoding` of a refusal says it.
pub const SUPPORTED: &str = "gzip, deflate";

/// What of a request's body may be in memory, and for how long it may arrive.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    pub budget: &'a MemoryBudget,
    /// Bytes of a body that is taken whole.
    pub whole: usize,
    /// Bytes of any body, decoded.
    pub limit: usize,
    pub deadline: Instant,
    /// Whether the host decodes it.
    pub decode: bool,
}

/// Takes `body` in. Its headers then are those of the decoded body. What it takes of the budget is
/// taken for as long as the first of the results lives.
pub async fn admit<'a, B>(
    head: &mut Parts,
    body: B,
    admission: Admission<'a>,
) -> Result<(Charge, RequestBody), Failure>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
{
    let Admission { budget, whole, limit, deadline, decode } = admission;
    let waits = head.headers.contains_key(EXPECT);
    // What is not there has no coding.
    let coding = if decode && !body.is_end_stream() { coding(&head.headers) } else { Ok(None) };
    let coding = match coding {
        Ok(coding) => coding,
        Err(refusal) => {
            if !waits {
                RequestBody::discard(body).await;
            }
            return Err(refusal);
        }
    };
    let Some(coding) = coding else {
        if decode {
            head.headers.remove(CONTENT_ENCODING);
        }
        let held = charge_request(budget, &body.size_hint(), whole).map_err(|_| Failure::Crowded)?;
        let admitting = RequestBody::admit(body, whole, limit, waits);
        let admitted = timeout_at(deadline.into(), admitting).await;
        return Ok((held, admitted.map_err(|_| Failure::BodyTimeout)??));
    };
    // It may become as long as it may be.
    let held = charge_request(budget, &SizeHint::new(), whole).map_err(|_| Failure::Crowded)?;
    // Rare, and it must not make the task of every connection larger.
    let decoded = Decoded::new(body, coding, limit);
    let admitting = Box::pin(RequestBody::admit(decoded, whole, limit, waits));
    let admitted = timeout_at(deadline.into(), admitting).await;
    let admitted = admitted.map_err(|_| Failure::BodyTimeout)??;
    head.headers.remove(CONTENT_ENCODING);
    match admitted.whole() {
        Some(bytes) => head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len())),
        None => head.headers.remove(CONTENT_LENGTH),
    };
    Ok((held, admitted))
}

/// The coding a body is in, if it is in one.
fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Failure> {
    let mut found = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        let refused = || {
            let value = String::from_utf8_lossy(value.as_bytes());
            Failure::UnsupportedEncoding {
                encoding: crate::process::text::shortened(&value).to_owned(),
            }
        };
        for name in value.to_str().map_err(|_| refused())?.split(',').map(str::trim) {
            if name.is_empty() || name.eq_ignore_ascii_case("identity") {
                continue;
            }
            if found.is_some() {
                return Err(refused());
            }
            found = Some(Coding::named(name).ok_or_else(refused)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_coding_that_is_known_is_decoded() {
        for (values, coding_of) in [
            (&[][..], Some(None)),
            (&["identity"], Some(None)),
            (&[""], Some(None)),
            (&["gzip"], Some(Some(Coding::Gzip))),
            (&["X-GZIP"], Some(Some(Coding::Gzip))),
            (&["identity, deflate"], Some(Some(Coding::Deflate))),
            (&["br"], None),
            (&["gzip, gzip"], None),
            (&["gzip", "deflate"], None),
            (&["gzip br"], None),
            (&["\u{e9}"], None),
        ] {
            let header = |value: &&str| {
                (CONTENT_ENCODING, HeaderValue::from_bytes(value.as_bytes()).unwrap())
            };
            let headers = values.iter().map(header).collect();
            assert_eq!(coding(&headers).ok(), coding_of, "{values:?}");
        }
    }
}
