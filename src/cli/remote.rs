//! What the commands that move single files without a mount have in common.

use std::io::IsTerminal;
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::CliError;
use super::settings;
use crate::config::{ConfigFile, Environment, MountSettings};
use crate::daemon::transfer;

/// Flags that all of them take.
#[derive(Debug, clap::Args)]
pub struct Access {
    /// Whose sign-in to use
    #[arg(long, value_name = "A")]
    account: Option<String>,
    /// Root of the Graph service
    #[arg(long, value_name = "U")]
    graph_url: Option<String>,
    /// Where sign-ins are kept
    #[arg(long, value_name = "D")]
    state_dir: Option<String>,
}

impl Access {
    /// Settings with which `address` is asked for: that of a mount of the configuration file stands for its drive.
    pub fn settings(&self, address: &str) -> Result<MountSettings, CliError> {
        let flags = settings::given(&[
            ("account", &self.account),
            ("graph-url", &self.graph_url),
            ("state-dir", &self.state_dir),
        ])?;
        let environment = Environment::of_process();
        let file = ConfigFile::read(&environment)?;
        let (name, below) = address.split_once(":/").map_or((address, ""), |(name, below)| (name, below));
        let named = file.mount(name);
        let drive = match named.and_then(|mount| mount.drive()) {
            Some(drive) => transfer::below(drive, below),
            None => address.to_owned(),
        };
        Ok(file.settings(named, &drive, Path::new("/"), flags, &environment)?)
    }
}

/// A progress bar on stderr; nothing where stderr is no terminal.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{bar:30} {bytes:>10} of {total_bytes:<10} {bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub fn show(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    pub fn clear(self) {
        self.0.finish_and_clear();
    }
}
