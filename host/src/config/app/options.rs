//! Options of the command line that override or complete the manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Problems, listed};
use crate::cache;
use crate::config::blocked_networks::BlockedNetworks;
use crate::config::instance_reuse::ReuseConfig;
use crate::config::limits::LimitsConfig;
use crate::config::manifest::{Manifest, TextOr};
use crate::config::variables::Provider;
use crate::inference::BackendOptions;
use crate::prediction_log;
use crate::storage::key_value::StoreConfig;
use crate::storage::sqlite::DatabaseConfig;

/// Options of `spinfer up` and `spinfer check` that change what is served.
#[derive(Debug, Default)]
pub struct Options {
    /// Ids of the components to serve; all if empty.
    pub components: Vec<String>,
    /// Environment variables that override each component's.
    pub environment: Vec<(String, String)>,
    /// Values of variables, each of which the manifest must declare.
    pub variables: Provider,
    /// Sources of further values, the first one with precedence.
    pub providers: Vec<Provider>,
    /// Limits that override each component's.
    pub limits: LimitsConfig,
    /// Reuse settings that override each component's.
    pub reuse: ReuseConfig,
    /// Folder for the output of components, which goes to the log as well.
    pub log_dir: Option<PathBuf>,
    /// Ids of the components whose output is logged; all if empty.
    pub follow: Vec<String>,
    /// Whether the files in `log_dir` are emptied first.
    pub truncate_logs: bool,
    /// Settings of the response cache.
    pub cache: cache::CacheSettings,
    /// Resources of the inference backends.
    pub backends: BackendOptions,
    /// Whether predictions are logged, and their retention.
    pub prediction_log: prediction_log::PredictionLogSettings,
    /// The store that each label is bound to.
    pub key_value: BTreeMap<String, StoreConfig>,
    /// The SQLite database that each label is bound to.
    pub sqlite: BTreeMap<String, DatabaseConfig>,
    /// Maximum number of Redis connections of all components together.
    pub redis_connections: Option<usize>,
    /// Networks that no component may connect to.
    pub blocked_networks: BlockedNetworks,
    /// Folder of the application's state; `.spin` next to the manifest if `None`.
    pub state_dir: Option<PathBuf>,
    /// Whether variables may lack values and labels may be unbound, as nothing is served.
    pub without_values: bool,
}

impl Options {
    /// The ids of the components to serve: those that a trigger refers to and that the options
    /// select.
    pub(super) fn choose<'m>(
        &self,
        manifest: &'m Manifest,
        problems: &mut Problems,
    ) -> Vec<&'m str> {
        let selected = self.components.iter().map(|id| ("--component-id", id));
        for (flag, id) in selected.chain(self.follow.iter().map(|id| ("--follow", id))) {
            if !manifest.component.contains_key(id) {
                let available = listed(manifest.component.keys());
                let problem =
                    format!("[component.{id}] does not exist; available components: {available}");
                problems.add(flag, problem);
            }
        }
        let named = manifest.trigger.http.iter().filter_map(|trigger| match &trigger.component {
            Some(TextOr::Text(id)) => Some(id),
            _ => None,
        });
        let wanted = |id: &&String| self.components.is_empty() || self.components.contains(id);
        named.filter(wanted).map(String::as_str).collect()
    }
}
