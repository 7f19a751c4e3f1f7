//! `spinfer log`: the prediction log of an application, whether it is served at present or not.

mod export;
mod show;
mod stats;
mod tail;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::config::app::state_folder;
use crate::prediction_log::reader::{Filter, Reader, Snapshot};
use crate::prediction_log::{schema, times};
use crate::config::runtime_config::{self, RuntimeConfig};

#[derive(Debug, Args)]
pub struct Log {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the newest records, as JSON lines
    Tail(tail::Tail),
    /// Print the records of one request, with their feedback
    Show {
        /// The response header spinfer-prediction-id
        #[arg(value_parser = prediction_id)]
        id: Uuid,

        #[command(flatten)]
        place: Location,
    },
    /// Print counts, latency and quality by model version and variant
    Stats(stats::StatsOptions),
    /// Write records into a file for other programs
    Export(export::Export),
}

/// Where the log is.
#[derive(Debug, Args)]
struct Location {
    /// The manifest, or the folder that holds a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,

    /// The application's state folder, as `spinfer up` has it [default: .spin beside the manifest]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// The runtime config that `spinfer up` has: its `state_dir` is used
    #[arg(long, value_name = "FILE")]
    runtime_config_file: Option<PathBuf>,
}

impl Location {
    /// The runtime config; the default one if none is given.
    fn config(&self) -> Result<RuntimeConfig> {
        let Some(path) = &self.runtime_config_file else { return Ok(RuntimeConfig::default()) };
        let environment: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        runtime_config::read(path, &environment).with_context(|| path.display().to_string())
    }

    /// Where the log's file is.
    fn path(&self) -> Result<PathBuf> {
        let Self { from, state_dir, .. } = self;
        let state_dir = match state_dir {
            Some(state_dir) => Some(state_dir.clone()),
            None => self.config()?.state_dir,
        };
        if state_dir.is_none() {
            ensure!(
                from.exists(),
                "{}: there is no such file; -f takes the manifest, --state-dir the folder of the log",
                from.display()
            );
        }
        let base = if from.is_dir() { from } else { from.parent().unwrap_or(Path::new("")) };
        Ok(state_folder(state_dir.as_deref(), base).join(schema::FILE))
    }

    fn open(&self) -> Result<Reader> {
        let path = self.path()?;
        let reader = Reader::open(&path).with_context(|| path.display().to_string())?;
        if reader.is_none() {
            self.check_on()?;
        }
        reader.with_context(|| {
            format!(
                "{}: there is no prediction log; no prediction was logged yet; --state-dir is \
                 where `spinfer up` keeps it",
                path.display()
            )
        })
    }

    /// Fails if the runtime config has the log off.
    fn check_on(&self) -> Result<()> {
        if let Some(path) = &self.runtime_config_file {
            ensure!(
                self.config()?.prediction_log.enabled,
                "{}: the prediction log is off: [prediction_log] enabled = false",
                path.display()
            );
        }
        Ok(())
    }
}

/// Which records.
#[derive(Debug, Default, Args)]
struct Which {
    /// Of this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Of this version of it
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// Served by this component
    #[arg(long, value_name = "ID")]
    component: Option<String>,

    /// Of this experiment
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,

    /// Of this variant
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,

    /// With this HTTP status
    #[arg(long, value_name = "CODE")]
    status: Option<u16>,

    /// From this time on: RFC 3339, or so long ago: 1h, 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<i64>,

    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<i64>,
}

impl Which {
    fn filter(&self) -> Result<Filter> {
        let Self { model, version, component, experiment, variant, status, since, until } = self;
        if let (Some(since), Some(until)) = (since, until) {
            ensure!(since <= until, "--since is later than --until");
        }
        Ok(Filter {
            model: model.clone(),
            version: version.clone(),
            component: component.clone(),
            experiment: experiment.clone(),
            variant: variant.clone(),
            status: *status,
            since: *since,
            until: *until,
            id: None,
        })
    }
}

/// Says on standard error that no record fits `filter`, and what there is.
fn tell_none(snapshot: &Snapshot<'_>, filter: &Filter) -> Result<()> {
    if *filter != Filter::default() {
        let models = snapshot.models(&Filter::default())?;
        let _ = writeln!(io::stderr(), "{}", none_matches(&models));
    }
    Ok(())
}

fn none_matches(models: &[(String, String)]) -> String {
    let names: Vec<_> = models
        .iter()
        .map(|(name, version)| match version.as_str() {
            "" => name.clone(),
            version => format!("{name}/{version}"),
        })
        .collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!("no record matches; models in the log: {names}")
}

