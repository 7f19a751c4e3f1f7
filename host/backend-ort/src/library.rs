//! ONNX Runtime's shared library: where it is found.

use std::path::{Path, PathBuf};

use crate::Library;

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
