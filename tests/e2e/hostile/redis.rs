//! A faulty Redis behind outbound Redis and key-value stores, and guests that fill stores.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use spinfer_benches::process::Process;
use spinfer_tests::{
    FaultScope, FaultyRedis, LARGE_STRING, Launch, Manifest, Redis, RedisFault, Spinfer,
};

/// An application of guests that use faulty servers, and stores of every type, through every interface.
pub(super) struct StoresApp {
    manifest: Manifest,
    config: String,
    faulty: Vec<(RedisFault, FaultyRedis)>,
    redis: Redis,
}

/// One kind of harm, with its check.
pub(super) type StoreHarm = Box<dyn Fn(&Spinfer) + Send + Sync>;

/// Deadline of a script: those that move hundreds of megabytes take 30 seconds among the other harms on a busy
/// machine.
const SCRIPT_DEADLINE: &str = "55s";

/// The paths of the interfaces, and whether each is outbound Redis.
const INTERFACES: [(&str, bool); 5] = [
    ("/new/redis", true),
    ("/older/redis", true),
    ("/new/key-value", false),
    ("/older/key-value", false),
    ("/older/wasi", false),
];

impl StoresApp {
    /// Adds the guests to `manifest`.
    pub(super) fn beside(manifest: Manifest) -> Self {
        let redis = Redis::start();
        let faulty =
            RedisFault::ALL.map(|fault| (fault, FaultyRedis::start(fault, FaultScope::Commands)));
        let mut config = format!(
            "[key_value_store.default]\ntype = \"spin\"\npath = \"DIR/kv.db\"\n\
             [key_value_store.memory]\ntype = \"memory\"\n\
             [key_value_store.redis]\ntype = \"redis\"\nurl = \"{}\"\n",
            redis.url()
        );
        let mut labels = "\"default\", \"memory\", \"redis\"".to_owned();
        for (fault, server) in &faulty {
            let (label, url) = (label(*fault), server.url());
            labels += &format!(", \"{label}\"");
            config += &format!("[key_value_store.{label}]\ntype = \"redis\"\nurl = \"{url}\"\n");
        }
        let settings = format!(
            "key_value_stores = [{labels}]\nallowed_outbound_hosts = [\"redis://127.0.0.1:*\"]\n\
             tool.spinfer.limits.idle = \"100ms\"\n\
             tool.spinfer.limits.deadline = \"{SCRIPT_DEADLINE}\"\n"
        );
        let manifest = manifest.with("/new/...", "new", "stores", &settings);
        let manifest = manifest.with("/older/...", "older", "stores_older", &settings);
        Self { manifest, config, faulty: faulty.into(), redis }
    }

    /// Every fault of a Redis, through every interface.
    pub(super) fn faults(&self) -> Vec<StoreHarm> {
        let each = |(fault, server): &(RedisFault, FaultyRedis)| {
            let (fault, server) = (*fault, *server);
            INTERFACES.map(|(path, outbound)| -> StoreHarm {
                let target = if outbound { server.url() } else { label(fault) };
                Box::new(move |spinfer| send(spinfer, fault, path, &target))
            })
        };
        self.faulty.iter().flat_map(each).collect()
    }

    /// Each fault once, through the interfaces in turn, and harm to stores.
    pub(super) fn harms(&self) -> Vec<StoreHarm> {
        let turns = (0..RedisFault::ALL.len())
            .map(|fault| fault * INTERFACES.len() + fault % INTERFACES.len());
        let turns: Vec<_> = turns.collect();
        let faults = self.faults().into_iter().enumerate();
        let faults = faults.filter(|(index, _)| turns.contains(index)).map(|(_, fault)| fault);
        let stores = ["memory", "default", "redis"];
        let paths = ["/new/key-value", "/older/key-value", "/older/wasi"];
        let fills = paths.into_iter().zip(stores).map(|(path, store)| -> StoreHarm {
            Box::new(move |spinfer| fill(spinfer, path, store))
        });
        let batches =
            stores.map(|store| -> StoreHarm { Box::new(move |spinfer| batches(spinfer, store)) });
        faults.chain(fills).chain(batches).collect()
    }

