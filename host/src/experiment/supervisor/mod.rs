//! Looks at every experiment once a second, and acts: takes a variant that breaches a guardrail out
//! of traffic, advances canaries, and moves the allocations of bandits.
//!
//! Every node does so, without a leader. A change is swapped into the store only if no other came
//! before; the node that loses reads the new one at its next look. Each router instance reads the change
//! at most a second later. Requests in flight end where they are.

mod clock;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use spinfer_experiment::format::{CONTROL, GuardrailMetric, MetricKind, Start, duration_text};
use spinfer_experiment::progress::{Epoch, EventKind, Rollback, StepProgress};
use spinfer_experiment::{Change, Experiment, Kind, key};
use spinfer_statistics::confidence_sequence::Interval;
use spinfer_statistics::moments::PairMoments;
use spinfer_statistics::thompson::{Posterior, allocations, best};
use spinfer_statistics::verdict::Strata;
use tracing::warn;

use super::assessment::{
    Assessment, VerdictState, assess, moments_name, unit_metrics, unit_strata,
};
use super::guardrails::{GuardrailState, GuardrailStatus, LookInput, Watch};
use super::ledger::{commit, event, now, record, update};
use super::nodes::{AllCounts, SourceCounts, Sources, VariantRequests};
use super::outcomes::OutcomeCounts;
use super::router::ExperimentRouter;
use super::text::{breach, number, percent, unit_count};
use crate::drift::report::{Status, VersionReport};
use crate::host::Host;
use crate::prediction_log::times;
use crate::prediction_log::unit_totals::{self, SETTLING, UnitQuery, UnitTotals};
use crate::storage::key_value::{GrantedStore, StoreError};
use clock::{FuturePeriod, StepHold};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The units of the log are read again after this multiple of the time that reading them takes.
const READING_SHARE: u32 = 20;
/// Minimum time between two changes of a bandit's allocations, in milliseconds.
const REALLOCATION: u64 = 60_000;
/// Minimum change of an allocation of a bandit.
const MIN_REALLOCATION: f64 = 0.01;
/// Units with a reward that each variant needs before allocations follow the rewards.
const MIN_REWARDS: u64 = 10;
/// Attempts to store a rollback while others change the experiment.
const ATTEMPTS: usize = 10;
/// Maximum number of looks that are remembered.
const MAX_LOOKS: usize = 48;

/// An interval of each treatment at one time: what `spinfer experiment show` draws.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastLook {
    /// Milliseconds of Unix time.
    pub time: u64,
    pub verdict: String,
    /// The difference from control, by treatment.
    pub differences: BTreeMap<String, Interval>,
}

/// The key of the past looks of an experiment.
pub(super) fn looks_key(experiment: &Experiment) -> String {
    format!("{}/looks", key(&run_name(experiment)))
}

/// The part of the keys of all numbers of an experiment: its name, and the digest of its variants.
/// Numbers of an earlier experiment of the same name, with other variants, are not mixed in.
fn run_name(experiment: &Experiment) -> String {
    format!("{}/{}", experiment.name, experiment.digest())
}

/// The key of the digest of the experiment that the numbers of this name are of.
fn digest_key(experiment: &Experiment) -> String {
    format!("{}/digest", key(&experiment.name))
}

/// The key of how long the present step of a canary has been held.
fn held_key(experiment: &Experiment) -> String {
    format!("{}/held", key(&run_name(experiment)))
}

/// Supervises the experiments of `host`, forever.
pub async fn run(host: &Host) {
    let process = format!("{:016x}", fastrand::u64(..));
    let mut supervised: Vec<Supervised<'_>> = Vec::new();
    for router in host.experiments() {
        let experiments = router.experiments().iter().filter(|e| e.kind.compares());
        supervised.extend(experiments.map(|e| Supervised::new(router, e, &process)));
    }
    if supervised.is_empty() {
        return;
    }
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for experiment in &mut supervised {
            experiment.tick(host).await;
        }
        for router in host.experiments() {
            router.check_file().await;
        }
    }
}

