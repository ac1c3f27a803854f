//! Addresses of files that lie beside each other, so that looking into many files of a folder does not cost a request
//! more for each of them: from the third on, the folder is listed, and addresses come with that.
//!
//! Worth it only where an answer of the data host says which version it is: elsewhere the item is read after it anyway.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use crate::model::ItemId;

/// Folders that are remembered.
const FOLDERS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// Files of one folder that are asked for one by one, within a while.
const SINGLY: u32 = 2;
const WHILE: Duration = Duration::from_secs(10);
/// A folder is not listed for this again before.
const REST: Duration = Duration::from_secs(60);

/// What was asked lately, folder by folder.
pub(super) struct Neighbours(Mutex<LruCache<ItemId, Folder>>);

struct Folder {
    looks: Looks,
    /// Held by who lists it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Looks at single files of one folder.
#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    count: u32,
    since: Option<Instant>,
    listed: Option<Instant>,
}

impl Looks {
    /// Takes notice of one more; whether to list the folder instead, if that is worth it here.
    fn another(&mut self, now: Instant, is_worth_it: bool) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) > WHILE) {
            (self.count, self.since) = (0, Some(now));
        }
        self.count += 1;
        let is_time = self.listed.is_none_or(|listed| now.duration_since(listed) > REST);
        let lists = self.count > SINGLY && is_time && is_worth_it;
        if lists {
            self.listed = Some(now);
        }
        lists
    }
}

/// How the address of a file is to be had.
pub(super) enum Ask {
    /// By listing its folder, while holding this.
    List(tokio::sync::OwnedMutexGuard<()>),
    /// By asking for the file, after whoever lists its folder has ended, if someone does.
    Item(Arc<tokio::sync::Mutex<()>>),
}

impl Default for Neighbours {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(FOLDERS)))
    }
}

impl Neighbours {
    /// A file of `folder` has no known address; with `may_list` its listing would do.
    pub fn ask(&self, folder: &ItemId, may_list: bool) -> Ask {
        let mut folders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Folder { looks: Looks::default(), turn: Arc::default() };
        let folder = folders.get_or_insert_mut_ref(folder, fresh);
        if !folder.looks.another(Instant::now(), may_list) {
            return Ask::Item(folder.turn.clone());
        }
        match folder.turn.clone().try_lock_owned() {
            Ok(guard) => Ask::List(guard),
            Err(_) => Ask::Item(folder.turn.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_file_of_a_folder_lists_it_once_a_minute() {
        let start = Instant::now();
        let mut looks = Looks::default();
        let mut at = |seconds: u64| looks.another(start + Duration::from_secs(seconds), true);
        assert_eq!([at(0), at(1), at(2), at(3)], [false, false, true, false]);
        assert_eq!([at(20), at(40), at(41), at(42)], [false; 4], "some time apart, or too soon");
        assert_eq!([at(43), at(63), at(64), at(65)], [false, false, false, true]);
        let mut looks = Looks::default();
        assert!(!(0..9).any(|_| looks.another(start, false)));
    }
}
