//! Inputs that match the declaration of a graph but that it cannot compute, which is a client error
//! whatever the backend does, and runs that never end.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::thread;

use serde_json::json;
use spinfer_tests::{Launch, Manifest, Response, Spinfer, root, wait_until};

/// Creates the folder of a model: the graph `name`, and a signature with these inputs and outputs.
fn model(dir: &Path, name: &str, inputs: &[(&str, &str, &str)], outputs: &[(&str, &str, &str)]) {
    let folder = dir.join(name);
    fs::create_dir(&folder).unwrap();
    let graph = root().join(format!("tests/models/faults/{name}.onnx"));
    fs::copy(graph, folder.join("model.onnx")).unwrap();
    let tables = |kind: &str, all: &[(&str, &str, &str)]| {
        let table = |(name, datatype, shape): &(&str, &str, &str)| {
            format!("[[{kind}]]\nname = \"{name}\"\ndatatype = \"{datatype}\"\nshape = {shape}\n")
        };
        all.iter().map(table).collect::<String>()
    };
    let text = format!(
        "name = \"{name}\"\nversion = \"1\"\n{}{}",
        tables("inputs", inputs),
        tables("outputs", outputs)
    );
    fs::write(folder.join("model.toml"), text).unwrap();
}

/// Each model at its usual route.
fn serve(dir: &Path, names: &[&str], settings: &str) -> Spinfer {
    let manifest = names.iter().fold(Manifest::default(), |manifest, name| {
        let folder = dir.join(name);
        let more = format!(
            "files = [{{ source = \"{}\", destination = \"/models/{name}\" }}]\n{settings}",
            folder.display()
        );
        manifest.with(&format!("/v2/models/{name}/..."), name, "generic_model", &more)
    });
    Launch::new(&manifest).up()
}

fn infer(spinfer: &Spinfer, name: &str, inputs: &[(&str, &str, serde_json::Value)]) -> Response {
    let inputs: Vec<_> = inputs
        .iter()
        .map(|(name, datatype, data)| {
            let length = data.as_array().unwrap().len();
            json!({ "name": name, "datatype": datatype, "shape": [length], "data": data })
        })
        .collect();
    let body = json!({ "inputs": inputs }).to_string();
    spinfer.post(&format!("/v2/models/{name}/infer"), body)
}

#[test]
fn input_values_the_graph_rejects_are_400_without_internals() {
    let dir = tempfile::tempdir().unwrap();
    let (int, float) = (|name| (name, "INT64", "[-1]"), |name| (name, "FP32", "[-1]"));
    model(dir.path(), "gather", &[int("index")], &[("y", "FP32", "[-1, 2]")]);
    model(dir.path(), "divide", &[int("a"), int("b")], &[int("y")]);
    model(dir.path(), "add", &[float("a"), float("b")], &[float("y")]);
    let spinfer = serve(dir.path(), &["gather", "divide", "add"], "");
    let index = |data| vec![("index", "INT64", data)];
    let pair = |ty, a, b| vec![("a", ty, a), ("b", ty, b)];
    for (name, inputs, part) in [
        ("gather", index(json!([0, 4])), "index"),
        ("gather", index(json!([-5])), "index"),
        ("gather", index(json!([i64::MIN])), "index"),
        ("divide", pair("INT64", json!([1, 1]), json!([1, 0])), "divided"),
        ("divide", pair("INT64", json!([i64::MIN]), json!([-1])), "divided"),
        ("add", pair("FP32", json!([1.0, 2.0]), json!([1.0, 2.0, 3.0])), "shape"),
    ] {
        let response = infer(&spinfer, name, &inputs);
        let error = response.error();
        assert_eq!(response.status, 400, "{name}: {error}");
        assert!(error.contains(part), "{name}: {error}");
        for internal in ["onnx", "31337", ".cc", ".h:", "/", "Status", "node"] {
            let error = error.to_lowercase();
            assert!(!error.contains(&internal.to_lowercase()), "{name}: {error}");
        }
    }
    for (name, inputs, output) in [
        ("gather", index(json!([3, -1])), json!([6.0, 7.0, 6.0, 7.0])),
        ("divide", pair("INT64", json!([7, i64::MIN]), json!([-2, 1])), json!([-3, i64::MIN])),
        ("add", pair("FP32", json!([1.0, 2.0]), json!([1.0])), json!([2.0, 3.0])),
    ] {
        let response = infer(&spinfer, name, &inputs);
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        assert_eq!(response.json()["outputs"][0]["data"], output, "{name}");
    }
}