/// An experiment, as this node sees it.
struct Supervised<'h> {
    router: &'h ExperimentRouter,
    experiment: &'h Experiment,
    /// Id of this process.
    process: String,
    sources: Sources,
    /// The requests that this process has counted, by variant and by period.
    own: BTreeMap<String, BTreeMap<u64, [PairMoments; 2]>>,
    own_totals: BTreeMap<String, OutcomeCounts>,
    /// The totals of every source at the last look.
    seen: HashMap<String, BTreeMap<String, OutcomeCounts>>,
    units: Option<UnitTotals>,
    /// Starts of the periods that the units were read for.
    units_of: Vec<u64>,
    next_reading: Instant,
    /// The guardrails of each treatment.
    watches: Vec<(String, Vec<Watch>)>,
    hold: StepHold,
    future_period: FuturePeriod,
    /// Whether the stored digest is that of this experiment.
    is_recorded: bool,
    /// Why the last look failed; logged once.
    problem: Option<String>,
}

/// A stored change, and how it was read.
struct Stored {
    json: Option<Vec<u8>>,
    change: Change,
    /// Whether the change is none of this experiment, but of an earlier one of the same name.
    is_of_earlier_run: bool,
}

impl<'h> Supervised<'h> {
    fn new(router: &'h ExperimentRouter, experiment: &'h Experiment, process: &str) -> Self {
        let treatments = experiment.assignable().filter(|(_, variant)| variant.name != CONTROL);
        let watches = treatments.map(|(_, variant)| {
            let watches = experiment.guardrails.iter().map(|guardrail| Watch::new(*guardrail));
            (variant.name.clone(), watches.collect())
        });
        Self {
            router,
            experiment,
            process: process.to_owned(),
            sources: Sources::default(),
            own: BTreeMap::new(),
            own_totals: BTreeMap::new(),
            seen: HashMap::new(),
            units: None,
            units_of: Vec::new(),
            next_reading: Instant::now(),
            watches: watches.collect(),
            hold: StepHold::default(),
            future_period: FuturePeriod::default(),
            is_recorded: false,
            problem: None,
        }
    }

    async fn tick(&mut self, host: &Host) {
        let problem = self.look(host).await.err().map(|error| error.to_string());
        if let Some(problem) = problem.as_ref().filter(|_| self.problem.is_none()) {
            let experiment = &self.experiment.name;
            warn!(experiment, problem, "cannot supervise the experiment; trying again");
        }
        self.problem = problem;
    }

    async fn look(&mut self, host: &Host) -> Result<(), StoreError> {
        let (router, experiment) = (self.router, self.experiment);
        let Some(store) = router.store() else {
            return self.look_alone(host).await;
        };
        let mut stored = self.stored(store).await?;
        if !self.is_recorded {
            self.recognise(store, &mut stored).await?;
        }
        if stored.is_of_earlier_run {
            return self.begin(store, stored).await;
        }
        let time = now();
        let epochs = stored.change.epochs(experiment);
        if let Some(epochs) = self.future_period.restarted(&epochs, time, Instant::now()) {
            return self.restart_period(store, stored, epochs).await;
        }
        let held = self.held(store, &stored.change).await?;
        self.count_requests(&epochs, time);
        self.read_units(host, &epochs).await;
        let own = self.own_counts(&epochs);
        self.sources.exchange(store, &run_name(experiment), own).await?;
        let counts = self.merged(&epochs);
        let batches = self.batches();
        let guardrails = self.guardrails(host, &stored.change, &counts, &batches);
        let breached = guardrails.iter().find(|status| status.state == GuardrailState::Breached);
        let step = stored.change.step;
        let after = match breached {
            Some(status) => self.roll_back(store, stored, status).await?,
            None => self.go_on(store, stored, &guardrails, &counts, (time, held)).await?,
        };
        let held = if after.step == step { held } else { Duration::ZERO };
        let assessment = assess(experiment, &after, &epochs, &counts, guardrails, (time, held));
        self.remember(store, &assessment).await?;
        router.set_assessment(&experiment.name, assessment);
        Ok(())
    }

    /// A look without a store: nothing can be changed, and there are no other nodes.
    async fn look_alone(&mut self, host: &Host) -> Result<(), StoreError> {
        let change = Change::default();
        let time = now();
        let epochs = change.epochs(self.experiment);
        self.count_requests(&epochs, time);
        self.read_units(host, &epochs).await;
        let own = self.own_counts(&epochs);
        self.sources.alone(own);
        let counts = self.merged(&epochs);
        let batches = self.batches();
        let guardrails = self.guardrails(host, &change, &counts, &batches);
        let moment = (time, Duration::ZERO);
        let assessment = assess(self.experiment, &change, &epochs, &counts, guardrails, moment);
        self.router.set_assessment(&self.experiment.name, assessment);
        Ok(())
    }

