//! `[[prediction_log.sinks]]` of the runtime config. Parsed by hand, so that errors do not repeat
//! values: addresses may contain passwords.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytesize::ByteSize;
use http::HeaderValue;
use reqwest::Url;
use toml::{Table, Value};

use crate::cache::redis::{RedisTopology, addresses};
use crate::config::manifest::names;

/// A sink of the prediction log.
#[derive(Clone, Debug)]
pub struct SinkSettings {
    /// Unique among the sinks: the key of the sink's position in the log's file.
    pub name: String,
    pub target: SinkTarget,
}

/// What a sink delivers to.
#[derive(Clone, Debug)]
pub enum SinkTarget {
    Redis(StreamSettings),
    File(FileSettings),
    Stdout,
    CloudEvents(CollectorSettings),
}

impl SinkTarget {
    /// The `type` in the runtime config.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::File(_) => "file",
            Self::Stdout => "stdout",
            Self::CloudEvents(_) => "cloudevents",
        }
    }
}

/// A stream in Redis.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    pub topology: RedisTopology,
    /// Key of the stream.
    pub stream: String,
    /// Approximate maximum number of entries of the stream.
    pub max_length: u64,
}

/// A file of JSON lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    pub path: PathBuf,
    /// Size at which the file is rotated, in bytes.
    pub max_size: u64,
    /// Maximum number of rotated files: `<path>.1` is the newest one.
    pub max_files: u32,
}

/// An HTTP collector of CloudEvents.
#[derive(Clone)]
pub struct CollectorSettings {
    pub url: Url,
    /// Header `authorization`.
    pub authorization: Option<HeaderValue>,
    /// Attribute `source`.
    pub source: String,
    /// Attribute `namespace`.
    pub namespace: String,
    /// Attribute `inferenceservicename`; the model's name if `None`.
    pub inference_service: Option<String>,
    /// Time limit of a request, the connection included.
    pub timeout: Duration,
}

/// Without the URL and the header, which may contain credentials.
impl fmt::Debug for CollectorSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorSettings")
            .field("host", &self.url.host_str())
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Default key of the stream: the same for all nodes.
pub const DEFAULT_STREAM: &str = "spinfer:predictions";
/// Default of `max_length`: some hundred megabytes of iris records.
const MAX_LENGTH: u64 = 1_000_000;
/// Maximum length of a stream's key, in bytes.
const MAX_STREAM: usize = 512;
/// Default size of a file of JSON lines, in bytes.
const FILE_SIZE: u64 = 100 << 20;
/// Minimum of `max_size`, in bytes: a batch is not split over files.
const MIN_FILE_SIZE: u64 = 1 << 20;
/// Default number of rotated files.
const FILES: u32 = 5;
/// Maximum of `max_files`: a rotation renames each.
const MAX_FILES: u32 = 1000;
/// Default time limit of a request to a collector.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum of `timeout`.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

const KINDS: &str = "write \"redis\" with `url`, \"file\" with `path`, \"stdout\", or \
                     \"cloudevents\" with `url`";

/// Parses the list of sinks.
///
/// # Errors
/// Names the sink and the key, but does not repeat the value, which may be secret.
pub fn parse(value: Value) -> Result<Vec<SinkSettings>> {
    let tables: Vec<Table> = value
        .try_into()
        .map_err(|_| anyhow!("must be a list of tables: [[prediction_log.sinks]]"))?;
    let sinks = tables.into_iter().enumerate().map(|(index, table)| {
        let shown = table.get("name").and_then(Value::as_str).filter(|name| is_name(name));
        let shown = shown.map_or_else(|| format!("[{index}]"), |name| format!("`{name}`"));
        sink(table).with_context(|| format!("sink {shown}"))
    });
    let sinks = sinks.collect::<Result<Vec<_>>>()?;
    let mut names = HashSet::new();
    for SinkSettings { name, target: _ } in &sinks {
        ensure!(
            names.insert(name),
            "sink `{name}`: name: two sinks have this name; write a unique one for each"
        );
    }
    let stdout = sinks.iter().filter(|sink| matches!(sink.target, SinkTarget::Stdout)).count();
    ensure!(stdout <= 1, "type = \"stdout\": two sinks have this type; remove one");
    Ok(sinks)
}

fn is_name(name: &str) -> bool {
    names::check_label(name).is_ok()
}

fn sink(mut table: Table) -> Result<SinkSettings> {
    let kind = table.remove("type");
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    let keys: &[&str] = match kind {
        "redis" => &["name", "url", "cluster", "sentinels", "stream", "max_length"],
        "file" => &["name", "path", "max_size", "max_files"],
        "stdout" => &["name"],
        "cloudevents" => {
            &["name", "url", "authorization", "source", "namespace", "inference_service", "timeout"]
        }
        _ => bail!("type: {KINDS}"),
    };
    if let Some(key) = table.keys().find(|key| !keys.contains(&key.as_str())) {
        bail!("{key}: unknown key; \"{kind}\" has {}", keys.join(", "));
    }
    let name = match table.remove("name") {
        None => kind.to_owned(),
        Some(Value::String(name)) if is_name(&name) => name,
        Some(_) => {
            bail!("name: write words of letters and digits, separated by hyphens: \"audit-log\"")
        }
    };
    let target = match kind {
        "redis" => SinkTarget::Redis(stream(&mut table)?),
        "file" => SinkTarget::File(file(&mut table)?),
        "stdout" => SinkTarget::Stdout,
        _ => SinkTarget::CloudEvents(collector(&mut table)?),
    };
    Ok(SinkSettings { name, target })
}

