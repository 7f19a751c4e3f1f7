//! Graphs whose weights are in files beside them (ONNX's external data): which files those are, and the
//! graph with their content in it. A version is one file, with one SHA-256.
//!
//! Everything but the tensors in question stays as it was, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;
use prost::Message;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

/// Maximum size of a graph, in bytes: what a message of protobuf, which ONNX is written in, can hold.
pub(crate) const MAX_GRAPH: u64 = (2 << 30) - 1;
/// Files beside one graph. Some exporters write one for each tensor.
const MAX_FILES: usize = 10_000;
/// Messages within messages: what protobuf's own decoders take.
const MAX_DEPTH: usize = 100;

/// A file beside a graph.
#[derive(Debug)]
pub(crate) struct SideFile {
    pub(crate) file: File,
    pub(crate) size: u64,
}

/// `TensorProto`, as far as it says where its data is.
#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<Entry>,
    /// 1: the data is in another file.
    #[prost(int32, tag = "14")]
    data_location: i32,
}

/// `StringStringEntryProto`
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// Fields of `TensorProto` that are replaced.
const RAW_DATA: u32 = 9;
const EXTERNAL_DATA: u32 = 13;
const DATA_LOCATION: u32 = 14;

impl Tensor {
    fn is_external(&self) -> bool {
        self.data_location == 1
    }

    fn entry(&self, key: &str) -> Option<&str> {
        self.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
    }

    fn location(&self) -> Result<&str> {
        let location = self.entry("location").filter(|location| !location.is_empty());
        location.with_context(|| {
            format!("the weights {:?} are in another file, and which is not said", self.name)
        })
    }

    fn number(&self, key: &str) -> Result<Option<u64>> {
        let number = self.entry(key).map(|text| {
            text.parse().ok().with_context(|| {
                format!("the weights {:?}: {key}: expected a number, got {text:?}", self.name)
            })
        });
        number.transpose()
    }

    /// The bytes its elements take, where that is settled by its shape.
    fn size(&self) -> Option<u64> {
        // `TensorProto.DataType`
        let element = match self.data_type {
            2 | 3 | 9 | 17..=20 => 1,
            4 | 5 | 10 | 16 => 2,
            1 | 6 | 12 => 4,
            7 | 11 | 13 | 14 => 8,
            15 => 16,
            _ => return None,
        };
        self.dims
            .iter()
            .try_fold(element, |size: u64, &axis| size.checked_mul(u64::try_from(axis).ok()?))
    }
}

/// The files that `graph` has weights in, as it names them.
pub(crate) fn files(graph: &[u8]) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    rewrite(graph, Kind::Model, 0, &mut |tensor| {
        let tensor = Tensor::decode(tensor)?;
        if tensor.is_external() {
            files.insert(tensor.location()?.to_owned());
            ensure!(files.len() <= MAX_FILES, "its weights are in more than {MAX_FILES} files");
        }
        Ok(None)
    })
    .context("not an ONNX model")?;
    Ok(files)
}

/// `graph` with the weights that are in `files` in it.
pub(crate) fn inline(graph: &[u8], files: &BTreeMap<String, SideFile>) -> Result<Vec<u8>> {
    let mut total = graph.len() as u64;
    let inlined = rewrite(graph, Kind::Model, 0, &mut |message| {
        let tensor = Tensor::decode(message)?;
        if !tensor.is_external() {
            return Ok(None);
        }
        let data = data(&tensor, files, &mut total)?;
        Ok(Some(with_data(message, &data)?))
    })?;
    Ok(inlined.unwrap_or_else(|| graph.to_vec()))
}