    async fn stored(&self, store: &GrantedStore) -> Result<Stored, StoreError> {
        let experiment = self.experiment;
        let json = store.get(key(&experiment.name)).await?;
        let Some(text) = &json else {
            return Ok(Stored { json, change: Change::default(), is_of_earlier_run: false });
        };
        let parsed = serde_json::from_slice(text).ok();
        let parsed = parsed.filter(|change: &Change| change.allocations(experiment).is_ok());
        let is_of_earlier_run = parsed.is_none();
        let change = parsed.unwrap_or_else(|| first_of_new_run(experiment, now()));
        Ok(Stored { change, json, is_of_earlier_run })
    }

    /// Compares the stored digest with that of this experiment. Without a change of this experiment,
    /// another digest means that the variants are others than those that the units were assigned to.
    async fn recognise(
        &mut self,
        store: &GrantedStore,
        stored: &mut Stored,
    ) -> Result<(), StoreError> {
        let digest = self.experiment.digest();
        let recorded = store.get(digest_key(self.experiment)).await?;
        if recorded.as_deref() != Some(digest.as_bytes()) {
            if recorded.is_some() && !stored.is_of_earlier_run && stored.change.digest.is_none() {
                let shares = stored.change.shares(self.experiment);
                let epochs = vec![Epoch { from: now(), shares }];
                // A change without a digest applies to any variants.
                stored.change = Change { digest: Some(digest), epochs, ..stored.change.clone() };
                stored.is_of_earlier_run = true;
                return Ok(());
            }
            store.set(digest_key(self.experiment), digest.into_bytes()).await?;
        }
        self.is_recorded = !stored.is_of_earlier_run;
        Ok(())
    }

    /// Replaces the change of an earlier experiment, so that its units are not counted, and removes
    /// the numbers of an even earlier one with the same variants.
    async fn begin(&self, store: &GrantedStore, stored: Stored) -> Result<(), StoreError> {
        let Stored { json, change, .. } = stored;
        let run = run_name(self.experiment);
        let detail = "the variants are others than those of the earlier experiment of this name, \
                      whose numbers do not count";
        let event = event(&self.actor(), EventKind::Started, detail.to_owned());
        let after = change.clone();
        // If another node was first, the next look reads what it has stored.
        if commit(store, self.experiment, (json, &change), after, event).await?.is_some() {
            Sources::remove(store, &run).await?;
            let keys = vec![looks_key(self.experiment), held_key(self.experiment)];
            store.delete_many(keys).await?;
        }
        Ok(())
    }

    /// Replaces the periods by `epochs`, since the clock was set back.
    async fn restart_period(
        &self,
        store: &GrantedStore,
        stored: Stored,
        epochs: Vec<Epoch>,
    ) -> Result<(), StoreError> {
        let Stored { json, change, .. } = stored;
        let change = Change { epochs, ..change };
        let detail = "the present allocations started later than now, and start anew".to_owned();
        let event = event(&self.actor(), EventKind::ClockSetBack, detail);
        let after = change.clone();
        // If another node was first, the next look reads what it has stored.
        commit(store, self.experiment, (json, &change), after, event).await?;
        Ok(())
    }

    /// How long the present step of a canary has been held; zero without one.
    async fn held(
        &mut self,
        store: &GrantedStore,
        change: &Change,
    ) -> Result<Duration, StoreError> {
        let Kind::Canary { steps } = &self.experiment.kind else { return Ok(Duration::ZERO) };
        let Some(step) = change.step.filter(|step| step.index < steps.len()) else {
            return Ok(Duration::ZERO);
        };
        let runs = !change.stopped && change.rolled_back.is_empty();
        let key = held_key(self.experiment);
        self.hold.exchange(store, key, (step, runs), Instant::now()).await
    }

    /// Adds the requests since the last look to the present period, unless allocations settle.
    fn count_requests(&mut self, epochs: &[Epoch], time: u64) {
        let Some(epoch) = epochs.last() else { return };
        // A clock that was set back does not settle again.
        let settling = epoch.from..epoch.from.saturating_add(SETTLING);
        let settles = epoch.from > 0 && settling.contains(&time);
        for arm in self.router.arms(&self.experiment.name) {
            let counts = arm.outcomes.counts();
            let before = self.own_totals.insert(arm.variant.to_string(), counts.clone());
            if settles {
                continue;
            }
            let new = counts.since(&before.unwrap_or_default());
            let own = self.own.entry(arm.variant.to_string()).or_default();
            let [errors, latencies] = own.entry(epoch.from).or_default();
            *errors = errors.merged(&new.error_moments());
            *latencies = latencies.merged(&new.latency_moments());
            own.retain(|from, _| epochs.iter().any(|epoch| epoch.from == *from));
        }
    }

