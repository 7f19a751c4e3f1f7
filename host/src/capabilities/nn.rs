//! `wasi:nn`: inference for guests. Own bindings of the whole interface; [`crate::inference`] loads
//! and runs the graphs.

use std::sync::Arc;
use std::time::Instant;

use spinfer_backend as backend;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use super::INSTANCE_MEMORY;
use crate::guest::instance::InstanceState;
use crate::inference::{BoundModel, ComponentModels, pack};
use crate::process::memory_budget::{Charge, MemoryBudget, OverBudget};

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
            "wasi:nn/errors.error": super::InferenceError,
            "wasi:nn/graph.graph": super::GraphHandle,
            "wasi:nn/inference.graph-execution-context": super::ExecutionContext,
            "wasi:nn/tensor.tensor": super::Tensor,
        },
    });
}

use generated::wasi::nn::{errors, graph, inference, tensor};
use graph::{ExecutionTarget, GraphBuilder, GraphEncoding};
use inference::NamedTensor;
use tensor::TensorType;

pub use crate::inference::InferenceError;
pub use backend::Tensor;

/// A guest's handle to a graph.
#[derive(Debug)]
pub struct GraphHandle {
    model: Arc<BoundModel>,
    /// Bytes charged to the instance: the size of a graph that it brought itself, else 0.
    bytes: usize,
}

/// A guest's handle to an execution context.
#[derive(Debug)]
pub struct ExecutionContext {
    model: Arc<BoundModel>,
    /// Bytes charged to the instance, as for the graph: a context may outlive the graph's handle.
    bytes: usize,
}

/// The inference state of an instance.
#[derive(Debug)]
pub struct NnCtx {
    models: Arc<ComponentModels>,
    /// For tensors and graphs that the host holds for the instance.
    charge: Charge,
    /// Whether the component may load graphs from bytes.
    load_graphs: bool,
}

impl NnCtx {
    #[must_use]
    pub fn new(models: Arc<ComponentModels>, limit: usize, load_graphs: bool) -> Self {
        Self {
            models,
            charge: MemoryBudget::new(limit, INSTANCE_MEMORY).empty_charge(),
            load_graphs,
        }
    }

    fn charge(&mut self, bytes: usize) -> Result<(), InferenceError> {
        self.charge.grow(bytes).map_err(|OverBudget { needed, limit, .. }| {
            InferenceError::TooLarge(format!(
                "the tensors of this request would take {needed} bytes, and limits.instance_memory is \
                 {limit}: send fewer or smaller rows"
            ))
        })
    }
}

/// The inference state of an instance, borrowed for one call.
#[derive(Debug)]
pub struct NnView<'a> {
    pub ctx: &'a mut NnCtx,
    pub table: &'a mut ResourceTable,
    pub deadline: Instant,
}

/// Memory that a tensor takes in the host, in bytes.
fn size(tensor: &Tensor) -> usize {
    tensor.data.len() + tensor.dimensions.len() * size_of::<u32>()
}

/// A fault of the guest is an error that it can read. A fault of the host traps, and so does every
/// failure for which the interface has no error: an invalid handle, too many handles, a tensor over
/// the limit.
type NnResult<T> = wasmtime::Result<Result<T, Resource<InferenceError>>>;

