//! What is on the disk of one content, and the changes to it. All of it may wait for the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{debug, warn};

use super::backing::{BLOCKS_PER_PAGE, Backing, Loaded, PAGE};
use super::bits::Bits;
use super::error::ContentError;
use super::evict;
use super::file::CachedFile;
use super::key::ContentKey;
use crate::disk::{DiskFile, is_out_of_space};
use crate::model::QuickXor;

/// What a file rounds up to on the disk.
const SECTOR: u64 = 4096;
/// Blocks read at once for verification.
const RUN: u64 = 8;
/// quickXorHash repeats its offsets after this many bytes (graph-api 13).
const FOLD: u64 = 1280;

/// Blocks of one content.
#[derive(Debug)]
pub(super) struct State {
    pub backing: Option<Arc<Backing>>,
    /// Blocks that the map claims.
    pub present: Bits,
    /// Those of them whose bytes are known to be right in this process.
    pub trusted: Bits,
    /// Blocks that came in, stored or not.
    pub arrived: Bits,
    /// XOR of the quickXorHash contributions of the blocks in `summed`.
    xor: [u8; 20],
    summed: Bits,
    /// Moves when blocks are taken away, so that a store under way does not claim them.
    epoch: u64,
    /// The data file's time of change as we left it.
    mtime: i128,
    /// Others may have the data file open: it is looked at before each read, and never changed.
    pub is_adopted: bool,
    /// The kernel reads the data file by itself, or has it mapped: it is never changed while it is the cache's.
    pub is_lent: bool,
    /// The data file is open for reading only.
    is_read_only: bool,
    /// It is no longer the cache's: what is lent is written to.
    pub is_detached: bool,
    pub memory_only: bool,
    pub health: Health,
    pub verified: bool,
    /// Some of it may have come in since the whole was verified.
    fetched: bool,
    /// Its files go when it is closed.
    pub doomed: bool,
}

/// Blocks of a closed content that were checked in this process, and the file they are in.
#[derive(Debug)]
pub(super) struct Checked {
    ino: u64,
    mtime: i128,
    ctime: i128,
    trusted: Bits,
}

/// How the content fared against the service's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Fresh,
    /// It was complete and wrong once; it is fetched again.
    Suspect,
    /// It was wrong twice.
    Damaged,
}

impl State {
    /// Of a content with so many blocks, and what is on the disk of it.
    pub fn new(blocks: u64, loaded: Option<Loaded>) -> Self {
        let (backing, present, verified) = match loaded {
            Some(loaded) => (Some(Arc::new(loaded.backing)), loaded.present, loaded.is_sealed),
            None => (None, Bits::new(blocks), false),
        };
        let mut state = Self {
            backing,
            arrived: present.clone(),
            present,
            trusted: Bits::new(blocks),
            xor: [0; 20],
            summed: Bits::new(blocks),
            epoch: 0,
            mtime: 0,
            is_adopted: false,
            is_lent: false,
            is_read_only: false,
            is_detached: false,
            memory_only: false,
            health: Health::Fresh,
            verified,
            fetched: !verified,
            doomed: false,
        };
        state.note_mtime();
        state
    }

    pub fn blocks(&self) -> u64 {
        self.present.len()
    }

    /// Forgets all blocks; the files are the caller's business.
    pub fn clear(&mut self) {
        for bits in [&mut self.present, &mut self.trusted, &mut self.arrived] {
            bits.clear_all();
        }
        self.forget_sums();
    }

    fn forget_sums(&mut self) {
        self.summed.clear_all();
        self.xor = [0; 20];
        self.epoch += 1;
        self.verified = false;
    }

    fn clear_blocks(&mut self, first: u64, end: u64) {
        for bits in [&mut self.present, &mut self.trusted, &mut self.arrived] {
            bits.clear(first, end);
        }
        self.forget_sums();
    }

    fn note_mtime(&mut self) {
        if let Some(stat) = self.backing.as_ref().and_then(|backing| backing.data().stat().ok()) {
            self.mtime = stat.mtime_nanos;
            self.is_adopted |= stat.links > 1;
        }
    }

