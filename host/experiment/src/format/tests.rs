use std::time::Duration;

use proptest::prelude::*;
use toml::Table;

use super::keys::Problems;
use super::parse::experiment;
use super::*;
use crate::unit::{AssignedCookie, MAX_COOKIE_AGE};

const VALID: &str = r#"
[experiments.iris]
model = "iris"
unit = { header = "X-User-Id" }
force = "X-Variant"
[[experiments.iris.variants]]
name = "control"
component = "iris-classifier-1"
model = "iris-classifier"
allocation = 0.9
[[experiments.iris.variants]]
name = "treatment"
component = "iris-classifier-2"
allocation = 0.1
[[experiments.iris.variants]]
name = "candidate"
component = "iris-classifier-3"
shadow = true
"#;

#[test]
fn a_file_is_read() {
    let experiments = Experiments::parse(VALID).unwrap();
    let iris = experiments.get("iris").unwrap();
    assert_eq!((iris.name.as_str(), iris.model.as_str()), ("iris", "iris"));
    assert_eq!(iris.unit, Unit::Header("x-user-id".into()), "headers have no case");
    assert_eq!(iris.force.as_deref(), Some("x-variant"));
    assert_eq!(iris.names(), "control, treatment");
    let [control, treatment, candidate] = iris.variants.as_slice() else { panic!("{iris:?}") };
    assert_eq!(control.model.as_deref(), Some("iris-classifier"));
    assert_eq!((treatment.model.as_deref(), treatment.allocation), (None, 0.1));
    assert_eq!((candidate.shadow, candidate.allocation), (true, 0.0));
}

#[test]
fn tenths_sum_to_one() {
    let text = VALID.replace("0.9", "0.7").replace("0.1", "0.3");
    assert!(Experiments::parse(&text).is_ok(), "0.7 + 0.3");
    let text = VALID.replace("0.9", "0.5").replace("= 0.1", "= 0.49999999995");
    assert!(Experiments::parse(&text).is_ok());
}

/// `find` is replaced in a valid file, and the problem has to have its key.
#[test]
fn every_invalid_value_is_named() {
    for (find, replace, expected) in [
        (
            "[experiments.iris]\n",
            "[experiments.iris]\nx = 1\n",
            "experiments.iris.x: unknown key; the keys are kind, model, unit, force, start, holdout",
        ),
        (
            "name = \"treatment\"",
            "name = \"treatment\"\nshare = 1",
            "experiments.iris.variants[1] (treatment).share: unknown key",
        ),
        (
            "[experiments.iris]\n",
            "x = 1\n[experiments.iris]\n",
            "x: unknown key; the keys are experiments",
        ),
        (
            "0.9",
            "0.8",
            "experiments.iris.variants: the allocations 0.8 + 0.1 sum to 0.9; they have to sum to 1",
        ),
        ("0.9", "-0.9", "variants[0] (control).allocation: -0.9 is not a share"),
        ("0.9", "1.9", "variants[0] (control).allocation: 1.9 is not a share"),
        ("0.9", "nan", "NaN is not a share"),
        ("0.9", "inf", "inf is not a share"),
        (
            "0.9",
            "\"0.9\"",
            "variants[0] (control).allocation: expected a share from 0 to 1, got string",
        ),
        ("allocation = 0.1\n", "", "variants[1] (treatment).allocation: is missing"),
        (
            "\"treatment\"",
            "\"control\"",
            "experiments.iris.variants: two variants are named `control`",
        ),
        ("\"control\"", "\"base\"", "no variant is named `control`"),
        (
            "shadow = true",
            "shadow = true\nallocation = 0.1",
            "variants[2] (candidate).allocation: a shadow has no share",
        ),
        ("shadow = true", "shadow = 1", "variants[2] (candidate).shadow: write true or false"),
        (
            "\"treatment\"",
            "\"treat ment\"",
            "variants[1] (treat ment).name: \"treat ment\" contains ' '",
        ),
        ("\"treatment\"", "\"\"", "variants[1] ().name: \"\" is empty"),
        ("\"treatment\"", "\"-t\"", "\"-t\" starts with '-'"),
        ("\"treatment\"", "7", "variants[1] (no name).name: expected a string, got integer"),
        ("model = \"iris\"\n", "model = \"a/b\"\n", "experiments.iris.model: \"a/b\" contains '/'"),
        ("model = \"iris\"\n", "", "experiments.iris.model: is missing"),
        (
            "\"iris-classifier-2\"",
            "\"no id\"",
            "variants[1] (treatment).component: \"no id\" is not the id",
        ),
        (
            "unit = { header = \"X-User-Id\" }\n",
            "",
            "experiments.iris.unit: is missing; write { header",
        ),
        ("{ header = \"X-User-Id\" }", "{ }", "experiments.iris.unit: must have one key"),
        (
            "{ header = \"X-User-Id\" }",
            "{ header = \"a\", cookie = \"b\" }",
            "experiments.iris.unit: must have one key",
        ),
        (
            "{ header = \"X-User-Id\" }",
            "{ ip = true }",
            "experiments.iris.unit.ip: unknown key; the keys are header, cookie, json, assigned_cookie",
        ),
        (
            "{ header = \"X-User-Id\" }",
            "{ header = \"a b\" }",
            "experiments.iris.unit.header: \"a b\" is not the name of a header",
        ),
        (
            "{ header = \"X-User-Id\" }",
            "{ header = \"Spin-Client-Addr\" }",
            "is a header of the host",
        ),
        (
            "{ header = \"X-User-Id\" }",
            "{ json = \"a..b\" }",
            "experiments.iris.unit.json: \"a..b\" is not a path",
        ),
        ("{ header = \"X-User-Id\" }", "\"x-user-id\"", "experiments.iris.unit: is not a table"),
        (
            "X-Variant",
            "spinfer-variant",
            "experiments.iris.force: \"spinfer-variant\" is a header of the host",
        ),
        (
            "[experiments.iris]\n",
            "[experiments.iris]\nmodel = \"twice\"\n",
            "line 4: duplicate key",
        ),
        ("[experiments.iris]", "[experiments.iris", "line 2:"),
    ] {
        let text = VALID.replacen(find, replace, 1);
        assert_ne!(text, VALID, "{find}");
        let problem = Experiments::parse(&text).unwrap_err().to_string();
        assert!(problem.contains(expected), "{find} -> {replace}:\n{problem}\nexpected {expected}");
    }
}

