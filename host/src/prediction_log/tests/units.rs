//! The units of experiments, as the log counts them.

use spinfer_experiment::format::{Metric, MetricKind, Per};
use spinfer_experiment::progress::Epoch;

use super::*;
use crate::prediction_log::unit_totals::{UnitQuery, UnitTotals, VariantUnits, read};

fn metric(kind: MetricKind, per: Per, covariate: Option<&str>) -> Metric {
    Metric { kind, per, margin: None, covariate: covariate.map(str::to_owned) }
}

/// Accuracy by unit with a covariate, accuracy by prediction, and rewards by unit.
fn totals(folder: &Path) -> UnitTotals {
    totals_of(folder, "")
}

/// Those of one run of the experiment.
fn totals_of(folder: &Path, run: &str) -> UnitTotals {
    let query = UnitQuery {
        experiment: "iris".into(),
        run: run.into(),
        epochs: vec![Epoch::default()],
        metrics: vec![
            metric(MetricKind::Accuracy, Per::Unit, Some("sepal_width")),
            metric(MetricKind::Accuracy, Per::Prediction, None),
            metric(MetricKind::Reward, Per::Unit, None),
        ],
    };
    read(&folder.join(schema::FILE), &query).unwrap().expect("there is a file")
}

fn exposed(number: u64, unit: &str, variant: &str) -> LogEntry {
    let mut context = context(id(number), SystemTime::now());
    context.exposure = Some(Exposure {
        unit: Some(unit.into()),
        propensity: Some(0.5),
        covariate: Some("sepal_width".into()),
        ..Exposure::new("iris", variant)
    });
    LogEntry { context: context.into(), first_row: 0, predictions: iris(0).into() }
}

fn ids(entries: &[LogEntry]) -> Vec<Uuid> {
    entries.iter().map(|entry| entry.context.id).collect()
}

fn label(class: usize) -> Truth {
    Truth::Label(LABELS[class].into())
}

fn control(totals: &UnitTotals) -> &VariantUnits {
    &totals.variants["control"]
}

#[test]
fn unit_counts_once_whatever_the_order_of_its_feedback() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    // Unit a has three predictions, b one, and c one of which the feedback comes first.
    let entries = [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5)]
        .map(|(unit, number)| exposed(number, unit, "control"));
    let ids = ids(&entries);
    feed(&log, vec![item(ids[4], label(1), 1)]).unwrap();
    entries.into_iter().for_each(|entry| assert!(log.append(entry)));
    feed(&log, vec![item(ids[0], label(0), 5), item(ids[1], label(0), 5)]).unwrap();
    // Contradicting: the later one wins, in any order of arrival.
    feed(&log, vec![item(ids[0], label(2), 9), item(ids[0], label(0), 7)]).unwrap();
    feed(&log, vec![item(ids[3], label(0), 1), item(ids[3], Truth::Reward(0.25), 1)]).unwrap();
    close(&log);
    for _ in 0..2 {
        let totals = totals(folder.path());
        let VariantUnits { predictions, units, moments } = control(&totals);
        assert_eq!((*predictions, &**units), (5, &[3][..]));
        let [by_unit, by_prediction, rewards] = [0, 1, 2].map(|metric: usize| moments[metric][0]);
        // a: one of two, b: one of one, c: none of one.
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-12;
        assert!(by_unit.n == 3 && near(by_unit.mean_value, 0.5), "{by_unit:?}");
        assert!(near(by_unit.mean_companion, 3.5) && near(by_unit.companion_squares, 0.0));
        let ratio = by_prediction.mean_value / by_prediction.mean_companion;
        assert!(by_prediction.n == 3 && near(ratio, 0.5), "{by_prediction:?}");
        assert_eq!((rewards.n, rewards.mean_value), (1, 0.25));
        // Also after a restart.
        close(&open(folder.path()));
    }
}

