//! Maps ONNX Runtime's errors. Its messages contain paths of its source, names of nodes, shapes and
//! values of weights, so they are logged, and a client receives a message without these.

#![expect(unsafe_code, reason = "statuses are pointers")]

use std::ffi::CStr;

use ort_sys::{OrtErrorCode, OrtStatusPtr};
use spinfer_backend::Error;
use tracing::debug;

/// A status other than success.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) code: OrtErrorCode,
    pub(crate) message: String,
}

/// Converts a status to a result, and releases it.
///
/// # Safety
/// `status` is null, or a status that no other code releases.
pub(crate) unsafe fn check(OrtStatusPtr(status): OrtStatusPtr) -> Result<(), Status> {
    if status.is_null() {
        return Ok(());
    }
    let api = ort::api();
    // SAFETY: the status is valid until it is released, and so is its message.
    unsafe {
        let code = (api.GetErrorCode)(status);
        let message = CStr::from_ptr((api.GetErrorMessage)(status)).to_string_lossy().into_owned();
        (api.ReleaseStatus)(status);
        Err(Status { code, message })
    }
}

/// A message without paths of ONNX Runtime's source, on one line of at most 300 bytes.
pub(crate) fn message(text: &str) -> String {
    const MAX: usize = 300;
    let words = text.split_whitespace().filter(|word| !is_source_location(word));
    let mut line = words.collect::<Vec<_>>().join(" ");
    if line.len() > MAX {
        line.truncate(line.floor_char_boundary(MAX));
        line.push_str(" ...");
    }
    line
}

fn is_source_location(word: &str) -> bool {
    // `void` and `static` precede the name of a function in its signature.
    let source = ["/onnxruntime_src/", ".cc:", ".h:", "onnxruntime::"];
    matches!(word, "void" | "static") || source.iter().any(|part| word.contains(part))
}

/// Maps a failure to load a graph.
pub(crate) fn of_load(status: &Status) -> Error {
    let Status { code, message: text } = status;
    debug!(code = ?code, "{text}");
    let text = message(text);
    let between =
        |from: &str, to: &str| Some(text.split_once(from)?.1.split_once(to)?.0.to_owned());
    if text.contains("is not a registered function/op") {
        let operator = between("Fatal error: ", " is not a registered").unwrap_or_default();
        return Error::Unsupported(format!(
            "ONNX Runtime does not have the operator {}",
            operator.trim_start_matches(':').trim_end_matches("(-1)").replace(':', ".")
        ));
    }
    match code {
        OrtErrorCode::ORT_NOT_IMPLEMENTED => {
            let operator = between("implementation for ", " node")
                .or_else(|| between("find kernel for ", " (node"))
                .unwrap_or_else(|| text.clone());
            Error::Unsupported(format!(
                "ONNX Runtime has no implementation on the CPU of {operator} for these types"
            ))
        }
        OrtErrorCode::ORT_INVALID_PROTOBUF | OrtErrorCode::ORT_NO_MODEL => {
            Error::InvalidEncoding(format!("not an ONNX model: {text}"))
        }
        _ => Error::Unsupported(format!("ONNX Runtime cannot load this graph: {text}")),
    }
}

/// Maps a failed run. Its inputs fit the graph's declaration, so that most failures are caused by
/// their values and are errors of the client.
pub(crate) fn of_run(status: &Status) -> Error {
    let Status { code, message: text } = status;
    debug!(code = ?code, "a run failed: {text}");
    let lower = text.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    if has(&["terminate flag"]) {
        return Error::Runtime("the inference was cancelled".into());
    }
    if has(&["available memory of", "failed to allocate memory", "bad_alloc", "std::bad_array"]) {
        return Error::TooLarge(
            "the intermediate results for these inputs exceed the memory limit; send fewer or smaller \
             rows"
                .into(),
        );
    }
    let operator = text
        .split_once("while running ")
        .and_then(|(_, rest)| rest.split_once(" node"))
        .map(|(operator, _)| operator)
        .filter(|operator| operator.len() <= 60 && operator.chars().all(is_operator_character));
    let at = operator.map_or_else(String::new, |operator| format!("the operator {operator} of "));
    let why = if has(&["division by zero"]) {
        "an integer is divided by zero"
    } else if has(&[
        "out of data bounds",
        "out of bounds",
        "out of range",
        "must be within",
        "index",
    ]) {
        "an index in the inputs is out of range"
    } else if has(&[
        "broadcast",
        "dimension",
        "shape",
        "axis",
        "axes",
        "rank",
        "size",
        "mismatch",
        "reshape",
    ]) {
        "shapes of the inputs do not fit together inside the graph"
    } else {
        "the values or shapes of the inputs are not ones it can be computed for"
    };
    Error::InvalidArgument(format!("{at}the graph cannot be run on these inputs: {why}"))
}

fn is_operator_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: OrtErrorCode, message: &str) -> Status {
        Status { code, message: message.to_owned() }
    }

    #[test]
    fn a_failed_run_is_an_error_of_the_client_without_weights() {
        for (text, part) in [
            (
                "Non-zero status code returned while running Gather node. Name:'secret' Status \
                 Message: indices element out of data bounds, idx=5 must be within the inclusive \
                 range [-5,4]",
                "the operator Gather of the graph cannot be run on these inputs: an index",
            ),
            (
                "Non-zero status code returned while running Add node. Name:'secret' Status \
                 Message: /onnxruntime_src/onnxruntime/core/x.h:563 void \
                 onnxruntime::BroadcastIterator::Init(ptrdiff_t) axis == 1 was false. Attempting to \
                 broadcast an axis by a dimension other than 1. 4 by 6",
                "shapes of the inputs do not fit",
            ),
            ("element_wise_ops.cc:703 Compute Integer division by zero", "divided by zero"),
            ("secret", "not ones it can be computed for"),
        ] {
            let error = of_run(&status(OrtErrorCode::ORT_FAIL, text));
            let Error::InvalidArgument(message) = error else { panic!("{error:?}") };
            assert!(message.contains(part), "{message}");
            assert!(!message.contains("secret") && !message.contains("onnxruntime"), "{message}");
        }
        let over = "Available memory of 10 is smaller than requested bytes of 20";
        let error = of_run(&status(OrtErrorCode::ORT_FAIL, over));
        assert!(matches!(error, Error::TooLarge(_)), "{error:?}");
    }

    #[test]
    fn a_graph_that_cannot_be_loaded_is_refused_with_its_operator() {
        let load = |code, text| of_load(&status(code, text)).to_string();
        assert_eq!(
            load(
                OrtErrorCode::ORT_FAIL,
                "Load model from memory failed:Fatal error: com.acme:Frobnicate(-1) is not a \
                 registered function/op"
            ),
            "ONNX Runtime does not have the operator com.acme.Frobnicate"
        );
        assert_eq!(
            load(
                OrtErrorCode::ORT_NOT_IMPLEMENTED,
                "Could not find an implementation for Det(11) node with name 'x'"
            ),
            "ONNX Runtime has no implementation on the CPU of Det(11) for these types"
        );
        assert_eq!(
            load(
                OrtErrorCode::ORT_NOT_IMPLEMENTED,
                "Failed to find kernel for Cast(25) (node:'x' ep:'CPUExecutionProvider'). Op with name \
                 (x) domain () and type (Cast) kernel is not supported"
            ),
            "ONNX Runtime has no implementation on the CPU of Cast(25) for these types"
        );
        let long = load(OrtErrorCode::ORT_INVALID_GRAPH, &"word ".repeat(1000));
        assert!(long.len() < 400, "{long}");
    }
}
