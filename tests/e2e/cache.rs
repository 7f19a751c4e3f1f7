//! The response cache in memory: what is cached, for how long, and which requests collapse into one.

use std::io::{Read, Write};
use std::path::Path;

use spinfer_tests::{Launch, Manifest, Response, STANDARD_DOOR, Spinfer, root, wait_until};

use super::metrics::metric;

const STATUS: &str = "cache-status";

fn probe(settings: &str) -> Spinfer {
    Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).up()
}

/// How many responses the guest has computed for `path`.
fn computed(spinfer: &Spinfer, path: &str) -> usize {
    spinfer.log().lines().filter(|line| line.contains(&format!("computed {path}"))).count()
}

fn status(response: &Response) -> &str {
    assert_eq!(response.status, 200, "{response:?}");
    response.header(STATUS).unwrap_or_else(|| panic!("no {STATUS} in {response:?}"))
}

fn is_hit(response: &Response) -> bool {
    assert_eq!(response.status, 200, "{response:?}");
    response.header(STATUS).is_some_and(|status| status.starts_with("spinfer; hit; ttl="))
}

/// Whether the component computed it. The head of a streamed response cannot tell whether it is stored.
fn is_computed(response: &Response) -> bool {
    assert_eq!(response.status, 200, "{response:?}");
    let computed = [
        None,
        Some("spinfer; fwd=miss; stored"),
        Some("spinfer; fwd=miss"),
        Some("spinfer; fwd=miss; detail=not-admitted"),
    ];
    computed.contains(&response.header(STATUS))
}

/// Number of responses that the component computed without a lookup.
fn bypassed(spinfer: &Spinfer) -> f64 {
    let labels = "component=\"probe\",route=\"/...\",outcome=\"bypass\"";
    metric(spinfer, &format!("spinfer_cache_requests_total{{{labels}}}"))
}

#[test]
fn repeated_request_is_served_from_cache() {
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe(door);
        // The standard door streams bodies until the component has returned a cacheable response.
        assert!(is_computed(&spinfer.get("/cache/first?max-age=60")));
        let path = "/cache/a?max-age=60";
        let first = spinfer.post(path, "one");
        assert!(is_computed(&first) && first.header("age").is_none(), "{first:?}");
        let second = spinfer.post(path, "one");
        assert!(is_hit(&second) && status(&second).ends_with("; detail=memory"), "{second:?}");
        assert_eq!(second.body, first.body);
        assert_eq!(second.header("cache-control"), Some("max-age=60"));
        assert!(second.header("age").is_some_and(|age| age.parse::<u32>().is_ok()));
        spinfer.wait_for_log("computed /cache/a");
        assert_eq!(computed(&spinfer, "/cache/a"), 1);

        // Another body, path or method is another cache key.
        for other in [
            spinfer.post(path, "two"),
            spinfer.post(&format!("{path},public"), "one"),
            spinfer.post("/cache/a/b?max-age=60", "one"),
            spinfer.get(path),
        ] {
            assert!(is_computed(&other), "{other:?}");
            assert_ne!(other.body, first.body);
        }
        assert!(is_hit(&spinfer.get(path)));
    }
}

#[test]
fn response_is_cached_from_its_second_request_on_if_configured() {
    for door in ["", STANDARD_DOOR] {
        let manifest = Manifest::default().with("/...", "probe", "probe", door);
        let launch = Launch::new(&manifest).admin();
        let spinfer = launch.runtime_config("[cache]\nadmission = \"second\"").up();
        // Requests collapse only where the component has returned a cacheable response.
        assert!(is_computed(&spinfer.get("/cache/first?max-age=60")));
        let not_admitted = || metric(&spinfer, "spinfer_cache_not_admitted_total");
        let before = not_admitted();
        let send = || spinfer.get("/cache/a?max-age=60");
        let [first, second, third] = [send(), send(), send()];
        assert!(is_computed(&first) && is_computed(&second), "{first:?} {second:?}");
        assert_ne!(first.body, second.body);
        assert!(is_hit(&third) && third.body == second.body, "{third:?}");
        assert_eq!(not_admitted(), before + 1.0);

        // Concurrent requests are computed once, and the second of them counts.
        let path = "/cache/slow/a?max-age=60";
        let responses: Vec<Response> = std::thread::scope(|scope| {
            let sending: Vec<_> = (0..8).map(|_| scope.spawn(|| spinfer.get(path))).collect();
            sending.into_iter().map(|sending| sending.join().expect("a response")).collect()
        });
        assert!(responses.iter().all(|response| response.body == responses[0].body));
        assert!(is_hit(&spinfer.get(path)));
        spinfer.wait_for_log("computed /cache/slow/a");
        assert_eq!(computed(&spinfer, "/cache/slow/a"), 1);
    }
}

