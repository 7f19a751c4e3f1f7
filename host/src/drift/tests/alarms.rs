//! When alarms are raised and cleared.

use super::*;

#[test]
fn status_needs_the_minimum_number_of_records() {
    let monitor = iris_monitor();
    let mut random = fastrand::Rng::with_seed(2);
    for index in 0..199 {
        let label = ["setosa", "versicolor", "virginica"][index % 3];
        monitor.observe(&iris(&[from_baseline(&mut random)], label));
    }
    let report = &monitor.report(now(), None).versions[0];
    assert_eq!((report.status, report.feature_drift), (Status::NotEnoughData, None));
    assert!(report.fields().all(|f| f.status == Status::NotEnoughData && f.psi.is_none()));
    monitor.observe(&iris(&[from_baseline(&mut random)], "setosa"));
    let report = &monitor.report(now(), None).versions[0];
    assert_eq!((report.status, report.feature_drift), (Status::Ok, Some(false)));
    // A day later the records are too old.
    let later = now() + Duration::from_secs(24 * 3600 + 1);
    assert_eq!(monitor.report(later, None).versions[0].status, Status::NotEnoughData);
}

#[test]
fn gross_drift_is_an_alarm_before_there_are_scores_and_until_records_contradict() {
    let monitor = iris_monitor();
    assert_eq!(monitor.in_alarm("iris-classifier", "1"), Some(false));
    assert_eq!(monitor.in_alarm("iris-classifier", "2"), None);
    for _ in 0..100 {
        monitor.observe(&iris(&[[9.0; 4]], "setosa"));
    }
    let report = &monitor.report(now(), None).versions[0];
    assert_eq!((report.status, report.feature_drift), (Status::Drift, Some(true)));
    assert_eq!(report.features[0].since.as_deref(), Some("2023-11-14T22:13:20.000000Z"));
    assert!(report.features.iter().all(|field| field.psi.is_none()), "fewer than the minimum");
    assert_eq!(monitor.in_alarm("iris-classifier", "1"), Some(true));
    for _ in 0..100 {
        monitor.observe(&iris(&[[9.0; 4]], "setosa"));
    }
    let report = &monitor.report(now(), None).versions[0];
    assert_eq!(report.status, Status::Drift);
    assert_eq!((report.feature_drift, report.prediction_drift), (Some(true), Some(true)));
    assert_eq!(report.features[0].psi_reading, Some(Reading::Large));
    assert!(report.features.iter().all(|field| field.ks.unwrap() > 0.8));
    let [label, probability, ..] = &report.outputs[..] else { panic!("{report:?}") };
    assert_eq!((label.status, label.ks), (Status::Drift, None));
    assert_eq!(probability.status, Status::NotLogged);
    // A day later the records are too old, which does not mean that the drift is over.
    let later = now() + Duration::from_secs(24 * 3600 + 1);
    assert_eq!(monitor.report(later, None).versions[0].status, Status::Drift);
    let mut random = fastrand::Rng::with_seed(3);
    for index in 0..300 {
        let label = ["setosa", "versicolor", "virginica"][index % 3];
        monitor.observe(&at(later, iris(&[from_baseline(&mut random)], label)));
    }
    let report = &monitor.report(later, None).versions[0];
    assert_eq!((report.status, report.features[0].since.as_deref()), (Status::Ok, None));
    assert_eq!(monitor.in_alarm("iris-classifier", "1"), Some(false));
}

#[test]
fn missing_values_alone_are_drift() {
    let monitor = iris_monitor();
    let mut random = fastrand::Rng::with_seed(1);
    for index in 0..600 {
        let mut row = from_baseline(&mut random);
        if index % 5 == 0 {
            row[1] = f32::NAN;
        }
        monitor.observe(&iris(&[row], ["setosa", "versicolor", "virginica"][index % 3]));
    }
    let report = &monitor.report(now(), None).versions[0];
    let drifted: Vec<_> =
        report.fields().filter(|f| f.status == Status::Drift).map(|f| f.name.as_str()).collect();
    assert_eq!(drifted, ["sepal_width"], "{report:#?}");
    assert_eq!(report.prediction_drift, Some(false));
}

/// Without drift, at most alpha = 1 % of the versions have an alarm, ever. The larger simulations are
/// in `host/statistics/examples/drift_alarms`.
#[test]
fn false_alarm_rate_is_at_most_alpha() {
    let mut alarms = 0;
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        let monitor = normals_monitor(300, &mut random);
        for _ in 0..10 {
            observe_normals(&monitor, 40, 0.0, &mut random);
            alarms += usize::from(!drifted(&monitor).is_empty());
        }
    }
    assert!(alarms <= 1, "{alarms} false alarms in 1000 looks at 100 versions");
}

/// A shift of one standard deviation is detected with 200 records against 300 rows, and in no other
/// feature.
#[test]
fn only_the_shifted_feature_is_reported() {
    let (mut found, mut others) = (0, 0);
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let monitor = normals_monitor(300, &mut random);
        observe_normals(&monitor, 200, 1.0, &mut random);
        let drifted = drifted(&monitor);
        found += usize::from(drifted.iter().any(|name| name == "x3"));
        others += usize::from(drifted.iter().any(|name| name != "x3"));
    }
    assert!(found >= 49, "found {found} of 50");
    assert!(others <= 1, "{others} false alarms in 50");
}

#[test]
fn half_life_makes_recent_records_count_more() {
    let half_life = Duration::from_secs(3600);
    let settings =
        DriftSettings { window: WindowShape::Decayed { half_life }, ..DriftSettings::default() };
    let monitor = watched(IRIS, IRIS_SIGNATURE, &settings);
    for (hours, value, rows) in [(0_u32, 4.0, 1_600), (4, 7.0, 300)] {
        let time = now() + hours * half_life;
        monitor.observe(&at(time, iris(&vec![[value, 3.0, 4.0, 1.0]; rows], "setosa")));
    }
    let report = &monitor.report(now() + 4 * half_life, None).versions[0];
    let window = &report.window;
    assert_eq!(
        (window.records, window.max_records, window.half_life_seconds),
        (1_900, None, Some(3600.0))
    );
    // 100 + 300 weights, of squares 1600 / 256 + 300.
    let expected = 400.0 * 400.0 / 306.25;
    // Rounded to two decimals.
    assert!((window.effective_records - expected).abs() < 0.006, "{}", window.effective_records);
    let current = &report.features[0].current;
    assert!((current[0] - 0.25).abs() < 1e-12 && (current[9] - 0.75).abs() < 1e-12, "{current:?}");
    assert!((report.features[0].effective_n - expected).abs() < 0.006);
    // The mean of the standardized values, as weighted.
    let distance = report.features[0].wasserstein.unwrap().distance;
    assert!(distance > 1.0, "{distance}");
}
