//! `$batch` (graph-api 11.5).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::content::Blob;
use super::error::{ApiError, ApiResult};
use super::faults::FaultAction;
use super::graph::Payload;
use super::http::{Call, Reply, ReplyBody};
use super::log::RequestRecord;
use super::route;
use super::service::{op_name, record};
use super::state::State;

const MAX_REQUESTS: usize = 20;

impl State {
    /// Runs the requests in the order given, which is one of those the service may choose.
    pub(crate) fn batch(&mut self, call: &Call, body: &Value) -> ApiResult<Reply> {
        let bad = |m: &'static str| Err(ApiError::new(400, "BadRequest", m));
        let Some(requests) = body.get("requests").and_then(Value::as_array) else {
            return bad("The requests are missing.");
        };
        if requests.is_empty() || requests.len() > MAX_REQUESTS {
            return bad("The number of requests must be between 1 and 20.");
        }
        let mut ids = BTreeSet::new();
        for one in requests {
            match one.get("id").and_then(Value::as_str) {
                Some(id) if ids.insert(id.to_owned()) => {}
                _ => return bad("Each request needs an id of its own."),
            }
        }
        let mut done: BTreeMap<String, u16> = BTreeMap::new();
        let mut responses = Vec::new();
        for one in requests {
            let id = one["id"].as_str().unwrap_or_default().to_owned();
            let reply = match dependency(one, &done) {
                Dependency::Met => self.inner(call, one),
                Dependency::Failed => {
                    let e =
                        ApiError::new(424, "FailedDependency", "A request this one depends on has failed.");
                    self.error_reply(&e, call, 0)
                }
                Dependency::Unknown => return bad("dependsOn names a request that does not come before."),
            };
            done.insert(id.clone(), reply.status);
            responses.push(response(&id, reply));
        }
        Ok(Reply::json(200, json!({"responses": responses})))
    }

    /// One inner request: logged, throttled and failed like any other.
    fn inner(&mut self, outer: &Call, one: &Value) -> Reply {
        let result = self.inner_call(outer, one).map(|(call, payload)| {
            let op = op_name(&call);
            let target = call.path.clone();
            let number = self.log.begin(RequestRecord { in_batch: true, ..record(&call, &op) });
            let fault = self.faults.pick(&call.method, &target, &op);
            if let Some((status, after)) = self.faults.throttled(call.now) {
                let refusal = self.refusal(status, None, None, after, &call, number);
                return self.finish(number, refusal);
            }
            let reply = match (&fault, route::parse(call.path.trim_start_matches("/v1.0"))) {
                (Some(FaultAction::Status { status, code, inner, retry_after, after: false }), _) => {
                    self.refusal(*status, code.clone(), inner.clone(), retry_after.clone(), &call, number)
                }
                (_, Err(e)) => self.error_reply(&e, &call, number),
                (_, Ok(route)) if route.base == route::Base::Batch => {
                    let e = ApiError::new(400, "BadRequest", "Batches cannot be nested.");
                    self.error_reply(&e, &call, number)
                }
                (_, Ok(route)) => match self.graph(&call, &route, payload) {
                    Ok(reply) => reply,
                    Err(e) => self.error_reply(&e, &call, number),
                },
            };
            let reply = match fault {
                Some(FaultAction::Status { status, code, inner, retry_after, after: true }) => {
                    self.refusal(status, code, inner, retry_after, &call, number)
                }
                _ => reply,
            };
            self.finish(number, reply)
        });
        result.unwrap_or_else(|e| self.error_reply(&e, outer, 0))
    }

    fn finish(&mut self, number: u64, reply: Reply) -> Reply {
        self.log.status(number, reply.status);
        reply
    }

    fn inner_call(&self, outer: &Call, one: &Value) -> ApiResult<(Call, Payload)> {
        let text = |key: &str| one.get(key).and_then(Value::as_str).map(str::to_owned);
        let (Some(method), Some(url)) = (text("method"), text("url")) else {
            return Err(ApiError::new(400, "BadRequest", "method and url are required."));
        };
        if url.contains("://") {
            return Err(ApiError::new(400, "BadRequest", "The url must be relative."));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in one.get("headers").and_then(Value::as_object).into_iter().flatten() {
            let pair =
                (HeaderName::try_from(name), HeaderValue::from_str(value.as_str().unwrap_or_default()));
            if let (Ok(name), Ok(value)) = pair {
                headers.insert(name, value);
            }
        }
        let (path, query) = Call::split_target(&url);
        let path = format!("/v1.0/{}", path.trim_start_matches('/'));
        let payload = match one.get("body") {
            None | Some(Value::Null) => Payload::None,
            Some(_) if headers.get("content-type").is_none() => {
                return Err(ApiError::new(400, "BadRequest", "Content-Type is required with a body."));
            }
            Some(Value::String(base64)) => {
                let bytes = STANDARD.decode(base64);
                Payload::Content(Blob::from_bytes(
                    bytes.map_err(|_| ApiError::invalid("The body is no base64."))?,
                ))
            }
            Some(value) => Payload::Json(value.clone()),
        };
        let length = if let Payload::Content(b) = &payload { Some(b.len()) } else { None };
        let call = Call {
            method: method.to_ascii_uppercase(),
            path,
            query,
            headers,
            base: outer.base.clone(),
            length,
            now: outer.now,
        };
        Ok((call, payload))
    }
}

enum Dependency {
    Met,
    Failed,
    Unknown,
}

fn dependency(one: &Value, done: &BTreeMap<String, u16>) -> Dependency {
    for on in one.get("dependsOn").and_then(Value::as_array).into_iter().flatten() {
        match on.as_str().and_then(|id| done.get(id)) {
            Some(status) if *status < 400 => {}
            Some(_) => return Dependency::Failed,
            None => return Dependency::Unknown,
        }
    }
    Dependency::Met
}

fn response(id: &str, reply: Reply) -> Value {
    let mut headers = Map::new();
    for (name, value) in &reply.headers {
        let name = if name == "location" {
            "Location"
        } else if name == "retry-after" {
            "Retry-After"
        } else {
            name
        };
        headers.insert(name.to_owned(), json!(value));
    }
    let mut one = json!({"id": id, "status": reply.status});
    if let ReplyBody::Json(body) = reply.body {
        headers.insert("Content-Type".into(), json!("application/json"));
        one["body"] = body;
    }
    one["headers"] = Value::Object(headers);
    one
}
