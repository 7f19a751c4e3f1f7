//! README.md and docs/ as a reader follows them: the runnable blocks of each page, in order, in one
//! shell.
//!
//! - ```` ```sh run ```` is run, and every command in it has to succeed. A block directly after it is
//!   its expected output; see [`output`] for `…`.
//! - ```` ```sh background ```` runs until the end of the page. A block directly after it is how its
//!   output starts.
//! - ```` ```sh ```` and ```` ```sh setup ```` are not run: the latter is what a reader needs and a test
//!   has.

mod output;
mod page;
mod shell;
mod surroundings;

use std::collections::BTreeSet;
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};

use spinfer_tests::root;

use output::matches;
use page::{Block, Kind, blocks};
use shell::Shell;
use surroundings::{Folder, Surroundings};

/// One test per page, and the list of the pages.
macro_rules! pages {
    ($($test:ident: $page:literal, $folder:expr;)+) => {
        const PAGES: &[&str] = &[$($page),+];

        $(
            #[test]
            fn $test() {
                follow($page, $folder);
            }
        )+
    };
}

pages! {
    readme: "README.md", Folder::Application;
    readme_pt: "README.pt.md", Folder::Application;
    components: "docs/components.md", Folder::Application;
    configuration: "docs/configuration.md", Folder::Application;
    experiments: "docs/experiments.md", Folder::Application;
    http_api: "docs/http-api.md", Folder::Application;
    manifest: "docs/manifest.md", Folder::Application;
    models: "docs/models.md", Folder::Application;
    operations: "docs/operations.md", Folder::Application;
    prediction_log: "docs/prediction-log.md", Folder::Application;
    response_cache: "docs/response-cache.md", Folder::Application;
    tour: "docs/tour.md", Folder::Empty;
}

#[test]
fn every_page_with_runnable_blocks_has_a_test() {
    let runnable =
        |page: &String| blocks(page, &read(page)).iter().any(|block| block.kind.is_run());
    let found: BTreeSet<String> =
        ["", "docs"].into_iter().flat_map(markdown).filter(runnable).collect();
    let listed: BTreeSet<String> = PAGES.iter().map(|page| (*page).to_owned()).collect();
    assert_eq!(found, listed, "pages with runnable blocks, and those of `pages!` in this file");
}

/// The table of interfaces in docs/manifest.md names the tests that show what it states.
#[test]
fn every_interface_of_spin_names_its_tests() {
    let page = read("docs/manifest.md");
    let section = page.split("\n## ").find(|text| text.starts_with("Interfaces of Spin\n"));
    let rows = section.expect("the section").lines().filter(|line| line.starts_with("| `"));
    let sources = sources(&root().join("tests/e2e"));
    let mut count = 0;
    for row in rows {
        let tests = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        let names: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "a row without a test: {row}");
        for name in names {
            let test = format!("#[test]\nfn {name}()");
            assert!(sources.contains(&test), "no test `{name}`: {row}");
        }
        count += 1;
    }
    assert!(count > 10, "{count} rows");
}

/// The text of every Rust file under `folder`.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = entries.map(|path| match path.extension() {
        _ if path.is_dir() => sources(&path),
        Some(extension) if extension == "rs" => fs::read_to_string(path).unwrap(),
        _ => String::new(),
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// The Markdown files of a folder of the repository.
fn markdown(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let names = entries.map(|entry| Path::new(folder).join(entry.unwrap().file_name()));
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    names.filter(is_page).map(|path| path.to_str().unwrap().to_owned()).collect()
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// What a block of text is compared with.
enum Previous {
    Printed(Vec<String>),
    /// The output of the background block at this line.
    Background(usize),
    Nothing,
}

/// Runs the blocks of `page`, starting in `folder`.
fn follow(page: &str, folder: Folder) {
    let blocks = blocks(page, &read(page));
    let surroundings = Surroundings::of(&blocks, folder);
    let mut shell = Shell::start(surroundings.folder(), &surroundings.environment());
    let mut previous = Previous::Nothing;
    for Block { kind, line, text, adjacent } in &blocks {
        let line = *line;
        let text = surroundings.substitute(text);
        let before = mem::replace(&mut previous, Previous::Nothing);
        match kind {
            Kind::Run => {
                let (printed, status) = shell.run(line, &text);
                let shown = printed.join("\n");
                assert_eq!(
                    status, "0",
                    "{page}:{line}: status of\n{text}\nwhich printed:\n{shown}"
                );
                previous = Previous::Printed(printed);
            }
            Kind::Background => {
                shell.background(line, &text);
                // The line that `spinfer up` prints once it listens.
                if text.contains("spinfer up") {
                    shell.wait_for_output(line, &["…", "Serving …"]);
                }
                previous = Previous::Background(line);
            }
            Kind::Text if *adjacent => {
                let expected: Vec<&str> = text.lines().collect();
                match before {
                    Previous::Printed(printed) => {
                        let lines: Vec<&str> = printed.iter().map(String::as_str).collect();
                        let shown = lines.join("\n");
                        assert!(
                            matches(&expected, &lines),
                            "{page}:{line}: the page shows:\n{text}\nthe block printed:\n{shown}"
                        );
                    }
                    Previous::Background(started) => shell.wait_for_output(started, &expected),
                    Previous::Nothing => {}
                }
            }
            Kind::Text | Kind::Skipped => {}
        }
    }
}
