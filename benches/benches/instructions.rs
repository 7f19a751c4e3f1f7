//! Instructions of a request without sockets: `cargo bench --workspace --bench instructions`, or
//! `make instructions`. Unlike times they are the same on a busy machine. Needs valgrind. Prints
//! Markdown.
//!
//! The program runs itself in callgrind, twice for each case, with twice as many requests the second
//! time. The difference is the cost of the requests: what the process executes before the first one
//! and after the last cancels out. Compiled guest code counts, and so do all threads. Each request has
//! another body. What the loop itself executes to create requests is a case of its own, and subtracted.
//!
//! A call that takes longer than a millisecond moves to another thread ([`spinfer::guest::offload`]), in
//! callgrind too, where a request takes fifty times as long. Measure a release build.
//!
//! The profiles are kept in `target/instructions`, for `callgrind_annotate`.

mod one_model;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::MapErr;
use http_body_util::{BodyExt, Full};
use mimalloc::MiMalloc;
use spinfer::http::spin_headers::RequestOrigin;
use spinfer::request;
use spinfer_benches::application::{INFER, IRIS, Operation, PREDICT, iris_model, root};
use spinfer_benches::callgrind::{self, Function, Profile};
use spinfer_benches::reference::{self, Evaluator, Iris};
use tokio::runtime::Builder;

/// That of the host.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Parser)]
struct Options {
    /// Number of requests that are counted
    #[arg(long, default_value_t = 500)]
    requests: u32,
    /// Cases to measure
    #[arg(long, value_delimiter = ',', default_value = "reference,fast,standard,installed")]
    cases: Vec<Case>,
    /// Operations to measure
    #[arg(long, value_delimiter = ',', default_value = "predict,infer")]
    operations: Vec<Called>,
    /// Also print, for each case, the cost by crate and of this number of functions
    #[arg(long, default_value_t = 0)]
    functions: usize,
    /// Also count accesses to memory and misses of a simulated cache; takes twice as long
    #[arg(long)]
    memory: bool,
    /// Serve the requests of the only case and operation in this process
    #[arg(long, hide = true)]
    serve: bool,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Only creates the requests
    Requests,
    /// The native reference, with the evaluator that the host uses
    Reference,
    /// The fast door, without response cache and prediction log
    Fast,
    /// The standard door, without response cache and prediction log
    Standard,
    /// The fast door with the default settings
    Installed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Called {
    Predict,
    Infer,
}

impl Called {
    fn operation(self) -> Operation<'static> {
        match self {
            Self::Predict => PREDICT,
            Self::Infer => INFER,
        }
    }
}

impl Case {
    fn title(self) -> &'static str {
        match self {
            Self::Requests => "creation of the requests",
            Self::Reference => "native reference",
            Self::Fast => "fast door",
            Self::Standard => "standard door",
            Self::Installed => "as installed, every body new",
        }
    }

    /// The settings of the component, if the host serves this case.
    fn settings(self) -> Option<&'static str> {
        match self {
            Self::Requests | Self::Reference => None,
            Self::Fast => Some("door = 'fast'\nprediction_log.enabled = false"),
            Self::Standard => Some("door = 'standard'\nprediction_log.enabled = false"),
            Self::Installed => Some(""),
        }
    }
}

type Body = MapErr<Full<Bytes>, fn(Infallible) -> hyper::Error>;

/// A request whose last feature is a function of `index`.
fn post(operation: Operation<'_>, index: u32) -> Request<Body> {
    let never: fn(Infallible) -> hyper::Error = |never| match never {};
    let body = operation.body.replace("0.2]", &format!("0.2{index:05}]"));
    Request::post(format!("{IRIS}/{}", operation.name))
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .body(Full::new(Bytes::from(body)).map_err(never))
        .expect("a valid request")
}

/// Reads a response to its end.
async fn read<B: hyper::body::Body<Error: std::fmt::Debug>>(response: Response<B>) {
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.expect("a body");
}

/// Serves the requests on the one worker of the runtime, as a connection does.
fn serve(case: Case, operation: Operation<'static>, requests: u32) -> Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let all = (0..requests).map(move |index| post(operation, index));
    let served = match case {
        Case::Requests => runtime.block_on(runtime.spawn(async move { all.for_each(drop) })),
        Case::Reference => {
            let path = iris_model("1").join("model.onnx");
            let model = Iris::load(&path, Some(Evaluator::Lean), None)?;
            runtime.block_on(runtime.spawn(async move {
                for request in all {
                    read(reference::handle(&model, request).await).await;
                }
            }))
        }
        Case::Fast | Case::Standard | Case::Installed => {
            let dir = tempfile::tempdir()?;
            let host = {
                let _in = runtime.enter();
                let settings = case.settings().context("not a case of the host")?;
                let cached = case == Case::Installed;
                one_model::host(&iris_model("1"), settings, cached, dir.path())?
            };
            let serving = Arc::clone(&host);
            runtime.block_on(runtime.spawn(async move {
                for request in all {
                    let client = RequestOrigin::inside().client;
                    read(request::handle(&serving, client, request).await).await;
                }
            }))
        }
    };
    Ok(served?)
}

