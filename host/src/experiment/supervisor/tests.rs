use spinfer_experiment::format::{Guardrail, GuardrailBound, GuardrailMetric};
use spinfer_experiment::key;
use spinfer_experiment::progress::{Event, Rollback, StepProgress};

use super::looks::{MAX_LOOKS, add_look};
use super::watches::{first_in_traffic, guarded};
use super::*;
use crate::experiment::fixtures::{self, experiment};
use crate::experiment::guardrails::LookInput;
use crate::experiment::ledger::{MAX_ENTRIES, journal, record, to_json};
use crate::experiment::nodes::SourceCounts;
use crate::experiment::outcomes::OutcomeCounters;

fn status(state: GuardrailState) -> GuardrailStatus {
    GuardrailStatus {
        variant: "treatment".into(),
        guardrail: "error_rate max_increase 0.01".into(),
        state,
        values: Some([0.0, 0.05]),
        evidence: 1.0,
    }
}

fn canary() -> Experiment {
    fixtures::canary("[{ allocation = 0.1, hold = \"1s\" }, { allocation = 0.5, hold = \"10s\" }]")
}

#[test]
fn canary_advances_once_a_step_was_held_and_guardrails_hold() {
    let canary = canary();
    let (holds, exceeded) = ([status(GuardrailState::Holds)], [status(GuardrailState::Exceeded)]);
    let next = |change: &Change, rails: &[GuardrailStatus], held| {
        let moment = (7_000, Duration::from_millis(held));
        next_step(&canary, change, rails, moment).map(|(after, _, detail)| (after, detail))
    };
    let (first, detail) = next(&Change::default(), &exceeded, 0).unwrap();
    assert_eq!(detail, "step 1 of 2: treatment 10.0 %, held for 1s");
    assert_eq!(next(&first, &holds, 999), None);
    assert_eq!(next(&first, &exceeded, 9_000), None);
    assert_eq!(next(&first, &[status(GuardrailState::Waiting)], 9_000), None);
    let (second, _) = next(&first, &holds, 1_000).unwrap();
    assert_eq!(second.allocations["treatment"], 0.5);
    assert_eq!(second.step, Some(StepProgress { index: 1, since: 7_000 }));
    let (complete, detail) = next(&second, &holds, 10_000).unwrap();
    assert_eq!(detail, "complete after 2 steps");
    assert_eq!(complete.allocations["treatment"], 0.5);
    assert_eq!(next(&complete, &holds, 99_000), None);
    let rollback = Rollback { reason: "errors".into(), time: 0 };
    let back = second.roll_back(&canary, "treatment", rollback).unwrap();
    assert_eq!(next(&back, &holds, 99_000), None);
}

#[test]
fn jump_of_the_wall_clock_advances_no_canary_and_blocks_none() {
    const YEAR: u64 = 365 * 86_400_000;
    let canary = canary();
    let holds = [status(GuardrailState::Holds)];
    let progress = StepProgress { index: 0, since: YEAR };
    let change = Change { step: Some(progress), ..Change::default() };
    for (time, held, advances) in
        [(3 * YEAR, 999, false), (1, 999, false), (3 * YEAR, 1_000, true), (1, 1_000, true)]
    {
        let next = next_step(&canary, &change, &holds, (time, Duration::from_millis(held)));
        assert_eq!(next.is_some(), advances, "{time} {held}");
    }
}

/// A variant that is bad and good in turn: its canary goes forward, or out once and for all.
#[test]
fn flapping_guardrail_does_not_flap_allocations() {
    const SECONDS: u64 = 200;
    let canary = canary();
    let batch = |errors: u64| {
        let counters = OutcomeCounters::default();
        (0..100).for_each(|index| counters.observe(index < errors, Duration::from_millis(1)));
        counters.counts()
    };
    let bound = GuardrailBound::MaxIncrease(0.015);
    let (metric, window) = (GuardrailMetric::ErrorRate, Duration::from_secs(10));
    let guardrail = Guardrail { metric, bound, window, minimum: 50 };
    for (errors, turn, falls) in [(2, 1, false), (2, 20, false), (30, 1, true), (30, 7, true)] {
        let mut watch = Watch::new(guardrail);
        let (mut change, mut shares, mut states) = (Change::default(), Vec::new(), Vec::new());
        let start = Instant::now();
        for second in 0..SECONDS {
            let is_bad = (second / turn).is_multiple_of(2);
            let batches = [batch(0), batch(if is_bad { errors } else { 0 })];
            let now = start + Duration::from_secs(second);
            let status = watch.look("treatment", now, &batches, &LookInput::default());
            states.push(status.state);
            let is_out = !change.rolled_back.is_empty();
            if status.state == GuardrailState::Breached && !is_out {
                let rollback = Rollback { reason: "errors".into(), time: second };
                change = change.roll_back(&canary, "treatment", rollback).unwrap();
                watch.reset();
            } else {
                let moment = (1_000 * second, Duration::from_secs(second));
                let next = next_step(&canary, &change, &[status], moment);
                change = next.map_or(change, |(next, ..)| next);
            }
            let share = change.allocations["treatment"];
            if shares.last() != Some(&share) {
                shares.push(share);
            }
        }
        let expected = if falls { &[0.1, 0.0] } else { &[0.1, 0.5] };
        assert_eq!(shares, expected, "{errors} errors, {turn} s");
        if turn == 20 {
            let turns = states.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(turns >= 8, "the guardrail flaps: {states:?}");
        }
    }
}

