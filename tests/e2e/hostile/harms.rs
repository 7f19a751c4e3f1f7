//! What a guest can do, by which component, and what becomes of it.

use std::fmt::Write as _;
use std::path::Path;

use spinfer_tests::{GUESTS, Manifest, STANDARD_DOOR, root};

/// Answers of a request that does harm.
pub(super) struct Harm {
    /// The component's id, and its route.
    pub(super) id: String,
    pub(super) path: &'static str,
    pub(super) statuses: &'static [u16],
    /// Whether its component can do anything else.
    pub(super) serves: bool,
    settings: String,
    /// The component as text; the guest `hostile` where there is none.
    text: Option<String>,
}

impl Harm {
    /// What is asked for.
    pub(super) fn target(&self) -> String {
        format!("/{}{}", self.id, self.path)
    }
}

const SETTINGS: &str = "tool.spinfer.limits.instance_memory = \"16MiB\"\n\
                        tool.spinfer.limits.instances = 2\n\
                        tool.spinfer.limits.idle = \"100ms\"\n";

/// Behind both doors.
const PLAIN: [(&str, &str, &[u16]); 19] = [
    ("stack", "/stack", &[500]),
    ("print", "/print", &[504]),
    ("print-line", "/print-line", &[504]),
    ("handles", "/handles", &[500]),
    // It is told that they are too many, and goes on.
    ("fields", "/fields", &[200]),
    ("random-old", "/random-0.2", &[500]),
    ("random-new", "/random-0.3", &[500]),
    ("read", "/read", &[200]),
    ("large-answer", "/answer?100000000", &[500]),
    ("forged-tensor", "/nn/forged?tensor", &[500]),
    ("forged-graph", "/nn/forged?graph", &[500]),
    ("forged-context", "/nn/forged?context", &[500]),
    ("forged-error", "/nn/forged?error", &[500]),
    ("forged-kind", "/nn/forged?kind", &[500]),
    ("forged-dropped", "/nn/forged?dropped", &[500]),
    ("calls", "/nn/sequence?1", &[200]),
    ("log-nonsense", "/log/nonsense", &[200]),
    ("log-flood", "/log/flood?1000", &[200]),
    ("log-aliased", "/log/aliased", &[500]),
];

/// Behind the standard door: streams and tasks.
const CONCURRENT: [(&str, &str, &[u16]); 9] = [
    // Nothing can wake it, and it is told so.
    ("never", "/never", &[500]),
    ("wait", "/wait", &[504]),
    // The head was sent when it stopped; on a busy machine it may stop before.
    ("unfinished", "/unfinished", &[200, 504]),
    ("endless", "/endless", &[200, 504]),
    ("streams", "/streams", &[500]),
    ("futures", "/futures", &[500]),
    ("tasks", "/tasks", &[500]),
    // Its own tasks begin after the answer: what ends it first depends on how far each has come.
    ("spawn", "/spawn", &[200, 500, 504]),
    ("print-new", "/print-0.3", &[504]),
];

/// Core modules, by what they do in `start` and in `handle`: components of WASI 0.2.
const MODULES: [(&str, &str, &str, &[u16]); 11] = [
    ("start-loop", "", "(loop br 0)", &[504]),
    ("start-trap", "", "unreachable", &[500]),
    ("start-memory", "(memory 1)", GROW_MEMORY, &[500]),
    ("start-table", "(table 1 funcref)", GROW_TABLE, &[500]),
    ("start-stack", "(func $deeper call $deeper)", "call $deeper", &[500]),
    ("handle-loop", "", "", &[504]),
    ("handle-trap", "", "", &[500]),
    // It returns, and has said nothing.
    ("handle-nothing", "", "", &[500]),
    ("handle-divide", "", "", &[500]),
    ("handle-memory", "(memory 1)", "", &[500]),
    ("handle-table", "(table 1 funcref)", "", &[500]),
];

const GROW_MEMORY: &str = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) \
                           unreachable";
const GROW_TABLE: &str = "(loop (br_if 0 (i32.ne (table.grow (ref.null func) (i32.const 1)) \
                          (i32.const -1)))) unreachable";

/// What `handle` of a module does.
fn handle(id: &str) -> &'static str {
    match id {
        "handle-loop" => "(loop br 0)",
        "handle-trap" => "unreachable",
        "handle-memory" => GROW_MEMORY,
        "handle-table" => GROW_TABLE,
        "handle-divide" => "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
        _ => "",
    }
}

/// A component of WASI 0.2 around a core module's `items`, `start` and `handle`.
pub(super) fn component(items: &str, start: &str, handle: &str) -> String {
    format!(
        r#"(component
          (import "wasi:http/types@0.2.0" (instance $types
            (export "incoming-request" (type (sub resource)))
            (export "response-outparam" (type (sub resource)))))
          (alias export $types "incoming-request" (type $request))
          (alias export $types "response-outparam" (type $answer))
          (core module $module
            {items}
            (func (export "handle") (param i32 i32) {handle})
            (func $start {start})
            (start $start))
          (core instance $instance (instantiate $module))
          (func $handle (param "request" (own $request)) (param "response-out" (own $answer))
            (canon lift (core func $instance "handle")))
          (instance $handler (export "handle" (func $handle)))
          (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    )
}

pub(super) fn all() -> Vec<Harm> {
    let models = ["identity-fp32", "add-two-inputs"].map(|model| {
        let file = root().join(format!("tests/models/{model}.onnx"));
        let file = file.display();
        format!("{{ source = \"{file}\", destination = \"/models/{model}/model.onnx\" }}")
    });
    let hostile =
        format!("{SETTINGS}files = [{}]\ntool.spinfer.load_graphs = true\n", models.join(", "));
    let harm = |id: &str, path, statuses: &'static [u16], settings: &str| {
        // What does not end by itself ends soon; the rest may take as long as a busy machine needs.
        let endless = statuses.contains(&504);
        let deadline = if endless { "tool.spinfer.limits.deadline = \"3s\"\n" } else { "" };
        let settings = format!("{settings}{deadline}");
        Harm { id: id.to_owned(), path, statuses, serves: true, settings, text: None }
    };
    let standard = format!("{STANDARD_DOOR}{hostile}");
    let mut all = Vec::new();
    for (id, path, statuses) in PLAIN {
        all.push(harm(id, path, statuses, &hostile));
        all.push(harm(&format!("{id}-standard"), path, statuses, &standard));
    }
    for (id, path, statuses) in CONCURRENT {
        all.push(harm(id, path, statuses, &standard));
    }
    for (id, items, start, statuses) in MODULES {
        let text = Some(component(items, start, handle(id)));
        all.push(Harm { serves: false, text, ..harm(id, "/", statuses, SETTINGS) });
    }
    all
}

/// All of them, each at its own route; components that are text are written into `dir`.
pub(super) fn application(dir: &Path, harms: &[Harm]) -> Manifest {
    let mut routes = String::new();
    for Harm { id, settings, text, .. } in harms {
        let source = match text {
            None => format!("{GUESTS}/hostile.wasm"),
            Some(text) => {
                let path = dir.join(format!("{id}.wasm"));
                std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
                path.display().to_string()
            }
        };
        let _ = write!(
            routes,
            "[[trigger.http]]\nroute = \"/{id}/...\"\ncomponent = \"{id}\"\n\
             [component.{id}]\nsource = \"{source}\"\n{settings}\n"
        );
    }
    Manifest::default().and(&routes)
}
