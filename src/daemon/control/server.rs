//! The daemon's side of the control socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::place::SocketPath;
use super::protocol::{Envelope, Reply};
use super::{
    Answer, CacheView, ConflictLine, ControlError, FreeOutcome, Outcome, PROTOCOL, PinOutcome, Progress,
    Request, Status, ThumbnailLine, runtime_dir, socket_name,
};
use crate::config::Environment;
use crate::daemon::exit;
use crate::engine::Keep;

/// Longest request in bytes.
const REQUEST_MAX: u64 = 64 * 1024;
/// Connections served at once.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may be silent between requests.
const IDLE: Duration = Duration::from_secs(60);
/// How often a long request says that it is alive.
const BEAT: Duration = Duration::from_secs(1);
/// How long requests may go on at the end; that of an unmount is what the end waits for, so it is not counted.
const MOMENT: Duration = Duration::from_secs(2);
/// How long their answers may take to reach the clients.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Where a long request says how far it is; only the latest word is kept.
pub type ProgressSink = watch::Sender<Progress>;

/// Who answers. Each future may be dropped when its client goes away, except that of `unmount`.
pub trait ControlHandler: Send + Sync + 'static {
    /// How the mount is. Answers from memory, without the network.
    fn status(&self) -> BoxFuture<'_, Status>;

    /// Waits until everything below `path` (relative to the mount) is on the service, is parked, or
    /// `timeout` has passed.
    fn sync(
        &self,
        path: PathBuf,
        timeout: Option<Duration>,
        progress: ProgressSink,
    ) -> BoxFuture<'_, Result<Outcome, ControlError>>;

    /// Unmounts, and sends what is unsent for at most `drain`. The daemon ends soon after. `lazy`: though programs
    /// use it, for whom the mount lives on until the last lets go.
    fn unmount(
        &self,
        drain: Option<Duration>,
        lazy: bool,
        progress: ProgressSink,
    ) -> BoxFuture<'_, Result<Outcome, ControlError>>;

    /// Looks for changes on the service now; they are visible when it ends.
    fn refresh(&self, path: PathBuf) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Tries parked changes at or below `path` again; returns how many.
    fn retry(&self, path: PathBuf) -> BoxFuture<'_, Result<u64, ControlError>>;

    /// The conflict copies at or below `path`, or beside it.
    fn conflicts(&self, path: PathBuf) -> BoxFuture<'_, Result<Vec<ConflictLine>, ControlError>>;

    /// Settles the conflict of the copy at `path`, or of the file beside the only copy.
    fn settle(&self, path: PathBuf, keep: Keep) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Lets the deletes go that wait for a confirmation; returns how many.
    fn confirm(&self) -> BoxFuture<'_, Result<u64, ControlError>>;

    /// Keeps the content of what is at `path`, and below it, on this machine; with `wait`, answers when it is here or
    /// will not come soon.
    fn pin(
        &self,
        path: PathBuf,
        wait: bool,
        progress: ProgressSink,
    ) -> BoxFuture<'_, Result<PinOutcome, ControlError>>;

    /// Takes pins at or below `path` away; returns how many.
    fn unpin(&self, path: PathBuf) -> BoxFuture<'_, Result<u64, ControlError>>;

    /// Gives up local content of what is at or below `path`.
    fn free(&self, path: PathBuf) -> BoxFuture<'_, Result<FreeOutcome, ControlError>>;

    /// What content is here at or below `path`, by drive; `list`: with its files.
    fn cache(&self, path: PathBuf, list: bool) -> BoxFuture<'_, Result<Vec<CacheView>, ControlError>>;

    /// Ends the daemon, if its mount has ended.
    fn yield_state(&self) -> BoxFuture<'_, Result<(), ControlError>>;

    /// The small pictures that the service has of what is in the folder at `path`.
    fn thumbnails(&self, path: PathBuf) -> BoxFuture<'_, Result<Vec<ThumbnailLine>, ControlError>>;
}

/// A bound control socket; the file goes away with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    uid: u32,
}

impl Server {
    /// Binds the socket of `mountpoint`. Must be called inside a tokio runtime.
    ///
    /// Takes the place of a socket nobody listens on; `AddrInUse` if somebody does.
    pub fn bind(environment: &Environment, mountpoint: &Path) -> io::Result<Self> {
        let path = runtime_dir(environment)?.join(socket_name(mountpoint));
        let short = SocketPath::new(&path)?;
        match std::os::unix::net::UnixStream::connect(short.as_path()) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(&path)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(short.as_path())?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path, uid: environment.uid })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers until `shutdown`; requests under way are then given a moment to answer.
    pub async fn serve(self, handler: Arc<dyn ControlHandler>, shutdown: CancellationToken) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            while connections.try_join_next().is_some() {}
            let Ok((stream, _)) = accepted else { continue };
            let allowed = stream.peer_cred().is_ok_and(|peer| peer.uid() == self.uid || peer.uid() == 0);
            let Ok(permit) = room.clone().try_acquire_owned() else { continue };
            if allowed {
                let (handler, shutdown) = (handler.clone(), shutdown.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = converse(stream, handler, shutdown).await {
                        tracing::debug!(%error, "control connection ended");
                    }
                });
            }
        }
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_WORDS, all).await.is_err() {
            tracing::debug!("control connections cut at shutdown");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A socket that stays behind is recognised as dead and replaced.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "control socket not removed");
        }
    }
}

