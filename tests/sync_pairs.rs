//! Each change here against each change elsewhere, unknown to each other: whatever the table of conflicts says, the two
//! end, both sides show the same, and nothing that anybody wrote is missing. What exactly comes of a pair is told by the
//! tests of the table's rows.

mod sync_support;

use std::time::Duration;

use onedrivefs::emulator::{Edit, Flavour};
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

/// What a user does.
#[derive(Clone, Copy, Debug)]
enum Here {
    Write(&'static str),
    /// To a temporary file that is renamed over it.
    Save(&'static str),
    SetTime(&'static str),
    Mkdir(&'static str),
    Unlink(&'static str),
    Rename(&'static str, &'static str),
    RemoveTree(&'static str),
}

/// What another client does.
#[derive(Clone, Copy, Debug)]
enum There {
    Write(&'static str),
    Delete(&'static str),
    Move(&'static str, &'static str),
}

/// With `d/f`, `d/g` and `e/h` there.
const HERE: &[&[Here]] = &[
    &[Here::Write("d/f")],
    &[Here::Save("d/f")],
    &[Here::Write("d/new")],
    &[Here::Mkdir("d/n"), Here::Write("d/n/new")],
    &[Here::SetTime("d/f")],
    &[Here::Unlink("d/f")],
    &[Here::RemoveTree("d")],
    &[Here::Rename("d/f", "d/f2")],
    &[Here::Rename("d/f", "e/f")],
    &[Here::Rename("d/f", "e/h")],
    &[Here::Rename("d/f", "d/g")],
    &[Here::Rename("d/f", "e/f"), Here::Write("e/f")],
    &[Here::Rename("d/f", "e/f"), Here::RemoveTree("d")],
    &[Here::Rename("d", "d2")],
    &[Here::Rename("d", "e/d")],
    &[Here::Rename("d", "e/d"), Here::Write("e/d/f")],
    &[Here::Rename("e", "d/e"), Here::Mkdir("e"), Here::Write("e/new")],
    &[Here::Mkdir("n"), Here::Rename("d", "n/d"), Here::Rename("e", "n/d/e")],
];

const THERE: &[&[There]] = &[
    &[There::Write("d/f")],
    &[There::Write("d/new")],
    &[There::Write("d/n/new")],
    &[There::Delete("d/f")],
    &[There::Delete("d")],
    &[There::Delete("e")],
    &[There::Delete("d"), There::Delete("e")],
    &[There::Delete("d"), There::Write("d")],
    &[There::Delete("d"), There::Write("d/f")],
    &[There::Delete("d"), There::Move("e", "d")],
    &[There::Write("tmp"), There::Delete("d/f"), There::Move("tmp", "d/f")],
    &[There::Move("d/f", "d/f2")],
    &[There::Move("d/f", "d/new")],
    &[There::Move("d/f", "e/f")],
    &[There::Move("d/f", "top"), There::Delete("d")],
    &[There::Move("d", "d2")],
    &[There::Move("d", "e/d")],
    &[There::Move("e", "d/e")],
    &[There::Move("d", "x"), There::Move("e", "d"), There::Move("x", "e")],
    &[There::Move("d", "n"), There::Write("d/f")],
];

impl Here {
    async fn run(self, machine: &Machine) {
        match self {
            Self::Write(path) => machine.write(path, "mine").await,
            Self::Save(path) => {
                machine.write("d/tmp", "mine").await;
                machine.rename("d/tmp", path).await.expect("renamed");
            }
            Self::SetTime(path) => machine.set_mtime(path, 1_000_000_000).await.expect("set"),
            Self::Mkdir(path) => drop(machine.mkdir(path).await.expect("made")),
            Self::Unlink(path) => machine.unlink(path).await.expect("unlinked"),
            Self::Rename(from, to) => machine.rename(from, to).await.expect("renamed"),
            Self::RemoveTree(path) => {
                for name in machine.list(path).await {
                    machine.unlink(&format!("{path}/{name}")).await.expect("unlinked");
                }
                machine.rmdir(path).await.expect("removed");
            }
        }
    }

    /// Where the content that was at `path` is afterwards; none where it is meant to be gone.
    fn follow(self, path: String) -> Option<String> {
        let is_gone = match self {
            Self::Write(at) | Self::Save(at) | Self::Unlink(at) | Self::Rename(_, at) => at == path,
            Self::RemoveTree(at) => is_in(&path, at),
            Self::SetTime(_) | Self::Mkdir(_) => false,
        };
        match self {
            _ if is_gone => None,
            Self::Rename(from, to) => Some(moved(path, from, to)),
            _ => Some(path),
        }
    }

    fn writes(self) -> bool {
        matches!(self, Self::Write(_) | Self::Save(_))
    }
}

impl There {
    fn run(self, service: &Service) {
        match self {
            Self::Write(path) => service.write_elsewhere(path, "theirs"),
            Self::Delete(path) => service.edit(Edit::Delete { path: path.into() }),
            Self::Move(from, to) => service.edit(Edit::Move { path: from.into(), to: to.into() }),
        }
    }

    fn follow(self, path: String) -> Option<String> {
        match self {
            Self::Write(at) if at == path => None,
            Self::Delete(at) if is_in(&path, at) => None,
            Self::Move(from, to) => Some(moved(path, from, to)),
            _ => Some(path),
        }
    }
}

fn is_in(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn moved(path: String, from: &str, to: &str) -> String {
    if is_in(&path, from) { format!("{to}{}", &path[from.len()..]) } else { path }
}

/// All that is seen here, as [`Service::tree`] has it.
async fn tree_here(machine: &Machine) -> Vec<(String, Option<String>)> {
    let (mut found, mut folders) = (Vec::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        for name in machine.list(&folder).await {
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let content = machine.read(&path).await.ok();
            if content.is_none() {
                folders.push(path.clone());
            }
            found.push((path, content));
        }
    }
    found.sort();
    found
}

async fn meet(flavour: Flavour, here: &[Here], there: &[There]) -> Vec<String> {
    let service = Service::new(flavour);
    let untouched = [("d/f", "f before"), ("d/g", "g before"), ("e/h", "h before")];
    for (path, content) in untouched {
        service.write_elsewhere(path, content);
    }
    let machine = service.quiet_machine().await;
    for (path, content) in untouched {
        assert_eq!(machine.read(path).await.expect("it is there"), content);
    }
    // What is done here is older than ten minutes and does not count as our own any more.
    tokio::time::sleep(Duration::from_secs(700)).await;
    for op in here {
        op.run(&machine).await;
    }
    there.iter().for_each(|op| op.run(&service));
    for _ in 0..2 {
        machine.sync().await;
        machine.look().await;
    }
    machine.sync().await;
    let (found, seen) = (service.tree(), tree_here(&machine).await);
    let mut wrong = Vec::new();
    let mut check = |holds: bool, what: &str| {
        if !holds {
            wrong.push(format!("{what}: {flavour:?}: {here:?} against {there:?}: {found:?}, here {seen:?}"));
        }
    };
    check(seen == found, "both sides alike");
    let has = |content: &str| found.iter().any(|(_, there)| there.as_deref() == Some(content));
    check(has("mine") || !here.iter().any(|op| op.writes()), "what was written here");
    let wrote = there.iter().any(|op| matches!(op, There::Write(_)));
    check(has("theirs") || !wrote, "what was written elsewhere");
    for (path, content) in untouched {
        let kept_here = here.iter().try_fold(path.to_owned(), |at, op| op.follow(at)).is_some();
        let kept_there = there.iter().try_fold(path.to_owned(), |at, op| op.follow(at)).is_some();
        let is_kept = kept_here && kept_there;
        check(has(content) || !is_kept, "what nobody took away");
    }
    wrong
}

/// Each pair on one flavour.
async fn all_meet(flavour: usize) {
    let mut wrong = Vec::new();
    for (row, here) in HERE.iter().enumerate() {
        for (column, there) in THERE.iter().enumerate() {
            if (row + column) % 3 == flavour {
                wrong.extend(meet(FLAVOURS[flavour], here, there).await);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(start_paused = true)]
async fn both_sides_end_alike_and_nothing_that_was_written_is_missing_on_personal() {
    all_meet(0).await;
}

#[tokio::test(start_paused = true)]
async fn both_sides_end_alike_and_nothing_that_was_written_is_missing_on_business() {
    all_meet(1).await;
}

#[tokio::test(start_paused = true)]
async fn both_sides_end_alike_and_nothing_that_was_written_is_missing_in_a_library() {
    all_meet(2).await;
}
