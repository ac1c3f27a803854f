//! The log as systemd's journal takes it: one datagram for each event, with its fields apart.

use std::fmt::{Debug, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where the journal listens (systemd.journal-fields(7), "native protocol").
const SOCKET: &str = "/run/systemd/journal/socket";
/// A datagram holds no more than this with the usual limits.
const LONGEST: usize = 64 << 10;

/// Whether stderr goes to the journal, as systemd says by `JOURNAL_STREAM` (systemd.exec(5)).
pub fn is_stderr() -> bool {
    let Some(said) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let found = stderr.and_then(|stderr| stderr.metadata());
    found.is_ok_and(|found| said == format!("{}:{}", found.dev(), found.ino()))
}

/// Tells the journal an error that stderr was told, unless that is the journal; without one, nobody.
pub fn tell_too(line: &str) {
    if is_stderr() {
        return;
    }
    if let Ok(socket) = UnixDatagram::unbound() {
        let mut entry = Entry::new(Level::ERROR);
        entry.field("MESSAGE", line);
        // Nobody is told where there is no journal.
        let _ = socket.send_to(&entry.bytes, SOCKET);
    }
}

/// Writes events to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// A connection, if there is a journal.
    pub fn connect() -> std::io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Self { socket })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let mut entry = Entry::new(*event.metadata().level());
        entry.field("MESSAGE", &(said.message + &said.text));
        entry.field("TARGET", event.metadata().target());
        for (name, value) in &said.fields {
            entry.field(name, value);
        }
        // The journal may be restarting; nowhere is left to say so.
        let _ = self.socket.send(&entry.bytes);
    }
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    /// The fields for people: ` name=value`.
    text: String,
    fields: Vec<(String, String)>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
            return;
        }
        let _ = write!(self.text, " {}={value:?}", field.name());
        self.fields.push((name(field.name()), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
            return;
        }
        let _ = write!(self.text, " {}={value:?}", field.name());
        self.fields.push((name(field.name()), value.to_owned()));
    }
}

/// A field's name as the journal takes it.
fn name(own: &str) -> String {
    let mut name = "ONEDRIVEFS_".to_owned();
    name.extend(own.chars().map(|symbol| match symbol.to_ascii_uppercase() {
        symbol @ ('A'..='Z' | '0'..='9') => symbol,
        _ => '_',
    }));
    name
}

/// One entry on its way.
struct Entry {
    bytes: Vec<u8>,
}

impl Entry {
    fn new(level: Level) -> Self {
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            _ => "7",
        };
        let mut entry = Self { bytes: Vec::new() };
        entry.field("PRIORITY", priority);
        entry.field("SYSLOG_IDENTIFIER", "onedrivefs");
        entry
    }

    /// `NAME=value`, or with its length in front where it has several lines. What is too long is left out.
    fn field(&mut self, name: &str, value: &str) {
        if self.bytes.len() + name.len() + value.len() > LONGEST {
            return;
        }
        self.bytes.extend(name.as_bytes());
        if value.contains('\n') {
            self.bytes.push(b'\n');
            self.bytes.extend((value.len() as u64).to_le_bytes());
        } else {
            self.bytes.push(b'=');
        }
        self.bytes.extend(value.as_bytes());
        self.bytes.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    // S266.
    #[test]
    fn an_event_is_one_entry_with_its_fields_apart_and_in_its_line() {
        let (socket, journal) = UnixDatagram::pair().unwrap();
        let log = tracing_subscriber::registry().with(Journal { socket });
        tracing::subscriber::with_default(log, || {
            tracing::warn!(path = "a b", limit = 7, error = %"one\ntwo", "it is late");
        });
        let mut bytes = [0; 1000];
        let length = journal.recv(&mut bytes).unwrap();
        let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
        assert!(said.starts_with("PRIORITY=4\nSYSLOG_IDENTIFIER=onedrivefs\n"), "{said:?}");
        assert!(said.contains("ONEDRIVEFS_PATH=a b\nONEDRIVEFS_LIMIT=7\n"), "{said:?}");
        assert!(said.contains("MESSAGE\n") && said.contains("it is late path=\"a b\" limit=7"), "{said:?}");
        assert!(said.contains("ONEDRIVEFS_ERROR\n\u{7}\0\0\0\0\0\0\0one\ntwo\n"), "{said:?}");
    }

    #[test]
    fn what_is_no_journal_is_not_taken_for_one() {
        assert!(!is_stderr());
    }
}
