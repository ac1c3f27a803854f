//! A page on this machine that the browser comes back to at the end of a sign-in (graph-api 1.4).

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::auth::{AuthError, Secret};

/// So long the browser's page may take at the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// What is said at the end of a sign-in.
pub(super) const SIGNED_IN: &str = "Signed in";

/// Listens where the browser will come.
pub(super) struct Page {
    listener: TcpListener,
    port: u16,
}

impl Page {
    pub async fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// As the application's registration has it, but for the port, which is not compared.
    pub fn address(&self) -> String {
        format!("http://localhost:{}/", self.port)
    }

    /// Waits for the answer that `read` finds in a query, redeems it, and shows the browser how that ended: `done`.
    pub async fn answer<T>(
        self,
        done: &'static str,
        read: impl Fn(&str) -> Option<Result<Secret, AuthError>>,
        redeem: impl AsyncFnOnce(Secret) -> Result<T, AuthError>,
    ) -> Result<T, AuthError> {
        let (sender, mut answers) = mpsc::channel::<Answer>(1);
        let show = |request: Request<Incoming>| {
            let query = request.uri().query().filter(|_| request.uri().path() == "/");
            // Before anything is waited for: a browser that closes its connection ends what is below.
            let told = query.and_then(&read).and_then(|code| {
                let (tell, told) = oneshot::channel();
                // Where nobody takes it any more, another answer was first.
                sender.try_send(Answer { code, tell }).ok().map(|()| told)
            });
            async move {
                let ended = match told {
                    Some(told) => told.await.ok(),
                    None => None,
                };
                Ok::<_, Infallible>(page(done, ended.as_ref()))
            }
        };
        // Browsers open connections that they ask nothing on.
        let mut connections = FuturesUnordered::new();
        let answer = loop {
            tokio::select! {
                Some(answer) = answers.recv() => break answer,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => connections.push(serve(stream, show)),
                    Err(error) => return Err(AuthError::Network(Arc::new(error))),
                },
                Some(()) = connections.next() => {}
            }
        };
        // Not in the browser's connection, which may end at any time: a code is good once.
        let result = match answer.code {
            Ok(code) => redeem(code).await,
            Err(error) => Err(error),
        };
        if answer.tell.send(result.as_ref().map(drop).map_err(Clone::clone)).is_err() {
            tracing::debug!("the browser went away");
        }
        let shown = async { while connections.next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, shown).await.is_err() {
            tracing::debug!("a browser that asks for nothing is not waited for");
        }
        result
    }
}

/// What a browser came back with, and who shows it how that ended.
struct Answer {
    code: Result<Secret, AuthError>,
    tell: oneshot::Sender<Result<(), AuthError>>,
}

async fn serve<S, F>(stream: TcpStream, show: S)
where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>>,
{
    let mut http = http1::Builder::new();
    if let Err(error) = http.keep_alive(false).serve_connection(TokioIo::new(stream), service_fn(show)).await
    {
        tracing::debug!(%error, "the browser went away");
    }
}

fn page(done: &str, result: Option<&Result<(), AuthError>>) -> Response<Full<Bytes>> {
    let (status, title, words) = match result {
        None => (StatusCode::NOT_FOUND, "Nothing is here", "This is not the answer to a sign-in.".to_owned()),
        Some(Ok(())) => (StatusCode::OK, done, "You can close this page.".to_owned()),
        Some(Err(error)) if done == SIGNED_IN => (StatusCode::OK, "Not signed in", error.to_string()),
        Some(Err(error)) => (StatusCode::OK, "Refused", error.to_string()),
    };
    let text = format!(
        "<!doctype html><meta charset=\"utf-8\"><title>onedrivefs: {title}</title>\
         <body style=\"font-family:sans-serif;margin:4em\"><h1>{title}</h1><p>{}</p></body>",
        escaped(&words)
    );
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
        .header(header::CACHE_CONTROL, "no-store")
        .header(header::REFERRER_POLICY, "no-referrer")
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(text)))
        .expect("constant headers are well formed")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
