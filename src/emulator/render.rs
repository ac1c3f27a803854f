//! The JSON of drives and items, as each flavour writes it (graph-api 2.2, 2.3, 3).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::drive::Drive;
use super::flavour::Flavour;
use super::hash;
use super::mime;
use super::state::State;
use super::time::{Fraction, Ms, rfc3339};
use super::tree::{Kind, Life, Node, ROOT, Slot, Who};

/// Everything but `A-Z a-z 0-9 - . _ ~ ( ) !` is escaped (graph-api 4.2).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'(')
    .remove(b')')
    .remove(b'!');

pub(crate) fn escape(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

/// Which answer an item is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Within {
    Item,
    Delta,
}

/// Renders what one request may see.
pub(crate) struct Renderer<'a> {
    pub(crate) state: &'a State,
    pub(crate) base: &'a str,
    pub(crate) now: Ms,
    /// Names of `$select`, if given.
    pub(crate) select: Option<Vec<String>>,
}

impl Renderer<'_> {
    fn drive(&self, at: usize) -> &Drive {
        &self.state.drives[at]
    }

    fn wants(&self, name: &str) -> bool {
        self.select.as_ref().is_some_and(|s| s.iter().any(|n| n == name))
    }

    /// Absolute URL of something under `/v1.0`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/v1.0{path}", self.base)
    }

    pub(crate) fn context(&self, what: &str) -> String {
        format!("{}/v1.0/$metadata#{what}", self.base)
    }

    /// A single item with its context.
    pub(crate) fn entity(&self, drive: usize, slot: Slot) -> Value {
        let mut item = self.item(drive, slot, Within::Item);
        let context = format!("drives('{}')/items/$entity", escape(&self.drive(drive).id));
        item.insert("@odata.context".into(), json!(self.context(&context)));
        Value::Object(item)
    }

    /// One driveItem, after `$select`.
    pub(crate) fn item(&self, at: usize, slot: Slot, within: Within) -> Map<String, Value> {
        let drive = self.drive(at);
        let node = drive.tree.node(slot);
        let shown = node.life == Life::Live && (!drive.flavour().is_business() || drive.has_access(slot));
        if !shown && within == Within::Delta {
            return self.deleted(at, slot);
        }
        let mut item = Map::new();
        self.identity(&mut item, drive, slot, &node, within);
        self.times(&mut item, drive, &node);
        item.insert("parentReference".into(), self.parent_reference(at, slot, within));
        self.facets(&mut item, at, slot, within);
        self.extras(&mut item, at, slot);
        self.on_request(&mut item, at, slot);
        self.apply_select(item)
    }

    fn apply_select(&self, mut item: Map<String, Value>) -> Map<String, Value> {
        let Some(select) = &self.select else { return item };
        item.retain(|key, _| key == "@odata.etag" || key == "children" || select.iter().any(|s| s == key));
        item
    }

    fn identity(
        &self,
        item: &mut Map<String, Value>,
        drive: &Drive,
        slot: Slot,
        node: &Node,
        within: Within,
    ) {
        item.insert("id".into(), json!(drive.ids.item_id(slot)));
        item.insert("name".into(), json!(node.name));
        let mut size = node.weight();
        if let Some(other) = node.extra.as_ref().and_then(|e| e.size) {
            size = other;
        } else if self.state.switches.negative_folder_size && node.blob().is_none() && slot != ROOT {
            size = -size - 1;
        }
        item.insert("size".into(), json!(size));
        if let Some(tag) = drive.e_tag(slot) {
            item.insert("@odata.etag".into(), json!(tag));
            item.insert("eTag".into(), json!(tag));
        }
        // Business leaves the cTag out of delta (graph-api 9.3).
        let omit =
            drive.flavour().is_business() && within == Within::Delta && !self.state.switches.delta_c_tag;
        if let Some(tag) = drive.c_tag(slot).filter(|_| !omit) {
            item.insert("cTag".into(), json!(tag));
        }
        item.insert("webUrl".into(), json!(self.web_url(drive, slot)));
    }

    fn times(&self, item: &mut Map<String, Value>, drive: &Drive, node: &Node) {
        let f = drive.flavour().fraction();
        let who = |w: Who| self.identity_set(drive, w);
        item.insert("createdBy".into(), who(node.created_by));
        item.insert("lastModifiedBy".into(), who(node.modified_by));
        item.insert("createdDateTime".into(), json!(rfc3339(node.created, f)));
        item.insert("lastModifiedDateTime".into(), json!(rfc3339(node.modified, f)));
        item.insert(
            "fileSystemInfo".into(),
            json!({
                "createdDateTime": rfc3339(node.fs_created, f),
                "lastModifiedDateTime": rfc3339(node.fs_modified, f),
            }),
        );
    }

    pub(crate) fn identity_set(&self, drive: &Drive, who: Who) -> Value {
        let who = &self.state.identities[usize::from(who)];
        let mut user = json!({"id": who.id, "displayName": who.display_name});
        if drive.flavour().is_business() {
            user["email"] = json!(who.email);
        }
        json!({
            "application": {"id": who.application_id, "displayName": who.application},
            "user": user,
        })
    }

    /// graph-api 3.5; absent path in delta (9.2).
    fn parent_reference(&self, at: usize, slot: Slot, within: Within) -> Value {
        let drive = self.drive(at);
        let mut parent = json!({"driveId": drive.id, "driveType": drive.flavour().drive_type()});
        if drive.flavour().is_business() {
            parent["siteId"] = json!(drive.ids.site.text());
        }
        if slot == ROOT {
            return parent;
        }
        let above = drive.tree.node(slot).parent;
        parent["id"] = json!(drive.ids.item_id(above));
        if drive.flavour().is_business() {
            parent["name"] = json!(drive.tree.node(above).name);
        }
        if within == Within::Item || self.state.switches.delta_paths {
            let names = drive.tree.path(above);
            let escape = |n: &String| if self.state.switches.raw_paths { n.clone() } else { escape(n) };
            let mut path = match drive.flavour().is_business() {
                true => format!("/drives/{}/root:", drive.id),
                false => "/drive/root:".to_owned(),
            };
            for name in &names {
                path.push('/');
                path.push_str(&escape(name));
            }
            parent["path"] = json!(path);
        }
        parent
    }

    fn facets(&self, item: &mut Map<String, Value>, at: usize, slot: Slot, within: Within) {
        let drive = self.drive(at);
        let node = drive.tree.node(slot);
        if slot == ROOT {
            item.insert("root".into(), json!({}));
        }
        let extra = node.extra.as_ref();
        if extra.is_some_and(|e| e.remote.is_some()) {
            return;
        }
        match &node.kind {
            Kind::File(_) => {
                let mut file = json!({"mimeType": mime::of(&node.name)});
                if let Some(hashes) = self.hashes(drive, &node) {
                    file["hashes"] = hashes;
                }
                item.insert("file".into(), file);
                if within == Within::Item && !extra.is_some_and(|e| e.malware) {
                    let url = self.download_url(at, slot, 0);
                    item.insert("@microsoft.graph.downloadUrl".into(), json!(url));
                }
            }
            Kind::Folder(folder) => match extra.and_then(|e| e.package) {
                Some(kind) => {
                    item.insert("package".into(), json!({"type": kind}));
                }
                None => {
                    item.insert("folder".into(), json!({"childCount": folder.children.len()}));
                }
            },
        }
    }

    /// graph-api 3.3.
    fn hashes(&self, drive: &Drive, node: &Node) -> Option<Value> {
        let blob = node.blob()?;
        if self.state.switches.no_hashes || node.extra.as_ref().is_some_and(|e| e.no_hash) {
            return None;
        }
        let mut hashes = json!({"quickXorHash": hash::base64(&blob.quick_xor())});
        if !drive.flavour().is_business() && self.state.switches.sha_hashes && blob.sha_is_cheap() {
            let (one, two) = blob.sha();
            hashes["sha1Hash"] = json!(hash::hex_upper(&one));
            hashes["sha256Hash"] = json!(hash::hex_upper(&two));
        }
        Some(hashes)
    }

    fn extras(&self, item: &mut Map<String, Value>, at: usize, slot: Slot) {
        let drive = self.drive(at);
        let node = drive.tree.node(slot);
        let Some(extra) = &node.extra else { return };
        if let Some(text) = &extra.description {
            item.insert("description".into(), json!(text));
        }
        if let Some(name) = extra.special {
            item.insert("specialFolder".into(), json!({"name": name}));
        }
        if let Some(scope) = &extra.shared {
            item.insert("shared".into(), json!({"scope": scope}));
        }
        if extra.malware {
            item.insert("malware".into(), json!({"description": "EICAR-Test-File"}));
        }
        if let Some((other, target)) = extra.remote
            && other < self.state.drives.len()
        {
            item.insert("remoteItem".into(), self.remote_item(other, target));
        }
    }

    /// What a shortcut, or an entry of `sharedWithMe`, says of the item that it stands for (graph-api 2.5).
    fn remote_item(&self, other: usize, target: Slot) -> Value {
        let theirs = &self.state.drives[other];
        let node = theirs.tree.node(target);
        let f = theirs.flavour().fraction();
        let mut remote = json!({
            "id": theirs.ids.item_id(target),
            "name": node.name,
            "size": node.weight(),
            "parentReference": self.parent_reference(other, target, Within::Delta),
            "fileSystemInfo": {
                "createdDateTime": rfc3339(node.fs_created, f),
                "lastModifiedDateTime": rfc3339(node.fs_modified, f),
            },
            "webUrl": self.web_url(theirs, target),
        });
        match node.folder() {
            Some(folder) => remote["folder"] = json!({"childCount": folder.children.len()}),
            None => remote["file"] = json!({"mimeType": "application/octet-stream"}),
        }
        remote
    }

    /// The entries of `sharedWithMe`: their own ids lead nowhere (graph-api 2.5).
    pub(crate) fn shared_with_me(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for (at, drive) in self.state.drives.iter().enumerate().filter(|(_, drive)| !drive.gone) {
            for slot in drive.tree.subtree(ROOT) {
                let node = drive.tree.node(slot);
                if !node.extra.as_ref().is_some_and(|extra| extra.shared_with_me) {
                    continue;
                }
                all.push(json!({
                    "id": format!("shared-{at}-{slot}"),
                    "name": node.name,
                    "size": node.weight(),
                    "remoteItem": self.remote_item(at, slot),
                }));
            }
        }
        all
    }

    /// What comes only when selected (graph-api 3.2).
    fn on_request(&self, item: &mut Map<String, Value>, at: usize, slot: Slot) {
        let drive = self.drive(at);
        let node = drive.tree.node(slot);
        if !drive.flavour().is_business() {
            return;
        }
        if self.wants("publication") && node.blob().is_some() {
            let mut publication = json!({"level": "published", "versionId": format!("{}.0", node.version)});
            if let Some(who) = node.extra.as_ref().and_then(|e| e.checked_out) {
                publication["level"] = json!("checkout");
                publication["checkedOutBy"] = self.identity_set(drive, who);
            }
            item.insert("publication".into(), publication);
        }
        if self.wants("sharepointIds") {
            item.insert("sharepointIds".into(), self.sharepoint_ids(drive, Some(slot)));
        }
        if self.wants("webDavUrl") {
            item.insert("webDavUrl".into(), json!(self.web_path(drive, slot)));
        }
    }

    fn sharepoint_ids(&self, drive: &Drive, slot: Option<Slot>) -> Value {
        let mut ids = json!({
            "listId": drive.ids.list.text(),
            "siteId": drive.ids.site.text(),
            "webId": drive.ids.web.text(),
            "siteUrl": format!("https://{}", drive.web_path),
            "tenantId": super::ids::Guid::derived(0x7E4A).text(),
        });
        if let Some(slot) = slot {
            ids["listItemId"] = json!(slot.to_string());
            ids["listItemUniqueId"] = json!(drive.ids.guid(slot).text());
        }
        ids
    }

    /// A deletion in delta: each service leaves out other fields (graph-api 9.3).
    fn deleted(&self, at: usize, slot: Slot) -> Map<String, Value> {
        let drive = self.drive(at);
        let node = drive.tree.node(slot);
        let mut parent = json!({
            "driveId": drive.id,
            "driveType": drive.flavour().drive_type(),
            "id": drive.ids.item_id(node.parent),
        });
        let mut item = Map::new();
        item.insert("id".into(), json!(drive.ids.item_id(slot)));
        if drive.flavour().is_business() {
            parent["siteId"] = json!(drive.ids.site.text());
            item.insert("deleted".into(), json!({"state": "deleted"}));
            item.insert("size".into(), json!(0));
            if node.blob().is_some() {
                let zero = hash::base64(&[0; 20]);
                item.insert("file".into(), json!({"hashes": {"quickXorHash": zero}}));
            }
        } else {
            item.insert("deleted".into(), json!({}));
            item.insert("name".into(), json!(node.name));
            if let Some(tag) = drive.e_tag(slot) {
                item.insert("eTag".into(), json!(tag));
            }
        }
        if node.blob().is_none() {
            item.insert("folder".into(), json!({"childCount": 0}));
        }
        item.insert("parentReference".into(), parent);
        self.apply_select(item)
    }

    fn web_path(&self, drive: &Drive, slot: Slot) -> String {
        let mut url = format!("https://{}", drive.web_path);
        for name in drive.tree.path(slot) {
            url.push('/');
            url.push_str(&escape(&name));
        }
        url
    }

    /// Not a path on personal drives, nor for Office files on Business (graph-api 3.2).
    fn web_url(&self, drive: &Drive, slot: Slot) -> String {
        let node = drive.tree.node(slot);
        if !drive.flavour().is_business() {
            return format!(
                "https://onedrive.live.com/?cid={}&id={}",
                drive.id,
                escape(&drive.ids.item_id(slot))
            );
        }
        if node.blob().is_some() && mime::is_office(&node.name) {
            let host = drive.web_path.split('/').next().unwrap_or_default();
            let guid = drive.ids.guid(slot).text().to_uppercase();
            let name = escape(&node.name);
            return format!(
                "https://{host}/_layouts/15/Doc.aspx?sourcedoc=%7B{guid}%7D&file={name}&action=default"
            );
        }
        self.web_path(drive, slot)
    }

    /// A pre-authenticated URL (graph-api 6.1); `version` 0 is whatever is current when it is used.
    pub(crate) fn download_url(&self, at: usize, slot: Slot, version: u32) -> String {
        let token = self.state.urls.issue(at, slot, version, self.now);
        format!("{}/_data/download?tempauth={token}", self.base)
    }

    /// The drive resource (graph-api 2.2).
    pub(crate) fn drive_json(&self, at: usize) -> Map<String, Value> {
        let drive = self.drive(at);
        let f = drive.flavour().fraction();
        let owner = &self.state.identities[usize::from(drive.owner)];
        let owner = match drive.flavour() {
            Flavour::DocumentLibrary => {
                let site = self.state.sites.iter().find(|site| site.drives.contains(&at));
                let group = site.and_then(|site| site.group.as_ref()).unwrap_or(&owner.id);
                json!({"group": {"displayName": "Team Owners", "id": group}})
            }
            _ => json!({"user": {"id": owner.id, "displayName": owner.display_name}}),
        };
        let mut json = json!({
            "id": drive.id,
            "driveType": drive.flavour().drive_type(),
            "name": drive.name,
            "description": "",
            "webUrl": format!("https://{}", drive.web_path),
            "createdDateTime": rfc3339(drive.created, f),
            "lastModifiedDateTime": rfc3339(drive.tree.node(ROOT).modified, f),
            "owner": owner,
            "quota": self.quota(drive),
        });
        if drive.flavour().is_business() && self.wants("sharePointIds") {
            json["sharePointIds"] = self.sharepoint_ids(drive, None);
        }
        match json {
            Value::Object(map) => self.apply_select(map),
            _ => Map::new(),
        }
    }

    /// graph-api 2.3.
    fn quota(&self, drive: &Drive) -> Value {
        if self.state.switches.zero_quota {
            return json!({"deleted": 0, "remaining": 0, "state": "normal", "total": 0, "used": 0});
        }
        let (total, used) = (drive.quota_total, drive.tree.node(ROOT).weight());
        let deleted: i64 = drive.tree.bin.keys().map(|s| drive.tree.node(*s).weight()).sum();
        let remaining = (total - used).max(0);
        let state = match remaining {
            0 => "exceeded",
            r if r < total / 100 => "critical",
            r if r < total / 10 => "nearing",
            _ => "normal",
        };
        json!({
            "deleted": deleted, "remaining": remaining, "state": state, "total": total, "used": used,
            "storagePlanInformation": {"upgradeAvailable": true},
        })
    }

    /// A version (graph-api 8); the current one is described by the item itself.
    pub(crate) fn versions(&self, at: usize, slot: Slot) -> Vec<Value> {
        let drive = self.drive(at);
        let node = drive.tree.node(slot);
        let f = drive.flavour().fraction();
        let one = |number: u32, modified: Ms, by: Who, size: u64| {
            let mut v = json!({
                "id": format!("{number}.0"),
                "lastModifiedDateTime": rfc3339(modified, f),
                "lastModifiedBy": self.identity_set(drive, by),
                "size": size,
            });
            if drive.flavour().is_business() {
                v["publication"] = json!({"level": "published", "versionId": format!("{number}.0")});
            }
            v
        };
        let size = node.blob().map_or(0, super::content::Blob::len);
        let mut all = vec![one(node.version, node.modified, node.modified_by, size)];
        for v in drive.tree.versions.get(&slot).into_iter().flatten().rev() {
            all.push(one(v.number, v.modified, v.modified_by, v.blob.len()));
        }
        all
    }
}

/// `expirationDateTime` and its kind: three fraction digits (graph-api 7.2).
pub(crate) fn expiry(ms: Ms) -> Value {
    json!(rfc3339(ms, Fraction::Millis))
}
