//! One drive: the rules of each mutation above the bare tree (graph-api 4.3, 4.4, 7.6, 7.9, 8).

use super::content::Blob;
use super::error::{ApiError, ApiResult};
use super::flavour::Flavour;
use super::ids::DriveIds;
use super::names;
use super::time::{Ms, YEAR_1900};
use super::tree::{Kind, Life, LockShape, NewNode, NodeRef, ROOT, Slot, Tree, Version, Who, folder};

/// What happens when the name is taken (graph-api 7.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    Fail,
    Replace,
    Rename,
}

impl Conflict {
    pub(crate) fn parse(text: &str) -> ApiResult<Self> {
        match text {
            "fail" => Ok(Conflict::Fail),
            "replace" => Ok(Conflict::Replace),
            "rename" => Ok(Conflict::Rename),
            other => Err(ApiError::invalid(format!("Unknown conflictBehavior '{other}'."))),
        }
    }
}

/// `fileSystemInfo` of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FsTimes {
    pub(crate) created: Option<Ms>,
    pub(crate) modified: Option<Ms>,
}

/// Who does it, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Act {
    pub(crate) now: Ms,
    pub(crate) by: Who,
}

/// A drive of one flavour.
#[derive(Debug)]
pub(crate) struct Drive {
    pub(crate) id: String,
    pub(crate) ids: DriveIds,
    pub(crate) name: String,
    pub(crate) tree: Tree,
    pub(crate) quota_total: i64,
    pub(crate) owner: Who,
    pub(crate) created: Ms,
    /// Server-relative path of the library, for `webUrl`.
    pub(crate) web_path: String,
    /// Another person's: only what they share may be seen.
    pub(crate) private: bool,
    /// It was deleted.
    pub(crate) gone: bool,
    /// Observed on Business, against the documentation (graph-api 3.4).
    pub(crate) c_tag_moves_on_rename: bool,
    /// Reserved names are sometimes answered 403 (graph-api 4.3).
    pub(crate) reserved_names_403: bool,
    /// Deleting a folder reports its descendants too (graph-api 9.2).
    pub(crate) report_descendants: bool,
    /// Tokens of an older generation get a 410 (graph-api 9.5).
    pub(crate) delta_generation: u64,
    /// Which 410 that is.
    pub(crate) resync: super::delta::Resync,
}

impl Drive {
    pub(crate) fn new(ids: DriveIds, name: &str, web_path: &str, now: Ms) -> Self {
        let mut tree = Tree::new(now);
        tree.node_mut(ROOT).fs_modified = now;
        Self {
            id: ids.drive_id(),
            ids,
            name: name.to_owned(),
            tree,
            quota_total: 1 << 40,
            owner: 0,
            created: now,
            web_path: web_path.to_owned(),
            private: false,
            gone: false,
            c_tag_moves_on_rename: false,
            reserved_names_403: false,
            report_descendants: true,
            delta_generation: 1,
            resync: super::delta::Resync::Plain,
        }
    }

    pub(crate) fn flavour(&self) -> Flavour {
        self.ids.flavour
    }