#[test]
fn uncacheable_responses_are_not_cached() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", "")).admin().up();
    for path in [
        "/cache/a",
        "/cache/a?no-store",
        "/cache/a?private,max-age=60",
        "/cache/a?no-cache,max-age=60",
        "/cache/a?max-age=0",
        "/cache/cookie?max-age=60",
    ] {
        let responses = [spinfer.post(path, ""), spinfer.post(path, "")];
        assert_ne!(responses[0].body, responses[1].body, "{path}");
        for response in responses {
            assert_eq!((response.status, response.header(STATUS)), (200, None), "{path}");
        }
    }
    for _ in 0..2 {
        let missing = spinfer.get("/cache/missing?max-age=60");
        assert_eq!((missing.status, missing.header(STATUS)), (404, None));
        let put = spinfer.send("PUT", "/cache/a?max-age=60", &[], b"");
        assert_eq!((put.status, put.header(STATUS)), (200, None));
    }
    assert_eq!(bypassed(&spinfer), 2.0, "PUT");
    // A component without cacheable responses is not looked up, until it returns one.
    wait_until("lookups stop", || {
        assert_eq!(spinfer.get("/cache/other").header(STATUS), None);
        bypassed(&spinfer) > 2.0
    });
    let path = "/cache/other?max-age=60";
    assert_eq!(spinfer.get(path).header(STATUS), None);
    assert_eq!(status(&spinfer.get(path)), "spinfer; fwd=miss; stored");
    assert!(is_hit(&spinfer.get(path)));
}

#[test]
fn request_cache_control_is_honoured() {
    let spinfer = probe("");
    let path = "/cache/a?max-age=60";
    let send = |control| spinfer.send("GET", path, &[("cache-control", control)], b"");
    let none = send("only-if-cached");
    assert_eq!((none.status, none.header(STATUS)), (504, Some("spinfer; detail=only-if-cached")));
    assert!(none.error().contains("no response"));
    assert_eq!(send("no-store").header(STATUS), None);
    assert_eq!(status(&send("no-cache")), "spinfer; fwd=request; stored");
    let first = send("only-if-cached");
    assert!(is_hit(&first));
    let renewed = send("no-cache");
    assert_eq!(status(&renewed), "spinfer; fwd=request; stored");
    assert_ne!(renewed.body, first.body);
    assert_eq!(send("max-age=60").body, renewed.body);
    assert_eq!(status(&send("min-fresh=90")), "spinfer; fwd=request; stored");
    let bypassed = send("no-store");
    assert_eq!(bypassed.header(STATUS), None);
    assert_ne!(send("max-age=60").body, bypassed.body);
    let part = spinfer.send("GET", path, &[("range", "bytes=0-1")], b"");
    assert_eq!((part.status, part.header(STATUS)), (200, None));
}

/// Such as those of health probes.
#[test]
fn uncacheable_responses_do_not_disable_lookups_of_others() {
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe(door);
        let send_100 = |method| {
            for _ in 0..100 {
                assert_eq!(spinfer.send(method, "/count", &[], b"").status, 200);
            }
        };
        assert!(is_computed(&spinfer.post("/cache/a?max-age=60", "")));
        send_100("GET");
        assert!(is_hit(&spinfer.post("/cache/a?max-age=60", "")), "{door}");
        assert!(is_computed(&spinfer.post("/cache/b?max-age=60", "")), "{door}");
        assert!(is_hit(&spinfer.post("/cache/b?max-age=60", "")), "{door}");
        // Nor do those with the same method, once its responses are known to be cacheable.
        send_100("POST");
        assert!(is_hit(&spinfer.post("/cache/a?max-age=60", "")), "{door}");
        assert!(is_computed(&spinfer.post("/cache/a?max-age=60", "another")), "{door}");
        assert!(is_hit(&spinfer.post("/cache/a?max-age=60", "another")), "{door}");
    }
}

