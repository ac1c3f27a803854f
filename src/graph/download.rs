//! Content of files, from the pre-authenticated addresses of the data hosts (graph-api 6).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::url::Url;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Method, StatusCode, header};
use tokio::time::Sleep;

use super::call::{Call, Opened, REDIRECTS, offline};
use super::classify::Place;
use super::error::{GraphError, Ids, Result};
use super::gate::Permit;
use super::headers::location_header;
use super::limiter::Priority;
use super::transport::RawBody;
use super::{Graph, url};
use crate::model::remote::DownloadUrl;
use crate::model::{ByteRange, DriveId, ETag, ItemId};

/// Content as it arrives: exactly the bytes of [`Download::range`], else an error at the end.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// A transfer that has begun.
pub struct Download {
    /// The bytes that `body` gives; may be more than asked for, up to the whole content. Its end is `u64::MAX`
    /// where the service did not tell the length.
    pub range: ByteRange,
    /// Bytes of the whole content, where told.
    pub total: Option<u64>,
    /// Of the content being sent, where told.
    pub etag: Option<ETag>,
    /// The bytes. Dropping it ends the transfer. Holds a slot of the limiter: drain it or drop it.
    pub body: BodyStream,
}

impl fmt::Debug for Download {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Download({} of {:?}, {:?})", self.range, self.total, self.etag)
    }
}

impl Graph {
    /// Content from `url`, whole or the bytes of `range` (which must not be empty).
    ///
    /// The service may send the whole content for any range: the caller skips by [`Download::range`]. The address
    /// names an item, not a version: compare `total` and `etag` with what was expected.
    /// `UrlExpired`: read the item again. `RangeNotSatisfiable`: the content is shorter.
    pub async fn download(
        &self,
        url: &DownloadUrl,
        range: Option<ByteRange>,
        priority: Priority,
    ) -> Result<Download> {
        let url = Url::parse(url.expose()).map_err(|_| GraphError::Protocol {
            what: "a download address that is none",
            executed: false,
            ids: Ids::default(),
        })?;
        let mut call = Call::data("download", Method::GET, url, Place::Content, priority);
        if let Some(range) = range {
            let last = range.end.saturating_sub(1);
            call = call.header(header::RANGE, &format!("bytes={}-{last}", range.start))?;
        }
        let Opened { response, permit, ids } = self.open(call).await?;
        let (parts, body) = response.into_parts();
        let (delivered, total) = delivered(parts.status, &parts.headers, range)
            .map_err(|what| GraphError::Protocol { what, executed: false, ids })?;
        let body = Box::pin(Counted {
            body,
            graph: self.clone(),
            expected: delivered.len(),
            known: delivered.end != u64::MAX,
            got: 0,
            idle: self.inner.config.data_idle_timeout,
            timer: None,
            ended: false,
            _permit: permit,
        });
        let text = parts.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
        Ok(Download { range: delivered, total, etag: text.map(ETag::new), body })
    }

    /// A fresh address of the item's content, for the rare item that was described without one.
    pub async fn content_url(
        &self,
        drive: &DriveId,
        item: &ItemId,
        priority: Priority,
    ) -> Result<DownloadUrl> {
        self.redirect_of("content", &format!("{}/content", url::item(drive, item)?), priority).await
    }

    /// Where a content address of Graph leads (graph-api 6.1).
    pub(super) async fn redirect_of(
        &self,
        op: &'static str,
        path: &str,
        priority: Priority,
    ) -> Result<DownloadUrl> {
        let url = self.inner.root.at(path)?;
        let answer = self.send(Call::graph(op, Method::GET, url.clone(), priority).also(REDIRECTS)).await?;
        let to = answer.status.is_redirection().then(|| location_header(&answer.headers, &url)).flatten();
        to.map(|to| DownloadUrl::new(to.as_str()))
            .ok_or_else(|| answer.nonsense("content without an address"))
    }
}

/// Which bytes an answer brings, and of how many.
fn delivered(
    status: StatusCode,
    headers: &HeaderMap,
    asked: Option<ByteRange>,
) -> std::result::Result<(ByteRange, Option<u64>), &'static str> {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.trim().parse::<u64>().ok());
    if status != StatusCode::PARTIAL_CONTENT {
        if status != StatusCode::OK {
            return Err("a success that is no content");
        }
        return Ok((ByteRange::new(0, length.unwrap_or(u64::MAX)), length));
    }
    let (range, total) =
        text(header::CONTENT_RANGE).and_then(content_range).ok_or("a part without its range")?;
    match asked {
        Some(asked) if range.start == asked.start && range.end <= asked.end && !range.is_empty() => {}
        _ => return Err("a part that was not asked for"),
    }
    if length.is_some_and(|length| length != range.len()) {
        return Err("a part whose length is not its range's");
    }
    if total.is_some_and(|total| range.end > total) {
        return Err("a part beyond the end");
    }
    Ok((range, total))
}

/// `bytes a-b/total`, where total may be `*`.
fn content_range(text: &str) -> Option<(ByteRange, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let end = last.checked_add(1)?;
    let total = match total.trim() {
        "*" => None,
        number => Some(number.parse().ok()?),
    };
    (first < end).then_some((ByteRange::new(first, end), total))
}

/// A body that is counted against what was announced, and watched for standstill.
struct Counted {
    body: RawBody,
    graph: Graph,
    expected: u64,
    known: bool,
    got: u64,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
    _permit: Permit,
}

impl Counted {
    fn end(&mut self, error: Option<GraphError>) -> Poll<Option<Result<Bytes>>> {
        self.ended = true;
        Poll::Ready(error.map(Err))
    }
}

impl Stream for Counted {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        match this.body.as_mut().poll_next(context) {
            Poll::Ready(Some(Ok(chunk))) => {
                this.timer = None;
                this.got += chunk.len() as u64;
                this.graph.inner.counters.received(chunk.len());
                if this.known && this.got > this.expected {
                    let what = "more content than announced";
                    return this.end(Some(GraphError::Protocol {
                        what,
                        executed: false,
                        ids: Ids::default(),
                    }));
                }
                Poll::Ready(Some(Ok(chunk)))
            }
            Poll::Ready(Some(Err(error))) => {
                let error = offline(error, true);
                this.end(Some(error))
            }
            Poll::Ready(None) if this.known && this.got < this.expected => {
                let error = GraphError::Truncated { expected: this.expected, got: this.got };
                this.end(Some(error))
            }
            Poll::Ready(None) => this.end(None),
            Poll::Pending => {
                let idle = this.idle;
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                match timer.as_mut().poll(context) {
                    Poll::Ready(()) => this.end(Some(GraphError::Deadline { sent: true })),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_and_nonsense_is_refused() {
        let cases = [
            ("bytes 0-4/10", Some((0, 5, Some(10)))),
            ("bytes 5-9/*", Some((5, 10, None))),
            ("bytes  7-7/8 ", Some((7, 8, Some(8)))),
            ("bytes */10", None),
            ("bytes 5-4/10", None),
            ("bytes 0-18446744073709551615/10", None),
            ("items 0-4/10", None),
            ("bytes 0-4", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = content_range(text).map(|(range, total)| (range.start, range.end, total));
            assert_eq!(found, expected, "{text}");
        }
    }
}
