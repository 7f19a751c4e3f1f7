//! ONNX Runtime's shared library: where it is found, and the one environment of this process.

#![expect(unsafe_code, reason = "the allocator is made by the C API")]

use std::ffi::c_char;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use ort::AsPointer;
use ort::environment::Environment;
use ort::logging::LogLevel;
use spinfer_backend::Error;
use tracing::{debug, info, warn};

use crate::error::{check, message};
use crate::{Library, Options, division};

/// The library's name on this system.
pub const FILE: &str = if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else if cfg!(windows) {
    "onnxruntime.dll"
} else {
    "libonnxruntime.so"
};

/// The environment variable that names the library, `ort`'s own.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";

/// What to do without the library.
const REMEDY: &str = "get it with `pip download --no-deps onnxruntime==1.32.0` (the library is in the \
     wheel, a ZIP file, under onnxruntime/capi) or `make onnxruntime`, and name it with \
     --onnxruntime <path> or the environment variable ORT_DYLIB_PATH, or put it beside spinfer";

/// The library that `named` is (`--onnxruntime`), or the environment variable names, or that is beside
/// this program or in `../lib/spinfer`.
///
/// # Errors
/// If one is named and is not a file.
pub fn find(named: Option<&Path>) -> Result<Library, String> {
    let variable = std::env::var_os(VARIABLE).map(PathBuf::from);
    let variable = variable.filter(|path| !path.as_os_str().is_empty());
    for (path, by) in [(named, "--onnxruntime"), (variable.as_deref(), VARIABLE)] {
        let Some(path) = path else { continue };
        let path = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        if path.is_file() {
            return Ok(Library::At(path));
        }
        return Err(format!(
            "{by}: ONNX Runtime's library is not there: {}; {REMEDY}",
            path.display()
        ));
    }
    let beside = std::env::current_exe().and_then(|program| program.canonicalize());
    let folder = beside.ok().and_then(|program| program.parent().map(Path::to_owned));
    let places = folder
        .iter()
        .flat_map(|folder| [folder.join(FILE), folder.join("../lib/spinfer").join(FILE)]);
    let places: Vec<PathBuf> = places.collect();
    Ok(match places.iter().find(|place| place.is_file()) {
        Some(place) => Library::At(place.clone()),
        None => {
            let places: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
            Library::Missing(format!("no ONNX Runtime in {}: {REMEDY}", places.join(" or ")))
        }
    })
}

/// The environment, of which a process has one, and the library it is of.
static ENVIRONMENT: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// The environment of this process, made when it is first needed.
pub(crate) fn environment(options: &Options) -> Result<Environment, Error> {
    let path = match &options.library {
        Library::At(path) => path,
        Library::Missing(why) => return Err(Error::Unsupported(why.clone())),
    };
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((loaded, environment)) = &*environment {
        if loaded != path {
            debug!(loaded = %loaded.display(), asked = %path.display(), "one library a process");
        }
        return Ok(environment.clone());
    }
    let failed = |what: &dyn std::fmt::Display| {
        Error::Unsupported(format!("ONNX Runtime cannot be loaded from {}: {what}", path.display()))
    };
    let made = ort::init_from(path)
        .map_err(|e| failed(&e))?
        .with_name("spinfer")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|e| failed(&e.message()))?;
    register_arena(&made, options.memory).map_err(|e| failed(&e))?;
    division::guard(ort::api().Run as *const libc::c_void);
    info!(library = %path.display(), "ONNX Runtime loaded");
    *environment = Some((path.clone(), made.clone()));
    Ok(made)
}

/// The library's own messages. Those about graphs and runs come back as errors, too.
fn log(level: LogLevel, _category: &str, _id: &str, location: &str, text: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info | LogLevel::Warning => debug!(location, "{text}"),
        LogLevel::Error => debug!(location, error = true, "{text}"),
        LogLevel::Fatal => warn!(location, "{text}"),
    }
}

/// The arena that the runs of all sessions take their memory from.
fn register_arena(environment: &Environment, memory: usize) -> Result<(), String> {
    let api = ort::api();
    let keys: [*const c_char; 2] = [c"max_mem".as_ptr(), c"arena_extend_strategy".as_ptr()];
    // Extended by what is asked for, and not by doubling.
    let values: [usize; 2] = [memory, 1];
    let mut config = ptr::null_mut();
    let mut info = ptr::null_mut();
    // SAFETY: the pointers are valid for the calls; what is made is released below, as ONNX Runtime
    // copies both.
    unsafe {
        check((api.CreateArenaCfgV2)(keys.as_ptr(), values.as_ptr(), keys.len(), &raw mut config))
            .map_err(|status| status.message)?;
        let made = check((api.CreateCpuMemoryInfo)(
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
        made.map_err(|status| message(&status.message))
    }
}

/// Returns memory of the arena that no run uses to the system.
pub(crate) fn release_memory() {
    let environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((_, environment)) = &*environment else { return };
    let api = ort::api();
    let mut info = ptr::null_mut();
    let mut allocator = ptr::null_mut();
    // SAFETY: the pointers are valid for the calls; the allocator is the environment's, which lives
    // as long as this process. `Shrink` is there from version 25 of the allocator's interface.
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
            debug!(error = status.message, "ONNX Runtime's arena does not shrink");
        }
    }
}
