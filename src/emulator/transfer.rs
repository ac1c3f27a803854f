//! The data plane: request bodies onto disk, downloads out, upload URLs, copy monitors.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::Shared;
use super::content::{Blob, BlobWriter};
use super::error::{ApiError, ApiResult};
use super::http::{Body, Call, Reply, ReplyBody};
use super::shape::Link;
use super::state::State;
use super::time;

/// JSON and form bodies.
const MAX_JSON: usize = 4 << 20;
/// What is read of a body that is refused, so that the client sees the answer.
const MAX_DRAIN: u64 = 64 << 20;

/// Next piece of a request body, no faster than the connection's bandwidth.
async fn piece(shared: &Shared, link: &Link, body: &mut Body) -> ApiResult<Option<Bytes>> {
    loop {
        let Some(frame) = body.frame().await else { return Ok(None) };
        let frame = frame.map_err(|e| ApiError::invalid(format!("The body broke: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let rate = shared.lock().faults.bandwidth;
        if let Some(rate) = rate {
            tokio::time::sleep_until(link.up.pass(data.len(), rate, shared.clock.mono())).await;
        }
        return Ok(Some(data));
    }
}

pub(crate) async fn drain(shared: &Shared, link: &Link, mut body: Body) {
    let mut seen = 0;
    while let Ok(Some(data)) = piece(shared, link, &mut body).await {
        seen += data.len() as u64;
        if seen > MAX_DRAIN {
            break;
        }
    }
}

/// A body small enough for memory.
pub(crate) async fn small(shared: &Shared, link: &Link, mut body: Body) -> ApiResult<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(data) = piece(shared, link, &mut body).await? {
        if all.len() + data.len() > MAX_JSON {
            return Err(ApiError::new(413, "invalidRequest", "The request message is too big."));
        }
        all.extend_from_slice(&data);
    }
    Ok(all)
}

pub(crate) fn form(bytes: &[u8]) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(bytes).into_owned().collect()
}

/// Reads the content of a simple PUT (graph-api 7.1).
pub(crate) async fn content(
    shared: &Shared,
    link: &Link,
    call: &Call,
    mut body: Body,
    limit: u64,
) -> ApiResult<Blob> {
    let too_big = || ApiError::new(413, "maxFileSizeExceeded", "The request message is too big.");
    let expected =
        call.length.ok_or_else(|| ApiError::new(411, "lengthRequired", "Content-Length is required."))?;
    if expected > limit {
        drain(shared, link, body).await;
        return Err(too_big());
    }
    let mut writer = {
        let mut state = shared.lock();
        let name = state.file_name();
        BlobWriter::new(&state.dir, &name)
    };
    while let Some(data) = piece(shared, link, &mut body).await? {
        writer.write(&data)?;
        if writer.len() > limit {
            return Err(too_big());
        }
    }
    if writer.len() != expected {
        return Err(ApiError::invalid("The body is shorter than its Content-Length."));
    }
    Ok(writer.finish())
}

/// Answers `/_data/...`. A request that carries Authorization is refused (graph-api 6.1, 7.3).
pub(crate) async fn data(shared: &Arc<Shared>, link: &Link, call: &Call, body: Body) -> ApiResult<Reply> {
    let path: Vec<&str> = call.path.trim_start_matches("/_data/").split('/').collect();
    let refuse = shared.lock().switches.refuse_data_authorization;
    if refuse && call.header("authorization").is_some() {
        drain(shared, link, body).await;
        return Err(ApiError::new(
            401,
            "unauthenticated",
            "Authorization must not be sent to a pre-authenticated URL.",
        ));
    }
    match (call.method.as_str(), path.as_slice()) {
        ("GET" | "HEAD", ["download"]) => shared.lock().download(call),
        ("GET", ["thumbnail", size]) => shared.lock().thumbnail(call, size),
        ("GET", ["monitor", id]) => shared.lock().monitor(call, id),
        ("PUT", ["upload", id]) => fragment(shared, link, call, body, id).await,
        ("GET", ["upload", id]) => shared.lock().session_status(call, id),
        ("DELETE", ["upload", id]) => shared.lock().session_cancel(call, id),
        ("POST", ["upload", id]) => shared.lock().session_commit(call, id),
        ("GET", ["preview"]) => Ok(Reply::text(200, "text/html", "<html></html>")),
        _ => Err(ApiError::not_found()),
    }
}

/// Gives the writer back whatever becomes of the request.
struct Writing<'a> {
    shared: &'a Arc<Shared>,
    id: &'a str,
    writer: Option<Box<BlobWriter>>,
    start: super::content::Mark,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let Some(mut writer) = self.writer.take() else { return };
        let mut state = self.shared.lock();
        if !state.switches.keep_partial_fragment {
            // A file that cannot be cut back fails the session's hash check later.
            let _ = writer.roll_back(self.start.clone());
        }
        state.fragment_broke(self.id, writer);
    }
}

