use tempfile::TempDir;

use super::*;

/// A folder with the files `names`, each of which contains its own name.
fn folder(names: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    dir
}

fn component(files: &str) -> ComponentEntry {
    toml::from_str(&format!("source = 'x.wasm'\n{files}")).unwrap()
}

/// What a component sees, as `destination/path=content`.
fn visible_files(files: &str, base: &Path) -> Result<Vec<String>, String> {
    let files = Files::resolve(&component(files), base).map_err(|problems| {
        problems.iter().map(|(_, problem)| problem.as_str()).collect::<Vec<_>>().join("\n")
    })?;
    let state = tempfile::tempdir().unwrap();
    let (mounts, _copies) = CopiedFiles::create(state.path(), [&files]).unwrap();
    let mut visible = Vec::new();
    for (destination, folder) in mounts[0].iter() {
        for entry in WalkDir::new(folder).sort_by_file_name() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                let path = entry.path().strip_prefix(folder).unwrap().display();
                let content = std::fs::read_to_string(entry.path()).unwrap();
                visible.push(format!("{destination}/{path}={content}"));
            }
        }
    }
    Ok(visible)
}

const TREE: [&str; 6] =
    ["a/one.txt", "a/two.md", "a/deep/three.txt", "a/secret/key", "b.txt", "[odd]"];

#[test]
fn copied_file_has_its_source_as_the_manifest_names_it() {
    let dir = folder(&TREE);
    std::os::unix::fs::symlink(dir.path().join("b.txt"), dir.path().join("link")).unwrap();
    let source = |files: &str, path: &str| {
        let files = Files::resolve(&component(files), dir.path()).unwrap();
        let source = files.copied_from(path)?.strip_prefix(dir.path()).unwrap();
        Some(source.display().to_string())
    };
    let link = "files = [{ source = 'link', destination = '/x/c.txt' }]";
    assert_eq!(source(link, "/x/c.txt").as_deref(), Some("link"));
    assert_eq!(source(link, "/c.txt"), None);
    assert_eq!(source("files = ['a/*.txt']", "/a/one.txt").as_deref(), Some("a/one.txt"));
    let folder = "files = [{ source = 'a', destination = '/' }]";
    assert_eq!(source(folder, "/one.txt"), None, "read in place");
}

#[test]
fn files_are_mounted_at_their_destinations() {
    let dir = folder(&TREE);
    for (files, expected) in [
        ("files = ['b.txt']", &["/b.txt=b.txt"][..]),
        ("files = ['./b.txt', 'b.txt', 'a/.//one.txt']", &["/a/one.txt=a/one.txt", "/b.txt=b.txt"]),
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
        let found = visible_files(files, dir.path()).unwrap_or_else(|e| panic!("{files}: {e}"));
        assert_eq!(found, expected, "{files}");
    }
}

#[test]
fn folder_without_exclusions_is_not_copied() {
    let dir = folder(&TREE);
    let component = component("files = [{ source = 'a', destination = '/a' }]");
    let files = Files::resolve(&component, dir.path()).unwrap();
    assert!(files.copies.is_empty());
    let (mounts, copies) = CopiedFiles::create(Path::new("/nowhere"), [&files]).unwrap();
    assert!(copies.is_none());
    assert_eq!(mounts[0].iter().next().unwrap(), ("/a", dir.path().join("a").as_path()));
}

#[test]
fn invalid_entries_are_refused_with_the_reason() {
    let dir = folder(&TREE);
    for (files, part) in [
        ("files = ['nowhere']", "nowhere does not exist; write a file"),
        ("files = ['../x']", "is not a path within the manifest's folder"),
        ("files = ['a/../b.txt']", "is not a path within the manifest's folder"),
        ("files = ['/etc/passwd']", "is not a path within the manifest's folder"),
        ("files = ['']", "is not a path within the manifest's folder"),
        ("files = ['a/[']", "is not a pattern"),
        ("files = ['nowhere/*']", "does not exist"),
        ("files = []\nexclude_files = ['[']", "exclude_files: \"[\" is not a pattern"),
        (
            "files = [{ source = 'nowhere', destination = 'm' }]",
            "nowhere does not exist; write a folder",
        ),
        ("files = [{ source = 'a', destination = 'm' }]", "\"m\" is not absolute; write \"/m\""),
        ("files = [{ source = 'a', destination = '/m/../x' }]", "must not contain `..`"),
        ("files = [{ source = 'b.txt', destination = '/' }]", "the source is a file"),
        (
            "files = ['b.txt', { source = 'a/one.txt', destination = '/b.txt' }]",
            "would both be /b.txt",
        ),
    ] {
        let error = visible_files(files, dir.path()).unwrap_err();
        assert!(error.contains(part), "{files}: {error}");
    }
}

#[test]
fn link_out_of_the_folder_is_refused() {
    use std::os::unix::fs::symlink;
    let outside = folder(&["secret"]);
    let dir = folder(&TREE);
    symlink(outside.path().join("secret"), dir.path().join("a/link")).unwrap();
    let error = visible_files("files = ['a/*']", dir.path()).unwrap_err();
    assert!(error.contains("leads to") && error.contains("out of"), "{error}");
    std::fs::remove_file(dir.path().join("a/link")).unwrap();

    symlink(outside.path(), dir.path().join("a/folder")).unwrap();
    let visible = visible_files("files = ['a/**/*']", dir.path()).unwrap();
    assert!(!visible.iter().any(|file| file.contains("secret=secret")), "{visible:?}");

    symlink(dir.path().join("b.txt"), dir.path().join("a/inner")).unwrap();
    let visible = visible_files("files = ['a/inn*']", dir.path()).unwrap();
    assert_eq!(visible, ["/a/inner=b.txt"]);
}
