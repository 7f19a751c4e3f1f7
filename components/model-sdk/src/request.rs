//! The request that a door passes to the protocols: complete, and the same for both doors.

use std::borrow::Cow;

use spin_sdk::wasip3::http::types::Fields;

use crate::json;

/// The request headers that the protocols read, in lower case, and the last one only for models that
/// accept files.
pub(crate) const NEEDED_HEADERS: &[&str] = &[JSON_LENGTH, CONTENT_TYPE];

/// The length of the JSON in a body with binary tensor data, in bytes.
pub(crate) const JSON_LENGTH: &str = "inference-header-content-length";
pub(crate) const CONTENT_TYPE: &str = "content-type";

/// The request's id in the prediction log: an instance may have several requests in flight.
const PREDICTION_ID: &str = "spinfer-prediction-id";

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Percent-encoded, as in the request line.
    pub(crate) path_with_query: String,
    pub(crate) headers: RequestHeaders,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum RequestHeaders {
    Passed {
        /// An index into [`NEEDED_HEADERS`], and the value.
        needed: Vec<(u32, Vec<u8>)>,
        /// `None` through the fast door, which serves one request at a time.
        prediction_id: Option<String>,
    },
    /// Each is read when it is needed: that is a call to the host.
    OnDemand(Fields),
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
        let length = self.header(JSON_LENGTH);
        let length = length.as_deref().and_then(|value| str::from_utf8(value).ok()?.parse().ok());
        let (json, tensors) = self.body.split_at_checked(length.unwrap_or(self.body.len()))?;
        let mut body = json::respelled(json)?;
        let mut needed = Vec::new();
        for (index, &name) in (0..).zip(NEEDED_HEADERS) {
            let value = self.header(name).map(|value| match name {
                JSON_LENGTH => body.len().to_string().into(),
                _ => value.into_owned(),
            });
            needed.extend(value.map(|value| (index, value)));
        }
        body.try_reserve(tensors.len()).ok()?;
        body.extend_from_slice(tensors);
        let path_with_query = self.path_with_query.clone();
        let prediction_id = self.prediction_id().map(Cow::into_owned);
        let headers = RequestHeaders::Passed { needed, prediction_id };
        Some(Self { method: self.method, path_with_query, headers, body })
    }

    /// The first value of a header of [`NEEDED_HEADERS`].
    pub(crate) fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match &self.headers {
            RequestHeaders::Passed { needed, .. } => {
                let is = |index: u32| NEEDED_HEADERS.get(index as usize) == Some(&name);
                let (_, value) = needed.iter().find(|(index, _)| is(*index))?;
                Some(value.into())
            }
            RequestHeaders::OnDemand(fields) => fields.get(name).into_iter().next().map(Cow::Owned),
        }
    }

    /// The request's id in the prediction log, if the host needs it.
    pub(crate) fn prediction_id(&self) -> Option<Cow<'_, str>> {
        match &self.headers {
            RequestHeaders::Passed { prediction_id, .. } => Some(prediction_id.as_deref()?.into()),
            RequestHeaders::OnDemand(fields) => {
                String::from_utf8(fields.get(PREDICTION_ID).pop()?).ok().map(Cow::Owned)
            }
        }
    }
}

#[cfg(any(test, fuzzing, feature = "fuzzing"))]
impl RequestHeaders {
    pub(crate) fn none() -> Self {
        Self::Passed { needed: Vec::new(), prediction_id: None }
    }
}

#[cfg(test)]
impl Request {
    pub(crate) fn post(path: &str, body: &[u8]) -> Self {
        Self {
            method: Method::Post,
            path_with_query: path.to_owned(),
            headers: RequestHeaders::none(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        let index = (0..).zip(NEEDED_HEADERS).find(|(_, needed)| **needed == name).unwrap().0;
        let RequestHeaders::Passed { needed, .. } = &mut self.headers else { unreachable!() };
        needed.push((index, value.into()));
        self
    }

    pub(crate) fn with_prediction_id(mut self, id: &str) -> Self {
        let RequestHeaders::Passed { prediction_id, .. } = &mut self.headers else {
            unreachable!()
        };
        *prediction_id = Some(id.into());
        self
    }
}
