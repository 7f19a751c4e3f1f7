//! Admission of request bodies: decoded, within a size limit and a deadline, in charged memory.

use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HeaderValue};
use http::request::Parts;
use http_body::{Body as HttpBody, SizeHint};
use tokio::time::timeout_at;

use super::Coding;
use super::body::DecodedBody;
use crate::http::body::error::BodyError;
use crate::http::body::{RequestBody, charge_request};
use crate::http::error::Failure;
use crate::process::memory_budget::{Charge, MemoryBudget};

/// The codings that are decoded: the value of `Accept-Encoding` in a refusal.
pub const SUPPORTED: &str = "gzip, deflate";

/// The limits of a request body.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    /// Charged for a body that is admitted whole.
    pub budget: &'a MemoryBudget,
    /// Maximum size of a body that is admitted whole, in bytes.
    pub whole: usize,
    /// Maximum size of any body, decoded, in bytes.
    pub limit: usize,
    /// By when a body that is admitted whole has to arrive.
    pub deadline: Instant,
    /// Whether the host decodes it.
    pub decode: bool,
}

/// Admits `body`, and changes its headers to those of the decoded body. The budget is charged until the
/// returned charge is dropped.
///
/// # Errors
/// The body exceeds a limit or the budget, arrives too slowly, or cannot be decoded.
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
    // The coding of an empty body is ignored.
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
        let charge = charge_request(budget, &body.size_hint(), whole)
            .map_err(|_| Failure::MemoryBudgetExhausted)?;
        let admitting = RequestBody::admit(body, whole, limit, waits);
        let admitted = timeout_at(deadline.into(), admitting).await;
        return Ok((charge, admitted.map_err(|_| Failure::BodyTimeout)??));
    };
    // Its decoded size is unknown: it is charged for the maximum.
    let charge = charge_request(budget, &SizeHint::new(), whole)
        .map_err(|_| Failure::MemoryBudgetExhausted)?;
    // Boxed, since it is rare and would enlarge the task of every connection.
    let decoded = DecodedBody::new(body, coding, limit);
    let admitting = Box::pin(RequestBody::admit(decoded, whole, limit, waits));
    let admitted = timeout_at(deadline.into(), admitting).await;
    let admitted = admitted.map_err(|_| Failure::BodyTimeout)??;
    head.headers.remove(CONTENT_ENCODING);
    match admitted.whole() {
        Some(bytes) => head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len())),
        None => head.headers.remove(CONTENT_LENGTH),
    };
    Ok((charge, admitted))
}

/// The coding of a body, if any.
///
/// # Errors
/// It is not supported, or there are several.
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
    fn one_supported_coding_is_decoded() {
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
