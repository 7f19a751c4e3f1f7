//! A loaded graph.

use ort::environment::Environment;
use spinfer_backend::{Cancellation, Error, LoadOptions, Tensor, TensorInfo};
use spinfer_onnx::ValueInfoProto;

use crate::error::{Status, of_load};
use crate::native_info::{NativeInfo, describe, of_output, onnx_element_type, shape};
use crate::run::{RunFailure, run};
use crate::signature::{self, Signature};
use crate::{division, error};

/// A session of ONNX Runtime. Any number of threads may run it.
#[derive(Debug)]
pub(crate) struct Session {
    session: ort::session::Session,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    native_inputs: Vec<NativeInfo>,
    native_outputs: Vec<NativeInfo>,
    threads: usize,
    data_dependent: bool,
}

impl Session {
    pub(crate) fn load(
        environment: &Environment,
        bytes: &[u8],
        LoadOptions { threads }: LoadOptions,
    ) -> Result<Self, Error> {
        let Signature { model, inputs, outputs, data_dependent } = signature::read(bytes)?;
        let free = |value: &ValueInfoProto| {
            shape(value).is_none_or(|shape| shape.axes.iter().any(Option::is_none))
        };
        // ONNX Runtime caches a memory plan for each combination of sizes, which clients choose.
        let fixed = !inputs.iter().any(free);
        let built = builder(environment, threads, fixed)
            .and_then(|mut builder| builder.commit_from_memory(&model));
        let session = built.map_err(|e| {
            of_load(&Status { code: e.code().into(), message: e.message().to_owned() })
        })?;
        let (mut input_infos, mut native_inputs) = (Vec::new(), Vec::new());
        for input in &inputs {
            let code = onnx_element_type(input).unwrap_or_default();
            let (info, native) = describe(&input.name, code, shape(input))?;
            input_infos.push(info);
            native_inputs.push(native);
        }
        let (mut output_infos, mut native_outputs) = (Vec::new(), Vec::new());
        for (outlet, declared) in session.outputs().iter().zip(&outputs) {
            let (code, shape) = of_output(outlet, declared)?;
            let (info, native) = describe(&declared.name, code, shape)?;
            output_infos.push(info);
            native_outputs.push(native);
        }
        let (inputs, outputs) = (input_infos, output_infos);
        Ok(Self {
            session,
            inputs,
            outputs,
            native_inputs,
            native_outputs,
            threads,
            data_dependent,
        })
    }

    pub(crate) fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    pub(crate) fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    pub(crate) fn data_dependent(&self) -> bool {
        self.data_dependent
    }

    pub(crate) fn run(
        &self,
        inputs: &[Tensor],
        cancellation: Option<&Cancellation>,
    ) -> Result<Vec<Tensor>, Error> {
        let Self { session, native_inputs, native_outputs, threads, .. } = self;
        let narrowed = inputs
            .iter()
            .zip(native_inputs)
            .map(|(tensor, info)| match info.conversion {
                Some(conversion) => conversion.narrow(&info.shown(), &tensor.data).map(Some),
                None => Ok(None),
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let data: Vec<&[u8]> = inputs
            .iter()
            .zip(&narrowed)
            .map(|(tensor, narrowed)| narrowed.as_ref().unwrap_or(&tensor.data).as_slice())
            .collect();
        let work = || run(session, inputs, &data, native_inputs, native_outputs, cancellation);
        let (outputs, refused) = division::watch(*threads, work);
        if refused {
            return Err(Error::InvalidArgument(
                "the graph cannot be run on these inputs: an integer is divided by zero, or its \
                 type's smallest number by -1"
                    .into(),
            ));
        }
        outputs.map_err(|failure| match failure {
            RunFailure::Status(status) => error::of_run(&status),
            RunFailure::Error(error) => error,
        })
    }
}

fn builder(
    environment: &Environment,
    threads: usize,
    fixed: bool,
) -> Result<ort::session::builder::SessionBuilder, ort::Error> {
    let builder = ort::session::Session::builder(environment)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        // Spinning threads would keep a processor busy while they wait.
        .with_intra_op_spinning(false)?
        .with_memory_pattern(fixed)?
        .with_env_allocators()?
        .with_device_allocated_initializers()?;
    Ok(builder)
}
