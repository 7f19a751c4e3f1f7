//! A request and its response between the doors and the protocols: complete, and the same through
//! either door.

/// The request headers a protocol reads; the doors bring these and no others. None does so far.
pub(crate) const NEEDED_HEADERS: &[&str] = &[];

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Percent-encoded, as in the request line.
    pub(crate) path_with_query: String,
    /// Those of `NEEDED_HEADERS` that were sent, in the order received.
    #[expect(dead_code, reason = "no protocol reads a header so far")]
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// The methods that some path answers, and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Other,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Without `content-length`, which the host or the standard door derives from the body.
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn path(&self) -> &str {
        let path = self.path_with_query.as_str();
        path.split_once('?').map_or(path, |(path, _query)| path)
    }
}

impl Response {
    pub(crate) fn json(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type", "application/json")], body }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}
