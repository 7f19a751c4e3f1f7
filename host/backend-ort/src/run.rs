//! One run of a session, through ONNX Runtime's C API.

#![expect(unsafe_code, reason = "the C API")]

use std::ptr::{self, NonNull};
use std::sync::Arc;

use ort::AsPointer;
use ort_sys::{OrtRunOptions, OrtValue};
use spinfer_backend::{Cancellation, Error, Tensor};

use crate::error::{Status, check};
use crate::native_info::NativeInfo;
use crate::value::{Value, no_output};

#[derive(Debug)]
pub(crate) enum RunFailure {
    /// Of ONNX Runtime.
    Status(Status),
    Error(Error),
}

impl From<Status> for RunFailure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Error> for RunFailure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Runs the graph. `data` is that of each of `inputs`, in the types of the graph.
pub(crate) fn run(
    session: &ort::session::Session,
    inputs: &[Tensor],
    data: &[&[u8]],
    native_inputs: &[NativeInfo],
    native_outputs: &[NativeInfo],
    cancellation: Option<&Cancellation>,
) -> Result<Vec<Tensor>, RunFailure> {
    let values = inputs
        .iter()
        .zip(data)
        .zip(native_inputs)
        .map(|((tensor, data), edge)| Value::of(tensor, data, edge))
        .collect::<Result<Vec<_>, RunFailure>>()?;
    let options = match cancellation {
        Some(_) => Some(Arc::new(RunOptions::new()?)),
        None => None,
    };
    let pointers: Vec<*const OrtValue> =
        values.iter().map(|value| value.pointer.as_ptr().cast_const()).collect();
    let names =
        |edges: &[NativeInfo]| edges.iter().map(|edge| edge.name.as_ptr()).collect::<Vec<_>>();
    let (input_names, output_names) = (names(native_inputs), names(native_outputs));
    let mut outputs: Vec<*mut OrtValue> = vec![ptr::null_mut(); native_outputs.len()];
    let mut call = || {
        // SAFETY: the session lives, and may be run by several threads at a time; the arrays are as
        // long as is said, and each value is of the session's type; null outputs are made by the
        // call, and are released below.
        unsafe {
            check((ort::api().Run)(
                session.ptr().cast_mut(),
                options.as_ref().map_or(ptr::null(), |options| options.0.as_ptr()),
                input_names.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                output_names.as_ptr(),
                output_names.len(),
                outputs.as_mut_ptr(),
            ))
        }
    };
    let ended = || Error::Runtime("the inference was ended".into());
    let result = match (cancellation, &options) {
        (Some(cancellation), Some(options)) => {
            let options = Arc::clone(options);
            cancellation.run(move || options.terminate(), call).ok_or_else(ended)?
        }
        _ => call(),
    };
    // All of them, so that each is released, whatever came of the run.
    let outputs: Vec<Option<Value<'_>>> =
        outputs.into_iter().map(|output| NonNull::new(output).map(Value::new)).collect();
    result?;
    outputs
        .into_iter()
        .zip(native_outputs)
        .map(|(output, edge)| match output {
            Some(value) => value.tensor(edge),
            None => Err(no_output(edge).into()),
        })
        .collect()
}

/// The handle by which a run is ended.
struct RunOptions(NonNull<OrtRunOptions>);

// SAFETY: ONNX Runtime reads and sets the flag of termination from any thread.
unsafe impl Send for RunOptions {}
// SAFETY: as above.
unsafe impl Sync for RunOptions {}

impl RunOptions {
    fn new() -> Result<Self, RunFailure> {
        let mut options = ptr::null_mut();
        // SAFETY: the pointer is valid for the call.
        unsafe { check((ort::api().CreateRunOptions)(&raw mut options)) }?;
        let options = NonNull::new(options);
        Ok(Self(options.ok_or_else(|| Error::Runtime("no options of a run".into()))?))
    }

    fn terminate(&self) {
        // SAFETY: the options live as long as this. Setting a flag does not fail.
        let _ = unsafe { check((ort::api().RunOptionsSetTerminate)(self.0.as_ptr())) };
    }
}

impl Drop for RunOptions {
    fn drop(&mut self) {
        // SAFETY: released once; the run is over, as it holds a reference.
        unsafe { (ort::api().ReleaseRunOptions)(self.0.as_ptr()) };
    }
}
