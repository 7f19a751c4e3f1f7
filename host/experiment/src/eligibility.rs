//! Whether a request is in an experiment.
//!
//! # Order of the conditions
//!
//! 1. The experiment has started.
//! 2. The request has a unit, if a holdout or a namespace is to be looked up for it.
//! 3. The unit is not held out.
//! 4. The unit's place in the namespace is in the part of the experiment.
//! 5. The request has a value of the target.
//!
//! A request that fails one is served by control, and is not in the data of the experiment. All
//! conditions are functions of the request and the file, so every node agrees on them.

use crate::format::{Experiment, Start};
use crate::hash::{BUCKETS, NAMESPACE_BUCKETS, bucket, namespace_bucket};

/// The parts of a request that decide its assignment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'r> {
    pub unit: Option<&'r [u8]>,
    /// The variant that its client chooses, if the experiment allows that.
    pub forced: Option<&'r [u8]>,
    /// Whether the request has a value of the target, if the experiment has one.
    pub targeted: bool,
}

/// Why a request is not in an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// An operator has to start the experiment.
    NotStarted,
    /// Without a unit, there is no place in the holdout or the namespace.
    NoUnit,
    Holdout,
    Namespace,
    Target,
}

impl Exclusion {
    pub const ALL: [Self; 5] =
        [Self::NotStarted, Self::NoUnit, Self::Holdout, Self::Namespace, Self::Target];

    /// `not_started`, `no_unit`, `holdout`, `namespace`, `target`
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::NoUnit => "no_unit",
            Self::Holdout => "holdout",
            Self::Namespace => "namespace",
            Self::Target => "target",
        }
    }
}

/// Why a request is not in `experiment`, of which `started` tells whether an operator started it.
#[must_use]
pub fn excluded(
    experiment: &Experiment,
    started: bool,
    subject: &Subject<'_>,
) -> Option<Exclusion> {
    if experiment.start == Start::Manual && !started {
        return Some(Exclusion::NotStarted);
    }
    if experiment.holdout > 0.0 || experiment.namespace.is_some() {
        let Some(unit) = subject.unit else { return Some(Exclusion::NoUnit) };
        if is_held_out(experiment, unit) {
            return Some(Exclusion::Holdout);
        }
        if !is_in_namespace(experiment, unit) {
            return Some(Exclusion::Namespace);
        }
    }
    off_target(experiment, subject).then_some(Exclusion::Target)
}

/// Whether the experiment has a target, and the request is not of it.
pub(crate) fn off_target(experiment: &Experiment, subject: &Subject<'_>) -> bool {
    experiment.target.is_some() && !subject.targeted
}

/// The bucket depends on the experiment, but not on the one that selects the variant.
fn is_held_out(experiment: &Experiment, unit: &[u8]) -> bool {
    // No name of an experiment contains a slash.
    let seed = format!("{}/holdout", experiment.name);
    f64::from(bucket(&seed, unit)) < experiment.holdout * f64::from(BUCKETS)
}

