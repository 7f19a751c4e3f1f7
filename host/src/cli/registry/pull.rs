//! `spinfer registry pull`: pulls a model version and adds it, or a component.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::{AccessOptions, block_on, repository};
use crate::cli::add::component::{self as serving, AddedComponent};
use crate::cli::add::examine::{Examined, examine};
use crate::cli::add::example::Example;
use crate::cli::add::request::Request;
use crate::cli::add::routing::{Routes, Routing};
use crate::cli::add::{MANIFEST, print_next_steps};
use crate::cli::atomic_files::FileTransaction;
use crate::cli::edit::{Edit, NewComponent};
use crate::cli::signature::list;
use crate::config::manifest::names;
use crate::inference::{GRAPH, InferenceFlags, load_request};
use crate::process::atomic_file::{self, Existing, READABLE};
use crate::process::read_file::read_file;
use crate::registry::oci::auth::TokenScope;
use crate::registry::oci::client::Repository;
use crate::registry::oci::component;
use crate::registry::oci::digest::Digest;
use crate::registry::oci::manifest::Descriptor;
use crate::registry::oci::model::{MAX_FILE, RemoteVersion, is_model};
use crate::registry::oci::progress::TransferProgress;
use crate::registry::oci::reference::ArtifactReference;

#[derive(Debug, Args)]
pub(super) struct RegistryPullOptions {
    /// Source: ghcr.io/acme/wine:1, or with a digest, ghcr.io/acme/wine@sha256:...
    reference: ArtifactReference,

    /// Components: file to write [default: components/<name>.wasm next to the manifest]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Models: write the files to models/ and do not change the manifest
    #[arg(long)]
    no_add: bool,

    /// Models: serve the model on this route too, such as /wine/...; can be repeated
    #[arg(long = "route", value_name = "ROUTE", conflicts_with = "no_add")]
    routes: Vec<String>,

    /// Models: put the version in production: move the model's plain route, and each --route, to it from
    /// the version that has them
    #[arg(long, conflicts_with = "no_add")]
    promote: bool,

    /// Models: component that serves the model [default: the generic one shipped with spinfer]
    #[arg(long, value_name = "FILE", conflicts_with = "no_add")]
    component: Option<PathBuf>,

    /// Models: example inputs for the trial run, as for `spinfer add`
    #[arg(long, value_name = "FILE", conflicts_with = "no_add")]
    example: Option<PathBuf>,

    /// Manifest, or the folder with a spin.toml; created if missing
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = MANIFEST)]
    from: PathBuf,

    #[command(flatten)]
    inference: InferenceFlags,

    #[command(flatten)]
    access: AccessOptions,
}

pub(super) fn run(pull: &RegistryPullOptions, out: &mut impl Write) -> Result<()> {
    let reference = &pull.reference;
    let selector = reference.selector().with_context(|| {
        format!("{reference}: the tag or digest is missing; write {reference}:1.0.0")
    })?;
    let transport = pull.access.transport()?;
    let repository = repository(&transport, reference, TokenScope::Pull)?;
    let pulling = async {
        let fetched = repository.manifest(&selector).await?;
        if is_model(&fetched.manifest) {
            if pull.output.is_some() {
                return anyhow::Ok(Some(format!(
                    "--output: {reference} is a model; its files go into models/<name>/<version>"
                )));
            }
            let remote = RemoteVersion::fetch(&repository, &fetched.manifest).await?;
            PulledModel { pull, remote, digest: fetched.digest }.pull(&repository, out).await?;
            return Ok(None);
        }
        let layer = component::layer(&fetched.manifest)?.with_context(|| {
            format!("neither a component nor a model, but {}", fetched.manifest.kind())
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
    let misused_flags =
        block_on(pulling).with_context(|| format!("{reference}: cannot be pulled"))?;
    match misused_flags {
        Some(problem) => bail!(problem),
        None => Ok(()),
    }
}

impl RegistryPullOptions {
    /// The given flags that apply to models only.
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

    /// Examines the graph; fails if it cannot be served.
    fn examine_graph(&self, folder: &Path) -> Result<Examined> {
        let path = folder.join(GRAPH);
        let backends = self.inference.backends()?.backends();
        let example = self.example.as_deref().map(Example::read).transpose()?;
        let request = load_request(folder)?;
        read_file(&path, MAX_FILE)
            .and_then(|bytes| examine(&bytes.into(), &backends, request, example.as_ref()))
            .with_context(|| format!("{}: cannot be served", path.display()))
    }

    /// Pulls a component to a file; the message to print.
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
            ensure!(same, "{shown} already exists and differs; choose another file with --output");
            return Ok(format!("Nothing to pull: {shown} is already {reference}"));
        }
        let mut files = FileTransaction::default();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        files.create_folder(parent)?;
        let mut staged = atomic_file::stage(&path, READABLE).with_context(|| shown.to_string())?;
        component::pull(from, layer, staged.as_file_mut(), TransferProgress::new(false)).await?;
        // Fails if the file was created in the meantime.
        atomic_file::finish(staged, &path, Existing::Keep).with_context(|| shown.to_string())?;
        files.commit();
        Ok(format!("Pulled {reference} into {shown}"))
    }
}

/// A model version to pull.
struct PulledModel<'a> {
    pull: &'a RegistryPullOptions,
    remote: RemoteVersion,
    /// Digest of the artifact.
    digest: Digest,
}

