//! The client and the emulator in one process, without sockets, on a paused clock.

#[path = "../sync_support/transport.rs"]
mod transport;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use onedrivefs::auth::{AccessToken, AuthError, TokenSource};
use onedrivefs::clock::{Clock, SeededClock};
use onedrivefs::emulator::{Control, Emulator, EmulatorConfig, Flavour};
use onedrivefs::graph::{BodyStream, Graph, GraphConfig, GraphError, Priority};
use onedrivefs::model::{DriveId, ItemId};
pub use transport::InProcess;

pub const P: Priority = Priority::Interactive;

/// Every kind of drive there is.
pub const FLAVOURS: [Flavour; 4] =
    [Flavour::Personal, Flavour::PersonalNew, Flavour::Business, Flavour::DocumentLibrary];

/// Gives a new token after each refresh.
#[derive(Debug, Default)]
struct Tokens(std::sync::atomic::AtomicU64);

impl TokenSource for Tokens {
    fn token(&self) -> BoxFuture<'_, Result<AccessToken, AuthError>> {
        let number = self.0.load(std::sync::atomic::Ordering::SeqCst);
        Box::pin(async move { Ok(AccessToken::new(format!("token-{number}"))) })
    }

    fn refresh<'a>(
        &'a self,
        _stale: &'a AccessToken,
        _claims: Option<String>,
    ) -> BoxFuture<'a, Result<AccessToken, AuthError>> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.token()
    }
}

/// A service with its client, and the user's drive.
pub struct World {
    pub graph: Graph,
    pub control: Control,
    pub drive: DriveId,
    pub root: ItemId,
    pub flavour: Flavour,
}

impl World {
    pub async fn new(flavour: Flavour) -> Self {
        Self::with(flavour, |_| {}).await
    }

    pub async fn with(flavour: Flavour, change: impl FnOnce(&mut EmulatorConfig)) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SeededClock::with_seed(1));
        let mut config = EmulatorConfig { flavour, clock: Arc::clone(&clock), ..EmulatorConfig::default() };
        change(&mut config);
        let emulator = Emulator::new(config).expect("an emulator");
        let control = emulator.control();
        let config = GraphConfig {
            graph_url: "http://localhost".parse().expect("an address"),
            ..GraphConfig::default()
        };
        let graph = Graph::new(config, Arc::new(InProcess(emulator)), Arc::new(Tokens::default()), clock)
            .expect("a client");
        let drive = graph.own_drive().await.expect("the user's drive").id;
        let root = graph.root(&drive, P).await.expect("its root").id;
        Self { graph, control, drive, root, flavour }
    }

    pub fn is_business(&self) -> bool {
        matches!(self.flavour, Flavour::Business | Flavour::DocumentLibrary)
    }
}

/// All of a body.
pub async fn drain(mut body: BodyStream) -> Result<Vec<u8>, GraphError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

/// Bytes that differ from their neighbours.
pub fn ramp(len: usize) -> Bytes {
    (0..len).map(|index| (index % 251) as u8).collect()
}
