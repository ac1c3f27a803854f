//! Makes staged content complete and immutable, so that it may be sent (design 6).

use std::sync::Arc;

use super::apply::{content_key, is_rewritten};
use super::execute::{backoff, park_wait};
use super::{Engine, EngineError, Inner, Mutant};
use crate::content::{FetchErrorKind, StagingError, StagingFile, StagingId};
use crate::model::{NodeId, Timestamp};
use crate::store::{Durability, LocalView, Node, ParkKind, Parked, Power, Seal, StoreError, Tx};

/// Sealed content, or what to park it for (nothing if waiting alone may help) and why.
type Sealing = Result<(Seal, Arc<StagingFile>), (Option<ParkKind>, String)>;

impl Engine {
    /// Seals `content` of the node, unless somebody began to write it meanwhile.
    pub(super) async fn seal(&self, node: &Node, content: u64) -> Result<(), EngineError> {
        let sealing = self.seal_content(node, content).await;
        if self.0.stop.is_cancelled() {
            return Ok(());
        }
        let (inner, id) = (self.0.clone(), node.id);
        let changed_seq = node.local.as_ref().map_or(0, |local| local.changed_seq);
        let recorded = self.0.blocking.start(move || {
            let recorded = inner.record_seal(id, (content, changed_seq), &sealing)?;
            let keeps_open = !recorded || Mutant::UploadUnsealed.is_planted();
            if let (true, Ok((_, file))) = (keeps_open, &sealing) {
                // Somebody writes it: they must not find it closed to changes.
                file.unseal();
            }
            Ok::<_, StoreError>(sealing.ok().map(|(seal, _)| seal).filter(|_| recorded))
        });
        match recorded.await? {
            Some(seal) => self.settle_as_sent(node.id, content, &seal).await,
            None => Ok(()),
        }
    }

    async fn seal_content(&self, node: &Node, content: u64) -> Sealing {
        let file = self.staged_file(node, StagingId(content)).await.map_err(|error| failure(&error))?;
        if let Err(error) = file.fill_from_base().await
            && !self.is_in_history(node, &file, &error).await?
        {
            tracing::warn!(node = %node.id, %error, "the untouched part of a changed file cannot be fetched");
            return Err(failure(&error));
        }
        let (hashing, inner, id) = (file.clone(), self.0.clone(), node.id);
        let sealing = self.0.blocking.start(move || {
            let sealed = hashing.seal();
            if hashing.is_lost() {
                let noted = inner.store.write(Durability::Power, |tx| inner.note_lost(tx, id, content));
                noted.map_err(|error| (None, error.to_string()))?;
            }
            sealed.map_err(|error| failure(&error))
        });
        let sealed = sealing.await?;
        Ok((Seal { size: sealed.size, blake3: sealed.blake3, quick_xor: sealed.quick_xor }, file))
    }
}

impl Engine {
    /// Whether the untouched part, which `error` says is not the service's current version any more, was found among
    /// the earlier ones.
    async fn is_in_history(
        &self,
        node: &Node,
        file: &Arc<StagingFile>,
        error: &StagingError,
    ) -> Result<bool, (Option<ParkKind>, String)> {
        let (Some(ParkKind::BaseGone), _) = failure(error) else { return Ok(false) };
        let Some(base) = node.base.as_ref().or(node.remote.as_ref()) else { return Ok(false) };
        let key = content_key(base, is_rewritten(self.0.is_business(), &base.name));
        self.fill_from_history(file, &key).await.map_err(|error| (None, error.to_string()))
    }
}

impl Inner {
    /// Records the outcome; false if the content has a writer, had one since
    /// `changed_seq`, or is no longer the node's.
    fn record_seal(
        &self,
        id: NodeId,
        (content, changed_seq): (u64, u64),
        sealing: &Sealing,
    ) -> Result<bool, StoreError> {
        self.store.write(Durability::Power, |tx| {
            let local = tx.find(id)?.and_then(|node| node.local);
            let Some(local) = local.filter(|local| local.content == Some(content)) else { return Ok(false) };
            if local.seal.is_some() {
                return Ok(true);
            }
            let is_written = self.open.has_writer(id) || local.changed_seq != changed_seq;
            if is_written && !Mutant::UploadUnsealed.is_planted() {
                return Ok(false);
            }
            let next = match sealing {
                Ok((seal, _)) => {
                    tx.stands_alone(content)?;
                    LocalView { seal: Some(seal.clone()), size: seal.size, tries: 0, parked: None, ..local }
                }
                Err((kind, detail)) => {
                    let tries = local.tries.saturating_add(1);
                    // Looking for a version that is gone may take fetching others whole: less and less often.
                    let wait = match kind {
                        Some(ParkKind::BaseGone) => park_wait(ParkKind::BaseGone, tries),
                        _ => backoff(tries),
                    };
                    let retry_at = self.after(wait);
                    let parked = kind.map(|kind| Parked { kind, detail: detail.clone() });
                    LocalView { parked, tries, retry_at, ..local }
                }
            };
            tx.set_local(id, Some(&next))?;
            Ok(true)
        })
    }

    /// The disk failed to keep the content: it replaces nothing, as after a power cut.
    fn note_lost(&self, tx: &mut Tx<'_>, id: NodeId, content: u64) -> Result<(), StoreError> {
        let is_known = tx.is_lost(Some(content))?;
        let is_beside = tx.find(id)?.is_some_and(|node| node.remote.is_some());
        if !is_known && !is_beside {
            let now = Timestamp::from(self.clock.wall());
            tx.notice(now, &tx.path(id)?, "the local disk failed to keep it: it may be incomplete")?;
        }
        tx.set_power(content, Some(Power::Lost))
    }
}

fn failure(error: &StagingError) -> (Option<ParkKind>, String) {
    let kind = match error {
        StagingError::Base(base) => match base.fetch_kind() {
            Some(FetchErrorKind::VersionGone | FetchErrorKind::NotFound) => Some(ParkKind::BaseGone),
            Some(_) => None,
            None => Some(ParkKind::LocalDisk),
        },
        StagingError::Busy | StagingError::NotComplete | StagingError::IsSealed => None,
        StagingError::NoSpace
        | StagingError::NotFound(_)
        | StagingError::Exists(_)
        | StagingError::DamagedLog(_)
        | StagingError::Broken
        | StagingError::Disk(_) => Some(ParkKind::LocalDisk),
    };
    (kind, error.to_string())
}
