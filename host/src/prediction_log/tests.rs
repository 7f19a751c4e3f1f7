//! Tests of the log through its API, with a real file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use uuid::Uuid;

use super::export::{ExportFormat, export};
use super::feedback::Truth;
use super::reader::{Filter, LogReader, StoredRecord};
use super::record::{
    CacheOutcome, ColumnValues, Columns, Exposure, LogEntry, Predictions, RequestContext,
};
use super::stats::LogStats;
use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// A UUIDv7 of `time`, with `number` in its random part.
fn id_at(time: SystemTime, number: u64) -> Uuid {
    let millis = time.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let millis = u64::try_from(millis).unwrap();
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

fn id(number: u64) -> Uuid {
    id_at(SystemTime::now(), number)
}

fn context(id: Uuid, time: SystemTime) -> RequestContext {
    RequestContext {
        id,
        time,
        route: "/v2/models/iris/...".into(),
        component: "iris-1".into(),
        exposure: Some(Exposure { experiment: "iris".into(), variant: "control".into() }),
        cache: CacheOutcome::Miss,
        status: 200,
        latency: Duration::from_micros(120),
        trace_id: None,
    }
}

/// One row of iris, predicted as the class with the index `class`.
fn iris(class: usize) -> Predictions {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut probabilities = vec![0.1_f32; 3];
    probabilities[class] = 0.8;
    let measured = ["sepal_length", "sepal_width", "petal_length", "petal_width"];
    Predictions {
        model: "iris-classifier".into(),
        version: "1".into(),
        rows: 1,
        inputs: vec![Columns {
            names: names(&measured),
            values: ColumnValues::Fp32(vec![5.1, 3.5, 1.4, f32::NAN]),
        }],
        outputs: vec![
            Columns {
                names: names(&["prediction"]),
                values: ColumnValues::Text(vec![LABELS[class].into()]),
            },
            Columns {
                names: names(&["probabilities[0]", "probabilities[1]", "probabilities[2]"]),
                values: ColumnValues::Fp32(probabilities),
            },
        ],
        omitted: Vec::new(),
        attributes: vec![("operation".into(), "predict".into())],
    }
}

const LABELS: [&str; 3] = ["setosa", "versicolor", "virginica"];

fn entry(id: Uuid, class: usize) -> LogEntry {
    entry_at(id, class, SystemTime::now())
}

fn entry_at(id: Uuid, class: usize, time: SystemTime) -> LogEntry {
    let (context, predictions) = (context(id, time).into(), iris(class).into());
    LogEntry { context, first_row: 0, predictions }
}

fn info() -> ModelInfo {
    ModelInfo {
        model: "iris-classifier".into(),
        version: "1".into(),
        labels: LABELS.map(str::to_owned).into(),
        probabilities: Some("probabilities".into()),
    }
}

fn open_with(folder: &Path, settings: PredictionLogSettings) -> Arc<PredictionLog> {
    PredictionLog::open(folder, settings, vec![info()], Vec::new()).unwrap()
}

fn open(folder: &Path) -> Arc<PredictionLog> {
    open_with(folder, PredictionLogSettings::default())
}

fn close(log: &PredictionLog) -> Accounting {
    let accounting = log.shut_down(PATIENCE);
    assert_balanced(&accounting);
    assert_eq!(accounting.pending, 0, "{accounting:?}");
    accounting
}

fn assert_balanced(accounting: &Accounting) {
    let Accounting { accepted, written, dropped, pending } = *accounting;
    assert_eq!(accepted, written + dropped.total() + pending, "{accounting:?}");
}

/// Waits until another thread has made `condition` true.
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "timeout: {what}");
        std::thread::yield_now();
    }
}

fn records(folder: &Path) -> Vec<StoredRecord> {
    let mut reader = LogReader::open(&folder.join(schema::FILE)).unwrap().expect("there is a file");
    let mut records = Vec::new();
    let snapshot = reader.snapshot().unwrap();
    snapshot
        .each(&Filter::default(), |record| {
            records.push(record);
            anyhow::Ok(())
        })
        .unwrap();
    records
}

/// Stores feedback.
fn feed(log: &PredictionLog, items: Vec<FeedbackItem>) -> Result<Receipt, FeedbackError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(log.feedback(items))
}

fn item(prediction_id: Uuid, truth: Truth, time: i64) -> FeedbackItem {
    FeedbackItem { index: 0, prediction_id, row: 0, truth, time }
}

