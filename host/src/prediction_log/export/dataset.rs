//! Exports what was written since the last export to a dataset of Parquet files, partitioned as by
//! Hive:
//!
//! ```text
//! predictions/model=<model>/version=<version>/day=<day>/<export>.parquet
//! feedback/day=<day of its receipt>/<export>.parquet
//! ```
//!
//! Files are written once and never changed, so feedback for exported records has files of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

use super::super::epochs::{self, ExportRange};
use super::super::reader::{ExportSlice, Filter, LogReader, LogSnapshot};
use super::super::schema;
use super::destination::{DatasetObject, Destination};
use super::feedback::FeedbackTable;
use super::hive::{self, DAY};
use super::layout::ExportLayout;
use super::parquet::ParquetFile;
use super::{ExportProgress, each};

/// Name of the file, next to the log, that an export locks.
const LOCK: &str = "predictions.export.lock";

/// The result of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatasetReport {
    /// Number of objects written.
    pub objects: u64,
    /// Number of records and of feedback items in them.
    pub records: u64,
    pub feedback: u64,
    /// Number of objects that an earlier, aborted attempt had written.
    pub resumed: u64,
    /// Number of records that retention deleted before they were exported.
    pub missed: u64,
}

/// Exports what was written to the log at `path` since the last export to `destination`; with `all`,
/// everything. Waits for another export of the log.
///
/// # Errors
/// Fails if the log cannot be read or its position not be stored, or the destination cannot be
/// written. The next export then continues where this one has stopped.
pub fn export_dataset(
    path: &Path,
    destination: &Destination,
    all: bool,
    report: &mut dyn FnMut(ExportProgress),
) -> Result<DatasetReport> {
    let _lock = lock(path)?;
    let mut connection = schema::open(path)?;
    let Some(range) = epochs::begin(&mut connection, destination.name(), all)? else {
        return Ok(DatasetReport::default());
    };
    let mut reader = LogReader::open(path)?.context("the log was removed")?;
    // Opened after the range has ended: it has every row of the range.
    let snapshot = reader.snapshot()?;
    let mut export = DatasetExport { destination, range: &range, result: DatasetReport::default() };
    export.records(&snapshot, report)?;
    export.feedback(&snapshot)?;
    let mut result = export.result;
    // A first export may start long after the first record.
    if range.after >= 0 && !range.resumed {
        result.missed = range.written.saturating_sub(result.records);
    }
    epochs::complete(&connection, destination.name(), &range)
        .context("the export is complete, but its position cannot be stored")?;
    Ok(result)
}

/// Locks the exports of a log. The system releases the lock of a process that ends.
fn lock(path: &Path) -> Result<File> {
    let path = path.with_file_name(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    file.lock().with_context(|| path.display().to_string())?;
    Ok(file)
}

struct DatasetExport<'a> {
    destination: &'a Destination,
    range: &'a ExportRange,
    result: DatasetReport,
}

impl DatasetExport<'_> {
    /// Exports the records, one object for each model, version and day.
    fn records(
        &mut self,
        snapshot: &LogSnapshot<'_>,
        report: &mut dyn FnMut(ExportProgress),
    ) -> Result<()> {
        let slice = self.slice();
        for ((model, version), days) in snapshot.partitions(&slice)? {
            let folder = format!(
                "predictions/{}/{}",
                hive::partition("model", &model),
                hive::partition("version", &version)
            );
            let mut filter = Filter {
                model: Some(model),
                version: Some(version),
                slice: Some(slice.clone()),
                ..Filter::default()
            };
            let layout = ExportLayout::of_partition(snapshot, &filter, report)?;
            for day in days {
                filter.slice = Some(ExportSlice { day: Some(day), ..slice.clone() });
                let folder = format!("{folder}/{}", hive::day(day));
                self.result.records += self.write(&folder, |object| {
                    let mut file = ParquetFile::new(&layout, object)?;
                    let count = each(snapshot, &filter, report, |record| file.write(record))?;
                    file.finish()?;
                    Ok(count)
                })?;
            }
        }
        Ok(())
    }

    /// Exports the feedback, one object for each day on which it was received.
    fn feedback(&mut self, snapshot: &LogSnapshot<'_>) -> Result<()> {
        let ExportRange { after, through, .. } = *self.range;
        let mut days: BTreeMap<i64, u64> = BTreeMap::new();
        snapshot.each_feedback((after, through), None, |feedback| {
            *days.entry(feedback.received.div_euclid(DAY)).or_default() += 1;
            anyhow::Ok(())
        })?;
        for day in days.into_keys() {
            let folder = format!("feedback/{}", hive::day(day));
            self.result.feedback += self.write(&folder, |object| {
                let mut table = FeedbackTable::new(object)?;
                let mut count = 0;
                snapshot.each_feedback((after, through), Some(day), |feedback| {
                    count += 1;
                    table.write(&feedback)
                })?;
                table.finish()?;
                Ok(count)
            })?;
        }
        Ok(())
    }

    /// Writes the object of this export in `folder`, unless an earlier attempt did. Returns the
    /// number of its rows.
    fn write(
        &mut self,
        folder: &str,
        fill: impl FnOnce(&mut DatasetObject<'_>) -> Result<u64>,
    ) -> Result<u64> {
        let path = format!("{folder}/{}.parquet", self.range.name);
        let place = || format!("{}: {path}", self.destination.name());
        if self.range.resumed && self.destination.exists(&path).with_context(place)? {
            self.result.resumed += 1;
            return Ok(0);
        }
        let mut object = self.destination.create(&path).with_context(place)?;
        match fill(&mut object) {
            Ok(rows) => {
                object.finish().with_context(place)?;
                self.result.objects += 1;
                Ok(rows)
            }
            Err(error) => {
                object.abort();
                Err(error).with_context(place)
            }
        }
    }

    fn slice(&self) -> ExportSlice {
        let ExportRange { after, through, first_id, .. } = *self.range;
        ExportSlice { after, through, first_id, day: None }
    }
}
