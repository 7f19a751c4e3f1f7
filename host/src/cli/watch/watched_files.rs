//! The files of an application whose changes are served.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use glob::{MatchOptions, Pattern};
use notify::RecursiveMode;

use super::absolute;
use crate::cli::ManifestOptions;
use crate::config::manifest::{ComponentEntry, Manifest, TextOr};

/// As in a shell: `*` does not match a slash.
const BY_SEGMENT: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Folders of state next to the manifest, which serving changes.
const STATE: [&str; 2] = [".spin", ".spinfer"];

/// What a change of a file requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A source: the build commands run first.
    Source,
    /// A file that is served, or a configuration file.
    Served,
}

/// The files that an application consists of.
#[derive(Debug, Default)]
pub(super) struct WatchedFiles {
    /// Folder of the manifest.
    base: PathBuf,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    patterns: Vec<FilePattern>,
    /// `build.watch`.
    sources: Vec<FilePattern>,
}

/// A pattern of paths relative to a folder.
#[derive(Debug)]
struct FilePattern {
    folder: PathBuf,
    pattern: Pattern,
}

impl FilePattern {
    fn new(folder: &Path, text: &str) -> Option<Self> {
        let relative = text.strip_prefix("./").unwrap_or(text);
        Some(Self { folder: folder.to_owned(), pattern: Pattern::new(relative).ok()? })
    }

    fn matches(&self, path: &Path) -> bool {
        let relative = path.strip_prefix(&self.folder);
        relative.is_ok_and(|path| self.pattern.matches_path_with(path, BY_SEGMENT))
    }

    /// The folder to watch: the deepest one that exists and contains every match.
    fn watched_folder(&self) -> (PathBuf, RecursiveMode) {
        let is_literal =
            |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
        let parts: Vec<_> = Path::new(self.pattern.as_str()).components().collect();
        let literal = parts.iter().take_while(|part| is_literal(part)).count();
        // Without a wildcard, the file's folder.
        let literal = literal.min(parts.len().saturating_sub(1));
        let deep = parts.len() - literal > 1 || self.pattern.as_str().contains("**");
        let root = self.folder.join(parts[..literal].iter().collect::<PathBuf>());
        let existing = root.ancestors().find(|folder| folder.is_dir() || *folder == self.folder);
        let mode = if deep { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        (existing.unwrap_or(&self.folder).to_owned(), mode)
    }
}

impl WatchedFiles {
    /// The files of the manifest that `from` names, or those of `before` if it cannot be read.
    pub(super) fn read(from: &ManifestOptions, before: Option<Self>) -> Result<Self> {
        let path = absolute(&from.path());
        match from.load() {
            Ok((manifest, base)) => Ok(Self::of(&manifest, &absolute(&base), path)),
            Err(_) => Ok(before.unwrap_or_else(|| Self {
                base: path.parent().unwrap_or(Path::new("/")).to_owned(),
                files: vec![path],
                ..Self::default()
            })),
        }
    }

    fn of(manifest: &Manifest, base: &Path, path: PathBuf) -> Self {
        let mut watched =
            Self { base: base.to_owned(), files: vec![path, base.join(".env")], ..Self::default() };
        for component in manifest.component.values() {
            watched.add(component, base);
        }
        watched
    }

    fn add(&mut self, component: &ComponentEntry, base: &Path) {
        if let TextOr::Text(source) = &component.source {
            self.files.push(absolute(&base.join(source)));
        }
        for entry in &component.files {
            let (path, pattern) = match entry {
                TextOr::Table(placement) => (base.join(&placement.source), None),
                TextOr::Text(text) => (base.join(text), FilePattern::new(base, text)),
            };
            match pattern {
                _ if path.is_dir() => self.folders.push(absolute(&path)),
                Some(pattern) if !path.exists() => self.patterns.push(pattern),
                _ => self.files.push(absolute(&path)),
            }
        }
        if let Some(build) = &component.build {
            let workdir =
                build.workdir.as_ref().map_or_else(|| base.to_owned(), |dir| base.join(dir));
            let workdir = absolute(&workdir);
            self.sources
                .extend(build.watch.iter().filter_map(|text| FilePattern::new(&workdir, text)));
        }
    }

