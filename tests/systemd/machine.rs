//! A machine with real systemd as PID 1: this system's own files under an overlay, booted by `systemd-nspawn`.
//!
//! It shares the network of the host, so that the emulator on loopback is within its reach, unless it is booted apart.
//! What runs in it is looked at from outside: `/proc/PID/mountinfo` of its PID 1 wakes no automount and resets no idle
//! clock.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::mounted_support::process;

/// Longest wait for anything, on a slow and loaded machine.
pub const LONG: Duration = Duration::from_secs(180);
/// The user of tests that are not about root.
pub const USER: u32 = 1700;

/// Where state and cache of the system's mounts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// On an ext4 of their own, as on most machines.
    Ext4,
    /// On the overlay itself.
    Overlay,
}

/// How a machine is booted.
pub struct Boot<'a> {
    pub disk: Disk,
    /// Whether the host's network is there.
    pub network: bool,
    /// The state that it starts with: the content of `/var/lib/onedrivefs`.
    pub state: Option<&'a Path>,
    /// Files of its own: path and content.
    pub files: &'a [(&'a str, &'a str)],
    /// Units that are wanted by `multi-user.target`.
    pub enabled: &'a [&'a str],
}

/// A running machine. Halted, and everything removed, when dropped.
pub struct Machine {
    work: tempfile::TempDir,
    nspawn: Option<Child>,
    /// Its PID 1, as the host sees it.
    leader: u32,
    /// From the start to `multi-user.target`.
    pub booted_in: Duration,
}

