//! The socket.io channel that says "run delta" (graph-api 10.2): Engine.IO 4 over a WebSocket, HTTP/1.1 only.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};

use super::Shared;
use super::http::{Body, Call, empty_body};
use super::log::RequestRecord;
use super::service::record;
use super::{ids, time};

/// RFC 6455, section 1.3.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Client frames are a few bytes; more is refused.
const MAX_FRAME: u64 = 64 << 10;
const PING_INTERVAL: Duration = Duration::from_secs(25);
const PING_TIMEOUT: Duration = Duration::from_secs(60);
/// The namespace that JavaScript clients derive from the URL's path.
const NAMESPACE: &str = "/notifications";

/// Whether a request wants the channel.
pub(crate) fn wanted(request: &Request<Incoming>) -> bool {
    request.uri().path().starts_with("/socket.io/")
}

/// Answers the upgrade; the channel runs in a task of its own until either side ends it.
pub(crate) fn upgrade(shared: &Arc<Shared>, mut request: Request<Incoming>) -> Response<Body> {
    let (response, drive) = accept(shared, &request);
    if let Some(drive) = drive {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            // A client that goes away needs no answer.
            if let Ok(stream) = hyper::upgrade::on(&mut request).await {
                let _ = channel(&shared, drive, TokioIo::new(stream)).await;
            }
        });
    }
    response.map(|()| empty_body())
}

/// As [`upgrade`], without sockets: the client's end is in the response, where it was let in.
pub(crate) fn connect(shared: &Arc<Shared>, request: &Request<()>) -> Response<Option<DuplexStream>> {
    let (response, drive) = accept(shared, request);
    let client = drive.map(|drive| {
        let (ours, theirs) = tokio::io::duplex(MAX_FRAME as usize);
        let shared = Arc::clone(shared);
        tokio::spawn(async move { channel(&shared, drive, ours).await });
        theirs
    });
    response.map(|()| client)
}

/// The answer, and which drive's channel begins with it.
fn accept<B>(shared: &Shared, request: &Request<B>) -> (Response<()>, Option<usize>) {
    let (_, query) = Call::split_target(&request.uri().to_string());
    let option = |name: &str| query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let drive: Option<usize> = option("drive").and_then(|d| d.parse().ok());
    let expected = drive.map(token);
    let good = expected.as_deref() == option("token")
        && option("EIO") == Some("4")
        && option("transport") == Some("websocket")
        && header("upgrade").eq_ignore_ascii_case("websocket")
        && header("sec-websocket-version") == "13"
        && !request.headers().contains_key("authorization");
    let status = if good { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::BAD_REQUEST };
    log(shared, request, status.as_u16());
    let mut response = Response::new(());
    *response.status_mut() = status;
    if !good {
        return (response, None);
    }
    let key = header("sec-websocket-key");
    let headers = response.headers_mut();
    headers.insert("connection", http::HeaderValue::from_static("Upgrade"));
    headers.insert("upgrade", http::HeaderValue::from_static("websocket"));
    if let Ok(value) = STANDARD.encode(Sha1::digest(format!("{key}{WEBSOCKET_GUID}"))).try_into() {
        headers.insert("sec-websocket-accept", value);
    }
    (response, drive)
}

/// The channel's secret, part of the notification URL.
pub(crate) fn token(drive: usize) -> String {
    format!("{:016x}", ids::mix(drive as u64 ^ 0x50C4))
}

fn log<B>(shared: &Shared, request: &Request<B>, status: u16) {
    let call = Call {
        method: request.method().as_str().to_owned(),
        path: request.uri().path().to_owned(),
        query: Vec::new(),
        headers: request.headers().clone(),
        base: String::new(),
        length: None,
        now: time::from_system(shared.clock.wall()),
    };
    let mut state = shared.lock();
    let number = state.log.begin(RequestRecord { ..record(&call, "push.connect") });
    state.log.status(number, status);
}

/// Talks until the client leaves, misses a ping, or a test closes all channels.
async fn channel<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    drive: usize,
    mut s: S,
) -> io::Result<()> {
    let mut changes = shared.changes.subscribe();
    let mut seen = changes.borrow_and_update().of(drive);
    let mut closing = shared.close_push.subscribe();
    let open = json!({
        "sid": token(drive), "upgrades": [], "maxPayload": MAX_FRAME,
        "pingInterval": PING_INTERVAL.as_millis() as u64, "pingTimeout": PING_TIMEOUT.as_millis() as u64,
    });
    send(&mut s, &format!("0{open}")).await?;
    let mut joined = [false; 2];
    let mut buffer = Vec::new();
    let mut alive_until = tokio::time::Instant::now() + PING_INTERVAL + PING_TIMEOUT;
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING_INTERVAL, PING_INTERVAL);
    loop {
        tokio::select! {
            read = s.read_buf(&mut buffer) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(frame) = take_frame(&mut buffer)? {
                    alive_until = tokio::time::Instant::now() + PING_INTERVAL + PING_TIMEOUT;
                    match frame {
                        Frame::Text(text) => joined_by(&mut s, &text, &mut joined, drive).await?,
                        Frame::Ping(data) => raw(&mut s, 0x8a, &data).await?,
                        Frame::Close => return raw(&mut s, 0x88, &[]).await,
                        Frame::Other => {}
                    }
                }
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = changes.borrow_and_update().of(drive);
                if now != seen {
                    seen = now;
                    event(shared, &mut s, joined, drive).await?;
                }
            }
            _ = closing.changed() => return send(&mut s, "41").await,
            _ = ping.tick() => send(&mut s, "2").await?,
            () = tokio::time::sleep_until(alive_until) => return Ok(()),
        }
    }
}

