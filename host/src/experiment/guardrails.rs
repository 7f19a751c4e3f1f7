//! Guardrails: whether a variant is worse than control by more than its bound.
//!
//! Error rate and latency are tested at every look by an e-detector ([`spinfer_statistics::guard`]),
//! accuracy and reward by a confidence sequence over the units, and drift by the alarms of the drift
//! monitor. A breach is evidence, not an estimate: one error is none.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use spinfer_experiment::format::{Guardrail, GuardrailMetric};
use spinfer_statistics::comparison::{Comparison, Estimator, Scale, compare};
use spinfer_statistics::confidence_sequence::Boundary;
use spinfer_statistics::guard::{Detector, Outcomes};
use spinfer_statistics::verdict::Strata;

use super::outcomes::{BOUNDS, OutcomeCounts};

/// Mean number of looks between two false alarms of one guardrail of one variant: 100 days of looks
/// every second.
const LOOKS: f64 = 100.0 * 86_400.0;
/// Probability that a guardrail of accuracy or reward ever has a false alarm.
const ALPHA: f64 = 0.001;
/// Number of slices of a window.
const SLICES: u32 = 60;
/// Quantile of a guardrail of latency.
const P95: f64 = 0.95;
/// Intervals of accuracy and reward are narrowest at this multiple of the guardrail's minimum.
const HORIZON: f64 = 20.0;

/// The state of a guardrail, for one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardrailStatus {
    pub variant: String,
    /// `error_rate max_increase 0.02`
    pub guardrail: String,
    pub state: GuardrailState,
    /// Values of control and of the variant, over the window, or over all units since the variant
    /// came into traffic; latencies in seconds.
    pub values: Option<[f64; 2]>,
    /// Evidence of a breach, as a share of what is needed to act on it.
    pub evidence: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardrailState {
    /// Too few requests or units.
    Waiting,
    /// Within the bound.
    Holds,
    /// Beyond the bound, which may be chance.
    Exceeded,
    /// Beyond the bound, with enough evidence to act.
    Breached,
}

impl GuardrailState {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Holds => "holds",
            Self::Exceeded => "exceeded",
            Self::Breached => "breached",
        }
    }
}

/// A guardrail that watches one variant.
#[derive(Debug)]
pub(super) struct Watch {
    guardrail: Guardrail,
    detector: Detector,
    /// How the present batch of the detector is counted; `None` as long as too little is known.
    counting: Option<Counting>,
    window: SlidingWindow,
    /// [`LookInput::since`] of the last look.
    since: u64,
}

/// How bad outcomes are counted.
#[derive(Clone, Copy, Debug)]
struct Counting {
    /// Buckets of control and of the variant above which a response is slow; `None` for errors.
    slow: Option<[usize; 2]>,
}

/// What a look sees in addition to the requests.
#[derive(Debug, Default)]
pub(super) struct LookInput<'a> {
    /// Accuracies or rewards of control and of the variant, of the units since the variant came into
    /// traffic.
    pub units: Option<[&'a Strata; 2]>,
    /// Largest drift scores of control and of the variant, and whether the variant is in alarm and
    /// control is not.
    pub drift: Option<([f64; 2], bool)>,
    /// Since when the variant has been in traffic, in milliseconds of Unix time; 0: from the start.
    pub since: u64,
}

impl Watch {
    pub(super) fn new(guardrail: Guardrail) -> Self {
        let limit = match guardrail.metric {
            GuardrailMetric::ErrorRate => guardrail.bound.value(),
            // Slow responses of the variant against those of control, each beyond its own bound.
            _ => 0.0,
        };
        // A look every second. Beyond the window the arms are not compared at the same time.
        let patience = u32::try_from(guardrail.window.as_secs()).unwrap_or(u32::MAX);
        Self {
            guardrail,
            detector: Detector::new(limit, LOOKS, patience.max(1)),
            counting: None,
            window: SlidingWindow::new(guardrail.window),
            since: 0,
        }
    }

    pub(super) fn guardrail(&self) -> &Guardrail {
        &self.guardrail
    }

