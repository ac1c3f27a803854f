//! HTTP/1.1 and HTTP/2 over TCP, with TLS or without.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::shape::Link;
use super::{Emulator, EmulatorError, push, service};

/// Certificate chain and key for [`Emulator::serve_tls`].
#[derive(Clone)]
pub struct TlsFiles(Arc<rustls::ServerConfig>);

impl std::fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsFiles")
    }
}

impl TlsFiles {
    /// Reads PEM files; offers `h2` and `http/1.1`.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, EmulatorError> {
        let bad = |e: &dyn std::fmt::Display| EmulatorError::Tls(e.to_string());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).map_err(|e| bad(&e))?.collect();
        let chain = chain.map_err(|e| bad(&e))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(&e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad(&e))?
            .with_no_client_auth()
            .with_single_cert(chain, key);
        let mut config = config.map_err(|e| bad(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

impl Emulator {
    /// Serves HTTP/1.1 and HTTP/2 (prior knowledge) until `shutdown`; open requests may end within 5 s.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        self.accept(listener, None, shutdown).await
    }

    /// As [`Emulator::serve`], over TLS.
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        tls: TlsFiles,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        self.accept(listener, Some(TlsAcceptor::from(tls.0)), shutdown).await
    }

    async fn accept(
        &self,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let open = GracefulShutdown::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut shutdown => break,
            };
            let stream = match stream {
                Ok((stream, _)) => stream,
                // Running out of descriptors passes; give the others time to end.
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            // Only latency suffers where it cannot be set.
            let _ = stream.set_nodelay(true);
            let (emulator, watcher) = (self.clone(), open.watcher());
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => emulator.connection(stream, "http", watcher).await,
                    Some(tls) => {
                        // A failed handshake is the client's business.
                        if let Ok(stream) = tls.accept(stream).await {
                            emulator.connection(stream, "https", watcher).await;
                        }
                    }
                }
            });
        }
        drop(listener);
        tokio::select! {
            () = open.shutdown() => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => {}
        }
        Ok(())
    }

    async fn connection<S>(
        &self,
        stream: S,
        scheme: &'static str,
        watcher: hyper_util::server::graceful::Watcher,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let link = Arc::new(Link::default());
        let shared = Arc::clone(&self.shared);
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (shared, link) = (Arc::clone(&shared), Arc::clone(&link));
            async move {
                if push::wanted(&request) {
                    return Ok(push::upgrade(&shared, request));
                }
                let request = request.map(|body| body.map_err(io::Error::other).boxed_unsync());
                service::serve(&shared, &link, scheme, request).await
            }
        });
        let builder = Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        // A connection that ends in an error has told its client all there is.
        let _ = watcher.watch(connection).await;
    }
}