#[test]
fn looks_are_thinned_and_the_last_one_stays() {
    let look = |time: u64| {
        let differences = BTreeMap::new();
        PastLook { time, verdict: time.to_string(), differences }
    };
    let mut looks = Vec::new();
    for second in 0..100_000 {
        add_look(&mut looks, &look(second * 1_000));
        assert!(looks.len() <= MAX_LOOKS);
    }
    assert_eq!(looks[0].time, 0);
    assert!(looks.last().unwrap().time > 95_000_000, "{looks:?}");
    assert!(looks.is_sorted_by_key(|look| look.time));
    let same = PastLook { time: u64::MAX, ..looks.last().unwrap().clone() };
    assert!(!add_look(&mut looks, &same), "the same numbers are no new look");
}

#[test]
fn looks_of_a_clock_that_was_set_back_are_replaced() {
    let look = |time: u64| {
        let differences = BTreeMap::new();
        PastLook { time, verdict: time.to_string(), differences }
    };
    let times = |looks: &[PastLook]| looks.iter().map(|look| look.time).collect::<Vec<_>>();
    let hours = [1, 2, 3, 4].map(|hour| hour * 3_600_000);
    let mut looks: Vec<PastLook> = hours.into_iter().map(look).collect();
    assert!(!add_look(&mut looks, &look(hours[3] - 60_000)), "clocks of hosts differ");
    assert!(!add_look(&mut looks, &look(0)), "a clock of before the experiment is not set yet");
    assert_eq!(times(&looks), hours);
    // One that was set back by an hour and a half goes on.
    let time = hours[1] + 1_800_000;
    assert!(add_look(&mut looks, &look(time)));
    assert_eq!(times(&looks), [hours[0], hours[1], time]);
    assert!(remove_later(&mut looks, hours[0]) && !remove_later(&mut looks, hours[0]));
    assert_eq!(times(&looks), [hours[0]]);
}

#[test]
fn guardrails_start_anew_where_a_variant_came_back_into_traffic() {
    let epoch = |from: u64, variants: &[&str]| {
        let shares = variants.iter().map(|name| ((*name).to_owned(), 0.5)).collect();
        Epoch { from, shares }
    };
    let (both, control) = (&["control", "treatment"][..], &["control"][..]);
    let first = |epochs: &[Epoch]| first_in_traffic(epochs, "treatment");
    assert_eq!(first(&[epoch(0, both), epoch(5, both)]), 0);
    assert_eq!(first(&[epoch(0, both), epoch(5, control), epoch(9, both), epoch(12, both)]), 2);
    assert_eq!(first(&[epoch(0, both), epoch(5, control)]), 1);
    assert_eq!(first(&[]), 0);
}

#[tokio::test]
async fn counts_of_a_run_are_removed() {
    let store = GrantedStore::in_memory();
    let experiment = experiment("", 0.1);
    let run = run_name(&experiment);
    let mut sources = Sources::default();
    let own = || BTreeMap::from([("a".to_owned(), SourceCounts::default())]);
    sources.exchange(&store, &run, own()).await.unwrap();
    let keys = [format!("{}/stats/a", key(&run)), looks_key(&experiment), held_key(&experiment)];
    for key in &keys[1..] {
        store.set(key.clone(), b"[]".to_vec()).await.unwrap();
    }
    assert!(store.exists(keys[0].clone()).await.unwrap());
    remove_numbers(&store, &experiment).await.unwrap();
    for key in keys {
        assert!(!store.exists(key.clone()).await.unwrap(), "{key}");
    }
    // The next look publishes them again.
    sources.exchange(&store, &run, own()).await.unwrap();
    assert!(store.exists(format!("{}/stats/a", key(&run))).await.unwrap());
}

