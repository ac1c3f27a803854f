//! A service, and the state of a machine that is signed in to it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::machine::{Boot, Disk, Machine};
use super::mounted_support::process;
use super::mounted_support::service::Service;
use onedrivefs::emulator::Flavour;

/// A service with a few files in it, and a sign-in to it.
pub struct Setting {
    work: tempfile::TempDir,
    pub service: Service,
}

impl Setting {
    pub fn new() -> Self {
        let work = tempfile::Builder::new().prefix("odfs-signed-in-").tempdir().expect("a directory");
        let setting = Self { work, service: Service::start(Flavour::Business) };
        setting.service.write("hello.txt", b"hello");
        setting.service.write("folder/inside.txt", b"inside");
        let mut login = Command::new(env!("CARGO_BIN_EXE_onedrivefs"));
        login.env_clear().env("XDG_STATE_HOME", setting.work.path()).env("HOME", setting.work.path());
        login.args(["login", "--device-code", "--client-id", "c"]);
        login.args(["--graph-url", &setting.service.url(), "--login-url", &setting.service.url()]);
        login.stdin(Stdio::null());
        let output = process::output(login);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        setting
    }

    /// What is to be `/var/lib/onedrivefs`.
    pub fn state(&self) -> PathBuf {
        self.work.path().join("onedrivefs")
    }

    /// Boots a machine that is signed in, with the service within its reach.
    pub fn boot(&self, files: &[(&str, &str)], enabled: &[&str]) -> Machine {
        self.boot_on(Disk::Ext4, files, enabled)
    }

    pub fn boot_on(&self, disk: Disk, files: &[(&str, &str)], enabled: &[&str]) -> Machine {
        let state: &Path = &self.state();
        Machine::boot(&Boot { disk, network: true, state: Some(state), files, enabled })
    }
}