    /// Discards the evidence and the window: the variant starts anew.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.guardrail);
    }

    /// Looks at the requests since the last look, control's first, and at `input`.
    pub(super) fn look(
        &mut self,
        variant: &str,
        now: Instant,
        batch: &[OutcomeCounts; 2],
        input: &LookInput<'_>,
    ) -> GuardrailStatus {
        // Out of traffic and back between two looks.
        if self.since != input.since {
            self.reset();
            self.since = input.since;
        }
        let (state, values, evidence) = match self.guardrail.metric {
            GuardrailMetric::ErrorRate | GuardrailMetric::LatencyP95 => self.requests(now, batch),
            GuardrailMetric::Accuracy => self.units(input, Scale::Share),
            GuardrailMetric::Reward => self.units(input, Scale::Number),
            GuardrailMetric::Drift => self.drift(input),
        };
        let guardrail = self.guardrail.to_string();
        GuardrailStatus { variant: variant.to_owned(), guardrail, state, values, evidence }
    }

    fn requests(
        &mut self,
        now: Instant,
        batch: &[OutcomeCounts; 2],
    ) -> (GuardrailState, Option<[f64; 2]>, f64) {
        let known = self.window.sums(now);
        let is_known = known.iter().all(|counts| counts.requests() >= self.guardrail.minimum);
        // A batch of which one arm waits for the other is counted as it has started.
        if !self.detector.is_waiting() {
            self.counting = if is_known { self.counting(&known) } else { None };
        }
        if let Some(counting) = self.counting {
            let [known, batch] = [&known, batch].map(|counts| counting.outcomes(counts));
            self.detector.look(known, batch);
        }
        self.window.push(now, batch);
        let sums = self.window.sums(now);
        // An alarm stands, however few requests the variant has left.
        let is_alarm = self.detector.is_alarm();
        if !is_alarm && sums.iter().any(|counts| counts.requests() < self.guardrail.minimum) {
            return (GuardrailState::Waiting, None, 0.0);
        }
        let bound = self.guardrail.bound.value();
        let (values, exceeded) = match self.guardrail.metric {
            GuardrailMetric::ErrorRate => {
                let values = sums.each_ref().map(|counts| counts.error_moments().mean_value);
                (values, values[1] - values[0] > bound)
            }
            _ => {
                let values = sums.each_ref().map(|c| c.latency_quantile(P95).unwrap_or(0.0));
                (values, values[1] > values[0] * bound)
            }
        };
        let state = match (is_alarm, exceeded) {
            (true, _) => GuardrailState::Breached,
            (false, true) => GuardrailState::Exceeded,
            (false, false) => GuardrailState::Holds,
        };
        (state, Some(values), self.detector.level())
    }

    /// How bad outcomes are counted, from what is known before a batch.
    fn counting(&self, known: &[OutcomeCounts; 2]) -> Option<Counting> {
        let slow = match self.guardrail.metric {
            GuardrailMetric::LatencyP95 => {
                let quantile = known[0].latency_quantile(P95)?;
                let bucket = |seconds: f64| {
                    #[expect(clippy::cast_precision_loss, reason = "bounds are below 2^53")]
                    let below = |&bound: &u64| (bound as f64) < seconds * 1e6;
                    BOUNDS.partition_point(below)
                };
                Some([bucket(quantile), bucket(quantile * self.guardrail.bound.value())])
            }
            _ => None,
        };
        Some(Counting { slow })
    }

    fn units(
        &self,
        input: &LookInput<'_>,
        scale: Scale,
    ) -> (GuardrailState, Option<[f64; 2]>, f64) {
        const WAITING: (GuardrailState, Option<[f64; 2]>, f64) =
            (GuardrailState::Waiting, None, 0.0);
        let Some([control, variant]) = input.units else { return WAITING };
        #[expect(clippy::cast_precision_loss, reason = "a configured number of units")]
        let minimum = self.guardrail.minimum as f64;
        let Some(boundary) = Boundary::narrowest_at(HORIZON * minimum, ALPHA) else {
            return WAITING;
        };
        let kind = (Estimator::Mean, scale);
        let Some(found) = compare(control, variant, kind, 0.0, &boundary) else { return WAITING };
        let Comparison { means, difference, units } = found;
        if units.iter().any(|&units| units < self.guardrail.minimum) {
            return WAITING;
        }
        let bound = -self.guardrail.bound.value();
        let state = match (difference.upper < bound, difference.estimate < bound) {
            (true, _) => GuardrailState::Breached,
            (false, true) => GuardrailState::Exceeded,
            (false, false) => GuardrailState::Holds,
        };
        let half = difference.upper - difference.estimate;
        let evidence = ((bound - difference.estimate) / half).max(0.0);
        (state, Some(means), evidence)
    }

    fn drift(&self, input: &LookInput<'_>) -> (GuardrailState, Option<[f64; 2]>, f64) {
        let Some((scores, alarm)) = input.drift else {
            return (GuardrailState::Waiting, None, 0.0);
        };
        let exceeded = scores[1] - scores[0] > self.guardrail.bound.value();
        let state = match (exceeded && alarm, exceeded) {
            (true, _) => GuardrailState::Breached,
            (false, true) => GuardrailState::Exceeded,
            (false, false) => GuardrailState::Holds,
        };
        (state, Some(scores), f64::from(u8::from(exceeded && alarm)))
    }
}