#[test]
fn unit_belongs_to_its_first_variant_and_to_the_one_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let moved = [exposed(1, "a", "control"), exposed(2, "a", "treatment")];
    let ids = ids(&moved);
    let mut failed_over = exposed(3, "b", "control");
    let mut without_unit = exposed(4, "c", "control");
    let mut forced = exposed(5, "d", "control");
    let change = |entry: &mut LogEntry, change: fn(&mut Exposure)| {
        let mut context = RequestContext::clone(&entry.context);
        context.exposure.iter_mut().for_each(change);
        entry.context = context.into();
    };
    change(&mut failed_over, |exposure| {
        (exposure.propensity, exposure.failed_over) = (None, Some("treatment".into()));
    });
    change(&mut without_unit, |exposure| exposure.unit = None);
    change(&mut forced, |exposure| exposure.propensity = None);
    for entry in moved.into_iter().chain([failed_over, without_unit, forced]) {
        assert!(log.append(entry));
    }
    feed(&log, vec![item(ids[0], label(0), 1), item(ids[1], label(1), 1)]).unwrap();
    close(&log);
    let totals = totals(folder.path());
    assert_eq!(control(&totals).units, [1]);
    assert_eq!(control(&totals).moments[0][0].mean_value, 1.0, "the record of the other variant");
    assert_eq!(totals.variants["treatment"].units, [1]);
}

#[test]
fn units_of_an_earlier_run_and_late_feedback_of_its_records_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let open_run = |run: &str| {
        let runs = BTreeMap::from([("iris".to_owned(), run.to_owned())]);
        open_with(path, PredictionLogSettings { runs, ..Default::default() })
    };
    let exposed_in = |run: &str, number: u64| {
        let entry = exposed(number, "a", "control");
        let mut context = RequestContext::clone(&entry.context);
        context.exposure.iter_mut().for_each(|exposure| exposure.run = run.into());
        LogEntry { context: context.into(), ..entry }
    };
    let counts = |run: &str| {
        let totals = totals_of(path, run);
        let control = totals.variants.get("control");
        control.map(|of| (of.predictions, of.units[0], of.moments[0][0].n, of.moments[2][0].n))
    };
    let log = open_run("one");
    let early = exposed_in("one", 1);
    let early_id = early.context.id;
    assert!(log.append(early) && log.append(exposed_in("one", 2)));
    feed(&log, vec![item(early_id, label(0), 1)]).unwrap();
    close(&log);
    assert_eq!((counts("one"), counts("two")), (Some((2, 1, 1, 0)), None));
    // The same unit and variant: no count is left, and feedback for a record of the earlier run
    // neither adds to the new one nor takes from it.
    let log = open_run("two");
    let late = exposed_in("two", 3);
    let late_id = late.context.id;
    assert!(log.append(late));
    feed(&log, vec![item(early_id, label(1), 2), item(early_id, Truth::Reward(1.0), 2)]).unwrap();
    close(&log);
    assert_eq!((counts("one"), counts("two")), (None, Some((1, 1, 0, 0))));
    let log = open_run("two");
    feed(&log, vec![item(late_id, label(0), 3)]).unwrap();
    close(&log);
    assert_eq!(counts("two"), Some((1, 1, 1, 0)), "it goes on after a restart");
    // Back at the first variants.
    close(&open_run("one"));
    assert_eq!((counts("one"), counts("two")), (None, None));
}

#[test]
fn files_have_different_ids_and_units_expire() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let files = folders.each_ref().map(|folder| {
        let log = open(folder.path());
        assert!(log.append(exposed(1, "a", "control")));
        close(&log);
        totals(folder.path()).file
    });
    assert_ne!(files[0], files[1]);
    let path = folders[0].path();
    let retention = Retention { max_age: Duration::from_millis(1), ..Retention::default() };
    let log = open_with(path, PredictionLogSettings { retention, ..Default::default() });
    wait_until("the unit is removed", || totals(path).variants.is_empty());
    close(&log);
}
