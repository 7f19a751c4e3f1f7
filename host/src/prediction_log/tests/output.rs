//! Statistics and exports.

use std::collections::BTreeMap;

use super::*;
use crate::prediction_log::export::{ExportFormat, export};
use crate::prediction_log::stats::LogStats;

#[test]
fn statistics_are_computed_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let ids: Vec<_> = (0..10).map(id).collect();
    for (number, &id) in ids.iter().enumerate() {
        assert!(log.append(entry(id, number % 3)));
    }
    let items = ids.iter().map(|&id| item(id, label("setosa"), 1)).collect();
    feed(&log, items).unwrap();
    let mut reader = LogReader::open(log.path()).unwrap().unwrap();
    let snapshot = reader.snapshot().unwrap();
    let stats = LogStats::of(&snapshot, &Filter::default()).unwrap();
    assert_eq!((stats.records, stats.feedback.matched, stats.groups.len()), (10, 10, 1));
    let group = &stats.groups[0];
    assert_eq!(
        (&group.cache, &group.statuses),
        (&BTreeMap::from([("miss".to_owned(), 10)]), &BTreeMap::from([(200, 10)]),)
    );
    assert_eq!(group.latency_us.unwrap().p50, 120);
    assert_eq!(group.quality, log.quality()[0].1, "equal to the running aggregates");
    let classes = group.quality.classification.as_ref().unwrap();
    // Setosa is predicted four times, each other class three times.
    assert_eq!((classes.accuracy, classes.brier_n), (Some(0.4), 10));
    let (correct, wrong) = (0.04 + 2.0 * 0.01, 0.81 + 0.64 + 0.01);
    let brier = (4.0 * correct + 6.0 * wrong) / 10.0;
    assert!((classes.brier_score.unwrap() - brier).abs() < 1e-7);
    close(&log);
}

fn exported(folder: &Path, filter: &Filter, format: ExportFormat) -> Vec<u8> {
    let mut reader = LogReader::open(&folder.join(schema::FILE)).unwrap().unwrap();
    let mut out = Vec::new();
    let snapshot = reader.snapshot().unwrap();
    export(&snapshot, filter, format, &mut out, &mut |_| {}).unwrap();
    out
}

#[test]
fn export_of_one_model_version_has_a_column_per_input_and_output() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    assert!(log.append(entry(id(1), 1)));
    let mut other = iris(0);
    other.model = "other, \"quoted\"".into();
    let context = context(id(2), SystemTime::now()).into();
    assert!(log.append(LogEntry { context, first_row: 0, predictions: other.into() }));
    feed(&log, vec![item(id_of(&log, 0), label("setosa"), 1)]).unwrap();
    close(&log);
    let filter = Filter { model: Some("iris-classifier".into()), ..Filter::default() };
    let text = String::from_utf8(exported(folder.path(), &filter, ExportFormat::Csv)).unwrap();
    let mut lines = text.lines();
    let header = lines.next().unwrap();
    assert!(header.contains("trace_id,input.sepal_length,input.sepal_width"), "{header}");
    assert!(header.contains(",variant,unit,propensity,failed_over,cache,"), "{header}");
    assert!(header.ends_with(
        "output.prediction,output.probabilities[0],output.probabilities[1],\
         output.probabilities[2],attributes,omitted,feedback.label,feedback.value,feedback.reward"
    ));
    let row = lines.next().unwrap();
    assert!(row.contains(",control,0123456789abcdef,0.75,,miss,"), "{row}");
    assert!(row.contains(",miss,200,120,1.0,,5.1,3.5,1.4,,versicolor,0.1,0.8,0.1,"), "{row}");
    assert!(row.ends_with(",,setosa,,"), "{row}");
    assert_eq!(lines.next(), None);
    let text =
        String::from_utf8(exported(folder.path(), &Filter::default(), ExportFormat::Csv)).unwrap();
    assert!(text.contains("trace_id,inputs,outputs,attributes"), "{text}");
    assert!(text.contains("\"other, \"\"quoted\"\"\""), "{text}");
    let lines = exported(folder.path(), &Filter::default(), ExportFormat::Jsonl);
    let lines: Vec<serde_json::Value> = lines
        .split_inclusive(|&byte| byte == b'\n')
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!((lines.len(), &lines[0]["feedback"]["label"]), (2, &"setosa".into()));
}

/// The id of a record, once it is written.
fn id_of(log: &PredictionLog, number: usize) -> Uuid {
    wait_until("it is written", || log.accounting().pending == 0);
    records(log.path().parent().unwrap())[number].id
}

#[test]
fn parquet_export_is_read_back() {
    use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};

    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let start = UNIX_EPOCH + Duration::from_secs(1_796_040_000);
    for number in 0..10_000 {
        let time = start + Duration::from_millis(number);
        let entry = || entry_at(id_at(time, number), 1, time);
        wait_until("the queue accepts the record", || log.append(entry()));
    }
    close(&log);
    let file = exported(folder.path(), &Filter::default(), ExportFormat::Parquet);
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes_of(file)).unwrap();
    let mut rows = 0;
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let times = column("time").as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.value(0), 1_796_040_000_000_000 + rows as i64 * 1000);
        assert_eq!(times.timezone(), Some("UTC"));
        assert_eq!(column("input.sepal_length").as_primitive::<Float64Type>().value(0), 5.1);
        assert_eq!(column("input.petal_width").null_count(), batch.num_rows());
        assert_eq!(column("output.prediction").as_string::<i32>().value(0), "versicolor");
        assert_eq!(column("unit").as_string::<i32>().value(0), "0123456789abcdef");
        assert_eq!(column("propensity").as_primitive::<Float64Type>().value(0), 0.75);
        assert_eq!(column("failed_over").null_count(), batch.num_rows());
        assert_eq!(column("latency_us").as_primitive::<Int64Type>().value(0), 120);
        rows += batch.num_rows();
    }
    assert_eq!(rows, 10_000);
}

fn bytes_of(file: Vec<u8>) -> bytes::Bytes {
    file.into()
}