fn stream(table: &mut Table) -> Result<StreamSettings> {
    let url = table.remove("url").context("url: write \"redis://host:6379\"")?;
    let url = addresses(url).context("url")?;
    let sentinels = table.remove("sentinels").map(addresses).transpose().context("sentinels")?;
    let cluster = match table.remove("cluster") {
        None => false,
        Some(value) => value.as_bool().context("cluster: must be true or false")?,
    };
    let topology = RedisTopology::of(url, cluster, sentinels).context("url")?;
    let stream = text(table, "stream", "the key of a stream: \"spinfer:predictions\"")?;
    let stream = stream.unwrap_or_else(|| DEFAULT_STREAM.into());
    ensure!(stream.len() <= MAX_STREAM, "stream: must have at most {MAX_STREAM} bytes");
    // The host has another key on the same node of a Cluster.
    ensure!(
        !stream.contains('}') || hash_tag(&stream).is_some(),
        "stream: must have a }} only at the end of a hash tag: \"{{spinfer}}:predictions\""
    );
    let max_length = match table.remove("max_length") {
        None => MAX_LENGTH,
        Some(value) => {
            let length = value.as_integer().and_then(|length| u64::try_from(length).ok());
            let length = length.filter(|length| *length > 0);
            length.context("max_length: must be a number of entries above 0, such as 1000000")?
        }
    };
    Ok(StreamSettings { topology, stream, max_length })
}

