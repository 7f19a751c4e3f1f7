//! What guests do to harm the host, and the status that it leads to.

use std::fmt::Write as _;
use std::path::Path;

use spinfer_tests::{GUESTS, Manifest, STANDARD_DOOR, root};

/// A request that does harm.
pub(super) struct Harm {
    /// The component's id, and the first segment of its route.
    pub(super) id: String,
    pub(super) path: &'static str,
    pub(super) status: u16,
    pub(super) ends: End,
    /// Whether its component also responds to harmless requests.
    pub(super) serves: bool,
    settings: String,
    /// The component in the text format; the guest `hostile` without it.
    text: Option<String>,
}

/// What ends a harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The guest itself, or a limit other than its deadline.
    Limit,
    /// Its deadline, before a response: 504.
    Deadline,
    /// Its deadline, within the body of a response, which is cut off.
    DeadlineInBody,
}

impl Harm {
    /// The path of the request.
    pub(super) fn target(&self) -> String {
        format!("/{}{}", self.id, self.path)
    }
}

const SETTINGS: &str = "tool.spinfer.limits.instance_memory = \"16MiB\"\n\
                        tool.spinfer.limits.instances = 2\n\
                        tool.spinfer.limits.idle = \"100ms\"\n";

/// Through both doors: the id, the path and the status.
const PLAIN: [(&str, &str, u16); 19] = [
    ("stack", "/stack", 500),
    ("print", "/print", 504),
    ("print-line", "/print-line", 504),
    ("handles", "/handles", 500),
    // The guest gets an error for too many fields, and responds.
    ("fields", "/fields", 200),
    ("random-old", "/random-0.2", 500),
    ("random-new", "/random-0.3", 500),
    ("read", "/read", 200),
    ("large-response", "/body?100000000", 500),
    ("forged-tensor", "/nn/forged?tensor", 500),
    ("forged-graph", "/nn/forged?graph", 500),
    ("forged-context", "/nn/forged?context", 500),
    ("forged-error", "/nn/forged?error", 500),
    ("forged-kind", "/nn/forged?kind", 500),
    ("forged-dropped", "/nn/forged?dropped", 500),
    ("calls", "/nn/sequence?1", 200),
    ("log-nonsense", "/log/nonsense", 200),
    ("log-flood", "/log/flood?1000", 200),
    ("log-aliased", "/log/aliased", 500),
];

/// Streams and tasks, which only the standard door has: the id, the path and the status.
const CONCURRENT: [(&str, &str, u16); 9] = [
    // A guest that nothing can wake is terminated at once.
    ("never", "/never", 500),
    ("wait", "/wait", 504),
    ("unfinished", "/unfinished", 200),
    ("endless", "/endless", 200),
    ("streams", "/streams", 500),
    ("futures", "/futures", 500),
    ("tasks", "/tasks", 500),
    // Its tasks exhaust the handles of the instance before the host can send the response.
    ("spawn", "/spawn", 500),
    ("print-new", "/print-0.3", 504),
];

/// Core modules in components of WASI 0.2: the id, their items, their start function and the status. What
/// `handle` does is in [`handle`].
const MODULES: [(&str, &str, &str, u16); 11] = [
    ("start-loop", "", "(loop br 0)", 504),
    ("start-trap", "", "unreachable", 500),
    ("start-memory", "(memory 1)", GROW_MEMORY, 500),
    ("start-table", "(table 1 funcref)", GROW_TABLE, 500),
    ("start-stack", "(func $deeper call $deeper)", "call $deeper", 500),
    ("handle-loop", "", "", 504),
    ("handle-trap", "", "", 500),
    // The handler returns without a response.
    ("handle-nothing", "", "", 500),
    ("handle-divide", "", "", 500),
    ("handle-memory", "(memory 1)", "", 500),
    ("handle-table", "(table 1 funcref)", "", 500),
];

const GROW_MEMORY: &str = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) \
                           unreachable";
const GROW_TABLE: &str = "(loop (br_if 0 (i32.ne (table.grow (ref.null func) (i32.const 1)) \
                          (i32.const -1)))) unreachable";

/// The body of the function `handle` of a module.
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

/// A component of WASI 0.2 around a core module with `items` and the bodies of `start` and `handle`.
pub(super) fn component(items: &str, start: &str, handle: &str) -> String {
    format!(
        r#"(component
          (import "wasi:http/types@0.2.0" (instance $types
            (export "incoming-request" (type (sub resource)))
            (export "response-outparam" (type (sub resource)))))
          (alias export $types "incoming-request" (type $request))
          (alias export $types "response-outparam" (type $response))
          (core module $module
            {items}
            (func (export "handle") (param i32 i32) {handle})
            (func $start {start})
            (start $start))
          (core instance $instance (instantiate $module))
          (func $handle (param "request" (own $request)) (param "response-out" (own $response))
            (canon lift (core func $instance "handle")))
          (instance $handler (export "handle" (func $handle)))
          (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    )
}

fn deadline(duration: &str) -> String {
    format!("tool.spinfer.limits.deadline = \"{duration}\"\n")
}

pub(super) fn all() -> Vec<Harm> {
    let models = ["identity-fp32", "add-two-inputs"].map(|model| {
        let file = root().join(format!("tests/models/{model}.onnx"));
        let file = file.display();
        format!("{{ source = \"{file}\", destination = \"/models/{model}/model.onnx\" }}")
    });
    let hostile =
        format!("{SETTINGS}files = [{}]\ntool.spinfer.load_graphs = true\n", models.join(", "));
    let harm = |id: &str, path, status, settings: &str| {
        let ends = match (path, status) {
            ("/unfinished" | "/endless", _) => End::DeadlineInBody,
            (_, 504) => End::Deadline,
            _ => End::Limit,
        };
        let deadline = match ends {
            // The default, 30 seconds, is longer than a busy machine needs.
            End::Limit => String::new(),
            End::Deadline => deadline("3s"),
            // Later, so that the response has started on a busy machine too.
            End::DeadlineInBody => {
                format!("{}tool.spinfer.limits.stream_idle = \"3s\"\n", deadline("10s"))
            }
        };
        let settings = format!("{settings}{deadline}");
        Harm { id: id.to_owned(), path, status, ends, serves: true, settings, text: None }
    };
    let standard = format!("{STANDARD_DOOR}{hostile}");
    let mut all = Vec::new();
    for (id, path, status) in PLAIN {
        all.push(harm(id, path, status, &hostile));
        all.push(harm(&format!("{id}-standard"), path, status, &standard));
    }
    for (id, path, status) in CONCURRENT {
        all.push(harm(id, path, status, &standard));
    }
    for (id, items, start, status) in MODULES {
        let text = Some(component(items, start, handle(id)));
        all.push(Harm { serves: false, text, ..harm(id, "/", status, SETTINGS) });
    }
    all
}

/// An application with each of them at its own route. Components in the text format are written into `dir`.
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