#[test]
fn numbers_of_other_variants_have_other_keys() {
    let one = experiment("", 0.1);
    let mut other = one.clone();
    other.variants[1].component = "c".into();
    assert_ne!(looks_key(&one), looks_key(&other));
    assert_ne!(run_name(&one), run_name(&other));
}

#[tokio::test]
async fn two_nodes_agree_on_a_rollback_and_its_entry() {
    let store = GrantedStore::in_memory();
    let experiment = experiment("", 0.1);
    let rollback = Rollback { reason: "errors".into(), time: 5 };
    let before = Change::default();
    let after = before.roll_back(&experiment, "treatment", rollback).unwrap();
    let of = |node: &str| event(node, EventKind::RolledBack, "treatment: errors".into());
    let first = commit(&store, &experiment, (None, &before), after.clone(), of("a")).await.unwrap();
    assert!(first.is_some());
    let second = commit(&store, &experiment, (None, &before), after, of("b")).await.unwrap();
    assert_eq!(second, None);
    let entries = journal(&store, "iris").await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((&*entries[0].actor, entries[0].change), ("a", 1));
}

#[tokio::test]
async fn winner_of_a_stopped_experiment_is_not_rolled_back() {
    let store = GrantedStore::in_memory();
    let experiment = experiment("", 0.1);
    let winner = Some("treatment".to_owned());
    let stopped = Change { stopped: true, winner, ..Change::default() };
    assert!(guarded(&experiment, &Change::default()).contains_key("treatment"));
    assert!(guarded(&experiment, &stopped).is_empty());
    let json = to_json(&stopped).unwrap();
    store.set(key("iris"), json.clone()).await.unwrap();
    let run = Run::new(&experiment, "a");
    // Stopped at the look, or since.
    for change in [stopped.clone(), Change::default()] {
        let seen = Some(to_json(&change).unwrap());
        let stored = Stored { json: seen, change, is_of_earlier_run: false };
        let breached = status(GuardrailState::Breached);
        assert_eq!(run.roll_back(&store, stored, &breached).await.unwrap(), stopped);
    }
    assert!(journal(&store, "iris").await.unwrap().is_empty());
    assert_eq!(store.get(key("iris")).await.unwrap(), Some(json));
}

#[tokio::test]
async fn entry_of_a_node_that_died_is_recorded_before_the_next_change() {
    let store = GrantedStore::in_memory();
    let experiment = experiment("", 0.1);
    let shares = BTreeMap::from([("treatment".to_owned(), 0.2)]);
    let lost = event("a", EventKind::Ramped, "treatment 20 %".into());
    let change = Change::default().ramp(&experiment, &shares).unwrap();
    let change = change.after(&Change::default(), &experiment, lost);
    let json = serde_json::to_vec(&change).unwrap();
    store.set(key("iris"), json.clone()).await.unwrap();
    let next = event("operator", EventKind::Stopped, String::new());
    let after = Change { stopped: true, ..change.clone() };
    commit(&store, &experiment, (Some(json), &change), after, next).await.unwrap().unwrap();
    let kinds: Vec<_> = journal(&store, "iris").await.unwrap().iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [EventKind::Ramped, EventKind::Stopped]);
}

#[tokio::test]
async fn journal_is_bounded_and_has_a_verdict_once() {
    let store = GrantedStore::in_memory();
    for detail in ["winner b: 0.1", "winner b: 0.2", "invalid: ratio", "winner b: 0.1"] {
        let verdict = event("a", EventKind::Verdict, detail.into());
        record(&store, "iris", &verdict).await.unwrap();
    }
    assert_eq!(journal(&store, "iris").await.unwrap().len(), 3);
    for change in 0..MAX_ENTRIES as u64 + 7 {
        let mut entry = event("a", EventKind::Ramped, String::new());
        entry.change = change;
        record(&store, "iris", &entry).await.unwrap();
    }
    let entries = journal(&store, "iris").await.unwrap();
    assert_eq!(entries.len(), MAX_ENTRIES);
    // The last verdict stays, so another ramp goes.
    assert_eq!((entries[0].kind, entries[1].change), (EventKind::Verdict, 8));
}

