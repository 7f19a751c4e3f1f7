//! What nodes tell each other, and what that costs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use spinfer_benches::client::Connection;
use spinfer_benches::median;
use spinfer_benches::redis_server::RedisServer;
use spinfer_benches::server::{Server, spinfer_caching};

use super::hits::{manifest, question};

/// Longer, and a node has not heard of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How soon another node does not give any more what is forgotten.
pub(super) fn forgetting(out: &mut impl Write, dir: &Path) -> Result<()> {
    const TIMES: u64 = 200;
    let redis = RedisServer::start()?;
    let settings = format!("redis = '{}'\ntimeout = '1s'", redis.url());
    let server = Server::start(&mut spinfer_caching(&manifest(dir)?, &settings, dir)?)?;
    let mut connection = Connection::open(server.address)?;
    let only_if_cached = String::from_utf8(question(0))?.replacen(
        "host:",
        "cache-control: only-if-cached\r\nhost:",
        1,
    );
    let mut node = redis.connect()?;
    let mut took = Vec::new();
    for number in 1..=TIMES {
        connection.send(&question(0))?;
        let began = Instant::now();
        while !connection.send(&question(0))?.hit {
            if began.elapsed() > PATIENCE {
                bail!("an answer is not kept");
            }
        }
        let start = Instant::now();
        let told =
            redis::cmd("HSET").arg("spinfer:generations").arg("everything").arg(number).take();
        let _: usize = told.query(&mut node)?;
        while connection.send(only_if_cached.as_bytes())?.hit {
            if start.elapsed() > PATIENCE {
                bail!("a node does not hear what is forgotten");
            }
        }
        took.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let longest = took.iter().copied().fold(0.0, f64::max);
    writeln!(
        out,
        "\nForgotten on one node, it is given by another for {:.2} ms more (median of {TIMES}; the \
         longest {longest:.2}), the question included.",
        median(took)
    )?;
    Ok(())
}

/// A client that is told what changes, and takes what it is told.
struct Told(TcpStream);

impl Told {
    fn connect(redis: &RedisServer, commands: &[String]) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port))?;
        for command in [&["HELLO 3".to_owned()], commands].concat() {
            stream.write_all(format!("{command}\r\n").as_bytes())?;
        }
        let mut reader = stream.try_clone()?;
        std::thread::spawn(move || {
            let mut heard = [0; 64 << 10];
            while reader.read(&mut heard).is_ok_and(|read| read > 0) {}
        });
        Ok(Self(stream))
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// Of the server's processor time, for each answer that is stored.
pub(super) fn tracking(out: &mut impl Write) -> Result<()> {
    const NODES: usize = 8;
    const KEYS: usize = 10_000;
    let value = vec![7_u8; 400];
    let reads: Vec<String> = (0..KEYS).map(|key| format!("GET spinfer:{key}")).collect();
    let on = |how: &str| format!("CLIENT TRACKING ON {how}").trim_end().to_owned();
    let none: Vec<String> = Vec::new();
    writeln!(
        out,
        "\n| {NODES} nodes are told of | us of the server's time for each answer stored |\n| --- | --- |"
    )?;
    for (name, commands) in [
        ("nothing", none),
        ("the generations (as it is)", vec![on("BCAST PREFIX spinfer:generations")]),
        ("each answer they have asked for", [vec![on("")], reads].concat()),
        ("every answer, by its prefix", vec![on("BCAST PREFIX spinfer:")]),
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
        let nodes = (0..NODES).map(|_| Told::connect(&redis, &commands));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        // All of them are heard: what they asked for is answered before what is asked now.
        let hear = |expected: usize| -> Result<()> {
            let start = Instant::now();
            while processed(&redis)? < expected {
                if start.elapsed() > PATIENCE {
                    bail!("the server does not answer");
                }
            }
            Ok(())
        };
        hear(KEYS + NODES * commands.len())?;
        let before = cpu(&redis)?;
        store(&mut connection)?;
        let us = (cpu(&redis)? - before) * 1e6 / KEYS as f64;
        writeln!(out, "| {name} | {us:.1} |")?;
        drop(nodes);
    }
    Ok(())
}

fn info(redis: &RedisServer, section: &str, field: &str) -> Result<f64> {
    let info: String = redis.ask(&["INFO", section])?;
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("INFO has no {field}"))?.trim().parse()?)
}

fn cpu(redis: &RedisServer) -> Result<f64> {
    Ok(info(redis, "cpu", "used_cpu_user")? + info(redis, "cpu", "used_cpu_sys")?)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn processed(redis: &RedisServer) -> Result<usize> {
    Ok(info(redis, "stats", "total_commands_processed")? as usize)
}
