//! The outcome of a case, which is loaded and run as by the host.

use std::sync::Arc;

use spinfer::inference::{LoadRequest, LoadResult, bind, load_with_first};
use spinfer_backend::{Backend, Encoding, Error, ExecutionTarget, Tensor};

use crate::case::{Case, Expected, OnnxRuntime, Run, Value};
use crate::compare::{Tolerance, difference};
use crate::tensors::tensor;

/// Tolerance between two runs of ONNX Runtime, which only sum in another order.
const SAME_LIBRARY: f64 = 1e-5;
/// Tolerance for rounding, relative to the largest element: the precision of FP16, and 10,000 times the error
/// of FP32 sums.
const ROUNDING: f64 = 1e-3;

#[derive(Debug)]
pub(crate) enum Outcome {
    /// The expected results, from this backend.
    Correct(&'static str),
    /// ONNX Runtime's results, which differ from the standard's by rounding beyond its tolerance.
    Rounded,
    /// ONNX Runtime's results, which differ from the standard's: how.
    AsOnnxRuntime(String),
    /// At load time: the reason.
    Refused(String),
    /// At run time, as a client error: ONNX Runtime does not run it on these inputs.
    RefusedRun(String),
    Wrong(String),
    /// Accepted, and then an error that is not the client's, or one on inputs that ONNX Runtime accepts.
    Failed(String),
}

impl Outcome {
    pub(crate) fn is_correct(&self) -> bool {
        matches!(self, Self::Correct(_))
    }
}

pub(crate) fn of(backends: &[Arc<dyn Backend>], case: &Case) -> Outcome {
    let request = LoadRequest::default();
    let loaded =
        load_with_first(backends, &case.model, Encoding::Onnx, ExecutionTarget::Cpu, request);
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(Error::Unsupported(why) | Error::InvalidEncoding(why)) => return Outcome::Refused(why),
        Err(error) => return Outcome::Failed(format!("at load time: {error:?}")),
    };
    let mut others = None;
    // The first run is repeated: runs have no effect on later ones.
    for run in case.runs.iter().chain(case.runs.first()) {
        match run_once(&loaded, case, run) {
            Outcome::Correct(_) => {}
            outcome @ (Outcome::Rounded | Outcome::AsOnnxRuntime(_)) => others = Some(outcome),
            outcome => return outcome,
        }
    }
    others.unwrap_or(Outcome::Correct(loaded.backend))
}

fn run_once(loaded: &LoadResult, case: &Case, run: &Run) -> Outcome {
    let mut named = Vec::new();
    for (name, value) in &run.inputs {
        let Some(tensor) = tensor(value) else {
            return Outcome::Failed(format!("loaded, but its input `{name}` is not a tensor"));
        };
        named.push((name.clone(), tensor));
    }
    let result =
        bind(loaded.graph.inputs(), named).and_then(|inputs| Ok(loaded.graph.run(inputs)?.0));
    let outputs = match (result, case.want) {
        (Ok(outputs), Expected::Outputs) => outputs,
        (Ok(_), Expected::ClientError) => {
            return Outcome::Wrong("accepted a client error".into());
        }
        (Err(Error::InvalidArgument(message)), Expected::ClientError) => {
            return of_message(loaded, &message);
        }
        (Err(Error::InvalidArgument(message)), _) if case.onnxruntime == OnnxRuntime::Refused => {
            return Outcome::RefusedRun(message);
        }
        (Err(error), _) => return Outcome::Failed(format!("{error:?}")),
    };
    let names = loaded.graph.outputs().iter().map(|info| info.name.as_str());
    let got: Vec<(&str, &Tensor)> = names.zip(&outputs).collect();
    let differs = |expected, tolerance| differences(&got, expected, tolerance);
    let Some(how) = differs(&run.outputs, Tolerance::Each { rtol: case.rtol, atol: case.atol })
    else {
        return Outcome::Correct(loaded.backend);
    };
    let is_onnxruntimes_result = !run.others.is_empty()
        && differs(&run.others, Tolerance::OfLargest(SAME_LIBRARY)).is_none();
    if !is_onnxruntimes_result {
        return Outcome::Wrong(format!("{}: {how}", loaded.backend));
    }
    match differs(&run.outputs, Tolerance::OfLargest(ROUNDING)) {
        None => Outcome::Rounded,
        Some(how) => Outcome::AsOnnxRuntime(how),
    }
}

/// Whether a message is suitable for a client: without a backend's source, paths, or numbers of the graph.
fn of_message(loaded: &LoadResult, message: &str) -> Outcome {
    let internal = [".cc", ".h:", "::", "/", "onnxruntime", "0.25", "0.125", "0.0625"];
    match internal.iter().find(|part| message.contains(**part)) {
        None => Outcome::Correct(loaded.backend),
        Some(part) => Outcome::Wrong(format!("the message contains `{part}`: {message}")),
    }
}

fn differences(
    got: &[(&str, &Tensor)],
    expected: &[(String, Value)],
    tolerance: Tolerance,
) -> Option<String> {
    expected.iter().flat_map(|(name, value)| parts(name, value)).find_map(|(name, value)| {
        let Some((_, got)) = got.iter().find(|(of, _)| *of == name) else {
            return Some(format!("no output `{name}`"));
        };
        let Some(expected) = tensor(value) else {
            return Some(format!("the output `{name}` is not a tensor"));
        };
        difference(got, &expected, tolerance).map(|how| format!("output `{name}`: {how}"))
    })
}

/// The tensors of an output with the host's names: those of a sequence are numbered.
fn parts<'a>(name: &str, value: &'a Value) -> Vec<(String, &'a Value)> {
    match value {
        Value::Sequence(values) => {
            values.iter().enumerate().map(|(n, value)| (format!("{name}_{n}"), value)).collect()
        }
        value => vec![(name.to_owned(), value)],
    }
}