fn label(text: &str) -> Truth {
    Truth::Label(text.into())
}

#[test]
fn appended_records_are_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let time = UNIX_EPOCH + Duration::from_micros(1_796_040_000_123_456);
    let (one, two) = (id_at(time, 1), id_at(time, 2));
    let mut batch = iris(0);
    batch.rows = 2;
    batch.inputs = vec![Columns {
        names: vec!["n".into()],
        values: ColumnValues::Int64(vec![i64::MAX, i64::MIN]),
    }];
    batch.outputs = Vec::new();
    batch.omitted = vec!["pixels[150528]".into()];
    let mut other = context(two, time);
    other.exposure = None;
    other.cache = CacheOutcome::Hit;
    other.trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".into());
    assert!(log.append(LogEntry {
        context: other.into(),
        first_row: 7,
        predictions: batch.into()
    }));
    assert!(log.append(entry_at(one, 2, time)));
    let accounting = close(&log);
    assert_eq!((accounting.accepted, accounting.written), (3, 3));
    let [first, second, third] = &records(folder.path())[..] else { panic!("three records") };
    assert_eq!((first.id, first.row, first.time), (one, 0, 1_796_040_000_123_456));
    assert_eq!(first.variant.as_deref(), Some("control"));
    let inputs = r#"{"sepal_length":5.1,"sepal_width":3.5,"petal_length":1.4,"petal_width":null}"#;
    assert_eq!(first.inputs, inputs);
    assert_eq!((second.row, third.row), (7, 8), "rows are numbered within the request");
    assert_eq!(
        (&*second.inputs, &*third.inputs),
        (r#"{"n":9223372036854775807}"#, r#"{"n":-9223372036854775808}"#,)
    );
    assert_eq!((second.cache.as_str(), &second.variant), ("hit", &None));
    let mut line = Vec::new();
    third.write_json(&mut line);
    let expected = format!(
        r#"{{"id":"{two}","row":8,"time":"2026-11-30T12:00:00.123456Z","model":"iris-classifier","#
    ) + r#""version":"1","route":"/v2/models/iris/...","component":"iris-1","experiment":null,"variant":null,"cache":"hit","status":200,"latency_us":120,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","inputs":{"n":-9223372036854775808},"outputs":{},"attributes":{"operation":"predict"},"omitted":["pixels[150528]"]}"#;
    assert_eq!(String::from_utf8(line).unwrap(), expected);
}

#[test]
fn duplicate_record_is_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let same = id(1);
    assert!(log.append(entry(same, 0)) && log.append(entry(same, 1)));
    let accounting = close(&log);
    assert_eq!((accounting.written, accounting.dropped.duplicate), (1, 1));
    assert!(!log.append(entry(id(2), 0)), "the log is closed");
    assert_balanced(&log.accounting());
    assert_eq!(log.accounting().dropped.shutdown, 1);
}

#[test]
fn accounting_is_balanced_at_every_instant_while_the_disk_fails() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let log =
        open_with(&state, PredictionLogSettings { queue: 300, ..PredictionLogSettings::default() });
    let number = AtomicU64::new(0);
    let running = AtomicU64::new(3);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    log.append(entry(id(number.fetch_add(1, Ordering::Relaxed)), 0));
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        // A folder in place of the file: it cannot be opened.
        scope.spawn(|| {
            while running.load(Ordering::Relaxed) > 0 {
                let _ = std::fs::remove_dir_all(&state);
                let _ = std::fs::create_dir_all(state.join(schema::FILE));
                let _ = std::fs::remove_dir_all(&state);
                std::thread::yield_now();
            }
        });
        while running.load(Ordering::Relaxed) > 0 {
            assert_balanced(&log.accounting());
        }
    });
    let accounting = close(&log);
    assert_eq!(accounting.accepted, 6000);
}

#[test]
fn records_are_dropped_and_counted_if_the_queue_is_full() {
    let folder = tempfile::tempdir().unwrap();
    // The writer waits while another connection locks the file.
    let path = folder.path().join(schema::FILE);
    drop(schema::open(&path).unwrap());
    let blocker = rusqlite::Connection::open(&path).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let log = open_with(
        folder.path(),
        PredictionLogSettings { queue: 10, ..PredictionLogSettings::default() },
    );
    let accepted = (0..20).filter(|&number| log.append(entry(id(number), 0))).count();
    assert_eq!(accepted, 10);
    let accounting = log.accounting();
    assert_eq!((accounting.pending, accounting.dropped.queue_full), (10, 10));
    drop(blocker);
    assert_eq!(close(&log).written, 10, "another process may lock the file for a while");
}

