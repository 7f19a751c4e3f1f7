//! `spinfer new`: a model component to begin with, and its place in the application.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;

use super::edit::{Edit, NewComponent};
use super::atomic_files::Made;
use crate::config::manifest::names;

#[derive(Debug, Args)]
pub struct New {
    /// The model's name: words of letters and digits with a hyphen between them
    name: String,

    /// Where model-sdk is, a folder [default: components/model-sdk beside the manifest, or else
    /// spinfer's repository]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,

    /// The manifest, or the folder that holds a spin.toml; made if there is none
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,
}

/// The guest library, in spinfer's repository.
const SDK: &str = "components/model-sdk";

/// Crates a component is built with.
const TAKEN: [&str; 7] = ["alloc", "core", "model-sdk", "proc-macro", "spin-sdk", "std", "test"];

/// What the component is built with, in its folder.
const BUILD: &str = "cargo build --target wasm32-wasip2 --release";

/// Makes a component, telling `out` how to go on.
pub fn run(new: &New, out: &mut impl Write) -> Result<()> {
    let New { name, sdk, from } = new;
    names::check_component_id(name).map_err(anyhow::Error::msg)?;
    ensure!(
        !TAKEN.contains(&name.to_ascii_lowercase().as_str()),
        "a crate called {name} cannot be built with model-sdk; choose another name"
    );
    let mut edit = Edit::open(from)?;
    let folder = format!("components/{name}");
    let model = format!("models/{name}/1");
    for path in [&folder, &model] {
        let path = edit.base.join(path);
        ensure!(!path.exists(), "{} is there already; choose another name", path.display());
    }
    let id = format!("{name}-1");
    let crate_name = name.to_ascii_lowercase().replace('-', "_");
    let source = format!("{folder}/target/wasm32-wasip2/release/{crate_name}.wasm");
    let routes = [format!("/v2/models/{name}/..."), format!("/v2/models/{name}/versions/1/...")];
    for route in &routes {
        ensure!(
            edit.on_route(route).is_none(),
            "{} has the route {route} already; choose another name",
            edit.path.display()
        );
        edit.add_route(route, &id)?;
    }
    edit.add_component(&NewComponent {
        id: &id,
        source: &source,
        model: (name, &model),
        build: Some((BUILD, &folder)),
    })?;
    let text = edit.text()?;

    let fill = |template: &str| {
        template.replace("{name}", name).replace("{sdk}", &dependency(sdk.as_deref(), &edit.base))
    };
    let mut made = Made::default();
    let at = edit.base.join(&folder);
    made.file(&at.join("Cargo.toml"), fill(CARGO_TOML).as_bytes())?;
    made.file(&at.join("src/lib.rs"), fill(LIB_RS).as_bytes())?;
    made.file(&at.join(".gitignore"), b"/target\n")?;
    made.file(&edit.base.join(&model).join("model.toml"), fill(MODEL_TOML).as_bytes())?;
    made.replace(&edit.path, edit.before.as_deref(), &text)?;
    made.keep();

    writeln!(
        out,
        "Made {folder}, the component, and {model}, its model; {} mounts it at {}.\n\
         Put the graph at {model}/model.onnx, say in {model}/model.toml what it takes and gives, and\n  \
         spinfer up --build",
        edit.path.display(),
        routes[0],
    )?;
    Ok(())
}

/// The dependency on model-sdk: a folder, or spinfer's repository.
fn dependency(sdk: Option<&Path>, base: &Path) -> String {
    let beside = base.join(SDK);
    let sdk = sdk.or_else(|| beside.join("Cargo.toml").is_file().then_some(beside.as_path()));
    match sdk {
        Some(path) => {
            let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            format!("{{ path = {} }}", toml_edit::Value::from(path.to_string_lossy().as_ref()))
        }
        None => format!("{{ git = \"{}\" }}", env!("CARGO_PKG_REPOSITORY")),
    }
}

const CARGO_TOML: &str = include_str!("new/Cargo.toml.txt");
const LIB_RS: &str = include_str!("new/lib.rs.txt");
const MODEL_TOML: &str = include_str!("new/model.toml.txt");
