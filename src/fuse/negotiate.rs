//! What is asked of the kernel when the connection begins.

use fuser::{InitFlags, KernelConfig};

/// Reads and writes of up to 1 MiB: the most the kernel makes of `max_pages`.
const MAX_WRITE_BYTES: u32 = 1 << 20;

/// Requests nobody waits for (read-ahead) that the kernel may have under way.
const MAX_BACKGROUND: u16 = 64;

/// Words with commas between, each of which leaves out something that the kernel is asked for: what it is worth can be
/// measured (the part `kernel` of the benchmark `mounted`).
const WITHOUT: &str = "ONEDRIVEFS_TEST_KERNEL";

/// What the mount asks of the kernel beyond what is always asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) passthrough: bool,
    pub(super) listings: Listings,
    /// It may keep the names of a directory whose children are all known (FOPEN_CACHE_DIR).
    pub(super) keep_names: bool,
    /// It may keep the pages of a file from one open to the next (FOPEN_KEEP_CACHE).
    pub(super) keep_pages: bool,
}

/// When a listing brings the attributes of what it names along (READDIRPLUS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listings {
    /// Never.
    Names,
    /// When the kernel sees that the attributes are asked for too.
    Auto,
    /// Always.
    Plus,
}

impl Features {
    /// What serves best, less what the environment leaves out.
    pub(super) fn of_process(passthrough: bool) -> Self {
        Self::without(passthrough, &std::env::var(WITHOUT).unwrap_or_default())
    }

    fn without(passthrough: bool, words: &str) -> Self {
        let has = |word| words.split(',').any(|said| said == word);
        Self {
            passthrough,
            listings: match (has("plus"), has("auto")) {
                (true, _) => Listings::Names,
                (false, true) => Listings::Plus,
                (false, false) => Listings::Auto,
            },
            keep_names: !has("names"),
            keep_pages: !has("pages"),
        }
    }
}

/// Asks the kernel for what it offers of what is wanted. Never asked for: writeback cache (remote changes
/// could not be shown), locks (they stay in the kernel), access lists (the kernel would ask for that of each file once,
/// where `ls -l` asks for one in all and is told that there are none), extended setxattr (the library panics on it),
/// io_uring (the library has no queues for it).
pub(super) fn configure(config: &mut KernelConfig, features: Features) {
    let wanted = [
        InitFlags::FUSE_ATOMIC_O_TRUNC,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_CACHE_SYMLINKS,
        // Without it the kernel asks for security.capability before every write; see `privileges`.
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    ];
    let listings: &[InitFlags] = match features.listings {
        Listings::Names => &[],
        Listings::Plus => &[InitFlags::FUSE_DO_READDIRPLUS],
        Listings::Auto => &[InitFlags::FUSE_DO_READDIRPLUS, InitFlags::FUSE_READDIRPLUS_AUTO],
    };
    for &flag in wanted.iter().chain(listings) {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "the kernel does not offer this");
        }
    }
    let limits =
        config.set_max_write(MAX_WRITE_BYTES).is_ok() && config.set_max_background(MAX_BACKGROUND).is_ok();
    debug_assert!(limits, "both are within what the library takes");
    // One level: the content cache lies on an ordinary file system.
    let stacked = features.passthrough && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
    if stacked && config.set_max_stack_depth(1).is_err() {
        tracing::debug!("the library does not take a stack depth of 1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_helps_is_asked_for_unless_it_is_left_out_by_name() {
        let best =
            Features { passthrough: true, listings: Listings::Auto, keep_names: true, keep_pages: true };
        assert_eq!(Features::without(true, ""), best);
        assert_eq!(Features::without(true, "auto"), Features { listings: Listings::Plus, ..best });
        let least = Features { listings: Listings::Names, keep_names: false, keep_pages: false, ..best };
        assert_eq!(Features::without(true, "plus,names,pages"), least);
    }
}
