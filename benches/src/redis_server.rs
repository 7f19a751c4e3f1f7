//! Starts a `redis-server`.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use redis::{Client, Connection, FromRedisValue};

/// Timeout of the start.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running server without persistence. It is killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    pub port: u16,
}

impl RedisServer {
    /// Starts a server on a free port.
    ///
    /// # Errors
    /// If it does not accept connections.
    pub fn start() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Self::start_at(port)
    }

    /// Starts a server on `port`.
    ///
    /// # Errors
    /// If it does not accept connections.
    pub fn start_at(port: u16) -> Result<Self> {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server is not installed: apt-get install redis-server")?;
        let server = Self { child, port };
        let end = Instant::now() + TIMEOUT;
        while server.connect().is_err() {
            if Instant::now() > end {
                bail!("redis-server does not accept connections on port {port}");
            }
            std::thread::yield_now();
        }
        Ok(server)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// If the server does not accept it.
    pub fn connect(&self) -> Result<Connection> {
        Ok(Client::open(self.url())?.get_connection()?)
    }

    /// Sends a command and returns the reply.
    ///
    /// # Errors
    /// If the reply is an error, or of another type.
    pub fn query<T: FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        Ok(redis::cmd(command[0]).arg(&command[1..]).query(&mut self.connect()?)?)
    }

    /// Sends the process a signal: `STOP` or `CONT`.
    ///
    /// # Errors
    /// If `kill` fails.
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
