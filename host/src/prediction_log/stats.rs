//! Statistics of the log, computed from its file, for `spinfer log stats` and `/log/stats` of the
//! admin plane.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::PredictionLog;
use super::models::LoggedModels;
use super::quality::{QualityGroup, Results};
use super::queue::Accounting;
use super::reader::{Filter, LogReader, LogSnapshot};
use super::schema::SchemaError;
use super::sinks::SinkStats;
use super::store::compute;
use super::times::format;

/// Statistics of the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogStats {
    pub path: String,
    /// Size of the file and its write-ahead log, in bytes.
    pub bytes: u64,
    pub records: u64,
    /// Times of the first and of the last record, in RFC 3339.
    pub oldest: Option<String>,
    pub newest: Option<String>,
    /// Feedback in the file.
    pub feedback: FeedbackTotals,
    pub groups: Vec<GroupStats>,
    /// The serving host's part; `None` if the file was read without one.
    pub host: Option<HostStats>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedbackTotals {
    /// Number of items with a record.
    pub matched: u64,
    /// Number of items without a record; `None` with a filter, which they neither match nor fail.
    pub unknown: Option<u64>,
}

impl Default for FeedbackTotals {
    /// Those of a log without feedback, not filtered.
    fn default() -> Self {
        Self { matched: 0, unknown: Some(0) }
    }
}

/// Counts of a serving host since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStats {
    /// accepted = written + dropped + pending.
    pub accounting: Accounting,
    /// Why the log cannot be written; `None` if it can.
    pub problem: Option<String>,
    /// Feedback items by result.
    pub feedback: BTreeMap<String, u64>,
    /// Requests that wait for the log.
    #[serde(default)]
    pub waiting: u64,
    /// Requests that were refused because of the log, by reason.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// Transactions that were written through to the disk.
    #[serde(default)]
    pub syncs: u64,
    #[serde(default)]
    pub sinks: Vec<SinkStats>,
}

impl HostStats {
    #[must_use]
    pub fn of(log: &PredictionLog) -> Self {
        let counts = log.feedback_counts();
        let feedback = counts.get().into_iter().chain(counts.repeated());
        let refused = log.awaited_counts().refused();
        Self {
            accounting: log.accounting(),
            problem: log.problem(),
            feedback: feedback.map(|(name, count)| (name.to_owned(), count)).collect(),
            waiting: log.awaited_counts().waiting(),
            refused: refused.map(|(name, count)| (name.to_owned(), count)).collect(),
            syncs: log.commits().synced.load(Ordering::Relaxed),
            sinks: log.sinks(),
        }
    }
}

/// Statistics of the records of one model version and variant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStats {
    #[serde(flatten)]
    pub group: QualityGroup,
    pub records: u64,
    /// Records by outcome in the response cache.
    pub cache: BTreeMap<String, u64>,
    /// Records by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    pub latency_us: Option<Latency>,
    pub quality: Results,
}

/// Quantiles of the latency, in microseconds, with an error below 1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub max: u64,
}

impl LogStats {
    /// Statistics of the whole log of a serving host.
    ///
    /// # Errors
    /// Fails if the file cannot be read, unless `host` reports that problem.
    pub fn of_host(log: &PredictionLog) -> Result<Self, SchemaError> {
        let path = log.path();
        // Empty if nothing was logged yet, or the file has the problem that `host` reports.
        let read = || {
            let Some(mut reader) = LogReader::open(path)? else { return Ok(Self::default()) };
            Self::of(&reader.snapshot()?, &Filter::default())
        };
        let stats = match read() {
            Err(error) if log.problem().is_none() => return Err(error),
            stats => stats.unwrap_or_default(),
        };
        let (path, bytes) = (shown_path(path), log.file_size());
        Ok(Self { path, bytes, host: Some(HostStats::of(log)), ..stats })
    }

    /// Statistics of the matching records, and their feedback. Quality is that of all records.
    pub fn of(snapshot: &LogSnapshot<'_>, filter: &Filter) -> Result<Self, SchemaError> {
        let connection = snapshot.connection();
        let mut stats = Self::default();
        let mut groups: BTreeMap<QualityGroup, (GroupStats, Quantiles)> = BTreeMap::new();
        let (mut oldest, mut newest) = (None::<i64>, None::<i64>);
        let sources = sources(snapshot)?;
        let (clause, values) = filter.clause();
        let query = format!(
            "SELECT p.source, p.time, p.cache, p.status, p.latency_us
             FROM predictions p JOIN sources s ON s.id = p.source{clause}"
        );
        let mut statement = connection.prepare(&query)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let Some(group) = sources.get(&row.get(0)?) else { continue };
            let time = row.get(1)?;
            oldest = Some(oldest.map_or(time, |oldest| oldest.min(time)));
            newest = Some(newest.map_or(time, |newest| newest.max(time)));
            stats.records += 1;
            if !groups.contains_key(group) {
                let fresh = GroupStats { group: group.clone(), ..GroupStats::default() };
                groups.insert(group.clone(), (fresh, Quantiles::default()));
            }
            let Some((of_group, latency)) = groups.get_mut(group) else { continue };
            of_group.records += 1;
            let cache = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
            match of_group.cache.get_mut(cache) {
                Some(count) => *count += 1,
                None => drop(of_group.cache.insert(cache.to_owned(), 1)),
            }
            *of_group.statuses.entry(row.get(3)?).or_default() += 1;
            latency.add(u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0));
        }
        let models = LoggedModels::load(connection)?;
        for (group, results) in compute(connection, &models)?.results() {
            if let Some((of_group, _)) = groups.get_mut(&group) {
                of_group.quality = results;
            }
        }
        stats.groups = groups
            .into_values()
            .map(|(group, latency)| GroupStats { latency_us: latency.results(), ..group })
            .collect();
        (stats.oldest, stats.newest) = (oldest.map(format), newest.map(format));
        stats.feedback = feedback(snapshot, filter)?;
        Ok(stats)
    }
}

