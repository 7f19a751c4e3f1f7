//! Tests of the log through its API, with a real file.

mod faults;
mod feedback;
mod modes;
mod output;
mod records;
mod recovery;
mod retention;
mod units;

use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::feedback::Truth;
use super::names::Names;
use super::reader::{Filter, LogReader, StoredRecord};
use super::record::{
    CacheOutcome, ColumnValues, Columns, Exposure, LogEntry, Predictions, RequestContext,
};
use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// A UUIDv7 of `time`, with `number` in its random part.
pub(super) fn id_at(time: SystemTime, number: u64) -> Uuid {
    let millis = time.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let millis = u64::try_from(millis).unwrap();
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

fn id(number: u64) -> Uuid {
    id_at(SystemTime::now(), number)
}

pub(super) fn context(id: Uuid, time: SystemTime) -> RequestContext {
    RequestContext {
        id,
        time,
        route: "/v2/models/iris/...".into(),
        component: "iris-1".into(),
        exposure: Some(Exposure {
            unit: Some("0123456789abcdef".into()),
            propensity: Some(0.75),
            ..Exposure::new("iris", "control")
        }),
        cache: CacheOutcome::Miss,
        status: 200,
        latency: Duration::from_micros(120),
        sample: 1.0,
        trace_id: None,
    }
}

/// One row of iris, predicted as the class with the index `class`.
pub(super) fn iris(class: usize) -> Predictions {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Names>();
    let mut probabilities = vec![0.1_f32; 3];
    probabilities[class] = 0.8;
    let measured = ["sepal_length", "sepal_width", "petal_length", "petal_width"];
    Predictions {
        model: "iris-classifier".into(),
        version: "1".into(),
        rows: 1,
        inputs: vec![Columns {
            names: names(&measured),
            values: ColumnValues::Fp32(vec![5.1, 3.5, 1.4, f32::NAN]),
        }],
        outputs: vec![
            Columns {
                names: names(&["prediction"]),
                values: ColumnValues::Text(vec![LABELS[class].into()]),
            },
            Columns {
                names: names(&["probabilities[0]", "probabilities[1]", "probabilities[2]"]),
                values: ColumnValues::Fp32(probabilities),
            },
        ],
        omitted: Vec::new(),
        attributes: vec![("operation".into(), "predict".into())],
    }
}

const LABELS: [&str; 3] = ["setosa", "versicolor", "virginica"];

fn entry(id: Uuid, class: usize) -> LogEntry {
    entry_at(id, class, SystemTime::now())
}

pub(super) fn entry_at(id: Uuid, class: usize, time: SystemTime) -> LogEntry {
    let (context, predictions) = (context(id, time).into(), iris(class).into());
    LogEntry { context, first_row: 0, predictions }
}

fn info() -> ModelInfo {
    ModelInfo {
        model: "iris-classifier".into(),
        version: "1".into(),
        labels: LABELS.map(str::to_owned).into(),
        probabilities: Some("probabilities".into()),
    }
}

fn open_with(folder: &Path, settings: PredictionLogSettings) -> Arc<PredictionLog> {
    PredictionLog::open(folder, settings, vec![info()], Vec::new()).unwrap()
}

pub(super) fn open(folder: &Path) -> Arc<PredictionLog> {
    open_with(folder, PredictionLogSettings::default())
}

pub(super) fn close(log: &PredictionLog) -> Accounting {
    let accounting = log.shut_down(PATIENCE);
    assert_balanced(&accounting);
    assert_eq!(accounting.pending, 0, "{accounting:?}");
    accounting
}

fn assert_balanced(accounting: &Accounting) {
    let Accounting { accepted, written, dropped, pending } = *accounting;
    assert_eq!(accepted, written + dropped.total() + pending, "{accounting:?}");
}

/// Waits until another thread has made `condition` true.
pub(super) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "timeout: {what}");
        std::thread::yield_now();
    }
}

fn records(folder: &Path) -> Vec<StoredRecord> {
    let mut reader = LogReader::open(&folder.join(schema::FILE)).unwrap().expect("there is a file");
    let mut records = Vec::new();
    let snapshot = reader.snapshot().unwrap();
    snapshot
        .each(&Filter::default(), |record| {
            records.push(record);
            anyhow::Ok(())
        })
        .unwrap();
    records
}

/// Stores feedback.
pub(super) fn feed(
    log: &PredictionLog,
    items: Vec<FeedbackItem>,
) -> Result<Receipt, FeedbackError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(log.feedback(items))
}

pub(super) fn item(prediction_id: Uuid, truth: Truth, time: i64) -> FeedbackItem {
    FeedbackItem { index: 0, prediction_id, row: 0, truth, time }
}

pub(super) fn label(text: &str) -> Truth {
    Truth::Label(text.into())
}

/// A file system with a fixed size, unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts a file system of `bytes`; `None` without the permission to mount.
    fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(folder.path());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = std::process::Command::new("umount");
        let _ = unmount.arg("-l").arg(self.path()).status();
    }
}
