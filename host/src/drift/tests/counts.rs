//! What is counted, and the scores of it.

use super::super::baseline::Summary;
use super::super::report::{UnseenCount, WassersteinGap};
use super::*;

#[test]
fn value_is_counted_in_its_bin_and_nan_as_missing() {
    let monitor = iris_monitor();
    monitor.observe(&iris(&[[4.0, 3.0, 1.45, 9.0], [4.85, f32::NAN, 1.0, 9.0]], "virginica"));
    let counted = |name: &str| {
        let field = field(&monitor, name);
        (field.n, field.missing, field.current)
    };
    assert_eq!(
        counted("sepal_length").2[..3],
        [0.5, 0.5, 0.0],
        "an edge belongs to the bin above it"
    );
    assert_eq!(counted("sepal_width").0, 1);
    assert_eq!(counted("sepal_width").1, 1);
    assert_eq!(counted("petal_width").2[8], 1.0);
    assert_eq!(counted("label"), (2, 0, vec![0.0, 0.0, 1.0, 0.0]));
    // The short form has no probabilities.
    assert_eq!(counted("probabilities[0]").0, 0);
    assert_eq!(field(&monitor, "sepal_width").missing_share, 0.5);
}

#[test]
fn class_is_counted_once_by_number_or_by_name() {
    let monitor = iris_monitor();
    let label = |values| Columns { names: names(&["label"]), values };
    let prediction = Columns {
        names: names(&["prediction"]),
        values: ColumnValues::Text(vec!["setosa".into(), "rose".into()]),
    };
    for (outputs, expected) in [
        (vec![label(ColumnValues::Int64(vec![1, 7])), prediction.clone()], [0.0, 0.5, 0.0, 0.5]),
        (vec![label(ColumnValues::Fp64(vec![1.0, f64::NAN]))], [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]),
        (vec![prediction], [0.2, 0.4, 0.0, 0.4]),
    ] {
        monitor.observe(&entry("iris-classifier", 2, Vec::new(), outputs));
        assert_eq!(field(&monitor, "label").current, expected);
    }
    assert_eq!(field(&monitor, "label").missing, 1);
    assert_eq!(field(&monitor, "label").bins, ["setosa", "versicolor", "virginica", "other"]);
}

#[test]
fn records_outside_the_sample_are_not_counted() {
    let share = 0.25;
    let monitor = iris_monitor().with_samples([("iris", share), ("other", 1.0), ("none", 0.0)]);
    let observe = |component: &str, id: Uuid, sample: f64| {
        let mut entry = iris(&[[5.0, 3.0, 4.0, 1.0]], "setosa");
        let context = Arc::make_mut(&mut entry.context);
        (context.component, context.id, context.sample) = (component.into(), id, sample);
        monitor.observe(&entry);
        monitor.report(now(), None).versions[0].window.records
    };
    let sample = crate::prediction_log::Sample::new(share);
    let of_sample = |id: &Uuid| sample.includes(*id);
    let ids = || (0..100).map(Uuid::from_u128);
    let inside = ids().find(of_sample).unwrap();
    let outside = ids().find(|id| !of_sample(id)).unwrap();
    assert_eq!(observe("iris", outside, 1.0), 0, "an error, or `spinfer-log: always`");
    assert_eq!(observe("iris", inside, share), 1);
    assert_eq!(observe("iris", inside, 1.0), 2, "of these, too, those in the sample");
    assert_eq!(observe("other", outside, 1.0), 3, "a component that logs all");
    assert_eq!(observe("unknown", outside, 1.0), 4);
    assert_eq!(observe("none", inside, 1.0), 4, "there is no sample");
}

#[test]
fn unknown_models_and_columns_are_not_counted() {
    let monitor = iris_monitor();
    monitor.observe(&entry("wine", 1, Vec::new(), Vec::new()));
    let strange =
        Columns { names: names(&["x", "sepal_width"]), values: ColumnValues::Fp32(vec![1.0]) };
    // Fewer values than rows, which a component may send.
    monitor.observe(&entry("iris-classifier", 9, vec![strange], Vec::new()));
    // A hashed field.
    let hashed = Columns {
        names: names(&["sepal_length"]),
        values: ColumnValues::Text(vec!["5d41".into()]),
    };
    monitor.observe(&entry("iris-classifier", 1, vec![hashed], Vec::new()));
    let report = monitor.report(now(), None);
    assert_eq!(report.versions[0].window.records, 10);
    assert!(report.versions[0].fields().all(|field| field.n == 0), "{report:?}");
    assert!(monitor.report(now(), Some("wine")).versions.is_empty());
}

