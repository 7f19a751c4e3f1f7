//! Guardrails: a variant that fails is taken out of traffic by the hosts themselves, and stays out.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use spinfer_tests::{Redis, Spinfer, wait_until};

use super::ramps::{command, command_refused};
use super::{BY_HEADER, ExperimentApp, GRANTS, experiment, variant};

/// Maximum time from a breach being detectable until the treatment serves no more requests.
const MAX_OUT: Duration = Duration::from_secs(5);
/// Requests after which a treatment that fails all of them is known to: the table of guardrails in
/// docs/verdicts.md.
const DETECTABLE: usize = 100;

/// An experiment whose treatment fails every request with a number that 5 divides.
fn app() -> ExperimentApp {
    let guardrail =
        "guardrails = [{ metric = \"error_rate\", max_increase = 0.01, window = \"30s\" }]\n";
    let experiments = experiment("x", BY_HEADER, 0.5)
        .replacen("unit = ", &format!("{guardrail}unit = "), 1)
        .replace("component = \"two\"", "component = \"three\"");
    ExperimentApp::new(&experiments, GRANTS)
        .with("three", "environment = { SICK = \"trap-fifth\" }")
}

fn app_on(redis: &Redis) -> ExperimentApp {
    let mut app = app();
    app.config =
        format!("[key_value_store.default]\ntype = \"redis\"\nurl = \"{}\"\n", redis.url());
    app
}

/// Requests of many users, of which the treatment fails a share, until they are stopped.
struct Traffic<'a> {
    hosts: &'a [&'a Spinfer],
    running: AtomicBool,
    /// Whether a share of the requests is one that the treatment fails.
    sick: AtomicBool,
    /// Number of requests per one that the treatment fails.
    one_in: usize,
    /// Requests that the treatment served.
    treated: AtomicUsize,
    /// Errors that clients of control saw.
    control_errors: AtomicUsize,
}

