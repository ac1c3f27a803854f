//! Which nodes are open, as far as the engine must know: it does not pull content away from under a
//! writer, and a deleted node's row stays until its last handle is closed.

use dashmap::DashMap;

use crate::model::NodeId;

/// What a handle may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Write, or read and write.
    Write,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    handles: u32,
    writers: u32,
}

/// Counts of open handles by node; kept by `vfs`, read by the engine.
#[derive(Debug, Default)]
pub struct OpenNodes(DashMap<NodeId, Counts>);

impl OpenNodes {
    /// A handle was opened. Called before the handle can change anything.
    pub fn opened(&self, node: NodeId, access: Access) {
        let mut counts = self.0.entry(node).or_default();
        counts.handles += 1;
        counts.writers += u32::from(access == Access::Write);
    }

    /// A handle was closed; true if it was the node's last.
    pub fn closed(&self, node: NodeId, access: Access) -> bool {
        if let Some(mut counts) = self.0.get_mut(&node) {
            counts.handles = counts.handles.saturating_sub(1);
            counts.writers = counts.writers.saturating_sub(u32::from(access == Access::Write));
        }
        self.0.remove_if(&node, |_, counts| counts.handles == 0).is_some()
    }

    /// A handle is open.
    pub fn is_open(&self, node: NodeId) -> bool {
        self.0.contains_key(&node)
    }

    /// A handle that can write is open.
    pub fn has_writer(&self, node: NodeId) -> bool {
        self.0.get(&node).is_some_and(|counts| counts.writers > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_close_is_told_and_writers_are_counted_apart() {
        let open = OpenNodes::default();
        open.opened(NodeId(5), Access::Read);
        open.opened(NodeId(5), Access::Write);
        assert!(open.is_open(NodeId(5)) && open.has_writer(NodeId(5)));
        assert!(!open.closed(NodeId(5), Access::Write));
        assert!(open.is_open(NodeId(5)) && !open.has_writer(NodeId(5)));
        assert!(open.closed(NodeId(5), Access::Read));
        assert!(!open.is_open(NodeId(5)));
        assert!(!open.closed(NodeId(5), Access::Read));
    }
}