    /// Someone wrote to the file after we took it over.
    pub fn was_written(&self) -> bool {
        let mtime = |backing: &Arc<Backing>| backing.data().stat().map(|stat| stat.mtime_nanos);
        self.is_adopted
            && self.backing.as_ref().is_some_and(|backing| mtime(backing).ok() != Some(self.mtime))
    }

    /// Trusts no block before it was checked again.
    pub fn doubt(&mut self) {
        self.trusted.clear_all();
        self.note_mtime();
    }

    /// What need not be checked again when it is opened again, unless the file has changed by then.
    ///
    /// None where others may write to it: what they write through a map may change its time late.
    pub fn checked(&self) -> Option<Checked> {
        let stat = self.backing.as_ref()?.data().stat().ok()?;
        let sound = !self.doomed && !self.is_detached && !self.is_adopted && self.health == Health::Fresh;
        (sound && stat.mtime_nanos == self.mtime && self.trusted.ones() > 0).then(|| Checked {
            ino: stat.ino,
            mtime: stat.mtime_nanos,
            ctime: stat.ctime_nanos,
            trusted: self.trusted.clone(),
        })
    }

    /// Takes over what was checked before, if the file is still the same.
    pub fn restore(&mut self, checked: &Checked) {
        let Some(Ok(stat)) = self.backing.as_ref().map(|backing| backing.data().stat()) else { return };
        let same =
            (stat.ino, stat.mtime_nanos, stat.ctime_nanos) == (checked.ino, checked.mtime, checked.ctime);
        if !same || self.is_adopted || checked.trusted.len() != self.blocks() {
            return;
        }
        for (first, end) in checked.trusted.runs(0, self.blocks(), true) {
            for (first, end) in self.present.runs(first, end, true) {
                self.trusted.set(first, end);
            }
        }
    }

    fn add_sum(&mut self, block: u64, sum: [u8; 20]) {
        if !self.summed.get(block) {
            self.xor.iter_mut().zip(sum).for_each(|(xor, sum)| *xor ^= sum);
            self.summed.set(block, block + 1);
        }
    }

    /// Bytes on the disk that storing blocks `first..end` adds.
    fn cost(&self, file: &CachedFile, first: u64, end: u64) -> u64 {
        let fresh_page = |page: &u64| {
            let start = page * BLOCKS_PER_PAGE;
            self.present.next(start, true) >= (start + BLOCKS_PER_PAGE).min(self.blocks())
        };
        let pages =
            (first / BLOCKS_PER_PAGE..end.div_ceil(BLOCKS_PER_PAGE)).filter(fresh_page).count() as u64;
        let absent = self.present.runs(first, end, false);
        let data: u64 =
            absent.iter().map(|&(first, end)| file.run(first, end).len().div_ceil(SECTOR) * SECTOR).sum();
        data + pages * PAGE + if self.backing.is_none() { PAGE } else { 0 }
    }
}

impl CachedFile {
    /// Keeps the bytes of whole blocks from `start` on. False if the cache cannot take them.
    pub(super) fn store(&self, start: u64, bytes: &[u8]) -> bool {
        match self.try_store(start, bytes) {
            Ok(stored) => stored,
            Err(error) if is_out_of_space(&error) => false,
            Err(error) => {
                self.give_up_disk(&error);
                false
            }
        }
    }

    fn try_store(&self, start: u64, bytes: &[u8]) -> io::Result<bool> {
        let first = start / self.block();
        let end = first + (bytes.len() as u64).div_ceil(self.block());
        let (cost, epoch, held) = {
            let state = self.read_state();
            if state.memory_only || state.doomed && state.backing.is_none() {
                return Ok(false);
            }
            (state.cost(self, first, end), state.epoch, state.present.ones() * self.block())
        };
        let config = &self.shared().config;
        if !evict::may_keep(self.size(), held, cost, config.max_bytes) {
            return Ok(false);
        }
        let Some(promise) = self.shared().reserve(cost) else { return Ok(false) };
        let backing = self.backing_for_store()?;
        let sums = backing.sums(bytes);
        let contributions = self.contributions(first, bytes);
        backing.write(first, bytes)?;
        let mut state = self.write_state();
        if state.epoch != epoch {
            return Ok(false);
        }
        backing.record(first, &sums)?;
        state.present.set(first, end);
        state.trusted.set(first, end);
        state.fetched = true;
        (first..end).zip(contributions).for_each(|(block, sum)| state.add_sum(block, sum));
        state.note_mtime();
        drop(state);
        promise.keep(self);
        Ok(true)
    }

