//! `spinfer log`: reads the prediction log of an application, which may be running, and adds feedback
//! to it.

mod export;
mod feedback;
mod follow_stream;
mod show;
mod stats;
mod tail;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, Subcommand};
use http::StatusCode;
use uuid::Uuid;

use crate::cache::redis::RedisTopology;
use crate::config::app::state_folder;
use crate::config::runtime_config::{self, RuntimeConfig};
use crate::prediction_log::reader::{Filter, LogReader, LogSnapshot};
use crate::prediction_log::schema::SchemaError;
use crate::prediction_log::sinks::settings::{DEFAULT_STREAM, SinkTarget, StreamSettings};
use crate::prediction_log::sinks::stream::{EntryError, ImportedLog, StreamReader};
use crate::prediction_log::stats::shown_path;
use crate::prediction_log::{file_size, schema, times};
use crate::storage::redis::Address;

#[derive(Debug, Args)]
pub struct LogOptions {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Print the latest records as JSON lines
    Tail(tail::TailOptions),
    /// Print the records of one request, with their feedback
    Show {
        /// Value of the response header spinfer-prediction-id
        #[arg(value_parser = prediction_id)]
        id: Uuid,

        #[command(flatten)]
        location: LogLocation,
    },
    /// Print counts, latency and quality by model version and variant
    Stats(stats::StatsOptions),
    /// Export records to a file, or what is new to a folder or an object store
    Export(export::ExportOptions),
    /// Add the ground truth in a file to predictions
    Feedback(feedback::FeedbackOptions),
}

/// The location of the log.
#[derive(Debug, Args)]
struct LogLocation {
    /// Manifest, or the folder with a spin.toml
    #[arg(short = 'f', long = "from", value_name = "PATH", default_value = "spin.toml")]
    from: PathBuf,

    /// State folder of `spinfer up` [default: .spin next to the manifest]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Runtime config of `spinfer up`, for its `state_dir`
    #[arg(long, value_name = "FILE")]
    runtime_config_file: Option<PathBuf>,

    /// Read a stream in Redis to which sinks add: the name of a sink in the runtime config, or
    /// redis://host:port
    #[arg(long, value_name = "SINK|URL", conflicts_with = "state_dir")]
    redis: Option<String>,

    /// Key of the stream, for a URL
    #[arg(long, value_name = "KEY", requires = "redis", default_value = DEFAULT_STREAM)]
    stream: String,
}

/// What a command does with entries of a stream that sinks have not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Foreign {
    /// The command fails: its output would not be complete.
    Fail,
    /// A message on standard error.
    Skip,
}

impl Foreign {
    fn handle(self, error: &EntryError) -> Result<()> {
        match self {
            Self::Fail => Err(anyhow!("{error}; delete it: XDEL <stream> <entry>")),
            Self::Skip => {
                // Standard error may be closed.
                let _ = writeln!(io::stderr(), "skipped: {error}");
                Ok(())
            }
        }
    }
}

/// An open log: the file of a host, or a copy of a stream.
struct OpenLog {
    reader: LogReader,
    /// The copy, which is removed on drop, and the key of the stream.
    stream: Option<(ImportedLog, String)>,
}

impl OpenLog {
    fn of_stream(log: ImportedLog, stream: &str) -> Result<Self> {
        let reader = LogReader::open(&log.path())?.context("the copy of the stream is missing")?;
        Ok(Self { reader, stream: Some((log, stream.to_owned())) })
    }

    fn snapshot(&mut self) -> Result<LogSnapshot<'_>, SchemaError> {
        self.reader.snapshot()
    }

    /// The file or the stream, for messages.
    fn shown(&self) -> String {
        match &self.stream {
            Some((_, stream)) => format!("stream {stream}"),
            None => shown_path(self.reader.path()),
        }
    }

    /// Size of the file, in bytes; that of the copy of a stream.
    fn bytes(&self) -> u64 {
        file_size(self.reader.path())
    }
}

