//! What becomes of a case: loaded and run as the host does.

use std::sync::Arc;

use spinfer::inference::{LoadRequest, Loaded, bind, load_with_first};
use spinfer_backend::{Backend, Encoding, Error, ExecutionTarget, Tensor};

use crate::case::{Case, Expected, OnnxRuntime, Run, Value};
use crate::compare::{Tolerance, difference};
use crate::tensors::tensor;

/// Between two calls of one library: nothing but sums in another order.
const ONNX_RUNTIMES_OWN: f64 = 1e-5;
/// Of the largest element: what FP16 has, and ten thousand times what sums of FP32 lose.
const ROUNDING: f64 = 1e-3;

#[derive(Debug)]
pub(crate) enum Outcome {
    /// In this backend.
    Right(&'static str),
    /// ONNX Runtime's numbers, which are the standard's but for rounding beyond its tolerance.
    Rounded,
    /// ONNX Runtime's numbers, which are not the standard's: how.
    AsOnnxRuntime(String),
    /// When it was loaded: why.
    Refused(String),
    /// When it was run, as an error of the client's: ONNX Runtime runs it on no such inputs.
    RefusedRun(String),
    Wrong(String),
    /// Accepted, and then an error that is not the client's, or on inputs that ONNX Runtime takes.
    Failed(String),
}

impl Outcome {
    pub(crate) fn is_right(&self) -> bool {
        matches!(self, Self::Right(_))
    }
}

pub(crate) fn of(backends: &[Arc<dyn Backend>], case: &Case) -> Outcome {
    let request = LoadRequest::default();
    let loaded =
        load_with_first(backends, &case.model, Encoding::Onnx, ExecutionTarget::Cpu, request);
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(Error::Unsupported(why) | Error::InvalidEncoding(why)) => return Outcome::Refused(why),
        Err(error) => return Outcome::Failed(format!("when it was loaded: {error:?}")),
    };
    let mut others = None;
    // The first once more: nothing stays from one run to the next.
    for run in case.runs.iter().chain(case.runs.first()) {
        match run_once(&loaded, case, run) {
            Outcome::Right(_) => {}
            outcome @ (Outcome::Rounded | Outcome::AsOnnxRuntime(_)) => others = Some(outcome),
            outcome => return outcome,
        }
    }
    others.unwrap_or(Outcome::Right(loaded.backend))
}

fn run_once(loaded: &Loaded, case: &Case, run: &Run) -> Outcome {
    let mut named = Vec::new();
    for (name, value) in &run.inputs {
        let Some(tensor) = tensor(value) else {
            return Outcome::Failed(format!("loaded, but its input `{name}` is no tensor"));
        };
        named.push((name.clone(), tensor));
    }
    let result =
        bind(loaded.graph.inputs(), named).and_then(|inputs| Ok(loaded.graph.run(inputs)?.0));
    let outputs = match (result, case.want) {
        (Ok(outputs), Expected::Outputs) => outputs,
        (Ok(_), Expected::ClientError) => {
            return Outcome::Wrong("computed a client's mistake".into());
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
        return Outcome::Right(loaded.backend);
    };
    let is_onnxruntimes = !run.others.is_empty()
        && differs(&run.others, Tolerance::OfLargest(ONNX_RUNTIMES_OWN)).is_none();
    if !is_onnxruntimes {
        return Outcome::Wrong(format!("{}: {how}", loaded.backend));
    }
    match differs(&run.outputs, Tolerance::OfLargest(ROUNDING)) {
        None => Outcome::Rounded,
        Some(how) => Outcome::AsOnnxRuntime(how),
    }
}

/// Whether a message is one for a client: without a backend's source, paths, or numbers of the graph.
fn of_message(loaded: &Loaded, message: &str) -> Outcome {
    let internal = [".cc", ".h:", "::", "/", "onnxruntime", "0.25", "0.125", "0.0625"];
    match internal.iter().find(|part| message.contains(**part)) {
        None => Outcome::Right(loaded.backend),
        Some(part) => Outcome::Wrong(format!("the message holds `{part}`: {message}")),
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
            return Some(format!("the output `{name}` is no tensor"));
        };
        difference(got, &expected, tolerance).map(|how| format!("output `{name}`: {how}"))
    })
}

/// The tensors of an output, as the host names them: those of a sequence are numbered.
fn parts<'a>(name: &str, value: &'a Value) -> Vec<(String, &'a Value)> {
    match value {
        Value::Sequence(values) => {
            values.iter().enumerate().map(|(n, value)| (format!("{name}_{n}"), value)).collect()
        }
        value => vec![(name.to_owned(), value)],
    }
}
