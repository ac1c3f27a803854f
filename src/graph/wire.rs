//! The service's JSON, in both directions: the only file with its field names.
//!
//! Reading is defensive (graph-api 3, 11.3): null is absent, unknown members are ignored, a member of an
//! unexpected type is dropped rather than the page it is on, and an error body may be anything.

mod sharing;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::drives::Site;
use crate::model::hash::{from_hex, quick_xor_from_base64};
use crate::model::remote::{DownloadUrl, ModifiedBy};
use crate::model::{
    CTag, Drive, DriveId, DriveType, ETag, Hashes, ItemId, ItemKind, Quota, RemoteItem, Timestamp,
};

pub use sharing::{far_item, far_items, groups, shared_item};

/// What is asked of an item in listings and when it is read alone.
pub const SELECT_ITEM: &str = "id,name,size,eTag,cTag,createdDateTime,lastModifiedDateTime,lastModifiedBy,\
    fileSystemInfo,parentReference,file,folder,package,root,deleted,remoteItem,malware,webUrl,\
    @microsoft.graph.downloadUrl";

/// What is asked of an item in delta: no address, which would age in the store unused.
pub const SELECT_DELTA: &str = "id,name,size,eTag,cTag,createdDateTime,lastModifiedDateTime,lastModifiedBy,\
    fileSystemInfo,parentReference,file,folder,package,root,deleted,remoteItem,malware,webUrl";

const CONFLICT: &str = "@microsoft.graph.conflictBehavior";
const SOURCE_URL: &str = "@microsoft.graph.sourceUrl";

/// The query parameter for a name that is taken (graph-api 7.6).
pub fn conflict_query(conflict: ConflictBehavior) -> String {
    format!("%40microsoft.graph.conflictBehavior={}", conflict.as_str())
}

/// What the service does when a name is taken (graph-api 7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConflictBehavior {
    /// Answer `Exists`.
    Fail,
    /// Replace what has the name.
    Replace,
    /// Choose another name.
    Rename,
}

impl ConflictBehavior {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Replace => "replace",
            Self::Rename => "rename",
        }
    }
}

// ---- reading ----

/// Reads `T`, all of whose members are optional; members of an unexpected type are left out.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok().or_else(|| lenient(serde_json::from_slice(bytes).ok()?))
}

fn lenient<T: DeserializeOwned>(value: Value) -> Option<T> {
    let Value::Object(members) = value else { return None };
    let fits = |key: &str, value: &Value| {
        let one: Map<String, Value> = std::iter::once((key.to_owned(), value.clone())).collect();
        serde_json::from_value::<T>(Value::Object(one)).is_ok()
    };
    let mut kept = Map::new();
    for (key, value) in members {
        if fits(&key, &value) {
            kept.insert(key, value);
        } else if value.is_object() && fits(&key, &json!({})) {
            // A facet says something by being there, whatever is wrong inside.
            kept.insert(key, json!({}));
        }
    }
    serde_json::from_value(Value::Object(kept)).ok()
}

