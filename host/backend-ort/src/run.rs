//! One run of a session, through ONNX Runtime's C API.

#![expect(unsafe_code, reason = "the C API")]

use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::{Arc, OnceLock};

use ort::AsPointer;
use ort_sys::{ONNXTensorElementDataType as ElementType, OrtMemoryInfo, OrtRunOptions, OrtValue};
use spinfer_backend::{Cancellation, Error, Tensor, TensorType, strings};

use crate::error::{Status, check};
use crate::small::Small;

/// An input or output as ONNX Runtime knows it.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) name: CString,
    /// Its element type, as `onnx.TensorProto.DataType` numbers it.
    pub(crate) code: i32,
    /// The element type the host sees.
    pub(crate) ty: TensorType,
    /// How the one becomes the other, where they differ.
    pub(crate) small: Option<Small>,
}

impl Edge {
    pub(crate) fn shown(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }
}

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
    input_edges: &[Edge],
    output_edges: &[Edge],
    cancellation: Option<&Cancellation>,
) -> Result<Vec<Tensor>, RunFailure> {
    let values = inputs
        .iter()
        .zip(data)
        .zip(input_edges)
        .map(|((tensor, data), edge)| Value::of(tensor, data, edge))
        .collect::<Result<Vec<_>, RunFailure>>()?;
    let options = match cancellation {
        Some(_) => Some(Arc::new(RunOptions::new()?)),
        None => None,
    };
    let pointers: Vec<*const OrtValue> =
        values.iter().map(|value| value.pointer.as_ptr().cast_const()).collect();
    let names = |edges: &[Edge]| edges.iter().map(|edge| edge.name.as_ptr()).collect::<Vec<_>>();
    let (input_names, output_names) = (names(input_edges), names(output_edges));
    let mut outputs: Vec<*mut OrtValue> = vec![ptr::null_mut(); output_edges.len()];
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
        .zip(output_edges)
        .map(|(output, edge)| match output {
            Some(value) => value.tensor(edge),
            None => Err(no_output(edge).into()),
        })
        .collect()
}

fn no_output(edge: &Edge) -> Error {
    Error::Runtime(format!("the graph did not compute its output `{}`", edge.shown()))
}

/// A value of ONNX Runtime's, which may borrow its data.
struct Value<'a> {
    pointer: NonNull<OrtValue>,
    /// The data of an input that was not aligned.
    _aligned: Option<Vec<u64>>,
    _data: std::marker::PhantomData<&'a [u8]>,
}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: it is released once, and nothing uses it any more.
        unsafe { (ort::api().ReleaseValue)(self.pointer.as_ptr()) };
    }
}

impl<'a> Value<'a> {
    fn new(pointer: NonNull<OrtValue>) -> Self {
        Self { pointer, _aligned: None, _data: std::marker::PhantomData }
    }

    /// An input. It borrows `data`, which is not written to.
    fn of(tensor: &Tensor, data: &'a [u8], edge: &Edge) -> Result<Self, RunFailure> {
        let shape: Vec<i64> = tensor.dimensions.iter().map(|&axis| i64::from(axis)).collect();
        if edge.ty == TensorType::String {
            return Self::of_strings(&shape, data);
        }
        let element = edge.ty.size().unwrap_or(1);
        let aligned = (data.as_ptr().align_offset(element) != 0).then(|| {
            let mut aligned = vec![0_u64; data.len().div_ceil(8)];
            // SAFETY: the words are as many bytes, and any bytes are words.
            let bytes = unsafe {
                std::slice::from_raw_parts_mut(aligned.as_mut_ptr().cast::<u8>(), data.len())
            };
            bytes.copy_from_slice(data);
            aligned
        });
        let start = aligned.as_ref().map_or(data.as_ptr(), |aligned| aligned.as_ptr().cast());
        let mut value = ptr::null_mut();
        // SAFETY: the data outlives the value, holds as many elements as the shape says (the host
        // checked that), and is read only.
        unsafe {
            check((ort::api().CreateTensorWithDataAsOrtValue)(
                memory_info()?,
                start.cast_mut().cast::<c_void>(),
                data.len(),
                shape.as_ptr(),
                shape.len(),
                element_type(edge.code),
                &raw mut value,
            ))?;
        }
        let pointer = NonNull::new(value).ok_or_else(|| no_value(edge))?;
        Ok(Self { pointer, _aligned: aligned, _data: std::marker::PhantomData })
    }

    fn of_strings(shape: &[i64], data: &[u8]) -> Result<Self, RunFailure> {
        let api = ort::api();
        let (mut allocator, mut value) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the pointers are valid for the calls; each buffer has the length it was asked for.
        unsafe {
            check((api.GetAllocatorWithDefaultOptions)(&raw mut allocator))?;
            let ty = ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING;
            let (axes, rank) = (shape.as_ptr(), shape.len());
            check((api.CreateTensorAsOrtValue)(allocator, axes, rank, ty, &raw mut value))?;
            let pointer =
                NonNull::new(value).ok_or_else(|| Error::Runtime("no tensor of strings".into()))?;
            let value = Self::new(pointer);
            for (index, string) in strings(data).flatten().enumerate() {
                let mut buffer = ptr::null_mut();
                check((api.GetResizedStringTensorElementBuffer)(
                    pointer.as_ptr(),
                    index,
                    string.len(),
                    &raw mut buffer,
                ))?;
                ptr::copy_nonoverlapping(string.as_ptr(), buffer.cast::<u8>(), string.len());
            }
            Ok(value)
        }
    }