/// [`VALID`] with these keys of the experiment before the others.
fn with(keys: &str) -> String {
    VALID.replacen("[experiments.iris]\n", &format!("[experiments.iris]\n{keys}\n"), 1)
}

fn iris(text: &str) -> Experiment {
    Experiments::parse(text).unwrap_or_else(|invalid| panic!("{invalid}")).0.remove(0)
}

#[test]
fn settings_have_defaults() {
    let iris = iris(VALID);
    assert_eq!((iris.kind, iris.start), (Kind::Experiment, Start::Automatic));
    assert_eq!((iris.holdout, iris.namespace, iris.target), (0.0, None, None));
    assert_eq!((iris.alpha, iris.minimum_sample, iris.metric), (0.05, 100, None));
    assert_eq!((iris.unavailable, iris.guardrails), (Unavailable::Fail, Vec::new()));
}

#[test]
fn settings_are_read() {
    let text = with(
        r#"
        start = "manual"
        holdout = 0.05
        namespace = { name = "ranking", from = 0, to = 0.5 }
        target = { header = "X-Country", values = ["NL", "BE"] }
        unavailable = "control"
        alpha = 0.01
        minimum_sample = 1000
        metric = { kind = "value_error", per = "prediction", covariate = "age" }
        "#,
    ) + r#"
        [[experiments.iris.guardrails]]
        metric = "error_rate"
        max_increase = 0.02
        window = "30s"
        minimum = 20
        [[experiments.iris.guardrails]]
        metric = "latency_p95"
        max_ratio = 2
        "#;
    let iris = iris(&text);
    assert_eq!((iris.start, iris.unavailable), (Start::Manual, Unavailable::Control));
    assert_eq!((iris.holdout, iris.alpha, iris.minimum_sample), (0.05, 0.01, 1000));
    let namespace = Namespace { name: "ranking".into(), from: 0.0, to: 0.5 };
    assert_eq!(iris.namespace, Some(namespace));
    let target = iris.target.unwrap();
    assert_eq!(target.header, "x-country");
    assert!(target.includes(b" NL ") && target.includes(b"BE") && !target.includes(b"nl"));
    let covariate = Some("age".to_owned());
    let metric =
        Metric { kind: MetricKind::ValueError, per: Per::Prediction, margin: None, covariate };
    assert_eq!(iris.metric, Some(metric));
    let [errors, latency] = iris.guardrails.as_slice() else { panic!("{:?}", iris.guardrails) };
    let expected = Guardrail {
        metric: GuardrailMetric::ErrorRate,
        bound: GuardrailBound::MaxIncrease(0.02),
        window: Duration::from_secs(30),
        minimum: 20,
    };
    assert_eq!(*errors, expected);
    assert_eq!(latency.bound, GuardrailBound::MaxRatio(2.0));
    assert_eq!((latency.window, latency.minimum), (WINDOW, GUARDRAIL_MINIMUM));
}