/// The changes to the manifest.
struct Addition {
    id: String,
    routes: Routes,
    component: AddedComponent,
    text: String,
}

impl PulledModel<'_> {
    async fn pull(&self, from: &Repository<'_>, out: &mut impl Write) -> Result<()> {
        let Self { pull, remote, digest } = self;
        let version = &remote.version;
        let mut edit = Edit::open(&pull.from)?;
        let folder = edit.base.join(version.folder());
        let exists = folder.exists();
        if exists && let Some(difference) = remote.difference(&folder)? {
            bail!(
                "{} already exists and differs: {difference}. A version is never overwritten",
                folder.display()
            );
        }
        // Before the download: the routes may be taken.
        let addition = if pull.no_add { None } else { self.add(&mut edit)? };

        let mut files = FileTransaction::default();
        if !exists {
            let staged = files.stage(&folder)?;
            remote.pull(from, staged.path(), TransferProgress::new(false)).await?;
            files.adopt(staged, &folder)?;
        }
        let examined = addition.as_ref().map(|_| pull.examine_graph(&folder)).transpose()?;
        let request = addition.as_ref().zip(examined.as_ref()).map(|(addition, examined)| {
            let (name, number) = (&version.name, &version.version);
            let path = addition.routes.path(name, number);
            Request::new(&path, &format!("{name}-{number}"), &edit.base, examined)
        });
        if let Some(Request { file: Some((path, body)), .. }) = &request {
            files.write_file(&edit.base.join(path), body)?;
        }
        if let Some(addition) = &addition {
            addition.component.write(&edit.base, &mut files)?;
            files.replace(&edit.path, edit.before.as_deref(), &addition.text)?;
        }
        files.commit();

        let (name, number) = (&version.name, &version.version);
        let (state, preposition) = if exists { ("Exists", "in") } else { ("Pulled", "into") };
        writeln!(out, "{state}: {name}, version {number}, {preposition} {}", version.folder())?;
        writeln!(out, "  digest  {digest}")?;
        match (addition, examined, request) {
            (Some(addition), Some(examined), Some(request)) => {
                let Examined { backend, reason, inputs, outputs, .. } = &examined;
                let (inputs, outputs) = (list(inputs), list(outputs));
                writeln!(out, "  graph   {inputs} -> {outputs} ({backend})")?;
                writeln!(out, "  backend {backend}: {reason}")?;
                addition.component.print(out)?;
                addition.routes.print(out, name, &addition.id, &edit.path)?;
                print_next_steps(out, &pull.from, &request)?;
            }
            _ if pull.no_add => {
                writeln!(out, "  routes  none: {} is unchanged", edit.path.display())?;
            }
            _ => writeln!(out, "  routes  unchanged, in {}", edit.path.display())?,
        }
        Ok(())
    }

    /// Adds the version to the manifest; `None` if the manifest already has it.
    fn add(&self, edit: &mut Edit) -> Result<Option<Addition>> {
        let Self { pull, remote, .. } = self;
        let (name, version) = (&remote.version.name, &remote.version.version);
        let id = names::component_id(name, version);
        let folder = remote.version.folder();
        if edit.manifest.component.contains_key(&id) && edit.mounts(&id, &folder) {
            ensure!(
                pull.routes.is_empty() && !pull.promote && pull.component.is_none(),
                "{} already has the component `{id}` of this version; change its routes there",
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
