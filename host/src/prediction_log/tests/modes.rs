//! What holds in each mode, also while the file cannot be written.

use std::collections::HashSet;

use futures::FutureExt;
use rusqlite::Connection;

use super::*;
use crate::prediction_log::settings::LogMode;
use crate::prediction_log::settings::LogMode::{BestEffort, Durable, Synchronous};
use crate::prediction_log::unlogged::Unlogged;

fn open_in(folder: &Path, mode: LogMode, queue: u64) -> Arc<PredictionLog> {
    open_with(folder, PredictionLogSettings { mode, queue, ..PredictionLogSettings::default() })
}

/// Submits the entries of one request, whose deadline is after `limit`.
fn submit(
    log: &PredictionLog,
    entries: impl IntoIterator<Item = LogEntry>,
    mode: LogMode,
    limit: Duration,
) -> Result<(), Unlogged> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(log.submit(entries.into_iter(), mode, Instant::now() + limit))
}

/// Submits one record, with time to wait.
fn store(log: &PredictionLog, id: Uuid, mode: LogMode) -> Result<(), Unlogged> {
    submit(log, [entry(id, 0)], mode, PATIENCE)
}

fn refused(log: &PredictionLog, reason: &str) -> u64 {
    log.awaited_counts().refused().find(|(name, _)| *name == reason).unwrap().1
}

fn synced(log: &PredictionLog) -> u64 {
    log.commits().synced.load(Ordering::Relaxed)
}

/// Number of the record that creates the file in [`lock`].
const FIRST: u64 = 999;

/// Locks the file of `log`, which is created by a record, so that the writer waits.
fn lock(log: &PredictionLog) -> Connection {
    store(log, id(FIRST), Synchronous).unwrap();
    let blocker = Connection::open(log.path()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    blocker
}

/// The numbers of the stored records, as passed to [`id`].
fn numbers(folder: &Path) -> HashSet<u64> {
    records(folder).iter().map(|record| record.id.as_u64_pair().1 & u64::from(u32::MAX)).collect()
}

#[test]
fn synchronous_record_is_in_the_file_before_its_request_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_in(folder.path(), Synchronous, 100);
    for number in 0..5 {
        store(&log, id(number), Synchronous).unwrap();
        assert_eq!(records(folder.path()).len() as u64, number + 1);
        assert_eq!((log.accounting().written, synced(&log)), (number + 1, number + 1));
    }
    assert_eq!(log.commits().durations.count(), 5);
    assert_eq!(close(&log).written, 5);
}

#[test]
fn synchronous_requests_share_a_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_in(folder.path(), Synchronous, 1000);
    let blocker = lock(&log);
    let before = synced(&log);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..50)
            .map(|number| {
                let log = &log;
                scope.spawn(move || store(log, id(number), Synchronous))
            })
            .collect();
        wait_until("all are queued", || log.accounting().pending == 50);
        assert_eq!(log.awaited_counts().waiting(), 50);
        drop(blocker);
        clients.into_iter().for_each(|client| client.join().unwrap().unwrap());
    });
    // Those that were queued before the writer met the lock, and all others.
    assert!(synced(&log) - before <= 2, "{}", synced(&log) - before);
    assert_eq!(log.awaited_counts().waiting(), 0);
    assert_eq!(close(&log).written, 51);
}

#[test]
fn only_records_with_a_guarantee_are_written_through_to_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_in(folder.path(), Durable, 100);
    assert!(log.append(entry(id(0), 0)));
    wait_until("it is written", || log.accounting().written == 1);
    assert_eq!((synced(&log), log.commits().durations.count()), (0, 1));
    store(&log, id(1), Durable).unwrap();
    wait_until("it is written", || log.accounting().written == 2);
    assert_eq!((synced(&log), log.commits().durations.count()), (1, 2));
    close(&log);
}

