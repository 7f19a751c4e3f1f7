//! The fuzz targets of this crate: all of its own parsers of foreign input. `make fuzz` runs them for
//! minutes, the tests below briefly.

use std::collections::HashMap;
use std::io;
use std::pin::{Pin, pin};
use std::str::from_utf8;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, HeaderMap, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use serde::de::IgnoredAny;
use spinfer_backend::{Tensor, TensorInfo, TensorType};
use spinfer_experiment::progress::Epoch;
use spinfer_experiment::{CONTROL, Change, Experiments, Router as ExperimentRouter, Subject};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::Runtime;

use crate::cache::{BodyKey, canonical, control};
use crate::cli::add::{example as add_example, labels};
use crate::config::manifest;
use crate::config::outbound_hosts::{OutboundHost, OutboundHosts};
use crate::config::runtime_config;
use crate::config::template::Template;
use crate::config::variables::Provider;
use crate::experiment::assessment::{Assessment, assess, moments_name, unit_metrics};
use crate::experiment::nodes::{AllCounts, SourceCounts, VariantRequests};
use crate::http::authority::Authority;
use crate::http::content_encoding::{AcceptEncoding, Coding, Decoder};
use crate::http::route::{Pattern, Router};
use crate::inference::{bind as bind_tensors, check_settings};
use crate::prediction_log::feedback;
use crate::prediction_log::sinks::stream::RawEntry;
use crate::server::preface::PrefaceTimeout;
pub use crate::storage::postgres::fuzzing::{postgres_messages, postgres_value};
use crate::storage::redis::reply::{self, Scan};

/// A `spin.toml`, with each of its profiles.
pub fn spin_toml(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    if let Ok(mut manifest) = manifest::parse(text) {
        let profiles: Vec<_> = manifest.component.values().flat_map(|c| c.profile.keys()).collect();
        for profile in profiles.into_iter().cloned().collect::<Vec<_>>() {
            // A profile may be invalid for a component.
            let _ = manifest.apply_profile(&profile);
        }
    }
}

/// A value of a manifest with variables: printed and parsed again, it is equal.
pub fn template(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    let Ok(template) = Template::parse(text) else { return };
    assert_eq!(Template::parse(&template.to_string()).as_ref(), Ok(&template));
    let values: HashMap<&str, String> =
        template.variables().map(|name| (name, format!("<{name}>"))).collect();
    assert!(template.resolve(&values).is_some());
}

/// An entry of `allowed_outbound_hosts`, and on the next line a host to check against it.
pub fn outbound_host(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    let (entry, host) = text.split_once('\n').unwrap_or((text, "example.com"));
    let Ok(entry) = OutboundHost::parse(entry) else { return };
    let mut allowed = OutboundHosts::default();
    allowed.add(entry);
    for scheme in ["http", "https", "redis"] {
        let any = [None, Some(8080)].into_iter().any(|port| allowed.allows(scheme, host, port));
        assert!(!any || !host.is_empty());
    }
    let _ = allowed.allows_self();
}

/// The host of a request: it is the host of the URL that it becomes a part of.
pub fn authority(data: &[u8]) {
    let Ok(Authority { host, port }) = Authority::parse(data) else { return };
    let text = from_utf8(data).expect("it was parsed");
    let url: Uri = format!("http://{text}/path?query").parse().expect("it is a URL");
    assert_eq!((url.host(), url.port_u16()), (Some(host), port));
    assert_eq!(url.path_and_query().map(PathAndQuery::as_str), Some("/path?query"));
}

/// A path, and on the following lines the routes of an application.
pub fn route(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    let mut lines = text.lines();
    let path = format!("/{}", lines.next().unwrap_or_default());
    let patterns: Vec<Pattern> = lines.flat_map(Pattern::parse).collect();
    for pattern in &patterns {
        let again = Pattern::parse(pattern.raw());
        assert_eq!(again.as_ref(), Ok(pattern));
    }
    let Ok(router) = Router::new(patterns.into_iter().map(|pattern| (pattern, ()))) else { return };
    if let Some((pattern, ())) = router.find(&path) {
        assert!(path.ends_with(pattern.rest(&path)), "{pattern:?} {path}");
        assert!(pattern.parameters(&path).all(|(_, value)| path.contains(value)));
    }
}

