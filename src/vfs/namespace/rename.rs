//! Names that move.

use super::{Effect, Halt, Name, Namespace, RenameMode, is_local_only, is_never_sent};
use crate::model::NodeId;
use crate::store::{Node, NodeKind, canonical};
use crate::vfs::VfsError;

impl Namespace<'_, '_, '_> {
    /// Moves the entry `name` of `parent` to `new_name` of `new_parent`; if that is a directory that is to be
    /// replaced, its children are all known.
    pub fn rename(
        mut self,
        (parent, name): (NodeId, &Name),
        (new_parent, new_name): (NodeId, &Name),
        mode: RenameMode,
    ) -> Result<Effect, Halt> {
        self.folder(parent)?;
        self.folder(new_parent)?;
        let source = self.lookup(parent, name)?;
        must_be_movable(&source)?;
        if source.kind.is_directory() && self.tx.is_below(new_parent, source.id)? {
            return Err(VfsError::Invalid.into());
        }
        let target = self.tx.child(new_parent, new_name.remote())?;
        if mode == RenameMode::Exchange {
            let target = target.ok_or(VfsError::NotFound)?;
            self.exchange(&source, (parent, name), &target, (new_parent, new_name))?;
        } else {
            match &target {
                Some(target) if target.id == source.id => return Ok(self.finish()),
                Some(_) if mode == RenameMode::NoReplace => return Err(VfsError::Exists.into()),
                Some(target) => self.check_replaceable(&source, target)?,
                None => self.must_be_free(new_parent, new_name, Some(source.id))?,
            }
            self.replace(source, target, new_parent, new_name)?;
        }
        self.bump(parent)?;
        if new_parent != parent {
            self.bump(new_parent)?;
        }
        Ok(self.finish())
    }

    fn replace(
        &mut self,
        source: Node,
        target: Option<Node>,
        new_parent: NodeId,
        new_name: &Name,
    ) -> Result<(), Halt> {
        let local_only = stays_here(&source, new_parent, new_name)?;
        let is_file = source.kind == NodeKind::File && !local_only;
        if let Some(target) = &target {
            let took_item =
                is_file && target.kind == NodeKind::File && self.replace_content_of(&source, target)?;
            if !took_item {
                self.retire(target)?;
            }
        }
        let source = self.tx.node(source.id)?;
        self.put(&source, new_parent, new_name, local_only)?;
        if is_file && target.is_none() && is_never_sent(&source) {
            self.take_what_was_moved_aside(source.id)?;
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        source: &Node,
        (parent, name): (NodeId, &Name),
        target: &Node,
        (new_parent, new_name): (NodeId, &Name),
    ) -> Result<(), VfsError> {
        if source.id == target.id {
            return Ok(());
        }
        must_be_movable(target)?;
        if target.kind.is_directory() && self.tx.is_below(parent, target.id)? {
            return Err(VfsError::Invalid);
        }
        let source_stays = stays_here(source, new_parent, new_name)?;
        let target_stays = stays_here(target, parent, name)?;
        self.put(source, new_parent, new_name, source_stays)?;
        self.put(target, parent, name, target_stays)
    }

    /// Makes the node visible at another place; a move back to where the service has it costs nothing.
    fn put(&mut self, node: &Node, parent: NodeId, name: &Name, local_only: bool) -> Result<(), VfsError> {
        if !local_only {
            self.must_fit(parent, name)?;
        }
        let local = self.change(node, |local| {
            local.parent = parent;
            local.name = name.remote().to_owned();
            local.local_only = local_only;
        })?;
        let is_home = node
            .remote
            .as_ref()
            .is_some_and(|remote| remote.parent == Some(parent) && canonical(&remote.name) == name.remote());
        let nothing_else = local.content.is_none() && !local.mtime_set && !local.local_only;
        if is_home && nothing_else && self.tx.attempt(node.id)?.is_none() {
            self.tx.set_local(node.id, None)?;
        }
        Ok(())
    }

    fn check_replaceable(&self, source: &Node, target: &Node) -> Result<(), VfsError> {
        match (source.kind.is_directory(), target.kind.is_directory()) {
            (true, false) => Err(VfsError::NotDirectory),
            (false, true) => Err(VfsError::IsDirectory),
            (false, false) => Ok(()),
            (true, true) => {
                must_be_movable(target)?;
                let leads_away = target.kind == NodeKind::Shortcut;
                if leads_away || self.tx.has_children(target.id)? { Err(VfsError::NotEmpty) } else { Ok(()) }
            }
        }
    }
}

fn must_be_movable(node: &Node) -> Result<(), VfsError> {
    match node.kind {
        NodeKind::Package => Err(VfsError::NotPermitted),
        NodeKind::File | NodeKind::Folder | NodeKind::Stub | NodeKind::Shortcut | NodeKind::Symlink => Ok(()),
    }
}

/// Whether the node lives on this machine only once it has this name.
fn stays_here(node: &Node, parent: NodeId, name: &Name) -> Result<bool, VfsError> {
    match node.kind {
        NodeKind::Symlink => Ok(true),
        NodeKind::File if name.is_scratch() => {
            if is_never_sent(node) || is_local_only(node) {
                Ok(true)
            } else {
                Err(VfsError::Invalid)
            }
        }
        NodeKind::File | NodeKind::Folder | NodeKind::Stub | NodeKind::Package | NodeKind::Shortcut => {
            name.may_be_sent(parent)?;
            Ok(false)
        }
    }
}
