//! The one place HTTP happens: a request in, a response with a streamed body out.
//!
//! A transport does what it is told and nothing more: no redirects, no retries, no credentials, no total deadline.
//! All of that is in the calls above it, and the same for production and for tests, which bring an in-process
//! implementation. [`HttpTransport`] is the only user of reqwest.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, future, io};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt, stream};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::Source;
use super::url::{is_link_local, is_loopback};

/// The body of an answer as it arrives.
pub type RawBody = Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>;

/// What a request is, which decides on protocol, compression and waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// JSON from Graph: HTTP/2 and compression are welcome.
    Metadata,
    /// Content: one connection per transfer, bytes as they are.
    Content {
        /// Fail when nothing moved for this long, in either direction.
        idle: Duration,
    },
}

/// A connection that carries bytes in both directions.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A connection that was switched to another protocol.
pub type RawSocket = Box<dyn Socket>;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// No connection was made: the request was not sent.
    #[error("no connection")]
    NotSent(#[source] Source),
    /// The connection broke after the request may have been read.
    #[error("the connection broke")]
    Broken(#[source] Source),
    /// Nothing moved for the time given.
    #[error("the transfer stalled")]
    Stalled,
}

/// Sends requests.
///
/// Cancel-safe: dropping the future, or the body, gives up on the request.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Sends `request` (with an absolute address) and gives whatever is answered, redirects and errors included.
    fn send(
        &self,
        request: Request<Bytes>,
        lane: Lane,
    ) -> BoxFuture<'_, Result<Response<RawBody>, TransportError>>;

    /// Sends `request`, which asks to switch to another protocol, and gives the connection where the answer is 101; of
    /// any other answer its head. A transport that can only ask and be answered says `NotSent`.
    fn switch(
        &self,
        _request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Option<RawSocket>>, TransportError>> {
        let error = io::Error::from(io::ErrorKind::Unsupported);
        Box::pin(future::ready(Err(TransportError::NotSent(Arc::new(error)))))
    }
}

/// A body that is all there.
pub fn whole_body(bytes: Bytes) -> RawBody {
    Box::pin(stream::iter((!bytes.is_empty()).then_some(Ok(bytes))))
}

/// HTTP over the network.
#[derive(Clone)]
pub struct HttpTransport {
    metadata: reqwest::Client,
    /// In place of `metadata` when HTTP/2 keeps breaking.
    metadata_http1: reqwest::Client,
    content: reqwest::Client,
    /// For this machine and what only it can ask: never through a proxy.
    local: reqwest::Client,
    /// Connections that broke in a row on `metadata`; stays at the limit once it is reached.
    broken: Arc<AtomicU64>,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HttpTransport")
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const POOL_IDLE: Duration = Duration::from_secs(90);
const MAX_IDLE_CONTENT: usize = 16;
/// Middleboxes that break HTTP/2 exist (graph-api 11.6): after so many breaks in a row HTTP/1.1 is used.
const MAX_HTTP2_BREAKS: u64 = 3;

impl HttpTransport {
    /// Clients that trust what the system trusts and honour the system's proxy settings.
    ///
    /// Fails if the system's certificates cannot be read.
    pub fn new() -> Result<Self, TransportError> {
        // An error means that a provider is installed already, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let base = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(POOL_IDLE)
                .tcp_keepalive(Duration::from_secs(30))
        };
        let build = |builder: reqwest::ClientBuilder| builder.build().map_err(not_sent);
        Ok(Self {
            metadata: build(
                base()
                    .http2_keep_alive_interval(Duration::from_secs(20))
                    .http2_keep_alive_timeout(Duration::from_secs(10)),
            )?,
            metadata_http1: build(base().http1_only())?,
            content: build(base().http1_only().no_gzip().pool_max_idle_per_host(MAX_IDLE_CONTENT))?,
            local: build(base().http1_only().no_gzip().no_proxy())?,
            broken: Arc::default(),
        })
    }

    /// Counts breaks in a row of HTTP/2; those of requests that were under way together, when `before` was the
    /// count, are one.
    fn note(&self, before: u64, answer: &Result<reqwest::Response, TransportError>) {
        match answer {
            _ if before >= MAX_HTTP2_BREAKS => {}
            Ok(_) => self.broken.store(0, Ordering::Relaxed),
            Err(TransportError::Broken(_)) => {
                let (order, next) = (Ordering::Relaxed, before + 1);
                let first = self.broken.compare_exchange(before, next, order, order).is_ok();
                if first && next == MAX_HTTP2_BREAKS {
                    tracing::warn!("connections break again and again: using HTTP/1.1 from now on");
                }
            }
            Err(TransportError::NotSent(_) | TransportError::Stalled) => {}
        }
    }

    fn client(&self, request: &Request<Bytes>, lane: Lane, broken: u64) -> &reqwest::Client {
        match lane {
            _ if request.uri().host().is_some_and(|host| is_loopback(host) || is_link_local(host)) => {
                &self.local
            }
            Lane::Metadata if broken >= MAX_HTTP2_BREAKS => &self.metadata_http1,
            Lane::Metadata => &self.metadata,
            Lane::Content { .. } => &self.content,
        }
    }
}

impl Transport for HttpTransport {
    fn send(
        &self,
        request: Request<Bytes>,
        lane: Lane,
    ) -> BoxFuture<'_, Result<Response<RawBody>, TransportError>> {
        let before = self.broken.load(Ordering::Relaxed);
        let client = self.client(&request, lane, before).clone();
        Box::pin(async move {
            let progress = Arc::new(AtomicU64::new(0));
            let (parts, body) = request.into_parts();
            let body = match lane {
                Lane::Content { .. } if !body.is_empty() => {
                    reqwest::Body::wrap(Outgoing { left: body, progress: Arc::clone(&progress) })
                }
                _ => reqwest::Body::from(body),
            };
            let request = Request::from_parts(parts, body).try_into().map_err(not_sent)?;
            let sending = client.execute(request);
            let answer = match lane {
                Lane::Content { idle } => while_moving(sending, &progress, idle).await?,
                Lane::Metadata => sending.await,
            };
            let answer = answer.map_err(from_reqwest);
            if lane == Lane::Metadata {
                self.note(before, &answer);
            }
            answer.map(opened)
        })
    }

    fn switch(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Option<RawSocket>>, TransportError>> {
        // HTTP/1.1 only: there is nothing to switch in HTTP/2.
        let local = request.uri().host().is_some_and(is_loopback);
        let client = if local { &self.local } else { &self.metadata_http1 }.clone();
        Box::pin(async move {
            let request = request.map(reqwest::Body::from).try_into().map_err(not_sent)?;
            let answer = client.execute(request).await.map_err(from_reqwest)?;
            let mut head = Response::new(None);
            *head.status_mut() = answer.status();
            *head.headers_mut() = answer.headers().clone();
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                let socket: RawSocket = Box::new(answer.upgrade().await.map_err(from_reqwest)?);
                *head.body_mut() = Some(socket);
            }
            Ok(head)
        })
    }
}

