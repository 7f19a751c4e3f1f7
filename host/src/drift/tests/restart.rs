//! Windows and alarms after a restart.

use super::*;

fn restarted(folder: &std::path::Path, settings: &DriftSettings) -> Monitor {
    let monitor = watched(IRIS, IRIS_SIGNATURE, settings);
    monitor.resume(&folder.join("predictions.db"));
    monitor
}

#[test]
fn window_and_alarm_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let settings = DriftSettings::default();
    let first = restarted(dir.path(), &settings);
    for _ in 0..300 {
        first.observe(&iris(&[[9.0, 3.0, 4.0, 1.0]], "rose"));
    }
    let before = first.report(now(), None);
    first.close();
    let second = restarted(dir.path(), &settings);
    assert_eq!(second.in_alarm("iris-classifier", "1"), Some(true), "before any look");
    let after = second.report(now(), None);
    let json = |report: &Report| serde_json::to_value(report).unwrap();
    assert_eq!(json(&after), json(&before));

    // Another window or baseline starts anew.
    let decayed = WindowShape::Decayed { half_life: Duration::from_secs(60) };
    let other = restarted(dir.path(), &DriftSettings { window: decayed, ..settings });
    assert_eq!(other.report(now(), None).versions[0].window.records, 0);
    let changed = watched(&IRIS.replacen("[19, 11,", "[18, 12,", 1), IRIS_SIGNATURE, &settings);
    changed.resume(&dir.path().join("predictions.db"));
    assert_eq!(changed.report(now(), None).versions[0].window.records, 0);
    assert_eq!(changed.in_alarm("iris-classifier", "1"), Some(false));
}

#[test]
fn windows_are_saved_while_records_come() {
    let dir = tempfile::tempdir().unwrap();
    let settings = DriftSettings::default();
    let first = restarted(dir.path(), &settings);
    for second in [0, 4, 8, 12, 13] {
        let time = now() + Duration::from_secs(second);
        first.observe(&at(time, iris(&[[5.0, 3.0, 4.0, 1.0]], "setosa")));
    }
    // As after a crash: without `close`. The record of second 13 came after the copy.
    let time = now() + Duration::from_secs(13);
    let second = restarted(dir.path(), &settings);
    assert_eq!(second.report(time, None).versions[0].window.records, 4);
}

#[test]
fn damaged_file_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let settings = DriftSettings::default();
    for text in ["", "{", "{\"format\":9,\"windows\":[]}", "[]"] {
        std::fs::write(dir.path().join("drift-windows.json"), text).unwrap();
        let monitor = restarted(dir.path(), &settings);
        monitor.observe(&iris(&[[5.0, 3.0, 4.0, 1.0]], "setosa"));
        monitor.close();
        let next = restarted(dir.path(), &settings);
        assert_eq!(next.report(now(), None).versions[0].window.records, 1, "{text}");
    }
}
