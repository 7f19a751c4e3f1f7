//! What is written, and what is dropped and counted.

use super::*;

#[test]
fn appended_records_are_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let time = UNIX_EPOCH + Duration::from_micros(1_796_040_000_123_456);
    let (one, two) = (id_at(time, 1), id_at(time, 2));
    let mut batch = iris(0);
    batch.rows = 2;
    batch.inputs = vec![Columns {
        names: vec!["n".to_owned()].into(),
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
    assert_eq!((first.unit.as_deref(), first.propensity), (Some("0123456789abcdef"), Some(0.75)));
    assert_eq!((&second.unit, second.propensity, &second.failed_over), (&None, None, &None));
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
    ) + r#""version":"1","route":"/v2/models/iris/...","component":"iris-1","experiment":null,"variant":null,"unit":null,"propensity":null,"failed_over":null,"cache":"hit","status":200,"latency_us":120,"sample":1.0,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","inputs":{"n":-9223372036854775808},"outputs":{},"attributes":{"operation":"predict"},"omitted":["pixels[150528]"]}"#;
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
fn observers_are_called_by_the_writer_for_entries_that_cannot_be_written_too() {
    #[derive(Default)]
    struct CountingObserver(AtomicU64);
    impl Observer for CountingObserver {
        fn observe(&self, entry: &LogEntry) {
            // What they cost is no part of a request.
            if std::thread::current().name() != Some("prediction-log") {
                return;
            }
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
