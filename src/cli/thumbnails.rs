//! `onedrivefs thumbnails`.

use std::collections::HashMap;
use std::path::PathBuf;

use super::output::{CliError, files, print, print_json};
use super::sync::Bar;
use super::{settings, target};
use crate::config::{Choices, Environment};
use crate::daemon::control::{Answer, Progress, Request, WirePath};
use crate::daemon::exit;
use crate::daemon::thumbnails::{Album, Maker, Original, ThumbnailCache, albums};
use crate::model::remote::DownloadUrl;

/// Fetch small pictures of photos and films for file managers.
///
/// They come from the service into the desktop's thumbnail cache, so that a folder of photos is shown without its
/// originals being downloaded. Those that are there already, and fit their files, are not fetched again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs thumbnails ~/OneDrive/Pictures

Exit codes: 5 if nobody is signed in; 6 if the service cannot be reached, or some pictures could not be fetched.")]
pub struct Args {
    /// Files and folders in a mount
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

/// How many pictures.
#[derive(Debug, Default, serde::Serialize)]
struct Outcome {
    made: u64,
    present: u64,
    /// The service has none of these.
    none: u64,
    failed: u64,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let environment = Environment::of_process();
    let dir = environment.thumbnails().ok_or_else(|| {
        CliError::new(exit::USAGE, "the thumbnail cache", "there is no home directory", "set HOME")
    })?;
    let cache = ThumbnailCache::new(dir);
    let maker = Maker::new(&settings::without_mount(Choices::default(), &environment)?, cache.clone())?;
    let mut outcome = Outcome::default();
    for path in &args.paths {
        // Whether it is in a mount is said first.
        let whole = target::of_path(path, &environment)?;
        for album in albums(&whole.mountpoint.join(whole.inside))? {
            fill(&album, &cache, &maker, &environment, &mut outcome)?;
        }
    }
    if args.json {
        print_json(&outcome)?;
    } else {
        print(&lines(&outcome))?;
    }
    Ok(if outcome.failed > 0 { exit::SERVICE } else { exit::OK })
}

/// Makes what is missing of one folder.
fn fill(
    album: &Album,
    cache: &ThumbnailCache,
    maker: &Maker,
    environment: &Environment,
    outcome: &mut Outcome,
) -> Result<(), CliError> {
    let (present, missing): (Vec<&Original>, Vec<&Original>) =
        album.originals.iter().partition(|original| cache.has(original));
    outcome.present += present.len() as u64;
    if missing.is_empty() {
        return Ok(());
    }
    let mut target = target::of_path(&album.folder, environment)?;
    let request = Request::Thumbnails { path: WirePath(target.inside.clone()) };
    let Answer::Thumbnails(lines) = target.client.ask(&request, &mut |_| {})? else {
        return Err(target::misunderstood(&target.mountpoint));
    };
    let mut urls: HashMap<PathBuf, String> =
        lines.into_iter().map(|line| (target.mountpoint.join(line.path.0), line.url)).collect();
    let mut wanted = Vec::new();
    for original in missing {
        match urls.remove(&original.path) {
            Some(url) => wanted.push((original.clone(), DownloadUrl::new(url))),
            None => outcome.none += 1,
        }
    }
    let mut bar = Bar::of("to make");
    let mut word =
        Progress { total: wanted.iter().map(|(original, _)| original.size).sum(), ..Progress::default() };
    word.pending = wanted.len() as u64;
    maker.make(wanted, |original, made| {
        word.pending -= 1;
        word.sent += original.size;
        word.current = original.path.file_name().map(|name| name.to_string_lossy().into_owned());
        bar.show(&word);
        match made {
            Ok(()) => outcome.made += 1,
            Err(why) => {
                outcome.failed += 1;
                let remedy = "run this again later";
                CliError::new(exit::SERVICE, original.path.display(), why, remedy).print();
            }
        }
    });
    bar.clear();
    Ok(())
}

fn lines(outcome: &Outcome) -> String {
    let mut text = format!("{} made, {} there already", outcome.made, outcome.present);
    if outcome.none > 0 {
        text += &format!("; the service has none of {}", files(outcome.none));
    }
    text + "\n"
}
