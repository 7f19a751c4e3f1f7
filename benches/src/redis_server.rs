//! A `redis-server` of a tool's own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use redis::{Client, Connection, FromRedisValue};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server that answers, and keeps nothing on disk. It ends when it is dropped.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    pub port: u16,
}

impl RedisServer {
    /// On a port that is free.
    pub fn start() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Self::start_at(port)
    }

    /// On this one.
    pub fn start_at(port: u16) -> Result<Self> {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server is missing: apt-get install redis-server")?;
        let server = Self { child, port };
        let end = Instant::now() + PATIENCE;
        while server.connect().is_err() {
            if Instant::now() > end {
                bail!("redis-server does not answer on port {port}");
            }
            std::thread::yield_now();
        }
        Ok(server)
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn connect(&self) -> Result<Connection> {
        Ok(Client::open(self.url())?.get_connection()?)
    }

    /// The answer to a command.
    pub fn ask<T: FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        Ok(redis::cmd(command[0]).arg(&command[1..]).query(&mut self.connect()?)?)
    }

    /// `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let id = self.child.id().to_string();
        let status = Command::new("kill").arg(format!("-{signal}")).arg(id).status()?;
        if !status.success() {
            bail!("kill -{signal} failed");
        }
        Ok(())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
