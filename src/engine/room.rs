//! Uploads that are parked because the drive is full go on when there is room.
//!
//! Deletes are never parked for this and so overtake them. After one, the drive's space is read, and of what is
//! parked as much is tried as fits.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Engine, Inner, lock};
use crate::model::{Quota, Timestamp};
use crate::store::{Node, ParkKind, StoreError};

/// Deletes often come in rows: one look serves them all.
const GATHER: Duration = Duration::from_secs(2);

impl Engine {
    /// The service said that the drive is full.
    pub(super) fn drive_is_full(&self) {
        self.0.short_of_room.store(true, Ordering::Release);
    }

    /// Something was deleted: what is parked for want of room may fit now.
    pub(super) fn room_may_have_come(&self) {
        let inner = &self.0;
        if !inner.short_of_room.load(Ordering::Acquire) || inner.counting_room.swap(true, Ordering::AcqRel) {
            return;
        }
        let engine = self.clone();
        tokio::spawn(async move {
            engine.0.pause(GATHER).await;
            engine.0.counting_room.store(false, Ordering::Release);
            match engine.0.graph.drive(&engine.0.drive.id).await {
                Ok(drive) => {
                    engine.0.quota_at.store(Timestamp::from(engine.0.clock.wall()).0, Ordering::Release);
                    *lock(&engine.0.quota) = drive.quota;
                    engine.use_room(drive.quota).await;
                }
                Err(error) => tracing::debug!(%error, "the drive's space cannot be read; tried again later"),
            }
        });
    }

    /// Tries again what fits into the space that is left.
    async fn use_room(&self, quota: Option<Quota>) {
        let inner = self.0.clone();
        match self.0.blocking.start(move || inner.unpark_what_fits(quota)).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(count, "there is room in the drive again: what waited for it is sent");
                self.nudge();
            }
            Err(error) => tracing::warn!(%error, "what waits for room cannot be read"),
        }
    }
}

impl Inner {
    fn unpark_what_fits(&self, quota: Option<Quota>) -> Result<u64, StoreError> {
        // Where the service does not tell its space, trying is the only way to know.
        let mut room = quota.filter(|quota| quota.total > 0).map_or(u64::MAX, |quota| quota.remaining);
        let mut waits = false;
        let count = self.unpark(|node| {
            let fits = is_short_of_room(node) && node.size() <= room;
            if fits {
                room -= node.size();
            }
            waits |= is_short_of_room(node) && !fits;
            Ok(fits)
        })?;
        self.short_of_room.store(waits, Ordering::Release);
        Ok(count)
    }
}

fn is_short_of_room(node: &Node) -> bool {
    let parked = node.local.as_ref().and_then(|local| local.parked.as_ref());
    parked.is_some_and(|parked| parked.kind == ParkKind::Quota)
}
