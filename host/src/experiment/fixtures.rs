//! The experiments of tests.

use spinfer_experiment::{Experiment, Experiments};

/// The experiment `iris` with these keys. The treatment has `share`.
pub(super) fn experiment(keys: &str, share: f64) -> Experiment {
    let rest = 1.0 - share;
    parse(keys, [rest, share].map(|share| format!(", allocation = {share}")))
}

/// A canary `iris` with these steps.
pub(super) fn canary(steps: &str) -> Experiment {
    parse(&format!("kind = \"canary\"\nsteps = {steps}"), Default::default())
}

/// `keys` are those of the experiment, `control` and `treatment` more keys of the variants.
fn parse(keys: &str, [control, treatment]: [String; 2]) -> Experiment {
    let text = format!(
        r#"
        [experiments.iris]
        model = "iris"
        unit = {{ header = "x-user-id" }}
        {keys}
        variants = [
            {{ name = "control", component = "a"{control} }},
            {{ name = "treatment", component = "b"{treatment} }},
        ]
        "#
    );
    Experiments::parse(&text).unwrap().get("iris").unwrap().clone()
}