    /// Reads the units of the log, if it is time to.
    async fn read_units(&mut self, host: &Host, epochs: &[Epoch]) {
        let start = Instant::now();
        let starts: Vec<u64> = epochs.iter().map(|epoch| epoch.from).collect();
        let is_due = start >= self.next_reading || self.units_of != starts;
        let Some(log) = host.prediction_log().filter(|_| is_due) else { return };
        let query = UnitQuery {
            experiment: self.experiment.name.clone(),
            run: self.experiment.digest(),
            epochs: epochs.to_vec(),
            metrics: unit_metrics(self.experiment),
        };
        let path = log.path().to_owned();
        let read = tokio::task::spawn_blocking(move || unit_totals::read(&path, &query)).await;
        // The log reports what is wrong with its file.
        if let Ok(Ok(units)) = read {
            (self.units, self.units_of) = (units, starts);
        }
        let took = start.elapsed();
        self.next_reading = start + (took * READING_SHARE).max(LOOK / 2);
    }

    /// The counts that this node publishes, by source.
    fn own_counts(&self, epochs: &[Epoch]) -> BTreeMap<String, SourceCounts> {
        let starts: Vec<u64> = epochs.iter().map(|epoch| epoch.from).collect();
        let requests = self.own_totals.iter().map(|(variant, total)| {
            let own = self.own.get(variant);
            let moments = |part: usize| {
                let of = |from| own.and_then(|own| own.get(from)).map(|parts| parts[part]);
                starts.iter().map(|from| of(from).unwrap_or_default()).collect()
            };
            let (errors, latencies) = (moments(0), moments(1));
            (variant.clone(), VariantRequests { total: total.clone(), errors, latencies })
        });
        let requests = requests.collect();
        let requests = SourceCounts { epochs: starts, requests, ..SourceCounts::default() };
        let mut own = BTreeMap::from([(self.process.clone(), requests)]);
        if let Some(UnitTotals { file, variants }) = &self.units {
            let units = variants.clone();
            let requests = BTreeMap::new();
            let (epochs, metrics) = (self.units_of.clone(), self.metrics());
            own.insert(file.clone(), SourceCounts { epochs, metrics, units, requests });
        }
        own
    }

    fn merged(&self, epochs: &[Epoch]) -> AllCounts {
        let sources = self.sources.iter().map(|(_, counts)| counts);
        AllCounts::merge(sources, epochs, &self.metrics())
    }

    /// What the moments of units are of.
    fn metrics(&self) -> Vec<String> {
        unit_metrics(self.experiment).iter().map(moments_name).collect()
    }

    /// The requests of each variant since the last look, on all nodes. Those of a node that is seen for
    /// the first time are not new.
    fn batches(&mut self) -> BTreeMap<String, OutcomeCounts> {
        let mut batches: BTreeMap<String, OutcomeCounts> = BTreeMap::new();
        let mut seen = HashMap::new();
        for (id, counts) in self.sources.iter() {
            let totals: BTreeMap<String, OutcomeCounts> = counts
                .requests
                .iter()
                .map(|(v, requests)| (v.clone(), requests.total.clone()))
                .collect();
            let before = self.seen.get(id);
            if *id == self.process || before.is_some() {
                for (variant, total) in &totals {
                    let before = before.and_then(|before| before.get(variant));
                    let new = before.map_or_else(|| total.clone(), |before| total.since(before));
                    batches.entry(variant.clone()).or_default().add(&new);
                }
            }
            seen.insert(id.clone(), totals);
        }
        self.seen = seen;
        batches
    }

