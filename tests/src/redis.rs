//! A `redis-server` for one test, on a free port. `SPINFER_TEST_REDIS` is the path of another program, such
//! as an older version or Valkey.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use redis::{Client, Connection, FromRedisValue};

use crate::PATIENCE;

/// A server process and its data, which are removed on drop.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    dir: tempfile::TempDir,
}

impl Redis {
    /// A server without persistence.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// [`Redis::start`] with more arguments.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let arguments: Vec<_> = arguments.iter().map(|word| (*word).to_owned()).collect();
        // Another process may take the port before the server binds it.
        for _ in 0..10 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let port = free.expect("a free port").port();
            if let Some(child) = spawn(port, &arguments, &dir) {
                return Self { child, port, arguments, dir };
            }
        }
        panic!("redis-server does not start; redis-server --port 7777 shows the reason");
    }

    /// A sentinel that monitors this server as the master `name`.
    #[must_use]
    pub fn sentinel(&self, name: &str) -> Self {
        let settings = self.dir.path().join("sentinel.conf");
        let monitor = format!("sentinel monitor {name} 127.0.0.1 {} 1\n", self.port);
        std::fs::write(&settings, monitor).expect("a temporary file");
        Self::start_with(&[settings.to_str().expect("its name is text"), "--sentinel"])
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The reply to a command, which must not be an error.
    #[must_use]
    pub fn query<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let reply = redis::cmd(command[0]).arg(&command[1..]).query(&mut self.connect());
        reply.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// A new connection.
    #[must_use]
    pub fn connect(&self) -> Connection {
        let client = Client::open(self.url()).expect("it is an address");
        client.get_connection_with_timeout(PATIENCE).expect("the server is there")
    }

    /// Stops the process (SIGSTOP): the system still accepts connections, and the server does not reply.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Continues a stopped process.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Kills the process. Its data are lost.
    pub fn kill(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it and starts it again on the same port.
    pub fn restart(&mut self) {
        self.kill();
        let child = spawn(self.port, &self.arguments, &self.dir);
        self.child = child.expect("its port is still free");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill works");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server that replies; `None` if it exits, as another process has its port.
fn spawn(port: u16, arguments: &[String], dir: &tempfile::TempDir) -> Option<Child> {
    let server = std::env::var_os("SPINFER_TEST_REDIS").unwrap_or_else(|| "redis-server".into());
    let mut child = Command::new(server)
        // The path of a configuration file comes first.
        .args(arguments)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
        .arg(port.to_string())
        .arg("--dir")
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server starts; if it is missing: apt-get install redis-server");
    let client = Client::open(format!("redis://127.0.0.1:{port}")).expect("it is an address");
    let itself = format!("process_id:{}\r\n", child.id());
    let end = Instant::now() + PATIENCE;
    loop {
        let info = client.get_connection().and_then(|mut connection| {
            redis::cmd("INFO").arg("server").query::<String>(&mut connection)
        });
        if info.is_ok_and(|info| info.contains(&itself)) {
            return Some(child);
        }
        if child.try_wait().expect("it is our child").is_some() {
            return None;
        }
        assert!(Instant::now() < end, "redis-server does not reply on port {port}");
        std::thread::yield_now();
    }
}

/// A Redis Cluster of three nodes, each with 1/3 of the slots.
#[derive(Debug)]
pub struct RedisCluster(Vec<Redis>);

impl RedisCluster {
    /// Starts the nodes, and waits until they cover all slots.
    #[must_use]
    pub fn start() -> Self {
        // Each node listens on a second port, the cluster bus.
        let nodes: Vec<Redis> = (0..3).map(|_| Redis::start_node()).collect();
        for (index, node) in nodes.iter().enumerate() {
            const SLOTS: usize = 16384;
            let (first, last) = (SLOTS * index / 3, SLOTS * (index + 1) / 3 - 1);
            let slots = ["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()];
            assert_eq!(node.query::<String>(&slots), "OK");
            let bus = nodes[0].bus_port().to_string();
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string(), &bus];
            assert_eq!(node.query::<String>(&meet), "OK");
        }
        let whole = |node: &Redis| {
            let info: String = node.query(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        };
        crate::wait_until("the cluster covers all slots", || nodes.iter().all(whole));
        Self(nodes)
    }

    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.0
    }
}

impl Redis {
    fn start_node() -> Self {
        let bus = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let bus = bus.expect("a free port").port().to_string();
        Self::start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus])
    }

    fn bus_port(&self) -> u16 {
        let [_, port] = self.query::<[String; 2]>(&["CONFIG", "GET", "cluster-port"]);
        port.parse().expect("it is a port")
    }
}
