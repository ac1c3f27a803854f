//! One call: permission to send, token, attempts, redirects, and what its answer means.
//!
//! Every request of the program passes [`Graph::open`]. It holds the rules of design 7: a deadline, a
//! `client-request-id` per attempt, the account's token to Graph itself and to nobody else, repeats only where
//! they do no harm, silence when the service asks for it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::Value;
use tokio::time::Instant;
use tracing::{debug, warn};
use url::Url;

use super::Graph;
use super::classify::{Place, Refused, classify};
use super::error::{GraphError, Ids, Result};
use super::gate::{Ask, Held, Permit};
use super::headers::{claims_challenge, content_range_total, ids_of, location, location_header, rate_limit};
use super::limiter::{Pool, Priority, Signal};
use super::retry::{self, Failure, Repeat};
use super::transport::{Lane, RawBody, TransportError};
use super::tries::{BACKGROUND_FACTOR, Tries};
use super::url::check_encrypted;
use super::wire;
use crate::auth::AccessToken;

/// Answers that are read whole may not be larger.
const MAX_BODY_BYTES: usize = 64 << 20;
/// Bodies of refusals are read this far.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Statuses that lead elsewhere.
pub(super) const REDIRECTS: &[u16] = &[301, 302, 303, 307, 308];
const MAX_TOKEN_REFRESHES: u32 = 2;

/// A request to be made, as often as its rules allow.
#[derive(Clone)]
pub(super) struct Call {
    pub op: &'static str,
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub place: Place,
    pub priority: Priority,
    pub cost: u32,
    pub repeat: Repeat,
    /// Statuses that are answers besides successes.
    pub also: &'static [u16],
    /// To an upload session: its execution makes the file.
    pub makes_file: bool,
}

impl Call {
    /// To Graph itself, with the account's token. `op` is its name in the log.
    pub fn graph(op: &'static str, method: Method, url: Url, priority: Priority) -> Self {
        let repeat = if method == Method::GET { Repeat::Safe } else { Repeat::Once };
        let cost = if method == Method::GET { 1 } else { 2 };
        let (headers, body, place, also) = (HeaderMap::new(), Bytes::new(), Place::Graph, &[][..]);
        Self { op, method, url, headers, body, place, priority, cost, repeat, also, makes_file: false }
    }

    /// To a pre-authenticated address, without the token.
    pub fn data(op: &'static str, method: Method, url: Url, place: Place, priority: Priority) -> Self {
        Self { place, ..Self::graph(op, method, url, priority) }
    }

    /// In resource units (graph-api 11.2).
    pub fn cost(self, cost: u32) -> Self {
        Self { cost, ..self }
    }

    pub fn repeat(self, repeat: Repeat) -> Self {
        Self { repeat, ..self }
    }

    /// Takes these statuses as answers, too: neither followed nor repeated nor an error.
    pub fn also(self, also: &'static [u16]) -> Self {
        Self { also, ..self }
    }

    /// Ends an upload session, if `ends`: the last fragment of one that nothing else ends does, too (graph-api 7.4).
    pub fn makes_file(self, ends: bool) -> Self {
        Self { makes_file: ends, ..self }
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { body: Bytes::from(body.to_string()), ..self }
    }

    pub fn bytes(mut self, body: Bytes) -> Self {
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        Self { body, ..self }
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> Result<Self> {
        let value = HeaderValue::from_str(value).map_err(|_| GraphError::Protocol {
            what: "a value of the service does not fit into a header",
            executed: false,
            ids: Ids::default(),
        })?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Adds `If-Match`. Tags go as they came, in quotes (graph-api 3.4).
    pub fn if_match(self, tag: Option<&str>) -> Result<Self> {
        match tag {
            None => Ok(self),
            Some(tag) if tag == "*" || tag.starts_with('"') || tag.starts_with("W/") => {
                self.header(header::IF_MATCH, tag)
            }
            Some(tag) => self.header(header::IF_MATCH, &format!("\"{tag}\"")),
        }
    }

    /// Whether its execution changes an item of a drive.
    pub fn changes_items(&self) -> bool {
        self.method != Method::GET && (self.place == Place::Graph || self.makes_file)
    }

    pub fn pool(&self) -> Pool {
        match self.place {
            Place::Graph if self.body.len() <= MAX_ERROR_BYTES => Pool::Metadata,
            Place::Graph | Place::Content | Place::Session => Pool::Content,
        }
    }
}

/// An answer with its body read.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub ids: Ids,
}

impl Answer {
    /// The body as `parse` understands it; what it is not is an error of the service's.
    pub fn parsed<T>(&self, what: &'static str, parse: impl FnOnce(&[u8]) -> Option<T>) -> Result<T> {
        parse(&self.body).ok_or_else(|| self.nonsense(what))
    }

