//! Windows of several hosts.

use super::*;

/// The windows as another host sends them.
fn sent(monitor: &Monitor) -> Vec<SavedWindows> {
    let json = serde_json::to_vec(&[monitor.windows()]).unwrap();
    SavedWindows::parse_all(&json).unwrap()
}

#[test]
fn merged_report_equals_that_of_one_host_with_all_records() {
    let (a, b, all) = (iris_monitor(), iris_monitor(), iris_monitor());
    let mut random = fastrand::Rng::with_seed(4);
    for index in 0..500 {
        let mut row = from_baseline(&mut random);
        if index % 7 == 0 {
            row[1] = f32::NAN;
        }
        row[2] += 0.5;
        let record = iris(&[row], ["setosa", "rose", "virginica"][index % 3]);
        all.observe(&record);
        if random.bool() { a.observe(&record) } else { b.observe(&record) }
    }
    let merged = a.merged_report(now(), None, &sent(&b)).unwrap();
    let expected = all.report(now(), None);
    let [merged, expected] = [&merged.versions[0], &expected.versions[0]];
    assert_eq!((merged.window.records, merged.status), (500, expected.status));
    let mut compared = 0;
    for (merged, expected) in merged.fields().zip(expected.fields()) {
        let scores = |field: &FieldReport| (field.n, field.missing, field.psi, field.ks, field.js);
        assert_eq!(scores(merged), scores(expected));
        assert_eq!((&merged.current, merged.status), (&expected.current, expected.status));
        let statistic = |field: &FieldReport| field.chi_squared.map(|test| test.statistic);
        assert_eq!(statistic(merged), statistic(expected));
        // No record has the probabilities.
        let p_values = merged.p_value.zip(expected.p_value);
        assert_eq!(p_values.is_some(), expected.p_value.is_some());
        if let Some((p, of_one)) = p_values.filter(|(p, of_one)| *of_one > 0.0 && *p < 1.0) {
            // Start 1 of two hosts has the share of start 2.
            let share = |start: f64| 1.0 / ((start + 1.0) * (start + 1.0).ln().powi(2));
            let ratio = p / of_one * share(2.0) / share(1.0);
            assert!((ratio - 1.0).abs() < 1e-6, "{}: {p} {of_one}", merged.name);
            compared += 1;
        }
        let unseen = |field: &FieldReport| field.unseen.clone().map(|unseen| unseen.most_frequent);
        assert_eq!(unseen(merged), unseen(expected));
        let distance = |field: &FieldReport| field.wasserstein.map_or(0.0, |found| found.distance);
        let (a, b) = (distance(merged), distance(expected));
        assert!((a - b).abs() < 1e-9, "{}: {a} {b}", merged.name);
    }
    assert!(compared > 0, "no field has evidence");
    let own = |monitor: &Monitor| monitor.report(now(), None).versions[0].window.records;
    assert_eq!(own(&a) + own(&b), 500, "a merge changes no window");
}

#[test]
fn merged_decayed_window_has_all_records_with_weights_within_those_of_its_parts() {
    let window = WindowShape::Decayed { half_life: Duration::from_secs(80) };
    let settings = DriftSettings { window, ..DriftSettings::default() };
    let decayed = || watched(IRIS, IRIS_SIGNATURE, &settings);
    let (a, b, all) = (decayed(), decayed(), decayed());
    let mut random = fastrand::Rng::with_seed(11);
    for second in 0..400 {
        let time = now() + Duration::from_secs(second);
        let record = at(time, iris(&[from_baseline(&mut random)], "setosa"));
        all.observe(&record);
        // The parts of the second host start in the middle of those of the first.
        if second < 5 || second % 2 == 0 { a.observe(&record) } else { b.observe(&record) }
    }
    let time = now() + Duration::from_secs(400);
    let merged = a.merged_report(time, None, &sent(&b)).unwrap();
    let expected = all.report(time, None);
    let [merged, expected] = [&merged.versions[0], &expected.versions[0]];
    assert_eq!((merged.window.records, merged.window.hosts), (400, 2));
    for (merged, expected) in merged.fields().zip(expected.fields()) {
        assert_eq!((merged.n, merged.missing), (expected.n, expected.missing));
        for (merged, expected) in merged.current.iter().zip(&expected.current) {
            // The weight of a record differs by a sixteenth of a half-life in each of the windows, and
            // so do the shares, in the numerator and in the denominator.
            let bound = 0.25_f64.exp2() - 1.0;
            assert!((merged - expected).abs() <= bound * expected, "{merged} {expected}");
        }
    }
}

#[test]
fn drift_that_no_host_sees_alone_is_an_alarm_of_all() {
    let mut random = fastrand::Rng::with_seed(9);
    let baseline = normals_baseline(2_000, &mut random);
    let hosts: Vec<Monitor> = (0..10).map(|_| normals_watched(&baseline)).collect();
    for host in &hosts {
        observe_normals(host, 14, 0.7, &mut random);
        assert_eq!(drifted(host), [""; 0]);
    }
    let others: Vec<SavedWindows> = hosts[1..].iter().flat_map(sent).collect();
    let merged = hosts[0].merged_report(now(), Some("normals"), &others).unwrap();
    assert_eq!(merged.versions[0].window.records, 140);
    assert_eq!(merged.versions[0].features[3].status, Status::Drift);
    assert_eq!(merged.versions[0].features[3].since, None, "no host was in alarm");
    assert_eq!(hosts[0].in_alarm("normals", "1"), Some(false), "an alarm of all is of no host");
}

