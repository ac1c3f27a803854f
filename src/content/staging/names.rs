//! What staged contents are called, beside them, for the day on which the store does not open.
//!
//! `staging/names` is a log of lines `{"content":5,"path":"d/a.txt"}` with names as the service has them; the newest
//! line of a content counts. It is a help, not the truth: nothing depends on it but a rescue, so it is not synced, and
//! what cannot be written is left out.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Staging, StagingId};
use crate::disk::Disk;

/// The log's name in the staging directory.
const FILE: &str = "names";
/// Where it is written anew.
const FRESH: &str = "names.new";

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    content: u64,
    path: std::borrow::Cow<'a, str>,
}

impl Staging {
    /// Adds what contents are called to the log; `anew` replaces it.
    pub fn note_names(&self, names: &[(StagingId, String)], anew: bool) -> io::Result<()> {
        let (disk, dir) = (&self.shared.disk, &self.shared.config.dir);
        let mut text = Vec::new();
        for (id, path) in names {
            serde_json::to_writer(&mut text, &Line { content: id.0, path: path.into() })?;
            text.push(b'\n');
        }
        if anew {
            let fresh = dir.join(FRESH);
            disk.unlink("staging.names.unlink", &fresh)?;
            disk.create("staging.names.create", &fresh)?.write_at("staging.names.write", &text, 0)?;
            return disk.rename("staging.names.rename", &fresh, &dir.join(FILE));
        }
        let file = disk.open(&dir.join(FILE))?;
        let end = file.stat()?.len;
        file.write_at("staging.names.write", &text, end)
    }
}

/// What the log in a staging directory says; nothing where there is none. Lines that cannot be read are left out.
pub fn read_names(dir: &Path) -> BTreeMap<u64, String> {
    let Ok(file) = Disk::new().open_read(&dir.join(FILE)) else { return BTreeMap::new() };
    let mut text = Vec::new();
    if io::Read::read_to_end(&mut file.file(), &mut text).is_err() {
        return BTreeMap::new();
    }
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Line<'_>>(line).ok())
        .map(|line| (line.content, line.path.into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::StagingConfig;

    #[test]
    fn the_newest_name_counts_and_a_torn_line_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::open(StagingConfig::new(dir.path()), Disk::new()).unwrap();
        let name = |id, path: &str| (StagingId(id), path.to_owned());
        staging.note_names(&[name(1, "a"), name(2, "d/\n\"b\"")], true).unwrap();
        staging.note_names(&[name(1, "c")], false).unwrap();
        let expected = BTreeMap::from([(1, "c".to_owned()), (2, "d/\n\"b\"".to_owned())]);
        assert_eq!(read_names(dir.path()), expected);
        let mut torn = std::fs::read(dir.path().join(FILE)).unwrap();
        torn.extend_from_slice(b"{\"content\":2,\"pa");
        std::fs::write(dir.path().join(FILE), torn).unwrap();
        assert_eq!(read_names(dir.path()), expected);
        assert!(staging.list().unwrap().is_empty(), "the log is no content");
        staging.note_names(&[name(3, "e")], true).unwrap();
        assert_eq!(read_names(dir.path()), BTreeMap::from([(3, "e".to_owned())]));
    }
}
