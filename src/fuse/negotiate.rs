//! What is asked of the kernel when the connection begins.

use fuser::{InitFlags, KernelConfig};

/// Reads and writes of up to 1 MiB: the most the kernel makes of `max_pages`.
const MAX_WRITE_BYTES: u32 = 1 << 20;

/// Requests nobody waits for (read-ahead) that the kernel may have under way.
const MAX_BACKGROUND: u16 = 64;

/// What the mount asks of the kernel beyond what is always asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Features {
    pub(super) passthrough: bool,
}

/// Asks the kernel for what it offers of what is wanted. Never asked for: writeback cache (remote changes
/// could not be shown), locks (they stay in the kernel), extended setxattr (the library panics on it),
/// io_uring (the library has no queues for it).
pub(super) fn configure(config: &mut KernelConfig, features: Features) {
    let wanted = [
        InitFlags::FUSE_ATOMIC_O_TRUNC,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_CACHE_SYMLINKS,
        // Without it the kernel does not remember that a file has no access list, and asks for each `ls -l`.
        InitFlags::FUSE_POSIX_ACL,
        // Without it the kernel asks for security.capability before every write; see `privileges`.
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    ];
    for flag in wanted {
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
