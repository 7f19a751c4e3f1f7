//! Networks of a few million multiplications, one inference and a batch, through both backends
//! where both can, and a graph that does little but be copied in and out. `ort.py` in
//! `host/backend-lean/benches` makes them, they are skipped if absent, and measures ONNX Runtime.
//!
//! Microseconds a call, the best of many as `ort.py` has it: the two can be compared on a machine
//! that does something else as well.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use spinfer_backend::{Backend, Encoding, Error, Graph, Tensor, TensorType};
use spinfer_backend_lean::Lean;
use spinfer_backend_tract::Tract;

const CALLS: usize = 320;

/// Values between -4 and 4 that repeat after 997.
fn input(tail: &[u32], rows: u32) -> Tensor {
    let dimensions = [&[rows], tail].concat();
    let values = (0..dimensions.iter().product())
        .map(|i: u32| (u64::from(i) * 7919 % 997) as f32 / 997.0 * 8.0 - 4.0);
    Tensor { ty: TensorType::Fp32, data: values.flat_map(f32::to_le_bytes).collect(), dimensions }
}

fn best(graph: &dyn Graph, input: &Tensor) -> f64 {
    let call = |_| {
        let inputs = vec![input.clone()];
        let start = Instant::now();
        black_box(graph.compute(inputs)).expect("outputs");
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..CALLS).map(call).fold(f64::INFINITY, f64::min)
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lean-bench");
    for (name, tail) in [
        ("mlp-256-1024-1024-512-10", &[256][..]),
        ("cnn-28x28", &[1, 28, 28]),
        ("abs-256k", &[1 << 18]),
    ] {
        let Ok(bytes) = std::fs::read(root.join(name).with_extension("onnx")) else { continue };
        let backends: [&dyn Backend; 2] = [&Lean, &Tract];
        for backend in backends {
            let graph = match backend.load(&bytes, Encoding::Onnx) {
                Ok(graph) => graph,
                Err(Error::Unsupported(_)) => continue,
                Err(e) => panic!("{name}: {e}"),
            };
            for rows in [1, 16] {
                let best = best(graph.as_ref(), &input(tail, rows));
                println!("{name}/{}/{rows}: {best:.1}", backend.name());
            }
        }
    }
}