/// `40` and `40/notifications` join a namespace; `3` answers a ping.
async fn joined_by<S: AsyncWrite + Unpin>(
    s: &mut S,
    text: &str,
    joined: &mut [bool; 2],
    drive: usize,
) -> io::Result<()> {
    let sid = json!({"sid": token(drive + 1000)});
    let Some(namespace) = text.strip_prefix("40") else { return Ok(()) };
    let namespace = namespace.split(',').next().unwrap_or_default();
    if namespace == NAMESPACE {
        joined[1] = true;
        return send(s, &format!("40{NAMESPACE},{sid}")).await;
    }
    if namespace.is_empty() || namespace.starts_with('{') {
        joined[0] = true;
        return send(s, &format!("40{sid}")).await;
    }
    send(s, &format!("44{namespace},{}", json!({"message": "Invalid namespace"}))).await
}

/// Says that something changed; the payload needs no reading (graph-api 10.2).
async fn event<S: AsyncWrite + Unpin>(
    shared: &Shared,
    s: &mut S,
    joined: [bool; 2],
    drive: usize,
) -> io::Result<()> {
    let (id, as_string) = {
        let state = shared.lock();
        let id = state.drives.get(drive).map(|d| d.id.clone()).unwrap_or_default();
        (id, state.switches.socket_io_string_payload)
    };
    let payload = json!({"value": [{
        "subscriptionId": token(drive), "changeType": "updated", "resource": format!("drives/{id}/root"),
    }]});
    let payload = if as_string { json!(payload.to_string()) } else { payload };
    let event = json!(["notification", payload]);
    match joined {
        [_, true] => send(s, &format!("42{NAMESPACE},{event}")).await,
        [true, false] => send(s, &format!("42{event}")).await,
        [false, false] => Ok(()),
    }
}

async fn send<S: AsyncWrite + Unpin>(s: &mut S, text: &str) -> io::Result<()> {
    raw(s, 0x81, text.as_bytes()).await
}

/// One unmasked final frame (RFC 6455, section 5.2).
async fn raw<S: AsyncWrite + Unpin>(s: &mut S, first: u8, data: &[u8]) -> io::Result<()> {
    let mut frame = vec![first];
    match u16::try_from(data.len()) {
        Ok(n) if n < 126 => frame.push(n as u8),
        Ok(n) => {
            frame.push(126);
            frame.extend_from_slice(&n.to_be_bytes());
        }
        Err(_) => return Err(io::Error::other("frame too long")),
    }
    frame.extend_from_slice(data);
    s.write_all(&frame).await?;
    s.flush().await
}

#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Text(String),
    Ping(Vec<u8>),
    Close,
    Other,
}

/// Takes one masked client frame from the front of `buffer`, if it is all there.
fn take_frame(buffer: &mut Vec<u8>) -> io::Result<Option<Frame>> {
    let [first, second, ..] = buffer[..] else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(io::Error::other("client frames must be masked"));
    }
    let (length, head) = match (second & 0x7f, buffer.get(2..4)) {
        (126, None) => return Ok(None),
        (126, Some(b)) => (u64::from(u16::from_be_bytes([b[0], b[1]])), 4),
        (127, _) => return Err(io::Error::other("frame too long")),
        (n, _) => (u64::from(n), 2),
    };
    let end = head + 4 + length as usize;
    if buffer.len() < end {
        return Ok(None);
    }
    let mask = [buffer[head], buffer[head + 1], buffer[head + 2], buffer[head + 3]];
    let data: Vec<u8> = buffer[head + 4..end].iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
    buffer.drain(..end);
    Ok(Some(match first & 0x0f {
        1 => Frame::Text(String::from_utf8_lossy(&data).into_owned()),
        8 => Frame::Close,
        9 => Frame::Ping(data),
        _ => Frame::Other,
    }))
}

/// How far each drive has changed; watched by the channels.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Changes(pub(crate) Vec<u64>);

impl Changes {
    fn of(&self, drive: usize) -> u64 {
        self.0.get(drive).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_frame_is_taken_when_it_is_whole() {
        let mask = [1, 2, 3, 4];
        let mut all = vec![0x81, 0x80 | 3];
        all.extend_from_slice(&mask);
        all.extend(b"40,".iter().zip(mask).map(|(b, m)| b ^ m));
        let mut buffer = all[..5].to_vec();
        assert_eq!(take_frame(&mut buffer).unwrap(), None);
        buffer = all.clone();
        buffer.push(0x88);
        assert_eq!(take_frame(&mut buffer).unwrap(), Some(Frame::Text("40,".into())));
        assert_eq!(buffer, [0x88]);
        assert!(take_frame(&mut vec![0x81, 3, 0, 0, 0]).is_err());
    }
}
