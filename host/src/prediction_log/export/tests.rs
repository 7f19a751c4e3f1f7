//! Tests of datasets: every record and every item of feedback is in one object, whatever happens
//! between and during exports.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use uuid::Uuid;

use super::dataset::{DatasetReport, export_dataset};
use super::destination::Destination;
use super::layout::{ExportLayout, FieldLayout};
use super::parquet::ParquetFile;
use super::{AFTER, BEFORE, members_of};
use crate::prediction_log::reader::{Member, StoredFeedback, StoredRecord};
use crate::prediction_log::record::{ColumnValues, Columns, LogEntry, Predictions};
use crate::prediction_log::schema;
use crate::prediction_log::tests::{
    close, context, entry_at, feed, id_at, iris, item, label, open, wait_until,
};
use crate::prediction_log::{PredictionLog, feedback::Truth};

/// 2026-11-30 12:00:00.
const NOON: u64 = 1_796_040_000;
const DAY: u64 = 24 * 60 * 60;

/// A log and a dataset in folders of their own.
struct ExportedLog {
    log: Arc<PredictionLog>,
    state: tempfile::TempDir,
    dataset: tempfile::TempDir,
    appended: u64,
}

impl ExportedLog {
    fn new() -> Self {
        let [state, dataset] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Self { log: open(state.path()), state, dataset, appended: 0 }
    }

    /// Writes a record of this time, in seconds of Unix time. Returns its id.
    fn append(&mut self, seconds: u64) -> Uuid {
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        let id = id_at(time, self.appended);
        self.appended += 1;
        assert!(self.log.append(entry_at(id, 1, time)));
        wait_until("it is written", || self.log.accounting().written == self.appended);
        id
    }

    fn export(&self) -> anyhow::Result<DatasetReport> {
        export(self.state.path(), self.dataset.path(), false)
    }

    /// The ids in each object of the dataset's `table`, by the object's folder.
    fn ids(&self, table: &str) -> BTreeMap<String, Vec<String>> {
        ids(self.dataset.path(), table)
    }
}

fn export(state: &Path, dataset: &Path, all: bool) -> anyhow::Result<DatasetReport> {
    let destination = Destination::parse(dataset.to_str().unwrap())?;
    export_dataset(&state.join(schema::FILE), &destination, all, &mut |_| {})
}

fn objects(folder: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter();
    let files = files.map(|entry| entry.unwrap()).filter(|entry| entry.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).collect()
}

fn batches(object: &Path) -> Vec<RecordBatch> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(object).unwrap()).unwrap();
    builder.build().unwrap().map(|batch| batch.unwrap()).collect()
}

fn ids(dataset: &Path, table: &str) -> BTreeMap<String, Vec<String>> {
    let root = dataset.join(table);
    let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if !root.exists() {
        return ids;
    }
    for object in objects(&root) {
        let folder = object.parent().unwrap().strip_prefix(&root).unwrap();
        let of_folder = ids.entry(folder.to_str().unwrap().to_owned()).or_default();
        for batch in batches(&object) {
            let column = batch.column(0).as_string::<i32>();
            of_folder.extend(column.iter().map(|id| id.unwrap().to_owned()));
        }
        of_folder.sort_unstable();
    }
    ids
}

fn counts(report: DatasetReport) -> (u64, u64, u64) {
    (report.objects, report.records, report.feedback)
}

#[test]
fn every_member_of_a_record_has_a_column() {
    let record = StoredRecord::default();
    let names: Vec<_> = members_of(&record).map(|(name, _)| name).collect();
    let (before, rest) = names.split_at(BEFORE.len());
    assert_eq!(before, BEFORE);
    let (fields, after) = rest.split_at(2);
    assert_eq!(fields, ["inputs", "outputs"]);
    assert_eq!(after, AFTER);
}

