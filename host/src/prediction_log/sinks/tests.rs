//! Tests of the outbox and its dispatchers, with a real file and sinks that fail on command.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::SystemTime;

use futures::FutureExt;
use rusqlite::Connection;
use tempfile::TempDir;

use super::outbox::{MAX_RUN, OutboxFile, Outgoing, RECORD, append};
use super::*;
use crate::prediction_log::reader::StoredFeedback;
use crate::prediction_log::schema::{self, FILE};
use crate::prediction_log::times::micros;

const PATIENCE: Duration = Duration::from_secs(60);

fn record(id: Uuid, row: i64) -> StoredRecord {
    StoredRecord {
        id,
        row,
        time: 5,
        model: "iris".into(),
        version: "1".into(),
        route: "/...".into(),
        component: "iris".into(),
        experiment: None,
        variant: None,
        unit: None,
        propensity: None,
        failed_over: None,
        cache: "miss".into(),
        status: 200,
        latency_us: 1,
        sample: Some(1.0),
        trace_id: None,
        inputs: r#"{"a":1.5}"#.into(),
        outputs: r#"{"prediction":"setosa"}"#.into(),
        attributes: "{}".into(),
        omitted: None,
        feedback: StoredFeedback::default(),
    }
}

fn numbered(events: impl Iterator<Item = SinkEvent>) -> Vec<OutboxEntry> {
    (1..).zip(events).map(|(seq, event)| OutboxEntry { seq, event }).collect()
}

/// Records of `requests` requests, each of `rows` rows.
pub(super) fn record_entries(requests: u128, rows: i64) -> Vec<OutboxEntry> {
    let keys = (1..=requests).flat_map(|id| (0..rows).map(move |row| (Uuid::from_u128(id), row)));
    numbered(keys.map(|(id, row)| SinkEvent::Record(record(id, row))))
}

/// Feedback for the rows 0 to `count` of a request.
pub(super) fn feedback_entries(count: i64) -> Vec<OutboxEntry> {
    let feedback = |row| FeedbackEvent {
        id: Uuid::from_u128(7),
        row,
        truth: Truth::Label("setosa".into()),
        time: 1_000_000,
    };
    numbered((0..count).map(|row| SinkEvent::Feedback(feedback(row))))
}

/// What a sink does with a delivery.
enum Behaviour {
    /// Accepts this many entries, then fails.
    Fail(usize),
    /// Refuses the first entry.
    Refuse,
    /// Never returns.
    Hang,
}

/// A sink that accepts everything, unless its script has a failure.
struct ScriptedSink {
    /// Whether it fails, whatever the script.
    down: Arc<AtomicBool>,
    script: Receiver<Behaviour>,
    accepted: Sender<(Uuid, i64)>,
}

impl Sink for ScriptedSink {
    fn deliver<'a>(
        &'a mut self,
        _producer: &'a str,
        entries: &'a [OutboxEntry],
        delivered: &'a mut usize,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        let mut accept = |count: usize| {
            for entry in &entries[..count.min(entries.len())] {
                self.accepted.send(entry.event.key()).unwrap();
                *delivered += 1;
            }
        };
        if self.down.load(Ordering::Relaxed) {
            return async { Err(SinkError::Retry("it is down".into())) }.boxed();
        }
        match self.script.try_recv() {
            Ok(Behaviour::Fail(count)) => {
                accept(count);
                async { Err(SinkError::Retry("scripted failure".into())) }.boxed()
            }
            Ok(Behaviour::Refuse) => {
                let reason = "scripted refusal".into();
                async { Err(SinkError::Refused { entries: 1, reason }) }.boxed()
            }
            Ok(Behaviour::Hang) => std::future::pending().boxed(),
            Err(_) => {
                accept(entries.len());
                async { Ok(()) }.boxed()
            }
        }
    }
}

