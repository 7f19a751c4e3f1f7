//! A component's `files`: what of the host it sees, read-only.
//!
//! A folder that is mounted whole is mounted as it is. Single files, patterns, and folders of which
//! some files are excluded are copied at the start into a folder of this process, under the state
//! directory, and that is mounted. A copy is of what the manifest's folder holds then, and of
//! nothing a symbolic link leads to outside of it.

mod copies;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component as Part, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use glob::{MatchOptions, Pattern};
use tracing::warn;
use walkdir::WalkDir;

pub use copies::Copies;

use crate::inference::Mounts;
use crate::config::manifest::{Component, Placement, TextOr};

/// Files copied for one component.
const MAX_FILES: usize = 100_000;
/// As in a shell: `*` stays within a folder.
const BY_SEGMENT: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// What a component sees: folders as they are, and folders to be made of copies.
#[derive(Clone, Debug, Default)]
pub struct Files {
    pub folders: Mounts,
    /// Destination -> path within -> file to copy.
    copies: BTreeMap<String, BTreeMap<PathBuf, PathBuf>>,
}

/// The index of an entry of `files`, or nothing, and what is wrong with it.
type Problem = (Option<usize>, String);

impl Files {
    /// What `component` sees; `base` is the manifest's folder.
    pub fn resolve(component: &Component, base: &Path) -> Result<Self, Vec<Problem>> {
        let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
        let mut problems = Vec::new();
        let exclude = Exclude::parse(&component.exclude_files)
            .inspect_err(|problem| problems.push((None, problem.clone())))
            .unwrap_or_default();
        let mut entries = Vec::new();
        for (index, entry) in component.files.iter().enumerate() {
            let entry = match entry {
                TextOr::Text(pattern) => Entry::pattern(pattern, base),
                TextOr::Table(placement) => Entry::placement(placement, base),
            };
            match entry {
                Ok(entry) => entries.push((index, entry)),
                Err(found) => problems.extend(found.into_iter().map(|p| (Some(index), p))),
            }
        }
        let mut files = Self::default();
        for (index, entry) in &entries {
            let alone = entries.iter().filter(|(_, e)| e.destination == entry.destination).count();
            if let (What::Folder(folder), 1, true) = (&entry.what, alone, exclude.0.is_empty()) {
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
}

/// `exclude_files`: patterns, relative to the manifest. Here `*` also stands for slashes, as in Spin.
#[derive(Default)]
struct Exclude(Vec<Pattern>);

impl Exclude {
    fn parse(patterns: &[String]) -> Result<Self, String> {
        let parse = |text: &String| {
            Pattern::new(text).map_err(|e| format!("exclude_files: \"{text}\" is no pattern: {e}"))
        };
        patterns.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    fn has(&self, path: &Path) -> bool {
        self.0.iter().any(|pattern| pattern.matches_path(path))
    }
}

/// One of `files`.
struct Entry {
    /// Absolute, without a trailing slash; the root is empty.
    destination: String,
    what: What,
}

enum What {
    Folder(PathBuf),
    /// A file, and its name in the destination.
    File(PathBuf, PathBuf),
    /// Files of the manifest's folder, at their paths there.
    Matching(Pattern),
}

impl Entry {
    fn pattern(text: &str, base: &Path) -> Result<Self, Vec<String>> {
        // Without `.` and slashes that say nothing.
        let path: PathBuf =
            Path::new(text.strip_prefix("./").unwrap_or(text)).components().collect();
        let inside = path.components().all(|part| matches!(part, Part::Normal(_)));
        if !inside || path.as_os_str().is_empty() {
            return Err(vec![format!(
                "\"{text}\": a pattern is a path within the manifest's folder, \"assets/**/*\"; \
                 another folder is mounted by {{ source = \"...\", destination = \"/...\" }}"
            )]);
        }
        let there = base.join(&path);
        let path = path.to_string_lossy();
        // What exists is taken as it is called, brackets and all.
        let pattern = if there.is_dir() {
            format!("{}/**/*", Pattern::escape(&path))
        } else if there.exists() {
            Pattern::escape(&path)
        } else if is_pattern(&path) {
            path.into_owned()
        } else {
            return Err(vec![format!(
                "no file or folder {}; give one, or a pattern, relative to the manifest",
                there.display()
            )]);
        };
        let pattern =
            Pattern::new(&pattern).map_err(|e| vec![format!("\"{text}\" is no pattern: {e}")])?;
        Ok(Self { destination: String::new(), what: What::Matching(pattern) })
    }

    fn placement(placement: &Placement, base: &Path) -> Result<Self, Vec<String>> {
        let Placement { source, destination } = placement;
        let source = base.join(source);
        let mut problems = Vec::new();
        if !source.exists() {
            problems.push(format!(
                "source: no folder or file {}; give one, relative to the manifest",
                source.display()
            ));
        }
        if !destination.starts_with('/') {
            problems.push(format!("destination: must be absolute: \"/{destination}\""));
        }
        if destination.split('/').any(|segment| segment == "..") {
            problems.push("destination: must not hold `..`".into());
        }
        let destination = destination.trim_end_matches('/');
        let (destination, what) = if source.is_file() {
            let (folder, name) = destination.rsplit_once('/').unwrap_or_default();
            if ["", "."].contains(&name) {
                problems.push("destination: the source is a file, so name one: \"/a.txt\"".into());
            }
            (folder, What::File(source, name.into()))
        } else {
            (destination, What::Folder(source))
        };
        let entry = Self { destination: destination.to_owned(), what };
        if problems.is_empty() { Ok(entry) } else { Err(problems) }
    }

    /// Adds the files it stands for to `copies`, by their paths in the destination.
    fn list(
        &self,
        base: &Path,
        exclude: &Exclude,
        copies: &mut BTreeMap<PathBuf, PathBuf>,
    ) -> Result<()> {
        match &self.what {
            What::File(source, name) => add(copies, name.clone(), source.canonicalize()?),
            What::Folder(folder) => {
                let prefix = match (folder.strip_prefix(base), exclude.0.is_empty()) {
                    (Ok(prefix), _) => prefix,
                    (Err(_), true) => Path::new(""),
                    (Err(_), false) => bail!(
                        "exclude_files does not reach {}, which is not in the manifest's folder",
                        folder.display()
                    ),
                };
                walk(folder, folder, |path| !exclude.has(&prefix.join(path)), copies)
            }
            What::Matching(pattern) => {
                // No need to look where nothing can match.
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

/// Adds what is in `from`, or `from` itself, and `wanted` by its path in `root`. Links to folders
/// are not followed, nor links out of `root`.
fn walk(
    from: &Path,
    root: &Path,
    wanted: impl Fn(&Path) -> bool,
    copies: &mut BTreeMap<PathBuf, PathBuf>,
) -> Result<()> {
    for entry in WalkDir::new(from).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path().strip_prefix(root)?;
        if entry.path().is_file() && wanted(path) {
            add(copies, path.to_owned(), within(entry.path(), root)?)?;
        }
    }
    Ok(())
}

fn add(copies: &mut BTreeMap<PathBuf, PathBuf>, path: PathBuf, source: PathBuf) -> Result<()> {
    if copies.len() >= MAX_FILES {
        bail!(
            "more than {MAX_FILES} files; mount a folder: {{ source = ..., destination = ... }}"
        );
    }
    match copies.get(&path) {
        Some(other) if *other != source => {
            bail!("both {} and {} would be /{}", other.display(), source.display(), path.display())
        }
        _ => {
            copies.insert(path, source);
            Ok(())
        }
    }
}

/// The file behind `path`, if that is `root` or in it.
fn within(path: &Path, root: &Path) -> Result<PathBuf> {
    let real = path.canonicalize().with_context(|| path.display().to_string())?;
    let root = root.canonicalize().with_context(|| root.display().to_string())?;
    if !real.starts_with(&root) {
        bail!("{} leads to {}, out of {}", path.display(), real.display(), root.display());
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A folder with `names` in it, each file holding its own name.
    fn folder(names: &[&str]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        dir
    }

    fn component(files: &str) -> Component {
        toml::from_str(&format!("source = 'x.wasm'\n{files}")).unwrap()
    }

    /// What a component sees, as `destination/path=content`.
    fn seen(files: &str, base: &Path) -> Result<Vec<String>, String> {
        let files = Files::resolve(&component(files), base).map_err(|problems| {
            problems.iter().map(|(_, problem)| problem.as_str()).collect::<Vec<_>>().join("\n")
        })?;
        let state = tempfile::tempdir().unwrap();
        let (mounts, _copies) = Copies::make(state.path(), [&files]).unwrap();
        let mut seen = Vec::new();
        for (destination, folder) in mounts[0].iter() {
            for entry in WalkDir::new(folder).sort_by_file_name() {
                let entry = entry.unwrap();
                if entry.path().is_file() {
                    let path = entry.path().strip_prefix(folder).unwrap().display();
                    let content = std::fs::read_to_string(entry.path()).unwrap();
                    seen.push(format!("{destination}/{path}={content}"));
                }
            }
        }
        Ok(seen)
    }

    const TREE: [&str; 6] =
        ["a/one.txt", "a/two.md", "a/deep/three.txt", "a/secret/key", "b.txt", "[odd]"];

    #[test]
    fn files_are_seen_where_the_manifest_says() {
        let dir = folder(&TREE);
        for (files, expected) in [
            ("files = ['b.txt']", &["/b.txt=b.txt"][..]),
            (
                "files = ['./b.txt', 'b.txt', 'a/.//one.txt']",
                &["/a/one.txt=a/one.txt", "/b.txt=b.txt"],
            ),
            ("files = ['a/*.txt']", &["/a/one.txt=a/one.txt"]),
            (
                "files = ['**/*.txt']",
                &["/a/deep/three.txt=a/deep/three.txt", "/a/one.txt=a/one.txt", "/b.txt=b.txt"],
            ),
            ("files = ['a/deep']", &["/a/deep/three.txt=a/deep/three.txt"]),
            ("files = ['[odd]']", &["/[odd]=[odd]"]),
            ("files = ['a/*.none']", &[]),
            (
                "files = [{ source = 'a/deep', destination = '/x/' }]",
                &["/x/three.txt=a/deep/three.txt"],
            ),
            ("files = [{ source = 'b.txt', destination = '/x/y' }]", &["/x/y=b.txt"]),
            ("files = [{ source = 'b.txt', destination = '/y' }]", &["/y=b.txt"]),
            (
                "files = [{ source = 'a', destination = '/' }]\nexclude_files = ['a/secret/*', '**/*.md']",
                &["/deep/three.txt=a/deep/three.txt", "/one.txt=a/one.txt"],
            ),
            ("files = ['a']\nexclude_files = ['a/*']", &[]),
            (
                "files = [{ source = 'a/deep', destination = '/' }, 'b.txt']",
                &["/b.txt=b.txt", "/three.txt=a/deep/three.txt"],
            ),
        ] {
            let found = seen(files, dir.path()).unwrap_or_else(|e| panic!("{files}: {e}"));
            assert_eq!(found, expected, "{files}");
        }
    }

    #[test]
    fn a_folder_mounted_whole_is_not_copied() {
        let dir = folder(&TREE);
        let component = component("files = [{ source = 'a', destination = '/a' }]");
        let files = Files::resolve(&component, dir.path()).unwrap();
        assert!(files.copies.is_empty());
        let (mounts, copies) = Copies::make(Path::new("/nowhere"), [&files]).unwrap();
        assert!(copies.is_none());
        assert_eq!(mounts[0].iter().next().unwrap(), ("/a", dir.path().join("a").as_path()));
    }

    #[test]
    fn what_cannot_be_mounted_is_refused_with_the_reason() {
        let dir = folder(&TREE);
        for (files, part) in [
            ("files = ['nowhere']", "no file or folder"),
            ("files = ['../x']", "a path within the manifest's folder"),
            ("files = ['a/../b.txt']", "a path within the manifest's folder"),
            ("files = ['/etc/passwd']", "a path within the manifest's folder"),
            ("files = ['']", "a path within the manifest's folder"),
            ("files = ['a/[']", "is no pattern"),
            ("files = ['nowhere/*']", "does not exist"),
            ("files = []\nexclude_files = ['[']", "exclude_files: \"[\" is no pattern"),
            ("files = [{ source = 'nowhere', destination = 'm' }]", "no folder or file"),
            ("files = [{ source = 'a', destination = 'm' }]", "must be absolute: \"/m\""),
            ("files = [{ source = 'a', destination = '/m/../x' }]", "must not hold `..`"),
            ("files = [{ source = 'b.txt', destination = '/' }]", "the source is a file"),
            (
                "files = ['b.txt', { source = 'a/one.txt', destination = '/b.txt' }]",
                "would be /b.txt",
            ),
        ] {
            let error = seen(files, dir.path()).unwrap_err();
            assert!(error.contains(part), "{files}: {error}");
        }
    }

    #[test]
    fn a_link_leads_nowhere_outside() {
        use std::os::unix::fs::symlink;
        let outside = folder(&["secret"]);
        let dir = folder(&TREE);
        symlink(outside.path().join("secret"), dir.path().join("a/link")).unwrap();
        let error = seen("files = ['a/*']", dir.path()).unwrap_err();
        assert!(error.contains("leads to") && error.contains("out of"), "{error}");
        std::fs::remove_file(dir.path().join("a/link")).unwrap();

        symlink(outside.path(), dir.path().join("a/folder")).unwrap();
        let seen_ = seen("files = ['a/**/*']", dir.path()).unwrap();
        assert!(!seen_.iter().any(|file| file.contains("secret=secret")), "{seen_:?}");

        symlink(dir.path().join("b.txt"), dir.path().join("a/inner")).unwrap();
        let seen_ = seen("files = ['a/inn*']", dir.path()).unwrap();
        assert_eq!(seen_, ["/a/inner=b.txt"]);
    }
}