impl LogLocation {
    /// The stream to read, if it is one.
    fn stream(&self) -> Result<Option<StreamSettings>> {
        let Some(redis) = &self.redis else { return Ok(None) };
        if redis.contains("://") {
            let address = Address::parse(redis).map_err(|problem| anyhow!("--redis: {problem}"))?;
            let topology = RedisTopology::One(address);
            return Ok(Some(StreamSettings {
                topology,
                stream: self.stream.clone(),
                max_length: 0,
            }));
        }
        ensure!(
            self.runtime_config_file.is_some(),
            "--redis: write redis://host:6379, or pass --runtime-config-file, which has the sink"
        );
        let sinks = self.config()?.prediction_log.sinks;
        let streams: Vec<_> = sinks
            .into_iter()
            .filter_map(|sink| match sink.target {
                SinkTarget::Redis(settings) => Some((sink.name, settings)),
                _ => None,
            })
            .collect();
        let found = streams.iter().find(|(name, _)| name == redis);
        let (_, settings) = found.with_context(|| {
            let names: Vec<_> = streams.iter().map(|(name, _)| name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            format!("--redis: the runtime config has no sink of this name with type = \"redis\"; its sinks of that type: {names}")
        })?;
        Ok(Some(settings.clone()))
    }

    /// The runtime config, or the default one.
    fn config(&self) -> Result<RuntimeConfig> {
        let Some(path) = &self.runtime_config_file else { return Ok(RuntimeConfig::default()) };
        let environment: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        runtime_config::read(path, &environment).with_context(|| path.display().to_string())
    }

    /// Path of the log.
    fn path(&self) -> Result<PathBuf> {
        let Self { from, state_dir, .. } = self;
        let state_dir = match state_dir {
            Some(state_dir) => Some(state_dir.clone()),
            None => self.config()?.state_dir,
        };
        if state_dir.is_none() {
            ensure!(
                from.exists(),
                "{}: does not exist; pass the manifest with -f, or the folder of the log with --state-dir",
                from.display()
            );
        }
        let base = if from.is_dir() { from } else { from.parent().unwrap_or(Path::new("")) };
        Ok(state_folder(state_dir.as_deref(), base).join(schema::FILE))
    }

    fn open(&self, foreign: Foreign) -> Result<OpenLog> {
        if let Some(settings) = self.stream()? {
            let mut reader = StreamReader::connect(&settings)?;
            let log = ImportedLog::read(&mut reader, |error| foreign.handle(&error))?;
            return OpenLog::of_stream(log, reader.stream());
        }
        let path = self.path()?;
        let reader = LogReader::open(&path).with_context(|| shown_path(&path))?;
        if reader.is_none() {
            self.check_enabled()?;
        }
        let reader = reader.with_context(|| {
            format!(
                "{}: there is no prediction log: no prediction was logged yet, or `spinfer up` runs with \
                 another --state-dir",
                shown_path(&path)
            )
        })?;
        Ok(OpenLog { reader, stream: None })
    }

    /// Fails if the runtime config disables the log.
    fn check_enabled(&self) -> Result<()> {
        if let Some(path) = &self.runtime_config_file {
            ensure!(
                self.config()?.prediction_log.enabled,
                "{}: the prediction log is disabled: [prediction_log] enabled = false",
                path.display()
            );
        }
        Ok(())
    }
}

/// Selects records.
#[derive(Debug, Default, Args)]
struct FilterOptions {
    /// Only records of this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Only records of this model version
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// Only records of this component
    #[arg(long, value_name = "ID")]
    component: Option<String>,

    /// Only records of this experiment
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,

    /// Only records of this variant
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,

    /// Only records with this HTTP status
    #[arg(long, value_name = "CODE", value_parser = http_status)]
    status: Option<u16>,

    /// Only records from this time on: RFC 3339, or an age such as 1h or 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<i64>,

    /// Only records before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<i64>,
}

impl FilterOptions {
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
            ..Filter::default()
        })
    }
}

/// Prints to standard error that no record matches `filter`, and the models in the log.
fn report_no_match(snapshot: &LogSnapshot<'_>, filter: &Filter) -> Result<()> {
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
        format!(
            "{text:?} is not a UUID; copy the value of the response header spinfer-prediction-id"
        )
    })
}

fn http_status(text: &str) -> Result<u16, &'static str> {
    let status = text.parse::<StatusCode>();
    status.map(|status| status.as_u16()).map_err(|_| "write an HTTP status, such as --status 500")
}

fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Parses a time, or an age, as microseconds since the epoch.
fn moment(text: &str) -> Result<i64, &'static str> {
    if let Some(time) = times::parse(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text);
    let ago = ago.map_err(
        |_| "write a time such as \"2026-11-30T12:00:00Z\" (RFC 3339), or an age: \"1h\"",
    )?;
    let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
    Ok(times::micros(SystemTime::now()).saturating_sub(ago).max(0))
}

