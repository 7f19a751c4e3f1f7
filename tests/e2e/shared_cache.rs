//! The level of the response cache that nodes share through Redis: servers, clusters, sentinels, purges
//! and outages.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rcgen::{CertificateParams, KeyPair};
use spinfer_tests::{
    FaultScope, FaultyRedis, Launch, Manifest, Redis, RedisCluster, RedisFault, Response, Spinfer,
    wait_until,
};

/// Longer than a busy machine takes.
const PATIENT: &str = "timeout = '1s'";

/// A node with these settings of its response cache.
fn node(settings: &str) -> Spinfer {
    node_in(launch(settings))
}

fn launch(settings: &str) -> Launch {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    Launch::new(&manifest).admin().runtime_config(&format!("[cache]\n{settings}"))
}

fn node_in(launch: Launch) -> Spinfer {
    let node = launch.up();
    // The first cacheable response enables lookups in Redis.
    assert!(!is_hit(&node.post("/cache/first?max-age=60", "")));
    node
}

fn status(response: &Response) -> &str {
    assert_eq!(response.status, 200, "{response:?}");
    response.header("cache-status").unwrap_or_else(|| panic!("no cache-status in {response:?}"))
}

fn is_hit(response: &Response) -> bool {
    status(response).starts_with("spinfer; hit")
}

fn is_shared(response: &Response) -> bool {
    is_hit(response) && status(response).ends_with("detail=redis")
}

/// A path without a cached response.
fn another(counter: &AtomicUsize) -> String {
    format!("/cache/{}?max-age=60", counter.fetch_add(1, Ordering::Relaxed))
}

/// Waits until `b` serves a response that `a` has cached: its path.
fn shares(a: &Spinfer, b: &Spinfer) -> String {
    static PATHS: AtomicUsize = AtomicUsize::new(0);
    let mut shared = None;
    wait_until("a response of one node is served by the other", || {
        let path = another(&PATHS);
        let computed = a.post(&path, "body");
        // It is stored after it is sent; the other node must not compute its own meanwhile.
        let only = [("cache-control", "only-if-cached")];
        shared = (0..10).find_map(|_| {
            let served = b.send("POST", &path, &only, b"body");
            (served.status == 200 && is_shared(&served)).then(|| {
                assert_eq!(served.body, computed.body);
                assert!(served.header("age").is_some());
                path.clone()
            })
        });
        shared.is_some()
    });
    shared.unwrap()
}

#[test]
fn response_cached_on_one_node_is_served_by_others() {
    let redis = Redis::start();
    let settings = format!("redis = '{}'\n{PATIENT}", redis.url());
    let (a, b) = (node(&settings), node(&settings));
    let path = shares(&a, &b);
    // From then on it is in memory too.
    assert!(status(&b.post(&path, "body")).ends_with("detail=memory"));
    // Another body is another cache key.
    assert!(!is_hit(&b.post(&path, "another")));
    // A node whose memory is too small for them serves them from Redis.
    let c = node(&format!("{settings}\nmemory = '64B'"));
    let path = shares(&a, &c);
    wait_until("each request is served from Redis", || {
        (0..3).all(|_| is_shared(&c.post(&path, "body")))
    });
    // only-if-cached includes the Redis.
    let path = shares(&a, &b);
    let only = [("cache-control", "only-if-cached")];
    let c = node(&settings);
    wait_until("the node is connected", || c.send("POST", &path, &only, b"body").status == 200);
    assert_eq!(c.send("POST", &path, &only, b"never sent").status, 504);
}

