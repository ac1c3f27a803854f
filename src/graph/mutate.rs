//! Changes other than content (graph-api 8).

use std::fmt;

use ::url::Url;
use http::{HeaderName, Method};

use super::call::Call;
use super::classify::Place;
use super::error::{GraphError, Ids, Result};
use super::headers::location_header;
use super::limiter::Priority;
use super::retry::Repeat;
use super::wire::{ConflictBehavior, CopyStatus};
use super::{Graph, url, wire};
use crate::model::{DriveId, ItemId, RemoteItem, Timestamp};

/// A copy that is done may redirect, one that failed may be a 500; the body says which (graph-api 8.1).
const MONITOR_ANSWERS: &[u16] = &[301, 302, 303, 307, 308, 500];

/// What to change of an item; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// New name.
    pub name: Option<String>,
    /// New folder, in the same drive.
    pub parent: Option<ItemId>,
    /// New modification time, at a precision of one second.
    pub mtime: Option<Timestamp>,
    /// New creation time.
    pub btime: Option<Timestamp>,
}

/// What a delete found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The item is in the recycle bin.
    Done,
    /// There was none; perhaps an earlier try deleted it.
    AlreadyGone,
}

/// Where the progress of a copy is told; hidden in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct CopyMonitor(String);

impl fmt::Debug for CopyMonitor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CopyMonitor(hidden)")
    }
}

impl Graph {
    /// Makes a folder; `Exists` if the name is taken, by whatever.
    ///
    /// Compare the answer's mtime: not every service takes it at creation.
    pub async fn mkdir(
        &self,
        drive: &DriveId,
        parent: &ItemId,
        name: &str,
        mtime: Option<Timestamp>,
    ) -> Result<RemoteItem> {
        url::segment(name)?;
        let url = self.inner.root.at(&format!("{}/children", url::item(drive, parent)?))?;
        let call = |mtime| {
            Call::graph("mkdir", Method::POST, url.clone(), Priority::Upload)
                .json(&wire::mkdir_body(name, mtime))
        };
        let mut answer = self.send(call(mtime)).await;
        if mtime.is_some() && matches!(answer, Err(GraphError::Invalid { .. })) {
            answer = self.send(call(None)).await;
        }
        answer?.parsed("a folder without an item", wire::item)
    }

    /// Renames, moves, sets times, all in one request.
    ///
    /// `conflict` matters for names and folders only: `Replace` works for files where the flavour has it (graph-api 7.6).
    /// Is sent again after an unknown outcome only without `if_match`, because a condition that held once
    /// fails on the repeat.
    pub async fn update(
        &self,
        drive: &DriveId,
        item: &ItemId,
        patch: &Patch,
        if_match: Option<&str>,
        conflict: ConflictBehavior,
    ) -> Result<RemoteItem> {
        let moves = patch.name.is_some() || patch.parent.is_some();
        if let Some(name) = &patch.name {
            url::segment(name)?;
        }
        let mut path = url::item(drive, item)?;
        if moves {
            // The documentation names both places (graph-api 15.4).
            path = format!("{path}?{}", wire::conflict_query(conflict));
        }
        let body = wire::patch_body(
            patch.name.as_deref(),
            patch.parent.as_ref(),
            patch.mtime,
            patch.btime,
            moves.then_some(conflict),
        );
        let harmless = if_match.is_none() && conflict == ConflictBehavior::Fail;
        let call = Call::graph("update", Method::PATCH, self.inner.root.at(&path)?, Priority::Upload)
            .json(&body)
            .repeat(if harmless { Repeat::Idempotent } else { Repeat::Once })
            .if_match(if_match)?;
        let answer = self.send(call).await?;
        if answer.body.is_empty() {
            return self.item(drive, item, Priority::Upload).await;
        }
        answer.parsed("a change without an item", wire::item)
    }

    /// Moves the item to the recycle bin, with all that is in it.
    pub async fn delete(&self, drive: &DriveId, item: &ItemId, if_match: Option<&str>) -> Result<Deleted> {
        let url = self.inner.root.at(&url::item(drive, item)?)?;
        let call = Call::graph("delete", Method::DELETE, url, Priority::Upload)
            .repeat(Repeat::Idempotent)
            .if_match(if_match)?;
        match self.send(call).await {
            Ok(_) => Ok(Deleted::Done),
            Err(GraphError::NotFound { .. }) => Ok(Deleted::AlreadyGone),
            Err(error) => Err(error),
        }
    }

    /// Takes an item out of the recycle bin. Personal drives only; `Unsupported` or `NotFound` elsewhere.
    pub async fn restore(
        &self,
        drive: &DriveId,
        item: &ItemId,
        parent: Option<&ItemId>,
        name: Option<&str>,
    ) -> Result<RemoteItem> {
        let url = self.inner.root.at(&format!("{}/restore", url::item(drive, item)?))?;
        let body = wire::patch_body(name, parent, None, None, None);
        let call = Call::graph("restore", Method::POST, url, Priority::Upload).json(&body);
        self.send(call).await?.parsed("a restored item without an item", wire::item)
    }

    /// Copies on the service; ask [`Graph::copy_status`] how it goes. At most 30 000 items.
    pub async fn copy(
        &self,
        drive: &DriveId,
        item: &ItemId,
        to: (&DriveId, &ItemId),
        name: Option<&str>,
        conflict: ConflictBehavior,
    ) -> Result<CopyMonitor> {
        let path = format!("{}/copy?{}", url::item(drive, item)?, wire::conflict_query(conflict));
        let url = self.inner.root.at(&path)?;
        let call = Call::graph("copy", Method::POST, url.clone(), Priority::Upload)
            .json(&wire::copy_body(to.0, to.1, name))
            .header(HeaderName::from_static("prefer"), "respond-async")?;
        let answer = self.send(call).await?;
        let monitor = location_header(&answer.headers, &url);
        monitor.map(|to| CopyMonitor(to.into())).ok_or_else(|| answer.nonsense("a copy without a monitor"))
    }

    /// How far a copy has come.
    pub async fn copy_status(&self, monitor: &CopyMonitor) -> Result<CopyStatus> {
        let url = Url::parse(&monitor.0).map_err(|_| GraphError::Protocol {
            what: "a monitor address that is none",
            executed: false,
            ids: Ids::default(),
        })?;
        let call = Call::data("copy_status", Method::GET, url, Place::Content, Priority::Upload)
            .also(MONITOR_ANSWERS);
        let answer = self.send(call).await?;
        match wire::copy_status(&answer.body) {
            Some(status) => Ok(status),
            // Done, with the new item behind the redirect.
            None if answer.status.is_redirection() => Ok(CopyStatus::Done { item: None }),
            None if answer.status.is_server_error() => Err(GraphError::Server { ids: answer.ids }),
            None => Err(answer.nonsense("a monitor without a status")),
        }
    }
}
