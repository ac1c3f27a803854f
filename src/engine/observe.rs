//! Remote changes in: enumeration, rounds of delta (design 3 "Observing", 4).

use std::time::Duration;

use super::apply::{Applier, Effects, Newcomers, Seen, Source, is_overtaken, late};
use super::confirm::REREAD;
use super::doubts::add_doubts;
use super::entries::{from_json, last_of_each, to_json};
use super::error::{Verdict, classify};
use super::missing::{For, is_rematch};
use super::progress::{Read, Reading};
use super::rekey::Reunion;
use super::walk::NEXT;
use super::{Engine, EngineError, Inner, Mutant, lock};
use crate::graph::{DeltaFrom, DeltaLink, GraphError, PageLink, Priority};
use crate::model::{ItemId, NodeId, RemoteItem, Timestamp};
use crate::store::{Durability, StoreError, Tx};

/// Where the next round begins.
pub(super) const LINK: &str = "delta_link";
/// Where an unfinished round goes on.
pub(super) const PAGE: &str = "round_link";
/// Sequence number at which the unfinished round began.
pub(super) const PAGE_SEQ: &str = "round_seq";
/// "1" once the whole drive was read.
const ENUMERATED: &str = "enumerated";
/// Generation of the enumeration under way (mark and sweep).
pub(super) const MARK: &str = "mark";
/// Wall time of the newest finished round.
pub(super) const LAST: &str = "last_delta";

/// Sequence number at which the first page of the unfinished enumeration was there: what happens on the service after it
/// is told by a later page or round, but not what happened before, however often that page had to be asked for.
const FIRST_SEQ: &str = "enumeration_seq";
/// The same of the newest enumeration, which may have ended.
pub(super) const READ_FROM: &str = "read_from_seq";
/// Sequence number up to which own operations do not spare an item that the enumeration did not show a look.
pub(super) const SWEEP: &str = "sweep_seq";

/// Pages without an entry in a row before a round is given up and begun again later (graph-api 15.41).
const EMPTY_PAGES: u32 = 50;

impl Engine {
    /// Follows the drive's changes until the engine stops.
    pub(super) async fn observe_changes(self) {
        let mut failures = 0;
        while !self.0.stop.is_cancelled() {
            let failed = match self.round().await {
                Ok(()) => {
                    failures = 0;
                    self.0.connected();
                    None
                }
                Err(error) => {
                    failures += 1;
                    self.note_trouble(&error);
                    Some(super::execute::backoff(failures - 1).min(self.0.config.poll))
                }
            };
            self.until_next_look(failed).await;
        }
    }

    fn note_trouble(&self, error: &EngineError) {
        match error {
            EngineError::Graph(graph) => match classify(graph) {
                Verdict::SignedOut => self.0.signed_out(&graph.to_string()),
                Verdict::Offline | Verdict::Unknown => self.0.disconnected(&graph.to_string()),
                // A service that asks to wait is there.
                Verdict::Later | Verdict::Look | Verdict::Park { .. } => {
                    tracing::warn!(%error, "the drive's changes cannot be read");
                }
            },
            _ => tracing::error!(%error, "the drive's changes cannot be recorded"),
        }
    }

