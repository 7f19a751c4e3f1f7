//! A Redis that is faulty only for lookups of the response cache.

use std::io::Write;

use spinfer_benches::process::Process;
use spinfer_tests::{
    FaultScope, FaultyRedis, Launch, Manifest, RedisFault, Response, Spinfer, wait_until,
};

/// Growth of resident memory, in MiB: two replies of 64 MiB in growing buffers.
const MAX_MEMORY: f64 = 500.0;

fn is_hit(response: &Response) -> bool {
    assert_eq!(response.status, 200, "{response:?}");
    response.header("cache-status").is_some_and(|status| status.starts_with("spinfer; hit"))
}

/// Number of lookups that failed or returned a foreign value.
fn failed_lookups(spinfer: &Spinfer) -> u64 {
    let metrics = spinfer.admin().send("GET", "/metrics", &[], b"").text();
    let of = |result: &str| -> u64 {
        let name = format!("spinfer_cache_redis_lookups_total{{result=\"{result}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&*name));
        value.unwrap_or_else(|| panic!("no {name}in {metrics}")).parse().unwrap()
    };
    of("failed") + of("foreign")
}

#[test]
fn faulty_redis_lookups_time_out_and_responses_are_computed() {
    for fault in RedisFault::ALL {
        let redis = FaultyRedis::start(fault, FaultScope::Get);
        let manifest = Manifest::default().with("/...", "probe", "probe", "");
        let config = format!("[cache]\nredis = '{}'\ntimeout = '100ms'\n", redis.url());
        let spinfer = Launch::new(&manifest).admin().runtime_config(&config).up();
        spinfer.wait_for_log("connected to Redis");
        // The first cacheable response enables lookups in Redis.
        assert!(!is_hit(&spinfer.post("/cache/first?max-age=60", "")));
        let process = Process(spinfer.id());
        let before = process.resident().unwrap().total();
        let mut requests = 0;
        wait_until("three lookups have failed", || {
            let path = format!("/cache/{requests}?max-age=60");
            requests += 1;
            let computed = spinfer.post(&path, "");
            assert!(!is_hit(&computed), "{fault:?}: {computed:?}");
            let again = spinfer.post(&path, "");
            assert!(is_hit(&again) && again.body == computed.body, "{fault:?}: {again:?}");
            failed_lookups(&spinfer) >= 3
        });
        let most = process.peak().unwrap() - before;
        let _ = writeln!(std::io::stderr(), "{fault:?}: {requests} asked, {most:.1} MiB more");
        assert!(most <= MAX_MEMORY, "{fault:?}: {most} MiB");
    }
}
