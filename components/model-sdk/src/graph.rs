//! The loaded model: its signature and its graph.

use std::fmt;

use crate::error::Error;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::Tensor;

/// A loaded model version.
pub struct Graph {
    signature: Signature,
    context: Box<dyn ExecutionContext>,
}

/// Runs the graph: `wasi:nn`, or a stub in tests.
pub(crate) trait ExecutionContext {
    /// Computes the outputs `outputs`, in that order.
    fn compute(
        &self,
        signature: &Signature,
        inputs: Vec<Tensor>,
        outputs: &[&TensorSignature],
    ) -> Result<Vec<Tensor>, Error>;
}

impl Graph {
    pub(crate) fn new(signature: Signature, context: impl ExecutionContext + 'static) -> Self {
        Self { signature, context: Box::new(context) }
    }

    /// The content of `model.toml`.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Runs the graph with all of its `inputs`, in any order, and returns the outputs of these names, in
    /// order.
    ///
    /// # Errors
    /// If an output is not in `model.toml`, or the inference fails: the error is the response's.
    pub fn compute<const N: usize>(
        &self,
        inputs: impl Into<Vec<Tensor>>,
        outputs: [&str; N],
    ) -> Result<[Tensor; N], Error> {
        let outputs: Vec<_> = outputs
            .iter()
            .map(|name| {
                let output = self.signature.outputs.iter().find(|output| output.name == *name);
                output.ok_or_else(|| Error::internal(format!("model.toml has no output {name:?}")))
            })
            .collect::<Result<_, _>>()?;
        all(self.compute_all(inputs.into(), &outputs)?)
    }

    /// As [`Self::compute`], for a number of outputs that is not known at compile time.
    pub(crate) fn compute_all(
        &self,
        inputs: Vec<Tensor>,
        outputs: &[&TensorSignature],
    ) -> Result<Vec<Tensor>, Error> {
        self.context.compute(&self.signature, inputs, outputs)
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("signature", &self.signature).finish_non_exhaustive()
    }
}

/// The outputs as an array.
pub(crate) fn all<const N: usize>(outputs: Vec<Tensor>) -> Result<[Tensor; N], Error> {
    outputs.try_into().map_err(|outputs: Vec<_>| {
        Error::internal(format!("expected {N} outputs, got {}", outputs.len()))
    })
}

/// The error for a missing file of the model, with the manifest entry that mounts it.
#[cold]
pub(crate) fn not_mounted(name: &str, file: &str, problem: &dyn fmt::Display) -> Error {
    let problem = format!(
        "{problem}; mount a version of the model in the component's manifest entry: \
         files = [{{ source = \"models/{name}/<version>\", destination = \"/models/{name}\" }}]"
    );
    unloadable(name, file, &problem)
}

/// The error for an invalid file of the model.
#[cold]
pub(crate) fn unloadable(name: &str, file: &str, problem: &dyn fmt::Display) -> Error {
    Error::unavailable(format!(
        "the model {name:?} cannot be loaded: /models/{name}/{file}: {problem}"
    ))
}

#[cfg(any(test, fuzzing, feature = "fuzzing"))]
pub(crate) mod stub {
    use std::rc::Rc;

    use super::*;

    /// An execution context that calls a closure.
    struct Closure<F>(F);

    impl<F> ExecutionContext for Closure<F>
    where
        F: Fn(Vec<Tensor>) -> Result<Vec<Tensor>, Error>,
    {
        fn compute(
            &self,
            _signature: &Signature,
            inputs: Vec<Tensor>,
            outputs: &[&TensorSignature],
        ) -> Result<Vec<Tensor>, Error> {
            let computed = (self.0)(inputs)?;
            let find = |name: &str| computed.iter().find(|tensor| tensor.name == name).cloned();
            Ok(outputs.iter().filter_map(|output| find(&output.name)).collect())
        }
    }

    /// A graph that `compute` stands for.
    pub(crate) fn graph(
        signature: Signature,
        compute: impl Fn(Vec<Tensor>) -> Result<Vec<Tensor>, Error> + 'static,
    ) -> Rc<Graph> {
        Rc::new(Graph::new(signature, Closure(compute)))
    }
}