/// A runtime config.
pub fn runtime_config(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    // Parsing would read the file that it names.
    if !text.contains("dotenv_path") {
        let _ = runtime_config::parse(text, &[("SPIN_VARIABLE_A".into(), "1".into())]);
    }
}

/// An `experiments.toml`: one that is accepted assigns every unit to a variant with its allocation as
/// the propensity.
pub fn experiments_toml(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    let Ok(experiments) = Experiments::parse(text) else { return };
    let router = ExperimentRouter::new(&experiments).expect("a valid experiment has control");
    for live in router.iter() {
        let shares = live.experiment.assignable().map(|(_, variant)| variant.allocation);
        assert!((shares.sum::<f64>() - 1.0).abs() < 1e-8);
        for unit in [None, Some(&b"ann"[..]), Some(b"ben")] {
            for targeted in [false, true] {
                let subject = Subject { unit, forced: None, targeted };
                let assigned = live.assign(&subject).expect("nothing is forced");
                assert!(!assigned.variant.shadow);
                assert!(assigned.propensity().is_none_or(|p| p == assigned.variant.allocation));
                assert!(assigned.exclusion().is_none() || assigned.variant.name == CONTROL);
            }
        }
    }
}

/// A stored change of an experiment, which may come from any writer to the store: one that is
/// accepted is accepted again after it is written, and its shares sum to 1.
pub fn experiment_change(data: &[u8]) {
    const FILE: &str = "[experiments.iris]\nmodel = \"iris\"\nunit = { header = \"a\" }\n\
        [[experiments.iris.variants]]\nname = \"control\"\ncomponent = \"a\"\nallocation = 0.9\n\
        [[experiments.iris.variants]]\nname = \"treatment\"\ncomponent = \"b\"\nallocation = 0.1\n";
    let experiments = Experiments::parse(FILE).expect("a valid file");
    let mut router = ExperimentRouter::new(&experiments).expect("it has control");
    let Ok(change) = serde_json::from_slice::<Change>(data) else { return };
    let experiment = experiments.get("iris").expect("it is in the file");
    let Ok(shares) = change.allocations(experiment) else {
        assert!(router.change(0, &change).is_err());
        return;
    };
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-8);
    let json = serde_json::to_vec(&change).expect("a change is JSON");
    assert_eq!(serde_json::from_slice::<Change>(&json).ok(), Some(change.clone()));
    router.change(0, &change).expect("its shares are valid");
    let live = router.get(0).expect("the experiment");
    let subject = Subject { unit: Some(b"ann"), ..Subject::default() };
    live.assign(&subject).expect("nothing is forced");
}

/// The counts of another host, as stored: those that are accepted are accepted again after they are
/// written, and together with those of more hosts every number of the assessment is finite.
pub fn experiment_counts(data: &[u8]) {
    const FILE: &str = "[experiments.iris]\nmodel = \"iris\"\nunit = { header = \"a\" }\n\
        metric = { kind = \"accuracy\", covariate = \"age\", margin = 0.1 }\nminimum_sample = 2\n\
        [[experiments.iris.variants]]\nname = \"control\"\ncomponent = \"a\"\nallocation = 0.5\n\
        [[experiments.iris.variants]]\nname = \"treatment\"\ncomponent = \"b\"\nallocation = 0.5\n";
    let Some(counts) = SourceCounts::parse(data) else { return };
    let json = serde_json::to_vec(&counts).expect("counts are JSON");
    assert!(SourceCounts::parse(&json).is_some());
    for VariantRequests { total, .. } in counts.requests.values() {
        assert!(total.error_moments().is_valid() && total.latency_moments().is_valid());
        assert_eq!(total.since(total).requests(), 0);
    }
    let experiments = Experiments::parse(FILE).expect("a valid file");
    let experiment = experiments.get("iris").expect("it is in the file");
    let shares = Change::default().shares(experiment);
    let epochs = [0, 1_000].map(|from| Epoch { from, shares: shares.clone() });
    let change = Change { epochs: epochs.to_vec(), ..Change::default() };
    let metrics: Vec<String> = unit_metrics(experiment).iter().map(moments_name).collect();
    let all = AllCounts::merge([&counts, &counts].into_iter(), &epochs, &metrics);
    let found = assess(experiment, &change, &epochs, &all, Vec::new(), (2_000, Duration::ZERO));
    let json = serde_json::to_string(&found).expect("an assessment is JSON");
    // A number that is not finite is written as null.
    serde_json::from_str::<Assessment>(&json).expect("every number is finite");
}

