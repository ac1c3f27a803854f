//! Does what the list says: as programs through the file system, as another client, as the weather.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use onedrivefs::emulator::{Control, Edit, Fault, FaultAction, LockShape, Mark, Resync, Throttle};
use onedrivefs::model::{ETag, Ino, ItemId, NodeId};
use onedrivefs::vfs::{FileType, Filesystem, Handle, Lookup, OpenFlags, RenameMode, SetAttr, VfsError};

use serde_json::Value;

use super::content::Content;
use super::ops::{Op, Rename, There, Trouble, Weather};
use super::oracle::{Oracle, Saw, Stamp, Step, hash};
use super::sight;
use super::sync_support::{ME, Machine};
use super::wire::{Trace, Wire};

/// As the kernel waits for metadata.
const PATIENCE: Duration = Duration::from_secs(20);
const READ_PATIENCE: Duration = Duration::from_secs(120);

/// An open handle.
struct Kept {
    path: String,
    ino: Ino,
    handle: Handle,
    write: bool,
}

/// What is known of the bytes of a file that is open for writing.
struct Model {
    /// Handles that write.
    writers: u32,
    /// All of them, where somebody looked or cut it to nothing.
    bytes: Option<Vec<u8>>,
    steps: Vec<Step>,
    /// What whoever changes it next saw before.
    saw: Saw,
    changed: bool,
    /// The item that it was when it was opened.
    item: Option<Stamp>,
}

type Done = Result<String, VfsError>;

pub struct Driver<'a> {
    pub machine: &'a Machine,
    pub control: &'a Control,
    pub wire: &'a Wire,
    pub trace: &'a Trace,
    pub oracle: &'a mut Oracle,
    kept: [Option<Kept>; 3],
    files: BTreeMap<Ino, Model>,
    /// A name for temporary files that nothing else has.
    counter: &'a mut u64,
    /// Every item that was ever seen as the service has it.
    known: BTreeSet<ItemId>,
    /// A file that another client moved, and which node it is here.
    moved: Option<(ItemId, NodeId)>,
    /// What is wrong already.
    pub wrong: Vec<String>,
}

impl<'a> Driver<'a> {
    pub fn new(
        machine: &'a Machine,
        control: &'a Control,
        wire: &'a Wire,
        trace: &'a Trace,
        oracle: &'a mut Oracle,
        counter: &'a mut u64,
    ) -> Self {
        Self {
            machine,
            control,
            wire,
            trace,
            oracle,
            kept: Default::default(),
            files: BTreeMap::new(),
            counter,
            known: BTreeSet::new(),
            moved: None,
            wrong: Vec::new(),
        }
    }

    /// Does one thing; what came of it goes to the trace.
    pub async fn perform(&mut self, op: &Op) {
        self.trace.note(format_args!("# {op:?}"));
        let before = self.watches(op).then(|| self.view());
        self.check_moved();
        match op {
            Op::There(There::Move { from, .. }) => {
                self.moved = sight::clean_file(self.machine.engine.store(), from);
            }
            Op::There(_)
            | Op::Wait { .. }
            | Op::Sync { .. }
            | Op::Look
            | Op::Read { .. }
            | Op::List { .. } => {}
            _ => self.moved = None,
        }
        let done = self.try_perform(op).await;
        self.check_moved();
        if let Some(before) = before {
            let after = self.view();
            self.wrong.extend(sight::changed(&before, &after, &self.known));
            self.known.extend(sight::items(&before).chain(sight::items(&after)));
        }
        match done {
            Ok(text) if text.is_empty() => {}
            Ok(text) => self.trace.note(format_args!("  {text}")),
            Err(error) => self.trace.note(format_args!("  ! {error}")),
        }
    }

