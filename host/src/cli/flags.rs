//! The flags of `spinfer up` and `spinfer check` that configure the application, named as in Spin.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::Args;

use crate::config::app::Options;
use crate::config::instance_reuse::{CountRange, ReuseConfig, parse_duration_or_range};
use crate::config::limits::LimitsConfig;
use crate::config::runtime_config::{self, RuntimeConfig};
use crate::config::variables::{PREFIX, Provider};
use crate::inference::InferenceFlags;

/// File next to the manifest with values of variables.
const DOTENV: &str = ".env";

#[derive(Args)]
pub struct Flags {
    /// Set a variable; can be repeated. @FILE.json and @FILE.toml set several
    #[arg(long = "variable", value_name = "NAME=VALUE|NAME=@FILE|@FILE")]
    variables: Vec<String>,

    /// Set an environment variable in every component, overriding the manifest; can be repeated
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    environment: Vec<(String, String)>,

    /// Runtime config, the operator's bindings: variables, stores, folders
    #[arg(long, value_name = "FILE", env = "RUNTIME_CONFIG_FILE", hide_env = true)]
    runtime_config_file: Option<PathBuf>,

    /// Serve only this component; can be repeated
    #[arg(short, long = "component-id", value_name = "ID")]
    components: Vec<String>,

    /// Also write the output of components to files in this folder
    #[arg(short = 'L', long, value_name = "DIR", env = "SPIN_LOG_DIR", hide_env = true)]
    log_dir: Option<PathBuf>,

    /// Requests an instance serves in total, overriding `reuse.requests`: 128, or a range such as
    /// 100..200, from which each instance draws its number
    #[arg(long, value_name = "COUNT")]
    max_instance_reuse_count: Option<CountRange>,

    /// Concurrent requests of an instance, overriding `reuse.concurrency`; can be a range
    #[arg(long, value_name = "COUNT")]
    max_instance_concurrent_reuse_count: Option<CountRange>,

    /// Idle timeout of an instance, overriding `limits.idle`: 10s, or a range such as 10..20s, from
    /// which this process draws its value
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = parse_duration_or_range,
        env = "SPIN_HTTP_IDLE_INSTANCE_TIMEOUT_SECS",
        hide_env = true
    )]
    idle_instance_timeout: Option<Duration>,

    /// Maximum memory of an instance in bytes, overriding `limits.instance_memory`
    #[arg(long, value_name = "BYTES", env = "SPIN_MAX_INSTANCE_MEMORY", hide_env = true)]
    max_instance_memory: Option<u64>,

    /// Deadline of a request, overriding `limits.deadline`: 30s; can be a range
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_or_range)]
    request_timeout: Option<Duration>,

    #[command(flatten)]
    inference: InferenceFlags,
}

/// Omits the values, which may be secret.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags").finish_non_exhaustive()
    }
}

pub(super) fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE"),
    }
}

impl Flags {
    /// The options for an application in the folder `base`, and the state directory of the runtime
    /// config. Variables are looked up in the flags, the environment, `.env` and the runtime config, in
    /// this order.
    ///
    /// # Errors
    /// If a file cannot be read or a value is invalid.
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
            sqlite,
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
                instance_memory: self.max_instance_memory.map(ByteSize).or(max_instance_memory),
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
            sqlite,
            redis_connections,
            blocked_networks,
            ..Options::default()
        };
        Ok((options, state_dir))
    }
}
