//! Merges weights in external files (ONNX's external data) into their graph: a model version is one
//! file with one SHA-256.
//!
//! All bytes except those of the external tensors are preserved.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use bytesize::ByteSize;
use spinfer_onnx::wire::{fields, push};
use spinfer_onnx::{TensorProto, data_type, edit_tensors};

/// Maximum size of a graph, in bytes: that of a protobuf message.
pub(crate) const MAX_GRAPH: u64 = (2 << 30) - 1;
/// Maximum number of external files of one graph. Some exporters write one per tensor.
const MAX_FILES: usize = 10_000;

/// An external file with weights.
#[derive(Debug)]
pub(crate) struct SideFile {
    pub(crate) file: File,
    pub(crate) size: u64,
}

/// The value of a key in `external_data`.
fn entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    let entry = tensor.external_data.iter().find(|entry| entry.key == key);
    entry.map(|entry| entry.value.as_str())
}

/// The external file of `tensor`.
fn location(tensor: &TensorProto) -> Result<&str> {
    let location = entry(tensor, "location").filter(|location| !location.is_empty());
    location.with_context(|| {
        format!("the weights {:?} are external, but have no location", tensor.name)
    })
}

/// A number in `external_data`.
fn number(tensor: &TensorProto, key: &str) -> Result<Option<u64>> {
    let number = entry(tensor, key).map(|text| {
        text.parse().ok().with_context(|| {
            format!("the weights {:?}: {key}: expected a number, got {text:?}", tensor.name)
        })
    });
    number.transpose()
}

/// Size of the elements, in bytes; `None` if their type has no fixed size.
fn size(tensor: &TensorProto) -> Option<u64> {
    let size = |size: u64, &axis: &i64| size.checked_mul(u64::try_from(axis).ok()?);
    tensor.dims.iter().try_fold(data_type::size(tensor.data_type)?, size)
}

/// The external files of `graph`, as it names them.
pub(crate) fn files(graph: &[u8]) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    edit_tensors(graph, |tensor| {
        let tensor = TensorProto::decode_outline(tensor)?;
        if tensor.is_external() {
            files.insert(location(&tensor)?.to_owned());
            ensure!(files.len() <= MAX_FILES, "its weights are in more than {MAX_FILES} files");
        }
        anyhow::Ok(None)
    })
    .context("not an ONNX model")?;
    Ok(files)
}

/// `graph` with the weights of `files` merged in.
pub(crate) fn inline(graph: &[u8], files: &BTreeMap<String, SideFile>) -> Result<Vec<u8>> {
    let mut total = graph.len() as u64;
    let inlined = edit_tensors(graph, |message| {
        let tensor = TensorProto::decode_outline(message)?;
        if !tensor.is_external() {
            return Ok(None);
        }
        let data = data(&tensor, files, &mut total)?;
        anyhow::Ok(Some(with_data(message, &data)?))
    })?;
    Ok(inlined.unwrap_or_else(|| graph.to_vec()))
}

/// The weights of `tensor`. `total` is the size of the graph with the weights read so far, in bytes.
fn data(
    tensor: &TensorProto,
    files: &BTreeMap<String, SideFile>,
    total: &mut u64,
) -> Result<Vec<u8>> {
    let (name, location) = (&tensor.name, location(tensor)?);
    let side = files.get(location);
    let side = side
        .with_context(|| format!("the weights {name:?} are in {location:?}, which is missing"))?;
    let offset = number(tensor, "offset")?.unwrap_or(0);
    let rest = side.size.checked_sub(offset);
    let length = number(tensor, "length")?.or(rest).unwrap_or(0);
    ensure!(
        rest.is_some_and(|rest| length <= rest),
        "the weights {name:?} are {length} bytes at offset {offset} of {location:?}, which has {} bytes: \
         the file is truncated or belongs to another model",
        side.size
    );
    if let Some(size) = size(tensor) {
        ensure!(
            size == length,
            "the weights {name:?} have the shape {:?}, which is {size} bytes, but {length} bytes in \
             {location:?}",
            tensor.dims
        );
    }
    *total = total.saturating_add(length);
    ensure!(
        *total <= MAX_GRAPH,
        "with its weights it is larger than {}, the maximum size of an ONNX file",
        ByteSize(MAX_GRAPH + 1).display().iec()
    );
    let mut data = vec![0; usize::try_from(length)?];
    side.file.read_exact_at(&mut data, offset).with_context(|| location.to_owned())?;
    Ok(data)
}