impl Counting {
    /// The outcomes of control and of the variant.
    fn outcomes(self, counts: &[OutcomeCounts; 2]) -> [Outcomes; 2] {
        let of = |arm: usize| Outcomes {
            bad: self.slow.map_or(counts[arm].errors, |slow| counts[arm].above(slow[arm])),
            of: counts[arm].requests(),
        };
        [of(0), of(1)]
    }
}

/// Counts of control and of a variant over a period up to now, in slices.
#[derive(Debug)]
struct SlidingWindow {
    period: Duration,
    slices: VecDeque<(Instant, [OutcomeCounts; 2])>,
}

impl SlidingWindow {
    fn new(period: Duration) -> Self {
        Self { period, slices: VecDeque::new() }
    }

    fn push(&mut self, now: Instant, batch: &[OutcomeCounts; 2]) {
        self.expire(now);
        let width = self.period / SLICES;
        match self.slices.back_mut() {
            Some((start, counts)) if now.duration_since(*start) < width => {
                counts.iter_mut().zip(batch).for_each(|(counts, batch)| counts.add(batch));
            }
            _ => self.slices.push_back((now, batch.clone())),
        }
    }

    fn sums(&mut self, now: Instant) -> [OutcomeCounts; 2] {
        self.expire(now);
        let mut sums = [OutcomeCounts::default(), OutcomeCounts::default()];
        for (_, slice) in &self.slices {
            sums.iter_mut().zip(slice).for_each(|(sum, counts)| sum.add(counts));
        }
        sums
    }