    pub fn nonsense(&self, what: &'static str) -> GraphError {
        GraphError::Protocol { what, executed: self.status.is_success(), ids: self.ids.clone() }
    }
}

/// An answer whose body still streams; the permit lives as long as it does.
pub(super) struct Opened {
    pub response: Response<RawBody>,
    pub permit: Permit,
    pub ids: Ids,
}

/// What one attempt ended in.
enum Attempt {
    Answered(Opened),
    Redirected(Url),
    TokenRefused { stale: AccessToken, claims: Option<String>, ids: Ids },
    Failed { failure: Failure, retry_after: Option<Duration>, error: GraphError },
}

impl Graph {
    /// Makes the call and reads its answer whole.
    pub(super) async fn send(&self, call: Call) -> Result<Answer> {
        let mut tries = Tries::new(self, &call);
        loop {
            let Opened { response, permit, ids } = self.open_with(&call, &mut tries).await?;
            let (parts, body) = response.into_parts();
            let limit = tries.deadline.unwrap_or_else(|| self.now() + self.inner.config.metadata_deadline);
            // As for the head: a body that stands still leaves a read the time for a second attempt.
            let hedge = call.repeat == Repeat::Safe && tries.attempt == 1;
            let idle = self.inner.config.metadata_deadline / if hedge { 4 } else { 1 };
            let read = tokio::time::timeout_at(limit, read_body(body, MAX_BODY_BYTES, idle)).await;
            drop(permit);
            let (failure, error) = match read {
                Ok(Ok(body)) => {
                    self.inner.counters.received(body.len());
                    return Ok(Answer { status: parts.status, headers: parts.headers, body, ids });
                }
                Ok(Err(BodyError::TooLarge)) => {
                    return Err(GraphError::Protocol { what: "answer too large", executed: true, ids });
                }
                Ok(Err(BodyError::Transport(error))) => (Failure::Broken, offline(error, true)),
                Ok(Err(BodyError::Stalled)) | Err(_) => {
                    (Failure::TimedOut, GraphError::Deadline { sent: true })
                }
            };
            tries.failed(self, &call, failure, None, error).await?;
        }
    }

    /// Makes the call and gives its answer as soon as its head is there.
    pub(super) async fn open(&self, call: Call) -> Result<Opened> {
        let mut tries = Tries::new(self, &call);
        self.open_with(&call, &mut tries).await
    }

    async fn open_with(&self, call: &Call, tries: &mut Tries) -> Result<Opened> {
        loop {
            match self.attempt(call, tries).await? {
                Attempt::Answered(opened) => return Ok(opened),
                Attempt::Redirected(to) => tries.redirected(call, to)?,
                Attempt::TokenRefused { stale, claims, ids } => {
                    tries.refreshes += 1;
                    if tries.refreshes > MAX_TOKEN_REFRESHES {
                        warn!(op = call.op, %ids, "the service refuses a token that was just issued");
                        return Err(tries.verdict(classify(refused(Place::Graph, 401, &[], ids))));
                    }
                    let refresh = self.inner.tokens.refresh(&stale, claims);
                    within(tries.deadline, refresh).await.map_err(|error| tries.verdict(error))?;
                }
                Attempt::Failed { failure, retry_after, error } => {
                    tries.failed(self, call, failure, retry_after, error).await?;
                }
            }
        }
    }

