//! Router components, and the counters of the variants they assign requests to.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use spinfer_experiment::{Exclusion, Experiment, Experiments};
use tokio::sync::Semaphore;
use tracing::warn;

use super::FILE;
use super::agreement::Agreement;
use super::assessment::Assessment;
use super::outcomes::OutcomeCounters;
use crate::guest::component::Component;
use crate::http::reserved::INTERNAL;
use crate::metrics::counters::Counter;
use crate::prediction_log::HashKey;
use crate::storage::key_value::GrantedStore;

const EXPERIMENT: HeaderName = HeaderName::from_static("spinfer-experiment");
const VARIANT: HeaderName = HeaderName::from_static("spinfer-variant");

/// Maximum number of copies for one shadow in flight. More are skipped.
pub const MAX_COPIES: usize = 32;

/// A component that assigns requests to variants.
#[derive(Debug)]
pub struct ExperimentRouter {
    service: Arc<Component>,
    /// The experiments of the mounted file; none without a file.
    experiments: Experiments,
    /// The arms of each experiment, in file order.
    arms: HashMap<String, Vec<Arc<Arm>>>,
    /// Requests for each experiment that are not in it, in the order of [`Exclusion::ALL`].
    excluded: HashMap<String, [Counter; Exclusion::ALL.len()]>,
    /// Hashes the units that are logged; `None` without a prediction log.
    unit_key: Option<HashKey>,
    /// The store with the changes, if granted.
    store: Option<Arc<GrantedStore>>,
    /// The last look at each experiment.
    assessments: Mutex<HashMap<String, Arc<Assessment>>>,
    /// Why the last look at each experiment failed; none for one that succeeded.
    problems: Mutex<HashMap<String, String>>,
    /// Whether the present change of the mounted file was logged.
    is_change_logged: AtomicBool,
}

/// A variant of an experiment, with its counters.
#[derive(Debug)]
pub struct Arm {
    pub experiment: Arc<str>,
    pub variant: Arc<str>,
    /// The component that serves it.
    pub component: String,
    headers: [HeaderValue; 2],
    /// Name of the input that is the covariate of the metric.
    pub covariate: Option<Arc<str>>,
    /// Digest of the experiment; empty for one that is not in the mounted file.
    pub run: Arc<str>,
    /// Requests assigned to the variant.
    pub assignments: Counter,
    /// Outcomes of those of units that were assigned by chance.
    pub outcomes: OutcomeCounters,
    /// Those that control served, since the variant could not.
    pub failed_over: Counter,
    pub copies: ShadowCounts,
}

/// Counters of the copies for a shadow.
#[derive(Debug)]
pub struct ShadowCounts {
    /// A permit for each copy in flight.
    pub permits: Arc<Semaphore>,
    /// Copies with a response other than 5xx.
    pub served: Counter,
    /// Copies with a 5xx response, or without one.
    pub failed: Counter,
    /// Copies not sent: too many in flight, or a streamed body.
    pub skipped: Counter,
    /// Comparisons with the responses of the variants that served the clients.
    pub agreement: Agreement,
}

impl Default for ShadowCounts {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_COPIES)),
            served: Counter::default(),
            failed: Counter::default(),
            skipped: Counter::default(),
            agreement: Agreement::default(),
        }
    }
}

impl Arm {
    /// An arm without counts.
    ///
    /// # Errors
    /// Fails if a name is not a valid header value.
    pub fn new(experiment: &str, variant: &str, component: &str) -> Result<Self> {
        let headers = [HeaderValue::try_from(experiment)?, HeaderValue::try_from(variant)?];
        Ok(Self {
            experiment: experiment.into(),
            variant: variant.into(),
            component: component.to_owned(),
            headers,
            covariate: None,
            run: "".into(),
            assignments: Counter::default(),
            outcomes: OutcomeCounters::default(),
            failed_over: Counter::default(),
            copies: ShadowCounts::default(),
        })
    }

    /// Names the experiment and the variant in a response.
    pub fn mark(&self, headers: &mut HeaderMap) {
        let [experiment, variant] = self.headers.clone();
        headers.insert(EXPERIMENT, experiment);
        headers.insert(VARIANT, variant);
    }

    /// The variant's name as the value of a header.
    #[must_use]
    pub fn variant_header(&self) -> HeaderValue {
        let [_, variant] = &self.headers;
        variant.clone()
    }
}

