//! Feedback, and the quality metrics computed from it.

use proptest::prelude::*;

use super::*;
use crate::prediction_log::feedback_import::{FeedbackImport, ImportError};
use crate::prediction_log::queue::{Guarantee, Message};
use crate::prediction_log::stats::LogStats;
use crate::prediction_log::store::{Durability, LogStore};

fn accuracy(log: &PredictionLog) -> Option<(u64, f64)> {
    let quality = log.quality();
    let (_, results) = quality.first()?;
    let classes = results.classification.as_ref()?;
    Some((classes.n, classes.accuracy?))
}

#[test]
fn feedback_is_idempotent_and_the_latest_wins_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let one = id(1);
    assert!(log.append(entry(one, 0)));
    // The record is still queued.
    let correct = || vec![item(one, label("setosa"), 10)];
    let receipt = feed(&log, correct()).unwrap();
    assert_eq!((receipt.accepted, receipt.unknown), (1, 0));
    for _ in 0..3 {
        feed(&log, correct()).unwrap();
        assert_eq!(accuracy(&log), Some((1, 1.0)));
    }
    feed(&log, vec![item(one, label("virginica"), 9)]).unwrap();
    assert_eq!(accuracy(&log), Some((1, 1.0)), "older feedback is ignored");
    feed(&log, vec![item(one, label("virginica"), 11)]).unwrap();
    assert_eq!(accuracy(&log), Some((1, 0.0)));
    feed(&log, correct()).unwrap();
    assert_eq!(accuracy(&log), Some((1, 0.0)));
    feed(&log, vec![item(one, label("setosa"), 11), item(one, label("versicolor"), 11)]).unwrap();
    assert_eq!(
        records(folder.path())[0].feedback.label.as_deref(),
        Some("virginica"),
        "the greatest"
    );
    close(&log);
    // Computed from the file after a restart.
    let log = open(folder.path());
    wait_until("the file is read", || accuracy(&log) == Some((1, 0.0)));
    close(&log);
}

/// The quality from the running aggregates and from the file, rounded, as sums in a different order
/// may differ in the last digits.
fn quality_of(log: &PredictionLog) -> [Vec<(QualityGroup, String)>; 2] {
    let mut reader = LogReader::open(log.path()).unwrap().unwrap();
    let stats = LogStats::of(&reader.snapshot().unwrap(), &Filter::default()).unwrap();
    let of_file = stats.groups.into_iter().map(|group| (group.group, group.quality));
    let has_any = |(_, results): &(QualityGroup, Results)| *results != Results::default();
    let rounded = |(group, results): (QualityGroup, Results)| {
        let numbers = results.named().into_iter();
        let numbers = numbers.map(|(name, value, n)| format!("{name} {value:.9} {n}"));
        let classes = results.classification.as_ref().map(|results| &results.classes);
        (group, format!("{:?} {classes:?}", numbers.collect::<Vec<_>>()))
    };
    let running = log.quality().into_iter().map(rounded);
    [running.collect(), of_file.filter(has_any).map(rounded).collect()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Predictions and feedback in any order give the same quality, from the running aggregates and
    /// from the file.
    #[test]
    fn quality_does_not_depend_on_the_order(
        events in prop::collection::vec((0_u64..4, 0_usize..4, 0_i64..3), 1..12),
        order in any::<prop::sample::Index>(),
    ) {
        let time = SystemTime::now();
        let run = |start: usize| {
            let folder = tempfile::tempdir().unwrap();
            let log = open(folder.path());
            let mut appended = std::collections::BTreeSet::new();
            for &(record, class, at) in events[start..].iter().chain(&events[..start]) {
                let id = id_at(time, record);
                // Class 3 stands for the prediction itself.
                if class == 3 {
                    if appended.insert(record) {
                        assert!(log.append(entry_at(id, usize::from(record > 1), time)));
                    }
                } else {
                    feed(&log, vec![item(id, label(LABELS[class]), at)]).unwrap();
                }
            }
            wait_until("all is written", || log.accounting().pending == 0);
            let quality = if log.path().exists() { quality_of(&log) } else { Default::default() };
            close(&log);
            quality
        };
        let (one, other) = (run(0), run(order.index(events.len())));
        prop_assert_eq!(&one[0], &one[1]);
        prop_assert_eq!(one, other);
    }
}

/// A batch has what was queued while another was written: a prediction may be between its feedback.
#[test]
fn feedback_in_the_batch_of_its_prediction_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, mut quality) =
        LogStore::open(&folder.path().join("log.db"), &[info()], &[]).unwrap();
    let mut write = |messages: Vec<Message>| {
        let written = store.write(&messages, 7, Durability::Process).unwrap();
        written.changes.iter().for_each(|change| quality.apply(change));
        let count = |(_, results): &(QualityGroup, Results)| results.named()[0].2;
        quality.results().iter().map(count).sum::<u64>()
    };
    let feedback = |id, class: usize, at| {
        let (reply, _) = tokio::sync::oneshot::channel();
        Message::Feedback(vec![item(id, label(LABELS[class]), at)], reply)
    };
    let record = |id| Message::entry(entry(id, 0), Guarantee::BestEffort);
    let (one, two) = (id(1), id(2));
    assert_eq!(write(vec![feedback(one, 1, 0)]), 0);
    assert_eq!(write(vec![record(one), feedback(one, 0, 1)]), 1);
    let batch = vec![feedback(two, 1, 0), record(two), feedback(two, 0, 1)];
    assert_eq!(write(batch), 2);
    assert_eq!(write(vec![feedback(two, 1, 2)]), 2);
}

