//! What a start finds that a crash left, and what an orderly end leaves.

use std::collections::BTreeSet;

use super::apply::fresh_local;
use super::{Engine, Inner};
use crate::content::{StagingEntry, StagingError, StagingId};
use crate::model::{NodeId, Timestamp};
use crate::store::{Durability, LocalView, NodeKind, StoreError};

/// Where content is put that no row names.
const RECOVERED: &str = "lost+found";

/// Why a start cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Staged content cannot be looked through.
    #[error("unsent content: {0}")]
    Staging(#[from] StagingError),
}

impl Engine {
    /// Before anything else: unlinks what was to be unlinked, and adopts staged content without a row as
    /// recovered files. Nothing is ever collected that was not recorded as unneeded.
    pub fn recover(&self) -> Result<(), RecoverError> {
        self.0.enumerated.store(self.0.was_enumerated()?, std::sync::atomic::Ordering::Release);
        self.0.resume_rematch()?;
        self.0.store.write(Durability::Process, |tx| tx.doubt_attempts())?;
        self.0.clean_up()?;
        self.0.distrust_after_power_cut()?;
        self.0.measure()?;
        if self.0.store.has_pins() {
            self.0.store.write(Durability::Process, |tx| tx.forget_lost_pins())?;
        }
        let named: BTreeSet<u64> = self.0.store.staged()?.into_iter().chain(self.0.store.kept()?).collect();
        let entries = self.0.staging.list()?;
        if let Some(last) = entries.last() {
            // A crash can take the number back, but not the file.
            self.0.store.write(Durability::Process, |tx| tx.skip_contents(last.id.0))?;
        }
        for entry in entries {
            if !named.contains(&entry.id.0) {
                self.0.adopt_orphan(&entry)?;
            }
        }
        Ok(())
    }

    /// After everything else: what is committed survives a power cut from here on.
    pub fn close(&self) -> Result<(), StoreError> {
        self.0.clean_up()?;
        self.0.end_in_order()?;
        self.0.store.checkpoint()
    }
}

impl Inner {
    /// What was being written when a crash came is as long as its file: the row is told at a close only.
    fn measure(&self) -> Result<(), RecoverError> {
        for node in self.store.dirty()? {
            let Some(local) = node.local.filter(|local| local.seal.is_none()) else { continue };
            let Some(content) = local.content else { continue };
            // What cannot be loaded is told when it is to be sealed.
            let Ok(loaded) = self.staging.load(StagingId(content)) else { continue };
            let size = loaded.file.len();
            if size != local.size {
                let measured = LocalView { size, ..local };
                self.store.write(Durability::Process, |tx| tx.set_local(node.id, Some(&measured)))?;
            }
        }
        Ok(())
    }

    fn adopt_orphan(&self, entry: &StagingEntry) -> Result<(), RecoverError> {
        let StagingId(content) = entry.id;
        if entry.len == 0 || entry.overlay {
            // Nothing was handed out under it (a row is committed before the first write is answered), and
            // without its row nobody knows what an overlay lies over.
            tracing::info!(content, "staged content that was never used is removed");
            return Ok(self.staging.unlink(entry.id)?);
        }
        let now = Timestamp::from(self.clock.wall());
        let name = format!("recovered-{content}");
        tracing::warn!(
            name,
            bytes = entry.len,
            "unsent content without a name was found; it is in {RECOVERED}"
        );
        self.store.write(Durability::Power, |tx| {
            let folder = match tx.child(NodeId::ROOT, RECOVERED)? {
                Some(found) => found.id,
                None => {
                    let id = tx.insert(NodeKind::Folder)?;
                    let seq = tx.next_sequence();
                    let local = fresh_local(NodeId::ROOT, RECOVERED.into(), now, seq);
                    tx.set_local(id, Some(&LocalView { local_only: true, ..local }))?;
                    tx.set_listed(id, true)?;
                    id
                }
            };
            let id = tx.insert(NodeKind::File)?;
            let seq = tx.next_sequence();
            let local = fresh_local(folder, name.clone(), now, seq);
            let found = LocalView { content: Some(content), size: entry.len, local_only: true, ..local };
            tx.set_local(id, Some(&found))?;
            tx.notice(now, &format!("{RECOVERED}/{name}"), "unsent content whose name a crash took")
        })?;
        Ok(())
    }
}
