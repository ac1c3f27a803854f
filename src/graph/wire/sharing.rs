//! What lives in other drives, and groups (graph-api 2.5, 2.6, 14).

use serde::Deserialize;

use super::{Page, Present, drive_type, read, read_page};
use crate::graph::drives::FarItem;
use crate::model::{DriveId, ItemId};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFar {
    name: Option<String>,
    remote_item: Option<WireThere>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireThere {
    id: Option<String>,
    name: Option<String>,
    file: Option<Present>,
    package: Option<Present>,
    parent_reference: Option<WireTherein>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTherein {
    drive_id: Option<String>,
    drive_type: Option<String>,
}

impl WireFar {
    fn into_model(self) -> Option<FarItem> {
        let there = self.remote_item?;
        let within = there.parent_reference?;
        let item = there.id.filter(|id| !id.is_empty())?;
        Some(FarItem {
            drive: DriveId::new(within.drive_id.filter(|id| !id.is_empty())?),
            drive_type: within.drive_type.as_deref().map(|text| drive_type(Some(text))),
            name: self.name.or(there.name).unwrap_or_else(|| item.clone()),
            item: ItemId::new(item),
            is_folder: there.file.is_none() && there.package.is_none(),
        })
    }
}

/// What a shortcut leads to; none if the item is no shortcut.
pub fn far_item(bytes: &[u8]) -> Option<FarItem> {
    read::<WireFar>(bytes)?.into_model()
}

/// A page of items of other drives.
pub fn far_items(bytes: &[u8]) -> Option<Page<FarItem>> {
    read_page(bytes, WireFar::into_model)
}

/// What a sharing link leads to, and whether that is the root of its drive.
pub fn shared_item(bytes: &[u8]) -> Option<(FarItem, bool)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        #[serde(flatten)]
        own: WireThere,
        root: Option<Present>,
        remote_item: Option<WireThere>,
    }
    let raw: Raw = read(bytes)?;
    let there = raw.remote_item.unwrap_or(raw.own);
    let far = WireFar { name: None, remote_item: Some(there) }.into_model()?;
    Some((far, raw.root.is_some()))
}

/// A page of ids of groups.
pub fn groups(bytes: &[u8]) -> Option<Page<String>> {
    #[derive(Deserialize)]
    struct Raw {
        id: Option<String>,
    }
    read_page(bytes, |raw: Raw| raw.id.filter(|id| !id.is_empty()))
}