    fn guardrails(
        &mut self,
        host: &Host,
        change: &Change,
        counts: &AllCounts,
        batches: &BTreeMap<String, OutcomeCounts>,
    ) -> Vec<GuardrailStatus> {
        let experiment = self.experiment;
        let (now, metrics) = (Instant::now(), unit_metrics(experiment));
        let shares = change.shares(experiment);
        let epochs = change.epochs(experiment);
        let batch = |variant: &str| batches.get(variant).cloned().unwrap_or_default();
        let mut all = Vec::new();
        for (variant, watches) in &mut self.watches {
            // Out of traffic, it starts anew once it is back.
            if !shares.contains_key(variant) {
                watches.iter_mut().for_each(Watch::reset);
                continue;
            }
            let requests = [batch(CONTROL), batch(variant)];
            let first = first_in_traffic(&epochs, variant);
            let since = epochs.get(first).map_or(0, |epoch| epoch.from);
            for watch in watches {
                let kind = match watch.guardrail().metric {
                    GuardrailMetric::Accuracy => Some(MetricKind::Accuracy),
                    GuardrailMetric::Reward => Some(MetricKind::Reward),
                    _ => None,
                };
                let strata = kind.and_then(|kind| {
                    let of = |variant: &str| {
                        let strata = unit_strata(counts, &metrics, kind, variant)?;
                        Some(strata.into_iter().skip(first).collect::<Strata>())
                    };
                    Some([of(CONTROL)?, of(variant)?])
                });
                let units = strata.as_ref().map(|[control, variant]| [control, variant]);
                let drift = match watch.guardrail().metric {
                    GuardrailMetric::Drift => drift(host, experiment, variant, since),
                    _ => None,
                };
                all.push(watch.look(variant, now, &requests, &LookInput { units, drift, since }));
            }
        }
        all
    }

    /// Takes the variant of a breached guardrail out of traffic.
    async fn roll_back(
        &self,
        store: &GrantedStore,
        mut stored: Stored,
        status: &GuardrailStatus,
    ) -> Result<Change, StoreError> {
        let experiment = self.experiment;
        let guardrail = experiment.guardrails.iter().find(|g| g.to_string() == status.guardrail);
        let epochs = stored.change.epochs(experiment);
        let first = first_in_traffic(&epochs, &status.variant);
        let since = epochs.get(first).map_or(0, |epoch| epoch.from);
        let reason = breach(status, guardrail, since);
        for _ in 0..ATTEMPTS {
            let Stored { json, change, .. } = stored;
            if !change.shares(experiment).contains_key(&status.variant) {
                return Ok(change);
            }
            let rollback = Rollback { reason: reason.clone(), time: now() };
            let after =
                change.roll_back(experiment, &status.variant, rollback).map_err(StoreError)?;
            let detail = format!("{}: {reason}", status.variant);
            let event = event(&self.actor(), EventKind::RolledBack, detail);
            if let Some(after) = commit(store, experiment, (json, &change), after, event).await? {
                return Ok(after);
            }
            stored = self.stored(store).await?;
        }
        Err(StoreError(format!("the experiment was changed concurrently {ATTEMPTS} times")))
    }

    /// Advances a canary or reallocates a bandit, if it is time to. Returns the change in effect.
    /// `held` is the time for which the present step has been held.
    async fn go_on(
        &self,
        store: &GrantedStore,
        stored: Stored,
        guardrails: &[GuardrailStatus],
        counts: &AllCounts,
        (time, held): (u64, Duration),
    ) -> Result<Change, StoreError> {
        let Stored { json, change, .. } = stored;
        let waits = self.experiment.start == Start::Manual && !change.started;
        if change.stopped || waits {
            return Ok(change);
        }
        let next = match &self.experiment.kind {
            Kind::Canary { .. } => next_step(self.experiment, &change, guardrails, (time, held)),
            Kind::Bandit { minimum_allocation } => {
                reallocate(self.experiment, &change, counts, *minimum_allocation, time)
            }
            Kind::Experiment | Kind::Shadow => None,
        };
        let Some((after, kind, detail)) = next else { return Ok(change) };
        let event = event(&self.actor(), kind, detail);
        let stored = commit(store, self.experiment, (json, &change), after, event).await?;
        // Another node was first: its change is read at the next look.
        Ok(stored.unwrap_or(change))
    }

