//! `wasi:nn`: inference for guests. Our own bindings of the whole interface; the work is done by
//! [`crate::inference`].

use std::sync::Arc;
use std::time::Instant;

use spinfer_backend as backend;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use super::INSTANCE_MEMORY;
use crate::process::memory_budget::{Charge, MemoryBudget, OverBudget};
use crate::inference::{Model, Models, pack};
use crate::guest::instance::InstanceState;

mod generated {
    wasmtime::component::bindgen!({
        path: "../wit/wasi-nn",
        world: "ml",
        imports: {
            "wasi:nn/graph.load": async | trappable,
            "wasi:nn/graph.load-by-name": async | trappable,
            "wasi:nn/inference.[method]graph-execution-context.compute": async | trappable,
            default: trappable,
        },
        with: {
            "wasi:nn/errors.error": super::Error,
            "wasi:nn/graph.graph": super::Graph,
            "wasi:nn/inference.graph-execution-context": super::ExecutionContext,
            "wasi:nn/tensor.tensor": super::Tensor,
        },
    });
}

use generated::wasi::nn::{errors, graph, inference, tensor};
use graph::{ExecutionTarget, GraphBuilder, GraphEncoding};
use inference::NamedTensor;
use tensor::TensorType;

pub use crate::inference::Error;
pub use backend::Tensor;

/// A guest's handle to a graph.
#[derive(Debug)]
pub struct Graph {
    model: Arc<Model>,
    /// What the instance is charged for it: a graph it brought itself counts by its size.
    bytes: usize,
}

/// A guest's handle to something that computes.
#[derive(Debug)]
pub struct ExecutionContext {
    model: Arc<Model>,
    /// It outlives the graph's handle, so it is charged too.
    bytes: usize,
}

/// An instance's use of inference.
#[derive(Debug)]
pub struct NnCtx {
    models: Arc<Models>,
    /// Tensors and graphs that the host holds for the instance.
    charge: Charge,
    /// Whether it may load graphs of its own.
    load_graphs: bool,
}

impl NnCtx {
    #[must_use]
    pub fn new(models: Arc<Models>, limit: usize, load_graphs: bool) -> Self {
        Self { models, charge: MemoryBudget::new(limit, INSTANCE_MEMORY).empty_charge(), load_graphs }
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Error> {
        self.charge.grow(bytes).map_err(|OverBudget { needed, limit, .. }| {
            Error::TooLarge(format!(
                "the tensors of this request would take {needed} bytes, and the limit is {limit}: send \
                 fewer or smaller rows"
            ))
        })
    }
}

/// An instance's use of inference, borrowed for one call.
#[derive(Debug)]
pub struct NnView<'a> {
    pub ctx: &'a mut NnCtx,
    pub table: &'a mut ResourceTable,
    pub deadline: Instant,
}

/// Bytes the host holds for a tensor.
fn size(tensor: &Tensor) -> usize {
    tensor.data.len() + tensor.dimensions.len() * size_of::<u32>()
}

/// A guest's fault is an error it can read. A fault of ours traps, and so does what has no error
/// to give: a forged handle, one handle too many, a tensor over the limit.
type Answer<T> = wasmtime::Result<Result<T, Resource<Error>>>;

