//! Deletes that wait for `onedrivefs confirm`.

use super::{Engine, EngineError, Inner};
use crate::model::{NodeId, Timestamp};
use crate::store::{Durability, LocalView, ParkKind, Parked, StoreError};

/// Local sequence number at which the drive was last read again.
pub(super) const REREAD: &str = "reread_seq";
/// Local sequence number of the last confirmation.
pub(super) const CONFIRMED: &str = "confirmed_seq";

/// What `status` says of such a delete.
const WHY: &str = "deleted here before the drive was read again";

impl Engine {
    /// Lets go on what waits to be confirmed; returns how many deletes that are.
    pub async fn confirm_deletes(&self) -> Result<u64, EngineError> {
        let inner = self.0.clone();
        let confirm = move || {
            inner.store.write(Durability::Power, |tx| {
                let mut count = 0;
                for node in tx.dirty()? {
                    let Some(local) = node.local.filter(is_unconfirmed) else { continue };
                    let next = LocalView { parked: None, tries: 0, retry_at: Timestamp(0), ..local };
                    tx.set_local(node.id, Some(&next))?;
                    count += 1;
                }
                let now = tx.sequence();
                tx.set_meta(CONFIRMED, Some(&now.to_string()))?;
                Ok::<_, StoreError>(count)
            })
        };
        let count = self.0.blocking.start(confirm).await?;
        tracing::info!(count, "deletes were confirmed");
        self.nudge();
        Ok(count)
    }
}

impl Inner {
    /// Notes that these deletes wait until somebody confirms them.
    pub(super) fn await_confirmation(&self, deletes: &[NodeId]) -> Result<(), StoreError> {
        if deletes.is_empty() {
            return Ok(());
        }
        let now = Timestamp::from(self.clock.wall());
        tracing::warn!(count = deletes.len(), "deletes wait for 'onedrivefs confirm'");
        self.store.write(Durability::Process, |tx| {
            let confirmed: Option<u64> = tx.meta(CONFIRMED)?.and_then(|text| text.parse().ok());
            for &id in deletes {
                let Some(local) = tx.find(id)?.and_then(|node| node.local) else { continue };
                let confirmed = confirmed.is_some_and(|seq| local.changed_seq <= seq);
                if !local.deleted || is_unconfirmed(&local) || confirmed {
                    continue;
                }
                let parked = Some(Parked { kind: ParkKind::Unconfirmed, detail: WHY.into() });
                let next = LocalView { parked, tries: 0, retry_at: Timestamp(i64::MAX), ..local };
                tx.set_local(id, Some(&next))?;
            }
            let text = format!(
                "{} deletes from before the drive was read again wait for 'onedrivefs confirm'",
                deletes.len()
            );
            tx.notice(now, "/", &text)
        })
    }
}

pub(super) fn is_unconfirmed(local: &LocalView) -> bool {
    local.parked.as_ref().is_some_and(|parked| parked.kind == ParkKind::Unconfirmed)
}
