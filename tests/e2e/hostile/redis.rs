//! What a Redis does to who asks it, and what guests do with stores and with Redis.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use spinfer_benches::process::Process;
use spinfer_tests::{Launch, Manifest, Redis, Spinfer};

/// What is answered to a command, by a server that knows how to greet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Nothing.
    Silence,
    /// A byte now and then.
    Trickle,
    /// The end of the connection.
    Goodbye,
    Garbage,
    /// Two answers to one command, without end.
    Flood,
    /// A list of very many small values, said before or not.
    Values,
    ManyLists,
    /// A text of 2 GB, said before or not.
    Text,
    Line,
    /// As much as may be.
    Large,
}

pub(super) const LIES: [Lie; 10] = [
    Lie::Silence,
    Lie::Trickle,
    Lie::Goodbye,
    Lie::Garbage,
    Lie::Flood,
    Lie::Values,
    Lie::ManyLists,
    Lie::Text,
    Lie::Line,
    Lie::Large,
];

/// The most there is in an answer of one text that is taken.
const LARGE: usize = 33_000_000;
/// Between two bytes of one that trickles: less than a command may take.
const DRIP: Duration = Duration::from_millis(100);

/// A server of one lie, for as long as the test runs.
pub(super) fn lying(lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // An error is the client's end.
            thread::spawn(move || serve(stream, lie));
        }
    });
    address
}

fn serve(mut stream: TcpStream, lie: Lie) -> std::io::Result<()> {
    let (mut run_script, mut part) = (Vec::new(), [0; 65536]);
    loop {
        let read = stream.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        run_script.extend(&part[..read]);
        // The two commands of a greeting; whatever comes later is what it lies to.
        let greetings = run_script.windows(7).filter(|word| word == b"SETINFO").count();
        if greetings == 2 && run_script.ends_with(b"\r\n") {
            break;
        }
    }
    stream.write_all(b"+OK\r\n+OK\r\n")?;
    while stream.read(&mut part)? > 0 {
        tell(&mut stream, lie)?;
        // One that was true is kept no longer than the others.
        if matches!(lie, Lie::Goodbye | Lie::Large) {
            return Ok(());
        }
    }
    Ok(())
}

pub(super) fn tell(stream: &mut TcpStream, lie: Lie) -> std::io::Result<()> {
    let mut endless = |beginning: &str, part: &[u8]| -> std::io::Result<()> {
        stream.write_all(beginning.as_bytes())?;
        let part = part.repeat(65536 / part.len());
        loop {
            stream.write_all(&part)?;
        }
    };
    match lie {
        Lie::Silence | Lie::Goodbye => Ok(()),
        Lie::Trickle => {
            stream.write_all(b"$100000\r\n")?;
            loop {
                thread::sleep(DRIP);
                stream.write_all(b"a")?;
            }
        }
        Lie::Garbage => stream.write_all(b"\0\xff HTTP/1.1 400 Bad Request\r\n\r\n"),
        Lie::Flood => endless("", b"+a\r\n"),
        Lie::Values => endless("*100000000\r\n", b":1\r\n"),
        Lie::ManyLists => endless("*300000\r\n", b"*100\r\n"),
        Lie::Text => endless("$2000000000\r\n", b"a"),
        Lie::Line => endless("+", b"a"),
        Lie::Large => {
            stream.write_all(format!("${LARGE}\r\n").as_bytes())?;
            stream.write_all(&vec![b'a'; LARGE])?;
            stream.write_all(b"\r\n")
        }
    }
}

