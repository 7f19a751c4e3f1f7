//! THE path of a request through the component, the same for both doors.

use std::rc::Rc;

use crate::error::Error;
use crate::graph::Graph;
use crate::hooks::ModelHooks;
use crate::model::Model;
use crate::operation::{self, Operation, Target};
use crate::request::Request;
use crate::response::Response;
use crate::{infer, invocations, metadata, model_loader, model_name, predict};

/// Handles a request. Errors become responses.
pub(crate) fn handle<M: Model>(request: &Request) -> Response {
    model_name::resolve(M::NAME)
        .and_then(|name| respond::<M>(request, name, || model_loader::load(name)))
        .unwrap_or_else(Response::from)
}

/// The steps of a request. `load` returns the model `name`.
pub(crate) fn respond<M: Model>(
    request: &Request,
    name: &str,
    load: impl FnOnce() -> Result<Rc<Graph>, Error>,
) -> Result<Response, Error> {
    // 1 The path: operation, model and version.
    let path = request.path();
    let target = Target::parse(path).ok_or_else(|| operation::unknown_path(path, name))?;
    target.operation.check_method(request.method)?;
    target.check_model(name)?;
    let hooks = const { &ModelHooks::of::<M>() };

    // 2 The model: loaded by the first request.
    let graph = match load() {
        Err(error) if target.operation == Operation::Ready => {
            return metadata::not_ready(name, &error);
        }
        loaded => loaded?,
    };
    let signature = graph.signature();
    target.check_version(name, &signature.version)?;

    // 3 Decode, compute, encode; again if only NaN or infinities keep the body from being JSON.
    let response = match operate(&graph, target.operation, request, hooks) {
        Err(error) if error.is_invalid_json() => match request.respelled() {
            Some(request) => operate(&graph, target.operation, &request, hooks),
            None => Err(error),
        },
        result => result,
    }?;

    // 4 Caching: how long, and for which requests.
    let body_key = match target.operation {
        Operation::Infer => "tensors",
        Operation::Predict | Operation::Invocations => "json",
        Operation::Metadata | Operation::Ready | Operation::Ping | Operation::Version => {
            return Ok(response);
        }
    };
    Ok(response.cacheable(signature.cache_seconds, hooks.needed_headers(), body_key))
}

/// Runs an operation of a protocol.
fn operate(
    graph: &Graph,
    operation: Operation,
    request: &Request,
    hooks: &ModelHooks,
) -> Result<Response, Error> {
    let signature = graph.signature();
    match operation {
        Operation::Metadata => metadata::metadata(signature),
        Operation::Ready => metadata::ready(&signature.name),
        Operation::Infer => infer::infer(graph, request, hooks.mapping),
        Operation::Predict => predict::predict(graph, request, hooks),
        Operation::Invocations => invocations::invoke(graph, request, hooks.predict),
        Operation::Ping => Ok(metadata::ping()),
        Operation::Version => Ok(metadata::version()),
    }
}

#[cfg(test)]
mod tests;