#[test]
fn two_logs_on_one_file_both_write() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (open(folder.path()), open(folder.path()));
    std::thread::scope(|scope| {
        for (log, first) in [(&one, 0), (&two, 1000)] {
            scope.spawn(move || {
                (first..first + 500).for_each(|number| assert!(log.append(entry(id(number), 0))));
            });
        }
    });
    assert_eq!((close(&one).written, close(&two).written), (500, 500));
    assert_eq!(records(folder.path()).len(), 1000);
}

#[test]
fn damaged_file_is_moved_aside_at_startup() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(schema::FILE);
    std::fs::write(&path, b"this was a database once, and is not one any more").unwrap();
    let log = open(folder.path());
    assert!(log.append(entry(id(1), 0)));
    assert_eq!(close(&log).written, 1);
    assert_eq!(log.problem(), None);
    assert_eq!(records(folder.path()).len(), 1);
    let names = std::fs::read_dir(folder.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let aside = names.filter(|name| name.starts_with("predictions.db.corrupt-")).count();
    assert_eq!(aside, 1);
}

#[test]
fn file_with_damaged_pages_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(schema::FILE);
    let log = open(folder.path());
    (0..2000).for_each(|number| assert!(log.append(entry(id(number), 0))));
    assert_eq!(close(&log).written, 2000);
    // Damages all but the first page, which has the schema.
    let mut file = std::fs::read(&path).unwrap();
    let page = 16 << 10;
    assert!(file.len() > 10 * page);
    file[page..].fill(0xff);
    std::fs::write(&path, file).unwrap();
    let log = open(folder.path());
    let mut number = 2000;
    wait_until("a new file is written", || {
        number += 1;
        log.append(entry(id(number), 0));
        log.accounting().written > 0
    });
    let accounting = close(&log);
    assert_eq!(records(folder.path()).len() as u64, accounting.written);
}

#[test]
fn file_of_a_later_version_or_another_program_is_not_touched() {
    for (change, part) in [
        ("PRAGMA user_version = 3", "schema version 3 of a later"),
        ("PRAGMA application_id = 7", "another program"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(schema::FILE);
        schema::open(&path).unwrap().execute_batch(change).unwrap();
        let log = open(folder.path());
        assert!(log.append(entry(id(1), 0)));
        let accounting = close(&log);
        assert_eq!((accounting.written, accounting.dropped.storage), (0, 1));
        let problem = log.problem().unwrap();
        assert!(problem.contains(part) && problem.contains("predictions.db"), "{problem}");
        assert!(LogReader::open(&path).unwrap_err().to_string().contains(part));
    }
}

#[test]
fn writer_recovers_once_the_file_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    // A file in place of the folder.
    std::fs::write(&state, b"").unwrap();
    let log = open(&state);
    assert!(log.append(entry(id(1), 0)));
    wait_until("it is dropped", || log.accounting().dropped.storage == 1);
    assert!(log.problem().unwrap().contains("predictions.db"));
    let error = feed(&log, vec![item(id(1), label("setosa"), 1)]).unwrap_err();
    assert!(matches!(error, FeedbackError::Storage(_)), "{error}");
    std::fs::remove_file(&state).unwrap();
    // Recovers without a new record, which could be lost in the attempt.
    wait_until("it has recovered", || log.problem().is_none());
    assert!(log.append(entry(id(2), 0)));
    assert_eq!(close(&log).written, 1);
    assert_eq!(records(&state).len(), 1);
}

/// A file system with a fixed size, unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts a file system of `bytes`; `None` without the permission to mount.
    fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(folder.path());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = std::process::Command::new("umount");
        let _ = unmount.arg("-l").arg(self.path()).status();
    }
}

