//! Random operations against what POSIX says, with an engine that seals and sends at any moment.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Where a name is: directly below the root, or in one of two directories.
#[derive(Clone, Copy, Debug)]
struct At {
    dir: u8,
    name: u8,
}

#[derive(Clone, Debug)]
enum Op {
    Create(At, bool),
    Mkdir(At),
    Symlink(At),
    Unlink(At),
    Rmdir(At),
    Rename(At, At, u8),
    Open(At, u8),
    Close(u8),
    Write(u8, u16, u8, u16),
    Read(u8, u16, u16),
    Resize(At, u16),
    Punch(u8, u16, u16),
    /// The engine seals, begins to send, has sent.
    Seal(At),
    Attempt(At),
    Finish(At),
}

fn at() -> impl Strategy<Value = At> {
    (0u8..3, 0u8..5).prop_map(|(dir, name)| At { dir, name })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (at(), any::<bool>()).prop_map(|(at, exclusive)| Op::Create(at, exclusive)),
        1 => at().prop_map(Op::Mkdir),
        1 => at().prop_map(Op::Symlink),
        2 => at().prop_map(Op::Unlink),
        1 => at().prop_map(Op::Rmdir),
        4 => (at(), at(), 0u8..4).prop_map(|(from, to, mode)| Op::Rename(from, to, mode)),
        3 => (at(), 0u8..3).prop_map(|(at, how)| Op::Open(at, how)),
        3 => any::<u8>().prop_map(Op::Close),
        5 => (any::<u8>(), 0u16..9000, any::<u8>(), 1u16..5000)
            .prop_map(|(handle, offset, byte, len)| Op::Write(handle, offset, byte, len)),
        2 => (any::<u8>(), 0u16..9000, 1u16..9000)
            .prop_map(|(handle, offset, len)| Op::Read(handle, offset, len)),
        1 => (at(), 0u16..12000).prop_map(|(at, size)| Op::Resize(at, size)),
        1 => (any::<u8>(), 0u16..9000, 1u16..9000)
            .prop_map(|(handle, offset, len)| Op::Punch(handle, offset, len)),
        2 => at().prop_map(Op::Seal),
        2 => at().prop_map(Op::Attempt),
        2 => at().prop_map(Op::Finish),
    ]
}

/// `swp` is a scratch name: it may be sent nowhere.
const NAMES: [&str; 5] = ["a", "b", "dir1", "dir2", "x.swp"];

#[derive(Clone, Debug)]
enum Kind {
    File(Vec<u8>),
    Dir(BTreeMap<&'static str, usize>),
    Link,
}

struct Open {
    handle: Handle,
    ino: Ino,
    file: usize,
    writes: bool,
}

/// What POSIX says, beside what the file system does.
struct Twin {
    world: World,
    nodes: Vec<Kind>,
    open: Vec<Open>,
}

impl Twin {
    fn new() -> Self {
        let world = World::new();
        let mut twin = Self { world, nodes: vec![Kind::Dir(BTreeMap::new())], open: Vec::new() };
        for (index, (name, item)) in [("a", "A"), ("b", "B")].into_iter().enumerate() {
            let bytes = vec![index as u8 + 1; 5000];
            twin.world.sent(Ino::ROOT, name, item, &bytes);
            twin.nodes.push(Kind::File(bytes));
            twin.dir(0).unwrap().insert(name, index + 1);
        }
        twin
    }

    fn dir(&mut self, node: usize) -> Option<&mut BTreeMap<&'static str, usize>> {
        match &mut self.nodes[node] {
            Kind::Dir(entries) => Some(entries),
            Kind::File(_) | Kind::Link => None,
        }
    }

    /// The model's directory that `at` means.
    fn parent(&mut self, at: At) -> Option<usize> {
        match at.dir {
            0 => Some(0),
            n => {
                let name = NAMES[n as usize + 1];
                let node = *self.dir(0)?.get(name)?;
                self.dir(node).map(|_| node)
            }
        }
    }

    fn get(&mut self, at: At) -> Option<usize> {
        let parent = self.parent(at)?;
        self.dir(parent)?.get(NAMES[at.name as usize]).copied()
    }

