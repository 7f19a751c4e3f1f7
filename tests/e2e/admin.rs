//! The admin plane: its endpoints, their authentication, and purges of the response cache.

use std::io::{Read, Write};
use std::net::TcpStream;

use spinfer_tests::{
    Launch, Manifest, PATIENCE, Redis, Response, STANDARD_DOOR, Spinfer, root, run, run_in,
    wait_until,
};

use super::metrics::{BATCH, DRIFT, EXPERIMENTS, check_against_table, iris_with, metric};

pub(crate) const FEATURES: &str = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;

pub(crate) fn probe(settings: &str) -> Spinfer {
    Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).admin().up()
}

fn delete(spinfer: &Spinfer, path: &str) -> Response {
    spinfer.admin().send("DELETE", path, &[], b"")
}

/// Whether the response is from the cache.
fn is_hit(response: &Response) -> bool {
    response.header("cache-status").is_some_and(|status| status.starts_with("spinfer; hit"))
}

#[test]
fn purge_invalidates_only_the_selected_responses() {
    let manifest = Manifest::default()
        .with_iris("iris-1", 1, "/one/...", "")
        .with("/cache/two/...", "probe", "probe", "")
        .and("[[trigger.http]]\nroute = \"/cache/three/...\"\ncomponent = \"probe\"\n");
    let dir = iris_with("cache_seconds = 600\n");
    let text = manifest.text().replace(
        &root().join("models/iris-classifier/1").display().to_string(),
        &dir.path().display().to_string(),
    );
    let spinfer = Launch::from_text(&text).admin().up();
    let send = || {
        let iris = spinfer.post("/one/v2/models/iris-classifier/predict", FEATURES);
        let paths = ["/cache/two/a?max-age=60", "/cache/three/a?max-age=60"];
        let [two, three] = paths.map(|path| spinfer.get(path));
        [iris, two, three].map(|response| {
            assert_eq!(response.status, 200, "{response:?}");
            is_hit(&response)
        })
    };
    assert_eq!((send(), send()), ([false; 3], [true; 3]));
    let address = spinfer.admin_address().to_string();
    for (query, flags, cached) in [
        ("", &["--all"][..], [false; 3]),
        ("?component=iris-1", &["--component", "iris-1"], [false, true, true]),
        ("?component=probe", &["--component", "probe"], [true, false, false]),
        ("?route=/cache/three/...", &["--route", "/cache/three/..."], [true, true, false]),
        ("?route=%2Fcache%2Fthree%2F...", &["--route", "/cache/two/..."], [true, true, false]),
        ("?model=iris-classifier", &["--model", "iris-classifier"], [false, true, true]),
        ("?model=iris-classifier/2", &["--model", "iris-classifier/2"], [false, true, true]),
    ] {
        let response = delete(&spinfer, &format!("/cache{query}"));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json()["propagation"], "local", "{}", response.text());
        assert_eq!((send(), send()), (cached, [true; 3]), "{query}");
        let (status, text) = run(&[&["cache", "purge", "--admin", &address], flags].concat());
        assert!(status.success() && text.starts_with("Purged: "), "{text}");
        let by_command =
            if flags.contains(&"/cache/two/...") { [true, false, true] } else { cached };
        assert_eq!((send(), send()), (by_command, [true; 3]), "{flags:?}");
    }
    for (query, status, printed) in [
        ("?model=iris-classifier/1", 404, "model iris-classifier/1 does not exist"),
        ("?component=x", 404, "component iris-1, component probe"),
        ("?route=/one", 404, "route /one/..."),
        ("?models=x", 400, "`models`: /cache takes component, route, model"),
        ("?route=/one/...&route=/cache/two/...", 400, "only one"),
        ("?component=probe&model=x", 400, "only one"),
        ("?%ff=%00", 400, "/cache takes"),
    ] {
        let response = delete(&spinfer, &format!("/cache{query}"));
        assert_eq!(response.status, status, "{query}: {}", response.text());
        assert!(response.error().contains(printed), "{query}: {}", response.error());
    }
    assert_eq!(send(), [true; 3], "a refused purge purges nothing");
}

