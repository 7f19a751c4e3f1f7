//! Deletion by age and by size.

use super::*;

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

/// If the clock has moved on since the last time that records expired, it may be wrong: see
/// `retention/clock.rs`.
#[test]
fn nothing_expires_right_after_a_jump_of_the_clock() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let folder = tempfile::tempdir().unwrap();
    let before = SystemTime::now() - 3 * DAY;
    let log = open(folder.path());
    (0..10).for_each(|number| assert!(log.append(entry_at(id_at(before, number), 0, before))));
    close(&log);
    let file = rusqlite::Connection::open(folder.path().join(schema::FILE)).unwrap();
    let settings = PredictionLogSettings {
        retention: Retention { max_age: DAY, ..Retention::default() },
        ..PredictionLogSettings::default()
    };
    for (number, last, remaining) in [(10, before, 11), (11, SystemTime::now(), 2)] {
        file.execute("UPDATE retention SET time = ?1", [times::micros(last)]).unwrap();
        let log = open_with(folder.path(), settings.clone());
        assert!(log.append(entry(id(number), 0)));
        wait_until("it is written", || log.accounting().written == 1);
        // Records expire after a batch, and before the log is closed.
        close(&log);
        assert_eq!(records(folder.path()).len(), remaining);
    }
}
