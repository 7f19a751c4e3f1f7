//! The name of the model, for a component that serves whichever model is mounted.

use std::cell::OnceCell;

use wasip2::filesystem::preopens;

use crate::error::Error;

/// A [`Model::NAME`](crate::Model::NAME) that stands for the one model mounted at `/models/<name>`.
pub const MOUNTED: &str = "*";

const MODELS: &str = "/models";

/// Resolves [`MOUNTED`] to the name of the mounted model, once in the life of an instance.
#[inline]
pub(crate) fn resolve(name: &'static str) -> Result<&'static str, Error> {
    if name == MOUNTED { mounted_name() } else { Ok(name) }
}

#[cold]
#[inline(never)]
fn mounted_name() -> Result<&'static str, Error> {
    thread_local! {
        static FOUND: OnceCell<&'static str> = const { OnceCell::new() };
    }
    FOUND.with(|found| {
        if let Some(name) = found.get() {
            return Ok(*name);
        }
        let name = only(mounted_names())?.leak();
        Ok(*found.get_or_init(|| name))
    })
}

/// The names of the mounted models.
fn mounted_names() -> Vec<String> {
    let folders = preopens::get_directories().into_iter();
    folders.filter_map(|(_, path)| mounted_at(&path).map(str::to_owned)).collect()
}

/// The name of the model mounted at `path`, if it is one.
fn mounted_at(path: &str) -> Option<&str> {
    let name = path.strip_prefix(MODELS)?.strip_prefix('/')?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

fn only(mut names: Vec<String>) -> Result<String, Error> {
    match names.len() {
        1 => Ok(names.remove(0)),
        0 => Err(Error::unavailable(
            "no model is mounted; mount a model version in the component's manifest entry: \
             files = [{ source = \"models/<name>/<version>\", destination = \"/models/<name>\" }]",
        )),
        _ => Err(Error::unavailable(format!(
            "this component serves one model, but {} are mounted: {}; use one component for each",
            names.len(),
            names.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_in_models_is_a_model() {
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
    fn exactly_one_model_must_be_mounted() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(only(names(&["wine"])).unwrap(), "wine");
        for (mounted, part) in
            [(&[][..], "no model is mounted"), (&["a", "b"], "2 are mounted: a, b")]
        {
            let error = only(names(mounted)).unwrap_err();
            assert_eq!(error.status(), 503);
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(resolve("iris-classifier").unwrap(), "iris-classifier");
    }
}
