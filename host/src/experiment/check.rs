//! Checks the experiments of an application at startup, before the host listens.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use indexmap::IndexMap;
use spinfer_experiment::cookie::CookieKey;
use spinfer_experiment::format::overlap;
use spinfer_experiment::{CONTROL, Experiment, Experiments, Unit, Variant};
use toml::Table;
use tracing::warn;

use super::{FILE, STORE, signature};
use crate::config::app::ComponentSpec;
use crate::http::reserved::INTERNAL;
use crate::inference::Mounts;
use crate::prediction_log::settings::LogSettings;
use crate::process::read_file::read_file;

/// Variable of a router with the key that it signs assigned cookies with.
const COOKIE_KEY: &str = "cookie_key";
/// Maximum size of `experiments.toml`, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Checks that clients can reach the experiments of a router with `public` routes: one of its
/// routes must match the path of each, which `matches` decides.
///
/// # Errors
/// Lists every unreachable experiment.
pub fn routes(
    router: &str,
    public: bool,
    experiments: &Experiments,
    matches: impl Fn(&str) -> bool,
) -> Result<()> {
    let unreachable = |experiment: &&Experiment| {
        public && !matches(&format!("/v2/models/{}/predict", experiment.model))
    };
    let problems = experiments.iter().filter(unreachable).map(|Experiment { name, model, .. }| {
        let problem = format!(
            "experiments.{name}.model: no route of `{router}` matches /v2/models/{model}; add a \
             [[trigger.http]] of it with route = \"/v2/models/{model}/...\", or write the model of its \
             route here"
        );
        located(router, &problem)
    });
    let problems: Vec<_> = problems.collect();
    if problems.is_empty() { Ok(()) } else { Err(anyhow!(problems.join("\n"))) }
}

/// The components that experiments refer to.
#[derive(Debug)]
pub struct CheckedApplication<'a> {
    pub components: &'a IndexMap<String, ComponentSpec>,
    /// The mounts of each component, including copied files.
    pub mounts: &'a HashMap<String, Mounts>,
}

