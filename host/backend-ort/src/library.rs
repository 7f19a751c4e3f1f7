//! Finds ONNX Runtime's shared library.

use std::path::{Path, PathBuf};

use crate::Library;

/// File name of the library on this system.
pub const FILE: &str = if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else if cfg!(windows) {
    "onnxruntime.dll"
} else {
    "libonnxruntime.so"
};

/// Environment variable with the path of the library, the same as `ort`'s.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";

/// How to get the library.
const REMEDY: &str = "get it with `pip download --no-deps onnxruntime==1.32.0` (the library is in the \
     wheel, a ZIP file, under onnxruntime/capi) or `make onnxruntime`, and name it with \
     --onnxruntime <path> or the environment variable ORT_DYLIB_PATH, or put it into the folder of spinfer";

/// Looks for the library: at the path `named` (`--onnxruntime`), at the path in
/// [`VARIABLE`], in the folder of this program, in `../lib/spinfer`.
///
/// # Errors
/// If one of the paths is set and is not a file.
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
            "{by}: ONNX Runtime's library does not exist: {}; {REMEDY}",
            path.display()
        ));
    }
    let program = std::env::current_exe().and_then(|program| program.canonicalize());
    let folder = program.ok().and_then(|program| program.parent().map(Path::to_owned));
    let paths = folder
        .iter()
        .flat_map(|folder| [folder.join(FILE), folder.join("../lib/spinfer").join(FILE)]);
    let paths: Vec<PathBuf> = paths.collect();
    Ok(match paths.iter().find(|path| path.is_file()) {
        Some(path) => Library::At(path.clone()),
        None => {
            let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
            Library::Missing(format!("no ONNX Runtime in {}: {REMEDY}", paths.join(" or ")))
        }
    })
}