/// One page of a collection, with the links that may follow it.
#[derive(Debug)]
pub struct Page<T> {
    /// The entries that could be read.
    pub entries: Vec<T>,
    /// Entries that could not, not even their id.
    pub skipped: usize,
    /// Where the next page is.
    pub next: Option<String>,
    /// Where later changes are.
    pub delta: Option<String>,
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct RawPage<T> {
    value: Option<Vec<T>>,
    #[serde(rename = "@odata.nextLink")]
    next: Option<String>,
    #[serde(rename = "@odata.deltaLink")]
    delta: Option<String>,
}

fn read_page<Raw: DeserializeOwned, T>(bytes: &[u8], convert: impl Fn(Raw) -> Option<T>) -> Option<Page<T>> {
    let (raw, total) = match serde_json::from_slice::<RawPage<Raw>>(bytes) {
        Ok(page) => {
            let RawPage { value, next, delta } = page;
            // A page without the array is a page only if it leads somewhere.
            let value = value.or_else(|| (next.is_some() || delta.is_some()).then(Vec::new))?;
            let total = value.len();
            (RawPage { value: Some(value), next, delta }, total)
        }
        Err(_) => {
            let page: RawPage<Value> = serde_json::from_slice(bytes).ok()?;
            let values = page.value?;
            let total = values.len();
            let value = Some(values.into_iter().filter_map(lenient).collect());
            (RawPage { value, next: page.next, delta: page.delta }, total)
        }
    };
    let entries: Vec<T> = raw.value.unwrap_or_default().into_iter().filter_map(convert).collect();
    Some(Page { skipped: total - entries.len(), entries, next: raw.next, delta: raw.delta })
}

/// One item; `None` if it has no id or is not JSON.
pub fn item(bytes: &[u8]) -> Option<RemoteItem> {
    read::<WireItem>(bytes)?.into_model()
}

/// A page of items.
pub fn items(bytes: &[u8]) -> Option<Page<RemoteItem>> {
    read_page(bytes, WireItem::into_model)
}

/// A page of the pictures of a folder's children; those without one are left out.
pub fn thumbnails(bytes: &[u8]) -> Option<Page<(ItemId, DownloadUrl)>> {
    #[derive(Deserialize)]
    struct Child {
        id: Option<String>,
        thumbnails: Option<Vec<Set>>,
    }
    #[derive(Deserialize)]
    struct Set {
        large: Option<Picture>,
        medium: Option<Picture>,
    }
    #[derive(Deserialize)]
    struct Picture {
        url: Option<String>,
    }
    read_page(bytes, |child: Child| {
        let set = child.thumbnails?.into_iter().next()?;
        let of = |picture: Option<Picture>| picture?.url.filter(|url| !url.is_empty());
        let url = of(set.large).or_else(|| of(set.medium))?;
        Some((ItemId::new(child.id.filter(|id| !id.is_empty())?), DownloadUrl::new(url)))
    })
}

/// One drive.
pub fn drive(bytes: &[u8]) -> Option<Drive> {
    read::<WireDrive>(bytes)?.into_model()
}

/// A page of drives.
pub fn drives(bytes: &[u8]) -> Option<Page<Drive>> {
    read_page(bytes, WireDrive::into_model)
}

/// A page of sites.
pub fn sites(bytes: &[u8]) -> Option<Page<Site>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        id: Option<String>,
        name: Option<String>,
        display_name: Option<String>,
    }
    read_page(bytes, |raw: Raw| {
        let id = raw.id.filter(|id| !id.is_empty())?;
        let given = |name: Option<String>| name.filter(|name| !name.trim().is_empty());
        let name = given(raw.display_name).or_else(|| given(raw.name));
        Some(Site { name: name.unwrap_or_else(|| id.clone()), id })
    })
}

/// The id of a site.
pub fn site_id(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Site {
        id: Option<String>,
    }
    read::<Site>(bytes)?.id
}

/// An earlier content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// As used in addresses.
    pub id: String,
    /// Bytes.
    pub size: Option<u64>,
    /// When it was written.
    pub mtime: Option<Timestamp>,
}

/// A page of versions, newest first.
pub fn versions(bytes: &[u8]) -> Option<Page<Version>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        id: Option<String>,
        size: Option<i64>,
        last_modified_date_time: Option<String>,
    }
    read_page(bytes, |raw: Raw| {
        Some(Version {
            id: raw.id?,
            size: count(raw.size),
            mtime: time(raw.last_modified_date_time.as_deref()),
        })
    })
}

/// What the service says of an upload session.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Only in the answer that makes it.
    pub url: Option<String>,
    /// When it ends; moves on with each fragment.
    pub expires: Option<Timestamp>,
    /// First bytes of the parts still missing; `None` if it did not say.
    pub missing: Option<Vec<u64>>,
}

/// An upload session.
pub fn session(bytes: &[u8]) -> Option<Session> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        upload_url: Option<String>,
        expiration_date_time: Option<String>,
        next_expected_ranges: Option<Vec<String>>,
    }
    let raw: Raw = read(bytes)?;
    let start = |range: &String| range.split('-').next()?.trim().parse::<u64>().ok();
    let mut missing: Option<Vec<u64>> = match raw.next_expected_ranges {
        Some(ranges) => Some(ranges.iter().map(start).collect::<Option<_>>()?),
        None => None,
    };
    if let Some(starts) = &mut missing {
        starts.sort_unstable();
    }
    Some(Session { url: raw.upload_url, expires: time(raw.expiration_date_time.as_deref()), missing })
}

