//! Values of ONNX Runtime: inputs borrow a tensor's data, outputs are copied.

#![expect(unsafe_code, reason = "the C API")]

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use ort_sys::{ONNXTensorElementDataType as ElementType, OrtMemoryInfo, OrtValue};
use spinfer_backend::{Error, Tensor, TensorType, strings};

use crate::error::{Status, check};
use crate::native_info::{NativeInfo, element_type};
use crate::run::RunFailure;

pub(crate) fn no_output(edge: &NativeInfo) -> Error {
    Error::Runtime(format!("the graph did not compute its output `{}`", edge.shown()))
}

/// A value of ONNX Runtime's, which may borrow its data.
pub(crate) struct Value<'a> {
    pub(crate) pointer: NonNull<OrtValue>,
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
    pub(crate) fn new(pointer: NonNull<OrtValue>) -> Self {
        Self { pointer, _aligned: None, _data: std::marker::PhantomData }
    }

    /// An input. It borrows `data`, which is not written to.
    pub(crate) fn of(
        tensor: &Tensor,
        data: &'a [u8],
        edge: &NativeInfo,
    ) -> Result<Self, RunFailure> {
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
    pub(crate) fn tensor(&self, edge: &NativeInfo) -> Result<Tensor, RunFailure> {
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

fn no_value(edge: &NativeInfo) -> Error {
    Error::Runtime(format!("no value of the input `{}`", edge.shown()))
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
