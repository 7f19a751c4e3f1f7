//! Parses the text of a file.

use std::time::Duration;

use toml::{Table, Value};

use super::check::{check_header, check_name, check_path, check_token};
use super::keys::{Keys, Problems};
use super::kind::kind;
use super::variants::variants;
use super::{
    Experiment, Guardrail, Invalid, Kind, Metric, MetricKind, Per, Unavailable, analysis,
    eligibility, overlap,
};
use crate::unit::{AssignedCookie, MAX_COOKIE_AGE, Unit};

pub(super) fn experiments(text: &str) -> Result<Vec<Experiment>, Invalid> {
    let file: Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |at| 1 + text[..at.start].matches('\n').count());
        Invalid(vec![format!("line {line}: {}", error.message())])
    })?;
    let mut problems = Problems(Vec::new());
    let root = Keys { at: String::new(), table: &file };
    root.known(&["experiments"], &mut problems);
    let mut experiments = Vec::new();
    match file.get("experiments") {
        Some(Value::Table(tables)) if !tables.is_empty() => {
            for (name, value) in tables {
                experiments.extend(experiment(name, value, &mut problems));
            }
        }
        Some(Value::Table(_)) | None => {
            problems.add("experiments", "is missing; write [experiments.<name>]");
        }
        Some(_) => problems.add("experiments", "is not a table; write [experiments.<name>]"),
    }
    experiments.sort_by(|a, b| a.name.cmp(&b.name));
    for (index, experiment) in experiments.iter().enumerate() {
        let Experiment { name, model, .. } = experiment;
        for problem in experiments[..index].iter().filter_map(|other| overlap(experiment, other)) {
            problems.add(format_args!("experiments.{name}.namespace"), problem);
        }
        if let Some(first) = experiments[..index].iter().find(|other| other.model == *model) {
            problems.add(
                format_args!("experiments.{name}.model"),
                format_args!(
                    "\"{model}\" is the model of experiment `{}`; a model has one experiment",
                    first.name
                ),
            );
        }
    }
    if problems.0.is_empty() { Ok(experiments) } else { Err(Invalid(problems.0)) }
}

pub(super) fn experiment(name: &str, value: &Value, problems: &mut Problems) -> Option<Experiment> {
    if let Err(problem) = check_name(name) {
        problems.add("experiments", problem);
    }
    let at = format!("experiments.{}", name.escape_debug());
    let keys = Keys::of(at, value, problems)?;
    keys.known(&KEYS, problems);
    let kind = kind(&keys, problems);
    let model = keys.required("model", check_name, problems);
    let unit = unit(&keys, problems);
    let force = keys.optional("force", check_header, problems);
    let unavailable = match keys.choice("unavailable", &["control", "fail"], problems) {
        Some("control") => Unavailable::Control,
        _ => Unavailable::Fail,
    };
    let metric = analysis::metric(&keys, problems);
    // Problems of the variants of an invalid kind would be consequences of it.
    let mut unknown = Problems(Vec::new());
    let (kind, of_kind) = match kind {
        Some(kind) => (kind, &mut *problems),
        None => (Kind::Experiment, &mut unknown),
    };
    let variants = variants(&keys, &kind, of_kind);
    Some(Experiment {
        start: eligibility::start(&keys, problems),
        holdout: eligibility::holdout(&keys, problems),
        namespace: eligibility::namespace(&keys, problems),
        target: eligibility::target(&keys, problems),
        unavailable,
        alpha: analysis::alpha(&keys, problems),
        minimum_sample: analysis::minimum_sample(&keys, problems),
        metric: bandit_metric(&keys, &kind, metric, problems),
        guardrails: guardrails(&keys, &kind, problems),
        variants,
        name: name.to_owned(),
        model: model?,
        unit: unit?,
        force: force.map(|name| name.to_ascii_lowercase()),
        kind,
    })
}

/// The keys of an experiment.
const KEYS: [&str; 16] = [
    "kind",
    "model",
    "unit",
    "force",
    "start",
    "holdout",
    "namespace",
    "target",
    "unavailable",
    "alpha",
    "minimum_sample",
    "metric",
    "guardrails",
    "steps",
    "minimum_allocation",
    "variants",
];

