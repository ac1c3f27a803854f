//! Another client's version that came in between our last look at a file and the commit of ours (design 6).
//!
//! Where the service checks no tag at the commit there is a moment in which another client's save is replaced. The
//! service keeps it as a version, and here it is found and comes back as a copy beside the file.

use serde::{Deserialize, Serialize};

use super::apply::fresh_local;
use super::base::staging;
use super::op::Send;
use super::session::Aim;
use super::settle::mark;
use super::{Engine, EngineError};
use crate::content::StagingId;
use crate::graph::{GraphError, Priority, Version};
use crate::model::{ItemId, NodeId, RemoteItem, Timestamp};
use crate::store::{ConflictCause, Durability, LocalView, Node, NodeKind, SessionRow, StoreError};

const SECOND: i64 = 1_000_000_000;

/// The file as it was at the last look before a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastLook {
    /// When it was last changed, by the service's clock.
    pub changed: Timestamp,
    /// Bytes.
    pub size: Option<u64>,
}

impl LastLook {
    /// What the item said; none where it does not say when it was changed.
    pub fn at(item: &RemoteItem) -> Option<Self> {
        Some(Self { changed: item.changed?, size: item.size })
    }
}

/// The versions that are neither what was looked at nor `ours`, nor newer than that; the oldest first. Pure.
///
/// Times are compared by the second, as the flavours write them; all of them are the service's.
fn in_between<'a>(versions: &'a [Version], look: &LastLook, ours: &RemoteItem) -> Vec<&'a Version> {
    let second = |time: Timestamp| time.0.div_euclid(SECOND);
    let is_ours = |version: &&Version| {
        version.size == ours.size && version.mtime.map(second) == ours.changed.map(second)
    };
    let first_older = versions.iter().position(|version| is_ours(&version)).map_or(1, |at| at + 1);
    let newer = |version: &&Version| {
        let Some(written) = version.mtime else { return false };
        let (written, looked) = (second(written), second(look.changed));
        written > looked || (written == looked && look.size.is_some() && version.size != look.size)
    };
    versions.iter().skip(first_older).take_while(newer).collect::<Vec<_>>().into_iter().rev().collect()
}

impl Engine {
    /// The look before the commit of `send`, if its commit was one that checks no tag.
    pub(super) fn last_look(&self, send: &Send) -> Result<Option<LastLook>, EngineError> {
        let Some(content) = send.content() else { return Ok(None) };
        let row = self.0.store.session(content)?;
        Ok(row.and_then(|row| Aim::parse(&row.target)?.look))
    }

    /// Brings back what came in between. `Deadline` with an unknown outcome: not all of it is back yet.
    pub(super) async fn keep_what_came_between(
        &self,
        node: &Node,
        send: &Send,
        look: &LastLook,
        ours: &RemoteItem,
    ) -> Result<(), GraphError> {
        let versions = match self.0.graph.versions(&self.0.drive.id, &ours.id, Priority::Upload).await {
            Ok(versions) => versions,
            Err(error) => return self.give_up_or_later(error),
        };
        for version in in_between(&versions, look, ours) {
            tracing::warn!(node = %node.id, version = version.id, "another client's version came in between");
            match self.bring_back(node, send, &ours.id, version).await {
                Ok(()) => {}
                Err(EngineError::Graph(error)) => self.give_up_or_later((*error).clone())?,
                Err(error) => {
                    tracing::error!(%error, "a version could not be brought back yet");
                    return Err(GraphError::Deadline { sent: true });
                }
            }
        }
        Ok(())
    }

    /// What time may mend is tried again by the check of the attempt; what never will is told.
    fn give_up_or_later(&self, error: GraphError) -> Result<(), GraphError> {
        match error {
            GraphError::NotFound { .. }
            | GraphError::Invalid { .. }
            | GraphError::Unsupported { .. }
            | GraphError::AccessDenied { .. }
            | GraphError::Malware { .. } => {
                tracing::warn!(%error, "whether another client's version came in between cannot be told");
                Ok(())
            }
            error => {
                tracing::info!(%error, "what came in between is looked for later");
                Err(GraphError::Deadline { sent: true })
            }
        }
    }