/// The part of a key that determines its node in a Cluster, instead of the whole key.
pub(super) fn hash_tag(key: &str) -> Option<&str> {
    let (tag, _) = key.split_once('{')?.1.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

fn file(table: &mut Table) -> Result<FileSettings> {
    let path = text(table, "path", "the path of a file: \"/var/log/predictions.jsonl\"")?;
    let path = path.context("path: write the path of a file: \"/var/log/predictions.jsonl\"")?;
    let max_size = match table.remove("max_size") {
        None => FILE_SIZE,
        Some(value) => {
            let size = value.try_into::<ByteSize>().ok().map(|size| size.0);
            let size = size.filter(|&size| size >= MIN_FILE_SIZE);
            size.context("max_size: must be a size of at least 1MiB, such as \"100MiB\"")?
        }
    };
    let max_files = match table.remove("max_files") {
        None => FILES,
        Some(value) => {
            let files = value.as_integer().and_then(|files| u32::try_from(files).ok());
            let files = files.filter(|files| (1..=MAX_FILES).contains(files));
            files.with_context(|| {
                format!("max_files: must be a number of rotated files between 1 and {MAX_FILES}")
            })?
        }
    };
    Ok(FileSettings { path: path.into(), max_size, max_files })
}

fn collector(table: &mut Table) -> Result<CollectorSettings> {
    const FORM: &str = "url: write \"http://host:8080/path\", or https";
    let Some(Value::String(url)) = table.remove("url") else { bail!(FORM) };
    let url = Url::parse(&url).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https")).context(FORM)?;
    let header = text(table, "authorization", "a header: \"Bearer <token>\"")?;
    let authorization = header.map(|header| {
        let value = HeaderValue::from_str(&header);
        value.map_err(|_| anyhow!("authorization: has characters that a header cannot have"))
    });
    let mut authorization = authorization.transpose()?;
    if let Some(value) = &mut authorization {
        value.set_sensitive(true);
    }
    let timeout = match table.remove("timeout") {
        None => TIMEOUT,
        Some(value) => {
            let timeout = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
            let timeout = timeout.filter(|time| !time.is_zero() && *time <= MAX_TIMEOUT);
            timeout.with_context(|| {
                format!("timeout: must be a duration of at most {MAX_TIMEOUT:?}, such as \"10s\"")
            })?
        }
    };
    let source = text(table, "source", "a URI that names this host: \"/nodes/7\"")?;
    let namespace = text(table, "namespace", "a name: \"default\"")?;
    Ok(CollectorSettings {
        url,
        authorization,
        source: source.unwrap_or_else(|| "spinfer".into()),
        namespace: namespace.unwrap_or_else(|| "default".into()),
        inference_service: text(table, "inference_service", "a name")?,
        timeout,
    })
}

/// A text that is not empty.
fn text(table: &mut Table, key: &str, form: &str) -> Result<Option<String>> {
    match table.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(anyhow!("{key}: write {form}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<SinkSettings>, String> {
        let mut table: Table = toml::from_str(text).unwrap();
        parse(table.remove("sinks").unwrap()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn each_type_is_read_with_its_defaults() {
        let sinks = read(
            "[[sinks]]\ntype = 'redis'\nurl = 'redis://user:hush@h'\n\
             [[sinks]]\ntype = 'file'\nname = 'audit-log'\npath = '/log.jsonl'\nmax_size = '2MiB'\n\
             [[sinks]]\ntype = 'stdout'\n\
             [[sinks]]\ntype = 'cloudevents'\nurl = 'http://user:hush@h/'\nauthorization = 'hush'",
        )
        .unwrap();
        let names: Vec<_> = sinks.iter().map(|sink| sink.name.as_str()).collect();
        assert_eq!(names, ["redis", "audit-log", "stdout", "cloudevents"]);
        let targets: Vec<_> = sinks.iter().map(|sink| &sink.target).collect();
        let [SinkTarget::Redis(stream), SinkTarget::File(file), SinkTarget::Stdout, collector] =
            targets[..]
        else {
            panic!("{sinks:?}");
        };
        assert_eq!((stream.stream.as_str(), stream.max_length), (DEFAULT_STREAM, MAX_LENGTH));
        assert!(matches!(&stream.topology, RedisTopology::One(address) if address.host == "h"));
        assert_eq!((file.max_size, file.max_files), (2 << 20, FILES));
        let SinkTarget::CloudEvents(collector) = collector else { panic!("{collector:?}") };
        assert_eq!((collector.timeout, collector.namespace.as_str()), (TIMEOUT, "default"));
        assert!(!format!("{sinks:?}").contains("hush"));
    }

    #[test]
    fn topologies_are_those_of_the_response_cache() {
        let topology = |keys: &str| {
            let sinks = read(&format!("[[sinks]]\ntype = 'redis'\n{keys}")).unwrap();
            let SinkTarget::Redis(stream) = sinks[0].target.clone() else { panic!("{sinks:?}") };
            stream.topology
        };
        assert!(matches!(
            topology("url = ['redis://a', 'redis://b']\ncluster = true"),
            RedisTopology::Cluster(nodes) if nodes.len() == 2
        ));
        assert!(matches!(
            topology("url = 'redis://main'\nsentinels = 'redis://s:26379'"),
            RedisTopology::Sentinels { master, .. } if master.host == "main"
        ));
    }

    #[test]
    fn invalid_setting_is_rejected_with_its_sink_and_key_and_without_its_value() {
        for (keys, part) in [
            ("", "sink [0]: type: write \"redis\""),
            ("type = 'hush'", "type: write \"redis\""),
            ("type = 'redis'", "sink [0]: url: write \"redis://host:6379\""),
            ("type = 'redis'\nname = 'a-b'\nurl = 'hush'", "sink `a-b`: url: write \"redis"),
            ("type = 'redis'\nurl = ['redis://hush', 'redis://b']", "url: several addresses"),
            (
                "type = 'redis'\nurl = 'redis://hush'\npath = 'a'",
                "path: unknown key; \"redis\" has name, url",
            ),
            ("type = 'redis'\nurl = 'redis://hush'\nmax_length = 0", "max_length: must be"),
            ("type = 'redis'\nurl = 'redis://hush'\ncluster = 1", "cluster: must be true or false"),
            ("type = 'redis'\nurl = 'redis://hush'\nstream = ''", "stream: write the key"),
            ("type = 'redis'\nurl = 'redis://hush'\nstream = 'a}b'", "stream: must have a }"),
            ("type = 'file'", "path: write the path of a file"),
            (
                "type = 'file'\npath = 'hush'\nmax_size = '7777'",
                "max_size: must be a size of at least 1MiB",
            ),
            ("type = 'file'\npath = 'hush'\nmax_files = 0", "max_files: must be"),
            ("type = 'stdout'\nname = 'hush hush'", "name: write words"),
            ("type = 'stdout'\npath = 'hush'", "path: unknown key; \"stdout\" has name"),
            ("type = 'cloudevents'\nurl = 'ftp://hush'", "url: write \"http://host:8080/path\""),
            (
                "type = 'cloudevents'\nurl = 'http://hush'\ntimeout = '7777s'",
                "timeout: must be a duration",
            ),
            (
                "type = 'cloudevents'\nurl = 'http://hush'\nauthorization = \"hush\\n\"",
                "authorization: has characters",
            ),
            (
                "type = 'cloudevents'\nurl = 'http://hush'\nnamespace = 7777",
                "namespace: write a name",
            ),
        ] {
            let error = read(&format!("[[sinks]]\n{keys}")).unwrap_err();
            assert!(error.contains(part), "{keys}: {error}");
            assert!(!error.contains("hush") && !error.contains("7777"), "{keys}: {error}");
        }
        for (text, part) in [
            ("sinks = 7", "must be a list of tables"),
            ("[[sinks]]\ntype = 'stdout'\n[[sinks]]\ntype = 'stdout'", "`stdout`: name: two sinks"),
            (
                "[[sinks]]\ntype = 'stdout'\n[[sinks]]\ntype = 'stdout'\nname = 'b'",
                "type = \"stdout\": two sinks have this type",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