impl CheckedApplication<'_> {
    /// The experiments of each router, by its id.
    ///
    /// # Errors
    /// Lists every problem of all of them.
    pub fn experiments(&self, routers: &[&str]) -> Result<BTreeMap<String, Experiments>> {
        let mut problems = Vec::new();
        let mut all = BTreeMap::new();
        for id in routers {
            match self.read(id) {
                Ok(experiments) => drop(all.insert((*id).to_owned(), experiments)),
                Err(found) => problems.extend(found),
            }
        }
        let mut names: HashMap<&str, &str> = HashMap::new();
        for (id, experiment) in all.iter().flat_map(|(id, all)| all.iter().map(move |e| (id, e))) {
            let found = self.check(id, experiment);
            problems.extend(found.into_iter().map(|problem| located(id, &problem)));
            if let Some(other) = names.insert(&experiment.name, id) {
                let problem = format!(
                    "experiments.{}: component `{other}` has an experiment of this name; rename one",
                    experiment.name
                );
                problems.push(located(id, &problem));
            }
        }
        problems.extend(overlaps(&all));
        problems.extend(cycle(&all));
        if problems.is_empty() { Ok(all) } else { Err(anyhow!(problems.join("\n"))) }
    }

    /// Reads the file that a router mounts. No experiments if it mounts none.
    fn read(&self, id: &str) -> Result<Experiments, Vec<String>> {
        let Some(path) = self.mounts.get(id).and_then(mounted) else {
            warn!(
                component = id,
                "the router mounts no {FILE}: its experiments are not checked, not counted, and not \
                 available to `spinfer experiment`"
            );
            return Ok(Experiments::default());
        };
        let text = read_file(&path, MAX_FILE).and_then(|bytes| Ok(String::from_utf8(bytes)?));
        let text = text.map_err(|error| vec![located(id, &format!("{error:#}"))])?;
        let experiments = Experiments::parse(&text).map_err(|invalid| {
            invalid.0.iter().map(|problem| located(id, problem)).collect::<Vec<_>>()
        })?;
        let granted = &self.components[id].key_value_stores;
        if !granted.iter().any(|label| label == STORE) {
            warn!(
                component = id,
                "the router is granted no key-value store `{STORE}`: its allocations are those of \
                 {FILE}; write key_value_stores = [\"{STORE}\"] to change them with `spinfer \
                 experiment`"
            );
        }
        Ok(experiments)
    }

    /// The problems of the variants of `experiment`.
    fn check(&self, router: &str, experiment: &Experiment) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(self.check_cookie(router, experiment));
        let mut first: Option<(&Variant, String, Table)> = None;
        for (index, variant) in experiment.variants.iter().enumerate() {
            let Variant { name, component, .. } = variant;
            let key = format!("experiments.{}.variants[{index}] ({name})", experiment.name);
            let Some(spec) = self.components.get(component) else {
                problems.push(self.no_component(&key, router, component));
                continue;
            };
            problems.extend(self.check_grant(&key, router, component));
            if experiment.kind.compares() && !variant.shadow {
                let control = experiment.variant(CONTROL);
                let control = control.and_then(|(_, one)| self.components.get(&one.component));
                let difference = control
                    .and_then(|one| log_difference(&one.prediction_log, &spec.prediction_log));
                problems.extend(difference.map(|problem| {
                    format!(
                        "{key}: variants must be logged alike: {problem}; units would be missing"
                    )
                }));
            }
            let model = variant.model.as_ref().unwrap_or(&experiment.model);
            let mounts = self.mounts.get(component);
            let Some(folder) = mounts.and_then(|mounts| mounts.model_folder(model)) else {
                problems.extend(no_model(&key, spec, model));
                continue;
            };
            let signature = signature::read(&folder);
            if let (Ok(Some(table)), CONTROL) = (&signature, name.as_str()) {
                problems.extend(unknown_covariate(experiment, &named(model, table), table));
            }
            match (signature, &first) {
                (Err(error), _) => problems.push(format!("{key}: {error:#}")),
                (Ok(None), _) => {}
                (Ok(Some(table)), None) => first = Some((variant, named(model, &table), table)),
                (Ok(Some(table)), Some((variant, first_model, first_table))) => {
                    if let Some(difference) = signature::difference(first_table, &table) {
                        problems.push(format!(
                            "{key}: the signature of model {} differs from that of {first_model} \
                             (variant `{}`): {difference}; all variants of an experiment must have \
                             the same signature",
                            named(model, &table),
                            variant.name
                        ));
                    }
                }
            }
        }
        problems
    }

    /// The problem that a router has no key to sign assigned cookies with, if an experiment has one.
    fn check_cookie(&self, router: &str, experiment: &Experiment) -> Option<String> {
        let Unit::AssignedCookie(_) = experiment.unit else { return None };
        let key = format!("experiments.{}.unit.assigned_cookie", experiment.name);
        let variables = &self.components[router].variables;
        let Some((_, value)) = variables.iter().find(|(name, _)| name == COOKIE_KEY) else {
            return Some(format!(
                "{key}: there is no key to sign the cookie with; write {COOKIE_KEY} = \"{{{{ \
                 {COOKIE_KEY} }}}}\" under [component.{router}.variables] and {COOKIE_KEY} = {{ \
                 required = true, secret = true }} under [variables], and give all nodes the same \
                 value"
            ));
        };
        // A check without values has none.
        if value.is_empty() {
            return None;
        }
        let problem = CookieKey::new(value.as_bytes()).err()?;
        Some(format!("{key}: component.{router}.variables.{COOKIE_KEY}: {problem}"))
    }

    fn no_component(&self, key: &str, router: &str, component: &str) -> String {
        let available = self.components.keys().filter(|id| *id != router);
        let available: Vec<_> = available.map(|id| format!("`{id}`")).collect();
        format!(
            "{key}.component: [component.{component}] does not exist or has no route; available \
             components: {}. A component without a public route needs route = {{ private = true }}",
            available.join(", ")
        )
    }

    /// The problem that the router may not call the variant's component, if so.
    fn check_grant(&self, key: &str, router: &str, component: &str) -> Option<String> {
        let host = format!("{component}{INTERNAL}");
        if self.components[router].outbound_hosts.allows("http", &host, None) {
            return None;
        }
        Some(format!(
            "{key}.component: `{router}` may not call it; write allowed_outbound_hosts = \
             [\"http://{host}\"] or [\"http://*{INTERNAL}\"] under [component.{router}]"
        ))
    }
}

