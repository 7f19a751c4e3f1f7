//! `[provenance]` of `model.toml`: the origin, metrics and tags of a model in MLflow.

use std::collections::BTreeMap;

use toml_edit::{Item, Table, Value, value};

use super::api::{Metric, Tag};
use super::locate::Located;
use super::mlmodel::MlModel;

/// Maximum number of metrics, and of tags, in `model.toml`.
const MAX_ENTRIES: usize = 100;
/// Maximum length of the name of a tag or metric, in bytes: that of MLflow.
const MAX_KEY: usize = 250;
/// Maximum length of a tag's value, in bytes. Some contain whole documents.
const MAX_TAG: usize = 1000;
/// Prefix of MLflow's own tags, which describe the machine and the user.
const SYSTEM_TAGS: &str = "mlflow.";
/// The only system tag that describes the model.
const COMMIT: &str = "mlflow.source.git.commit";

impl Located<'_> {
    /// The tables `mlflow`, `metrics` and `tags`.
    pub(super) fn provenance(&self, mlmodel: &MlModel) -> Table {
        let mut mlflow = Table::new();
        let mut put = |key: &str, text: Option<&str>| {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                mlflow[key] = value(text);
            }
        };
        put("source", Some(&self.source.to_string()));
        put("tracking_uri", self.client.map(|client| client.base().as_str()));
        let (registered, run) = (self.registered.as_ref(), self.run.as_ref());
        put("registered_model", registered.map(|version| version.name.as_str()));
        put("registered_version", registered.map(|version| version.version.as_str()));
        put("alias", self.alias.as_deref());
        let run_id = run.map(|run| run.info.run_id.as_str()).or(mlmodel.run_id.as_deref());
        put("run_id", run_id);
        let logged = self.logged.as_ref().map(|model| model.info.model_id.as_str());
        let of_version = registered.and_then(|version| version.source.strip_prefix("models:/"));
        put("model_id", logged.or(mlmodel.model_id.as_deref()).or(of_version));
        put("mlflow_version", mlmodel.mlflow_version.as_deref());
        put("onnx_version", mlmodel.onnx_version.as_deref());

        let mut provenance = Table::new();
        provenance["mlflow"] = Item::Table(mlflow);
        // The run's metrics are preferred: the copies in a logged model have 0 for NaN.
        let run_metrics = run.map(|run| run.data.metrics.as_slice());
        let logged_metrics = self.logged.as_ref().map(|model| model.data.metrics.as_slice());
        let metrics = run_metrics.or(logged_metrics).unwrap_or_default();
        let tags = [
            run.map(|run| run.data.tags.as_slice()),
            self.logged.as_ref().map(|model| model.info.tags.as_slice()),
            registered.map(|version| version.tags.as_slice()),
        ];
        insert_table(&mut provenance, "metrics", finite(metrics));
        insert_table(&mut provenance, "tags", user_tags(tags.into_iter().flatten().flatten()));
        provenance
    }
}

fn insert_table(provenance: &mut Table, name: &str, entries: BTreeMap<String, Value>) {
    if entries.is_empty() {
        return;
    }
    let mut table = Table::new();
    for (key, entry) in entries {
        table[&key] = Item::Value(entry);
    }
    provenance[name] = Item::Table(table);
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= MAX_KEY && !key.contains(char::is_control)
}

/// The metrics that are finite numbers. MLflow's database stores infinity as the largest number.
fn finite(metrics: &[Metric]) -> BTreeMap<String, Value> {
    let number = |metric: &Metric| metric.value.as_f64().filter(|number| number.abs() < f64::MAX);
    let entries = metrics.iter().filter(|metric| is_key(&metric.key));
    let entries = entries.filter_map(|metric| Some((metric.key.clone(), number(metric)?.into())));
    entries.take(MAX_ENTRIES).collect()
}

/// The tags set by users, and the commit; of several with the same name, the last one.
fn user_tags<'a>(tags: impl Iterator<Item = &'a Tag>) -> BTreeMap<String, Value> {
    let is_user_tag = |tag: &&Tag| {
        let is_system = tag.key.starts_with(SYSTEM_TAGS) && tag.key != COMMIT;
        is_key(&tag.key) && !is_system && tag.value.len() <= MAX_TAG
    };
    let entries = tags.filter(is_user_tag).map(|tag| (tag.key.clone(), tag.value.as_str().into()));
    entries.take(MAX_ENTRIES).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_finite_metrics_are_recorded() {
        let metric = |key: &str, value| Metric { key: key.into(), value };
        let metrics = [
            metric("accuracy", json!(0.96)),
            metric("steps", json!(3)),
            metric("nan", json!("NaN")),
            metric("infinite", json!(f64::MAX)),
            metric("", json!(1)),
            metric("a\nb", json!(1)),
        ];
        let finite = finite(&metrics);
        assert_eq!(finite.keys().collect::<Vec<_>>(), ["accuracy", "steps"]);
        assert_eq!(finite["accuracy"].as_float(), Some(0.96));
    }

    #[test]
    fn user_tags_and_the_commit_are_recorded() {
        let tag = |key: &str, value: &str| Tag { key: key.into(), value: value.into() };
        let tags = [
            tag("team", "botany"),
            tag("mlflow.user", "root"),
            tag(COMMIT, "ab12"),
            tag("notes", &"x".repeat(MAX_TAG + 1)),
            tag("team", "zoology"),
        ];
        let recorded = user_tags(tags.iter());
        assert_eq!(recorded.keys().collect::<Vec<_>>(), [COMMIT, "team"]);
        assert_eq!(recorded["team"].as_str(), Some("zoology"));
        let many: Vec<_> = (0..500).map(|n| tag(&n.to_string(), "x")).collect();
        assert_eq!(user_tags(many.iter()).len(), MAX_ENTRIES);
    }
}
