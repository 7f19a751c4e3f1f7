//! A Redis that is as it should be but for what it says to look-ups: it costs an answer its time.

use std::io::Write;

use spinfer_benches::process::Process;
use spinfer_tests::{
    FaultScope, FaultyRedis, Launch, Manifest, RedisFault, Response, Spinfer, wait_until,
};

/// MiB over what it took before: two answers of 64 MiB in buffers that grow.
const MAX_MEMORY: f64 = 500.0;

fn is_hit(response: &Response) -> bool {
    assert_eq!(response.status, 200, "{response:?}");
    response.header("cache-status").is_some_and(|status| status.starts_with("spinfer; hit"))
}

/// Look-ups that came to nothing so far.
fn in_vain(spinfer: &Spinfer) -> u64 {
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
        spinfer.wait_for_log("the Redis answers");
        // From its first answer that is to be kept it is known that there are some.
        assert!(!is_hit(&spinfer.post("/cache/first?max-age=60", "")));
        let process = Process(spinfer.id());
        let before = process.resident().unwrap().total();
        let mut asked = 0;
        wait_until("it has lied three times", || {
            let path = format!("/cache/{asked}?max-age=60");
            asked += 1;
            let made = spinfer.post(&path, "");
            assert!(!is_hit(&made), "{fault:?}: {made:?}");
            let again = spinfer.post(&path, "");
            assert!(is_hit(&again) && again.body == made.body, "{fault:?}: {again:?}");
            in_vain(&spinfer) >= 3
        });
        let most = process.peak().unwrap() - before;
        let _ = writeln!(std::io::stderr(), "{fault:?}: {asked} asked, {most:.1} MiB more");
        assert!(most <= MAX_MEMORY, "{fault:?}: {most} MiB");
    }
}
