//! What users see from one moment to the next: where nobody changes anything, nothing changes.

use std::collections::{BTreeMap, BTreeSet};

use onedrivefs::model::{ItemId, NodeId, names};
use onedrivefs::store::{NodeKind, Store};

/// The visible tree.
pub type View = BTreeMap<String, Seen>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    kind: NodeKind,
    /// Of a file that nobody has open.
    len: Option<u64>,
    /// The item, of what is as the service has it.
    clean: Option<ItemId>,
}

/// Looks without a request and without a wait. `open`: files that somebody is changing.
pub fn view(store: &Store, open: &BTreeSet<NodeId>) -> View {
    let mut view = View::new();
    let mut folders = vec![(NodeId::ROOT, String::new())];
    while let Some((folder, path)) = folders.pop() {
        let children =
            store.children_after(folder, NodeId(0), usize::MAX >> 1).expect("a folder can be read");
        for child in children {
            let Some(place) = &child.place else { continue };
            let name = names::to_local(&place.name).to_string_lossy().into_owned();
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            if child.kind.is_directory() {
                folders.push((child.id, path.clone()));
            }
            let has_len = child.kind == NodeKind::File && !open.contains(&child.id);
            let clean = child.remote.as_ref().filter(|_| child.local.is_none()).map(|view| view.item.clone());
            view.insert(path, Seen { kind: child.kind, len: has_len.then(|| child.size()), clean });
        }
    }
    view
}

/// The item and the node of a file that is as the service has it.
pub fn clean_file(store: &Store, path: &str) -> Option<(ItemId, NodeId)> {
    let mut at = NodeId::ROOT;
    let mut found = None;
    for name in path.split('/') {
        let node = store.child(at, name).ok()??;
        at = node.id;
        found = Some(node);
    }
    let node = found.filter(|node| node.kind == NodeKind::File && node.local.is_none())?;
    Some((node.remote.as_ref()?.item.clone(), node.id))
}

/// Items that are as the service has them.
pub fn items(view: &View) -> impl Iterator<Item = ItemId> {
    view.values().filter_map(|seen| seen.clean.clone())
}

/// What is otherwise than before, though nobody changed it. `known`: items that were ever seen; what was there from the
/// beginning may come into sight late.
pub fn changed(before: &View, after: &View, known: &BTreeSet<ItemId>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, seen) in before {
        match after.get(path) {
            None => wrong.push(format!("sight: {path} was there and is not, and nobody removed it")),
            Some(now) if (now.kind, now.len) != (seen.kind, seen.len) => {
                wrong.push(format!("sight: {path} was {seen:?} and is {now:?}, and nobody changed it"));
            }
            Some(_) => {}
        }
    }
    let is_news = |seen: &Seen| seen.clean.as_ref().is_some_and(|item| !known.contains(item));
    let came = after.iter().filter(|(path, seen)| !before.contains_key(*path) && !is_news(seen));
    wrong.extend(came.map(|(path, _)| format!("sight: {path} came, and nobody made it")));
    wrong
}
