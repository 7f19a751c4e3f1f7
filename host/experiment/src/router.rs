//! Routes a request: by its path to an experiment, by its unit to a variant.

use crate::change::Change;
use crate::format::{Experiment, Experiments, Variant};
use crate::split::Split;

/// Prefix of the paths of models (Open Inference Protocol).
pub const MODELS: &str = "/v2/models/";

/// The experiments of a file with their current changes.
#[derive(Clone, Debug)]
pub struct Router(Vec<Live>);

/// An experiment with its current split.
#[derive(Clone, Debug)]
pub struct Live {
    pub experiment: Experiment,
    split: Split,
}

/// The variant that serves a request.
#[derive(Clone, Copy, Debug)]
pub struct Assignment<'a> {
    pub experiment: &'a Experiment,
    pub variant: &'a Variant,
    /// Whether the shadows of the experiment receive copies.
    pub shadowed: bool,
}

/// Why a request has no assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status of the response.
    pub status: u16,
    pub message: String,
}

impl Router {
    /// A router with the allocations of the file.
    ///
    /// # Errors
    /// If an experiment has no control.
    pub fn new(experiments: &Experiments) -> Result<Self, String> {
        let live = |experiment: &Experiment| {
            let split = Split::new(experiment, &Change::default())?;
            Ok(Live { experiment: experiment.clone(), split })
        };
        experiments.iter().map(live).collect::<Result<_, _>>().map(Self)
    }

    /// The experiments, by name.
    pub fn iter(&self) -> std::slice::Iter<'_, Live> {
        self.0.iter()
    }

    /// Index of the experiment that `path` belongs to, with a query or without.
    ///
    /// # Errors
    /// 404 if there is none.
    pub fn find(&self, path: &str) -> Result<usize, Refusal> {
        let found = self.0.iter().position(|live| rest(path, &live.experiment.model).is_some());
        found.ok_or_else(|| {
            let named =
                self.0.iter().map(|Live { experiment: Experiment { name, model, .. }, .. }| {
                    format!("`{name}` ({MODELS}{model})")
                });
            let path = path.split('?').next().unwrap_or_default();
            let message = format!(
                "no experiment takes {path}; the experiments are {}",
                named.collect::<Vec<_>>().join(", ")
            );
            Refusal { status: 404, message }
        })
    }

    /// The experiment at an index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Live> {
        self.0.get(index)
    }

    /// Applies `change` to the experiment at an index.
    ///
    /// # Errors
    /// If it is not a change of that experiment, which then stays unchanged.
    pub fn change(&mut self, index: usize, change: &Change) -> Result<(), String> {
        let live = self.0.get_mut(index).ok_or("the experiment does not exist")?;
        live.split = Split::new(&live.experiment, change)?;
        Ok(())
    }
}

impl Live {
    /// Assigns a request with `unit` to a variant: the one that its client `forces`, if the
    /// experiment allows that.
    ///
    /// # Errors
    /// 400 if it forces a variant that does not exist.
    pub fn assign(
        &self,
        unit: Option<&[u8]>,
        forces: Option<&[u8]>,
    ) -> Result<Assignment<'_>, Refusal> {
        let Self { experiment, split } = self;
        let forced = forces.filter(|_| experiment.force.is_some()).map(|name| {
            let mut variants = experiment.assignable();
            let found = variants.find(|(_, variant)| variant.name.as_bytes() == name.trim_ascii());
            found.map(|(index, _)| index).ok_or_else(|| {
                let header = experiment.force.as_deref().unwrap_or_default();
                let message = format!(
                    "{header}: experiment `{}` has no variant `{}`; it has {}",
                    experiment.name,
                    String::from_utf8_lossy(name).escape_debug(),
                    experiment.names()
                );
                Refusal { status: 400, message }
            })
        });
        let index = forced.unwrap_or_else(|| Ok(split.variant(unit)))?;
        let variant = &experiment.variants[index];
        Ok(Assignment { experiment, variant, shadowed: !split.is_stopped() })
    }
}

impl<'a> Assignment<'a> {
    /// The variants that receive a copy of the request.
    pub fn shadows(&self) -> impl Iterator<Item = &'a Variant> {
        let shadowed = self.shadowed;
        self.experiment.variants.iter().filter(move |variant| shadowed && variant.shadow)
    }
}

