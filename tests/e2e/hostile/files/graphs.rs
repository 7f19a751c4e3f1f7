use std::fs::File;

use spinfer_tests::{GUESTS, Launch, Manifest, root};

use super::onnx::{all, bytes, float, graph, int, ints, model, node, tiled, weight};
use super::{HEAD, MalformedFile, malformed};

fn malformed_files() -> Vec<MalformedFile> {
    let real = std::fs::read(root().join("models/iris-classifier/2/model.onnx")).unwrap();
    let data = |count| bytes(9, vec![0; count]);
    let external = |location: &str| {
        let location = [bytes(1, "location"), bytes(2, location)].concat();
        [bytes(13, location), int(14, 1)].concat()
    };
    // Nested `If`, each with a graph in its attribute.
    let nested = (0..100_000).fold(Vec::new(), |inner: Vec<u8>, depth| {
        // A message is limited to 2 GB, and this one doubles.
        if depth > 500 {
            return inner;
        }
        let branch = [bytes(1, "then_branch"), bytes(6, graph(&[inner])), int(20, 5)].concat();
        node("If", &["x"], &["y"], &[branch])
    });
    let tree = |name: &str, values: &[i64]| {
        let modes = [bytes(1, "nodes_modes"), all(9, &["BRANCH_LEQ", "LEAF", "LEAF"])].concat();
        let thresholds = [bytes(1, "nodes_values"), float(7, 0.5).repeat(3)].concat();
        let mut attributes = vec![modes, thresholds, ints("classlabels_int64s", &[0, 1])];
        for (list, right) in [
            ("nodes_treeids", [0, 0, 0]),
            ("nodes_nodeids", [0, 1, 2]),
            ("nodes_featureids", [0, 0, 0]),
            ("nodes_truenodeids", [1, 0, 0]),
            ("nodes_falsenodeids", [2, 0, 0]),
        ] {
            attributes.push(ints(list, if list == name { values } else { &right }));
        }
        let attributes: Vec<u8> = attributes.iter().flat_map(|a| bytes(5, a)).collect();
        let names = [bytes(1, "x"), all(2, &["l", "y"]), bytes(4, "TreeEnsembleClassifier")];
        model(&[bytes(1, [names.concat(), attributes, bytes(7, "ai.onnx.ml")].concat())])
    };
    vec![
        malformed("empty", Vec::new(), "it holds no graph"),
        malformed("truncated", real[..real.len() / 2].to_vec(), "not an ONNX model"),
        malformed("text", b"not a graph".to_vec(), "not an ONNX model"),
        malformed("length", [real[..4].to_vec(), vec![0xff; 12]].concat(), "not an ONNX model"),
        malformed(
            "cycle",
            model(&[
                node("Relu", &["b"], &["a"], &[]),
                node("Relu", &["a"], &["b"], &[]),
                node("Add", &["x", "a"], &["y"], &[]),
            ]),
            "no node before it computes its input `b`",
        ),
        malformed("own-cycle", model(&[node("Add", &["x", "y"], &["y"], &[])]), "not acyclic"),
        malformed(
            "twice",
            model(&[node("Relu", &["x"], &["y"], &[]), node("Relu", &["x"], &["y"], &[])]),
            "two values are named `y`",
        ),
        malformed(
            "no-output",
            model(&[node("Relu", &["x"], &["z"], &[])]),
            "does not exist in the graph",
        ),
        malformed("outside", weight(1, &[4], &[external("/etc/passwd")]), "another file"),
        malformed("above", weight(1, &[4], &[external("../../../etc/passwd")]), "another file"),
        malformed("huge", weight(1, &[1 << 40], &[data(16)]), "is [1099511627776], but it has 4"),
        malformed("overflow", weight(1, &[1 << 62, 1 << 62], &[data(16)]), "but it has 4"),
        malformed("no-data", weight(1, &[1 << 40], &[]), "but it has 0"),
        malformed("negative", weight(1, &[-4], &[data(16)]), "its shape is [-4]"),
        malformed("short-data", weight(1, &[4], &[data(15)]), "15 bytes are not a whole number"),
        malformed("type", weight(99, &[4], &[data(16)]), "its element type is 99"),
        malformed("nested", model(&[nested]), "not an ONNX model"),
        malformed("tree-cycle", tree("nodes_truenodeids", &[0, 0, 0]), "its trees have a cycle"),
        malformed("tree-outside", tree("nodes_falsenodeids", &[1 << 40, 0, 0]), "has no node"),
    ]
}

#[test]
fn malformed_graphs_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let mut add = |name: &str| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        files.push(format!("{{ source = '{name}', destination = '/models/{name}' }}"));
        folder.join("model.onnx")
    };
    let malformed_files = malformed_files();
    for MalformedFile { name, bytes, .. } in &malformed_files {
        std::fs::write(add(name), bytes).unwrap();
    }
    let route = "[[trigger.http]]\nroute = '/'\ncomponent = 'a'\n[component.a]\n";
    let manifest = |files: &[String]| {
        format!("{HEAD}{route}source = '{GUESTS}/probe.wasm'\nfiles = [{}]\n", files.join(", "))
    };
    let path = dir.path().join("spin.toml");
    std::fs::write(&path, manifest(&files)).unwrap();
    let (status, printed) = Launch::from_file(&path).check();
    assert_eq!(status.code(), Some(1), "{printed}");
    for MalformedFile { name, expected, .. } in malformed_files {
        let about = printed.split("model `").find(|part| part.starts_with(&format!("{name}`: ")));
        let about = about.unwrap_or_else(|| panic!("{name} was not refused:\n{printed}"));
        assert!(about.contains(expected), "{name}: {expected:?} is not in {about}");
    }
    assert!(!printed.contains("panicked"), "{printed}");

    // A graph that a guest loads.
    let grant = "tool.spinfer.load_graphs = true";
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", grant)).up();
    // Values that are known at load time are not computed then if they are too large: the run is
    // refused.
    for of in ["x", "w"] {
        assert_eq!(spinfer.post("/nn/load", tiled(of, 1 << 28)).text(), "loaded");
    }
    assert_eq!(spinfer.post("/nn/load", tiled("x", 1 << 10)).text(), "loaded");

    // A file that is too large is refused before anything is loaded.
    let enormous = dir.path().join("enormous");
    std::fs::create_dir(&enormous).unwrap();
    File::create(enormous.join("model.onnx")).unwrap().set_len(1 << 40).unwrap();
    let files = ["{ source = 'enormous', destination = '/models/enormous' }".to_owned()];
    std::fs::write(&path, manifest(&files)).unwrap();
    let (status, printed) = Launch::from_file(&path).check();
    assert!(
        status.code() == Some(1) && printed.contains("is larger than 2147483648 bytes"),
        "{printed}"
    );
}
