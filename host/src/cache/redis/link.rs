//! Connections to Redis, in any topology.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use redis::aio::{AsyncPushSender, ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::{ClusterConnection, Connect};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    ProtocolVersion, RedisError, RedisFuture, Value, cmd, from_redis_value,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::reply_limit::{LimitedReply, Wire};
use super::settings::RedisTopology;
use crate::config::blocked_networks::BlockedNetworks;
use crate::storage::redis::{Address, dial};

/// Timeout of a connection attempt, TLS and authentication included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// TLS of connections that the library opens to the nodes of a Cluster, which passes on only their
/// address.
static TLS: OnceLock<TlsConnector> = OnceLock::new();

/// Opens connections.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(super) topology: RedisTopology,
    tls: TlsConnector,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("topology", &self.topology).finish_non_exhaustive()
    }
}

impl Dialer {
    pub(crate) fn new(topology: RedisTopology, tls: TlsConnector) -> Self {
        let tls = TLS.get_or_init(|| tls).clone();
        Self { topology, tls }
    }

    /// A connection for commands on any key. `response_timeout` applies to the nodes of a Cluster.
    pub(crate) async fn commands(&self, response_timeout: Duration) -> Result<Commands> {
        let connecting = async {
            match &self.topology {
                RedisTopology::Cluster(nodes) => {
                    let nodes = nodes.iter().map(|node| node.info(ProtocolVersion::RESP3));
                    let client = ClusterClientBuilder::new(nodes)
                        .connection_timeout(CONNECT_TIMEOUT)
                        .response_timeout(response_timeout)
                        .retries(1)
                        .use_protocol(ProtocolVersion::RESP3)
                        .build()?;
                    Ok(Commands::Cluster(client.get_async_generic_connection().await?))
                }
                RedisTopology::One(address) => Ok(Commands::One(self.one(address, None).await?)),
                RedisTopology::Sentinels { master, sentinels } => {
                    let address = self.master(master, sentinels).await?;
                    Ok(Commands::One(self.one(&address, None).await?))
                }
            }
        };
        timeout(CONNECT_TIMEOUT, connecting).await.context("no reply")?
    }

    /// A connection to the node that has `key`, with a listener for its push messages.
    pub(super) async fn node_of(&self, key: &str, listener: PushListener) -> Result<Bounded> {
        let connecting = async {
            match &self.topology {
                RedisTopology::Cluster(nodes) => self.owner(nodes, key, listener).await,
                RedisTopology::One(address) => self.one(address, Some(listener)).await,
                RedisTopology::Sentinels { master, sentinels } => {
                    let address = self.master(master, sentinels).await?;
                    self.one(&address, Some(listener)).await
                }
            }
        };
        timeout(CONNECT_TIMEOUT, connecting).await.context("no reply")?
    }

    async fn one(&self, address: &Address, listener: Option<PushListener>) -> Result<Bounded> {
        let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
        if let Some(listener) = listener {
            config = config.set_push_sender(listener);
        }
        Ok(open(&address.info(ProtocolVersion::RESP3), &self.tls, config).await?)
    }

    /// The address of the master, from the first of `sentinels` that knows it, with the master's
    /// credentials.
    async fn master(&self, master: &Address, sentinels: &[Address]) -> Result<Address> {
        let name = master.host.as_str();
        for sentinel in sentinels {
            let Ok(mut connection) = self.one(sentinel, None).await else { continue };
            let mut query = cmd("SENTINEL");
            query.arg("get-master-addr-by-name").arg(name);
            let reply = connection.req_packed_command(&query).await;
            let Ok(at) = reply.and_then(|at| Ok(from_redis_value::<(String, u16)>(at)?)) else {
                continue;
            };
            return Ok(master.at(at.0, at.1));
        }
        bail!("no sentinel returned an address of the master {name}")
    }

    /// A connection to the node of a Cluster that has `key`, found by a redirection.
    async fn owner(&self, nodes: &[Address], key: &str, listener: PushListener) -> Result<Bounded> {
        for node in nodes {
            let Ok(mut connection) = self.one(node, Some(Arc::clone(&listener))).await else {
                continue;
            };
            match connection.req_packed_command(cmd("EXISTS").arg(key)).await {
                Ok(_) => return Ok(connection),
                Err(error) => {
                    let at = error.redirect_node().and_then(|(at, _)| at.rsplit_once(':'));
                    let Some((host, port)) = at else { continue };
                    // A node without a configured host name omits it.
                    let host = if host.is_empty() { node.host.as_str() } else { host };
                    let address = node.at(host.trim_matches(['[', ']']).to_owned(), port.parse()?);
                    return self.one(&address, Some(listener)).await;
                }
            }
        }
        bail!("no node of the Cluster replied")
    }
}

/// Receives push messages of the server.
pub(super) type PushListener = Arc<dyn AsyncPushSender>;

/// A connection for commands on any key.
#[derive(Clone)]
pub(crate) enum Commands {
    One(Bounded),
    Cluster(ClusterConnection<Bounded>),
}

impl Commands {
    pub(crate) async fn send(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let reply = match self {
            Self::One(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        };
        reply.and_then(Value::extract_error)
    }
}

/// A multiplexed connection that is closed when a reply exceeds the limit, and when its last clone is
/// dropped.
#[derive(Clone)]
pub(crate) struct Bounded {
    commands: MultiplexedConnection,
    wire: Arc<Wire>,
    _driver: Arc<Driver>,
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn open(
    info: &ConnectionInfo,
    tls: &TlsConnector,
    config: AsyncConnectionConfig,
) -> Result<Bounded, RedisError> {
    let (host, port, tls) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => (host, *port, None),
        ConnectionAddr::TcpTls { host, port, .. } => (host, *port, Some(tls)),
        _ => return Err(std::io::Error::other("expected an address of TCP or TLS").into()),
    };
    // The operator chose the address: it may be in any network.
    let stream = dial(host, port, tls, &BlockedNetworks::default()).await?;
    let (stream, wire) = LimitedReply::new(stream);
    let opening = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config);
    let (commands, driver) = opening.await?;
    wire.reply_complete();
    Ok(Bounded { commands, wire, _driver: Arc::new(Driver(tokio::spawn(driver))) })
}

impl ConnectionLike for Bounded {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        async {
            let reply = self.commands.send_packed_command(command).await;
            self.wire.reply_complete();
            reply.and_then(Value::extract_error)
        }
        .boxed()
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        async move {
            let replies = self.commands.send_packed_commands(pipeline, offset, count).await;
            self.wire.reply_complete();
            replies
        }
        .boxed()
    }

    fn get_db(&self) -> i64 {
        self.commands.get_db()
    }
}

impl Connect for Bounded {
    fn connect_with_config<'a, T>(info: T, config: AsyncConnectionConfig) -> RedisFuture<'a, Self>
    where
        T: IntoConnectionInfo + Send + 'a,
    {
        async move {
            let tls = TLS.get().ok_or_else(|| std::io::Error::other("TLS is not set up"))?;
            open(&info.into_connection_info()?, tls, config).await
        }
        .boxed()
    }
}
