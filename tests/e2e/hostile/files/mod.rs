//! Graphs and components that are truncated, enormous, cyclic or inconsistent: `spinfer check` refuses each
//! with the reason.

mod components;
mod graphs;
mod onnx; // encodes graphs
mod trials; // the processes in which graphs are tried

/// A file, and a part of the error that it causes.
struct MalformedFile {
    name: &'static str,
    bytes: Vec<u8>,
    expected: &'static str,
}

fn malformed(name: &'static str, bytes: Vec<u8>, expected: &'static str) -> MalformedFile {
    MalformedFile { name, bytes, expected }
}

const HEAD: &str = "spin_manifest_version = 2\n[application]\nname = 'lies'\n";

/// An unsigned number with seven bits per byte, as in WebAssembly (5.2.2) and protobuf.
fn leb128(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
