//! `wasi:nn` through a guest: tensor types, error codes, grants and limits.

use std::path::PathBuf;

use spinfer_tests::{Launch, Manifest, Response, Spinfer, root};

/// The probe with test models, which are mounted under their file names.
fn probe(models: &[&str]) -> (Spinfer, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mounts: Vec<_> = models
        .iter()
        .map(|model| {
            let folder = dir.path().join(model);
            std::fs::create_dir(&folder).unwrap();
            std::fs::copy(file(model), folder.join("model.onnx")).unwrap();
            let folder = folder.display();
            format!("{{ source = \"{folder}\", destination = \"/models/{model}\" }}")
        })
        .collect();
    let settings = format!("files = [{}]", mounts.join(", "));
    (Launch::new(&Manifest::default().with("/...", "probe", "probe", &settings)).up(), dir)
}

fn file(model: &str) -> PathBuf {
    root().join(format!("tests/models/{model}.onnx"))
}

fn bytes(model: &str) -> Vec<u8> {
    std::fs::read(file(model)).unwrap()
}

fn fails(response: &Response, code: &str, part: &str) {
    assert_eq!(response.status, 422, "{}", response.text());
    assert_eq!(response.header("x-code"), Some(format!("ErrorCode::{code}").as_str()));
    assert!(response.text().contains(part), "{:?} does not contain {part:?}", response.text());
}

#[test]
fn every_tensor_type_round_trips() {
    let models =
        ["fp16", "bf16", "fp32", "fp64", "u8", "i32", "i64"].map(|ty| format!("identity-{ty}"));
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let (spinfer, _dir) = probe(&models);
    for (ty, size) in
        [("FP16", 2), ("BF16", 2), ("FP32", 4), ("FP64", 8), ("U8", 1), ("I32", 4), ("I64", 8)]
    {
        for count in [1, 3, 1000] {
            let data: Vec<u8> = (0..count * size).map(|i: u32| i.to_le_bytes()[0] & 0x3b).collect();
            let graph = format!("identity-{}", ty.to_lowercase());
            let response =
                spinfer.post(&format!("/nn/compute?graph={graph}&input=x:{ty}:{count}"), &data);
            assert_eq!(response.status, 200, "{ty}: {}", response.text());
            assert_eq!(response.body, data, "{ty}");
            let outputs = response.header("x-outputs").unwrap().to_uppercase();
            assert_eq!(outputs, format!("Y:TENSORTYPE::{ty}:[{count}]"));
        }
    }
}

#[test]
fn inputs_are_matched_by_name_and_outputs_keep_the_order_of_the_graph() {
    let (spinfer, _dir) = probe(&["add-two-inputs"]);
    let floats = |values: [f32; 4]| values.map(f32::to_le_bytes).concat();
    let (a, b) = (floats([1.0, 2.0, 3.0, 4.0]), floats([10.0, 20.0, 30.0, 40.0]));
    let expected = [floats([11.0, 22.0, 33.0, 44.0]), floats([-9.0, -18.0, -27.0, -36.0])].concat();
    for (order, body) in [
        ("input=a:FP32:2,2&input=b:FP32:2,2", [a.clone(), b.clone()].concat()),
        ("input=b:FP32:2,2&input=a:FP32:2,2", [b, a].concat()),
    ] {
        let response = spinfer.post(&format!("/nn/compute?graph=add-two-inputs&{order}"), body);
        assert_eq!((response.status, &response.body), (200, &expected), "{}", response.text());
        let outputs = response.header("x-outputs").unwrap();
        let names: Vec<_> = outputs.split(';').map(|o| o.split(':').next().unwrap()).collect();
        assert_eq!(names, ["sum", "difference"]);
    }
}

