//! What the first drive holds at the start.

use std::path::Path;

use super::config::Seed;
use super::content::Blob;
use super::drive::Drive;
use super::made::Made;
use super::samples;
use super::state::State;
use super::time::Ms;
use super::tree::{Kind, NewNode, ROOT, Slot, folder};
use super::{EmulatorError, names, time};

/// Fills drive 0; nothing of it shows up as a change in delta.
pub(crate) fn plant(state: &mut State, seed: &Seed, now: Ms) -> Result<(), EmulatorError> {
    let drive = &mut state.drives[0];
    drive.tree.seeding = true;
    let result = match seed {
        Seed::Empty => Ok(()),
        Seed::Sample => {
            samples::plant(drive, now);
            Ok(())
        }
        Seed::Dir(dir) => local_tree(drive, dir, ROOT, now),
        Seed::Synthetic { files, per_folder, size } => {
            let seconds = drive.flavour().is_business();
            drive.tree.compute(Made::new(*files, *per_folder, *size, now, seconds));
            Ok(())
        }
    };
    state.drives[0].tree.seeding = false;
    result
}

/// Adds a node with its time, rounded as the flavour does.
pub(crate) fn add(drive: &mut Drive, parent: Slot, name: &str, kind: Kind, mtime: Ms) -> Slot {
    let now = drive.round(mtime);
    drive.tree.add(NewNode { parent, name, kind, now, by: 0 })
}

/// Names the service would refuse are left out, as are links and special files.
fn local_tree(drive: &mut Drive, dir: &Path, parent: Slot, now: Ms) -> Result<(), EmulatorError> {
    let fail = |source| EmulatorError::Io { path: dir.to_owned(), source };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        entries.push(entry.map_err(fail)?);
    }
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let refused = names::check(drive.flavour(), &name, parent == ROOT).is_err();
        if refused || drive.tree.child(parent, &name).is_some() {
            continue;
        }
        let meta = entry.metadata().map_err(fail)?;
        let mtime = meta.modified().map_or(now, time::from_system);
        if meta.is_dir() {
            let slot = add(drive, parent, &name, folder(), mtime);
            local_tree(drive, &entry.path(), slot, now)?;
        } else if meta.is_file() {
            add(drive, parent, &name, Kind::File(Blob::borrowed(entry.path(), meta.len())), mtime);
        }
    }
    Ok(())
}