#[test]
fn response_is_shared_once_a_node_has_computed_it_twice() {
    let redis = Redis::start();
    let settings = format!("redis = '{}'\nadmission = 'second'\n{PATIENT}", redis.url());
    let (a, b) = (node(&settings), node(&settings));
    for node in [&a, &b] {
        node.wait_for_log("connected to Redis");
    }
    let send = |node: &Spinfer| node.post("/cache/a?max-age=60", "body");
    assert!(!is_hit(&send(&a)) && !is_hit(&send(&b)), "the first request on each");
    let second = send(&a);
    assert_eq!(status(&second), "spinfer; fwd=miss; stored");
    wait_until("the response is stored", || redis_has(&redis, &second.body));
    let shared = send(&b);
    assert!(is_shared(&shared) && shared.body == second.body, "{shared:?}");
    // What was found in Redis is in memory too.
    assert!(status(&send(&b)).ends_with("detail=memory"));
}

#[test]
fn variants_by_header_are_shared_separately() {
    let redis = Redis::start();
    let settings = format!("redis = '{}'\n{PATIENT}", redis.url());
    let (a, b) = (node(&settings), node(&settings));
    shares(&a, &b);
    let path = "/cache/vary?max-age=60";
    let send = |node: &Spinfer, value| node.send("POST", path, &[("x-probe", value)], b"");
    // Each node learns the header from its own first response.
    assert!(!is_hit(&send(&a, "0")) && !is_hit(&send(&b, "0")));
    for value in ["1", "2"] {
        let computed = send(&a, value);
        let headers = [("x-probe", value), ("cache-control", "only-if-cached")];
        let mut served = None;
        wait_until("the response is stored", || {
            // Until then it is 504.
            let response = b.send("POST", path, &headers, b"");
            served = Some(response).filter(|response| response.status == 200 && is_hit(response));
            served.is_some()
        });
        assert!(is_shared(served.as_ref().unwrap()), "{served:?}");
        assert_eq!(served.unwrap().body, computed.body);
    }
    assert!(!is_hit(&send(&b, "3")));
}

#[test]
fn nodes_share_responses_through_a_redis_cluster() {
    let cluster = RedisCluster::start();
    let one = cluster.nodes()[1].url();
    let settings = format!("redis = ['{one}']\ncluster = true\n{PATIENT}");
    let (a, b) = (node(&settings), node(&settings));
    // Ten keys are not all on one of three nodes.
    let paths: Vec<_> = (0..10).map(|_| shares(&a, &b)).collect();
    let keys = cluster.nodes().iter().map(|node| node.query::<usize>(&["DBSIZE"]));
    assert!(
        keys.clone().all(|keys| keys < keys_of_all(&cluster)),
        "{:?}",
        keys.collect::<Vec<_>>()
    );
    let owner = cluster.nodes().iter().find(|node| {
        let slot: usize = node.query(&["CLUSTER", "KEYSLOT", "spinfer:generations"]);
        let index = cluster.nodes().iter().position(|n| n.port() == node.port());
        index == Some((slot * 3 + 2) / 16384)
    });
    purge(owner.unwrap(), "everything", 1);
    wait_until("it is purged", || !is_hit(&b.post(&paths[0], "body")));
}

fn keys_of_all(cluster: &RedisCluster) -> usize {
    cluster.nodes().iter().map(|node| node.query::<usize>(&["DBSIZE"])).sum()
}

#[test]
fn sentinels_locate_the_master() {
    let redis = Redis::start();
    let sentinel = redis.sentinel("responses");
    let settings =
        format!("redis = 'redis://responses'\nsentinels = '{}'\n{PATIENT}", sentinel.url());
    shares(&node(&settings), &node(&settings));
}

#[test]
fn tls_with_a_restricted_redis_user_is_supported() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let certificate = file("certificate.pem", &certificate.pem());
    let key = file("key.pem", &key.serialize_pem());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let tls = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    // With only the permissions that the documentation lists.
    let user = "user cache on >hush ~spinfer:* +get +set +exists +hmget +hset +hello +client";
    let user: Vec<_> = user.split(' ').collect();
    let with = [&tls[..], &["--tls-auth-clients", "no"], &["--user"], &user[1..]].concat();
    let redis = Redis::start_with(&with);
    let settings = format!("redis = 'rediss://cache:hush@localhost:{port}'\n{PATIENT}");
    let nodes = [0, 1].map(|_| node_in(launch(&settings).env("SSL_CERT_FILE", &certificate)));
    shares(&nodes[0], &nodes[1]);
    assert!(nodes.iter().all(|node| !node.log().contains("hush")));
    let untrusting = node(&settings);
    untrusting.wait_for_log("responses are cached in memory only");
    assert!(!is_hit(&untrusting.post("/cache/a?max-age=60", "")));
    drop(redis);
}