/// A loop whose number of iterations is an input.
fn loops(deadline: &str) -> (Spinfer, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    model(dir.path(), "loop", &[("trips", "INT64", "[1]")], &[("y", "INT64", "[1]")]);
    let limits = format!("tool.spinfer.limits.deadline = \"{deadline}\"");
    (serve(dir.path(), &["loop"], &limits), dir)
}

fn run_loop(spinfer: &Spinfer, trips: i64) -> Response {
    infer(spinfer, "loop", &[("trips", "INT64", json!([trips]))])
}

fn threads() -> usize {
    thread::available_parallelism().unwrap().get()
}

#[test]
fn run_past_its_deadline_is_terminated() {
    let (spinfer, _dir) = loops("3s");
    assert_eq!(run_loop(&spinfer, 10).json()["outputs"][0]["data"], json!([10]));
    // One run for each compute thread: a run that went on would block the next.
    for _ in 0..2 {
        thread::scope(|scope| {
            for _ in 0..threads() {
                scope.spawn(|| assert_eq!(run_loop(&spinfer, i64::MAX).status, 504));
            }
        });
    }
    wait_until("the compute threads are idle", || computing(&spinfer) == 0);
    assert_eq!(run_loop(&spinfer, 10).json()["outputs"][0]["data"], json!([10]));
}

#[test]
fn run_of_a_disconnected_client_is_terminated() {
    let (spinfer, _dir) = loops("10m");
    assert_eq!(run_loop(&spinfer, 10).status, 200);
    let connections: Vec<TcpStream> = (0..threads())
        .map(|n| {
            // Different inputs, as identical requests would collapse into one.
            let trips = i64::MAX - n as i64;
            let inputs =
                json!([{ "name": "trips", "datatype": "INT64", "shape": [1], "data": [trips] }]);
            let body = json!({ "inputs": inputs }).to_string();
            let mut stream = spinfer.connect();
            let length = body.len();
            let head = format!(
                "POST /v2/models/loop/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {length}"
            );
            write!(stream, "{head}\r\n\r\n{body}").unwrap();
            stream
        })
        .collect();
    wait_until("every thread computes", || computing(&spinfer) == threads());
    drop(connections);
    wait_until("the compute threads are idle", || computing(&spinfer) == 0);
    assert_eq!(run_loop(&spinfer, 10).status, 200);
}

/// Number of compute threads that are running.
fn computing(spinfer: &Spinfer) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", spinfer.id())).unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    // `1234 (compute-0) R ...`
    stats.filter(|stat| stat.contains("(compute-") && stat.contains(") R ")).count()
}

#[test]
fn batches_are_formed_along_the_declared_batch_axis() {
    let dir = tempfile::tempdir().unwrap();
    let (x, y) = (("x", "FP32", "[-1, -1, 2]"), ("y", "FP32", "[-1, 2]"));
    model(dir.path(), "time-major", &[x], &[y]);
    let toml = dir.path().join("time-major/model.toml");
    let text = fs::read_to_string(&toml).unwrap().replace(x.2, &format!("{}\nbatch_axis = 1", x.2));
    let batching = "[batching]\nmax_batch_size = 8\nmax_queue_delay = \"50ms\"\n";
    fs::write(&toml, format!("{text}{batching}")).unwrap();
    let spinfer = serve(dir.path(), &["time-major"], "");
    thread::scope(|scope| {
        for n in 0..8_u32 {
            let spinfer = &spinfer;
            scope.spawn(move || {
                let n = f64::from(n);
                let data = json!([n, 1.0, 10.0, 2.0, 100.0, 3.0]);
                let input =
                    json!({ "name": "x", "datatype": "FP32", "shape": [3, 1, 2], "data": data });
                let body = json!({ "inputs": [input] }).to_string();
                let response = spinfer.post("/v2/models/time-major/infer", body);
                assert_eq!(response.status, 200, "{}", response.text());
                assert_eq!(response.json()["outputs"][0]["data"], json!([110.0 + n, 6.0]));
            });
        }
    });
}
