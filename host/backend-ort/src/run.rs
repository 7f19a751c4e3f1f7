//! Runs of a session, through ONNX Runtime's C API.
//!
//! A run with a [`Cancellation`] has run options, whose flag of termination `cancel` sets. ONNX
//! Runtime reads the flag before each operator. Both threads hold a reference to the options, so
//! that these live until the later of the two is done:
//!
//! | `cancel` comes | effect |
//! | --- | --- |
//! | before the run starts | the run does not start: `Error::Runtime` |
//! | during the run | the flag is set; the run fails before its next operator: `Error::Runtime` |
//! | after the last operator | the flag is set without effect: the outputs are returned |
//! | after the run has returned | nothing is called; later runs with this `Cancellation` do not start |

#![expect(unsafe_code, reason = "the C API")]

use std::ptr::{self, NonNull};
use std::sync::Arc;

use ort::AsPointer;
use ort_sys::{OrtRunOptions, OrtValue};
use spinfer_backend::{Cancellation, Error, Tensor};

use crate::error::{Status, check};
use crate::native_info::NativeInfo;
use crate::value::{Value, no_output};

/// Why a run failed.
#[derive(Debug)]
pub(crate) enum RunFailure {
    /// An error of ONNX Runtime.
    Status(Status),
    /// An error of this crate, or a cancellation.
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

/// Runs the graph. `data` are the elements of each of `inputs`, in the types of the graph.
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
        .map(|((tensor, data), info)| Value::of(tensor, data, info))
        .collect::<Result<Vec<_>, RunFailure>>()?;
    let options = match cancellation {
        Some(_) => Some(Arc::new(RunOptions::new()?)),
        None => None,
    };
    let pointers: Vec<*const OrtValue> =
        values.iter().map(|value| value.pointer.as_ptr().cast_const()).collect();
    let names =
        |infos: &[NativeInfo]| infos.iter().map(|info| info.name.as_ptr()).collect::<Vec<_>>();
    let (input_names, output_names) = (names(native_inputs), names(native_outputs));
    let mut outputs: Vec<*mut OrtValue> = vec![ptr::null_mut(); native_outputs.len()];
    let mut call = || {
        // SAFETY: the session lives, and several threads may run it at the same time. The arrays
        // have the lengths that are passed, and each value has the session's type. The call
        // allocates the outputs, which are null, and they are released below.
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
    let cancelled = || Error::Runtime("the inference was cancelled".into());
    let result = match (cancellation, &options) {
        (Some(cancellation), Some(options)) => {
            let options = Arc::clone(options);
            cancellation.run(move || options.terminate(), call).ok_or_else(cancelled)?
        }
        _ => call(),
    };
    // All of them are wrapped first, so that each is released even if the run failed.
    let outputs: Vec<Option<Value<'_>>> =
        outputs.into_iter().map(|output| NonNull::new(output).map(Value::new)).collect();
    result?;
    outputs
        .into_iter()
        .zip(native_outputs)
        .map(|(output, info)| match output {
            Some(value) => value.tensor(info),
            None => Err(no_output(info).into()),
        })
        .collect()
}

/// The options of one run, with its flag of termination.
struct RunOptions(NonNull<OrtRunOptions>);

// SAFETY: ONNX Runtime reads and sets the flag from any thread.
unsafe impl Send for RunOptions {}
// SAFETY: as above.
unsafe impl Sync for RunOptions {}

impl RunOptions {
    fn new() -> Result<Self, RunFailure> {
        let mut options = ptr::null_mut();
        // SAFETY: the pointer is valid for the call.
        unsafe { check((ort::api().CreateRunOptions)(&raw mut options)) }?;
        let options = NonNull::new(options);
        Ok(Self(
            options.ok_or_else(|| Error::Runtime("ONNX Runtime created no run options".into()))?,
        ))
    }

    /// Sets the flag of termination.
    fn terminate(&self) {
        // SAFETY: the options live as long as this. Setting the flag does not fail.
        let _ = unsafe { check((ort::api().RunOptionsSetTerminate)(self.0.as_ptr())) };
    }
}

impl Drop for RunOptions {
    fn drop(&mut self) {
        // SAFETY: they are released once. The run has returned, as it holds a reference.
        unsafe { (ort::api().ReleaseRunOptions)(self.0.as_ptr()) };
    }
}