    async fn attempt(&self, call: &Call, tries: &mut Tries) -> Result<Attempt> {
        check_encrypted(&tries.url)?;
        let token = match call.place {
            Place::Graph => {
                // The token is the account's key: it goes to one service only.
                self.inner.root.require_same_service(&tries.url)?;
                let token = within(tries.deadline, self.inner.tokens.token()).await;
                Some(token.map_err(|error| tries.verdict(error))?)
            }
            Place::Content | Place::Session => None,
        };
        let ask = Ask { priority: call.priority, pool: call.pool(), cost: call.cost };
        let patience = self.inner.config.metadata_deadline * BACKGROUND_FACTOR;
        let permit = self.inner.gate.pass(ask, tries.deadline, patience).await.map_err(|held| {
            tries.verdict(match held {
                Held::Silenced(left) => {
                    GraphError::Throttled { retry_after: Some(left), executed: false, ids: Ids::default() }
                }
                Held::TimedOut => GraphError::Deadline { sent: false },
            })
        })?;
        let until = tries.begin(self, call);
        let id = self.inner.clock.guid();
        let request = self.request(call, &tries.url, token.as_ref(), &id)?;
        let lane = match call.pool() {
            Pool::Metadata => Lane::Metadata,
            Pool::Content => Lane::Content { idle: self.inner.config.data_idle_timeout },
        };
        let began = self.now();
        self.inner.counters.sent(request.body().len());
        let sent = tokio::time::timeout_at(until, self.inner.transport.send(request, lane)).await;
        let took_ms = (self.now() - began).as_millis() as u64;
        match sent {
            Ok(Ok(response)) => {
                let ids = ids_of(&response, &id);
                debug!(op = call.op, method = %call.method, took_ms, %ids, "answered");
                self.answered(call, tries, token, response, permit, ids).await
            }
            Ok(Err(error)) => {
                debug!(op = call.op, took_ms, client_request_id = %id, error = %Chain(&error), "no answer");
                permit.heard(Signal::Failed);
                let failure = match error {
                    TransportError::NotSent(_) => Failure::NotSent,
                    TransportError::Broken(_) => Failure::Broken,
                    TransportError::Stalled => Failure::TimedOut,
                };
                let error = offline(error, failure != Failure::NotSent);
                Ok(Attempt::Failed { failure, retry_after: None, error })
            }
            Err(_) => {
                debug!(op = call.op, took_ms, client_request_id = %id, "no answer in time");
                let error = GraphError::Deadline { sent: true };
                Ok(Attempt::Failed { failure: Failure::TimedOut, retry_after: None, error })
            }
        }
    }

