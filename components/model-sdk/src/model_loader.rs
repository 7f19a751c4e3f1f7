//! Loads the model: its `model.toml`, and its graph through `wasi:nn`.

use std::cell::OnceCell;
use std::rc::Rc;

use crate::error::Error;
use crate::graph::{Graph, not_mounted, unloadable};
use crate::nn;
use crate::signature::Signature;

/// Loads the model mounted at `/models/<name>`, once in the life of the instance. A failure is not cached: the
/// next request retries.
pub(crate) fn load(name: &str) -> Result<Rc<Graph>, Error> {
    thread_local! {
        static GRAPH: OnceCell<Rc<Graph>> = const { OnceCell::new() };
    }
    GRAPH.with(|loaded| {
        if let Some(graph) = loaded.get() {
            return Ok(Rc::clone(graph));
        }
        let graph = Rc::new(Graph::new(read_signature(name)?, nn::Context::load(name)?));
        Ok(Rc::clone(loaded.get_or_init(|| graph)))
    })
}

#[cold]
fn read_signature(name: &str) -> Result<Signature, Error> {
    let text = std::fs::read_to_string(format!("/models/{name}/model.toml"))
        // Without the error's number, which is that of WASI.
        .map_err(|error| not_mounted(name, "model.toml", &error.kind()))?;
    Signature::parse(&text, name).map_err(|problem| unloadable(name, "model.toml", &problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmounted_model_is_unavailable() {
        for _ in 0..2 {
            let error = load("missing-model").unwrap_err();
            assert_eq!(error.status(), 503);
            assert!(error.to_string().contains("/models/missing-model/model.toml"), "{error}");
            assert!(error.to_string().contains("files = [{ source ="), "{error}");
            assert!(!error.to_string().contains("os error"), "{error}");
        }
    }
}
