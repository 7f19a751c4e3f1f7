//! Header values with secrets.

use http::HeaderValue;

use super::error::OciError;

/// A header value that is not logged.
pub(super) fn header_value(text: &str, host: &str) -> Result<HeaderValue, OciError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        OciError::Local(format!(
            "the token or password for {host} has characters invalid in a header"
        ))
    })?;
    value.set_sensitive(true);
    Ok(value)
}
