//! Cases in the format of `tests/onnx/case_file.py`.

use std::path::Path;

use serde::Deserialize;

/// A graph and its runs.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) rtol: f64,
    pub(crate) atol: f64,
    pub(crate) onnxruntime: OnnxRuntime,
    #[serde(default)]
    pub(crate) want: Expected,
    pub(crate) operators: Vec<String>,
    #[serde(skip)]
    pub(crate) model: Vec<u8>,
    #[serde(skip)]
    pub(crate) runs: Vec<Run>,
}

/// The result of ONNX Runtime for a case, called from Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnnxRuntime {
    Correct,
    Wrong,
    Refused,
    Crashed,
}

impl OnnxRuntime {
    pub(crate) fn is_correct(self) -> bool {
        self == Self::Correct
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Expected {
    /// The outputs.
    #[default]
    #[serde(rename = "equal")]
    Outputs,
    /// A client error.
    #[serde(rename = "400")]
    ClientError,
}

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) inputs: Vec<(String, Value)>,
    pub(crate) outputs: Vec<(String, Value)>,
    /// ONNX Runtime's outputs if they differ from the correct ones.
    pub(crate) others: Vec<(String, Value)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Tensor {
        /// `onnx.TensorProto.DataType`.
        element_type: u32,
        shape: Vec<u32>,
        data: Vec<u8>,
    },
    Sequence(Vec<Self>),
    /// An optional without a value.
    Absent,
}

/// The cases of `set`.
///
/// # Panics
/// If they are not prepared.
pub(crate) fn read_set(folder: &Path, set: &str) -> Vec<Case> {
    let index = folder.join(format!("{set}.json"));
    let text = std::fs::read(&index)
        .unwrap_or_else(|e| panic!("{}: {e}: run `make onnx-cases`", index.display()));
    let mut cases: Vec<Case> = serde_json::from_slice(&text).expect("an index");
    for case in &mut cases {
        let read = |ending: &str| {
            let file = folder.join(set).join(format!("{}.{ending}", case.name));
            std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
        };
        case.model = read("onnx");
        let runs = read("bin");
        case.runs = Reader(&runs).list(|reader| Run {
            inputs: reader.named(),
            outputs: reader.named(),
            others: reader.named(),
        });
    }
    cases
}

/// Reads from the front. The files are generated: one that is cut off is a panic.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes.to_vec()
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes(4).try_into().expect("four bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes(8).try_into().expect("eight bytes"))
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.u32()).map(|_| one(self)).collect()
    }

    fn named(&mut self) -> Vec<(String, Value)> {
        self.list(|reader| {
            let length = reader.u32() as usize;
            let name = String::from_utf8(reader.bytes(length)).expect("UTF-8");
            (name, reader.value())
        })
    }

    fn value(&mut self) -> Value {
        match self.bytes(1)[0] {
            0 => {
                let element_type = self.u32();
                let axes = self.u32();
                let shape = (0..axes).map(|_| u32::try_from(self.u64()).expect("a size")).collect();
                let length = usize::try_from(self.u64()).expect("a length");
                Value::Tensor { element_type, shape, data: self.bytes(length) }
            }
            1 => Value::Sequence(self.list(Self::value)),
            _ => Value::Absent,
        }
    }
}