#[test]
fn nodes_sharing_a_redis_report_it_and_purge_together() {
    let redis = Redis::start();
    let node = || {
        let both = Manifest::default().with("/...", "probe", "probe", "");
        let both = both.with_iris("iris", 1, "/v2/models/...", "");
        // Longer than a busy machine takes.
        let url = redis.url();
        let config = format!(
            "[cache]\nredis = '{url}'\ntimeout = '1s'\n\
             [[prediction_log.sinks]]\ntype = 'redis'\nurl = '{url}'\n"
        );
        let node = Launch::new(&both).admin().runtime_config(&config).up();
        let is = |name: &str| metric(&node, &format!("spinfer_cache_redis_{name}")) == 1.0;
        wait_until("it is connected", || is("connected") && is("invalidation_connected"));
        wait_until("its model is loaded", || metric(&node, "spinfer_ready") == 1.0);
        // The first cacheable response enables lookups in Redis.
        assert_eq!(node.get(&format!("/cache/{}?max-age=60", node.id())).status, 200);
        node
    };
    let (a, b) = (node(), node());
    let stored = r#"spinfer_cache_redis_stores_total{result="stored"}"#;
    wait_until("their first responses are stored", || {
        [&a, &b].map(|node| metric(node, stored)) == [1.0; 2]
    });
    let path = "/cache/shared?max-age=60";
    assert!(!is_hit(&a.get(path)));
    wait_until("the next response is stored", || metric(&a, stored) == 2.0);
    assert!(is_hit(&b.get(path)) && is_hit(&b.get(path)));

    let stats = b.admin().send("GET", "/cache/stats", &[], b"").json();
    let levels = &stats["routes"][0]["levels"];
    assert_eq!((&levels["redis"]["hits"], &levels["memory"]["hits"]), (&1.into(), &1.into()));
    assert_eq!((&stats["total"]["hits"], &stats["total"]["misses"]), (&2.into(), &1.into()));
    let shared = &stats["redis"];
    assert_eq!((&shared["connected"], &shared["watched"]), (&true.into(), &true.into()));
    assert_eq!((&shared["stored"], &shared["failed"]), (&1.into(), &0.into()), "{shared}");
    let hits = r#"spinfer_cache_redis_lookups_total{result="hit"}"#;
    assert_eq!(metric(&b, hits), 1.0);
    check_against_table(&b, &[&[BATCH, DRIFT[0], DRIFT[1]], &EXPERIMENTS[..]].concat());

    let address = b.admin_address().to_string();
    let (status, text) = run(&["cache", "stats", "--admin", &address]);
    assert!(status.success() && text.contains("redis: connected; 1 stored, 0 dropped;"), "{text}");
    let (status, text) = run(&["cache", "purge", "--route", "/...", "--admin", &address]);
    assert!(status.success(), "{text}");
    assert_eq!(text.trim(), "Purged: route /..., on all nodes that share the Redis");
    assert!(!is_hit(&b.get(path)), "here");
    let recomputed = b.get(path);
    // Until it is stored, the other node would compute its own.
    wait_until("the recomputed response is stored", || metric(&b, stored) == 2.0);
    wait_until("the other node has read the purge", || a.get(path).body == recomputed.body);

    drop(redis);
    let purge = delete(&b, "/cache").json();
    assert_eq!(purge, serde_json::json!({"purged": "everything", "propagation": "pending"}));
    assert!(!is_hit(&b.get(path)), "purged on this node without the Redis");
    // The failed lookup reports the lost connection.
    assert_eq!(metric(&b, "spinfer_cache_redis_connected"), 0.0);
    assert!(metric(&b, r#"spinfer_cache_redis_lookups_total{result="failed"}"#) >= 1.0);
}

#[test]
fn unknown_paths_are_404_and_wrong_methods_405() {
    let manifest = Manifest::default().with("/a/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).admin().up();
    let admin = spinfer.admin();
    for (method, path, status, allow) in [
        ("GET", "/", 404, None),
        ("GET", "/metrics/", 404, None),
        ("GET", "/v2/health/ready", 404, None),
        ("GET", "/echo", 404, None),
        ("POST", "/metrics", 405, Some("GET, HEAD")),
        ("DELETE", "/cache/stats", 405, Some("GET, HEAD")),
        ("GET", "/cache", 405, Some("DELETE")),
        ("OPTIONS", "/cache", 405, Some("DELETE")),
        ("GET", "/metrics?name=x", 400, None),
        ("GET", "/cache/stats?route=/", 400, None),
    ] {
        let response = admin.send(method, path, &[], b"");
        assert_eq!((response.status, response.header("allow")), (status, allow), "{method} {path}");
        assert!(!response.error().is_empty());
    }
    let [head, get] = ["HEAD", "GET"].map(|method| admin.send(method, "/metrics", &[], b""));
    assert_eq!((head.status, head.body.len(), get.status), (200, 0, 200));
    // The data plane has none of these endpoints.
    for (method, path) in [("GET", "/metrics"), ("GET", "/cache/stats"), ("DELETE", "/cache")] {
        let response = spinfer.send(method, path, &[], b"");
        assert_eq!((response.status, response.error()), (404, format!("no route matches {path}")));
    }
}

#[test]
fn malformed_requests_are_refused_and_the_admin_plane_keeps_serving() {
    let spinfer = probe("");
    let long =
        format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    for (request, status) in [
        (long.as_str(), "431"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        ("nonsense\r\n\r\n", "400"),
        ("\u{16}\u{3}\u{1}\u{2}", ""),
    ] {
        let mut stream = TcpStream::connect(spinfer.admin_address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The host may close the connection before it has read all of it.
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        let response = String::from_utf8_lossy(&response);
        assert!(response.contains(status), "{request:.40}: {response}");
        assert!(!response.contains("200 OK"), "{request:.40}: {response}");
    }
    assert_eq!(metric(&spinfer, "spinfer_build_info{version=\"0.1.0\"}"), 1.0);
}

#[test]
fn without_a_token_foreign_hosts_and_preflights_are_refused() {
    let spinfer = probe("");
    let admin = spinfer.admin();
    for (host, status) in
        [("localhost:1", 200), ("[::1]", 200), ("rebound.example.com", 403), ("10.0.0.1", 200)]
    {
        let response = admin.send("GET", "/metrics", &[("host", host)], b"");
        assert_eq!(response.status, status, "{host}");
    }
    let origin = [("origin", "http://example.com"), ("access-control-request-method", "DELETE")];
    let preflight = admin.send("OPTIONS", "/cache", &origin, b"");
    assert_eq!(preflight.status, 405);
    assert_eq!(preflight.header("access-control-allow-origin"), None);
}

#[test]
fn token_is_required_beyond_loopback_and_checked() {
    const TOKEN: &str = "correct-horse-battery";
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let printed = Launch::new(&manifest).admin_at("0.0.0.0:0").refused();
    assert!(printed.contains("SPINFER_ADMIN_TOKEN") && printed.contains("--no-admin"), "{printed}");

    let launch = Launch::new(&manifest).admin_at("0.0.0.0:0");
    let spinfer = launch.env("SPINFER_ADMIN_TOKEN", TOKEN).up();
    let admin = spinfer.admin();
    let bearer = format!("Bearer {TOKEN}");
    for (headers, status) in [
        (&[][..], 401),
        (&[("authorization", "Bearer wrong-horse-battery")], 401),
        (&[("authorization", TOKEN)], 401),
        (&[("authorization", &bearer)], 200),
        (&[("authorization", &bearer), ("host", "spinfer.example.com")], 200),
    ] {
        let response = admin.send("GET", "/metrics", headers, b"");
        assert_eq!(response.status, status, "{headers:?}");
        let challenge = response.header("www-authenticate");
        assert_eq!(challenge, (status == 401).then_some("Bearer"));
    }
    let address = spinfer.admin_address().to_string();
    let purge = ["cache", "purge", "--all", "--admin", &address];
    let (status, text) = run(&purge);
    assert!(!status.success() && text.contains("Authorization: Bearer"), "{text}");
    let (status, text) = run_in(&[("SPINFER_ADMIN_TOKEN", TOKEN)], &purge);
    assert!(status.success(), "{text}");
    // Neither a guest's environment nor the log contains the token.
    assert_eq!(spinfer.get("/environment?SPINFER_ADMIN_TOKEN").text(), "not set");
    assert!(!spinfer.log().contains(TOKEN));
}

#[test]
fn guest_reaches_the_admin_plane_only_with_a_grant() {
    let other = probe("");
    let address = other.admin_address();
    let url = format!("/fetch?http://{address}/metrics");
    for (allowed, granted) in [
        ("", false),
        ("allowed_outbound_hosts = [\"http://*.spin.internal\", \"http://self\"]\n", false),
        (&format!("allowed_outbound_hosts = [\"http://{address}\"]\n"), true),
    ] {
        let spinfer = probe(&format!("{STANDARD_DOOR}{allowed}"));
        let response = spinfer.get(&url);
        // The probe sends a POST.
        let reached = response.text().contains("/metrics supports GET");
        assert_eq!(reached, granted, "{allowed}: {}", response.text());
    }
}

#[test]
fn a_taken_address_is_refused_before_anything_is_served() {
    let spinfer = probe("");
    let address = spinfer.admin_address().to_string();
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let printed = Launch::new(&manifest).admin_at(&address).refused();
    let expected = format!("cannot listen on {address} for the admin plane");
    assert!(printed.contains(&expected) && printed.contains("--no-admin"), "{printed}");
    assert!(!printed.contains("Serving"), "{printed}");
}

#[test]
fn no_admin_opens_no_admin_listener() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).up();
    spinfer.wait_for_output("/...");
    assert!(!spinfer.output().contains("Metrics"), "{}", spinfer.output());
}

#[test]
fn admin_commands_name_the_address_they_tried() {
    let closed_address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let (status, text) = run(&["cache", "stats", "--admin", &closed_address]);
    assert!(!status.success());
    assert!(
        text.contains(&format!(
            "the admin plane at {closed_address}: cannot be reached: Connection refused;"
        )),
        "{text}"
    );
    let spinfer = Launch::new(&Manifest::default().with("/a", "probe", "probe", "")).up();
    let (status, text) = run(&["cache", "stats", "--admin", &spinfer.address().to_string()]);
    assert!(!status.success() && text.contains("no route matches /cache/stats"), "{text}");
    let (status, text) = run(&["cache", "purge"]);
    assert!(!status.success() && text.contains("--all"), "{text}");
}

#[test]
fn metrics_are_served_while_draining() {
    let mut spinfer = probe("");
    wait_until("it is ready", || metric(&spinfer, "spinfer_ready") == 1.0);
    let mut connection = spinfer.connect();
    let head =
        "POST /echo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 5\r\n\r\n";
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(b"a").unwrap();
    let client = spinfer.admin();
    spinfer.terminate();
    spinfer.wait_for_log("draining");
    let metrics = client.send("GET", "/metrics", &[], b"");
    assert!(metrics.text().contains("\nspinfer_ready 0\n"));
    connection.write_all(b"bcde").unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("abcde"), "{response}");
    assert!(spinfer.wait().success());
}
