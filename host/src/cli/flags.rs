//! The flags of `spinfer up` and `spinfer check` that change what is served, by Spin's names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::config::app::Options;
use crate::inference::InferenceFlags;
use crate::config::limits::LimitsConfig;
use crate::config::instance_reuse::{Count, ReuseConfig, drawn_time};
use crate::config::runtime_config::{self, RuntimeConfig};
use crate::config::variables::{PREFIX, Provider};

/// Values of variables beside the manifest.
const DOTENV: &str = ".env";

#[derive(Args)]
pub struct Flags {
    /// Give a variable its value; may be repeated. @FILE.json and @FILE.toml hold several
    #[arg(long = "variable", value_name = "NAME=VALUE|NAME=@FILE|@FILE")]
    variables: Vec<String>,

    /// Give every component an environment variable, over the manifest's; may be repeated
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    environment: Vec<(String, String)>,

    /// What the operator binds the application to: variables, stores, folders
    #[arg(long, value_name = "FILE")]
    runtime_config_file: Option<PathBuf>,

    /// Serve only this component; may be repeated
    #[arg(short, long = "component-id", value_name = "ID")]
    components: Vec<String>,

    /// Write what components print into files here too
    #[arg(short = 'L', long, value_name = "DIR")]
    log_dir: Option<PathBuf>,

    /// Requests an instance serves in its life, over the manifest's `reuse.requests`: 128, or a
    /// range, 100..200, of which each instance has one
    #[arg(long, value_name = "COUNT")]
    max_instance_reuse_count: Option<Count>,

    /// Requests an instance serves at a time, over `reuse.concurrency`; may be a range
    #[arg(long, value_name = "COUNT")]
    max_instance_concurrent_reuse_count: Option<Count>,

    /// How long an instance waits for a request, over `limits.idle`: 10s, or a range, 10..20s, of
    /// which this start has one
    #[arg(long, value_name = "DURATION", value_parser = drawn_time)]
    idle_instance_timeout: Option<Duration>,

    /// How long a request may take, over `limits.deadline`: 30s; may be a range
    #[arg(long, value_name = "DURATION", value_parser = drawn_time)]
    request_timeout: Option<Duration>,

    #[command(flatten)]
    inference: InferenceFlags,
}

/// What it holds may be secret.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags").finish_non_exhaustive()
    }
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE"),
    }
}

impl Flags {
    /// What they come to for an application in the folder `base`, and its state directory, where the
    /// runtime config says one. Variables: what flags say counts before the environment, that before
    /// `.env`, that before the runtime config.
    pub fn read(&self, base: &Path) -> Result<(Options, Option<PathBuf>)> {
        let process: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let RuntimeConfig {
            variables,
            state_dir,
            log_dir,
            max_instance_memory,
            key_value,
            redis_connections,
            blocked_networks,
            cache,
            prediction_log,
        } = match &self.runtime_config_file {
            None => RuntimeConfig::default(),
            Some(path) => {
                runtime_config::read(path, &process).with_context(|| path.display().to_string())?
            }
        };
        let dotenv = base.join(DOTENV);
        let mut providers = vec![Provider::environment(PREFIX, process)];
        if dotenv.is_file() {
            providers.push(Provider::dotenv(PREFIX, &dotenv)?);
        }
        providers.extend(variables);
        let options = Options {
            components: self.components.clone(),
            environment: self.environment.clone(),
            variables: Provider::flags(&self.variables)?,
            providers,
            limits: LimitsConfig {
                deadline: self.request_timeout,
                idle: self.idle_instance_timeout,
                instance_memory: max_instance_memory,
                ..LimitsConfig::default()
            },
            reuse: ReuseConfig {
                requests: self.max_instance_reuse_count,
                concurrency: self.max_instance_concurrent_reuse_count,
                ..ReuseConfig::default()
            },
            log_dir: self.log_dir.clone().or(log_dir),
            cache,
            prediction_log,
            backends: self.inference.backends()?,
            key_value,
            redis_connections,
            blocked_networks,
            ..Options::default()
        };
        Ok((options, state_dir))
    }
}