#[test]
fn canary_starts_with_its_first_step() {
    let steps = r#"steps = [{ allocation = 0.01, hold = "10m" }, { allocation = 1, hold = "1h" }]"#;
    let text = with(&format!("kind = \"canary\"\n{steps}"))
        .replace("allocation = 0.9\n", "")
        .replace("allocation = 0.1\n", "");
    let canary = iris(&text);
    let allocations: Vec<_> = canary.variants.iter().map(|variant| variant.allocation).collect();
    assert_eq!(allocations, [0.99, 0.01, 0.0]);
    let Kind::Canary { steps } = canary.kind else { panic!("{:?}", canary.kind) };
    assert_eq!(steps[0], CanaryStep { allocation: 0.01, hold: Duration::from_secs(600) });
    assert_eq!(steps[1], CanaryStep { allocation: 1.0, hold: Duration::from_secs(3600) });
}

#[test]
fn shadow_experiment_assigns_all_units_to_control() {
    let text = with("kind = \"shadow\"")
        .replace("allocation = 0.9\n", "")
        .replace("allocation = 0.1\n", "shadow = true\n");
    let shadow = iris(&text);
    assert_eq!(shadow.kind, Kind::Shadow);
    let allocations: Vec<_> = shadow.variants.iter().map(|variant| variant.allocation).collect();
    assert_eq!(allocations, [1.0, 0.0, 0.0]);
}

#[test]
fn bandit_is_about_rewards() {
    let bandit = iris(&with("kind = \"bandit\""));
    assert_eq!(bandit.kind, Kind::Bandit { minimum_allocation: MINIMUM_ALLOCATION });
    assert_eq!(bandit.metric.unwrap().kind, MetricKind::Reward);
    let text =
        with("kind = \"bandit\"\nminimum_allocation = 0.1\nmetric = { kind = \"accuracy\" }");
    let bandit = iris(&text);
    assert_eq!(bandit.kind, Kind::Bandit { minimum_allocation: 0.1 });
    assert_eq!(bandit.metric.unwrap().kind, MetricKind::Accuracy);
}

#[test]
fn cookie_is_assigned_by_the_router() {
    let header = "{ header = \"X-User-Id\" }";
    let cookie = |unit: &str| iris(&VALID.replace(header, unit)).unit;
    let name = "spinfer-unit".to_owned();
    let expected = AssignedCookie { name: name.clone(), max_age: MAX_COOKIE_AGE, secure: None };
    assert_eq!(cookie("{ assigned_cookie = \"spinfer-unit\" }"), Unit::AssignedCookie(expected));
    let max_age = Duration::from_secs(30 * 24 * 60 * 60);
    let expected = AssignedCookie { name, max_age, secure: Some(true) };
    let unit = "{ assigned_cookie = \"spinfer-unit\", max_age = \"30d\", secure = true }";
    assert_eq!(cookie(unit), Unit::AssignedCookie(expected));
}