    /// Restarts, pauses and restarts the Redis without faults.
    pub(super) fn disturb(&mut self) {
        self.redis.restart();
        self.redis.pause();
        let own = self.redis.url();
        drop(TcpStream::connect(own.trim_start_matches("redis://")));
        self.redis.resume();
        self.restart();
    }

    /// Restarts it, which closes its connections.
    pub(super) fn restart(&mut self) {
        self.redis.restart();
    }
}

fn label(fault: RedisFault) -> String {
    format!("{fault:?}").to_lowercase()
}

fn run_script(spinfer: &Spinfer, path: &str, script: &[&str]) -> Vec<String> {
    let response = spinfer.post(path, script.join("\n"));
    let start: String = response.text().chars().take(300).collect();
    assert_eq!(response.status, 200, "{path} {script:?}: {start}");
    response.text().lines().map(str::to_owned).collect()
}

/// Sends commands to a faulty server: they fail, or return the faulty reply.
fn send(spinfer: &Spinfer, fault: RedisFault, path: &str, target: &str) {
    let results = run_script(spinfer, path, &[&format!("open {target}"), "get k", "get k"]);
    // Under load, the connection may time out.
    let connected = results[0] == "ok";
    assert!(connected || results[0].starts_with("Error::Other("), "{path} {fault:?}: {results:?}");
    for result in results[1..].iter().filter(|_| connected) {
        match fault {
            // Outbound Redis accepts it; it is too long for a store.
            RedisFault::LargeString if result == &format!("{LARGE_STRING} bytes") => {}
            // A simple string is not a bulk string.
            RedisFault::Flood if result == "Error::TypeError" => {}
            _ => assert!(result.starts_with("Error::Other("), "{path} {fault:?}: {result}"),
        }
    }
}

/// Writes and reads values of the maximum length.
fn fill(spinfer: &Spinfer, path: &str, store: &str) {
    let open = format!("open {store}");
    let script = ["fill k 16777216", "get k", "fill k 17000000", "count"].repeat(3);
    let results = run_script(spinfer, path, &[&[&*open], &script[..]].concat());
    for result in &results[2..] {
        let fine = ["ok", "none", "16777216 bytes"].contains(&&**result)
            || result.starts_with("Error::Other(")
            || result.chars().next().is_some_and(|first| first.is_ascii_digit());
        assert!(fine, "{path} {store}: {result}");
    }
    run_script(spinfer, path, &[&open, "delete k"]);
}

/// Batches with the maximum number of entries, and more.
fn batches(spinfer: &Spinfer, store: &str) {
    let open = format!("open {store}");
    let script = ["many set 10000", "many get 10000", "many get 1000000", "many delete 10000"];
    let results = run_script(spinfer, "/older/wasi", &[&[&*open], &script[..]].concat());
    assert!(results[3].contains("1000000 keys in a batch"), "{store}: {results:?}");
    for result in &results[1..] {
        let fine = ["ok", "10000"].contains(&&**result) || result.starts_with("Error::Other(");
        assert!(fine, "{store}: {result}");
    }
}

pub(super) fn up(application: &StoresApp) -> Spinfer {
    let launch = Launch::new(&application.manifest);
    let config = application.config.replace("DIR", launch.folder().to_str().unwrap());
    // Cached predictions would not show how long they take to compute.
    launch.runtime_config(&config).uncached().up()
}

/// Concurrent commands through every interface: memory is bounded for one reply, and for all of them.
#[test]
fn faulty_redis_does_not_exhaust_memory() {
    /// Growth of resident memory, in MiB: four replies of 64 MiB in growing buffers, and the guests.
    const MAX_MEMORY: f64 = 500.0;
    let application = StoresApp::beside(Manifest::default());
    let spinfer = up(&application);
    let process = Process(spinfer.id());
    let before = process.resident().unwrap().total();
    let faults = application.faults();
    thread::scope(|scope| {
        for fault in faults.iter().cycle().take(4 * faults.len()) {
            scope.spawn(|| fault(&spinfer));
        }
    });
    let peak = process.peak().unwrap();
    let _ = writeln!(std::io::stderr(), "{before:.1} MiB before, {peak:.1} at peak");
    assert!(peak - before <= MAX_MEMORY, "{before} MiB before, then {peak}");
    let lines = ["open memory", "set k v", "get k"];
    assert_eq!(run_script(&spinfer, "/new/key-value", &lines), ["ok", "ok", "v"]);
}
