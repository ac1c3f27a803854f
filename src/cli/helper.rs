//! `mount.onedrivefs` and `umount.onedrivefs`: this program as mount(8), umount(8), and so fstab and systemd, call it.
//!
//! They know their helpers by name, give them arguments of their own form, and read exit codes of their own.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::output::CliError;
use super::{journal, mountpoint, umount};
use crate::config::without_unknown_options;
use crate::daemon::{exit, mounts};

/// Exit codes as mount(8) and umount(8) document them.
const CALLED_WRONGLY: u8 = 1;
const SYSTEM_ERROR: u8 = 2;
const FAILED: u8 = 32;

/// The helper that the program is called as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    Mount,
    Umount,
}

impl Helper {
    /// Which one the program's own name means; none for the program itself.
    pub fn named(arguments: &[OsString]) -> Option<Self> {
        match Path::new(arguments.first()?).file_name()?.to_str()? {
            "mount.onedrivefs" | "mount.fuse.onedrivefs" => Some(Self::Mount),
            "umount.onedrivefs" | "umount.fuse.onedrivefs" => Some(Self::Umount),
            _ => None,
        }
    }
}

/// Arguments of a helper: `[SOURCE] DIR [-sfnvlr] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    places: Vec<OsString>,
    options: Vec<OsString>,
    /// `-s`: unknown options are no failure.
    sloppy: bool,
    /// `-f`: of a mount, do everything but mount; of an unmount, by force.
    fake_or_force: bool,
    /// `-n`: mount(8)'s own table is left alone.
    no_table: bool,
    /// `-l`: though programs use it.
    lazy: bool,
    namespace: Option<PathBuf>,
}

impl Call {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, CliError> {
        let mut call = Self::default();
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let Some(flags) = argument.to_str().and_then(|text| text.strip_prefix('-')) else {
                call.places.push(argument);
                continue;
            };
            if flags == "-" {
                call.places.extend(rest);
                break;
            }
            for (at, flag) in flags.char_indices() {
                match flag {
                    's' => call.sloppy = true,
                    'f' => call.fake_or_force = true,
                    'l' => call.lazy = true,
                    'n' => call.no_table = true,
                    'v' | 'r' | 'w' => {}
                    'o' | 't' | 'N' => {
                        let glued = OsString::from(&flags[at + 1..]);
                        let value = if glued.is_empty() { rest.next() } else { Some(glued) };
                        let value = value.ok_or_else(|| wrong(format!("-{flag} needs a value")))?;
                        match flag {
                            'o' => call.options.push(value),
                            'N' => call.namespace = Some(value.into()),
                            _ => {}
                        }
                        break;
                    }
                    other => return Err(wrong(format!("there is no flag -{other}"))),
                }
            }
        }
        Ok(call)
    }

    /// Another mount namespace is not entered from here.
    fn check_namespace(&self) -> Result<(), CliError> {
        let Some(namespace) = &self.namespace else { return Ok(()) };
        let number = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        if number(namespace).is_some_and(|wanted| number(Path::new("/proc/self/ns/mnt")) == Some(wanted)) {
            return Ok(());
        }
        let remedy = "run mount(8) itself inside it, with nsenter(1)";
        Err(CliError::new(exit::USAGE, "-N", "it is another mount namespace than this one", remedy))
    }

    /// The same as a command line of `onedrivefs mount`.
    fn as_mount_command(&self) -> Result<Vec<OsString>, CliError> {
        let [source, directory] = self.places.as_slice() else {
            return Err(wrong("a source and a directory are needed".to_owned()));
        };
        let mut command: Vec<OsString> = vec!["onedrivefs".into(), "mount".into()];
        for options in &self.options {
            let known = options.to_str().filter(|_| self.sloppy).map(without_unknown_options);
            command.extend(["-o".into(), known.map_or_else(|| options.clone(), OsString::from)]);
        }
        command.extend(["--".into(), source.clone(), directory.clone()]);
        Ok(command)
    }
}

impl Call {
    /// Has umount(8) call the other helper, unless its table is not to be written (`-n`).
    fn tell_umount(&self) {
        let Some(directory) = self.places.get(1).filter(|_| !self.no_table) else { return };
        let Ok(directory) = mountpoint::resolve(Path::new(directory)) else { return };
        if let Err(error) = mounts::tell_umount(&directory) {
            let directory = directory.display();
            eprintln!("onedrivefs: {directory}: umount(8) does not wait for sending: {error}");
        }
    }
}

fn wrong(why: String) -> CliError {
    CliError::new(exit::USAGE, "mount helper", why, "let mount(8), umount(8), fstab or systemd call it")
}

/// The arguments, those of the helper for mount(8) as a command line of the program itself.
pub fn as_command(arguments: Vec<OsString>) -> Result<Vec<OsString>, CliError> {
    match Helper::named(&arguments) {
        Some(Helper::Mount) => Call::parse(arguments.into_iter().skip(1))?.as_mount_command(),
        _ => Ok(arguments),
    }
}

