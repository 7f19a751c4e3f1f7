//! Changes that `spinfer experiment` writes into the key-value store: allocations, or the stop of an
//! experiment. Every instance polls them.

use std::io::Write;
use std::time::{Duration, Instant};

use spinfer_experiment::{Change, Router};

use crate::bindings::fermyon::spin::key_value::{Error, Store};

/// Interval between reads of a change.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum interval after failures: each attempt may take until its timeout.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Name of the key-value store.
const STORE: &str = "default";

/// The last change read of each experiment.
pub(crate) struct Changes(Vec<PolledChange>);

struct PolledChange {
    key: String,
    /// Time of the last read. `None` before the first.
    read: Option<Instant>,
    /// Interval until the next read.
    wait: Duration,
    value: Option<Vec<u8>>,
    /// Whether the value was applied.
    applied: Result<(), String>,
    /// The last problem logged.
    problem: Option<String>,
}

impl Changes {
    /// `keys`: of the experiments' changes, in the order of the [`Router`].
    pub(crate) fn of(keys: impl IntoIterator<Item = String>) -> Self {
        let polled = |key| PolledChange {
            key,
            read: None,
            wait: POLL_INTERVAL,
            value: None,
            applied: Ok(()),
            problem: None,
        };
        Self(keys.into_iter().map(polled).collect())
    }

    /// Reads the change of an experiment with `get`, if due, and applies it. If the store fails or the change is
    /// invalid, the last allocations stay in effect.
    pub(crate) fn poll(
        &mut self,
        router: &mut Router,
        experiment: usize,
        now: Instant,
        get: impl FnOnce(&str) -> Result<Option<Vec<u8>>, String>,
    ) {
        let Some(polled) = self.0.get_mut(experiment) else { return };
        if polled.read.is_some_and(|read| now.saturating_duration_since(read) < polled.wait) {
            return;
        }
        polled.read = Some(now);
        let applied = match get(&polled.key) {
            Err(problem) => {
                polled.wait = (polled.wait * 2).min(MAX_BACKOFF);
                Err(problem)
            }
            Ok(value) => {
                polled.wait = POLL_INTERVAL;
                if value != polled.value {
                    polled.applied = apply(router, experiment, value.as_deref());
                    polled.value = value;
                }
                polled.applied.clone()
            }
        };
        let problem = applied.err();
        if let Some(problem) = problem.as_ref().filter(|_| problem != polled.problem) {
            let key = &polled.key;
            // A failure to log cannot be reported.
            let _ = writeln!(
                std::io::stderr(),
                "{key}: {problem}; the last known allocations stay in effect"
            );
        }
        polled.problem = problem;
    }
}

/// Applies a change. `None`: there is none.
fn apply(router: &mut Router, experiment: usize, value: Option<&[u8]>) -> Result<(), String> {
    let change = match value {
        None => Change::default(),
        Some(json) => serde_json::from_slice(json).map_err(|error| error.to_string())?,
    };
    router.change(experiment, &change)
}

/// The key-value store, opened by the first read and again after a failure.
#[derive(Default)]
pub(crate) struct ChangeStore(Option<Store>);

impl ChangeStore {
    /// The value of a key.
    pub(crate) fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let store = match &self.0 {
            Some(store) => store,
            None => self.0.insert(Store::open(STORE).map_err(describe)?),
        };
        let found = store.get(key).map_err(describe);
        if found.is_err() {
            self.0 = None;
        }
        found
    }
}

fn describe(error: Error) -> String {
    match error {
        Error::AccessDenied | Error::NoSuchStore => format!(
            "the key-value store `{STORE}` is not granted; write key_value_stores = [\"{STORE}\"]"
        ),
        Error::StoreTableFull => "too many key-value stores are open".to_owned(),
        Error::Other(problem) => problem,
    }
}

#[cfg(test)]
mod tests {
    use spinfer_experiment::{Experiments, Subject, key};