    /// An output, copied.
    fn tensor(&self, edge: &Edge) -> Result<Tensor, RunFailure> {
        let api = ort::api();
        let pointer = self.pointer.as_ptr();
        let mut code = ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let (mut axes, mut rank) = (ptr::null(), 0);
        let mut has = 0;
        // SAFETY: the value lives; the shape is its own, and is copied at once.
        let dimensions = unsafe {
            check((api.HasValue)(pointer, &raw mut has))?;
            if has == 0 {
                return Err(no_output(edge).into());
            }
            check((api.GetTensorElementTypeAndShapeDataReference)(
                pointer,
                &raw mut code,
                &raw mut axes,
                &raw mut rank,
            ))?;
            let axes = if rank == 0 { &[] } else { std::slice::from_raw_parts(axes, rank) };
            axes.iter().map(|&axis| u32::try_from(axis)).collect::<Result<Vec<u32>, _>>()
        };
        let dimensions = dimensions.map_err(|_| {
            Error::Runtime(format!("the output `{}` has an axis over 2^32", edge.shown()))
        })?;
        if code != element_type(edge.code) {
            return Err(Error::Runtime(format!(
                "the output `{}` is of another type than the graph declares",
                edge.shown()
            ))
            .into());
        }
        let elements = dimensions.iter().try_fold(1_usize, |n, &axis| n.checked_mul(axis as usize));
        let elements = elements.ok_or_else(|| no_output(edge))?;
        let data = match (edge.ty, edge.small) {
            (TensorType::String, _) => self.string_data(elements)?,
            (_, Some(small)) => small.widen(&self.bytes(small.bytes(elements))?, elements),
            (ty, None) => self.bytes(elements * ty.size().unwrap_or(1))?,
        };
        Ok(Tensor { dimensions, ty: edge.ty, data })
    }

    fn bytes(&self, length: usize) -> Result<Vec<u8>, Status> {
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut data = ptr::null_mut();
        // SAFETY: the value lives, and holds as many bytes as its shape and type say.
        unsafe {
            check((ort::api().GetTensorMutableData)(self.pointer.as_ptr(), &raw mut data))?;
            Ok(std::slice::from_raw_parts(data.cast::<u8>(), length).to_vec())
        }
    }

    fn string_data(&self, elements: usize) -> Result<Vec<u8>, RunFailure> {
        if elements == 0 {
            return Ok(Vec::new());
        }
        let api = ort::api();
        let pointer = self.pointer.as_ptr();
        let mut length = 0;
        let mut offsets = vec![0_usize; elements];
        // SAFETY: the value lives; both buffers are as long as is said.
        let content = unsafe {
            check((api.GetStringTensorDataLength)(pointer, &raw mut length))?;
            let mut content = vec![0_u8; length];
            check((api.GetStringTensorContent)(
                pointer,
                content.as_mut_ptr().cast::<c_void>(),
                length,
                offsets.as_mut_ptr(),
                elements,
            ))?;
            content
        };
        let mut data = Vec::with_capacity(length + 4 * elements);
        let ends = offsets.iter().skip(1).copied().chain([length]);
        for (&start, end) in offsets.iter().zip(ends) {
            let string = content.get(start..end).unwrap_or_default();
            let length = u32::try_from(string.len())
                .map_err(|_| Error::TooLarge("a string of more than 4 GiB".into()))?;
            data.extend(length.to_le_bytes());
            data.extend_from_slice(string);
        }
        Ok(data)
    }
}

fn no_value(edge: &Edge) -> Error {
    Error::Runtime(format!("no value of the input `{}`", edge.shown()))
}

/// `onnx.TensorProto.DataType` as ONNX Runtime numbers it: the same, but for the last.
fn element_type(code: i32) -> ElementType {
    const TYPES: [ElementType; 24] = [
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_COMPLEX64,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_COMPLEX128,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FN,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FNUZ,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2FNUZ,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT4,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4,
        ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT4E2M1,
    ];
    match code {
        spinfer_onnx::data_type::UINT2 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT2,
        spinfer_onnx::data_type::INT2 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT2,
        code => usize::try_from(code)
            .ok()
            .and_then(|code| TYPES.get(code).copied())
            .unwrap_or(ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED),
    }
}

/// The description of memory of this process, made once.
fn memory_info() -> Result<*const OrtMemoryInfo, Status> {
    struct Info(*mut OrtMemoryInfo);
    // SAFETY: it is never written to, nor released.
    unsafe impl Send for Info {}
    // SAFETY: as above.
    unsafe impl Sync for Info {}
    static INFO: OnceLock<Info> = OnceLock::new();
    if let Some(Info(info)) = INFO.get() {
        return Ok(info.cast_const());
    }
    let mut info = ptr::null_mut();
    // SAFETY: the pointer is valid for the call.
    unsafe {
        check((ort::api().CreateCpuMemoryInfo)(
            ort_sys::OrtAllocatorType::OrtArenaAllocator,
            ort_sys::OrtMemType::OrtMemTypeDefault,
            &raw mut info,
        ))?;
    }
    // If two threads make one, the second is forgotten.
    Ok(INFO.get_or_init(|| Info(info)).0.cast_const())
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