#[test]
fn records_are_dropped_on_a_full_disk_until_space_is_freed() {
    // Only root can mount: otherwise the tests above must suffice.
    let Some(disk) = SmallDisk::mount(4 << 20) else { return };
    let ballast = disk.path().join("ballast");
    let log = open(disk.path());
    assert!(log.append(entry(id(0), 0)));
    wait_until("it is written", || log.accounting().written == 1);
    // Fills the disk.
    let mut file = std::fs::File::create(&ballast).unwrap();
    while std::io::Write::write(&mut file, &[0; 4096]).is_ok() {}
    let mut number = 0;
    wait_until("records are dropped", || {
        number += 1;
        log.append(entry(id(number), 0));
        log.accounting().dropped.storage > 0
    });
    let problem = log.problem().unwrap();
    assert!(problem.contains("full") || problem.contains("I/O"), "{problem}");
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    wait_until("it has recovered", || log.problem().is_none());
    let before = log.accounting().written;
    assert!(log.append(entry(id(number + 1), 0)));
    let accounting = close(&log);
    assert!(accounting.written > before);
    assert_eq!(records(disk.path()).len() as u64, accounting.written);
}

#[test]
fn read_only_file_is_reported_and_does_not_block() {
    // Root can write a read-only file, so the file system becomes read-only.
    let Some(disk) = SmallDisk::mount(4 << 20) else { return };
    close(&open(disk.path()));
    drop(schema::open(&disk.path().join(schema::FILE)).unwrap());
    let mut remount = std::process::Command::new("mount");
    remount.args(["-o", "remount,ro"]).arg(disk.path());
    assert!(remount.status().unwrap().success());
    let log = open(disk.path());
    assert!(log.append(entry(id(1), 0)));
    let accounting = close(&log);
    assert_eq!((accounting.written, accounting.dropped.storage), (0, 1));
    assert!(log.problem().unwrap().contains("predictions.db"));
}

/// After a kill, the file contains exactly what was committed.
#[test]
fn killed_writer_leaves_complete_batches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(schema::FILE);
    let log = open(folder.path());
    (0..100).for_each(|number| assert!(log.append(entry(id(number), 0))));
    wait_until("they are written", || log.accounting().written == 100);
    // The file of a process that was killed in a transaction: a copy of its current state on disk.
    let copy = tempfile::tempdir().unwrap();
    let mut another = rusqlite::Connection::open(&path).unwrap();
    let transaction = another.transaction().unwrap();
    transaction.execute("DELETE FROM predictions", []).unwrap();
    for name in ["predictions.db", "predictions.db-wal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    transaction.rollback().unwrap();
    let reopened = open(copy.path());
    assert!(reopened.append(entry(id(100), 0)));
    assert_eq!(close(&reopened).written, 1);
    assert_eq!(records(copy.path()).len(), 101);
    close(&log);
}

#[test]
fn expired_records_and_their_feedback_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let old = now - Duration::from_secs(3600);
    let log = open(folder.path());
    (0..10).for_each(|number| assert!(log.append(entry_at(id_at(old, number), 0, old))));
    assert!(log.append(entry(id(10), 0)));
    feed(&log, vec![item(id_at(old, 1), label("setosa"), 1)]).unwrap();
    assert_eq!(log.quality().len(), 1);
    close(&log);
    assert_eq!(records(folder.path()).len(), 11);
    let retention = Retention { max_age: Duration::from_secs(1800), ..Retention::default() };
    let log = open_with(
        folder.path(),
        PredictionLogSettings { retention, ..PredictionLogSettings::default() },
    );
    wait_until("they are deleted", || records(folder.path()).len() == 1);
    wait_until("and their feedback", || log.quality().is_empty());
    close(&log);
}

