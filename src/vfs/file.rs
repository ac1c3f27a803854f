//! An open file: what its bytes are for as long as some handle is open.
//!
//! Invariants:
//! - what is shown stays what it was at the first open until the last close, but for our own writes;
//! - bytes go only into staged content that the store names and that is not sealed, and the store knows of a
//!   file's first change before that change is acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::attr::Shown;
use super::body::Body;
use super::handles::Pages;
use super::through::Through;
use super::{Allocate, Drive, VfsError, body, namespace};
use crate::content::ContentKey;
use crate::model::{ByteRange, ContentVersion, NodeId, Timestamp};
use crate::store::{Durability, LocalView, Node, Place, Power, RemoteView, Tx};

/// A file that some handle has open; shared by all of them.
#[derive(Debug)]
pub(super) struct OpenFile {
    node: NodeId,
    phase: Mutex<Phase>,
    /// The pages that the kernel has, if any, are of what this file shows.
    pages_fit: AtomicBool,
}

#[derive(Debug)]
enum Phase {
    New,
    Open(Box<State>),
    Closed,
}

/// What an open file is.
#[derive(Debug)]
pub(super) struct State {
    node: NodeId,
    pub body: Body,
    handles: u32,
    writers: u32,
    /// The body is staged content that the store names, and nobody seals it: someone here may write.
    writable: bool,
    /// The time to show and to record, and whether a program set it.
    mtime: Option<(Timestamp, bool)>,
    /// When bytes or size last moved, where the store does not know it yet.
    ctime: Option<Timestamp>,
    /// Bytes, size or time moved since they were last recorded.
    unrecorded: bool,
    /// The view that a clean body is the content of.
    origin: Option<RemoteView>,
    /// Where the file was when it was opened.
    place: Option<Place>,
    /// Of the content that was loaded; none if it changed at that moment.
    epoch: Option<u64>,
    /// What the kernel does by itself.
    pub through: Through,
}

/// What is left to do after a handle was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// It was the last handle.
    pub last: bool,
    /// The content it showed is no longer the file's.
    pub outdated: bool,
}

impl OpenFile {
    pub fn new(node: NodeId) -> Self {
        Self { node, phase: Mutex::new(Phase::New), pages_fit: AtomicBool::new(false) }
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a handle. False if the last one was closed meanwhile: get the file anew.
    pub fn join<D: Drive>(&self, drive: &D, writes: bool, pages: &Pages) -> Result<bool, VfsError> {
        let mut phase = self.lock();
        match &mut *phase {
            Phase::Closed => return Ok(false),
            Phase::Open(_) => {}
            Phase::New => {
                let state = State::load(drive, self.node)?;
                let fit = state.epoch.is_some_and(|epoch| pages.are_of(self.node, epoch));
                self.pages_fit.store(fit, Ordering::Release);
                *phase = Phase::Open(Box::new(state));
            }
        }
        if let Phase::Open(state) = &mut *phase {
            state.handles += 1;
            state.writers += u32::from(writes);
        }
        Ok(true)
    }

    /// The first handle of a file that was just created over this staged content.
    pub fn created(&self, node: &Node, body: Body) {
        let mut state = State::over(node, body);
        (state.handles, state.writers, state.writable) = (1, 1, true);
        self.pages_fit.store(true, Ordering::Release);
        *self.lock() = Phase::Open(Box::new(state));
    }

    /// Whether the kernel may keep what pages it has of this file.
    pub fn may_keep_pages(&self) -> bool {
        self.pages_fit.load(Ordering::Acquire)
    }

    /// The kernel uses a handle of this file, and so has ended an open: what other pages it had it has no more.
    pub fn kernel_uses_it(&self) {
        self.pages_fit.store(true, Ordering::Release);
    }

    /// Looks at or changes the state; never over an await.
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> Result<T, VfsError>) -> Result<T, VfsError> {
        match &mut *self.lock() {
            Phase::Open(state) => look(state),
            Phase::New | Phase::Closed => Err(VfsError::BadHandle),
        }
    }

    /// As [`OpenFile::with`], where a closed file is none of the caller's business.
    pub fn with_open(&self, look: impl FnOnce(&mut State)) {
        if let Phase::Open(state) = &mut *self.lock() {
            look(state);
        }
    }

    /// The body as it is.
    pub fn body(&self) -> Result<Body, VfsError> {
        self.with(|state| Ok(state.body.clone()))
    }

    pub fn shown(&self) -> Option<Shown> {
        match &*self.lock() {
            Phase::Open(state) => {
                let mtime = state.mtime.map(|(mtime, _)| mtime);
                Some(Shown { size: state.body.size(), mtime, ctime: state.ctime })
            }
            Phase::New | Phase::Closed => None,
        }
    }