#[test]
fn responses_are_cached_per_value_of_a_vary_header() {
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe(door);
        let send =
            |value| spinfer.send("GET", "/cache/vary?max-age=60", &[("x-probe", value)], b"");
        let responses: Vec<_> = ["a", "b"].map(send).into();
        assert!(responses.iter().all(is_computed), "{responses:?}");
        for (value, first) in ["a", "b"].iter().zip(&responses) {
            let again = send(value);
            assert!(is_hit(&again));
            assert_eq!(again.body, first.body);
        }
    }
}

#[test]
fn equivalent_json_bodies_share_a_cached_response_if_the_component_opts_in() {
    let ours = "spinfer-body-key";
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe(door);
        // The standard door streams bodies until the component has returned a cacheable response.
        assert!(is_computed(&spinfer.get("/cache/first?max-age=60")));
        let body = r#"{"a": [5.10, 2], "b": "\u00e9"}"#;
        let path = "/cache/json/a?max-age=60";
        let first = spinfer.post(path, body);
        assert!(is_computed(&first) && first.header(ours).is_none(), "{first:?}");
        for same in
            [body, "{\"b\":\"é\",\"a\":[5.1,2]}\n", "{\"a\" : [51e-1, 2.0], \"b\":\"\\u00E9\"}"]
        {
            let again = spinfer.post(path, same);
            assert!(is_hit(&again) && again.body == first.body, "{same}: {again:?}");
            assert_eq!(again.header(ours), None);
        }
        spinfer.wait_for_log("computed /cache/json/a");
        assert_eq!(computed(&spinfer, "/cache/json/a"), 1);
        for other in [
            r#"{"a": [2, 5.1], "b": "é"}"#,
            r#"{"a": [5.1, 2], "b": "e"}"#,
            r#"{"a": [5.1, 2], "b": "é", "a": [5.1, 2]}"#,
            r#"{"a": [5.1, 2], "b": "é"},"#,
        ] {
            let response = spinfer.post(path, other);
            assert!(is_computed(&response) && response.body != first.body, "{other}");
        }
        // Together with a header that the response varies by.
        let send = |value, body: &str| {
            let headers = [("x-probe", value)];
            spinfer.send("POST", "/cache/json/vary?max-age=60", &headers, body.as_bytes())
        };
        assert!(is_computed(&send("a", "[1]")) && is_computed(&send("b", "[1.0]")));
        assert!(is_hit(&send("a", " [1.0]")) && is_hit(&send("b", "[1]")));
        assert_ne!(send("a", "[1]").body, send("b", "[1]").body);
        // Without the opt-in, bodies are compared byte by byte.
        let path = "/cache/a?max-age=60";
        assert!(
            is_computed(&spinfer.post(path, "[1]")) && is_computed(&spinfer.post(path, "[1 ]"))
        );
    }
}

#[test]
fn concurrent_first_requests_with_a_body_key_collapse_into_one() {
    let spinfer = probe("tool.spinfer.limits.queue = 1000\n");
    assert!(is_computed(&spinfer.get("/cache/first?max-age=60")));
    let path = "/cache/json/slow/a?max-age=60";
    let responses: Vec<Response> = std::thread::scope(|scope| {
        let send = || spinfer.post(path, "{ }");
        let sending: Vec<_> = (0..50).map(|_| scope.spawn(send)).collect();
        sending.into_iter().map(|sending| sending.join().expect("a response")).collect()
    });
    assert!(responses.iter().all(|response| response.body == responses[0].body));
    spinfer.wait_for_log("computed /cache/json/slow/a");
    assert_eq!(computed(&spinfer, "/cache/json/slow/a"), 1);
}

#[test]
fn expired_response_is_refreshed() {
    let spinfer = probe("");
    let send = || spinfer.get("/cache/a?max-age=1");
    let first = send();
    let mut last = send();
    wait_until("the response expires", || {
        last = send();
        last.body != first.body
    });
    // Refreshed for this request, or shortly before it expired for an earlier one.
    assert!(is_hit(&last) || status(&last) == "spinfer; fwd=stale; stored", "{last:?}");
}

