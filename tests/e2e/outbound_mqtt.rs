//! Outbound MQTT: every interface at every quality of service, and brokers that are denied, unreachable,
//! silent or restarted.

use std::net::TcpListener;

use spinfer_tests::{Launch, Manifest, Mosquitto, Spinfer, wait_until};

const INTERFACES: [&str; 2] = ["/new/mqtt", "/older/mqtt"];

fn up(address: &str) -> Spinfer {
    launch(address).up()
}

fn launch(address: &str) -> Launch {
    let settings = format!("allowed_outbound_hosts = [\"{address}\"]");
    let manifest = Manifest::default().with("/new/...", "new", "stores", &settings);
    Launch::new(&manifest.with("/older/...", "older", "stores_older", &settings))
}

/// The result of each line of a script.
fn run_script(spinfer: &Spinfer, path: &str, script: &[&str]) -> Vec<String> {
    let response = spinfer.post(path, script.join("\n"));
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    let lines: Vec<_> = response.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), script.len(), "{path}: {lines:?}");
    lines
}

#[test]
fn mqtt_messages_are_published_at_every_quality_of_service() {
    let broker = Mosquitto::start();
    let spinfer = up(&broker.address());
    let messages = broker.subscribe("news/#");
    for path in INTERFACES {
        for address in [broker.address(), format!("{}?client_id=it", broker.address())] {
            let open = format!("open {address} - - 30");
            let publish = ["publish 0 news/a zero", "publish 1 news/b one", "publish 2 news/c two"];
            let results = run_script(&spinfer, path, &[&[&*open], &publish[..]].concat());
            assert_eq!(results, ["ok"; 4], "{path}");
            let received = [messages.next(), messages.next(), messages.next()];
            assert_eq!(received, ["news/a=zero", "news/b=one", "news/c=two"], "{path}");
        }
        let results = run_script(
            &spinfer,
            path,
            &[&format!("open {} - - 30", broker.address()), "fill 1 news/large 1000000"],
        );
        assert_eq!(results, ["ok"; 2], "{path}");
        assert_eq!(messages.next().len(), "news/large=".len() + 1_000_000, "{path}");
    }
}

#[test]
fn mqtt_errors_map_to_their_variants() {
    let broker = Mosquitto::with_user("me", "secret");
    let spinfer = up(&broker.address());
    let open = |user: &str| format!("open {} {user} 30", broker.address());
    for path in INTERFACES {
        let script = [&*open("me secret"), "publish 1 a b", "publish 1 a/# b"];
        let results = run_script(&spinfer, path, &script);
        assert_eq!(results[..2], ["ok", "ok"], "{path}");
        assert_eq!(results[2], "Error::Other(\"the topic is not valid\")", "{path}");
        for user in ["me wrong", "- -"] {
            let refused = run_script(&spinfer, path, &[&*open(user), "publish 1 a b"]).remove(1);
            assert!(refused.starts_with("Error::ConnectionFailed("), "{path}: {refused}");
            assert!(!refused.contains("wrong"), "{path}: {refused}");
        }
        let results = run_script(
            &spinfer,
            path,
            &[
                "open mqtt://localhost:1 - - 30",
                "open http://127.0.0.1 - - 30",
                "open mqtts://127.0.0.1 - - 30",
            ],
        );
        let part =
            "Error::ConnectionFailed(\"mqtt://localhost:1 is not in allowed_outbound_hosts\")";
        assert_eq!(results, [part, "Error::InvalidAddress", "Error::InvalidAddress"], "{path}");
    }
    let blocked = "[outbound_networking]\nblock_networks = [\"private\"]";
    let spinfer = launch(&broker.address()).runtime_config(blocked).up();
    for path in INTERFACES {
        let script = [&*open("me secret"), "publish 0 a b"];
        let refused = run_script(&spinfer, path, &script).remove(1);
        assert!(refused.starts_with("Error::ConnectionFailed("), "{path}: {refused}");
    }
}

#[test]
fn unavailable_or_silent_broker_is_an_error_until_it_returns() {
    let mut broker = Mosquitto::start();
    let spinfer = up(&broker.address());
    let open = format!("open {} - - 30", broker.address());
    for path in INTERFACES {
        broker.kill();
        let refused = run_script(&spinfer, path, &[&*open, "publish 0 a b"]).remove(1);
        assert!(refused.starts_with("Error::ConnectionFailed("), "{path}: {refused}");
        broker.restart();
        wait_until("messages are published again", || {
            run_script(&spinfer, path, &[&*open, "publish 1 a b"]) == ["ok", "ok"]
        });
    }
    // It accepts connections, and is silent.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("mqtt://{}", silent.local_addr().unwrap());
    let spinfer = up(&address);
    for path in INTERFACES {
        let script = [&*format!("open {address} - - 30"), "publish 0 a b"];
        let refused = run_script(&spinfer, path, &script).remove(1);
        assert!(refused.starts_with("Error::ConnectionFailed("), "{path}: {refused}");
    }
}