    /// Which content of the service is shown, or that nobody knows (a default version); none where the file is not open,
    /// or has unsent content.
    pub fn content<D: Drive>(&self, drive: &D) -> Result<Option<ContentVersion>, VfsError> {
        match &mut *self.lock() {
            Phase::Open(state) => state.content(drive),
            Phase::New | Phase::Closed => Ok(None),
        }
    }

    /// Takes a handle away, after its changes were recorded.
    pub fn leave<D: Drive>(&self, drive: &D, writes: bool, pages: &Pages) -> Left {
        let mut phase = self.lock();
        let Phase::Open(state) = &mut *phase else { return Left { last: false, outdated: false } };
        state.handles = state.handles.saturating_sub(1);
        state.writers = state.writers.saturating_sub(u32::from(writes));
        state.writable &= state.writers > 0;
        let last = state.handles == 0;
        let outdated = last && state.is_outdated(drive);
        if last {
            let fit = self.may_keep_pages() && !outdated;
            pages.set(self.node, state.epoch.filter(|_| fit));
            *phase = Phase::Closed;
        }
        Left { last, outdated }
    }

    /// A first open that failed leaves nothing behind.
    pub fn give_up(&self) -> bool {
        let mut phase = self.lock();
        let is_new = matches!(*phase, Phase::New);
        if is_new {
            *phase = Phase::Closed;
        }
        is_new
    }
}

