//! A scripted transport: each request is checked against the next expected one and gets its answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response};

use super::transport::{Lane, RawBody, Transport, TransportError, whole_body};
use super::{Graph, GraphConfig};
use crate::auth::{AccessToken, AuthError, StaticToken, TokenSource};
use crate::clock::{Clock, SeededClock};
use crate::model::{DriveId, ItemId};

/// One answer, or the lack of one.
#[derive(Clone, Debug)]
pub enum Say {
    /// Status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, Bytes),
    /// Like an answer whose body ends in an error after the bytes given.
    Broken(u16, Vec<(&'static str, String)>, Bytes),
    /// Like an answer whose body stops moving after the bytes given.
    Stuck(u16, Vec<(&'static str, String)>, Bytes),
    /// No connection.
    NotSent,
    /// The connection breaks before an answer.
    Reset,
    /// No answer, ever.
    Silence,
}

/// An expected request and what follows it.
#[derive(Clone, Debug)]
pub struct Step {
    method: Method,
    /// The address must contain it.
    part: &'static str,
    say: Say,
}

pub fn step(method: Method, part: &'static str, say: Say) -> Step {
    Step { method, part, say }
}

pub fn get(part: &'static str, say: Say) -> Step {
    step(Method::GET, part, say)
}

/// An answer with a body.
pub fn json(status: u16, body: &str) -> Say {
    Say::Answer(status, vec![("content-type", "application/json".into())], Bytes::from(body.to_owned()))
}

/// An answer with headers and a body.
pub fn with(status: u16, headers: &[(&'static str, &str)], body: &str) -> Say {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Say::Answer(status, headers, Bytes::from(body.to_owned()))
}

/// The usual error body.
pub fn refusal(status: u16, code: &str) -> Say {
    json(status, &format!(r#"{{"error":{{"code":"{code}","message":"no","innerError":{{"date":"x"}}}}}}"#))
}

/// What was sent, without the body's bytes.
#[derive(Clone, Debug)]
pub struct Seen {
    pub url: String,
    pub headers: http::HeaderMap,
    pub body: Bytes,
    pub lane: Lane,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("our headers are text"))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("our bodies are JSON")
    }
}

#[derive(Clone, Debug)]
pub struct Script(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    steps: VecDeque<Step>,
    seen: Vec<Seen>,
}

impl Script {
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = steps.into_iter().collect();
        Self(Arc::new(Mutex::new(State { steps, seen: Vec::new() })))
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.0.lock().expect("unpoisoned").seen.clone()
    }

    /// All that was expected has come.
    pub fn done(&self) {
        let left = &self.0.lock().expect("unpoisoned").steps;
        assert!(left.is_empty(), "not asked for: {left:?}");
    }
}

impl Transport for Script {
    fn send(
        &self,
        request: Request<Bytes>,
        lane: Lane,
    ) -> BoxFuture<'_, Result<Response<RawBody>, TransportError>> {
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string();
        let next = {
            let mut state = self.0.lock().expect("unpoisoned");
            state.seen.push(Seen { url: url.clone(), headers: parts.headers, body, lane });
            state.steps.pop_front()
        };
        let next = next.unwrap_or_else(|| panic!("unexpected request: {} {url}", parts.method));
        assert!(
            next.method == parts.method && url.contains(next.part),
            "expected {} …{}…, got {} {url}",
            next.method,
            next.part,
            parts.method
        );
        Box::pin(answer(next.say))
    }
}

async fn answer(say: Say) -> Result<Response<RawBody>, TransportError> {
    let io = |what: &str| Arc::new(std::io::Error::other(what.to_owned()));
    let (status, headers, body): (u16, Vec<_>, RawBody) = match say {
        Say::Answer(status, headers, body) => (status, headers, whole_body(body)),
        Say::Broken(status, headers, body) => {
            let end = Err(TransportError::Broken(io("reset")));
            (status, headers, Box::pin(stream::iter([Ok(body), end])))
        }
        Say::Stuck(status, headers, body) => {
            (status, headers, Box::pin(stream::iter([Ok(body)]).chain(stream::pending())))
        }
        Say::NotSent => return Err(TransportError::NotSent(io("refused"))),
        Say::Reset => return Err(TransportError::Broken(io("reset"))),
        Say::Silence => std::future::pending().await,
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(body).expect("a scripted answer is well formed"))
}

/// A token source that gives `token-1`, and a higher number on each refresh.
#[derive(Debug, Default)]
pub struct Counted {
    pub refreshes: Mutex<Vec<(String, Option<String>)>>,
}

impl TokenSource for Counted {
    fn token(&self) -> BoxFuture<'_, Result<AccessToken, AuthError>> {
        let number = self.refreshes.lock().expect("unpoisoned").len() + 1;
        Box::pin(async move { Ok(AccessToken::new(format!("token-{number}"))) })
    }

    fn refresh<'a>(
        &'a self,
        stale: &'a AccessToken,
        claims: Option<String>,
    ) -> BoxFuture<'a, Result<AccessToken, AuthError>> {
        self.refreshes.lock().expect("unpoisoned").push((stale.expose().to_owned(), claims));
        self.token()
    }
}

/// The token source of an account that is signed out.
#[derive(Debug)]
pub struct Out;

impl TokenSource for Out {
    fn token(&self) -> BoxFuture<'_, Result<AccessToken, AuthError>> {
        Box::pin(async { Err(AuthError::SignedOut { reason: "gone".into() }) })
    }

    fn refresh<'a>(
        &'a self,
        _stale: &'a AccessToken,
        _claims: Option<String>,
    ) -> BoxFuture<'a, Result<AccessToken, AuthError>> {
        self.token()
    }
}

pub fn graph_with(script: &Script, tokens: Arc<dyn TokenSource>, config: GraphConfig) -> Graph {
    let clock: Arc<dyn Clock> = Arc::new(SeededClock::with_seed(7));
    Graph::new(config, Arc::new(script.clone()), tokens, clock).expect("the configuration is good")
}

pub fn graph(steps: impl IntoIterator<Item = Step>) -> (Graph, Script) {
    let script = Script::new(steps);
    (graph_with(&script, Arc::new(StaticToken::new("secret-token")), GraphConfig::default()), script)
}

pub fn drive() -> DriveId {
    DriveId::new("b!D")
}

pub fn item(id: &str) -> ItemId {
    ItemId::new(id)
}

/// Collects a body, and how it ended.
pub async fn drain(mut body: super::BodyStream) -> (Vec<u8>, Option<super::GraphError>) {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => return (bytes, Some(error)),
        }
    }
    (bytes, None)
}

pub const SECOND: Duration = Duration::from_secs(1);
