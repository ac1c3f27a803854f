//! Items: read, content, create, change, delete (graph-api 6.1, 7.1, 8).

use serde_json::Value;

use super::content::Blob;
use super::drive::{Act, Conflict, FsTimes};
use super::error::{ApiError, ApiResult};
use super::graph::{Payload, Place, conflict};
use super::http::{Call, Reply};
use super::state::State;
use super::time;
use super::tree::{Life, ROOT, Slot};

impl State {
    /// `If-Match` and `If-None-Match` against eTag and cTag, exactly as handed out (graph-api 3.4).
    pub(crate) fn preconditions(&self, call: &Call, at: usize, slot: Option<Slot>) -> ApiResult<()> {
        if let Some(tag) = call.header("if-match") {
            let Some(slot) = slot else { return Err(ApiError::precondition()) };
            if !self.tag_matches(at, slot, tag)? {
                return Err(ApiError::precondition());
            }
        }
        let reads = matches!(call.method.as_str(), "GET" | "HEAD");
        if let (Some(tag), Some(slot), false) = (call.header("if-none-match"), slot, reads)
            && self.tag_matches(at, slot, tag)?
        {
            return Err(ApiError::precondition());
        }
        Ok(())
    }

    /// Business tags carry quotes; a personal tag may come bare or quoted.
    fn tag_matches(&self, at: usize, slot: Slot, given: &str) -> ApiResult<bool> {
        let given = given.trim();
        if given == "*" {
            return Ok(true);
        }
        let drive = &self.drives[at];
        let quoted = given.len() >= 2 && given.starts_with('"') && given.ends_with('"');
        if drive.flavour() != super::flavour::Flavour::Personal && !quoted {
            return Err(ApiError::new(412, "malformedEntityTag", "ETags must be quoted strings."));
        }
        let bare = given.trim_matches('"');
        let tags = [drive.e_tag(slot), drive.c_tag(slot)];
        Ok(tags.into_iter().flatten().any(|tag| tag == given || tag == bare))
    }

    /// 304 for reads whose tag still holds (graph-api 6.1).
    fn not_modified(&self, call: &Call, at: usize, slot: Slot) -> ApiResult<bool> {
        match call.header("if-none-match") {
            Some(tag) => self.tag_matches(at, slot, tag),
            None => Ok(false),
        }
    }

    /// The item of a GET: a personal drive shows deleted ones when asked to (graph-api 8, `restore`).
    pub(crate) fn item_for_get(&self, call: &Call, at: usize, place: &Place) -> ApiResult<Slot> {
        let asked = call.query.iter().any(|(k, v)| k == "includeDeletedItems" && v == "true");
        if let (Place::Item(slot), true, false) = (place, asked, self.flavour(at).is_business())
            && self.drives[at].tree.node(*slot).life == Life::Recycled
        {
            return Ok(*slot);
        }
        self.existing(at, place)
    }

    pub(crate) fn get_item(&self, call: &Call, at: usize, slot: Slot) -> ApiResult<Reply> {
        if self.not_modified(call, at, slot)? {
            return Ok(Reply::empty(304));
        }
        let r = self.renderer(call);
        let mut item = r.entity(at, slot);
        if self.drives[at].tree.node(slot).life == Life::Recycled {
            item["deleted"] = serde_json::json!({});
        }
        self.expand(call, at, slot, &mut item)?;
        Ok(Reply::json(200, item))
    }

    /// 302 to the pre-authenticated URL, with an empty body (graph-api 6.1).
    pub(crate) fn get_content(&self, call: &Call, at: usize, slot: Slot) -> ApiResult<Reply> {
        let node = self.drives[at].live(slot)?;
        if node.blob().is_none() {
            return Err(ApiError::not_supported("The item has no content."));
        }
        if node.extra.as_ref().is_some_and(|e| e.malware) {
            return Err(ApiError::new(
                403,
                "malwareDetected",
                "Malware was detected in the requested resource.",
            ));
        }
        if self.not_modified(call, at, slot)? {
            return Ok(Reply::empty(304));
        }
        Ok(Reply::empty(302).header("location", self.renderer(call).download_url(at, slot, 0)))
    }

    /// Whether a PUT of content is acceptable, before its bytes are read.
    pub(crate) fn check_content_put(&self, call: &Call, at: usize, place: &Place, act: Act) -> ApiResult<()> {
        let behaviour = conflict(call, None)?.unwrap_or(Conflict::Replace);
        let drive = &self.drives[at];
        match place {
            Place::Item(slot) => {
                let node = drive.live(*slot)?;
                self.preconditions(call, at, Some(*slot))?;
                if *slot == ROOT {
                    return Err(ApiError::exists());
                }
                match behaviour {
                    Conflict::Replace => drive.check_replace(*slot, act.by)?,
                    _ => drive.check_put(node.parent, &node.name, behaviour, act.by)?,
                }
            }
            Place::Missing { parent, rest } => {
                self.preconditions(call, at, None)?;
                rest.iter().try_for_each(|name| drive.check_place(*parent, name))?;
            }
        }
        if let Some(length) = call.length {
            drive.check_quota(length as i64 - self.weight(at, place))?;
        }
        Ok(())
    }

