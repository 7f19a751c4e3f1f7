//! The native reference server, without WebAssembly ([`spinfer_benches::reference`]). It sends the same
//! responses to the same requests. Figures of the load comparison are ratios to it.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use spinfer_benches::reference::{self, Evaluator, Image, Iris, Service};
use tokio::net::TcpListener;

#[derive(Parser)]
struct Options {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Evaluator of the graph [default: the one that spinfer prefers]
    #[arg(long)]
    evaluator: Option<Evaluator>,
    /// ONNX Runtime's library [default: that of `make onnxruntime`]
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// Serve the classifier of images instead of iris
    #[arg(long)]
    image: bool,
    /// The graph
    model: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Options { listen, evaluator, library, image, model } = Options::parse();
    match image {
        true => serve(listen, Image::load(&model, evaluator, library)?).await,
        false => serve(listen, Iris::load(&model, evaluator, library)?).await,
    }
}

async fn serve(listen: SocketAddr, service: impl Service) -> Result<()> {
    let service = Arc::new(service);
    let listener = TcpListener::bind(listen).await?;
    writeln!(std::io::stdout(), "Serving http://{}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = Arc::clone(&service);
        let respond = service_fn(move |request| {
            let service = Arc::clone(&service);
            async move { Ok::<_, Infallible>(reference::handle(&*service, request).await) }
        });
        tokio::spawn(async move {
            // An error of a connection concerns only its client.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), respond).await;
        });
    }
}
