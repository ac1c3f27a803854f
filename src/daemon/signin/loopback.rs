//! A page on this machine that the browser comes back to at the end of a sign-in (graph-api 1.4).

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::auth::{AuthError, SignIn};

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

    /// Shows the browser how the sign-in ended, which `finish` tells from its query; none: it was something else.
    pub async fn answer(
        self,
        finish: impl AsyncFn(&str) -> Option<Result<SignIn, AuthError>>,
    ) -> Result<SignIn, AuthError> {
        let ended = Mutex::new(None);
        let show = |request: Request<Incoming>| {
            let (ended, finish) = (&ended, &finish);
            async move {
                let query = request.uri().query().unwrap_or_default();
                let result = if request.uri().path() == "/" { finish(query).await } else { None };
                let answer = page(result.as_ref());
                if result.is_some() {
                    *ended.lock().unwrap_or_else(PoisonError::into_inner) = result;
                }
                Ok::<_, Infallible>(answer)
            }
        };
        // Browsers open connections that they ask nothing on.
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let mut http = http1::Builder::new();
                        connections.push(http.keep_alive(false).serve_connection(TokioIo::new(stream), service_fn(show)));
                    }
                    Err(error) => return Err(AuthError::Network(Arc::new(error))),
                },
                Some(served) = connections.next() => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "the browser went away");
                    }
                    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(result) = ended {
                        return result;
                    }
                }
            }
        }
    }
}

fn page(result: Option<&Result<SignIn, AuthError>>) -> Response<Full<Bytes>> {
    let (status, title, words) = match result {
        None => (StatusCode::NOT_FOUND, "Nothing is here", "This is not the answer to a sign-in.".to_owned()),
        Some(Ok(_)) => (StatusCode::OK, "Signed in", "You can close this page.".to_owned()),
        Some(Err(error)) => (StatusCode::OK, "Not signed in", error.to_string()),
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
