//! Resolves the settings of the whole application, `[application.tool.spinfer]`.

use super::Problems;
use super::component::InheritedSettings;
use crate::config::manifest::ApplicationTool;
use crate::drift::DriftSettings;
use crate::http::body::response_memory::UNREAD_PER_CLIENT;
use crate::http::content_encoding::Compression;
use crate::http::cors::Cors;
use crate::server::connections::ConnectionLimits;

/// Default number of instances of all components together. An unused one costs the 5 kB that the
/// pool stores of it.
const INSTANCES: usize = 2000;
/// Maximum number of instances. Each reserves 4 GiB of address space and a guard region, of the
/// 128 TiB of a process, and takes some of its memory maps.
const MAX_INSTANCES: usize = 4000;

/// The resolved `[application.tool.spinfer]` section.
pub(super) struct ApplicationSettings {
    /// Settings that components inherit.
    pub(super) inherited: InheritedSettings,
    /// Drift settings that components inherit.
    pub(super) drift: DriftSettings,
    /// Maximum number of instances of all components together.
    pub(super) instances: usize,
    pub(super) connections: ConnectionLimits,
    /// Maximum size of unread responses that are held for one client address, in bytes.
    pub(super) unread_per_client: usize,
    pub(super) compression: Compression,
    pub(super) cors: Option<Cors>,
}

impl ApplicationSettings {
    /// Resolves the section. Without it, all settings have their defaults.
    pub(super) fn resolve(tool: Option<&ApplicationTool>, problems: &mut Problems) -> Self {
        let mut settings = Self {
            inherited: InheritedSettings::default(),
            drift: DriftSettings::default(),
            instances: INSTANCES,
            connections: ConnectionLimits::default(),
            unread_per_client: UNREAD_PER_CLIENT,
            compression: Compression::default(),
            cors: None,
        };
        if let Some(tool) = tool {
            settings.set(tool, problems);
        }
        settings
    }

    fn set(&mut self, tool: &ApplicationTool, problems: &mut Problems) {
        let key = "application.tool.spinfer";
        self.inherited = self.inherited.with(&tool.limits, &tool.reuse, key, problems);
        self.inherited.log(&tool.prediction_log, key, problems);
        match tool.limits.unread_per_client() {
            Ok(bytes) => self.unread_per_client = bytes.unwrap_or(self.unread_per_client),
            Err(error) => problems.add(key, error),
        }
        if let Some(count) = tool.instances {
            if !(1..=MAX_INSTANCES).contains(&count) {
                let problem = format!("must be between 1 and {MAX_INSTANCES}");
                problems.add(format!("{key}.instances"), problem);
            }
            self.instances = count;
        }
        self.compression = tool.compression;
        match tool.cors.as_ref().map(Cors::new).transpose() {
            Ok(cors) => self.cors = cors,
            Err((setting, problem)) => problems.add(format!("{key}.cors.{setting}"), problem),
        }
        match self.drift.with(&tool.drift) {
            Ok(drift) => self.drift = drift,
            Err(problem) => problems.add(key, problem),
        }
        if let Err((setting, problem)) = self.connections.set(tool.connections, tool.keep_alive) {
            problems.add(format!("{key}.{setting}"), problem);
        }
    }
}