#[test]
fn merged_report_is_in_alarm_since_the_first_host_was_whichever_computes_it() {
    let hosts = [iris_monitor(), iris_monitor(), iris_monitor()];
    let mut random = fastrand::Rng::with_seed(7);
    for second in 0..300 {
        let time = now() + Duration::from_secs(second);
        let undrifted = from_baseline(&mut random);
        hosts[0].observe(&at(time, iris(&[undrifted], "setosa")));
        // Later hosts have drift from second 100 and 200 on.
        for (host, from) in [(1, 100), (2, 200)] {
            if second >= from {
                hosts[host].observe(&at(
                    time,
                    iris(&[[undrifted[0], 9.0, undrifted[2], undrifted[3]]], "setosa"),
                ));
            }
        }
    }
    let time = now() + Duration::from_secs(300);
    let since = hosts[1].report(time, None).versions[0].features[1].since.clone();
    assert!(since.is_some());
    let report = |order: [usize; 3]| {
        let others: Vec<_> = order[1..].iter().flat_map(|&host| sent(&hosts[host])).collect();
        let report = hosts[order[0]].merged_report(time, None, &others).unwrap();
        serde_json::to_value(&report).unwrap()
    };
    let expected = report([0, 1, 2]);
    assert_eq!(expected["versions"][0]["window"]["hosts"], 3);
    assert_eq!(expected["versions"][0]["status"], "drift");
    assert_eq!(expected["versions"][0]["features"][1]["since"], since.unwrap());
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert_eq!(report(order), expected, "{order:?}");
    }
}

#[test]
fn host_that_is_given_twice_is_refused() {
    let (a, b) = (iris_monitor(), iris_monitor());
    let twice =
        |others: Vec<SavedWindows>| a.merged_report(now(), None, &others).unwrap_err().to_string();
    assert!(twice(sent(&a)).contains("two of the addresses are of one host"));
    let others = [&b, &b].into_iter().flat_map(sent).collect();
    assert!(twice(others).contains("two of the addresses are of one host"));
}

#[test]
fn version_of_another_host_alone_is_listed() {
    let mut random = fastrand::Rng::with_seed(1);
    let (a, b) = (iris_monitor(), normals_monitor(300, &mut random));
    let report = a.merged_report(now(), None, &sent(&b)).unwrap();
    let unwatched: Vec<_> =
        report.unwatched.iter().map(|other| (other.model.as_str(), other.reason)).collect();
    assert_eq!(unwatched, [("normals", UnwatchedReason::OtherHost)]);
    assert_eq!(report.versions[0].window.hosts, 1);
    let report = a.merged_report(now(), Some("iris-classifier"), &sent(&b)).unwrap();
    assert!(report.unwatched.is_empty(), "{report:?}");
}

#[test]
fn windows_of_another_shape_are_refused() {
    let window = WindowShape::Decayed { half_life: Duration::from_secs(60) };
    let decayed =
        watched(IRIS, IRIS_SIGNATURE, &DriftSettings { window, ..DriftSettings::default() });
    let error = iris_monitor().merged_report(now(), None, &sent(&decayed)).unwrap_err();
    assert!(error.to_string().contains("half-life 1m, not 10000 records"), "{error}");
}

#[test]
fn windows_of_another_baseline_or_format_are_refused() {
    let (a, b) = (
        iris_monitor(),
        watched(
            &IRIS.replacen("[19, 11,", "[18, 12,", 1),
            IRIS_SIGNATURE,
            &DriftSettings::default(),
        ),
    );
    let error = a.merged_report(now(), None, &sent(&b)).unwrap_err().to_string();
    assert!(error.contains("iris-classifier version 1 has another baseline.json"), "{error}");
    let json = serde_json::to_string(&[b.windows()]).unwrap();
    for (from, to, part) in [
        ("\"format\":1", "\"format\":2", "format 2 is of another version"),
        ("\"starts\"", "\"started\"", "unknown field"),
        ("[{", "{", "invalid type"),
    ] {
        let error = format!(
            "{:#}",
            SavedWindows::parse_all(json.replacen(from, to, 1).as_bytes()).unwrap_err()
        );
        assert!(error.contains(part), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn damaged_windows_are_merged_or_refused(
        at in 0..1_500_usize,
        length in 0_usize..40,
        with in "[ -~]{0,10}",
    ) {
        let (first, monitor) = (iris_monitor(), iris_monitor());
        monitor.observe(&iris(&[[5.0, 3.0, 4.0, 1.0]], "rose"));
        let json = serde_json::to_string(&[monitor.windows()]).unwrap();
        let end = json.len().min(at + length);
        let damaged = format!("{}{with}{}", &json[..at.min(end)], &json[end..]);
        if let Ok(others) = SavedWindows::parse_all(damaged.as_bytes()) {
            let _ = first.merged_report(now(), None, &others);
        }
    }
}