    pub(crate) fn live(&self, slot: Slot) -> ApiResult<NodeRef<'_>> {
        self.tree.live(slot).ok_or_else(ApiError::not_found)
    }

    pub(crate) fn e_tag(&self, slot: Slot) -> Option<String> {
        self.ids.e_tag(slot, self.tree.node(slot).e_rev)
    }

    pub(crate) fn c_tag(&self, slot: Slot) -> Option<String> {
        let node = self.tree.node(slot);
        match &node.kind {
            Kind::File(_) => Some(self.ids.file_c_tag(slot, node.c_rev)),
            Kind::Folder(f) => {
                // .NET ticks, distinct for each change below.
                let ticks = (node.created + 62_135_596_800_000) * 10_000 + f.tick as i64;
                self.ids.folder_c_tag(slot, ticks)
            }
        }
    }

    /// 423 when locked by someone else, in the shape set for the item (graph-api 8.2).
    pub(crate) fn has_access(&self, slot: Slot) -> bool {
        let lost = |at: Slot| self.tree.node(at).extra.as_ref().is_some_and(|extra| extra.no_access);
        let shared = |at: Slot| self.tree.node(at).extra.as_ref().is_some_and(|extra| extra.shared_with_me);
        let given = !self.private || shared(slot) || self.tree.ancestors(slot).any(shared);
        given && !lost(slot) && !lost(ROOT) && !self.tree.ancestors(slot).any(lost)
    }

    pub(crate) fn check_lock(&self, slot: Slot, by: Who) -> ApiResult<()> {
        let Some(extra) = &self.tree.node(slot).extra else { return Ok(()) };
        let shape = match (extra.lock, extra.checked_out) {
            (Some(shape), _) => shape,
            (None, Some(who)) if who != by => LockShape::EditedByAnother,
            _ => return Ok(()),
        };
        Err(match shape {
            LockShape::EditedByAnother => ApiError::new(
                423,
                "accessDenied",
                "The file is currently checked out or locked for editing by another user.",
            ),
            LockShape::LockToken => {
                ApiError::new(423, "accessDenied", "Lock token does not match existing lock")
            }
            LockShape::ResourceLocked => {
                ApiError::new(423, "notAllowed", "The resource you are attempting to access is locked")
                    .inner("resourceLocked")
            }
        })
    }

    /// Name rules and the path limit for a child of `parent`.
    pub(crate) fn check_place(&self, parent: Slot, name: &str) -> ApiResult<()> {
        names::check(self.flavour(), name, parent == ROOT).map_err(|refused| match refused.inner {
            "badArgument" if self.reserved_names_403 => ApiError::new(403, "accessDenied", refused.message),
            _ => refused.into(),
        })?;
        let above: usize = self.tree.path(parent).iter().map(|n| n.encode_utf16().count() + 1).sum();
        if above + name.encode_utf16().count() > names::MAX_PATH_UNITS {
            return Err(ApiError::new(400, "pathIsTooLong", "The specified path is too long."));
        }
        Ok(())
    }

    fn check_folder(&self, parent: Slot) -> ApiResult<()> {
        let node = self.live(parent)?;
        if node.folder().is_none() || node.extra.as_ref().is_some_and(|e| e.remote.is_some()) {
            return Err(ApiError::invalid("The parent is not a folder."));
        }
        Ok(())
    }

    /// 507 when `more` bytes do not fit (graph-api 2.3, 7.5).
    pub(crate) fn check_quota(&self, more: i64) -> ApiResult<()> {
        let used = self.tree.node(ROOT).weight();
        if more > 0 && used.saturating_add(more) > self.quota_total {
            return Err(ApiError::quota());
        }
        Ok(())
    }

    fn free_name(&self, parent: Slot, name: &str) -> String {
        (1..)
            .map(|n| names::numbered(name, n))
            .find(|n| self.tree.child(parent, n).is_none())
            .unwrap_or_default()
    }

    /// Creates a folder. `Replace` on an existing folder is a 409 on Business (graph-api 7.6).
    pub(crate) fn mkdir(
        &mut self,
        parent: Slot,
        name: &str,
        conflict: Conflict,
        act: Act,
    ) -> ApiResult<Slot> {
        self.check_folder(parent)?;
        self.check_place(parent, name)?;
        let mut name = name.to_owned();
        if self.tree.child(parent, &name).is_some() {
            match conflict {
                Conflict::Rename => name = self.free_name(parent, &name),
                Conflict::Fail | Conflict::Replace => return Err(ApiError::exists()),
            }
        }
        Ok(self.add(parent, &name, folder(), act))
    }

    fn add(&mut self, parent: Slot, name: &str, kind: Kind, act: Act) -> Slot {
        let now = self.round(act.now);
        let slot = self.tree.add(NewNode { parent, name, kind, now, by: act.by });
        if self.tree.changes.contains_key(&self.tree.last_change) {
            self.tree.changes.insert(self.tree.last_change, (slot, act.now));
        }
        slot
    }

    /// Folders of `path` below `parent`, made where missing: PUT by path (graph-api 7.1).
    pub(crate) fn make_path(&mut self, parent: Slot, path: &[String], act: Act) -> ApiResult<Slot> {
        let mut at = parent;
        for name in path {
            at = match self.tree.child(at, name) {
                Some(slot) => slot,
                None => self.mkdir(at, name, Conflict::Fail, act)?,
            };
        }
        self.check_folder(at)?;
        Ok(at)
    }

    /// Whether [`Drive::put`] would succeed, before any byte is read.
    pub(crate) fn check_put(&self, parent: Slot, name: &str, conflict: Conflict, by: Who) -> ApiResult<()> {
        self.check_folder(parent)?;
        self.check_place(parent, name)?;
        match self.tree.child(parent, name) {
            Some(_) if conflict == Conflict::Fail => Err(ApiError::exists()),
            Some(slot) if conflict == Conflict::Replace => self.check_replace(slot, by),
            _ => Ok(()),
        }
    }

    /// Whether the content of `slot` may be replaced. A folder or a package keeps its name (graph-api 3.6).
    pub(crate) fn check_replace(&self, slot: Slot, by: Who) -> ApiResult<()> {
        let node = self.live(slot)?;
        if node.blob().is_none() {
            return Err(ApiError::exists());
        }
        self.check_lock(slot, by)
    }

    /// Creates or replaces a file by name; the flag says created (graph-api 7.1).
    pub(crate) fn put(
        &mut self,
        parent: Slot,
        name: &str,
        blob: Blob,
        conflict: Conflict,
        times: FsTimes,
        act: Act,
    ) -> ApiResult<(Slot, bool)> {
        self.check_put(parent, name, conflict, act.by)?;
        let mut name = name.to_owned();
        match self.tree.child(parent, &name) {
            Some(slot) if conflict == Conflict::Replace => {
                self.replace(slot, blob, times, act)?;
                return Ok((slot, false));
            }
            Some(_) => name = self.free_name(parent, &name),
            None => {}
        }
        self.check_quota(blob.len() as i64)?;
        let slot = self.add(parent, &name, Kind::File(blob), act);
        self.apply_times(slot, times)?;
        Ok((slot, true))
    }

    /// Replaces the content of a file; the old one becomes a version (graph-api 3.4, 8).
    pub(crate) fn replace(&mut self, slot: Slot, blob: Blob, times: FsTimes, act: Act) -> ApiResult<()> {
        self.check_replace(slot, act.by)?;
        self.check_quota(blob.len() as i64 - self.tree.node(slot).weight())?;
        self.push_version(slot);
        self.tree.set_blob(slot, blob);
        let now = self.round(act.now);
        let node = self.tree.node_mut(slot);
        node.e_rev += 1;
        node.c_rev += 1;
        node.modified = now;
        node.fs_modified = now;
        node.modified_by = act.by;
        self.apply_times(slot, times)?;
        self.tree.touch(slot, act.now);
        Ok(())
    }

    fn push_version(&mut self, slot: Slot) {
        let node = self.tree.node(slot);
        let Some(blob) = node.blob().cloned() else { return };
        let old =
            Version { number: node.version, modified: node.modified, modified_by: node.modified_by, blob };
        let limit = self.flavour().version_limit();
        let versions = self.tree.versions.entry(slot).or_default();
        versions.push(old);
        if versions.len() >= limit {
            versions.remove(0);
        }
        self.tree.node_mut(slot).version += 1;
    }

    /// Times as the flavour can keep them (graph-api 3.8).
    pub(crate) fn round(&self, ms: Ms) -> Ms {
        if self.flavour().is_business() { ms.div_euclid(1000) * 1000 } else { ms }
    }

    /// Refuses times SharePoint refuses.
    pub(crate) fn check_times(&self, times: FsTimes) -> ApiResult<()> {
        let early = [times.created, times.modified].into_iter().flatten().any(|t| t < YEAR_1900);
        if early && self.flavour().is_business() {
            return Err(ApiError::invalid("The date is before 1900-01-01."));
        }
        Ok(())
    }

    fn apply_times(&mut self, slot: Slot, times: FsTimes) -> ApiResult<()> {
        self.check_times(times)?;
        let (created, modified) =
            (times.created.map(|t| self.round(t)), times.modified.map(|t| self.round(t)));
        let business = self.flavour().is_business();
        let node = self.tree.node_mut(slot);
        node.fs_created = created.unwrap_or(node.fs_created);
        node.fs_modified = modified.unwrap_or(node.fs_modified);
        // On Business the server's time follows (graph-api 3.2).
        if let (true, Some(t)) = (business, modified) {
            node.modified = t;
        }
        Ok(())
    }

    /// PATCH of `fileSystemInfo`: on Business a version of its own (graph-api 3.4, 7.9).
    pub(crate) fn set_times(&mut self, slot: Slot, times: FsTimes, act: Act) -> ApiResult<()> {
        self.check_times(times)?;
        self.check_lock(slot, act.by)?;
        if self.flavour().is_business() && self.tree.node(slot).blob().is_some() {
            self.push_version(slot);
            self.tree.node_mut(slot).c_rev += 1;
        }
        let node = self.tree.node_mut(slot);
        node.e_rev += 1;
        node.modified_by = act.by;
        self.apply_times(slot, times)?;
        self.tree.touch(slot, act.now);
        Ok(())
    }

    /// Rename and move (graph-api 7.6, 8). With `Replace` a file in the way goes to the recycle bin and the
    /// source's id survives; a folder in the way is a 409.
    pub(crate) fn relocate(
        &mut self,
        slot: Slot,
        parent: Slot,
        name: &str,
        conflict: Conflict,
        act: Act,
    ) -> ApiResult<()> {
        if slot == ROOT {
            return Err(ApiError::new(403, "accessDenied", "The item cannot be renamed or moved."));
        }
        self.check_folder(parent)?;
        if self.tree.is_below(parent, slot) {
            return Err(ApiError::invalid("A folder cannot be moved into itself."));
        }
        self.check_place(parent, name)?;
        self.check_lock(slot, act.by)?;
        let mut name = name.to_owned();
        if let Some(other) = self.tree.child(parent, &name).filter(|o| *o != slot) {
            match conflict {
                Conflict::Fail => return Err(ApiError::exists()),
                Conflict::Rename => name = self.free_name(parent, &name),
                Conflict::Replace => {
                    let files =
                        self.tree.node(other).blob().is_some() && self.tree.node(slot).blob().is_some();
                    if !files {
                        return Err(ApiError::exists());
                    }
                    self.check_lock(other, act.by)?;
                    self.tree.recycle(other, act.now, true);
                }
            }
        }
        let node = self.tree.node_mut(slot);
        node.e_rev += 1;
        if self.c_tag_moves_on_rename {
            node.c_rev += 1;
        }
        node.modified_by = act.by;
        self.tree.relocate(slot, parent, &name, act.now);
        Ok(())
    }

    /// DELETE: to the recycle bin, recursively and without warning (graph-api 8).
    pub(crate) fn delete(&mut self, slot: Slot, act: Act) -> ApiResult<()> {
        self.check_delete(slot, act)?;
        self.tree.recycle(slot, act.now, self.report_descendants);
        Ok(())
    }

    fn check_delete(&self, slot: Slot, act: Act) -> ApiResult<()> {
        if slot == ROOT {
            return Err(ApiError::new(403, "accessDenied", "The item cannot be deleted."));
        }
        self.live(slot)?;
        self.tree.subtree(slot).into_iter().try_for_each(|s| self.check_lock(s, act.by))
    }

    /// `permanentDelete`: Business only in practice (graph-api 8).
    pub(crate) fn permanent_delete(&mut self, slot: Slot, act: Act) -> ApiResult<()> {
        self.check_delete(slot, act)?;
        self.tree.purge(slot, act.now);
        Ok(())
    }

    /// `restore` from the recycle bin: personal only (graph-api 8).
    pub(crate) fn restore(
        &mut self,
        slot: Slot,
        parent: Option<Slot>,
        name: Option<&str>,
        act: Act,
    ) -> ApiResult<()> {
        let node = self.tree.node(slot);
        if node.life != Life::Recycled || !self.tree.bin.contains_key(&slot) {
            return Err(ApiError::not_found());
        }
        let parent = parent.unwrap_or(node.parent);
        let name = name.unwrap_or(&node.name).to_owned();
        self.check_folder(parent)?;
        self.check_place(parent, &name)?;
        if self.tree.child(parent, &name).is_some() {
            return Err(ApiError::exists());
        }
        self.tree.restore(slot, parent, &name, act.now);
        Ok(())
    }

    /// `restoreVersion`: a new version on top (graph-api 8).
    pub(crate) fn restore_version(&mut self, slot: Slot, number: u32, act: Act) -> ApiResult<()> {
        let old = self.version(slot, number)?.blob.clone();
        self.replace(slot, old, FsTimes::default(), act)
    }

    pub(crate) fn version(&self, slot: Slot, number: u32) -> ApiResult<&Version> {
        let versions = self.tree.versions.get(&slot);
        versions.and_then(|v| v.iter().find(|v| v.number == number)).ok_or_else(ApiError::not_found)
    }

    /// The service rewrites the file by itself: a new content without a new author or version
    /// (graph-api 7.8).
    pub(crate) fn rewrite(&mut self, slot: Slot, blob: Blob, now: Ms) {
        self.tree.set_blob(slot, blob);
        let node = self.tree.node_mut(slot);
        node.e_rev += 1;
        node.c_rev += 1;
        self.tree.touch(slot, now);
    }

    /// Metadata extraction and the like: only the eTag moves (graph-api 3.4).
    pub(crate) fn stir(&mut self, slot: Slot, now: Ms) {
        self.tree.node_mut(slot).e_rev += 1;
        self.tree.touch(slot, now);
    }
}
