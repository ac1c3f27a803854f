//! What happens when both sides changed: base, local and remote in, an outcome out. Pure.
//!
//! The table is that of design 3 "What happens when both sides changed"; each row has a named test.

use super::planner::is_swap_name;
use crate::model::Comparison;
use crate::store::{LocalView, Node, NodeKind, RemoteView, Seal, canonical};

/// What becomes of a node whose remote view moved away from the base of its unsent change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The change goes on, now based on the present remote view.
    Rebase(Box<LocalView>),
    /// Nothing of the change is left to send: the remote view is what the user sees.
    TakeRemote {
        /// What to tell the user, where something they did is undone.
        notice: Option<&'static str>,
    },
    /// Remote keeps the name; the local content becomes a conflict copy beside it.
    ConflictCopy,
    /// The item is gone and its unsent content is not: it is created again at its local place.
    Recreate,
    /// The item is gone and nothing here is worth keeping.
    Gone,
}

/// What the table needs to know of a node.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// What the node is.
    pub kind: NodeKind,
    /// What the change started from.
    pub base: &'a RemoteView,
    /// What the user sees.
    pub local: &'a LocalView,
    /// What the service has now; none: deleted there.
    pub remote: Option<&'a RemoteView>,
    /// Unsent changes below (folders).
    pub unsent_below: bool,
}

/// Whether the remote view still is what the change started from, so that there is nothing to decide.
pub fn is_current(base: &RemoteView, remote: Option<&RemoteView>) -> bool {
    remote.is_some_and(|remote| remote == base)
}

/// Whether the content moved, by the rules of "Same content?". Unknown counts as moved: keep both.
fn content_moved(kind: NodeKind, base: &RemoteView, remote: &RemoteView) -> bool {
    kind == NodeKind::File
        && base.version != remote.version
        && matches!(base.version.compare(&remote.version), Comparison::Different | Comparison::Unknown)
}

/// Whether something speaks for other bytes although size and quickXorHash are the same, as they are when blocks
/// were swapped: a content tag that moved, or where one is missing (graph-api 9.3), a later time of the content.
/// Enough to spare a file from a delete, which would take the only copy of those bytes; a tag that moved by itself
/// (graph-api 15.9) costs no more than a file that returns.
fn content_may_have_moved(kind: NodeKind, base: &RemoteView, remote: &RemoteView) -> bool {
    kind == NodeKind::File
        && base.version.compare(&remote.version) == Comparison::ProbablySame
        && match (&base.version.ctag, &remote.version.ctag) {
            (Some(was), Some(is)) => was != is,
            _ => matches!((base.mtime, remote.mtime), (Some(was), Some(is)) if was < is),
        }
}

/// Decides by the conflict table.
pub fn resolve(sides: Sides<'_>) -> Outcome {
    let Sides { kind, base, local, remote, unsent_below } = sides;
    let Some(remote) = remote else { return deleted_remotely(kind, local, unsent_below) };
    let content_moved = content_moved(kind, base, remote);
    // A temporary name is ours, on the way through a circle of names: nobody moved it.
    let on_its_way = is_swap_name(&remote.name);
    let place_moved = !base.same_place(remote) && !on_its_way;
    let edited = local.content.is_some();
    let placed = local_placed(base, local);
    if local.deleted {
        let content_moved = content_moved || content_may_have_moved(kind, base, remote);
        return if content_moved && on_its_way {
            // It is back, where it is on the service (its other folder may be gone), but under its name.
            rebase(LocalView { parent: remote.parent.unwrap_or(local.parent), ..only_placed(local) })
        } else if content_moved {
            Outcome::TakeRemote { notice: Some("deleted here, but edited elsewhere meanwhile: it is back") }
        } else if place_moved {
            Outcome::TakeRemote { notice: Some("deleted here, but moved elsewhere meanwhile: it was kept") }
        } else {
            rebase(local.clone())
        };
    }
    if content_moved && edited {
        return Outcome::ConflictCopy;
    }
    let mut next = local.clone();
    if content_moved {
        // Our time belonged to the content that is gone.
        next.mtime_set = false;
    }
    if place_moved {
        // Remote's place wins, so that a cycle of moves cannot arise; where only it moved, we follow.
        next.parent = remote.parent.unwrap_or(next.parent);
        next.name = canonical(&remote.name);
    }
    let still_placed = placed && !place_moved;
    if !edited && !next.mtime_set && !still_placed {
        let notice = (placed && place_moved).then_some("moved here and elsewhere: the other place was kept");
        return Outcome::TakeRemote { notice };
    }
    rebase(next)
}

