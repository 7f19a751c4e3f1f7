//! One row and a batch through the most common models. `ort.py` in this folder writes the two
//! models that are skipped if they do not exist, and measures ONNX Runtime on the same inputs.

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use spinfer_backend::{Backend, Encoding, Tensor, TensorType};
use spinfer_backend_lean::Lean;

/// Number of different inputs. Branch prediction would learn the path of a repeated one.
const INPUTS: u32 = 256;

/// Values between -4 and 4 with a period of 997.
fn input(number: u32, rows: u32, width: u32) -> Tensor {
    let count = rows * width;
    let values = (number * count..(number + 1) * count)
        .map(|i| (u64::from(i) * 7919 % 997) as f32 / 997.0 * 8.0 - 4.0);
    Tensor {
        dimensions: vec![rows, width],
        ty: TensorType::Fp32,
        data: values.flat_map(f32::to_le_bytes).collect(),
    }
}

fn bench(c: &mut Criterion) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (name, path, width) in [
        ("iris-linear", "models/iris-classifier/1/model.onnx", 4),
        ("iris-forest", "models/iris-classifier/2/model.onnx", 4),
        ("forest-100-deep", "target/lean-bench/forest-100-deep.onnx", 20),
        ("mlp-64-128-64", "target/lean-bench/mlp-64-128-64.onnx", 64),
    ] {
        let Ok(bytes) = std::fs::read(root.join(path)) else { continue };
        let graph = Lean.load(&bytes, Encoding::Onnx).expect(path);
        for rows in [1, 30] {
            let inputs: Vec<Tensor> = (0..INPUTS).map(|i| input(i, rows, width)).collect();
            let mut next = inputs.iter().cycle();
            c.bench_function(&format!("{name}/{rows}"), |b| {
                b.iter_batched(
                    || next.next().cloned().into_iter().collect(),
                    |inputs| black_box(graph.compute(inputs)),
                    BatchSize::SmallInput,
                );
            });
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