/// The problem that a component mounts other models than `model`, if so. Without any mounted model,
/// only the component's code defines the model's name.
fn no_model(key: &str, component: &ComponentSpec, model: &str) -> Option<String> {
    let mounted = component.models.iter().map(|mounted| format!("`{}`", mounted.name));
    let mounted: Vec<_> = mounted.collect();
    (!mounted.is_empty()).then(|| {
        format!(
            "{key}.model: component `{}` mounts no model `{model}`; mounted models: {}",
            component.id,
            mounted.join(", ")
        )
    })
}

/// How the records of a variant are a larger or smaller share of its requests than those of control,
/// if they are.
fn log_difference(control: &LogSettings, variant: &LogSettings) -> Option<String> {
    let [of_control, of_variant] =
        [control, variant].map(|settings| settings.enabled.then_some(settings.sample));
    if of_control == of_variant {
        return None;
    }
    Some(if control.enabled == variant.enabled {
        format!("`sample` {}, that of `{CONTROL}` {}", variant.sample, control.sample)
    } else {
        format!("`enabled` {}, that of `{CONTROL}` {}", variant.enabled, control.enabled)
    })
}

/// The problem that the model of control has no such input as the covariate of the metric, if so.
fn unknown_covariate(experiment: &Experiment, model: &str, signature: &Table) -> Option<String> {
    let name = experiment.metric.as_ref()?.covariate.as_ref()?;
    let problem = signature::unknown_input(signature, name)?;
    Some(format!("experiments.{}.metric.covariate: model {model} {problem}", experiment.name))
}

/// The display name of a model version, `iris-classifier/2`.
fn named(model: &str, signature: &Table) -> String {
    match signature.get("version").and_then(toml::Value::as_str) {
        Some(version) => format!("{model}/{version}"),
        None => model.to_owned(),
    }
}

fn located(router: &str, problem: &str) -> String {
    format!("component.{router}: {FILE}: {problem}")
}

/// Path of the mounted `experiments.toml`, if there is one.
fn mounted(mounts: &Mounts) -> Option<PathBuf> {
    let mut roots = mounts.iter().filter(|(destination, _)| destination.is_empty());
    let (_, folder) = roots.next()?;
    Some(folder.join(FILE.trim_start_matches('/'))).filter(|path| path.is_file())
}

/// The problems that experiments of two routers overlap in a namespace. Those of one file are known
/// from reading it.
fn overlaps(all: &BTreeMap<String, Experiments>) -> Vec<String> {
    let experiments: Vec<_> = all
        .iter()
        .flat_map(|(id, all)| all.iter().map(move |experiment| (id, experiment)))
        .collect();
    let mut problems = Vec::new();
    for (index, (id, experiment)) in experiments.iter().enumerate() {
        let others = experiments[..index].iter().filter(|(other, _)| other != id);
        problems.extend(others.filter_map(|(other, before)| {
            let problem = overlap(experiment, before)?;
            let key = format!("experiments.{}.namespace", experiment.name);
            Some(located(id, &format!("{key}: {problem} (component `{other}`)")))
        }));
    }
    problems
}

