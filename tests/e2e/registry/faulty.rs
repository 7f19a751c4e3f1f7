use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use spinfer::registry::oci::digest::Digest;
use spinfer_tests::root;

use super::{UserFolder, guest};

/// An HTTP server that responds as a test needs.
pub(super) struct FakeServer {
    address: String,
    ended: Arc<AtomicBool>,
}

/// The head of a request.
pub(super) struct ReceivedRequest {
    pub(super) path: String,
    headers: Vec<(String, String)>,
}

impl ReceivedRequest {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A response, whose content-length may be wrong.
#[derive(Clone)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Length,
}

#[derive(Clone, Copy)]
enum Length {
    /// The length of the body.
    Body,
    /// This length, whatever that of the body.
    Claimed(usize),
    /// None: the body is repeated until the client closes the connection.
    Endless,
}

impl Reply {
    pub(super) fn ok(kind: &str, body: &[u8]) -> Self {
        Self::status(200, body).with("content-type", kind)
    }

    pub(super) fn status(status: u16, body: &[u8]) -> Self {
        Self { status, headers: Vec::new(), body: body.to_vec(), length: Length::Body }
    }

    pub(super) fn redirect(to: &str) -> Self {
        Self::status(307, b"").with("location", to)
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn long(self, length: Length) -> Self {
        Self { length, ..self }
    }

    fn send(&self, mut to: TcpStream) -> std::io::Result<()> {
        let Self { status, headers, body, length } = self;
        let mut head = format!("HTTP/1.1 {status} Status\r\nconnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        match length {
            Length::Body => head += &format!("content-length: {}\r\n", body.len()),
            Length::Claimed(bytes) => head += &format!("content-length: {bytes}\r\n"),
            Length::Endless => {}
        }
        to.write_all(format!("{head}\r\n").as_bytes())?;
        to.write_all(body)?;
        if matches!(length, Length::Endless) {
            loop {
                to.write_all(body)?;
            }
        }
        Ok(())
    }
}

impl FakeServer {
    pub(super) fn start(reply: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ended = Arc::new(AtomicBool::new(false));
        let (reply, is_ended) = (Arc::new(reply), Arc::clone(&ended));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_ended.load(Ordering::Relaxed) {
                    return;
                }
                let reply = Arc::clone(&reply);
                std::thread::spawn(move || {
                    if let Some(request) = read(&stream) {
                        // The client may have closed the connection.
                        let _ = reply(&request).send(stream);
                    }
                });
            }
        });
        Self { address, ended }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The flag is read for each connection.
        let _ = TcpStream::connect(&self.address);
    }
}

fn read(stream: &TcpStream) -> Option<ReceivedRequest> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let head = lines.take_while(|line| !line.is_empty());
    let header = |line: String| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Some(ReceivedRequest { path, headers: head.filter_map(header).collect() })
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCTETS: &str = "application/octet-stream";

fn descriptor(kind: &str, content: &[u8]) -> Value {
    let digest = Digest::of(content).to_string();
    json!({ "mediaType": kind, "digest": digest, "size": content.len() })
}

/// The manifest of a component.
pub(super) fn component_manifest(component: &[u8]) -> String {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.wasm.config.v0+json", b"{}"),
        "layers": [descriptor("application/wasm", component)],
    })
    .to_string()
}

/// A registry with one component, that responds with `manifest` and `blob`.
fn registry(manifest: Reply, blob: Reply) -> FakeServer {
    FakeServer::start(move |request| {
        let is_manifest = request.path.contains("/manifests/");
        if is_manifest { manifest.clone() } else { blob.clone() }
    })
}

