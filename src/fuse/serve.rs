//! The one place where operations are run and replies are sent.
//!
//! An operation is polled once on the thread that read the request. What is on this machine is answered
//! there; what must wait is handed, with its reply, to a task, under a deadline and a look at whether the
//! caller is being killed. A reply is sent exactly once; one that is lost is answered EIO by the library.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle as Runtime;
use tokio::time::Instant;
use tracing::Instrument;

use super::fence::Fence;
use super::metrics::{Metrics, Op};
use super::signals;
use super::tripwire::Tripwire;
use crate::clock::Clock;
use crate::model::Ino;
use crate::vfs::{Handle, VfsError};

/// What is known of a request before it is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) op: Op,
    /// The kernel's number of the request.
    pub(super) request: u64,
    /// The thread that waits for the answer; 0 if unknown.
    pub(super) tid: u32,
    pub(super) ino: Ino,
    pub(super) handle: Option<Handle>,
}

/// How long an operation may keep its caller waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// A deadline for all of it (ETIMEDOUT), and no longer than the caller lives (EINTR).
    Metadata,
    /// Bounded by progress, below; no longer than the caller lives.
    Content,
    /// As `Content`, but the operation runs to its end after the caller is gone.
    Durable,
    /// Nobody waits: runs to its end.
    Release,
}

/// The bounds of waiting.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest a metadata operation keeps its caller.
    pub metadata: Duration,
    /// How often a waiting caller is looked at for fatal signals.
    pub signals: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { metadata: Duration::from_secs(20), signals: Duration::from_millis(100) }
    }
}

/// Runs operations and sends their answers.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) runtime: Runtime,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) fence: Arc<Fence>,
    pub(super) limits: Limits,
    /// Notices threads that die; `None` in tests.
    pub(super) tripwire: Option<Arc<Tripwire>>,
}

type Operation<T> = Pin<Box<dyn Future<Output = Result<T, VfsError>> + Send>>;

impl Server {
    /// Runs `operation` and gives its result, or the errno of its failure, to `answer`.
    pub(super) fn serve<T, F, A>(&self, call: Call, patience: Patience, operation: F, answer: A)
    where
        T: Send + 'static,
        F: Future<Output = Result<T, VfsError>> + Send + 'static,
        A: FnOnce(Result<T, i32>) + Send + 'static,
    {
        self.tripwire.iter().for_each(Tripwire::arm);
        let _runtime = self.runtime.enter();
        let _span = tracing::debug_span!("fuse", op = call.op.name(), ino = %call.ino, req = call.request);
        let started = self.clock.mono();
        let mut operation: Operation<T> = Box::pin(operation);
        let mut answer = Some(answer);
        let polled = _span.in_scope(|| {
            // A task polls the operation again at once, so a wake-up before that need not be heard.
            let mut context = Context::from_waker(Waker::noop());
            self.poll(call, started, &mut operation, &mut answer, &mut context)
        });
        if let (Poll::Pending, Some(answer)) = (polled, answer) {
            self.metrics.waiting(call.op);
            let span = tracing::info_span!("fuse", op = call.op.name(), ino = %call.ino, req = call.request);
            let waiting = self.clone().wait(call, started, patience, operation, answer);
            self.runtime.spawn(waiting.instrument(span));
        }
    }

    /// Answers with what is known without waiting.
    pub(super) fn serve_now<T>(
        &self,
        call: Call,
        operation: impl FnOnce() -> T,
        answer: impl FnOnce(Result<T, i32>),
    ) {
        self.tripwire.iter().for_each(Tripwire::arm);
        let started = self.clock.mono();
        let _section = self.fence.enter();
        let result = catch_unwind(AssertUnwindSafe(operation)).map_err(|panic| panicked(call, &*panic));
        self.finish(call, started, result, answer);
    }