/// Earlier versions stored times in the future.
#[test]
fn stored_time_in_the_future_does_not_prevent_a_correction() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let one = id(1);
    assert!(log.append(entry(one, 0)));
    let far = 4_070_908_800_000_000;
    feed(&log, vec![item(one, label("virginica"), far)]).unwrap();
    assert_eq!(accuracy(&log), Some((1, 0.0)));
    let now = times::micros(SystemTime::now());
    let receipt = feed(&log, vec![item(one, label("setosa"), now)]).unwrap();
    assert_eq!((receipt.replaced, receipt.unchanged), (1, 0));
    assert_eq!(accuracy(&log), Some((1, 1.0)));
    let receipt = feed(&log, vec![item(one, label("versicolor"), now - 1)]).unwrap();
    assert_eq!((receipt.replaced, receipt.unchanged), (0, 1));
    close(&log);
}

#[test]
fn feedback_may_arrive_before_its_prediction() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let (one, two) = (id(1), id(2));
    let items = vec![item(one, label("setosa"), 1), item(two, Truth::Reward(0.5), 1)];
    let receipt = feed(&log, items).unwrap();
    assert_eq!((receipt.accepted, receipt.unknown), (2, 2));
    assert_eq!(log.feedback_counts().get().map(|(_, count)| count), [0, 2, 0]);
    assert!(log.append(entry(one, 0)));
    wait_until("it is written", || log.accounting().written == 1);
    assert_eq!(accuracy(&log), Some((1, 1.0)));
    close(&log);
    // Also after a restart.
    let log = open(folder.path());
    assert!(log.append(entry(two, 0)));
    wait_until("it is written", || log.accounting().written == 1);
    let quality = log.quality();
    assert_eq!(quality[0].1.reward.as_ref().and_then(|reward| reward.mean), Some(0.5));
    assert_eq!(accuracy(&log), Some((1, 1.0)));
    close(&log);
}