/// The part of `path` after the name of `model`, if it is a path of that model: nothing, `/...` or
/// `?...`.
pub(crate) fn rest<'p>(path: &'p str, model: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(MODELS)?.strip_prefix(model)?;
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn router() -> Router {
        let text = r#"
            [experiments.flowers]
            model = "iris"
            unit = { header = "x-user-id" }
            force = "x-variant"
            [[experiments.flowers.variants]]
            name = "control"
            component = "one"
            model = "iris-classifier"
            allocation = 0.5
            [[experiments.flowers.variants]]
            name = "treatment"
            component = "two"
            allocation = 0.5
            [[experiments.flowers.variants]]
            name = "candidate"
            component = "three"
            shadow = true
            [experiments.wine]
            model = "wine"
            unit = { cookie = "uid" }
            [[experiments.wine.variants]]
            name = "control"
            component = "four"
            allocation = 1
        "#;
        Router::new(&Experiments::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn a_path_belongs_to_the_experiment_of_its_model() {
        let router = router();
        let name =
            |path: &str| router.find(path).map(|index| router.0[index].experiment.name.clone());
        for path in
            ["/v2/models/iris", "/v2/models/iris/infer", "/v2/models/iris?a", "/v2/models/iris/"]
        {
            assert_eq!(name(path).as_deref(), Ok("flowers"), "{path}");
        }
        assert_eq!(name("/v2/models/wine/predict").as_deref(), Ok("wine"));
        for path in
            ["/v2/models/iris-classifier/infer", "/v2/models/", "/v2/models", "/iris", "", "é"]
        {
            let Refusal { status, message } = name(path).unwrap_err();
            assert_eq!(status, 404, "{path}");
            assert!(message.contains("`flowers` (/v2/models/iris), `wine` (/v2/models/wine)"));
        }
    }

    #[test]
    fn the_path_has_the_model_of_the_variant() {
        let router = router();
        let experiment = &router.0[0].experiment;
        let path =
            |variant: usize, path: &str| experiment.path_of(&experiment.variants[variant], path);
        assert_eq!(
            path(0, "/v2/models/iris/infer?iris=1").as_deref(),
            Some("/v2/models/iris-classifier/infer?iris=1")
        );
        assert_eq!(path(0, "/v2/models/iris").as_deref(), Some("/v2/models/iris-classifier"));
        assert_eq!(path(1, "/v2/models/iris/infer"), None, "its model has the public name");
    }

    #[test]
    fn a_tester_forces_a_variant_if_the_experiment_allows_it() {
        let router = router();
        let [flowers, wine] = [&router.0[0], &router.0[1]];
        for name in ["control", "treatment", " treatment "] {
            let assigned = flowers.assign(Some(b"ann"), Some(name.as_bytes())).unwrap();
            assert_eq!(assigned.variant.name, name.trim());
        }
        for name in ["candidate", "other", "", "\u{7}"] {
            let Refusal { status, message } =
                flowers.assign(Some(b"ann"), Some(name.as_bytes())).unwrap_err();
            assert_eq!(status, 400, "{name}");
            assert!(message.ends_with("it has control, treatment"), "{message}");
        }
        assert!(wine.assign(None, Some(b"other")).is_ok(), "it does not allow that");
    }

    #[test]
    fn control_serves_requests_without_a_unit() {
        assert_eq!(router().0[0].assign(None, None).unwrap().variant.name, "control");
    }

    #[test]
    fn an_experiment_that_is_over_has_one_variant_and_no_shadows() {
        let mut router = router();
        let shadows = |router: &Router| router.0[0].assign(None, None).unwrap().shadows().count();
        assert_eq!(shadows(&router), 1);
        for (winner, expected) in [(None, "control"), (Some("treatment"), "treatment")] {
            let winner = winner.map(str::to_owned);
            router.change(0, &Change { stopped: true, winner, ..Change::default() }).unwrap();
            for unit in [None, Some(&b"ann"[..]), Some(b"ben"), Some(b"eve")] {
                assert_eq!(router.0[0].assign(unit, None).unwrap().variant.name, expected);
            }
            assert_eq!(shadows(&router), 0);
        }
    }

    #[test]
    fn an_invalid_change_changes_nothing() {
        let mut router = router();
        let before = router.0[0].split.clone();
        let allocations = BTreeMap::from([("control".to_owned(), 0.3)]);
        let change = Change { allocations, ..Change::default() };
        assert!(router.change(0, &change).unwrap_err().contains("sum to 0.3"));
        assert_eq!(router.0[0].split, before);
    }
}