    /// One whole round: every page from the saved link to the next delta link.
    pub(super) async fn round(&self) -> Result<(), EngineError> {
        self.ensure_root().await?;
        if self.wants_rematch()? {
            self.restart_enumeration(None)?;
            self.rematch_begins(mark(self.meta(MARK)?))?;
        }
        if !self.0.was_enumerated()? {
            self.0.pace.begin(self.0.clock.mono(), Read::of(|key| self.0.store.meta(key))?);
        }
        if self.is_without_delta()? {
            return self.walk_round().await;
        }
        if self.meta(LINK)?.is_none() && self.meta(PAGE)?.is_none() {
            self.begin_enumeration()?;
        }
        let enumerating = self.meta(LINK)?.is_none();
        let sent_seq = match self.meta(PAGE_SEQ)?.and_then(|text| text.parse().ok()) {
            Some(seq) if self.meta(PAGE)?.is_some() => seq,
            _ => self.0.store.sequence(),
        };
        let mut from = self.meta(PAGE)?.or(self.meta(LINK)?).map(PageLink::new);
        let mut empty = 0;
        loop {
            let start = from.as_ref().map_or(DeltaFrom::Start, |link| DeltaFrom::Link(link.clone()));
            let priority = if enumerating { Priority::Enumeration } else { Priority::Listing };
            let page = match self.0.delta(&start, priority).await {
                Ok(page) => page,
                Err(GraphError::Resync { location, .. }) => {
                    tracing::warn!("the service asks to read the whole drive again");
                    return Ok(self.restart_enumeration(location)?);
                }
                Err(GraphError::Unsupported { .. }) => {
                    self.give_delta_up()?;
                    return self.walk_round().await;
                }
                Err(error) => return Err(error.into()),
            };
            self.0.connected();
            empty = if page.items.is_empty() { empty + 1 } else { 0 };
            page.items.iter().for_each(|item| self.0.fetch.remember(item));
            match page.link {
                DeltaLink::Next(next) if empty < EMPTY_PAGES => {
                    self.take_page(page.items, &next, sent_seq, enumerating).await?;
                    from = Some(next);
                }
                DeltaLink::Next(_) => return Ok(self.restart_enumeration(None)?),
                DeltaLink::Done(link) => {
                    return self.finish_round(page.items, &link, sent_seq, enumerating).await;
                }
            }
        }
    }

    pub(super) fn meta(&self, key: &str) -> Result<Option<String>, EngineError> {
        Ok(self.0.store.meta(key)?)
    }

    fn begin_enumeration(&self) -> Result<(), StoreError> {
        self.0.store.write(Durability::Process, |tx| {
            let mark = tx.meta(MARK)?.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
            Read::forget(tx)?;
            tx.set_meta(MARK, Some(&mark.to_string()))
        })
    }

    fn restart_enumeration(&self, location: Option<PageLink>) -> Result<(), StoreError> {
        self.begin_enumeration()?;
        self.0.store.write(Durability::Process, |tx| {
            tx.take_round()?;
            tx.end_walk()?;
            tx.set_meta(NEXT, None)?;
            if tx.meta(ENUMERATED)?.is_some() {
                tx.set_meta(REREAD, Some(&tx.sequence().to_string()))?;
            }
            for key in [SWEEP, PAGE_SEQ, FIRST_SEQ] {
                tx.set_meta(key, None)?;
            }
            tx.set_meta(LINK, None)?;
            tx.set_meta(PAGE, location.as_ref().map(PageLink::expose))
        })?;
        self.0.look.notify_one();
        Ok(())
    }

    /// The drive's root must be known before anything can hang below it.
    pub(super) async fn ensure_root(&self) -> Result<(), EngineError> {
        if self.0.store.node(NodeId::ROOT)?.is_some_and(|root| root.remote.is_some()) {
            return Ok(());
        }
        let sent_seq = self.0.store.sequence();
        let root = self.0.root_item(Priority::Interactive).await?;
        self.take_in(vec![root], Source::Direct, sent_seq).await;
        Ok(())
    }

