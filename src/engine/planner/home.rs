//! Changes in a folder that is nowhere: out of sight, and never sent.

use super::{Item, Op, Planner, local};
use crate::model::{NodeId, Timestamp};

impl Planner<'_> {
    /// What finds a place for the change, if its folder has none: its row is gone, or nobody knows more of it than its id.
    #[allow(clippy::option_option, reason = "at home, wait, and find a home are three answers")]
    pub(super) fn homeless(&mut self, item: &Item) -> Option<Option<Op>> {
        let ours = local(item);
        if ours.deleted || self.has_place(ours.parent) {
            return None;
        }
        // A change that waits for a person is to be seen, too.
        let is_parked = ours.parked.is_some() && ours.retry_at == Timestamp(i64::MAX);
        Some((is_parked || self.is_due(ours.retry_at)).then_some(Op::BringHome))
    }

    /// Whether the folder exists on the service or will: as far as is known, that is.
    fn has_place(&self, folder: NodeId) -> bool {
        folder == NodeId::ROOT
            || self.world.dirty.contains_key(&folder)
            || self.world.folders.get(&folder).is_some_and(|folder| folder.item.is_some())
    }
}
