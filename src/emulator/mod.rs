//! The service in a process: Microsoft Graph's drive API for `demo`, tests and benchmarks.
//!
//! Strict where the service is strict; every rule names the section of the fact sheet (graph-api) it comes from.
//! Shares no types with the client, so that both cannot share a mistake; of this crate it uses only [`crate::clock`].
//!
//! Three planes share one address: `/v1.0` (Graph, bearer token), `/_data` (pre-authenticated URLs, which refuse an
//! `Authorization` header) and `/{tenant}/oauth2/v2.0` (tokens); beside them what a machine asks its surroundings
//! (`machine`). `/_control` is for tests. All state is behind one lock that
//! is never held across an await; all time and all randomness come from the clock and the id seed, so that two runs
//! with the same requests give the same answers.

mod applications;
mod batch;
mod config;
mod content;
mod control;
mod control_http;
mod copy;
mod delta;
mod drive;
mod error;
mod faults;
mod flavour;
mod graph;
mod hash;
mod http;
mod ids;
mod items;
mod list;
mod log;
mod machine;
mod made;
mod mime;
mod names;
mod oauth;
mod pattern;
mod push;
mod rare;
mod render;
mod route;
mod samples;
mod seed;
mod server;
mod service;
mod shape;
mod state;
mod thumbnails;
mod time;
mod transfer;
mod tree;
mod truth;
mod upload;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

pub use applications::{AppSecret, Federation, Registered};
pub use config::{EmulatorConfig, ResyncLocation, Rewrite, Seed, SiteConfig, Switches, Tokens};
pub use control::{Control, Edit, Mark};
pub use delta::Resync;
pub use faults::{Fault, FaultAction, Throttle};
pub use flavour::Flavour;
pub use http::{Body, ConnectionReset, empty_body, full_body};
pub use log::RequestRecord;
pub use machine::Machine;
pub use server::TlsFiles;
pub use tree::LockShape;

use crate::clock::Clock;
use shape::Link;
use state::State;

/// Why an emulator could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The data directory or the seed directory cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Certificate or key.
    #[error("TLS files: {0}")]
    Tls(String),
}

/// The service. Clones share everything.
#[derive(Debug, Clone)]
pub struct Emulator {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    base_url: Option<String>,
    id_seed: u64,
    release: watch::Sender<u64>,
    changes: watch::Sender<push::Changes>,
    close_push: watch::Sender<u64>,
    _dir: tempfile::TempDir,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the push channels what has changed.
    pub(crate) fn announce(&self, state: &State) {
        let now = push::Changes(state.drives.iter().map(|d| d.tree.last_change).collect());
        self.changes.send_if_modified(|seen| {
            let moved = *seen != now;
            *seen = now;
            moved
        });
    }

    /// Waits until stalled requests are released.
    pub(crate) async fn released(&self) {
        let mut release = self.release.subscribe();
        // Ends too when the emulator is gone.
        let _ = release.changed().await;
    }
}

impl Emulator {
    /// Makes a service with its drives and seeds the first one.
    pub fn new(config: EmulatorConfig) -> Result<Self, EmulatorError> {
        let now = time::from_system(config.clock.wall());
        let at = |path: &std::path::Path| {
            let path = path.to_owned();
            move |source| EmulatorError::Io { path, source }
        };
        let above = config.data_dir.clone().unwrap_or_else(std::env::temp_dir);
        std::fs::create_dir_all(&above).map_err(at(&above))?;
        let dir = tempfile::tempdir_in(&above).map_err(at(&above))?;
        let mut state = State::new(config.clone(), dir.path().to_owned(), now);
        seed::plant(&mut state, &config.seed, now)?;
        state.apply_switches();
        let shared = Shared {
            state: Mutex::new(state),
            clock: Arc::clone(&config.clock),
            base_url: config.base_url.clone(),
            id_seed: config.id_seed,
            release: watch::Sender::new(0),
            changes: watch::Sender::default(),
            close_push: watch::Sender::new(0),
            _dir: dir,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Answers one request without sockets; each call is a connection of its own.
    ///
    /// [`ConnectionReset`]: a fault took the connection away. A break within the body is an error of the body's
    /// stream. Cancel-safe: dropping the future is a client that went away.
    pub async fn handle(
        &self,
        request: ::http::Request<Body>,
    ) -> Result<::http::Response<Body>, ConnectionReset> {
        service::serve(&self.shared, &Arc::new(Link::default()), "http", request).await
    }

    /// Answers a request for the push channel without sockets: the client's end of the WebSocket is in the response,
    /// where it was let in.
    pub fn connect(
        &self,
        request: &::http::Request<()>,
    ) -> ::http::Response<Option<tokio::io::DuplexStream>> {
        push::connect(&self.shared, request)
    }

    /// What tests turn and look at.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.shared))
    }
}