    fn weight(&self, at: usize, place: &Place) -> i64 {
        match place {
            Place::Item(slot) => self.drives[at].tree.node(*slot).weight(),
            Place::Missing { .. } => 0,
        }
    }

    /// Simple PUT (graph-api 7.1): 201 created, 200 replaced; folders on the way are made.
    pub(crate) fn put_content(
        &mut self,
        call: &Call,
        at: usize,
        place: Place,
        blob: Blob,
        act: Act,
    ) -> ApiResult<Reply> {
        self.check_content_put(call, at, &place, act)?;
        let behaviour = conflict(call, None)?.unwrap_or(Conflict::Replace);
        let drive = &mut self.drives[at];
        let none = FsTimes::default();
        let (slot, created) = match place {
            Place::Item(slot) if behaviour == Conflict::Replace => {
                drive.replace(slot, blob, none, act)?;
                (slot, false)
            }
            Place::Item(slot) => {
                let (parent, name) = (drive.tree.node(slot).parent, drive.tree.node(slot).name.clone());
                drive.put(parent, &name, blob, behaviour, none, act)?
            }
            Place::Missing { parent, rest } => {
                let (name, folders) = rest.split_last().ok_or_else(ApiError::not_found)?;
                let parent = drive.make_path(parent, folders, act)?;
                drive.put(parent, name, blob, behaviour, none, act)?
            }
        };
        self.after_upload(at, slot, act);
        let item = self.renderer(call).entity(at, slot);
        Ok(Reply::json(if created { 201 } else { 200 }, item))
    }

