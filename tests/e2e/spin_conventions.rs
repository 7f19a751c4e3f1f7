//! Spin's conventions between a client and a component: routes, headers, the host's own paths, static
//! responses, mounted files.

use std::io::{Read, Write};

use spinfer_tests::{GUESTS, Launch, Manifest, STANDARD_DOOR, Spinfer};

/// An application with one component, and more `triggers`.
fn probe(route: &str, settings: &str, triggers: &str) -> Spinfer {
    let manifest = Manifest::default().with(route, "probe", "probe", settings);
    Launch::new(&manifest.with_settings("version = \"1.2.3\"").and(triggers)).up()
}

fn spin_headers(spinfer: &Spinfer, path: &str, sent: &[(&str, &str)]) -> Vec<String> {
    let response = spinfer.send("GET", &format!("{path}?spin-headers"), sent, b"");
    assert_eq!(response.status, 200, "{}", response.text());
    response.text().lines().map(str::to_owned).collect()
}

#[test]
fn spin_headers_describe_the_matched_route() {
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe("/a/:name/...", door, "");
        let forged = [
            ("Spin-Path-Info", "forged"),
            ("spin-client-addr", "forged"),
            ("spin-path-match-other", "forged"),
            ("spin-other", "a client's own"),
            ("host", "example.dev:8080"),
        ];
        let seen = spin_headers(&spinfer, "/a/b%20c/d/e/", &forged);
        let [base, client, rest @ ..] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!(base, "spin-base-path: /");
        assert!(client.starts_with("spin-client-addr: 127.0.0.1:"), "{client}");
        assert_eq!(
            rest,
            [
                "spin-component-route: /a/:name",
                "spin-full-url: http://example.dev:8080/a/b%20c/d/e/?spin-headers",
                "spin-matched-route: /a/:name/...",
                "spin-other: a client's own",
                "spin-path-info: /d/e/",
                "spin-path-match-name: b%20c",
                "spin-raw-component-route: /a/:name/...",
            ],
            "{door}"
        );
    }
}

#[test]
fn spin_headers_reach_wasi_0_2_components() {
    let spinfer = Launch::new(&Manifest::default().with("/a/...", "hello", "hello_p2", "")).up();
    let response = spinfer.send("GET", "/a/b/path-info", &[("spin-path-info", "forged")], b"");
    assert_eq!((response.status, response.text().as_str()), (200, "/b/path-info"));
}

#[test]
fn most_specific_route_wins() {
    let more = ["/:x", "/a", "/a/:x/c", "/a/b/..."]
        .map(|route| format!("[[trigger.http]]\nroute = \"{route}\"\ncomponent = \"probe\"\n"));
    let spinfer = probe("/...", "", &more.concat());
    for (path, route) in [
        ("/", "/..."),
        ("/x", "/:x"),
        ("/a", "/a"),
        ("/a/", "/a"),
        ("/a/x/c", "/a/:x/c"),
        ("/a/b/c", "/a/b/..."),
        ("/a/x/d", "/..."),
    ] {
        let seen = spin_headers(&spinfer, path, &[]);
        assert!(seen.contains(&format!("spin-matched-route: {route}")), "{path}: {seen:?}");
    }
}

#[test]
fn well_known_spin_paths_are_served_by_the_host() {
    let spinfer = probe("/...", "", "");
    let health = spinfer.get("/.well-known/spin/health");
    assert_eq!((health.status, health.text().as_str()), (200, "OK"));
    let info = spinfer.get("/.well-known/spin/info").json();
    assert_eq!(info, serde_json::json!({ "name": "test", "version": "1.2.3" }));
    assert_eq!(spinfer.get("/.well-known/spin/other").status, 404);
    assert_eq!(spinfer.post("/.well-known/spin/other", "").status, 404);
    assert_eq!(spinfer.post("/.well-known/spin/health", "").status, 405);
    assert_eq!(spinfer.get("/.well-known/spinach?spin-headers").status, 200);
}

#[test]
fn internal_host_names_are_refused_from_outside() {
    let spinfer = probe("/...", "", "");
    for host in ["probe.spin.internal", "Probe.Spin.Internal:80"] {
        let response = spinfer.send("GET", "/echo", &[("host", host)], b"");
        assert_eq!(response.status, 400);
        assert!(response.error().contains("is an internal host name"), "{}", response.error());
    }
    let mut stream = spinfer.connect();
    let request =
        "GET http://probe.spin.internal/echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 400"), "{response}");
}

#[test]
fn static_response_is_served_without_a_component() {
    let trigger = "[[trigger.http]]\nroute = \"/gone/...\"\n[trigger.http.static_response]\n\
                   status_code = 410\nheaders = { x-why = \"moved\" }\nbody = \"it was here\"\n\
                   [[trigger.http]]\nroute = \"/empty\"\nstatic_response = {}\n";
    let spinfer = probe("/...", "", trigger);
    let response = spinfer.post("/gone/x", "an unread body");
    assert_eq!((response.status, response.text().as_str()), (410, "it was here"));
    assert_eq!(response.header("x-why"), Some("moved"));
    let response = spinfer.get("/empty");
    assert_eq!((response.status, response.body.len()), (200, 0));
    spinfer.wait_for_output("/gone/...  static response, 410 Gone");
}

#[test]
fn private_component_has_no_route_and_inline_component_has_one() {
    let triggers = format!(
        "[[trigger.http]]\nroute = {{ private = true }}\ncomponent = \"hidden\"\n\
         [[trigger.http]]\nroute = \"/inline/...\"\n\
         component = {{ source = \"{GUESTS}/probe.wasm\", environment = {{ WHO = \"inline\" }} }}\n\
         [component.hidden]\nsource = \"{GUESTS}/probe.wasm\"\n"
    );
    let spinfer = probe("/a", "", &triggers);
    assert_eq!(spinfer.get("/hidden").status, 404);
    assert_eq!(spinfer.get("/inline/x?spin-headers").status, 200);
    spinfer.wait_for_output("/inline/...  inline-component1 (fast door)");
}

/// Single files and files that match a pattern are copied; the guest sees them and no others.
#[test]
fn only_files_matching_a_pattern_are_mounted() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["assets/a.txt", "assets/b.md", "assets/secret/key.txt", "one.txt"] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    let files = "files = [\"assets/**/*.txt\", { source = \"one.txt\", destination = \"/etc/two.txt\" }]\n\
                 exclude_files = [\"assets/secret/*\"]\n";
    let manifest = Manifest::default().with("/...", "probe", "probe", files);
    let path = dir.path().join("spin.toml");
    std::fs::write(&path, manifest.text()).unwrap();
    let state = tempfile::tempdir().unwrap();
    let mut spinfer = Launch::from_file(&path).state_dir(state.path()).up();
    for (path, content) in [("/assets/a.txt", "assets/a.txt"), ("/etc/two.txt", "one.txt")] {
        let response = spinfer.get(&format!("/read?{path}"));
        assert_eq!((response.status, response.text().as_str()), (200, content));
        assert_eq!(spinfer.post(&format!("/write?{path}"), "x").status, 403, "read-only");
    }
    for path in ["/assets/b.md", "/assets/secret/key.txt", "/one.txt", "/spin.toml", "/../one.txt"]
    {
        assert_eq!(spinfer.get(&format!("/read?{path}")).status, 403, "{path}");
    }
    let copies = || state.path().join("files").read_dir().unwrap().count();
    assert_eq!(copies(), 1);
    spinfer.terminate();
    assert!(spinfer.wait().success());
    assert_eq!(copies(), 0, "deleted on exit");
}