impl NnView<'_> {
    fn convert<T>(&mut self, result: Result<T, InferenceError>) -> NnResult<T> {
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
    ) -> Result<GraphHandle, InferenceError> {
        if !self.ctx.load_graphs {
            return Err(InferenceError::Security(
                "this component may not load graphs from bytes; allow it with \
                 `tool.spinfer.load_graphs = true` in its manifest entry"
                    .into(),
            ));
        }
        let encoding = match encoding {
            GraphEncoding::Onnx | GraphEncoding::Autodetect => backend::Encoding::Onnx,
            GraphEncoding::Openvino
            | GraphEncoding::Tensorflow
            | GraphEncoding::Pytorch
            | GraphEncoding::Tensorflowlite
            | GraphEncoding::Ggml => {
                return Err(backend::Error::InvalidEncoding(
                    "no backend supports this encoding; convert the model to ONNX".into(),
                )
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
                "{} builders given; an ONNX model takes one",
                parts.len()
            ))
        })?;
        let size = bytes.len();
        self.ctx.charge(size)?;
        match self.ctx.models.load(bytes, encoding, target, self.deadline).await {
            Ok(model) => Ok(GraphHandle { model, bytes: size }),
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
    ) -> NnResult<Resource<GraphHandle>> {
        match self.load_bytes(builder, encoding, target).await {
            Ok(graph) => Ok(Ok(self.table.push(graph)?)),
            Err(error) => self.convert(Err(error)),
        }
    }

    async fn load_by_name(&mut self, name: String) -> NnResult<Resource<GraphHandle>> {
        match self.ctx.models.load_by_name(&name, self.deadline).await {
            Ok(model) => Ok(Ok(self.table.push(GraphHandle { model, bytes: 0 })?)),
            Err(error) => self.convert(Err(error)),
        }
    }
}

impl graph::HostGraph for NnView<'_> {
    fn init_execution_context(
        &mut self,
        graph: Resource<GraphHandle>,
    ) -> NnResult<Resource<ExecutionContext>> {
        let GraphHandle { model, bytes } = self.table.get(&graph)?;
        let context = ExecutionContext { model: Arc::clone(model), bytes: *bytes };
        match self.ctx.charge(context.bytes) {
            Ok(()) => Ok(Ok(self.table.push(context)?)),
            Err(error) => self.convert(Err(error)),
        }
    }

    fn drop(&mut self, graph: Resource<GraphHandle>) -> wasmtime::Result<()> {
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
    ) -> NnResult<Vec<NamedTensor>> {
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
                    return self.convert(Err(error));
                }
                let push = |(name, tensor)| Ok((name, self.table.push(tensor)?));
                outputs.into_iter().map(push).collect::<wasmtime::Result<_>>().map(Ok)
            }
            Err(error) => self.convert(Err(error)),
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
    fn code(&mut self, error: Resource<InferenceError>) -> wasmtime::Result<errors::ErrorCode> {
        Ok(match self.table.get(&error)? {
            InferenceError::Backend(backend::Error::InvalidArgument(_)) => {
                errors::ErrorCode::InvalidArgument
            }
            InferenceError::Backend(backend::Error::InvalidEncoding(_)) => {
                errors::ErrorCode::InvalidEncoding
            }
            InferenceError::Backend(backend::Error::Unsupported(_)) => {
                errors::ErrorCode::UnsupportedOperation
            }
            InferenceError::Backend(backend::Error::Runtime(_)) => errors::ErrorCode::RuntimeError,
            InferenceError::NotFound(_) => errors::ErrorCode::NotFound,
            InferenceError::Security(_) => errors::ErrorCode::Security,
            InferenceError::TooLarge(_) | InferenceError::Backend(backend::Error::TooLarge(_)) => {
                errors::ErrorCode::TooLarge
            }
            InferenceError::Timeout => errors::ErrorCode::Timeout,
        })
    }

    fn data(&mut self, error: Resource<InferenceError>) -> wasmtime::Result<String> {
        Ok(self.table.get(&error)?.to_string())
    }

    fn drop(&mut self, error: Resource<InferenceError>) -> wasmtime::Result<()> {
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
            // Tensors of the other types travel packed.
            _ => Self::U8,
        }
    }
}

struct HasNn;

impl HasData for HasNn {
    type Data<'a> = NnView<'a>;
}

/// Adds `wasi:nn` to `linker`.
///
/// # Errors
/// The linker already defines it.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> wasmtime::Result<()> {
    graph::add_to_linker::<_, HasNn>(linker, InstanceState::nn)?;
    tensor::add_to_linker::<_, HasNn>(linker, InstanceState::nn)?;
    inference::add_to_linker::<_, HasNn>(linker, InstanceState::nn)?;
    errors::add_to_linker::<_, HasNn>(linker, InstanceState::nn)
}
