//! What the program logs, among what happens.

use std::cell::RefCell;
use std::io::{self, Write};

use tracing_subscriber::EnvFilter;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From here on, what passes the filter is kept, by the thread it is logged on.
pub fn begin(filter: &str) {
    let log =
        tracing_subscriber::fmt().without_time().with_ansi(false).with_env_filter(EnvFilter::new(filter));
    log.with_writer(|| Lines).init();
}

/// What was logged on this thread since the last time.
pub fn take() -> Vec<String> {
    LINES.take()
}

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.push(String::from_utf8_lossy(bytes).trim_end().to_owned()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