    /// Polls once; answers if that ends the operation.
    fn poll<T, A: FnOnce(Result<T, i32>)>(
        &self,
        call: Call,
        started: Instant,
        operation: &mut Operation<T>,
        answer: &mut Option<A>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let _section = self.fence.enter();
        let polled = catch_unwind(AssertUnwindSafe(|| operation.as_mut().poll(context)));
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result,
            Err(panic) => Err(panicked(call, &*panic)),
        };
        match answer.take() {
            Some(answer) => self.finish(call, started, result, answer),
            None => log_late(call, result.err()),
        }
        Poll::Ready(())
    }

    async fn wait<T, A: FnOnce(Result<T, i32>)>(
        self,
        call: Call,
        started: Instant,
        patience: Patience,
        mut operation: Operation<T>,
        answer: A,
    ) {
        let mut answer = Some(answer);
        let done = poll_fn(|context| self.poll(call, started, &mut operation, &mut answer, context));
        let ended = match patience {
            Patience::Release => {
                done.await;
                Ok(())
            }
            Patience::Metadata => self.bounded(call.tid, Some(started + self.limits.metadata), done).await,
            Patience::Content | Patience::Durable => self.bounded(call.tid, None, done).await,
        };
        let Err(early) = ended else { return };
        if let Some(answer) = answer.take() {
            self.finish(call, started, Err(early), answer);
        }
        if patience == Patience::Durable {
            poll_fn(|context| self.poll(call, started, &mut operation, &mut answer, context)).await;
        }
    }

    /// Awaits `done`, but not past the deadline and not for a caller that is being killed.
    async fn bounded(
        &self,
        tid: u32,
        deadline: Option<Instant>,
        done: impl Future<Output = ()>,
    ) -> Result<(), VfsError> {
        bounded(done, deadline, self.limits.signals, || signals::is_dying(tid)).await
    }

    /// Counts, replies, and writes the one line of a failure.
    fn finish<T>(
        &self,
        call: Call,
        started: Instant,
        result: Result<T, VfsError>,
        answer: impl FnOnce(Result<T, i32>),
    ) {
        let latency = self.clock.mono().saturating_duration_since(started);
        self.metrics.answered(call.op, latency, result.is_err());
        let (reply, failure) = match result {
            Ok(value) => (Ok(value), None),
            Err(error) => (Err(error.errno()), Some(error)),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| answer(reply))) {
            panicked(call, &*panic);
        }
        if let Some(error) = failure {
            log_failure(call, latency, &error);
        }
    }
}

async fn bounded(
    done: impl Future<Output = ()>,
    deadline: Option<Instant>,
    look_every: Duration,
    is_dying: impl Fn() -> bool,
) -> Result<(), VfsError> {
    let mut done = std::pin::pin!(done);
    loop {
        let look = Instant::now() + look_every;
        let until = deadline.map_or(look, |deadline| deadline.min(look));
        tokio::select! {
            biased;
            () = &mut done => return Ok(()),
            () = tokio::time::sleep_until(until) => {}
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(VfsError::Deadline);
        }
        if is_dying() {
            return Err(VfsError::Interrupted);
        }
    }
}

fn panicked(call: Call, panic: &(dyn Any + Send)) -> VfsError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    tracing::error!(op = call.op.name(), ino = %call.ino, req = call.request, text, "operation panicked");
    VfsError::Io(std::io::Error::other("the operation panicked"))
}

fn log_failure(call: Call, latency: Duration, error: &VfsError) {
    let (op, ino, req) = (call.op.name(), call.ino, call.request);
    let fh = call.handle.map(|handle| handle.0);
    if error.is_ordinary() {
        tracing::debug!(op, %ino, fh, req, ?latency, %error, "operation failed");
    } else {
        tracing::warn!(op, %ino, fh, req, ?latency, %error, "operation failed");
    }
}