/// Keys of the experiment, and the problem that they have.
#[test]
fn every_invalid_setting_is_named() {
    for (keys, expected) in [
        ("kind = \"b\"", "iris.kind: \"b\" is not one of experiment, canary, shadow, bandit"),
        ("kind = 1", "iris.kind: expected a string, got integer"),
        ("steps = []", "iris.steps: only a canary has it; write kind = \"canary\", or remove it"),
        ("minimum_allocation = 0.1", "iris.minimum_allocation: only a bandit has it"),
        ("start = \"now\"", "iris.start: \"now\" is not one of automatic, manual"),
        ("holdout = 1", "iris.holdout: 1 is not a share of the units, at least 0 and less than 1"),
        ("holdout = nan", "iris.holdout: NaN is not a share"),
        ("holdout = \"5%\"", "iris.holdout: expected a share of the units, at least 0"),
        ("namespace = { name = \"a\", from = 0.5, to = 0.5 }", "from 0.5 to 0.5 is empty"),
        ("namespace = { name = \"a\", from = 0 }", "iris.namespace.to: is missing; write { name"),
        ("namespace = { from = 0, to = 1 }", "iris.namespace.name: is missing"),
        ("namespace = { name = \"a\", from = 0, to = 1.5 }", "iris.namespace.to: 1.5 is not a"),
        ("namespace = { name = \"a\", from = 0, to = 0.0005 }", "at most three decimals"),
        ("namespace = { name = \"a b\", from = 0, to = 1 }", "iris.namespace.name: \"a b\""),
        ("namespace = \"a\"", "iris.namespace: is not a table"),
        ("target = { header = \"x\", values = [] }", "iris.target.values: expected a list with"),
        ("target = { header = \"x\" }", "iris.target.values: expected a list with at least one"),
        ("target = { values = [\"a\"] }", "iris.target.header: is missing"),
        ("target = { header = \"spin-a\", values = [\"a\"] }", "is a header of the host"),
        (
            "target = { header = \"x\", values = [\"a \"] }",
            "iris.target.values[0]: \"a \" is not the",
        ),
        ("target = { header = \"x\", values = [1] }", "iris.target.values[0]: 1 is not the value"),
        ("target = { header = \"x\", values = [\"a\"], not = 1 }", "iris.target.not: unknown key"),
        ("unavailable = \"retry\"", "iris.unavailable: \"retry\" is not one of control, fail"),
        ("alpha = 0", "iris.alpha: 0 is not a significance level above 0 and at most 0.5"),
        ("alpha = 0.9", "iris.alpha: 0.9 is not a significance level"),
        ("minimum_sample = 0", "iris.minimum_sample: 0 is not a whole number from 1 to"),
        ("minimum_sample = 1.5", "iris.minimum_sample: 1.5 is not a whole number"),
        (
            "metric = { per = \"unit\" }",
            "iris.metric.kind: is missing; write one of accuracy, value_",
        ),
        (
            "metric = { kind = \"clicks\" }",
            "iris.metric.kind: \"clicks\" is not one of accuracy, va",
        ),
        ("metric = { kind = \"reward\", per = \"day\" }", "iris.metric.per: \"day\" is not one of"),
        (
            "metric = { kind = \"reward\", covariate = \"\" }",
            "iris.metric.covariate: is not the name",
        ),
        ("metric = \"reward\"", "iris.metric: is not a table"),
        ("guardrails = 1", "iris.guardrails: is not a list; write [[experiments.iris.guardrails]]"),
        ("guardrails = [1]", "iris.guardrails[0]: is not a table"),
        (
            "guardrails = [{}]",
            "iris.guardrails[0].metric: is missing; write one of error_rate, lat",
        ),
        (
            "guardrails = [{ metric = \"drift\" }]",
            "guardrails[0].max_increase: is missing; a guard",
        ),
        (
            "guardrails = [{ metric = \"accuracy\", max_increase = 0.1 }]",
            "guardrails[0].max_increase: accuracy is bounded by max_decrease; write that",
        ),
        (
            "guardrails = [{ metric = \"error_rate\", max_increase = 2 }]",
            "guardrails[0].max_increase: 2 is not a difference of two shares",
        ),
        (
            "guardrails = [{ metric = \"latency_p95\", max_ratio = 0.9 }]",
            "guardrails[0].max_ratio: 0.9 is not a ratio of two durations, at least 1",
        ),
        (
            "guardrails = [{ metric = \"reward\", max_decrease = inf }]",
            "guardrails[0].max_decrease: inf is not a difference of two mean rewards",
        ),
        (
            "guardrails = [{ metric = \"drift\", max_increase = 1, window = \"0s\" }]",
            "guardrails[0].window: \"0s\" is not a duration from 1s to 1d; write a whole number",
        ),
        (
            "guardrails = [{ metric = \"drift\", max_increase = 1, minimum = -1 }]",
            "guardrails[0].minimum: -1 is not a whole number",
        ),
        (
            "guardrails = [{ metric = \"drift\", max_increase = 1 }, { metric = \"drift\", \
             max_increase = 2, window = \"60s\" }]",
            "iris.guardrails[1]: a second guardrail of drift over the same window; remove one",
        ),
    ] {
        let problem = Experiments::parse(&with(keys)).unwrap_err().to_string();
        assert!(problem.contains(expected), "{keys}:\n{problem}\nexpected {expected}");
    }
}

