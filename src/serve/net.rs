//! Connections: accepted, bounded in number, head and time, and let come to their end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use super::{App, routes};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// Threads that read and write.
const THREADS: usize = 2;
/// Connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 512;
/// Bytes of a request's head.
const LONGEST_HEAD: usize = 64 << 10;
/// What the head of a request may take to come, the silence before it included.
const SLOWEST_HEAD: Duration = Duration::from_secs(60);
/// How long a client may read nothing of what it is sent.
const SLOWEST_READER: Duration = Duration::from_secs(60);
/// Pause after a connection could not be accepted, as where no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Serves until `stop` is requested, and until what was begun is done.
pub(super) fn run(app: Arc<App>, stop: &Stop, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(THREADS)
        .enable_all()
        .build();
    let failed = |error| Error::Run(format!("no threads for the network: {error}"));
    runtime.map_err(failed)?.block_on(listen(app, stop, ready))
}

async fn listen(app: Arc<App>, stop: &Stop, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let address = SocketAddr::new(app.options.host, app.options.port);
    let refused = |error| Error::field("port", format!("{address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    ready(listener.local_addr().map_err(refused)?);
    let status = Arc::clone(&app.status);
    let service = TowerToHyperService::new(routes::router(app));
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(SLOWEST_HEAD)
        .max_buf_size(LONGEST_HEAD);
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async {
            let place = place.await;
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            accepted = accepted => accepted,
            () = requested(stop) => break,
        };
        let (Ok(place), Ok((stream, _))) = (place, stream) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Small pieces of a stream are not to wait for each other.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(SLOWEST_READER));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = builder.serve_connection(stream, service.clone());
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // What a client breaks off is its own affair.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    status.drain();
    connections.shutdown().await;
    Ok(())
}

/// Comes once `stop` is requested.
async fn requested(stop: &Stop) {
    while !stop.is_requested() {
        tokio::time::sleep(LOOK).await;
    }
}
