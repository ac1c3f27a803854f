//! How missing bytes are had: the seam to whoever talks to the service.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use super::error::FetchError;
use super::key::ContentKey;
use crate::model::{ByteRange, ETag};

/// Who waits for the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Urgency {
    /// A program is blocked on them.
    Reader,
    /// They are likely to be asked for soon.
    ReadAhead,
    /// They are to be here some time: nobody waits.
    Keep,
}

/// The head of an answer and its body.
pub struct Fetched {
    /// The bytes that the body will carry; starts where the request did.
    pub range: ByteRange,
    /// The size of the whole content as this answer states it.
    pub total: u64,
    /// The tag this answer states, if any.
    pub etag: Option<ETag>,
    /// The bytes. May end early: the rest is then asked for again.
    pub body: BoxStream<'static, Result<Bytes, FetchError>>,
}

/// Fetches ranges of a content version.
pub trait Fetch: Send + Sync {
    /// Asks for `range` (not empty, inside the content).
    ///
    /// The bytes must be those of `key.version`, never of a later one: where the answer cannot prove that,
    /// the implementor looks at the item again and answers `VersionGone`. It brings its own retries for
    /// throttling and lost connections; a body that breaks off is asked for again here. Dropping the future
    /// or the body ends the transfer.
    fn fetch(
        &self,
        key: &ContentKey,
        range: ByteRange,
        urgency: Urgency,
    ) -> BoxFuture<'static, Result<Fetched, FetchError>>;

    /// Whether `key.version` is still the item's content; `VersionGone` if not.
    ///
    /// Asked when the tag of the answers moved between two ranges of one file, and when a file without any
    /// hash is complete (graph-api 6.3).
    fn confirm(&self, key: &ContentKey) -> BoxFuture<'static, Result<(), FetchError>> {
        let _ = key;
        Box::pin(std::future::ready(Ok(())))
    }
}