fn is_in_namespace(experiment: &Experiment, unit: &[u8]) -> bool {
    experiment.namespace.as_ref().is_none_or(|part| {
        // As GrowthBook compares them.
        let place = f64::from(namespace_bucket(&part.name, unit)) / f64::from(NAMESPACE_BUCKETS);
        (part.from..part.to).contains(&place)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Experiments;
    use crate::split::Split;

    /// Experiments with these keys, of different names and models.
    fn experiments(keys: &[String]) -> Vec<Experiment> {
        let one = |(index, keys): (usize, &String)| {
            format!(
                "[experiments.e{index}]\nmodel = \"m{index}\"\nunit = {{ header = \"u\" }}\n{keys}\n\
                 [[experiments.e{index}.variants]]\nname = \"control\"\ncomponent = \"a\"\n\
                 allocation = 0.5\n\
                 [[experiments.e{index}.variants]]\nname = \"treatment\"\ncomponent = \"b\"\n\
                 allocation = 0.5\n"
            )
        };
        let text: String = keys.iter().enumerate().map(one).collect();
        let experiments = Experiments::parse(&text).unwrap_or_else(|invalid| panic!("{invalid}"));
        experiments.iter().cloned().collect()
    }

    fn experiment(keys: &str) -> Experiment {
        experiments(&[keys.to_owned()]).remove(0)
    }

    fn subject(unit: &str) -> Subject<'_> {
        Subject { unit: Some(unit.as_bytes()), forced: None, targeted: false }
    }

    #[test]
    fn first_condition_that_fails_is_the_reason() {
        let all = experiment(
            "start = \"manual\"\nholdout = 0.5\n\
             namespace = { name = \"ranking\", from = 0.0, to = 0.5 }\n\
             target = { header = \"x\", values = [\"a\"] }",
        );
        let users: Vec<_> = (0..200).map(|index| format!("user-{index}")).collect();
        assert_eq!(excluded(&all, false, &subject("ann")), Some(Exclusion::NotStarted));
        assert_eq!(excluded(&all, true, &Subject::default()), Some(Exclusion::NoUnit));
        for user in &users {
            let unit = user.as_bytes();
            let expected = match (is_held_out(&all, unit), is_in_namespace(&all, unit)) {
                (true, _) => Exclusion::Holdout,
                (false, false) => Exclusion::Namespace,
                (false, true) => Exclusion::Target,
            };
            assert_eq!(excluded(&all, true, &subject(user)), Some(expected));
            let targeted = Subject { targeted: true, ..subject(user) };
            let expected = Some(expected).filter(|reason| *reason != Exclusion::Target);
            assert_eq!(excluded(&all, true, &targeted), expected);
        }
        let reasons = users.iter().map(|user| excluded(&all, true, &subject(user)).unwrap());
        let reasons: Vec<_> = reasons.collect();
        for reason in [Exclusion::Holdout, Exclusion::Namespace, Exclusion::Target] {
            assert!(reasons.contains(&reason), "{reason:?}");
        }
    }

    #[test]
    fn experiment_without_conditions_has_every_request() {
        let all = experiment("");
        assert_eq!(excluded(&all, false, &Subject::default()), None);
        assert_eq!(excluded(&all, false, &subject("ann")), None);
    }

    /// Asserts that `count` of `total` is within five standard deviations of `share`.
    fn check_share(count: u32, total: u32, share: f64) {
        let deviation = (f64::from(total) * share * (1.0 - share)).sqrt();
        let off = (f64::from(count) - f64::from(total) * share).abs();
        assert!(off <= 5.0 * deviation, "{count} of {total}, expected {share}");
    }

    /// The holdout, the namespace and the split are independent of each other: the shares of the
    /// variants among the units in the experiment are their allocations.
    #[test]
    fn holdout_and_namespace_have_their_shares_and_leave_those_of_the_variants() {
        let experiment =
            experiment("holdout = 0.2\nnamespace = { name = \"ranking\", from = 0.1, to = 0.6 }");
        let split = Split::new(&experiment, &crate::Change::default()).unwrap();
        let (mut held_out, mut outside, mut exposed, mut treated) = (0, 0, 0, 0);
        const UNITS: u32 = 50_000;
        for unit in 0..UNITS {
            let unit = format!("user-{unit}");
            match excluded(&experiment, false, &subject(&unit)) {
                Some(Exclusion::Holdout) => held_out += 1,
                Some(Exclusion::Namespace) => outside += 1,
                None => {
                    exposed += 1;
                    treated += u32::from(split.variant(Some(unit.as_bytes())) == 1);
                }
                Some(other) => panic!("{other:?}"),
            }
        }
        check_share(held_out, UNITS, 0.2);
        check_share(outside, UNITS - held_out, 0.5);
        check_share(treated, exposed, 0.5);
    }

    /// Ascending bounds of parts, in thousandths.
    fn bounds() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::btree_set(0..=1000_u32, 2..8)
            .prop_map(|bounds| bounds.into_iter().collect())
    }

    proptest! {
        #[test]
        fn units_are_in_one_experiment_of_a_namespace_at_most(
            bounds in bounds(), units in proptest::collection::vec("[ -~]{1,20}", 50),
        ) {
            let parts: Vec<_> = bounds.windows(2).map(|part| {
                let [from, to] = [part[0], part[1]].map(|bound| f64::from(bound) / 1000.0);
                format!("namespace = {{ name = \"ranking\", from = {from:?}, to = {to:?} }}")
            }).collect();
            let experiments = experiments(&parts);
            let (first, last) = (bounds[0], bounds[bounds.len() - 1]);
            for unit in &units {
                let included = experiments.iter();
                let included = included.filter(|e| excluded(e, false, &subject(unit)).is_none());
                let place = namespace_bucket("ranking", unit.as_bytes());
                let expected = usize::from((first..last).contains(&place));
                prop_assert_eq!(included.count(), expected, "{} at {}", unit, place);
            }
        }

        #[test]
        fn larger_holdout_holds_out_more_units(
            unit in "[ -~]{1,20}", small in 0.0..0.5_f64, more in 0.0..0.4_f64,
        ) {
            let mut experiment = experiment("");
            experiment.holdout = small;
            let before = is_held_out(&experiment, unit.as_bytes());
            experiment.holdout = small + more;
            prop_assert!(!before || is_held_out(&experiment, unit.as_bytes()));
        }
    }
}