#[test]
fn unwatched_versions_are_listed_and_conflicting_ones_are_rejected() {
    let signature = ModelToml::parse(IRIS_SIGNATURE).unwrap();
    let baseline = |text: &str| Some(Arc::new(Baseline::parse(text, &signature).unwrap()));
    let model = |name: &str, version: Option<&str>, enabled, baseline| WatchedModel {
        name: name.into(),
        version: version.map(Into::into),
        settings: DriftSettings { enabled, ..DriftSettings::default() },
        baseline,
        logged: true,
    };
    let monitor = Monitor::new(&[
        model("wine", None, true, None),
        model("rose", Some("2"), false, None),
        model("iris-classifier", Some("1"), true, baseline(IRIS)),
        model("iris-classifier", Some("1"), true, baseline(IRIS)),
        WatchedModel { logged: false, ..model("tulip", None, true, baseline(IRIS)) },
    ])
    .unwrap();
    let report = monitor.report(now(), None);
    assert_eq!(report.versions.len(), 1);
    let unwatched: Vec<_> = report.unwatched.iter().map(|other| other.reason).collect();
    assert_eq!(
        unwatched,
        [UnwatchedReason::NoBaseline, UnwatchedReason::Disabled, UnwatchedReason::NotLogged]
    );
    assert_eq!(monitor.models(), ["iris-classifier", "rose", "tulip", "wine"]);
    assert!(monitor.is_mounted("wine") && !monitor.is_mounted("lily"));

    let other = IRIS.replacen("[19, 11,", "[18, 12,", 1);
    let error = Monitor::new(&[
        model("iris-classifier", Some("1"), true, baseline(IRIS)),
        model("iris-classifier", Some("1"), true, baseline(&other)),
    ])
    .unwrap_err();
    assert!(error.to_string().contains("version 1 of the model `iris-classifier`"), "{error}");
}

/// A monitor of one feature with these reference values.
fn one_feature(values: &[f32]) -> Monitor {
    let file = BaselineFile {
        model: "one".into(),
        version: "1".into(),
        rows: values.len() as u64,
        features: [("x".into(), summarize_numbers(Sample::Single(values.to_vec()), 0))].into(),
        outputs: [].into(),
        calibration: None,
    };
    watched(&serde_json::to_string(&file).unwrap(), ONE_FEATURE, &DriftSettings::default())
}

const ONE_FEATURE: &str = "name = 'one'\nversion = '1'\noutputs = []\n[[inputs]]\nname = 'x'\n\
                           datatype = 'FP32'\nshape = [-1, 1]";

fn observe_one(monitor: &Monitor, values: &[f32]) {
    let columns = Columns { names: names(&["x"]), values: ColumnValues::Fp32(values.to_vec()) };
    monitor.observe(&entry("one", values.len() as u32, vec![columns], Vec::new()));
}

#[test]
fn wasserstein_distance_is_that_of_the_values_within_its_error() {
    let mut random = fastrand::Rng::with_seed(5);
    let draw = |n: usize, random: &mut fastrand::Rng| (0..n).map(|_| normal(random)).collect();
    let reference: Vec<f32> = draw(1_000, &mut random);
    let current: Vec<f32> =
        draw(800, &mut random).into_iter().map(|x: f32| 1.4 * x + 0.3).collect();
    let monitor = one_feature(&reference);
    observe_one(&monitor, &current);
    let found = field(&monitor, "x").wasserstein.unwrap();
    let mean = reference.iter().map(|&x| f64::from(x)).sum::<f64>() / 1_000.0;
    let variance = reference.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / 1_000.0;
    let each = |values: &[f32]| -> Vec<_> {
        values.iter().map(|&x| (f64::from(x) / variance.sqrt(), 1.0)).collect()
    };
    let exact = spinfer_statistics::wasserstein::distance(&each(&reference), &each(&current));
    let exact = exact.unwrap();
    assert!((found.distance - exact).abs() <= found.error, "{found:?}, not {exact}");
    // In deciles it is far more precise than the bound.
    assert!((found.distance - exact).abs() < 0.05 && found.error < 0.7, "{found:?}, not {exact}");
}

#[test]
fn constant_feature_has_no_distance_and_any_change_is_drift() {
    let monitor = one_feature(&[3.5; 300]);
    observe_one(&monitor, &[3.5; 300]);
    let before = field(&monitor, "x");
    assert_eq!((before.status, before.psi, before.wasserstein), (Status::Ok, Some(0.0), None));
    assert_eq!(before.wasserstein_reason, Some(WassersteinGap::Constant));
    observe_one(&monitor, &[3.6; 100]);
    assert_eq!(field(&monitor, "x").status, Status::Drift);
}

