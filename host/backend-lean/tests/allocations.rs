//! An inference allocates only its outputs, for any number of rows.
//!
//! The only test of its process, as others would allocate at the same time.

use std::alloc::System;
use std::path::Path;

use spinfer_backend::{Backend, Encoding, Tensor, TensorType};
use spinfer_backend_lean::Lean;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn an_inference_allocates_only_its_outputs() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    for (model, features) in
        [("iris-classifier/1", 4), ("iris-classifier/2", 4), ("diabetes-regressor/1", 10)]
    {
        let bytes = std::fs::read(models.join(model).join("model.onnx")).unwrap();
        let graph = Lean.load(&bytes, Encoding::Onnx).unwrap();
        // The dimensions and the data of each, and the list of them.
        let outputs = 2 * graph.outputs().len() + 1;
        for rows in [1, 7, 1000] {
            let input = || Tensor {
                dimensions: vec![rows, features],
                ty: TensorType::Fp32,
                data: 0.5_f32.to_le_bytes().repeat((rows * features) as usize),
            };
            // The test harness may allocate at the same time, so the minimum counts.
            let least = (0..5).map(|_| {
                let inputs = vec![input()];
                let region = Region::new(ALLOCATOR);
                let outputs = graph.compute(inputs).unwrap();
                let change = region.change();
                drop(outputs);
                change.allocations + change.reallocations
            });
            let least = least.min().unwrap();
            assert!(least <= outputs, "{model}, {rows} rows: {least} allocations, not {outputs}");
        }
    }
}