/// The problem that routers assign requests to each other in a cycle, if any do.
fn cycle(all: &BTreeMap<String, Experiments>) -> Option<String> {
    let next = |id: &str| -> Vec<&str> {
        let variants = all[id].iter().flat_map(|experiment| &experiment.variants);
        let components = variants.map(|variant| variant.component.as_str());
        components.filter(|component| all.contains_key(*component)).collect()
    };
    // Routers that cannot reach a cycle.
    let mut acyclic: Vec<&str> = Vec::new();
    loop {
        let open = all.keys().filter(|id| !acyclic.contains(&id.as_str()));
        let more: Vec<&str> = open
            .filter(|id| next(id).iter().all(|component| acyclic.contains(component)))
            .map(String::as_str)
            .collect();
        if more.is_empty() {
            break;
        }
        acyclic.extend(more);
    }
    let first = all.keys().find(|id| !acyclic.contains(&id.as_str()))?;
    let mut path = vec![first.as_str()];
    loop {
        let last = path[path.len() - 1];
        let component = next(last).into_iter().find(|id| !acyclic.contains(id))?;
        if let Some(start) = path.iter().position(|id| *id == component) {
            let cycle: Vec<_> = path[start..].iter().chain([&component]).copied().collect();
            let problem = format!(
                "routers assign requests to each other in a cycle: {}; write a component that \
                 serves a model",
                cycle.join(" -> ")
            );
            return Some(located(component, &problem));
        }
        path.push(component);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routers(edges: &[(&str, &[&str])]) -> BTreeMap<String, Experiments> {
        let file = |id: &str, components: &[&str]| {
            let mut text = String::new();
            for (index, component) in components.iter().enumerate() {
                let name = format!("{id}-{index}");
                text.push_str(&format!(
                    "[experiments.{name}]\nmodel = \"{name}\"\nunit = {{ header = \"a\" }}\n\
                     [[experiments.{name}.variants]]\nname = \"control\"\n\
                     component = \"{component}\"\nallocation = 1\n"
                ));
            }
            Experiments::parse(&text).unwrap()
        };
        edges.iter().map(|(id, components)| ((*id).to_owned(), file(id, components))).collect()
    }

    #[test]
    fn variants_are_logged_alike() {
        let of = |enabled, sample| LogSettings { enabled, sample, ..LogSettings::default() };
        let all = of(true, 1.0);
        assert_eq!(log_difference(&all, &of(true, 1.0)), None);
        assert_eq!(log_difference(&of(false, 1.0), &of(false, 0.3)), None);
        let found = log_difference(&all, &of(true, 0.3)).unwrap();
        assert_eq!(found, "`sample` 0.3, that of `control` 1");
        let found = log_difference(&all, &of(false, 1.0)).unwrap();
        assert_eq!(found, "`enabled` false, that of `control` true");
    }

    #[test]
    fn namespaces_of_two_routers_do_not_overlap() {
        let file = |name: &str, from: f64, to: f64| {
            let text = format!(
                "[experiments.{name}]\nmodel = \"{name}\"\nunit = {{ header = \"a\" }}\n\
                 namespace = {{ name = \"ranking\", from = {from:?}, to = {to:?} }}\n\
                 [[experiments.{name}.variants]]\nname = \"control\"\n\
                 component = \"model\"\nallocation = 1\n"
            );
            Experiments::parse(&text).unwrap()
        };
        let routers = |parts: [(f64, f64); 2]| {
            let [(a, b), (c, d)] = parts;
            let files = [("one", file("x", a, b)), ("two", file("y", c, d))];
            files.map(|(id, file)| (id.to_owned(), file)).into_iter().collect()
        };
        assert_eq!(overlaps(&routers([(0.0, 0.5), (0.5, 1.0)])), Vec::<String>::new());
        assert_eq!(
            overlaps(&routers([(0.0, 0.6), (0.5, 1.0)])),
            [
                "component.two: /experiments.toml: experiments.y.namespace: from 0.5 to 1 of namespace \
              \"ranking\" overlaps 0 to 0.6 of experiment `x`; their parts have to be disjoint \
              (component `one`)"
            ]
        );
    }

    #[test]
    fn cycle_of_routers_is_reported_with_its_path() {
        assert_eq!(cycle(&routers(&[("a", &["model", "b"]), ("b", &["model"])])), None);
        for (edges, part) in [
            (&[("a", &["a"][..])][..], "a -> a;"),
            (&[("a", &["model", "b"]), ("b", &["a"])], "a -> b -> a;"),
            (&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])], "b -> c -> b;"),
        ] {
            let problem = cycle(&routers(edges)).unwrap();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