/// The profile of one request.
fn measure(case: Case, operation: Called, options: &Options) -> Result<Profile> {
    let once = profile(case, operation, options.requests, options.memory)?;
    let twice = profile(case, operation, options.requests * 2, options.memory)?;
    Ok(twice.each(&once, options.requests))
}

/// The profile of a process that serves `requests`.
fn profile(case: Case, operation: Called, requests: u32, memory: bool) -> Result<Profile> {
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    };
    let (case, operation) = (name(case.to_possible_value()), name(operation.to_possible_value()));
    let folder = root().join("target/instructions");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{case}-{operation}-{requests}.callgrind"));
    let mut command = Command::new("valgrind");
    command.args(callgrind::OPTIONS).arg(format!("--callgrind-out-file={}", file.display()));
    if memory {
        command.arg("--cache-sim=yes");
    }
    command.arg(std::env::current_exe()?).args(["--serve", "--cases", &case]);
    command.args(["--operations", &operation, "--requests", &requests.to_string()]);
    let output = command.output().context("valgrind is not installed: apt-get install valgrind")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    read_profile(&file)
}

fn read_profile(file: &Path) -> Result<Profile> {
    let text = std::fs::read(file).with_context(|| file.display().to_string())?;
    // Symbols are cut off in the middle of a character if they are long.
    Profile::parse(&String::from_utf8_lossy(&text))
}

/// A column of a table: its head, and which events it counts.
type Column = (&'static str, fn(&str) -> bool);

/// The columns: instructions, then accesses to data and misses of the first-level caches.
const COLUMNS: [Column; 3] = [
    ("instructions", |event| event == "Ir"),
    ("data accesses", |event| matches!(event, "Dr" | "Dw")),
    ("L1 misses", |event| matches!(event, "I1mr" | "D1mr" | "D1mw")),
];

fn main() -> Result<()> {
    let options = Options::parse();
    if let (true, [case], [operation]) =
        (options.serve, options.cases.as_slice(), options.operations.as_slice())
    {
        return serve(*case, operation.operation(), options.requests);
    }
    let columns = if options.memory { &COLUMNS[..] } else { &COLUMNS[..1] };
    let head: Vec<&str> = columns.iter().map(|column| column.0).collect();
    let (head, line) = (head.join(" | "), "| --- ".repeat(columns.len()));
    let mut out = std::io::stdout().lock();
    for &operation in &options.operations {
        let own = measure(Case::Requests, operation, &options)?;
        let mut table = format!(
            "| one request, {} | {head} | ratio |\n| --- {line}| --- |\n",
            operation.operation().name
        );
        let (mut details, mut first) = (String::new(), None);
        for &case in &options.cases {
            let profile = measure(case, operation, &options)?;
            let costs = columns.iter().map(|(_, counts)| profile.total(counts) - own.total(counts));
            let costs: Vec<f64> = costs.collect();
            let ratio = costs[0] / *first.get_or_insert(costs[0]);
            let _ = writeln!(table, "| {} {}| {ratio:.2} |", case.title(), cells(costs));
            if options.functions > 0 {
                let title = format!("{}, {}", case.title(), operation.operation().name);
                let _ = write!(details, "\n### {title}\n\n");
                details += &breakdown(&profile, columns, options.functions);
            }
        }
        writeln!(out, "{table}{details}")?;
    }
    Ok(())
}

fn cells(costs: impl IntoIterator<Item = f64>) -> String {
    costs.into_iter().map(|cost| format!("| {cost:.0} ")).collect()
}

/// The cost by crate, and of the `most` expensive functions.
fn breakdown(profile: &Profile, columns: &[Column], most: usize) -> String {
    let head: Vec<&str> = columns.iter().map(|column| column.0).collect();
    let (head, line) = (head.join(" | "), "| --- ".repeat(columns.len()));
    let sums = |costs: &[f64]| -> Vec<f64> {
        columns.iter().map(|(_, counts)| profile.sum(costs, counts)).collect()
    };
    let mut crates: Vec<(&str, Vec<f64>)> = Vec::new();
    // Functions are in the order of their crates.
    for (Function { origin, .. }, costs) in &profile.functions {
        let costs = sums(costs);
        match crates.last_mut() {
            Some((last, all)) if last == origin => {
                all.iter_mut().zip(costs).for_each(|(all, cost)| *all += cost);
            }
            _ => crates.push((origin, costs)),
        }
    }
    crates.retain(|(_, costs)| costs[0] >= 1.0);
    crates.sort_by(|(_, a), (_, b)| b[0].total_cmp(&a[0]));
    let mut text = format!("| code of | {head} |\n| --- {line}|\n");
    for (name, costs) in crates {
        let _ = writeln!(text, "| {name} {}|", cells(costs));
    }
    let mut functions: Vec<_> =
        profile.functions.iter().map(|(function, costs)| (function, sums(costs))).collect();
    functions.sort_by(|(_, a), (_, b)| b[0].total_cmp(&a[0]));
    let _ = write!(text, "\n| function | {head} |\n| --- {line}|\n");
    for (Function { origin, name }, costs) in functions.into_iter().take(most) {
        let _ = writeln!(text, "| `{name}` ({origin}) {}|", cells(costs));
    }
    text
}
