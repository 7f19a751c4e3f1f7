//! The `files` of a component: the files of the host that it sees, read-only.
//!
//! A folder without excluded files is mounted directly. Single files, patterns, and folders with
//! excluded files are copied at startup into a folder of this process under the state directory, and
//! that folder is mounted. Links to folders are not copied, and a link to a file outside is an error.

mod copies;

use std::collections::BTreeMap;
use std::path::{Component as Part, Path, PathBuf};

use anyhow::{Context, Result, bail};
use glob::{MatchOptions, Pattern};
use tracing::warn;
use walkdir::WalkDir;

pub use copies::CopiedFiles;

use crate::config::manifest::{ComponentEntry, FilePlacement, TextOr};
use crate::inference::Mounts;

/// Maximum number of files that are copied for one component.
const MAX_FILES: usize = 100_000;
/// As in a shell: `*` does not match a slash.
const BY_SEGMENT: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// The files that a component sees: folders that are mounted directly, and files to copy.
#[derive(Clone, Debug, Default)]
pub struct Files {
    pub folders: Mounts,
    /// Destination -> path in it -> file to copy.
    copies: BTreeMap<String, FilesToCopy>,
}

type FilesToCopy = BTreeMap<PathBuf, FileToCopy>;

/// A file to copy.
#[derive(Clone, Debug)]
struct FileToCopy {
    /// As the manifest names it: it may be a link, which can lead elsewhere later.
    named: PathBuf,
    /// Without links.
    real: PathBuf,
}

/// A problem, with the index of the entry of `files` if it is that of an entry.
type Problem = (Option<usize>, String);

impl Files {
    /// The files that `component` sees; `base` is the manifest's folder.
    ///
    /// # Errors
    /// Every problem of its `files` and `exclude_files`.
    pub fn resolve(component: &ComponentEntry, base: &Path) -> Result<Self, Vec<Problem>> {
        let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
        let mut problems = Vec::new();
        let exclude = Exclude::parse(&component.exclude_files)
            .inspect_err(|problem| problems.push((None, problem.clone())))
            .unwrap_or_default();
        let mut entries = Vec::new();
        for (index, entry) in component.files.iter().enumerate() {
            let entry = match entry {
                TextOr::Text(pattern) => FileEntry::pattern(pattern, base),
                TextOr::Table(placement) => FileEntry::placement(placement, base),
            };
            match entry {
                Ok(entry) => entries.push((index, entry)),
                Err(found) => problems.extend(found.into_iter().map(|p| (Some(index), p))),
            }
        }
        let mut files = Self::default();
        for (index, entry) in &entries {
            let alone = entries.iter().filter(|(_, e)| e.destination == entry.destination).count();
            if let (FileContent::Folder(folder), 1, true) =
                (&entry.what, alone, exclude.0.is_empty())
            {
                files.folders.add(entry.destination.clone(), folder.clone());
                continue;
            }
            let copies = files.copies.entry(entry.destination.clone()).or_default();
            if let Err(problem) = entry.list(base, &exclude, copies) {
                problems.push((Some(*index), format!("{problem:#}")));
            }
        }
        if problems.is_empty() { Ok(files) } else { Err(problems) }
    }

    /// Whether the component sees copies, which are in a folder of this process.
    #[must_use]
    pub fn has_copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// The file of which the component sees a copy at `path`, which is absolute; `None` if it sees
    /// none there, or the file itself.
    #[must_use]
    pub fn copied_from(&self, path: &str) -> Option<&Path> {
        self.copies.iter().find_map(|(destination, copies)| {
            let path = path.strip_prefix(destination.as_str())?.strip_prefix('/')?;
            Some(copies.get(Path::new(path))?.named.as_path())
        })
    }
}

/// `exclude_files`: patterns, relative to the manifest. Here `*` also matches slashes, as in Spin.
#[derive(Default)]
struct Exclude(Vec<Pattern>);

impl Exclude {
    fn parse(patterns: &[String]) -> Result<Self, String> {
        let parse = |text: &String| {
            Pattern::new(text)
                .map_err(|e| format!("exclude_files: \"{text}\" is not a pattern: {e}"))
        };
        patterns.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    fn has(&self, path: &Path) -> bool {
        self.0.iter().any(|pattern| pattern.matches_path(path))
    }
}

/// An entry of `files`.
struct FileEntry {
    /// Absolute, without a trailing slash; the root is empty.
    destination: String,
    what: FileContent,
}

enum FileContent {
    Folder(PathBuf),
    /// A file, and its name in the destination.
    File(PathBuf, PathBuf),
    /// Files of the manifest's folder, which keep their relative paths.
    Matching(Pattern),
}

impl FileEntry {
    fn pattern(text: &str, base: &Path) -> Result<Self, Vec<String>> {
        // Without `.` and redundant slashes.
        let path: PathBuf =
            Path::new(text.strip_prefix("./").unwrap_or(text)).components().collect();
        let inside = path.components().all(|part| matches!(part, Part::Normal(_)));
        if !inside || path.as_os_str().is_empty() {
            return Err(vec![format!(
                "\"{text}\" is not a path within the manifest's folder; write a pattern such as \
                 \"assets/**/*\", or mount another folder by \
                 {{ source = \"...\", destination = \"/...\" }}"
            )]);
        }
        let there = base.join(&path);
        let path = path.to_string_lossy();
        // A name that exists is taken literally, even with the characters of a pattern.
        let pattern = if there.is_dir() {
            format!("{}/**/*", Pattern::escape(&path))
        } else if there.exists() {
            Pattern::escape(&path)
        } else if is_pattern(&path) {
            path.into_owned()
        } else {
            return Err(vec![format!(
                "{} does not exist; write a file, a folder or a pattern, relative to the manifest",
                there.display()
            )]);
        };
        let pattern = Pattern::new(&pattern)
            .map_err(|e| vec![format!("\"{text}\" is not a pattern: {e}")])?;
        Ok(Self { destination: String::new(), what: FileContent::Matching(pattern) })
    }