/// Of this local view, what says where the file is.
pub fn only_placed(local: &LocalView) -> LocalView {
    LocalView { deleted: false, content: None, seal: None, size: 0, mtime_set: false, ..local.clone() }
}

/// Whether the user moved or renamed it, relative to the base.
pub fn local_placed(base: &RemoteView, local: &LocalView) -> bool {
    Some(local.parent) != base.parent || local.name != canonical(&base.name)
}

fn rebase(local: LocalView) -> Outcome {
    Outcome::Rebase(Box::new(local))
}

fn deleted_remotely(kind: NodeKind, local: &LocalView, unsent_below: bool) -> Outcome {
    if local.deleted {
        Outcome::Gone
    } else if local.content.is_some() || (kind == NodeKind::Folder && unsent_below) {
        Outcome::Recreate
    } else {
        Outcome::Gone
    }
}

/// Whether sealed content may be what the item has: false where size or hash prove that it is not.
pub fn may_be_same(seal: &Seal, theirs: &RemoteView) -> bool {
    let version = &theirs.version;
    version.size.is_none_or(|size| size == seal.size)
        && version.hashes.quick_xor.is_none_or(|hash| hash == seal.quick_xor)
}

/// Two nodes want one name: ours is unsent there, theirs is on the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameTaken {
    /// Two folders become one.
    Merge,
    /// Theirs was to be deleted, and that waits for a confirmation: ours, which is new, takes its item.
    TakeBack,
    /// Ours gets a conflict name.
    ConflictName,
}

