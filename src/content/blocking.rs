//! Where calls that wait for the disk run.

use std::panic::resume_unwind;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Where work that waits for the disk runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blocking {
    /// On the runtime's blocking threads if it has several workers, else inline, so that a simulation on
    /// one thread with a paused clock stays deterministic.
    #[default]
    Auto,
    /// Always on the caller's thread.
    Inline,
}

impl Blocking {
    /// Begins `work` at once; the future tells its result. Dropping the future does not stop it.
    pub fn start<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> BoxFuture<'static, T> {
        let pool = match self {
            Blocking::Inline => None,
            Blocking::Auto => Handle::try_current()
                .ok()
                .filter(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread),
        };
        let Some(pool) = pool else { return std::future::ready(work()).boxed() };
        let job = pool.spawn_blocking(work);
        async move {
            match job.await {
                Ok(value) => value,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    // Only at the shutdown of the runtime, which drops this future too.
                    Err(_) => std::future::pending().await,
                },
            }
        }
        .boxed()
    }
}
