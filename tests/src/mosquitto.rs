//! A `mosquitto` for one test, on a free port.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, Incoming, MqttOptions, QoS};

use crate::PATIENCE;

/// Maximum size of a message that a subscription receives, in bytes.
const MAX_PACKET: usize = 4 << 20;

/// A broker process and its files, which are removed on drop.
#[derive(Debug)]
pub struct Mosquitto {
    child: Child,
    port: u16,
    settings: String,
    dir: tempfile::TempDir,
}

impl Mosquitto {
    /// A broker that accepts every client.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("allow_anonymous true", tempfile::tempdir().expect("a temporary folder"))
    }

    /// A broker that accepts one user.
    #[must_use]
    pub fn with_user(name: &str, password: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("passwords");
        let status = Command::new(program("mosquitto_passwd"))
            .args(["-b", "-c"])
            .arg(&file)
            .args([name, password])
            .stderr(Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "mosquitto_passwd works");
        let settings = format!("allow_anonymous false\npassword_file {}", file.display());
        Self::start_with(&settings, dir)
    }

    fn start_with(settings: &str, dir: tempfile::TempDir) -> Self {
        // Another process may take the port before the broker binds it.
        for _ in 0..10 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let port = free.expect("a free port").port();
            if let Some(child) = spawn(port, settings, &dir) {
                return Self { child, port, settings: settings.to_owned(), dir };
            }
        }
        panic!("mosquitto does not start; mosquitto -p 7777 shows the reason");
    }

    #[must_use]
    pub fn address(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it and starts it again on the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.settings, &self.dir).expect("its port is still free");
    }

    /// The messages to `topic` from now on, as `topic=payload`.
    #[must_use]
    pub fn subscribe(&self, topic: &str) -> Subscription {
        let mut options = MqttOptions::new("subscriber", "127.0.0.1", self.port);
        options.set_keep_alive(Duration::from_secs(60));
        options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
        let (client, mut connection) = Client::new(options, 10);
        client.subscribe(topic, QoS::ExactlyOnce).expect("the topic is valid");
        let (ready, subscribed) = mpsc::channel();
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            // Until the broker closes the connection.
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Incoming::SubAck(_))) => drop(ready.send(())),
                    Ok(Event::Incoming(Incoming::Publish(message))) => {
                        let payload = String::from_utf8_lossy(&message.payload);
                        drop(sender.send(format!("{}={payload}", message.topic)));
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        });
        subscribed.recv_timeout(PATIENCE).expect("the broker acknowledges the subscription");
        Subscription { messages, _client: client }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The messages to a topic.
pub struct Subscription {
    messages: mpsc::Receiver<String>,
    _client: Client,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl Subscription {
    /// The next message.
    #[must_use]
    pub fn next(&self) -> String {
        self.messages.recv_timeout(PATIENCE).expect("a message")
    }
}

/// Debian installs `mosquitto` in a folder that users lack in their path.
fn program(name: &str) -> PathBuf {
    let installed = PathBuf::from("/usr/sbin").join(name);
    if installed.is_file() { installed } else { name.into() }
}

/// A broker that accepts connections; `None` if it exits, as another process has its port.
fn spawn(port: u16, settings: &str, dir: &tempfile::TempDir) -> Option<Child> {
    let path = dir.path().join("mosquitto.conf");
    // Started by root it would change to another user, which cannot read its files.
    std::fs::write(&path, format!("user root\nlistener {port} 127.0.0.1\n{settings}\n"))
        .expect("a temporary file");
    let mut child = Command::new(program("mosquitto"))
        .arg("-c")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto starts; if it is missing: apt-get install mosquitto");
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if child.try_wait().expect("it is our child").is_some() {
            return None;
        }
        assert!(Instant::now() < end, "mosquitto does not listen on port {port}");
        std::thread::yield_now();
    }
    Some(child)
}
