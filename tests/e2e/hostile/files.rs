//! Graphs and components that are truncated, enormous, cyclic or inconsistent: `spinfer check` refuses each
//! with the reason.

use std::fs::File;
use std::io::Write;
use std::process::Command;

use spinfer_tests::{GUESTS, Launch, Manifest, binary, root, state_dir, wait_until};

use super::harms;

/// A file, and a part of the error that it causes.
struct MalformedFile {
    name: &'static str,
    bytes: Vec<u8>,
    expected: &'static str,
}

fn malformed(name: &'static str, bytes: Vec<u8>, expected: &'static str) -> MalformedFile {
    MalformedFile { name, bytes, expected }
}

const HEAD: &str = "spin_manifest_version = 2\n[application]\nname = 'lies'\n";

/// Components.
mod wasm {
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    fn number(value: usize) -> Vec<u8> {
        leb128(value as u64)
    }

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        [&[id], number(content.len()).as_slice(), content].concat()
    }

    /// A component around a core module with these sections.
    fn around(sections: &[Vec<u8>]) -> Vec<u8> {
        let module = [b"\0asm\x01\0\0\0", sections.concat().as_slice()].concat();
        [b"\0asm\x0d\0\x01\0", section(1, &module).as_slice()].concat()
    }

    /// Functions without parameters and with these bodies.
    fn functions(bodies: &[Vec<u8>]) -> Vec<u8> {
        let bodies: Vec<_> = bodies.iter().map(|b| [number(b.len()), b.clone()].concat()).collect();
        let types = section(1, &[1, 0x60, 0, 0]);
        let declared = [number(bodies.len()), vec![0; bodies.len()]].concat();
        let code = [number(bodies.len()), bodies.concat()].concat();
        around(&[types, section(3, &declared), section(10, &code)])
    }

    fn malformed_files() -> Vec<MalformedFile> {
        let real = std::fs::read(format!("{GUESTS}/hello_p2.wasm")).unwrap();
        let mut damaged = real.clone();
        damaged[20] = 0xff;
        let not = "is not a WebAssembly component";
        let module = |items: &str| text(&harms::component(items, "", ""));
        let instances =
            "(core module $m) ".to_owned() + &"(core instance (instantiate $m)) ".repeat(101);
        let memories = "(core module $m (memory 1)) ".to_owned()
            + &"(core instance (instantiate $m)) ".repeat(50);
        let nested = (0..2000).fold(Vec::new(), |inner: Vec<u8>, _| {
            let inner = if inner.is_empty() { inner } else { section(4, &inner) };
            [b"\0asm\x0d\0\x01\0", inner.as_slice()].concat()
        });
        let blocks =
            |count| [vec![0], [0x02, 0x40].repeat(count), [0x0b].repeat(count + 1)].concat();
        vec![
            malformed("empty", Vec::new(), not),
            malformed("truncated", real[..real.len() / 2].to_vec(), not),
            malformed("damaged", damaged, not),
            malformed("module", text("(module)"), not),
            malformed("section", [&real[..8], &[1, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat(), not),
            malformed("memory", module("(memory 65536)"), "memory index 0 is unsupported"),
            malformed(
                "memory-64",
                module("(memory i64 0x1000000000000)"),
                "memory index 0 is unsupported",
            ),
            malformed("table", module("(table 100000000 funcref)"), "table index 0"),
            malformed(
                "instances",
                text(&format!("(component {instances})")),
                "core module instances",
            ),
            malformed("memories", text(&format!("(component {memories})")), "memories"),
            // Deep, but valid, and found to have no handler.
            malformed("nested", nested, "it exports no HTTP handler"),
            malformed("functions", functions(&vec![vec![0, 0x0b]; 1_000_001]), not),
            // Four billion locals of one type, in a few bytes.
            malformed(
                "locals",
                functions(&[[vec![1], number(0xffff_ffff), vec![0x7f, 0x0b]].concat()]),
                not,
            ),
            malformed(
                "long-function",
                functions(&[[vec![0], vec![0x01; 8 << 20], vec![0x0b]].concat()]),
                not,
            ),
            // Deep, but valid: compiled, and found to have no handler.
            malformed("blocks", functions(&[blocks(50_000)]), "it exports no HTTP handler"),
        ]
    }

    #[test]
    fn malformed_components_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = HEAD.to_owned();
        let mut add = |id: &str, source: &str| {
            manifest += &format!(
                "[[trigger.http]]\nroute = '/{id}'\ncomponent = '{id}'\n[component.{id}]\n\
                 source = '{source}'\ntool.spinfer.limits.instance_memory = '16MiB'\n"
            );
        };
        let mut malformed_files = malformed_files();
        for MalformedFile { name, bytes, .. } in &malformed_files {
            std::fs::write(dir.path().join(format!("{name}.wasm")), bytes).unwrap();
            add(name, &format!("{name}.wasm"));
        }
        // A sparse file of 1 TiB.
        File::create(dir.path().join("enormous.wasm")).unwrap().set_len(1 << 40).unwrap();
        add("enormous", "enormous.wasm");
        malformed_files.push(malformed("enormous", Vec::new(), "is longer than 268435456 bytes"));
        let path = dir.path().join("spin.toml");
        std::fs::write(&path, &manifest).unwrap();
        let (status, printed) = Launch::from_file(&path).check();
        assert_eq!(status.code(), Some(1), "{printed}");
        for MalformedFile { name, expected, .. } in malformed_files {
            let about =
                printed.split("component `").find(|part| part.starts_with(&format!("{name}`")));
            let about = about.unwrap_or_else(|| panic!("{name} was not refused:\n{printed}"));
            assert!(about.contains(expected), "{name}: {expected:?} is not in {about}");
        }
        assert!(!printed.contains("panicked"), "{printed}");

        // Two components share a file, which exceeds the limit of one of them.
        let text = text(&harms::component("(memory 300)", "", ""));
        std::fs::write(dir.path().join("memory.wasm"), text).unwrap();
        let mut manifest = HEAD.to_owned();
        for (id, memory) in [("small", "16MiB"), ("large", "32MiB")] {
            manifest += &format!(
                "[[trigger.http]]\nroute = '/{id}'\ncomponent = '{id}'\n[component.{id}]\n\
                 source = 'memory.wasm'\ntool.spinfer.limits.instance_memory = '{memory}'\n"
            );
        }
        std::fs::write(&path, manifest).unwrap();
        let (status, printed) = Launch::from_file(&path).check();
        let expected = "component `small`: its memory begins with 19660800 bytes";
        assert!(status.code() == Some(1) && printed.contains(expected), "{printed}");
    }
}

