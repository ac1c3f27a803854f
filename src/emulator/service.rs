//! From an HTTP request to an HTTP response: planes, order of checks, faults, standard headers.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderMap;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::control_http;
use super::drive::Act;
use super::error::{ApiError, ApiResult};
use super::faults::FaultAction;
use super::graph::Payload;
use super::http::{Body, Call, ConnectionReset, Reply, ReplyBody};
use super::ids::Guid;
use super::log::RequestRecord;
use super::machine;
use super::route::{self, Base, Route};
use super::shape::{Cut, Link, Shaped};
use super::state::{ME, State};
use super::transfer;
use super::{Shared, time};

/// What the fault machinery decided before the request was looked at.
struct Admission {
    number: u64,
    fault: Option<FaultAction>,
    throttled: Option<(u16, Option<String>)>,
    latency: Duration,
}

pub(crate) async fn serve(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    scheme: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ConnectionReset> {
    let (parts, body) = request.into_parts();
    let head = parts.method == http::Method::HEAD;
    let call = call(shared, scheme, &parts, &body);
    if call.path.starts_with("/_control") {
        return Ok(control_http::answer(shared, &call, body, link).await.into_http(head, false));
    }
    let raw_target = match parts.uri.query() {
        Some(query) => format!("{}?{query}", call.path),
        None => call.path.clone(),
    };
    let admission = admit(shared, &call, parts.uri.query().unwrap_or_default(), &raw_target);
    if !admission.latency.is_zero() {
        tokio::time::sleep(admission.latency).await;
    }
    let number = admission.number;
    let reply = before(shared, link, &call, &admission, body).await?;
    let reply = after(shared, &call, &admission, reply).await?;
    let mut reply = reply;
    reply.headers.extend(standard_headers(shared, &call, number));
    let gzip = {
        let mut state = shared.lock();
        state.log.status(number, reply.status);
        shared.announce(&state);
        state.switches.gzip && call.header("accept-encoding").is_some_and(|e| e.contains("gzip"))
    };
    Ok(shape(shared, link, admission.fault, reply.into_http(head, gzip)))
}

fn call(shared: &Shared, scheme: &str, parts: &http::request::Parts, body: &Body) -> Call {
    let host = parts
        .uri
        .authority()
        .map(ToString::to_string)
        .or_else(|| parts.headers.get("host").and_then(|h| h.to_str().ok()).map(str::to_owned));
    let scheme = parts.uri.scheme_str().unwrap_or(scheme);
    let base = match &shared.base_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("{scheme}://{}", host.as_deref().unwrap_or("localhost")),
    };
    let announced =
        parts.headers.get("content-length").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let (_, query) = Call::split_target(&parts.uri.to_string());
    Call {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query,
        headers: parts.headers.clone(),
        base,
        length: announced.or_else(|| body.size_hint().exact()),
        now: time::from_system(shared.clock.wall()),
    }
}

fn admit(shared: &Shared, call: &Call, query: &str, target: &str) -> Admission {
    let mut state = shared.lock();
    state.advance(call.now);
    let op = op_name(call);
    let number = state.log.begin(RequestRecord { query: query.to_owned(), ..record(call, &op) });
    let fault = state.faults.pick(&call.method, target, &op);
    if let Some(fault) = &fault {
        state.log.fault(number, &format!("{fault:?}"));
    }
    let counted = !op.starts_with("oauth") && machine::op_name(&call.path).is_none();
    let throttled = if counted { state.faults.throttled(call.now) } else { None };
    let latency = Duration::from_millis(state.faults.latency_ms);
    Admission { number, fault, throttled, latency }
}

