//! `spinfer registry pull`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tempfile::NamedTempFile;

use super::{Access, block_on, repository};
use crate::cli::add::component::{self as serving, Component};
use crate::cli::add::examine::{Examined, examine};
use crate::cli::add::example::Example;
use crate::cli::add::request::Request;
use crate::cli::add::routing::{Routes, Routing};
use crate::cli::add::{MANIFEST, usage};
use crate::cli::edit::{Edit, NewComponent};
use crate::cli::atomic_files::{Made, readable_file};
use crate::cli::signature::list;
use crate::process::read_file::read_file;
use crate::inference::{GRAPH, InferenceFlags, load_request};
use crate::config::manifest::names;
use crate::registry::oci::auth::Scope;
use crate::registry::oci::client::Repository;
use crate::registry::oci::component;
use crate::registry::oci::digest::Digest;
use crate::registry::oci::manifest::Descriptor;
use crate::registry::oci::model::{MAX_FILE, RemoteVersion, is_model};
use crate::registry::oci::progress::Progress;
use crate::registry::oci::reference::Reference;

#[derive(Debug, Args)]
pub(super) struct Pull {
    /// What: ghcr.io/acme/wine:1, or by its digest, ghcr.io/acme/wine@sha256:...
    reference: Reference,

    /// Of a component: the file to write [default: components/<name>.wasm beside the manifest]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Of a model: put its files into models/ and leave the manifest as it is
    #[arg(long)]
    no_add: bool,

    /// Answer on this route too, such as /wine/...; may be repeated
    #[arg(long = "route", value_name = "ROUTE", conflicts_with = "no_add")]
    routes: Vec<String>,

    /// Put it in production: it takes over the model's plain route, and these --route, from the version
    /// that has them
    #[arg(long, conflicts_with = "no_add")]
    promote: bool,

    /// The component that serves it [default: the generic one that comes with spinfer]
    #[arg(long, value_name = "FILE", conflicts_with = "no_add")]
    component: Option<PathBuf>,

    /// Of a model: inputs that it can take, as for `spinfer add`
    #[arg(long, value_name = "FILE", conflicts_with = "no_add")]
    example: Option<PathBuf>,

    /// The manifest, or the folder that holds a spin.toml; made if there is none
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = MANIFEST)]
    from: PathBuf,

    #[command(flatten)]
    inference: InferenceFlags,

    #[command(flatten)]
    access: Access,
}

pub(super) fn run(pull: &Pull, out: &mut impl Write) -> Result<()> {
    let reference = &pull.reference;
    let selector = reference
        .selector()
        .with_context(|| format!("{reference}: give a tag or a digest, {reference}:1.0.0"))?;
    let transport = pull.access.transport()?;
    let repository = repository(&transport, reference, Scope::Pull)?;
    let pulling = async {
        let fetched = repository.manifest(&selector).await?;
        if is_model(&fetched.manifest) {
            if pull.output.is_some() {
                return anyhow::Ok(Some(format!(
                    "--output: {reference} is a model; its files go into models/<name>/<version>"
                )));
            }
            let remote = RemoteVersion::fetch(&repository, &fetched.manifest).await?;
            Model { pull, remote, digest: fetched.digest }.pull(&repository, out).await?;
            return Ok(None);
        }
        let layer = component::layer(&fetched.manifest)?.with_context(|| {
            format!("it is neither a component nor a model, but {}", fetched.manifest.kind())
        })?;
        let flags = pull.flags_of_models();
        if !flags.is_empty() {
            let flags = flags.join(", ");
            return Ok(Some(format!("{flags}: {reference} is a component, not a model")));
        }
        writeln!(out, "{}", pull.component(&repository, layer).await?)?;
        writeln!(out, "  digest  {}", fetched.digest)?;
        Ok(None)
    };
    // What is wrong with the flags, if anything is.
    let wrong = block_on(pulling).with_context(|| format!("{reference}: cannot be pulled"))?;
    match wrong {
        Some(wrong) => bail!(wrong),
        None => Ok(()),
    }
}

