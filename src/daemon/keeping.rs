//! Content on this machine, as the commands ask for it: pinned, cached, given up.

use std::path::Path;
use std::time::Duration;

use super::control::{
    CacheView, ControlError, FreeOutcome, HeldLine, PinOutcome, ProgressSink, ThumbnailLine, TroubleLine,
    WirePath,
};
use super::handler::{self, DrivePart, error, failed};
use super::{DaemonError, assemble, exit};
use crate::config::MountSettings;
use crate::engine::{NoRoom, PinError, PinState};
use crate::graph::{Graph, GraphError};
use crate::model::{NodeId, units};

/// How often a `pin` that waits says how far it is.
const WORD: Duration = Duration::from_millis(300);
/// At most so many files are listed.
const LISTED: usize = 10_000;

/// Pins what `part` means, and where `wait` is set waits until it is here, or will not come soon.
pub(super) async fn pin(
    what: &Path,
    part: &DrivePart,
    wait: bool,
    progress: &ProgressSink,
) -> Result<PinOutcome, ControlError> {
    let engine = part.files.drive();
    engine.pin(&[part.top]).await.map_err(|problem| refused(what, part, &problem))?;
    engine.pins_looked_at().await;
    let mut files = engine.files_below(part.top).await.map_err(|problem| failed(&problem))?;
    let mut looks = 0u32;
    loop {
        let state = engine.pin_state(Some(&files));
        if !wait || state.at_rest || state.waits.is_some() {
            return Ok(outcome(part, state));
        }
        progress.send_modify(|word| {
            word.pending = state.missing_files;
            (word.sent, word.total) = (state.bytes.saturating_sub(state.missing_bytes), state.bytes);
            word.current = state.current.map(|id| path(part, id).0.display().to_string());
        });
        engine.pin_news(WORD).await;
        looks += 1;
        if looks.is_multiple_of(10) {
            // What came meanwhile counts too.
            files = engine.files_below(part.top).await.map_err(|problem| failed(&problem))?;
        }
    }
}

/// Takes the pins at and below what `part` means away; returns how many.
pub(super) async fn unpin(what: &Path, part: &DrivePart) -> Result<u64, ControlError> {
    part.files.drive().unpin(part.top).await.map_err(|problem| refused(what, part, &problem))
}

/// Gives up the content at and below what `part` means.
pub(super) async fn free(part: &DrivePart, all: &mut FreeOutcome) -> Result<(), ControlError> {
    let freed = part.files.drive().free(part.top).await.map_err(|problem| failed(&problem))?;
    all.files += freed.files;
    all.bytes += freed.bytes;
    all.refused_files += freed.refused_files;
    all.refused.extend(freed.refused.into_iter().map(|(id, refusal)| TroubleLine {
        path: path(part, id),
        why: refusal.why().to_owned(),
        remedy: refusal.remedy().to_owned(),
    }));
    Ok(())
}

/// What is here of what `part` means.
pub(super) async fn view(part: &DrivePart, min_free: u64, list: bool) -> Result<CacheView, ControlError> {
    let engine = part.files.drive();
    let held = engine.held_below(part.top).await.map_err(|problem| failed(&problem))?;
    let (usage, stats) = (engine.cache().usage(), engine.cache().stats());
    let pins = engine.pins().map_err(|problem| failed(&problem))?;
    let mut lines: Vec<HeldLine> = Vec::new();
    for file in held.here.iter().take(if list { LISTED } else { 0 }) {
        lines.push(HeldLine {
            path: path(part, file.id),
            size: file.size,
            held: file.held,
            pinned: file.pinned,
        });
    }
    Ok(CacheView {
        path: WirePath(part.prefix.clone()),
        used: usage.bytes,
        limit: usage.max_bytes,
        min_free,
        files: held.files,
        bytes: held.bytes,
        files_here: held.here.len() as u64,
        bytes_here: held.here.iter().map(|file| file.held).sum(),
        hits: stats.hits,
        misses: stats.misses,
        fetched: stats.bytes_fetched,
        evicted: stats.bytes_evicted,
        pinned: pins.into_iter().map(|id| path(part, id)).collect(),
        pins: outcome(part, engine.pin_state(None)),
        held: lines,
    })
}

/// The small pictures that the service has of what is in the folder that `part` means.
pub(super) async fn thumbnails(
    graph: &Graph,
    what: &Path,
    part: &DrivePart,
    settings: &MountSettings,
) -> Result<Vec<ThumbnailLine>, ControlError> {
    let engine = part.files.drive();
    let folder = engine.store().node(part.top).map_err(|problem| failed(&problem))?;
    // What the service does not have yet has no pictures.
    let Some(view) = folder.as_ref().and_then(|folder| folder.remote.as_ref()) else {
        return Ok(Vec::new());
    };
    let refused = |problem: GraphError| {
        let DaemonError { remedy, exit_code, .. } = assemble::service_error(settings, &problem);
        error(what.display(), problem, remedy, exit_code)
    };
    let mut lines = Vec::new();
    let mut next = None;
    loop {
        let page = graph.thumbnails(&engine.drive().id, &view.item, next.as_ref()).await.map_err(refused)?;
        for (item, url) in page.thumbnails {
            let node = engine.store().by_item(&item).map_err(|problem| failed(&problem))?;
            if let Some(node) = node.filter(|node| node.place.is_some()) {
                lines.push(ThumbnailLine { path: path(part, node.id), url: url.expose().to_owned() });
            }
        }
        next = page.next;
        if next.is_none() {
            return Ok(lines);
        }
    }
}

fn path(part: &DrivePart, id: NodeId) -> WirePath {
    let inside = part.files.drive().store().shown_path(id).unwrap_or_default();
    WirePath(part.prefix.join(inside))
}

fn outcome(part: &DrivePart, state: PinState) -> PinOutcome {
    let trouble = |(id, why)| TroubleLine {
        path: path(part, id),
        why,
        remedy: "it is tried again by itself; see the log".to_owned(),
    };
    PinOutcome {
        files: state.files,
        bytes: state.bytes,
        missing_files: state.missing_files,
        missing_bytes: state.missing_bytes,
        waits_for: state.waits.map(handler::state),
        no_room: state.no_room,
        troubles: state.troubles.into_iter().map(trouble).collect(),
    }
}

fn refused(what: &Path, part: &DrivePart, problem: &PinError) -> ControlError {
    match problem {
        PinError::NoRoom(NoRoom { needed, capacity }) => error(
            what.display(),
            format!(
                "with it, what is pinned would take {}, and the cache may hold {}",
                units::approximate_size(*needed),
                units::approximate_size(*capacity)
            ),
            "unpin something, make room on the disk, or mount with a larger cache-size",
            exit::USAGE,
        ),
        PinError::NoContent => error(what.display(), problem, "pin the files or folders in it", exit::USAGE),
        PinError::Within(folder) => {
            let folder = path(part, *folder).0;
            let folder = if folder.as_os_str().is_empty() { ".".into() } else { folder };
            let why = format!("it is pinned with '{}'", folder.display());
            error(what.display(), why, "unpin that", exit::USAGE)
        }
        PinError::Store(_) => failed(problem),
    }
}
