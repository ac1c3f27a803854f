//! Entries of a round of delta, as they are kept until it is whole.

use std::collections::BTreeSet;

use crate::model::RemoteItem;

/// An item may appear several times in a round: the last one wins (graph-api 9.2). Order is kept.
pub(super) fn last_of_each(entries: Vec<RemoteItem>) -> Vec<RemoteItem> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<RemoteItem> =
        entries.into_iter().rev().filter(|item| seen.insert(item.id.clone())).collect();
    kept.reverse();
    kept
}

/// The address in an entry is a secret and soon stale: it is not kept.
pub(super) fn to_json(item: &RemoteItem) -> String {
    let kept = RemoteItem { download_url: None, ..item.clone() };
    serde_json::to_string(&kept).expect("plain data is always written")
}

pub(super) fn from_json(text: &str) -> Option<RemoteItem> {
    let item = serde_json::from_str(text);
    item.inspect_err(|error| tracing::error!(%error, "an entry of an unfinished round cannot be read")).ok()
}
