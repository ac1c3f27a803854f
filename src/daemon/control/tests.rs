//! Client and server against each other, over a socket in a directory of the test's own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::Environment;

/// Answers `sync` when told to, and notes whether its wait was dropped.
#[derive(Default)]
struct Handler {
    go_on: Notify,
    dropped: Arc<Notify>,
    unmounted: Notify,
}

struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn status() -> Status {
    Status {
        mountpoint: WirePath("/mnt/one".into()),
        state: MountState::Online,
        drive: None,
        drives: Vec::new(),
        account: "default".into(),
        state_dir: WirePath::default(),
        cache_dir: WirePath::default(),
        read_only: false,
        pending: 1,
        parked: vec![Parked {
            path: "a".into(),
            kind: ParkKind::Quota,
            reason: "quota".into(),
            remedy: "make room".into(),
            retry_at: None,
            behind: vec![],
        }],
        waiting: vec![],
        unprotected: 0,
        uploads: vec![],
        last_delta: None,
        push: false,
        cache: CacheUse::default(),
        items: 7,
        reading: None,
        requests: RequestCounts::default(),
        notices: vec![],
        pid: 1,
        version: "0".into(),
    }
}

impl ControlHandler for Handler {
    fn status(&self) -> BoxFuture<'_, Status> {
        Box::pin(async { status() })
    }

    fn sync(
        &self,
        path: PathBuf,
        _: Option<Duration>,
        progress: ProgressSink,
    ) -> BoxFuture<'_, Result<Outcome, ControlError>> {
        Box::pin(async move {
            let _noted = OnDrop(self.dropped.clone());
            let current = Some(path.display().to_string());
            progress.send_replace(Progress { pending: 3, sent: 1, total: 9, current });
            self.go_on.notified().await;
            Ok(Outcome::default())
        })
    }

    fn unmount(
        &self,
        _: Option<Duration>,
        _: bool,
        _: ProgressSink,
    ) -> BoxFuture<'_, Result<Outcome, ControlError>> {
        Box::pin(async move {
            self.go_on.notified().await;
            self.unmounted.notify_one();
            Ok(Outcome { unsent: 2, ..Outcome::default() })
        })
    }

    fn yield_state(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async { Ok(()) })
    }

    fn refresh(&self, _: PathBuf) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async { panic!("a handler that fails") })
    }

    fn confirm(&self) -> BoxFuture<'_, Result<u64, ControlError>> {
        Box::pin(async { Ok(1001) })
    }

    fn retry(&self, _: PathBuf) -> BoxFuture<'_, Result<u64, ControlError>> {
        Box::pin(async { Ok(5) })
    }

    fn conflicts(&self, _: PathBuf) -> BoxFuture<'_, Result<Vec<ConflictLine>, ControlError>> {
        Box::pin(async { Ok(vec![]) })
    }

    fn settle(&self, _: PathBuf, _: Keep) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async { Ok(()) })
    }

    fn pin(&self, _: PathBuf, _: bool, _: ProgressSink) -> BoxFuture<'_, Result<PinOutcome, ControlError>> {
        Box::pin(async { Ok(PinOutcome::default()) })
    }

    fn unpin(&self, _: PathBuf) -> BoxFuture<'_, Result<u64, ControlError>> {
        Box::pin(async { Ok(1) })
    }

    fn free(&self, _: PathBuf) -> BoxFuture<'_, Result<FreeOutcome, ControlError>> {
        Box::pin(async { Ok(FreeOutcome::default()) })
    }

    fn thumbnails(&self, _: PathBuf) -> BoxFuture<'_, Result<Vec<ThumbnailLine>, ControlError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn cache(&self, _: PathBuf, _: bool) -> BoxFuture<'_, Result<Vec<CacheView>, ControlError>> {
        Box::pin(async { Ok(vec![CacheView::default()]) })
    }
}