    async fn parent_ino(&self, at: At) -> Option<Ino> {
        match at.dir {
            0 => Some(Ino::ROOT),
            n => {
                let ino = self.world.find(Ino::ROOT, NAMES[n as usize + 1]).await?;
                self.world.row(ino).kind.is_directory().then_some(ino)
            }
        }
    }

    async fn ino(&self, at: At) -> Option<Ino> {
        self.world.find(self.parent_ino(at).await?, NAMES[at.name as usize]).await
    }

    fn link(&mut self, at: At, kind: Kind) -> usize {
        let node = self.nodes.len();
        self.nodes.push(kind);
        let parent = self.parent(at).unwrap();
        self.dir(parent).unwrap().insert(NAMES[at.name as usize], node);
        node
    }

    fn is_below(&self, node: usize, above: usize) -> bool {
        let Kind::Dir(entries) = &self.nodes[above] else { return node == above };
        node == above || entries.values().any(|child| self.is_below(node, *child))
    }

    async fn run(&mut self, op: Op) {
        match op {
            Op::Create(at, exclusive) => self.create(at, exclusive).await,
            Op::Mkdir(at) => self.make(at, Kind::Dir(BTreeMap::new())).await,
            Op::Symlink(at) => self.make(at, Kind::Link).await,
            Op::Unlink(at) => self.remove(at, false).await,
            Op::Rmdir(at) => self.remove(at, true).await,
            Op::Rename(from, to, mode) => self.rename(from, to, mode).await,
            Op::Open(at, how) => self.open(at, how).await,
            Op::Close(which) => {
                if !self.open.is_empty() {
                    let open = self.open.swap_remove(usize::from(which) % self.open.len());
                    self.world.close((open.ino, open.handle)).await;
                }
            }
            Op::Write(which, offset, byte, len) => {
                let bytes = vec![byte; usize::from(len)];
                self.change(which, usize::from(offset), bytes, false).await;
            }
            Op::Punch(which, offset, len) => {
                self.change(which, usize::from(offset), vec![0; usize::from(len)], true).await;
            }
            Op::Read(which, offset, len) => {
                if !self.open.is_empty() {
                    let open = &self.open[usize::from(which) % self.open.len()];
                    self.compare(open, usize::from(offset), usize::from(len)).await;
                }
            }
            Op::Resize(at, size) => self.resize(at, usize::from(size)).await,
            Op::Seal(at) => {
                if let Some(ino) = self.ino(at).await {
                    self.world.seal(ino).await;
                }
            }
            Op::Attempt(at) => {
                if let Some(ino) = self.ino(at).await.filter(|ino| self.world.row(*ino).is_dirty()) {
                    self.world.attempt(ino);
                }
            }
            Op::Finish(at) => {
                if let Some(ino) = self.ino(at).await {
                    self.world.finish_upload(ino);
                }
            }
        }
    }

    async fn create(&mut self, at: At, exclusive: bool) {
        let Some(parent) = self.parent_ino(at).await else { return };
        let flags = OpenFlags { exclusive, ..WRITE };
        let name = OsStr::new(NAMES[at.name as usize]);
        let result = self.world.vfs.create(CALLER, parent, name, 0o644, flags).await;
        let known = self.get(at);
        let expected = match known.map(|node| &self.nodes[node]) {
            None => 0,
            Some(_) if exclusive => libc::EEXIST,
            Some(Kind::File(_)) => 0,
            Some(Kind::Dir(_)) => libc::EISDIR,
            Some(Kind::Link) => libc::EINVAL,
        };
        assert_eq!(result.as_ref().map_or_else(VfsError::errno, |_| 0), expected);
        if let Ok((entry, opened)) = result {
            let file = known.unwrap_or_else(|| self.link(at, Kind::File(Vec::new())));
            self.open.push(Open { handle: opened.handle, ino: entry.attr.ino, file, writes: true });
        }
    }

    async fn make(&mut self, at: At, kind: Kind) {
        let Some(parent) = self.parent_ino(at).await else { return };
        let name = OsStr::new(NAMES[at.name as usize]);
        let vfs = &self.world.vfs;
        let made = match kind {
            Kind::Dir(_) => vfs.mkdir(CALLER, parent, name, 0o755).await,
            _ => vfs.symlink(CALLER, parent, name, "t".as_ref()).await,
        };
        let expected = if self.get(at).is_some() { libc::EEXIST } else { 0 };
        assert_eq!(errno(made), expected);
        if expected == 0 {
            self.link(at, kind);
        }
    }