#[test]
fn column_of_every_member_has_its_value() {
    let text = |text: &str| Some(text.to_owned());
    // Each member has a value of its own: a new one needs one, too.
    let record = StoredRecord {
        id: Uuid::from_u128(1),
        row: 2,
        time: 3,
        model: "model".into(),
        version: "version".into(),
        route: "route".into(),
        component: "component".into(),
        experiment: text("experiment"),
        variant: text("variant"),
        unit: text("unit"),
        propensity: Some(0.25),
        failed_over: text("failed_over"),
        cache: "cache".into(),
        status: 4,
        latency_us: 5,
        sample: Some(0.5),
        trace_id: text("trace_id"),
        inputs: "{\"inputs\":1}".into(),
        outputs: "{\"outputs\":1}".into(),
        attributes: "{\"attributes\":1}".into(),
        omitted: text("[\"omitted\"]"),
        feedback: StoredFeedback { label: text("label"), value: Some(6.0), reward: Some(7.0) },
    };
    let layout = ExportLayout {
        before: BEFORE.to_vec(),
        inputs: FieldLayout::Json("inputs"),
        outputs: FieldLayout::Json("outputs"),
        after: AFTER.to_vec(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.parquet");
    let mut file = ParquetFile::new(&layout, File::create(&path).unwrap()).unwrap();
    file.write(&record).unwrap();
    file.finish().unwrap();
    let [batch] = &batches(&path)[..] else { panic!("one batch") };
    let schema = batch.schema();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, layout.names());
    for (name, member) in members_of(&record) {
        let column = batch.column_by_name(name).unwrap();
        assert_eq!(column.null_count(), 0, "{name}");
        match member {
            Member::Integer(value) => {
                assert_eq!(column.as_primitive::<Int64Type>().value(0), value);
            }
            Member::Time(value) => {
                let times = column.as_primitive::<TimestampMicrosecondType>();
                assert_eq!(times.value(0), value);
            }
            Member::Number(value) => {
                assert_eq!(Some(column.as_primitive::<Float64Type>().value(0)), value);
            }
            member => assert_eq!(column.as_string::<i32>().value(0), member.text(), "{name}"),
        }
    }
}

#[test]
fn export_has_what_is_new_by_model_version_and_day() {
    let mut of = ExportedLog::new();
    let one = of.append(NOON);
    let two = of.append(NOON + DAY);
    assert_eq!(counts(of.export().unwrap()), (2, 2, 0));
    assert_eq!(of.export().unwrap(), DatasetReport::default(), "nothing is new");
    let partition = |day: &str| format!("model=iris-classifier/version=1/day={day}");
    let expected = |days: &[(&str, &[Uuid])]| {
        let ids = |ids: &[Uuid]| ids.iter().map(Uuid::to_string).collect::<Vec<_>>();
        let day = |(day, all): &(&str, &[Uuid])| (partition(day), ids(all));
        days.iter().map(day).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(of.ids("predictions"), expected(&[("2026-11-30", &[one]), ("2026-12-01", &[two])]));
    // A record whose id is older than those that were exported, and late feedback.
    let late = of.append(NOON - 1);
    feed(&of.log, vec![item(one, label("setosa"), 1), item(late, Truth::Value(0.5), 2)]).unwrap();
    assert_eq!(counts(of.export().unwrap()), (2, 1, 1), "a value is no feedback of a classifier");
    assert_eq!(
        of.ids("predictions"),
        expected(&[("2026-11-30", &[late, one]), ("2026-12-01", &[two])])
    );
    // Feedback for an exported record, which replaces exported feedback.
    feed(&of.log, vec![item(one, label("virginica"), 3)]).unwrap();
    assert_eq!(counts(of.export().unwrap()), (1, 0, 1));
    let feedback: Vec<_> = of.ids("feedback").into_values().flatten().collect();
    assert_eq!(feedback, [one.to_string(), one.to_string()]);
    // A new destination has everything, and so has one that is exported to again.
    let other = tempfile::tempdir().unwrap();
    let report = export(of.state.path(), other.path(), false).unwrap();
    assert_eq!(counts(report), (3, 3, 1));
    assert_eq!(ids(other.path(), "predictions"), of.ids("predictions"));
    std::fs::remove_dir_all(other.path()).unwrap();
    assert_eq!(counts(export(of.state.path(), other.path(), true).unwrap()), (3, 3, 1));
    close(&of.log);
}

#[test]
fn aborted_export_is_resumed_without_a_loss_or_a_duplicate() {
    let mut of = ExportedLog::new();
    of.append(NOON);
    of.append(NOON + DAY);
    // A file where the second folder has to be.
    let version = of.dataset.path().join("predictions/model=iris-classifier/version=1");
    std::fs::create_dir_all(&version).unwrap();
    let blocked = version.join("day=2026-12-01");
    std::fs::write(&blocked, "").unwrap();
    for _ in 0..2 {
        let error = format!("{:#}", of.export().unwrap_err());
        assert!(error.contains("day=2026-12-01"), "{error}");
        assert_eq!(objects(of.dataset.path()).len(), 2, "the first object and the file");
    }
    of.append(NOON + 2 * DAY);
    std::fs::remove_file(&blocked).unwrap();
    let report = of.export().unwrap();
    assert_eq!((report.resumed, report.objects, report.records, report.missed), (1, 1, 1, 0));
    assert_eq!(counts(of.export().unwrap()), (1, 1, 0));
    let ids: Vec<_> = of.ids("predictions").into_values().collect();
    assert_eq!(ids.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    close(&of.log);
}

#[test]
fn concurrent_exports_of_a_growing_log_have_each_record_once() {
    let of = ExportedLog::new();
    let total = 400;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut written = 0;
                while written < total {
                    of.export().unwrap();
                    wait_until("more records are written", || {
                        of.log.accounting().written > written
                    });
                    written = of.log.accounting().written;
                }
            });
        }
        for number in 0..total {
            // Ids in no order.
            let seconds = NOON + number * 7919 % (2 * DAY);
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            let entry = || entry_at(id_at(time, number), 1, time);
            wait_until("the queue accepts the record", || of.log.append(entry()));
            if number % 100 == 0 {
                wait_until("a batch is written", || of.log.accounting().pending == 0);
            }
        }
    });
    close(&of.log);
    of.export().unwrap();
    let mut ids: Vec<_> = of.ids("predictions").into_values().flatten().collect();
    ids.sort_unstable();
    assert_eq!(ids.len() as u64, total);
    ids.dedup();
    assert_eq!(ids.len() as u64, total, "no duplicate");
}

