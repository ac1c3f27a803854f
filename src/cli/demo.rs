//! `onedrivefs demo`.

use std::path::PathBuf;
use std::time::Duration;

use super::mountpoint;
use super::output::{CliError, print, print_json};
use super::{mount, seed};
use crate::daemon::{self, DemoInfo, DemoSettings, SeedTree, exit};

/// Mount a make-believe drive, to try things without an account.
///
/// The service runs inside this process and keeps nothing: when the demonstration ends, what was written is
/// gone. DIR is made if it is not there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs demo ~/demo
  onedrivefs demo ~/demo --seed ~/Documents --latency-ms 80
  onedrivefs demo ~/demo --seed files=100000,per-folder=1000,size=4KiB")]
pub struct Args {
    /// Where to mount it
    dir: PathBuf,
    /// What the drive holds: a directory to copy, 'sample', 'empty', or files=N[,per-folder=N][,size=S]
    #[arg(long, value_name = "TREE", default_value = "sample", value_parser = seed::parse)]
    seed: SeedTree,
    /// Milliseconds added to every answer of the service
    #[arg(long, value_name = "N", default_value_t = 0)]
    latency_ms: u64,
    /// Print what is where as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    mount::start_log(&log_filter());
    if let Err(error) = std::fs::create_dir_all(&args.dir)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(CliError::new(
            exit::USAGE,
            args.dir.display(),
            error,
            "give a directory that can be made",
        ));
    }
    let settings = DemoSettings {
        mountpoint: mountpoint::resolve(&args.dir)?,
        seed: args.seed.clone(),
        latency: Duration::from_millis(args.latency_ms),
    };
    let json = args.json;
    daemon::run_demo(settings, |info| {
        let shown = if json { print_json(info) } else { print(&text(info)) };
        if let Err(error) = shown {
            error.print();
        }
    })?;
    Ok(exit::OK)
}

/// A demonstration only shows what is wrong, unless asked.
pub fn log_filter() -> String {
    std::env::var("ONEDRIVEFS_LOG").unwrap_or_else(|_| "warn".to_owned())
}

fn text(info: &DemoInfo) -> String {
    let mountpoint = info.mountpoint.display();
    format!(
        "A make-believe OneDrive is mounted at {mountpoint}\n  \
         service    {} (in this process)\n  \
         files      {} (cache and unsent changes; removed at the end)\n  \
         look       onedrivefs status {mountpoint}\n  \
         stop       Ctrl-C here, or: onedrivefs umount {mountpoint}\n",
        info.service,
        info.work_dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demonstration_says_what_is_where_and_how_to_stop() {
        let shown = text(&DemoInfo {
            mountpoint: "/d".into(),
            service: "http://127.0.0.1:1".into(),
            work_dir: "/tmp/w".into(),
        });
        for word in ["/d", "http://127.0.0.1:1", "/tmp/w", "Ctrl-C", "onedrivefs umount /d"] {
            assert!(shown.contains(word), "{shown}");
        }
        assert!(shown.lines().count() <= 6);
    }
}
