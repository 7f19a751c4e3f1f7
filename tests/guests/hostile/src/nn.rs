//! Harm by `wasi:nn`.

use crate::bindings::wasi::nn::errors::Error;
use crate::bindings::wasi::nn::graph::{ExecutionTarget, Graph, GraphEncoding, load, load_by_name};
use crate::bindings::wasi::nn::inference::GraphExecutionContext;
use crate::bindings::wasi::nn::tensor::{Tensor, TensorType};

/// Number of calls in a sequence.
const CALLS: usize = 200;
/// Maximum number of live resources of a kind.
const MAX_LIVE: usize = 16;

/// A call with a handle that was never issued, or is dropped.
pub(crate) fn forged(what: &str) -> String {
    #[expect(unsafe_code, reason = "a forged handle")]
    // SAFETY: none. The host must refuse the handle.
    unsafe {
        match what {
            "tensor" => format!("{:?}", Tensor::from_handle(12_345).data()),
            "graph" => format!("{:?}", Graph::from_handle(0).init_execution_context().is_ok()),
            "context" => {
                let context = GraphExecutionContext::from_handle(u32::MAX >> 4);
                context.compute(Vec::new()).is_ok().to_string()
            }
            "error" => Error::from_handle(1).data(),
            // Of another type.
            "kind" => {
                let tensor = Tensor::new(&[1], TensorType::U8, &[0]);
                Error::from_handle(tensor.take_handle()).data()
            }
            _ => {
                let tensor = Tensor::new(&[1], TensorType::U8, &[0]);
                let handle = tensor.handle();
                drop(tensor);
                format!("{:?}", Tensor::from_handle(handle).ty())
            }
        }
    }
}

/// Makes random calls from `seed`. Returns their number, and that of the failed ones.
pub(crate) fn sequence(seed: u64) -> String {
    let mut random = Random(seed);
    let mut resources = Resources::default();
    let failed = (0..CALLS).filter(|_| !resources.call(&mut random)).count();
    format!("{CALLS} calls, {failed} failed")
}

#[derive(Default)]
struct Resources {
    tensors: Vec<Tensor>,
    graphs: Vec<Graph>,
    contexts: Vec<GraphExecutionContext>,
    errors: Vec<Error>,
}

impl Resources {
    /// Makes a random call. Returns whether it succeeded.
    fn call(&mut self, random: &mut Random) -> bool {
        match random.below(12) {
            0..=3 => {
                self.tensors.push(tensor(random));
                drop_oldest(&mut self.tensors);
                true
            }
            4 => random.of(&self.tensors).is_none_or(|tensor| {
                let (_, _, _) = (tensor.dimensions(), tensor.ty(), tensor.data());
                true
            }),
            5 => {
                let name = ["identity-fp32", "add-two-inputs", "", "../..", "none\0"];
                let name = random.of(&name).map_or(String::new(), |name| (*name).to_owned());
                self.loaded(load_by_name(&name.repeat(1 + random.below(2) * 999)))
            }
            6 => {
                let parts: Vec<_> = (0..random.below(3)).map(|_| random.bytes(1000)).collect();
                let encodings =
                    [GraphEncoding::Onnx, GraphEncoding::Autodetect, GraphEncoding::Ggml];
                let encoding = *random.of(&encodings).unwrap_or(&GraphEncoding::Onnx);
                self.loaded(load(&parts, encoding, ExecutionTarget::Cpu))
            }
            7 => {
                let Some(graph) = random.of(&self.graphs) else { return true };
                let context = graph.init_execution_context();
                let context = context.map(|context| self.contexts.push(context));
                drop_oldest(&mut self.contexts);
                self.record(context)
            }
            8..=9 => self.compute(random),
            10 => random.of(&self.errors).is_none_or(|error| !error.data().is_empty()),
            // A graph may be dropped before its contexts.
            _ => {
                let (graph, context) = (random.below(MAX_LIVE), random.below(MAX_LIVE));
                if graph < self.graphs.len() {
                    self.graphs.swap_remove(graph);
                }
                if context < self.contexts.len() {
                    self.contexts.swap_remove(context);
                }
                true
            }
        }
    }

    fn compute(&mut self, random: &mut Random) -> bool {
        let mut inputs = Vec::new();
        for _ in 0..random.below(4) {
            let name = random.of(&["x", "a", "b", "", "x\0y"]).map_or("", |name| name);
            let name = name.repeat(1 + random.below(2) * 99);
            if !self.tensors.is_empty() {
                let tensor = self.tensors.swap_remove(random.below(self.tensors.len()));
                inputs.push((name, tensor));
            }
        }
        let Some(context) = random.of(&self.contexts) else { return true };
        let computed = context.compute(inputs);
        let computed =
            computed.map(|outputs| self.tensors.extend(outputs.into_iter().map(|(_, t)| t)));
        drop_oldest(&mut self.tensors);
        self.record(computed)
    }

    fn loaded(&mut self, graph: Result<Graph, Error>) -> bool {
        let graph = graph.map(|graph| self.graphs.push(graph));
        drop_oldest(&mut self.graphs);
        self.record(graph)
    }

    /// Records an error. Returns whether there was none.
    fn record(&mut self, result: Result<(), Error>) -> bool {
        let succeeded = result.is_ok();
        self.errors.extend(result.err());
        drop_oldest(&mut self.errors);
        succeeded
    }
}

/// Drops the oldest beyond [`MAX_LIVE`].
fn drop_oldest<T>(resources: &mut Vec<T>) {
    resources.drain(..resources.len().saturating_sub(MAX_LIVE));
}

/// A tensor whose dimensions and data usually do not match.
fn tensor(random: &mut Random) -> Tensor {
    let sizes = [0, 1, 2, 4, 1000, u32::MAX];
    let axes = [0, 1, 1, 2, 3, 1000][random.below(6)];
    let dimensions: Vec<u32> = (0..axes).map(|_| sizes[random.below(sizes.len())]).collect();
    let types = [TensorType::Fp32, TensorType::Fp16, TensorType::U8, TensorType::I64];
    let ty = types[random.below(types.len())];
    let length = [0, 4, 16, 16, 4000, 1 << 20][random.below(6)];
    Tensor::new(&dimensions, ty, &random.bytes(length))
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.below(items.len())) }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let first = self.next().to_le_bytes()[0];
        vec![first; [0, length][self.below(2)]]
    }
}