    /// Records a new verdict, and the intervals from time to time.
    async fn remember(&self, store: &GrantedStore, found: &Assessment) -> Result<(), StoreError> {
        let name = &self.experiment.name;
        let before = self.router.assessment(name);
        let key_of = |found: &Assessment| (found.verdict.state, found.verdict.variant.clone());
        let is_new = before.as_ref().is_none_or(|before| key_of(before) != key_of(found));
        // A rollback has an entry of its own.
        let is_silent = matches!(
            found.verdict.state,
            VerdictState::Running | VerdictState::NotStarted | VerdictState::RolledBack
        );
        if is_new && !is_silent {
            let verdict = found.verdict.to_string();
            record(store, name, &event(&self.actor(), EventKind::Verdict, verdict)).await?;
        }
        let differences: BTreeMap<String, Interval> = found
            .variants
            .iter()
            .filter_map(|v| Some((v.name.clone(), v.comparison?.difference)))
            .collect();
        if differences.is_empty() {
            return Ok(());
        }
        let verdict = found.verdict.state.name().to_owned();
        let look = PastLook { time: found.time, verdict, differences };
        update(store, looks_key(self.experiment), |looks: &mut Vec<PastLook>| {
            add_look(looks, &look)
        })
        .await
    }

    fn actor(&self) -> String {
        format!("node {}", self.process)
    }
}

/// Adds a look, if its numbers are new and the last one is long enough ago: at most [`MAX_LOOKS`] over
/// the whole experiment.
fn add_look(looks: &mut Vec<PastLook>, look: &PastLook) -> bool {
    let is_same =
        |last: &PastLook| (&last.verdict, &last.differences) == (&look.verdict, &look.differences);
    if looks.last().is_some_and(is_same) {
        return false;
    }
    if let (Some(first), Some(last)) = (looks.first(), looks.last()) {
        let spacing = (last.time.saturating_sub(first.time) / MAX_LOOKS as u64).max(1_000);
        if look.time < last.time.saturating_add(spacing) {
            return false;
        }
    }
    looks.push(look.clone());
    if looks.len() > MAX_LOOKS {
        let mut index = 0;
        let last = looks.len() - 1;
        looks.retain(|_| {
            index += 1;
            index % 2 == 1 || index == last + 1
        });
    }
    true
}

/// The change from which an experiment starts whose name an earlier one had: units of before `time`
/// are not counted.
pub(super) fn first_of_new_run(experiment: &Experiment, time: u64) -> Change {
    let shares = Change::default().shares(experiment);
    let (digest, epochs) = (Some(experiment.digest()), vec![Epoch { from: time, shares }]);
    Change { digest, epochs, ..Change::default() }
}

/// Index of the period since which `variant` has been in traffic without a gap: its guardrails start
/// anew there. The present period, if it is out of traffic.
fn first_in_traffic(epochs: &[Epoch], variant: &str) -> usize {
    let last_without = epochs.iter().rposition(|epoch| !epoch.shares.contains_key(variant));
    let first = last_without.map_or(0, |index| index + 1);
    first.min(epochs.len().saturating_sub(1))
}

/// The largest drift scores of control and of `variant`, and whether the variant is in alarm and
/// control is not. `None` without scores of both, and while the window of the variant contains
/// records from before `since`, in milliseconds of Unix time.
fn drift(
    host: &Host,
    experiment: &Experiment,
    variant: &str,
    since: u64,
) -> Option<([f64; 2], bool)> {
    let of = |name: &str| {
        let (_, variant) = experiment.variant(name)?;
        let model = variant.model.as_ref().unwrap_or(&experiment.model);
        let models = &host.component(&variant.component)?.spec().models;
        let version = models.iter().find(|mounted| mounted.name == *model)?.version.clone()?;
        let report = host.drift().report(SystemTime::now(), Some(model));
        let found = report.versions.into_iter().find(|report| report.version == version)?;
        let VersionReport { status, features, outputs, window, .. } = found;
        let scores = features.iter().chain(&outputs).filter_map(|field| field.psi);
        Some((
            scores.reduce(f64::max)?,
            status == Status::Drift,
            window.from,
            window.half_life_seconds,
        ))
    };
    let ((control, control_alarm, ..), (score, alarm, from, half_life)) =
        (of(CONTROL)?, of(variant)?);
    // Of a decayed window, little weight is left after five half-lives.
    let decayed = half_life.is_some_and(|seconds| {
        let passed = Duration::from_millis(now().saturating_sub(since));
        passed.as_secs_f64() >= 5.0 * seconds
    });
    let from = from.and_then(|from| times::parse(&from)).and_then(|from| u64::try_from(from).ok());
    if !decayed && from.unwrap_or(0) < since.saturating_mul(1_000) {
        return None;
    }
    Some(([control, score], alarm && !control_alarm))
}