/// Throttling and faults that come before the effect, then the request itself.
async fn before(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    call: &Call,
    admission: &Admission,
    body: Body,
) -> Result<Reply, ConnectionReset> {
    let number = admission.number;
    if let Some((status, retry_after)) = &admission.throttled {
        transfer::drain(shared, link, body).await;
        return Ok(shared.lock().refusal(*status, None, None, retry_after.clone(), call, number));
    }
    match &admission.fault {
        Some(FaultAction::Delay { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        Some(FaultAction::Status { status, code, inner, retry_after, after: false }) => {
            transfer::drain(shared, link, body).await;
            let (code, inner) = (code.clone(), inner.clone());
            return Ok(shared.lock().refusal(*status, code, inner, retry_after.clone(), call, number));
        }
        Some(FaultAction::Html { status }) => {
            transfer::drain(shared, link, body).await;
            return Ok(Reply::text(*status, "text/html", "<html><body>Service unavailable</body></html>"));
        }
        Some(FaultAction::Reset { after: false }) => return Err(ConnectionReset),
        Some(FaultAction::Stall { after: false }) => shared.released().await,
        _ => {}
    }
    let result = answer(shared, link, call, body).await;
    Ok(result.unwrap_or_else(|e| shared.lock().error_reply(&e, call, number)))
}

/// Faults that come when the effect has happened.
async fn after(
    shared: &Shared,
    call: &Call,
    admission: &Admission,
    reply: Reply,
) -> Result<Reply, ConnectionReset> {
    match admission.fault.clone() {
        Some(FaultAction::Status { status, code, inner, retry_after, after: true }) => {
            Ok(shared.lock().refusal(status, code, inner, retry_after, call, admission.number))
        }
        Some(FaultAction::Reset { after: true }) => Err(ConnectionReset),
        Some(FaultAction::Stall { after: true }) => {
            shared.released().await;
            Ok(reply)
        }
        Some(FaultAction::EmptyBody) => Ok(Reply { body: ReplyBody::Empty, ..reply }),
        _ => Ok(reply),
    }
}

/// Bandwidth and broken bodies.
fn shape(
    shared: &Shared,
    link: &Arc<Link>,
    fault: Option<FaultAction>,
    response: Response<Body>,
) -> Response<Body> {
    let rate = shared.lock().faults.bandwidth;
    let cut = match fault {
        Some(FaultAction::ResetBody { at }) => Some((Cut::Reset, at)),
        Some(FaultAction::TruncateBody { at } | FaultAction::ShortenBody { at }) => Some((Cut::End, at)),
        Some(FaultAction::StallBody { at }) => Some((Cut::Stall, at)),
        Some(FaultAction::CorruptBody { at }) => Some((Cut::Corrupt, at)),
        _ => None,
    };
    if rate.is_none() && cut.is_none() {
        return response;
    }
    let (mut parts, inner) = response.into_parts();
    if let Some(FaultAction::ShortenBody { at }) = fault {
        let full = inner.size_hint().exact().unwrap_or(at);
        parts.headers.insert("content-length", full.min(at).into());
    }
    let mut body = Shaped::new(inner, Arc::clone(link), rate, shared.release.subscribe());
    body.cut = cut;
    Response::from_parts(parts, body.boxed_unsync())
}

async fn answer(shared: &Arc<Shared>, link: &Arc<Link>, call: &Call, body: Body) -> ApiResult<Reply> {
    if call.path.starts_with("/_data/") {
        return transfer::data(shared, link, call, body).await;
    }
    if call.path.contains("/oauth2/v2.0/") {
        let bytes = transfer::small(shared, link, body).await?;
        let form = transfer::form(&bytes);
        return shared.lock().auth.endpoint(call, &form).ok_or_else(ApiError::not_found);
    }
    if call.path.ends_with("/v2.0/adminconsent") && call.method == "GET" {
        transfer::drain(shared, link, body).await;
        return Ok(shared.lock().auth.consent(call));
    }
    if machine::op_name(&call.path).is_some() {
        transfer::drain(shared, link, body).await;
        return Ok(shared.lock().auth.machine(call));
    }
    let Some(path) = call.path.strip_prefix("/v1.0") else {
        transfer::drain(shared, link, body).await;
        return Err(ApiError::no_route());
    };
    let early = early(shared, call, path);
    let route = match early {
        Ok(route) => route,
        Err(e) => {
            transfer::drain(shared, link, body).await;
            return Err(e);
        }
    };
    let payload = if is_content_put(call, &route) {
        let limit = shared.lock().config.simple_put_limit;
        Payload::Content(transfer::content(shared, link, call, body, limit).await?)
    } else {
        json_body(call, &transfer::small(shared, link, body).await?)?
    };
    let mut state = shared.lock();
    let call = &Call { now: time::from_system(shared.clock.wall()), ..call.clone() };
    match (&route.base, payload) {
        (Base::Batch, Payload::Json(body)) if call.method == "POST" => state.batch(call, &body),
        (Base::Batch, _) => Err(ApiError::method("POST")),
        (_, payload) => state.graph(call, &route, payload),
    }
}

fn is_content_put(call: &Call, route: &Route) -> bool {
    call.method == "PUT" && route.item.is_some() && route.tail == ["content"]
}

/// What is refused before a byte of the body is read: token, route, preconditions of a PUT.
fn early(shared: &Shared, call: &Call, path: &str) -> ApiResult<Route> {
    let mut state = shared.lock();
    let challenge = state.switches.claims_challenge;
    state.auth.check(call, challenge)?;
    if (path == "/me" || path.starts_with("/me/")) && state.auth.is_application(call) {
        let words = "/me request is only valid with delegated authentication flow.";
        return Err(ApiError::new(400, "BadRequest", words));
    }
    let route = route::parse(path)?;
    if is_content_put(call, &route)
        && let (Some(at), Some(addr)) = (state.drive_of(&route.base)?, &route.item)
    {
        let place = state.place(at, addr)?;
        state.check_content_put(call, at, &place, Act { now: call.now, by: ME })?;
    }
    Ok(route)
}

fn json_body(call: &Call, bytes: &[u8]) -> ApiResult<Payload> {
    if bytes.is_empty() {
        return Ok(Payload::None);
    }
    let kind = call.header("content-type").unwrap_or_default();
    if !kind.starts_with("application/json") {
        return Err(ApiError::new(415, "invalidRequest", "The Content-Type must be application/json."));
    }
    let value: Result<Value, _> = serde_json::from_slice(bytes);
    value
        .map(Payload::Json)
        .map_err(|_| ApiError::invalid("The body is no JSON.").inner("invalidParameterFormat"))
}

/// Headers on every answer, to be logged with an error (graph-api 11.3).
fn standard_headers(shared: &Shared, call: &Call, number: u64) -> Vec<(String, String)> {
    let request_id = request_id(shared.id_seed, number);
    let client = call.header("client-request-id").unwrap_or(&request_id).to_owned();
    vec![
        ("date".into(), httpdate::fmt_http_date(time::to_system(call.now))),
        ("request-id".into(), request_id),
        ("client-request-id".into(), client),
        (
            "x-ms-ags-diagnostic".into(),
            r#"{"ServerInfo":{"DataCenter":"Emulator","Slice":"E","Ring":"1"}}"#.into(),
        ),
        ("cache-control".into(), "no-store".into()),
    ]
}

fn request_id(seed: u64, number: u64) -> String {
    Guid::derived(number ^ seed.rotate_left(32)).text()
}

impl State {
    pub(crate) fn error_reply(&self, e: &ApiError, call: &Call, number: u64) -> Reply {
        let id = request_id(self.config.id_seed, number);
        let client = call.header("client-request-id").unwrap_or(&id);
        Reply::error(e, e.body(&time::error_date(call.now), &id, client))
    }

    /// The answer of a fault or of throttling, with the code that goes with the status (graph-api 11.1).
    pub(crate) fn refusal(
        &self,
        status: u16,
        code: Option<String>,
        inner: Option<String>,
        retry_after: Option<String>,
        call: &Call,
        number: u64,
    ) -> Reply {
        let usual = match status {
            400 => "invalidRequest",
            401 => "InvalidAuthenticationToken",
            403 => "accessDenied",
            404 => "itemNotFound",
            409 => "nameAlreadyExists",
            410 => "resyncRequired",
            412 => "resourceModified",
            423 => "notAllowed",
            429 => "activityLimitReached",
            503 => "serviceNotAvailable",
            507 => "quotaLimitReached",
            509 => "activityLimitReached",
            _ => "generalException",
        };
        let mut e =
            ApiError::new(status, code.unwrap_or_else(|| usual.to_owned()), "The emulator was told to fail.");
        if let Some(inner) = inner {
            e = e.inner(inner);
        }
        if let Some(after) = retry_after {
            e = e.header("retry-after", after);
        }
        self.error_reply(&e, call, number)
    }
}

/// A log record of a call.
pub(crate) fn record(call: &Call, op: &str) -> RequestRecord {
    let header = |name: &str| call.header(name).map(str::to_owned);
    RequestRecord {
        number: 0,
        at_ms: call.now,
        method: call.method.clone(),
        path: call.path.clone(),
        query: String::new(),
        op: op.to_owned(),
        status: 0,
        authorized: has(&call.headers, "authorization"),
        range: header("range").or_else(|| header("content-range")),
        if_match: header("if-match"),
        client_request_id: header("client-request-id"),
        prefer: header("prefer"),
        content_length: call.length.filter(|n| *n > 0),
        in_batch: false,
        fault: None,
    }
}

fn has(headers: &HeaderMap, name: &str) -> bool {
    headers.contains_key(name)
}

/// The name of an operation in the log.
pub(crate) fn op_name(call: &Call) -> String {
    let method = call.method.as_str();
    if let Some(data) = call.path.strip_prefix("/_data/") {
        let what = match (data.split('/').next().unwrap_or_default(), method) {
            ("upload", "PUT") => "upload.fragment",
            ("upload", "GET") => "upload.status",
            ("upload", "DELETE") => "upload.cancel",
            ("upload", "POST") => "upload.commit",
            ("monitor", _) => "copy.monitor",
            ("thumbnail", _) => "thumbnail",
            _ => "download",
        };
        return what.to_owned();
    }
    if call.path.contains("/oauth2/v2.0/") {
        return format!("oauth.{}", call.path.rsplit('/').next().unwrap_or_default());
    }
    if let Some(name) = machine::op_name(&call.path) {
        return name.to_owned();
    }
    let Some(Ok(route)) = call.path.strip_prefix("/v1.0").map(route::parse) else { return "unknown".into() };
    let last = route.tail.iter().map(|t| t.split('(').next().unwrap_or(t)).collect::<Vec<_>>();
    let name = match (route.item.is_some(), method, last.as_slice()) {
        (true, "GET" | "HEAD", []) => "item.get",
        (true, "PATCH", []) => "item.patch",
        (true, "DELETE", []) => "item.delete",
        (true, "PUT", []) => "upload.commit",
        (true, "GET", ["children"]) => "children.list",
        (true, "POST", ["children"]) => "folder.create",
        (true, "GET", ["content"]) => "content.get",
        (true, "PUT", ["content"]) => "content.put",
        (true, "POST", ["createUploadSession"]) => "upload.create",
        (true, "GET", ["delta"]) => "delta",
        (true, "GET", ["versions"]) => "versions.list",
        (true, _, [.., last]) => return (*last).to_owned(),
        (false, _, _) => match route.base {
            Base::Batch => "batch",
            Base::MyDrives | Base::Drives | Base::UserDrives(_) | Base::SiteDrives(_) => "drives.list",
            Base::Site(_) | Base::Sites | Base::FollowedSites => "site.get",
            Base::Shared(_) => "share.get",
            _ => "drive.get",
        },
        _ => "unknown",
    };
    name.to_owned()
}
