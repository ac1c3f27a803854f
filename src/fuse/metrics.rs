//! Counters and latencies per operation; cheap enough to be always on.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

macro_rules! ops {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// The operations of the kernel's protocol that are answered here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        #[allow(missing_docs, reason = "the kernel's names")]
        pub enum Op { $($variant),* }

        impl Op {
            /// Every operation, in the order of the table of metrics.
            pub const ALL: &[Op] = &[$(Op::$variant),*];

            /// The kernel's name in lower case.
            pub fn name(self) -> &'static str {
                match self { $(Op::$variant => $name),* }
            }
        }
    };
}

ops! {
    Lookup "lookup", Getattr "getattr", Setattr "setattr", Readlink "readlink", Mknod "mknod", Mkdir "mkdir",
    Symlink "symlink", Unlink "unlink", Rmdir "rmdir", Rename "rename", Open "open", Create "create",
    Read "read", Write "write", Flush "flush", Fsync "fsync", Release "release", Opendir "opendir",
    Readdir "readdir", Readdirplus "readdirplus", Releasedir "releasedir", Fsyncdir "fsyncdir",
    Statfs "statfs", Setxattr "setxattr", Getxattr "getxattr", Listxattr "listxattr",
    Removexattr "removexattr", Fallocate "fallocate", Lseek "lseek", CopyFileRange "copy_file_range",
}

/// Bucket `n` counts answers within `2^n` microseconds; the last one also all slower ones.
pub const BUCKETS: usize = 26;

/// What one operation has done since the mount.
#[derive(Clone, Copy, Debug)]
pub struct OpStats {
    /// Which.
    pub op: Op,
    /// Requests answered.
    pub calls: u64,
    /// Requests answered with an errno, expected ones included.
    pub failures: u64,
    /// Requests that had to wait for something not on this machine.
    pub waits: u64,
    /// Sum of all latencies, from decoding to reply.
    pub total: Duration,
    /// See [`BUCKETS`].
    pub latencies: [u64; BUCKETS],
}

impl OpStats {
    /// An upper bound of the latency that a share of `quantile` (0 to 1) of the calls stayed within.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let wanted = (self.calls as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.latencies.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(1 << bucket);
            }
        }
        Duration::from_micros(1 << (BUCKETS - 1))
    }
}

/// The counters of one mount.
#[derive(Debug)]
pub struct Metrics {
    ops: Vec<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    failures: AtomicU64,
    waits: AtomicU64,
    total_ns: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

impl Default for Metrics {
    fn default() -> Self {
        Self { ops: Op::ALL.iter().map(|_| Counters::default()).collect() }
    }
}

impl Metrics {
    /// Counts an answer.
    pub(super) fn answered(&self, op: Op, latency: Duration, failed: bool) {
        let counters = &self.ops[op as usize];
        counters.calls.fetch_add(1, Relaxed);
        counters.failures.fetch_add(u64::from(failed), Relaxed);
        counters.total_ns.fetch_add(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        counters.latencies[bucket(latency)].fetch_add(1, Relaxed);
    }

    /// Counts a request that could not be answered at once.
    pub(super) fn waiting(&self, op: Op) {
        self.ops[op as usize].waits.fetch_add(1, Relaxed);
    }

    /// The operations that were asked for at least once.
    pub fn snapshot(&self) -> Vec<OpStats> {
        let stats = Op::ALL.iter().zip(&self.ops).map(|(&op, counters)| OpStats {
            op,
            calls: counters.calls.load(Relaxed),
            failures: counters.failures.load(Relaxed),
            waits: counters.waits.load(Relaxed),
            total: Duration::from_nanos(counters.total_ns.load(Relaxed)),
            latencies: std::array::from_fn(|n| counters.latencies[n].load(Relaxed)),
        });
        stats.filter(|stats| stats.calls > 0 || stats.waits > 0).collect()
    }
}

fn bucket(latency: Duration) -> usize {
    let micros = latency.as_nanos().div_ceil(1000).max(1);
    let exponent = u128::BITS - (micros - 1).leading_zeros();
    (exponent as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_counted_in_the_bucket_that_bounds_it() {
        let cases =
            [(0, 0), (1, 0), (1_000, 0), (1_001, 1), (2_000, 1), (2_001, 2), (1_000_000, 10), (u64::MAX, 25)];
        for (nanos, expected) in cases {
            assert_eq!(bucket(Duration::from_nanos(nanos)), expected, "{nanos}");
        }
    }

    #[test]
    fn a_snapshot_shows_only_what_was_asked_for_with_its_quantiles() {
        let metrics = Metrics::default();
        for _ in 0..99 {
            metrics.answered(Op::Lookup, Duration::from_micros(3), false);
        }
        metrics.answered(Op::Lookup, Duration::from_millis(5), true);
        let stats = metrics.snapshot();
        assert_eq!(stats.len(), 1);
        assert_eq!((stats[0].op.name(), stats[0].calls, stats[0].failures), ("lookup", 100, 1));
        assert_eq!(stats[0].quantile(0.5), Duration::from_micros(4));
        assert_eq!(stats[0].quantile(1.0), Duration::from_micros(8192));
    }
}