#[tokio::test]
async fn rollbacks_and_the_newest_entry_of_each_kind_stay_in_a_full_journal() {
    let store = GrantedStore::in_memory();
    let mut entries = Vec::new();
    let mut add = |kind: EventKind, count: usize| {
        for _ in 0..count {
            let change = entries.len() as u64 + 1;
            entries.push(Event { change, ..event("a", kind, String::new()) });
        }
    };
    add(EventKind::Started, 2);
    add(EventKind::RolledBack, 3);
    add(EventKind::Reallocated, 2 * MAX_ENTRIES);
    store.set("spinfer/experiments/iris/journal".into(), to_json(&entries).unwrap()).await.unwrap();
    record(&store, "iris", &event("a", EventKind::Reallocated, "last".into())).await.unwrap();
    let found = journal(&store, "iris").await.unwrap();
    assert_eq!(found.len(), MAX_ENTRIES);
    let changes: Vec<u64> = found[..4].iter().map(|entry| entry.change).collect();
    assert_eq!(changes, [2, 3, 4, 5], "the first start is removed");
    assert!(found[4..].iter().all(|entry| entry.kind == EventKind::Reallocated));
    assert_eq!(found.last().unwrap().detail, "last");
    // Nothing but rollbacks: the oldest go, and no other entry.
    for change in 0..MAX_ENTRIES as u64 + 9 {
        let rollback = Event { change, ..event("a", EventKind::RolledBack, "again".into()) };
        record(&store, "iris", &rollback).await.unwrap();
    }
    let found = journal(&store, "iris").await.unwrap();
    assert_eq!(found.len(), MAX_ENTRIES);
    assert_eq!(found.last().unwrap().change, MAX_ENTRIES as u64 + 8);
    let others: Vec<_> = found.iter().filter(|e| e.kind != EventKind::RolledBack).collect();
    let others: Vec<_> = others.iter().map(|entry| (entry.kind, entry.change)).collect();
    assert_eq!(others, [(EventKind::Started, 2), (EventKind::Reallocated, 0)]);
}

#[tokio::test]
async fn restarted_period_is_in_the_journal_and_keeps_the_allocations() {
    let store = GrantedStore::in_memory();
    let experiment = experiment("", 0.1);
    let shares = BTreeMap::from([("treatment".to_owned(), 0.2)]);
    let change = Change::default().ramp(&experiment, &shares).unwrap();
    let ramped = event("operator", EventKind::Ramped, String::new());
    let change = change.after(&Change::default(), &experiment, ramped);
    let json = serde_json::to_vec(&change).unwrap();
    store.set(key("iris"), json.clone()).await.unwrap();
    let shares = change.epochs[1].shares.clone();
    let epochs = vec![Epoch { from: 5, shares }];
    let restarted = Change { epochs: epochs.clone(), ..change.clone() };
    let back = event("a", EventKind::ClockSetBack, String::new());
    let after = commit(&store, &experiment, (Some(json), &restarted), restarted.clone(), back);
    let after = after.await.unwrap().unwrap();
    assert_eq!((&after.epochs, &after.allocations), (&epochs, &change.allocations));
    let kinds: Vec<_> = journal(&store, "iris").await.unwrap().iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [EventKind::Ramped, EventKind::ClockSetBack]);
}

#[tokio::test]
async fn counts_of_another_node_are_added_and_survive_it() {
    let store = GrantedStore::in_memory();
    let counts = |units: u64| SourceCounts {
        epochs: vec![0],
        metrics: Vec::new(),
        units: BTreeMap::from([(
            "control".to_owned(),
            crate::prediction_log::unit_totals::VariantUnits {
                predictions: units,
                units: vec![units],
                moments: Vec::new(),
            },
        )]),
        requests: BTreeMap::new(),
    };
    let epochs = [Epoch::default()];
    let (mut first, mut second) = (Sources::default(), Sources::default());
    let own = |id: &str, units| BTreeMap::from([(id.to_owned(), counts(units))]);
    first.exchange(&store, "iris", own("a", 3)).await.unwrap();
    second.exchange(&store, "iris", own("b", 4)).await.unwrap();
    let total = |sources: &Sources| {
        let all = AllCounts::merge(sources.iter().map(|(_, counts)| counts), &epochs, &[]);
        all.units["control"].units[0]
    };
    assert_eq!((total(&first), total(&second)), (3, 7));
    drop(second);
    first.exchange(&store, "iris", own("a", 5)).await.unwrap();
    assert_eq!(total(&first), 9);
}
