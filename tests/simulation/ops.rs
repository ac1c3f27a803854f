//! What happens in a run: a list that the seed makes up front, so that a failing one can be thinned out.

use super::content::Content;
use super::dice::Dice;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Opens with O_TRUNC, writes, maybe syncs, closes.
    Write {
        path: String,
        content: Content,
        sync: bool,
    },
    /// Writes at an offset of what is there; `look`: reads it before.
    Patch {
        path: String,
        at: u32,
        content: Content,
        look: bool,
        sync: bool,
    },
    /// Writes at the end.
    Append {
        path: String,
        content: Content,
    },
    /// truncate(2).
    Truncate {
        path: String,
        len: u32,
    },
    /// Writes a temporary file and renames it over.
    Save {
        path: String,
        content: Content,
        sync: bool,
    },
    /// Moves the old file aside, writes anew, and maybe removes the old one.
    SaveAside {
        path: String,
        content: Content,
        keep: bool,
    },
    /// cp.
    Copy {
        from: String,
        to: String,
    },
    Mkdir {
        path: String,
    },
    Rmdir {
        path: String,
    },
    Unlink {
        path: String,
    },
    /// rm -r.
    RemoveTree {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        how: Rename,
    },
    SetTime {
        path: String,
        seconds: u32,
    },
    /// Opens a handle that is kept.
    Open {
        slot: u8,
        path: String,
        write: bool,
        truncate: bool,
    },
    WriteHandle {
        slot: u8,
        at: u32,
        content: Content,
    },
    ReadHandle {
        slot: u8,
    },
    SyncHandle {
        slot: u8,
    },
    Close {
        slot: u8,
    },
    Read {
        path: String,
    },
    List {
        path: String,
    },
    /// Another client.
    There(There),
    Weather(Weather),
    Service(Trouble),
    Wait {
        ms: u32,
    },
    /// Waits for everything to be sent, at most so long.
    Sync {
        seconds: u32,
    },
    Look,
    /// The program dies so much later; `power`: the machine does, and what was not synced is lost.
    Crash {
        after_ms: u32,
        power: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    Replace,
    NoReplace,
    Exchange,
}

/// What another client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum There {
    Write {
        path: String,
        content: Content,
    },
    Mkdir {
        path: String,
    },
    Move {
        from: String,
        to: String,
    },
    Delete {
        path: String,
    },
    Touch {
        path: String,
        seconds: u32,
    },
    Stir {
        path: String,
    },
    /// Saves through a temporary file: another item gets the name.
    SafeSave {
        path: String,
        content: Content,
    },
}

/// How requests fare until the weather changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Calm,
    /// Answers take up to so many milliseconds, each its own: they overtake each other.
    Slow {
        ms: u32,
    },
    /// Of a thousand requests, so many are lost before they take effect, so many answers after.
    Lossy {
        before: u32,
        after: u32,
    },
    Cut,
}

/// What the service does by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The next requests of this kind are answered so.
    Status {
        op: &'static str,
        skip: u32,
        count: u32,
        status: u16,
        retry_after: Option<u32>,
        after: bool,
    },
    /// The next answer of this kind has a body that breaks.
    Body {
        op: &'static str,
        at: u32,
        short: bool,
    },
    Throttle {
        limit: u32,
        header: bool,
    },
    ExpireTokens,
    ExpireSessions,
    ExpireAddresses,
    Resync {
        kind: u8,
    },
    Lag {
        ms: u32,
    },
    /// The drive has room for so many bytes in all.
    Room {
        bytes: i64,
    },
    /// Somebody else has the file open or checked out, or has it no more.
    Lock {
        path: String,
        shape: Option<u8>,
    },
    Pages {
        duplicates: bool,
        empty: bool,
    },
}

/// Milliseconds that a request, and its answer, is on its way at most.
pub const SLOWEST_MS: u32 = 90_000;

/// Room without end, in bytes.
pub const ROOM: i64 = 1 << 40;

