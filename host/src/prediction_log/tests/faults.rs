//! Files that cannot be written: missing, full or read-only disks.

use super::*;
use crate::prediction_log::store::LogStore;

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
fn probe_of_the_writer_fails_on_a_full_disk() {
    // Only root can mount: otherwise the tests above must suffice.
    let Some(disk) = SmallDisk::mount(4 << 20) else { return };
    let (store, _) = LogStore::open(&disk.path().join(schema::FILE), &[], &[]).unwrap();
    store.probe().unwrap();
    let ballast = disk.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while std::io::Write::write(&mut file, &[0; 4096]).is_ok() {}
    let full = store.probe().unwrap_err().to_string();
    assert!(full.contains("full") || full.contains("I/O"), "{full}");
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    store.probe().unwrap();
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