/// Writes a purge as another node does.
fn purge(redis: &Redis, scope: &str, number: u64) {
    let _: usize = redis.query(&["HSET", "spinfer:generations", scope, &number.to_string()]);
}

#[test]
fn purge_on_one_node_invalidates_all_nodes() {
    let redis = Redis::start();
    let settings = format!("redis = '{}'\n{PATIENT}", redis.url());
    let (a, b) = (node(&settings), node(&settings));
    let path = shares(&a, &b);
    let both = |hit| [&a, &b].iter().all(|node| is_hit(&node.post(&path, "body")) == hit);
    assert!(both(true));
    for (number, scope) in
        [(1, "everything"), (1, "component probe"), (1, "route /..."), (2, "everything")]
    {
        let before = a.post(&path, "body").body;
        purge(&redis, scope, number);
        for node in [&a, &b] {
            wait_until("it is purged", || node.post(&path, "body").body != before);
        }
    }
    // Invalid generations, such as text or a number in the far future, do not prevent later purges.
    for value in ["many", "18446744073709551615"] {
        let _: usize = redis.query(&["HSET", "spinfer:generations", "everything", value]);
        let _: usize = redis.query(&["HSET", "spinfer:generations", "another", value]);
        let before = a.post(&path, "body").body;
        purge(&redis, "component probe", if value == "many" { 2 } else { 3 });
        for node in [&a, &b] {
            wait_until("it is purged", || node.post(&path, "body").body != before);
        }
    }
    purge(&redis, "everything", 3);
    wait_until("it is purged", || !is_hit(&b.post("/cache/first?max-age=60", "")));
    // A purge of another component, and an older one, have no effect.
    let before = b.post(&path, "body").body;
    purge(&redis, "component another", 1);
    purge(&redis, "everything", 1);
    let path_of_another = shares(&a, &b);
    assert_eq!(b.post(&path, "body").body, before);
    // Emptying the Redis purges the memory too.
    let _: String = redis.query(&["FLUSHALL"]);
    wait_until("it is purged", || !is_hit(&b.post(&path_of_another, "body")));
    // And the nodes write the last purges again.
    let generations = || redis.query::<Vec<String>>(&["HGETALL", "spinfer:generations"]);
    wait_until("the last purge is written again", || {
        generations().windows(2).any(|w| w == ["everything", "3"])
    });
}

/// How often a command was called.
fn calls(redis: &Redis, command: &str) -> usize {
    let stats: String = redis.query(&["INFO", "commandstats"]);
    let calls = stats.split(&format!("cmdstat_{command}:calls=")).nth(1);
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}

/// A node reads the purges of others on notification, and twice a second in case that one is lost. What
/// it has read, it has applied before it reads again.
#[test]
fn purged_response_is_not_served_once_the_node_has_read_the_purge() {
    let redis = Redis::start();
    let node = node(&format!("redis = '{}'\n{PATIENT}", redis.url()));
    node.wait_for_log("connected to Redis");
    for number in 1..=20 {
        let path = format!("/cache/{number}?max-age=60");
        wait_until("it is cached", || is_hit(&node.post(&path, "body")));
        purge(&redis, "everything", number);
        // The next read has it, and is applied when there is another.
        let reads = calls(&redis, "hmget");
        wait_until("the node has read it", || calls(&redis, "hmget") >= reads + 2);
        assert!(!is_hit(&node.post(&path, "body")), "{number}");
    }
}

