//! Through which directories of other drives the root of a drive is entered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock};

use crate::model::{Ino, NodeId};

/// The shortcuts that were entered since the mount began. The kernel knows the root of a drive by each of them.
#[derive(Debug, Default)]
pub struct Entrances(RwLock<BTreeMap<u16, BTreeSet<Ino>>>);

impl Entrances {
    /// The root of `slot` was entered through the directory `through`.
    pub(super) fn note(&self, slot: u16, through: Ino) {
        if !self.has(slot, through) {
            let mut entrances = self.0.write().unwrap_or_else(PoisonError::into_inner);
            entrances.entry(slot).or_default().insert(through);
        }
    }

    fn has(&self, slot: u16, through: Ino) -> bool {
        let entrances = self.0.read().unwrap_or_else(PoisonError::into_inner);
        entrances.get(&slot).is_some_and(|known| known.contains(&through))
    }

    /// What the kernel may know the root of `slot` by: itself, and each shortcut to it.
    pub fn of_root(&self, slot: u16) -> Vec<Ino> {
        let entrances = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let through = entrances.get(&slot).into_iter().flatten().copied();
        std::iter::once(Ino::new(slot, NodeId::ROOT)).chain(through).collect()
    }

    /// As [`Entrances::of_root`] for any node: all but a root is known by itself only.
    pub fn of(&self, slot: u16, node: NodeId) -> Vec<Ino> {
        if node == NodeId::ROOT { self.of_root(slot) } else { vec![Ino::new(slot, node)] }
    }
}