    fn backing_for_store(&self) -> io::Result<Arc<Backing>> {
        if let Some(backing) = &self.read_state().backing {
            return Ok(backing.clone());
        }
        let mut state = self.write_state();
        if let Some(backing) = &state.backing {
            return Ok(backing.clone());
        }
        let ident = self.ident().clone();
        let paths = ident.name.paths(self.shared().root());
        let backing = Arc::new(Backing::create(&self.shared().disk, &paths, &ident.key, self.block())?);
        state.backing = Some(backing.clone());
        Ok(backing)
    }

    /// The share of each block in the quickXorHash, if that is what will be asked for.
    fn contributions(&self, first: u64, bytes: &[u8]) -> Vec<[u8; 20]> {
        if self.key().version.hashes.quick_xor.is_none() {
            return Vec::new();
        }
        let blocks = bytes.chunks(self.block() as usize);
        (first..).zip(blocks).map(|(block, bytes)| contribution(block * self.block(), bytes)).collect()
    }

    /// Checks claimed blocks of `first..end` that nobody checked in this process; takes the wrong ones away.
    pub(super) fn trust(&self, first: u64, end: u64) {
        let (backing, runs, epoch) = {
            let state = self.read_state();
            let Some(backing) = state.backing.clone() else { return };
            (backing, state.trusted.runs(first, end, false), state.epoch)
        };
        for (start, stop) in runs {
            let bad = match backing.verify(start, stop) {
                Ok(bad) => bad,
                Err(error) => return self.give_up_disk(&error),
            };
            let mut state = self.write_state();
            if state.epoch != epoch {
                return;
            }
            let claimed = state.present.runs(start, stop, true);
            claimed.into_iter().for_each(|(start, stop)| state.trusted.set(start, stop));
            bad.iter().for_each(|&block| state.trusted.clear(block, block + 1));
            let lost: Vec<u64> = bad.into_iter().filter(|&block| state.present.get(block)).collect();
            drop(state);
            if !lost.is_empty() {
                warn!(
                    blocks = lost.len(),
                    "cached blocks do not match their checksums and are fetched again"
                );
                lost.into_iter().for_each(|block| self.take_away(block, block + 1));
                return;
            }
        }
    }

    /// The file of the bytes, for the kernel to read and map by itself: only of content that is complete, checked in
    /// this process and nobody else's. From here on its bytes are not changed as long as it is the cache's, whoever has
    /// it open or mapped.
    pub fn lend(&self) -> Option<DiskFile> {
        let name = self.ident().name;
        let mut state = self.write_state();
        let sound = state.present.all_set()
            && state.trusted.all_set()
            && state.health == Health::Fresh
            && !(state.fetched && self.has_hashes())
            && !state.doomed
            && !state.is_detached
            && !state.was_written();
        let backing = state.backing.clone().filter(|_| sound && state.blocks() > 0)?;
        if backing.is_shared().unwrap_or(true) {
            return None;
        }
        let file = backing.data().reopen_for_reading().ok()?;
        if !state.is_read_only {
            // Nobody but who stores through a map then has it open for writing, which can be asked.
            state.backing = Some(Arc::new(backing.for_reading().ok()?));
            (state.is_read_only, state.is_lent) = (true, true);
            drop(state);
            self.shared().table().lend(name);
        }
        Some(file)
    }

    /// Takes the files away from the cache, which fetches them anew where they are asked for again: what was lent is
    /// going to be written to. What is read through this object is what is in the file.
    pub fn detach(&self) {
        let mut state = self.write_state();
        if !state.is_detached {
            (state.is_detached, state.is_adopted) = (true, false);
            drop(state);
            self.shared().detached(self);
        }
    }