/// Decides the row "renamed or created onto a name | the same name taken".
pub fn name_taken(ours: &Node, theirs: NodeKind) -> NameTaken {
    let never_sent = ours.remote.is_none();
    if ours.kind == NodeKind::Folder && theirs == NodeKind::Folder && never_sent {
        NameTaken::Merge
    } else {
        NameTaken::ConflictName
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{local_at, remote_at};
    use crate::model::{CTag, ETag, NodeId, Timestamp};

    const P: NodeId = NodeId::ROOT;
    const Q: NodeId = NodeId(2);

    struct Case {
        base: RemoteView,
        local: LocalView,
        remote: Option<RemoteView>,
        kind: NodeKind,
        unsent_below: bool,
    }

    fn file() -> Case {
        let base = remote_at("I", P, "a.txt", 1);
        let local = local_at(P, "a.txt");
        Case { remote: Some(base.clone()), base, local, kind: NodeKind::File, unsent_below: false }
    }

    fn decide(case: &Case) -> Outcome {
        resolve(Sides {
            kind: case.kind,
            base: &case.base,
            local: &case.local,
            remote: case.remote.as_ref(),
            unsent_below: case.unsent_below,
        })
    }

    fn edited(mut case: Case) -> Case {
        case.local.content = Some(9);
        case
    }

    fn remotely_edited(mut case: Case) -> Case {
        case.remote = Some(remote_at("I", P, "a.txt", 2));
        case
    }

    fn rebased(case: &Case) -> LocalView {
        match decide(case) {
            Outcome::Rebase(local) => *local,
            other => panic!("expected a rebase, got {other:?}"),
        }
    }

    #[test]
    fn content_edited_on_both_sides_makes_a_conflict_copy() {
        assert_eq!(decide(&remotely_edited(edited(file()))), Outcome::ConflictCopy);
    }

    #[test]
    fn an_edit_follows_an_item_that_was_renamed_or_moved_remotely() {
        let mut case = edited(file());
        case.remote = Some(RemoteView { parent: Some(Q), name: "b.txt".into(), ..case.base.clone() });
        let next = rebased(&case);
        assert_eq!((next.parent, next.name.as_str(), next.content), (Q, "b.txt", Some(9)));
    }

    #[test]
    fn what_returns_under_a_temporary_name_goes_on_to_where_it_was_seen() {
        let mut case = file();
        case.base.name = ".onedrivefs-swap-7".into();
        case.remote = Some(RemoteView { version: remote_at("I", P, "x", 2).version, ..case.base.clone() });
        (case.local.name, case.local.deleted) = ("b.txt".into(), true);
        let next = rebased(&case);
        assert_eq!((next.parent, next.name.as_str(), next.deleted), (P, "b.txt", false));
    }

    #[test]
    fn an_edited_file_that_was_deleted_remotely_is_created_again() {
        let mut case = edited(file());
        case.remote = None;
        assert_eq!(decide(&case), Outcome::Recreate);
    }

    #[test]
    fn an_edit_proceeds_on_new_tags_when_only_metadata_was_touched() {
        let mut case = edited(file());
        if let Some(remote) = &mut case.remote {
            remote.version.etag = Some(ETag::new("moved"));
        }
        assert_eq!(rebased(&case), case.local);
    }

    #[test]
    fn a_set_time_is_dropped_when_content_was_edited_remotely() {
        let mut case = remotely_edited(file());
        case.local.mtime_set = true;
        assert_eq!(decide(&case), Outcome::TakeRemote { notice: None });
    }

    #[test]
    fn a_rename_here_and_an_edit_there_both_apply() {
        let mut case = remotely_edited(file());
        case.local.name = "b.txt".into();
        assert_eq!(rebased(&case).name, "b.txt");
    }

    #[test]
    fn a_move_here_and_a_move_there_end_at_the_remote_place_with_a_notice() {
        let mut case = file();
        case.local.name = "b.txt".into();
        case.remote = Some(RemoteView { name: "c.txt".into(), ..case.base.clone() });
        assert!(matches!(decide(&case), Outcome::TakeRemote { notice: Some(_) }));
    }

    #[test]
    fn a_clean_move_of_an_item_that_was_deleted_remotely_is_gone() {
        let mut case = file();
        case.local.name = "b.txt".into();
        case.remote = None;
        assert_eq!(decide(&case), Outcome::Gone);
    }

    #[test]
    fn a_deleted_file_that_was_edited_remotely_returns_with_a_notice() {
        let mut case = remotely_edited(file());
        case.local.deleted = true;
        assert!(matches!(decide(&case), Outcome::TakeRemote { notice: Some(_) }));
    }

    #[test]
    fn a_deleted_file_returns_when_only_its_content_tag_or_without_one_its_time_moved_remotely() {
        for (ctag, mtime, returns) in [
            (Some("moved"), 1, true),
            (None, 2, true),
            (None, 1, false),
            (None, 0, false),
            (Some("c1"), 2, false),
        ] {
            let mut case = file();
            case.local.deleted = true;
            if let Some(remote) = &mut case.remote {
                remote.version.etag = Some(ETag::new("moved"));
                remote.version.ctag = ctag.map(CTag::new);
                remote.mtime = Some(Timestamp(mtime));
            }
            let outcome = decide(&case);
            assert_eq!(matches!(outcome, Outcome::TakeRemote { notice: Some(_) }), returns, "{outcome:?}");
        }
    }

    #[test]
    fn a_deleted_file_that_was_moved_remotely_is_kept_with_a_notice() {
        let mut case = file();
        case.local.deleted = true;
        case.remote = Some(RemoteView { name: "c.txt".into(), ..case.base.clone() });
        assert!(matches!(decide(&case), Outcome::TakeRemote { notice: Some(_) }));
    }

    #[test]
    fn deleted_on_both_sides_is_done() {
        let mut case = file();
        case.local.deleted = true;
        case.remote = None;
        assert_eq!(decide(&case), Outcome::Gone);
    }

    #[test]
    fn a_folder_deleted_remotely_is_made_again_only_for_unsent_content_below() {
        let mut case = file();
        case.kind = NodeKind::Folder;
        case.remote = None;
        assert_eq!(decide(&case), Outcome::Gone);
        case.unsent_below = true;
        assert_eq!(decide(&case), Outcome::Recreate);
    }

    #[test]
    fn an_unknown_comparison_with_unsent_content_keeps_both() {
        let mut case = edited(file());
        case.base.version.hashes = Default::default();
        if let Some(remote) = &mut case.remote {
            remote.version.hashes = Default::default();
            remote.version.etag = Some(ETag::new("other"));
            remote.version.ctag = None;
        }
        assert_eq!(decide(&case), Outcome::ConflictCopy);
    }

    #[test]
    fn a_folder_onto_a_taken_name_merges_and_anything_else_gets_a_conflict_name() {
        let mut ours = crate::engine::testing::node(NodeId(5), NodeKind::Folder);
        assert_eq!(name_taken(&ours, NodeKind::Folder), NameTaken::Merge);
        assert_eq!(name_taken(&ours, NodeKind::File), NameTaken::ConflictName);
        ours.kind = NodeKind::File;
        assert_eq!(name_taken(&ours, NodeKind::File), NameTaken::ConflictName);
    }
}