    fn request(
        &self,
        call: &Call,
        url: &Url,
        token: Option<&AccessToken>,
        id: &str,
    ) -> Result<Request<Bytes>> {
        let mut request = Request::builder().method(call.method.clone()).uri(url.as_str());
        if let Some(headers) = request.headers_mut() {
            headers.extend(call.headers.clone());
            headers.insert("client-request-id", value(id)?);
            headers.insert(header::USER_AGENT, value(&self.inner.config.user_agent)?);
            if call.place == Place::Content {
                // Ranges count the bytes of the content, not of a compressed form.
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            } else {
                headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
            }
            if !matches!(call.method, Method::GET | Method::DELETE) || !call.body.is_empty() {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(call.body.len()));
            }
            if let Some(token) = token {
                let mut bearer = value(&format!("Bearer {}", token.expose()))?;
                bearer.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, bearer);
            }
        }
        request.body(call.body.clone()).map_err(|_| GraphError::Protocol {
            what: "the service gave an address that is none",
            executed: false,
            ids: Ids::default(),
        })
    }

    async fn answered(
        &self,
        call: &Call,
        tries: &Tries,
        token: Option<AccessToken>,
        response: Response<RawBody>,
        permit: Permit,
        ids: Ids,
    ) -> Result<Attempt> {
        let status = response.status();
        if let Some(seen) = rate_limit(response.headers()) {
            self.inner.gate.rate_limit(seen);
        }
        if status.is_success() || call.also.contains(&status.as_u16()) {
            permit.heard(Signal::Fine);
            return Ok(Attempt::Answered(Opened { response, permit, ids }));
        }
        if status.is_redirection() {
            permit.heard(Signal::Fine);
            return location(&response, &tries.url).map(Attempt::Redirected).ok_or(GraphError::Protocol {
                what: "redirect to nowhere",
                executed: false,
                ids,
            });
        }
        if status == StatusCode::UNAUTHORIZED
            && let Some(stale) = token
        {
            permit.heard(Signal::Failed);
            let claims = claims_challenge(response.headers());
            return Ok(Attempt::TokenRefused { stale, claims, ids });
        }
        self.refused(call, tries, response, permit, ids).await
    }

    /// Reads the body of an answer that is no success and says what it means.
    async fn refused(
        &self,
        call: &Call,
        tries: &Tries,
        response: Response<RawBody>,
        permit: Permit,
        ids: Ids,
    ) -> Result<Attempt> {
        let (parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        let retry_after = retry::retry_after(&parts.headers, self.inner.clock.wall());
        let failure = Failure::Status(status);
        if retry::is_refusal(failure, retry_after) || status == 503 {
            let jitter = self.inner.clock.random_below(u64::MAX);
            let pause = retry_after.unwrap_or_else(|| retry::throttle_delay(tries.attempt, jitter));
            self.inner.counters.throttled();
            warn!(op = call.op, %ids, pause_ms = pause.as_millis() as u64, "throttled");
            permit.heard(Signal::Refused(pause));
        } else {
            permit.heard(if status < 500 { Signal::Fine } else { Signal::Failed });
        }
        let limit = self.now() + self.inner.config.metadata_deadline / 4;
        let body = match tokio::time::timeout_at(
            limit,
            read_body(body, MAX_ERROR_BYTES, self.inner.config.metadata_deadline),
        )
        .await
        {
            Ok(Ok(body)) => body,
            _ => Bytes::new(),
        };
        drop(permit);
        self.inner.counters.received(body.len());
        let codes = wire::error_codes(&body);
        let mut error = classify(Refused {
            total: content_range_total(&parts.headers),
            retry_after,
            ..refused(call.place, status, &codes, ids)
        });
        if let GraphError::Resync { location: to, upload_differences, .. } = &mut error {
            *to =
                location_header(&parts.headers, &tries.url).and_then(|url| self.page_link(url.as_str()).ok());
            *upload_differences = super::classify::resync(&codes).is_none_or(|server| !server.0);
        }
        if let GraphError::Throttled { executed, .. } = &mut error {
            *executed = call.changes_items() && !retry::is_certain(failure);
        }
        Ok(Attempt::Failed { failure, retry_after, error })
    }

    pub(super) fn now(&self) -> Instant {
        self.inner.clock.mono()
    }
}

/// Awaits something of the account within the call's time.
async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = std::result::Result<T, crate::auth::AuthError>>,
) -> Result<T> {
    let done = match deadline {
        Some(deadline) => {
            tokio::time::timeout_at(deadline, work).await.map_err(|_| GraphError::Deadline { sent: false })?
        }
        None => work.await,
    };
    done.map_err(GraphError::from)
}

fn refused(place: Place, status: u16, codes: &[String], ids: Ids) -> Refused<'_> {
    Refused { place, status, codes, retry_after: None, total: None, ids }
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| GraphError::Configuration {
        what: "token or user agent do not fit into a header".into(),
    })
}

pub(super) fn offline(error: TransportError, sent: bool) -> GraphError {
    match error {
        TransportError::Stalled => GraphError::Deadline { sent },
        TransportError::NotSent(source) | TransportError::Broken(source) => {
            GraphError::Offline { sent, source }
        }
    }
}

/// An error with its causes in one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

enum BodyError {
    TooLarge,
    Stalled,
    Transport(TransportError),
}

/// Reads at most `limit` bytes, waiting at most `idle` for each part.
async fn read_body(mut body: RawBody, limit: usize, idle: Duration) -> std::result::Result<Bytes, BodyError> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = tokio::time::timeout(idle, body.next()).await.map_err(|_| BodyError::Stalled)? {
        let chunk = chunk.map_err(BodyError::Transport)?;
        if whole.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}
