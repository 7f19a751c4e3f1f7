//! Routes a request: by its path to an experiment, by its unit to a variant.

use crate::change::Change;
use crate::eligibility::{Exclusion, Subject, excluded, off_target};
use crate::format::{CONTROL, Experiment, Experiments, Start, Unavailable, Variant};
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
    /// Whether an operator has started it.
    started: bool,
}

/// The variant that serves a request.
#[derive(Clone, Copy, Debug)]
pub struct Assignment<'a> {
    pub experiment: &'a Experiment,
    pub variant: &'a Variant,
    pub basis: Basis,
}

/// Why a variant serves a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Basis {
    /// The bucket of its unit, with this probability.
    Drawn { propensity: f64 },
    /// Its client chose the variant.
    Forced,
    /// Without a unit it is served by control.
    NoUnit,
    /// The experiment is over.
    Stopped,
    /// The request is not in the experiment, and served by control.
    Excluded(Exclusion),
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
            Ok(Live { experiment: experiment.clone(), split, started: false })
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
        live.started = change.started;
        Ok(())
    }
}

impl Live {
    /// Assigns a request to a variant: the one that its client forces, if the experiment allows
    /// that, or else that of its unit.
    ///
    /// # Errors
    /// 400 if it forces a variant that does not exist.
    pub fn assign(&self, subject: &Subject<'_>) -> Result<Assignment<'_>, Refusal> {
        let Self { experiment, split, started } = self;
        let forced = subject.forced.filter(|_| experiment.force.is_some());
        let (index, basis) = if let Some(name) = forced {
            (self.forced(name)?, Basis::Forced)
        } else if split.is_stopped() && !off_target(experiment, subject) {
            (Some(split.variant(None)), Basis::Stopped)
        } else if split.is_stopped() {
            (None, Basis::Excluded(Exclusion::Target))
        } else if let Some(exclusion) = excluded(experiment, *started, subject) {
            (None, Basis::Excluded(exclusion))
        } else if subject.unit.is_none() {
            (None, Basis::NoUnit)
        } else {
            let index = split.variant(subject.unit);
            (Some(index), Basis::Drawn { propensity: split.propensity(index) })
        };
        let variant = index.map(|index| &experiment.variants[index]);
        let control = || experiment.variant(CONTROL).map(|(_, control)| control);
        let variant = variant.or_else(control).ok_or_else(|| Refusal {
            status: 500,
            message: format!("experiment `{}` has no control", experiment.name),
        })?;
        Ok(Assignment { experiment, variant, basis })
    }

    /// Whether units decide assignments: the experiment has started and is not over.
    #[must_use]
    pub fn is_running(&self) -> bool {
        (self.started || self.experiment.start == Start::Automatic) && !self.split.is_stopped()
    }

    /// Index of the variant that a client forces.
    fn forced(&self, name: &[u8]) -> Result<Option<usize>, Refusal> {
        let experiment = &self.experiment;
        let mut variants = experiment.assignable();
        let found = variants.find(|(_, variant)| variant.name.as_bytes() == name.trim_ascii());
        found.map(|(index, _)| Some(index)).ok_or_else(|| {
            let header = experiment.force.as_deref().unwrap_or_default();
            let message = format!(
                "{header}: experiment `{}` has no variant `{}`; it has {}",
                experiment.name,
                String::from_utf8_lossy(name).escape_debug(),
                experiment.names()
            );
            Refusal { status: 400, message }
        })
    }
}

impl<'a> Assignment<'a> {
    /// The variants that receive a copy of the request: none if it is not in the experiment, or the
    /// experiment is over.
    pub fn shadows(&self) -> impl Iterator<Item = &'a Variant> {
        let shadowed = !matches!(self.basis, Basis::Stopped | Basis::Excluded(_));
        self.experiment.variants.iter().filter(move |variant| shadowed && variant.shadow)
    }

    /// The probability with which the variant was drawn; `None` if it was not.
    #[must_use]
    pub fn propensity(&self) -> Option<f64> {
        match self.basis {
            Basis::Drawn { propensity } => Some(propensity),
            Basis::Forced | Basis::NoUnit | Basis::Stopped | Basis::Excluded(_) => None,
        }
    }