#[test]
fn records_that_were_deleted_before_their_export_are_reported() {
    let mut of = ExportedLog::new();
    of.append(NOON);
    of.export().unwrap();
    of.append(NOON + 1);
    let kept = of.append(NOON + 2);
    let file = rusqlite::Connection::open(of.state.path().join(schema::FILE)).unwrap();
    file.execute("DELETE FROM predictions WHERE id < ?1", [kept.as_bytes()]).unwrap();
    let report = of.export().unwrap();
    assert_eq!((report.records, report.missed), (1, 1));
    close(&of.log);
}

#[test]
fn special_characters_of_a_model_are_encoded_in_its_folder() {
    let of = ExportedLog::new();
    let mut predictions = iris(0);
    (predictions.model, predictions.version) = ("a/b: ü%".into(), "".into());
    let context = context(id_at(SystemTime::now(), 1), SystemTime::now()).into();
    assert!(of.log.append(LogEntry { context, first_row: 0, predictions: predictions.into() }));
    close(&of.log);
    assert_eq!(of.export().unwrap().records, 1);
    let ids = of.ids("predictions");
    let folder = ids.keys().next().unwrap();
    let expected = "model=a%2Fb%3A ü%25/version=__HIVE_DEFAULT_PARTITION__/day=";
    assert!(folder.starts_with(expected), "{folder}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn values_are_exported_bit_for_bit(
        rows in prop::collection::vec(
            (any::<f32>(), any::<f64>(), any::<i64>(), any::<bool>(), "\\PC{0,8}"), 1..20,
        ),
    ) {
        let of = ExportedLog::new();
        let mut rows = rows;
        rows.push((-0.0, f64::from_bits(1), i64::MIN, true, "\0\"\n".into()));
        rows.push((f32::from_bits(1), -0.0, i64::MAX, false, String::new()));
        rows.push((f32::NAN, f64::NAN, 0, false, "é".into()));
        let column = |name: &str, values| Columns { names: vec![name.to_owned()].into(), values };
        let predictions = Predictions {
            rows: u32::try_from(rows.len()).unwrap(),
            inputs: vec![
                column("pixels[3]", ColumnValues::Fp32(rows.iter().map(|row| row.0).collect())),
                column("double", ColumnValues::Fp64(rows.iter().map(|row| row.1).collect())),
                column("integer", ColumnValues::Int64(rows.iter().map(|row| row.2).collect())),
                column("flag", ColumnValues::Boolean(rows.iter().map(|row| row.3).collect())),
                column("text", ColumnValues::Text(rows.iter().map(|row| row.4.clone()).collect())),
                column("missing", ColumnValues::Fp32(vec![f32::NAN; rows.len()])),
            ],
            ..iris(0)
        };
        let context = context(id_at(SystemTime::now(), 1), SystemTime::now()).into();
        let entry = LogEntry { context, first_row: 0, predictions: predictions.into() };
        prop_assert!(of.log.append(entry));
        close(&of.log);
        of.export().unwrap();
        let [object] = &objects(of.dataset.path())[..] else { panic!("one object") };
        let batches = batches(object);
        let [batch] = &batches[..] else { panic!("one batch") };
        let column = |name: &str| batch.column_by_name(name).unwrap();
        for (index, (single, double, integer, flag, text)) in rows.iter().enumerate() {
            let number = |name: &str| {
                let column = column(name).as_primitive::<Float64Type>();
                column.iter().nth(index).unwrap()
            };
            // A missing value is null, and JSON has no infinities.
            let expected = single.is_finite().then(|| single.to_bits());
            #[expect(clippy::cast_possible_truncation, reason = "it was single precision")]
            let found = number("input.pixels[3]").map(|found| (found as f32).to_bits());
            prop_assert_eq!(found, expected);
            let expected = double.is_finite().then(|| double.to_bits());
            prop_assert_eq!(number("input.double").map(f64::to_bits), expected);
            let integers = column("input.integer").as_primitive::<Int64Type>();
            prop_assert_eq!(integers.value(index), *integer);
            prop_assert_eq!(column("input.flag").as_boolean().value(index), *flag);
            prop_assert_eq!(column("input.text").as_string::<i32>().value(index), text);
            prop_assert_eq!(number("input.missing"), None);
        }
    }
}
