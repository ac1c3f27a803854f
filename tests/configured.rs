//! A user's machine with a configuration file, and a service: mounts by name.

mod mounted_support;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use mounted_support::service::Service;
use mounted_support::{can_mount, process, text};
use onedrivefs::emulator::Flavour;

struct User {
    home: tempfile::TempDir,
    service: Service,
}

impl User {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("odfs-").tempdir().expect("a directory");
        Self { home, service: Service::start(Flavour::Business) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The configuration file: these lines after defaults that lead to the service.
    fn configure(&self, lines: &str) {
        std::fs::create_dir_all(self.path("config/onedrivefs")).expect("a directory");
        let url = self.service.url();
        let defaults =
            format!("[defaults]\ngraph-url = \"{url}\"\nmin-free = \"1MiB\"\nsettle = \"100ms\"\n");
        std::fs::write(self.path("config/onedrivefs/config.toml"), defaults + lines).expect("a file");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onedrivefs"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("ONEDRIVEFS_") || name.starts_with("XDG_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.home.path()).env("XDG_RUNTIME_DIR", self.home.path());
        command.env("XDG_STATE_HOME", self.path("state")).env("XDG_CACHE_HOME", self.path("cache"));
        command.env("XDG_CONFIG_HOME", self.path("config")).env("ONEDRIVEFS_ACCESS_TOKEN", "anything");
        command.args(arguments).stdin(Stdio::null());
        process::output(command)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for name in ["one", "two"] {
            if process::is_mounted(&self.path(name)) {
                self.run(&["umount", &text(&self.path(name))]);
                process::force_unmount(&self.path(name));
            }
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

// S284.
#[test]
fn mounts_of_the_file_are_made_by_name_and_all_at_once() {
    if !can_mount() {
        return;
    }
    let user = User::new();
    for name in ["one", "two", "three"] {
        std::fs::create_dir(user.path(name)).expect("a directory");
    }
    let library = user.service.control.drive_ids()[1].clone();
    user.configure(&format!(
        "[mounts.own]\ndrive = \"me\"\nmountpoint = \"~/one\"\nfile-mode = 640\n\
         [mounts.library]\ndrive = \"{library}\"\nmountpoint = \"~/two\"\nread-only = true\n\
         [mounts.broken]\ndrive = \"b!none\"\nmountpoint = \"~/three\"\n\
         [mounts.elsewhere]\ndrive = \"me\"\n"
    ));
    let nowhere = user.run(&["mount", "elsewhere"]);
    assert_eq!(nowhere.status.code(), Some(2), "{}", said(&nowhere));
    assert!(said(&nowhere).contains("add mountpoint"), "{}", said(&nowhere));
    user.service.write("seen", b"x");
    let own = user.run(&["mount", "own"]);
    assert!(own.status.success(), "{}", said(&own));
    std::fs::write(user.path("one/made"), "x").expect("a file");
    let mode = std::os::unix::fs::MetadataExt::mode(&user.path("one/seen").metadata().expect("it is there"));
    assert_eq!(mode & 0o777, 0o640, "as the file has it");
    let all = user.run(&["mount", "--all"]);
    assert!(process::is_mounted(&user.path("two")), "{}", said(&all));
    assert!(!all.status.success(), "one of them cannot be mounted");
    assert!(said(&all).lines().count() == 1 && said(&all).contains("b!none"), "{}", said(&all));
    let refused = std::fs::write(user.path("two/made"), "x").expect_err("it is read-only");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    for name in ["one", "two"] {
        let output = user.run(&["umount", &text(&user.path(name))]);
        assert!(output.status.success(), "{}", said(&output));
    }
    // With a directory of one's own, and what is said comes before the file.
    let output = user.run(&["mount", "own", &text(&user.path("two")), "--read-only"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(user.path("two/made").exists(), "the same drive, the same state");
    assert!(std::fs::write(user.path("two/more"), "x").is_err());
}