    /// A file that another client moved is the same file to whoever uses it here.
    fn check_moved(&mut self) {
        let Some((item, was)) = self.moved.take() else { return };
        if self.find_there(item.as_str()).is_none() {
            return;
        }
        let now = self.machine.engine.store().by_item(&item).ok().flatten();
        match now.filter(|node| node.local.is_none()) {
            Some(node) if node.id != was => {
                let path = self.machine.engine.store().path_of(node.id).unwrap_or_default();
                self.wrong.push(format!("sight: {path} was moved elsewhere, and is another file since"));
            }
            _ => self.moved = Some((item, was)),
        }
    }

    /// Whether nothing that users see may change meanwhile.
    fn watches(&self, op: &Op) -> bool {
        let is_quiet = matches!(op, Op::Wait { .. } | Op::Sync { .. } | Op::Look);
        is_quiet && self.oracle.alone && !self.oracle.power_was_cut
    }

    /// What users see.
    fn view(&self) -> sight::View {
        sight::view(self.machine.engine.store(), &self.files.keys().map(|ino| ino.node()).collect())
    }

    async fn try_perform(&mut self, op: &Op) -> Done {
        match op {
            Op::Write { path, content, sync } => self.write(path, content, *sync).await,
            Op::Patch { path, at, content, look, sync } => {
                let step = Step::Write { at: *at as usize, bytes: content.bytes() };
                self.change(path, *look, *sync, |_| step).await
            }
            Op::Append { path, content } => {
                let bytes = content.bytes();
                self.change(path, true, false, |size| Step::Write { at: size, bytes }).await
            }
            Op::Truncate { path, len } => {
                let len = *len as usize;
                self.change(path, true, false, |_| Step::Length(len)).await
            }
            Op::Save { path, content, sync } => self.save(path, content, *sync).await,
            Op::SaveAside { path, content, keep } => self.save_aside(path, content, *keep).await,
            Op::Copy { from, to } => self.copy(from, to).await,
            Op::Mkdir { path } => self.patient(self.machine.mkdir(path)).await.map(|_| String::new()),
            Op::Rmdir { path } => self.rmdir(path).await,
            Op::Unlink { path } => self.unlink(path).await,
            Op::RemoveTree { path } => Box::pin(self.remove_tree(path)).await,
            Op::Rename { from, to, how } => self.rename(from, to, *how).await,
            Op::SetTime { path, seconds } => {
                let at = 1_700_000_000 + i64::from(*seconds);
                self.patient(self.machine.set_mtime(path, at)).await.map(|()| String::new())
            }
            Op::Open { slot, path, write, truncate } => self.open(*slot, path, *write, *truncate).await,
            Op::WriteHandle { slot, at, content } => {
                self.write_handle(*slot, Step::Write { at: *at as usize, bytes: content.bytes() }).await
            }
            Op::ReadHandle { slot } => self.read_handle(*slot).await,
            Op::SyncHandle { slot } => self.sync_handle(*slot).await,
            Op::Close { slot } => self.close(*slot).await,
            Op::Read { path } => self.read(path).await,
            Op::List { path } => self.list(path).await.map(|names| names.join(" ")),
            Op::There(there) => Ok(self.there(there)),
            Op::Weather(weather) => {
                self.wire.set_weather(*weather);
                if *weather == Weather::Calm {
                    self.control.clear_faults();
                }
                Ok(String::new())
            }
            Op::Service(trouble) => {
                self.trouble(trouble);
                Ok(String::new())
            }
            Op::Wait { ms } => {
                tokio::time::sleep(Duration::from_millis(u64::from(*ms))).await;
                Ok(String::new())
            }
            Op::Sync { seconds } => {
                let limit = Duration::from_secs(u64::from(*seconds));
                let left = self.machine.engine.sync(NodeId::ROOT, Some(limit), |_| {}).await;
                Ok(left.map_or_else(|error| error.to_string(), |left| format!("{left:?}")))
            }
            Op::Look => {
                self.machine.engine.refresh();
                Ok(String::new())
            }
            Op::Crash { .. } => Ok(String::new()),
        }
    }