    fn expire(&mut self, now: Instant) {
        while self.slices.front().is_some_and(|(start, _)| now.duration_since(*start) > self.period)
        {
            self.slices.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use spinfer_experiment::format::GuardrailBound;
    use spinfer_statistics::moments::PairMoments;

    use super::super::outcomes::OutcomeCounters;
    use super::*;

    fn guardrail(metric: GuardrailMetric, bound: GuardrailBound) -> Guardrail {
        Guardrail { metric, bound, window: Duration::from_secs(60), minimum: 50 }
    }

    /// `errors` of `of` requests, which take `micros`.
    fn counts(errors: u64, of: u64, micros: u64) -> OutcomeCounts {
        let counters = OutcomeCounters::default();
        for index in 0..of {
            counters.observe(index < errors, Duration::from_micros(micros));
        }
        counters.counts()
    }

    /// Looks every second at the same batch; the states seen.
    fn looks(watch: &mut Watch, batch: &[OutcomeCounts; 2], seconds: u64) -> Vec<GuardrailState> {
        let start = Instant::now();
        let look = |second| {
            let now = start + Duration::from_secs(second);
            watch.look("treatment", now, batch, &LookInput::default()).state
        };
        (0..seconds).map(look).collect()
    }

    #[test]
    fn errors_of_five_per_cent_are_a_breach_within_seconds_of_traffic() {
        let rail = guardrail(GuardrailMetric::ErrorRate, GuardrailBound::MaxIncrease(0.01));
        let mut watch = Watch::new(rail);
        let states = looks(&mut watch, &[counts(0, 100, 900), counts(5, 100, 900)], 12);
        assert_eq!(states[0], GuardrailState::Exceeded);
        assert_eq!(states.last(), Some(&GuardrailState::Breached), "{states:?}");
        let back = LookInput { since: 1, ..LookInput::default() };
        let batch = [counts(0, 100, 900), counts(5, 100, 900)];
        let found = watch.look("treatment", Instant::now(), &batch, &back);
        assert_eq!(found.state, GuardrailState::Exceeded, "it starts anew");
        watch.reset();
        let states = looks(&mut watch, &[counts(1, 100, 900), counts(1, 100, 900)], 60);
        assert!(states.iter().all(|state| *state == GuardrailState::Holds), "{states:?}");
    }

    #[test]
    fn few_requests_are_no_breach() {
        let rail = guardrail(GuardrailMetric::ErrorRate, GuardrailBound::MaxIncrease(0.0));
        let states = looks(&mut Watch::new(rail), &[counts(0, 100, 900), counts(1, 1, 900)], 40);
        assert!(states.iter().all(|state| *state == GuardrailState::Waiting), "{states:?}");
    }

    #[test]
    fn errors_in_seconds_without_requests_of_control_are_a_breach() {
        let rail = guardrail(GuardrailMetric::ErrorRate, GuardrailBound::MaxIncrease(0.01));
        let mut watch = Watch::new(rail);
        let start = Instant::now();
        let none = OutcomeCounts::default;
        let mut look = |second: u64, batch: [OutcomeCounts; 2]| {
            let now = start + Duration::from_secs(second);
            watch.look("treatment", now, &batch, &LookInput::default()).state
        };
        assert_eq!(look(0, [counts(0, 200, 900), counts(0, 60, 900)]), GuardrailState::Holds);
        let found = (1..60).find(|second| {
            let is_error = second % 3 == 0;
            let batch =
                if is_error { [none(), counts(1, 1, 900)] } else { [counts(0, 4, 900), none()] };
            look(*second, batch) == GuardrailState::Breached
        });
        assert!(found.is_some(), "every request of the variant has failed");
    }

    #[test]
    fn alarm_is_a_breach_though_the_variant_has_lost_its_requests() {
        let rail = guardrail(GuardrailMetric::ErrorRate, GuardrailBound::MaxIncrease(0.01));
        let mut watch = Watch::new(rail);
        let start = Instant::now();
        let none = OutcomeCounts::default;
        let mut look = |second: u64, batch: [OutcomeCounts; 2]| {
            let now = start + Duration::from_secs(second);
            watch.look("treatment", now, &batch, &LookInput::default()).state
        };
        look(0, [counts(0, 200, 900), counts(2, 60, 900)]);
        assert_eq!(look(59, [none(), counts(40, 40, 900)]), GuardrailState::Exceeded);
        // The first second has left the window, and with it most requests of the variant.
        assert_eq!(look(61, [counts(0, 100, 900), none()]), GuardrailState::Breached);
    }

    #[test]
    fn slow_variant_is_a_breach_and_one_within_the_ratio_is_not() {
        let rail = guardrail(GuardrailMetric::LatencyP95, GuardrailBound::MaxRatio(1.5));
        let mut batches = [counts(0, 100, 1_000), counts(0, 85, 900)];
        batches[1].add(&counts(0, 15, 9_000));
        let states = looks(&mut Watch::new(rail), &batches, 30);
        assert_eq!(states.last(), Some(&GuardrailState::Breached), "{states:?}");
        let states =
            looks(&mut Watch::new(rail), &[counts(0, 100, 1_000), counts(0, 100, 1_200)], 30);
        assert!(states.iter().all(|state| *state == GuardrailState::Holds), "{states:?}");
    }

    #[test]
    fn accuracy_is_compared_over_units_with_its_evidence() {
        let rail = guardrail(GuardrailMetric::Accuracy, GuardrailBound::MaxDecrease(0.05));
        let arm = |right: u64, of: u64| -> Strata {
            let mut moments = PairMoments::default();
            (0..of).for_each(|index| moments.add(if index < right { 1.0 } else { 0.0 }, 0.0));
            vec![moments]
        };
        let state = |control: &Strata, variant: &Strata| {
            let input = LookInput { units: Some([control, variant]), ..LookInput::default() };
            let batch = [OutcomeCounts::default(), OutcomeCounts::default()];
            Watch::new(rail).look("treatment", Instant::now(), &batch, &input).state
        };
        assert_eq!(state(&arm(90, 100), &arm(49, 49)), GuardrailState::Waiting);
        assert_eq!(state(&arm(90, 100), &arm(80, 100)), GuardrailState::Exceeded);
        assert_eq!(state(&arm(900, 1000), &arm(700, 1000)), GuardrailState::Breached);
        assert_eq!(state(&arm(900, 1000), &arm(890, 1000)), GuardrailState::Holds);
    }

    #[test]
    fn drift_is_a_breach_with_an_alarm_only() {
        let rail = guardrail(GuardrailMetric::Drift, GuardrailBound::MaxIncrease(0.1));
        for (drift, expected) in [
            (None, GuardrailState::Waiting),
            (Some(([0.1, 0.15], true)), GuardrailState::Holds),
            (Some(([0.1, 0.3], false)), GuardrailState::Exceeded),
            (Some(([0.1, 0.3], true)), GuardrailState::Breached),
        ] {
            let batch = [OutcomeCounts::default(), OutcomeCounts::default()];
            let input = LookInput { drift, ..LookInput::default() };
            let found = Watch::new(rail).look("treatment", Instant::now(), &batch, &input);
            assert_eq!(found.state, expected);
        }
    }

    #[test]
    fn window_drops_older_counts() {
        let mut window = SlidingWindow::new(Duration::from_secs(60));
        let start = Instant::now();
        window.push(start, &[counts(0, 1, 1), counts(1, 1, 1)]);
        window.push(start + Duration::from_secs(50), &[counts(0, 2, 1), counts(0, 2, 1)]);
        assert_eq!(window.sums(start + Duration::from_secs(60))[1].requests(), 3);
        assert_eq!(window.sums(start + Duration::from_secs(61))[1].requests(), 2);
        assert_eq!(window.sums(start + Duration::from_secs(111))[1].requests(), 0);
    }
}
