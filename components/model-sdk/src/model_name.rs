//! The name of the model, for a component that serves whichever one it is given.

use std::cell::OnceCell;

use wasip2::filesystem::preopens;

use crate::error::Error;

/// As [`Model::NAME`](crate::Model::NAME): of the one model that is mounted as `/models/<name>`.
pub const MOUNTED: &str = "*";

const MODELS: &str = "/models";

/// `name`, unless it is [`MOUNTED`]. What was found is kept for the life of the instance.
#[inline]
pub(crate) fn name(name: &'static str) -> Result<&'static str, Error> {
    if name == MOUNTED { found() } else { Ok(name) }
}

#[cold]
#[inline(never)]
fn found() -> Result<&'static str, Error> {
    thread_local! {
        static FOUND: OnceCell<&'static str> = const { OnceCell::new() };
    }
    FOUND.with(|found| {
        if let Some(name) = found.get() {
            return Ok(*name);
        }
        let name = only(mounted())?.leak();
        Ok(*found.get_or_init(|| name))
    })
}

/// The models that are mounted one by one.
fn mounted() -> Vec<String> {
    let folders = preopens::get_directories().into_iter();
    folders.filter_map(|(_, path)| mounted_at(&path).map(str::to_owned)).collect()
}

/// The model whose folder is mounted at `path`.
fn mounted_at(path: &str) -> Option<&str> {
    let name = path.strip_prefix(MODELS)?.strip_prefix('/')?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

fn only(mut names: Vec<String>) -> Result<String, Error> {
    match names.len() {
        1 => Ok(names.remove(0)),
        0 => Err(Error::unavailable(
            "no model is mounted; mount a version of one in the component's manifest entry: \
             files = [{ source = \"models/<name>/<version>\", destination = \"/models/<name>\" }]",
        )),
        _ => Err(Error::unavailable(format!(
            "this component serves one model, and {} are mounted: {}; give each a component of its own",
            names.len(),
            names.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_under_models_is_a_model() {
        for (path, name) in [
            ("/models/wine", Some("wine")),
            ("/models/wine/1", None),
            ("/models/", None),
            ("/models", None),
            ("/modelswine", None),
            ("/data/wine", None),
            ("/", None),
        ] {
            assert_eq!(mounted_at(path), name, "{path}");
        }
    }

    #[test]
    fn there_has_to_be_one() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(only(names(&["wine"])).unwrap(), "wine");
        for (mounted, part) in
            [(&[][..], "no model is mounted"), (&["a", "b"], "2 are mounted: a, b")]
        {
            let error = only(names(mounted)).unwrap_err();
            assert_eq!(error.status(), 503);
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(name("iris-classifier").unwrap(), "iris-classifier");
    }
}