    /// A page that is not the last: an enumeration shows what is there at once (never what is gone); any
    /// other round is kept aside until it is whole.
    async fn take_page(
        &self,
        items: Vec<RemoteItem>,
        next: &PageLink,
        sent_seq: u64,
        enumerating: bool,
    ) -> Result<(), EngineError> {
        let (inner, link) = (self.0.clone(), next.expose().to_owned());
        let effects = self
            .0
            .blocking
            .start(move || -> Result<Effects, StoreError> {
                let mut applier = inner.applier();
                let now = Timestamp::from(inner.clock.wall());
                let committed =
                    inner.store.write_changes(Durability::Process, |tx| -> Result<(), StoreError> {
                        if enumerating {
                            let seen = Seen { source: Source::Report, sent_seq, now };
                            let there = items.iter().filter(|item| !item.deleted);
                            enumerate(tx, &mut applier, there, seen)?;
                            if tx.meta(FIRST_SEQ)?.is_none() {
                                let first = tx.sequence().to_string();
                                tx.set_meta(FIRST_SEQ, Some(&first))?;
                                tx.set_meta(READ_FROM, Some(&first))?;
                            }
                        } else if Mutant::RoundByPage.is_planted() {
                            let seen = Seen { source: Source::Report, sent_seq, now };
                            items.iter().try_for_each(|item| applier.apply(tx, item, seen))?;
                        } else {
                            items.iter().try_for_each(|item| tx.push_round(&to_json(item)))?;
                        }
                        add_doubts(tx, &applier.effects.doubted)?;
                        tx.set_meta(PAGE_SEQ, Some(&sent_seq.to_string()))?;
                        tx.set_meta(PAGE, Some(&link))
                    })?;
                inner.sink.changed(&committed.changes);
                Ok(applier.effects)
            })
            .await?;
        self.settle_doubts(effects).await;
        Ok(())
    }

    /// The last page: the whole round in one transaction with its delta link.
    async fn finish_round(
        &self,
        last: Vec<RemoteItem>,
        link: &PageLink,
        sent_seq: u64,
        enumerating: bool,
    ) -> Result<(), EngineError> {
        let (inner, link) = (self.0.clone(), link.expose().to_owned());
        if Mutant::TokenApart.is_planted() && !enumerating {
            self.0.store.write(Durability::Process, |tx| tx.set_meta(LINK, Some(&link)))?;
            self.0.store.write(Durability::Process, |tx| tx.set_meta(PAGE, None))?;
            self.0.pause(Duration::from_millis(300)).await;
        }
        let effects =
            self.0.blocking.start(move || inner.apply_round(last, &link, sent_seq, enumerating)).await?;
        self.settle_doubts(effects).await;
        self.finish_enumeration().await?;
        self.0.set_looked(sent_seq);
        self.0.wake.notify_one();
        Ok(())
    }

    /// What an enumeration did not show is read by its id, and taken away only where it is gone. What cannot be
    /// read now is tried again after the next round.
    pub(super) async fn finish_enumeration(&self) -> Result<(), EngineError> {
        let Some(began) = self.meta(SWEEP)?.and_then(|text| text.parse().ok()) else { return Ok(()) };
        let inner = self.0.clone();
        let look = move || {
            inner.store.inspect(|tx| {
                let mark = mark(tx.meta(MARK)?);
                Ok((mark, tx.unmarked(mark, began)?))
            })
        };
        let (mark, unmarked) = self.0.blocking.start(look).await?;
        if self.wants_rematch()? || !self.sweep(unmarked, mark).await? {
            tracing::warn!("not every item that was not listed could be looked at: the rest follows");
            return Ok(());
        }
        let inner = self.0.clone();
        let end = move || {
            let mut from = Some(NodeId(0));
            while let Some(here) = from {
                from = inner.store.write(Durability::Process, |tx| {
                    let next = tx.set_listed_from(here)?;
                    if next.is_none() {
                        tx.set_meta(SWEEP, None)?;
                        tx.set_meta(ENUMERATED, Some("1"))?;
                    }
                    Ok(next)
                })?;
            }
            Ok::<_, StoreError>(())
        };
        self.0.blocking.start(end).await?;
        self.0.enumerated.store(true, std::sync::atomic::Ordering::Release);
        self.rematch_ends().await?;
        self.0.connected();
        Ok(())
    }

