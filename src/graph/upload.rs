//! Content to the service: whole, or in fragments of a session (graph-api 7).
//!
//! Nothing here is sent again after an unknown outcome: a repeated PUT makes a second version or a conflict with
//! itself, and what a session has received only its status tells.

use std::fmt;
use std::time::Duration;

use ::url::Url;
use bytes::Bytes;
use http::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::call::{Answer, Call};
use super::classify::Place;
use super::error::{GraphError, Ids, Result};
use super::limiter::Priority;
use super::retry::Repeat;
use super::wire::{ConflictBehavior, SessionFields};
use super::{Graph, url, wire};
use crate::model::{DriveId, ItemId, ItemKind, RemoteItem, Timestamp};

/// Every fragment but the last ends at a multiple of this.
pub const FRAGMENT_UNIT: u64 = 320 << 10;
/// The largest fragment: the service refuses 60 MiB (graph-api 7.3).
pub const MAX_FRAGMENT: u64 = 191 * FRAGMENT_UNIT;
/// A session may be unknown to the data host for a moment after it was made (graph-api 7.5).
const NEW_SESSION_DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// Bytes to send from `offset` of `total` when `wanted` is a good size.
///
/// The end is a multiple of `unit` ([`FRAGMENT_UNIT`] for the service) or the end of the file, wherever `offset` is, since the service may have kept
/// part of a broken fragment (graph-api 7.5). 0 only at the end.
pub fn fragment_len(offset: u64, total: u64, wanted: u64, unit: u64) -> u64 {
    let left = total.saturating_sub(offset);
    let wanted = wanted.clamp(unit, MAX_FRAGMENT);
    if left <= wanted {
        return left;
    }
    let end = (offset + wanted) / unit * unit;
    if end > offset { end - offset } else { (offset / unit + 1) * unit - offset }
}

/// What an upload session is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadTarget {
    /// A child of a folder.
    New {
        /// The folder.
        parent: ItemId,
        /// The name in it.
        name: String,
        /// What happens if the name is taken; told at creation, or only with the last fragment.
        conflict: ConflictBehavior,
    },
    /// New content of an item.
    Replace {
        /// The item.
        item: ItemId,
        /// Its tag; checked when the session is made, not when it ends.
        if_match: Option<String>,
    },
}

/// What is known of the content before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionSpec {
    /// Bytes; not 0, which sessions refuse.
    pub size: u64,
    /// Modification time to set.
    pub mtime: Option<Timestamp>,
    /// Creation time to set.
    pub btime: Option<Timestamp>,
    /// The item changes only with [`Graph::commit_session`].
    pub defer_commit: bool,
}

/// The address of a session: whoever has it may write. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionUrl(String);

impl SessionUrl {
    /// Takes the address as the service gave it.
    pub fn new(raw: impl Into<String>) -> Self {
        Self(raw.into())
    }

    /// The address, for requests and for the store only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SessionUrl(hidden)")
    }
}

/// A session that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadSession {
    /// Where fragments go.
    pub url: SessionUrl,
    /// When it ends, unless fragments keep it alive; on business drives 24 hours after its making at the latest.
    pub expires: Option<Timestamp>,
    /// First byte to send.
    pub next: u64,
    /// The times of the spec will be set; else set them afterwards.
    pub mtime_applied: bool,
}

/// What became of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FragmentOutcome {
    /// It was taken.
    More {
        /// First byte to send next; the size of the file if only the commit is missing.
        next: u64,
    },
    /// The file is complete. The item may be missing from the answer: read it.
    Done(Option<Box<RemoteItem>>),
}

/// What a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// First byte it has not; `u64::MAX` if it has all.
    pub next: u64,
    /// When it ends.
    pub expires: Option<Timestamp>,
}

/// How a deferred session is ended; the flavours differ (graph-api 7.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// OneDrive for Business and SharePoint.
    Business,
    /// OneDrive personal; also rescues a session whose last fragment was refused with 409 or 507.
    Personal {
        /// The drive.
        drive: DriveId,
        /// The folder.
        parent: ItemId,
        /// The name in it.
        name: String,
        /// What happens if the name is taken.
        conflict: ConflictBehavior,
        /// Tag of the item to replace.
        if_match: Option<String>,
    },
}

impl Graph {
    /// Makes a file of `body` (at most 4 MiB everywhere, graph-api 15.1; may be empty).
    ///
    /// `Exists` with [`ConflictBehavior::Fail`]; after an unknown outcome of an earlier try the existing file may be
    /// our own.
    pub async fn put_new(
        &self,
        drive: &DriveId,
        parent: &ItemId,
        name: &str,
        body: Bytes,
        conflict: ConflictBehavior,
    ) -> Result<RemoteItem> {
        let path =
            format!("{}:/content?{}", url::child(drive, parent, name)?, wire::conflict_query(conflict));
        let url = self.inner.root.at(&path)?;
        let call = Call::graph("put_new", Method::PUT, url, Priority::Upload).bytes(body);
        self.send(call).await?.parsed("an upload without an item", wire::item)
    }