/// Does what the helper was called for; its exit code is one of mount(8). The reason of a failure is in the journal too.
pub fn run(helper: Helper, arguments: Vec<OsString>) -> u8 {
    let done = Call::parse(arguments.into_iter().skip(1)).and_then(|call| {
        call.check_namespace()?;
        match helper {
            Helper::Mount if call.fake_or_force => super::check_mount(call.as_mount_command()?),
            Helper::Mount => {
                let code = super::attempt(call.as_mount_command()?)?;
                call.tell_umount();
                Ok(code)
            }
            Helper::Umount => end(&call),
        }
    });
    match done {
        Ok(code) => exit_code(code),
        Err(error) => {
            error.print();
            journal::tell_too(&error.line());
            exit_code(error.exit_code)
        }
    }
}

/// The program's own exit code as one of mount(8).
fn exit_code(own: u8) -> u8 {
    match own {
        // Unmounted; what is unsent is kept.
        exit::OK | exit::UNSENT => 0,
        exit::USAGE => CALLED_WRONGLY,
        exit::SYSTEM => SYSTEM_ERROR,
        _ => FAILED,
    }
}

/// Unmounts. What is unsent is sent first within the mount's drain-timeout, unless an automount trap lies below: whoever
/// goes there waits for this to end, so the rest is then sent by the daemon without a mount, until the next one.
fn end(call: &Call) -> Result<u8, CliError> {
    let [directory] = call.places.as_slice() else {
        return Err(wrong("a directory is needed".to_owned()));
    };
    let directory = mountpoint::resolve(Path::new(directory))?;
    if mounts::is_over_trap(&directory) && !system_is_stopping() {
        return leave_to_trap(&directory, call.lazy);
    }
    let limit = call.fake_or_force.then_some(Duration::ZERO);
    umount::run(&umount::Args::of_helper(directory, limit, call.lazy))
}

/// Returns as soon as the mount is gone. This process unmounts, not the daemon: while systemd lets an idle mount go, the
/// trap makes everybody wait but the processes of systemd's own group, of which this is one.
fn leave_to_trap(directory: &Path, lazy: bool) -> Result<u8, CliError> {
    mounts::unmount_here(directory, lazy)?;
    Ok(exit::OK)
}

/// Whether the machine is being shut down. Where systemd does not answer: no.
fn system_is_stopping() -> bool {
    let asked = Command::new("systemctl")
        .arg("is-system-running")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    asked.is_ok_and(|answer| answer.stdout.trim_ascii() == b"stopping")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Result<Call, CliError> {
        Call::parse(line.split(' ').map(OsString::from))
    }

    fn as_line(command: &[OsString]) -> String {
        command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_programs_name_says_which_helper_it_is() {
        let named = |name: &str| Helper::named(&[OsString::from(name)]);
        assert_eq!(named("/sbin/mount.onedrivefs"), Some(Helper::Mount));
        assert_eq!(named("umount.fuse.onedrivefs"), Some(Helper::Umount));
        assert_eq!(named("onedrivefs"), None);
        assert_eq!(Helper::named(&[]), None);
    }

    // S260.
    #[test]
    fn what_mount_and_systemd_pass_is_understood() {
        let systemd =
            call("me /mnt/one -sn -v -t onedrivefs -N /proc/self/ns/mnt -o rw,noauto,nofail").unwrap();
        let command = systemd.as_mount_command().unwrap();
        assert_eq!(as_line(&command), "onedrivefs mount -o rw,noauto,nofail -- me /mnt/one");
        assert!(systemd.check_namespace().is_ok());
        let sloppy = call("me /mnt -s -o rw,quux=1,uid=7").unwrap().as_mount_command().unwrap();
        assert_eq!(as_line(&sloppy), "onedrivefs mount -o rw,uid=7 -- me /mnt");
        let umount = call("/mnt/one -flnrv -N /nowhere -t fuse.onedrivefs").unwrap();
        assert!(umount.lazy && umount.fake_or_force && umount.check_namespace().is_err());
        assert_eq!(umount.places, ["/mnt/one"]);
        assert!(call("me /mnt -x").is_err() && call("me /mnt -o").is_err());
        assert!(call("/mnt").unwrap().as_mount_command().is_err());
    }

    #[test]
    fn a_directory_that_begins_with_a_dash_is_a_directory() {
        let command = call("-o ro -- -me -mnt").unwrap().as_mount_command().unwrap();
        assert_eq!(as_line(&command), "onedrivefs mount -o ro -- -me -mnt");
    }

    #[test]
    fn arguments_of_the_program_itself_stay_as_they_are() {
        let own: Vec<OsString> = ["onedrivefs", "mount", "-s"].map(OsString::from).into();
        assert_eq!(as_command(own.clone()).unwrap(), own);
    }

    #[test]
    fn an_exit_code_is_one_that_mount_knows() {
        let codes = [exit::OK, exit::UNSENT, exit::USAGE, exit::SYSTEM, exit::BUSY, exit::SIGNED_OUT];
        assert_eq!(codes.map(exit_code), [0, 0, 1, 2, 32, 32]);
    }
}