/// An unsigned number with seven bits per byte, as in WebAssembly (5.2.2) and protobuf.
fn leb128(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Graphs, encoded field by field, as ONNX libraries do not write invalid ones.
mod onnx {
    use super::*;

    /// An integer field of a protobuf message.
    fn int(field: u64, value: i64) -> Vec<u8> {
        [leb128(field << 3), leb128(value.cast_unsigned())].concat()
    }

    /// An FP32 field.
    fn float(field: u64, value: f32) -> Vec<u8> {
        [leb128(field << 3 | 5), value.to_le_bytes().to_vec()].concat()
    }

    /// A field with bytes, a string or a message.
    fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
        let value = value.as_ref();
        [leb128(field << 3 | 2), leb128(value.len() as u64), value.to_vec()].concat()
    }

    fn all<T: AsRef<str>>(field: u64, values: &[T]) -> Vec<u8> {
        values.iter().flat_map(|value| bytes(field, value.as_ref())).collect()
    }

    fn node(operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
        let attributes = attributes.iter().flat_map(|attribute| bytes(5, attribute)).collect();
        let node = [all(1, inputs), all(2, outputs), bytes(4, operator), attributes].concat();
        bytes(1, node)
    }

    /// The declaration of an FP32 tensor with the shape `[1, 4]`.
    fn value(name: &str) -> Vec<u8> {
        let shape = [bytes(1, int(1, 1)), bytes(1, int(1, 4))].concat();
        let tensor = [int(1, 1), bytes(2, shape)].concat();
        [bytes(1, name), bytes(2, bytes(1, tensor))].concat()
    }

    fn initializer(name: &str, ty: i64, dims: &[i64], rest: &[Vec<u8>]) -> Vec<u8> {
        let dims: Vec<u8> = dims.iter().flat_map(|dim| int(1, *dim)).collect();
        bytes(5, [dims, int(2, ty), bytes(8, name), rest.concat()].concat())
    }

    /// A graph with the input `x`, the output `y` and these nodes and initializers.
    fn graph(parts: &[Vec<u8>]) -> Vec<u8> {
        [parts.concat(), bytes(2, "g"), bytes(11, value("x")), bytes(12, value("y"))].concat()
    }

    fn model(parts: &[Vec<u8>]) -> Vec<u8> {
        let opset = |domain: &str, version| bytes(8, [bytes(1, domain), int(2, version)].concat());
        [int(1, 8), bytes(7, graph(parts)), opset("", 17), opset("ai.onnx.ml", 3)].concat()
    }

    /// `y = x + w` with an invalid `w`.
    fn weight(ty: i64, dims: &[i64], rest: &[Vec<u8>]) -> Vec<u8> {
        model(&[initializer("w", ty, dims, rest), node("Add", &["x", "w"], &["y"], &[])])
    }

    fn ints(name: &str, values: &[i64]) -> Vec<u8> {
        let values: Vec<u8> = values.iter().flat_map(|value| int(8, *value)).collect();
        [bytes(1, name), values, int(20, 7)].concat()
    }

    /// `y = x + max(t)`, where `t` repeats `x`, which is known at run time, or `w`, which is known at load
    /// time.
    fn tiled(of: &str, times: i64) -> Vec<u8> {
        let repeats = [times.to_le_bytes(), 1_i64.to_le_bytes()].concat();
        model(&[
            initializer("r", 7, &[2], &[bytes(9, repeats)]),
            initializer("w", 1, &[1, 4], &[bytes(9, [0; 16])]),
            node("Tile", &[of, "r"], &["t"], &[]),
            node("ReduceMax", &["t"], &["m"], &[]),
            node("Add", &["x", "m"], &["y"], &[]),
        ])
    }

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
                "nothing before it makes its input `b`",
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
            malformed(
                "huge",
                weight(1, &[1 << 40], &[data(16)]),
                "is [1099511627776], but it holds 4",
            ),
            malformed("overflow", weight(1, &[1 << 62, 1 << 62], &[data(16)]), "but it holds 4"),
            malformed("no-data", weight(1, &[1 << 40], &[]), "but it holds 0"),
            malformed("negative", weight(1, &[-4], &[data(16)]), "its shape is [-4]"),
            malformed("short-data", weight(1, &[4], &[data(15)]), "15 bytes are no whole number"),
            malformed("type", weight(99, &[4], &[data(16)]), "its element type is 99"),
            malformed("nested", model(&[nested]), "not an ONNX model"),
            malformed(
                "tree-cycle",
                tree("nodes_truenodeids", &[0, 0, 0]),
                "its trees have a cycle",
            ),
            malformed("tree-outside", tree("nodes_falsenodeids", &[1 << 40, 0, 0]), "has no node"),
        ]
    }

    /// A graph of which most is known at load time: `times` products of square matrices.
    fn product(times: usize, size: i64) -> Vec<u8> {
        let shape = [size.to_le_bytes(), size.to_le_bytes()].concat();
        let mut parts = vec![
            initializer("s", 7, &[2], &[bytes(9, shape)]),
            node("ConstantOfShape", &["s"], &["p0"], &[]),
        ];
        for n in 0..times {
            let (factor, product) = (format!("p{n}"), format!("p{}", n + 1));
            parts.push(node("MatMul", &[&factor, &factor], &[&product], &[]));
        }
        parts.push(node("ReduceMax", &[&format!("p{times}")], &["m"], &[]));
        parts.push(node("Add", &["x", "m"], &["y"], &[]));
        model(&parts)
    }

    /// Processor time, in the ticks of proc(5).
    const TICKS_PER_SECOND: u64 = 100;

    /// The fields of a process after its name: its state, its parent, and as the twelfth its processor
    /// time in user mode (proc(5)).
    fn stat(id: &str, field: usize) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(field)?.parse().ok()
    }

    /// The process of a graph trial of the process `host`, once the trial has computed for a while.
    fn trial_of(host: u32) -> Option<String> {
        let processes = std::fs::read_dir("/proc").unwrap();
        let mut ids = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        ids.find(|id| {
            let started = stat(id, 11) >= Some(TICKS_PER_SECOND / 5);
            started && stat(id, 1) == Some(host.into())
        })
    }

    /// Whether a process has exited. A zombie, for which no parent may wait, has no command line.
    fn has_exited(id: &str) -> bool {
        std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default().is_empty()
    }

    #[test]
    fn trial_process_exits_with_its_host() {
        /// Half of the processor time after which the trial would be terminated anyway.
        const MAX_TICKS: u64 = 15 * TICKS_PER_SECOND;
        let grant = "tool.spinfer.load_graphs = true\ntool.spinfer.limits.deadline = \"60s\"";
        let manifest = Manifest::default().with("/...", "probe", "probe", grant);
        let mut spinfer = Launch::new(&manifest).up();
        let (graph, mut stream) = (product(1000, 2000), spinfer.connect());
        let head =
            format!("POST /nn/load HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", graph.len());
        stream.write_all(&[head.as_bytes(), &graph].concat()).unwrap();
        let mut trial = None;
        wait_until("the trial computes", || {
            trial = trial_of(spinfer.id());
            trial.is_some()
        });
        let host = spinfer.id().to_string();
        assert!(Command::new("kill").args(["-KILL", &host]).status().unwrap().success());
        assert!(!spinfer.wait().success());
        let (trial, mut ticks) = (trial.unwrap(), 0);
        wait_until("the trial exits", || {
            ticks = stat(&trial, 11).unwrap_or(ticks);
            has_exited(&trial)
        });
        assert!(ticks < MAX_TICKS, "it ended at its own limit, after {ticks} ticks");
    }

    /// A host under a resource limit passes a lower one to the trial.
    #[test]
    fn graph_trial_runs_under_the_cpu_limit_of_its_host() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("odd")).unwrap();
        std::fs::write(dir.path().join("odd/model.onnx"), tiled("x", 1 << 10)).unwrap();
        let path = dir.path().join("spin.toml");
        let text = format!(
            "{HEAD}[[trigger.http]]\nroute = '/'\ncomponent = 'a'\n[component.a]\n\
             source = '{GUESTS}/probe.wasm'\n\
             files = [{{ source = 'odd', destination = '/models/odd' }}]\n"
        );
        std::fs::write(&path, text).unwrap();
        let limited = "ulimit -t 25 && exec \"$0\" check --from \"$1\" --state-dir \"$2\"";
        let output = Command::new("sh")
            .args(["-c", limited])
            .args([binary(), path, state_dir()])
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&printed));
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
            let about =
                printed.split("model `").find(|part| part.starts_with(&format!("{name}`: ")));
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
            status.code() == Some(1) && printed.contains("is longer than 2147483648 bytes"),
            "{printed}"
        );
    }
}
