//! The model: its signature, and its graph ready to compute. Loaded once for the life of the
//! instance.

use std::fmt;

use crate::error::Error;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::Tensor;

/// A loaded model version.
pub struct Graph {
    signature: Signature,
    context: Box<dyn ExecutionContext>,
}

/// What runs the graph: `wasi:nn`, and a stand-in in tests.
pub(crate) trait ExecutionContext {
    /// Gives the outputs that `outputs` describes, in that order.
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

    /// What `model.toml` says of the model.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Runs the graph. `inputs` are all of its inputs, in any order; the outputs come in the order of
    /// their names here.
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

/// The outputs that were asked for.
pub(crate) fn all<const N: usize>(outputs: Vec<Tensor>) -> Result<[Tensor; N], Error> {
    outputs.try_into().map_err(|outputs: Vec<_>| {
        Error::internal(format!("asked for {N} outputs, got {}", outputs.len()))
    })
}

/// A file of the model that is missing, and what to write to have it.
#[cold]
pub(crate) fn not_mounted(name: &str, file: &str, problem: &dyn fmt::Display) -> Error {
    let problem = format!(
        "{problem}; mount a version of the model in the component's manifest entry: \
         files = [{{ source = \"models/{name}/<version>\", destination = \"/models/{name}\" }}]"
    );
    unloadable(name, file, &problem)
}

/// A file of the model that is wrong.
#[cold]
pub(crate) fn unloadable(name: &str, file: &str, problem: &dyn fmt::Display) -> Error {
    Error::unavailable(format!(
        "the model {name:?} cannot be loaded: /models/{name}/{file}: {problem}"
    ))
}

#[cfg(any(test, fuzzing))]
pub(crate) mod stub {
    use std::rc::Rc;

    use super::*;

    /// Computes with a closure.
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

    pub(crate) fn graph(
        signature: Signature,
        compute: impl Fn(Vec<Tensor>) -> Result<Vec<Tensor>, Error> + 'static,
    ) -> Rc<Graph> {
        Rc::new(Graph::new(signature, Closure(compute)))
    }
}
