//! The emulator on a port of its own, in threads of its own.

use std::net::SocketAddr;
use std::sync::mpsc;

use onedrivefs::emulator::{Control, Edit, Emulator, EmulatorConfig, Flavour};

pub struct Service {
    pub flavour: Flavour,
    pub control: Control,
    address: SocketAddr,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Service {
    pub fn start(flavour: Flavour) -> Self {
        Self::with(EmulatorConfig { flavour, ..EmulatorConfig::default() })
    }

    pub fn with(config: EmulatorConfig) -> Self {
        let flavour = config.flavour;
        let emulator = Emulator::new(config).expect("the service starts");
        let control = emulator.control();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, address) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
                ready.send(listener.local_addr().expect("it is bound")).expect("somebody waits");
                let end = async {
                    let _ = stopped.await;
                };
                emulator.serve(listener, end).await.expect("it serves");
            });
        });
        Self { flavour, control, address: address.recv().expect("it listens"), _stop: stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Another client writes a file.
    pub fn write(&self, path: &str, content: &[u8]) {
        let edit = Edit::Write { path: path.into(), content: content.into() };
        self.control.edit_as_other(&edit).expect("another client may write");
    }

    /// Another client does something.
    pub fn edit(&self, edit: &Edit) {
        self.control.edit_as_other(edit).expect("another client may do so");
    }
}
