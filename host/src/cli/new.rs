//! `spinfer new`: creates a model component in Rust and adds it to the application.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;

use super::atomic_files::FileTransaction;
use super::edit::{Edit, NewComponent};
use crate::config::manifest::names;

#[derive(Debug, Args)]
pub struct NewOptions {
    /// Name of the model: words of letters and digits, separated by hyphens
    name: String,

    /// Folder of model-sdk [default: components/model-sdk next to the manifest, or spinfer's Git
    /// repository]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,

    /// Manifest, or the folder with a spin.toml; created if missing
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,
}

/// Path of the guest library in spinfer's repository.
const SDK: &str = "components/model-sdk";

/// Names of crates that a component depends on.
const RESERVED: [&str; 7] = ["alloc", "core", "model-sdk", "proc-macro", "spin-sdk", "std", "test"];

/// Build command, run in the component's folder.
const BUILD: &str = "cargo build --target wasm32-wasip2 --release";

/// Creates a component, and prints the next steps to `out`.
///
/// # Errors
/// If the name is invalid or in use, or a file cannot be written.
pub fn run(new: &NewOptions, out: &mut impl Write) -> Result<()> {
    let NewOptions { name, sdk, from } = new;
    names::check_component_id(name).map_err(anyhow::Error::msg)?;
    ensure!(
        !RESERVED.contains(&name.to_ascii_lowercase().as_str()),
        "a crate named {name} cannot depend on model-sdk; choose another name"
    );
    let mut edit = Edit::open(from)?;
    let folder = format!("components/{name}");
    let model = format!("models/{name}/1");
    for path in [&folder, &model] {
        let path = edit.base.join(path);
        ensure!(!path.exists(), "{} already exists; choose another name", path.display());
    }
    let id = format!("{name}-1");
    let crate_name = name.to_ascii_lowercase().replace('-', "_");
    let source = format!("{folder}/target/wasm32-wasip2/release/{crate_name}.wasm");
    let routes = [format!("/v2/models/{name}/..."), format!("/v2/models/{name}/versions/1/...")];
    for route in &routes {
        ensure!(
            edit.on_route(route).is_none(),
            "{} already has the route {route}; choose another name",
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
    let mut files = FileTransaction::default();
    let at = edit.base.join(&folder);
    files.create_file(&at.join("Cargo.toml"), fill(CARGO_TOML).as_bytes())?;
    files.create_file(&at.join("src/lib.rs"), fill(LIB_RS).as_bytes())?;
    files.create_file(&at.join(".gitignore"), b"/target\n")?;
    files.create_file(&edit.base.join(&model).join("model.toml"), fill(MODEL_TOML).as_bytes())?;
    files.replace(&edit.path, edit.before.as_deref(), &text)?;
    files.commit();

    writeln!(
        out,
        "Created the component {folder} and its model {model}; {} routes {} to it.\n\
         Copy the graph to {model}/model.onnx, describe its inputs and outputs in {model}/model.toml, \
         and run\n  spinfer up --build",
        edit.path.display(),
        routes[0],
    )?;
    Ok(())
}

/// The dependency on model-sdk: a folder, or spinfer's Git repository.
fn dependency(sdk: Option<&Path>, base: &Path) -> String {
    let local = base.join(SDK);
    let sdk = sdk.or_else(|| local.join("Cargo.toml").is_file().then_some(local.as_path()));
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