const FOLDERS: [&str; 6] = ["", "a", "b", "a/c", "b/d", "a/c/e"];
const NAMES: [&str; 6] = ["x.txt", "y.txt", "z.dat", "w", "v.tar.gz", "X.TXT"];

/// Makes the list of a seed.
pub fn generate(seed: u64, count: usize, power: bool, alone: bool) -> Vec<Op> {
    let mut maker = Maker { dice: Dice::new(seed), next_tag: 0, recent: Vec::new(), power, alone };
    let mut ops = maker.beginning();
    while ops.len() < count {
        maker.some(&mut ops);
    }
    ops
}

struct Maker {
    dice: Dice,
    next_tag: u32,
    recent: Vec<Content>,
    power: bool,
    alone: bool,
}

impl Maker {
    fn beginning(&mut self) -> Vec<Op> {
        let count = self.dice.below(8);
        let mut ops: Vec<Op> = (0..count)
            .map(|_| Op::There(There::Write { path: self.file(), content: self.content() }))
            .collect();
        if self.dice.chance(700) {
            ops.push(Op::Look);
        }
        ops
    }

    fn folder(&mut self) -> String {
        self.dice.pick(&FOLDERS).to_owned()
    }

    fn some_folder(&mut self) -> String {
        self.dice.pick(&FOLDERS[1..]).to_owned()
    }

    fn file(&mut self) -> String {
        // Few names, so that things meet.
        let names = if self.dice.chance(950) { &NAMES[..4] } else { &NAMES[..] };
        let (folder, name) = (self.folder(), self.dice.pick(names));
        if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
    }

    fn anything(&mut self) -> String {
        if self.dice.chance(300) { self.some_folder() } else { self.file() }
    }

    fn content(&mut self) -> Content {
        if let (true, Some(old)) = (self.dice.chance(120), self.recent.last().cloned()) {
            // The twin of the last one: same length, same quickXorHash, other bytes.
            return Content { twin: !old.twin, ..old };
        }
        self.next_tag += 1;
        let len = match self.dice.below(10) {
            0..=4 => 10 + self.dice.below(200),
            5..=8 => 330 + self.dice.below(3000),
            _ => 4000 + self.dice.below(20_000),
        };
        let content = Content { tag: self.next_tag, len: len as u32, twin: false };
        if len > 330 {
            self.recent.push(content.clone());
        }
        content
    }

    fn small(&mut self) -> Content {
        self.next_tag += 1;
        Content { tag: self.next_tag, len: 10 + self.dice.below(100) as u32, twin: false }
    }

    fn at(&mut self) -> u32 {
        self.dice.pick(&[0, 0, 5, 100, 300, 3000, 4096, 9000])
    }

    fn slot(&mut self) -> u8 {
        self.dice.below(3) as u8
    }

    fn wait(&mut self) -> Op {
        let ms = match self.dice.below(10) {
            0..=4 => self.dice.below(500),
            5..=7 => self.dice.below(4000),
            8 => self.dice.below(40_000),
            _ => self.dice.below(200_000),
        };
        Op::Wait { ms: ms as u32 }
    }

