//! Single items.

use http::Method;

use super::call::Call;
use super::error::Result;
use super::limiter::Priority;
use super::{Graph, url, wire};
use crate::model::{DriveId, ItemId, RemoteItem};

impl Graph {
    /// The root folder of `drive`.
    pub async fn root(&self, drive: &DriveId, priority: Priority) -> Result<RemoteItem> {
        self.get_item("root", &format!("{}/root", url::drive(drive)?), priority).await
    }

    /// The item, with a fresh address of its content if it is a file.
    ///
    /// `NotFound` also when ids changed form because the account was migrated (graph-api 3.7).
    pub async fn item(&self, drive: &DriveId, item: &ItemId, priority: Priority) -> Result<RemoteItem> {
        self.get_item("item", &url::item(drive, item)?, priority).await
    }

    /// The child of `parent` called `name`, whatever its case (graph-api 4.1).
    pub async fn child(
        &self,
        drive: &DriveId,
        parent: &ItemId,
        name: &str,
        priority: Priority,
    ) -> Result<RemoteItem> {
        self.get_item("child", &url::child(drive, parent, name)?, priority).await
    }

    async fn get_item(&self, op: &'static str, path: &str, priority: Priority) -> Result<RemoteItem> {
        let url = self.inner.root.at(&format!("{path}?$select={}", wire::SELECT_ITEM))?;
        let answer = self.send(Call::graph(op, Method::GET, url, priority)).await?;
        answer.parsed("an item without id", wire::item)
    }
}
