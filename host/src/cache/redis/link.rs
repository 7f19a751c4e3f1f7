//! Connections to a Redis, whatever it is made of.

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

use super::reply_limit::{Measured, Wire};
use super::settings::Place;
use crate::config::blocked_networks::BlockedNetworks;
use crate::storage::redis::{Address, dial};

/// To connect, TLS and login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Of connections that the library makes itself, to nodes of a Cluster, which takes no more than
/// their address.
static TLS: OnceLock<TlsConnector> = OnceLock::new();

/// How connections are made.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) place: Place,
    tls: TlsConnector,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Dialer {
    pub(super) fn new(place: Place, tls: TlsConnector) -> Self {
        let tls = TLS.get_or_init(|| tls).clone();
        Self { place, tls }
    }

    /// A connection for commands, to all there is.
    pub(super) async fn commands(&self, response: Duration) -> Result<Commands> {
        let connecting = async {
            match &self.place {
                Place::Cluster(nodes) => {
                    let nodes = nodes.iter().map(|node| node.info(ProtocolVersion::RESP3));
                    let client = ClusterClientBuilder::new(nodes)
                        .connection_timeout(CONNECT_TIMEOUT)
                        .response_timeout(response)
                        .retries(1)
                        .use_protocol(ProtocolVersion::RESP3)
                        .build()?;
                    Ok(Commands::Cluster(client.get_async_generic_connection().await?))
                }
                Place::One(address) => Ok(Commands::One(self.one(address, None).await?)),
                Place::Sentinels { master, sentinels } => {
                    let address = self.master(master, sentinels).await?;
                    Ok(Commands::One(self.one(&address, None).await?))
                }
            }
        };
        timeout(CONNECT_TIMEOUT, connecting).await.context("it does not answer")?
    }

    /// A connection to the one node that has `key`, where it says what changes.
    pub(super) async fn node_of(&self, key: &str, news: News) -> Result<Bounded> {
        let connecting = async {
            match &self.place {
                Place::Cluster(nodes) => self.owner(nodes, key, news).await,
                Place::One(address) => self.one(address, Some(news)).await,
                Place::Sentinels { master, sentinels } => {
                    let address = self.master(master, sentinels).await?;
                    self.one(&address, Some(news)).await
                }
            }
        };
        timeout(CONNECT_TIMEOUT, connecting).await.context("it does not answer")?
    }

    async fn one(&self, address: &Address, news: Option<News>) -> Result<Bounded> {
        let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
        if let Some(news) = news {
            config = config.set_push_sender(news);
        }
        Ok(open(&address.info(ProtocolVersion::RESP3), &self.tls, config).await?)
    }

    /// The first of `sentinels` that answers says where the master is, which is asked with its own
    /// credentials.
    async fn master(&self, master: &Address, sentinels: &[Address]) -> Result<Address> {
        let name = master.host.as_str();
        for sentinel in sentinels {
            let Ok(mut connection) = self.one(sentinel, None).await else { continue };
            let mut question = cmd("SENTINEL");
            question.arg("get-master-addr-by-name").arg(name);
            let answer = connection.req_packed_command(&question).await;
            let Ok(at) = answer.and_then(|at| Ok(from_redis_value::<(String, u16)>(at)?)) else {
                continue;
            };
            return Ok(master.at(at.0, at.1));
        }
        bail!("no sentinel knows where the master {name} is")
    }

    /// The nodes of a Cluster say which of them it is.
    async fn owner(&self, nodes: &[Address], key: &str, news: News) -> Result<Bounded> {
        for node in nodes {
            let Ok(mut connection) = self.one(node, Some(Arc::clone(&news))).await else {
                continue;
            };
            match connection.req_packed_command(cmd("EXISTS").arg(key)).await {
                Ok(_) => return Ok(connection),
                Err(error) => {
                    let at = error.redirect_node().and_then(|(at, _)| at.rsplit_once(':'));
                    let Some((host, port)) = at else { continue };
                    // A node that does not know its own name leaves it out.
                    let host = if host.is_empty() { node.host.as_str() } else { host };
                    let address = node.at(host.trim_matches(['[', ']']).to_owned(), port.parse()?);
                    return self.one(&address, Some(news)).await;
                }
            }
        }
        bail!("no node of the Cluster answers")
    }
}

/// Hears what the server says of itself.
pub(super) type News = Arc<dyn AsyncPushSender>;

/// Where commands go.
#[derive(Clone)]
pub(super) enum Commands {
    One(Bounded),
    Cluster(ClusterConnection<Bounded>),
}

impl Commands {
    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = match self {
            Self::One(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        };
        answer.and_then(Value::extract_error)
    }
}

/// A connection with the answers of many on their way, which breaks off when one gets too long. It
/// ends when the last of its clones is dropped.
#[derive(Clone)]
pub(super) struct Bounded {
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
        _ => return Err(std::io::Error::other("an address of another kind").into()),
    };
    // Where it is the operator says.
    let stream = dial(host, port, tls, &BlockedNetworks::default()).await?;
    let (stream, wire) = Measured::new(stream);
    let made = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await;
    let (commands, driver) = made?;
    wire.answered();
    Ok(Bounded { commands, wire, _driver: Arc::new(Driver(tokio::spawn(driver))) })
}

impl ConnectionLike for Bounded {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        async {
            let answer = self.commands.send_packed_command(command).await;
            self.wire.answered();
            answer.and_then(Value::extract_error)
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
            let answers = self.commands.send_packed_commands(pipeline, offset, count).await;
            self.wire.answered();
            answers
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
            let tls = TLS.get().ok_or_else(|| std::io::Error::other("no TLS is set up"))?;
            open(&info.into_connection_info()?, tls, config).await
        }
        .boxed()
    }
}