    use super::*;

    const FILE: &str = r#"
        [experiments.iris]
        model = "iris"
        unit = { header = "x-user-id" }
        [[experiments.iris.variants]]
        name = "control"
        component = "one"
        allocation = 1
        [[experiments.iris.variants]]
        name = "treatment"
        component = "two"
        allocation = 0
    "#;

    /// A router that reads given values at given times.
    struct PolledRouter {
        router: Router,
        changes: Changes,
        start: Instant,
        reads: usize,
    }

    impl PolledRouter {
        fn new() -> Self {
            let router = Router::new(&Experiments::parse(FILE).unwrap()).unwrap();
            let changes = Changes::of([key("iris")]);
            Self { router, changes, start: Instant::now(), reads: 0 }
        }

        /// The variant that serves, `after` milliseconds from the start.
        fn serves(&mut self, after: u64, stored: Result<Option<&str>, &str>) -> String {
            let Self { router, changes, start, reads } = self;
            let now = *start + Duration::from_millis(after);
            changes.poll(router, 0, now, |key| {
                assert_eq!(key, "spinfer/experiments/iris");
                *reads += 1;
                let value = |json: &str| json.as_bytes().to_vec();
                stored.map(|json| json.map(value)).map_err(str::to_owned)
            });
            let live = router.get(0).unwrap();
            let subject = Subject { unit: Some(b"ann"), ..Subject::default() };
            live.assign(&subject).unwrap().variant.name.clone()
        }

        fn problem(&self) -> Option<&str> {
            self.changes.0[0].problem.as_deref()
        }
    }

    const ALL: &str = r#"{"allocations": {"control": 0, "treatment": 1}}"#;

    #[test]
    fn change_is_read_once_per_second() {
        let mut polled = PolledRouter::new();
        assert_eq!(polled.serves(0, Ok(None)), "control");
        assert_eq!(polled.serves(999, Ok(Some(ALL))), "control");
        assert_eq!(polled.serves(1000, Ok(Some(ALL))), "treatment");
        assert_eq!(polled.serves(1500, Ok(None)), "treatment");
        assert_eq!(polled.reads, 2);
        assert_eq!(polled.serves(2000, Ok(None)), "control", "as in the file");
    }

    #[test]
    fn failing_store_changes_nothing_and_is_read_with_backoff() {
        let mut polled = PolledRouter::new();
        assert_eq!(polled.serves(0, Ok(Some(ALL))), "treatment");
        assert_eq!(polled.serves(1000, Err("connection refused")), "treatment");
        assert_eq!(polled.problem(), Some("connection refused"));
        for after in (1100..60_000).step_by(100) {
            assert_eq!(polled.serves(after, Err("connection refused")), "treatment");
        }
        assert!(polled.reads < 10, "{}", polled.reads);
        assert_eq!(polled.serves(120_000, Ok(Some(ALL))), "treatment");
        assert_eq!(polled.problem(), None);
    }

    #[test]
    fn invalid_change_is_not_applied() {
        let mut polled = PolledRouter::new();
        assert_eq!(polled.serves(0, Ok(Some(ALL))), "treatment");
        for (index, stored) in [
            "{",
            "7",
            r#"{"allocations": {"control": 0.5}}"#,
            r#"{"allocations": {"other": 1}}"#,
            r#"{"share": 1}"#,
        ]
        .into_iter()
        .enumerate()
        {
            let after = (index as u64 + 1) * 100_000;
            assert_eq!(polled.serves(after, Ok(Some(stored))), "treatment", "{stored}");
            assert!(polled.problem().is_some(), "{stored}");
            assert_eq!(polled.serves(after + 40_000, Ok(Some(stored))), "treatment");
            assert!(polled.problem().is_some(), "{stored}");
        }
        assert_eq!(polled.serves(900_000, Ok(Some(ALL))), "treatment");
        assert_eq!(polled.problem(), None);
    }
}
