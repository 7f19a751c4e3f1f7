//! Operations, and the paths of requests for them.

use std::borrow::Cow;
use std::str::Split;

use crate::error::Error;
use crate::request::Method;

/// An operation, with the model and version that the path names, if any.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) operation: Operation,
    model: Option<Cow<'a, str>>,
    version: Option<Cow<'a, str>>,
}

/// An operation on the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `GET /v2/models/<model>[/versions/<version>]`
    Metadata,
    /// `GET /v2/models/<model>[/versions/<version>]/ready`
    Ready,
    /// `POST /v2/models/<model>[/versions/<version>]/infer`
    Infer,
    /// `POST /v2/models/<model>[/versions/<version>]/predict`; `POST <any prefix>/predict`, as a route may
    /// have another name; `POST /v1/models/<model>:predict` of KServe.
    Predict,
    /// `POST .../invocations` of MLflow, with the same prefixes.
    Invocations,
    /// `GET .../ping` or `GET .../health`
    Ping,
    /// `GET .../version`
    Version,
}

const MODELS: &str = "/v2/models/";
const MODELS_V1: &str = "/v1/models/";

impl<'a> Target<'a> {
    /// `None` if no operation has this path.
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        if let Some(rest) = path.strip_prefix(MODELS) {
            return Self::parse_model(rest.split('/'));
        }
        if let Some(model) = path.strip_prefix(MODELS_V1)
            && !model.contains('/')
        {
            return Self::parse_v1(model);
        }
        let (_, operation) = path.rsplit_once('/')?;
        let operation = Operation::of_any_prefix(operation)?;
        Some(Self { operation, model: None, version: None })
    }

    /// `<model>[:predict]`
    fn parse_v1(segment: &'a str) -> Option<Self> {
        let (model, operation) = match segment.strip_suffix(":predict") {
            Some(model) => (model, Operation::Predict),
            None => (segment, Operation::Ready),
        };
        (!model.is_empty()).then(|| Self { operation, model: Some(decode(model)), version: None })
    }

    /// `<model>[/versions/<version>][/<operation>]`
    fn parse_model(mut segments: Split<'a, char>) -> Option<Self> {
        let model = decode(segments.next().filter(|model| !model.is_empty())?);
        let mut version = None;
        let mut operation = segments.next();
        if operation == Some("versions") {
            version = Some(decode(segments.next().filter(|version| !version.is_empty())?));
            operation = segments.next();
        }
        let operation = match operation {
            None => Operation::Metadata,
            Some("ready") => Operation::Ready,
            Some("infer") => Operation::Infer,
            Some(operation) => Operation::of_any_prefix(operation)?,
        };
        segments.next().is_none().then_some(Self { operation, model: Some(model), version })
    }

    /// Refuses the path of another model than `name`.
    pub(crate) fn check_model(&self, name: &str) -> Result<(), Error> {
        match &self.model {
            Some(model) if model != name => Err(Error::not_found(format!(
                "model {model:?} not found; this component serves {name:?}"
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses the path of another version than the mounted one.
    pub(crate) fn check_version(&self, name: &str, mounted: &str) -> Result<(), Error> {
        match &self.version {
            Some(version) if version != mounted => Err(Error::not_found(format!(
                "version {version:?} of model {name:?} not found; this component serves version {mounted:?}"
            ))),
            _ => Ok(()),
        }
    }
}

impl Operation {
    /// The operations that are not restricted to paths under `/v2/models/`.
    fn of_any_prefix(segment: &str) -> Option<Self> {
        match segment {
            "predict" => Some(Self::Predict),
            "invocations" => Some(Self::Invocations),
            "ping" | "health" => Some(Self::Ping),
            "version" => Some(Self::Version),
            _ => None,
        }
    }

    /// Refuses a method that the operation does not accept.
    pub(crate) fn check_method(self, method: Method) -> Result<(), Error> {
        match self {
            Self::Infer | Self::Predict | Self::Invocations => match method {
                Method::Post => Ok(()),
                _ => Err(Error::method_not_allowed("POST")),
            },
            Self::Metadata | Self::Ready | Self::Ping | Self::Version => match method {
                Method::Get | Method::Head => Ok(()),
                _ => Err(Error::method_not_allowed("GET, HEAD")),
            },
        }
    }
}

/// The error for a path of no operation.
pub(crate) fn unknown_path(path: &str, name: &str) -> Error {
    Error::not_found(format!(
        "no operation at {path:?}; this component serves GET {MODELS}{name}, GET {MODELS}{name}/ready, and \
         POST {MODELS}{name}/infer, /predict and /invocations"
    ))
}

/// Decodes percent-encoding. A segment that is not percent-encoded UTF-8 is returned unchanged, and is
/// the name of no model.
fn decode(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut rest = segment.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let [first, tail @ ..] = rest {
        let escaped = escaped(rest);
        decoded.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(decoded).map_or(Cow::Borrowed(segment), Cow::Owned)
}

/// Decodes a leading `%xx`.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |hex: u8| char::from(hex).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Option<(Operation, Option<String>, Option<String>)> {
        let Target { operation, model, version } = Target::parse(path)?;
        Some((operation, model.map(Cow::into_owned), version.map(Cow::into_owned)))
    }

    #[test]
    fn paths_of_operations() {
        let some = |text: &str| Some(text.to_owned());
        for (path, expected) in [
            ("/v2/models/m", (Operation::Metadata, some("m"), None)),
            ("/v2/models/m/ready", (Operation::Ready, some("m"), None)),
            ("/v2/models/m/infer", (Operation::Infer, some("m"), None)),
            ("/v2/models/m/predict", (Operation::Predict, some("m"), None)),
            ("/v2/models/m/versions/2", (Operation::Metadata, some("m"), some("2"))),
            ("/v2/models/m/versions/2/infer", (Operation::Infer, some("m"), some("2"))),
            (
                "/v2/models/versions/versions/ready",
                (Operation::Metadata, some("versions"), some("ready")),
            ),
            ("/v2/models/a%20b%2Fc/ready", (Operation::Ready, some("a b/c"), None)),
            ("/v2/models/100%/ready", (Operation::Ready, some("100%"), None)),
            ("/v2/models/%+f%4/ready", (Operation::Ready, some("%+f%4"), None)),
            ("/v2/models/%ff", (Operation::Metadata, some("%ff"), None)),
            ("/iris/predict", (Operation::Predict, None, None)),
            ("/predict", (Operation::Predict, None, None)),
            ("/v1/models/m", (Operation::Ready, some("m"), None)),
            ("/v1/models/a%20b:predict", (Operation::Predict, some("a b"), None)),
            ("/v1/models/m/predict", (Operation::Predict, None, None)),
            ("/invocations", (Operation::Invocations, None, None)),
            ("/v2/models/m/versions/2/invocations", (Operation::Invocations, some("m"), some("2"))),
            ("/iris/ping", (Operation::Ping, None, None)),
            ("/v2/models/m/health", (Operation::Ping, some("m"), None)),
            ("/version", (Operation::Version, None, None)),
        ] {
            assert_eq!(parsed(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn paths_of_no_operation_are_not_parsed() {
        for path in [
            "",
            "/",
            "/v2",
            "/v2/models",
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models/m/",
            "/v2/models/m/versions",
            "/v2/models/m/versions/",
            "/v2/models/m/versions//infer",
            "/v2/models/m/versions/2/",
            "/v2/models/m/explain",
            "/v2/models/m/infer/more",
            "/iris/infer",
            "/predictions",
            "predict",
            "/v1/models/",
            "/v1/models/:predict",
            "/iris/invocations/",
        ] {
            assert_eq!(parsed(path), None, "{path}");
        }
    }

    #[test]
    fn other_models_and_versions_are_refused() {
        let target = Target::parse("/v2/models/wine/versions/2").unwrap();
        assert_eq!(
            target.check_model("iris").unwrap_err().to_string(),
            r#"model "wine" not found; this component serves "iris""#
        );
        assert_eq!(
            target.check_version("wine", "1").unwrap_err().to_string(),
            r#"version "2" of model "wine" not found; this component serves version "1""#
        );
        assert!(target.check_model("wine").is_ok());
        assert!(target.check_version("wine", "2").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_path_panics(path in ".*", tail in "(/|%|[0-9a-z]){0,12}") {
            let _ = Target::parse(&path);
            let _ = Target::parse(&format!("{MODELS}{tail}"));
        }
    }
}