/// A sink, as the test sees it.
struct Script {
    name: String,
    down: Arc<AtomicBool>,
    behaviours: Sender<Behaviour>,
    accepted: Receiver<(Uuid, i64)>,
}

impl Script {
    /// The rows of the next `count` entries that the sink accepts.
    fn rows(&self, count: usize) -> Vec<i64> {
        (0..count).map(|_| self.accepted.recv_timeout(PATIENCE).unwrap().1).collect()
    }

    fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    fn tell(&self, behaviour: Behaviour) {
        self.behaviours.send(behaviour).unwrap();
    }
}

/// A log whose writer is the test.
struct Log {
    folder: TempDir,
    connection: Connection,
    names: Vec<String>,
    rows: i64,
}

/// The request of all records.
const ID: Uuid = Uuid::from_u128(9);

impl Log {
    fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connection = schema::open(&folder.path().join(FILE)).unwrap();
        let mut log = Self { folder, connection, names: Vec::new(), rows: 0 };
        log.configure(names);
        log
    }

    fn configure(&mut self, names: &[&str]) {
        self.names = names.iter().map(|&name| name.to_owned()).collect();
        let transaction = self.connection.transaction().unwrap();
        outbox::configure(&transaction, &self.names).unwrap();
        transaction.commit().unwrap();
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    /// Writes `count` records. Returns the number of the last entry of the outbox.
    fn write(&mut self, count: i64) -> i64 {
        let transaction = self.connection.transaction().unwrap();
        transaction
            .execute(
                "INSERT OR IGNORE INTO sources VALUES (1, 'iris', '1', '/...', 'iris', '', '')",
                [],
            )
            .unwrap();
        let mut entries = Vec::new();
        for row in self.rows..self.rows + count {
            let insert = "INSERT INTO predictions (id, row, time, source, cache, status, latency_us,
                inputs, outputs, attributes) VALUES (?1, ?2, 5, 1, 'miss', 200, 1, '{}', '{}', '{}')";
            transaction.execute(insert, rusqlite::params![ID.as_bytes(), row]).unwrap();
            entries.push(Outgoing { kind: RECORD, id: ID, row: u32::try_from(row).unwrap() });
        }
        self.rows += count;
        let last = append(&transaction, &entries, micros(SystemTime::now())).unwrap();
        transaction.commit().unwrap();
        last
    }

    /// Deletes the records before `row`, as retention does.
    fn delete_before(&self, row: i64) {
        self.connection.execute("DELETE FROM predictions WHERE row < ?1", [row]).unwrap();
    }

    fn outbox(&self) -> i64 {
        let query = "SELECT count(*) FROM outbox";
        self.connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// The sinks of the file, with the number of the last entry that each has received.
    fn positions(&self) -> Vec<(String, i64)> {
        let query = "SELECT name, position FROM sinks ORDER BY name";
        let mut statement = self.connection.prepare(query).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn start(&self) -> (Sinks, Vec<Script>) {
        let (mut sinks, mut scripts): (Vec<Box<dyn Sink>>, _) = (Vec::new(), Vec::new());
        for name in &self.names {
            let ((behaviours, script), (sender, accepted)) = (channel(), channel());
            let down = Arc::new(AtomicBool::new(false));
            let sink = ScriptedSink { down: Arc::clone(&down), script, accepted: sender };
            sinks.push(Box::new(sink));
            scripts.push(Script { name: name.clone(), down, behaviours, accepted });
        }
        let settings =
            |name: &String| SinkSettings { name: name.clone(), target: SinkTarget::Stdout };
        let settings: Vec<_> = self.names.iter().map(settings).collect();
        (Sinks::start_each(&self.path(), settings, sinks).unwrap(), scripts)
    }
}

fn stats(sinks: &Sinks, script: &Script) -> SinkStats {
    sinks.stats().into_iter().find(|stats| stats.name == script.name).unwrap()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "timeout: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn each_sink_receives_everything_in_order_and_the_outbox_is_emptied() {
    let mut log = Log::new(&["a", "b"]);
    let (sinks, scripts) = log.start();
    for count in [1, 3000, 7] {
        let last = log.write(count);
        sinks.state().committed(last);
    }
    for script in &scripts {
        assert_eq!(script.rows(3008), (0..3008).collect::<Vec<_>>());
    }
    wait_until("the outbox is empty", || log.outbox() == 0);
    let SinkStats { delivered, pending, retries, lost, problem, .. } = stats(&sinks, &scripts[0]);
    assert_eq!((delivered, pending, retries, lost, problem), (3008, 0, 0, 0, None));
}

#[test]
fn failed_delivery_is_retried_from_the_first_entry_that_is_not_accepted() {
    let mut log = Log::new(&["a"]);
    let (sinks, scripts) = log.start();
    let script = &scripts[0];
    script.tell(Behaviour::Fail(0));
    script.tell(Behaviour::Fail(3));
    log.write(10);
    assert_eq!(script.rows(10), (0..10).collect::<Vec<_>>(), "none twice");
    wait_until("it is known to be up again", || stats(&sinks, script).problem.is_none());
    let SinkStats { delivered, retries, pending, .. } = stats(&sinks, script);
    assert_eq!((delivered, retries, pending), (10, 2, 0));
}

#[test]
fn sink_that_is_down_or_hangs_delays_no_other_and_is_reported() {
    let mut log = Log::new(&["down", "hanging", "up"]);
    let (sinks, scripts) = log.start();
    let [down, hanging, up] = &scripts[..] else { panic!() };
    down.set_down(true);
    hanging.tell(Behaviour::Hang);
    log.write(5);
    assert_eq!(up.rows(5), [0, 1, 2, 3, 4]);
    wait_until("the problem is known", || stats(&sinks, down).problem.is_some());
    let SinkStats { pending, problem, .. } = stats(&sinks, down);
    assert_eq!((pending, problem.as_deref()), (5, Some("it is down")));
    wait_until("it has waited", || stats(&sinks, down).lag_seconds > 0.0);
    wait_until("the others are counted", || {
        stats(&sinks, hanging).pending == 5 && stats(&sinks, up).pending == 0
    });
    assert_eq!(log.outbox(), 5);
    // The rest stays for the next start.
    let start = Instant::now();
    sinks.shut_down(Duration::from_millis(300));
    assert!(start.elapsed() < PATIENCE);
    drop(sinks);
    let (_sinks, scripts) = log.start();
    assert_eq!(
        (scripts[0].rows(5), scripts[1].rows(5)),
        (vec![0, 1, 2, 3, 4], vec![0, 1, 2, 3, 4])
    );
    assert!(scripts[2].accepted.try_recv().is_err(), "it had received everything");
}

#[test]
fn refused_entry_is_counted_and_skipped() {
    let mut log = Log::new(&["a"]);
    let (sinks, scripts) = log.start();
    scripts[0].tell(Behaviour::Refuse);
    log.write(3);
    assert_eq!(scripts[0].rows(2), [1, 2]);
    wait_until("it is counted", || stats(&sinks, &scripts[0]).pending == 0);
    let SinkStats { delivered, refused, retries, .. } = stats(&sinks, &scripts[0]);
    assert_eq!((delivered, refused, retries), (2, 1, 0));
}

#[test]
fn pending_entries_are_delivered_at_shutdown() {
    let mut log = Log::new(&["a"]);
    let (sinks, scripts) = log.start();
    scripts[0].tell(Behaviour::Fail(0));
    log.write(20);
    wait_until("the sink is down", || stats(&sinks, &scripts[0]).problem.is_some());
    sinks.shut_down(PATIENCE);
    assert_eq!(scripts[0].rows(20).len(), 20);
    assert_eq!(log.outbox(), 0);
}

#[test]
fn entries_that_retention_deletes_first_are_counted_as_lost() {
    let mut log = Log::new(&["down", "up"]);
    let (sinks, scripts) = log.start();
    let [down, up] = &scripts[..] else { panic!() };
    down.set_down(true);
    log.write(100);
    up.rows(100);
    log.delete_before(60);
    // While the sink is down, the outbox does not grow with what is lost.
    wait_until("the lost entries are deleted", || log.outbox() == 40);
    assert_eq!(stats(&sinks, down).lost, 60);
    down.set_down(false);
    assert_eq!(down.rows(40), (60..100).collect::<Vec<_>>());
    wait_until("all are accounted", || stats(&sinks, down).pending == 0);
    let SinkStats { delivered, lost, .. } = stats(&sinks, down);
    assert_eq!((delivered, lost), (40, 60));
    assert_eq!(stats(&sinks, up).lost, 0);
    // In the middle of a batch.
    sinks.shut_down(PATIENCE);
    drop(sinks);
    log.write(10);
    log.connection.execute("DELETE FROM predictions WHERE row IN (103, 109)", []).unwrap();
    let (sinks, scripts) = log.start();
    assert_eq!(scripts[0].rows(8), [100, 101, 102, 104, 105, 106, 107, 108]);
    wait_until("all are accounted", || stats(&sinks, &scripts[0]).pending == 0);
    assert_eq!(stats(&sinks, &scripts[0]).lost, 62, "the count survives a restart");
}

#[test]
fn new_sink_starts_at_the_end_and_a_removed_one_that_has_everything_is_deleted() {
    let mut log = Log::new(&["a"]);
    log.write(3);
    log.configure(&["a", "b"]);
    log.write(2);
    {
        let (sinks, scripts) = log.start();
        assert_eq!(scripts[0].rows(5), [0, 1, 2, 3, 4]);
        assert_eq!(scripts[1].rows(2), [3, 4]);
        sinks.shut_down(PATIENCE);
    }
    log.configure(&["b"]);
    log.write(1);
    log.configure(&["a", "b"]);
    log.write(1);
    {
        let (sinks, scripts) = log.start();
        assert_eq!(scripts[0].rows(1), [6], "it is a new sink");
        assert_eq!(scripts[1].rows(2), [5, 6]);
        sinks.shut_down(PATIENCE);
    }
    log.configure(&[]);
    assert!(log.positions().is_empty());
}

/// The configuration may be incomplete by mistake.
#[test]
fn removed_sink_keeps_what_it_has_not_received() {
    let mut log = Log::new(&["a", "b"]);
    log.write(3);
    // Also without any sink, which has no dispatcher.
    for names in [&["b"][..], &[]] {
        log.configure(names);
        let (sinks, _scripts) = log.start();
        sinks.shut_down(PATIENCE);
    }
    assert_eq!(log.positions(), [("a".to_owned(), 0)], "the other one has received everything");
    log.write(2);
    log.configure(&["a"]);
    let (_sinks, scripts) = log.start();
    assert_eq!(scripts[0].rows(5), [0, 1, 2, 3, 4]);
}

#[test]
fn removed_sink_is_deleted_once_retention_has_deleted_what_it_has_not_received() {
    let mut log = Log::new(&["a", "b"]);
    log.write(5);
    log.configure(&["b"]);
    {
        let (_sinks, scripts) = log.start();
        assert_eq!(scripts[0].rows(5), [0, 1, 2, 3, 4]);
        wait_until("it is stored", || {
            log.positions() == [("a".to_owned(), 0), ("b".to_owned(), 5)]
        });
    }
    log.delete_before(3);
    {
        let (_sinks, _scripts) = log.start();
        wait_until("a part is lost", || {
            log.positions() == [("a".to_owned(), 3), ("b".to_owned(), 5)]
        });
        assert_eq!(log.outbox(), 2);
    }
    log.delete_before(5);
    {
        let (sinks, _scripts) = log.start();
        wait_until("all is lost", || log.positions() == [("b".to_owned(), 5)]);
        assert_eq!(log.outbox(), 0);
        sinks.shut_down(PATIENCE);
    }
    // Without any sink, the log does so when it is opened.
    log.configure(&["a"]);
    log.write(2);
    log.configure(&[]);
    assert_eq!(log.outbox(), 2);
    log.delete_before(7);
    log.configure(&[]);
    assert_eq!((log.positions(), log.outbox()), (Vec::new(), 0));
}

#[test]
fn process_with_fewer_sinks_changes_nothing_while_another_delivers() {
    let mut log = Log::new(&["a"]);
    let (_sinks, scripts) = log.start();
    log.write(1);
    assert_eq!(scripts[0].rows(1), [0]);
    wait_until("it is stored", || log.positions() == [("a".to_owned(), 1)]);
    // Of another process: the sink has received everything, and stays.
    log.configure(&[]);
    assert_eq!(log.positions(), [("a".to_owned(), 1)]);
    log.write(1);
    assert_eq!(scripts[0].rows(1), [1]);
}

#[test]
fn only_one_of_several_processes_delivers() {
    let mut log = Log::new(&["a"]);
    let (first, scripts) = log.start();
    log.write(1);
    assert_eq!(scripts[0].rows(1), [0]);
    let (_second, others) = log.start();
    assert!(!_second.state().owns_delivery().unwrap());
    log.write(1);
    assert_eq!(scripts[0].rows(1), [1]);
    first.shut_down(PATIENCE);
    drop(first);
    log.write(1);
    assert_eq!(others[0].rows(1), [2], "the other takes over");
}

#[test]
fn file_that_replaces_a_damaged_one_is_delivered() {
    let mut log = Log::new(&["a"]);
    let (_sinks, scripts) = log.start();
    log.write(2);
    assert_eq!(scripts[0].rows(2), [0, 1]);
    schema::move_aside(&log.path(), 7).unwrap();
    log.connection = schema::open(&log.path()).unwrap();
    log.configure(&["a"]);
    log.write(1);
    assert_eq!(scripts[0].rows(1), [2]);
}

#[test]
fn recovered_file_without_numbers_or_positions_delivers_what_it_has() {
    let mut log = Log::new(&["a"]);
    log.write(5);
    log.connection.execute_batch("UPDATE sinks SET position = 5; DELETE FROM outbox;").unwrap();
    // What recovery does not copy.
    log.connection.execute("DELETE FROM sqlite_sequence", []).unwrap();
    log.configure(&["a"]);
    log.write(1);
    {
        let (_sinks, scripts) = log.start();
        assert_eq!(scripts[0].rows(1), [5]);
    }
    wait_until("it is stored", || log.outbox() == 0);
    log.write(2);
    log.connection.execute("DELETE FROM sinks", []).unwrap();
    log.configure(&["a"]);
    let (_sinks, scripts) = log.start();
    assert_eq!(scripts[0].rows(2), [6, 7]);
}

#[test]
fn batch_does_not_split_a_block_of_rows_of_a_request() {
    let mut log = Log::new(&["a"]);
    // More than a batch, and a block that starts within the first.
    let rows = 2 * MAX_RUN + 100;
    log.write(rows);
    let mut outbox = OutboxFile::open(&log.path(), &log.names).unwrap().unwrap();
    let batch = outbox.next("a").unwrap();
    assert_eq!(batch.range, Some(1..=2 * MAX_RUN));
    outbox.advance("a", 100, 0).unwrap();
    let batch = outbox.next("a").unwrap();
    assert_eq!(batch.range, Some(101..=rows), "1024 entries are left");
    log.write(1);
    let batch = outbox.next("a").unwrap();
    assert_eq!(batch.range, Some(101..=2 * MAX_RUN), "the last block would be cut");
}
