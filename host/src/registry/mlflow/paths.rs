//! Artifact paths, which are untrusted: they must be relative and stay in their folder.

use anyhow::{Result, ensure};

/// Maximum length of an artifact's path, in bytes: that of file systems.
const MAX_PATH: usize = 4096;

/// Splits a relative path into segments.
///
/// # Errors
/// If the path is absolute, leads out of its folder, or cannot be a file's.
pub fn segments(path: &str) -> Result<Vec<&str>> {
    let shown = || path.chars().take(200).collect::<String>();
    ensure!(path.len() <= MAX_PATH, "{:?}...: longer than {MAX_PATH} bytes", shown());
    ensure!(!path.starts_with('/'), "{:?} is an absolute path", shown());
    ensure!(
        !path.contains('\\') && !path.chars().any(char::is_control),
        "{:?} contains a backslash or a control character",
        shown()
    );
    let segments: Vec<&str> =
        path.split('/').filter(|segment| !segment.is_empty() && *segment != ".").collect();
    ensure!(!segments.contains(&".."), "{:?} leads out of the model's folder", shown());
    ensure!(!segments.is_empty(), "the path of a file is empty");
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn relative_paths_are_split() {
        assert_eq!(segments("model.onnx").unwrap(), ["model.onnx"]);
        assert_eq!(segments("./data//weights.bin").unwrap(), ["data", "weights.bin"]);
        assert_eq!(segments("a..b/...").unwrap(), ["a..b", "..."]);
    }

    #[test]
    fn paths_out_of_the_folder_are_refused() {
        for (path, problem) in [
            ("../model.onnx", "leads out"),
            ("data/../../x", "leads out"),
            ("/etc/passwd", "absolute"),
            ("a\\..\\b", "backslash"),
            ("a\0b", "control character"),
            ("", "empty"),
            ("./", "empty"),
            (&"x".repeat(5000), "longer than"),
        ] {
            let error = segments(path).unwrap_err().to_string();
            assert!(error.contains(problem), "{path:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn valid_paths_stay_in_their_folder(path in "[a./\\\\\u{0}é]{0,12}") {
            if let Ok(segments) = segments(&path) {
                let joined = segments.join("/");
                let within = Path::new(&joined).components().all(|part| matches!(part, Component::Normal(_)));
                prop_assert!(within, "{path:?} -> {joined:?}");
            }
        }
    }
}
