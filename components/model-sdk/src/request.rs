//! The request that a door passes to the protocols: complete, and the same for both doors.

use crate::json;

/// The request headers that the protocols read, in lower case. The doors pass no others, and the last
/// one only to models that accept files.
pub(crate) const NEEDED_HEADERS: &[&str] = &[JSON_LENGTH, CONTENT_TYPE];

/// The length of the JSON in a body with binary tensor data, in bytes.
pub(crate) const JSON_LENGTH: &str = "inference-header-content-length";
pub(crate) const CONTENT_TYPE: &str = "content-type";

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Percent-encoded, as in the request line.
    pub(crate) path_with_query: String,
    /// The needed headers of the request: an index into [`NEEDED_HEADERS`], and the value.
    pub(crate) headers: Vec<(u32, Vec<u8>)>,
    /// The request's id in the prediction log. `None` through the fast door, which serves one request at a
    /// time.
    pub(crate) prediction_id: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// The methods that operations accept, and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Other,
}

impl Request {
    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        let path = self.path_with_query.as_str();
        path.split_once('?').map_or(path, |(path, _query)| path)
    }

    /// The request with its body as valid JSON, if that contains tokens of Python's json module
    /// ([`json::respelled`]).
    #[cold]
    pub(crate) fn respelled(&self) -> Option<Self> {
        let length = self.header(JSON_LENGTH).and_then(|value| str::from_utf8(value).ok());
        let length = length.and_then(|length| length.parse().ok()).unwrap_or(self.body.len());
        let (json, tensors) = self.body.split_at_checked(length)?;
        let mut body = json::respelled(json)?;
        let mut headers = self.headers.clone();
        if let Some((_, value)) = headers.iter_mut().find(|(index, _)| is(*index, JSON_LENGTH)) {
            *value = body.len().to_string().into();
        }
        body.try_reserve(tensors.len()).ok()?;
        body.extend_from_slice(tensors);
        let path_with_query = self.path_with_query.clone();
        let prediction_id = self.prediction_id.clone();
        Some(Self { method: self.method, path_with_query, headers, prediction_id, body })
    }

    /// The first value of a header of [`NEEDED_HEADERS`].
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.headers.iter().find(|(index, _)| is(*index, name))?;
        Some(value)
    }
}

/// Whether the header at `index` of [`NEEDED_HEADERS`] is `name`.
fn is(index: u32, name: &str) -> bool {
    NEEDED_HEADERS.get(index as usize) == Some(&name)
}

#[cfg(test)]
impl Request {
    pub(crate) fn post(path: &str, body: &[u8]) -> Self {
        Self {
            method: Method::Post,
            path_with_query: path.to_owned(),
            headers: Vec::new(),
            prediction_id: None,
            body: body.to_owned(),
        }
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        let index = (0..).zip(NEEDED_HEADERS).find(|(_, needed)| **needed == name).unwrap().0;
        self.headers.push((index, value.into()));
        self
    }
}
