//! The sink in Redis, and `spinfer log --redis`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use spinfer_tests::{Redis, RedisCluster, binary, run, wait_until};

use super::{App, degraded, predict, sink, wait_for, wait_until_delivered, wait_until_written};

const STREAM: &str = "spinfer:predictions";

fn app(redis: &Redis) -> App {
    App::new(&settings(&redis.url()))
}

fn settings(url: &str) -> String {
    format!("[[prediction_log.sinks]]\ntype = 'redis'\nname = 'stream'\nurl = '{url}'\n")
}

/// The ids of the entries of the stream, in order.
fn ids(redis: &Redis) -> Vec<String> {
    let entries: Vec<(String, Vec<String>)> = redis.query(&["XRANGE", STREAM, "-", "+"]);
    let id = |fields: Vec<String>| {
        let at = fields.iter().position(|field| field == "id").unwrap();
        fields[at + 1].clone()
    };
    entries.into_iter().map(|(_, fields)| id(fields)).collect()
}

/// Runs `spinfer log`.
fn log(arguments: &[&str]) -> String {
    let (status, text) = run(&[&["log"], arguments].concat());
    assert!(status.success(), "{arguments:?}: {text}");
    text
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn stream_that_is_down_or_hangs_receives_everything_once_and_in_order() {
    let mut redis = Redis::start();
    redis.kill();
    let app = app(&redis);
    let spinfer = app.up();
    let mut sent = predict(&spinfer, 50);
    wait_until("it is reported", || !degraded(&spinfer).is_empty());
    assert!(!degraded(&spinfer)[0].contains(&redis.port().to_string()), "no address");
    redis.restart();
    wait_until_delivered(&spinfer, "stream", 50);
    assert_eq!(ids(&redis), sent);
    // The script is sent, and executed when the process goes on: its reply is lost.
    redis.pause();
    sent.extend(predict(&spinfer, 50));
    let retries = sink(&spinfer, "stream", "retries").as_u64().unwrap();
    wait_until("the reply times out", || {
        sink(&spinfer, "stream", "retries").as_u64().unwrap() > retries
    });
    redis.resume();
    wait_until_delivered(&spinfer, "stream", 100);
    assert_eq!(ids(&redis), sent, "none twice");
    let idle = sink(&spinfer, "stream", "lag_seconds");
    assert_eq!((idle, sink(&spinfer, "stream", "delivered")), (json!(0.0), json!(100)));
}

#[test]
fn host_that_is_killed_adds_nothing_twice() {
    let redis = Redis::start();
    let app = app(&redis);
    let mut sent = Vec::new();
    for _ in 0..5 {
        let spinfer = app.up();
        sent.extend(predict(&spinfer, 40));
        wait_until_written(&spinfer, 40);
        // SIGKILL, at any moment of a delivery.
        drop(spinfer);
    }
    let spinfer = app.up();
    sent.extend(predict(&spinfer, 1));
    wait_until_delivered(&spinfer, "stream", 1);
    wait_until("all are there", || ids(&redis).len() >= sent.len());
    assert_eq!(ids(&redis), sent);
}

#[test]
fn log_of_two_hosts_is_read_from_one_redis() {
    let redis = Redis::start();
    let url = redis.url();
    let (one, two) = (app(&redis), app(&redis));
    let (first, second) = (one.up(), two.up());
    let mut sent = predict(&first, 3);
    sent.extend(predict(&second, 4));
    let item = json!({ "prediction_id": sent[0], "label": "setosa" });
    assert_eq!(first.post("/v2/feedback", item.to_string()).json()["accepted"], 1);
    wait_until_delivered(&first, "stream", 3);
    wait_until_delivered(&second, "stream", 4);
    wait_until("all are there", || ids(&redis).len() == 8);

    let stats: Value = serde_json::from_str(&log(&["stats", "--json", "--redis", &url])).unwrap();
    assert_eq!(
        (&stats["records"], &stats["path"]),
        (&json!(7), &json!("stream spinfer:predictions"))
    );
    assert_eq!(stats["groups"][0]["quality"]["classification"]["accuracy"], 1.0);
    let show = log(&["show", &sent[0], "--redis", &url]);
    assert!(show.contains(r#""label": "setosa""#), "{show}");
    let exported = json_lines(&log(&["export", "-o", "-", "--redis", &url]));
    let mut all: Vec<_> = exported.iter().map(|line| line["id"].as_str().unwrap()).collect();
    all.sort_unstable();
    sent.sort_unstable();
    assert_eq!(all, sent);
    assert_eq!(exported.iter().filter(|line| line["feedback"]["label"] == "setosa").count(), 1);
    // What a host has in its file is what the other reads from Redis.
    let own = json_lines(&log(&[
        "export",
        "-o",
        "-",
        "--from",
        one.state.path().to_str().unwrap(),
        "--state-dir",
        one.state.path().to_str().unwrap(),
    ]));
    assert!(own.len() == 3 && own.iter().all(|record| exported.contains(record)), "{own:?}");
    let last = json_lines(&log(&["tail", "-n", "2", "--redis", &url]));
    assert_eq!(last.len(), 2);

    // A duplicate, as after a failover, and something else.
    let entries: Vec<(String, Vec<String>)> = redis.query(&["XRANGE", STREAM, "-", "+"]);
    let fields: Vec<_> = entries[0].1.iter().map(String::as_str).collect();
    let _: String = redis.query(&[&["XADD", STREAM, "*"], &fields[..]].concat());
    let again = json_lines(&log(&["export", "-o", "-", "--redis", &url]));
    assert_eq!(again.len(), 7, "the duplicate is dropped");
    let foreign: String = redis.query(&["XADD", STREAM, "*", "kind", "record", "id", "nonsense"]);
    let (status, text) = run(&["log", "stats", "--redis", &url]);
    assert!(
        !status.success() && text.contains(&format!("entry {foreign} of the stream: field `id`")),
        "{text}"
    );
    let text = log(&["tail", "--redis", &url]);
    assert!(text.contains(&format!("skipped: entry {foreign}")), "{text}");
    assert_eq!(json_lines(&text).len(), 7, "{text}");
}

/// `spinfer log tail --follow`, killed on drop.
struct Tail {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Tail {
    fn start(url: &str, more: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["log", "tail", "--follow", "--redis", url])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next `count` lines.
    fn next(&mut self, count: usize) -> Vec<Value> {
        let lines = (0..count).map(|_| {
            let mut line = String::new();
            self.lines.read_line(&mut line).unwrap();
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
        });
        lines.collect()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn followed_stream_prints_records_and_feedback() {
    let redis = Redis::start();
    let app = app(&redis);
    let spinfer = app.up();
    let first = predict(&spinfer, 2);
    wait_until_delivered(&spinfer, "stream", 2);
    let mut tail = Tail::start(&redis.url(), &["-n", "1"]);
    assert_eq!(tail.next(1)[0]["id"], first[1]);
    let new = predict(&spinfer, 1);
    assert_eq!(tail.next(1)[0]["id"], new[0]);
    let item = json!({ "prediction_id": new[0], "reward": 0.5 });
    assert_eq!(spinfer.post("/v2/feedback", item.to_string()).status, 200);
    let feedback = &tail.next(1)[0];
    assert_eq!((&feedback["prediction_id"], &feedback["reward"]), (&json!(new[0]), &json!(0.5)));
}

#[test]
fn consumer_group_shares_entries_and_takes_those_of_a_dead_reader() {
    let redis = Redis::start();
    let app = app(&redis);
    let spinfer = app.up();
    let sent = predict(&spinfer, 6);
    wait_until_delivered(&spinfer, "stream", 6);
    wait_until("all are there", || ids(&redis).len() == 6);
    // A reader takes two entries and dies. Their idle time is then set to a minute.
    let _: String = redis.query(&["XGROUP", "CREATE", STREAM, "loaders", "0"]);
    let _: redis::Value = redis.query(&[
        "XREADGROUP",
        "GROUP",
        "loaders",
        "dead",
        "COUNT",
        "2",
        "STREAMS",
        STREAM,
        ">",
    ]);
    let entries: Vec<(String, Vec<String>)> = redis.query(&["XRANGE", STREAM, "-", "+"]);
    for (entry, _) in &entries[..2] {
        let _: redis::Value =
            redis.query(&["XCLAIM", STREAM, "loaders", "dead", "0", entry, "IDLE", "60000"]);
    }
    let _: String = redis.query(&["XADD", STREAM, "*", "foreign", "entry"]);
    let mut tail = Tail::start(&redis.url(), &["--group", "loaders"]);
    let printed: Vec<_> = tail.next(6).iter().map(|line| line["id"].clone()).collect();
    assert_eq!(printed, sent, "the abandoned ones first");
    let pending = || {
        let (count, ..): (u64, redis::Value, redis::Value, redis::Value) =
            redis.query(&["XPENDING", STREAM, "loaders"]);
        count
    };
    wait_until("all are acknowledged, the foreign one too", || pending() == 0);
    // Another reader continues where the first one was.
    drop(tail);
    let mut other = Tail::start(&redis.url(), &["--group", "loaders"]);
    let new = predict(&spinfer, 3);
    let printed: Vec<_> = other.next(3).iter().map(|line| line["id"].clone()).collect();
    assert_eq!(printed, new);
}

#[test]
fn cluster_has_the_stream_and_its_marks_on_one_node() {
    let cluster = RedisCluster::start();
    let url = cluster.nodes()[0].url();
    let app = App::new(&format!("{}cluster = true\n", settings(&url)));
    let config = app.path("runtime-config.toml");
    std::fs::write(&config, &app.sinks).unwrap();
    let spinfer = app.up();
    let mut sent = predict(&spinfer, 10);
    // As the export is.
    sent.sort_unstable();
    wait_until_delivered(&spinfer, "stream", 10);
    let config = config.to_str().unwrap();
    let arguments = ["export", "-o", "-", "--redis", "stream", "--runtime-config-file", config];
    let exported = json_lines(&log(&arguments));
    let all: Vec<_> = exported.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(all, sent);
}

#[test]
fn stream_of_another_type_is_reported_and_the_rest_is_unaffected() {
    let redis = Redis::start();
    let _: String = redis.query(&["SET", STREAM, "text"]);
    let app = app(&redis);
    let spinfer = app.up();
    predict(&spinfer, 3);
    wait_until_written(&spinfer, 3);
    wait_until("it is reported", || {
        degraded(&spinfer).iter().any(|problem| problem.contains("WRONGTYPE"))
    });
    let (status, text) = run(&["log", "stats", "--redis", &redis.url()]);
    assert!(!status.success() && text.contains("is a string, not a stream"), "{text}");
    let _: u64 = redis.query(&["DEL", STREAM]);
    wait_for(&spinfer, "stream", "pending", 0);
    assert_eq!(ids(&redis).len(), 3);
}

#[test]
fn redis_users_of_sink_and_reader_have_exactly_the_documented_permissions() {
    let redis = Redis::start();
    let user = |name: &str, keys: &[&str], commands: &str| {
        let commands: Vec<_> = commands.split(' ').map(|name| format!("+{name}")).collect();
        let commands: Vec<_> = commands.iter().map(String::as_str).collect();
        let head = ["ACL", "SETUSER", name, "on", ">secret", "resetchannels", "-@all"];
        let ok: String = redis.query(&[&head[..], keys, &commands].concat());
        assert_eq!(ok, "OK");
        format!("redis://{name}:secret@127.0.0.1:{}", redis.port())
    };
    let stream = format!("~{STREAM}");
    let marks = format!("~{{{STREAM}}}:producer:*");
    let writer = user("sink", &[&stream, &marks], "eval xadd get set hello client");
    let reader = user("reader", &[&stream], "type xrange xrevrange hello client");
    let member = user("member", &[&stream], "type xgroup xreadgroup xautoclaim xack hello client");
    let app = App::new(&settings(&writer));
    let spinfer = app.up();
    let sent = predict(&spinfer, 3);
    wait_for(&spinfer, "stream", "delivered", 3);
    assert_eq!(ids(&redis), sent);
    assert_eq!(json_lines(&log(&["tail", "--redis", &reader])).len(), 3);
    assert_eq!(json_lines(&log(&["export", "-o", "-", "--redis", &reader])).len(), 3);
    assert_eq!(Tail::start(&member, &["--group", "loaders"]).next(3).len(), 3);
    let denied: Vec<redis::Value> = redis.query(&["ACL", "LOG"]);
    assert!(denied.is_empty(), "{denied:?}");
}
