//! Tests from records to the report.
#![expect(clippy::cast_possible_truncation, reason = "features are FP32")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::baseline::{BaselineFile, PresentValues as Sample, summarize_numbers};
use super::report::{FieldReport, Reading, UnwatchedReason};
use super::signature::FieldSignature;
use super::*;
use crate::prediction_log::Observer;
use crate::prediction_log::record::{
    CacheOutcome, ColumnValues, Columns, LogEntry, Predictions, RequestContext,
};

const IRIS: &str = include_str!("../../../models/iris-classifier/1/baseline.json");
const IRIS_SIGNATURE: &str = include_str!("../../../models/iris-classifier/1/model.toml");
const FEATURES: [&str; 4] = ["sepal_length", "sepal_width", "petal_length", "petal_width"];

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn entry(model: &str, rows: u32, inputs: Vec<Columns>, outputs: Vec<Columns>) -> LogEntry {
    let context = RequestContext {
        id: Uuid::nil(),
        time: now(),
        route: "/...".into(),
        component: "iris".into(),
        exposure: None,
        cache: CacheOutcome::Miss,
        status: 200,
        latency: Duration::ZERO,
        sample: 1.0,
        trace_id: None,
    };
    let predictions = Predictions {
        model: model.to_owned(),
        version: "1".to_owned(),
        rows,
        inputs,
        outputs,
        omitted: Vec::new(),
        attributes: Vec::new(),
    };
    LogEntry { context: Arc::new(context), first_row: 0, predictions: Arc::new(predictions) }
}

/// An entry of rows of four features, with the outputs of the short form.
fn iris(features: &[[f32; 4]], label: &str) -> LogEntry {
    let rows = features.len();
    let inputs = vec![Columns {
        names: names(&FEATURES),
        values: ColumnValues::Fp32(features.as_flattened().to_vec()),
    }];
    let text = |name: &str, text: &str| Columns {
        names: names(&[name]),
        values: ColumnValues::Text(vec![text.to_owned(); rows]),
    };
    let probability =
        Columns { names: names(&["probability"]), values: ColumnValues::Fp32(vec![0.9; rows]) };
    let outputs = vec![text("prediction", label), probability];
    entry("iris-classifier", u32::try_from(rows).unwrap(), inputs, outputs)
}

fn watched(baseline: &str, signature: &str, settings: &DriftSettings) -> Monitor {
    let signature = FieldSignature::parse(signature).unwrap();
    let baseline = Baseline::parse(baseline, &signature).unwrap();
    Monitor::new(&[WatchedModel {
        name: baseline.model.clone(),
        version: Some("1".into()),
        settings: settings.clone(),
        baseline: Some(Arc::new(baseline)),
        logged: true,
    }])
    .unwrap()
}

fn iris_monitor() -> Monitor {
    watched(IRIS, IRIS_SIGNATURE, &DriftSettings::default())
}

fn field(monitor: &Monitor, name: &str) -> FieldReport {
    let report = monitor.report(now(), None);
    report.versions[0].fields().find(|field| field.name == name).unwrap().clone()
}

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
fn status_needs_the_minimum_number_of_records() {
    let monitor = iris_monitor();
    for _ in 0..199 {
        monitor.observe(&iris(&[[9.0; 4]], "setosa"));
    }
    let report = &monitor.report(now(), None).versions[0];
    assert_eq!((report.status, report.feature_drift), (Status::NotEnoughData, None));
    assert!(report.fields().all(|f| f.status == Status::NotEnoughData && f.psi.is_none()));
    monitor.observe(&iris(&[[9.0; 4]], "setosa"));
    let report = &monitor.report(now(), None).versions[0];
    assert_eq!(report.status, Status::Drift);
    assert_eq!((report.feature_drift, report.prediction_drift), (Some(true), Some(true)));
    assert_eq!(report.features[0].psi_reading, Some(Reading::Large));
    assert!(report.features.iter().all(|field| field.ks.unwrap() > 0.8));
    let [label, probability, ..] = &report.outputs[..] else { panic!("{report:?}") };
    assert_eq!((label.status, label.ks), (Status::Drift, None));
    assert_eq!(probability.status, Status::NotLogged);
    // A day later the records are too old.
    let later = now() + Duration::from_secs(24 * 3600 + 1);
    assert_eq!(monitor.report(later, None).versions[0].status, Status::NotEnoughData);
}

