//! Connections to MQTT brokers (version 3.1.1), over which guests publish.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Uri;
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, Outgoing};
use tokio::net::lookup_host;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config::blocked_networks::BlockedNetworks;

pub use rumqttc::QoS;

/// The scheme of addresses, also in `allowed_outbound_hosts`.
pub const SCHEME: &str = "mqtt";
const PORT: u16 = 1883;
/// Maximum number of connections of all components.
const MAX_CONNECTIONS: usize = 256;
/// Maximum number of connections of one component.
const MAX_PER_COMPONENT: usize = 64;
/// Timeout of one publication, including the connection.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a message, in bytes.
const MAX_MESSAGE: usize = 16 << 20;
/// Maximum size of a packet of the broker, in bytes: acknowledgements.
const MAX_INCOMING: usize = 64 << 10;
/// Maximum length of a topic, a user name or a password in the protocol, in bytes.
const MAX_TEXT: usize = u16::MAX as usize;
/// Capacity of the client's queue: one message at a time.
const QUEUE: usize = 1;

/// `mqtt://host[:port][?client_id=name]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    pub host: String,
    pub port: u16,
    client_id: Option<String>,
}

impl BrokerAddress {
    /// Parses an address; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        if uri.scheme_str() != Some(SCHEME)
            || authority.as_str().contains('@')
            || !matches!(uri.path(), "" | "/")
        {
            return None;
        }
        let mut client_id = None;
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match &*name {
                "client_id" if value.len() <= MAX_TEXT => client_id = Some(value.into_owned()),
                _ => return None,
            }
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = match authority.port() {
            None => PORT,
            Some(port) => port.as_u16(),
        };
        (!host.is_empty()).then_some(Self { host, port, client_id })
    }
}

/// A user name and a password.
#[derive(Clone)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Why a message was not published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MqttError {
    #[error("the host has no MQTT connection left: at most {MAX_PER_COMPONENT} of a component")]
    TooMany,
    #[error("{0}")]
    Connection(String),
    #[error("{0}")]
    Other(String),
}

/// The connections of all components.
#[derive(Clone, Debug)]
pub struct MqttConnections {
    permits: Arc<Semaphore>,
    blocked: BlockedNetworks,
}

impl MqttConnections {
    /// Connections, none of them to a network that is `blocked`.
    #[must_use]
    pub fn new(blocked: BlockedNetworks) -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)), blocked }
    }

    /// The connections of one more component.
    #[must_use]
    pub fn for_component(&self) -> Arc<ComponentMqtt> {
        let permits = Arc::new(Semaphore::new(MAX_PER_COMPONENT));
        Arc::new(ComponentMqtt { all: self.clone(), permits })
    }
}

/// The connections of one component.
#[derive(Debug)]
pub struct ComponentMqtt {
    all: MqttConnections,
    permits: Arc<Semaphore>,
}

impl ComponentMqtt {
    /// A connection that is established by its first publication.
    ///
    /// # Errors
    /// The limit of connections is reached, or a text is too long.
    pub fn open(
        &self,
        address: BrokerAddress,
        credentials: Credentials,
        keep_alive: u64,
    ) -> Result<MqttConnection, MqttError> {
        let permit = |permits: &Arc<Semaphore>| {
            Arc::clone(permits).try_acquire_owned().map_err(|_| MqttError::TooMany)
        };
        let permits = [permit(&self.permits)?, permit(&self.all.permits)?];
        for text in [&credentials.username, &credentials.password] {
            check_length(text)?;
        }
        Ok(MqttConnection {
            address,
            credentials,
            // The protocol has 16 bits for it.
            keep_alive: Duration::from_secs(keep_alive.min(u16::MAX.into())),
            blocked: self.all.blocked.clone(),
            session: Mutex::default(),
            _permits: permits,
        })
    }
}

fn check_length(text: &str) -> Result<(), MqttError> {
    if text.len() > MAX_TEXT {
        return Err(MqttError::Other(format!(
            "a topic, a user name and a password have at most {MAX_TEXT} bytes, and this one has {}",
            text.len()
        )));
    }
    Ok(())
}

/// A guest's connection to a broker.
#[derive(Debug)]
pub struct MqttConnection {
    address: BrokerAddress,
    credentials: Credentials,
    /// Interval after which the broker expects a packet; zero for none.
    keep_alive: Duration,
    blocked: BlockedNetworks,
    /// The session of the last publication, unless that failed.
    session: Mutex<Option<Session>>,
    _permits: [OwnedSemaphorePermit; 2],
}

struct Session {
    client: AsyncClient,
    events: EventLoop,
    last_used: Instant,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("last_used", &self.last_used).finish_non_exhaustive()
    }
}

