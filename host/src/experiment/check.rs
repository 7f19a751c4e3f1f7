//! Everything that can be wrong with the experiments of an application, before the socket is bound.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use indexmap::IndexMap;
use spinfer_experiment::{Experiment, Experiments, Variant};
use toml::Table;
use tracing::warn;

use super::{FILE, STORE, signature};
use crate::config::app::ComponentSpec;
use crate::process::read_file::read_file;
use crate::inference::Mounts;
use crate::http::reserved::INTERNAL;

/// Bytes of a file of experiments.
const MAX_FILE: u64 = 1 << 20;

/// Fails if a router that has `public` routes has none that `takes` the path of one of its
/// experiments: no client would ever reach that.
pub fn routes(
    router: &str,
    public: bool,
    experiments: &Experiments,
    takes: impl Fn(&str) -> bool,
) -> Result<()> {
    let unreachable = |experiment: &&Experiment| {
        public && !takes(&format!("/v2/models/{}/predict", experiment.model))
    };
    let problems = experiments.iter().filter(unreachable).map(|Experiment { name, model, .. }| {
        let problem = format!(
            "experiments.{name}.model: no route of `{router}` takes /v2/models/{model}; write route \
             = \"/v2/models/{model}/...\" in a [[trigger.http]] of it, or the model of its route here"
        );
        located(router, &problem)
    });
    let problems: Vec<_> = problems.collect();
    if problems.is_empty() { Ok(()) } else { Err(anyhow!(problems.join("\n"))) }
}

/// What an application's components are, as experiments name them.
#[derive(Debug)]
pub struct Application<'a> {
    pub components: &'a IndexMap<String, ComponentSpec>,
    /// What each mounts, files that were copied included.
    pub mounts: &'a HashMap<String, Mounts>,
}

impl Application<'_> {
    /// The experiments of each router, by its id. Fails with every problem of all of them.
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
                    "experiments.{}: component `{other}` has one of this name; rename one",
                    experiment.name
                );
                problems.push(located(id, &problem));
            }
        }
        problems.extend(circle(&all));
        if problems.is_empty() { Ok(all) } else { Err(anyhow!(problems.join("\n"))) }
    }

    /// The file that a router mounts; no experiments if it mounts none.
    fn read(&self, id: &str) -> Result<Experiments, Vec<String>> {
        let Some(path) = self.mounts.get(id).and_then(mounted) else {
            warn!(
                component = id,
                "it assigns requests, and mounts no {FILE}: nothing of its experiments is checked \
                 or counted, and `spinfer experiment` does not see them"
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
                "it is granted no key-value store `{STORE}`: its allocations stay as {FILE} has \
                 them; key_value_stores = [\"{STORE}\"] lets `spinfer experiment` change them"
            );
        }
        Ok(experiments)
    }

    fn check(&self, router: &str, experiment: &Experiment) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seen: Option<(&Variant, String, Table)> = None;
        for (index, variant) in experiment.variants.iter().enumerate() {
            let Variant { name, component, .. } = variant;
            let key = format!("experiments.{}.variants[{index}] ({name})", experiment.name);
            let Some(spec) = self.components.get(component) else {
                let ids = self.components.keys().filter(|id| *id != router);
                let ids: Vec<_> = ids.map(|id| format!("`{id}`")).collect();
                problems.push(format!(
                    "{key}.component: there is no [component.{component}] with a route; there are \
                     {}. A component for no other route has one that is private: route = {{ \
                     private = true }}",
                    ids.join(", ")
                ));
                continue;
            };
            let host = format!("{component}{INTERNAL}");
            if !self.components[router].outbound_hosts.allows("http", &host, None) {
                problems.push(format!(
                    "{key}.component: `{router}` may not call it; write allowed_outbound_hosts = \
                     [\"http://{host}\"] or [\"http://*{INTERNAL}\"] under [component.{router}]"
                ));
            }
            let model = variant.model.as_ref().unwrap_or(&experiment.model);
            let mounts = self.mounts.get(component);
            let Some(folder) = mounts.and_then(|mounts| mounts.model_folder(model)) else {
                // One that mounts no model has a name that only its code knows.
                if !spec.models.is_empty() {
                    let mounted = spec.models.iter().map(|mounted| format!("`{}`", mounted.name));
                    problems.push(format!(
                        "{key}.model: component `{component}` mounts no model `{model}`; it mounts \
                         {}",
                        mounted.collect::<Vec<_>>().join(", ")
                    ));
                }
                continue;
            };
            match (signature::read(&folder), &seen) {
                (Err(error), _) => problems.push(format!("{key}: {error:#}")),
                (Ok(None), _) => {}
                (Ok(Some(table)), None) => seen = Some((variant, named(model, &table), table)),
                (Ok(Some(table)), Some((first, of_first, before))) => {
                    if let Some(difference) = signature::difference(before, &table) {
                        problems.push(format!(
                            "{key}: model {} has another signature than {of_first} of variant \
                             `{}`: {difference}; variants of one experiment serve the same clients",
                            named(model, &table),
                            first.name
                        ));
                    }
                }
            }
        }
        problems
    }
}

/// `iris-classifier/2`
fn named(model: &str, signature: &Table) -> String {
    match signature.get("version").and_then(toml::Value::as_str) {
        Some(version) => format!("{model}/{version}"),
        None => model.to_owned(),
    }
}

fn located(router: &str, problem: &str) -> String {
    format!("component.{router}: {FILE}: {problem}")
}

/// The file of experiments, if there is one.
fn mounted(mounts: &Mounts) -> Option<PathBuf> {
    let mut roots = mounts.iter().filter(|(destination, _)| destination.is_empty());
    let (_, folder) = roots.next()?;
    Some(folder.join(FILE.trim_start_matches('/'))).filter(|path| path.is_file())
}

/// Routers that name each other in a circle, if any do.
fn circle(all: &BTreeMap<String, Experiments>) -> Option<String> {
    let next = |id: &str| -> Vec<&str> {
        let variants = all[id].iter().flat_map(|experiment| &experiment.variants);
        let components = variants.map(|variant| variant.component.as_str());
        components.filter(|component| all.contains_key(*component)).collect()
    };
    // Routers all of whose ways end.
    let mut ending: Vec<&str> = Vec::new();
    loop {
        let open = all.keys().filter(|id| !ending.contains(&id.as_str()));
        let more: Vec<&str> = open
            .filter(|id| next(id).iter().all(|component| ending.contains(component)))
            .map(String::as_str)
            .collect();
        if more.is_empty() {
            break;
        }
        ending.extend(more);
    }
    let first = all.keys().find(|id| !ending.contains(&id.as_str()))?;
    let mut way = vec![first.as_str()];
    loop {
        let last = way[way.len() - 1];
        let component = next(last).into_iter().find(|id| !ending.contains(id))?;
        if let Some(start) = way.iter().position(|id| *id == component) {
            let circle: Vec<_> = way[start..].iter().chain([&component]).copied().collect();
            let problem = format!(
                "routers assign requests to each other in a circle: {}; name a component that \
                 serves a model",
                circle.join(" -> ")
            );
            return Some(located(component, &problem));
        }
        way.push(component);
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
    fn a_circle_is_named() {
        assert_eq!(circle(&routers(&[("a", &["model", "b"]), ("b", &["model"])])), None);
        for (edges, part) in [
            (&[("a", &["a"][..])][..], "a -> a;"),
            (&[("a", &["model", "b"]), ("b", &["a"])], "a -> b -> a;"),
            (&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])], "b -> c -> b;"),
        ] {
            let problem = circle(&routers(edges)).unwrap();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