/// The weights of `tensor`. `total` is the size of the graph with what was read so far.
fn data(tensor: &Tensor, files: &BTreeMap<String, SideFile>, total: &mut u64) -> Result<Vec<u8>> {
    let (name, location) = (&tensor.name, tensor.location()?);
    let side = files.get(location);
    let side = side
        .with_context(|| format!("the weights {name:?} are in {location:?}, which is missing"))?;
    let offset = tensor.number("offset")?.unwrap_or(0);
    let rest = side.size.checked_sub(offset);
    let length = tensor.number("length")?.or(rest).unwrap_or(0);
    ensure!(
        rest.is_some_and(|rest| length <= rest),
        "the weights {name:?} are {length} bytes at {offset} of {location:?}, which has {} bytes: it is \
         cut off, or of another model",
        side.size
    );
    if let Some(size) = tensor.size() {
        ensure!(
            size == length,
            "the weights {name:?} have the shape {:?}, which is {size} bytes, and {length} bytes in \
             {location:?}",
            tensor.dims
        );
    }
    *total = total.saturating_add(length);
    ensure!(
        *total <= MAX_GRAPH,
        "with its weights it is larger than {}, which is as much as one ONNX file can hold",
        ByteSize(MAX_GRAPH + 1).display().iec()
    );
    let mut data = vec![0; usize::try_from(length)?];
    side.file.read_exact_at(&mut data, offset).with_context(|| location.to_owned())?;
    Ok(data)
}

/// `tensor` with `data` in it.
fn with_data(tensor: &[u8], data: &[u8]) -> Result<Vec<u8>> {
    let mut message = Vec::with_capacity(tensor.len() + data.len());
    for field in Fields(tensor) {
        let field = field?;
        if ![RAW_DATA, EXTERNAL_DATA, DATA_LOCATION].contains(&field.tag) {
            message.extend_from_slice(field.whole);
        }
    }
    encode_field(RAW_DATA, data, &mut message);
    Ok(message)
}

/// Messages of ONNX that tensors are in.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl Kind {
    /// What is in its field `tag`, if tensors may be in that. `onnx/onnx.proto`, IR version 10.
    fn within(self, tag: u32) -> Option<Self> {
        Some(match (self, tag) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => {
                Self::Tensor
            }
            _ => return None,
        })
    }
}

/// Gives the new bytes of a tensor, if it is another one then.
type Change<'a> = dyn FnMut(&[u8]) -> Result<Option<Vec<u8>>> + 'a;

/// `message` with each tensor in it as `change` gives it; `None` from either: as it was.
fn rewrite(
    message: &[u8],
    kind: Kind,
    depth: usize,
    change: &mut Change<'_>,
) -> Result<Option<Vec<u8>>> {
    if depth > MAX_DEPTH {
        bail!("more than {MAX_DEPTH} graphs within each other");
    }
    let mut changed: Option<Vec<u8>> = None;
    // Up to here it is in `changed`.
    let mut copied = 0;
    let mut position = 0;
    for field in Fields(message) {
        let Field { tag, whole, content } = field?;
        let start = position;
        position += whole.len();
        let (Some(content), Some(within)) = (content, kind.within(tag)) else { continue };
        let new = match within {
            Kind::Tensor => change(content)?,
            other => rewrite(content, other, depth + 1, change)?,
        };
        if let Some(new) = new {
            let to = changed.get_or_insert_with(|| Vec::with_capacity(message.len() + new.len()));
            to.extend_from_slice(&message[copied..start]);
            encode_field(tag, &new, to);
            copied = position;
        }
    }
    if let Some(to) = &mut changed {
        to.extend_from_slice(&message[copied..]);
    }
    Ok(changed)
}

fn encode_field(tag: u32, content: &[u8], to: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(content.len() as u64, to);
    to.extend_from_slice(content);
}

/// The fields of a message.
struct Fields<'a>(&'a [u8]);

