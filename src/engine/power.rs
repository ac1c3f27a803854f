//! Power cuts: unsealed content that was never synced is not trusted after one (design 6).
//!
//! Where the service has a version, that keeps the name and what is left becomes a conflict copy beside it (the
//! planner, by [`Power::Lost`]). A file that was never sent has nothing beside it to protect: it stays what it
//! is, and the user is told.

use super::Inner;
use super::conflict::local_placed;
use super::recover::RecoverError;
use crate::content::{BaseKind, Piece, StagingError, StagingId, Trust};
use crate::model::{ByteRange, Timestamp};
use crate::store::{Durability, LocalView, Node, Power, StoreError, Tx};

/// The boot of the machine in which the newest run began.
const BOOT: &str = "boot";
/// Set while the newest run ended in order: all of its content is durable.
const CLOSED: &str = "closed_at";

/// Of a change of which nothing is left.
pub(super) const LAST_CHANGE_LOST: &str = "not synced when the power went: the last change is lost";

/// What a power cut left of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// All that was synced, and that is enough.
    Whole,
    /// Nobody knows which bytes.
    Part,
    /// No bytes.
    Nothing,
}

impl Inner {
    /// At a start: doubts what was not synced, if the machine went down under the run before.
    pub(super) fn distrust_after_power_cut(&self) -> Result<(), RecoverError> {
        let boot = self.staging.boot();
        let former = self.store.meta(BOOT)?;
        if former.is_some_and(|former| former != boot) && self.store.meta(CLOSED)?.is_none() {
            for node in self.store.dirty()? {
                self.distrust(&node)?;
            }
        }
        Ok(self.store.write(Durability::Power, |tx| {
            tx.set_meta(BOOT, Some(boot))?;
            tx.set_meta(CLOSED, None)
        })?)
    }

    /// At an orderly end: a power cut takes nothing of this run from here on.
    pub(super) fn end_in_order(&self) -> Result<(), StoreError> {
        for content in self.store.staged()? {
            let synced = self.staging.load(StagingId(content)).and_then(|loaded| loaded.file.sync());
            if let Err(error) = synced {
                tracing::warn!(content, %error, "unsent content could not be synced before the end");
                return Ok(());
            }
        }
        let now = Timestamp::from(self.clock.wall());
        self.store.write(Durability::Power, |tx| tx.set_meta(CLOSED, Some(&now.0.to_string())))
    }

    fn distrust(&self, node: &Node) -> Result<(), RecoverError> {
        let Some(local) = node.local.as_ref().filter(|local| !local.deleted && local.seal.is_none()) else {
            return Ok(());
        };
        let Some(content) = local.content else { return Ok(()) };
        let rest = match self.rest_of(content)? {
            rest @ (Rest::Whole | Rest::Part) if node.remote.is_none() && node.base.is_none() => {
                if self.forget_base(content)? { Rest::Part } else { rest }
            }
            rest => rest,
        };
        let now = Timestamp::from(self.clock.wall());
        Ok(self.store.write(Durability::Power, |tx| match rest {
            Rest::Whole => Ok(()),
            Rest::Part => {
                tx.set_power(content, Some(Power::Lost))?;
                if node.remote.is_some() {
                    return Ok(());
                }
                tx.notice(now, &tx.path(node.id)?, "not synced when the power went: it may be incomplete")
            }
            Rest::Nothing => {
                tx.notice(now, &tx.path(node.id)?, LAST_CHANGE_LOST)?;
                take_back(tx, node, local)
            }
        })?)
    }

    /// What the content lay over, before changes that are lost, is not known any more, and so it could never be completed:
    /// what it does not have itself reads as zeros. False if there is nothing that it does not have.
    fn forget_base(&self, content: u64) -> Result<bool, RecoverError> {
        let loaded = match self.staging.load(StagingId(content)) {
            // A broken disk, which sealing it will say.
            Err(StagingError::NotFound(_) | StagingError::DamagedLog(_)) => return Ok(false),
            loaded => loaded?,
        };
        if loaded.base != Some(BaseKind::Remote) || loaded.file.is_complete() {
            return Ok(false);
        }
        for piece in loaded.file.pieces(ByteRange::new(0, loaded.file.len())) {
            if let Piece::Base(lacking) = piece {
                loaded.file.zero(lacking, true)?;
            }
        }
        loaded.file.sync()?;
        Ok(true)
    }

    fn rest_of(&self, content: u64) -> Result<Rest, RecoverError> {
        let known = self.store.inspect(|tx| tx.power(content))?;
        Ok(match self.staging.load(StagingId(content)) {
            Ok(loaded) => match loaded.trust {
                Trust::Exact | Trust::UpToSync => Rest::Whole,
                Trust::NotLogged if known == Some(Power::Synced) => Rest::Whole,
                Trust::NotLogged | Trust::Unsynced => Rest::Part,
            },
            // Of synced content this is a broken disk, which sealing it will say.
            Err(StagingError::NotFound(_) | StagingError::DamagedLog(_)) => match known {
                Some(Power::Synced) => Rest::Whole,
                Some(Power::Lost) | None => Rest::Nothing,
            },
            Err(error) => return Err(error.into()),
        })
    }
}

/// The change of content never was; one of the place stays.
fn take_back(tx: &mut Tx<'_>, node: &Node, local: &LocalView) -> Result<(), StoreError> {
    let Some(remote) = &node.remote else { return tx.remove(node.id) };
    if !local_placed(node.base.as_ref().unwrap_or(remote), local) {
        return tx.set_local(node.id, None);
    }
    let placed = LocalView { content: None, size: 0, mtime_set: false, ..local.clone() };
    tx.set_local(node.id, Some(&placed))
}