#[test]
fn misspelt_kind_has_no_other_problems() {
    let text = with("kind = \"canari\"\nsteps = [{ allocation = 0.1, hold = \"1s\" }]")
        .replace("allocation = 0.9\n", "")
        .replace("allocation = 0.1\n", "");
    let Invalid(problems) = Experiments::parse(&text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("\"canari\" is not one of experiment, canary"), "{problems:?}");
}

/// Keys of a canary without allocations, and the problem that they have.
#[test]
fn every_invalid_canary_is_named() {
    let canary = |steps: &str| {
        with(&format!("kind = \"canary\"\n{steps}"))
            .replace("allocation = 0.9\n", "")
            .replace("allocation = 0.1\n", "")
    };
    for (steps, expected) in [
        ("", "iris.steps: is missing; write steps = [{ allocation"),
        ("steps = []", "iris.steps: is not a list of steps; write"),
        ("steps = [1]", "iris.steps[0]: is not a table"),
        ("steps = [{ allocation = 0.5 }]", "iris.steps[0].hold: is missing"),
        ("steps = [{ hold = \"1s\" }]", "iris.steps[0].allocation: is missing"),
        (
            "steps = [{ allocation = 0, hold = \"1s\" }]",
            "iris.steps[0].allocation: 0 is not a share",
        ),
        (
            "steps = [{ allocation = 1, hold = \"0s\" }]",
            "iris.steps[0].hold: \"0s\" is not a durat",
        ),
        ("steps = [{ allocation = 1, hold = \"31d\" }]", "is not a duration from 1ms to 30d"),
        (
            "steps = [{ allocation = 1, hold = 10 }]",
            "iris.steps[0].hold: expected a string, got in",
        ),
        (
            "steps = [{ allocation = 0.5, hold = \"1s\" }, { allocation = 0.5, hold = \"1s\" }]",
            "iris.steps[1].allocation: 0.5 is not above 0.5 of the step before; sort the steps",
        ),
        (
            "steps = [{ allocation = 0.5, hold = \"1s\", pause = 1 }]",
            "iris.steps[0].pause: unknown key; the keys are allocation, hold",
        ),
    ] {
        let problem = Experiments::parse(&canary(steps)).unwrap_err().to_string();
        assert!(problem.contains(expected), "{steps}:\n{problem}\nexpected {expected}");
    }
    let steps = "steps = [{ allocation = 1, hold = \"1s\" }]";
    let many = "{ allocation = 1, hold = \"1s\" },".repeat(MAX_STEPS + 1);
    for (text, expected) in [
        (canary(&format!("steps = [{many}]")), "has 51 steps; the maximum is 50"),
        (with(&format!("kind = \"canary\"\n{steps}")), "the steps of a canary decide its allocati"),
        (canary(steps).replace("shadow = true\n", ""), "a canary has `control` and one treatment"),
        (
            canary(&format!(
                "{steps}\nguardrails = [{{ metric = \"error_rate\", max_increase = 0.1 }}]"
            )),
            "iris.steps: a step of 1 leaves control no requests, so guardrails cannot compare",
        ),
    ] {
        let problem = Experiments::parse(&text).unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}\nexpected {expected}");
    }
}

#[test]
fn variants_fit_the_kind() {
    let shadow = with("kind = \"shadow\"").replace("0.9", "1");
    let bandit = with("kind = \"bandit\"");
    let alone = shadow.split("[[experiments.iris.variants]]\nname = \"treatment\"").next().unwrap();
    let header = "{ header = \"X-User-Id\" }";
    let cookie = VALID.replace(header, "{ assigned_cookie = \"__Host-unit\" }");
    for (text, expected) in [
        (shadow.clone(), "assigns all units to `control`; write shadow = true"),
        (alone.to_owned(), "has at least one variant with shadow = true"),
        (
            shadow.replace("model = \"iris\"\n", "model = \"iris\"\nalpha = 0.1\n"),
            "iris.alpha: an experiment of kind \"shadow\" assigns all units to control",
        ),
        (
            bandit.replace("0.9", "0.99").replace("= 0.1", "= 0.01"),
            "the allocation 0.01 of `treatment` is less than the minimum_allocation of 0.05",
        ),
        (
            bandit.replace("\"bandit\"", "\"bandit\"\nminimum_allocation = 0.6"),
            "2 variants with a minimum_allocation of 0.6 need more than all units",
        ),
        (
            bandit.replace("\"bandit\"", "\"bandit\"\nmetric = { kind = \"latency\" }"),
            "iris.metric.kind: a bandit maximises rewards, not latency",
        ),
        (cookie, "iris.unit.secure: clients accept \"__Host-unit\" as a secure cookie only"),
        (
            VALID.replace(header, "{ assigned_cookie = \"a b\" }"),
            "iris.unit.assigned_cookie: \"a b\" is not the name of a header or a cookie",
        ),
        (
            VALID.replace(header, "{ assigned_cookie = \"a\", max_age = \"401d\" }"),
            "iris.unit.max_age: \"401d\" is not a duration from 1s to 400d",
        ),
        (
            VALID.replace(header, "{ assigned_cookie = \"a\", header = \"b\" }"),
            "iris.unit.header: unknown key; the keys are assigned_cookie, max_age, secure",
        ),
    ] {
        let problem = Experiments::parse(&text).unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}\nexpected {expected}");
    }
}

