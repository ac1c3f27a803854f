//! The loop that plans and starts operations.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::conflict::{NameTaken, Outcome};
use super::op::Op;
use super::{Engine, Inner, lock, planner};
use crate::model::{NodeId, Timestamp};
use crate::store::{Node, StoreError};

/// Looks for something to do at least so often.
const IDLE: Duration = Duration::from_secs(30);
/// Planning takes at most one part in so many of the time while operations of the last plan are left to start.
const PLAN_SHARE: u32 = 20;
/// With nothing left to start, the next plan waits for further changes so many times as long as the last one
/// took, unless someone waits for what it sends: each plan reads everything unsent.
const PLAN_REST: u32 = 4;
const MIN_REST: Duration = Duration::from_millis(10);
const MAX_REST: Duration = Duration::from_secs(1);

/// Operations with the nodes they were planned for, and when to look again.
struct Planned {
    ops: Vec<(Node, Op)>,
    wake_at: Option<Timestamp>,
}

impl Engine {
    /// Plans and runs operations until the engine stops.
    pub(super) async fn send_changes(self) {
        let mut left: Vec<(Node, Op)> = Vec::new();
        let mut wake_at = None;
        let (mut plan_again, mut rest) = (Instant::now(), MIN_REST);
        while !self.0.stop.is_cancelled() {
            if left.is_empty() || Instant::now() >= plan_again {
                let (inner, began) = (self.0.clone(), Instant::now());
                match self.0.blocking.start(move || inner.plan()).await {
                    Ok(planned) => (left, wake_at) = (planned.ops, planned.wake_at),
                    Err(error) => tracing::error!(%error, "unsent changes cannot be read; trying again"),
                }
                plan_again = Instant::now() + began.elapsed() * PLAN_SHARE;
                rest = (began.elapsed() * PLAN_REST).clamp(MIN_REST, MAX_REST);
                self.0.progress.notify_waiters();
                self.cancel_superseded();
            }
            left = self.start_ready(left).await;
            let idle = wake_at.map_or(IDLE, |at| self.0.until(at));
            tokio::select! {
                biased;
                () = self.0.stop.cancelled() => {}
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep(idle) => {}
            }
            if left.is_empty() {
                self.0.gather(rest).await;
            }
        }
    }

    /// Starts what has a slot, in the order of the plan, and returns the rest. No kind of operation waits for
    /// another kind: long uploads hold up no rename. Each is checked against the store when it begins.
    async fn start_ready(&self, ops: Vec<(Node, Op)>) -> Vec<(Node, Op)> {
        let mut left = Vec::new();
        for (node, op) in ops {
            if matches!(op, Op::Send(_) | Op::Verify(_)) && !self.0.may_send() {
                continue;
            }
            let permit = match self.0.slots(&op).map(|slots| slots.clone().try_acquire_owned()) {
                Some(Ok(permit)) => Some(permit),
                Some(Err(_)) => {
                    left.push((node, op));
                    continue;
                }
                None => None,
            };
            let (engine, is_local) = (self.clone(), permit.is_none());
            lock(&self.0.in_flight).insert(node.id);
            let task = async move {
                let _ended = InFlight { inner: engine.0.clone(), id: node.id };
                engine.perform(node, op).await;
                drop(permit);
            };
            if is_local {
                task.await;
            } else {
                tokio::spawn(task);
            }
        }
        left
    }
}

impl Inner {
    /// Lets further changes come in for as long as `rest`, unless someone waits.
    async fn gather(&self, rest: Duration) {
        let over = tokio::time::sleep(rest);
        tokio::pin!(over);
        while !self.is_hurried() {
            tokio::select! {
                biased;
                () = &mut over => return,
                () = self.stop.cancelled() => return,
                () = self.wake.notified() => {}
            }
        }
    }

    /// What the operation needs one of; none where it only touches the store.
    fn slots(&self, op: &Op) -> Option<&Arc<Semaphore>> {
        match op {
            Op::Send(send) if send.content().is_some() => Some(&self.upload_slots),
            Op::Send(_) | Op::Verify(_) => Some(&self.changes),
            Op::Seal { .. } | Op::Copy { .. } => Some(&self.seal_slots),
            // These may have to compare contents, or to ask whether an item is gone.
            Op::Settle(Outcome::ConflictCopy | Outcome::Recreate)
            | Op::BringHome
            | Op::Yield { how: NameTaken::ConflictName, .. } => Some(&self.changes),
            Op::Forget | Op::Settle(_) | Op::Yield { .. } => None,
        }
    }

    fn plan(&self) -> Result<Planned, StoreError> {
        let mut world = self.world()?;
        self.label_contents(&world);
        let plan = planner::plan(&world);
        if plan.wants_look {
            self.look.notify_one();
        }
        self.await_confirmation(&plan.unconfirmed)?;
        let ops = plan.ops.into_iter().filter_map(|(id, op)| Some((world.dirty.remove(&id)?.node, op)));
        Ok(Planned { ops: ops.collect(), wake_at: plan.wake_at })
    }
}

/// Takes the node out of the set when its operation ends, however it ends.
struct InFlight {
    inner: Arc<Inner>,
    id: NodeId,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        lock(&self.inner.in_flight).remove(&self.id);
        self.inner.wake.notify_one();
    }
}