    /// Replaces the content of `item` by `body`; `PreconditionFailed` if its tag is no longer `if_match`.
    pub async fn put_replace(
        &self,
        drive: &DriveId,
        item: &ItemId,
        body: Bytes,
        if_match: Option<&str>,
    ) -> Result<RemoteItem> {
        let url = self.inner.root.at(&format!("{}/content", url::item(drive, item)?))?;
        let call =
            Call::graph("put_replace", Method::PUT, url, Priority::Upload).bytes(body).if_match(if_match)?;
        self.send(call).await?.parsed("an upload without an item", wire::item)
    }

    /// Begins a session.
    ///
    /// Some services refuse the times or the size in the request (graph-api 15.5, 15.6): it is then made without
    /// them, and `mtime_applied` says so. `SessionConflict`: another session for the name is open.
    pub async fn create_session(
        &self,
        drive: &DriveId,
        target: &UploadTarget,
        spec: &SessionSpec,
    ) -> Result<UploadSession> {
        let (path, name, conflict, if_match) = match target {
            UploadTarget::New { parent, name, conflict } => {
                (format!("{}:", url::child(drive, parent, name)?), Some(name.as_str()), *conflict, None)
            }
            UploadTarget::Replace { item, if_match } => {
                (url::item(drive, item)?, None, ConflictBehavior::Replace, if_match.as_deref())
            }
        };
        let mut result = Err(GraphError::Invalid { ids: Ids::default() });
        for fields in session_attempts(name, spec) {
            result = self.begin_session(&path, fields, conflict, if_match, spec).await;
            if !matches!(result, Err(GraphError::Invalid { .. })) {
                break;
            }
        }
        match (result, target) {
            (Err(GraphError::Invalid { .. }), UploadTarget::Replace { item, if_match }) => {
                self.session_by_name(drive, item, if_match.as_deref(), spec).await
            }
            (Err(GraphError::Exists { ids }), _) => Err(self.name_in_use(drive, target, ids).await),
            (result, _) => result,
        }
    }

    async fn begin_session(
        &self,
        path: &str,
        fields: SessionFields<'_>,
        conflict: ConflictBehavior,
        if_match: Option<&str>,
        spec: &SessionSpec,
    ) -> Result<UploadSession> {
        let url = self.inner.root.at(&format!("{path}/createUploadSession"))?;
        let body = wire::session_body(fields, conflict, spec.defer_commit);
        let call = Call::graph("create_session", Method::POST, url, Priority::Upload).json(&body);
        let answer = self.send(call.if_match(if_match)?).await?;
        let session = answer.parsed("a session that is none", wire::session)?;
        let address = session.url.ok_or_else(|| answer.nonsense("a session without an address"))?;
        Ok(UploadSession {
            url: SessionUrl::new(address),
            expires: session.expires,
            next: session.missing.and_then(|starts| starts.first().copied()).unwrap_or(0),
            mtime_applied: fields.mtime == spec.mtime && fields.btime == spec.btime,
        })
    }

    /// By-id sessions were refused on some personal drives: "file name not provided in url" (graph-api 7.2).
    async fn session_by_name(
        &self,
        drive: &DriveId,
        item: &ItemId,
        if_match: Option<&str>,
        spec: &SessionSpec,
    ) -> Result<UploadSession> {
        let found = self.item(drive, item, Priority::Upload).await?;
        let (Some(parent), Some(name)) = (&found.parent, &found.name) else {
            return Err(GraphError::NotFound { ids: Ids::default() });
        };
        let path = format!("{}:", url::child(drive, parent, name)?);
        let fields = SessionFields { name: Some(name), ..SessionFields::default() };
        self.begin_session(&path, fields, ConflictBehavior::Replace, if_match, spec).await
    }

    /// Tells a name that is taken from a name that another session is filling: the service answers both alike, so the
    /// item is looked for (graph-api 7.5).
    async fn name_in_use(&self, drive: &DriveId, target: &UploadTarget, ids: Ids) -> GraphError {
        let UploadTarget::New { parent, name, conflict } = target else {
            return GraphError::SessionConflict { ids };
        };
        match self.child(drive, parent, name, Priority::Upload).await {
            Err(GraphError::NotFound { .. }) => GraphError::SessionConflict { ids },
            Ok(found) if *conflict == ConflictBehavior::Replace && found.kind == Some(ItemKind::File) => {
                GraphError::SessionConflict { ids }
            }
            Ok(_) | Err(_) => GraphError::Exists { ids },
        }
    }