#[test]
fn faulty_registry_is_reported_and_nothing_is_written() {
    let hello = fs::read(guest("hello_p2")).unwrap();
    let text = component_manifest(&hello);
    let manifest = Reply::ok(MANIFEST, text.as_bytes());
    let blob = Reply::ok(OCTETS, &hello);
    let denied = br#"{"errors":[{"code":"DENIED","message":"not you"}]}"#;
    let index = json!({ "schemaVersion": 2, "manifests": [] }).to_string();
    let image = text.replace("application/wasm", "application/vnd.oci.image.layer.v1.tar+gzip");
    let image = image.replace("vnd.wasm.config.v0+json", "vnd.oci.image.config.v1+json");
    let huge = text.replace(&format!("\"size\":{}", hello.len()), "\"size\":1099511627776");
    let mut other = hello.clone();
    other[100] ^= 1;
    let longer = [&hello[..], b"1"].concat();
    let zeros = vec![0; 1 << 16];
    let claimed = format!("sha256:{}", "0".repeat(64));
    let json = |text: &str| Reply::ok(MANIFEST, text.as_bytes());
    let html = Reply::ok("text/html; charset=utf-8", b"<html>\n<title>Sign in</title>");
    let cases = [
        (
            "digest of the content",
            manifest.clone(),
            Reply::ok(OCTETS, &other),
            "should have the digest",
        ),
        (
            "breaks off",
            manifest.clone(),
            Reply::ok(OCTETS, &hello[1..]).long(Length::Claimed(hello.len())),
            "was lost",
        ),
        ("longer", manifest.clone(), Reply::ok(OCTETS, &longer), "bytes in the manifest"),
        ("shorter", manifest.clone(), Reply::ok(OCTETS, &hello[1..]), "bytes in the manifest"),
        (
            "never ends",
            manifest.clone(),
            Reply::ok(OCTETS, &zeros).long(Length::Endless),
            "sent more",
        ),
        ("page as content", manifest.clone(), html.clone(), "bytes in the manifest"),
        ("no content", manifest.clone(), Reply::status(404, b""), "404 Not Found"),
        (
            "content in a circle",
            manifest.clone(),
            Reply::redirect("/v2/a/blobs/b"),
            "redirects more than 5",
        ),
        (
            "content by force",
            manifest.clone(),
            Reply::redirect("http://192.0.2.1/"),
            "--insecure-http",
        ),
        ("content nowhere", manifest.clone(), Reply::status(302, b""), "which is empty"),
        (
            "page",
            html,
            blob.clone(),
            "text/html that starts with \"<html> <title>Sign in</title>\"",
        ),
        ("empty", json(""), blob.clone(), "expected an OCI manifest"),
        ("JSON", json("{}"), blob.clone(), "schemaVersion"),
        ("index", json(&index), blob.clone(), "index of several"),
        ("image", json(&image), blob.clone(), "neither a component nor a model"),
        ("size", json(&huge), blob.clone(), "the limit of 268435456 bytes"),
        (
            "digest of the manifest",
            manifest.clone().with("docker-content-digest", &claimed),
            blob.clone(),
            "the manifest should have the digest sha256:000",
        ),
        (
            "manifest never ends",
            json(" ").long(Length::Endless),
            blob.clone(),
            "the limit of 4194304 bytes",
        ),
        ("manifest breaks off", manifest.long(Length::Claimed(1 << 20)), blob.clone(), "was lost"),
        (
            "circle",
            Reply::redirect("/v2/a/manifests/1"),
            blob.clone(),
            "redirects more than 5 times",
        ),
        ("401", Reply::status(401, b""), blob.clone(), "spinfer registry login 127.0.0.1:"),
        (
            "403",
            Reply::status(403, denied),
            blob.clone(),
            "403 Forbidden: these credentials do not allow it (DENIED: not you)",
        ),
        ("404", Reply::status(404, b"\x1b[2J<html>"), blob.clone(), "404 Not Found"),
        (
            "429",
            Reply::status(429, b"").with("retry-after", "0"),
            blob.clone(),
            "too many requests",
        ),
        (
            "500",
            Reply::status(500, b"oops"),
            blob.clone(),
            "the registry failed; try again later (oops)",
        ),
        ("302 without place", Reply::status(302, b""), blob, "redirects to \"\", which is empty"),
    ];
    for (name, manifest, blob, part) in cases {
        let (server, home) = (registry(manifest, blob), UserFolder::new());
        let reference = format!("{}/a:1", server.address());
        let (pulled, text) = home.pull(&reference, &[]);
        assert!(!pulled && text.contains(part), "{name}: {part:?} is not in {text}");
        assert!(text.contains(&format!("{reference}: cannot be pulled")), "{name}: {text}");
        assert!(!text.contains('\x1b'), "{name}: {text:?}");
        assert_eq!(home.files(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn transient_failures_are_retried() {
    let hello = fs::read(guest("hello_p2")).unwrap();
    let manifest = component_manifest(&hello);
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let blob = Reply::ok(OCTETS, &hello);
    let server = FakeServer::start(move |request| {
        let number = seen.fetch_add(1, Ordering::Relaxed);
        match (request.path.contains("/manifests/"), number) {
            (true, 0) => Reply::status(503, b"").with("retry-after", "0"),
            (true, _) => Reply::ok(MANIFEST, manifest.as_bytes()),
            // Cut off.
            (false, 2) => Reply { body: blob.body[..1000].to_vec(), ..blob.clone() }
                .long(Length::Claimed(blob.body.len())),
            (false, _) => blob.clone(),
        }
    });
    let home = UserFolder::new();
    let (pulled, text) = home.pull(&format!("{}/a:1", server.address()), &[]);
    assert!(pulled, "{text}");
    assert_eq!(fs::read(home.path("components/a.wasm")).unwrap(), hello);
    assert_eq!(requests.load(Ordering::Relaxed), 4);
}

/// Models with wrong names, sizes or contents of files.
#[test]
fn inconsistent_model_is_refused_and_nothing_is_written() {
    let read = |name: &str| fs::read(root().join("models/iris-classifier/1").join(name)).unwrap();
    let (graph, signature) = (read("model.onnx"), read("model.toml"));
    let config = |name: &str| {
        let descriptor = json!({ "name": name, "version": "1" });
        json!({ "descriptor": descriptor, "config": {}, "modelfs": { "type": "layers", "diffIds": [] } })
            .to_string()
            .into_bytes()
    };
    let named = |name: &str, content: &[u8]| {
        let mut layer = descriptor("application/vnd.cncf.model.weight.v1.raw", content);
        layer["annotations"] = json!({ "org.opencontainers.image.title": name });
        layer
    };
    let other =
        String::from_utf8(signature.clone()).unwrap().replace("sha256 = \"", "sha256 = \"ff");
    let other = other.into_bytes();
    let good = config("iris-classifier");
    for (name, config, layers, part) in [
        (
            "path",
            good.clone(),
            vec![("../../evil", &graph), ("model.toml", &signature)],
            "is not the name of a file",
        ),
        (
            "absolute",
            good.clone(),
            vec![("/tmp/evil", &graph), ("model.toml", &signature)],
            "is not the name of a file",
        ),
        ("no signature", good.clone(), vec![("model.onnx", &graph)], "the model has no model.toml"),
        (
            "another name",
            config("wine"),
            vec![("model.onnx", &graph), ("model.toml", &signature)],
            "model.toml is of iris-classifier",
        ),
        (
            "bad name",
            config("../wine"),
            vec![("model.onnx", &graph), ("model.toml", &signature)],
            "the model's name",
        ),
        (
            "sha256",
            good.clone(),
            vec![("model.onnx", &graph), ("model.toml", &other)],
            "a version is immutable",
        ),
        (
            "graph",
            good,
            vec![("model.onnx", &other), ("model.toml", &signature)],
            "a version is immutable",
        ),
    ] {
        let manifest = json!({
            "schemaVersion": 2,
            "artifactType": "application/vnd.cncf.model.manifest.v1+json",
            "config": descriptor("application/vnd.cncf.model.config.v1+json", &config),
            "layers": layers.iter().map(|(title, content)| named(title, content)).collect::<Vec<_>>(),
        });
        let contents: Vec<Vec<u8>> =
            layers.iter().map(|(_, content)| content.to_vec()).chain([config]).collect();
        let server = FakeServer::start(move |request| {
            if request.path.contains("/manifests/") {
                return Reply::ok(MANIFEST, manifest.to_string().as_bytes());
            }
            let is_asked =
                |content: &&Vec<u8>| request.path.ends_with(&Digest::of(content).to_string());
            contents.iter().find(is_asked).map_or(Reply::status(404, b""), |c| Reply::ok(OCTETS, c))
        });
        let home = UserFolder::new();
        let (pulled, text) = home.pull(&format!("{}/a:1", server.address()), &[]);
        assert!(!pulled && text.contains(part), "{name}: {part:?} is not in {text}");
        assert_eq!(home.files(), Vec::<String>::new(), "{name}");
    }
}
