//! The data plane's listener: accepts connections, speaks HTTP/1.1 and HTTP/2, over TLS if it has a
//! certificate, drains.

pub mod connections;
pub mod listen_address;
pub mod outgoing_body;
pub mod preface;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::server::outgoing_body::{Answer, Streams};
use crate::server::connections::{Connection, Connections, HEAD_TIMEOUT, Place};
use crate::host::Host;
use crate::server::preface::Opening;
use crate::request;
use crate::http::spin_headers::Client;

/// A client that reads nothing of an answer for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const MAX_HEAD: u32 = 64 << 10;
/// Requests of one HTTP/2 connection at a time.
const MAX_STREAMS: u32 = 256;
/// A client of an HTTP/2 connection is asked so often whether it is there, and has as long to answer.
const PING: Duration = Duration::from_secs(30);
/// After a shutdown begins, requests under way have this long to finish, or the longest deadline.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// After accepting failed (too many open files ...), wait before the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is done, then lets requests under way finish.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    host: Arc<Host>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let connections =
        Arc::new(Connections::new(host.connection_limits(), Arc::clone(host.answers())));
    let background = tokio::spawn({
        let host = Arc::clone(&host);
        async move {
            tokio::join!(host.load_models(), host.sweep(), host.cache().attend());
        }
    });
    let accepting = Accepting {
        listener: Arc::new(listener),
        tls,
        host: Arc::clone(&host),
        connections: Arc::clone(&connections),
    };
    let mut acceptors = JoinSet::new();
    for _ in 0..tokio::runtime::Handle::current().metrics().num_workers() {
        acceptors.spawn(accepting.clone().accept());
    }
    drop(accepting);
    shutdown.await;
    acceptors.shutdown().await;
    background.abort();
    // Ended by that, and it must not say any more that the host is ready.
    let _ = background.await;
    host.drain();
    info!("draining");
    let limit = DRAIN_TIMEOUT.max(host.longest_deadline());
    match timeout(limit, connections.close()).await {
        Ok(()) => info!("drained"),
        Err(_) => warn!(after = ?limit, "requests were still under way; ending them"),
    }
    Ok(())
}

/// What accepts connections. One for each thread, so that many short connections do not queue
/// behind one of them.
#[derive(Clone)]
struct Accepting {
    listener: Arc<TcpListener>,
    tls: Option<TlsAcceptor>,
    host: Arc<Host>,
    connections: Arc<Connections>,
}

impl Accepting {
    async fn accept(self) {
        loop {
            match self.accept_one().await {
                Ok((stream, address, place)) => self.serve(stream, address, place),
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    self.connections.shrink();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept_one(&self) -> io::Result<(TcpStream, SocketAddr, Place)> {
        let place = self.connections.place().await;
        let (stream, address) = self.listener.accept().await?;
        Ok((stream, address, place))
    }

    fn serve(&self, stream: TcpStream, address: SocketAddr, place: Place) {
        let connection = self.connections.enter(place);
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        // Who does not read its answers would keep its place for ever.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let stream = Box::pin(stream);
        let (host, tls) = (Arc::clone(&self.host), self.tls.clone());
        let client = move |scheme| Client { address, scheme, hops: 0 };
        // A task is as large as the largest of what it may become: one that is in the clear is not to
        // be as large as one over TLS.
        match tls {
            None => tokio::spawn(converse(stream, client("http"), host, connection)),
            Some(tls) => tokio::spawn(async move {
                let accepted = tokio::select! {
                    accepted = timeout(HEAD_TIMEOUT, tls.accept(stream)) => accepted,
                    () = connection.asked_to_go() => return,
                };
                match accepted {
                    Ok(Ok(stream)) => converse(stream, client("https"), host, connection).await,
                    Ok(Err(error)) => debug!(%error, "no TLS connection"),
                    Err(_) => debug!("no TLS connection in time"),
                }
            }),
        };
    }
}

/// Answers the requests of one connection, until it has to go.
async fn converse<S>(stream: S, client: Client, host: Arc<Host>, connection: Connection)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| {
        let (host, under_way) = (Arc::clone(&host), connection.begin());
        async move {
            let answer = request::handle(&host, client, request).await;
            Ok::<_, Infallible>(answer.map(|body| Answer::new(body, under_way)))
        }
    });
    let mut builder = auto::Builder::new(Streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        // How long a connection may be without a request is the same whatever it speaks.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD as usize)
        .writev(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let stream = TokioIo::new(Opening::new(stream, HEAD_TIMEOUT));
    let mut serving = pin!(builder.serve_connection(stream, service));
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => ended,
        () = connection.asked_to_go() => {
            // Says so (`GOAWAY`), and answers what was asked before that was heard.
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = serving.as_mut() => ended,
                () = connection.out_of_time() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        debug!(error, "connection ended");
    }
}
