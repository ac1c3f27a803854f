//! Whether an item that is gone by its id lives on under another one. Pure.
//!
//! Ids change form when an account migrates (graph-api 3.7): then every stored id answers 404 while nothing was
//! deleted. An item found under the parent and the name of a missing one is taken for the same if kind, size and
//! hash fit; and more than a few missing ids in a short time are no deletions before the whole drive was read
//! again.

use std::collections::{BTreeSet, VecDeque};

use crate::model::{Comparison, ItemId, Timestamp, names};
use crate::store::{NodeKind, RemoteView, canonical};

/// More than so many different items missing by their ids within [`WINDOW_NANOS`] are a mass.
const MASS: usize = 20;
const WINDOW_NANOS: i64 = 60 * 1_000_000_000;

/// Whether `new` is what `old` was, under another id: the same kind and name, and for a file the same content as
/// far as size and hash tell. The caller has looked at the place where `old` was.
///
/// Where the service states no hash, equal size and modification time stand for it.
pub fn fits(kind: NodeKind, old: &RemoteView, new_kind: NodeKind, new: &RemoteView) -> bool {
    if kind != new_kind || names::fold(&canonical(&old.name)) != names::fold(&canonical(&new.name)) {
        return false;
    }
    if kind != NodeKind::File {
        return true;
    }
    match old.version.compare(&new.version) {
        Comparison::Same | Comparison::ProbablySame => true,
        Comparison::Different => false,
        Comparison::Unknown => {
            let same_time = match (old.mtime, new.mtime) {
                (Some(old), Some(new)) => old.same_second(new),
                _ => false,
            };
            old.version.size.is_some() && old.version.size == new.version.size && same_time
        }
    }
}

/// As [`fits`], for what is to be deleted: it must be of the same age too. Another client may have made it again.
pub fn fits_to_delete(kind: NodeKind, old: &RemoteView, new_kind: NodeKind, new: &RemoteView) -> bool {
    let same_age = matches!((old.btime, new.btime), (Some(old), Some(new)) if old.same_second(new));
    same_age && fits(kind, old, new_kind, new)
}

/// The items that were missing by their ids of late.
#[derive(Debug, Default)]
pub struct Absences {
    order: VecDeque<(Timestamp, ItemId)>,
    items: BTreeSet<ItemId>,
}

impl Absences {
    /// `item` answers 404. True if so many do that they cannot be taken for deletions.
    pub fn note(&mut self, item: &ItemId, now: Timestamp) -> bool {
        if self.items.insert(item.clone()) {
            self.order.push_back((now, item.clone()));
        }
        while let Some((at, _)) = self.order.front() {
            // A clock that was set back must not keep them for ever.
            if now.0.saturating_sub(at.0).abs() < WINDOW_NANOS && self.order.len() <= 2 * MASS {
                break;
            }
            let oldest = self.order.pop_front().expect("looked at just now");
            self.items.remove(&oldest.1);
        }
        self.items.len() > MASS
    }

    /// The whole drive was read: what is missing from here on is a new matter.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::remote_at;
    use crate::model::{ETag, NodeId};

    const SECOND: i64 = 1_000_000_000;

    /// `view` as it is after ids and tags changed form.
    fn renewed(view: &RemoteView) -> RemoteView {
        let mut new = RemoteView { item: ItemId::new("other"), ..view.clone() };
        new.version.etag = Some(ETag::new("other"));
        new.version.ctag = None;
        new
    }

    fn fits_file(old: &RemoteView, new: &RemoteView) -> bool {
        fits(NodeKind::File, old, NodeKind::File, new)
    }

    #[test]
    fn a_file_of_the_same_name_size_and_hash_fits_and_another_content_does_not() {
        let old = remote_at("I", NodeId::ROOT, "a.txt", 1);
        assert!(fits_file(&old, &renewed(&old)));
        assert!(!fits_file(&old, &renewed(&remote_at("I", NodeId::ROOT, "a.txt", 2))));
        assert!(!fits_file(&old, &renewed(&remote_at("I", NodeId::ROOT, "b.txt", 1))));
        assert!(!fits(NodeKind::File, &old, NodeKind::Folder, &renewed(&old)));
    }

    #[test]
    fn without_a_hash_size_and_time_must_be_equal() {
        let mut old = remote_at("I", NodeId::ROOT, "a.docx", 1);
        old.version.hashes = Default::default();
        let mut new = renewed(&old);
        assert!(fits_file(&old, &new));
        new.mtime = Some(Timestamp(9 * SECOND));
        assert!(!fits_file(&old, &new));
        new.mtime = old.mtime;
        new.version.size = None;
        assert!(!fits_file(&old, &new));
    }

    #[test]
    fn what_is_to_be_deleted_must_be_of_the_same_age() {
        let mut old = remote_at("I", NodeId::ROOT, "a.txt", 1);
        assert!(!fits_to_delete(NodeKind::File, &old, NodeKind::File, &renewed(&old)));
        old.btime = Some(Timestamp(3 * SECOND));
        assert!(fits_to_delete(NodeKind::File, &old, NodeKind::File, &renewed(&old)));
        let younger = RemoteView { btime: Some(Timestamp(9 * SECOND)), ..renewed(&old) };
        assert!(!fits_to_delete(NodeKind::File, &old, NodeKind::File, &younger));
    }

    #[test]
    fn a_folder_fits_by_kind_and_name_alone() {
        let old = remote_at("I", NodeId::ROOT, "d", 1);
        let new = RemoteView { name: "D".into(), ..renewed(&remote_at("I", NodeId::ROOT, "d", 2)) };
        assert!(fits(NodeKind::Folder, &old, NodeKind::Folder, &new));
        assert!(!fits(NodeKind::Folder, &old, NodeKind::File, &new));
    }

    fn item(number: usize) -> ItemId {
        ItemId::new(format!("I{number}"))
    }

    #[test]
    fn more_than_twenty_missing_in_a_minute_are_a_mass_and_fewer_are_not() {
        let mut absences = Absences::default();
        for number in 0..20 {
            assert!(!absences.note(&item(number), Timestamp(number as i64 * SECOND)));
        }
        assert!(!absences.note(&item(19), Timestamp(20 * SECOND)), "the same item again");
        assert!(absences.note(&item(20), Timestamp(21 * SECOND)));
        absences.forget();
        assert!(!absences.note(&item(21), Timestamp(22 * SECOND)));
    }

    #[test]
    fn what_is_missing_now_and_then_never_becomes_a_mass() {
        let mut absences = Absences::default();
        for number in 0..100 {
            assert!(!absences.note(&item(number), Timestamp(number as i64 * 4 * SECOND)));
        }
    }
}