    /// All blocks were just read to make the map; someone else had the file open before.
    pub(super) fn adopted(&self) {
        let mut state = self.write_state();
        state.trusted = state.present.clone();
        state.note_mtime();
    }

    pub(super) fn trust_all(&self) {
        let (blocks, all) = {
            let state = self.read_state();
            (state.blocks(), state.trusted.ones() == state.present.ones())
        };
        if !all {
            (0..blocks).step_by(RUN as usize).for_each(|first| self.trust(first, (first + RUN).min(blocks)));
        }
    }

    /// Takes blocks `first..end` away and gives their room back.
    pub(super) fn take_away(&self, first: u64, end: u64) {
        let mut state = self.write_state();
        let before = state.present.ones();
        if state.is_detached {
            return state.clear_blocks(first, end);
        }
        let Some(backing) = state.backing.clone() else { return state.clear_blocks(first, end) };
        let erased = match backing.is_shared() {
            Ok(false) if !state.is_adopted && !state.is_lent => backing.erase(first, end),
            // Adopted or lent bytes have another owner: let go of the file instead of changing it.
            Ok(_) | Err(_) => {
                state.clear();
                state.backing = None;
                (state.is_adopted, state.is_lent, state.is_read_only) = (false, false, false);
                let paths = self.ident().name.paths(self.shared().root());
                super::backing::remove(&self.shared().disk, &paths)
            }
        };
        state.clear_blocks(first, end);
        state.note_mtime();
        let gone = (before - state.present.ones()) * self.block();
        drop(state);
        match erased {
            Ok(()) => self.shared().shrunk(self, gone),
            Err(error) => self.give_up_disk(&error),
        }
    }

    /// Takes all blocks away: nothing of this version may be trusted.
    pub(super) fn forget_blocks(&self) {
        let blocks = self.read_state().blocks();
        self.take_away(0, blocks);
    }

    /// At another open: whether the files are still those we left.
    pub(super) fn revalidate(&self) {
        let mut state = self.write_state();
        if state.health == Health::Damaged {
            state.health = Health::Fresh;
        }
        let Some(backing) = state.backing.clone() else {
            state.memory_only = false;
            return;
        };
        let paths = self.ident().name.paths(self.shared().root());
        let on_disk = self.shared().disk.stat(&paths.data);
        let ours = backing.data().stat();
        match (on_disk, ours) {
            (Ok(found), Ok(ours)) if found.ino == ours.ino && ours.len == self.size() => {
                if ours.mtime_nanos != state.mtime {
                    state.doubt();
                }
            }
            _ if state.doomed => {}
            _ => {
                state.clear();
                state.backing = None;
                drop(state);
                self.shared().vanished(self);
            }
        }
    }

    pub(super) fn is_verified(&self) -> bool {
        self.read_state().verified
    }

    /// Whether the version has a hash to check against.
    pub(super) fn has_hashes(&self) -> bool {
        !self.key().version.hashes.is_empty()
    }

    /// Checks the complete content; see [`CachedFile::verify`].
    pub(super) fn verify_now(&self) -> Result<(), ContentError> {
        let _one_at_a_time = self.lock_verifying();
        {
            let state = self.read_state();
            if state.health == Health::Damaged {
                return Err(ContentError::Damaged);
            }
            if state.verified || !state.present.all_set() || state.blocks() == 0 {
                return Ok(());
            }
        }
        let (key, epoch) = (self.key(), self.read_state().epoch);
        let matches = self.matches(&key)?;
        let mut state = self.write_state();
        if matches {
            state.health = Health::Fresh;
            if state.epoch == epoch {
                (state.verified, state.fetched) = (true, false);
                self.seal(&state);
            }
            return Ok(());
        }
        state.health = if state.health == Health::Fresh { Health::Suspect } else { Health::Damaged };
        drop(state);
        self.shared().stats.damaged.fetch_add(1, Ordering::Relaxed);
        self.note_failure();
        warn!(item = %key.item, size = key.size, "content does not have the hash the service states");
        self.forget_blocks();
        Err(ContentError::Damaged)
    }

