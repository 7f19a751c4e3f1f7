//! Time that does not depend on the wall clock. A canary's step is held by monotonic clocks, and a
//! period of allocations that starts in the future, since the clock was set back, starts anew.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use spinfer_experiment::progress::{Epoch, StepProgress};

use crate::experiment::ledger::to_json;
use crate::storage::key_value::{GrantedStore, StoreError};

/// Time between two writes of how long a step has been held, which is what a restart repeats of the
/// hold time at most.
const STORE_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum time by which clocks of hosts may differ, in milliseconds.
pub(super) const MAX_SKEW: u64 = 60_000;
/// Time until a clock that is behind is believed. One that was invalid at a boot is set by then.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long the present step of a canary has been held, as far as this host knows. Time in which no
/// host runs, the experiment is stopped or the treatment is rolled back does not count.
#[derive(Debug, Default)]
pub(super) struct StepHold {
    step: Option<StepProgress>,
    held: Duration,
    /// The last look.
    last: Option<Instant>,
}

/// What hosts know of the present step, as stored.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHold {
    step: StepProgress,
    /// In milliseconds.
    held: u64,
}

impl StepHold {
    /// How long `step` has been held, with the time since the last look if it `runs`. Shares it with
    /// other hosts at `key`.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn exchange(
        &mut self,
        store: &GrantedStore,
        key: String,
        (step, runs): (StepProgress, bool),
        now: Instant,
    ) -> Result<Duration, StoreError> {
        let seen = store.get(key.clone()).await?;
        let parsed = seen.as_deref().and_then(|json| serde_json::from_slice(json).ok());
        let stored = parsed.filter(|stored: &StoredHold| stored.step == step);
        let stored = stored.map(|stored| Duration::from_millis(stored.held));
        let held = self.look((step, runs), stored, now);
        if stored.is_none_or(|stored| held >= stored.saturating_add(STORE_INTERVAL)) {
            let millis = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
            // A host that was first has stored about the same.
            store.swap(key, seen, to_json(&StoredHold { step, held: millis })?).await?;
        }
        Ok(held)
    }

    fn look(
        &mut self,
        (step, runs): (StepProgress, bool),
        stored: Option<Duration>,
        now: Instant,
    ) -> Duration {
        if self.step != Some(step) {
            *self = Self { step: Some(step), ..Self::default() };
        }
        if let Some(last) = self.last.replace(now).filter(|_| runs) {
            self.held = self.held.saturating_add(now.saturating_duration_since(last));
        }
        // Another host has looked at the step for longer.
        self.held = self.held.max(stored.unwrap_or_default());
        self.held
    }
}

/// Whether the present period of allocations starts in the future, and since when it does.
#[derive(Debug, Default)]
pub(super) struct FuturePeriod {
    since: Option<Instant>,
}

impl FuturePeriod {
    /// The periods at `time`, in milliseconds of Unix time, if the present one is to start anew: it
    /// has been in the future for [`PATIENCE`]. Until the clock caught up, every unit would belong to
    /// an earlier period.
    pub(super) fn restarted(
        &mut self,
        epochs: &[Epoch],
        time: u64,
        now: Instant,
    ) -> Option<Vec<Epoch>> {
        let present = epochs.last()?;
        if present.from <= time.saturating_add(MAX_SKEW) {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < PATIENCE {
            return None;
        }
        self.since = None;
        let past = epochs.iter().filter(|epoch| epoch.from < time).cloned();
        let present = Epoch { from: time, shares: present.shares.clone() };
        Some(past.chain([present]).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const STEP: StepProgress = StepProgress { index: 0, since: 1_000 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn hold_is_the_time_of_running_looks() {
        let (mut hold, start) = (StepHold::default(), Instant::now());
        let mut look = |step, runs, at| hold.look((step, runs), None, start + seconds(at));
        assert_eq!(look(STEP, true, 0), seconds(0));
        assert_eq!(look(STEP, true, 3), seconds(3));
        assert_eq!(look(STEP, false, 50), seconds(3), "stopped");
        assert_eq!(look(STEP, true, 51), seconds(4));
        let next = StepProgress { index: 1, ..STEP };
        assert_eq!(look(next, true, 60), seconds(0));
        let again = StepProgress { since: 9_000, ..STEP };
        assert_eq!(look(again, true, 61), seconds(0), "resumed");
    }

    #[tokio::test]
    async fn hold_continues_after_a_restart_and_two_hosts_do_not_shorten_it() {
        let (store, start) = (GrantedStore::in_memory(), Instant::now());
        let (mut a, mut b) = (StepHold::default(), StepHold::default());
        let at = |second| start + seconds(second);
        for second in 0..=25 {
            assert_eq!(exchange(&mut a, &store, at(second)).await, seconds(second));
        }
        // Another host, or one that has started again, repeats at most the interval of writes.
        assert_eq!(exchange(&mut b, &store, at(25)).await, seconds(20));
        for second in 26..=40 {
            for hold in [&mut a, &mut b] {
                let held = exchange(hold, &store, at(second)).await;
                assert!(held <= seconds(second), "{held:?} at {second}");
            }
        }
        // Hours of downtime do not count.
        assert_eq!(exchange(&mut StepHold::default(), &store, at(40_000)).await, seconds(40));
    }

    async fn exchange(hold: &mut StepHold, store: &GrantedStore, now: Instant) -> Duration {
        hold.exchange(store, "held".into(), (STEP, true), now).await.unwrap()
    }

    #[tokio::test]
    async fn stored_hold_of_another_step_or_program_does_not_count() {
        let (store, now) = (GrantedStore::in_memory(), Instant::now());
        let other = StoredHold { step: StepProgress { index: 1, ..STEP }, held: 99_000 };
        for stored in [&*to_json(&other).unwrap(), b"{\"held\": -1}", b"\xff"] {
            store.set("held".into(), stored.to_vec()).await.unwrap();
            assert_eq!(exchange(&mut StepHold::default(), &store, now).await, seconds(0));
        }
        let own = StoredHold { step: STEP, held: 7_000 };
        store.set("held".into(), to_json(&own).unwrap()).await.unwrap();
        assert_eq!(exchange(&mut StepHold::default(), &store, now).await, seconds(7));
    }

    #[test]
    fn period_in_the_future_starts_anew_once_the_clock_is_believed() {
        let epoch = |from| Epoch { from, shares: BTreeMap::from([("control".to_owned(), 1.0)]) };
        let epochs = [epoch(0), epoch(500_000), epoch(4_000_000)];
        let (mut period, start) = (FuturePeriod::default(), Instant::now());
        let mut at = |time, at| period.restarted(&epochs, time, start + at);
        assert_eq!(at(4_000_000 - MAX_SKEW, Duration::ZERO), None, "clocks of hosts differ");
        assert_eq!(at(400_000, Duration::ZERO), None);
        assert_eq!(at(400_000, PATIENCE - seconds(1)), None);
        // Set in between, as after a boot.
        assert_eq!(at(4_000_001, PATIENCE), None);
        assert_eq!(at(400_000, PATIENCE), None);
        let found = at(700_000, PATIENCE * 2).unwrap();
        assert_eq!(found, [epoch(0), epoch(500_000), epoch(700_000)]);
        assert_eq!(at(400_000, PATIENCE * 3), None);
        assert_eq!(at(400_000, PATIENCE * 4), Some(vec![epoch(0), epoch(400_000)]));
    }
}