/// `tensor` with `data` inline.
fn with_data(tensor: &[u8], data: &[u8]) -> Result<Vec<u8>> {
    let mut message = Vec::with_capacity(tensor.len() + data.len());
    let replaced = [TensorProto::RAW_DATA, TensorProto::EXTERNAL_DATA, TensorProto::DATA_LOCATION];
    for field in fields(tensor) {
        let field = field?;
        if !replaced.contains(&field.number) {
            message.extend_from_slice(field.bytes);
        }
    }
    push(TensorProto::RAW_DATA, data, &mut message);
    Ok(message)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use prost::Message;
    use spinfer_onnx::StringStringEntryProto;

    use super::*;

    fn field(tag: u32, content: &[u8]) -> Vec<u8> {
        let mut field = Vec::new();
        push(tag, content, &mut field);
        field
    }

    pub(crate) fn tensor(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> Vec<u8> {
        let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
            key: key.into(),
            value: value.into(),
        };
        let tensor = TensorProto {
            dims: dims.to_vec(),
            data_type: 1,
            name: name.into(),
            external_data: entries.iter().map(entry).collect(),
            data_location: i32::from(!entries.is_empty()),
            ..TensorProto::default()
        };
        tensor.encode_to_vec()
    }

    /// A model with `tensors` as initializers, and `inner` as an initializer of a subgraph.
    pub(crate) fn model(tensors: &[Vec<u8>], inner: &[u8]) -> Vec<u8> {
        let branch = field(6, &field(5, inner));
        let node = [field(4, b"If"), field(5, &branch)].concat();
        let mut graph = field(1, &node);
        tensors.iter().for_each(|tensor| graph.extend(field(5, tensor)));
        graph.extend(field(12, b""));
        // The IR version, a producer, the graph.
        [vec![8, 10], field(2, b"test"), field(7, &graph), field(8, b"\x10\x11")].concat()
    }

    fn side(bytes: &[u8]) -> SideFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        SideFile { file, size: bytes.len() as u64 }
    }

    fn given(files: &[(&str, &[u8])]) -> BTreeMap<String, SideFile> {
        files.iter().map(|(name, bytes)| ((*name).to_owned(), side(bytes))).collect()
    }

    #[test]
    fn external_weights_are_merged_into_the_graph() {
        let w = tensor("w", &[2, 1], &[("location", "a.bin"), ("offset", "4"), ("length", "8")]);
        let b = tensor("b", &[1], &[("location", "b.bin")]);
        let inline_weights = [tensor("k", &[1], &[]), field(9, &[9; 4])].concat();
        let graph = model(&[w, inline_weights.clone()], &b);
        assert_eq!(files(&graph).unwrap().into_iter().collect::<Vec<_>>(), ["a.bin", "b.bin"]);

        let data: Vec<u8> = (0..12).collect();
        let inlined = inline(&graph, &given(&[("a.bin", &data), ("b.bin", &[7; 4])])).unwrap();
        let plain = |name: &str, dims: &[i64], data: &[u8]| {
            [tensor(name, dims, &[]), field(TensorProto::RAW_DATA, data)].concat()
        };
        let w = plain("w", &[2, 1], &data[4..]);
        let expected = model(&[w, inline_weights], &plain("b", &[1], &[7; 4]));
        assert_eq!(inlined, expected);
        assert!(files(&inlined).unwrap().is_empty());
        assert_eq!(inline(&inlined, &BTreeMap::new()).unwrap(), inlined, "unchanged");
    }

    #[test]
    fn inconsistent_external_data_is_refused() {
        let of = |dims: &[i64], entries: &[(&str, &str)]| model(&[tensor("w", dims, entries)], b"");
        let all = given(&[("a", &[0; 8])]);
        for (graph, problem) in [
            (of(&[2], &[("offset", "0")]), "have no location"),
            (of(&[2], &[("location", "b")]), "which is missing"),
            (of(&[2], &[("location", "a"), ("offset", "-1")]), "expected a number"),
            (of(&[2], &[("location", "a"), ("offset", "9")]), "which has 8 bytes"),
            (of(&[2], &[("location", "a"), ("length", "9")]), "which has 8 bytes"),
            (
                of(&[2], &[("location", "a"), ("offset", &u64::MAX.to_string())]),
                "which has 8 bytes",
            ),
            (of(&[3], &[("location", "a")]), "which is 12 bytes, but 8 bytes"),
            (of(&[1], &[("location", "a"), ("length", "8")]), "which is 4 bytes"),
        ] {
            let error = format!("{:#}", inline(&graph, &all).unwrap_err());
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn deeply_nested_graphs_are_refused() {
        let mut message = Vec::new();
        for _ in 0..100 {
            message = field(1, &field(5, &field(6, &message)));
        }
        let error = format!("{:#}", files(&field(7, &message)).unwrap_err());
        assert!(error.contains("nested more than"), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = files(&bytes);
            let _ = inline(&bytes, &BTreeMap::new());
        }

        #[test]
        fn corrupted_graphs_do_not_panic(at: prop::sample::Index, with: Option<u8>) {
            let entries = [("location", "a"), ("offset", "4"), ("length", "4")];
            let mut graph = model(&[tensor("w", &[1], &entries)], &tensor("v", &[], &entries));
            let at = at.index(graph.len());
            match with {
                Some(with) => graph[at] = with,
                None => graph.truncate(at),
            }
            let _ = files(&graph);
            let _ = inline(&graph, &given(&[("a", &[1; 8])]));
        }
    }
}