#[test]
fn feedback_impossible_for_the_model_is_rejected_with_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let regression = ModelInfo { model: "price".into(), ..ModelInfo::default() };
    let models = vec![info(), regression];
    let log =
        PredictionLog::open(folder.path(), PredictionLogSettings::default(), models, Vec::new())
            .unwrap();
    let (flower, house) = (id(1), id(2));
    assert!(log.append(entry(flower, 0)));
    let mut price = iris(0);
    (price.model, price.version) = ("price".into(), "".into());
    price.outputs = vec![Columns {
        names: vec!["prediction".to_owned()].into(),
        values: ColumnValues::Fp64(vec![2.5]),
    }];
    let context = context(house, SystemTime::now()).into();
    assert!(log.append(LogEntry { context, first_row: 0, predictions: price.into() }));
    let with =
        |prediction_id, truth, index| FeedbackItem { index, ..item(prediction_id, truth, 1) };
    let items = vec![
        with(flower, label("rose"), 0),
        with(flower, Truth::Value(1.0), 1),
        with(house, label("setosa"), 2),
        with(house, Truth::Value(3.0), 3),
        with(house, Truth::Reward(1.0), 4),
    ];
    let receipt = feed(&log, items).unwrap();
    assert_eq!((receipt.accepted, receipt.unknown), (2, 0));
    let [rose, value, label] = &receipt.rejected[..] else { panic!("{receipt:?}") };
    assert_eq!((rose.index, value.index, label.index), (0, 1, 2));
    let classes = "\"rose\" is not a class of iris-classifier 1; its classes are setosa, versicolor, \
                   virginica";
    assert!(rose.error.contains(classes), "{}", rose.error);
    assert!(value.error.contains("write `label`, one of setosa"), "{}", value.error);
    assert!(label.error.contains("write `value`"), "{}", label.error);
    let quality = log.quality();
    let (_, results) = quality.iter().find(|(group, _)| group.model == "price").unwrap();
    let regression = results.regression.as_ref().unwrap();
    assert_eq!((regression.n, regression.mean_absolute_error), (1, Some(0.5)));
    close(&log);
}

#[test]
fn stored_feedback_from_the_future_was_known_when_it_was_received() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let one = id(1);
    feed(&log, vec![item(one, label("setosa"), 5)]).unwrap();
    close(&log);
    let path = folder.path().join(schema::FILE);
    let file = rusqlite::Connection::open(&path).unwrap();
    // As an early version stored it.
    file.execute("UPDATE feedback SET time = received + 3600000000", []).unwrap();
    let mut reader = LogReader::open(&path).unwrap().unwrap();
    let snapshot = reader.snapshot().unwrap();
    let mut rows = Vec::new();
    let read = snapshot.each_feedback((-1, i64::MAX), None, |row| {
        rows.push(row);
        Ok::<_, schema::SchemaError>(())
    });
    read.unwrap();
    assert_eq!((rows.len(), rows[0].time), (1, rows[0].received), "as exports have it");
    let (_, _, _, shown) = snapshot.feedback(one).unwrap().remove(0);
    assert_eq!(shown, rows[0].received, "as `spinfer log show` has it");
}

#[test]
fn imported_feedback_is_counted_by_the_next_host_and_refused_while_one_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(schema::FILE);
    let log = open(folder.path());
    let (one, two) = (id(1), id(2));
    assert!(log.append(entry(one, 0)) && log.append(entry(two, 0)));
    wait_until("they are written", || log.accounting().written == 2);
    let refused = FeedbackImport::open(&path).unwrap_err();
    assert!(refused.to_string().contains("--url http://HOST:PORT"), "{refused}");
    close(&log);
    let mut import = FeedbackImport::open(&path).unwrap();
    let receipts = [
        vec![item(one, label("setosa"), 5), item(two, label("setosa"), 5)],
        // A later contradiction, an earlier one, a repetition, an unknown id, no class.
        vec![
            item(two, label("virginica"), 6),
            item(one, label("virginica"), 4),
            item(one, label("setosa"), 5),
            item(id(3), label("setosa"), 5),
            FeedbackItem { index: 4, ..item(one, label("rose"), 7) },
        ],
    ]
    .map(|items| import.store(items).unwrap());
    let counts = receipts.map(|receipt| {
        let Receipt { accepted, unknown, replaced, unchanged, rejected } = receipt;
        (accepted, unknown, replaced, unchanged, rejected.first().map(|first| first.index))
    });
    assert_eq!(counts, [(2, 0, 0, 0, None), (4, 1, 1, 2, Some(4))]);
    let log = open(folder.path());
    wait_until("it counts the feedback", || accuracy(&log) == Some((2, 0.5)));
    assert!(matches!(import.store(vec![item(two, label("setosa"), 9)]), Err(ImportError::Served)));
    feed(&log, vec![item(two, label("setosa"), 9), item(two, label("setosa"), 9)]).unwrap();
    assert_eq!(accuracy(&log), Some((2, 1.0)));
    assert_eq!(log.feedback_counts().repeated().map(|(_, count)| count), [1, 1]);
    close(&log);
}
