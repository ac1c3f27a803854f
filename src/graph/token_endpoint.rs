//! The sign-in service over the same transport, for `auth`, which names no HTTP client.

use std::sync::Arc;
use std::time::Duration;

use ::url::Url;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, header};

use super::transport::{Lane, Transport, TransportError};
use super::url::{check_encrypted, is_link_local};
use crate::auth::{Answer, EndpointError, Secret, TokenEndpoint};

const TIMEOUT: Duration = Duration::from_secs(20);
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Sends sign-in forms.
#[derive(Clone, Debug)]
pub struct TransportTokenEndpoint {
    transport: Arc<dyn Transport>,
}

impl TransportTokenEndpoint {
    /// Uses `transport`.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    async fn post(
        &self,
        address: &str,
        form: Vec<(&'static str, Secret)>,
    ) -> Result<(u16, Bytes), EndpointError> {
        let address = Url::parse(address).map_err(|error| EndpointError(Arc::new(error)))?;
        check_encrypted(&address).map_err(|error| EndpointError(Arc::new(error)))?;
        let pairs = form.iter().map(|(name, value)| (*name, value.expose()));
        let body = ::url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let request = Request::post(address.as_str())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::CONTENT_LENGTH, body.len())
            .header(header::ACCEPT, "application/json")
            .body(Bytes::from(body))
            .map_err(|error| EndpointError(Arc::new(error)))?;
        self.send(request).await.map(|answer| (answer.status, answer.body))
    }

    async fn fetch(
        &self,
        address: &str,
        headers: Vec<(&'static str, Secret)>,
    ) -> Result<Answer, EndpointError> {
        let address = Url::parse(address).map_err(|error| EndpointError(Arc::new(error)))?;
        // What a machine knows of itself, it is told without encryption at an address that no network routes.
        if !address.host_str().is_some_and(is_link_local) {
            check_encrypted(&address).map_err(|error| EndpointError(Arc::new(error)))?;
        }
        let request = Request::get(address.as_str()).header(header::ACCEPT, "application/json");
        let request = headers.iter().try_fold(request, |request, (name, value)| {
            let mut value = HeaderValue::from_str(value.expose())?;
            value.set_sensitive(true);
            Ok::<_, http::Error>(request.header(*name, value))
        });
        let request = request.and_then(|request| request.body(Bytes::new()));
        self.send(request.map_err(|error| EndpointError(Arc::new(error)))?).await
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Answer, EndpointError> {
        let broken = |error: TransportError| EndpointError(Arc::new(error));
        let response = self.transport.send(request, Lane::Metadata).await.map_err(broken)?;
        let status = response.status().as_u16();
        let challenge = response.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = response.into_body();
        let mut whole = BytesMut::new();
        while let Some(chunk) = body.next().await {
            whole.extend_from_slice(&chunk.map_err(broken)?);
            if whole.len() > MAX_ANSWER_BYTES {
                return Err(EndpointError(Arc::new(std::io::Error::other("answer too large"))));
            }
        }
        Ok(Answer { status, body: whole.freeze(), challenge })
    }
}

impl TokenEndpoint for TransportTokenEndpoint {
    fn post_form<'a>(
        &'a self,
        url: &'a str,
        form: Vec<(&'static str, Secret)>,
    ) -> BoxFuture<'a, Result<(u16, Bytes), EndpointError>> {
        Box::pin(in_time(self.post(url, form)))
    }

    fn get<'a>(
        &'a self,
        url: &'a str,
        headers: Vec<(&'static str, Secret)>,
    ) -> BoxFuture<'a, Result<Answer, EndpointError>> {
        Box::pin(in_time(self.fetch(url, headers)))
    }
}

async fn in_time<T>(asking: impl Future<Output = Result<T, EndpointError>>) -> Result<T, EndpointError> {
    match tokio::time::timeout(TIMEOUT, asking).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(EndpointError(Arc::new(elapsed))),
    }
}
