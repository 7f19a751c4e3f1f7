//! Statistics of what is in the log, read from its file: for `spinfer log stats`, and `/log/stats` of
//! the admin plane.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::PredictionLog;
use super::models::Models;
use super::quality::{Group, Results};
use super::queue::Accounting;
use super::reader::{Filter, Reader, Snapshot};
use super::schema::Error;
use super::store::compute;
use super::times::format;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub path: String,
    /// Bytes of the file and its write-ahead log.
    pub bytes: u64,
    pub records: u64,
    /// The times of the first and the last record, RFC 3339.
    pub oldest: Option<String>,
    pub newest: Option<String>,
    /// Feedback in the file that has a record, and that has none.
    pub feedback: FeedbackTotals,
    pub groups: Vec<GroupStats>,
    /// Of the host that answers; none where the file was read without one.
    pub host: Option<HostStats>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedbackTotals {
    pub matched: u64,
    pub unknown: u64,
}

/// What a serving host has done since it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStats {
    /// accepted = written + dropped + pending.
    pub accounting: Accounting,
    /// Why the log cannot be written at present, if it cannot.
    pub problem: Option<String>,
    /// Feedback items by result.
    pub feedback: BTreeMap<String, u64>,
}

impl HostStats {
    #[must_use]
    pub fn of(log: &PredictionLog) -> Self {
        let feedback = log.feedback_counts().get();
        Self {
            accounting: log.accounting(),
            problem: log.problem(),
            feedback: feedback.map(|(name, count)| (name.to_owned(), count)).into(),
        }
    }
}

/// Records of one model version and variant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStats {
    #[serde(flatten)]
    pub group: Group,
    pub records: u64,
    /// Records by cache outcome.
    pub cache: BTreeMap<String, u64>,
    /// Records by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    pub latency_us: Option<Latency>,
    pub quality: Results,
}

/// Quantiles of the latency, in microseconds, each within 1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub max: u64,
}

impl Stats {
    /// Those of the whole log of a serving host.
    pub fn of_host(log: &PredictionLog) -> Result<Self, Error> {
        let path = log.path();
        // Nothing was logged yet, or the file is the problem that `host` tells of.
        let read = || {
            let Some(mut reader) = Reader::open(path)? else { return Ok(Self::default()) };
            Self::of(&reader.snapshot()?, &Filter::default())
        };
        let stats = match read() {
            Err(error) if log.problem().is_none() => return Err(error),
            stats => stats.unwrap_or_default(),
        };
        let (path, bytes) = (path.display().to_string(), log.file_size());
        Ok(Self { path, bytes, host: Some(HostStats::of(log)), ..stats })
    }

    /// Those of the records that fit. The quality and the feedback are those of all records.
    pub fn of(snapshot: &Snapshot<'_>, filter: &Filter) -> Result<Self, Error> {
        let connection = snapshot.connection();
        let mut stats = Self::default();
        let mut groups: BTreeMap<Group, (GroupStats, Quantiles)> = BTreeMap::new();
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
        let models = Models::load(connection)?;
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
        stats.feedback = feedback(snapshot)?;
        Ok(stats)
    }
}

/// The group of each source.
fn sources(snapshot: &Snapshot<'_>) -> Result<BTreeMap<i64, Group>, Error> {
    let query = "SELECT id, model, version, experiment, variant FROM sources";
    let mut statement = snapshot.connection().prepare(query)?;
    let rows = statement.query_map([], |row| {
        let group = Group {
            model: row.get(1)?,
            version: row.get(2)?,
            experiment: row.get(3)?,
            variant: row.get(4)?,
        };
        Ok((row.get(0)?, group))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn feedback(snapshot: &Snapshot<'_>) -> Result<FeedbackTotals, Error> {
    let query = "SELECT count(p.id), count(*) - count(p.id) FROM feedback f
        LEFT JOIN predictions p ON p.id = f.prediction_id AND p.row = f.row";
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let (matched, unknown) = snapshot
        .connection()
        .query_row(query, [], |row| Ok((count(row.get(0)?), count(row.get(1)?))))?;
    Ok(FeedbackTotals { matched, unknown })
}

/// Counts values in buckets of less than 1 % width, as HdrHistogram does: 128 of them for each power
/// of two.
#[derive(Debug, Default)]
struct Quantiles {
    buckets: BTreeMap<u64, u64>,
    count: u64,
    max: u64,
}

/// Bits of a value that tell its bucket.
const BUCKET_BITS: u32 = 8;

impl Quantiles {
    fn add(&mut self, value: u64) {
        *self.buckets.entry(bucket(value)).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    fn results(&self) -> Option<Latency> {
        let at = |percent: u64| {
            // The smallest value that so many per cent are not above (nearest rank).
            let rank = (self.count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let found = self.buckets.iter().find(|(_, count)| {
                seen += **count;
                seen >= rank
            });
            found.map_or(self.max, |(end, _)| (*end).min(self.max))
        };
        (self.count > 0).then(|| Latency { p50: at(50), p90: at(90), p99: at(99), max: self.max })
    }
}

/// The largest value of the bucket that `value` is in.
fn bucket(value: u64) -> u64 {
    let width = (u64::BITS - value.leading_zeros()).saturating_sub(BUCKET_BITS);
    value | ((1 << width) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        fn a_bucket_is_within_one_per_cent(value: u64) {
            let end = bucket(value);
            prop_assert!(end >= value && end - value <= value / 100);
            prop_assert_eq!(bucket(end), end);
        }
    }
}