#[test]
fn missing_values_alone_are_drift() {
    let monitor = iris_monitor();
    let mut random = fastrand::Rng::with_seed(1);
    for index in 0..600 {
        let mut row = from_baseline(&mut random);
        if index % 10 == 0 {
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

/// A row whose features follow the distribution of the baseline.
fn from_baseline(random: &mut fastrand::Rng) -> [f32; 4] {
    let file: BaselineFile = serde_json::from_str(IRIS).unwrap();
    FEATURES.map(|feature| {
        let super::baseline::Summary::Number { edges, counts, count, .. } = &file.features[feature]
        else {
            panic!()
        };
        let mut remaining = random.u64(0..*count);
        let bin = counts.iter().position(|&count| {
            let found = remaining < count;
            remaining = remaining.saturating_sub(count);
            found
        });
        let bin = bin.unwrap();
        let low = if bin == 0 { edges[0] - 0.1 } else { edges[bin - 1] };
        low as f32 + 0.01
    })
}

#[test]
fn unwatched_versions_are_listed_and_conflicting_ones_are_rejected() {
    let signature = FieldSignature::parse(IRIS_SIGNATURE).unwrap();
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

/// A monitor of a model with eight normally distributed features, whose baseline has `rows` rows.
fn normals_monitor(rows: usize, random: &mut fastrand::Rng) -> Monitor {
    let fields: Vec<String> = (0..NORMALS).map(|index| format!("x{index}")).collect();
    let features = fields.iter().map(|field| {
        let values = (0..rows).map(|_| normal(random)).collect();
        (field.clone(), summarize_numbers(Sample::Single(values), 0))
    });
    let file = BaselineFile {
        model: "normals".into(),
        version: "1".into(),
        rows: rows as u64,
        features: features.collect(),
        outputs: [].into(),
    };
    let signature = format!(
        "name = 'normals'\nversion = '1'\n[[inputs]]\nname = 'x'\ndatatype = 'FP32'\n\
         shape = [-1, {NORMALS}]\nfields = {fields:?}"
    );
    let text = serde_json::to_string(&file).unwrap();
    watched(&text, &signature, &DriftSettings::default())
}

const NORMALS: usize = 8;

/// A normally distributed value (Box and Muller 1958).
fn normal(random: &mut fastrand::Rng) -> f32 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * random.f64()).cos()) as f32
}

fn observe_normals(monitor: &Monitor, records: u32, shift: f32, random: &mut fastrand::Rng) {
    let fields: Vec<String> = (0..NORMALS).map(|index| format!("x{index}")).collect();
    let mut values: Vec<f32> = (0..records as usize * NORMALS).map(|_| normal(random)).collect();
    values.iter_mut().skip(3).step_by(NORMALS).for_each(|x| *x += shift);
    let columns = Columns { names: fields, values: ColumnValues::Fp32(values) };
    monitor.observe(&entry("normals", records, vec![columns], Vec::new()));
}

/// The features that drifted.
fn drifted(monitor: &Monitor) -> Vec<String> {
    let report = monitor.report(now(), None);
    let drifted = report.versions[0].features.iter().filter(|f| f.status == Status::Drift);
    drifted.map(|field| field.name.clone()).collect()
}

/// Without drift, alpha = 1 % of the windows raise an alarm, and in the simulations of
/// `population_stability` never twice as many: 5 to 10 of 500, plus or minus 3.
#[test]
fn false_alarm_rate_is_about_alpha() {
    let mut alarms = 0;
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let monitor = normals_monitor(300, &mut random);
        observe_normals(&monitor, 400, 0.0, &mut random);
        alarms += usize::from(!drifted(&monitor).is_empty());
    }
    assert!((1..=16).contains(&alarms), "{alarms} false alarms in 500 windows");
}

/// A shift of 0.7 standard deviations is detected with 400 records against 300 rows, and in no
/// other feature, apart from false alarms.
#[test]
fn only_the_shifted_feature_is_reported() {
    let (mut found, mut others) = (0, 0);
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        let monitor = normals_monitor(300, &mut random);
        observe_normals(&monitor, 400, 0.7, &mut random);
        let drifted = drifted(&monitor);
        found += usize::from(drifted.iter().any(|name| name == "x3"));
        others += usize::from(drifted.iter().any(|name| name != "x3"));
    }
    assert!(found >= 98, "found {found} of 100");
    assert!(others <= 4, "{others} false alarms in 100");
}

/// `cargo nextest run -p spinfer drift::tests::cost_of_a_record --run-ignored all --no-capture`
#[test]
#[ignore = "benchmark: prints the cost of a record"]
fn cost_of_a_record() {
    let monitor = iris_monitor();
    let mut random = fastrand::Rng::with_seed(1);
    let entries: Vec<LogEntry> = (0..256)
        .map(|_| {
            let mut entry = iris(&[std::array::from_fn(|_| random.f32() * 7.0)], "versicolor");
            let predictions = Arc::make_mut(&mut entry.predictions);
            let label = Columns { names: names(&["label"]), values: ColumnValues::Int64(vec![1]) };
            let probabilities = Columns {
                names: names(&["probabilities[0]", "probabilities[1]", "probabilities[2]"]),
                values: ColumnValues::Fp32(vec![0.1, 0.8, 0.1]),
            };
            predictions.outputs.extend([label, probabilities]);
            entry
        })
        .collect();
    const ROUNDS: u32 = 4_000;
    let start = std::time::Instant::now();
    for _ in 0..ROUNDS {
        entries.iter().for_each(|entry| monitor.observe(entry));
    }
    let each = start.elapsed() / (ROUNDS * 256);
    let start = std::time::Instant::now();
    let report = monitor.report(now(), None);
    println!("{each:?} per record of iris, {:?} per report", start.elapsed());
    assert!(report.versions[0].window.records >= 9_500);
}