#[test]
fn response_refreshed_on_one_node_is_taken_over_by_others() {
    let redis = Redis::start();
    let settings = format!("redis = '{}'\n{PATIENT}", redis.url());
    let (a, b) = (node(&settings), node(&settings));
    shares(&a, &b);
    let send = |node: &Spinfer| node.post("/cache/again?max-age=3,stale-while-revalidate=600", "");
    let first = send(&a).body;
    wait_until("the response is stored", || redis_has(&redis, &first));
    // Or its own first response, if it has not yet enabled lookups.
    assert!(is_hit(&send(&b)) || send(&b).body != first);
    wait_until("it is refreshed", || send(&a).body != first);
    let second = send(&a).body;
    wait_until("the refreshed response is stored", || redis_has(&redis, &second));
    let before = send(&b);
    assert!(is_hit(&before) && before.body != second, "{before:?}");
    wait_until("it is taken over", || send(&b).body != before.body);
    assert_eq!(send(&b).body, second);
}

/// Whether the Redis has a value with this body.
fn redis_has(redis: &Redis, body: &[u8]) -> bool {
    let keys: Vec<String> = redis.query(&["KEYS", "spinfer:*"]);
    let keys = keys.iter().filter(|key| !key.ends_with("generations"));
    keys.map(|key| redis.query::<Option<Vec<u8>>>(&["GET", key]).unwrap_or_default())
        .any(|value| value.ends_with(body))
}

/// After an outage of the Redis, during which another node has purged: that one reconnects later.
#[test]
fn reconnected_node_serves_nothing_until_purges_of_others_are_known() {
    let mut redis = Redis::start();
    let settings = format!("redis = '{}'\n{PATIENT}", redis.url());
    let (a, b) = (node(&settings), node(&settings));
    let path = shares(&a, &b).replace("=60", "=600");
    let (computed, only) = (b.post(&path, "body").body, [("cache-control", "only-if-cached")]);
    let served = || {
        let response = b.send("POST", &path, &only, b"body");
        (response.status == 200).then_some(response.body)
    };
    assert_eq!(served(), Some(computed));
    redis.kill();
    wait_until("it is too old for a node without purges of others", || served().is_none());
    assert!(a.admin().send("DELETE", "/cache", &[], b"").text().contains("pending"));
    signal(&a, "-STOP");
    redis.restart();
    // It reads the generations at its start, and once more.
    wait_until("the node has reconnected", || calls(&redis, "hmget") >= 2);
    assert_eq!(served(), None, "it may have been purged");
    signal(&a, "-CONT");
    let written = || redis.query::<Option<String>>(&["HGET", "spinfer:generations", "everything"]);
    wait_until("the purge is written", || written().is_some_and(|number| number != "0"));
    assert_eq!(served(), None, "it was purged");
}

fn signal(spinfer: &Spinfer, signal: &str) {
    let id = spinfer.id().to_string();
    assert!(std::process::Command::new("kill").args([signal, &id]).status().unwrap().success());
}

#[test]
fn foreign_redis_values_are_ignored() {
    let redis = Redis::start();
    let settings = format!("redis = '{}'\n{PATIENT}", redis.url());
    let (a, b) = (node(&settings), node(&settings));
    let paths: Vec<_> = (0..4).map(|_| shares(&a, &b)).collect();
    // Text, a damaged value, a list, and the value of another key.
    let keys: Vec<String> = redis.query(&["KEYS", "spinfer:*"]);
    assert!(keys.len() >= paths.len(), "{keys:?}");
    for (index, key) in keys.iter().enumerate() {
        match index % 4 {
            0 => drop(redis.query::<String>(&["SET", key, "a foreign value"])),
            1 => drop(redis.query::<usize>(&["SETRANGE", key, "40", "?"])),
            2 => {
                let _: usize = redis.query(&["DEL", key]);
                let _: usize = redis.query(&["LPUSH", key, "1"]);
            }
            _ => {
                let of_another = &keys[(index + 1) % keys.len()];
                assert_eq!(redis.query::<usize>(&["COPY", of_another, key, "REPLACE"]), 1);
            }
        }
    }
    let c = node(&settings);
    c.wait_for_log("connected to Redis");
    for path in &paths {
        assert!(!is_hit(&c.post(path, "body")), "{path}");
    }
    shares(&a, &c);
    assert!(!c.log().contains("disconnected from Redis"), "{}", c.log());
}

