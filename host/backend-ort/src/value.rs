//! Values of ONNX Runtime. Inputs borrow the data of a tensor, outputs are copied.

#![expect(unsafe_code, reason = "the C API")]

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use ort_sys::{ONNXTensorElementDataType as ElementType, OrtMemoryInfo, OrtValue};
use spinfer_backend::{Error, Tensor, TensorType, strings};

use crate::error::{Status, check};
use crate::native_info::{NativeInfo, element_type};
use crate::run::RunFailure;

pub(crate) fn no_output(info: &NativeInfo) -> Error {
    Error::Runtime(format!("the graph did not compute its output `{}`", info.shown()))
}

/// A value of ONNX Runtime, which may borrow its data.
pub(crate) struct Value<'a> {
    pub(crate) pointer: NonNull<OrtValue>,
    /// A copy of the data of an input that was not aligned.
    _aligned: Option<Vec<u64>>,
    _data: std::marker::PhantomData<&'a [u8]>,
}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: it is released once, and not used afterwards.
        unsafe { (ort::api().ReleaseValue)(self.pointer.as_ptr()) };
    }
}

impl<'a> Value<'a> {
    pub(crate) fn new(pointer: NonNull<OrtValue>) -> Self {
        Self { pointer, _aligned: None, _data: std::marker::PhantomData }
    }

    /// An input, which borrows `data` and does not write to it.
    pub(crate) fn of(
        tensor: &Tensor,
        data: &'a [u8],
        info: &NativeInfo,
    ) -> Result<Self, RunFailure> {
        let shape: Vec<i64> = tensor.dimensions.iter().map(|&axis| i64::from(axis)).collect();
        if info.ty == TensorType::String {
            return Self::of_strings(&shape, data);
        }
        let element = info.ty.size().unwrap_or(1);
        let aligned = (data.as_ptr().align_offset(element) != 0).then(|| {
            let mut aligned = vec![0_u64; data.len().div_ceil(8)];
            // SAFETY: the words have at least `data.len()` bytes, and any bytes are valid words.
            let bytes = unsafe {
                std::slice::from_raw_parts_mut(aligned.as_mut_ptr().cast::<u8>(), data.len())
            };
            bytes.copy_from_slice(data);
            aligned
        });
        let start = aligned.as_ref().map_or(data.as_ptr(), |aligned| aligned.as_ptr().cast());
        let mut value = ptr::null_mut();
        // SAFETY: the data outlives the value and is only read. The host has checked that its
        // length matches the shape.
        unsafe {
            check((ort::api().CreateTensorWithDataAsOrtValue)(
                memory_info()?,
                start.cast_mut().cast::<c_void>(),
                data.len(),
                shape.as_ptr(),
                shape.len(),
                element_type(info.code),
                &raw mut value,
            ))?;
        }
        let pointer = NonNull::new(value).ok_or_else(|| no_value(info))?;
        Ok(Self { pointer, _aligned: aligned, _data: std::marker::PhantomData })
    }

    fn of_strings(shape: &[i64], data: &[u8]) -> Result<Self, RunFailure> {
        let api = ort::api();
        let (mut allocator, mut value) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the pointers are valid for the calls. Each buffer has the requested length.
        unsafe {
            check((api.GetAllocatorWithDefaultOptions)(&raw mut allocator))?;
            let ty = ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING;
            let (axes, rank) = (shape.as_ptr(), shape.len());
            check((api.CreateTensorAsOrtValue)(allocator, axes, rank, ty, &raw mut value))?;
            let pointer = NonNull::new(value).ok_or_else(|| {
                Error::Runtime("ONNX Runtime created no tensor of strings".into())
            })?;
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

    /// Copies an output.
    pub(crate) fn tensor(&self, info: &NativeInfo) -> Result<Tensor, RunFailure> {
        let api = ort::api();
        let pointer = self.pointer.as_ptr();
        let mut code = ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let (mut axes, mut rank) = (ptr::null(), 0);
        let mut has = 0;
        // SAFETY: the value lives. It owns the shape, which is copied at once.
        let dimensions = unsafe {
            check((api.HasValue)(pointer, &raw mut has))?;
            if has == 0 {
                return Err(no_output(info).into());
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
            Error::Runtime(format!(
                "the output `{}` has an axis of 2^32 elements or more",
                info.shown()
            ))
        })?;
        if code != element_type(info.code) {
            return Err(Error::Runtime(format!(
                "the output `{}` has another type than the graph declares",
                info.shown()
            ))
            .into());
        }
        let elements = dimensions.iter().try_fold(1_usize, |n, &axis| n.checked_mul(axis as usize));
        let elements = elements.ok_or_else(|| no_output(info))?;
        let data = match (info.ty, info.conversion) {
            (TensorType::String, _) => self.string_data(elements)?,
            (_, Some(conversion)) => {
                conversion.widen(&self.bytes(conversion.bytes(elements))?, elements)
            }
            (ty, None) => self.bytes(elements * ty.size().unwrap_or(1))?,
        };
        Ok(Tensor { dimensions, ty: info.ty, data })
    }

    fn bytes(&self, length: usize) -> Result<Vec<u8>, Status> {
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut data = ptr::null_mut();
        // SAFETY: the value lives, and has the number of bytes of its shape and type.
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
        // SAFETY: the value lives. Both buffers have the lengths that are passed.
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
                .map_err(|_| Error::TooLarge("a string is longer than 4 GiB".into()))?;
            data.extend(length.to_le_bytes());
            data.extend_from_slice(string);
        }
        Ok(data)
    }
}

fn no_value(info: &NativeInfo) -> Error {
    Error::Runtime(format!("ONNX Runtime created no value for the input `{}`", info.shown()))
}

/// ONNX Runtime's description of this process's memory, created once.
fn memory_info() -> Result<*const OrtMemoryInfo, Status> {
    struct Info(*mut OrtMemoryInfo);
    // SAFETY: it is neither written to nor released.
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
    // If two threads create one, the second is leaked.
    Ok(INFO.get_or_init(|| Info(info)).0.cast_const())
}
