//! Paths of files in a model version, which are untrusted.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

/// Maximum number of segments of a file's path.
const MAX_DEPTH: usize = 8;
/// Maximum length of a file's path, in bytes.
const MAX_PATH: usize = 255;

/// Checks the path of a file, which is untrusted: it must not lead out of its folder.
pub(super) fn check_title(title: &str) -> Result<()> {
    let parts: Vec<&str> = title.split('/').collect();
    let is_plain = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.contains(|c: char| c == '\\' || c == ':' || c.is_control())
    };
    ensure!(
        title.len() <= MAX_PATH && parts.len() <= MAX_DEPTH && parts.iter().all(is_plain),
        "{title:?} is not the name of a file in a version's folder"
    );
    Ok(())
}

/// Checks that paths are unique, and that no file is the folder of another.
pub(super) fn check_paths<'a>(titles: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for title in titles {
        ensure!(seen.insert(title), "{title:?} is listed twice");
    }
    for title in &seen {
        let mut path = *title;
        while let Some((folder, _)) = path.rsplit_once('/') {
            ensure!(!seen.contains(folder), "{folder:?} is a file and a folder");
            path = folder;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_out_of_the_folder_are_refused() {
        for title in ["model.onnx", "data/weights.bin", "a b (1).json"] {
            assert!(check_title(title).is_ok(), "{title}");
        }
        let long = "a".repeat(256);
        let deep = "a/".repeat(8) + "b";
        for title in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a/",
            "./a",
            "..",
            ".",
            ".hidden",
            "a/.b",
            "a\\b",
            "C:x",
            "a\0",
            "a\nb",
            &long,
            &deep,
        ] {
            assert!(check_title(title).is_err(), "{title:?}");
        }
    }

    proptest! {
        #[test]
        fn valid_paths_stay_in_their_folder(title in "(\\.|/|a|b|\\.\\.|\\\\|\\PC){0,12}") {
            if check_title(&title).is_ok() {
                let path = Path::new("/base").join(&title);
                prop_assert!(path.starts_with("/base"));
                let plain = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(Path::new(&title).components().all(plain));
            }
        }
    }
}