struct Running {
    home: tempfile::TempDir,
    environment: Environment,
    handler: Arc<Handler>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let runtime = home.path().as_os_str().to_owned();
        let own = Environment::of_process();
        let environment = Environment::new(own.uid, own.gid, [("XDG_RUNTIME_DIR".to_owned(), runtime)]);
        let (handler, shutdown) = (Arc::new(Handler::default()), CancellationToken::new());
        let server = Server::bind(&environment, Path::new("/mnt/one")).unwrap();
        let served = tokio::spawn(server.serve(handler.clone(), shutdown.clone()));
        Self { home, environment, handler, shutdown, served }
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("onedrivefs/mnt-one.sock")
    }

    /// Asks in a thread of its own; `handler` may go on once the first progress has been seen.
    async fn ask(&self, request: Request) -> (Result<Answer, ControlError>, Vec<Progress>) {
        let (environment, handler) = (self.environment.clone(), self.handler.clone());
        tokio::task::spawn_blocking(move || {
            let mut client = Client::of_mount(&environment, Path::new("/mnt/one")).unwrap();
            let mut seen = Vec::new();
            let answer = client.ask(&request, &mut |progress| {
                seen.push(progress.clone());
                handler.go_on.notify_one();
            });
            (answer, seen)
        })
        .await
        .unwrap()
    }
}

