//! What a file is that is not WebAssembly, for the error of a component that is another file.

/// Start of WebAssembly, modules and components.
const MAGIC: &[u8] = b"\0asm";
/// Number of bytes by which a file is recognised.
const START: usize = 60;

/// What the file is, and what to do; `None` if it is WebAssembly.
pub(super) fn problem(bytes: &[u8]) -> Option<String> {
    if bytes.starts_with(MAGIC) {
        return None;
    }
    let start = &bytes[..bytes.len().min(START)];
    Some(match text(start) {
        _ if bytes.is_empty() => {
            "it is empty; build it again, for example with `spinfer build`".into()
        }
        Some(text) if text.starts_with("version https://git-lfs") => {
            "it is a pointer of Git LFS; fetch the file with `git lfs pull`".into()
        }
        Some(text) if text.starts_with('(') || text.starts_with(";;") => {
            "it is WebAssembly text; assemble it with `wasm-tools parse FILE -o FILE.wasm`".into()
        }
        Some(text) => format!(
            "it is a text file that starts with \"{}\"; `source` is the path of a .wasm file",
            text.lines().next().unwrap_or_default().trim_end()
        ),
        // The first field of ONNX is its version, a small number.
        None if matches!(bytes, [0x08, 1..32, ..]) => {
            "it looks like an ONNX model; `spinfer add FILE.onnx` adds one with the component that \
             serves it"
                .into()
        }
        None => "it is not WebAssembly; `source` is the path of a .wasm file".into(),
    })
}

/// The start of a file, if it is printable text.
fn text(start: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // A character can be cut at the end.
        Err(error) if error.valid_up_to() > 0 && error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let is_printable = |c: char| !c.is_control() || c.is_ascii_whitespace();
    text.chars().all(is_printable).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn file_is_recognised_by_its_start() {
        for (bytes, part) in [
            (&b""[..], "is empty"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"(component)", "WebAssembly text"),
            (b"fn main() {}\n// more", "a text file that starts with \"fn main() {}\";"),
            (b"\x08\x08\x12\x07pytorch", "spinfer add FILE.onnx"),
            (b"\x7fELF\x02\x01", "not WebAssembly"),
            (b"\xff\xfe\x00", "not WebAssembly"),
        ] {
            let problem = problem(bytes).unwrap();
            assert!(problem.contains(part), "{bytes:?}: {problem}");
        }
        assert_eq!(problem(b"\0asm\x01\0\0\0"), None);
        assert_eq!(problem(b"\0asm\x0d\0\x01\0"), None);
        // The cut is within a character.
        let cut = format!("{}\u{e9}", "x".repeat(START - 1));
        assert!(problem(cut.as_bytes()).unwrap().contains("a text file"));
    }

    proptest! {
        #[test]
        fn problem_is_one_short_line(bytes: Vec<u8>, text in "\\PC{0,100}") {
            for bytes in [bytes, text.into_bytes()] {
                let problem = problem(&bytes).unwrap_or_default();
                prop_assert!(problem.len() < 250 && problem.lines().count() <= 1, "{}", problem);
            }
        }
    }
}