#[test]
fn oldest_records_are_deleted_if_the_file_exceeds_its_maximum_size() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { max_size: 1 << 20, ..Retention::default() };
    let log = open_with(
        folder.path(),
        PredictionLogSettings { retention, ..PredictionLogSettings::default() },
    );
    let (total, start) = (20_000, SystemTime::now());
    for number in 0..total {
        let time = start + Duration::from_millis(number);
        let append = || log.append(entry_at(id_at(time, number), 0, time));
        wait_until("the queue accepts the record", append);
    }
    let accounting = log.shut_down(PATIENCE);
    assert_eq!(accounting.written, total);
    // Deletion that is incomplete at the end is completed after the next start.
    let log = open_with(
        folder.path(),
        PredictionLogSettings { retention, ..PredictionLogSettings::default() },
    );
    let size = || log.path().metadata().unwrap().len();
    wait_until("it is small", || size() < 2 << 20);
    close(&log);
    let remaining = records(folder.path());
    assert!(!remaining.is_empty() && remaining.len() < 15_000, "{}", remaining.len());
    let newest = remaining.last().unwrap();
    assert_eq!(newest.id, id_at(start + Duration::from_millis(total - 1), total - 1));
}

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
    use super::queue::Message;
    use super::store::LogStore;
    let folder = tempfile::tempdir().unwrap();
    let (mut store, mut quality) =
        LogStore::open(&folder.path().join("log.db"), &[info()]).unwrap();
    let mut write = |messages: Vec<Message>| {
        let written = store.write(&messages, 7).unwrap();
        written.changes.iter().for_each(|change| quality.apply(change));
        let count = |(_, results): &(QualityGroup, Results)| results.named()[0].2;
        quality.results().iter().map(count).sum::<u64>()
    };
    let feedback = |id, class: usize, at| {
        let (reply, _) = tokio::sync::oneshot::channel();
        Message::Feedback(vec![item(id, label(LABELS[class]), at)], reply)
    };
    let (one, two) = (id(1), id(2));
    assert_eq!(write(vec![feedback(one, 1, 0)]), 0);
    assert_eq!(write(vec![Message::Entry(entry(one, 0), 0), feedback(one, 0, 1)]), 1);
    let batch = vec![feedback(two, 1, 0), Message::Entry(entry(two, 0), 0), feedback(two, 0, 1)];
    assert_eq!(write(batch), 2);
    assert_eq!(write(vec![feedback(two, 1, 2)]), 2);
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
    (price.model, price.version) = ("price".into(), String::new());
    price.outputs =
        vec![Columns { names: vec!["prediction".into()], values: ColumnValues::Fp64(vec![2.5]) }];
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
fn statistics_are_computed_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let ids: Vec<_> = (0..10).map(id).collect();
    for (number, &id) in ids.iter().enumerate() {
        assert!(log.append(entry(id, number % 3)));
    }
    let items = ids.iter().map(|&id| item(id, label("setosa"), 1)).collect();
    feed(&log, items).unwrap();
    let mut reader = LogReader::open(log.path()).unwrap().unwrap();
    let snapshot = reader.snapshot().unwrap();
    let stats = LogStats::of(&snapshot, &Filter::default()).unwrap();
    assert_eq!((stats.records, stats.feedback.matched, stats.groups.len()), (10, 10, 1));
    let group = &stats.groups[0];
    assert_eq!(
        (&group.cache, &group.statuses),
        (&BTreeMap::from([("miss".to_owned(), 10)]), &BTreeMap::from([(200, 10)]),)
    );
    assert_eq!(group.latency_us.unwrap().p50, 120);
    assert_eq!(group.quality, log.quality()[0].1, "equal to the running aggregates");
    let classes = group.quality.classification.as_ref().unwrap();
    // Setosa is predicted four times, each other class three times.
    assert_eq!((classes.accuracy, classes.brier_n), (Some(0.4), 10));
    let (correct, wrong) = (0.04 + 2.0 * 0.01, 0.81 + 0.64 + 0.01);
    let brier = (4.0 * correct + 6.0 * wrong) / 10.0;
    assert!((classes.brier_score.unwrap() - brier).abs() < 1e-7);
    close(&log);
}

fn exported(folder: &Path, filter: &Filter, format: ExportFormat) -> Vec<u8> {
    let mut reader = LogReader::open(&folder.join(schema::FILE)).unwrap().unwrap();
    let mut out = Vec::new();
    let snapshot = reader.snapshot().unwrap();
    export(&snapshot, filter, format, &mut out, &mut |_| {}).unwrap();
    out
}