#[test]
fn stale_response_is_served_while_revalidating() {
    let spinfer = probe("");
    let send = || spinfer.get("/cache/slow/a?max-age=1,stale-while-revalidate=600");
    let first = send();
    let mut requests = 0;
    wait_until("a stale response is refreshed", || {
        let response = send();
        assert!(is_hit(&response), "{response:?}");
        requests += 1;
        response.body != first.body
    });
    // Requests were served the stale response meanwhile, and one of them started the refresh.
    spinfer.wait_for_log_times("computed /cache/slow/a", 2);
    assert!(requests > 10 && computed(&spinfer, "/cache/slow/a") < 5, "{requests}");
}

#[test]
fn concurrent_identical_requests_collapse_into_one() {
    for (door, before) in [("", false), ("", true), (STANDARD_DOOR, false)] {
        let spinfer = probe(&format!("{door}tool.spinfer.limits.queue = 1000\n"));
        let path = "/cache/slow/a?max-age=1";
        let send = || spinfer.get(path);
        if before {
            let first = send();
            // An expired response, which is not served any more.
            wait_until("the response expires", || {
                let only = [("cache-control", "only-if-cached")];
                spinfer.send("GET", path, &only, b"").status == 504
            });
            assert_eq!(first.status, 200);
        }
        // Requests collapse only where the component has returned a cacheable response.
        assert!(is_computed(&spinfer.get("/cache/first?max-age=60")));
        let computed_before = computed(&spinfer, "/cache/slow/a");
        let responses: Vec<Response> = std::thread::scope(|scope| {
            let sending: Vec<_> = (0..200).map(|_| scope.spawn(send)).collect();
            sending.into_iter().map(|sending| sending.join().expect("a response")).collect()
        });
        spinfer.wait_for_log_times("computed /cache/slow/a", computed_before + 1);
        assert_eq!(computed(&spinfer, "/cache/slow/a"), computed_before + 1);
        assert!(responses.iter().all(|response| response.body == responses[0].body));
        let why = if before { "stale" } else { "miss" };
        let expected = format!("spinfer; fwd={why}; collapsed");
        let collapsed = |response: &&Response| status(response) == expected;
        assert!(responses.iter().filter(collapsed).count() > 0);
    }
}

#[test]
fn collapsed_requests_survive_a_leader_that_disconnects() {
    let spinfer = probe("");
    assert!(is_computed(&spinfer.get("/cache/first?max-age=60")));
    let path = "/cache/slow/a?max-age=60";
    let mut leader = spinfer.connect();
    leader.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).unwrap();
    spinfer.wait_for_log("computed /cache/slow/a");
    let responses: Vec<Response> = std::thread::scope(|scope| {
        let sending: Vec<_> = (0..8).map(|_| scope.spawn(|| spinfer.get(path))).collect();
        drop(leader);
        sending.into_iter().map(|sending| sending.join().expect("a response")).collect()
    });
    assert!(responses.iter().all(|response| response.body == responses[0].body), "{responses:?}");
}

#[test]
fn collapsed_requests_run_separately_if_the_response_is_uncacheable() {
    let spinfer = probe("");
    assert!(is_computed(&spinfer.get("/cache/first?max-age=60")));
    let responses: Vec<Response> = std::thread::scope(|scope| {
        let send = || spinfer.get("/cache/slow/a?no-store");
        let sending: Vec<_> = (0..8).map(|_| scope.spawn(send)).collect();
        sending.into_iter().map(|sending| sending.join().expect("a response")).collect()
    });
    let mut bodies: Vec<_> = responses.iter().map(|response| &response.body).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 8, "one response each");
}

#[test]
fn oversized_response_and_disabled_cache_are_served_uncached() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).runtime_config("[cache]\nmax_entry = \"5B\"").up();
    for _ in 0..2 {
        assert_eq!(spinfer.get("/cache/a?max-age=60").header(STATUS), None);
    }

    let spinfer = Launch::new(&manifest).uncached().up();
    for _ in 0..2 {
        let response = spinfer.get("/cache/json/a?max-age=60");
        assert_eq!(response.header(STATUS), None, "the cache is disabled: {response:?}");
        assert_eq!(response.header("spinfer-body-key"), None, "not forwarded to clients");
    }
}