/// Prints records or statistics of the log to `out`.
///
/// # Errors
/// If there is no log, or it cannot be read.
pub fn run(log: &LogOptions, out: &mut impl Write) -> Result<()> {
    match &log.command {
        LogCommand::Tail(options) => tail::run(options, out),
        LogCommand::Show { id, location } => show::run(*id, location, out),
        LogCommand::Stats(options) => stats::run(options, out),
        LogCommand::Export(options) => export::run(options, out),
        LogCommand::Feedback(options) => feedback::run(options, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_is_found_in_the_state_folder_of_up() {
        let dir = tempfile::tempdir().unwrap();
        let (manifest, config) = (dir.path().join("spin.toml"), dir.path().join("runtime.toml"));
        std::fs::write(&manifest, "").unwrap();
        std::fs::write(&config, "state_dir = '/state'").unwrap();
        let location = |from: &Path, state_dir: Option<&str>, config: Option<&Path>| LogLocation {
            from: from.to_owned(),
            state_dir: state_dir.map(PathBuf::from),
            runtime_config_file: config.map(Path::to_owned),
            redis: None,
            stream: DEFAULT_STREAM.into(),
        };
        let open = |location: LogLocation| location.open(Foreign::Fail).map(drop);
        let default = dir.path().join(".spin/predictions.db");
        assert_eq!(location(&manifest, None, None).path().unwrap(), default);
        assert_eq!(location(dir.path(), None, None).path().unwrap(), default);
        let path = location(&manifest, None, Some(&config)).path().unwrap();
        assert_eq!(path, Path::new("/state/predictions.db"));
        let path = location(&manifest, Some("/other"), Some(&config)).path().unwrap();
        assert_eq!(path, Path::new("/other/predictions.db"));
        let error = open(location(&dir.path().join("x"), None, None)).unwrap_err().to_string();
        assert!(error.contains("pass the manifest with -f"), "{error}");
        let error = open(location(&manifest, None, None)).unwrap_err().to_string();
        assert!(error.contains("there is no prediction log"), "{error}");
        assert!(error.ends_with("`spinfer up` runs with another --state-dir"), "{error}");
        std::fs::write(&config, "[prediction_log]\nenabled = false").unwrap();
        let state_dir = dir.path().to_str();
        for location in [
            location(&manifest, None, Some(&config)),
            location(&manifest, state_dir, Some(&config)),
        ] {
            let error = open(location).unwrap_err().to_string();
            let disabled = "the prediction log is disabled: [prediction_log] enabled = false";
            assert_eq!(error, format!("{}: {disabled}", config.display()));
        }
    }

    #[test]
    fn stream_is_that_of_a_url_or_of_a_sink() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("runtime.toml");
        let sinks = "[[prediction_log.sinks]]\ntype = 'redis'\nname = 'all'\n\
                     url = 'redis://:hush@h'\nstream = 'other'\n\
                     [[prediction_log.sinks]]\ntype = 'stdout'\n";
        std::fs::write(&config, sinks).unwrap();
        let stream = |redis: &str, config: Option<&Path>| {
            let location = LogLocation {
                from: "spin.toml".into(),
                state_dir: None,
                runtime_config_file: config.map(Path::to_owned),
                redis: Some(redis.into()),
                stream: DEFAULT_STREAM.into(),
            };
            let found = location.stream().map(|found| found.unwrap().stream);
            found.map_err(|error| format!("{error:#}"))
        };
        assert_eq!(stream("redis://:hush@h", None).as_deref(), Ok(DEFAULT_STREAM));
        assert_eq!(stream("all", Some(&config)).as_deref(), Ok("other"));
        for (redis, config, part) in [
            ("http://hush", None, "--redis: write \"redis://host:6379\""),
            ("all", None, "pass --runtime-config-file"),
            ("stdout", Some(&*config), "its sinks of that type: all"),
        ] {
            let error = stream(redis, config).unwrap_err();
            assert!(error.contains(part) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn empty_time_span_is_refused_and_an_unmatched_filter_lists_the_models() {
        let options = |since, until| FilterOptions { since, until, ..FilterOptions::default() };
        let error = options(Some(2), Some(1)).filter().unwrap_err().to_string();
        assert_eq!(error, "--since is later than --until");
        for (since, until) in [(Some(1), Some(2)), (Some(1), None), (None, Some(1))] {
            assert!(options(since, until).filter().is_ok());
        }
        let models = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())];
        assert_eq!(none_matches(&models), "no record matches; models in the log: a/1, b");
        assert_eq!(none_matches(&[]), "no record matches; models in the log: none");
    }

    #[test]
    fn an_id_is_a_uuid() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(prediction_id(id).map(|id| id.to_string()).as_deref(), Ok(id));
        let expected = "\"nonsense\" is not a UUID; copy the value of the response header \
                        spinfer-prediction-id";
        assert_eq!(prediction_id("nonsense").unwrap_err(), expected);
    }

    #[test]
    fn status_is_a_number_of_three_digits() {
        assert_eq!([http_status("500"), http_status("200")], [Ok(500), Ok(200)]);
        for text in ["abc", "5xx", "50", "70000", ""] {
            assert_eq!(http_status(text), Err("write an HTTP status, such as --status 500"));
        }
    }

    #[test]
    fn count_of_one_is_singular() {
        let counts = [0, 1, 2].map(|count| plural(count, "record"));
        assert_eq!(counts, ["0 records", "1 record", "2 records"]);
    }

    #[test]
    fn moment_is_a_time_or_an_age() {
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(1_000_000));
        let now = times::micros(SystemTime::now());
        let (minute, hour) = (60_000_000, 3_600_000_000);
        let ago = moment("1h").unwrap();
        assert!((now..now + minute).contains(&(ago + hour)), "{ago}");
        assert!(moment("yesterday").is_err());
        assert_eq!(moment("10000y"), Ok(0));
    }
}