/// Guests that use what lies, through every interface; and what they say to it.
pub(super) struct StoresApp {
    manifest: Manifest,
    config: String,
    lies: Vec<(Lie, SocketAddr)>,
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
        let lies: Vec<_> = LIES.iter().map(|lie| (*lie, lying(*lie))).collect();
        let mut config = format!(
            "[key_value_store.default]\ntype = \"spin\"\npath = \"DIR/kv.db\"\n\
             [key_value_store.memory]\ntype = \"memory\"\n\
             [key_value_store.redis]\ntype = \"redis\"\nurl = \"{}\"\n",
            redis.url()
        );
        let mut labels = "\"default\", \"memory\", \"redis\"".to_owned();
        for (lie, address) in &lies {
            let label = label(*lie);
            labels += &format!(", \"{label}\"");
            config += &format!(
                "[key_value_store.{label}]\ntype = \"redis\"\nurl = \"redis://{address}\"\n"
            );
        }
        let settings = format!(
            "key_value_stores = [{labels}]\nallowed_outbound_hosts = [\"redis://127.0.0.1:*\"]\n\
             tool.spinfer.limits.idle = \"100ms\"\n"
        );
        let manifest = manifest.with("/new/...", "new", "stores", &settings);
        let manifest = manifest.with("/older/...", "older", "stores_older", &settings);
        Self { manifest, config, lies, redis }
    }

    /// What a Redis does by lies: each, asked by every interface.
    pub(super) fn lies(&self) -> Vec<StoreHarm> {
        let asked = |(lie, address): &(Lie, SocketAddr)| {
            let (lie, address) = (*lie, *address);
            INTERFACES.map(|(path, outbound)| -> StoreHarm {
                let place = if outbound { format!("redis://{address}") } else { label(lie) };
                Box::new(move |spinfer| send(spinfer, lie, path, &place))
            })
        };
        self.lies.iter().flat_map(asked).collect()
    }

    /// Each lie once, by one interface after the other, and what guests do to stores.
    pub(super) fn harms(&self) -> Vec<StoreHarm> {
        let turns = (0..LIES.len()).map(|lie| lie * INTERFACES.len() + lie % INTERFACES.len());
        let turns: Vec<_> = turns.collect();
        let lies = self.lies().into_iter().enumerate();
        let lies = lies.filter(|(index, _)| turns.contains(index)).map(|(_, lie)| lie);
        let stores = ["memory", "default", "redis"];
        let paths = ["/new/key-value", "/older/key-value", "/older/wasi"];
        let fills = paths.into_iter().zip(stores).map(|(path, store)| -> StoreHarm {
            Box::new(move |spinfer| fill(spinfer, path, store))
        });
        let batches =
            stores.map(|store| -> StoreHarm { Box::new(move |spinfer| batches(spinfer, store)) });
        lies.chain(fills).chain(batches).collect()
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

fn label(lie: Lie) -> String {
    format!("{lie:?}").to_lowercase()
}

fn run_script(spinfer: &Spinfer, path: &str, script: &[&str]) -> Vec<String> {
    let response = spinfer.post(path, script.join("\n"));
    let start: String = response.text().chars().take(300).collect();
    assert_eq!(response.status, 200, "{path} {script:?}: {start}");
    response.text().lines().map(str::to_owned).collect()
}

/// It is an error, or what was answered.
fn send(spinfer: &Spinfer, lie: Lie, path: &str, place: &str) {
    let results = run_script(spinfer, path, &[&format!("open {place}"), "get k", "get k"]);
    // All at once, it may be too late to connect.
    let connected = results[0] == "ok";
    assert!(connected || results[0].starts_with("Error::Other("), "{path} {lie:?}: {results:?}");
    for result in results[1..].iter().filter(|_| connected) {
        match lie {
            // A store takes none that is as long.
            Lie::Large if result == &format!("{LARGE} bytes") => {}
            // It is no text as Redis has them.
            Lie::Flood if result == "Error::TypeError" => {}
            _ => assert!(result.starts_with("Error::Other("), "{path} {lie:?}: {result}"),
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
    let lies = application.lies();
    thread::scope(|scope| {
        for lie in lies.iter().cycle().take(4 * lies.len()) {
            scope.spawn(|| lie(&spinfer));
        }
    });
    let peak = process.peak().unwrap();
    let _ = writeln!(std::io::stderr(), "{before:.1} MiB before, {peak:.1} at the most");
    assert!(peak - before <= MAX_MEMORY, "{before} MiB before, then {peak}");
    let lines = ["open memory", "set k v", "get k"];
    assert_eq!(run_script(&spinfer, "/new/key-value", &lines), ["ok", "ok", "v"]);
}
