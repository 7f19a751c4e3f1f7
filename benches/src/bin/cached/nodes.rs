//! Invalidation messages between nodes, and their costs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use spinfer_benches::client::Connection;
use spinfer_benches::median;
use spinfer_benches::redis_server::RedisServer;
use spinfer_benches::server::{Server, spinfer_caching};

use super::hits::{distinct_request, manifest};

/// Timeout of an invalidation.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Time until another node no longer serves an invalidated response.
pub(super) fn invalidation(out: &mut impl Write, dir: &Path) -> Result<()> {
    const TIMES: u64 = 200;
    let redis = RedisServer::start()?;
    let settings = format!("redis = '{}'\ntimeout = '1s'", redis.url());
    let server = Server::start(&mut spinfer_caching(&manifest(dir)?, &settings, dir)?)?;
    let mut connection = Connection::open(server.address)?;
    let only_if_cached = String::from_utf8(distinct_request(0))?.replacen(
        "host:",
        "cache-control: only-if-cached\r\nhost:",
        1,
    );
    let mut node = redis.connect()?;
    let mut took = Vec::new();
    for number in 1..=TIMES {
        connection.send(&distinct_request(0))?;
        let stored = Instant::now();
        while !connection.send(&distinct_request(0))?.hit {
            if stored.elapsed() > TIMEOUT {
                bail!("a response is not cached");
            }
        }
        let start = Instant::now();
        let invalidate =
            redis::cmd("HSET").arg("spinfer:generations").arg("everything").arg(number).take();
        let _: usize = invalidate.query(&mut node)?;
        while connection.send(only_if_cached.as_bytes())?.hit {
            if start.elapsed() > TIMEOUT {
                bail!("a node does not apply an invalidation");
            }
        }
        took.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let max = took.iter().copied().fold(0.0, f64::max);
    writeln!(
        out,
        "\nAfter an invalidation on one node, another serves the response for {:.2} ms (median of {TIMES}; \
         maximum {max:.2}), the last request included.",
        median(took)
    )?;
    Ok(())
}

/// A client of Redis that reads and discards its messages.
struct TrackingClient(TcpStream);

impl TrackingClient {
    fn connect(redis: &RedisServer, commands: &[String]) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port))?;
        for command in [&["HELLO 3".to_owned()], commands].concat() {
            stream.write_all(format!("{command}\r\n").as_bytes())?;
        }
        let mut reader = stream.try_clone()?;
        std::thread::spawn(move || {
            let mut messages = [0; 64 << 10];
            while reader.read(&mut messages).is_ok_and(|read| read > 0) {}
        });
        Ok(Self(stream))
    }
}

impl Drop for TrackingClient {
    fn drop(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// Processor time of Redis for each stored response, by mode of client tracking.
pub(super) fn tracking(out: &mut impl Write) -> Result<()> {
    const NODES: usize = 8;
    const KEYS: usize = 10_000;
    let value = vec![7_u8; 400];
    let reads: Vec<String> = (0..KEYS).map(|key| format!("GET spinfer:{key}")).collect();
    let on = |how: &str| format!("CLIENT TRACKING ON {how}").trim_end().to_owned();
    let none: Vec<String> = Vec::new();
    writeln!(
        out,
        "\n| {NODES} nodes track | CPU us of Redis per stored response |\n| --- | --- |"
    )?;
    for (name, commands) in [
        ("nothing", none),
        ("the generations (as spinfer does)", vec![on("BCAST PREFIX spinfer:generations")]),
        ("each response that they have read", [vec![on("")], reads].concat()),
        ("all responses, by their prefix", vec![on("BCAST PREFIX spinfer:")]),
    ] {
        let redis = RedisServer::start()?;
        let mut connection = redis.connect()?;
        let store = |connection: &mut redis::Connection| -> Result<()> {
            for keys in (0..KEYS).collect::<Vec<_>>().chunks(100) {
                let mut pipe = redis::pipe();
                for key in keys {
                    pipe.cmd("SET").arg(format!("spinfer:{key}")).arg(&value[..]).ignore();
                }
                let () = pipe.query(connection)?;
            }
            Ok(())
        };
        store(&mut connection)?;
        let nodes = (0..NODES).map(|_| TrackingClient::connect(&redis, &commands));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        // Redis has processed the commands of all nodes before it processes the next ones.
        let wait_for = |expected: usize| -> Result<()> {
            let start = Instant::now();
            while processed(&redis)? < expected {
                if start.elapsed() > TIMEOUT {
                    bail!("Redis does not process the commands");
                }
            }
            Ok(())
        };
        wait_for(KEYS + NODES * commands.len())?;
        let before = cpu(&redis)?;
        store(&mut connection)?;
        let us = (cpu(&redis)? - before) * 1e6 / KEYS as f64;
        writeln!(out, "| {name} | {us:.1} |")?;
        drop(nodes);
    }
    Ok(())
}

/// A number of Redis's INFO.
fn info(redis: &RedisServer, section: &str, field: &str) -> Result<f64> {
    let info: String = redis.query(&["INFO", section])?;
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("INFO has no {field}"))?.trim().parse()?)
}

/// Processor time of Redis so far, in seconds.
fn cpu(redis: &RedisServer) -> Result<f64> {
    Ok(info(redis, "cpu", "used_cpu_user")? + info(redis, "cpu", "used_cpu_sys")?)
}

/// Number of commands that Redis has processed.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn processed(redis: &RedisServer) -> Result<usize> {
    Ok(info(redis, "stats", "total_commands_processed")? as usize)
}
