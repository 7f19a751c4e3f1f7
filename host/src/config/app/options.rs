//! What the command line says beside the manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Problems, listed};
use crate::config::blocked_networks::BlockedNetworks;
use crate::cache;
use crate::inference::BackendOptions;
use crate::storage::key_value::StoreConfig;
use crate::config::limits::LimitsConfig;
use crate::config::manifest::{Manifest, TextOr};
use crate::prediction_log;
use crate::config::instance_reuse::ReuseConfig;
use crate::config::variables::Provider;

/// Options of `spinfer up` and `spinfer check` that change what is served. By default none.
#[derive(Debug, Default)]
pub struct Options {
    /// Serve only these; empty: all.
    pub components: Vec<String>,
    /// Put over each component's.
    pub environment: Vec<(String, String)>,
    /// Values of variables. Each variable has to be in the manifest.
    pub variables: Provider,
    /// Where values come from that are not among those, the first before the next.
    pub providers: Vec<Provider>,
    /// Put over each component's.
    pub limits: LimitsConfig,
    pub reuse: ReuseConfig,
    /// Where what components print goes, beside the log.
    pub log_dir: Option<PathBuf>,
    /// What is kept of answers.
    pub cache: cache::Settings,
    /// What the backends may use.
    pub backends: BackendOptions,
    /// What is logged of predictions, and for how long.
    pub prediction_log: prediction_log::Settings,
    /// What labels of key-value stores are bound to.
    pub key_value: BTreeMap<String, StoreConfig>,
    /// Connections to Redis of all components together, if it is said.
    pub redis_connections: Option<usize>,
    /// Where no component may connect to.
    pub blocked_networks: BlockedNetworks,
    /// Where stores are that are files, if it is said.
    pub state_dir: Option<PathBuf>,
    /// Nothing will be served: variables need no values, and stores need not be bound.
    pub without_values: bool,
}

impl Options {
    /// The ids of the components that are served: those that a trigger names, and the options do
    /// not leave out.
    pub(super) fn choose<'m>(
        &self,
        manifest: &'m Manifest,
        problems: &mut Problems,
    ) -> Vec<&'m str> {
        for id in &self.components {
            if !manifest.component.contains_key(id) {
                let there = listed(manifest.component.keys());
                let problem = format!("there is no [component.{id}]; the manifest has {there}");
                problems.add("--component-id", problem);
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