    /// False if the service could not tell of all of them.
    async fn sweep(&self, unmarked: Vec<ItemId>, mark: u64) -> Result<bool, EngineError> {
        if !unmarked.is_empty() {
            let count = unmarked.len();
            tracing::info!(count, "items that were not listed any more are looked at one by one");
        }
        // Then the enumeration itself has looked for them at their places.
        let reunited = self.0.store.inspect(|tx| reunites(tx))?;
        for item in unmarked {
            if self.0.store.by_item(&item)?.is_none() {
                // It went with a folder.
                continue;
            }
            let sent_seq = self.0.store.sequence();
            let seen = match self.0.graph.item(&self.0.drive.id, &item, Priority::Enumeration).await {
                Ok(found) => Some(found),
                Err(GraphError::NotFound { .. }) if reunited => Some(RemoteItem::gone(item.clone())),
                Err(GraphError::NotFound { .. }) => match self.missing(&item, For::Engine).await {
                    Some(seen) => Some(seen),
                    None => return Ok(false),
                },
                Err(error) if matches!(classify(&error), Verdict::Look | Verdict::Park { .. }) => {
                    tracing::debug!(%item, %error, "an item that was not listed cannot be looked at");
                    let gone = self.has_left(&item, &error).await.then(|| RemoteItem::gone(item.clone()));
                    if gone.is_none() {
                        // No later report tells of it again.
                        let (inner, item) = (self.0.clone(), item.clone());
                        let doubt =
                            move || inner.store.write(Durability::Process, |tx| add_doubts(tx, &[item]));
                        self.0.blocking.start(doubt).await?;
                    }
                    gone
                }
                Err(_) => return Ok(false),
            };
            self.take_in(seen.into_iter().collect(), Source::Direct, sent_seq).await;
            let inner = self.0.clone();
            let marked = move || {
                inner.store.write(Durability::Process, |tx| match tx.by_item(&item)? {
                    Some(node) => tx.set_mark(node.id, mark),
                    None => Ok(()),
                })
            };
            self.0.blocking.start(marked).await?;
        }
        Ok(true)
    }

    /// Takes descriptions in. What something overtook while it was on its way is returned, and looked at again later.
    pub(super) async fn take_in(&self, items: Vec<RemoteItem>, source: Source, sent_seq: u64) -> Vec<ItemId> {
        let mut doubted = Vec::new();
        items.iter().for_each(|item| self.0.fetch.remember(item));
        let inner = self.0.clone();
        match self.0.blocking.start(move || inner.observe(&items, source, sent_seq)).await {
            Ok(effects) => {
                if !effects.doubted.is_empty() {
                    self.0.look.notify_one();
                }
                doubted.clone_from(&effects.doubted);
                self.0.carry_out(effects);
            }
            Err(error) => tracing::error!(%error, "what the service said could not be recorded"),
        }
        self.0.wake.notify_one();
        doubted
    }
}