async fn converse(
    stream: UnixStream,
    handler: Arc<dyn ControlHandler>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let line = tokio::select! {
            line = tokio::time::timeout(IDLE, read_line(&mut reader)) => line,
            () = shutdown.cancelled() => return Ok(()),
        };
        let Ok(Some(line)) = line.unwrap_or(Ok(None)) else { return Ok(()) };
        match parse(&line) {
            Ok(request) => {
                let is_unmount = matches!(request, Request::Unmount { .. });
                let cut = async {
                    shutdown.cancelled().await;
                    tokio::time::sleep(MOMENT).await;
                };
                tokio::select! {
                    answered = answer(request, &handler, &mut reader, &mut writer) => answered?,
                    () = cut, if !is_unmount => return Ok(()),
                }
            }
            Err(error) => send(&mut writer, &Reply::Error(error)).await?,
        }
    }
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.take(REQUEST_MAX).read_until(b'\n', &mut line).await?;
    if read == 0 || line.last() != Some(&b'\n') { Ok(None) } else { Ok(Some(line)) }
}

fn parse(line: &[u8]) -> Result<Request, ControlError> {
    let refuse = |why: String| ControlError {
        what: "control request".to_owned(),
        why,
        remedy: "use the 'onedrivefs' that the daemon was started from".to_owned(),
        exit_code: exit::FAILURE,
    };
    let envelope: Envelope = serde_json::from_slice(line).map_err(|error| refuse(error.to_string()))?;
    if envelope.protocol != PROTOCOL {
        return Err(refuse(format!("it speaks version {}, the daemon {PROTOCOL}", envelope.protocol)));
    }
    serde_json::from_value(envelope.request).map_err(|error| refuse(error.to_string()))
}

async fn answer(
    request: Request,
    handler: &Arc<dyn ControlHandler>,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let (sink, progress) = watch::channel(Progress::default());
    let handler = handler.clone();
    let detached = matches!(request, Request::Unmount { .. });
    let task = async move { run(request, &*handler, sink).await };
    let mut work = JoinSet::new();
    if detached {
        // An unmount goes on even if nobody waits for it any more.
        let task = tokio::spawn(task);
        work.spawn(async move { task.await.unwrap_or_else(|error| Err(died(&error))) });
    } else {
        work.spawn(task);
    }
    let reply = stream_progress(work, progress, reader, writer).await?;
    match reply {
        Some(reply) => send(writer, &reply).await,
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Sends progress until the work is done; nothing if the client went away first.
async fn stream_progress(
    mut work: JoinSet<Result<Answer, ControlError>>,
    mut progress: watch::Receiver<Progress>,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<Option<Reply>> {
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + BEAT, BEAT);
    let mut last = Progress::default();
    let mut told = tokio::time::Instant::now() - BEAT;
    loop {
        let current = tokio::select! {
            biased;
            done = work.join_next() => {
                let done = done.unwrap_or(Ok(Ok(Answer::Done))).unwrap_or_else(|error| Err(died(&error)));
                return Ok(Some(match done {
                    Ok(answer) => Reply::Answer { answer },
                    Err(error) => Reply::Error(error),
                }));
            }
            // The end, or a client that does not wait for its turn: cut either way.
            _ = reader.fill_buf() => return Ok(None),
            Ok(()) = progress.changed() => progress.borrow_and_update().clone(),
            _ = beat.tick() => { told = tokio::time::Instant::now() - BEAT; progress.borrow().clone() }
        };
        if told.elapsed() >= BEAT || (current != last && told.elapsed() >= BEAT / 10) {
            send(writer, &Reply::Progress(current.clone())).await?;
            (last, told) = (current, tokio::time::Instant::now());
        }
    }
}

async fn run(
    request: Request,
    handler: &dyn ControlHandler,
    sink: ProgressSink,
) -> Result<Answer, ControlError> {
    match request {
        Request::Ping => Ok(Answer::Done),
        Request::Status => Ok(Answer::Status(Box::new(handler.status().await))),
        Request::Sync { path, timeout_ms } => {
            let timeout = timeout_ms.map(Duration::from_millis);
            handler.sync(path.0, timeout, sink).await.map(Answer::Outcome)
        }
        Request::Unmount { drain_timeout_ms, lazy } => {
            let drain = drain_timeout_ms.map(Duration::from_millis);
            handler.unmount(drain, lazy, sink).await.map(Answer::Outcome)
        }
        Request::Yield => handler.yield_state().await.map(|()| Answer::Done),
        Request::Refresh { path } => handler.refresh(path.0).await.map(|()| Answer::Done),
        Request::Retry { path } => handler.retry(path.0).await.map(Answer::Retried),
        Request::Conflicts { path } => handler.conflicts(path.0).await.map(Answer::Conflicts),
        Request::Settle { path, keep } => handler.settle(path.0, keep).await.map(|()| Answer::Done),
        Request::Confirm => handler.confirm().await.map(Answer::Confirmed),
        Request::Pin { path, wait } => handler.pin(path.0, wait, sink).await.map(Answer::Pinned),
        Request::Unpin { path } => handler.unpin(path.0).await.map(Answer::Unpinned),
        Request::Free { path } => handler.free(path.0).await.map(Answer::Freed),
        Request::Thumbnails { path } => handler.thumbnails(path.0).await.map(Answer::Thumbnails),
        Request::Cache { path, list } => handler.cache(path.0, list).await.map(Answer::Cache),
    }
}

async fn send(writer: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

fn died(error: &tokio::task::JoinError) -> ControlError {
    tracing::error!(%error, "control request died");
    ControlError {
        what: "control request".to_owned(),
        why: "the daemon failed while it served it".to_owned(),
        remedy: "see the daemon's log".to_owned(),
        exit_code: exit::FAILURE,
    }
}
