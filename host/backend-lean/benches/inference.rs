//! One inference and a batch of the models that are served most. `ort.py` beside this file makes
//! the network, which is skipped if absent, and measures ONNX Runtime on the same inputs.

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use spinfer_backend::{Backend, Encoding, Tensor, TensorType};
use spinfer_backend_lean::Lean;

fn bench(c: &mut Criterion) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (name, path, width) in [
        ("iris-linear", "models/iris-classifier/1/model.onnx", 4),
        ("iris-forest", "models/iris-classifier/2/model.onnx", 4),
        ("mlp-64-128-64", "target/lean-bench/mlp-64-128-64.onnx", 64),
    ] {
        let Ok(bytes) = std::fs::read(root.join(path)) else { continue };
        let graph = Lean.load(&bytes, Encoding::Onnx).expect(path);
        for rows in [1u8, 30] {
            let values = (0..usize::from(rows) * width).map(|i| [5.1f32, 3.5, 1.4, 0.2][i % 4]);
            let input = Tensor {
                dimensions: vec![rows.into(), u32::try_from(width).expect("small")],
                ty: TensorType::Fp32,
                data: values.flat_map(f32::to_le_bytes).collect(),
            };
            c.bench_function(&format!("{name}/{rows}"), |b| {
                b.iter_batched(
                    || vec![input.clone()],
                    |inputs| black_box(graph.compute(inputs)),
                    BatchSize::SmallInput,
                );
            });
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
