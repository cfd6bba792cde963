//! The endpoint on a listener of its own.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use s3s::service::S3Service;
use tidemill_base::Result;
use tidemill_runtime::{Kind, Tasks, sleep};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// A client that has not sent its headers by then is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// After this an accept that failed (out of file descriptors) is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the tasks' shutdown closes the edges; requests that run then are finished.
pub async fn serve(listener: TcpListener, service: S3Service, tasks: &Tasks) -> Result<()> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = tasks.shutdown().closing() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                drop(stream.set_nodelay(true));
                let (service, closing) = (service.clone(), tasks.shutdown().clone());
                let connection = async move {
                    serve_connection(stream, service, async move { closing.closing().await }).await;
                    Ok(())
                };
                tasks.spawn("s3 connection", Kind::Request, connection);
            }
            Err(e) => {
                tracing::warn!(error = %e, "s3 listener failed to accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection, plain or TLS; when `closing` is ready, the running request is finished and the connection ended. Clients
/// that go away in the middle are everyday life, so how a connection ended is a matter for the debug log.
pub async fn serve_connection<I>(stream: I, service: S3Service, closing: impl Future<Output = ()> + Send)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::pin!(closing);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = closing => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "s3 connection ended early");
    }
}