/// A `.env` file.
pub fn dotenv(data: &[u8]) {
    let _ = Provider::lines("SPIN_VARIABLE", data);
}

/// A request body: its canonical form is its own canonical form, and white space does not change it.
pub fn body(data: &[u8]) {
    for by in [BodyKey::Json, BodyKey::Tensors] {
        let Some(form) = canonical::form(data, by) else { continue };
        if let Some(again) = canonical::form(&form, by) {
            assert_eq!(again, form);
        }
        assert!(serde_json::from_slice::<IgnoredAny>(&form).is_ok());
        let spaced = [b" ", data, b"\n"].concat();
        assert!(canonical::form(&spaced, by).is_none_or(|other| other == form));
    }
}

/// The host's settings in a `model.toml`.
pub fn model_settings(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    let _ = check_settings(text);
}

/// Values of `Cache-Control`, one per line, of a response and of a request.
pub fn cache_control(data: &[u8]) {
    let values = data.split(|&byte| byte == b'\n').filter_map(|v| HeaderValue::from_bytes(v).ok());
    let headers: HeaderMap = values.map(|value| (CACHE_CONTROL, value)).collect();
    let for_all = control::response_directives(&headers, false);
    if let Some(allowed) = for_all {
        let max = Duration::from_secs(1 << 31);
        assert!(!allowed.fresh.is_zero() && allowed.fresh <= max && allowed.stale <= max);
    }
    // A response that is storable with credentials is storable without.
    let for_one = control::response_directives(&headers, true);
    assert!(for_one.is_none() || for_one == for_all, "{for_one:?} {for_all:?}");
    let _ = control::request_directives(&headers);
}

/// A graph whose labels `spinfer add` reads and rewrites.
pub fn labels(data: &[u8]) {
    labels::fuzz(data);
}

/// An example for `spinfer add`: JSON, an archive of arrays, or a single array.
pub fn example(data: &[u8]) {
    add_example::fuzz(data);
}

/// The inputs of a graph, and tensors to bind to them: bound tensors match their inputs.
pub fn bind(data: &[u8]) {
    const SIZES: [u32; 8] = [0, 1, 2, 3, 4, 1000, 1 << 31, u32::MAX];
    let mut bytes = data.iter().copied();
    let mut below = |end: usize| usize::from(bytes.next().unwrap_or_default()) % end;
    let types = [TensorType::Fp32, TensorType::Fp16, TensorType::Bool, TensorType::I64];
    let mut infos = Vec::new();
    for index in 0..below(4) {
        let ty = types[below(types.len())];
        let axes = below(4);
        let size = |below: &mut dyn FnMut(usize) -> usize| SIZES[below(SIZES.len())];
        let shape = (0..axes).map(|_| (below(2) > 0).then(|| size(&mut below))).collect();
        let shape = (below(4) > 0).then_some(shape);
        infos.push(TensorInfo { name: index.to_string(), ty, shape, axis_names: Vec::new() });
    }
    let mut named = Vec::new();
    for _ in 0..below(5) {
        let ty = types[below(types.len())];
        let dimensions: Vec<u32> = (0..below(6)).map(|_| SIZES[below(SIZES.len())]).collect();
        let full = dimensions
            .iter()
            .try_fold(ty.size().unwrap_or_default(), |n, &axis| n.checked_mul(axis as usize));
        let length = full.filter(|&length| length <= 4096 && below(4) > 0).unwrap_or(below(256));
        let tensor = Tensor { dimensions, ty, data: vec![0; length] };
        named.push((below(4).to_string(), tensor));
    }
    let Ok(bound) = bind_tensors(&infos, named) else { return };
    assert_eq!(bound.len(), infos.len());
    for (tensor, info) in bound.iter().zip(&infos) {
        assert_eq!(tensor.ty, info.ty);
        let elements: usize = tensor.dimensions.iter().map(|&axis| axis as usize).product();
        assert_eq!(tensor.data.len(), elements * tensor.ty.size().unwrap_or_default());
        let Some(shape) = &info.shape else { continue };
        assert_eq!(shape.len(), tensor.dimensions.len());
        let mut axes = shape.iter().zip(&tensor.dimensions);
        assert!(axes.all(|(axis, size)| axis.is_none_or(|axis| axis == *size)));
    }
}