#[test]
fn infinite_values_are_counted_and_have_no_distance() {
    let reference: Vec<f32> = (0..300).map(|x| x as f32).collect();
    let monitor = one_feature(&reference);
    observe_one(&monitor, &reference);
    assert!(field(&monitor, "x").wasserstein.unwrap().distance < 1e-6);
    observe_one(&monitor, &[f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
    let found = field(&monitor, "x");
    assert_eq!((found.n, found.missing, found.wasserstein), (302, 1, None));
    assert_eq!(found.wasserstein_reason, Some(WassersteinGap::Infinite));
    assert!(found.psi.unwrap().is_finite() && found.status == Status::Ok, "{found:?}");
}

#[test]
fn baseline_of_missing_values_only_has_no_scores_and_present_ones_are_drift() {
    let file = BaselineFile {
        model: "one".into(),
        version: "1".into(),
        rows: 300,
        features: [("x".into(), summarize_numbers(Sample::Single(Vec::new()), 300))].into(),
        outputs: [].into(),
        calibration: None,
    };
    let text = serde_json::to_string(&file).unwrap();
    let monitor = watched(&text, ONE_FEATURE, &DriftSettings::default());
    observe_one(&monitor, &[1.0; 300]);
    let found = field(&monitor, "x");
    assert_eq!((found.status, found.psi), (Status::Drift, None), "{found:?}");
    assert_eq!(found.baseline_missing_share, 1.0);
}

#[test]
fn baseline_without_any_value_has_no_scores_and_raises_no_alarm() {
    let none = Summary::Category { values: Vec::new(), counts: Vec::new(), count: 0, missing: 0 };
    let file = BaselineFile {
        model: "one".into(),
        version: "1".into(),
        rows: 0,
        features: [("x".into(), summarize_numbers(Sample::Single(Vec::new()), 0))].into(),
        outputs: [("label".into(), none)].into(),
        calibration: None,
    };
    let signature = ONE_FEATURE.replace("outputs = []\n", "")
        + "\n[[outputs]]\nname = 'label'\ndatatype = 'INT64'\nshape = [-1]";
    let text = serde_json::to_string(&file).unwrap();
    let monitor = watched(&text, &signature, &DriftSettings::default());
    let x = Columns { names: names(&["x"]), values: ColumnValues::Fp32(vec![1.0; 300]) };
    let label = Columns { names: names(&["label"]), values: ColumnValues::Int64(vec![7; 300]) };
    monitor.observe(&entry("one", 300, vec![x], vec![label]));
    // JSON has no NaN: one would be null, and not be read as a number.
    let json = serde_json::to_string(&monitor.report(now(), None)).unwrap();
    let report: Report = serde_json::from_str(&json).unwrap();
    for field in report.versions[0].fields() {
        assert_eq!((field.status, field.psi), (Status::NotEnoughData, None), "{field:?}");
        assert_eq!((field.n, field.p_value), (300, Some(1.0)), "{field:?}");
    }
    assert_eq!(report.versions[0].outputs[0].unseen.as_ref().unwrap().count, 300);
}

#[test]
fn categories_that_the_baseline_lacks_are_counted_by_name() {
    let monitor = iris_monitor();
    for index in 0..300 {
        let label = ["setosa", "versicolor", "virginica"][index % 3];
        monitor.observe(&iris(&[[5.0, 3.0, 4.0, 1.0]], label));
    }
    let unseen = field(&monitor, "label").unseen.unwrap();
    assert_eq!((unseen.count, unseen.share, unseen.most_frequent.len()), (0, 0.0, 0));
    assert_eq!(unseen.baseline_bound, 0.025, "the rule of three of 120 rows");
    for index in 0..60 {
        monitor.observe(&iris(&[[5.0, 3.0, 4.0, 1.0]], ["rose", "tulip"][usize::from(index > 44)]));
    }
    let found = field(&monitor, "label");
    let unseen = found.unseen.unwrap();
    let count = |category: &str, count| UnseenCount { category: category.into(), count };
    assert_eq!(unseen.most_frequent, [count("rose", 45), count("tulip", 15)]);
    assert!(unseen.count == 60 && unseen.p_value.unwrap() < 1e-4, "{unseen:?}");
    assert_eq!(found.status, Status::Drift);
    assert_eq!(field(&monitor, "sepal_length").unseen.map(|unseen| unseen.count), None);
}

#[test]
fn baseline_of_an_earlier_version_is_read_without_moments() {
    let mut file: serde_json::Value = serde_json::from_str(IRIS).unwrap();
    for field in file["features"].as_object_mut().unwrap().values_mut() {
        let field = field.as_object_mut().unwrap();
        field.remove("means");
        field.remove("deviations");
    }
    let monitor = watched(&file.to_string(), IRIS_SIGNATURE, &DriftSettings::default());
    for _ in 0..250 {
        monitor.observe(&iris(&[[5.0, 3.0, 4.0, 1.0]], "setosa"));
    }
    let found = field(&monitor, "sepal_length");
    assert!(found.psi.is_some() && found.wasserstein.is_none());
    assert_eq!(found.wasserstein_reason, Some(WassersteinGap::NoMoments));
}