    /// Why the request is not in the experiment; `None` if it is.
    #[must_use]
    pub fn exclusion(&self) -> Option<Exclusion> {
        match self.basis {
            Basis::Excluded(exclusion) => Some(exclusion),
            Basis::Drawn { .. } | Basis::Forced | Basis::NoUnit | Basis::Stopped => None,
        }
    }

    /// The variant that serves the request if its own is unavailable. A request that forces a
    /// variant receives its failure.
    #[must_use]
    pub fn fallback(&self) -> Option<&'a Variant> {
        let falls_back = self.experiment.unavailable == Unavailable::Control
            && self.variant.name != CONTROL
            && self.basis != Basis::Forced;
        let control = || self.experiment.variant(CONTROL).map(|(_, control)| control);
        falls_back.then(control).flatten()
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

    fn subject<'r>(unit: Option<&'r [u8]>, forced: Option<&'r [u8]>) -> Subject<'r> {
        Subject { unit, forced, targeted: false }
    }

    #[test]
    fn a_tester_forces_a_variant_if_the_experiment_allows_it() {
        let router = router();
        let [flowers, wine] = [&router.0[0], &router.0[1]];
        for name in ["control", "treatment", " treatment "] {
            let subject = subject(Some(b"ann"), Some(name.as_bytes()));
            let assigned = flowers.assign(&subject).unwrap();
            assert_eq!(assigned.variant.name, name.trim());
            assert_eq!((assigned.basis, assigned.propensity()), (Basis::Forced, None));
        }
        for name in ["candidate", "other", "", "\u{7}"] {
            let Refusal { status, message } =
                flowers.assign(&subject(Some(b"ann"), Some(name.as_bytes()))).unwrap_err();
            assert_eq!(status, 400, "{name}");
            assert!(message.ends_with("it has control, treatment"), "{message}");
        }
        let assigned = wine.assign(&subject(None, Some(b"other"))).unwrap();
        assert_eq!(assigned.basis, Basis::NoUnit, "it does not allow that");
    }

    #[test]
    fn control_serves_requests_without_a_unit() {
        let router = router();
        let assigned = router.0[0].assign(&Subject::default()).unwrap();
        assert_eq!((&*assigned.variant.name, assigned.basis), ("control", Basis::NoUnit));
        assert_eq!(assigned.propensity(), None);
    }

