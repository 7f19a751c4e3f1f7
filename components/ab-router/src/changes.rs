//! What `spinfer experiment` writes into the key-value store: other allocations, or the end of an
//! experiment. Every instance follows it.

use std::io::Write;
use std::time::{Duration, Instant};

use spinfer_experiment::{Change, Router};

use crate::bindings::fermyon::spin::key_value::{Error, Store};

/// How long what was read is good for.
const REREAD: Duration = Duration::from_secs(1);
/// How long at most a store that fails is left alone: each attempt may take until its timeout.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The store of this component.
const STORE: &str = "default";

/// What was read of the changes of each experiment.
pub(crate) struct Changes(Vec<Seen>);

struct Seen {
    key: String,
    /// `None` before the first time.
    read: Option<Instant>,
    /// How long after that it is read again.
    wait: Duration,
    value: Option<Vec<u8>>,
    /// What came of that value.
    applied: Result<(), String>,
    /// What is logged already.
    problem: Option<String>,
}

impl Changes {
    /// Of the experiments whose changes have these keys, in the order of a [`Router`].
    pub(crate) fn of(keys: impl IntoIterator<Item = String>) -> Self {
        let seen = |key| Seen {
            key,
            read: None,
            wait: REREAD,
            value: None,
            applied: Ok(()),
            problem: None,
        };
        Self(keys.into_iter().map(seen).collect())
    }

    /// Reads the change of an experiment with `get`, unless it was read lately, and puts it into
    /// effect. If the store fails, or what it has is no change, the experiment stays as it is.
    pub(crate) fn follow(
        &mut self,
        router: &mut Router,
        experiment: usize,
        now: Instant,
        get: impl FnOnce(&str) -> Result<Option<Vec<u8>>, String>,
    ) {
        let Some(seen) = self.0.get_mut(experiment) else { return };
        if seen.read.is_some_and(|read| now.saturating_duration_since(read) < seen.wait) {
            return;
        }
        seen.read = Some(now);
        let applied = match get(&seen.key) {
            Err(problem) => {
                seen.wait = (seen.wait * 2).min(MAX_BACKOFF);
                Err(problem)
            }
            Ok(value) => {
                seen.wait = REREAD;
                if value != seen.value {
                    seen.applied = apply(router, experiment, value.as_deref());
                    seen.value = value;
                }
                seen.applied.clone()
            }
        };
        let problem = applied.err();
        if let Some(problem) = problem.as_ref().filter(|_| problem != seen.problem) {
            let key = &seen.key;
            // Nothing can be done if nobody reads the log.
            let _ = writeln!(
                std::io::stderr(),
                "{key}: {problem}; the allocations known last stay in effect"
            );
        }
        seen.problem = problem;
    }
}

fn apply(router: &mut Router, experiment: usize, value: Option<&[u8]>) -> Result<(), String> {
    let change = match value {
        None => Change::default(),
        Some(json) => serde_json::from_slice(json).map_err(|error| error.to_string())?,
    };
    router.change(experiment, &change)
}

/// The store, opened once.
#[derive(Default)]
pub(crate) struct Stores(Option<Store>);

impl Stores {
    pub(crate) fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let store = match &self.0 {
            Some(store) => store,
            None => self.0.insert(Store::open(STORE).map_err(explained)?),
        };
        let found = store.get(key).map_err(explained);
        if found.is_err() {
            self.0 = None;
        }
        found
    }
}

fn explained(error: Error) -> String {
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
    use spinfer_experiment::{Experiments, key};

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

    /// A router that reads what a test says, at times that a test says.
    struct Followed {
        router: Router,
        changes: Changes,
        start: Instant,
        reads: usize,
    }

    impl Followed {
        fn new() -> Self {
            let router = Router::new(&Experiments::parse(FILE).unwrap()).unwrap();
            let changes = Changes::of([key("iris")]);
            Self { router, changes, start: Instant::now(), reads: 0 }
        }

        /// Which variant serves everybody, so many milliseconds after the start.
        fn serves(&mut self, after: u64, stored: Result<Option<&str>, &str>) -> String {
            let Self { router, changes, start, reads } = self;
            let now = *start + Duration::from_millis(after);
            changes.follow(router, 0, now, |key| {
                assert_eq!(key, "spinfer/experiments/iris");
                *reads += 1;
                let value = |json: &str| json.as_bytes().to_vec();
                stored.map(|json| json.map(value)).map_err(str::to_owned)
            });
            let live = router.get(0).unwrap();
            live.assign(Some(b"ann"), None).unwrap().variant.name.clone()
        }

        fn problem(&self) -> Option<&str> {
            self.changes.0[0].problem.as_deref()
        }
    }

    const ALL: &str = r#"{"allocations": {"control": 0, "treatment": 1}}"#;

    #[test]
    fn a_change_is_followed_within_a_second_and_read_no_more_often() {
        let mut followed = Followed::new();
        assert_eq!(followed.serves(0, Ok(None)), "control");
        assert_eq!(followed.serves(999, Ok(Some(ALL))), "control");
        assert_eq!(followed.serves(1000, Ok(Some(ALL))), "treatment");
        assert_eq!(followed.serves(1500, Ok(None)), "treatment");
        assert_eq!(followed.reads, 2);
        assert_eq!(followed.serves(2000, Ok(None)), "control", "as the file has it");
    }

    #[test]
    fn a_store_that_fails_changes_nothing_and_is_asked_ever_more_seldom() {
        let mut followed = Followed::new();
        assert_eq!(followed.serves(0, Ok(Some(ALL))), "treatment");
        assert_eq!(followed.serves(1000, Err("it is away")), "treatment");
        assert_eq!(followed.problem(), Some("it is away"));
        for after in (1100..60_000).step_by(100) {
            assert_eq!(followed.serves(after, Err("it is away")), "treatment");
        }
        assert!(followed.reads < 10, "{}", followed.reads);
        assert_eq!(followed.serves(120_000, Ok(Some(ALL))), "treatment");
        assert_eq!(followed.problem(), None);
    }

    #[test]
    fn what_is_no_change_of_the_experiment_changes_nothing() {
        let mut followed = Followed::new();
        assert_eq!(followed.serves(0, Ok(Some(ALL))), "treatment");
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
            assert_eq!(followed.serves(after, Ok(Some(stored))), "treatment", "{stored}");
            assert!(followed.problem().is_some(), "{stored}");
            assert_eq!(followed.serves(after + 40_000, Ok(Some(stored))), "treatment");
            assert!(followed.problem().is_some(), "{stored}");
        }
        assert_eq!(followed.serves(900_000, Ok(Some(ALL))), "treatment");
        assert_eq!(followed.problem(), None);
    }
}
