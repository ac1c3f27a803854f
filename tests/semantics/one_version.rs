//! A download under which something changes, at each of its moments.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use onedrivefs::emulator::{Control, Edit, Flavour};
use onedrivefs::graph::transport::{Lane, RawBody, RawSocket, Transport, TransportError};
use onedrivefs::vfs::Filesystem;
use tokio::time::sleep;

use crate::sync_support::Service;
use crate::sync_support::transport::InProcess;
use crate::{A_ROUND, READ};

/// More than is fetched at once.
const SIZE: usize = 2 << 20;
const PIECE: usize = 128 << 10;

type Act = Arc<dyn Fn(&Control) + Send + Sync>;

/// Does something before a request, or before a part of an answer's body, by its number.
struct Meddler {
    service: InProcess,
    control: Control,
    moments: Arc<AtomicU64>,
    at: u64,
    act: Act,
}

impl std::fmt::Debug for Meddler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Meddler({})", self.at)
    }
}

impl Meddler {
    fn moment(&self) -> impl Fn() + Send + Sync + 'static {
        let (moments, at, act, control) =
            (self.moments.clone(), self.at, self.act.clone(), self.control.clone());
        move || {
            if moments.fetch_add(1, Ordering::SeqCst) == at {
                act(&control);
            }
        }
    }
}

impl Transport for Meddler {
    fn send(
        &self,
        request: Request<Bytes>,
        _lane: Lane,
    ) -> BoxFuture<'_, Result<Response<RawBody>, TransportError>> {
        Box::pin(async move {
            let (before, within) = (self.moment(), self.moment());
            before();
            let answer = self.service.answer(request).await?;
            Ok(answer.map(|body| -> RawBody { Box::pin(body.inspect(move |_| within())) }))
        })
    }

    fn switch(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Option<RawSocket>>, TransportError>> {
        self.service.switch(request)
    }
}

/// What the service's data host is like.
#[derive(Clone, Copy, Debug)]
struct Host {
    flavour: Flavour,
    tells_version: bool,
    knows_ranges: bool,
}

const HOSTS: [Host; 4] = [
    Host { flavour: Flavour::Business, tells_version: true, knows_ranges: true },
    Host { flavour: Flavour::Business, tells_version: false, knows_ranges: true },
    Host { flavour: Flavour::Personal, tells_version: false, knows_ranges: true },
    Host { flavour: Flavour::DocumentLibrary, tells_version: true, knows_ranges: false },
];

/// Reads a file while `act` happens at that moment; its pieces, and whether the moment came.
async fn read_while(host: Host, at: u64, act: Act, old: &str) -> (Service, Vec<Result<Bytes, i32>>, bool) {
    let service = Service::new(host.flavour);
    service.write_elsewhere("a.bin", old);
    service.control.switch(|switches| {
        switches.download_e_tag = host.tells_version;
        switches.ignore_range = !host.knows_ranges;
    });
    let moments = Arc::new(AtomicU64::new(u64::MAX / 2));
    let transport = Meddler {
        service: InProcess(service.emulator().clone()),
        control: service.control.clone(),
        moments: moments.clone(),
        at,
        act,
    };
    let machine = service.machine_of(|setup| setup.transport = Arc::new(transport)).await;
    machine.look().await;
    let open = machine.open("a.bin", READ).await.unwrap();
    moments.store(0, Ordering::SeqCst);
    let mut pieces = Vec::new();
    for offset in (0..SIZE).step_by(PIECE) {
        let piece = machine.files.read(open.0, open.1, offset as u64, PIECE as u32).await;
        pieces.push(piece.map_err(|error| error.errno()));
    }
    let came = moments.load(Ordering::SeqCst) > at;
    machine.close(open).await.unwrap();
    moments.store(u64::MAX / 2, Ordering::SeqCst);
    sleep(A_ROUND).await;
    let now = machine.read("a.bin").await.unwrap();
    assert!(now.as_bytes() == &service.control.content("a.bin").unwrap()[..], "{host:?} {at}");
    (service, pieces, came)
}

/// Every moment where all tests run; elsewhere one in three.
fn stride() -> usize {
    if std::env::var("CI").is_ok_and(|value| value == "true") { 1 } else { 3 }
}

// S12, S13.
#[tokio::test(start_paused = true)]
async fn an_edit_at_any_moment_of_a_download_mixes_no_versions() {
    let (old, new) = ("old.".repeat(SIZE / 4), "NEW!".repeat(SIZE / 4));
    for host in HOSTS {
        let mut moments = 0;
        for at in (0..).step_by(stride()) {
            let new = new.clone();
            let edit = move |control: &Control| {
                let edit = Edit::Write { path: "a.bin".into(), content: new.clone().into() };
                control.edit_as_other(&edit).unwrap();
            };
            let (_, pieces, came) = read_while(host, at, Arc::new(edit), &old).await;
            let is_old = |piece: &Result<Bytes, i32>| match piece {
                Ok(bytes) => bytes[..] == old.as_bytes()[..PIECE],
                Err(errno) => *errno == libc::EIO,
            };
            assert!(pieces.iter().all(is_old), "{host:?} moment {at}");
            if !came {
                assert!(pieces.iter().all(Result::is_ok), "{host:?}: nothing happened");
                break;
            }
            moments += 1;
        }
        assert!(moments > 3, "{host:?}: {moments}");
    }
}

// S12.
#[tokio::test(start_paused = true)]
async fn addresses_that_expire_at_any_moment_of_a_download_are_asked_for_anew() {
    let old = "old.".repeat(SIZE / 4);
    for host in HOSTS {
        for at in (0..).step_by(stride()) {
            let expire = |control: &Control| control.expire_download_urls();
            let (_, pieces, came) = read_while(host, at, Arc::new(expire), &old).await;
            for (number, piece) in pieces.iter().enumerate() {
                let bytes = piece.as_ref().unwrap_or_else(|errno| panic!("{host:?} {at} {number}: {errno}"));
                assert!(bytes[..] == old.as_bytes()[..PIECE], "{host:?} moment {at}");
            }
            if !came {
                break;
            }
        }
    }
}