impl<'a> Traffic<'a> {
    fn new(hosts: &'a [&'a Spinfer]) -> Self {
        Self {
            hosts,
            running: AtomicBool::new(true),
            sick: AtomicBool::new(true),
            one_in: 20,
            treated: AtomicUsize::new(0),
            control_errors: AtomicUsize::new(0),
        }
    }

    fn send(&self, host: &Spinfer) {
        let client = host.client();
        for index in 0_usize.. {
            if !self.running.load(Ordering::SeqCst) {
                break;
            }
            // The two hashes of a user are independent, so each variant has the same share.
            let is_sick =
                self.sick.load(Ordering::SeqCst) && (index / 2).is_multiple_of(self.one_in);
            let path = format!("/v2/models/x/sick?{}", if is_sick { 5 } else { 1 });
            let user = format!("user-{index}");
            let response = client.send("POST", &path, &[("x-user-id", &user)], b"body");
            let is_treated = response.header("spinfer-variant") == Some("treatment");
            if is_treated {
                self.treated.fetch_add(1, Ordering::SeqCst);
            } else if response.status >= 500 {
                self.control_errors.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Runs `check` while clients send requests to every host.
    fn during(&self, check: impl FnOnce(&Self)) {
        thread::scope(|scope| {
            for host in self.hosts {
                scope.spawn(|| self.send(host));
            }
            let stopped = Stop(&self.running);
            check(self);
            drop(stopped);
        });
        assert_eq!(self.control_errors.load(Ordering::SeqCst), 0, "clients of control saw errors");
    }

    /// Waits until the treatment serves no request for a second. Returns when it has served the last one.
    fn wait_until_untreated(&self) -> Instant {
        let mut last = (self.treated.load(Ordering::SeqCst), Instant::now());
        wait_until("the treatment is out of traffic", || {
            let treated = self.treated.load(Ordering::SeqCst);
            if treated != last.0 {
                last = (treated, Instant::now());
            }
            last.1.elapsed() > Duration::from_secs(1)
        });
        last.1
    }
}

/// Stops the traffic, also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

fn shown(host: &Spinfer) -> Value {
    host.admin().send("GET", "/experiments/x", &[], b"").json()
}

fn is_rolled_back(host: &Spinfer) -> bool {
    shown(host)["assessment"]["verdict"]["state"] == "rolled_back"
}

fn rollbacks(host: &Spinfer) -> Vec<Value> {
    let journal = host.admin().send("GET", "/experiments/x/journal", &[], b"").json();
    let entries = journal.as_array().unwrap().iter();
    entries.filter(|entry| entry["kind"] == "rolled_back").cloned().collect()
}

#[test]
fn version_with_five_per_cent_of_errors_is_out_within_seconds_and_returns_by_an_operator_only() {
    let host = app().up();
    let hosts = [&host];
    let traffic = Traffic::new(&hosts);
    traffic.during(|traffic| {
        let mut detected = None;
        wait_until("the breach is detected", || {
            let found = is_rolled_back(&host);
            if found {
                detected = Some(Instant::now());
            }
            found
        });
        let before = traffic.treated.load(Ordering::SeqCst);
        let last = traffic.wait_until_untreated();
        let out = last.saturating_duration_since(detected.unwrap());
        let more = traffic.treated.load(Ordering::SeqCst) - before;
        println!("out of traffic {out:?} after the rollback was seen, {more} requests later");
        assert!(out < MAX_OUT, "out of traffic {out:?} after the rollback was seen");

        // A guardrail that would hold again does not bring the variant back.
        traffic.sick.store(false, Ordering::SeqCst);
        let treated = traffic.treated.load(Ordering::SeqCst);
        let requests = || shown(&host)["assessment"]["variants"][0]["requests"].as_u64().unwrap();
        let start = requests();
        wait_until("control serves a thousand more requests", || requests() > start + 1000);
        assert_eq!(traffic.treated.load(Ordering::SeqCst), treated);
        let refused = command_refused(&host, &["ramp", "x", "treatment=0.5"]);
        assert!(refused.contains("was rolled back (guardrail error_rate"), "{refused}");
        // A start would resume nothing, as the treatment has no share.
        let refused = command_refused(&host, &["start", "x"]);
        assert!(refused.contains("ramp x treatment=<share> --resume` brings it back"), "{refused}");
        assert!(is_rolled_back(&host), "the mark stays");
        command(&host, &["ramp", "x", "treatment=0.5", "--resume"]);
        wait_until("the variant is back", || traffic.treated.load(Ordering::SeqCst) > treated);
    });
    assert_eq!(rollbacks(&host).len(), 1);
    let text = command(&host, &["journal", "x"]);
    assert!(text.contains("rolled back") && text.contains("guardrail error_rate"), "{text}");
    assert!(text.contains("operator") && text.contains("resumed: "), "{text}");
    assert!(!text.contains("rolled back treatment"), "a rollback has one entry: {text}");
}

/// The time from a breach being detectable to zero traffic on all `hosts`: every request that the
/// treatment serves fails, from a known moment on.
fn check_time_to_zero_traffic(hosts: &[&Spinfer]) {
    let sick = AtomicBool::new(false);
    let traffic = Traffic { one_in: 1, sick, ..Traffic::new(hosts) };
    traffic.during(|traffic| {
        let holds = |host: &Spinfer| shown(host)["assessment"]["guardrails"][0]["state"] == "holds";
        wait_until("the guardrail holds", || hosts.iter().all(|host| holds(host)));
        let before = traffic.treated.load(Ordering::SeqCst);
        traffic.sick.store(true, Ordering::SeqCst);
        wait_until("the breach is detectable", || {
            let failed = traffic.treated.load(Ordering::SeqCst) - before;
            failed >= DETECTABLE || is_rolled_back(hosts[0])
        });
        let detectable = Instant::now();
        let last = traffic.wait_until_untreated();
        let treated = traffic.treated.load(Ordering::SeqCst);
        wait_until("every host shows the rollback", || {
            hosts.iter().all(|host| is_rolled_back(host))
        });
        assert_eq!(traffic.treated.load(Ordering::SeqCst), treated, "out of traffic for good");
        let out = last.saturating_duration_since(detectable);
        let hosts = hosts.len();
        let _ = writeln!(
            std::io::stderr(),
            "hosts: {hosts}; zero traffic {out:?} after the breach was detectable"
        );
        assert!(out < MAX_OUT, "zero traffic {out:?} after the breach was detectable");
    });
}

#[test]
fn breach_is_out_of_traffic_within_seconds_of_being_detectable() {
    let host = app().up();
    check_time_to_zero_traffic(&[&host]);
}

#[test]
fn breach_is_out_of_the_traffic_of_two_hosts_within_seconds_of_being_detectable() {
    let redis = Redis::start();
    let (a, b) = (app_on(&redis).up(), app_on(&redis).up());
    check_time_to_zero_traffic(&[&a, &b]);
}

/// The treatment is sick and well in turn, before and after it is out of traffic.
#[test]
fn flapping_guardrail_does_not_flap_traffic() {
    const TURN: u64 = 200;
    let host = app().up();
    let hosts = [&host];
    let traffic = Traffic { one_in: 4, ..Traffic::new(&hosts) };
    let mut shares: Vec<f64> = Vec::new();
    traffic.during(|traffic| {
        let mut out = None;
        wait_until("six more turns after the rollback", || {
            let found = shown(&host);
            let share = found["variants"][1]["allocation"].as_f64().unwrap();
            if shares.last() != Some(&share) {
                shares.push(share);
            }
            let requests = &found["assessment"]["variants"][0]["requests"];
            let requests = requests.as_u64().unwrap_or_default();
            traffic.sick.store((requests / TURN).is_multiple_of(2), Ordering::SeqCst);
            if share == 0.0 {
                out.get_or_insert(requests);
            }
            out.is_some_and(|out| requests > out + 6 * TURN)
        });
        let treated = traffic.treated.load(Ordering::SeqCst);
        traffic.wait_until_untreated();
        assert_eq!(traffic.treated.load(Ordering::SeqCst), treated, "it stays out");
    });
    assert_eq!(shares, [0.5, 0.0]);
    assert_eq!(rollbacks(&host).len(), 1);
}

#[test]
fn two_hosts_on_one_redis_agree_and_one_that_dies_does_not_stop_the_other() {
    let redis = Redis::start();
    let (a, b) = (app_on(&redis).up(), app_on(&redis).up());
    {
        let hosts = [&a, &b];
        let traffic = Traffic::new(&hosts);
        traffic.during(|traffic| {
            let mut first = None;
            wait_until("both hosts have rolled the variant back", || {
                let found = [is_rolled_back(&a), is_rolled_back(&b)];
                if found.contains(&true) {
                    first.get_or_insert_with(Instant::now);
                }
                found == [true; 2]
            });
            let last = traffic.wait_until_untreated();
            let out = last.saturating_duration_since(first.unwrap());
            println!("two hosts: zero traffic {out:?} after the rollback was first seen");
            assert!(out < MAX_OUT, "zero traffic {out:?} after the rollback was first seen");
        });
    }
    let entries = rollbacks(&a);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(rollbacks(&b), entries);
    let variants = shown(&a)["assessment"]["variants"].clone();
    assert!(variants[0]["requests"].as_u64() > Some(100), "{variants}");

    drop(b); // SIGKILL
    command(&a, &["ramp", "x", "treatment=0.5", "--resume"]);
    let hosts = [&a];
    Traffic::new(&hosts).during(|traffic| {
        wait_until("the variant is back", || traffic.treated.load(Ordering::SeqCst) > 0);
        wait_until("the other host rolls it back alone", || rollbacks(&a).len() == 2);
        traffic.wait_until_untreated();
    });
}

#[test]
fn journal_and_rollback_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let durable = || {
        let mut app = app();
        app.config.clear();
        app.up_in(folder)
    };
    let host = durable();
    {
        let hosts = [&host];
        Traffic::new(&hosts)
            .during(|_| wait_until("the breach is detected", || is_rolled_back(&host)));
    }
    let before = rollbacks(&host);
    drop(host); // SIGKILL
    let host = durable();
    assert_eq!(rollbacks(&host), before);
    let client = host.client();
    for user in 0..20 {
        let user = format!("user-{user}");
        let response = client.send("POST", "/v2/models/x/sick?1", &[("x-user-id", &user)], b"body");
        assert_eq!(variant(&response), "control");
    }
}

#[test]
fn canary_goes_through_its_steps() {
    let experiments = experiment("x", BY_HEADER, 0.5)
        .replacen(
            "unit = ",
            "kind = \"canary\"\nsteps = [{ allocation = 0.1, hold = \"1s\" }, { allocation = 1.0, \
             hold = \"1s\" }]\nunit = ",
            1,
        )
        .replace("allocation = 0.5\n", "\n");
    let host = ExperimentApp::new(&experiments, GRANTS).up();
    wait_until("the canary is complete", || {
        command(&host, &["journal", "x"]).contains("complete after 2 steps")
    });
    let text = command(&host, &["journal", "x"]);
    assert!(text.contains("step 1 of 2: treatment 10.0 %, held for 1s"), "{text}");
    let client = host.client();
    wait_until("the treatment serves every user", || {
        (0..20).all(|user| {
            let user = format!("user-{user}");
            let path = "/v2/models/x/environment?NAME";
            variant(&client.send("GET", path, &[("x-user-id", &user)], b"")) == "treatment"
        })
    });
}