type Next = Option<(Change, EventKind, String)>;

/// The next step of a canary: the first at once, and each later one once the one before was `held`
/// for its hold time and every guardrail holds.
fn next_step(
    experiment: &Experiment,
    change: &Change,
    guardrails: &[GuardrailStatus],
    (time, held): (u64, Duration),
) -> Next {
    let Kind::Canary { steps } = &experiment.kind else { return None };
    if !change.rolled_back.is_empty() {
        return None;
    }
    let index = match change.step {
        None => 0,
        Some(step) => {
            let is_held = held >= steps.get(step.index)?.hold;
            let holds = guardrails.iter().all(|status| status.state == GuardrailState::Holds);
            if !is_held || !holds {
                return None;
            }
            step.index + 1
        }
    };
    let progress = Some(StepProgress { index, since: time });
    let Some(step) = steps.get(index) else {
        let detail = format!("complete after {} steps", steps.len());
        return Some((Change { step: progress, ..change.clone() }, EventKind::Advanced, detail));
    };
    let (_, treatment) = experiment.assignable().find(|(_, variant)| variant.name != CONTROL)?;
    let shares = BTreeMap::from([(treatment.name.clone(), step.allocation)]);
    let after = Change { step: progress, ..change.ramp(experiment, &shares).ok()? };
    let detail = format!(
        "step {} of {}: {} {}, held for {}",
        index + 1,
        steps.len(),
        treatment.name,
        percent(step.allocation),
        duration_text(step.hold)
    );
    Some((after, EventKind::Advanced, detail))
}

/// The allocations of a bandit by the rewards so far, or by another metric that it maximises.
fn reallocate(
    experiment: &Experiment,
    change: &Change,
    counts: &AllCounts,
    minimum: f64,
    time: u64,
) -> Next {
    let since = change.epochs.last().map_or(0, |epoch| epoch.from);
    if time.saturating_sub(since) < REALLOCATION {
        return None;
    }
    let metrics = unit_metrics(experiment);
    let kind = experiment.metric.as_ref().map_or(MetricKind::Reward, |metric| metric.kind);
    let names = experiment.assignable().map(|(_, variant)| &variant.name);
    let names: Vec<&String> =
        names.filter(|name| !change.rolled_back.contains_key(*name)).collect();
    let rewards = names.iter().map(|name| {
        let strata = unit_strata(counts, &metrics, kind, name).unwrap_or_default();
        strata.iter().fold(PairMoments::default(), |all, cell| all.merged(cell))
    });
    let rewards: Vec<PairMoments> = rewards.collect();
    let probabilities = best(&posteriors(&rewards)?)?;
    let shares = allocations(&probabilities, minimum)?;
    let before = change.shares(experiment);
    let moved = names
        .iter()
        .zip(&shares)
        .map(|(name, share)| (share - before.get(*name).copied().unwrap_or(0.0)).abs());
    if moved.fold(0.0, f64::max) < MIN_REALLOCATION {
        return None;
    }
    let detail = names.iter().zip(&shares).zip(&rewards).map(|((name, share), rewards)| {
        let PairMoments { n, mean_value, .. } = rewards;
        format!("{name} {} ({kind} {} of {})", percent(*share), number(*mean_value), unit_count(*n))
    });
    let detail = detail.collect::<Vec<_>>().join(", ");
    let shares: BTreeMap<String, f64> = names.into_iter().cloned().zip(shares).collect();
    Some((change.ramp(experiment, &shares).ok()?, EventKind::Reallocated, detail))
}

/// The posteriors of all variants, once each has rewards: of shares if every variance is possible for rewards from 0 to 1,
/// of which the posterior is then at least as wide as the normal one.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn posteriors(rewards: &[PairMoments]) -> Option<Vec<Posterior>> {
    let is_share = |moments: &PairMoments| {
        let PairMoments { n, mean_value: mean, value_squares, .. } = moments;
        let maximum = *n as f64 * mean * (1.0 - mean);
        (0.0..=1.0).contains(mean) && *value_squares <= maximum + 1e-9
    };
    if rewards.iter().any(|moments| moments.n < MIN_REWARDS) {
        return None;
    }
    if rewards.iter().all(is_share) {
        return Some(rewards.iter().map(Posterior::of_shares).collect());
    }
    rewards.iter().map(Posterior::of_numbers).collect()
}

#[cfg(test)]
mod tests;