    fn some(&mut self, ops: &mut Vec<Op>) {
        let op = match self.dice.below(100) {
            0..=9 => Op::Write { path: self.file(), content: self.content(), sync: self.dice.chance(250) },
            10..=14 => Op::Patch {
                path: self.file(),
                at: self.at(),
                content: self.small(),
                look: self.dice.chance(500),
                sync: self.dice.chance(250),
            },
            15..=16 => Op::Append { path: self.file(), content: self.small() },
            17 => Op::Truncate { path: self.file(), len: self.dice.pick(&[0, 7, 50, 500, 5000]) },
            18..=21 => Op::Save { path: self.file(), content: self.content(), sync: self.dice.chance(500) },
            22..=23 => {
                Op::SaveAside { path: self.file(), content: self.content(), keep: self.dice.chance(300) }
            }
            24 => Op::Copy { from: self.file(), to: self.file() },
            25..=28 => Op::Mkdir { path: self.some_folder() },
            29 => Op::Rmdir { path: self.some_folder() },
            30..=33 => Op::Unlink { path: self.file() },
            34 => Op::RemoveTree { path: self.some_folder() },
            35..=41 => self.rename(),
            42..=43 => Op::SetTime { path: self.file(), seconds: self.dice.below(1_000_000) as u32 },
            44..=47 => self.open(),
            48..=51 => Op::WriteHandle { slot: self.slot(), at: self.at(), content: self.small() },
            52 => Op::ReadHandle { slot: self.slot() },
            53 => Op::SyncHandle { slot: self.slot() },
            54..=57 => Op::Close { slot: self.slot() },
            58..=60 => Op::Read { path: self.file() },
            61 => Op::List { path: self.folder() },
            62..=73 if self.alone => self.wait(),
            62..=71 => return self.there(ops),
            72 => return self.moved_out(ops),
            73 => return self.seen_and_gone(ops),
            74..=77 => Op::Weather(self.weather()),
            78 if self.dice.chance(300) => Op::Service(self.lock(ops)),
            78..=80 => Op::Service(self.trouble()),
            81 => Op::Sync { seconds: 1 + self.dice.below(60) as u32 },
            82 => Op::Look,
            83 if self.dice.chance(600) => self.crash(),
            _ => self.wait(),
        };
        ops.push(op);
    }

    fn rename(&mut self) -> Op {
        let how = match self.dice.below(8) {
            0 => Rename::Exchange,
            1 => Rename::NoReplace,
            _ => Rename::Replace,
        };
        let from = self.anything();
        let to = match (self.dice.chance(80), from.strip_suffix("x.txt")) {
            (true, Some(folder)) => format!("{folder}X.TXT"),
            _ => self.anything(),
        };
        Op::Rename { from, to, how }
    }

    fn open(&mut self) -> Op {
        let write = self.dice.chance(750);
        Op::Open { slot: self.slot(), path: self.file(), write, truncate: write && self.dice.chance(250) }
    }

    fn there(&mut self, ops: &mut Vec<Op>) {
        // Most edits elsewhere meet what was just done here.
        let met = ops.iter().rev().take(6).find_map(touched);
        let path = match met.filter(|_| self.dice.chance(600)) {
            Some(path) => path,
            None => self.file(),
        };
        let there = match self.dice.below(20) {
            0..=8 => There::Write { path, content: self.content() },
            9..=10 => There::Mkdir { path: self.some_folder() },
            11..=13 => There::Move {
                from: if self.dice.chance(250) { self.some_folder() } else { path },
                to: self.anything(),
            },
            14..=15 => There::Delete { path },
            16 => There::Delete { path: self.some_folder() },
            17 => There::Touch { path, seconds: self.dice.below(1_000_000) as u32 },
            18 => There::Stir { path },
            _ => There::SafeSave { path, content: self.content() },
        };
        ops.push(Op::There(there));
    }

    /// Another client moves a file that is changed here out of a folder and deletes that, all in one round.
    fn moved_out(&mut self, ops: &mut Vec<Op>) {
        let folder = self.some_folder();
        let from = format!("{folder}/{}", self.dice.pick(&NAMES[..4]));
        let to = format!("moved{}", self.next_tag);
        ops.push(Op::There(There::Write { path: from.clone(), content: self.content() }));
        ops.extend([Op::Wait { ms: 20_000 }, Op::Look, Op::Wait { ms: 3000 }]);
        ops.push(match self.dice.below(3) {
            0 => Op::Read { path: from.clone() },
            1 => Op::Open {
                slot: self.slot(),
                path: from.clone(),
                write: self.dice.chance(500),
                truncate: false,
            },
            _ => Op::Append { path: from.clone(), content: self.small() },
        });
        ops.push(Op::There(There::Move { from, to: to.clone() }));
        ops.push(Op::There(There::Delete { path: folder }));
        ops.push(Op::There(There::Stir { path: to }));
        ops.push(Op::Look);
    }

