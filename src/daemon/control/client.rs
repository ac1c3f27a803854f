//! The commands' side of the control socket. Blocking.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::place::{SocketPath, candidates, usable_dirs};
use super::protocol::{Envelope, Reply};
use super::{Answer, ControlError, PROTOCOL, Progress, Request, Status};
use crate::config::Environment;
use crate::daemon::exit;

/// A daemon says something at least every second while it works.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A connection to the daemon of one mount.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
}

/// A socket that was found.
#[derive(Debug)]
pub struct Found {
    /// The socket.
    pub socket: PathBuf,
    /// What is behind it.
    pub presence: Presence,
}

/// What is behind a socket.
#[derive(Debug)]
pub enum Presence {
    /// A daemon, and how its mount is.
    Alive(Box<Status>),
    /// A daemon that did not answer properly.
    Unwell(ControlError),
    /// Nobody: its daemon died. The socket has been removed.
    Dead,
}

impl Client {
    /// Connects to the daemon of `mountpoint`; nothing if none listens.
    pub fn of_mount(environment: &Environment, mountpoint: &Path) -> Option<Self> {
        candidates(environment, mountpoint).iter().find_map(|socket| Self::connect(socket).ok())
    }

    /// Connects to the daemon of the mount that `path` is in, and says where that mount is.
    pub fn of_path(environment: &Environment, path: &Path) -> Option<(Self, PathBuf)> {
        path.ancestors()
            .find_map(|above| Self::of_mount(environment, above).map(|client| (client, above.to_owned())))
    }

    /// Connects to the daemon that is process `pid`; nothing if it has no socket here.
    pub fn of_process(environment: &Environment, pid: u32) -> Option<Self> {
        sockets(environment).into_iter().filter_map(|socket| Self::connect(&socket).ok()).find(|client| {
            let peer = rustix::net::sockopt::socket_peercred(client.reader.get_ref());
            peer.is_ok_and(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()) == Ok(pid))
        })
    }

    /// Connects to a socket.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(SocketPath::new(socket)?.as_path())?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Asks, hands on every word of progress, and returns the answer.
    pub fn ask(
        &mut self,
        request: &Request,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Answer, ControlError> {
        self.send(request).map_err(|error| lost(&error))?;
        loop {
            match self.receive().map_err(|error| lost(&error))? {
                Reply::Progress(word) => progress(&word),
                Reply::Answer { answer } => return Ok(answer),
                Reply::Error(error) => return Err(error),
            }
        }
    }

    /// Waits until the daemon has closed the connection, for at most `limit`. Whether it did.
    pub fn wait_for_end(mut self, limit: Duration) -> bool {
        // A zero timeout would mean none.
        let limit = limit.max(Duration::from_millis(1));
        if self.reader.get_ref().set_read_timeout(Some(limit)).is_err() {
            return false;
        }
        matches!(self.reader.fill_buf(), Ok([]))
    }

    fn send(&mut self, request: &Request) -> io::Result<()> {
        let envelope = Envelope { protocol: PROTOCOL, request: serde_json::to_value(request)? };
        let mut line = serde_json::to_vec(&envelope)?;
        line.push(b'\n');
        self.reader.get_mut().write_all(&line)
    }

    fn receive(&mut self) -> io::Result<Reply> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

/// Every mount of this user, by its socket; sockets of dead daemons are removed.
pub fn find_all(environment: &Environment) -> Vec<Found> {
    sockets(environment).into_iter().map(|socket| Found { presence: look(&socket), socket }).collect()
}

fn sockets(environment: &Environment) -> Vec<PathBuf> {
    let mut sockets: Vec<PathBuf> = usable_dirs(environment)
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .collect();
    sockets.sort();
    sockets
}

fn look(socket: &Path) -> Presence {
    let mut client = match Client::connect(socket) {
        Ok(client) => client,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // Nobody can be bound to it again before the file is gone: removing it takes nothing away.
            return match fs::remove_file(socket) {
                Ok(()) => Presence::Dead,
                Err(error) => Presence::Unwell(lost(&error)),
            };
        }
        Err(error) => return Presence::Unwell(lost(&error)),
    };
    match client.ask(&Request::Status, &mut |_| {}) {
        Ok(Answer::Status(status)) => Presence::Alive(status),
        Ok(_) => Presence::Unwell(lost(&io::ErrorKind::InvalidData.into())),
        Err(error) => Presence::Unwell(error),
    }
}

fn lost(error: &io::Error) -> ControlError {
    let why = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the daemon does not answer".to_owned(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            "the daemon ended before it answered".to_owned()
        }
        _ => error.to_string(),
    };
    ControlError {
        what: "control socket".to_owned(),
        why,
        remedy: "see the daemon's log, then try again".to_owned(),
        exit_code: exit::FAILURE,
    }
}
