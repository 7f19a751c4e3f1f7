//! Damaged and hostile models are refused or run. They never panic, hang or allocate much memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use proptest::prelude::*;
use spinfer_backend::{Backend, Encoding, Graph, Tensor};
use spinfer_backend_lean::Lean;

/// Every seventh model of the cases, and an example.
fn models() -> Vec<Vec<u8>> {
    let mut lines = String::new();
    let file = include_bytes!("cases.json.gz");
    flate2::read::GzDecoder::new(&file[..]).read_to_string(&mut lines).unwrap();
    let mut models: Vec<Vec<u8>> = lines
        .lines()
        .step_by(7)
        .map(|line| {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            BASE64_STANDARD.decode(case["model"].as_str().unwrap()).unwrap()
        })
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    models.push(std::fs::read(root.join("models/iris-classifier/1/model.onnx")).unwrap());
    models
}

/// Loads a model. If it loads, runs it on two rows and on none.
fn load_and_run(model: &[u8]) {
    let start = Instant::now();
    if let Ok(graph) = Lean.load(model, Encoding::Onnx) {
        for rows in [2, 0] {
            // By default the host refuses larger requests.
            if let Some(input) = input(graph.as_ref(), rows) {
                let _ = graph.compute(vec![input]);
            }
        }
    }
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
}

fn input(graph: &dyn Graph, rows: u32) -> Option<Tensor> {
    let info = graph.inputs().first()?;
    let mut dimensions: Vec<u32> =
        info.shape.as_ref()?.iter().map(|axis| axis.unwrap_or(rows)).collect();
    *dimensions.first_mut()? = rows;
    let count = dimensions.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis as usize))?;
    let len = count.checked_mul(info.ty.size()?).filter(|&len| len <= 16 << 20)?;
    Some(Tensor { dimensions, ty: info.ty, data: vec![0x41; len] })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_model_never_panics(
        model in prop::sample::select(models()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        let mut model = model;
        for (position, byte, kind) in damage {
            if model.is_empty() {
                break;
            }
            let position = position.index(model.len());
            match kind {
                0 => model[position] = byte,
                1 => model[position] = model[position].wrapping_add(1),
                2 => model.insert(position, byte),
                _ => { model.remove(position); }
            }
        }
        load_and_run(&model);
    }

    #[test]
    fn a_truncated_model_never_panics(
        model in prop::sample::select(models()),
        length in any::<prop::sample::Index>(),
    ) {
        load_and_run(&model[..length.index(model.len())]);
    }
}