    /// What a change of `path` requires; `None` if it is not a file of the application.
    pub(super) fn change(&self, path: &Path) -> Option<Change> {
        if STATE.iter().any(|folder| path.starts_with(self.base.join(folder))) {
            return None;
        }
        if self.sources.iter().any(|source| source.matches(path)) {
            return Some(Change::Source);
        }
        let served = self.files.iter().any(|file| file == path)
            || self.folders.iter().any(|folder| path.starts_with(folder))
            || self.patterns.iter().any(|pattern| pattern.matches(path));
        served.then_some(Change::Served)
    }

    /// The folders to watch. A file is watched by its folder, as editors replace files.
    pub(super) fn folders(&self) -> Vec<(PathBuf, RecursiveMode)> {
        let patterns = self.patterns.iter().chain(&self.sources).map(FilePattern::watched_folder);
        let folders = self.folders.iter().map(|folder| (folder.clone(), RecursiveMode::Recursive));
        let parents = self.files.iter().chain(&self.folders).filter_map(|path| path.parent());
        let parents = parents.map(|parent| (parent.to_owned(), RecursiveMode::NonRecursive));
        let mut modes = BTreeMap::new();
        for (folder, mode) in folders.chain(patterns).chain(parents) {
            let known = modes.entry(folder).or_insert(mode);
            if mode == RecursiveMode::Recursive {
                *known = mode;
            }
        }
        let recursive: Vec<_> = modes
            .iter()
            .filter(|(_, mode)| **mode == RecursiveMode::Recursive)
            .map(|(folder, _)| folder.clone())
            .collect();
        let covered =
            |path: &Path| recursive.iter().any(|other| path != other && path.starts_with(other));
        modes.into_iter().filter(|(path, _)| path.is_dir() && !covered(path)).collect()
    }

    /// `path` for a message: relative to the manifest's folder, if it is below it.
    pub(super) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.base).unwrap_or(path).display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::manifest;

    const MANIFEST: &str = "spin_manifest_version = 2\n[application]\nname = 'a'\n\
        [component.a]\nsource = 'target/a.wasm'\n\
        files = ['assets/*.txt', 'one.txt', { source = 'models/iris', destination = '/models/iris' }]\n\
        build = { command = 'make', workdir = 'crates', watch = ['src/**/*.rs', 'Cargo.toml'] }\n";

    fn watched(base: &Path) -> WatchedFiles {
        std::fs::create_dir_all(base.join("models/iris")).unwrap();
        std::fs::create_dir_all(base.join("crates/src")).unwrap();
        std::fs::create_dir_all(base.join("assets")).unwrap();
        std::fs::create_dir_all(base.join("target")).unwrap();
        std::fs::write(base.join("one.txt"), "").unwrap();
        WatchedFiles::of(&manifest::parse(MANIFEST).unwrap(), base, base.join("spin.toml"))
    }

    #[test]
    fn change_is_that_of_a_source_or_of_a_served_file() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let watched = watched(&base);
        for (path, change) in [
            ("spin.toml", Some(Change::Served)),
            (".env", Some(Change::Served)),
            ("target/a.wasm", Some(Change::Served)),
            ("target/b.wasm", None),
            ("one.txt", Some(Change::Served)),
            ("assets/a.txt", Some(Change::Served)),
            ("assets/deep/a.txt", None),
            ("models/iris/model.onnx", Some(Change::Served)),
            ("models/other/model.onnx", None),
            ("crates/src/lib.rs", Some(Change::Source)),
            ("crates/src/deep/lib.rs", Some(Change::Source)),
            ("crates/Cargo.toml", Some(Change::Source)),
            ("Cargo.toml", None),
            (".spin/sqlite_key_value.db", None),
        ] {
            assert_eq!(watched.change(&base.join(path)), change, "{path}");
        }
    }

    #[test]
    fn folders_are_watched_once_and_files_by_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let folders = watched(&base).folders();
        let expected = [
            ("", RecursiveMode::NonRecursive),
            ("assets", RecursiveMode::NonRecursive),
            ("crates", RecursiveMode::NonRecursive),
            ("crates/src", RecursiveMode::Recursive),
            ("models", RecursiveMode::NonRecursive),
            ("models/iris", RecursiveMode::Recursive),
            ("target", RecursiveMode::NonRecursive),
        ]
        .map(|(path, mode)| (base.join(path), mode));
        let found: Vec<_> = folders
            .iter()
            .map(|(path, mode)| (path.strip_prefix(&base).unwrap().to_owned(), *mode))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(path, mode)| (path.strip_prefix(&base).unwrap().to_owned(), *mode))
            .collect();
        assert_eq!(found, expected);
    }
}
