//! The service, as far as the planner can tell: items with tags, names that are unique in their folder.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::op::Send;
use crate::model::{CTag, ContentVersion, ETag, Hashes, ItemId, NodeId, Timestamp, names};
use crate::store::RemoteView;

pub(super) const ROOT: u32 = 0;

/// A content: what was written, and by whom does not matter. None is ever written twice.
pub(super) type Content = u64;

#[derive(Clone, Debug)]
pub(super) struct Item {
    pub parent: u32,
    pub name: String,
    pub folder: bool,
    pub content: Content,
    pub versions: Vec<Content>,
    pub etag: u64,
    pub mtime: i64,
    /// When it was last changed or moved, on the service's own count.
    pub at: u64,
}

/// The item that a request made or changed, and what went with a delete.
pub(super) type Done = (Option<u32>, Vec<(u32, Item)>);

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotFound,
    Exists,
    Precondition,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub items: BTreeMap<u32, Item>,
    next: u32,
    /// Counts changes.
    pub tick: u64,
}

pub(super) fn item_id(number: u32) -> ItemId {
    ItemId::new(format!("I{number}"))
}

pub(super) fn number_of(item: &ItemId) -> u32 {
    item.as_str()[1..].parse().expect("all ids are made here")
}

pub(super) fn hash_of(content: Content) -> [u8; 20] {
    let mut hash = [0; 20];
    hash[..8].copy_from_slice(&content.to_le_bytes());
    hash
}

impl Service {
    pub fn get(&self, number: u32) -> Option<&Item> {
        self.items.get(&number)
    }

    pub fn is_folder(&self, number: u32) -> bool {
        number == ROOT || self.items.get(&number).is_some_and(|item| item.folder)
    }

    pub fn child(&self, parent: u32, name: &str) -> Option<u32> {
        let wanted = names::fold(name);
        let found = |(_, item): &(&u32, &Item)| item.parent == parent && names::fold(&item.name) == wanted;
        self.items.iter().find(found).map(|(number, _)| *number)
    }

    pub fn children(&self, parent: u32) -> Vec<u32> {
        self.items.iter().filter(|(_, item)| item.parent == parent).map(|(number, _)| *number).collect()
    }

    /// The item and all below it, each before what is in it.
    pub fn subtree(&self, top: u32) -> Vec<u32> {
        let mut found = vec![top];
        let mut at = 0;
        while let Some(&folder) = found.get(at) {
            found.extend(self.children(folder));
            at += 1;
        }
        found
    }

    /// Every content that the service still has, as a file or as a version.
    pub fn contents(&self) -> BTreeSet<Content> {
        self.items.values().flat_map(|item| item.versions.iter().copied().chain([item.content])).collect()
    }

    pub fn add(&mut self, parent: u32, name: &str, folder: bool, content: Content) -> Result<u32, Refusal> {
        if !self.is_folder(parent) {
            return Err(Refusal::NotFound);
        }
        if self.child(parent, name).is_some() {
            return Err(Refusal::Exists);
        }
        self.tick += 1;
        self.next += 1;
        let (name, versions, at) = (name.to_owned(), Vec::new(), self.tick);
        self.items.insert(
            self.next,
            Item { parent, name, folder, content, versions, etag: at, mtime: at as i64 * 1_000_000_000, at },
        );
        Ok(self.next)
    }

    pub fn write(&mut self, number: u32, content: Content) -> Result<(), Refusal> {
        let at = self.touch();
        let item = self.items.get_mut(&number).ok_or(Refusal::NotFound)?;
        item.versions.push(std::mem::replace(&mut item.content, content));
        (item.etag, item.at, item.mtime) = (at, at, at as i64 * 1_000_000_000);
        Ok(())
    }

    pub fn relocate(&mut self, number: u32, parent: u32, name: &str) -> Result<(), Refusal> {
        if !self.items.contains_key(&number) || !self.is_folder(parent) {
            return Err(Refusal::NotFound);
        }
        if self.child(parent, name).is_some_and(|other| other != number) {
            return Err(Refusal::Exists);
        }
        if self.subtree(number).contains(&parent) {
            return Err(Refusal::Precondition);
        }
        let at = self.touch();
        let below = self.subtree(number);
        let item = self.items.get_mut(&number).expect("looked at above");
        (item.parent, item.name, item.etag) = (parent, name.to_owned(), at);
        below.iter().for_each(|inner| self.items.get_mut(inner).expect("listed").at = at);
        Ok(())
    }

    /// Takes the item and all below it away, and tells what went.
    pub fn delete(&mut self, number: u32) -> Vec<(u32, Item)> {
        self.touch();
        let all = self.subtree(number);
        all.into_iter().filter_map(|gone| Some((gone, self.items.remove(&gone)?))).collect()
    }

    fn touch(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// Whether the request may be carried out now, by the precondition that it carries.
    fn admits(&self, send: &Send) -> Result<(), Refusal> {
        let Some(item) = send.item() else { return Ok(()) };
        let item = self.get(number_of(item)).ok_or(Refusal::NotFound)?;
        match send.if_match() {
            Some(tag) if *tag != etag(item) => Err(Refusal::Precondition),
            _ => Ok(()),
        }
    }

    /// Carries a request out.
    pub fn execute(&mut self, send: &Send) -> Result<Done, Refusal> {
        self.admits(send)?;
        let done = match send {
            Send::Mkdir { parent, name } => self.add(number_of(parent), name, true, 0)?,
            Send::Create { parent, name, content, mtime, .. } => {
                let made = self.add(number_of(parent), name, false, *content)?;
                self.set_time(made, *mtime);
                made
            }
            Send::Replace { item, content, mtime, .. } => {
                self.write(number_of(item), *content)?;
                self.set_time(number_of(item), *mtime);
                number_of(item)
            }
            Send::Move { item, parent, name, .. } => {
                let now = self.get(number_of(item)).expect("admitted");
                let parent = parent.as_ref().map_or(now.parent, number_of);
                let name = name.clone().unwrap_or_else(|| now.name.clone());
                self.relocate(number_of(item), parent, &name)?;
                number_of(item)
            }
            Send::SetTime { item, mtime, .. } => {
                let at = self.touch();
                self.items.get_mut(&number_of(item)).expect("admitted").etag = at;
                self.set_time(number_of(item), Some(*mtime));
                number_of(item)
            }
            Send::Delete { item, .. } => return Ok((None, self.delete(number_of(item)))),
        };
        Ok((Some(done), Vec::new()))
    }

    fn set_time(&mut self, number: u32, mtime: Option<Timestamp>) {
        if let (Some(item), Some(mtime)) = (self.items.get_mut(&number), mtime) {
            item.mtime = mtime.0;
        }
    }
}

fn etag(item: &Item) -> ETag {
    ETag::new(format!("e{}", item.etag))
}

/// The item as the machine's store would have it.
pub(super) fn view(number: u32, item: &Item, parent: NodeId) -> RemoteView {
    let hashes = Hashes { quick_xor: Some(hash_of(item.content)), ..Hashes::default() };
    RemoteView {
        item: item_id(number),
        parent: Some(parent),
        name: item.name.clone(),
        version: ContentVersion {
            etag: Some(etag(item)),
            ctag: (!item.folder).then(|| CTag::new(format!("c{}", item.content))),
            size: (!item.folder).then_some(item.content),
            hashes: if item.folder { Hashes::default() } else { hashes },
        },
        mtime: Some(Timestamp(item.mtime)),
        btime: None,
        malware: false,
        actual_size: None,
    }
}
