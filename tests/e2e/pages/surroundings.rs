//! What a page finds: a folder to start in, programs, ports, and the services that it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use spinfer_tests::{GUESTS, OciRegistry, Redis, binary, create_state_dir, root};
use tempfile::TempDir;

use super::page::Block;

/// Where a page starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Folder {
    /// In a copy of the example application, as after `make components` in a clone.
    Application,
    Empty,
}

/// What [`Folder::Application`] has of the repository, in addition to the built components.
const APPLICATION: [&str; 3] = ["components", "models", "tests/images"];
/// Folders that are not copied: what is built in them, byte code.
const NOT_COPIED: [&str; 2] = ["target", "__pycache__"];

/// Default ports of `spinfer up`: requests, and the admin plane.
const SPINFER: u16 = 3000;
const ADMIN: u16 = 3001;
/// Default ports of services that are started for a page with them in a runnable block.
const REDIS: u16 = 6379;
const REGISTRY: u16 = 5000;

pub(super) struct Surroundings {
    folder: TempDir,
    /// Programs, caches and configuration of the page's processes.
    tools: TempDir,
    ports: Ports,
    registry: Option<OciRegistry>,
    _redis: Option<Redis>,
}

impl Surroundings {
    pub(super) fn of(blocks: &[Block], start: Folder) -> Self {
        let run = blocks.iter().filter(|block| block.kind.is_run());
        let text: String = run.map(|block| block.text.as_str()).collect();
        let named = named_ports(&text);
        let redis = named.contains(&REDIS).then(Redis::start);
        let registry = named.contains(&REGISTRY) || text.contains("REGISTRY");
        let registry = registry.then(OciRegistry::start);

        let mut ports: BTreeMap<u16, u16> =
            named.into_iter().map(|port| (port, free_port())).collect();
        for port in [SPINFER, ADMIN] {
            ports.entry(port).or_insert_with(free_port);
        }
        if let Some(redis) = &redis {
            ports.insert(REDIS, redis.port());
        }
        if let Some(registry) = &registry {
            ports.insert(REGISTRY, port_of(registry));
        }
        let surroundings = Self {
            folder: tempfile::tempdir().unwrap(),
            tools: tempfile::tempdir().unwrap(),
            ports: Ports(ports),
            registry,
            _redis: redis,
        };
        surroundings.write_tools();
        if start == Folder::Application {
            copy_application(surroundings.folder());
        }
        surroundings
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `text` with the ports of this test in place of the page's.
    pub(super) fn substitute(&self, text: &str) -> String {
        self.ports.substitute(text)
    }

    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let tools = self.tools.path();
        let own = [tools.join("bin"), root().join("target/python/bin")];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)));
        let mut environment = vec![
            ("PATH", path.unwrap().to_str().unwrap().to_owned()),
            ("PYTHONPATH", root().join("clients/python/src").display().to_string()),
            // No byte code in the repository.
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
            ("SPINFER", root().display().to_string()),
            ("XDG_CACHE_HOME", tools.join("cache").display().to_string()),
            ("CURL_HOME", tools.display().to_string()),
        ];
        if let Some(registry) = &self.registry {
            environment.push(("REGISTRY", registry.address().to_owned()));
        }
        environment
    }

    /// `spinfer` with the ports of this test as its defaults; curl without a progress meter, as on a
    /// terminal; the compiled components of all tests.
    fn write_tools(&self) {
        let tools = self.tools.path();
        fs::create_dir_all(tools.join("bin")).unwrap();
        let (port, admin) = (self.ports.0[&SPINFER], self.ports.0[&ADMIN]);
        let script = WRAPPER
            .replace("PORT", &port.to_string())
            .replace("ADMIN", &admin.to_string())
            .replace("BINARY", binary().to_str().unwrap());
        let spinfer = tools.join("bin/spinfer");
        fs::write(&spinfer, script).unwrap();
        fs::set_permissions(&spinfer, Permissions::from_mode(0o755)).unwrap();
        fs::write(tools.join(".curlrc"), "silent\nshow-error\n").unwrap();
        create_state_dir(&tools.join("cache/spinfer"));
    }
}

/// Adds the addresses of this test to the commands that have default ones.
const WRAPPER: &str = r#"#!/bin/sh
listen='--listen 127.0.0.1:PORT' admin='--admin 127.0.0.1:ADMIN' address='--address 127.0.0.1:PORT'
for word; do
  case $word in
    --listen*) listen= ;;
    --admin* | --no-admin) admin= ;;
    --address*) address= ;;
  esac
done
case ${1-} in
  up) exec 'BINARY' "$@" $listen $admin ;;
  cache | drift | experiment) exec 'BINARY' "$@" $admin ;;
  health) exec 'BINARY' "$@" $address ;;
  *) exec 'BINARY' "$@" ;;
esac
"#;

/// Copies what the example application is in a clone. Links would not do: the host refuses those that
/// lead out of the application's folder.
fn copy_application(folder: &Path) {
    fs::copy(root().join("spin.toml"), folder.join("spin.toml")).unwrap();
    for part in APPLICATION {
        copy(&root().join(part), &folder.join(part));
    }
    let built = folder.join("target/components/wasm32-wasip2/component");
    fs::create_dir_all(&built).unwrap();
    for entry in fs::read_dir(GUESTS).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            fs::copy(&path, built.join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if !entry.file_type().unwrap().is_dir() {
            fs::copy(entry.path(), target).unwrap();
        } else if !NOT_COPIED.iter().any(|name| entry.file_name() == *name) {
            copy(&entry.path(), &target);
        }
    }
}

fn port_of(registry: &OciRegistry) -> u16 {
    let (_, port) = registry.address().rsplit_once(':').unwrap();
    port.parse().unwrap()
}

/// The port of this test for each port of a page.
struct Ports(BTreeMap<u16, u16>);

impl Ports {
    fn substitute(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.0 {
            for prefix in [":", "-p "] {
                let port = format!("{prefix}{from}");
                let mut parts = text.split(&port);
                let mut replaced = parts.next().unwrap_or_default().to_owned();
                for part in parts {
                    // `:30001` does not contain port 3000.
                    let longer = part.starts_with(|next: char| next.is_ascii_digit());
                    let port = if longer { from } else { to };
                    let _ = write!(replaced, "{prefix}{port}{part}");
                }
                text = replaced;
            }
        }
        text
    }
}

/// The ports of this machine that `text` names: `localhost:3000`, `-p 6379`.
fn named_ports(text: &str) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for before in ["localhost:", "127.0.0.1:", "0.0.0.0:", "[::1]:", "-p "] {
        for part in text.split(before).skip(1) {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            // Port 0 is any free one.
            ports.extend(part[..end].parse().ok().filter(|port: &u16| *port != 0));
        }
    }
    ports
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn ports_of_a_page_are_substituted() {
    let page = "curl localhost:3000/a; curl 127.0.0.1:30001; redis-cli -p 6379; spinfer up --listen [::1]:0";
    assert_eq!(named_ports(page), BTreeSet::from([3000, 6379, 30001]));
    let ports = Ports(BTreeMap::from([(3000, 40000), (6379, 40001), (30001, 40002)]));
    assert_eq!(
        ports.substitute(page),
        "curl localhost:40000/a; curl 127.0.0.1:40002; redis-cli -p 40001; spinfer up --listen [::1]:0"
    );
}