impl NnView<'_> {
    fn answer<T>(&mut self, result: Result<T, Error>) -> Answer<T> {
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(error) => Ok(Err(self.table.push(error)?)),
        }
    }

    fn push_tensor(&mut self, tensor: Tensor) -> wasmtime::Result<Resource<Tensor>> {
        self.ctx.charge(size(&tensor))?;
        Ok(self.table.push(tensor)?)
    }

    fn take_tensor(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Tensor> {
        let tensor = self.table.delete(tensor)?;
        self.ctx.charge.shrink(size(&tensor));
        Ok(tensor)
    }

    async fn load_bytes(
        &mut self,
        builder: Vec<GraphBuilder>,
        encoding: GraphEncoding,
        target: ExecutionTarget,
    ) -> Result<Graph, Error> {
        if !self.ctx.load_graphs {
            return Err(Error::Security(
                "this component may not load graphs of its own; its manifest entry allows it with \
                 `tool.spinfer.load_graphs = true`"
                    .into(),
            ));
        }
        let encoding = match encoding {
            GraphEncoding::Onnx | GraphEncoding::Autodetect => backend::Encoding::Onnx,
            other => {
                return Err(backend::Error::InvalidEncoding(format!(
                    "no backend reads {other:?}; convert the model to ONNX"
                ))
                .into());
            }
        };
        let target = match target {
            ExecutionTarget::Cpu => backend::ExecutionTarget::Cpu,
            ExecutionTarget::Gpu => backend::ExecutionTarget::Gpu,
            ExecutionTarget::Tpu => backend::ExecutionTarget::Tpu,
        };
        let [bytes] = <[GraphBuilder; 1]>::try_from(builder).map_err(|parts| {
            backend::Error::InvalidArgument(format!(
                "an ONNX model is one builder, not {}",
                parts.len()
            ))
        })?;
        let size = bytes.len();
        self.ctx.charge(size)?;
        match self.ctx.models.load(bytes, encoding, target, self.deadline).await {
            Ok(model) => Ok(Graph { model, bytes: size }),
            Err(error) => {
                self.ctx.charge.shrink(size);
                Err(error)
            }
        }
    }
}

impl graph::Host for NnView<'_> {
    async fn load(
        &mut self,
        builder: Vec<GraphBuilder>,
        encoding: GraphEncoding,
        target: ExecutionTarget,
    ) -> Answer<Resource<Graph>> {
        match self.load_bytes(builder, encoding, target).await {
            Ok(graph) => Ok(Ok(self.table.push(graph)?)),
            Err(error) => self.answer(Err(error)),
        }
    }

    async fn load_by_name(&mut self, name: String) -> Answer<Resource<Graph>> {
        match self.ctx.models.load_by_name(&name, self.deadline).await {
            Ok(model) => Ok(Ok(self.table.push(Graph { model, bytes: 0 })?)),
            Err(error) => self.answer(Err(error)),
        }
    }
}

impl graph::HostGraph for NnView<'_> {
    fn init_execution_context(
        &mut self,
        graph: Resource<Graph>,
    ) -> Answer<Resource<ExecutionContext>> {
        let Graph { model, bytes } = self.table.get(&graph)?;
        let context = ExecutionContext { model: Arc::clone(model), bytes: *bytes };
        match self.ctx.charge(context.bytes) {
            Ok(()) => Ok(Ok(self.table.push(context)?)),
            Err(error) => self.answer(Err(error)),
        }
    }

    fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        let graph = self.table.delete(graph)?;
        self.ctx.charge.shrink(graph.bytes);
        Ok(())
    }
}

impl inference::Host for NnView<'_> {}

impl inference::HostGraphExecutionContext for NnView<'_> {
    async fn compute(
        &mut self,
        context: Resource<ExecutionContext>,
        inputs: Vec<NamedTensor>,
    ) -> Answer<Vec<NamedTensor>> {
        let model = Arc::clone(&self.table.get(&context)?.model);
        let inputs = inputs
            .into_iter()
            .map(|(name, tensor)| Ok((name, self.take_tensor(tensor)?)))
            .collect::<wasmtime::Result<Vec<_>>>()?;
        match model.compute(inputs, self.deadline).await {
            Ok(outputs) => {
                let outputs: Vec<_> =
                    outputs.into_iter().map(|(name, tensor)| (name, pack(tensor))).collect();
                let size = outputs.iter().map(|(_, tensor)| size(tensor)).sum();
                if let Err(error) = self.ctx.charge(size) {
                    return self.answer(Err(error));
                }
                let push = |(name, tensor)| Ok((name, self.table.push(tensor)?));
                outputs.into_iter().map(push).collect::<wasmtime::Result<_>>().map(Ok)
            }
            Err(error) => self.answer(Err(error)),
        }
    }

    fn drop(&mut self, context: Resource<ExecutionContext>) -> wasmtime::Result<()> {
        let context = self.table.delete(context)?;
        self.ctx.charge.shrink(context.bytes);
        Ok(())
    }
}