impl State {
    fn load<D: Drive>(drive: &D, id: NodeId) -> Result<Self, VfsError> {
        loop {
            let epoch = drive.store().content_epoch(id);
            let node = drive.store().node(id)?.ok_or(VfsError::Stale)?;
            let was = staged(&node);
            let body = match was {
                Some((content, _)) => Body::staged(drive, &node, content),
                None => Ok(Body::clean(drive, &node)),
            };
            match body {
                Ok(body) => {
                    let epoch = Some(epoch).filter(|epoch| drive.store().content_epoch(id) == *epoch);
                    return Ok(Self { epoch, ..Self::over(&node, body) });
                }
                // It was sent, and is unlinked since the node was read.
                Err(_) if drive.store().node(id)?.is_none_or(|now| staged(&now) != was) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn over(node: &Node, body: Body) -> Self {
        Self {
            node: node.id,
            body,
            handles: 0,
            writers: 0,
            writable: false,
            mtime: None,
            ctime: None,
            unrecorded: false,
            origin: node.content_view().cloned(),
            place: node.place.clone(),
            epoch: Some(0),
            through: Through::default(),
        }
    }

    /// Makes sure that the body may be written, as the store sees it too. `empty`: nothing of what is there
    /// is needed.
    pub fn make_writable<D: Drive>(&mut self, drive: &D, empty: bool) -> Result<(), VfsError> {
        if self.writable {
            return if empty { self.resize(0) } else { Ok(()) };
        }
        let (now, next) = loop {
            let was = self.follow_what_was_sent(drive)?;
            let now = Timestamp::from(drive.clock().wall());
            // None: the content was sealed or sent in between, and what was read of the node holds no longer.
            if let Some(next) = self.stage(drive, was, empty, now)? {
                break (now, next);
            }
        };
        self.through.detach();
        self.body = next;
        (self.writable, self.unrecorded) = (true, true);
        (self.mtime, self.ctime) = (Some((now, false)), Some(now));
        if empty { self.resize(0) } else { Ok(()) }
    }

    /// Writes into a body that may be written.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), VfsError> {
        self.body.write(offset, data)?;
        self.through.follow(|lent| lent.write_at("lent.write", data, offset));
        Ok(())
    }

    /// Cuts a body that may be written, or extends it with zeros.
    pub fn resize(&mut self, size: u64) -> Result<(), VfsError> {
        self.body.resize(size)?;
        self.through.follow(|lent| lent.set_len("lent.resize", size));
        Ok(())
    }

    /// Reserves, punches or zeroes a stretch of a body that may be written.
    pub fn allocate(&mut self, range: ByteRange, what: Allocate) -> Result<(), VfsError> {
        match what {
            Allocate::Extend => self.body.allocate(range, false)?,
            Allocate::KeepSize => self.body.allocate(range, true)?,
            Allocate::PunchHole => self.body.zero(range, true)?,
            Allocate::ZeroRange { keep_size } => self.body.zero(range, keep_size)?,
        }
        let size = self.body.size();
        let zeroes = matches!(what, Allocate::PunchHole | Allocate::ZeroRange { .. });
        self.through.follow(|lent| {
            lent.set_len("lent.resize", size)?;
            if zeroes { lent.punch_hole("lent.punch", range.start, range.len()) } else { Ok(()) }
        });
        Ok(())
    }

    /// Names a content that may be written in the store, if what is staged still is as in `was`.
    fn stage<D: Drive>(
        &self,
        drive: &D,
        was: Option<(u64, bool)>,
        empty: bool,
        now: Timestamp,
    ) -> Result<Option<Body>, VfsError> {
        let mut made = None;
        let outcome = drive.store().write_changes(Durability::Process, |tx| {
            let node = tx.find(self.node)?.ok_or(VfsError::Stale)?;
            if staged(&node) != was {
                return Ok(None);
            }
            let (content, next) = self.next_body(drive, tx, &node, empty, &mut made)?;
            self.adopt(tx, &node, content, next.size(), now)?;
            // Synced no longer; and of what a power cut took nothing is left in an emptied file.
            if empty || tx.power(content)? == Some(Power::Synced) {
                tx.set_power(content, None)?;
            }
            Ok::<_, VfsError>(Some(next))
        });
        if let (Err(_), Some(content)) = (&outcome, made) {
            body::remove(drive, content);
        }
        let next = outcome?.value;
        if next.is_some() && was.is_some_and(|(_, sealed)| sealed) {
            // That it is sealed must not come back after a power cut which leaves some of what is written now. Where the
            // disk refuses, the content stays: the store names it.
            drive.store().write(Durability::Power, |_| Ok(()))?;
        }
        Ok(next)
    }

    /// The staged content to write: the present one if nobody else holds on to it, else a new one.
    fn next_body<D: Drive>(
        &self,
        drive: &D,
        tx: &mut Tx<'_>,
        node: &Node,
        empty: bool,
        made: &mut Option<u64>,
    ) -> Result<(u64, Body), VfsError> {
        let present = match staged(node) {
            Some((content, sealed)) => {
                let current = match &self.body {
                    Body::Staged(own) if own.content() == content => self.body.clone(),
                    _ => Body::staged(drive, node, content)?,
                };
                if !sealed || !(is_being_sent(tx, node.id, content)? || current.is_shared()?) {
                    return Ok((content, current.unsealed()));
                }
                current
            }
            None => self.body.clone(),
        };
        let content = tx.next_content()?;
        *made = Some(content);
        let next = if empty { Body::empty(drive, content)? } else { present.continued(drive, content)? };
        if let Some(base) = next.lies_over() {
            tx.lies_over(content, base)?;
        }
        Ok((content, next))
    }

    /// Names the content in the store, with what it started from.
    fn adopt(
        &self,
        tx: &mut Tx<'_>,
        node: &Node,
        content: u64,
        size: u64,
        now: Timestamp,
    ) -> Result<(), VfsError> {
        let is_first = node.local.as_ref().is_none_or(|local| local.content.is_none());
        let node = self.at_home(node);
        let is_gone_elsewhere = was_deleted_elsewhere(&node);
        // Its folder may be gone elsewhere too.
        let home = match &node.local {
            Some(local) if (is_gone_elsewhere || !local.deleted) && tx.find(local.parent)?.is_none() => {
                Some(NodeId::ROOT)
            }
            _ => None,
        };
        let edit = |local: &mut LocalView| {
            local.deleted &= !is_gone_elsewhere;
            local.parent = home.unwrap_or(local.parent);
            (local.content, local.size, local.seal) = (Some(content), size, None);
            (local.mtime, local.mtime_set) = (now, false);
        };
        namespace::change(tx, &node, now, edit)?;
        tx.set_ctime(node.id, now)?;
        if is_first && let Some(base) = self.start_of(&node) {
            tx.set_base(node.id, Some(&base))?;
        }
        Ok(())
    }

    /// The view that the first change of the content starts from: the one whose content is shown, in the
    /// place that the change of place, if any, started from.
    fn start_of(&self, node: &Node) -> Option<RemoteView> {
        let place = node.base.as_ref().or(node.remote.as_ref()).or(self.origin.as_ref())?;
        let version = match (&self.body, &self.origin) {
            (Body::Clean(_) | Body::Empty, Some(origin)) => origin.version.clone(),
            // Bytes of which nobody knows how they relate to the service's: keep both.
            _ => ContentVersion::default(),
        };
        Some(RemoteView { version, ..place.clone() })
    }

    /// A file that is gone from the service and from the tree is written where it was.
    fn at_home(&self, node: &Node) -> Node {
        let is_lost = node.local.is_none() && node.remote.is_none() && node.place.is_none();
        let place = if is_lost { self.place.clone() } else { node.place.clone() };
        Node { place, ..node.clone() }
    }

    /// Staged content that the store no longer names was sent while nobody here wrote: if the service has
    /// those bytes, the body is that version. Returns what the store says is staged.
    fn follow_what_was_sent<D: Drive>(&mut self, drive: &D) -> Result<Option<(u64, bool)>, VfsError> {
        let node = drive.store().node(self.node)?.ok_or(VfsError::Stale)?;
        let staged = staged(&node);
        if staged.is_some() {
            return Ok(staged);
        }
        match &self.body {
            Body::Staged(own) => {
                let Some(remote) = node.remote.clone() else { return Ok(None) };
                if own.has_content_of(drive, &remote)? {
                    self.body = Body::clean(drive, &node);
                    self.origin = Some(remote);
                }
            }
            // Tags may have moved without the content.
            Body::Clean(cached) if drive.content_key(&node).as_ref() == Some(&*cached.key()) => {
                self.origin = node.remote.clone().or(self.origin.take());
            }
            Body::Clean(_) | Body::Empty => {}
        }
        Ok(None)
    }

    fn content<D: Drive>(&mut self, drive: &D) -> Result<Option<ContentVersion>, VfsError> {
        let node = drive.store().node(self.node)?.ok_or(VfsError::Stale)?;
        if self.follow_what_was_sent(drive)?.is_some() {
            return Ok(None);
        }
        Ok(self.start_of(&node).map(|start| start.version))
    }

    /// Bytes or size changed just now.
    pub fn touched(&mut self, now: Timestamp) {
        (self.mtime, self.ctime) = (Some((now, false)), Some(now));
        self.unrecorded = true;
    }

    /// A program set the time; the store knows.
    pub fn set_time(&mut self, mtime: Timestamp) {
        if self.mtime.is_some() {
            self.mtime = Some((mtime, true));
        }
    }

    /// One handle more, or less, writes.
    pub fn count_writer(&mut self, writes: bool) {
        self.writers = if writes { self.writers + 1 } else { self.writers.saturating_sub(1) };
        self.writable &= self.writers > 0;
    }

    /// Records size and time in the store; nothing if they are recorded. With [`Durability::Power`] the bytes
    /// were synced.
    pub fn record<D: Drive>(&mut self, drive: &D, durability: Durability) -> Result<bool, VfsError> {
        let (Body::Staged(own), true) = (&self.body, self.unrecorded) else { return Ok(false) };
        let (content, size) = (own.content(), self.body.size());
        let now = Timestamp::from(drive.clock().wall());
        let (mtime, mtime_set) = self.mtime.unwrap_or((now, false));
        drive.store().write_changes(durability, |tx| {
            let node = self.at_home(&tx.find(self.node)?.ok_or(VfsError::Stale)?);
            let is_named = node.local.as_ref().is_some_and(|local| local.content == Some(content));
            namespace::change(tx, &node, now, |local| {
                (local.content, local.size, local.seal) = (Some(content), size, None);
                (local.mtime, local.mtime_set) = (mtime, mtime_set);
            })?;
            if let Some(ctime) = self.ctime {
                tx.set_ctime(node.id, ctime.max(node.ctime))?;
            }
            if !is_named && let Some(base) = self.start_of(&node) {
                tx.set_base(node.id, Some(&base))?;
            }
            if durability == Durability::Power {
                tx.synced(content)?;
            }
            Ok::<_, VfsError>(())
        })?;
        self.unrecorded = false;
        Ok(true)
    }

    /// Whether the file has another content for whoever opens it next.
    fn is_outdated<D: Drive>(&self, drive: &D) -> bool {
        let Ok(Some(node)) = drive.store().node(self.node) else { return false };
        let named = node.local.as_ref().and_then(|local| local.content);
        let key: Option<ContentKey> = if named.is_none() { drive.content_key(&node) } else { None };
        match &self.body {
            Body::Staged(own) if named == Some(own.content()) => false,
            // Sent while it was open, or replaced: not worth finding out.
            Body::Staged(_) => true,
            Body::Clean(cached) => named.is_some() || key.as_ref() != Some(&*cached.key()),
            Body::Empty => named.is_some() || key.is_some_and(|key| key.size > 0),
        }
    }
}

/// The staged content that the node names, and whether it is sealed.
fn staged(node: &Node) -> Option<(u64, bool)> {
    node.local.as_ref().and_then(|local| Some((local.content?, local.seal.is_some())))
}

/// Another client deleted it while it was open here and clean: once it is written to, it is a file again.
fn was_deleted_elsewhere(node: &Node) -> bool {
    let is_clean = |local: &LocalView| local.deleted && local.content.is_none();
    node.remote.is_none() && node.base.is_some() && node.local.as_ref().is_some_and(is_clean)
}

/// An operation that carries this content is under way, or may be resumed.
fn is_being_sent(tx: &Tx<'_>, node: NodeId, content: u64) -> Result<bool, VfsError> {
    let attempted = tx.attempt(node)?.is_some_and(|attempt| attempt.content == Some(content));
    Ok(attempted || tx.sessions()?.iter().any(|session| session.content == content))
}