    #[test]
    fn an_experiment_that_is_over_has_one_variant_and_no_shadows() {
        let mut router = router();
        let assign = |router: &Router, unit| {
            let assigned = router.0[0].assign(&subject(unit, None)).unwrap();
            (assigned.variant.name.clone(), assigned.basis)
        };
        let shadows =
            |router: &Router| router.0[0].assign(&Subject::default()).unwrap().shadows().count();
        assert_eq!(shadows(&router), 1);
        for (winner, expected) in [(None, "control"), (Some("treatment"), "treatment")] {
            let winner = winner.map(str::to_owned);
            router.change(0, &Change { stopped: true, winner, ..Change::default() }).unwrap();
            for unit in [None, Some(&b"ann"[..]), Some(b"ben"), Some(b"eve")] {
                assert_eq!(assign(&router, unit), (expected.to_owned(), Basis::Stopped));
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

    /// A router with one experiment with these keys.
    fn with(keys: &str) -> Router {
        let text = format!(
            r#"
            [experiments.iris]
            model = "iris"
            unit = {{ header = "x-user-id" }}
            force = "x-variant"
            {keys}
            [[experiments.iris.variants]]
            name = "control"
            component = "one"
            allocation = 0.75
            [[experiments.iris.variants]]
            name = "treatment"
            component = "two"
            allocation = 0.25
            [[experiments.iris.variants]]
            name = "candidate"
            component = "three"
            shadow = true
            "#
        );
        Router::new(&Experiments::parse(&text).unwrap()).unwrap()
    }

    #[test]
    fn propensity_is_the_allocation_of_the_variant_at_the_time() {
        let mut router = with("");
        let propensities = |router: &Router| {
            let mut found = BTreeMap::new();
            for index in 0..100 {
                let unit = format!("user-{index}");
                let assigned = router.0[0].assign(&subject(Some(unit.as_bytes()), None)).unwrap();
                found.insert(assigned.variant.name.clone(), assigned.propensity().unwrap());
            }
            found.into_values().collect::<Vec<_>>()
        };
        assert_eq!(propensities(&router), [0.75, 0.25]);
        let allocations = [("control", 0.4), ("treatment", 0.6)];
        let allocations = allocations.map(|(name, share)| (name.to_owned(), share));
        let change = Change { allocations: allocations.into(), ..Change::default() };
        router.change(0, &change).unwrap();
        assert_eq!(propensities(&router), [0.4, 0.6]);
    }

    #[test]
    fn request_that_is_not_in_the_experiment_has_control_and_no_shadows() {
        let router = with("target = { header = \"x-country\", values = [\"NL\"] }");
        let live = &router.0[0];
        let excluded = live.assign(&subject(Some(b"user-0"), None)).unwrap();
        assert_eq!(excluded.variant.name, "control");
        assert_eq!(excluded.exclusion(), Some(Exclusion::Target));
        assert_eq!((excluded.propensity(), excluded.shadows().count()), (None, 0));
        let targeted = Subject { targeted: true, ..subject(Some(b"user-0"), None) };
        let included = live.assign(&targeted).unwrap();
        assert_eq!((included.exclusion(), included.shadows().count()), (None, 1));
        let forced = live.assign(&subject(None, Some(b"treatment"))).unwrap();
        assert_eq!(forced.variant.name, "treatment", "testers are in no condition");
    }

    #[test]
    fn winner_serves_the_requests_of_the_target_only() {
        let mut router =
            with("holdout = 0.5\ntarget = { header = \"x-country\", values = [\"NL\"] }");
        let winner = Some("treatment".to_owned());
        router.change(0, &Change { stopped: true, winner, ..Change::default() }).unwrap();
        let other = router.0[0].assign(&subject(Some(b"ann"), None)).unwrap();
        assert_eq!(other.variant.name, "control");
        assert_eq!(other.exclusion(), Some(Exclusion::Target));
        for unit in [None, Some(&b"ann"[..]), Some(b"ben"), Some(b"eve")] {
            let targeted = Subject { targeted: true, ..subject(unit, None) };
            let assigned = router.0[0].assign(&targeted).unwrap();
            assert_eq!((&*assigned.variant.name, assigned.basis), ("treatment", Basis::Stopped));
        }
    }

    #[test]
    fn manual_experiment_waits_for_its_start() {
        let mut router = with("start = \"manual\"");
        let exclusion =
            |router: &Router| router.0[0].assign(&subject(Some(b"ann"), None)).unwrap().exclusion();
        assert_eq!(exclusion(&router), Some(Exclusion::NotStarted));
        assert!(!router.0[0].is_running());
        router.change(0, &Change { started: true, ..Change::default() }).unwrap();
        assert_eq!(exclusion(&router), None);
        assert!(router.0[0].is_running());
        router.change(0, &Change::default()).unwrap();
        assert_eq!(exclusion(&router), Some(Exclusion::NotStarted), "the change was removed");
        router.change(0, &Change { stopped: true, ..Change::default() }).unwrap();
        assert!(!router.0[0].is_running());
    }

    #[test]
    fn control_serves_for_an_unavailable_variant_if_the_experiment_is_set_so() {
        let fallback = |router: &Router, subject: &Subject<'_>| {
            let assigned = router.0[0].assign(subject).unwrap();
            (assigned.variant.name.clone(), assigned.fallback().map(|v| v.name.clone()))
        };
        let control = Some("control".to_owned());
        let (falling, failing) = (with("unavailable = \"control\""), with(""));
        let mut seen = Vec::new();
        for index in 0..100 {
            let unit = format!("user-{index}");
            let subject = subject(Some(unit.as_bytes()), None);
            let (variant, found) = fallback(&falling, &subject);
            assert_eq!(found, control.clone().filter(|_| variant == "treatment"));
            assert_eq!(fallback(&failing, &subject), (variant.clone(), None));
            seen.push(variant);
        }
        assert!(seen.contains(&"control".to_owned()) && seen.contains(&"treatment".to_owned()));
        let forced = fallback(&falling, &subject(None, Some(b"treatment")));
        assert_eq!(forced, ("treatment".to_owned(), None), "a tester sees the failure");
    }
}