/// The first bytes of a connection, received in pieces of the size in the first byte.
pub fn preface(data: &[u8]) {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    });
    let _entered = RUNTIME.enter();
    let Some((&piece, sent)) = data.split_first() else { return };
    let pieces = Pieces { rest: sent, piece: usize::from(piece).max(1) };
    let stream = pin!(PrefaceTimeout::new(pieces, Duration::from_secs(3600)));
    assert_eq!(read_all(stream).ok().as_deref(), Some(sent));
}

/// A Redis reply, received in pieces: its end and its value.
pub fn redis_reply(data: &[u8]) {
    const PIECE: usize = 7;
    let mut scan = Scan::default();
    for end in (0..data.len()).step_by(PIECE).chain([data.len()]) {
        match scan.advance(&data[..end]) {
            Ok(None) => {}
            Ok(Some(length)) => {
                let _ = reply::value(&data[..length]);
                return;
            }
            Err(_) => return,
        }
    }
}

/// An entry of a stream of the prediction log: names and values of its fields, separated by NUL. What is
/// read is written as one line of JSON.
pub fn stream_entry(data: &[u8]) {
    let parts: Vec<_> = data.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let fields = parts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    let entry = RawEntry { id: "1-0".into(), fields: fields.collect() };
    if let Ok(event) = entry.event() {
        let mut line = Vec::new();
        event.write_line(&mut line);
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        assert!(serde_json::from_slice::<IgnoredAny>(&line).is_ok());
    }
}

/// An encoded body, decoded in pieces of the size in the first byte; and an `Accept-Encoding`.
pub fn content_encoding(data: &[u8]) {
    const CAPACITY: usize = 4096;
    let Some((&piece, body)) = data.split_first() else { return };
    for coding in [Coding::Gzip, Coding::Deflate] {
        let mut decoder = Decoder::new(coding);
        'body: for mut piece in body.chunks(usize::from(piece).max(1)) {
            loop {
                let mut output = Vec::with_capacity(CAPACITY);
                let capacity = output.capacity();
                let before = piece.len();
                if decoder.decode(&mut piece, &mut output).is_err() {
                    break 'body;
                }
                assert_eq!(output.capacity(), capacity);
                let is_full = output.len() == capacity;
                if piece.is_empty() && !is_full {
                    break;
                }
                assert!(is_full || piece.len() < before, "the decoder makes no progress");
            }
        }
        let _ = decoder.is_at_end();
    }
    if let Ok(value) = HeaderValue::from_bytes(body) {
        let accepted = AcceptEncoding::of(&HeaderMap::from_iter([(ACCEPT_ENCODING, value)]));
        let _ = (accepted.choose(), accepted.refuses_identity());
    }
}

/// The body of `POST /v2/feedback`: every item of a list is accepted or rejected.
pub fn feedback_body(data: &[u8]) {
    /// Microseconds of Unix time: 2026-11-30.
    const NOW: i64 = 1_796_000_000_000_000;
    let _ = feedback::parse(data, NOW);
}

/// A reader that returns its bytes in pieces.
pub(crate) struct Pieces<'a> {
    pub(crate) rest: &'a [u8],
    pub(crate) piece: usize,
}

/// Reads a stream of [`Pieces`] to its end. It never waits.
pub(crate) fn read_all(mut stream: Pin<&mut impl AsyncRead>) -> io::Result<Vec<u8>> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut seen = Vec::new();
    loop {
        let mut bytes = [0; 300];
        let mut buffer = ReadBuf::new(&mut bytes);
        match stream.as_mut().poll_read(&mut cx, &mut buffer) {
            Poll::Ready(read) => read?,
            Poll::Pending => panic!("a stream of bytes that are there waits"),
        }
        if buffer.filled().is_empty() {
            return Ok(seen);
        }
        seen.extend_from_slice(buffer.filled());
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.piece.min(self.rest.len()).min(buffer.remaining());
        let (piece, rest) = self.rest.split_at(length);
        buffer.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use spinfer_mutations::run_briefly;

    /// A test of each target.
    macro_rules! briefly {
        ($($target:ident)*) => {
            $(#[test]
            fn $target() {
                run_briefly(stringify!($target), super::$target);
            })*
        };
    }

    briefly! {
        spin_toml template outbound_host authority route runtime_config dotenv model_settings cache_control
        labels example bind preface body feedback_body redis_reply stream_entry content_encoding experiments_toml
        experiment_change experiment_counts postgres_value postgres_messages
    }
}
