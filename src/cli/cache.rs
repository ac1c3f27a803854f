//! `onedrivefs cache`.

use std::path::PathBuf;

use super::output::{CliError, files, print, print_json};
use super::pin::{missing, pin_troubles};
use super::target;
use crate::config::Environment;
use crate::daemon::control::{Answer, CacheView, Request, WirePath};
use crate::daemon::exit;
use crate::model::units;

/// Show what content is on this machine.
///
/// How much of the cache is used and how much it may hold, how many reads it answered since the mount began, and what
/// is pinned. Reads that the kernel answers from its own memory are not seen, and not counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs cache
  onedrivefs cache ~/OneDrive/photos           how much of it is here
  onedrivefs cache --list ~/OneDrive           which files, the largest first
  onedrivefs cache --json | jq '.[].used'")]
pub struct Args {
    /// Only what is at or below PATH [default: all mounts of yours]
    path: Option<PathBuf>,
    /// Name the files of which something is here
    #[arg(long)]
    list: bool,
    /// Print it as JSON: a list with an entry for each drive
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let mut all = Vec::new();
    for mut target in target::all_or_one(args.path.as_deref(), &Environment::of_process())? {
        let request = Request::Cache { path: WirePath(target.inside), list: args.list };
        match target.client.ask(&request, &mut |_| {})? {
            Answer::Cache(views) => {
                all.extend(views.into_iter().map(|view| in_tree(view, &target.mountpoint)));
            }
            _ => return Err(target::misunderstood(&target.mountpoint)),
        }
    }
    if args.json {
        print_json(&all)?;
    } else {
        let told: Vec<String> = all.iter().map(lines).collect();
        print(&told.join("\n"))?;
    }
    Ok(exit::OK)
}

/// Paths of a mount become those of the machine.
fn in_tree(mut view: CacheView, mountpoint: &std::path::Path) -> CacheView {
    let at = |path: &mut WirePath| {
        let mut whole = mountpoint.to_owned();
        whole.extend(path.0.components());
        path.0 = whole;
    };
    at(&mut view.path);
    view.pinned.iter_mut().for_each(at);
    view.held.iter_mut().for_each(|line| at(&mut line.path));
    view.pins.troubles.iter_mut().for_each(|line| at(&mut line.path));
    view
}

fn lines(view: &CacheView) -> String {
    let size = units::approximate_size;
    let mut text = format!("{}\n", view.path.0.display());
    text += &format!(
        "  cache    {} of {}; {} stay free on its disk\n",
        size(view.used),
        size(view.limit),
        size(view.min_free)
    );
    text += &format!(
        "  here     {} of {} ({} of {})\n",
        files(view.files_here),
        files(view.files),
        size(view.bytes_here),
        size(view.bytes)
    );
    text += &match (view.hits * 100).checked_div(view.hits + view.misses) {
        Some(rate) => format!(
            "  reads    {rate}% of {} answered from here; {} fetched\n",
            view.hits + view.misses,
            size(view.fetched)
        ),
        None => "  reads    none yet\n".to_owned(),
    };
    if view.evicted > 0 {
        text += &format!("  evicted  {} since the mount began\n", size(view.evicted));
    }
    if !view.pinned.is_empty() {
        let pins = &view.pins;
        let missing = match pins.missing_files {
            0 => "all here".to_owned(),
            _ => missing(pins),
        };
        text += &format!("  pinned   {}, {}; {missing}\n", files(pins.files), size(pins.bytes));
        text += &pin_troubles(pins);
        for path in &view.pinned {
            text += &format!("    {}\n", path.0.display());
        }
    }
    for line in &view.held {
        let mark = if line.pinned { "  pinned" } else { "" };
        text += &format!(
            "  {:>10} of {:<10} {}{mark}\n",
            size(line.held),
            size(line.size),
            line.path.0.display()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_told_in_a_few_lines() {
        let view = CacheView {
            path: WirePath("/mnt".into()),
            limit: 20 << 30,
            hits: 3,
            misses: 1,
            pinned: vec![WirePath("a".into())],
            ..CacheView::default()
        };
        let text = lines(&in_tree(view, std::path::Path::new("/home/me")));
        assert!(text.contains("75% of 4 answered from here"), "{text}");
        assert!(text.contains("all here\n    /home/me/a\n"), "{text}");
        assert!(lines(&CacheView::default()).contains("none yet"));
    }
}
