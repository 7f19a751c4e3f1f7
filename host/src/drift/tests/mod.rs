//! Tests from records to the report, by subject.
#![expect(clippy::cast_possible_truncation, reason = "features are FP32")]

mod alarms;
mod cost;
mod counts;
mod merging;
mod performance;
mod restart;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use spinfer_model_toml::ModelToml;
use uuid::Uuid;

use super::baseline::{BaselineFile, PresentValues as Sample, summarize_numbers};
use super::report::{FieldReport, Reading, UnwatchedReason};
use super::settings::WindowShape;
use super::*;
use crate::prediction_log::Observer;
use crate::prediction_log::names::Names;
use crate::prediction_log::record::{
    CacheOutcome, ColumnValues, Columns, LogEntry, Predictions, RequestContext,
};

const IRIS: &str = include_str!("../../../../models/iris-classifier/1/baseline.json");
const IRIS_SIGNATURE: &str = include_str!("../../../../models/iris-classifier/1/model.toml");
const FEATURES: [&str; 4] = ["sepal_length", "sepal_width", "petal_length", "petal_width"];

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn names(names: &[&str]) -> Names {
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
        model: model.into(),
        version: "1".into(),
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

/// The entry at another time.
fn at(time: SystemTime, mut entry: LogEntry) -> LogEntry {
    Arc::make_mut(&mut entry.context).time = time;
    entry
}

fn watched(baseline: &str, signature: &str, settings: &DriftSettings) -> Monitor {
    let signature = ModelToml::parse(signature).unwrap();
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

/// A monitor of a model with eight normally distributed features, whose baseline has `rows` rows.
fn normals_monitor(rows: usize, random: &mut fastrand::Rng) -> Monitor {
    normals_watched(&normals_baseline(rows, random))
}

fn normals_fields() -> Vec<String> {
    (0..NORMALS).map(|index| format!("x{index}")).collect()
}

fn normals_baseline(rows: usize, random: &mut fastrand::Rng) -> String {
    let features = normals_fields().into_iter().map(|field| {
        let values = (0..rows).map(|_| normal(random)).collect();
        (field, summarize_numbers(Sample::Single(values), 0))
    });
    let file = BaselineFile {
        model: "normals".into(),
        version: "1".into(),
        rows: rows as u64,
        features: features.collect(),
        outputs: [].into(),
        calibration: None,
    };
    serde_json::to_string(&file).unwrap()
}

fn normals_watched(baseline: &str) -> Monitor {
    let fields = normals_fields();
    let signature = format!(
        "name = 'normals'\nversion = '1'\noutputs = []\n[[inputs]]\nname = 'x'\ndatatype = 'FP32'\n\
         shape = [-1, {NORMALS}]\nfields = {fields:?}"
    );
    watched(baseline, &signature, &DriftSettings::default())
}

const NORMALS: usize = 8;

/// A normally distributed value (Box and Muller 1958).
fn normal(random: &mut fastrand::Rng) -> f32 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * random.f64()).cos()) as f32
}

fn observe_normals(monitor: &Monitor, records: u32, shift: f32, random: &mut fastrand::Rng) {
    let mut values: Vec<f32> = (0..records as usize * NORMALS).map(|_| normal(random)).collect();
    values.iter_mut().skip(3).step_by(NORMALS).for_each(|x| *x += shift);
    let columns = Columns { names: normals_fields().into(), values: ColumnValues::Fp32(values) };
    monitor.observe(&entry("normals", records, vec![columns], Vec::new()));
}

/// The features that drifted.
fn drifted(monitor: &Monitor) -> Vec<String> {
    let report = monitor.report(now(), None);
    let drifted = report.versions[0].features.iter().filter(|f| f.status == Status::Drift);
    drifted.map(|field| field.name.clone()).collect()
}
