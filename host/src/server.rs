//! The data plane's listener: accepts connections, speaks HTTP/1.1, drains.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, info, warn};

use crate::host::Host;
use crate::request;

/// A client has this long to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that reads nothing of an answer for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_MOST: usize = 64 << 10;
/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MOST: usize = 4096;
/// After a shutdown begins, requests under way have this long to finish, or the longest deadline.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// After accepting failed (too many open files ...), wait before the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is done, then lets requests under way finish.
pub async fn serve(
    listener: TcpListener,
    host: Arc<Host>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let connections = Arc::new(GracefulShutdown::new());
    let background = tokio::spawn({
        let host = Arc::clone(&host);
        async move {
            tokio::join!(host.load_models(), host.sweep());
        }
    });
    let accepting = Accepting {
        listener: Arc::new(listener),
        host: Arc::clone(&host),
        places: Arc::new(Semaphore::new(CONNECTIONS_MOST)),
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
    // Nobody accepts any more, so nobody else has it.
    let ending = Arc::into_inner(connections).map(GracefulShutdown::shutdown);
    let ended = async {
        if let Some(ending) = ending {
            ending.await;
        }
    };
    match tokio::time::timeout(limit, ended).await {
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
    host: Arc<Host>,
    places: Arc<Semaphore>,
    connections: Arc<GracefulShutdown>,
}

impl Accepting {
    async fn accept(self) {
        loop {
            match self.accept_one().await {
                Ok((stream, place)) => self.serve(stream, place),
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept_one(&self) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        Ok((self.listener.accept().await?.0, place))
    }

    fn serve(&self, stream: TcpStream, place: OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        let host = Arc::clone(&self.host);
        let service = service_fn(move |request| {
            let host = Arc::clone(&host);
            async move { Ok::<_, Infallible>(request::handle(&host, request).await) }
        });
        // Who does not read its answers would keep its place for ever.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_MOST)
            .writev(false)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = self.connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
}
