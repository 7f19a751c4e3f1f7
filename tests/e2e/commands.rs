//! `spinfer add`, `models` and `new` on an application: a manifest keeps its comments, a command that
//! fails leaves no files behind, and a new component builds.

use std::fs;

use serde_json::{Value, json};
use spinfer_tests::{GUESTS, Launch, Manifest, STANDARD_DOOR, root, run, state_dir};

use super::add::{AppFolder, files};

/// A manifest written by hand.
const BEFORE: &str = r#"# Ours.
spin_manifest_version = 2

[application]   # what it is
name = "shop"

# The shop itself.
[[trigger.http]]
route = "/..."
component = "shop"

[[trigger.http]]
route = "/v2/models/wine/..." # in production
component = "wine-1"   # until June

# Its code.
[component.shop]
source = 'shop.wasm'
environment = { B = "1", A = "2" }

[component.wine-1]
source = "wine.wasm"
files = [ { source = "models/wine/1", destination = "/models/wine" }, ]

# The end.
"#;

const AFTER: &str = r#"# Ours.
spin_manifest_version = 2

[application]   # what it is
name = "shop"

# The shop itself.
[[trigger.http]]
route = "/..."
component = "shop"

[[trigger.http]]
route = "/v2/models/wine/..." # in production
component = "wine-7"   # until June

[[trigger.http]]
route = "/v2/models/wine/versions/7/..."
component = "wine-7"

[[trigger.http]]
route = "/taste/..."
component = "wine-7"

# Its code.
[component.shop]
source = 'shop.wasm'
environment = { B = "1", A = "2" }

[component.wine-1]
source = "wine.wasm"
files = [ { source = "models/wine/1", destination = "/models/wine" }, ]

[component.wine-7]
source = "components/generic-model.wasm"
files = [{ source = "models/wine/7", destination = "/models/wine" }]

# The end.
"#;

#[test]
fn add_preserves_comments_and_order_of_the_manifest() {
    let application = AppFolder::new();
    fs::write(application.path("spin.toml"), BEFORE).unwrap();
    let wine = ["--name", "wine", "--version", "7", "--route", "/taste/..."];
    application.added("regressor", &[&wine[..], &["--promote"]].concat());
    assert_eq!(application.manifest(), AFTER);
    // Inline tables stay inline.
    let inline = "spin_manifest_version = 2\napplication.name = 'a'\n\
                  trigger.http = [{ route = '/', component = 'b' }]\ncomponent = { b = { source = 'c' } }\n";
    fs::write(application.path("spin.toml"), inline).unwrap();
    application.added("two-targets", &[]);
    let manifest = application.manifest();
    assert!(
        manifest.starts_with("spin_manifest_version = 2\napplication.name = 'a'\n"),
        "{manifest}"
    );
    assert_eq!(manifest.lines().count(), 4, "{manifest}");
}