#[test]
fn redis_outages_do_not_affect_clients() {
    let mut redis = Redis::start();
    // Every second path is requested once.
    let settings = format!("redis = '{}'\nadmission = 'first'", redis.url());
    let node = node(&settings);
    let stop = AtomicBool::new(false);
    let (requests, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let more = |count: &AtomicUsize| {
        let before = count.load(Ordering::Relaxed);
        wait_until("clients are served", || count.load(Ordering::Relaxed) > before + 50);
    };
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (node, stop, requests, hits) = (&node, &stop, &requests, &hits);
            scope.spawn(move || {
                let connection = node.client();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // Every second path is new.
                    let path = match number % 2 {
                        0 => format!("/cache/{client}/{number}?max-age=60"),
                        _ => format!("/cache/{client}/{}?max-age=60", number % 16),
                    };
                    let response = connection.send("POST", &path, &[], b"");
                    hits.fetch_add(is_hit(&response).into(), Ordering::Relaxed);
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // On a busy machine a timeout has the same effect as an outage.
        let is_looked_up = || {
            let times = |output| node.log().matches(output).count();
            times("connected to Redis") > times("disconnected from Redis")
        };
        let breaks = || {
            wait_until("the node stops its lookups", || !is_looked_up());
            more(&requests);
            more(&hits);
        };
        let back = |redis: &Redis| {
            wait_until("the node resumes its lookups", is_looked_up);
            let stored = || redis.query::<usize>(&["DBSIZE"]);
            let before = stored();
            wait_until("responses are stored again", || stored() > before + 10);
        };
        back(&redis);
        redis.pause();
        breaks();
        redis.resume();
        back(&redis);
        redis.kill();
        breaks();
        redis.restart();
        back(&redis);
        // A full Redis still serves its values.
        let _: String = redis.query(&["CONFIG", "SET", "maxmemory", "1"]);
        let refused = || redis.query::<String>(&["INFO", "errorstats"]).contains("errorstat_OOM");
        wait_until("a store is refused", refused);
        more(&requests);
        let _: String = redis.query(&["CONFIG", "SET", "maxmemory", "0"]);
        back(&redis);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn without_redis_responses_are_cached_in_memory_briefly() {
    let mut redis = Redis::start();
    let node = node(&format!("redis = '{}'\n{PATIENT}", redis.url()));
    node.wait_for_log("connected to Redis");
    let path = "/cache/a?max-age=600";
    let first = node.post(path, "").body;
    assert!(is_hit(&node.post(path, "")));
    redis.kill();
    node.wait_for_log("purges of other nodes are not received");
    // Another node may have purged it.
    wait_until("it is computed again", || node.post(path, "").body != first);
    assert!(is_hit(&node.post(path, "")));
}

#[test]
fn faulty_redis_greeting_falls_back_to_memory() {
    for reply in
        [&b"+OK\r\n"[..], b"$-7\r\n", b"*2147483647\r\n", b"\xff\xfe\r\n", b"HTTP/1.1 400\r\n\r\n"]
    {
        let redis = FaultyRedis::start(RedisFault::Bytes(reply), FaultScope::Everything);
        let node = node(&format!("redis = '{}'", redis.url()));
        node.wait_for_log("responses are cached in memory only");
        for _ in 0..3 {
            let path = "/cache/a?max-age=60";
            assert_eq!(node.post(path, "").body, node.post(path, "").body);
        }
    }
}