#[test]
fn parts_of_a_namespace_are_disjoint() {
    let other = |from: f64, to: f64, name: &str| {
        let one = with("namespace = { name = \"ranking\", from = 0.2, to = 0.6 }");
        let two = with(&format!("namespace = {{ name = \"{name}\", from = {from}, to = {to} }}"));
        let two = two.replace("experiments.iris", "experiments.other");
        format!("{one}{}", two.replace("model = \"iris\"\n", "model = \"other\"\n"))
    };
    for (from, to) in [(0.0, 0.2), (0.6, 1.0)] {
        assert!(Experiments::parse(&other(from, to, "ranking")).is_ok(), "{from} to {to}");
    }
    assert!(Experiments::parse(&other(0.0, 1.0, "search")).is_ok(), "another namespace");
    for (from, to) in [(0.0, 0.201), (0.599, 1.0), (0.3, 0.4), (0.0, 1.0)] {
        let problem = Experiments::parse(&other(from, to, "ranking")).unwrap_err().to_string();
        let expected = format!(
            "experiments.other.namespace: from {from} to {to} of namespace \"ranking\" overlaps 0.2 \
             to 0.6 of experiment `iris`; their parts have to be disjoint"
        );
        assert_eq!(problem, expected);
    }
}

#[test]
fn every_problem_is_found_at_once() {
    let text = VALID.replace("0.9", "2").replace("\"iris-classifier-2\"", "\"\"");
    let Invalid(problems) = Experiments::parse(&text).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn names_and_models_are_unique() {
    let twice = format!("{VALID}{}", VALID.replace("experiments.iris", "experiments.other"));
    let problem = Experiments::parse(&twice).unwrap_err().to_string();
    assert_eq!(
        problem,
        "experiments.other.model: \"iris\" is the model of experiment `iris`; a model has one \
         experiment"
    );
    let problem = Experiments::parse(&format!("{VALID}{VALID}")).unwrap_err().to_string();
    assert!(problem.contains("duplicate"), "{problem}");
}

#[test]
fn a_file_without_experiments_is_refused() {
    for text in ["", "experiments = 1", "[experiments]"] {
        let problem = Experiments::parse(text).unwrap_err().to_string();
        assert!(problem.contains("write [experiments.<name>]"), "{problem}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,300}") {
        let _ = Experiments::parse(&text);
    }

    /// A valid file with a replaced part, which reaches most checks.
    #[test]
    fn a_broken_file_is_read_or_refused(
        at in 0..VALID.len(), length in 0..12_usize, with in "[ -~é\n]{0,12}",
    ) {
        let end = (at + length).min(VALID.len());
        let text = format!("{}{with}{}", &VALID[..at], &VALID[end..]);
        if let Ok(experiments) = Experiments::parse(&text) {
            for experiment in &experiments {
                prop_assert!(experiment.assignable().any(|(_, variant)| variant.name == CONTROL));
                let sum: f64 = experiment.variants.iter().map(|v| v.allocation).sum();
                prop_assert!((sum - 1.0).abs() <= 2.0 * SUM_TOLERANCE);
            }
        }
    }

    #[test]
    fn any_values_are_read_or_refused(
        name in "[ -~é]{0,10}", allocation in any::<f64>(), key in "[a-z]{1,8}",
    ) {
        let mut file: Table = toml::from_str(VALID).unwrap();
        let iris = file["experiments"]["iris"].as_table_mut().unwrap();
        let variant = iris["variants"][0].as_table_mut().unwrap();
        variant.insert("name".into(), name.into());
        variant.insert("allocation".into(), allocation.into());
        variant.insert(key, 1.into());
        let mut problems = Problems(Vec::new());
        let _ = experiment("iris", &file["experiments"]["iris"], &mut problems);
    }
}