    /// A change elsewhere, a look at it, and a crash while what it saw comes in.
    fn seen_and_gone(&mut self, ops: &mut Vec<Op>) {
        self.there(ops);
        ops.push(Op::Look);
        let after_ms = self.dice.pick(&[60, 120, 200, 300]);
        ops.push(Op::Crash { after_ms, power: None });
        ops.push(Op::Wait { ms: 1000 });
    }

    fn weather(&mut self) -> Weather {
        match self.dice.below(8) {
            0..=2 => Weather::Calm,
            3..=4 => Weather::Slow { ms: self.dice.pick(&[200, 3000, 15_000, SLOWEST_MS]) },
            5..=6 => Weather::Lossy {
                before: self.dice.pick(&[0, 50, 300]),
                after: self.dice.pick(&[0, 100, 400, 700]),
            },
            _ => Weather::Cut,
        }
    }

    fn lock(&mut self, ops: &[Op]) -> Trouble {
        let met = ops.iter().rev().take(6).find_map(touched);
        let path = met.filter(|_| self.dice.chance(600)).unwrap_or_else(|| self.file());
        let shape = self.dice.chance(600).then(|| self.dice.below(3) as u8);
        Trouble::Lock { path, shape }
    }

    fn trouble(&mut self) -> Trouble {
        const OPS: [&str; 9] = [
            "delta",
            "item.get",
            "item.patch",
            "item.delete",
            "content.put",
            "upload.create",
            "upload.fragment",
            "children.list",
            "download",
        ];
        match self.dice.below(14) {
            0..=4 => {
                let status = self.dice.pick(&[429, 500, 502, 503, 504, 423]);
                Trouble::Status {
                    op: self.dice.pick(&OPS),
                    skip: self.dice.below(3) as u32,
                    count: 1 + self.dice.below(5) as u32,
                    status,
                    retry_after: self.dice.pick(&[None, Some(1), Some(30)]),
                    after: status >= 500 && self.dice.chance(300),
                }
            }
            5 => Trouble::Body {
                op: self.dice.pick(&["download", "delta", "content.put", "item.get"]),
                at: self.dice.pick(&[0, 10, 100, 5000]),
                short: self.dice.chance(500),
            },
            6..=7 => {
                Trouble::Throttle { limit: 1 + self.dice.below(6) as u32, header: self.dice.chance(500) }
            }
            8 if self.dice.chance(500) => Trouble::ExpireTokens,
            8 => Trouble::Room { bytes: self.dice.pick(&[0, 5000, 30_000, ROOM, ROOM]) },
            9 => Trouble::ExpireSessions,
            10 => Trouble::ExpireAddresses,
            11 => Trouble::Resync { kind: self.dice.below(6) as u8 },
            12 => Trouble::Lag { ms: self.dice.pick(&[0, 0, 1000, 20_000]) },
            _ => Trouble::Pages { duplicates: self.dice.chance(500), empty: self.dice.chance(500) },
        }
    }

    fn crash(&mut self) -> Op {
        let power = (self.power && self.dice.chance(600)).then(|| self.dice.next());
        Op::Crash { after_ms: self.dice.pick(&[0, 1, 40, 500, 2500, 5000, 20_000]), power }
    }
}

/// What the operation is about.
fn touched(op: &Op) -> Option<String> {
    match op {
        Op::Write { path, .. }
        | Op::Patch { path, .. }
        | Op::Append { path, .. }
        | Op::Truncate { path, .. }
        | Op::Save { path, .. }
        | Op::SaveAside { path, .. }
        | Op::Unlink { path }
        | Op::SetTime { path, .. }
        | Op::Open { path, .. } => Some(path.clone()),
        Op::Rename { from, to, .. } | Op::Copy { from, to } => {
            Some(if from.len() % 2 == 0 { from.clone() } else { to.clone() })
        }
        _ => None,
    }
}