impl tensor::Host for NnView<'_> {}

impl tensor::HostTensor for NnView<'_> {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<Tensor>> {
        self.push_tensor(Tensor { dimensions, ty: ty.into(), data })
    }

    fn dimensions(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.table.get(&tensor)?.dimensions.clone())
    }

    fn ty(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<TensorType> {
        Ok(self.table.get(&tensor)?.ty.into())
    }

    fn data(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&tensor)?.data.clone())
    }

    fn drop(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<()> {
        self.take_tensor(tensor).map(drop)
    }
}

impl errors::Host for NnView<'_> {}

impl errors::HostError for NnView<'_> {
    fn code(&mut self, error: Resource<Error>) -> wasmtime::Result<errors::ErrorCode> {
        Ok(match self.table.get(&error)? {
            Error::Backend(backend::Error::InvalidArgument(_)) => {
                errors::ErrorCode::InvalidArgument
            }
            Error::Backend(backend::Error::InvalidEncoding(_)) => {
                errors::ErrorCode::InvalidEncoding
            }
            Error::Backend(backend::Error::Unsupported(_)) => {
                errors::ErrorCode::UnsupportedOperation
            }
            Error::Backend(backend::Error::Runtime(_)) => errors::ErrorCode::RuntimeError,
            Error::NotFound(_) => errors::ErrorCode::NotFound,
            Error::Security(_) => errors::ErrorCode::Security,
            Error::TooLarge(_) | Error::Backend(backend::Error::TooLarge(_)) => {
                errors::ErrorCode::TooLarge
            }
            Error::Timeout => errors::ErrorCode::Timeout,
        })
    }

    fn data(&mut self, error: Resource<Error>) -> wasmtime::Result<String> {
        Ok(self.table.get(&error)?.to_string())
    }

    fn drop(&mut self, error: Resource<Error>) -> wasmtime::Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}

impl From<TensorType> for backend::TensorType {
    fn from(ty: TensorType) -> Self {
        match ty {
            TensorType::Fp16 => Self::Fp16,
            TensorType::Fp32 => Self::Fp32,
            TensorType::Fp64 => Self::Fp64,
            TensorType::Bf16 => Self::Bf16,
            TensorType::U8 => Self::U8,
            TensorType::I32 => Self::I32,
            TensorType::I64 => Self::I64,
        }
    }
}

impl From<backend::TensorType> for TensorType {
    fn from(ty: backend::TensorType) -> Self {
        match ty {
            backend::TensorType::Fp16 => Self::Fp16,
            backend::TensorType::Fp32 => Self::Fp32,
            backend::TensorType::Fp64 => Self::Fp64,
            backend::TensorType::Bf16 => Self::Bf16,
            backend::TensorType::I32 => Self::I32,
            backend::TensorType::I64 => Self::I64,
            // The others travel packed in this.
            _ => Self::U8,
        }
    }
}

struct HasNn;

impl HasData for HasNn {
    type Data<'a> = NnView<'a>;
}

/// Lets guests import `wasi:nn`.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> wasmtime::Result<()> {
    graph::add_to_linker::<_, HasNn>(linker, InstanceState::nn)?;
    tensor::add_to_linker::<_, HasNn>(linker, InstanceState::nn)?;
    inference::add_to_linker::<_, HasNn>(linker, InstanceState::nn)?;
    errors::add_to_linker::<_, HasNn>(linker, InstanceState::nn)
}