async fn fragment(
    shared: &Arc<Shared>,
    link: &Link,
    call: &Call,
    mut body: Body,
    id: &str,
) -> ApiResult<Reply> {
    let admitted = shared.lock().begin_fragment(call, id);
    let fragment = match admitted {
        Ok(fragment) => fragment,
        Err(e) => {
            drain(shared, link, body).await;
            return Err(e);
        }
    };
    let start = fragment.writer.mark();
    let before = fragment.writer.len();
    let mut writing = Writing { shared, id, writer: Some(fragment.writer), start };
    loop {
        let data = piece(shared, link, &mut body).await?;
        let Some(writer) = &mut writing.writer else { return Err(ApiError::not_found()) };
        let Some(data) = data else { break };
        if writer.len() + data.len() as u64 - before > fragment.length || writer.len() > fragment.total {
            return Err(
                ApiError::invalid("The body is longer than announced.").inner("fragmentLengthMismatch")
            );
        }
        writer.write(&data)?;
    }
    match writing.writer.take() {
        Some(writer) if writer.len() - before == fragment.length => {
            drop(writing);
            let mut state = shared.lock();
            let now = time::from_system(shared.clock.wall());
            state.end_fragment(&Call { now, ..call.clone() }, id, writer)
        }
        short => {
            writing.writer = short;
            Err(ApiError::invalid("The body is shorter than announced.").inner("fragmentLengthMismatch"))
        }
    }
}

impl State {
    /// The bytes behind a download URL, with one range (graph-api 6.2).
    fn download(&self, call: &Call) -> ApiResult<Reply> {
        let token = call.option("tempauth").unwrap_or_default();
        let Some(d) = self.urls.open(token, call.now) else {
            let personal = !self.config.flavour.is_business();
            let status = if personal { 403 } else { 401 };
            return Err(ApiError::new(status, "unauthenticated", "The download URL has expired."));
        };
        let drive = self.drives.get(d.drive).ok_or_else(ApiError::not_found)?;
        let node = drive.live(d.slot)?;
        let blob = match d.version {
            0 => node.blob(),
            n if n == node.version => node.blob(),
            n => Some(&drive.version(d.slot, n)?.blob),
        };
        let blob = blob.ok_or_else(ApiError::not_found)?;
        let len = blob.len();
        let range = call.header("range").filter(|_| !self.switches.ignore_range && len > 0);
        let (status, start, end) = match range.map(|r| parse_byte_range(r, len)) {
            None | Some(Wanted::All) => (200, 0, len),
            Some(Wanted::Part(start, end)) => (206, start, end),
            Some(Wanted::Nothing) => {
                let e = ApiError::new(416, "invalidRange", "The range is beyond the end of the file.");
                return Err(e.header("content-range", format!("bytes */{len}")));
            }
        };
        let name = super::render::escape(&node.name);
        let mut reply =
            Reply { status, headers: Vec::new(), body: ReplyBody::Content(blob.open()?, start, end) }
                .header("content-type", super::mime::of(&node.name))
                .header("accept-ranges", "bytes")
                .header("last-modified", httpdate::fmt_http_date(time::to_system(node.modified)))
                .header("content-disposition", format!("attachment; filename*=UTF-8''{name}"));
        if status == 206 {
            reply = reply.header("content-range", format!("bytes {start}-{}/{len}", end - 1));
        }
        // Personal hosts may leave it out (graph-api 6.2).
        if let (true, true, 0, Some(tag)) =
            (self.switches.download_e_tag, drive.flavour().is_business(), d.version, drive.e_tag(d.slot))
        {
            reply = reply.header("etag", tag);
        }
        Ok(reply)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(u64, u64),
    Nothing,
}

/// One range per request; several, or what is not understood, get everything (graph-api 6.2).
fn parse_byte_range(text: &str, len: u64) -> Wanted {
    let Some(spec) = text.trim().strip_prefix("bytes=") else { return Wanted::All };
    let Some((from, to)) = spec.split_once('-').filter(|_| !spec.contains(',')) else { return Wanted::All };
    match (from.trim().parse::<u64>(), to.trim().parse::<u64>()) {
        (Ok(from), _) if from >= len => Wanted::Nothing,
        (Ok(from), Ok(to)) if to >= from => Wanted::Part(from, (to + 1).min(len)),
        (Ok(from), Err(_)) if to.trim().is_empty() => Wanted::Part(from, len),
        (Err(_), Ok(0)) => Wanted::Nothing,
        (Err(_), Ok(last)) if from.trim().is_empty() => Wanted::Part(len.saturating_sub(last), len),
        _ => Wanted::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_served_and_everything_else_is_the_whole() {
        for (text, want) in [
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=5-", Wanted::Part(5, 10)),
            ("bytes=5-99", Wanted::Part(5, 10)),
            ("bytes=-3", Wanted::Part(7, 10)),
            ("bytes=-30", Wanted::Part(0, 10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=10-11", Wanted::Nothing),
            ("bytes=4-3", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("items=0-1", Wanted::All),
        ] {
            assert_eq!(parse_byte_range(text, 10), want, "{text}");
        }
    }
}
