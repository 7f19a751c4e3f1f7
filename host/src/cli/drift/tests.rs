use super::*;
use crate::admin;
use crate::drift::report::{ChiSquaredReport, DriftKind, WassersteinReport};

fn field(name: &str, status: Status) -> FieldReport {
    FieldReport {
        name: name.into(),
        kind: DriftKind::Number,
        status,
        since: None,
        n: 10_000,
        effective_n: 10_000.0,
        missing: 1234,
        missing_share: 0.1099,
        baseline_missing_share: 0.0,
        psi: Some(12.345),
        psi_reading: None,
        ks: Some(1.0),
        js: Some(0.987),
        chi_squared: Some(ChiSquaredReport { statistic: 123_456.0, degrees: 9, p_value: 0.0 }),
        wasserstein: Some(WassersteinReport { distance: 12.3456, error: 0.1 }),
        wasserstein_reason: None,
        p_value: Some(1e-9),
        unseen: None,
        bins: Vec::new(),
        baseline: vec![0.1; 10],
        current: vec![0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.75],
    }
}

fn version() -> VersionReport {
    let absent = FieldReport {
        n: 0,
        missing: 0,
        psi: None,
        ks: None,
        js: None,
        chi_squared: None,
        wasserstein: None,
        p_value: None,
        ..field("b", Status::NotLogged)
    };
    VersionReport {
        model: "wine".into(),
        version: "1".into(),
        status: Status::Drift,
        feature_drift: Some(true),
        prediction_drift: Some(false),
        baseline_rows: 120,
        window: WindowReport {
            hosts: 1,
            records: 10_000,
            effective_records: 10_000.0,
            max_records: Some(10_000),
            max_age_seconds: Some(86_400),
            half_life_seconds: None,
            minimum: 200,
            from: Some("2026-11-29T10:00:00Z".into()),
            to: Some("2026-11-29T11:00:00Z".into()),
        },
        alpha: 0.01,
        performance: None,
        features: vec![field("a_name_that_is_far_too_long\u{1b}[2", Status::Drift), absent],
        outputs: vec![field("probabilities[2]", Status::Ok)],
    }
}

