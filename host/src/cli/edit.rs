//! Edits `spin.toml`, preserving comments, order and formatting.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use toml_edit::{
    Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value, value,
};

use crate::config::manifest::{self, Manifest, ManifestVersion, TextOr, names};
use crate::http::route::Pattern;

/// A manifest being edited.
#[derive(Debug)]
pub(super) struct Edit {
    pub path: PathBuf,
    /// Folder of the manifest.
    pub base: PathBuf,
    /// Text of the file before editing; `None` if there is no file.
    pub before: Option<String>,
    pub manifest: Manifest,
    document: DocumentMut,
}

/// A component to add to a manifest.
#[derive(Debug)]
pub(super) struct NewComponent<'a> {
    pub id: &'a str,
    pub source: &'a str,
    /// Name of the model, and folder of the version.
    pub model: (&'a str, &'a str),
    /// Build command and its working directory.
    pub build: Option<(&'a str, &'a str)>,
}

impl Edit {
    /// Opens the manifest `from`, or the one in the folder `from`; an empty one if there is none.
    pub(super) fn open(from: &Path) -> Result<Self> {
        let is_folder = from.is_dir() || !from.exists() && from.extension().is_none();
        let path = if is_folder { from.join("spin.toml") } else { from.to_owned() };
        let base = path.parent().filter(|base| !base.as_os_str().is_empty());
        let base = base.unwrap_or(Path::new(".")).to_owned();
        let before = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let text = before.clone().unwrap_or_else(|| empty(&base));
        let manifest = manifest::parse(&text).with_context(|| path.display().to_string())?;
        ensure!(
            manifest.spin_manifest_version == ManifestVersion::Two,
            "{}: manifest version 1; convert it to version 2 first (docs/manifest.md, or Spin's \
             `spin doctor`)",
            path.display()
        );
        let document = text.parse().with_context(|| path.display().to_string())?;
        Ok(Self { path, base, before, manifest, document })
    }

    /// The target of `route`, if the manifest has it: a component, or `Some(None)` for the host.
    pub(super) fn on_route(&self, route: &str) -> Option<Option<&str>> {
        let wanted = Pattern::parse(route).ok()?;
        let trigger = self.manifest.trigger.http.iter().find(|trigger| match &trigger.route {
            Some(TextOr::Text(other)) => is_route(other, &wanted),
            Some(TextOr::Table(_)) | None => false,
        })?;
        match &trigger.component {
            Some(TextOr::Text(id)) => Some(Some(id)),
            Some(TextOr::Table(_)) | None => Some(None),
        }
    }

    /// Whether the component `id` mounts `folder`, in the form of [`Edit::add_component`].
    pub(super) fn mounts(&self, id: &str, folder: &str) -> bool {
        let files = self.manifest.component.get(id).map(|component| component.files.as_slice());
        files.unwrap_or_default().iter().any(|entry| match entry {
            TextOr::Table(placement) => placement.source == Path::new(folder),
            TextOr::Text(_) => false,
        })
    }

    /// Adds a component.
    pub(super) fn add_component(&mut self, new: &NewComponent<'_>) -> Result<()> {
        let NewComponent { id, source, model: (name, folder), build } = new;
        names::check_component_id(id).map_err(anyhow::Error::msg)?;
        ensure!(
            !self.manifest.component.contains_key(*id),
            "{} already has a component `{id}`",
            self.path.display()
        );
        let mut mount = InlineTable::new();
        mount.insert("source", (*folder).into());
        mount.insert("destination", format!("/models/{name}").into());
        let mut table = Table::new();
        table["source"] = value(*source);
        table["files"] = value(Array::from_iter([mount]));
        if let Some((command, workdir)) = build {
            let mut build = Table::new();
            build["command"] = value(*command);
            build["workdir"] = value(*workdir);
            table["build"] = Item::Table(build);
        }
        let components = self.document.entry("component").or_insert_with(without_header);
        // An inline table can only contain inline tables.
        let inline = components.is_inline_table();
        let item = if inline { value(table.into_inline_table()) } else { Item::Table(table) };
        let components = components.as_table_like_mut().context("component: expected a table")?;
        components.insert(id, item);
        Ok(())
    }

    /// Adds the new `route` to the component `id`.
    pub(super) fn add_route(&mut self, route: &str, id: &str) -> Result<()> {
        Pattern::parse(route).map_err(anyhow::Error::msg)?;
        let triggers = self
            .document
            .entry("trigger")
            .or_insert_with(without_header)
            .as_table_like_mut()
            .context("trigger: expected a table")?
            .entry("http")
            .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        let mut table = Table::new();
        table["route"] = value(route);
        table["component"] = value(id);
        match triggers {
            Item::ArrayOfTables(triggers) => {
                table.decor_mut().set_prefix("\n");
                triggers.push(table);
            }
            Item::Value(Value::Array(triggers)) => triggers.push(table.into_inline_table()),
            _ => anyhow::bail!("trigger.http: expected an array of tables"),
        }
        Ok(())
    }

    /// Moves the existing `route` to the component `id`.
    pub(super) fn move_route(&mut self, route: &str, id: &str) -> Result<()> {
        let wanted = Pattern::parse(route).map_err(anyhow::Error::msg)?;
        let is_wanted = |table: &dyn TableLike| {
            table.get("route").and_then(Item::as_str).is_some_and(|other| is_route(other, &wanted))
        };
        let triggers =
            self.document.get_mut("trigger").and_then(|triggers| triggers.get_mut("http"));
        let tables: Vec<&mut dyn TableLike> = match triggers {
            Some(Item::ArrayOfTables(tables)) => {
                tables.iter_mut().map(|table| table as &mut dyn TableLike).collect()
            }
            Some(Item::Value(Value::Array(tables))) => tables
                .iter_mut()
                .filter_map(|table| Some(table.as_inline_table_mut()? as &mut dyn TableLike))
                .collect(),
            _ => Vec::new(),
        };
        let table = tables.into_iter().find(|table| is_wanted(&**table));
        let component = table.and_then(|table| table.get_mut("component"));
        let component = component.with_context(|| format!("no component has the route {route}"))?;
        let mut new = Value::from(id);
        if let Some(old) = component.as_value() {
            *new.decor_mut() = old.decor().clone();
        }
        *component = Item::Value(new);
        Ok(())
    }

    /// The edited text; fails if it is not a valid manifest.
    pub(super) fn text(&self) -> Result<String> {
        let text = self.document.to_string();
        manifest::parse(&text).with_context(|| format!("{} after editing", self.path.display()))?;
        Ok(text)
    }
}

fn is_route(route: &str, wanted: &Pattern) -> bool {
    Pattern::parse(route).is_ok_and(|pattern| pattern.is_same(wanted))
}

/// An empty table without a header of its own.
fn without_header() -> Item {
    let mut table = Table::new();
    table.set_implicit(true);
    Item::Table(table)
}

/// The text of an empty manifest, named after its folder.
fn empty(base: &Path) -> String {
    let folder = base.canonicalize().unwrap_or_else(|_| base.to_owned());
    let name = folder.file_name().and_then(|name| name.to_str());
    let mut document = DocumentMut::new();
    document["spin_manifest_version"] = value(2);
    let mut application = Table::new();
    application["name"] = value(name.unwrap_or("models"));
    application["version"] = value("0.1.0");
    document["application"] = Item::Table(application);
    document.to_string()
}
