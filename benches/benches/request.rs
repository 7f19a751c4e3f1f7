//! Times of a request without sockets: `cargo bench --workspace --bench request`.
//!
//! - `instantiate+predict`: a prediction by a new instance
//! - `predict/...`: a prediction by an existing instance, through each door
//! - `compute/...`: the inference alone, in the host

mod in_process;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http_body_util::BodyExt;
use spinfer::guest::component::Component;
use spinfer::http::body::RequestBody;
use spinfer::http::spin_headers::RequestOrigin;
use spinfer::inference::{ComponentModels, ComputeThreads, GraphRegistry, Mounts};
use spinfer_backend::{Backend, Tensor, TensorType};
use spinfer_backend_lean::Lean;
use spinfer_benches::application::{IRIS, PREDICT, iris_model};
use tokio::runtime::Runtime;

const FEATURES: [f32; 4] = [5.1, 3.5, 1.4, 0.2];

async fn predict(component: &Component) -> Bytes {
    let request = http::Request::post(format!("{IRIS}/predict")).body(()).expect("valid");
    let body = RequestBody::Whole(Bytes::from_static(PREDICT.body.as_bytes()));
    let deadline = Instant::now() + Duration::from_secs(60);
    let response =
        component.invoke(request.into_parts().0, body, deadline, RequestOrigin::inside()).await;
    let response = response.expect("a response");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("a body").to_bytes()
}

fn requests(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    for door in ["fast", "standard"] {
        let host = {
            let _in = runtime.enter();
            in_process::host(&format!("door = '{door}'"))
        };
        for version in [1, 2] {
            let component =
                host.component(&format!("iris-classifier-{version}")).expect("in the app");
            let name = format!("predict/{door}/version {version}");
            c.bench_function(&name, |b| b.to_async(&runtime).iter(|| predict(component)));
        }
        if door == "fast" {
            let component = host.component("iris-classifier-1").expect("in the app");
            c.bench_function("instantiate+predict", |b| {
                b.to_async(&runtime).iter_batched(
                    || _ = component.drop_idle(Instant::now() + Duration::from_secs(24 * 3600)),
                    |()| predict(component),
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

fn compute(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let backends: Vec<Arc<dyn Backend>> = vec![Arc::new(Lean)];
    let threads = ComputeThreads::start(2).expect("threads");
    let registry = Arc::new(GraphRegistry::new(backends, threads));
    for version in [1, 2] {
        let mut mounts = Mounts::default();
        mounts.add("/models/iris".into(), iris_model(&version.to_string()));
        let models = ComponentModels::new(Arc::clone(&registry), mounts);
        let later = Instant::now() + Duration::from_secs(3600);
        let graph = runtime.block_on(models.load_by_name("iris", later)).expect("the model");
        let data = FEATURES.map(f32::to_le_bytes).concat();
        c.bench_function(&format!("compute/version {version}"), |b| {
            b.to_async(&runtime).iter(|| async {
                let tensor =
                    Tensor { dimensions: vec![1, 4], ty: TensorType::Fp32, data: data.clone() };
                let inputs = vec![("features".to_owned(), tensor)];
                black_box(graph.compute(inputs, later).await.expect("outputs"))
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = requests, compute
}
criterion_main!(benches);