    /// POST children: a folder, or a shortcut to one (graph-api 2.5, 8).
    pub(crate) fn make_child(
        &mut self,
        call: &Call,
        at: usize,
        parent: Slot,
        body: &Value,
        act: Act,
    ) -> ApiResult<Reply> {
        let name = body.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| ApiError::invalid("The name is missing."))?;
        if let Some(remote) = body.get("remoteItem") {
            return self.make_shortcut(call, at, parent, name, remote, act);
        }
        if !body.get("folder").is_some_and(Value::is_object) {
            return Err(ApiError::invalid("The body must have a folder facet."));
        }
        let given = conflict(call, Some(body))?;
        // Without the property a personal drive was seen answering the existing folder (graph-api 7.6).
        if given.is_none()
            && !self.flavour(at).is_business()
            && let Some(slot) = self.drives[at].tree.child(parent, name)
            && self.drives[at].tree.node(slot).blob().is_none()
        {
            return Ok(Reply::json(200, self.renderer(call).entity(at, slot)));
        }
        let times = times(body)?;
        let drive = &mut self.drives[at];
        drive.check_times(times)?;
        let slot = drive.mkdir(parent, name, given.unwrap_or(Conflict::Fail), act)?;
        let node = drive.tree.node_mut(slot);
        node.fs_created = times.created.unwrap_or(node.fs_created);
        node.fs_modified = times.modified.unwrap_or(node.fs_modified);
        let r = self.renderer(call);
        let entity = r.entity(at, slot);
        Ok(Reply::json(201, entity).header("location", self.item_url(call, at, slot)))
    }

    fn make_shortcut(
        &mut self,
        call: &Call,
        at: usize,
        parent: Slot,
        name: &str,
        remote: &Value,
        act: Act,
    ) -> ApiResult<Reply> {
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let reference = remote.get("parentReference").cloned().unwrap_or_default();
        let other = self.drive_by_id(&text(&reference, "driveId"))?;
        let theirs = &self.drives[other];
        let target = theirs.tree.resolve(&theirs.ids, &text(remote, "id")).ok_or_else(ApiError::not_found)?;
        if theirs.live(target)?.blob().is_some() {
            return Err(ApiError::invalid("Only folders can be added as shortcuts."));
        }
        // Shortcuts of personal drives live in the root only (graph-api 2.5).
        if parent != ROOT && !self.flavour(at).is_business() {
            return Err(ApiError::invalid("A shortcut can only be added to the root."));
        }
        let drive = &mut self.drives[at];
        let slot = drive.mkdir(parent, name, Conflict::Rename, act)?;
        drive.tree.node_mut(slot).extra_mut().remote = Some((other, target));
        Ok(Reply::json(201, self.renderer(call).entity(at, slot)))
    }

    /// PATCH: name, parent, times, description (graph-api 8).
    pub(crate) fn patch(
        &mut self,
        call: &Call,
        at: usize,
        slot: Slot,
        body: &Value,
        act: Act,
    ) -> ApiResult<Reply> {
        self.preconditions(call, at, Some(slot))?;
        let behaviour = conflict(call, Some(body))?.unwrap_or(Conflict::Fail);
        let business = self.flavour(at).is_business();
        if behaviour == Conflict::Replace && business && !self.switches.business_rename_replace {
            return Err(ApiError::exists());
        }
        let node = self.drives[at].live(slot)?;
        let name = match body.get("name") {
            None => node.name.to_string(),
            Some(name) => {
                name.as_str().ok_or_else(|| ApiError::invalid("The name is no string."))?.to_owned()
            }
        };
        let parent = self.new_parent(at, slot, body)?;
        let times = times(body)?;
        self.drives[at].check_times(times)?;
        if let Some(text) = body.get("description") {
            if business {
                return Err(
                    ApiError::invalid("description cannot be set here.").inner("propertyNotUpdateable")
                );
            }
            let text = text.as_str().map(str::to_owned);
            self.drives[at].tree.node_mut(slot).extra_mut().description = text;
            self.drives[at].stir(slot, act.now);
        }
        let node = self.drives[at].tree.node(slot);
        if *name != *node.name || parent != node.parent {
            self.drives[at].relocate(slot, parent, &name, behaviour, act)?;
        }
        if times != FsTimes::default() {
            self.drives[at].set_times(slot, times, act)?;
        }
        Ok(Reply::json(200, self.renderer(call).entity(at, slot)))
    }

    /// The folder that `parentReference` names; not across drives (graph-api 8).
    fn new_parent(&self, at: usize, slot: Slot, body: &Value) -> ApiResult<Slot> {
        let drive = &self.drives[at];
        let Some(reference) = body.get("parentReference") else { return Ok(drive.tree.node(slot).parent) };
        let text = |key: &str| reference.get(key).and_then(Value::as_str);
        if let Some(other) = text("driveId")
            && !drive.ids.is_drive(other)
        {
            return Err(ApiError::not_supported("Items cannot be moved to another drive."));
        }
        if let Some(id) = text("id") {
            let parent = drive.tree.resolve(&drive.ids, id).ok_or_else(ApiError::not_found)?;
            return drive.live(parent).map(|_| parent);
        }
        let Some(path) = text("path") else { return Ok(drive.tree.node(slot).parent) };
        let below = path.split_once(':').map_or("", |(_, rest)| rest);
        let mut at = ROOT;
        for name in below.split('/').filter(|p| !p.is_empty()) {
            at = drive.tree.child(at, &super::route::decode(name)?).ok_or_else(ApiError::not_found)?;
        }
        Ok(at)
    }

    pub(crate) fn delete_item(&mut self, call: &Call, at: usize, slot: Slot, act: Act) -> ApiResult<Reply> {
        self.preconditions(call, at, Some(slot))?;
        self.drives[at].delete(slot, act)?;
        Ok(Reply::empty(204))
    }

    /// Restore from the recycle bin: personal only (graph-api 8).
    pub(crate) fn restore_item(
        &mut self,
        call: &Call,
        at: usize,
        place: &Place,
        body: &Payload,
        act: Act,
    ) -> ApiResult<Reply> {
        if self.flavour(at).is_business() {
            return Err(ApiError::not_supported("restore is not supported for this drive."));
        }
        let Place::Item(slot) = place else { return Err(ApiError::not_found()) };
        let none = Value::Null;
        let body = if let Payload::Json(v) = body { v } else { &none };
        let parent = match body.get("parentReference") {
            Some(_) => Some(self.new_parent(at, *slot, body)?),
            None => None,
        };
        let name = body.get("name").and_then(Value::as_str);
        self.drives[at].restore(*slot, parent, name, act)?;
        Ok(Reply::json(200, self.renderer(call).entity(at, *slot)))
    }
}

/// `fileSystemInfo` of a body.
pub(crate) fn times(body: &Value) -> ApiResult<FsTimes> {
    let info = body.get("fileSystemInfo").unwrap_or(&Value::Null);
    let one = |key: &str| match info.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            time::parse(text).map(Some).ok_or_else(|| ApiError::invalid(format!("{key} is not a time.")))
        }
        Some(_) => Err(ApiError::invalid(format!("{key} is not a time."))),
    };
    Ok(FsTimes { created: one("createdDateTime")?, modified: one("lastModifiedDateTime")? })
}