    async fn remove(&mut self, at: At, is_dir: bool) {
        let Some(parent) = self.parent_ino(at).await else { return };
        let name = OsStr::new(NAMES[at.name as usize]);
        let vfs = &self.world.vfs;
        let removed = match is_dir {
            true => vfs.rmdir(CALLER, parent, name).await,
            false => vfs.unlink(CALLER, parent, name).await,
        };
        let known = self.get(at);
        let expected = match (known.map(|node| &self.nodes[node]), is_dir) {
            (None, _) => libc::ENOENT,
            (Some(Kind::Dir(entries)), true) if entries.is_empty() => 0,
            (Some(Kind::Dir(_)), true) => libc::ENOTEMPTY,
            (Some(Kind::Dir(_)), false) => libc::EISDIR,
            (Some(_), true) => libc::ENOTDIR,
            (Some(_), false) => 0,
        };
        assert_eq!(errno(removed), expected);
        if expected == 0 {
            let parent = self.parent(at).unwrap();
            self.dir(parent).unwrap().remove(NAMES[at.name as usize]);
        }
    }

    async fn rename(&mut self, from: At, to: At, mode: u8) {
        let (Some(parent), Some(new_parent)) = (self.parent_ino(from).await, self.parent_ino(to).await)
        else {
            return;
        };
        let mode = match mode {
            0 => RenameMode::NoReplace,
            1 => RenameMode::Exchange,
            _ => RenameMode::Replace,
        };
        let (name, new_name) = (NAMES[from.name as usize], NAMES[to.name as usize]);
        // Which files may take a scratch name, and become ordinary by leaving it, is not POSIX's to say.
        let was_sent = match self.ino(from).await {
            Some(ino) => self.world.row(ino).remote.is_some() || self.world.row(ino).base.is_some(),
            None => false,
        };
        let target_was_sent = match self.ino(to).await {
            Some(ino) => self.world.row(ino).remote.is_some() || self.world.row(ino).base.is_some(),
            None => false,
        };
        let renamed = self
            .world
            .vfs
            .rename(CALLER, parent, OsStr::new(name), new_parent, OsStr::new(new_name), mode)
            .await;
        let (source, target) = (self.get(from), self.get(to));
        let target_parent = self.parent(to).unwrap();
        let source_parent = self.parent(from).unwrap();
        let is_dir = |twin: &Twin, node: usize| matches!(twin.nodes[node], Kind::Dir(_));
        let is_file = |twin: &Twin, node: usize| matches!(twin.nodes[node], Kind::File(_));
        let expected = match (source, target) {
            (None, _) => libc::ENOENT,
            (Some(source), _) if self.is_below(target_parent, source) => libc::EINVAL,
            (Some(_), None) if mode == RenameMode::Exchange => libc::ENOENT,
            (Some(source), Some(target)) if mode == RenameMode::Exchange && source == target => 0,
            (Some(_), Some(target))
                if mode == RenameMode::Exchange && self.is_below(source_parent, target) =>
            {
                libc::EINVAL
            }
            (Some(source), Some(target)) if source == target => 0,
            (Some(_), Some(_)) if mode == RenameMode::NoReplace => libc::EEXIST,
            (Some(source), Some(target)) if mode == RenameMode::Replace => {
                match (is_dir(self, source), is_dir(self, target)) {
                    (true, false) => libc::ENOTDIR,
                    (false, true) => libc::EISDIR,
                    (true, true) if !self.dir(target).unwrap().is_empty() => libc::ENOTEMPTY,
                    _ => 0,
                }
            }
            _ => 0,
        };
        let scratch_refused = expected == 0
            && source != target
            && ((new_name == "x.swp" && was_sent && is_file(self, source.unwrap()))
                || (mode == RenameMode::Exchange
                    && name == "x.swp"
                    && target_was_sent
                    && is_file(self, target.unwrap())));
        let expected = if scratch_refused { libc::EINVAL } else { expected };
        assert_eq!(errno(renamed), expected, "{from:?} {to:?} {mode:?}");
        if expected != 0 || source == target {
            return;
        }
        let source = source.unwrap();
        self.dir(target_parent).unwrap().insert(new_name, source);
        match target.filter(|_| mode == RenameMode::Exchange) {
            Some(target) => self.dir(source_parent).unwrap().insert(name, target),
            None => self.dir(source_parent).unwrap().remove(name),
        };
    }

