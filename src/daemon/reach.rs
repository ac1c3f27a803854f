//! What an account reaches: its own drive, the libraries of its sites, and folders that others share with it.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;

use super::{DaemonError, assemble, lifecycle, signin};
use crate::clock::{Clock, SystemClock};
use crate::config::MountSettings;
use crate::graph::{Graph, GraphError};
use crate::model::{Drive, DriveType, Quota};

/// Sites whose libraries are asked for at once.
const AT_ONCE: usize = 4;

/// A drive, or a folder of one, that the account reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reachable {
    /// Where `mount all` shows it.
    pub place: String,
    /// What `mount` takes for it; none for what only `mount all` shows.
    pub drive: Option<String>,
    /// Which service it lives on, where it is known.
    #[serde(rename = "type")]
    pub drive_type: Option<DriveType>,
    /// Space, where the service tells.
    pub quota: Option<Quota>,
}

/// What an account reaches, and what could not be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// In the order of their places.
    pub drives: Vec<Reachable>,
    /// What the service refused to tell, with its reason.
    pub untold: Vec<String>,
}

/// Asks the service. Blocks.
pub fn reach(mut settings: MountSettings) -> Result<Reach, DaemonError> {
    let tokens = assemble::credentials(&mut settings)?;
    let is_person = !signin::is_application(&settings);
    let runtime = lifecycle::runtime()?;
    runtime.block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let graph = assemble::graph(&settings, tokens, &clock)?;
        let mut reach = Reach::default();
        if is_person {
            personal(&graph, &mut reach, &settings).await?;
        }
        match graph.sites().await {
            Ok(sites) => libraries(&graph, sites, &mut reach, &settings).await?,
            Err(error) => reach.untold("sites", error, &settings)?,
        }
        reach.drives.sort_by(|one, other| one.place.cmp(&other.place));
        Ok(reach)
    })
}

/// What only a person has.
async fn personal(graph: &Graph, reach: &mut Reach, settings: &MountSettings) -> Result<(), DaemonError> {
    match graph.own_drive().await {
        Ok(drive) => reach.drives.push(reachable("OneDrive".into(), "me".into(), drive)),
        Err(error) => reach.untold("its own drive", error, settings)?,
    }
    match graph.shared_with_me().await {
        Ok(shared) => reach.drives.extend(shared.into_iter().filter(|far| far.is_folder).map(|far| {
            let place = format!("Shared with me/{}", far.name);
            Reachable { place, drive: None, drive_type: far.drive_type, quota: None }
        })),
        Err(error) => reach.untold("what others share", error, settings)?,
    }
    Ok(())
}

async fn libraries(
    graph: &Graph,
    sites: Vec<crate::graph::Site>,
    reach: &mut Reach,
    settings: &MountSettings,
) -> Result<(), DaemonError> {
    let asked =
        stream::iter(sites).map(|site| async move { (graph.libraries_of(&site.id).await, site.name) });
    let mut answers = asked.buffer_unordered(AT_ONCE);
    while let Some((found, site)) = answers.next().await {
        match found {
            Ok(drives) => reach.drives.extend(drives.into_iter().map(|drive| {
                let place = format!("Sites/{site}/{}", drive.name);
                let name = drive.id.as_str().to_owned();
                reachable(place, name, drive)
            })),
            Err(error) => reach.untold(&format!("the libraries of {site}"), error, settings)?,
        }
    }
    Ok(())
}

/// A drive that is at `place` of a mount of all, and for which `mount` takes `name`.
fn reachable(place: String, name: String, drive: Drive) -> Reachable {
    Reachable { place, drive: Some(name), drive_type: Some(drive.drive_type), quota: drive.quota }
}

impl Reach {
    /// A service that refuses one thing may tell another; one that cannot be used at all ends it.
    fn untold(&mut self, what: &str, error: GraphError, settings: &MountSettings) -> Result<(), DaemonError> {
        match error {
            GraphError::NotFound { .. }
            | GraphError::AccessDenied { .. }
            | GraphError::Unsupported { .. }
            | GraphError::Invalid { .. } => {
                self.untold.push(format!("{what}: {error}"));
                Ok(())
            }
            error => Err(assemble::service_error(settings, &error)),
        }
    }
}