/// How far a copy on the service has come.
#[derive(Clone, Debug, PartialEq)]
pub enum CopyStatus {
    /// Still going on.
    Running {
        /// 0 to 100, where told.
        percent: Option<f64>,
    },
    /// Done.
    Done {
        /// The new item, where told.
        item: Option<ItemId>,
    },
    /// Ended without the copy, or with a part of it.
    Failed {
        /// The service's code.
        code: String,
    },
}

/// The answer of a copy's monitor; the body's status decides (graph-api 8.1).
pub fn copy_status(bytes: &[u8]) -> Option<CopyStatus> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        status: Option<String>,
        percentage_complete: Option<f64>,
        resource_id: Option<String>,
        error_code: Option<String>,
    }
    let raw: Raw = read(bytes)?;
    let status = raw.status?.to_ascii_lowercase();
    Some(match status.as_str() {
        "completed" => CopyStatus::Done { item: raw.resource_id.map(ItemId::new) },
        "failed" | "cancelled" | "deletefailed" => {
            CopyStatus::Failed { code: raw.error_code.or_else(|| error_codes(bytes).pop()).unwrap_or(status) }
        }
        _ => CopyStatus::Running { percent: raw.percentage_complete },
    })
}

/// The address for changes as they happen (graph-api 10.2).
pub fn push_channel(bytes: &[u8]) -> Option<(String, Option<Timestamp>)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        notification_url: Option<String>,
        expiration_date_time: Option<String>,
    }
    let raw: Raw = read(bytes)?;
    Some((raw.notification_url?, time(raw.expiration_date_time.as_deref())))
}

/// All codes of an error body, outermost first; empty for HTML, empty bodies and anything else.
pub fn error_codes(bytes: &[u8]) -> Vec<String> {
    const MAX_DEPTH: usize = 16;
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return Vec::new() };
    let mut codes = Vec::new();
    let mut at = body.get("error").or_else(|| body.get("odata.error"));
    for _ in 0..MAX_DEPTH {
        let Some(error) = at else { break };
        let code = error.get("code").and_then(Value::as_str).or(error.as_str());
        codes.extend(code.filter(|code| !code.is_empty()).map(str::to_owned));
        at = ["innerError", "innererror"].iter().find_map(|name| error.get(name));
    }
    codes
}

