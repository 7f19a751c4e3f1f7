//! Looks at every experiment once a second, and acts: takes a variant that breaches a guardrail out
//! of traffic, advances canaries, and moves the allocations of bandits.
//!
//! Every node does so, without a leader. A change is swapped into the store only if no other came
//! before; the node that loses reads the new one at its next look. Each router instance reads the change
//! at most a second later. Requests in flight end where they are.

mod bandit;
mod canary;
mod clock;
mod counts;
mod looks;
mod rollback;
mod runs;
mod watches;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use spinfer_experiment::format::{CONTROL, Start};
use spinfer_experiment::progress::{Epoch, EventKind};
use spinfer_experiment::{Change, Experiment, Kind};
use spinfer_statistics::moments::PairMoments;
use tracing::warn;

pub use looks::PastLook;
pub(super) use looks::looks_key;
pub(super) use runs::{ANOTHER_RUN, first_of_new_run, remove_numbers};

use super::assessment::assess;
use super::guardrails::{GuardrailState, GuardrailStatus, Watch};
use super::ledger::{commit, event, now, update};
use super::nodes::{AllCounts, Sources};
use super::outcomes::OutcomeCounts;
use super::router::ExperimentRouter;
use crate::host::Host;
use crate::prediction_log::unit_totals::UnitTotals;
use crate::storage::key_value::{GrantedStore, StoreError};
use bandit::reallocate;
use canary::next_step;
use clock::{FuturePeriod, StepHold};
use counts::ReadingSchedule;
use looks::remove_later;
use runs::{Run, held_key, run_name};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

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
    run: Run<'h>,
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
    reading: ReadingSchedule,
    /// The guardrails of each treatment.
    watches: Vec<(String, Vec<Watch>)>,
    hold: StepHold,
    future_period: FuturePeriod,
}

/// A stored change, and how it was read.
#[derive(Debug)]
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
            run: Run::new(experiment, process),
            process: process.to_owned(),
            sources: Sources::default(),
            own: BTreeMap::new(),
            own_totals: BTreeMap::new(),
            seen: HashMap::new(),
            units: None,
            units_of: Vec::new(),
            reading: ReadingSchedule::default(),
            watches: watches.collect(),
            hold: StepHold::default(),
            future_period: FuturePeriod::default(),
        }
    }

    async fn tick(&mut self, host: &Host) {
        let problem = self.look(host).await.err().map(|error| error.to_string());
        let experiment = &self.experiment.name;
        let before = self.router.set_problem(experiment, problem.clone());
        if let Some(problem) = problem.filter(|_| before.is_none()) {
            warn!(experiment, problem, "cannot supervise the experiment; trying again");
        }
    }

    async fn look(&mut self, host: &Host) -> Result<(), StoreError> {
        let (router, experiment) = (self.router, self.experiment);
        let Some(store) = router.store() else {
            return self.look_alone(host).await;
        };
        let Some(stored) = self.run.look(store).await? else { return Ok(()) };
        let time = now();
        let epochs = stored.change.epochs(experiment);
        if let Some(epochs) = self.future_period.restarted(&epochs, time, Instant::now()) {
            self.restart_period(store, stored, epochs).await?;
            let later = |looks: &mut Vec<PastLook>| remove_later(looks, time);
            return update(store, looks_key(experiment), later).await;
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
            Some(status) => self.run.roll_back(store, stored, status).await?,
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
        let event = event(&self.run.actor, EventKind::ClockSetBack, detail);
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
        let event = event(&self.run.actor, kind, detail);
        let stored = commit(store, self.experiment, (json, &change), after, event).await?;
        // Another node was first: its change is read at the next look.
        Ok(stored.unwrap_or(change))
    }
}

/// A change that is due, and its entry in the journal.
type Next = Option<(Change, EventKind, String)>;

#[cfg(test)]
mod tests;