/// The metric of an experiment. That of a bandit is its reward, from 0 to 1 at best.
fn bandit_metric(
    keys: &Keys<'_>,
    kind: &Kind,
    metric: Option<Metric>,
    problems: &mut Problems,
) -> Option<Metric> {
    if !matches!(kind, Kind::Bandit { .. }) {
        return metric;
    }
    let Some(metric) = metric else {
        return Some(Metric {
            kind: MetricKind::Reward,
            per: Per::Unit,
            margin: None,
            covariate: None,
        });
    };
    if !matches!(metric.kind, MetricKind::Reward | MetricKind::Accuracy) {
        let problem = format_args!(
            "a bandit maximises rewards, not {}; write kind = \"reward\" or \"accuracy\"",
            metric.kind
        );
        problems.add(keys.key("metric.kind"), problem);
    }
    Some(metric)
}

/// The guardrails of an experiment. Those of a canary compare with control, at every step.
fn guardrails(keys: &Keys<'_>, kind: &Kind, problems: &mut Problems) -> Vec<Guardrail> {
    let guardrails = analysis::guardrails(keys, problems);
    let takes_all = match kind {
        Kind::Canary { steps } => steps.iter().any(|step| step.allocation >= 1.0),
        _ => false,
    };
    if takes_all && !guardrails.is_empty() {
        let problem = "a step of 1 leaves control no requests, so guardrails cannot compare; write \
                       at most 0.99 and `spinfer experiment promote` at the end";
        problems.add(keys.key("steps"), problem);
    }
    guardrails
}

/// How to write a unit.
const UNIT: &str = "write { header = \"x-user-id\" }, { cookie = \"uid\" }, { json = \"user.id\" } \
                    or { assigned_cookie = \"spinfer-unit\" }";

fn unit(experiment: &Keys<'_>, problems: &mut Problems) -> Option<Unit> {
    let at = experiment.key("unit");
    let Some(value) = experiment.table.get("unit") else {
        problems.add(at, format_args!("is missing; {UNIT}"));
        return None;
    };
    let keys = Keys::of(at, value, problems)?;
    let sources = ["header", "cookie", "json", "assigned_cookie"];
    if keys.table.contains_key("assigned_cookie") {
        keys.known(&["assigned_cookie", "max_age", "secure"], problems);
        return assigned_cookie(&keys, problems).map(Unit::AssignedCookie);
    }
    keys.known(&sources, problems);
    if keys.table.len() != 1 {
        problems.add(&keys.at, format_args!("must have one key; {UNIT}"));
        return None;
    }
    if let Some(name) = keys.optional("header", check_header, problems) {
        return Some(Unit::Header(name.to_ascii_lowercase()));
    }
    if let Some(name) = keys.optional("cookie", check_token, problems) {
        return Some(Unit::Cookie(name));
    }
    let path = keys.optional("json", check_path, problems)?;
    Some(Unit::Json(path.split('.').map(str::to_owned).collect()))
}

fn assigned_cookie(keys: &Keys<'_>, problems: &mut Problems) -> Option<AssignedCookie> {
    let name = keys.optional("assigned_cookie", check_token, problems);
    let ages = Duration::from_secs(1)..=MAX_COOKIE_AGE;
    let max_age = keys.duration("max_age", ages, problems).unwrap_or(MAX_COOKIE_AGE);
    let secure = keys.flag("secure", problems);
    let name = name?;
    // Browsers refuse such a cookie without `Secure` (RFC 6265bis, 4.1.3).
    let prefixed =
        ["__host-", "__secure-"].iter().any(|prefix| name.to_ascii_lowercase().starts_with(prefix));
    if prefixed && secure != Some(true) {
        let problem = format_args!("clients accept \"{name}\" as a secure cookie only; write true");
        problems.add(keys.key("secure"), problem);
    }
    Some(AssignedCookie { name, max_age, secure })
}