#[test]
fn feedback_is_written_through_if_a_component_is_synchronous() {
    for (mode, expected) in [(BestEffort, 0), (Synchronous, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let log = open_in(folder.path(), mode, 100);
        feed(&log, vec![item(id(1), label("setosa"), 1)]).unwrap();
        assert_eq!(synced(&log), expected, "{mode:?}");
        close(&log);
    }
}

#[test]
fn durable_request_waits_for_space_until_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_in(folder.path(), Durable, 10);
    let blocker = lock(&log);
    for number in 0..10 {
        store(&log, id(number), Durable).unwrap();
    }
    let late = submit(&log, [entry(id(10), 0)], Durable, Duration::from_millis(20)).unwrap_err();
    assert_eq!(late, Unlogged::QueueFull { problem: None });
    assert_eq!(refused(&log, "queue_full"), 1);
    let accounting = log.accounting();
    assert_balanced(&accounting);
    assert_eq!((accounting.accepted, accounting.pending), (11, 10), "it was not accepted");
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| store(&log, id(11), Durable));
        wait_until("it waits", || log.awaited_counts().waiting() == 1);
        drop(blocker);
        patient.join().unwrap().unwrap();
    });
    assert_eq!(close(&log).written, 12);
    assert_eq!(numbers(folder.path()), (0..10).chain([11, FIRST]).collect());
}

#[test]
fn waiting_request_is_not_overtaken_and_leaves_nothing_if_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_in(folder.path(), Durable, 10);
    let blocker = lock(&log);
    (0..8).for_each(|number| store(&log, id(number), Durable).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let three = (10..13).map(|number| entry(id(number), 0));
        let mut large = Box::pin(log.submit(three, Durable, Instant::now() + PATIENCE));
        assert_eq!((&mut large).now_or_never(), None, "there is space for two");
        assert!(!log.append(entry(id(20), 0)), "it would take the space");
        let small = log.submit([entry(id(21), 0)].into_iter(), Durable, Instant::now() + PATIENCE);
        let mut small = Box::pin(small);
        assert_eq!((&mut small).now_or_never(), None);
        // Its client has disconnected.
        drop(large);
        assert_eq!(log.awaited_counts().waiting(), 1);
        drop(blocker);
        small.await.unwrap();
    });
    let accounting = close(&log);
    assert_eq!((accounting.accepted, accounting.written), (11, 10));
    assert_eq!(numbers(folder.path()), (0..8).chain([21, FIRST]).collect());
    assert_eq!(accounting.dropped.queue_full, 1);
}

#[test]
fn request_larger_than_the_queue_waits_until_nothing_is_pending() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_in(folder.path(), Durable, 10);
    let many = |first| (first..first + 30).map(|number| entry(id(number), 0));
    submit(&log, many(0), Durable, PATIENCE).unwrap();
    submit(&log, many(100), Synchronous, PATIENCE).unwrap();
    assert_eq!(close(&log).written, 60);
}

#[test]
fn request_that_waits_at_shutdown_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_in(folder.path(), Durable, 1);
    let blocker = lock(&log);
    store(&log, id(1), Durable).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store(&log, id(2), Durable));
        wait_until("it waits", || log.awaited_counts().waiting() == 1);
        let closing = scope.spawn(|| close(&log));
        assert_eq!(waiting.join().unwrap(), Err(Unlogged::Shutdown));
        drop(blocker);
        assert_eq!(closing.join().unwrap().written, 2);
    });
    assert_eq!(store(&log, id(3), Synchronous), Err(Unlogged::Shutdown));
    assert_eq!(refused(&log, "shutdown"), 2);
}

/// A log whose file cannot be created until the returned path is removed.
fn broken(folder: &Path, mode: LogMode, queue: u64) -> (Arc<PredictionLog>, std::path::PathBuf) {
    let state = folder.join("state");
    // A file in place of the folder.
    std::fs::write(&state, b"").unwrap();
    (open_in(&state, mode, queue), state)
}

#[test]
fn durable_records_are_kept_until_the_file_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (log, state) = broken(folder.path(), Durable, 10);
    (0..5).for_each(|number| store(&log, id(number), Durable).unwrap());
    (5..8).for_each(|number| assert!(log.append(entry(id(number), 0))));
    wait_until("the others are dropped", || log.accounting().dropped.storage == 3);
    assert_eq!(log.accounting().pending, 5);
    assert!(log.problem().unwrap().contains("wait in memory"), "{:?}", log.problem());
    (8..13).for_each(|number| store(&log, id(number), Durable).unwrap());
    let full = submit(&log, [entry(id(13), 0)], Durable, Duration::ZERO).unwrap_err();
    assert!(full.to_string().contains("predictions.db"), "{full}");
    std::fs::remove_file(&state).unwrap();
    wait_until("they are written", || log.accounting().written == 10);
    let accounting = close(&log);
    assert_eq!((accounting.accepted, accounting.dropped.total()), (13, 3));
    assert_eq!(numbers(&state), (0..5).chain(8..13).collect());
    assert_eq!(log.problem(), None);
}