struct Field<'a> {
    tag: u32,
    whole: &'a [u8],
    /// Of a message, a string or bytes.
    content: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn take(&mut self) -> Result<Field<'a>> {
        let start = self.0;
        let (tag, wire) = decode_key(&mut self.0)?;
        let mut content = None;
        if wire == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut self.0)?)?;
            let split = self.0.split_at_checked(length);
            let (taken, rest) = split.context("it ends within a field: it is cut off")?;
            (content, self.0) = (Some(taken), rest);
        } else {
            skip_field(wire, tag, &mut self.0, DecodeContext::default())?;
        }
        Ok(Field { tag, whole: &start[..start.len() - self.0.len()], content })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let taken = self.take();
        if taken.is_err() {
            self.0 = &[];
        }
        Some(taken)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn field(tag: u32, content: &[u8]) -> Vec<u8> {
        let mut field = Vec::new();
        encode_field(tag, content, &mut field);
        field
    }

    pub(crate) fn tensor(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> Vec<u8> {
        let entry = |&(key, value): &(&str, &str)| Entry { key: key.into(), value: value.into() };
        let tensor = Tensor {
            dims: dims.to_vec(),
            data_type: 1,
            name: name.into(),
            external_data: entries.iter().map(entry).collect(),
            data_location: i32::from(!entries.is_empty()),
        };
        tensor.encode_to_vec()
    }

    /// A model with `tensors` as initializers, and one of `inner` in a graph of a node's attribute.
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
    fn weights_of_side_files_are_put_into_the_graph() {
        let w = tensor("w", &[2, 1], &[("location", "a.bin"), ("offset", "4"), ("length", "8")]);
        let b = tensor("b", &[1], &[("location", "b.bin")]);
        let kept = [tensor("k", &[1], &[]), field(9, &[9; 4])].concat();
        let graph = model(&[w, kept.clone()], &b);
        assert_eq!(files(&graph).unwrap().into_iter().collect::<Vec<_>>(), ["a.bin", "b.bin"]);

        let data: Vec<u8> = (0..12).collect();
        let inlined = inline(&graph, &given(&[("a.bin", &data), ("b.bin", &[7; 4])])).unwrap();
        let plain = |name: &str, dims: &[i64], data: &[u8]| {
            [tensor(name, dims, &[]), field(RAW_DATA, data)].concat()
        };
        let expected = model(&[plain("w", &[2, 1], &data[4..]), kept], &plain("b", &[1], &[7; 4]));
        assert_eq!(inlined, expected);
        assert!(files(&inlined).unwrap().is_empty());
        assert_eq!(inline(&inlined, &BTreeMap::new()).unwrap(), inlined, "nothing is left to do");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let of = |dims: &[i64], entries: &[(&str, &str)]| model(&[tensor("w", dims, entries)], b"");
        let all = given(&[("a", &[0; 8])]);
        for (graph, problem) in [
            (of(&[2], &[("offset", "0")]), "which is not said"),
            (of(&[2], &[("location", "b")]), "which is missing"),
            (of(&[2], &[("location", "a"), ("offset", "-1")]), "expected a number"),
            (of(&[2], &[("location", "a"), ("offset", "9")]), "which has 8 bytes"),
            (of(&[2], &[("location", "a"), ("length", "9")]), "which has 8 bytes"),
            (
                of(&[2], &[("location", "a"), ("offset", &u64::MAX.to_string())]),
                "which has 8 bytes",
            ),
            (of(&[3], &[("location", "a")]), "which is 12 bytes, and 8 bytes"),
            (of(&[1], &[("location", "a"), ("length", "8")]), "which is 4 bytes"),
        ] {
            let error = format!("{:#}", inline(&graph, &all).unwrap_err());
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn graphs_within_graphs_have_an_end() {
        let mut message = Vec::new();
        for _ in 0..MAX_DEPTH {
            message = field(1, &field(5, &field(6, &message)));
        }
        let error = format!("{:#}", files(&field(7, &message)).unwrap_err());
        assert!(error.contains("graphs within each other"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_graph_or_an_error(bytes: Vec<u8>) {
            let _ = files(&bytes);
            let _ = inline(&bytes, &BTreeMap::new());
        }

        #[test]
        fn a_changed_graph_is_one_or_an_error(at: prop::sample::Index, with: Option<u8>) {
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
