use super::*;
use crate::experiment::fixtures;
use crate::experiment::supervisor::looks_key;

fn experiment() -> Experiment {
    experiment_with("")
}

fn experiment_with(keys: &str) -> Experiment {
    fixtures::experiment(keys, 0.1)
}

fn update(before: &Change, json: &str) -> Result<Change, ChangeError> {
    apply(&experiment(), before, &serde_json::from_str(json).unwrap())
}

#[test]
fn manual_experiment_is_started_once_and_again_after_a_stop() {
    let experiment = experiment_with("start = \"manual\"");
    let update = |before: &Change, json: &str| {
        apply(&experiment, before, &serde_json::from_str(json).unwrap())
    };
    let start = r#"{"started": true}"#;
    let started = update(&Change::default(), start).unwrap();
    assert!(started.started && is_running(&experiment, &started));
    let conflict = update(&started, start).unwrap_err();
    assert_eq!(conflict.to_string(), "experiment `iris` is running already");
    let stopped = update(&started, r#"{"stopped": true, "winner": "treatment"}"#).unwrap();
    assert!(!is_running(&experiment, &stopped));
    assert_eq!(update(&stopped, start).unwrap(), started);
    for (json, part) in [
        (r#"{"started": false}"#, "ends by `\"stopped\": true`"),
        (r#"{"started": true, "stopped": true}"#, "is a start or a stop; remove one"),
    ] {
        let error = update(&Change::default(), json).unwrap_err();
        assert!(matches!(&error, ChangeError::Invalid(message) if message.contains(part)));
    }
}

#[test]
fn automatic_experiment_is_running_from_its_start() {
    let conflict = update(&Change::default(), r#"{"started": true}"#).unwrap_err();
    assert_eq!(conflict.to_string(), "experiment `iris` is running already");
}

#[test]
fn rolled_back_variant_returns_by_a_resume_that_names_its_share_only() {
    let rollback = Rollback { reason: "guardrail error_rate".into(), time: 1 };
    let running = Change::default().roll_back(&experiment(), "treatment", rollback).unwrap();
    let stopped = Change { stopped: true, ..running.clone() };
    for (before, json) in [
        (&running, r#"{"started": true}"#),
        (&running, r#"{"stopped": false}"#),
        (&running, r#"{"allocations": {"treatment": 0.1}}"#),
        (&running, r#"{"stopped": true, "winner": "treatment"}"#),
        (&stopped, r#"{"stopped": true, "winner": "treatment"}"#),
        (&stopped, r#"{"started": true}"#),
        (&stopped, r#"{"stopped": false}"#),
    ] {
        let error = update(before, json).unwrap_err();
        let part = "`spinfer experiment ramp iris treatment=<share> --resume` brings it back";
        assert!(
            matches!(&error, ChangeError::Conflict(message) if message.contains(part)),
            "{json}: {error}"
        );
    }
    let resume = r#"{"allocations": {"treatment": 0.1}, "stopped": false}"#;
    for before in [&running, &stopped] {
        let after = update(before, resume).unwrap();
        assert!(after.rolled_back.is_empty() && !after.stopped);
        assert_eq!(after.allocations["treatment"], 0.1);
    }
}

#[test]
fn ramp_of_a_bandit_below_its_minimum_is_refused_with_the_bound() {
    let bandit = experiment_with("kind = \"bandit\"\nminimum_allocation = 0.1");
    let ramp = |share: f64| {
        let allocations = BTreeMap::from([("treatment".to_owned(), share)]);
        let update = AllocationUpdate { allocations, ..AllocationUpdate::default() };
        apply(&bandit, &Change::default(), &update)
    };
    assert_eq!(ramp(0.1).unwrap().allocations["treatment"], 0.1);
    assert_eq!(ramp(0.9).unwrap().allocations["control"], 0.1);
    for share in [0.0, 0.05, 0.95] {
        let error = ramp(share).unwrap_err().to_string();
        assert!(error.contains("below the minimum_allocation of the bandit, 0.1"), "{error}");
    }
}

#[test]
fn ramp_of_a_canary_that_leaves_control_no_units_is_refused_with_the_command_that_does_so() {
    let canary = fixtures::canary("[{ allocation = 0.1, hold = \"1h\" }]");
    let update =
        |json: &str| apply(&canary, &Change::default(), &serde_json::from_str(json).unwrap());
    for json in [
        r#"{"allocations": {"treatment": 1}}"#,
        r#"{"allocations": {"treatment": 0.99999}}"#,
        r#"{"allocations": {"control": 0, "treatment": 1}}"#,
        r#"{"allocations": {"treatment": 1}, "stopped": false}"#,
    ] {
        let error = update(json).unwrap_err();
        assert!(matches!(&error, ChangeError::Invalid(_)), "{error}");
        let part = "`spinfer experiment promote iris treatment` ends it";
        assert!(error.to_string().contains(part), "{json}: {error}");
    }
    let ramped = update(r#"{"allocations": {"treatment": 0.9999}}"#).unwrap();
    assert_eq!(ramped.allocations["control"], 0.0001);
    let promoted = update(r#"{"stopped": true, "winner": "treatment"}"#).unwrap();
    assert_eq!(promoted.winner.as_deref(), Some("treatment"));
}

#[test]
fn resume_and_promotion_are_named_in_the_journal() {
    let experiment = experiment();
    let detail = |before: &Change, json: &str| {
        let update: AllocationUpdate = serde_json::from_str(json).unwrap();
        let after = apply(&experiment, before, &update).unwrap();
        detail_of(&experiment, before, &after, &update)
    };
    let stopped = Change { stopped: true, ..Change::default() };
    let promote = r#"{"stopped": true, "winner": "treatment"}"#;
    assert_eq!(detail(&Change::default(), promote), "promoted treatment: treatment 100.0 %");
    let resumed = detail(&stopped, r#"{"stopped": false}"#);
    assert_eq!(resumed, "resumed: control 90.0 %, treatment 10.0 %");
}

#[test]
fn change_is_one_of_the_present_variants() {
    let ramped = update(&Change::default(), r#"{"allocations": {"treatment": 0.25}}"#).unwrap();
    assert_eq!(ramped.digest, Some(experiment().digest()));
    let json = serde_json::to_vec(&ramped).unwrap();
    assert_eq!(parse(&experiment(), &json), Ok(ramped));
    let mut restarted = experiment();
    restarted.variants[1].component = "other".into();
    let problem = parse(&restarted, &json).unwrap_err();
    assert!(problem.contains("another run of experiment `iris`, with other variants"), "{problem}");
}

#[tokio::test]
async fn update_ends_the_run_of_another_host_only_before_the_first_look() {
    let store = GrantedStore::in_memory();
    let mut other = experiment();
    other.variants[1].component = "other".into();
    let stored = Change { digest: Some(other.digest()), ..Change::default() };
    let stored = serde_json::to_vec(&stored).unwrap();
    store.set(key("iris"), stored.clone()).await.unwrap();
    let shares = BTreeMap::from([("treatment".to_owned(), 0.25)]);
    let update = AllocationUpdate { allocations: shares, ..AllocationUpdate::default() };
    // Of an even earlier run with the variants of now.
    let looks = looks_key(&experiment());
    store.set(looks.clone(), b"[]".to_vec()).await.unwrap();
    let conflict = store_update(&store, &experiment(), &update, true).await.unwrap_err();
    assert_eq!(conflict, ChangeError::Conflict(ANOTHER_RUN.to_owned()));
    assert_eq!(store.get(key("iris")).await.unwrap(), Some(stored));
    let after = store_update(&store, &experiment(), &update, false).await.unwrap();
    assert_eq!(after.digest, Some(experiment().digest()));
    assert!(!store.exists(looks).await.unwrap(), "its numbers do not count");
}

#[test]
fn experiment_is_ramped_stopped_and_resumed() {
    let ramped = update(&Change::default(), r#"{"allocations": {"treatment": 0.25}}"#).unwrap();
    assert_eq!(ramped.allocations["control"], 0.75);
    let stopped = update(&ramped, r#"{"stopped": true, "winner": "treatment"}"#).unwrap();
    assert_eq!((stopped.stopped, stopped.winner.as_deref()), (true, Some("treatment")));
    assert_eq!(stopped.allocations, ramped.allocations);
    let again = update(&stopped, r#"{"stopped": false}"#).unwrap();
    assert_eq!(again, ramped);
}

#[test]
fn invalid_update_is_rejected() {
    let stopped = Change { stopped: true, ..Change::default() };
    let conflict = update(&stopped, r#"{"allocations": {"treatment": 0.25}}"#).unwrap_err();
    assert!(matches!(&conflict, ChangeError::Conflict(message) if message.contains("--resume")));
    for (json, part) in [
        ("{}", "the update is empty"),
        (r#"{"winner": "treatment"}"#, "only a stopped experiment has one"),
        (r#"{"stopped": true, "winner": "other"}"#, "no variant `other`"),
        (r#"{"allocations": {"treatment": 1.5}}"#, "1.5 is not a share"),
        (r#"{"allocations": {"treatment": 0.5, "control": 0.6}}"#, "sum to 1.1"),
    ] {
        let error = update(&Change::default(), json).unwrap_err();
        assert!(
            matches!(&error, ChangeError::Invalid(message) if message.contains(part)),
            "{error}"
        );
    }
}