/// What is printed of a version.
fn version_text(version: &VersionReport, whole: bool) -> String {
    let mut out = Vec::new();
    write_version(version, whole, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// What is printed of a report of all models.
fn report_text(report: &Report) -> String {
    let mut out = Vec::new();
    write_report(report, false, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn table_fits_100_columns() {
    let text = version_text(&version(), true);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let head = "\
wine version 1: drift
10000 records, 2026-11-29T10:00:00Z to 2026-11-29T11:00:00Z
against 120 reference rows; chance of any false alarm, ever: 0.01
";
    assert!(text.starts_with(head), "{text}");
    assert!(text.contains("▂▂▂▂▂▂▂▂▂▂") && text.contains("▁▁▁▁▁▁▁▁▃█"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn models_without_drift_detection_are_listed_with_the_fix() {
    let unwatched = |version: Option<&str>, reason| Unwatched {
        model: "wine".into(),
        version: version.map(Into::into),
        reason,
        hosts: Vec::new(),
    };
    let report = Report {
        versions: Vec::new(),
        unwatched: vec![
            unwatched(Some("2"), UnwatchedReason::NoBaseline),
            unwatched(None, UnwatchedReason::Disabled),
        ],
    };
    let text = report_text(&report);
    assert!(text.contains("spinfer baseline data.csv --model wine --version 2"), "{text}");
    assert!(text.contains("wine: disabled"), "{text}");
}

#[test]
fn default_address_is_that_of_the_admin_plane() {
    use clap::FromArgMatches;
    let command = DriftOptions::augment_args(clap::Command::new("drift"));
    let matches = command.get_matches_from(["drift"]);
    let drift = DriftOptions::from_arg_matches(&matches).unwrap();
    assert_eq!(
        drift.admin.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [admin::DEFAULT.to_string()]
    );
}

#[test]
fn unseen_categories_alarms_and_accuracy_are_printed_below_the_table() {
    let unseen = UnseenReport {
        count: 12,
        share: 0.012,
        baseline_bound: 0.025,
        p_value: Some(1e-4),
        most_frequent: vec![UnseenCount { category: "a\u{1b}b".into(), count: 9 }],
    };
    let label = FieldReport {
        unseen: Some(unseen),
        since: Some("2026-11-29T10:30:00Z".into()),
        ..field("label", Status::Drift)
    };
    let performance = Performance {
        n: 400,
        expected_accuracy: Some(0.9),
        standard_error: Some(0.015),
        baseline_accuracy: 0.97,
        labelled: 0,
        accuracy: None,
        classes: vec!["a".into(), "b".into()],
        expected_confusion: vec![vec![0.5, 0.1], vec![0.0, 0.4]],
    };
    let with = |performance| VersionReport {
        outputs: vec![label.clone()],
        performance: Some(performance),
        ..version()
    };
    let text = version_text(&with(performance.clone()), true);
    for line in [
        "label: 12 values (1.2%) of categories not in the baseline, which may have 2.5% at most: a?b (9)",
        "label: in alarm since 2026-11-29T10:30:00Z",
        "accuracy: 0.900 +- 0.030 expected of 400 predictions; no labels; 0.970 on the reference rows",
    ] {
        assert!(text.lines().any(|other| other == line), "{text}");
    }
    let text =
        version_text(&with(Performance { labelled: 50, accuracy: Some(0.8), ..performance }), true);
    assert!(text.contains("; 0.800 on 50 labels; "), "{text}");
}

#[test]
fn decayed_window_is_printed_with_its_half_life() {
    let mut version = version();
    version.window.half_life_seconds = Some(3600.0);
    version.window.effective_records = 345.6;
    let text = version_text(&version, false);
    assert!(text.ends_with(", with a half-life of 1h as precise as 346\n"), "{text}");
    version.window.effective_records = 9_999.4;
    version.window.hosts = 3;
    let text = version_text(&version, false);
    assert!(text.contains("\n10000 records of 3 hosts, "), "{text}");
    assert!(text.ends_with(", with a half-life of 1h\n"), "{text}");
}

#[test]
fn numbers_of_things_are_printed_in_the_singular_or_plural() {
    let mut version = version();
    (version.window.records, version.window.effective_records) = (1, 1.0);
    let text = version_text(&version, false);
    assert!(text.contains("\n1 record (at least 200 needed), "), "{text}");
    assert_eq!((counted(0, "label"), counted(2, "label")), ("0 labels".into(), "2 labels".into()));
}

#[test]
fn long_names_are_shortened_in_the_middle_to_the_available_width() {
    assert_eq!(shorten("petal_width", 11), "petal_width");
    assert_eq!(shorten("mean_petal_width_cm", 11), "mean_…th_cm");
    let name = "sensor_0123456789_mean_of_last_hour";
    let mut version = version();
    version.features = vec![FieldReport { chi_squared: None, ..field(name, Status::Ok) }];
    let text = version_text(&version, true);
    assert!(text.contains(" sensor_0") && text.contains("hour "), "{text}");
    assert!(text.contains('…') && text.lines().all(|line| line.chars().count() <= 100), "{text}");
    // With narrow columns there is space for the whole name.
    let narrow = |name: &str| FieldReport {
        psi: None,
        ks: None,
        js: None,
        chi_squared: None,
        wasserstein: None,
        p_value: None,
        ..field(name, Status::Ok)
    };
    (version.features, version.outputs) = (vec![narrow(name)], vec![narrow("label")]);
    let text = version_text(&version, true);
    assert!(text.contains(name), "{text}");
}

#[test]
fn version_of_another_host_is_listed() {
    let other = Unwatched {
        model: "wine".into(),
        version: Some("2".into()),
        reason: UnwatchedReason::OtherHost,
        hosts: Vec::new(),
    };
    let report = Report { versions: Vec::new(), unwatched: vec![other] };
    let text = report_text(&report);
    assert!(text.starts_with("wine version 2: watched on another host"), "{text}");
}

#[test]
fn version_that_only_some_hosts_watch_is_listed_with_the_others() {
    let of_host = |host: &str| Report {
        versions: Vec::new(),
        unwatched: vec![Unwatched {
            model: "wine".into(),
            version: Some("1".into()),
            reason: UnwatchedReason::Disabled,
            hosts: vec![host.into()],
        }],
    };
    let mut report = Report { versions: vec![version()], unwatched: Vec::new() };
    report.add(of_host("a:3001"));
    report.add(of_host("b:3001"));
    let text = report_text(&report);
    assert!(
        text.ends_with("\nwine version 1, on a:3001, b:3001: disabled (drift.enabled = false)\n"),
        "{text}"
    );
}