#[test]
fn export_of_one_model_version_has_a_column_per_input_and_output() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    assert!(log.append(entry(id(1), 1)));
    let mut other = iris(0);
    other.model = "other, \"quoted\"".into();
    let context = context(id(2), SystemTime::now()).into();
    assert!(log.append(LogEntry { context, first_row: 0, predictions: other.into() }));
    feed(&log, vec![item(id_of(&log, 0), label("setosa"), 1)]).unwrap();
    close(&log);
    let filter = Filter { model: Some("iris-classifier".into()), ..Filter::default() };
    let text = String::from_utf8(exported(folder.path(), &filter, ExportFormat::Csv)).unwrap();
    let mut lines = text.lines();
    let header = lines.next().unwrap();
    assert!(header.contains("trace_id,input.sepal_length,input.sepal_width"), "{header}");
    assert!(header.ends_with(
        "output.prediction,output.probabilities[0],output.probabilities[1],\
         output.probabilities[2],attributes,omitted,feedback.label,feedback.value,feedback.reward"
    ));
    let row = lines.next().unwrap();
    assert!(row.contains(",miss,200,120,,5.1,3.5,1.4,,versicolor,0.1,0.8,0.1,"), "{row}");
    assert!(row.ends_with(",,setosa,,"), "{row}");
    assert_eq!(lines.next(), None);
    let text =
        String::from_utf8(exported(folder.path(), &Filter::default(), ExportFormat::Csv)).unwrap();
    assert!(text.contains("trace_id,inputs,outputs,attributes"), "{text}");
    assert!(text.contains("\"other, \"\"quoted\"\"\""), "{text}");
    let lines = exported(folder.path(), &Filter::default(), ExportFormat::Jsonl);
    let lines: Vec<serde_json::Value> = lines
        .split_inclusive(|&byte| byte == b'\n')
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!((lines.len(), &lines[0]["feedback"]["label"]), (2, &"setosa".into()));
}

/// The id of a record, once it is written.
fn id_of(log: &PredictionLog, number: usize) -> Uuid {
    wait_until("it is written", || log.accounting().pending == 0);
    records(log.path().parent().unwrap())[number].id
}

#[test]
fn parquet_export_is_read_back() {
    use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};

    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let start = UNIX_EPOCH + Duration::from_secs(1_796_040_000);
    for number in 0..10_000 {
        let time = start + Duration::from_millis(number);
        let entry = || entry_at(id_at(time, number), 1, time);
        wait_until("the queue accepts the record", || log.append(entry()));
    }
    close(&log);
    let file = exported(folder.path(), &Filter::default(), ExportFormat::Parquet);
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes_of(file)).unwrap();
    let mut rows = 0;
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let times = column("time").as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.value(0), 1_796_040_000_000_000 + rows as i64 * 1000);
        assert_eq!(times.timezone(), Some("UTC"));
        assert_eq!(column("input.sepal_length").as_primitive::<Float64Type>().value(0), 5.1);
        assert_eq!(column("input.petal_width").null_count(), batch.num_rows());
        assert_eq!(column("output.prediction").as_string::<i32>().value(0), "versicolor");
        assert_eq!(column("latency_us").as_primitive::<Int64Type>().value(0), 120);
        rows += batch.num_rows();
    }
    assert_eq!(rows, 10_000);
}

fn bytes_of(file: Vec<u8>) -> bytes::Bytes {
    file.into()
}

#[test]
fn observers_are_called_for_entries_that_cannot_be_written() {
    #[derive(Default)]
    struct CountingObserver(AtomicU64);
    impl Observer for CountingObserver {
        fn observe(&self, entry: &LogEntry) {
            self.0.fetch_add(u64::from(entry.predictions.rows), Ordering::Relaxed);
        }

        fn resume(&self, _: &Path) {}
    }
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::write(&state, b"").unwrap();
    let observer = Arc::<CountingObserver>::default();
    let observers: Vec<Arc<dyn Observer>> = vec![Arc::clone(&observer) as _];
    let log = PredictionLog::open(&state, PredictionLogSettings::default(), Vec::new(), observers)
        .unwrap();
    (0..100).for_each(|number| assert!(log.append(entry(id(number), 0))));
    assert_eq!(close(&log).dropped.storage, 100);
    assert_eq!(observer.0.load(Ordering::Relaxed), 100);
}

/// Measures the throughput of the writer, and panics with the result: `cargo nextest run
/// --workspace --lib --run-ignored only -E 'test(records_per_second)'`.
#[test]
#[ignore = "benchmark: panics with the result"]
fn records_per_second() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_with(
        folder.path(),
        PredictionLogSettings { queue: 1 << 20, ..PredictionLogSettings::default() },
    );
    let total = 300_000;
    let entries: Vec<_> = (0..total).map(|number| entry(id(number), 0)).collect();
    let start = Instant::now();
    for entry in entries {
        wait_until("the queue accepts the record", || log.append(entry.clone()));
    }
    let accounting = log.shut_down(PATIENCE);
    let took = start.elapsed().as_secs_f64();
    assert_eq!(accounting.written, total);
    let size = log.file_size() / total;
    panic!("{:.0} records per second, {size} bytes per record", total as f64 / took);
}