fn count(number: Option<i64>) -> Option<u64> {
    number.and_then(|number| u64::try_from(number).ok())
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    text.and_then(Timestamp::parse_rfc3339)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireItem {
    id: Option<String>,
    name: Option<String>,
    size: Option<i64>,
    e_tag: Option<String>,
    #[serde(rename = "@odata.etag")]
    odata_etag: Option<String>,
    c_tag: Option<String>,
    created_date_time: Option<String>,
    last_modified_date_time: Option<String>,
    last_modified_by: Option<WireIdentities>,
    file_system_info: Option<WireTimes>,
    parent_reference: Option<WireParent>,
    file: Option<WireFile>,
    folder: Option<WireFolder>,
    package: Option<Present>,
    root: Option<Present>,
    deleted: Option<Present>,
    malware: Option<Present>,
    remote_item: Option<Box<WireRemote>>,
    web_url: Option<String>,
    #[serde(rename = "@microsoft.graph.downloadUrl")]
    download_url: Option<String>,
}

/// A facet of which only the presence counts.
#[derive(Deserialize)]
struct Present {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTimes {
    created_date_time: Option<String>,
    last_modified_date_time: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireParent {
    drive_id: Option<String>,
    id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFile {
    mime_type: Option<String>,
    hashes: Option<WireHashes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireHashes {
    quick_xor_hash: Option<String>,
    sha1_hash: Option<String>,
    sha256_hash: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFolder {
    child_count: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRemote {
    id: Option<String>,
    parent_reference: Option<WireParent>,
}

#[derive(Deserialize)]
struct WireIdentities {
    application: Option<WireIdentity>,
    user: Option<WireIdentity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireIdentity {
    id: Option<String>,
    display_name: Option<String>,
}

impl WireItem {
    fn into_model(self) -> Option<RemoteItem> {
        let id = ItemId::new(self.id.filter(|id| !id.is_empty())?);
        let kind = if self.remote_item.is_some() {
            Some(ItemKind::Shortcut)
        } else if self.package.is_some() {
            Some(ItemKind::Package)
        } else if self.folder.is_some() || self.root.is_some() {
            Some(ItemKind::Folder)
        } else if self.file.is_some() {
            Some(ItemKind::File)
        } else {
            None
        };
        let (drive, parent) =
            self.parent_reference.map_or((None, None), |parent| (parent.drive_id, parent.id));
        let target = self.remote_item.and_then(|remote| {
            let drive = remote.parent_reference?.drive_id?;
            Some((DriveId::new(drive), ItemId::new(remote.id?)))
        });
        let size = count(self.size);
        let (mime_type, hashes) = self.file.map_or((None, None), |file| (file.mime_type, file.hashes));
        let (born, changed) = self
            .file_system_info
            .map_or((None, None), |times| (times.created_date_time, times.last_modified_date_time));
        Some(RemoteItem {
            id,
            drive: drive.map(DriveId::new),
            parent: parent.filter(|_| self.root.is_none()).map(ItemId::new),
            name: self.name,
            kind,
            root: self.root.is_some(),
            deleted: self.deleted.is_some(),
            size,
            mtime: time(changed.as_deref()).or_else(|| time(self.last_modified_date_time.as_deref())),
            btime: time(born.as_deref()).or_else(|| time(self.created_date_time.as_deref())),
            changed: time(self.last_modified_date_time.as_deref()),
            etag: self.e_tag.or(self.odata_etag).map(ETag::new),
            // A folder's cTag is absent, frozen or moves with its children (graph-api 15.8).
            ctag: self.c_tag.filter(|_| kind != Some(ItemKind::Folder)).map(CTag::new),
            hashes: hashes.map_or_else(Hashes::default, |hashes| hashes.into_model(size)),
            child_count: self.folder.and_then(|folder| count(folder.child_count)),
            malware: self.malware.is_some(),
            web_url: self.web_url,
            mime_type,
            download_url: self.download_url.map(DownloadUrl::new),
            last_modified_by: self.last_modified_by.map(WireIdentities::into_model),
            target,
        })
    }
}

impl WireHashes {
    /// All zero is what deleted entries carry in place of a hash; it is true for empty content only
    /// (graph-api 3.3).
    fn into_model(self, size: Option<u64>) -> Hashes {
        let quick_xor = self.quick_xor_hash.as_deref().and_then(quick_xor_from_base64);
        Hashes {
            quick_xor: quick_xor.filter(|hash| *hash != [0; 20] || size == Some(0)),
            sha1: self.sha1_hash.as_deref().and_then(from_hex),
            sha256: self.sha256_hash.as_deref().and_then(from_hex),
        }
    }
}

impl WireIdentities {
    fn into_model(self) -> ModifiedBy {
        let name = |identity: &Option<WireIdentity>| identity.as_ref()?.display_name.clone();
        ModifiedBy {
            display_name: name(&self.user).or_else(|| name(&self.application)),
            application: self.application.and_then(|identity| identity.id),
            user: self.user.and_then(|identity| identity.id),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDrive {
    id: Option<String>,
    drive_type: Option<String>,
    name: Option<String>,
    web_url: Option<String>,
    owner: Option<WireOwner>,
    quota: Option<WireQuota>,
}

#[derive(Deserialize)]
struct WireOwner {
    user: Option<WireIdentity>,
    group: Option<WireIdentity>,
}

#[derive(Deserialize)]
struct WireQuota {
    total: Option<i64>,
    used: Option<i64>,
    remaining: Option<i64>,
    state: Option<String>,
}

fn drive_type(text: Option<&str>) -> DriveType {
    match text {
        Some("personal") => DriveType::Personal,
        Some("business") => DriveType::Business,
        _ => DriveType::DocumentLibrary,
    }
}

impl WireDrive {
    fn into_model(self) -> Option<Drive> {
        let owner = self.owner.and_then(|owner| owner.user.or(owner.group)).and_then(|who| who.display_name);
        Some(Drive {
            id: DriveId::new(self.id.filter(|id| !id.is_empty())?),
            drive_type: drive_type(self.drive_type.as_deref()),
            name: self.name.unwrap_or_default(),
            web_url: self.web_url,
            owner,
            quota: self.quota.and_then(WireQuota::into_model),
        })
    }
}

impl WireQuota {
    /// All zero or absent is unknown, not full (graph-api 2.3).
    fn into_model(self) -> Option<Quota> {
        let total = count(self.total).unwrap_or(0);
        let used = count(self.used).unwrap_or(0);
        let quota = Quota {
            total,
            used,
            remaining: count(self.remaining).unwrap_or(total.saturating_sub(used)),
            exceeded: self.state.as_deref() == Some("exceeded"),
        };
        (quota.total > 0).then_some(quota)
    }
}

// ---- writing ----

fn times(mtime: Option<Timestamp>, btime: Option<Timestamp>) -> Option<Value> {
    let mut info = Map::new();
    let mut put = |name: &str, time: Option<Timestamp>| {
        time.map(|time| info.insert(name.into(), time.to_rfc3339_seconds().into()));
    };
    put("lastModifiedDateTime", mtime);
    put("createdDateTime", btime);
    (!info.is_empty()).then_some(Value::Object(info))
}

fn with_times(mut body: Value, mtime: Option<Timestamp>, btime: Option<Timestamp>) -> Value {
    if let (Some(info), Some(object)) = (times(mtime, btime), body.as_object_mut()) {
        object.insert("fileSystemInfo".into(), info);
    }
    body
}

/// Makes a folder; a name that is taken is an error.
pub fn mkdir_body(name: &str, mtime: Option<Timestamp>) -> Value {
    with_times(json!({ "name": name, "folder": {}, CONFLICT: "fail" }), mtime, None)
}

/// What a session's request may leave out when the service refuses it (graph-api 15.5, 15.6).
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionFields<'a> {
    /// Must be the name in the address.
    pub name: Option<&'a str>,
    /// Announced size.
    pub size: Option<u64>,
    /// Client modification time.
    pub mtime: Option<Timestamp>,
    /// Client creation time.
    pub btime: Option<Timestamp>,
}

/// Begins an upload session.
pub fn session_body(fields: SessionFields<'_>, conflict: ConflictBehavior, defer_commit: bool) -> Value {
    let mut item = with_times(json!({ CONFLICT: conflict.as_str() }), fields.mtime, fields.btime);
    if let Some(object) = item.as_object_mut() {
        fields.name.map(|name| object.insert("name".into(), name.into()));
        fields.size.map(|size| object.insert("fileSize".into(), size.into()));
    }
    let mut body = json!({ "item": item });
    if defer_commit && let Some(object) = body.as_object_mut() {
        object.insert("deferCommit".into(), true.into());
    }
    body
}

/// Ends a deferred session on a personal drive, or rescues one whose end was refused (graph-api 7.4).
pub fn commit_body(name: &str, conflict: ConflictBehavior, upload_url: &str) -> Value {
    json!({ "name": name, CONFLICT: conflict.as_str(), SOURCE_URL: upload_url })
}

/// Renames, moves, sets times.
pub fn patch_body(
    name: Option<&str>,
    parent: Option<&ItemId>,
    mtime: Option<Timestamp>,
    btime: Option<Timestamp>,
    conflict: Option<ConflictBehavior>,
) -> Value {
    let mut body = with_times(json!({}), mtime, btime);
    if let Some(object) = body.as_object_mut() {
        name.map(|name| object.insert("name".into(), name.into()));
        parent.map(|parent| object.insert("parentReference".into(), json!({ "id": parent.as_str() })));
        conflict.map(|conflict| object.insert(CONFLICT.into(), conflict.as_str().into()));
    }
    body
}

/// Copies on the service.
pub fn copy_body(drive: &DriveId, parent: &ItemId, name: Option<&str>) -> Value {
    let mut body = json!({ "parentReference": { "driveId": drive.as_str(), "id": parent.as_str() } });
    if let (Some(name), Some(object)) = (name, body.as_object_mut()) {
        object.insert("name".into(), name.into());
    }
    body
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