impl Inner {
    pub(super) fn applier(&self) -> Applier<'_> {
        Applier {
            open: &self.open,
            business: self.is_business(),
            top: self.config.top.as_ref(),
            effects: Effects::default(),
        }
    }

    /// Applies a round: the last entry of each item, first what is there, then what is gone.
    fn apply_round(
        &self,
        last: Vec<RemoteItem>,
        link: &str,
        sent_seq: u64,
        enumerating: bool,
    ) -> Result<Effects, StoreError> {
        let mut applier = self.applier();
        let now = Timestamp::from(self.clock.wall());
        let committed = self.store.write_changes(Durability::Process, |tx| -> Result<_, StoreError> {
            let earlier = tx.take_round()?;
            let mut entries: Vec<RemoteItem> = earlier.iter().filter_map(|text| from_json(text)).collect();
            entries.extend(last);
            let seen = Seen { source: Source::Report, sent_seq, now };
            let entries = last_of_each(entries);
            let (gone, there): (Vec<_>, Vec<_>) = entries.into_iter().partition(|item| item.deleted);
            if enumerating {
                enumerate(tx, &mut applier, there.iter(), seen)?;
            } else {
                there.iter().try_for_each(|item| applier.apply(tx, item, seen))?;
                let mut reunion = Reunion::default();
                // What is said to be gone may only be out of reach: that is looked at where something is at stake.
                let at_stake = if gone.is_empty() { Default::default() } else { Self::unsent_and_above(tx)? };
                for item in &gone {
                    let node = tx.by_item(&item.id)?.filter(|node| !is_overtaken(node, sent_seq));
                    if node.as_ref().is_some_and(|node| at_stake.contains(&node.id)) {
                        applier.effects.doubted.push(item.id.clone());
                        continue;
                    }
                    if !node.map_or(Ok(false), |node| reunion.replace(tx, &mut applier, node.id, now))? {
                        applier.apply(tx, item, seen)?;
                    }
                }
            }
            tx.expire_tombstones(sent_seq, late(now), now)?;
            tx.set_meta(PAGE, None)?;
            tx.set_meta(PAGE_SEQ, None)?;
            tx.set_meta(LINK, Some(link))?;
            tx.set_meta(LAST, Some(&now.0.to_string()))?;
            if enumerating {
                let first = tx.meta(FIRST_SEQ)?.unwrap_or_else(|| tx.sequence().to_string());
                tx.set_meta(FIRST_SEQ, None)?;
                tx.set_meta(READ_FROM, Some(&first))?;
                tx.set_meta(SWEEP, Some(&first))?;
            }
            add_doubts(tx, &applier.effects.doubted)
        })?;
        self.sink.changed(&committed.changes);
        Ok(applier.effects)
    }

    /// When the newest finished round was applied.
    pub(super) fn last_delta(&self) -> Option<Timestamp> {
        let text = self.store.meta(LAST).ok().flatten()?;
        text.parse().ok().map(Timestamp)
    }

    /// How far the first reading of the drive is; none once it has ended.
    pub(super) fn reading(&self) -> Result<Option<Reading>, StoreError> {
        if self.was_enumerated()? {
            return Ok(None);
        }
        let read = Read::of(|key| self.store.meta(key))?;
        let used = lock(&self.quota).map(|quota| quota.used);
        Ok(Some(self.pace.tell(self.clock.mono(), read, used)))
    }

    /// Whether the whole drive was read once, as an earlier run recorded it.
    pub(super) fn was_enumerated(&self) -> Result<bool, StoreError> {
        Ok(self.store.meta(ENUMERATED)?.is_some())
    }
}

/// Takes in what an enumeration shows and stamps it. What is known under another id at the same place is that.
pub(super) fn enumerate<'i>(
    tx: &mut Tx<'_>,
    applier: &mut Applier<'_>,
    items: impl Iterator<Item = &'i RemoteItem>,
    seen: Seen,
) -> Result<(), StoreError> {
    let generation = mark(tx.meta(MARK)?);
    let mut reunion = Reunion::default();
    let reunites = reunites(tx)?;
    let (mut read, mut newcomers) = (Read::default(), Newcomers::look(tx)?);
    for item in items {
        read.add(item);
        if !reunites && applier.introduce_new(tx, item, generation, &mut newcomers)? {
            continue;
        }
        applier.apply(tx, item, seen)?;
        if reunites {
            let id = tx.node_of_item(&item.id)?;
            reunion.reunite(tx, applier, id, (generation, seen.now))?;
        }
        let id = tx.node_of_item(&item.id)?;
        tx.set_mark(id, generation)?;
        newcomers = Newcomers::look(tx)?;
    }
    if tx.meta(ENUMERATED)?.is_none() { read.note(tx) } else { Ok(()) }
}

/// Whether an enumeration may meet what is known under other ids: nothing is at the first one.
fn reunites(tx: &Tx<'_>) -> Result<bool, StoreError> {
    Ok(tx.meta(ENUMERATED)?.is_some() || is_rematch(tx)?)
}

pub(super) fn mark(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The poll interval while nothing fails.
pub const DEFAULT_POLL: Duration = Duration::from_secs(30);