/// A cache is a part of the host, not of the component that a component calls.
#[test]
fn component_receives_no_cache_status_from_another() {
    let grant = "allowed_outbound_hosts = [\"http://*.spin.internal\", \"http://self\"]\n";
    let manifest = Manifest::default()
        .with("/...", "a", "probe", &format!("{STANDARD_DOOR}{grant}"))
        .with("/cache/...", "b", "probe", "");
    let spinfer = Launch::new(&manifest).up();
    for (host, path) in [("http://b.spin.internal", "/cache/a"), ("", "/cache/b")] {
        let received = || {
            let response = spinfer.post(&format!("/fetch/head?{host}{path}?max-age=60"), "");
            assert_eq!(response.status, 200, "{}", response.text());
            response
        };
        let (first, again) = (received(), received());
        for response in [&first, &again] {
            assert!(response.text().contains("cache-control: max-age=60\n"), "{response:?}");
            assert!(!response.text().contains(STATUS), "{response:?}");
            assert_eq!(response.header(STATUS), None);
        }
        spinfer.wait_for_log(&format!("computed {path}"));
        assert_eq!(computed(&spinfer, path), 1, "the second was served from the cache");
        assert!(again.text().contains("age: "), "{again:?}");
        // A client receives it.
        let direct = spinfer.post(&format!("{path}?max-age=60"), "");
        assert!(direct.header(STATUS).is_some(), "{direct:?}");
    }
}

#[test]
fn cache_status_of_a_component_is_passed_on() {
    let spinfer = probe("");
    let own = "origin; hit";
    let all = |response: &Response| response.headers(STATUS).join(", ");
    assert_eq!(all(&spinfer.get("/cache/status")), own);
    let path = "/cache/status?max-age=60";
    assert_eq!(all(&spinfer.get(path)), format!("{own}, spinfer; fwd=miss; stored"));
    let hit = all(&spinfer.get(path));
    assert!(hit.starts_with(&format!("{own}, spinfer; hit; ttl=")), "{hit}");
}

#[test]
fn cache_status_can_be_disabled() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).runtime_config("[cache]\nstatus_header = false").up();
    let path = "/cache/a?max-age=60";
    let send = |control| spinfer.send("GET", path, &[("cache-control", control)], b"");
    let responses = [send("only-if-cached"), send(""), send(""), send("no-cache")];
    assert_eq!(responses.each_ref().map(|response| response.status), [504, 200, 200, 200]);
    assert_eq!(responses[1].body, responses[2].body);
    assert!(responses[2].header("age").is_some());
    for response in responses {
        assert_eq!(response.header(STATUS), None, "{response:?}");
    }
    assert_eq!(spinfer.get("/cache/status").header(STATUS), Some("origin; hit"));
}

#[test]
fn invalid_cache_settings_are_refused() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    for (text, problem) in [
        (
            "[cache]\nmemroy = \"1MiB\"",
            "[cache]: memroy: unknown key; expected one of memory, max_entry, admission, status_header",
        ),
        ("[cache]\nadmission = 2", "admission: must be \"adaptive\", \"first\" or \"second\""),
        ("[cache]\nstatus_header = 1", "[cache]: status_header: must be true or false"),
        ("[cache]\nmemory = \"much\"", "[cache]: memory: must be a size, such as \"64MiB\""),
        ("cache = true", "[cache]: must be a table"),
        ("[cache]\nanswer = \"5B\"", "[cache]: answer is now max_entry"),
    ] {
        let (status, output) = Launch::new(&manifest).runtime_config(text).check();
        assert!(!status.success() && output.contains(problem), "{output}");
    }
}