    fn placement(placement: &FilePlacement, base: &Path) -> Result<Self, Vec<String>> {
        let FilePlacement { source, destination } = placement;
        let source = base.join(source);
        let mut problems = Vec::new();
        if !source.exists() {
            problems.push(format!(
                "source: {} does not exist; write a folder or a file, relative to the manifest",
                source.display()
            ));
        }
        if !destination.starts_with('/') {
            problems.push(format!(
                "destination: \"{destination}\" is not absolute; write \"/{destination}\""
            ));
        }
        if destination.split('/').any(|segment| segment == "..") {
            problems.push("destination: must not contain `..`".into());
        }
        let destination = destination.trim_end_matches('/');
        let (destination, what) = if source.is_file() {
            let (folder, name) = destination.rsplit_once('/').unwrap_or_default();
            if ["", "."].contains(&name) {
                problems.push(
                    "destination: the source is a file; write the path of a file: \"/a.txt\""
                        .into(),
                );
            }
            (folder, FileContent::File(source, name.into()))
        } else {
            (destination, FileContent::Folder(source))
        };
        let entry = Self { destination: destination.to_owned(), what };
        if problems.is_empty() { Ok(entry) } else { Err(problems) }
    }

    /// Adds the files of the entry to `copies`, by their paths in the destination.
    fn list(&self, base: &Path, exclude: &Exclude, copies: &mut FilesToCopy) -> Result<()> {
        match &self.what {
            FileContent::File(source, name) => {
                let copied = FileToCopy { named: source.clone(), real: source.canonicalize()? };
                add(copies, name.clone(), copied)
            }
            FileContent::Folder(folder) => {
                let prefix = match (folder.strip_prefix(base), exclude.0.is_empty()) {
                    (Ok(prefix), _) => prefix,
                    (Err(_), true) => Path::new(""),
                    (Err(_), false) => bail!(
                        "exclude_files does not apply to {}, which is not in the manifest's folder",
                        folder.display()
                    ),
                };
                walk(folder, folder, |path| !exclude.has(&prefix.join(path)), copies)
            }
            FileContent::Matching(pattern) => {
                // Only the folder before the first wildcard can contain matches.
                let literal = Path::new(pattern.as_str())
                    .components()
                    .take_while(|part| !part.as_os_str().to_str().is_some_and(is_pattern));
                let from = base.join(literal.collect::<PathBuf>());
                if !from.exists() {
                    bail!("nothing matches \"{pattern}\"; {} does not exist", from.display());
                }
                let before = copies.len();
                let matches =
                    |path: &Path| pattern.matches_path_with(path, BY_SEGMENT) && !exclude.has(path);
                walk(&from, base, matches, copies)?;
                if copies.len() == before {
                    warn!(%pattern, "`files`: the pattern matches no file");
                }
                Ok(())
            }
        }
    }
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Adds the files in `from`, or `from` itself, that are `wanted` by their paths in `root`. Links to
/// folders are not followed; a link out of `root` is an error.
fn walk(
    from: &Path,
    root: &Path,
    wanted: impl Fn(&Path) -> bool,
    copies: &mut FilesToCopy,
) -> Result<()> {
    for entry in WalkDir::new(from).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path().strip_prefix(root)?;
        if entry.path().is_file() && wanted(path) {
            let (named, real) = (entry.path().to_owned(), within(entry.path(), root)?);
            add(copies, path.to_owned(), FileToCopy { named, real })?;
        }
    }
    Ok(())
}

fn add(copies: &mut FilesToCopy, path: PathBuf, source: FileToCopy) -> Result<()> {
    if copies.len() >= MAX_FILES {
        bail!(
            "more than {MAX_FILES} files; mount a folder: {{ source = \"...\", destination = \"/...\" }}"
        );
    }
    match copies.get(&path) {
        Some(other) if other.real != source.real => {
            let (other, source) = (other.real.display(), source.real.display());
            bail!("{other} and {source} would both be /{}", path.display())
        }
        _ => {
            copies.insert(path, source);
            Ok(())
        }
    }
}

/// The file that `path` leads to, which must be in `root`.
fn within(path: &Path, root: &Path) -> Result<PathBuf> {
    let real = path.canonicalize().with_context(|| path.display().to_string())?;
    let root = root.canonicalize().with_context(|| root.display().to_string())?;
    if !real.starts_with(&root) {
        bail!("{} leads to {}, out of {}", path.display(), real.display(), root.display());
    }
    Ok(real)
}

#[cfg(test)]
mod tests;