impl ExperimentRouter {
    /// A router with the `experiments` it mounts. `store` is the one with the changes, if granted;
    /// `unit_key` hashes the units that are logged.
    ///
    /// # Errors
    /// Fails if a name is not a valid header value.
    pub fn new(
        service: Arc<Component>,
        experiments: Experiments,
        store: Option<Arc<GrantedStore>>,
        unit_key: Option<HashKey>,
    ) -> Result<Self> {
        let arms = |experiment: &Experiment| {
            let covariate = experiment.metric.as_ref().and_then(|metric| metric.covariate.as_ref());
            let covariate: Option<Arc<str>> = covariate.map(|name| name.as_str().into());
            let run: Arc<str> = experiment.digest().into();
            let arms = experiment.variants.iter().map(|variant| {
                let arm = Arm::new(&experiment.name, &variant.name, &variant.component)?;
                let (covariate, run) = (covariate.clone(), Arc::clone(&run));
                Ok(Arc::new(Arm { covariate, run, ..arm }))
            });
            Ok((experiment.name.clone(), arms.collect::<Result<_>>()?))
        };
        let arms = experiments.iter().map(arms).collect::<Result<_>>()?;
        let excluded = experiments.iter().map(|e| (e.name.clone(), Default::default())).collect();
        Ok(Self {
            service,
            experiments,
            arms,
            excluded,
            unit_key,
            store,
            assessments: Mutex::default(),
            problems: Mutex::default(),
            is_change_logged: AtomicBool::default(),
        })
    }

    /// The problem that the mounted file has other experiments than the host read at its start, if so,
    /// or cannot be read: new instances of the router assign by the new file, and the host counts by
    /// the old one. Of a copied file both use the copy, and the file that it was made of is compared.
    /// Logs the problem once, and again if the file is edited after it was restored.
    pub(super) async fn check_file(&self) -> Option<String> {
        // Without experiments there is nothing to compare.
        self.experiments.iter().next()?;
        let files = &self.service.spec().files;
        let copied = files.copied_from(FILE);
        let path = match copied {
            Some(source) => source.to_owned(),
            None => {
                let mut roots = files.folders.iter();
                let (_, folder) = roots.find(|(destination, _)| destination.is_empty())?;
                folder.join(FILE.trim_start_matches('/'))
            }
        };
        let text = tokio::fs::read_to_string(path).await;
        let problem = changed(&self.experiments, text, copied);
        if is_new(problem.as_ref(), &self.is_change_logged) {
            let component = &self.service.spec().id;
            warn!(component, "{}", problem.as_deref().unwrap_or_default());
        }
        problem
    }

    #[must_use]
    pub fn service(&self) -> &Arc<Component> {
        &self.service
    }

    #[must_use]
    pub fn experiments(&self) -> &Experiments {
        &self.experiments
    }

    /// Whether `component` serves a variant of one of its experiments.
    #[must_use]
    pub fn assigns_to(&self, component: &str) -> bool {
        let mut variants = self.experiments.iter().flat_map(|experiment| &experiment.variants);
        variants.any(|variant| variant.component == component && !variant.shadow)
    }

    #[must_use]
    pub fn store(&self) -> Option<&Arc<GrantedStore>> {
        self.store.as_ref()
    }

    /// The last look at `experiment`; `None` before the first, and for a shadow.
    #[must_use]
    pub fn assessment(&self, experiment: &str) -> Option<Arc<Assessment>> {
        self.assessments.lock().get(experiment).cloned()
    }

    pub(super) fn set_assessment(&self, experiment: &str, assessment: Assessment) {
        self.assessments.lock().insert(experiment.to_owned(), Arc::new(assessment));
    }

    /// Why the last look at `experiment` failed; `None` if it did not.
    #[must_use]
    pub fn problem(&self, experiment: &str) -> Option<String> {
        self.problems.lock().get(experiment).cloned()
    }

    /// Replaces the problem of the last look, and returns that of the look before.
    pub(super) fn set_problem(&self, experiment: &str, problem: Option<String>) -> Option<String> {
        let mut problems = self.problems.lock();
        match problem {
            Some(problem) => problems.insert(experiment.to_owned(), problem),
            None => problems.remove(experiment),
        }
    }

    /// The arms of `experiment`, in file order.
    #[must_use]
    pub fn arms(&self, experiment: &str) -> &[Arc<Arm>] {
        self.arms.get(experiment).map_or(&[], Vec::as_slice)
    }

    /// The counter of the requests that `exclusion` keeps out of `experiment`; `None` for an
    /// experiment that is not in the mounted file.
    #[must_use]
    pub fn excluded(&self, experiment: &str, exclusion: Exclusion) -> Option<&Counter> {
        let position = Exclusion::ALL.iter().position(|known| *known == exclusion)?;
        self.excluded.get(experiment)?.get(position)
    }