#[test]
fn mismatched_tensor_is_an_invalid_argument() {
    let (spinfer, _dir) = probe(&["add-two-inputs", "identity-fp32"]);
    let huge = u32::MAX;
    for (query, size, part) in [
        ("graph=identity-fp32", 0, "input `x` is missing"),
        ("graph=identity-fp32&input=z:FP32:1", 4, "unknown input `z`; the graph has `x`"),
        ("graph=identity-fp32&input=x:I32:1", 4, "input `x` is FP32, not I32"),
        ("graph=identity-fp32&input=x:FP32:1,1", 4, "has shape [-1]"),
        ("graph=identity-fp32&input=x:FP32:", 4, "has shape [-1]"),
        ("graph=identity-fp32&input=x:FP32:2", 4, "4 bytes of data do not fill"),
        ("graph=identity-fp32&input=x:FP32:1", 5, "5 bytes of data do not fill"),
        (&format!("graph=identity-fp32&input=x:FP32:{huge}"), 4, "4 bytes of data do not fill"),
        ("graph=identity-fp32&input=x:FP32:1&input=x:FP32:1", 8, "duplicate input `x`"),
        ("graph=add-two-inputs&input=a:FP32:2,2", 16, "input `b` is missing"),
        (&format!("graph=add-two-inputs&input=a:FP32:{huge},{huge}"), 4, "has shape [2, 2]"),
    ] {
        let response = spinfer.post(&format!("/nn/compute?{query}"), vec![0; size]);
        fails(&response, "InvalidArgument", part);
    }
    let empty = spinfer.post("/nn/compute?graph=identity-fp32&input=x:FP32:0", "");
    assert_eq!((empty.status, empty.body.len()), (200, 0), "empty tensors are accepted");
}

#[test]
fn only_mounted_models_are_found() {
    let (spinfer, dir) = probe(&["identity-fp32"]);
    std::fs::create_dir(dir.path().join("secret")).unwrap();
    std::fs::copy(file("identity-u8"), dir.path().join("secret/model.onnx")).unwrap();
    for name in ["secret", "../secret", "/etc", "", "identity-fp32/../secret", "iris-classifier"] {
        let response = spinfer.post(&format!("/nn/compute?graph={name}"), "");
        let part = format!("no model `{name}`: this component's files mount `identity-fp32`");
        fails(&response, "NotFound", &part);
    }
}

/// The probe with the grant to load its own graphs.
fn loader() -> Spinfer {
    let grant = "tool.spinfer.load_graphs = true";
    Launch::new(&Manifest::default().with("/...", "probe", "probe", grant)).up()
}

#[test]
fn load_without_the_grant_is_a_security_error() {
    let (spinfer, _dir) = probe(&[]);
    let response = spinfer.post("/nn/load", bytes("identity-fp32"));
    fails(&response, "Security", "`tool.spinfer.load_graphs = true`");
}

#[test]
fn load_with_the_grant_accepts_a_graph() {
    let spinfer = loader();
    assert_eq!(spinfer.post("/nn/load", bytes("identity-fp32")).text(), "loaded");
    assert_eq!(spinfer.post("/nn/load?encoding=autodetect", bytes("identity-u8")).text(), "loaded");
}

#[test]
fn unusable_graph_is_refused_with_the_reason() {
    let spinfer = loader();
    let good = bytes("identity-fp32");
    for encoding in ["openvino", "tensorflow", "pytorch", "tensorflowlite", "ggml"] {
        let response = spinfer.post(&format!("/nn/load?encoding={encoding}"), &good);
        fails(&response, "InvalidEncoding", "convert the model to ONNX");
    }
    for target in ["gpu", "tpu"] {
        let response = spinfer.post(&format!("/nn/load?target={target}"), &good);
        fails(&response, "UnsupportedOperation", "no backend supports ONNX on");
    }
    for parts in [0, 2] {
        let response = spinfer.post(&format!("/nn/load?parts={parts}"), &good);
        fails(&response, "InvalidArgument", "an ONNX model takes one");
    }
    for (graph, part) in [
        (b"".to_vec(), "not an ONNX model"),
        (b"no graph at all".to_vec(), "not an ONNX model"),
        (bytes("truncated"), "not an ONNX model"),
    ] {
        fails(&spinfer.post("/nn/load", graph), "InvalidEncoding", part);
    }
    let response = spinfer.post("/nn/load", bytes("unsupported-op"));
    fails(&response, "UnsupportedOperation", "does not have the operator com.acme.Det");
    // A valid graph with one changed byte is loaded or refused, without a trap or a panic.
    for index in 0..good.len() {
        let mut graph = good.clone();
        graph[index] ^= 0x55;
        let response = spinfer.post("/nn/load", graph);
        assert!([200, 422].contains(&response.status), "byte {index}: {}", response.text());
    }
}

