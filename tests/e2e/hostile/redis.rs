//! What a Redis does to who asks it, and what guests do with stores and with Redis.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use spinfer_benches::process::Process;
use spinfer_tests::{
    FaultScope, FaultyRedis, LARGE_STRING, Launch, Manifest, Redis, RedisFault, Spinfer,
};

/// Guests that use what lies, through every interface; and what they say to it.
pub(super) struct StoresApp {
    manifest: Manifest,
    config: String,
    faulty: Vec<(RedisFault, FaultyRedis)>,
    redis: Redis,
}

/// Something that hurts, if it can.
pub(super) type StoreHarm = Box<dyn Fn(&Spinfer) + Send + Sync>;

/// By path: what is said by outbound Redis, and by stores.
const INTERFACES: [(&str, bool); 5] = [
    ("/new/redis", true),
    ("/older/redis", true),
    ("/new/key-value", false),
    ("/older/key-value", false),
    ("/older/wasi", false),
];

impl StoresApp {
    /// Beside what is in `manifest`.
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
             tool.spinfer.limits.idle = \"100ms\"\n"
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

    /// Each fault once, through one interface after the other, and what guests do to stores.
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

    /// The Redis that does not lie ends in the middle of it all, is back, and answers nothing for a
    /// while.
    pub(super) fn disturb(&mut self) {
        self.redis.restart();
        self.redis.pause();
        let own = self.redis.url();
        drop(TcpStream::connect(own.trim_start_matches("redis://")));
        self.redis.resume();
        self.restart();
    }

    /// What was connected to it is not any more.
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

/// It is an error, or what was answered.
fn send(spinfer: &Spinfer, fault: RedisFault, path: &str, target: &str) {
    let results = run_script(spinfer, path, &[&format!("open {target}"), "get k", "get k"]);
    // All at once, it may be too late to connect.
    let connected = results[0] == "ok";
    assert!(connected || results[0].starts_with("Error::Other("), "{path} {fault:?}: {results:?}");
    for result in results[1..].iter().filter(|_| connected) {
        match fault {
            // A store takes none that is as long.
            RedisFault::LargeString if result == &format!("{LARGE_STRING} bytes") => {}
            // It is no text as Redis has them.
            RedisFault::Flood if result == "Error::TypeError" => {}
            _ => assert!(result.starts_with("Error::Other("), "{path} {fault:?}: {result}"),
        }
    }
}

/// Values of the greatest length, again and again.
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

/// As many entries as may be in a batch, and more.
fn batches(spinfer: &Spinfer, store: &str) {
    let open = format!("open {store}");
    let script = ["many set 10000", "many get 10000", "many get 1000000", "many delete 10000"];
    let results = run_script(spinfer, "/older/wasi", &[&[&*open], &script[..]].concat());
    assert!(results[3].contains("1000000 keys at a time"), "{store}: {results:?}");
    for result in &results[1..] {
        let fine = ["ok", "10000"].contains(&&**result) || result.starts_with("Error::Other(");
        assert!(fine, "{store}: {result}");
    }
}

pub(super) fn up(application: &StoresApp) -> Spinfer {
    let launch = Launch::new(&application.manifest);
    let config = application.config.replace("DIR", launch.folder().to_str().unwrap());
    // A prediction that is kept is no test of who computes.
    launch.runtime_config(&config).uncached().up()
}

/// Many times at once, through every interface: a lie takes no more memory than an answer may, and
/// those all together.
#[test]
fn faulty_redis_does_not_exhaust_memory() {
    /// MiB over what it took before: four answers of 64 MiB in lists and buffers that grow, and the
    /// guests.
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
    let _ = writeln!(std::io::stderr(), "{before:.1} MiB before, {peak:.1} at the most");
    assert!(peak - before <= MAX_MEMORY, "{before} MiB before, then {peak}");
    let lines = ["open memory", "set k v", "get k"];
    assert_eq!(run_script(&spinfer, "/new/key-value", &lines), ["ok", "ok", "v"]);
}