impl Machine {
    pub fn boot(boot: &Boot<'_>) -> Self {
        let work = tempfile::Builder::new().prefix("odfs-systemd-").tempdir().expect("a directory");
        let mut machine = Self { work, nspawn: None, leader: 0, booted_in: Duration::ZERO };
        machine.make_root(boot);
        machine.make_disk(boot);
        machine.start(boot);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn root(&self, path: &str) -> PathBuf {
        self.path("root").join(path.trim_start_matches('/'))
    }

    fn make_root(&self, boot: &Boot<'_>) {
        for name in ["upper", "root"] {
            fs::create_dir(self.path(name)).expect("a directory");
        }
        mount("tmpfs", self.path("upper"), "tmpfs", MountFlags::empty(), c"size=12g,mode=755")
            .expect("tmpfs");
        for name in ["upper/files", "upper/work"] {
            fs::create_dir(self.path(name)).expect("a directory");
        }
        let layers = format!(
            "lowerdir=/,upperdir={},workdir={}",
            self.path("upper/files").display(),
            self.path("upper/work").display()
        );
        let layers = std::ffi::CString::new(layers).expect("no zero");
        mount("overlay", self.path("root"), "overlay", MountFlags::empty(), layers.as_c_str())
            .expect("an overlay over the root file system");
        self.make_plain();
        for (path, content) in boot.files {
            self.write(path, content);
        }
        let wants = self.root("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).expect("a directory");
        for unit in boot.enabled {
            symlink(format!("/etc/systemd/system/{unit}"), wants.join(unit)).expect("a link");
        }
    }

    /// Nothing of the host is started or mounted, and nothing touches its network.
    fn make_plain(&self) {
        let units = self.root("etc/systemd/system");
        let _ = fs::remove_dir_all(&units);
        fs::create_dir_all(&units).expect("a directory");
        for unit in [
            "systemd-networkd.service",
            "systemd-networkd.socket",
            "systemd-networkd-wait-online.service",
            "systemd-resolved.service",
            "systemd-timesyncd.service",
            "systemd-udevd.service",
            "systemd-random-seed.service",
            "systemd-binfmt.service",
            "proc-sys-fs-binfmt_misc.automount",
            "systemd-sysctl.service",
            "systemd-modules-load.service",
            "console-getty.service",
            "getty.target",
            "cron.service",
        ] {
            symlink("/dev/null", units.join(unit)).expect("a link");
        }
        self.write("/etc/machine-id", &format!("{:032x}\n", std::process::id()));
        self.write("/etc/fstab", "");
        self.write(
            "/etc/systemd/journald.conf.d/test.conf",
            "[Journal]\nStorage=volatile\nRateLimitBurst=0\n",
        );
        self.write("/etc/hostname", "test\n");
        let passwd = fs::read_to_string("/etc/passwd").expect("it is there");
        self.write("/etc/passwd", &format!("{passwd}ada:x:{USER}:{USER}::/home/ada:/bin/sh\n"));
        let group = fs::read_to_string("/etc/group").expect("it is there");
        self.write("/etc/group", &format!("{group}ada:x:{USER}:\n"));
        let shadow = fs::read_to_string("/etc/shadow").expect("root may");
        self.write("/etc/shadow", &format!("{shadow}ada:*:19000:0:99999:7:::\n"));
        fs::create_dir_all(self.root("home/ada")).expect("a directory");
        std::os::unix::fs::chown(self.root("home/ada"), Some(USER), Some(USER)).expect("root may");
        fs::create_dir_all(self.root("mnt/drive")).expect("a directory");
        let sbin = fs::canonicalize("/sbin").expect("it is there");
        for helper in ["mount", "umount"]
            .iter()
            .flat_map(|it| [format!("{it}.onedrivefs"), format!("{it}.fuse.onedrivefs")])
        {
            let link = self.root(sbin.to_str().expect("text")).join(helper);
            let _ = fs::remove_file(&link);
            symlink("/usr/bin/onedrivefs", link).expect("a link");
        }
        self.write("/usr/bin/onedrivefs", "");
    }

    fn make_disk(&self, boot: &Boot<'_>) {
        for (name, place) in [("state", "var/lib/onedrivefs"), ("cache", "var/cache/onedrivefs")] {
            let _ = fs::remove_dir_all(self.root(place));
            fs::create_dir_all(self.root(place)).expect("a directory");
            if boot.disk == Disk::Ext4 {
                fs::create_dir_all(self.path("disk")).expect("a directory");
                if name == "state" {
                    self.make_ext4();
                }
                fs::create_dir(self.path("disk").join(name)).expect("a directory");
            }
        }
        let state = self.state();
        if let Some(from) = boot.state {
            run(Command::new("cp").arg("-a").arg(from.join(".")).arg(&state));
        }
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("root may");
    }

    fn make_ext4(&self) {
        let image = self.path("image");
        fs::File::create(&image).and_then(|file| file.set_len(8 << 30)).expect("a sparse file");
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(&image).arg(self.path("disk")));
    }

    /// The machine's `/var/lib/onedrivefs`, as the host sees it.
    pub fn state(&self) -> PathBuf {
        let on_disk = self.path("disk/state");
        if on_disk.exists() { on_disk } else { self.root("var/lib/onedrivefs") }
    }

    /// Writes a file of the machine, before it boots or while it runs.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.root(path);
        fs::create_dir_all(path.parent().expect("it is below the root")).expect("a directory");
        let _ = fs::remove_file(&path);
        fs::write(&path, content).expect("it can be written");
        let mode = if content.starts_with("#!") || content.is_empty() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    fn start(&mut self, boot: &Boot<'_>) {
        let started = Instant::now();
        let mut command = Command::new("systemd-nspawn");
        command.arg("--directory").arg(self.path("root"));
        command.args(["--boot", "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no"]);
        command.args(["--resolv-conf=off", "--timezone=off", "--bind=/dev/fuse", "--bind=/dev/autofs"]);
        // No CAP_NET_ADMIN with the host's network.
        command.arg(format!("--machine=odfs-{}", std::process::id()));
        command.arg(format!("--bind-ro={}:/usr/bin/onedrivefs", env!("CARGO_BIN_EXE_onedrivefs")));
        if boot.disk == Disk::Ext4 {
            for (name, place) in [("state", "lib"), ("cache", "cache")] {
                let from = self.path("disk").join(name);
                command.arg(format!("--bind={}:/var/{place}/onedrivefs", from.display()));
            }
        }
        if !boot.network {
            command.arg("--private-network");
        }
        command.arg("systemd.unit=multi-user.target");
        let log = fs::File::create(self.path("console")).expect("a file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        let nspawn = self.nspawn.insert(process::spawn(command)).id();
        self.leader = wait("PID 1", || first_process(nspawn));
        wait("multi-user.target", || {
            let output = self.output("systemctl is-active multi-user.target");
            (output.stdout.trim_ascii() == b"active").then_some(())
        });
        self.booted_in = started.elapsed();
    }

    /// Runs a line of shell in the machine, as root, as if from a login without a session.
    pub fn output(&self, line: &str) -> Output {
        let mut command = Command::new("timeout");
        command.args([
            "-k",
            "5",
            &LONG.as_secs().to_string(),
            "nsenter",
            "--target",
            &self.leader.to_string(),
        ]);
        command
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd=/", "--", "/bin/sh", "-c"]);
        command
            .arg(format!("cd /; {line}"))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null());
        process::output(command)
    }

    /// The same; what it says on stdout. It must not fail.
    pub fn run(&self, line: &str) -> String {
        let output = self.output(line);
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {}\n{said}\n{problem}", output.status);
        said
    }

    /// The types of what is mounted at `path`, lowest first; asks no mount anything.
    pub fn mounted(&self, path: &str) -> Vec<String> {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.leader)).expect("it runs");
        let types = table.lines().filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            (front.split(' ').nth(4)? == path).then(|| back.split(' ').next().unwrap_or_default().to_owned())
        });
        types.collect()
    }

    pub fn is_mounted(&self, path: &str) -> bool {
        self.mounted(path).last().is_some_and(|kind| kind == "fuse.onedrivefs")
    }

    /// The daemons that run in it, by their numbers in it.
    pub fn daemons(&self) -> Vec<u32> {
        let found = self.output("pgrep -x onedrivefs || pgrep -x exe");
        String::from_utf8_lossy(&found.stdout).lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    /// What the journal has, since the machine was booted.
    pub fn journal(&self, options: &str) -> String {
        let output = self.output(&format!("journalctl --sync; journalctl --no-pager -b {options}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether the state's disk is ext4.
    pub fn is_on_ext4(&self) -> bool {
        self.run("stat -f -c %T /var/lib/onedrivefs").contains("ext")
    }
}

/// Waits until there is something; looks often.
pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < LONG, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The PID 1 that a container's manager has started.
fn first_process(nspawn: u32) -> Option<u32> {
    let is_first = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let is_child = line("PPid:").trim() == nspawn.to_string();
        is_child && line("NSpid:").split_whitespace().last() == Some("1") && line("Name:").trim() == "systemd"
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_first)
}

pub fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.leader != 0 {
            eprintln!("{}", self.journal("-n 120 -o short-monotonic"));
            let log = fs::read_to_string(self.state().join("default/daemon.log"));
            eprintln!("daemon.log: {}", log.unwrap_or_default());
            eprintln!("console: {}", fs::read_to_string(self.path("console")).unwrap_or_default());
        }
        if let Some(mut nspawn) = self.nspawn.take() {
            // The first asks the machine to halt, the second ends it.
            process::kill(nspawn.id(), libc::SIGTERM);
            let started = Instant::now();
            while nspawn.try_wait().expect("ours").is_none() {
                if started.elapsed() > Duration::from_secs(20) {
                    process::kill(nspawn.id(), libc::SIGTERM);
                    let _ = nspawn.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        for place in ["root", "disk", "upper"] {
            let _ = unmount(self.path(place), UnmountFlags::DETACH);
        }
    }
}