#[test]
fn durable_records_that_cannot_be_written_are_reported_at_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = broken(folder.path(), Durable, 10);
    (0..5).for_each(|number| store(&log, id(number), Durable).unwrap());
    let accounting = log.shut_down(Duration::from_millis(400));
    assert_balanced(&accounting);
    assert_eq!((accounting.dropped.storage, accounting.pending), (5, 0));
}

#[test]
fn synchronous_request_is_refused_while_the_file_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (log, state) = broken(folder.path(), Synchronous, 10);
    for number in 0..3 {
        let reason = store(&log, id(number), Synchronous).unwrap_err();
        let Unlogged::Storage(text) = &reason else { panic!("{reason}") };
        assert!(text.contains("predictions.db") && text.contains("are refused"), "{text}");
    }
    assert_eq!((refused(&log, "storage"), log.accounting().dropped.storage), (3, 3));
    std::fs::remove_file(&state).unwrap();
    wait_until("it is written again", || store(&log, id(9), Synchronous).is_ok());
    close(&log);
    assert_eq!(numbers(&state), [9].into());
}

#[test]
fn unwritable_log_refuses_requests_early_until_the_writer_can_write_it() {
    let folder = tempfile::tempdir().unwrap();
    let (log, state) = broken(folder.path(), Synchronous, 10);
    assert_eq!(log.check_writable(), Ok(()), "nothing is known before the first write");
    store(&log, id(1), Synchronous).unwrap_err();
    let early = log.check_writable().unwrap_err();
    assert!(matches!(&early, Unlogged::Unwritable(text) if text.contains("predictions.db")));
    assert_eq!((refused(&log, "unwritable"), refused(&log, "storage")), (1, 1));
    assert_eq!(log.accounting().accepted, 1, "a request that is refused early has no records");
    std::fs::remove_file(&state).unwrap();
    // No request is sacrificed to find it out.
    wait_until("the log is writable", || log.check_writable().is_ok());
    store(&log, id(2), Synchronous).unwrap();
    close(&log);
    assert_eq!(numbers(&state), [2].into());
}

/// Under a disk that is full half of the time: the accounting is exact, and what was promised holds.
#[test]
fn every_mode_keeps_its_promise_on_a_full_disk() {
    const EACH: u64 = 300;
    // Only root can mount: otherwise the tests above must suffice.
    let Some(disk) = SmallDisk::mount(8 << 20) else { return };
    let log = open_in(disk.path(), Synchronous, 200);
    store(&log, id(0), Synchronous).unwrap();
    let ballast = disk.path().join("ballast");
    let promised = Mutex::new(HashSet::new());
    let running = AtomicU64::new(3);
    std::thread::scope(|scope| {
        for (first, mode) in [(1000, BestEffort), (2000, Durable), (3000, Synchronous)] {
            let (log, promised, running) = (&log, &promised, &running);
            scope.spawn(move || {
                for number in first..first + EACH {
                    match mode {
                        BestEffort => {
                            log.append(entry(id(number), 0));
                        }
                        Durable | Synchronous => {
                            if store(log, id(number), mode).is_ok() {
                                promised.lock().insert(number);
                            }
                        }
                    }
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while running.load(Ordering::Relaxed) > 0 {
            let mut file = std::fs::File::create(&ballast).unwrap();
            while std::io::Write::write(&mut file, &[0; 4096]).is_ok() {
                assert_balanced(&log.accounting());
            }
            drop(file);
            std::fs::remove_file(&ballast).unwrap();
            let written = log.accounting().written;
            wait_until("something is written", || {
                log.accounting().written > written || running.load(Ordering::Relaxed) == 0
            });
        }
    });
    let accounting = close(&log);
    let numbers = numbers(disk.path());
    assert_eq!(numbers.len() as u64, accounting.written);
    let promised = promised.into_inner();
    assert!(promised.len() as u64 >= EACH, "every durable request can wait for space");
    assert!(promised.is_subset(&numbers), "{:?}", promised.difference(&numbers));
}