    /// Sends the bytes from `offset`; take their number from [`fragment_len`].
    ///
    /// `FragmentRange` and errors of unknown outcome: ask [`Graph::session_status`] where to go on.
    /// `SessionGone`: begin again, unless the last fragment was sent and the item shows that it arrived.
    pub async fn put_fragment(
        &self,
        session: &SessionUrl,
        offset: u64,
        total: u64,
        body: Bytes,
    ) -> Result<FragmentOutcome> {
        let end = offset + body.len() as u64;
        let range = format!("bytes {offset}-{}/{total}", end.saturating_sub(1));
        let call = self
            .session_call("put_fragment", Method::PUT, session)?
            .makes_file(end == total)
            .bytes(body)
            .header(header::CONTENT_RANGE, &range)?;
        let mut answer = self.send(call.clone()).await;
        if offset == 0 {
            for delay in NEW_SESSION_DELAYS {
                if !matches!(&answer, Err(GraphError::SessionGone { ids }) if ids.status() == 404) {
                    break;
                }
                tokio::time::sleep(delay).await;
                answer = self.send(call.clone()).await;
            }
        }
        Ok(outcome_of(&answer?, end))
    }

    /// What the session has; `SessionGone` if it is over.
    pub async fn session_status(&self, session: &SessionUrl) -> Result<SessionStatus> {
        let call = self.session_call("session_status", Method::GET, session)?;
        let answer = self.send(call).await?;
        let status = answer.parsed("a session that is none", wire::session)?;
        let missing = status.missing.ok_or_else(|| answer.nonsense("a session without its ranges"))?;
        Ok(SessionStatus { next: missing.first().copied().unwrap_or(u64::MAX), expires: status.expires })
    }

    /// Gives the session up; one that is gone already is fine.
    pub async fn cancel_session(&self, session: &SessionUrl) -> Result<()> {
        let call = self.session_call("cancel_session", Method::DELETE, session)?.repeat(Repeat::Idempotent);
        match self.send(call).await {
            Ok(_) | Err(GraphError::SessionGone { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends a session made with `defer_commit`. The item may be missing from the answer: read it.
    pub async fn commit_session(&self, session: &SessionUrl, how: &Commit) -> Result<Option<RemoteItem>> {
        let call = match how {
            Commit::Business => self.session_call("commit_session", Method::POST, session)?.makes_file(true),
            Commit::Personal { drive, parent, name, conflict, if_match } => {
                let url = self.inner.root.at(&url::child(drive, parent, name)?)?;
                Call::graph("commit_session", Method::PUT, url, Priority::Upload)
                    .json(&wire::commit_body(name, *conflict, session.expose()))
                    .if_match(if_match.as_deref())?
            }
        };
        Ok(wire::item(&self.send(call).await?.body))
    }

    fn session_call(&self, op: &'static str, method: Method, session: &SessionUrl) -> Result<Call> {
        let url = Url::parse(session.expose()).map_err(|_| GraphError::Protocol {
            what: "a session address that is none",
            executed: false,
            ids: Ids::default(),
        })?;
        Ok(Call::data(op, method, url, Place::Session, Priority::Upload))
    }
}

/// The requests to try in turn: all fields, without the times, without the size as well.
fn session_attempts<'a>(name: Option<&'a str>, spec: &SessionSpec) -> Vec<SessionFields<'a>> {
    let bare = SessionFields { name, ..SessionFields::default() };
    let sized = SessionFields { size: Some(spec.size), ..bare };
    let full = SessionFields { mtime: spec.mtime, btime: spec.btime, ..sized };
    let timed = spec.mtime.is_some() || spec.btime.is_some();
    if timed { vec![full, sized, bare] } else { vec![sized, bare] }
}

fn outcome_of(answer: &Answer, end: u64) -> FragmentOutcome {
    match answer.status {
        StatusCode::ACCEPTED => {
            let next = wire::session(&answer.body).and_then(|session| session.missing);
            FragmentOutcome::More { next: next.and_then(|starts| starts.first().copied()).unwrap_or(end) }
        }
        _ => FragmentOutcome::Done(wire::item(&answer.body).map(Box::new)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fragments_end_at_a_multiple_or_at_the_end_and_always_make_progress(
            total in 1u64..400 << 20,
            at in 0u64..400 << 20,
            wanted in 0u64..200 << 20,
        ) {
            let offset = at % total;
            let len = fragment_len(offset, total, wanted, FRAGMENT_UNIT);
            prop_assert!(len > 0 && offset + len <= total && len <= MAX_FRAGMENT);
            prop_assert!((offset + len).is_multiple_of(FRAGMENT_UNIT) || offset + len == total);
        }
    }

    #[test]
    fn after_the_last_byte_there_is_no_fragment() {
        assert_eq!(fragment_len(10, 10, MAX_FRAGMENT, FRAGMENT_UNIT), 0);
        assert_eq!(fragment_len(11, 10, MAX_FRAGMENT, FRAGMENT_UNIT), 0);
    }
}
