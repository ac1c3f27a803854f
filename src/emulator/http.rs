//! Between `http` types and the emulator's own: calls in, replies out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use serde_json::Value;

use super::content::{CHUNK, Reader};
use super::error::ApiError;

/// Bodies of requests and responses.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// The connection went away instead of an answer; a fault that a test asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection reset by the emulator")]
pub struct ConnectionReset;

/// An empty body.
pub fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body held in memory.
pub fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A request without its body.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// Percent-encoded, from the first slash.
    pub(crate) path: String,
    /// Decoded.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    /// `scheme://host:port` that URLs in the answer begin with.
    pub(crate) base: String,
    /// Bytes of the body if known.
    pub(crate) length: Option<u64>,
    pub(crate) now: super::time::Ms,
}

impl Call {
    /// Splits a relative or absolute request target.
    pub(crate) fn split_target(target: &str) -> (String, Vec<(String, String)>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        (path.to_owned(), pairs.map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// A query option, with or without `$` (graph-api 4.2).
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        let is = |k: &str| k.strip_prefix('$').unwrap_or(k).eq_ignore_ascii_case(name);
        self.query.iter().find(|(k, _)| is(k)).map(|(_, v)| v.as_str())
    }

    /// An instance annotation in the query, with or without `@` (graph-api 7.1).
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        let is = |k: &str| k.strip_prefix('@').unwrap_or(k) == name;
        self.query.iter().find(|(k, _)| is(k)).map(|(_, v)| v.as_str())
    }

    /// Whether a `Prefer` header has this value.
    pub(crate) fn prefers(&self, value: &str) -> bool {
        let all = self.headers.get_all("prefer");
        all.iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.split(',').any(|p| p.trim().eq_ignore_ascii_case(value)))
    }
}

/// An answer before it becomes HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: ReplyBody,
}

#[derive(Debug)]
pub(crate) enum ReplyBody {
    Empty,
    Json(Value),
    Text(&'static str, String),
    /// Bytes `start..end` of a content.
    Content(Reader, u64, u64),
}

impl Reply {
    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: ReplyBody::Empty }
    }

    pub(crate) fn json(status: u16, value: Value) -> Self {
        Self { status, headers: Vec::new(), body: ReplyBody::Json(value) }
    }

    pub(crate) fn text(status: u16, kind: &'static str, text: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: ReplyBody::Text(kind, text.into()) }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn error(e: &ApiError, body: Value) -> Self {
        let headers = e.headers.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        Self { status: e.status, headers, body: ReplyBody::Json(body) }
    }

    /// The HTTP form; JSON may be compressed (graph-api 11.6). A reply to HEAD keeps its headers.
    pub(crate) fn into_http(self, head: bool, gzip: bool) -> Response<Body> {
        let mut headers = HeaderMap::new();
        let (length, body) = match self.body {
            ReplyBody::Empty => (0, empty_body()),
            ReplyBody::Json(value) => {
                let text = value.to_string();
                put(&mut headers, "content-type", JSON);
                let wanted = gzip && text.len() >= MIN_COMPRESSED;
                match wanted.then(|| compressed(text.as_bytes())).flatten() {
                    Some(small) => {
                        put(&mut headers, "content-encoding", "gzip");
                        put(&mut headers, "vary", "Accept-Encoding");
                        (small.len() as u64, full_body(small))
                    }
                    None => (text.len() as u64, full_body(text)),
                }
            }
            ReplyBody::Text(kind, text) => {
                put(&mut headers, "content-type", kind);
                (text.len() as u64, full_body(text))
            }
            ReplyBody::Content(reader, start, end) => {
                (end - start, ContentBody { reader, at: start, end }.boxed_unsync())
            }
        };
        for (name, value) in &self.headers {
            put(&mut headers, name, value);
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
            put(&mut headers, "content-length", &length.to_string());
        }
        let mut response = Response::new(if head { empty_body() } else { body });
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// The content type of Graph's JSON (graph-api 11.6).
const JSON: &str =
    "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8";

/// Smaller answers are not worth it.
const MIN_COMPRESSED: usize = 1024;

fn compressed(text: &[u8]) -> Option<Vec<u8>> {
    use std::io::Write as _;
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(text).ok()?;
    writer.finish().ok()
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    // Names are ours; a value that cannot be a header is left out.
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// Streams a part of a content in pieces.
struct ContentBody {
    reader: Reader,
    at: u64,
    end: u64,
}

impl http_body::Body for ContentBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        let n = (self.end - self.at).min(CHUNK as u64) as usize;
        if n == 0 {
            return Poll::Ready(None);
        }
        let piece = self.reader.read(self.at, n);
        Poll::Ready(Some(piece.map(|bytes| {
            self.at += bytes.len() as u64;
            http_body::Frame::data(bytes)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.end
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.end - self.at)
    }
}