/// Awaits `sending` for as long as `progress` moves at least once per `idle`.
async fn while_moving<F: Future>(
    sending: F,
    progress: &AtomicU64,
    idle: Duration,
) -> Result<F::Output, TransportError> {
    tokio::pin!(sending);
    let mut seen = progress.load(Ordering::Relaxed);
    loop {
        tokio::select! {
            biased;
            output = &mut sending => return Ok(output),
            () = tokio::time::sleep(idle) => {
                let moved = progress.load(Ordering::Relaxed);
                if moved == seen {
                    return Err(TransportError::Stalled);
                }
                seen = moved;
            }
        }
    }
}

fn opened(answer: reqwest::Response) -> Response<RawBody> {
    let answer: Response<reqwest::Body> = answer.into();
    answer.map(|body| {
        let chunks = http_body_util::BodyDataStream::new(body);
        let body: RawBody = Box::pin(chunks.map(|chunk| chunk.map_err(from_reqwest)));
        body
    })
}

fn not_sent(error: impl Into<NotSent>) -> TransportError {
    let NotSent(error) = error.into();
    TransportError::NotSent(Arc::new(error.without_url()))
}

struct NotSent(reqwest::Error);

impl From<reqwest::Error> for NotSent {
    fn from(error: reqwest::Error) -> Self {
        Self(error)
    }
}

fn from_reqwest(error: reqwest::Error) -> TransportError {
    // Addresses may be secrets; they are not part of any error.
    let not_sent = error.is_connect() || error.is_builder();
    let source = Arc::new(error.without_url());
    if not_sent { TransportError::NotSent(source) } else { TransportError::Broken(source) }
}

/// A request body in small frames, which tells how far it got.
struct Outgoing {
    left: Bytes,
    progress: Arc<AtomicU64>,
}

const FRAME_BYTES: usize = 64 << 10;

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let take = self.left.len().min(FRAME_BYTES);
        let frame = self.left.split_to(take);
        self.progress.fetch_add(take as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(http_body::Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left.len() as u64)
    }
}