// S55: the file's mode is what the kernel checks.
#[tokio::test(flavor = "multi_thread")]
async fn status_crosses_a_socket_that_only_its_user_can_open() {
    let running = Running::start();
    let (answer, _) = running.ask(Request::Status).await;
    assert_eq!(answer, Ok(Answer::Status(Box::new(status()))));
    assert_eq!(running.ask(Request::Retry { path: WirePath::default() }).await.0, Ok(Answer::Retried(5)));
    assert_eq!(running.ask(Request::Confirm).await.0, Ok(Answer::Confirmed(1001)));
    let mode = std::fs::metadata(running.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_tells_how_far_it_is_and_then_how_it_ended() {
    let running = Running::start();
    let path = WirePath("some/where".into());
    let (answer, seen) = running.ask(Request::Sync { path, timeout_ms: None }).await;
    assert_eq!(answer, Ok(Answer::Outcome(Outcome::default())));
    assert_eq!(seen.first().and_then(|progress| progress.current.clone()).as_deref(), Some("some/where"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_its_wait_but_not_an_unmount() {
    let running = Running::start();
    let stream = std::os::unix::net::UnixStream::connect(running.socket()).unwrap();
    let sync = "{\"protocol\":1,\"request\":\"sync\",\"path\":\"\",\"timeout_ms\":null}\n";
    std::io::Write::write_all(&mut &stream, sync.as_bytes()).unwrap();
    // A wait that has not begun when the client goes is never begun.
    std::io::Read::read_exact(&mut &stream, &mut [0]).unwrap();
    drop(stream);
    running.handler.dropped.notified().await;
    let stream = std::os::unix::net::UnixStream::connect(running.socket()).unwrap();
    let unmount = "{\"protocol\":1,\"request\":\"unmount\",\"drain_timeout_ms\":null}\n";
    std::io::Write::write_all(&mut &stream, unmount.as_bytes()).unwrap();
    drop(stream);
    running.handler.go_on.notify_one();
    running.handler.unmounted.notified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_and_nonsense_are_refused_in_words() {
    let running = Running::start();
    let socket = running.socket();
    let lines = tokio::task::spawn_blocking(move || {
        let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let mut reader = std::io::BufReader::new(&stream);
        let mut ask = |line: &str| {
            std::io::Write::write_all(&mut &stream, line.as_bytes()).unwrap();
            let mut reply = String::new();
            std::io::BufRead::read_line(&mut reader, &mut reply).unwrap();
            reply
        };
        [ask("{\"protocol\":9,\"request\":\"ping\"}\n"), ask("nonsense\n"), ask("{\"protocol\":1}\n")]
    });
    let [version, nonsense, nothing] = lines.await.unwrap();
    assert!(version.contains("it speaks version 9, the daemon 1"), "{version}");
    assert!(nonsense.contains("\"reply\":\"error\"") && nothing.contains("\"reply\":\"error\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_answers_with_an_error() {
    let running = Running::start();
    let (answer, _) = running.ask(Request::Refresh { path: WirePath::default() }).await;
    assert!(answer.unwrap_err().why.contains("failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_sockets_are_reported_and_cleared_and_replaced() {
    let running = Running::start();
    assert!(Server::bind(&running.environment, Path::new("/mnt/one")).is_err(), "somebody listens");
    let directory = running.home.path().join("onedrivefs");
    drop(std::os::unix::net::UnixListener::bind(directory.join("mnt-dead.sock")).unwrap());
    drop(std::os::unix::net::UnixListener::bind(directory.join("mnt-two.sock")).unwrap());
    Server::bind(&running.environment, Path::new("/mnt/two")).unwrap();
    let environment = running.environment.clone();
    let found = tokio::task::spawn_blocking(move || find_all(&environment)).await.unwrap();
    let kinds: Vec<bool> = found.iter().map(|one| matches!(one.presence, Presence::Alive(_))).collect();
    assert_eq!(kinds, [false, true]);
    assert!(!directory.join("mnt-dead.sock").exists());
    running.shutdown.cancel();
    let socket = running.socket();
    running.served.await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mount_of_a_path_is_found_from_inside() {
    let running = Running::start();
    let environment = running.environment.clone();
    let found = tokio::task::spawn_blocking(move || {
        let inside = Client::of_path(&environment, Path::new("/mnt/one/a/b")).map(|(_, mount)| mount);
        (inside, Client::of_path(&environment, Path::new("/mnt/other")).is_none())
    });
    assert_eq!(found.await.unwrap(), (Some(PathBuf::from("/mnt/one")), true));
}

#[test]
fn paths_that_are_not_text_cross_as_bytes() {
    for bytes in [&b"plain"[..], b"\xff\xfe", b""] {
        use std::os::unix::ffi::OsStrExt;
        let path = WirePath(Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned());
        let text = serde_json::to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<WirePath>(&text).unwrap(), path);
    }
}

/// Asks on a stream of its own, under a clock that does not move while somebody works.
async fn begin(running: &Running, request: &str) -> tokio::io::BufReader<tokio::net::UnixStream> {
    let mut stream = tokio::net::UnixStream::connect(running.socket()).await.unwrap();
    let line = format!("{{\"protocol\":1,\"request\":{request}}}\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, line.as_bytes()).await.unwrap();
    let mut reader = tokio::io::BufReader::new(stream);
    assert!(next(&mut reader).await.is_some_and(|line| line.contains("progress")), "it has begun");
    reader
}

async fn next(reader: &mut tokio::io::BufReader<tokio::net::UnixStream>) -> Option<String> {
    let mut line = String::new();
    let read = tokio::io::AsyncBufReadExt::read_line(reader, &mut line).await.unwrap();
    (read > 0).then_some(line)
}

#[tokio::test(start_paused = true)]
async fn an_unmount_is_answered_before_the_daemon_ends_and_other_requests_are_cut() {
    let running = Running::start();
    let mut unmount = begin(&running, "\"unmount\",\"drain_timeout_ms\":null").await;
    let mut sync = begin(&running, "\"sync\",\"path\":\"\",\"timeout_ms\":null").await;
    running.shutdown.cancel();
    while let Some(line) = next(&mut sync).await {
        assert!(line.contains("progress"), "{line}");
    }
    running.handler.go_on.notify_one();
    let mut last = String::new();
    while let Some(line) = next(&mut unmount).await {
        last = line;
    }
    assert!(last.contains("answer"), "{last}");
    running.served.await.unwrap();
}