#[test]
fn response_to_a_truncated_body_is_not_cached() {
    let spinfer = probe(STANDARD_DOOR);
    let path = "/cache/a?max-age=60";
    assert_eq!(spinfer.post(path, "first").header(STATUS), None, "the body is streamed");
    let mut stream = spinfer.connect();
    let head = "POST /cache/a?max-age=60 HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc";
    stream.write_all(head.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(!response.contains("stored"), "{response}");
    assert!(is_computed(&spinfer.post(path, "abc")));
    assert!(is_hit(&spinfer.post(path, "abc")));
}

/// The iris classifier with `cache_seconds`, in `dir`.
fn iris(dir: &Path, cache_seconds: &str) {
    let from = root().join("models/iris-classifier/1");
    std::fs::copy(from.join("model.onnx"), dir.join("model.onnx")).unwrap();
    let text = std::fs::read_to_string(from.join("model.toml")).unwrap();
    std::fs::write(dir.join("model.toml"), format!("{cache_seconds}\n{text}")).unwrap();
}

#[test]
fn predictions_are_cached_unless_the_model_disables_it() {
    for (cache_seconds, allowed) in [("", Some("max-age=300")), ("cache_seconds = 0", None)] {
        let dir = tempfile::tempdir().unwrap();
        iris(dir.path(), cache_seconds);
        let source = dir.path().display();
        for (component, door) in [("iris_classifier", ""), ("generic_model", STANDARD_DOOR)] {
            let files = format!(
                "files = [{{ source = \"{source}\", destination = \"/models/iris-classifier\" }}]\n{door}"
            );
            let manifest = Manifest::default().with("/v2/models/...", "iris", component, &files);
            let spinfer = Launch::new(&manifest).up();
            for body in
                [r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#, r#"{"features": [5, 3.5, 1.4, 0.2]}"#]
            {
                let predict = || spinfer.post("/v2/models/iris-classifier/predict", body);
                let responses = [predict(), predict()];
                assert!(is_computed(&responses[0]), "{responses:?}");
                assert_eq!(is_hit(&responses[1]), allowed.is_some(), "{responses:?}");
                assert_eq!(responses[1].header("cache-control"), allowed);
            }
        }
    }
}

#[test]
fn predictions_are_cached_for_the_models_cache_seconds() {
    let dir = tempfile::tempdir().unwrap();
    iris(dir.path(), "cache_seconds = 60");
    let source = dir.path().display();
    for door in ["", STANDARD_DOOR] {
        let files = format!(
            "files = [{{ source = \"{source}\", destination = \"/models/iris-classifier\" }}]\n{door}"
        );
        let manifest =
            Manifest::default().with("/v2/models/...", "iris", "iris_classifier", &files);
        let spinfer = Launch::new(&manifest).up();
        let features = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;
        let predict = "/v2/models/iris-classifier/predict";
        let first = spinfer.post(predict, features);
        assert!(is_computed(&first), "{first:?}");
        assert_eq!(first.header("cache-control"), Some("max-age=60"));
        let again = spinfer.post(predict, features);
        assert!(is_hit(&again) && again.body == first.body, "{again:?}");
        assert_eq!(again.header("content-type"), Some("application/json"));

        let infer = "/v2/models/iris-classifier/infer";
        let tensor = r#"{"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32",
            "data": [5.1, 3.5, 1.4, 0.2]}]}"#;
        assert!(is_computed(&spinfer.post(infer, tensor)) && is_hit(&spinfer.post(infer, tensor)));
        for same in [
            r#"{"inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}"#,
            r#"{"inputs":[{"datatype":"FP32","data":[[5.10,3.50,1.40,0.20]],"shape":[1,4],"name":"features"}]}"#,
            r#"{"inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[51e-1,35E-1,0.14e1,2e-1]}]}"#,
            "{ \"inputs\": [\n { \"name\": \"f\\u0065atures\", \"shape\": [1, 4], \"datatype\": \"FP32\",\n \"data\": [ [5.1, 3.5, 1.4, 0.2] ] } ] }\n",
            r#"{"inputs":[{"data":[5.1,3.5,1.4,0.20],"name":"features","datatype":"FP32","shape":[1,4]}]}"#,
        ] {
            let response = spinfer.post(infer, same);
            assert!(is_hit(&response), "{same}: {response:?}");
        }
        for other in [
            tensor.replace("5.1", "5.2"),
            tensor.replace("5.1", "5.1000001"),
            tensor.replace("[1, 4]", "[1, 4], \"parameters\": {}"),
            tensor.replace("{\"inputs\"", "{\"id\": \"a\", \"inputs\""),
        ] {
            assert!(is_computed(&spinfer.post(infer, &other)), "{other}");
        }
        // Headers that the component reads are part of the cache key.
        let length = tensor.len().to_string();
        let headers = [("inference-header-content-length", length.as_str())];
        assert!(is_computed(&spinfer.send("POST", infer, &headers, tensor.as_bytes())));

        // Errors and metadata are not cached.
        for _ in 0..2 {
            assert_eq!(spinfer.post(predict, "{}").header(STATUS), None);
            let metadata = spinfer.get("/v2/models/iris-classifier");
            assert_eq!((metadata.status, metadata.header(STATUS)), (200, None));
        }
    }
}