fn prediction_id(text: &str) -> Result<Uuid, String> {
    Uuid::parse_str(text).map_err(|_| {
        format!("{text:?} is no UUID; write the value of the response header spinfer-prediction-id")
    })
}

/// A point in time, or how long ago it was.
fn moment(text: &str) -> Result<i64, &'static str> {
    if let Some(time) = times::parse(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text);
    let ago =
        ago.map_err(|_| "write \"2026-11-30T12:00:00Z\" (RFC 3339), or how long ago: \"1h\"")?;
    let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
    Ok(times::micros(SystemTime::now()).saturating_sub(ago).max(0))
}

/// Tells `out` what is in the log.
pub fn run(log: &Log, out: &mut impl Write) -> Result<()> {
    let done = match &log.command {
        Command::Tail(options) => tail::run(options, out),
        Command::Show { id, place } => show::run(*id, place, out),
        Command::Stats(options) => stats::run(options, out),
        Command::Export(options) => export::run(options, out),
    };
    // `spinfer log tail | head` is no failure.
    done.or_else(|error| {
        let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
        let is_closed = causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe);
        if is_closed { Ok(()) } else { Err(error) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_where_up_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let (manifest, config) = (dir.path().join("spin.toml"), dir.path().join("runtime.toml"));
        std::fs::write(&manifest, "").unwrap();
        std::fs::write(&config, "state_dir = '/state'").unwrap();
        let location = |from: &Path, state_dir: Option<&str>, config: Option<&Path>| Location {
            from: from.to_owned(),
            state_dir: state_dir.map(PathBuf::from),
            runtime_config_file: config.map(Path::to_owned),
        };
        let beside = dir.path().join(".spin/predictions.db");
        assert_eq!(location(&manifest, None, None).path().unwrap(), beside);
        assert_eq!(location(dir.path(), None, None).path().unwrap(), beside);
        let path = location(&manifest, None, Some(&config)).path().unwrap();
        assert_eq!(path, Path::new("/state/predictions.db"));
        let path = location(&manifest, Some("/other"), Some(&config)).path().unwrap();
        assert_eq!(path, Path::new("/other/predictions.db"));
        let error = location(&dir.path().join("x"), None, None).open().unwrap_err().to_string();
        assert!(error.contains("-f takes the manifest"), "{error}");
        let error = location(&manifest, None, None).open().unwrap_err().to_string();
        assert!(error.contains("there is no prediction log"), "{error}");
        assert!(error.ends_with("; --state-dir is where `spinfer up` keeps it"), "{error}");
        std::fs::write(&config, "[prediction_log]\nenabled = false").unwrap();
        let state_dir = dir.path().to_str();
        for location in [
            location(&manifest, None, Some(&config)),
            location(&manifest, state_dir, Some(&config)),
        ] {
            let error = location.open().unwrap_err().to_string();
            let off = "the prediction log is off: [prediction_log] enabled = false";
            assert_eq!(error, format!("{}: {off}", config.display()));
        }
    }

    #[test]
    fn a_filter_that_can_match_nothing_is_refused_and_one_that_does_not_is_told() {
        let which = |since, until| Which { since, until, ..Which::default() };
        let error = which(Some(2), Some(1)).filter().unwrap_err().to_string();
        assert_eq!(error, "--since is later than --until");
        for (since, until) in [(Some(1), Some(2)), (Some(1), None), (None, Some(1))] {
            assert!(which(since, until).filter().is_ok());
        }
        let models = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())];
        assert_eq!(none_matches(&models), "no record matches; models in the log: a/1, b");
        assert_eq!(none_matches(&[]), "no record matches; models in the log: none");
    }

    #[test]
    fn an_id_is_a_uuid() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(prediction_id(id).map(|id| id.to_string()).as_deref(), Ok(id));
        let expected = "\"nonsense\" is no UUID; write the value of the response header \
                        spinfer-prediction-id";
        assert_eq!(prediction_id("nonsense").unwrap_err(), expected);
    }

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(1_000_000));
        let now = times::micros(SystemTime::now());
        let (minute, hour) = (60_000_000, 3_600_000_000);
        let ago = moment("1h").unwrap();
        assert!((now..now + minute).contains(&(ago + hour)), "{ago}");
        assert!(moment("yesterday").is_err());
        assert_eq!(moment("10000y"), Ok(0));
    }
}
