//! What a report alone does not prove, or an answer that something overtook: read by its id before it is believed.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{Effects, Source, is_being_made, is_overtaken};
use super::{Engine, Inner};
use crate::model::{ItemId, RemoteItem};
use crate::store::{Durability, StoreError, Tx};

/// Items that must be read by their id before they are believed (JSON).
pub(super) const DOUBTS: &str = "doubts";

/// How often in a row an item in doubt is looked at whose answers our own changes overtake.
const LOOKS: u32 = 3;

impl Engine {
    /// Carries effects out, then reads by id what a report alone does not prove: what is in doubt now, and what
    /// could not be read before.
    pub(super) async fn settle_doubts(&self, mut effects: Effects) {
        let mut doubted: BTreeSet<ItemId> = std::mem::take(&mut effects.doubted).into_iter().collect();
        self.0.carry_out(effects);
        match self.meta(DOUBTS) {
            Ok(known) => doubted.extend(doubts(known)),
            Err(error) => tracing::warn!(%error, "items in doubt cannot be read from the store"),
        }
        for _ in 0..LOOKS {
            doubted = self.look_at_doubts(doubted).await;
            if doubted.is_empty() {
                return;
            }
        }
        // Our own changes of these items end faster than they can be looked at: they wait for the next round.
    }

    /// Looks at each once; returns those whose answer something overtook, and which are as doubtful as before.
    async fn look_at_doubts(&self, doubted: BTreeSet<ItemId>) -> BTreeSet<ItemId> {
        let (mut settled, mut waiting) = (BTreeMap::new(), BTreeSet::new());
        let (mut gone, mut overtaken) = (Vec::new(), BTreeSet::new());
        for item in doubted {
            let sent_seq = self.0.store.sequence();
            let Some(seen) = self.look_at(&item).await else { continue };
            if self.is_being_made(&seen).await {
                waiting.insert(item);
            } else {
                // What was moved out of a folder that is gone is seen elsewhere first.
                if seen.deleted {
                    gone.push((seen, sent_seq));
                } else if self.take_in(vec![seen], Source::Direct, sent_seq).await.contains(&item) {
                    overtaken.insert(item);
                    continue;
                }
                settled.insert(item, sent_seq);
            }
        }
        for (seen, sent_seq) in gone {
            self.take_in(vec![seen], Source::Direct, sent_seq).await;
        }
        if settled.is_empty() && waiting.is_empty() {
            return overtaken;
        }
        let inner = self.0.clone();
        match self.0.blocking.start(move || inner.forget_doubts(settled, waiting)).await {
            Ok(more) => overtaken.extend(more),
            Err(error) => tracing::warn!(%error, "settled doubts stay on record; they are settled again"),
        }
        overtaken
    }

    async fn is_being_made(&self, item: &RemoteItem) -> bool {
        let (inner, item) = (self.0.clone(), item.clone());
        let look = move || inner.store.inspect(|tx| is_being_made(tx, &item));
        self.0.blocking.start(look).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what is being made cannot be read from the store");
            false
        })
    }
}

impl Inner {
    /// Takes settled doubts, with the sequence numbers of the looks that settled them, off the record. Returns
    /// those that our own changes overtook: they stay.
    fn forget_doubts(
        &self,
        settled: BTreeMap<ItemId, u64>,
        waiting: BTreeSet<ItemId>,
    ) -> Result<BTreeSet<ItemId>, StoreError> {
        self.store.write(Durability::Process, |tx| {
            let (mut left, mut overtaken) = (doubts(tx.meta(DOUBTS)?), BTreeSet::new());
            for (item, sent_seq) in settled {
                if tx.by_item(&item)?.is_some_and(|node| is_overtaken(&node, sent_seq)) {
                    left.insert(item.clone());
                    overtaken.insert(item);
                } else {
                    left.remove(&item);
                }
            }
            left.extend(waiting);
            tx.set_meta(DOUBTS, to_meta(&left).as_deref())?;
            Ok(overtaken)
        })
    }
}

/// Doubts outlive the round that raised them: its link is past them.
pub(super) fn add_doubts(tx: &mut Tx<'_>, items: &[ItemId]) -> Result<(), StoreError> {
    if items.is_empty() {
        return Ok(());
    }
    let mut known = doubts(tx.meta(DOUBTS)?);
    known.extend(items.iter().cloned());
    tx.set_meta(DOUBTS, to_meta(&known).as_deref())
}

fn doubts(text: Option<String>) -> BTreeSet<ItemId> {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn to_meta(doubts: &BTreeSet<ItemId>) -> Option<String> {
    let text = || serde_json::to_string(doubts).expect("plain data is always written");
    (!doubts.is_empty()).then(text)
}