impl MqttConnection {
    /// Publishes a message, and waits until it is sent or, above `AtMostOnce`, acknowledged.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses the connection, or the message is invalid.
    pub async fn publish(
        &self,
        topic: String,
        payload: Vec<u8>,
        qos: QoS,
    ) -> Result<(), MqttError> {
        check_length(&topic)?;
        if payload.len() > MAX_MESSAGE {
            return Err(MqttError::Other(format!(
                "a message of {} bytes exceeds the limit of {MAX_MESSAGE}",
                payload.len()
            )));
        }
        let publication = async {
            let mut slot = self.session.lock().await;
            // A publication that fails or is cancelled leaves no session.
            let mut session = match slot.take() {
                Some(session) if self.is_live(&session) => session,
                _ => self.connect().await?,
            };
            session.publish(topic, payload, qos).await?;
            session.last_used = Instant::now();
            *slot = Some(session);
            Ok(())
        };
        timeout(TIMEOUT, publication).await.unwrap_or_else(|_| {
            Err(MqttError::Connection(format!("no acknowledgement within {TIMEOUT:?}")))
        })
    }

    /// Whether the broker still expects packets of a session.
    fn is_live(&self, session: &Session) -> bool {
        self.keep_alive.is_zero() || session.last_used.elapsed() < self.keep_alive
    }

    /// A session that connects when it is polled.
    async fn connect(&self) -> Result<Session, MqttError> {
        let failed = |error: std::io::Error| MqttError::Connection(error.to_string());
        let BrokerAddress { host, port, client_id } = &self.address;
        let found = lookup_host((host.as_str(), *port)).await.map_err(failed)?;
        let found = self.blocked.filter(found).map_err(failed)?;
        let Some(address) = found.first() else {
            return Err(MqttError::Connection(format!("{host} has no address")));
        };
        let client_id = client_id.clone();
        let client_id =
            client_id.unwrap_or_else(|| format!("spinfer-{:012x}", fastrand::u64(..1 << 48)));
        // The library appends the port to a host, so that an IPv6 address needs brackets.
        let host = match address.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let mut options = MqttOptions::new(client_id, host, address.port());
        let Credentials { username, password } = &self.credentials;
        if !(username.is_empty() && password.is_empty()) {
            options.set_credentials(username, password);
        }
        options.set_keep_alive(self.keep_alive);
        options.set_max_packet_size(MAX_INCOMING, MAX_MESSAGE + MAX_INCOMING + MAX_TEXT);
        let (client, mut events) = AsyncClient::new(options, QUEUE);
        events.network_options.set_connection_timeout(TIMEOUT.as_secs());
        Ok(Session { client, events, last_used: Instant::now() })
    }
}

impl Session {
    async fn publish(
        &mut self,
        topic: String,
        payload: Vec<u8>,
        qos: QoS,
    ) -> Result<(), MqttError> {
        let published = self.client.publish(topic, qos, false, payload).await;
        published.map_err(|_| MqttError::Other("the topic is not valid".into()))?;
        loop {
            let event = self.events.poll().await;
            let event = event.map_err(|error| MqttError::Connection(error.to_string()))?;
            match (qos, event) {
                (QoS::AtMostOnce, Event::Outgoing(Outgoing::Publish(_)))
                | (QoS::AtLeastOnce, Event::Incoming(Incoming::PubAck(_)))
                | (QoS::ExactlyOnce, Event::Incoming(Incoming::PubComp(_))) => return Ok(()),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_addresses_are_parsed_or_refused() {
        let parsed = |text: &str| {
            let BrokerAddress { host, port, client_id } = BrokerAddress::parse(text)?;
            Some((host, port, client_id))
        };
        let address = |host: &str, port, id: Option<&str>| {
            Some((host.to_owned(), port, id.map(str::to_owned)))
        };
        assert_eq!(parsed("mqtt://localhost"), address("localhost", 1883, None));
        assert_eq!(parsed("mqtt://h:7?client_id=a%20b"), address("h", 7, Some("a b")));
        assert_eq!(parsed("mqtt://[::1]:7/"), address("::1", 7, None));
        for text in [
            "",
            "localhost:1883",
            "mqtts://h",
            "http://h",
            "mqtt://user:password@h",
            "mqtt://h/path",
            "mqtt://h?keep_alive=1",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn connections_of_a_component_are_limited_and_returned() {
        let all = MqttConnections::new(BlockedNetworks::default());
        let (one, other) = (all.for_component(), all.for_component());
        let open = |component: &ComponentMqtt| {
            let address = BrokerAddress::parse("mqtt://localhost").unwrap();
            let credentials = Credentials { username: String::new(), password: String::new() };
            component.open(address, credentials, u64::MAX)
        };
        let held: Vec<_> = (0..MAX_PER_COMPONENT).map(|_| open(&one).unwrap()).collect();
        assert!(matches!(open(&one), Err(MqttError::TooMany)));
        assert!(open(&other).is_ok());
        drop(held);
        assert!(open(&one).is_ok());
    }
}
