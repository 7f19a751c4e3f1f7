//! Units that the router assigns, in a signed cookie.

use std::collections::BTreeSet;

use spinfer_tests::{Client, STANDARD_DOOR, Spinfer};

use super::{ExperimentApp, GRANTS, experiment, variant};

const UNIT: &str = "{ assigned_cookie = \"spinfer-unit\", max_age = \"30d\" }";

fn settings(key: &str) -> String {
    format!("{GRANTS}variables.cookie_key = \"{key}\"\n")
}

fn up(key: &str, door: &str) -> Spinfer {
    let experiments = experiment("x", UNIT, 0.5);
    ExperimentApp::new(&experiments, &format!("{}{door}", settings(key))).up()
}

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// The variant of a client with this cookie, and the cookie that is set.
fn send(client: &Client, cookie: Option<&str>) -> (String, Option<String>) {
    let headers: Vec<_> = cookie.map(|cookie| ("cookie", cookie)).into_iter().collect();
    let response = client.send("GET", "/v2/models/x/environment?NAME", &headers, b"");
    let set = response.headers("set-cookie");
    assert!(set.len() <= 1, "{response:?}");
    (variant(&response).to_owned(), set.first().map(|cookie| (*cookie).to_owned()))
}

/// The `name=value` of a `Set-Cookie`.
fn pair(set: &str) -> &str {
    let (pair, attributes) = set.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax");
    pair
}

#[test]
fn client_without_a_cookie_is_assigned_one_and_keeps_its_variant() {
    for door in ["", STANDARD_DOOR] {
        let nodes = [up(KEY, door), up(KEY, door)];
        let clients = nodes.each_ref().map(Spinfer::client);
        let mut seen = BTreeSet::new();
        let mut pairs = BTreeSet::new();
        for _ in 0..20 {
            let (first, set) = send(&clients[0], None);
            let set = set.expect("a cookie");
            let cookie = format!("a=b; {}", pair(&set));
            for client in &clients {
                assert_eq!(send(client, Some(&cookie)), (first.clone(), None), "on all nodes");
            }
            seen.insert(first);
            pairs.insert(pair(&set).to_owned());
        }
        assert_eq!((seen.len(), pairs.len()), (2, 20), "random ids");
    }
}

#[test]
fn forged_and_altered_cookies_are_replaced() {
    for door in ["", STANDARD_DOOR] {
        let [spinfer, other] = [up(KEY, door), up("another key of at least 16 bytes", door)];
        let [client, other] = [spinfer.client(), other.client()];
        let (_, set) = send(&client, None);
        let set = set.expect("a cookie");
        let cookie = pair(&set);
        let (name, value) = cookie.split_once('=').unwrap();
        let digit = if value.starts_with('0') { '1' } else { '0' };
        for forged in [
            "spinfer-unit=ann".to_owned(),
            format!("{name}={digit}{}", &value[1..]),
            format!("{name}={}", &value[..32]),
            format!("{name}={}", value.to_uppercase()),
        ] {
            let (_, replaced) = send(&client, Some(&forged));
            let replaced = replaced.unwrap_or_else(|| panic!("{forged} is accepted"));
            assert_ne!(pair(&replaced), cookie);
        }
        assert!(send(&other, Some(cookie)).1.is_some(), "signed with another key");
        assert_eq!(send(&client, Some(cookie)).1, None);
    }
}

#[test]
fn cookie_without_a_key_is_refused_at_startup() {
    let experiments = experiment("x", UNIT, 0.5);
    let output = ExperimentApp::new(&experiments, GRANTS).refused();
    let expected = "experiments.x.unit.assigned_cookie: there is no key to sign the cookie with; write \
                    cookie_key = \"{{ cookie_key }}\" under [component.ab-router.variables]";
    assert!(output.contains(expected), "{output}");
    let output = ExperimentApp::new(&experiments, &settings("short")).refused();
    let expected = "component.ab-router.variables.cookie_key: a key of 5 bytes is too short";
    assert!(output.contains(expected), "{output}");
}
