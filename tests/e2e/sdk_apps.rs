//! Applications of tests/apps, built by the tools of their languages as their developers build them.

use std::sync::atomic::{AtomicUsize, Ordering};

use spinfer_tests::{Launch, Spinfer, root};

const CLIENTS: usize = 8;
const REQUESTS: usize = 1000;

/// Serves `target/apps/<file>` on every path, as `spin up` would without further settings.
fn up(file: &str) -> Spinfer {
    let source = root().join("target/apps").join(file);
    assert!(source.exists(), "{} does not exist: run `make apps`", source.display());
    let manifest = format!(
        "spin_manifest_version = 2\n[application]\nname = \"hello\"\n\
         [[trigger.http]]\nroute = \"/...\"\ncomponent = \"hello\"\n\
         [component.hello]\nsource = \"{}\"\nkey_value_stores = [\"default\"]\n\
         allowed_outbound_hosts = [\"http://self\"]\n",
        source.display()
    );
    Launch::from_text(&manifest).up()
}

/// Runs `request` 1,000 times, from 8 clients at once. Each run has its number.
fn from_clients(spinfer: &Spinfer, request: impl Fn(&Spinfer, usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= REQUESTS {
                        return;
                    }
                    request(spinfer, number);
                }
            });
        }
    });
}

fn greets_stores_and_calls_itself(file: &str, language: &str) -> Spinfer {
    let spinfer = up(file);
    from_clients(&spinfer, |spinfer, number| {
        let response = spinfer.get(&format!("/hello?{number}"));
        assert_eq!(response.status, 200, "request {number}: {}", response.text());
        assert!(response.text().starts_with(&format!("Hello from {language}! ")), "{number}");
    });
    from_clients(&spinfer, |spinfer, number| {
        // Half of the requests read what another one may just have written.
        let (path, value) = (format!("/keys/{}", number / 2), format!("value {}", number / 2));
        let stored = spinfer.send("PUT", &path, &[], value.as_bytes());
        assert_eq!(stored.status, 204, "request {number}: {}", stored.text());
        let found = spinfer.get(&path);
        assert_eq!((found.status, found.text()), (200, value), "request {number}");
    });
    assert_eq!(spinfer.get("/keys/nothing").status, 404);
    let body: Vec<u8> = (0..300_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
    let echoed = spinfer.post("/echo", &body);
    assert_eq!((echoed.status, echoed.body == body), (200, true));
    let response = spinfer.get("/self");
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.text().starts_with(&format!("200 Hello from {language}! ")));
    spinfer
}

#[test]
fn javascript_app_greets_stores_and_calls_itself() {
    let spinfer = greets_stores_and_calls_itself("hello-javascript.wasm", "JavaScript");
    // Its tools assume an instance for each request.
    assert_eq!(spinfer.get("/hello?fresh").text(), "Hello from JavaScript! 1");
    assert_eq!(spinfer.get("/stream").text(), "part 0\npart 1\npart 2\npart 3\npart 4\n");
}

#[test]
fn python_app_greets_stores_and_calls_itself() {
    greets_stores_and_calls_itself("hello-python.wasm", "Python");
}

#[test]
fn rust_app_of_sdk_5_greets_stores_and_calls_itself() {
    let spinfer = greets_stores_and_calls_itself("hello_rust_sdk_5.wasm", "Rust");
    assert_eq!(spinfer.get("/hello?fresh").text(), "Hello from Rust! 1");
}

#[test]
fn rust_app_of_sdk_6_greets_stores_and_calls_itself() {
    greets_stores_and_calls_itself("hello_rust_sdk_6.wasm", "Rust");
}