    async fn open(&mut self, at: At, how: u8) {
        let (Some(file), Some(ino)) = (self.get(at), self.ino(at).await) else { return };
        let flags = [READ, WRITE, TRUNCATE][usize::from(how)];
        let Kind::File(bytes) = &mut self.nodes[file] else { return };
        if flags.truncate {
            bytes.clear();
        }
        let handle = self.world.open(ino, flags).await;
        self.open.push(Open { handle, ino, file, writes: flags.write });
    }

    async fn change(&mut self, which: u8, offset: usize, bytes: Vec<u8>, punch: bool) {
        if self.open.is_empty() {
            return;
        }
        let index = usize::from(which) % self.open.len();
        let open = &self.open[index];
        if !open.writes {
            return;
        }
        let Kind::File(model) = &mut self.nodes[open.file] else { panic!("only files are open") };
        let end = offset + bytes.len();
        if punch {
            let (start, end) = (offset.min(model.len()), end.min(model.len()));
            model[start..end].fill(0);
            let (offset, len) = (offset as u64, bytes.len() as u64);
            let punched =
                self.world.vfs.fallocate(open.ino, open.handle, offset, len, Allocate::PunchHole).await;
            punched.unwrap();
        } else {
            model.resize(model.len().max(end), 0);
            model[offset..end].copy_from_slice(&bytes);
            self.world.write((open.ino, open.handle), offset as u64, &bytes).await;
        }
    }

    async fn resize(&mut self, at: At, size: usize) {
        let (Some(file), Some(ino)) = (self.get(at), self.ino(at).await) else { return };
        let Kind::File(bytes) = &mut self.nodes[file] else { return };
        bytes.resize(size, 0);
        let change = SetAttr { size: Some(size as u64), ..SetAttr::default() };
        let (attr, _) = self.world.vfs.setattr(CALLER, ino, change).await.unwrap();
        assert_eq!(attr.size, size as u64);
    }

    async fn compare(&self, open: &Open, offset: usize, len: usize) {
        let Kind::File(model) = &self.nodes[open.file] else { panic!("only files are open") };
        let expected = &model[offset.min(model.len())..(offset + len).min(model.len())];
        let found = self.world.vfs.read(open.ino, open.handle, offset as u64, len as u32).await.unwrap();
        assert!(found == expected, "bytes {offset}+{len} of {}", open.ino);
        let attr = self.world.vfs.getattr(open.ino, None).await.unwrap().0;
        assert_eq!(attr.size, model.len() as u64);
    }

    /// The whole tree and all open files are what POSIX says.
    async fn check(&self) {
        for open in &self.open {
            self.compare(open, 0, 1 << 16).await;
        }
        let mut folders = vec![(0, Ino::ROOT)];
        while let Some((node, ino)) = folders.pop() {
            let Kind::Dir(model) = &self.nodes[node] else { panic!("only folders are here") };
            let entries = self.world.vfs.entries(ino.node(), 2, 1000).unwrap();
            let mut found: Vec<&str> = entries.iter().map(|entry| entry.name.to_str().unwrap()).collect();
            found.sort_unstable();
            assert_eq!(found, model.keys().copied().collect::<Vec<_>>());
            for entry in &entries {
                let child = model[entry.name.to_str().unwrap()];
                match &self.nodes[child] {
                    Kind::Dir(_) => folders.push((child, entry.ino)),
                    Kind::Link => assert_eq!(entry.file_type, FileType::Symlink),
                    Kind::File(bytes) => {
                        assert_eq!(&self.world.cat(entry.ino).await, bytes, "{:?}", entry.name);
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_do_what_posix_says(ops in proptest::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut twin = Twin::new();
            for op in ops {
                twin.run(op).await;
            }
            twin.check().await;
            for open in std::mem::take(&mut twin.open) {
                twin.world.close((open.ino, open.handle)).await;
            }
            twin.check().await;
            twin.world.check_views();
            twin.world.check_staging();
        });
    }
}