    async fn patient<T>(&self, work: impl Future<Output = Result<T, VfsError>>) -> Result<T, VfsError> {
        tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(VfsError::Deadline))
    }

    // ---- what is there ----

    async fn place<'p>(&self, path: &'p str) -> Result<(Ino, &'p OsStr), VfsError> {
        let path = Path::new(path);
        let parent = path.parent().and_then(Path::to_str).unwrap_or_default();
        let parent = self.patient(self.machine.find(parent)).await?;
        Ok((parent, path.file_name().expect("a name")))
    }

    async fn there_is(&self, path: &str) -> Result<Option<Ino>, VfsError> {
        match self.patient(self.machine.find(path)).await {
            Ok(ino) => Ok(Some(ino)),
            Err(VfsError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn saw(&self, ino: Ino, handle: Option<Handle>) -> Result<Saw, VfsError> {
        Ok(Saw::Len(self.machine.files.getattr(ino, handle).await?.0.size))
    }

    /// The item of a node.
    fn item_of(&self, ino: Ino) -> Option<String> {
        let node = self.machine.engine.store().node(ino.node()).ok()??;
        node.remote.as_ref().or(node.base.as_ref()).map(|view| view.item.to_string())
    }

    /// The item of a node that here is known as it is there, and shown so by whoever has it open.
    fn present_item(&self, ino: Ino, saw: &Saw) -> Option<Stamp> {
        let node = self.machine.engine.store().node(ino.node()).ok()??;
        let view = node.remote.as_ref()?;
        // An unsent change that started from an older version ends beside it.
        if node.base.as_ref().is_some_and(|base| base.version.etag != view.version.etag) {
            return None;
        }
        let item = self.find_there(view.item.as_str())?;
        let is_current = item["eTag"].as_str() == view.version.etag.as_ref().map(ETag::as_str);
        let is_shown = match saw {
            Saw::Bytes(bytes) => item["sha256"].as_str() == Some(&hash(bytes)),
            Saw::Len(len) => item["size"].as_u64() == Some(*len),
        };
        (is_current && is_shown).then(|| self.oracle.stamp(view.item.to_string()))
    }

    /// The item that the service has at a path.
    fn item_there(&self, path: &str) -> Option<String> {
        let (truth, path) = (self.control.truth(), format!("/{path}"));
        let items = truth["drives"][0]["items"].as_array()?;
        Some(items.iter().find(|item| item["path"] == path)?["id"].as_str()?.to_owned())
    }

    fn find_there(&self, id: &str) -> Option<Value> {
        let truth = self.control.truth();
        truth["drives"][0]["items"].as_array()?.iter().find(|item| item["id"] == id).cloned()
    }

    /// Whatever item the node has is deleted or replaced by somebody who sees `saw`: what it had up to then may go,
    /// but nothing newer that nobody here has seen.
    fn goes(&mut self, ino: Ino, saw: &Saw) {
        let Some(id) = self.item_of(ino) else { return };
        let Some(item) = self.find_there(&id) else { return };
        if item["kind"] == "folder" {
            self.oracle.may_go(id);
            return;
        }
        let versions = item["versions"].as_array().into_iter().flatten();
        let all: Vec<_> = versions.chain([&item]).collect();
        let len = match saw {
            Saw::Bytes(bytes) => bytes.len() as u64,
            Saw::Len(len) => *len,
        };
        // Of what is unsent they saw what it was made from.
        let made_from = self.machine.engine.store().node(ino.node()).ok().flatten().and_then(|node| {
            let unsent = node.local.as_ref().is_some_and(|local| local.content.is_some());
            node.base.as_ref().filter(|_| unsent)?.version.size
        });
        let is_seen = |size: Option<u64>| size == Some(len) || (size.is_some() && size == made_from);
        let newest = all.iter().rposition(|content| is_seen(content["size"].as_u64()));
        let seen = &all[..newest.map_or(all.len(), |at| at + 1)];
        let hashes = seen.iter().filter_map(|content| content["sha256"].as_str().map(str::to_owned));
        self.oracle.goes_here(&id, hashes.collect());
    }

    async fn read_all(&self, ino: Ino, handle: Handle) -> Result<Vec<u8>, VfsError> {
        let work = async {
            let mut bytes = Vec::new();
            loop {
                let part = self.machine.files.read(ino, handle, bytes.len() as u64, 16 << 10).await?;
                if part.is_empty() {
                    return Ok(bytes);
                }
                bytes.extend_from_slice(&part);
            }
        };
        tokio::time::timeout(READ_PATIENCE, work).await.unwrap_or(Err(VfsError::Deadline))
    }

    /// What was read must be one version that somebody made.
    fn must_be_whole(&mut self, path: &str, bytes: &[u8]) {
        if self.oracle.power_was_cut || self.oracle.is_whole(bytes) {
            self.oracle.knows(bytes, path);
        } else {
            self.wrong.push(format!("mix: {path} read as {} bytes that nobody made", bytes.len()));
        }
    }

    // ---- one file ----

    async fn opened(&mut self, path: &str, flags: OpenFlags) -> Result<(Ino, Handle, Saw), VfsError> {
        let (parent, name) = self.place(path).await?;
        let files = &self.machine.files;
        let found = self.patient(files.lookup(ME, parent, name)).await?;
        if let Lookup::Found(entry) = found {
            let ino = entry.attr.ino;
            let saw = self.saw(ino, None).await?;
            let opened = self.patient(files.open(ME, ino, flags)).await?;
            return Ok((ino, opened.handle, saw));
        }
        if !flags.write {
            return Err(VfsError::NotFound);
        }
        let (entry, opened) = self.patient(files.create(ME, parent, name, 0o644, flags)).await?;
        Ok((entry.attr.ino, opened.handle, Saw::Len(entry.attr.size)))
    }

    /// Opens for writing; `look`: reads what is there.
    async fn start(&mut self, path: &str, flags: OpenFlags, look: bool) -> Result<Kept, VfsError> {
        let (ino, handle, saw) = self.opened(path, flags).await?;
        let kept = Kept { path: path.into(), ino, handle, write: true };
        if let Some(model) = self.files.get_mut(&ino) {
            model.writers += 1;
        } else {
            let nothing = matches!(saw, Saw::Len(0)).then(Vec::new);
            let mut model =
                Model { writers: 1, bytes: nothing, steps: Vec::new(), saw, changed: false, item: None };
            if look && !flags.truncate {
                match self.read_all(ino, handle).await {
                    Ok(bytes) => {
                        self.must_be_whole(path, &bytes);
                        model.saw = Saw::Bytes(bytes.clone());
                        model.bytes = Some(bytes);
                    }
                    Err(error) => {
                        self.machine.files.release(ino, handle).await;
                        return Err(error);
                    }
                }
            }
            model.item = self.present_item(ino, &model.saw);
            self.files.insert(ino, model);
        }
        if flags.truncate {
            self.step(&kept, Step::Length(0));
        }
        Ok(kept)
    }

    /// The change has happened.
    fn step(&mut self, kept: &Kept, step: Step) {
        let Some(model) = self.files.get_mut(&kept.ino) else { return };
        // The content that the file had is replaced from the first change on.
        self.oracle.replaced(kept.ino, &model.saw);
        if matches!(step, Step::Length(0)) {
            model.bytes = Some(Vec::new());
            model.steps.clear();
        } else if let Some(bytes) = &mut model.bytes {
            step.apply(bytes);
            self.oracle.knows(bytes, &kept.path);
        }
        if let Some(bytes) = &model.bytes {
            model.saw = Saw::Bytes(bytes.clone());
        }
        model.steps.push(step);
        model.changed = true;
    }

    async fn put(&mut self, kept: &Kept, step: Step) -> Result<(), VfsError> {
        match &step {
            Step::Write { at, bytes } => {
                let data = bytes.clone().into();
                self.machine.files.write(kept.ino, kept.handle, *at as u64, data).await?;
            }
            Step::Length(len) => {
                let size = Some(*len as u64);
                let change = SetAttr { size, handle: Some(kept.handle), ..SetAttr::default() };
                self.patient(self.machine.files.setattr(ME, kept.ino, change)).await?;
            }
        }
        self.step(kept, step);
        Ok(())
    }

    async fn sync(&mut self, kept: &Kept) -> Result<(), VfsError> {
        self.machine.files.fsync(kept.ino, kept.handle, false).await?;
        self.hand_over(kept, true);
        Ok(())
    }

    fn hand_over(&mut self, kept: &Kept, synced: bool) {
        let Some(model) = self.files.get(&kept.ino).filter(|model| model.changed) else { return };
        match &model.bytes {
            Some(bytes) => {
                self.oracle.handed_over((kept.ino, model.item.as_ref()), bytes, synced, &kept.path);
            }
            None => self.oracle.patched(kept.ino, &model.steps),
        }
    }

    async fn end(&mut self, kept: Kept) -> Done {
        let flushed = self.machine.files.flush(kept.ino, kept.handle).await;
        if flushed.is_ok() && kept.write {
            self.hand_over(&kept, false);
        }
        self.machine.files.release(kept.ino, kept.handle).await;
        if let Some(model) = self.files.get_mut(&kept.ino).filter(|_| kept.write) {
            model.writers -= 1;
            if model.writers == 0 {
                self.files.remove(&kept.ino);
            }
        }
        flushed.map(|()| format!("node {}", kept.ino.0))
    }

    /// Opens, changes, maybe syncs and closes.
    async fn whole(&mut self, kept: Kept, step: Step, sync: bool) -> Done {
        let changed = self.put(&kept, step).await;
        let synced = if changed.is_ok() && sync { self.sync(&kept).await } else { Ok(()) };
        let ended = self.end(kept).await;
        changed.and(synced).and(ended)
    }

    async fn write(&mut self, path: &str, content: &Content, sync: bool) -> Done {
        let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
        let kept = self.start(path, flags, false).await?;
        self.whole(kept, Step::Write { at: 0, bytes: content.bytes() }, sync).await
    }

    async fn change(&mut self, path: &str, look: bool, sync: bool, step: impl FnOnce(usize) -> Step) -> Done {
        let flags = OpenFlags::READ_WRITE;
        let kept = self.start(path, flags, look).await?;
        let size = self.files.get(&kept.ino).and_then(|model| model.bytes.as_ref()).map_or(0, Vec::len);
        self.whole(kept, step(size), sync).await
    }

    async fn save(&mut self, path: &str, content: &Content, sync: bool) -> Done {
        *self.counter += 1;
        let temporary = format!("{path}.new{}", self.counter);
        self.write(&temporary, content, sync).await?;
        self.rename(&temporary, path, Rename::Replace).await
    }

    async fn save_aside(&mut self, path: &str, content: &Content, keep: bool) -> Done {
        let aside = format!("{path}.old");
        if self.there_is(path).await?.is_some() {
            self.rename(path, &aside, Rename::Replace).await?;
        }
        self.write(path, content, false).await?;
        if !keep && self.there_is(&aside).await?.is_some() {
            self.unlink(&aside).await?;
        }
        Ok(String::new())
    }

    async fn copy(&mut self, from: &str, to: &str) -> Done {
        let bytes = self.read_file(from).await?;
        let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
        let kept = self.start(to, flags, false).await?;
        self.whole(kept, Step::Write { at: 0, bytes }, false).await
    }

    async fn read(&mut self, path: &str) -> Done {
        self.read_file(path).await.map(|bytes| format!("{} bytes", bytes.len()))
    }

    pub async fn read_file(&mut self, path: &str) -> Result<Vec<u8>, VfsError> {
        let flags = OpenFlags::READ;
        let (ino, handle, _) = self.opened(path, flags).await?;
        let read = self.read_all(ino, handle).await;
        self.machine.files.release(ino, handle).await;
        if let Ok(bytes) = &read {
            self.must_be_whole(path, bytes);
        }
        read
    }

    // ---- names ----

    pub async fn is_folder(&self, path: &str) -> Result<bool, VfsError> {
        let ino = self.patient(self.machine.find(path)).await?;
        Ok(self.machine.files.getattr(ino, None).await?.0.file_type == FileType::Directory)
    }

    pub async fn list(&self, path: &str) -> Result<Vec<String>, VfsError> {
        let files = &self.machine.files;
        let ino = self.patient(self.machine.find(path)).await?;
        let dir = self.patient(files.opendir(ino)).await?;
        let mut names = Vec::new();
        let mut after = 0;
        let listed = loop {
            match self.patient(files.readdir(ino, dir.handle, after, 100)).await {
                Ok(page) if page.is_empty() => break Ok(()),
                Ok(page) => {
                    after = page.last().map_or(after, |entry| entry.cookie);
                    names.extend(page.iter().map(|entry| entry.name.to_string_lossy().into_owned()));
                }
                Err(error) => break Err(error),
            }
        };
        files.releasedir(ino, dir.handle).await;
        names.retain(|name| name != "." && name != "..");
        names.sort();
        listed.map(|()| names)
    }

    async fn unlink(&mut self, path: &str) -> Done {
        let (parent, name) = self.place(path).await?;
        let Some(ino) = self.there_is(path).await? else { return Err(VfsError::NotFound) };
        let saw = self.saw(ino, None).await?;
        self.goes(ino, &saw);
        self.patient(self.machine.files.unlink(ME, parent, name)).await?;
        self.oracle.removed(ino, &saw);
        Ok(String::new())
    }

    async fn rmdir(&mut self, path: &str) -> Done {
        let (parent, name) = self.place(path).await?;
        if let Some(ino) = self.there_is(path).await? {
            // The answer that names its item may still be on its way, or the request that makes it.
            match self.item_of(ino).or_else(|| self.item_there(path)) {
                Some(id) => self.oracle.may_go(id),
                None => self.oracle.may_go_from(path),
            }
        }
        self.patient(self.machine.files.rmdir(ME, parent, name)).await?;
        Ok(String::new())
    }

    async fn remove_tree(&mut self, path: &str) -> Done {
        for name in self.list(path).await? {
            let below = format!("{path}/{name}");
            match self.unlink(&below).await {
                Err(VfsError::IsDirectory) => {
                    Box::pin(self.remove_tree(&below)).await?;
                }
                other => {
                    other?;
                }
            }
        }
        self.rmdir(path).await
    }

    async fn rename(&mut self, from: &str, to: &str, how: Rename) -> Done {
        let (from_dir, from_name) = self.place(from).await?;
        let (to_dir, to_name) = self.place(to).await?;
        let source = self.there_is(from).await?;
        let target = self.there_is(to).await?;
        let mode = match how {
            Rename::Replace => RenameMode::Replace,
            Rename::NoReplace => RenameMode::NoReplace,
            Rename::Exchange => RenameMode::Exchange,
        };
        let mut saw = None;
        if let (Some(target), Rename::Replace) = (target, how) {
            let seen = self.saw(target, None).await?;
            self.goes(target, &seen);
            if let Some(source) = source {
                let of_source = self.saw(source, None).await?;
                self.goes(source, &of_source);
            }
            saw = Some((target, seen));
        }
        source.into_iter().chain(target).for_each(|ino| self.oracle.renamed(ino));
        self.patient(self.machine.files.rename(ME, from_dir, from_name, to_dir, to_name, mode)).await?;
        if let Some((target, saw)) = saw.filter(|(target, _)| Some(*target) != source) {
            self.oracle.removed(target, &saw);
        }
        Ok(String::new())
    }

    // ---- handles that are kept ----

    async fn open(&mut self, slot: u8, path: &str, write: bool, truncate: bool) -> Done {
        self.close(slot).await?;
        let flags = OpenFlags { read: true, write, truncate, ..OpenFlags::default() };
        let kept = if write {
            self.start(path, flags, true).await?
        } else {
            let (ino, handle, _) = self.opened(path, flags).await?;
            Kept { path: path.into(), ino, handle, write }
        };
        self.kept[usize::from(slot)] = Some(kept);
        Ok(String::new())
    }

    async fn write_handle(&mut self, slot: u8, step: Step) -> Done {
        let Some(kept) = self.kept[usize::from(slot)].take() else { return Ok("not open".into()) };
        let done = if kept.write { self.put(&kept, step).await } else { Ok(()) };
        self.kept[usize::from(slot)] = Some(kept);
        done.map(|()| String::new())
    }

    async fn read_handle(&mut self, slot: u8) -> Done {
        let Some(kept) = self.kept[usize::from(slot)].take() else { return Ok("not open".into()) };
        let read = self.read_all(kept.ino, kept.handle).await;
        if let Ok(bytes) = &read {
            self.must_be_whole(&kept.path, bytes);
            let known = self.files.get(&kept.ino).and_then(|model| model.bytes.as_ref());
            if kept.write && known.is_some_and(|known| known != bytes) {
                self.wrong.push(format!("mix: {} does not have what its handle wrote", kept.path));
            }
        }
        self.kept[usize::from(slot)] = Some(kept);
        read.map(|bytes| format!("{} bytes", bytes.len()))
    }

    async fn sync_handle(&mut self, slot: u8) -> Done {
        let Some(kept) = self.kept[usize::from(slot)].take() else { return Ok("not open".into()) };
        let done = if kept.write { self.sync(&kept).await } else { Ok(()) };
        self.kept[usize::from(slot)] = Some(kept);
        done.map(|()| String::new())
    }

    async fn close(&mut self, slot: u8) -> Done {
        match self.kept[usize::from(slot)].take() {
            Some(kept) => self.end(kept).await,
            None => Ok("not open".into()),
        }
    }

    pub async fn close_all(&mut self) {
        for slot in 0..self.kept.len() {
            if let Err(error) = self.close(slot as u8).await {
                self.trace.note(format_args!("  ! {error}"));
            }
        }
    }

    /// The program dies: what was written counts, closed or not.
    pub fn dies(&mut self) {
        for (ino, model) in std::mem::take(&mut self.files) {
            match model.bytes {
                Some(bytes) if model.changed => {
                    self.oracle.handed_over((ino, model.item.as_ref()), &bytes, false, "an open file");
                }
                Some(_) => {}
                None => self.oracle.patched(ino, &model.steps),
            }
        }
    }

    /// The machine goes down: what was not synced may be lost.
    pub fn loses_power(&mut self) {
        for (ino, model) in std::mem::take(&mut self.files) {
            self.oracle.patched(ino, &model.steps);
        }
        self.oracle.power_cut();
    }

    // ---- elsewhere ----

    fn there(&mut self, there: &There) -> String {
        let done = match there {
            There::Write { path, content } => {
                let bytes = content.bytes();
                let done =
                    self.control.edit_as_other(&Edit::Write { path: path.clone(), content: bytes.clone() });
                if let Ok(item) = &done {
                    self.oracle.made_there(&bytes, &format!("theirs at {path}"));
                    self.oracle.edited_there(item.clone());
                }
                done
            }
            There::Mkdir { path } => self.control.edit_as_other(&Edit::Mkdir { path: path.clone() }),
            There::Move { from, to } => {
                self.control.edit_as_other(&Edit::Move { path: from.clone(), to: to.clone() })
            }
            There::Delete { path } => self.delete_there(path),
            There::Touch { path, seconds } => {
                let day = 1 + seconds % 28;
                let mtime = format!("2024-03-{day:02}T{:02}:00:00Z", seconds % 24);
                self.control.edit_as_other(&Edit::Touch { path: path.clone(), mtime })
            }
            There::Stir { path } => self.control.edit_as_other(&Edit::Stir { path: path.clone() }),
            There::SafeSave { path, content } => {
                let temporary = format!("{path}.theirs");
                let bytes = content.bytes();
                let write = Edit::Write { path: temporary.clone(), content: bytes.clone() };
                let done = self.control.edit_as_other(&write);
                if done.is_ok() {
                    self.oracle.made_there(&bytes, &format!("theirs at {path}"));
                    // There may be no such file yet.
                    self.delete_there(path).unwrap_or_default();
                    self.control.edit_as_other(&Edit::Move { path: temporary, to: path.clone() })
                } else {
                    done
                }
            }
        };
        done.unwrap_or_else(|error| error)
    }

    fn delete_there(&mut self, path: &str) -> Result<String, String> {
        let done = self.control.edit_as_other(&Edit::Delete { path: path.to_owned() });
        if let Ok(item) = &done {
            self.oracle.may_go(item.clone());
        }
        done
    }

    fn trouble(&mut self, trouble: &Trouble) {
        let fault = |op: &str, skip, count, action| {
            let op = Some(op.to_owned());
            self.control.inject(Fault { method: None, path: None, op, skip, count: Some(count), action });
        };
        match trouble {
            Trouble::Status { op, skip, count, status, retry_after, after } => {
                let retry_after = retry_after.map(|seconds| seconds.to_string());
                let (status, after) = (*status, *after);
                fault(
                    op,
                    *skip,
                    *count,
                    FaultAction::Status { status, code: None, inner: None, retry_after, after },
                );
            }
            Trouble::Body { op, at, short } => {
                let at = u64::from(*at);
                let action =
                    if *short { FaultAction::TruncateBody { at } } else { FaultAction::ResetBody { at } };
                fault(op, 0, 1, action);
            }
            Trouble::Throttle { limit, header } => self.control.set_throttle(Some(Throttle {
                limit: u64::from(*limit),
                window_ms: 5000,
                status: 429,
                retry_after: (!header).then(String::new),
            })),
            Trouble::ExpireTokens => self.control.expire_tokens(),
            Trouble::ExpireSessions => self.control.expire_sessions(),
            Trouble::ExpireAddresses => self.control.expire_download_urls(),
            Trouble::Resync { kind } => {
                const KINDS: [Resync; 6] = [
                    Resync::Plain,
                    Resync::ApplyDifferences,
                    Resync::UploadDifferences,
                    Resync::ChangesApplyDifferences,
                    Resync::ChangesUploadDifferences,
                    Resync::StateNotFound,
                ];
                self.control.delta_resync(KINDS[usize::from(*kind) % KINDS.len()]);
            }
            Trouble::Lag { ms } => self.control.set_delta_lag(Duration::from_millis(u64::from(*ms))),
            Trouble::Room { bytes } => self.control.set_quota(*bytes),
            Trouble::Lock { path, shape } => {
                const SHAPES: [LockShape; 3] =
                    [LockShape::EditedByAnother, LockShape::LockToken, LockShape::ResourceLocked];
                let shape = shape.map(|shape| SHAPES[usize::from(shape) % SHAPES.len()]);
                // There may be no such file.
                self.control.mark(path, Mark::Lock(shape)).unwrap_or_default();
            }
            Trouble::Pages { duplicates, empty } => self.control.switch(|switches| {
                switches.delta_duplicates = *duplicates;
                switches.delta_empty_pages = *empty;
            }),
        }
    }
}