    /// What was verified need not be verified again by the next process.
    fn seal(&self, state: &State) {
        if self.has_hashes()
            && let Some(Err(error)) = state.backing.as_ref().map(|backing| backing.seal())
        {
            debug!(%error, "it was not noted that a content has its hash; it is checked again at the next start");
        }
    }

    /// Whether it is complete, has a hash, and was not compared with it.
    pub(super) fn is_unverified(&self) -> bool {
        let state = self.read_state();
        self.has_hashes() && !state.verified && state.blocks() > 0 && state.present.all_set()
    }

    fn matches(&self, key: &ContentKey) -> Result<bool, ContentError> {
        let hashes = &key.version.hashes;
        if let Some(expected) = hashes.quick_xor {
            return Ok(self.quick_xor()? == expected);
        }
        if let Some(expected) = hashes.sha256 {
            return Ok(self.digest::<sha2::Sha256>()?[..] == expected);
        }
        match hashes.sha1 {
            Some(expected) => Ok(self.digest::<sha1::Sha1>()?[..] == expected),
            None => Ok(true),
        }
    }

    fn quick_xor(&self) -> io::Result<[u8; 20]> {
        let (backing, unknown) = self.backing_and(|state| state.summed.runs(0, state.blocks(), false))?;
        for (first, end) in unknown {
            for start in (first..end).step_by(RUN as usize) {
                let bytes = backing.read(self.run(start, (start + RUN).min(end)))?;
                let sums = self.contributions(start, &bytes);
                let mut state = self.write_state();
                (start..).zip(sums).for_each(|(block, sum)| state.add_sum(block, sum));
            }
        }
        let mut xor = self.read_state().xor;
        xor[12..].iter_mut().zip(self.size().to_le_bytes()).for_each(|(xor, byte)| *xor ^= byte);
        Ok(xor)
    }

    fn digest<D: sha1::Digest>(&self) -> io::Result<Vec<u8>> {
        let (backing, blocks) = self.backing_and(State::blocks)?;
        let mut hasher = D::new();
        for start in (0..blocks).step_by(RUN as usize) {
            hasher.update(backing.read(self.run(start, (start + RUN).min(blocks)))?);
        }
        Ok(hasher.finalize().to_vec())
    }

    fn backing_and<T>(&self, look: impl FnOnce(&State) -> T) -> io::Result<(Arc<Backing>, T)> {
        let state = self.read_state();
        let backing = state.backing.clone().ok_or(io::ErrorKind::NotFound)?;
        Ok((backing, look(&state)))
    }
}

/// What a stretch of bytes at `offset` adds to a quickXorHash, the length left out. The hash is linear: the
/// XOR of all stretches and the length is the hash of the whole, in any order (graph-api 13).
fn contribution(offset: u64, bytes: &[u8]) -> [u8; 20] {
    let skip = offset % FOLD;
    let mut hash = QuickXor::default();
    hash.update(&[0; FOLD as usize][..skip as usize]);
    hash.update(bytes);
    let mut sum = hash.finish();
    let len = skip + bytes.len() as u64;
    sum[12..].iter_mut().zip(len.to_le_bytes()).for_each(|(sum, byte)| *sum ^= byte);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_the_whole_is_the_xor_of_its_parts_in_any_order() {
        let bytes: Vec<u8> = (0..400_000u32).map(|index| (index * 31 % 253) as u8).collect();
        let mut xor = [0u8; 20];
        let parts: Vec<(usize, &[u8])> = bytes.chunks(131_072).enumerate().collect();
        for (index, part) in parts.into_iter().rev() {
            let sum = contribution(index as u64 * 131_072, part);
            xor.iter_mut().zip(sum).for_each(|(xor, sum)| *xor ^= sum);
        }
        xor[12..].iter_mut().zip((bytes.len() as u64).to_le_bytes()).for_each(|(xor, byte)| *xor ^= byte);
        assert_eq!(xor, QuickXor::of(&bytes));
    }
}
