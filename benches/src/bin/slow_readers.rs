//! Latency of small requests next to clients that each send 1 MB and read nothing of a response of 13 MB
//! on the same route. Prints Markdown.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use spinfer_benches::application::{Application, root};
use spinfer_benches::client::{Connection, get};
use spinfer_benches::machine;
use spinfer_benches::server::{Server, spinfer};

#[derive(Parser)]
struct Options {
    /// Number of clients that do not read
    #[arg(long, default_value_t = 120)]
    slow: usize,
    /// Number of clients with small requests, and number of requests of each
    #[arg(long, num_args = 2, default_values_t = [8, 250])]
    small: Vec<usize>,
    /// Maximum p99 of the small requests, in milliseconds; above it the tool fails
    #[arg(long, default_value_t = 100.0)]
    max_p99: f64,
}

/// Size of the request body and of the response body of a slow reader, in bytes.
const SENT: usize = 1_000_000;
const UNREAD: usize = 13_000_000;

/// The doors, with the component and the setting of each.
const DOORS: [(&str, &str, &str); 3] = [
    ("fast door", "probe", ""),
    ("`wasi:http` 0.3", "probe", "tool.spinfer.door = 'standard'"),
    ("`wasi:http` 0.2", "hello_p2", ""),
];

fn main() -> Result<()> {
    let Options { slow, small, max_p99 } = Options::parse();
    let mut out = std::io::stdout().lock();
    let [clients, requests] = [small[0], small[1]];
    writeln!(
        out,
        "{slow} slow readers, {clients} clients with {requests} small requests each, {}\n",
        machine()?
    )?;
    writeln!(
        out,
        "| door | slow readers | p50 | p99 | maximum |\n| --- | --- | --- | --- | --- |"
    )?;
    let dir = tempfile::tempdir()?;
    let mut worst = 0.0_f64;
    for (door, component, settings) in DOORS {
        let source =
            root().join(format!("target/components/wasm32-wasip2/component/{component}.wasm"));
        let manifest = Application::new("")
            .and(&format!(
                "[[trigger.http]]\nroute = '/...'\ncomponent = 'guest'\n\
                 [component.guest]\nsource = '{}'\n{settings}\n",
                source.display()
            ))
            .write(dir.path(), component)?;
        let server = Server::start(&mut spinfer(&manifest)?)?;
        for slow in [0, slow] {
            for _ in 0..slow {
                let mut stream = TcpStream::connect(server.address)?;
                // A queued request is read later. The connection stays open until the tool exits.
                std::thread::spawn(move || {
                    let _ = stream.write_all(&large_request());
                    std::thread::park();
                });
            }
            let mut latencies = latencies(&server, small[0], small[1])?;
            latencies.sort_unstable();
            let at = |quantile: f64| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "small"
                )]
                let index = (latencies.len() as f64 * quantile) as usize;
                latencies[index.min(latencies.len() - 1)].as_secs_f64() * 1e3
            };
            let (p50, p99, longest) = (at(0.5), at(0.99), at(1.0));
            writeln!(out, "| {door} | {slow} | {p50:.1} ms | {p99:.1} ms | {longest:.1} ms |")?;
            worst = worst.max(if slow > 0 { p99 } else { 0.0 });
        }
    }
    ensure!(worst <= max_p99, "p99 is {worst:.1} ms, the maximum is {max_p99} ms");
    Ok(())
}

fn large_request() -> Vec<u8> {
    let head =
        format!("POST /large?{UNREAD} HTTP/1.1\r\nhost: x\r\ncontent-length: {SENT}\r\n\r\n");
    [head.as_bytes(), &vec![b'x'; SENT]].concat()
}

/// The latencies of all small requests.
fn latencies(server: &Server, clients: usize, requests: usize) -> Result<Vec<Duration>> {
    let client = || -> Result<Vec<Duration>> {
        let mut connection = Connection::open(server.address)?;
        let request = get("/large?1");
        let mut latencies = Vec::with_capacity(requests);
        for _ in 0..requests {
            let start = Instant::now();
            let status = connection.send(&request)?.status;
            ensure!(status == 200, "a small request: {status}");
            latencies.push(start.elapsed());
        }
        Ok(latencies)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok(all)
    })
}