impl Pull {
    /// The flags that were given and mean nothing for a component.
    fn flags_of_models(&self) -> Vec<&'static str> {
        let Self { no_add, routes, promote, component, example, .. } = self;
        let flags = [
            ("--no-add", *no_add),
            ("--route", !routes.is_empty()),
            ("--promote", *promote),
            ("--component", component.is_some()),
            ("--example", example.is_some()),
        ];
        flags.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag).collect()
    }

    /// What the graph takes and gives; whether it can be served here.
    fn examine_graph(&self, folder: &Path) -> Result<Examined> {
        let path = folder.join(GRAPH);
        let backends = self.inference.backends()?.backends();
        let example = self.example.as_deref().map(Example::read).transpose()?;
        let request = load_request(folder)?;
        read_file(&path, MAX_FILE)
            .and_then(|bytes| examine(&bytes.into(), &backends, request, example.as_ref()))
            .with_context(|| format!("{}: cannot be served", path.display()))
    }

    /// Pulls a component; what was done.
    async fn component(&self, from: &Repository<'_>, layer: &Descriptor) -> Result<String> {
        let path = match &self.output {
            Some(path) => path.clone(),
            None => {
                let base = Edit::open(&self.from)?.base;
                let name = format!("{}.wasm", self.reference.name());
                let path = base.join("components").join(name);
                path.strip_prefix(".").map(Path::to_owned).unwrap_or(path)
            }
        };
        let (shown, reference) = (path.display(), &self.reference);
        if path.exists() {
            let size = path.metadata()?.len();
            let same = size == layer.size && Digest::of(&read_file(&path, size)?) == layer.digest;
            ensure!(same, "{shown} is there already, and is another; --output names another file");
            return Ok(format!("Nothing to pull: {shown} is {reference} already"));
        }
        let mut made = Made::default();
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        let above = above.unwrap_or(Path::new("."));
        made.folder(above)?;
        let mut staged = NamedTempFile::new_in(above).with_context(|| shown.to_string())?;
        component::pull(from, layer, staged.as_file_mut(), Progress::new(false)).await?;
        readable_file(staged.as_file())?;
        staged.as_file().sync_all()?;
        // Fails if it is there by now.
        staged.persist_noclobber(&path).with_context(|| shown.to_string())?;
        made.keep();
        Ok(format!("Pulled {reference} into {shown}"))
    }
}

/// A version that is pulled.
struct Model<'a> {
    pull: &'a Pull,
    remote: RemoteVersion,
    /// Of the artifact.
    digest: Digest,
}

/// What becomes of the manifest.
struct Addition {
    id: String,
    routes: Routes,
    component: Component,
    text: String,
}

impl Model<'_> {
    async fn pull(&self, from: &Repository<'_>, out: &mut impl Write) -> Result<()> {
        let Self { pull, remote, digest } = self;
        let version = &remote.version;
        let mut edit = Edit::open(&pull.from)?;
        let folder = edit.base.join(version.folder());
        let is_there = folder.exists();
        if is_there && let Some(difference) = remote.difference(&folder)? {
            bail!(
                "{} is there already, and is another: {difference}. A version is never overwritten",
                folder.display()
            );
        }
        // Before anything is fetched: the manifest may not take it.
        let addition = if pull.no_add { None } else { self.add(&mut edit)? };

        let mut made = Made::default();
        if !is_there {
            let staged = made.stage(&folder)?;
            remote.pull(from, staged.path(), Progress::new(false)).await?;
            made.adopt(staged, &folder)?;
        }
        let examined = addition.as_ref().map(|_| pull.examine_graph(&folder)).transpose()?;
        let request = addition.as_ref().zip(examined.as_ref()).map(|(addition, examined)| {
            let (name, number) = (&version.name, &version.version);
            let path = addition.routes.path(name, number);
            Request::new(&path, &format!("{name}-{number}"), &edit.base, examined)
        });
        if let Some(Request { file: Some((path, body)), .. }) = &request {
            made.any_file(&edit.base.join(path), body)?;
        }
        if let Some(addition) = &addition {
            if let Some(bytes) = &addition.component.copy {
                made.file(&edit.base.join(&addition.component.source), bytes)?;
            }
            made.replace(&edit.path, edit.before.as_deref(), &addition.text)?;
        }
        made.keep();

        let (name, number) = (&version.name, &version.version);
        let (verb, place) = if is_there { ("Is there", "as") } else { ("Pulled", "into") };
        writeln!(out, "{verb}: {name}, version {number}, {place} {}", version.folder())?;
        writeln!(out, "  digest  {digest}")?;
        match (addition, examined, request) {
            (Some(addition), Some(examined), Some(request)) => {
                let Examined { backend, reason, inputs, outputs, .. } = &examined;
                let (inputs, outputs) = (list(inputs), list(outputs));
                writeln!(out, "  graph   {inputs} -> {outputs} ({backend})")?;
                writeln!(out, "  backend {backend}: {reason}")?;
                addition.routes.tell(out, name, &addition.id, &edit.path)?;
                usage(out, &pull.from, &request)?;
            }
            _ if pull.no_add => {
                writeln!(out, "  routes  none: {} is as it was", edit.path.display())?;
            }
            _ => writeln!(out, "  routes  as they were, in {}", edit.path.display())?,
        }
        Ok(())
    }

    /// The manifest with the version; `None`: it has it already.
    fn add(&self, edit: &mut Edit) -> Result<Option<Addition>> {
        let Self { pull, remote, .. } = self;
        let (name, version) = (&remote.version.name, &remote.version.version);
        let id = names::component_id(name, version);
        let folder = remote.version.folder();
        if edit.manifest.component.contains_key(&id) && edit.mounts(&id, &folder) {
            ensure!(
                pull.routes.is_empty() && !pull.promote && pull.component.is_none(),
                "{} has the component `{id}` of this version already; change its routes there",
                edit.path.display()
            );
            return Ok(None);
        }
        let component = serving::find(pull.component.as_deref(), &edit.base)?;
        let routing = Routing { routes: &pull.routes, promote: pull.promote };
        let routes = routing.route(edit, name, version, &id)?;
        edit.add_component(&NewComponent {
            id: &id,
            source: &component.source,
            model: (name, &folder),
            build: None,
        })?;
        Ok(Some(Addition { id, routes, component, text: edit.text()? }))
    }
}