/// The bytes that the host holds for a guest are limited like the guest's own memory.
#[test]
fn tensor_memory_and_handles_are_limited() {
    let settings = "tool.spinfer.limits.instance_memory = \"16MiB\"";
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).up();
    assert_eq!(spinfer.get("/nn/tensors?count=10&bytes=1000000").text(), "10");
    assert_eq!(spinfer.get("/nn/tensors?count=20&bytes=1000000").status, 500);
    spinfer.wait_for_log("limits.instance_memory is 16777216");
    assert_eq!(spinfer.get("/nn/tensors?count=20000&bytes=1").status, 500, "too many handles");
    // Dropped tensors free their memory.
    for _ in 0..10 {
        assert_eq!(spinfer.get("/nn/tensors?count=10&bytes=1000000").text(), "10");
    }
}

/// An inference of several milliseconds runs on a compute thread, and connections are served meanwhile.
#[test]
fn long_inference_does_not_block_other_requests() {
    let (spinfer, _dir) = probe(&["heavy-matmul"]);
    let data = [0.5_f32; 512].map(f32::to_le_bytes).concat();
    let compute = || spinfer.post("/nn/compute?graph=heavy-matmul&input=x:FP32:1,512", &data);
    std::thread::scope(|scope| {
        let heavy: Vec<_> = (0..8).map(|_| scope.spawn(compute)).collect();
        while !heavy.iter().all(|one| one.is_finished()) {
            assert_eq!(spinfer.get("/v2/health/live").status, 200);
        }
        for one in heavy {
            let response = one.join().unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
            for value in response.body.chunks(4) {
                let value = f32::from_le_bytes(value.try_into().unwrap());
                assert!((value - 0.25).abs() < 1e-4, "mean(x) squared, not {value}");
            }
        }
    });
}

/// The guest gets an error and may still respond; after the deadline the host responds.
#[test]
fn compute_past_the_deadline_times_out() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(file("heavy-matmul"), dir.path().join("model.onnx")).unwrap();
    let settings = format!(
        "files = [{{ source = \"{}\", destination = \"/models/heavy\" }}]\n\
         tool.spinfer.limits.deadline = \"1ms\"",
        dir.path().display()
    );
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", &settings)).up();
    let data = [0.5_f32; 512].map(f32::to_le_bytes).concat();
    let response = spinfer.post("/nn/compute?graph=heavy&input=x:FP32:1,512", &data);
    if response.status == 422 {
        fails(&response, "Timeout", "did not finish before the request's deadline");
    } else {
        assert!([408, 504].contains(&response.status), "{} {}", response.status, response.text());
    }
}

/// The log has a line for each load.
#[test]
fn components_share_one_loaded_graph() {
    let manifest = Manifest::default()
        .with_iris("one", 1, "/one/...", "")
        .with_iris("two", 1, "/two/...", "")
        .with_iris("three", 2, "/three/...", "");
    let spinfer = Launch::new(&manifest).up();
    for _ in 0..3 {
        for route in ["/one", "/two", "/three"] {
            let response =
                spinfer.post(&format!("{route}/predict"), r#"{"features": [1, 2, 3, 4]}"#);
            assert_eq!(response.status, 200, "{}", response.text());
        }
    }
    assert_eq!(spinfer.log().matches("graph loaded").count(), 2, "{}", spinfer.log());
}