/// The caller has its answer (EINTR) already; only the log can still say that its data had trouble.
fn log_late(call: Call, failure: Option<VfsError>) {
    if let Some(error) = failure {
        tracing::error!(op = call.op.name(), ino = %call.ino, req = call.request, %error,
            "operation failed after its caller was gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededClock;
    use std::sync::mpsc;
    use tokio::sync::oneshot;

    fn server() -> Server {
        Server {
            runtime: Runtime::current(),
            clock: Arc::new(SeededClock::with_seed(1)),
            metrics: Arc::default(),
            fence: Arc::default(),
            limits: Limits::default(),
            tripwire: None,
        }
    }

    fn call(op: Op) -> Call {
        Call { op, request: 2, tid: 0, ino: Ino::ROOT, handle: None }
    }

    /// Serves and returns where the answer arrives.
    fn serve(
        patience: Patience,
        operation: impl Future<Output = Result<u32, VfsError>> + Send + 'static,
    ) -> (Server, mpsc::Receiver<Result<u32, i32>>) {
        let (sender, answer) = mpsc::channel();
        let server = server();
        server.serve(call(Op::Lookup), patience, operation, move |result| {
            sender.send(result).expect("the test listens");
        });
        (server, answer)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_is_answered_before_serve_returns() {
        let (server, answer) = serve(Patience::Metadata, async { Ok(7) });
        assert_eq!(answer.try_recv(), Ok(Ok(7)));
        let (_, answer) = serve(Patience::Metadata, async { Err(VfsError::NotFound) });
        assert_eq!(answer.try_recv(), Ok(Err(libc::ENOENT)));
        assert_eq!(server.metrics.snapshot()[0].waits, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_answered_by_a_task_even_if_woken_before_the_task_looks() {
        let (sender, receiver) = oneshot::channel();
        let (server, answer) = serve(Patience::Content, async { Ok(receiver.await.expect("it is sent")) });
        sender.send(7).expect("the operation waits");
        while answer.try_recv().map(|result| assert_eq!(result, Ok(7))).is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.metrics.snapshot()[0].waits, 1);
    }

    // S47.
    #[tokio::test(start_paused = true)]
    async fn a_metadata_operation_is_given_up_at_its_deadline_and_a_read_is_not() {
        let start = Instant::now();
        let (dropped, is_dropped) = oneshot::channel::<()>();
        let (_server, answer) = serve(Patience::Metadata, async move {
            let _dropped = dropped;
            std::future::pending().await
        });
        let (_server, read) = serve(Patience::Content, std::future::pending());
        is_dropped.await.expect_err("it is dropped");
        assert_eq!(answer.try_recv(), Ok(Err(libc::ETIMEDOUT)));
        assert_eq!(start.elapsed(), Duration::from_secs(20));
        assert!(read.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_being_killed_is_let_go_at_the_next_look() {
        let start = Instant::now();
        let dying = || start.elapsed() > Duration::from_millis(250);
        let ended = bounded(std::future::pending(), None, Duration::from_millis(100), dying).await;
        assert_eq!(ended.expect_err("it cannot be done").errno(), libc::EINTR);
        assert_eq!(start.elapsed(), Duration::from_millis(300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_runs_to_its_end_after_its_caller_was_killed() {
        let mut child = std::process::Command::new("true").spawn().expect("true runs");
        let (sender, receiver) = oneshot::channel();
        let (finished, is_finished) = oneshot::channel();
        let (answers, answer) = mpsc::channel();
        let operation = async {
            receiver.await.expect("it is sent");
            finished.send(()).expect("the test listens");
            Ok(0)
        };
        // Not waited for: a zombie, which is as dead to its requests as a killed caller.
        let call = Call { tid: child.id(), ..call(Op::Flush) };
        let server = server();
        server.serve(call, Patience::Durable, operation, move |result: Result<u32, i32>| {
            answers.send(result).expect("the test listens");
        });
        let answered = loop {
            tokio::time::sleep(server.limits.signals).await;
            if let Ok(result) = answer.try_recv() {
                break result;
            }
        };
        assert_eq!(answered, Err(libc::EINTR));
        sender.send(()).expect("the operation still waits");
        is_finished.await.expect("it runs to its end");
        child.wait().expect("it has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_an_io_error_of_that_request_only() {
        let (_, answer) = serve(Patience::Metadata, async { panic!("a bug") });
        assert_eq!(answer.try_recv(), Ok(Err(libc::EIO)));
        let (_, answer) = serve(Patience::Metadata, async {
            tokio::task::yield_now().await;
            panic!("a bug")
        });
        while answer.try_recv().map(|result| assert_eq!(result, Err(libc::EIO))).is_err() {
            tokio::task::yield_now().await;
        }
        let (_, answer) = serve(Patience::Metadata, async { Ok(7) });
        assert_eq!(answer.try_recv(), Ok(Ok(7)));
    }
}
