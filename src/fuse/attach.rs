//! Gets a connection to the kernel for a mount point: by mount(2) as root, else through `fusermount3`.

use std::ffi::CString;
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{getegid, geteuid};

use super::check;
use super::error::MountError;
use super::mountinfo::FS_TYPE;

/// The name after `fuse.` in the type of our mounts.
const SUBTYPE: &str = "onedrivefs";

/// What the kernel or `fusermount3` is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Shown as the device, in `df` and `findmnt`.
    pub(super) source: String,
    pub(super) read_only: bool,
    pub(super) allow_other: bool,
    /// Further options as for mount(8).
    pub(super) extra: Vec<String>,
}

/// Mounts on `path`, which has been checked. The connection is ready for the handshake.
pub(super) fn attach(path: &Path, request: &Request) -> Result<OwnedFd, MountError> {
    let split = split_options(path, request)?;
    if geteuid().is_root() {
        match mount_directly(path, request, &split) {
            Err(MountError::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
            other => return other,
        }
    }
    mount_by_helper(path, request, &split)
}

/// Options of mount(8), sorted by who understands them.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MountFlags,
    /// `flags` in words, for the helper.
    names: Vec<String>,
    /// What the kernel's file system takes.
    data: Vec<String>,
}

fn split_options(path: &Path, request: &Request) -> Result<Options, MountError> {
    let mut options =
        Options { flags: MountFlags::NOSUID | MountFlags::NODEV, names: Vec::new(), data: Vec::new() };
    let read_only = request.read_only.then_some("ro");
    let extra = request.extra.iter().flat_map(|option| option.split(','));
    for option in read_only.into_iter().chain(extra.map(str::trim).filter(|option| !option.is_empty())) {
        let name = option.split('=').next().unwrap_or(option);
        match (name, mount_flag(name)) {
            (_, Some(flag)) => {
                options.flags |= flag;
                options.names.push(name.to_owned());
            }
            ("max_read" | "context" | "fscontext" | "defcontext" | "rootcontext", _) => {
                options.data.push(option.to_owned());
            }
            _ if is_for_others(name) => {}
            _ => return Err(MountError::UnknownOption { path: path.into(), option: option.into() }),
        }
    }
    Ok(options)
}

fn mount_flag(name: &str) -> Option<MountFlags> {
    Some(match name {
        "ro" => MountFlags::RDONLY,
        "noexec" => MountFlags::NOEXEC,
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        "strictatime" => MountFlags::STRICTATIME,
        "lazytime" => MountFlags::LAZYTIME,
        "sync" => MountFlags::SYNCHRONOUS,
        "dirsync" => MountFlags::DIRSYNC,
        _ => return None,
    })
}

/// Options of fstab that are meant for mount(8), systemd, or the default anyway.
fn is_for_others(name: &str) -> bool {
    const KNOWN: &[&str] = &[
        "rw",
        "exec",
        "atime",
        "diratime",
        "async",
        "defaults",
        "auto",
        "noauto",
        "nofail",
        "_netdev",
        "user",
        "nouser",
        "users",
        "owner",
        "group",
        "default_permissions",
        "allow_other",
        "nonempty",
    ];
    KNOWN.contains(&name) || name.starts_with("x-") || name.starts_with("X-") || name.starts_with("comment")
}

/// The file system type is `fuse.onedrivefs`, the source whatever is to be shown.
fn mount_directly(path: &Path, request: &Request, options: &Options) -> Result<OwnedFd, MountError> {
    let device = check::open_device(path)?;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let fd = device.as_raw_fd();
    let mut data = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid},default_permissions");
    if request.allow_other {
        data.push_str(",allow_other");
    }
    for option in &options.data {
        data.push(',');
        data.push_str(option);
    }
    let failed =
        |source: io::Error| MountError::Io { action: format!("mount on {}", path.display()), source };
    let data = CString::new(data).map_err(|error| failed(error.into()))?;
    match rustix::mount::mount(request.source.as_str(), path, FS_TYPE, options.flags, data.as_c_str()) {
        Ok(()) => Ok(device),
        Err(Errno::NODEV) => Err(MountError::NoDevice { path: path.into() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// The set-user-id helper mounts and sends the connection over a socket, which it gets as its stdin.
fn mount_by_helper(path: &Path, request: &Request, options: &Options) -> Result<OwnedFd, MountError> {
    let failed = |source: io::Error| MountError::Io { action: "talk to fusermount3".into(), source };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new("fusermount3");
    command.arg("-o").arg(helper_options(request, options)).arg("--").arg(path);
    command
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let helper = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => MountError::NoFusermount { path: path.into() },
        _ => failed(error),
    })?;
    drop(command);
    let received = receive_fd(&ours).map_err(failed)?;
    drop(ours);
    let message = last_words(helper).map_err(failed)?;
    match received {
        Some(fd) => Ok(fd),
        None if request.allow_other && message.contains("user_allow_other") => {
            Err(MountError::AllowOther { path: path.into() })
        }
        // The helper opens the device as the user: look whether that is what failed.
        None => check::open_device(path).and(Err(MountError::Fusermount { path: path.into(), message })),
    }
}

fn helper_options(request: &Request, options: &Options) -> String {
    // The helper splits at commas that have no backslash before them.
    let source = request.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut words =
        vec![format!("fsname={source}"), format!("subtype={SUBTYPE}"), "default_permissions".into()];
    words.extend(request.allow_other.then(|| "allow_other".into()));
    words.extend(options.names.iter().chain(&options.data).cloned());
    words.join(",")
}

/// The connection, or `None` if the helper closed the socket without one.
fn receive_fd(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut messages = ancillary.drain();
    Ok(messages.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

fn last_words(mut helper: Child) -> io::Result<String> {
    let mut message = String::new();
    if let Some(mut stderr) = helper.stderr.take() {
        stderr.read_to_string(&mut message)?;
    }
    helper.wait()?;
    Ok(message.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(extra: &[&str]) -> Request {
        let extra = extra.iter().map(|&option| option.to_owned()).collect();
        Request { source: "me@example.com, work".into(), read_only: true, allow_other: true, extra }
    }

    #[test]
    fn options_of_fstab_are_sorted_by_who_understands_them() {
        let request = request(&["rw,noexec,_netdev", "x-systemd.automount", "max_read=65536", "noauto,user"]);
        let options = split_options(Path::new("/mnt"), &request).expect("all are known");
        let expected = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY | MountFlags::NOEXEC;
        assert_eq!(options.flags, expected);
        assert_eq!(options.data, ["max_read=65536"]);
        assert_eq!(
            helper_options(&request, &options),
            "fsname=me@example.com\\, work,subtype=onedrivefs,default_permissions,allow_other,ro,noexec,max_read=65536"
        );
    }

    #[test]
    fn an_unknown_option_is_named() {
        let error = split_options(Path::new("/mnt"), &request(&["direct_io"])).expect_err("it is unknown");
        assert!(error.to_string().contains("`direct_io`"));
    }
}