#[test]
fn add_never_overwrites_a_version_and_promotes_only_on_request() {
    let application = AppFolder::new();
    // A route that is given twice is added once.
    let twice = ["--name", "m", "--route", "/r/...", "--route", "r/*", "--route", "/v2/models/m/*"];
    application.added("regressor", &twice);
    let first = application.tree();
    let output = application.added("two-targets", &["--name", "m"]);
    assert!(output.contains("/v2/models/m/... still routes to m-1"), "{output}");
    let again = application.add(&files().join("softmax.onnx"), &["--name", "m", "--version", "2"]);
    assert!(!again.0 && again.1.contains("omit --version to use 3"), "{}", again.1);
    let promoted = application.added("softmax", &["--name", "m", "--promote", "--route", "/m/..."]);
    assert!(
        promoted.contains("/v2/models/m/..., /v2/models/m/versions/3/..., /m/... -> m-3"),
        "{promoted}"
    );
    for (path, bytes) in first.iter().filter(|(path, _)| !path.ends_with("spin.toml")) {
        assert_eq!(&application.tree()[path], bytes, "{}", path.display());
    }
    let spinfer = application.up();
    for (path, outputs) in [
        ("/v2/models/m", "y"),
        ("/v2/models/m/versions/1", "variable"),
        ("/v2/models/m/versions/2", "variable"),
        ("/v2/models/m/versions/3", "y"),
    ] {
        assert_eq!(spinfer.get(path).json()["outputs"][0]["name"], outputs, "{path}");
    }
    let response = spinfer.post("/m/predict", r#"{"features": [1, 2, 3]}"#).json();
    assert_eq!((&response["model"], &response["version"]), (&json!("m"), &json!("3")));
}

#[test]
fn failed_add_leaves_the_application_unchanged() {
    let application = AppFolder::new();
    application.added("regressor", &["--name", "there"]);
    let manifest = application.manifest();
    let names = ["empty", "text", "half"];
    let garbage = [
        &b""[..],
        b"weights of a model",
        &fs::read(files().join("picture.onnx")).unwrap()[..15000],
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in names.iter().zip(garbage) {
        fs::write(folder.path().join(format!("{name}.onnx")), bytes).unwrap();
    }
    let (added, models) = (files(), root().join("tests/models"));
    for (folder, name, arguments, parts) in [
        (&added, "no-such", &[][..], &["no-such.onnx: cannot be read", "No such file"][..]),
        (&folder.path().to_owned(), "empty", &[], &["cannot be served", "it is empty"]),
        (&folder.path().to_owned(), "text", &[], &["cannot be served", "not an ONNX model"]),
        (&folder.path().to_owned(), "half", &[], &["cannot be served", "not an ONNX model"]),
        (&models, "truncated", &[], &["cannot be served", "not an ONNX model"]),
        (
            &models,
            "unsupported-op",
            &[],
            &["onnxruntime: ONNX Runtime does not have the operator com.acme.Det"],
        ),
        (&added, "strings-bayes", &["--backend", "lean"], &["cannot be served", "lean: "]),
        (&added, "softmax", &["--backend", "lean", "--threads", "2"], &["--threads: lean"]),
        (&added, "softmax", &["--backend", "tract"], &["lean", "onnxruntime"]),
        (&added, "softmax", &["--threads", "0"], &["--threads"]),
        (
            &added,
            "regressor",
            &["--name", "Two words"],
            &["\"Two words\" contains", "--name two-words"],
        ),
        (&added, "regressor", &["--name", "../up"], &["--name up"]),
        (
            &added,
            "regressor",
            &["--name", "there", "--version", "1"],
            &["version 1 of there already exists", "to use 2"],
        ),
        (&added, "regressor", &["--version", "0"], &["--version"]),
        (
            &added,
            "regressor",
            &["--route", "/v2/models/there/..."],
            &["the route /v2/models/there/... is taken by there-1", "--promote"],
        ),
        (&added, "regressor", &["--route", "/a?b"], &["--route \"/a?b\"", "cannot contain '?'"]),
        (&added, "regressor", &["--route", "/v2/models"], &["--route \"/v2/models\"", "reserved"]),
        (&added, "softmax", &["--labels", "a,b,c"], &["--labels: 3 labels for 2 classes"]),
        (
            &added,
            "strings-bayes",
            &["--labels", "a,b,c"],
            &["the graph already has labels, setosa, versicolor, virginica"],
        ),
        (&added, "numbers-double", &["--labels", "a,b"], &["the graph's classes are 3, 7"]),
        (&added, "softmax", &["--fields", "a,b"], &["--fields: 2 names for 3 features"]),
        (
            &added,
            "regressor",
            &["--component", "nowhere.wasm"],
            &["--component nowhere.wasm: cannot be read"],
        ),
    ] {
        let before = application.tree();
        let (added, text) = application.add(&folder.join(format!("{name}.onnx")), arguments);
        assert!(!added, "{name} {arguments:?}: {text}");
        for part in parts {
            assert!(text.contains(part), "{name} {arguments:?}: {part:?} is not in\n{text}");
        }
        assert!(before == application.tree(), "{name} {arguments:?} left something");
    }

    // Errors in the manifest.
    let taken = manifest.replace("there-1", "regressor-1");
    for (text, part) in [
        ("spin_manifest_version = 2\n[aplication]\n", "unknown field `aplication`"),
        (taken.as_str(), "already has a component `regressor-1`"),
    ] {
        fs::write(application.path("spin.toml"), text).unwrap();
        let before = application.tree();
        let (added, output) = application.add(&files().join("regressor.onnx"), &[]);
        assert!(!added && output.contains(part), "{output}");
        assert!(before == application.tree(), "{part}");
    }

    // Files written before the failure are removed.
    let application = AppFolder::new();
    fs::write(application.path("components"), "a file where a folder has to be").unwrap();
    let before = application.tree();
    let (added, output) = application.add(&files().join("regressor.onnx"), &[]);
    assert!(!added && output.contains("components"), "{output}");
    assert!(before == application.tree(), "{output}");
}

#[test]
fn models_lists_versions_routes_and_backends() {
    let application = AppFolder::new();
    let from = application.path("spin.toml");
    let from = from.to_str().unwrap();
    let (status, output) = run(&["models", "--from", from]);
    assert!(!status.success() && output.contains("`spinfer add model.onnx` makes one"), "{output}");
    application.added("strings-bayes", &["--name", "iris"]);
    application.added("strings-forest", &["--name", "iris", "--route", "/iris/..."]);
    let (status, table) = run(&["models", "--from", from]);
    assert!(status.success(), "{table}");
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let signature = "X FP32 [-1, 4] -> output_label INT64 [-1], output_probability FP32 [-1, 3]";
    assert_eq!(
        lines[0],
        ["model", "version", "component", "backend", "size", "routes", "inputs -> outputs"]
    );
    assert_eq!(lines[1][..4], ["iris", "1", "iris-1", "onnxruntime"]);
    assert_eq!(lines[2][..4], ["iris", "2", "iris-2", "lean"]);
    assert_eq!(lines[1][5], "/v2/models/iris/..., /v2/models/iris/versions/1/...");
    assert_eq!(lines[2][5], "/v2/models/iris/versions/2/..., /iris/...");
    assert_eq!(lines[2][6], signature);
    // The backend of each graph, and the reason.
    assert!(table.contains("\niris 1 runs on onnxruntime: lean "), "{table}");
    assert!(table.contains("\niris 2 runs on lean: it supports every operator"), "{table}");
    // A missing graph is reported, and the others are listed.
    fs::remove_file(application.path("models/iris/1/model.onnx")).unwrap();
    let (status, printed) = run(&["models", "--json", "--from", from]);
    assert!(!status.success() && printed.contains("1 of 2 models cannot be served"), "{printed}");
    let mut documents = serde_json::Deserializer::from_str(&printed).into_iter::<Value>();
    let json = documents.next().unwrap().unwrap();
    assert!(json[0]["error"].as_str().unwrap().contains("model.onnx"), "{json}");
    assert_eq!(json[1]["model"], "iris");
    assert_eq!(json[1]["routes"], json!(["/v2/models/iris/versions/2/...", "/iris/..."]));
    assert_eq!(json[1]["inputs"], json!([{ "name": "X", "datatype": "FP32", "shape": [-1, 4] }]));
    let bytes = fs::metadata(application.path("models/iris/2/model.onnx")).unwrap().len();
    assert_eq!(json[1]["bytes"], bytes);
    assert_eq!(json[1]["error"], Value::Null);
    assert_eq!(json[1]["backend"], "lean");
    assert!(
        json[1]["reason"].as_str().unwrap().starts_with("it supports every operator"),
        "{json}"
    );
    // The backend that model.toml selects.
    let signature = application.path("models/iris/2/model.toml");
    let text = fs::read_to_string(&signature).unwrap();
    fs::write(&signature, format!("backend = \"onnxruntime\"\n{text}")).unwrap();
    let (_, table) = run(&["models", "--from", from]);
    assert!(table.contains("iris 2 runs on onnxruntime: requested"), "{table}");
}

/// Offline, with the dependency versions of the workspace. Its name is also that of a crate of model-sdk.
#[test]
fn new_component_builds_and_serves() {
    let application = AppFolder::new();
    let from = application.path("spin.toml");
    let from = from.to_str().unwrap();
    let sdk = root().join("components/model-sdk");
    let new = ["new", "model", "--from", from, "--sdk", sdk.to_str().unwrap()];
    let (status, output) = run(&new);
    assert!(status.success(), "{output}");
    let created = application.tree();
    let (status, output) = run(&["new", "model-sdk", "--from", from]);
    assert!(!status.success() && output.contains("choose another name"), "{output}");
    let (status, output) = run(&new);
    assert!(
        !status.success() && output.contains("already exists; choose another name"),
        "{output}"
    );
    assert!(created == application.tree());

    // The generated model.toml describes a classifier with four features and two classes.
    let model = application.path("models/model/1");
    let folder = application.path("components/model");
    fs::copy(root().join("models/iris-classifier/1/model.onnx"), model.join("model.onnx")).unwrap();
    let text = fs::read_to_string(model.join("model.toml")).unwrap();
    let text = text.replace(r#"["no", "yes"]"#, r#"["a", "b", "c"]"#).replace("[-1, 2]", "[-1, 3]");
    fs::write(model.join("model.toml"), text).unwrap();
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();

    // The command of its manifest, with a target folder that is reused by the next run.
    let manifest = fs::read_to_string(from).unwrap();
    let target = root().join("target/new-component");
    let build = "cargo build --target wasm32-wasip2 --release";
    assert!(manifest.contains(&format!("command = \"{build}\"")), "{manifest}");
    let offline = format!("{build} --offline --target-dir {}", target.display());
    let built = target.join("wasm32-wasip2/release/model.wasm");
    let source = "components/model/target/wasm32-wasip2/release/model.wasm";
    assert!(manifest.contains(source), "{manifest}");
    let manifest = manifest.replace(build, &offline).replace(source, built.to_str().unwrap());
    fs::write(from, manifest).unwrap();
    let spinfer = Launch::from_file(application.path("spin.toml")).flags(&["--build"]).up();
    let features = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;
    let response = spinfer.post("/v2/models/model/predict", features).json();
    assert_eq!(response["prediction"], "a");
}

/// Without the sources of spinfer next to the manifest it depends on the repository.
#[test]
fn new_component_depends_on_local_sources_or_the_repository() {
    let application = AppFolder::new();
    let from = application.path("spin.toml");
    let from = from.to_str().unwrap();
    assert!(run(&["new", "a", "--from", from]).0.success());
    let dependency = |name: &str| {
        let path = application.path(&format!("components/{name}/Cargo.toml"));
        let text = fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("model-sdk = "));
        line.unwrap().to_owned()
    };
    assert!(dependency("a").starts_with("model-sdk = { git = \"https://"), "{}", dependency("a"));
    let sdk = application.path("components/model-sdk");
    fs::create_dir(&sdk).unwrap();
    fs::write(sdk.join("Cargo.toml"), "").unwrap();
    assert!(run(&["new", "b", "--from", from]).0.success());
    assert!(dependency("b").contains("components/model-sdk"), "{}", dependency("b"));
    let (status, output) = run(&["new", "no_name", "--from", from]);
    assert!(!status.success() && output.contains("iris-classifier-1"), "{output}");
}

#[test]
fn routes_lists_what_serves_each_route() {
    let manifest = Manifest::default()
        .with_iris("iris", 1, "/v2/models/iris/...", "")
        .with("/old/:id", "probe", "probe", STANDARD_DOOR)
        .and(
            "[[trigger.http]]\nroute = '/teapot'\nstatic_response = { status_code = 418 }\n\
             [[trigger.http]]\nroute = { private = true }\ncomponent = 'hidden'\n",
        )
        .and(&format!("[component.hidden]\nsource = \"{GUESTS}/probe.wasm\"\n"))
        .and("[variables]\ntoken = { required = true }\n");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spin.toml"), manifest.text()).unwrap();
    let from = folder.path().to_str().unwrap();
    let state = state_dir();
    let state = state.to_str().unwrap();
    let (status, text) = run(&["routes", "-f", from, "--state-dir", state]);
    assert!(status.success(), "{text}");
    let lines: Vec<Vec<_>> = text
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    for line in [
        ["route", "component", "door", "model", "cache"],
        ["/v2/models/iris/...", "iris", "fast", "iris-classifier 1", "yes"],
        ["/old/:id", "probe", "standard", "-", "if declared"],
        ["/teapot", "static response, 418", "-", "-", "-"],
        ["(private)", "hidden", "fast", "-", "if declared"],
    ] {
        assert!(lines.contains(&line.to_vec()), "{line:?} is not in\n{text}");
    }
    let (status, text) = run(&["routes", "-f", from, "--state-dir", state, "--json"]);
    assert!(status.success(), "{text}");
    let rows: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        rows[0],
        json!({
            "route": "/v2/models/iris/...", "component": "iris", "status": null, "door": "fast",
            "models": [{"name": "iris-classifier", "version": "1"}], "cache": "yes",
        })
    );
    assert_eq!(rows[2]["status"], 418);
    assert_eq!(rows[3]["route"], Value::Null);
}

#[test]
fn completions_are_printed_for_every_shell() {
    for (shell, part) in [
        ("bash", "complete -F _spinfer"),
        ("zsh", "#compdef spinfer"),
        ("fish", "complete -c spinfer"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion:arg-completer[spinfer]"),
    ] {
        let (status, text) = run(&["completions", shell]);
        assert!(status.success() && text.contains(part), "{shell}: {text}");
        assert!(text.contains("listen") && text.contains("experiment"), "{shell}");
        assert!(!text.contains("check-only"), "{shell}: hidden flags are not completed");
    }
}

#[test]
fn add_of_another_format_names_the_converter() {
    let folder = tempfile::tempdir().unwrap();
    let add = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, "not a graph").unwrap();
        run(&["add", path.to_str().unwrap(), "-f", folder.path().to_str().unwrap()])
    };
    for (name, part) in [
        ("t.pkl", "skl2onnx.to_onnx"),
        ("net.pt", "torch.onnx.export"),
        ("frozen.pb", "tf2onnx"),
        ("weights.safetensors", "optimum-cli"),
    ] {
        let (status, text) = add(name);
        assert!(!status.success(), "{name}: {text}");
        assert!(text.contains(name) && text.contains(part), "{name}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let (status, text) = run(&["add", folder.path().join("no.pkl").to_str().unwrap()]);
    assert!(!status.success() && text.contains("no.pkl: cannot be read"), "{text}");
    assert!(!folder.path().join("spin.toml").exists());
}

#[test]
fn component_that_is_another_file_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let graph = root().join("models/iris-classifier/1/model.onnx");
    fs::copy(graph, folder.path().join("graph.wasm")).unwrap();
    fs::write(folder.path().join("empty.wasm"), "").unwrap();
    fs::write(folder.path().join("text.wasm"), "(component)").unwrap();
    fs::create_dir(folder.path().join("folder.wasm")).unwrap();
    for (source, part) in [
        ("graph.wasm", "it looks like an ONNX model; `spinfer add FILE.onnx`"),
        ("empty.wasm", "it is empty; build it again"),
        ("text.wasm", "it is WebAssembly text"),
        ("folder.wasm", "is a folder; write the path of a .wasm file"),
        ("none.wasm", "does not exist; write the path of a .wasm file"),
    ] {
        let manifest = format!(
            "spin_manifest_version = 2\n[application]\nname = 'a'\n[[trigger.http]]\nroute = '/'\n\
             component = {{ source = '{source}' }}\n"
        );
        let path = folder.path().join("spin.toml");
        fs::write(&path, manifest).unwrap();
        let (status, text) = Launch::from_file(&path).check();
        assert!(!status.success() && text.contains(part), "{source}: {text}");
    }
}

#[test]
fn huge_line_of_a_manifest_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spin.toml");
    let filler = "x".repeat(1 << 20);
    for (text, part) in [
        (format!("spin_manifest_version = 2\n[application]\nname = '{filler}' b\n"), "line 3"),
        (
            format!(
                "spin_manifest_version = 2\n[application]\nname = 'a'\n[[trigger.http]]\nroute = '/'\n\
                 component = {{ source = '{filler}' }}\n"
            ),
            "component.inline-component1.source",
        ),
    ] {
        fs::write(&path, text).unwrap();
        let (status, text) = Launch::from_file(&path).check();
        assert!(!status.success() && text.contains(part), "{}", &text[..text.len().min(2000)]);
        assert!(text.len() < 5000, "{} bytes", text.len());
    }
}
