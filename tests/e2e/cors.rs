//! CORS: which pages of other origins may call the application from a browser.

use spinfer_tests::{Launch, Manifest, Response, STANDARD_DOOR, Spinfer};

const APP: &str = "https://app.example.com";

fn probe(cors: &str, settings: &str) -> Spinfer {
    let cors = format!("[application.tool.spinfer.cors]\n{cors}");
    Launch::new(&Manifest::default().with("/...", "probe", "probe", settings).and(&cors)).up()
}

fn preflight(spinfer: &Spinfer, path: &str, origin: &str) -> Response {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    spinfer.send("OPTIONS", path, &headers, b"")
}

const ALLOWED: &str = "access-control-allow-origin";

#[test]
fn without_cors_settings_no_cors_headers_are_sent() {
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", "")).up();
    let response = spinfer.send("POST", "/echo", &[("origin", APP)], b"x");
    assert_eq!(
        (response.status, response.header(ALLOWED), response.header("vary")),
        (200, None, None)
    );
    // The preflight is a request for the component, as it would be without CORS support.
    assert_eq!(preflight(&spinfer, "/echo", APP).status, 200);
}

#[test]
fn only_listed_origins_are_allowed() {
    for door in ["", STANDARD_DOOR] {
        let cors =
            format!("allow_origins = [\"{APP}\"]\nmax_age = \"1h\"\nallow_credentials = true");
        let spinfer = probe(&cors, door);
        let preflighted = preflight(&spinfer, "/trap", APP);
        assert_eq!(preflighted.status, 204, "the component does not receive it");
        for (name, value) in [
            (ALLOWED, APP),
            ("access-control-allow-methods", "GET, HEAD, POST"),
            ("access-control-allow-headers", "content-type, inference-header-content-length"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "3600"),
            ("vary", "origin"),
        ] {
            assert_eq!(preflighted.header(name), Some(value), "{name}");
        }
        // Error responses of the component and the host have the headers too, so that a page can read them.
        for (path, status) in
            [("/echo", 200), ("/elsewhere", 404), ("/trap", 500), ("/v2/health/live", 405)]
        {
            let response = spinfer.send("POST", path, &[("origin", APP)], b"x");
            assert_eq!((response.status, response.header(ALLOWED)), (status, Some(APP)), "{path}");
            assert_eq!(response.header("vary"), Some("origin"));
            assert_eq!(
                response.header("access-control-expose-headers"),
                Some("inference-header-content-length")
            );
        }
        for origin in ["https://evil.example", "null", "http://app.example.com"] {
            let preflighted = preflight(&spinfer, "/echo", origin);
            assert_eq!((preflighted.status, preflighted.header(ALLOWED)), (403, None), "{origin}");
            assert!(preflighted.error().contains("cors.allow_origins"), "{}", preflighted.error());
            let response = spinfer.send("POST", "/echo", &[("origin", origin)], b"x");
            assert_eq!((response.status, response.header(ALLOWED)), (200, None), "{origin}");
        }
        let response = spinfer.get("/v2/health/live");
        assert_eq!((response.header(ALLOWED), response.header("vary")), (None, Some("origin")));
    }
}

#[test]
fn wildcard_origin_allows_every_page() {
    let spinfer = probe("allow_origins = [\"*\"]\nallow_headers = [\"*\"]", "");
    assert_eq!(preflight(&spinfer, "/", "null").header(ALLOWED), Some("*"));
    let response = spinfer.send("POST", "/echo", &[("origin", APP)], b"x");
    assert_eq!((response.header(ALLOWED), response.header("vary")), (Some("*"), None));
    // An OPTIONS request that is not a preflight goes to the component.
    assert_eq!(spinfer.send("OPTIONS", "/echo", &[("origin", APP)], b"x").status, 200);
}

#[test]
fn wildcard_origin_with_credentials_is_refused_at_startup() {
    let manifest = Manifest::default()
        .with("/...", "probe", "probe", "")
        .and("[application.tool.spinfer.cors]\nallow_origins = [\"*\"]\nallow_credentials = true");
    let output = Launch::new(&manifest).refused();
    assert!(output.contains("application.tool.spinfer.cors.allow_origins"), "{output}");
    assert!(output.contains("allow_credentials"), "{output}");
}
