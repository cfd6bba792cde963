//! Serving connections, and letting go of them in two stages.
//!
//! While draining, connections are still taken: workers hand in what they have finished and people see how far it is. When closing, no new
//! connection is taken and each one ends after the request it is at.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tidemill_base::{Error, Result};
use tidemill_runtime::{Kind, Shutdown, sleep, timeout};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::Identity;
use crate::AppState;
use crate::request::Peer;

/// How long a connection may take to finish the request it is at, once closing.
const LAST_REQUEST: Duration = Duration::from_secs(5);
/// Streams of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 256;

/// Serves `router` on `listener` until `state.shutdown` closes and the last connection is done. Each connection is a task of
/// `state.tasks`.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<Identity>, state: &AppState) -> Result<()> {
    let limits = &state.config.limits;
    let slots = Arc::new(Semaphore::new(usize::try_from(limits.max_connections).unwrap_or(Semaphore::MAX_PERMITS)));
    let server = Arc::new(Server {
        router,
        tls: tls.map(|id| TlsAcceptor::from(id.config)),
        http: builder(limits.header_timeout.0),
        handshake: limits.header_timeout.0,
        shutdown: state.shutdown.clone(),
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = state.shutdown.closing() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let server = server.clone();
                state.tasks.spawn("connection", Kind::Request, async move { server.connection(stream, peer, permit).await });
            }
            Err(e) => {
                // Out of file descriptors, most likely: others will end, and then there are some again.
                tracing::warn!(error = %e, "a connection could not be taken");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all_gone = slots.acquire_many(limits.max_connections);
    if timeout(LAST_REQUEST + Duration::from_secs(1), "the last connections", all_gone).await.is_err() {
        tracing::warn!("connections were cut off, since their requests did not end in time");
    }
    Ok(())
}

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = slots.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

fn builder(header_timeout: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

struct Server {
    router: Router,
    tls: Option<TlsAcceptor>,
    http: Builder<TokioExecutor>,
    handshake: Duration,
    shutdown: Shutdown,
}

impl Server {
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) -> Result<()> {
        // Held until the connection ends.
        let _permit = permit;
        match &self.tls {
            None => self.requests(stream, peer).await,
            Some(acceptor) => match timeout(self.handshake, "the TLS handshake", acceptor.accept(stream)).await {
                Ok(Ok(stream)) => self.requests(stream, peer).await,
                // Scanners and clients that do not trust us end here; neither is our failure.
                Ok(Err(e)) => tracing::debug!(%peer, error = %e, "no TLS handshake"),
                Err(e) => tracing::debug!(%peer, error = %e, "no TLS handshake"),
            },
        }
        Ok(())
    }

    async fn requests(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr) {
        let service = service_fn(|request: Request<Incoming>| answer(self.router.clone(), request, peer));
        let connection = self.http.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.shutdown.closing() => {
                connection.as_mut().graceful_shutdown();
                match timeout(LAST_REQUEST, "the last request", connection).await {
                    Ok(ended) => ended,
                    Err(e) => Err(e.into()),
                }
            }
        };
        if let Err(e) = ended {
            tracing::debug!(%peer, error = e, "connection ended early");
        }
    }
}

async fn answer(router: Router, request: Request<Incoming>, peer: SocketAddr) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Peer(peer));
    router.oneshot(request).await
}

/// Binds the listener. `Invalid` for an address that is not this machine's, `Conflict` for one that is taken.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            Error::conflict(format!("{address} is taken by another program; choose another with `--listen`")).with_source(e)
        }
        std::io::ErrorKind::AddrNotAvailable => Error::invalid(format!("{address} is no address of this machine")).with_source(e),
        _ => Error::from(e).context(format!("listen on {address}")),
    })
}
