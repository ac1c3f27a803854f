//! Keeps what staged contents are called beside them (`content::read_names`), for a rescue without the store.

use std::collections::{BTreeMap, HashMap};
use std::io;

use super::planner::World;
use super::{Inner, lock};
use crate::content::StagingId;
use crate::model::NodeId;
use crate::store::StoreError;

/// So many lines beyond what is needed are left in the log before it is written anew.
const STALE_LINES: usize = 10_000;

/// What the log says.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// The change of each content's node when it was written.
    written: HashMap<u64, u64>,
    /// Where folders with unsent changes were.
    folders: HashMap<NodeId, (NodeId, String)>,
    /// Lines in the log; none before the first of this run.
    lines: Option<usize>,
}

impl Inner {
    /// Writes what is called otherwise than the log says. Failing is no harm: nothing but a rescue reads it.
    pub(super) fn label_contents(&self, world: &World) {
        if let Err(error) = self.write_labels(world) {
            tracing::debug!(%error, "the names of unsent content could not be noted beside it");
        }
    }

    fn write_labels(&self, world: &World) -> io::Result<()> {
        let mut labels = lock(&self.labels);
        let moved = labels.note_folders(world);
        let mut wanted = BTreeMap::new();
        for (id, item) in &world.dirty {
            let Some(local) = item.node.local.as_ref().filter(|local| !local.deleted) else { continue };
            let Some(content) = local.content else { continue };
            wanted.insert(content, (*id, local.changed_seq));
        }
        let anew = labels.lines.is_none_or(|lines| lines > wanted.len() * 2 + STALE_LINES);
        let is_news = |content: &u64, seq: u64| anew || moved || labels.written.get(content) != Some(&seq);
        let news: Vec<(u64, NodeId, u64)> = wanted
            .iter()
            .filter(|(content, (_, seq))| is_news(content, *seq))
            .map(|(content, (id, seq))| (*content, *id, *seq))
            .collect();
        if news.is_empty() && labels.lines.is_some() {
            return Ok(());
        }
        let broken = |error: StoreError| io::Error::other(error.to_string());
        let mut lines = Vec::new();
        for (content, id, _) in &news {
            lines.push((StagingId(*content), self.store.path_of(*id).map_err(broken)?));
        }
        self.staging.note_names(&lines, anew)?;
        labels.written.retain(|content, _| wanted.contains_key(content));
        labels.written.extend(news.iter().map(|(content, _, seq)| (*content, *seq)));
        let before = if anew { 0 } else { labels.lines.unwrap_or(0) };
        labels.lines = Some(before + lines.len());
        Ok(())
    }
}

impl Labels {
    /// Whether a folder is elsewhere than before: everything below it is, too.
    fn note_folders(&mut self, world: &World) -> bool {
        let mut moved = false;
        let mut folders = HashMap::new();
        for (id, item) in world.dirty.iter().filter(|(_, item)| item.node.kind.is_directory()) {
            let Some(local) = &item.node.local else { continue };
            let place = (local.parent, local.name.clone());
            moved |= match self.folders.get(id) {
                Some(before) => *before != place,
                None => item.node.remote.is_some(),
            };
            folders.insert(*id, place);
        }
        self.folders = folders;
        moved
    }
}