    async fn bring_back(
        &self,
        node: &Node,
        send: &Send,
        item: &ItemId,
        version: &Version,
    ) -> Result<(), EngineError> {
        let (graph, drive) = (&self.0.graph, &self.0.drive.id);
        let download = graph.version_download(drive, item, &version.id, None, Priority::Upload).await?;
        let inner = self.0.clone();
        let create = move || -> Result<_, EngineError> {
            let content = inner.store.write(Durability::Process, |tx| tx.next_content())?;
            inner.staging.create(StagingId(content)).map_err(staging)
        };
        let file = self.0.blocking.start(create).await?;
        let at = self.save_to(download, &file).await?;
        let (inner, node, sent, seen) = (
            self.0.clone(),
            node.clone(),
            send.content(),
            LastLook { changed: version.mtime.unwrap_or_default(), size: version.size },
        );
        let record = move || -> Result<(), EngineError> {
            file.sync().map_err(staging)?;
            let (now, naming) = (Timestamp::from(inner.clock.wall()), inner.naming());
            let committed = inner.store.write_changes(Durability::Power, |tx| -> Result<(), StoreError> {
                let (folder, name) = node.known_place().unwrap_or((NodeId::ROOT, "file".into()));
                let copy_name = naming.free_name(tx, folder, &name)?;
                let copy = tx.insert(NodeKind::File)?;
                let seq = tx.next_sequence();
                let local = fresh_local(folder, copy_name.clone(), now, seq);
                let StagingId(content) = file.id();
                tx.set_local(copy, Some(&LocalView { content: Some(content), size: at, ..local }))?;
                tx.synced(content)?;
                mark(tx, copy, node.remote.as_ref(), &name, ConflictCause::BothChanged, &naming)?;
                if let Some(row) = sent.map(|sent| tx.session(sent)).transpose()?.flatten() {
                    let aim = Aim::parse(&row.target).map(|aim| Aim { look: Some(seen), ..aim });
                    let target = aim.map_or(row.target.clone(), |aim| aim.text());
                    tx.put_session(&SessionRow { target, ..row })?;
                }
                let path = tx.path(node.id)?;
                tx.notice(
                    now,
                    &path,
                    &format!(
                        "another client saved it while it was being sent: that is kept as \"{copy_name}\""
                    ),
                )
            })?;
            inner.sink.changed(&committed.changes);
            Ok(())
        };
        self.0.blocking.start(record).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp(second * SECOND + 1)
    }

    fn version(id: &str, second: i64, size: u64) -> Version {
        Version { id: id.into(), size: Some(size), mtime: Some(at(second)) }
    }

    fn found(versions: &[Version]) -> Vec<&str> {
        let look = LastLook { changed: Timestamp(10 * SECOND), size: Some(100) };
        let ours = RemoteItem { size: Some(7), changed: Some(at(20)), ..RemoteItem::bare(ItemId::new("I")) };
        in_between(versions, &look, &ours).into_iter().map(|version| version.id.as_str()).collect()
    }

    #[test]
    fn only_what_was_written_between_the_look_and_ours_counts() {
        let (ours, base, older) = (version("ours", 20, 7), version("base", 10, 100), version("older", 3, 5));
        assert!(found(&[ours.clone(), base.clone(), older.clone()]).is_empty());
        let (first, second) = (version("first", 15, 1), version("second", 18, 2));
        let all = [ours.clone(), second.clone(), first.clone(), base.clone(), older.clone()];
        assert_eq!(found(&all), ["first", "second"], "the oldest first");
        let later = [version("later", 30, 9), ours.clone(), first, base.clone()];
        assert_eq!(found(&later), ["first"], "what came after ours is the file");
        let same_second = [ours.clone(), version("same second", 10, 99), base.clone()];
        assert_eq!(found(&same_second), ["same second"]);
        assert!(found(&[ours]).is_empty(), "a library that keeps no versions");
        assert!(found(&[]).is_empty());
    }
}