/// The group of each source.
fn sources(snapshot: &LogSnapshot<'_>) -> Result<BTreeMap<i64, QualityGroup>, SchemaError> {
    let query = "SELECT id, model, version, experiment, variant FROM sources";
    let mut statement = snapshot.connection().prepare(query)?;
    let rows = statement.query_map([], |row| {
        let group = QualityGroup {
            model: row.get(1)?,
            version: row.get(2)?,
            experiment: row.get(3)?,
            variant: row.get(4)?,
        };
        Ok((row.get(0)?, group))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The feedback for the matching records, and without a filter that for unknown predictions.
fn feedback(snapshot: &LogSnapshot<'_>, filter: &Filter) -> Result<FeedbackTotals, SchemaError> {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    if *filter != Filter::default() {
        let (clause, values) = filter.clause();
        let query = format!(
            "SELECT count(*) FROM feedback f
             JOIN predictions p ON p.id = f.prediction_id AND p.row = f.row
             JOIN sources s ON s.id = p.source{clause}"
        );
        let parameters = rusqlite::params_from_iter(values);
        let matched =
            snapshot.connection().query_row(&query, parameters, |row| Ok(count(row.get(0)?)))?;
        return Ok(FeedbackTotals { matched, unknown: None });
    }
    let query = "SELECT count(p.id), count(*) - count(p.id) FROM feedback f
        LEFT JOIN predictions p ON p.id = f.prediction_id AND p.row = f.row";
    let (matched, unknown) = snapshot
        .connection()
        .query_row(query, [], |row| Ok((count(row.get(0)?), count(row.get(1)?))))?;
    Ok(FeedbackTotals { matched, unknown: Some(unknown) })
}

/// `path` for output: without a leading `./`, so that a file has one name.
#[must_use]
pub fn shown_path(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}

/// Counts values in buckets with a width below 1 %, like HdrHistogram: 128 buckets for each power
/// of two.
#[derive(Debug, Default)]
struct Quantiles {
    buckets: BTreeMap<u64, u64>,
    count: u64,
    max: u64,
}

/// Number of leading bits of a value that determine its bucket.
const BUCKET_BITS: u32 = 8;

impl Quantiles {
    fn add(&mut self, value: u64) {
        *self.buckets.entry(bucket(value)).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    fn results(&self) -> Option<Latency> {
        let at = |percent: u64| {
            // The nearest-rank percentile.
            let rank = (self.count * percent).div_ceil(100).max(1);
            let mut cumulative = 0;
            let found = self.buckets.iter().find(|(_, count)| {
                cumulative += **count;
                cumulative >= rank
            });
            found.map_or(self.max, |(end, _)| (*end).min(self.max))
        };
        (self.count > 0).then(|| Latency { p50: at(50), p90: at(90), p99: at(99), max: self.max })
    }
}

/// The largest value in the bucket of `value`.
fn bucket(value: u64) -> u64 {
    let width = (u64::BITS - value.leading_zeros()).saturating_sub(BUCKET_BITS);
    value | ((1 << width) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prediction_log::tests::{
        close, entry_at, feed, id_at, item, label, open, wait_until,
    };

    #[test]
    fn filter_selects_records_and_their_feedback() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        let now = std::time::SystemTime::now();
        let ids = [1, 2, 3].map(|number| id_at(now, number));
        assert!(log.append(entry_at(ids[0], 0, now)) && log.append(entry_at(ids[1], 0, now)));
        wait_until("they are written", || log.accounting().written == 2);
        let items = [ids[0], ids[2]].map(|id| item(id, label("setosa"), 1));
        feed(&log, items.into()).unwrap();
        let mut reader = LogReader::open(log.path()).unwrap().unwrap();
        let snapshot = reader.snapshot().unwrap();
        let counts = |filter: Filter| {
            let LogStats { records, feedback, .. } = LogStats::of(&snapshot, &filter).unwrap();
            (records, feedback.matched, feedback.unknown)
        };
        assert_eq!(counts(Filter::default()), (2, 1, Some(1)));
        let of = |model: &str| Filter { model: Some(model.into()), ..Filter::default() };
        assert_eq!(counts(of("iris-classifier")), (2, 1, None));
        assert_eq!(counts(of("other")), (0, 0, None));
        assert_eq!(counts(Filter { status: Some(500), ..Filter::default() }), (0, 0, None));
        drop(snapshot);
        close(&log);
    }

    #[test]
    fn path_is_shown_in_one_way() {
        for (path, shown) in [
            ("./.spin/predictions.db", ".spin/predictions.db"),
            (".spin/predictions.db", ".spin/predictions.db"),
            ("/state/predictions.db", "/state/predictions.db"),
            ("../.spin/predictions.db", "../.spin/predictions.db"),
        ] {
            assert_eq!(shown_path(Path::new(path)), shown);
        }
    }

    #[test]
    fn quantiles_of_few_values_are_exact() {
        let mut quantiles = Quantiles::default();
        assert_eq!(quantiles.results(), None);
        (1..=100).for_each(|value| quantiles.add(value));
        let expected = Latency { p50: 50, p90: 90, p99: 99, max: 100 };
        assert_eq!(quantiles.results(), Some(expected));
    }

    proptest! {
        #[test]
        fn bucket_is_at_most_one_percent_wide(value: u64) {
            let end = bucket(value);
            prop_assert!(end >= value && end - value <= value / 100);
            prop_assert_eq!(bucket(end), end);
        }
    }
}
