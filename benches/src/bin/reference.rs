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
use spinfer_benches::reference::{self, Evaluator, Model};
use tokio::net::TcpListener;

#[derive(Parser)]
struct Options {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Evaluator of the graph [default: the one that spinfer prefers]
    #[arg(long)]
    evaluator: Option<Evaluator>,
    /// ONNX Runtime's library [default: the one in the folder of this program]
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// Graph of the iris classifier
    model: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let model = Arc::new(Model::load(&options.model, options.evaluator, options.library)?);
    let listener = TcpListener::bind(options.listen).await?;
    writeln!(std::io::stdout(), "Serving http://{}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let model = Arc::clone(&model);
        let service = service_fn(move |request| {
            let model = Arc::clone(&model);
            async move { Ok::<_, Infallible>(reference::handle(&model, request).await) }
        });
        tokio::spawn(async move {
            // An error of a connection concerns only its client.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
