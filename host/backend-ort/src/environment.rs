//! ONNX Runtime's environment, one per process.

#![expect(unsafe_code, reason = "the C API registers the allocator")]

use std::ffi::c_char;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use ort::AsPointer;
use ort::environment::Environment;
use ort::logging::LogLevel;
use parking_lot::Mutex;
use spinfer_backend::Error;
use tracing::{debug, info, warn};

use crate::error::{check, message};
use crate::{Library, Options, division};

/// The environment of this process, and the path of its library.
static ENVIRONMENT: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// The environment of this process. The first call loads the library.
pub(crate) fn environment(options: &Options) -> Result<Environment, Error> {
    let path = match &options.library {
        Library::At(path) => path,
        Library::Missing(why) => return Err(Error::Unsupported(why.clone())),
    };
    let mut environment = ENVIRONMENT.lock();
    if let Some((loaded, environment)) = &*environment {
        if loaded != path {
            debug!(loaded = %loaded.display(), requested = %path.display(), "another library is loaded");
        }
        return Ok(environment.clone());
    }
    let failed = |what: &dyn std::fmt::Display| {
        Error::Unsupported(format!("ONNX Runtime cannot be loaded from {}: {what}", path.display()))
    };
    let created = ort::init_from(path)
        .map_err(|e| failed(&e))?
        .with_name("spinfer")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|e| failed(&e.message()))?;
    register_arena(&created, options.memory).map_err(|e| failed(&e))?;
    division::guard(ort::api().Run as *const libc::c_void);
    info!(library = %path.display(), "ONNX Runtime loaded");
    *environment = Some((path.clone(), created.clone()));
    Ok(created)
}

/// Logs a message of the library. Failures of loads and runs are returned as errors, too.
fn log(level: LogLevel, _category: &str, _id: &str, location: &str, text: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info | LogLevel::Warning => debug!(location, "{text}"),
        LogLevel::Error => debug!(location, error = true, "{text}"),
        LogLevel::Fatal => warn!(location, "{text}"),
    }
}

/// Registers the arena that runs of all sessions allocate from.
fn register_arena(environment: &Environment, memory: usize) -> Result<(), String> {
    let api = ort::api();
    let keys: [*const c_char; 2] = [c"max_mem".as_ptr(), c"arena_extend_strategy".as_ptr()];
    // 1: extend by the size of the request. The default doubles the size.
    let values: [usize; 2] = [memory, 1];
    let mut config = ptr::null_mut();
    let mut info = ptr::null_mut();
    // SAFETY: the pointers are valid for the calls. Both objects are released below, as ONNX
    // Runtime copies them.
    unsafe {
        check((api.CreateArenaCfgV2)(keys.as_ptr(), values.as_ptr(), keys.len(), &raw mut config))
            .map_err(|status| status.message)?;
        let registered = check((api.CreateCpuMemoryInfo)(
            ort_sys::OrtAllocatorType::OrtArenaAllocator,
            ort_sys::OrtMemType::OrtMemTypeDefault,
            &raw mut info,
        ))
        .and_then(|()| {
            check((api.CreateAndRegisterAllocator)(environment.ptr().cast_mut(), info, config))
        });
        (api.ReleaseArenaCfg)(config);
        if !info.is_null() {
            (api.ReleaseMemoryInfo)(info);
        }
        registered.map_err(|status| message(&status.message))
    }
}

/// Returns unused memory of the arena to the system.
pub(crate) fn release_memory() {
    let environment = ENVIRONMENT.lock();
    let Some((_, environment)) = &*environment else { return };
    let api = ort::api();
    let mut info = ptr::null_mut();
    let mut allocator = ptr::null_mut();
    // SAFETY: the pointers are valid for the calls. The allocator belongs to the environment, which
    // lives as long as this process. `Shrink` exists since version 25 of the allocator's interface.
    unsafe {
        let found = check((api.CreateCpuMemoryInfo)(
            ort_sys::OrtAllocatorType::OrtArenaAllocator,
            ort_sys::OrtMemType::OrtMemTypeDefault,
            &raw mut info,
        ))
        .and_then(|()| {
            check((api.GetSharedAllocator)(environment.ptr().cast_mut(), info, &raw mut allocator))
        });
        if !info.is_null() {
            (api.ReleaseMemoryInfo)(info);
        }
        if found.is_err() || allocator.is_null() {
            return;
        }
        if let (25.., Some(shrink)) = ((*allocator).version, (*allocator).Shrink)
            && let Err(status) = check(shrink(allocator))
        {
            debug!(error = status.message, "ONNX Runtime's arena did not shrink");
        }
    }
}