    /// The hash of a unit for the log; `None` without a prediction log.
    #[must_use]
    pub fn hashed(&self, unit: &[u8]) -> Option<Arc<str>> {
        self.unit_key.as_ref().map(|key| key.token(unit).into())
    }

    /// The arm of this name and `component`. A router without a mounted file, or with another
    /// source of experiments, also assigns to other arms, which are not counted. `None` if the
    /// router may not call the component, or a name is not a valid header value.
    #[must_use]
    pub fn arm(&self, experiment: &str, variant: &str, component: &str) -> Option<Arc<Arm>> {
        let known = self.arms(experiment).iter();
        let mut known = known.filter(|arm| &*arm.variant == variant);
        if let Some(arm) = known.find(|arm| arm.component == component) {
            return Some(Arc::clone(arm));
        }
        let allowed = self.may_call(component);
        allowed.then(|| Arm::new(experiment, variant, component).ok().map(Arc::new)).flatten()
    }

    fn may_call(&self, component: &str) -> bool {
        let host = format!("{component}{INTERNAL}");
        self.service.spec().outbound_hosts.allows("http", &host, None)
    }
}

/// The problem that the file, which is `copied` from another or read in place, has other experiments
/// than `known`, if so.
fn changed(known: &Experiments, text: io::Result<String>, copied: Option<&Path>) -> Option<String> {
    let problem = match text.map(|text| Experiments::parse(&text)) {
        Ok(Ok(found)) if found == *known => return None,
        Ok(Ok(_)) => String::new(),
        Ok(Err(invalid)) => format!(" It is invalid: {invalid}"),
        Err(error) => format!(" It cannot be read: {error}"),
    };
    Some(match copied {
        Some(source) => format!(
            "{} has changed since the host started, which uses a copy of it, as every mounted file; \
             restart the host.{problem}",
            source.display()
        ),
        None => format!(
            "{FILE} has changed since the host started, and router instances that start now read the \
             new file; restart the host.{problem}"
        ),
    })
}

/// Whether `problem` is one that was not logged since there was none.
fn is_new(problem: Option<&String>, is_logged: &AtomicBool) -> bool {
    !is_logged.swap(problem.is_some(), Ordering::Relaxed) && problem.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_file_is_a_problem_and_a_comment_is_not() {
        let file = |allocation: f64| {
            format!(
                "[experiments.x]\nmodel = \"x\"\nunit = {{ header = \"a\" }}\nvariants = [\
                 {{ name = \"control\", component = \"a\", allocation = {allocation:?} }}, \
                 {{ name = \"b\", component = \"b\", allocation = {:?} }}]\n",
                1.0 - allocation
            )
        };
        let known = Experiments::parse(&file(0.5)).unwrap();
        let in_place = |text: String| changed(&known, Ok(text), None);
        assert_eq!(in_place(format!("# a comment\n{}", file(0.5))), None);
        assert!(in_place(file(0.25)).unwrap().ends_with("restart the host."));
        assert!(in_place("[".into()).unwrap().contains("It is invalid: line 1"));
        let source = Some(Path::new("config/experiments.toml"));
        assert_eq!(changed(&known, Ok(file(0.5)), source), None);
        let problem = changed(&known, Ok(file(0.25)), source).unwrap();
        assert!(problem.starts_with("config/experiments.toml has changed"), "{problem}");
        let missing = changed(&known, Err(io::ErrorKind::NotFound.into()), source).unwrap();
        assert!(missing.contains("It cannot be read: "), "{missing}");
    }

    #[test]
    fn file_that_is_edited_again_is_logged_again() {
        let (problem, is_logged) = ("has changed".to_owned(), AtomicBool::default());
        let edits = [None, Some(&problem), Some(&problem), None, None, Some(&problem)];
        let logged = edits.map(|problem| is_new(problem, &is_logged));
        assert_eq!(logged, [false, true, false, false, false, true]);
    }

    #[test]
    fn arm_has_names_that_are_valid_in_headers() {
        let arm = Arm::new("iris", "treatment", "iris-classifier-2").unwrap();
        let mut headers = HeaderMap::new();
        arm.mark(&mut headers);
        assert_eq!(headers["spinfer-experiment"], "iris");
        assert_eq!(headers["spinfer-variant"], "treatment");
        assert_eq!(arm.variant_header(), "treatment");
        assert!(Arm::new("a\nb", "c", "d").is_err());
    }
}
