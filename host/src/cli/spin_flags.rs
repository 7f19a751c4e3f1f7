//! Flags and environment variables of `spin up` that mean nothing here. A script written for Spin keeps
//! working where that is harmless, and receives an error with the alternative where it is not.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use tracing::warn;

/// Flags of `spin up` that have no effect, or are refused. They are not shown by `--help`.
#[derive(Debug, Default, Args)]
pub struct SpinFlags {
    #[arg(long, hide = true)]
    disable_pooling: bool,

    #[arg(long, hide = true)]
    direct_mounts: bool,

    #[arg(long, alias = "tmp", value_name = "DIR", hide = true)]
    temp: Option<PathBuf>,

    #[arg(long, value_name = "DIR", hide = true)]
    cache_dir: Option<PathBuf>,

    #[arg(long, hide = true, env = "DISABLE_WASMTIME_CACHE",
          value_parser = FalseyValueParser::new())]
    disable_cache: bool,

    #[arg(long, value_name = "FILE", hide = true, env = "WASMTIME_CACHE_FILE")]
    cache: Option<PathBuf>,

    #[arg(long, value_name = "BYTES", hide = true, env = "SPIN_HTTP1_MAX_BUF_SIZE")]
    http1_max_buf_size: Option<usize>,

    #[arg(long, hide = true)]
    experimental_wasi_otel: bool,

    #[arg(long, value_enum, default_value_t, hide = true)]
    format: Format,

    #[arg(long, hide = true)]
    allow_transient_write: bool,

    #[arg(long, value_name = "REFERENCE", hide = true)]
    from_registry: Option<String>,

    #[arg(short = 'k', long, hide = true)]
    insecure: bool,
}

/// The format in which Spin prints routes at startup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Plain,
    Json,
}

impl SpinFlags {
    /// Warns of flags without effect.
    ///
    /// # Errors
    /// Names the first flag that asks for something this host does not do, and what to use instead.
    pub fn check(&self) -> Result<()> {
        if let Some(refusal) = self.refusal() {
            bail!(refusal);
        }
        for (flag, reason) in self.without_effect() {
            warn!("{flag} has no effect: {reason}");
        }
        Ok(())
    }

    fn refusal(&self) -> Option<&'static str> {
        [
            (
                self.allow_transient_write,
                "--allow-transient-write: not supported, as mounted files are read-only; a component \
                 writes to a key-value store, or to a database",
            ),
            (
                self.from_registry.is_some(),
                "--from-registry: applications of a registry are not supported; push and pull their \
                 components and models with `spinfer registry`, and serve a spin.toml",
            ),
            (
                self.insecure,
                "--insecure: certificates are always checked; for a registry without TLS use \
                 `--insecure-http HOST`",
            ),
            (
                self.format == Format::Json,
                "--format json: not supported; `spinfer routes --json` prints the routes",
            ),
        ]
        .into_iter()
        .find_map(|(given, refusal)| given.then_some(refusal))
    }

    fn without_effect(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        [
            (
                self.disable_pooling,
                "--disable-pooling",
                "instances always come from the pool, whose size is \
                 application.tool.spinfer.instances",
            ),
            (
                self.direct_mounts,
                "--direct-mounts",
                "whole folders are mounted directly in any case",
            ),
            (
                self.temp.is_some(),
                "--temp",
                "files are copied into the state directory, --state-dir",
            ),
            (
                self.cache_dir.is_some(),
                "--cache-dir",
                "fetched components are in the state directory, --state-dir",
            ),
            (
                self.disable_cache,
                "--disable-cache",
                "compiled components are always cached in the state directory, --state-dir",
            ),
            (
                self.cache.is_some(),
                "--cache",
                "compiled components are cached in the state directory, --state-dir",
            ),
            (
                self.http1_max_buf_size.is_some(),
                "--http1-max-buf-size",
                "the size of a request's head is bounded by the host",
            ),
            (
                self.experimental_wasi_otel,
                "--experimental-wasi-otel",
                "the host has no OpenTelemetry for components",
            ),
        ]
        .into_iter()
        .filter_map(|(given, flag, reason)| given.then_some((flag, reason)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        spin: SpinFlags,
    }

    fn parse(flags: &[&str]) -> SpinFlags {
        Command::try_parse_from([&["up"], flags].concat()).unwrap().spin
    }

    #[test]
    fn flag_that_asks_for_something_absent_is_refused_with_what_to_use() {
        for (flags, part) in [
            (&["--allow-transient-write"][..], "key-value store"),
            (&["--from-registry", "ghcr.io/a/b:1"], "spinfer registry"),
            (&["-k"], "--insecure-http HOST"),
            (&["--format", "json"], "spinfer routes --json"),
        ] {
            let error = parse(flags).check().unwrap_err().to_string();
            assert!(error.contains(part), "{flags:?}: {error}");
        }
    }

    #[test]
    fn harmless_flags_are_accepted() {
        let flags = parse(&[
            "--disable-pooling",
            "--direct-mounts",
            "--tmp=/tmp/x",
            "--cache-dir=/tmp/c",
            "--disable-cache",
            "--cache=/tmp/c.toml",
            "--http1-max-buf-size=8192",
            "--experimental-wasi-otel",
            "--format=plain",
        ]);
        flags.check().unwrap();
        assert_eq!(flags.without_effect().count(), 8);
        assert_eq!(parse(&[]).without_effect().count(), 0);
    }
}
