//! Dispatch of Graph calls: which drive, which item, which operation.

use serde_json::{Value, json};

use super::content::Blob;
use super::delta;
use super::drive::{Act, Conflict};
use super::error::{ApiError, ApiResult};
use super::flavour::Flavour;
use super::http::{Call, Reply};
use super::render::{Renderer, escape};
use super::route::{Base, ItemAddr, Route, SiteAddr, Start, function};
use super::state::{Identity, ME, Site, State};
use super::time::{Fraction, rfc3339};
use super::tree::{ROOT, Slot};

/// The body of a call, read before the state is locked.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    None,
    Json(Value),
    Content(Blob),
}

impl Payload {
    pub(crate) fn json(&self) -> ApiResult<&Value> {
        match self {
            Payload::Json(v) => Ok(v),
            _ => Err(ApiError::invalid("A JSON body is required.")),
        }
    }
}

/// What an address leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Item(Slot),
    /// The first of `rest` does not exist below `parent`.
    Missing {
        parent: Slot,
        rest: Vec<String>,
    },
}

impl State {
    pub(crate) fn renderer<'a>(&'a self, call: &'a Call) -> Renderer<'a> {
        let split = |s: &str| s.split(',').map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect();
        Renderer { state: self, base: &call.base, now: call.now, select: call.option("select").map(split) }
    }

    /// Answers one call of the Graph plane whose token was checked.
    pub(crate) fn graph(&mut self, call: &Call, route: &Route, payload: Payload) -> ApiResult<Reply> {
        let act = Act { now: call.now, by: ME };
        match self.drive_of(&route.base)? {
            Some(at) => match &route.item {
                Some(addr) => self.on_item(call, at, addr, &route.tail, payload, act),
                None => self.on_drive(call, at, &route.tail),
            },
            None => match &route.base {
                Base::Shared(token) if call.method == "GET" => self.shared(call, token, &route.tail),
                _ => self.on_collection(call, route),
            },
        }
    }

    /// The drive that a base names; `None` for bases that are no drive.
    pub(crate) fn drive_of(&self, base: &Base) -> ApiResult<Option<usize>> {
        Ok(Some(match base {
            Base::MyDrive => 0,
            Base::Drive(id) => self.drive_by_id(id)?,
            Base::UserDrive(user) => self.user(user)?,
            Base::GroupDrive(group) => *self.group(group)?.drives.first().ok_or_else(ApiError::not_found)?,
            Base::SiteDrive(addr) => {
                let first = self.site(addr)?.drives.first();
                *first.ok_or_else(ApiError::not_found)?
            }
            _ => return Ok(None),
        }))
    }

    fn user(&self, name: &str) -> ApiResult<usize> {
        let is = |who: &Identity| name.eq_ignore_ascii_case(&who.id) || name.eq_ignore_ascii_case(&who.email);
        let owner = match self.identities.iter().position(is) {
            _ if name == "me" => 0,
            Some(owner) => owner,
            None => return Err(ApiError::new(404, "ResourceNotFound", "User not found")),
        };
        let own = self.drives.iter().position(|drive| usize::from(drive.owner) == owner);
        own.ok_or_else(|| ApiError::new(404, "ResourceNotFound", "User's mysite not found."))
    }

    /// By id only; names are for `$filter`.
    fn group(&self, id: &str) -> ApiResult<&Site> {
        let found = self.sites.iter().find(|site| site.group.as_deref() == Some(id));
        found.ok_or_else(|| ApiError::new(404, "Request_ResourceNotFound", "The group does not exist."))
    }

    /// `displayName eq '…'` and `mail eq '…'` (graph-api 14).
    fn groups(&self, call: &Call) -> ApiResult<Vec<Value>> {
        let unsupported = || ApiError::new(400, "Request_UnsupportedQuery", "Unsupported filter clause.");
        let wanted = match call.option("filter") {
            None => None,
            Some(filter) => {
                let (key, value) = filter.split_once(" eq ").ok_or_else(unsupported)?;
                let value = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
                let value = value.filter(|value| !value.replace("''", "").contains('\''));
                Some((key, value.ok_or_else(unsupported)?.replace("''", "'")))
            }
        };
        let mut found = Vec::new();
        for site in &self.sites {
            let Some(id) = &site.group else { continue };
            let hit = match &wanted {
                None => true,
                Some((key, value)) if *key == "displayName" => site.display_name.eq_ignore_ascii_case(value),
                Some((key, value)) if *key == "mail" => site.mail().eq_ignore_ascii_case(value),
                Some(_) => return Err(unsupported()),
            };
            if hit {
                found.push(json!({"id": id, "displayName": site.display_name, "mail": site.mail()}));
            }
        }
        Ok(found)
    }

    /// graph-api 2.4: by path, by host, `root`, and the full or shortened id.
    fn site(&self, addr: &SiteAddr) -> ApiResult<&Site> {
        let found = self.sites.iter().find(|s| match addr {
            SiteAddr::Path(host, path) => {
                (host == "root" || s.hostname.eq_ignore_ascii_case(host))
                    && s.path.eq_ignore_ascii_case(&path.join("/"))
            }
            SiteAddr::Id(id) => {
                let mut parts = s.id.split(',');
                let (_, site, web) = (parts.next(), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
                id == "root"
                    || *id == s.id
                    || id == site
                    || *id == format!("{site},{web}")
                    || *id == s.hostname
            }
        });
        found.ok_or_else(ApiError::not_found)
    }

    /// Follows an item address (graph-api 4.1): case-insensitive names, case-sensitive ids.
    pub(crate) fn place(&self, at: usize, addr: &ItemAddr) -> ApiResult<Place> {
        let drive = &self.drives[at];
        let start = match &addr.start {
            Start::Root => ROOT,
            Start::Id(id) => drive.tree.resolve(&drive.ids, id).ok_or_else(ApiError::not_found)?,
            Start::Special(name) => self.special(at, name)?,
        };
        if !addr.path.is_empty() {
            drive.live(start)?;
        }
        let mut slot = start;
        for (n, name) in addr.path.iter().enumerate() {
            let by_id = || {
                drive
                    .tree
                    .resolve(&drive.ids, name)
                    .filter(|s| *s != ROOT && drive.tree.node(*s).parent == slot)
            };
            match drive.tree.child(slot, name).or_else(by_id) {
                Some(child) => slot = child,
                None => return Ok(Place::Missing { parent: slot, rest: addr.path[n..].to_vec() }),
            }
        }
        Ok(Place::Item(slot))
    }

    /// A special folder by name (graph-api 12).
    fn special(&self, at: usize, name: &str) -> ApiResult<Slot> {
        let tree = &self.drives[at].tree;
        let is = |slot: &Slot| {
            let node = tree.node(*slot);
            let extra = node.extra.as_ref();
            extra.and_then(|e| e.special).is_some_and(|s| s.eq_ignore_ascii_case(name))
        };
        tree.children(ROOT).iter().find(is).ok_or_else(ApiError::not_found)
    }

    fn on_drive(&self, call: &Call, at: usize, tail: &[String]) -> ApiResult<Reply> {
        if !self.drives[at].has_access(ROOT) {
            return Err(ApiError::new(403, "accessDenied", "Access denied"));
        }
        let r = self.renderer(call);
        let tail: Vec<&str> = tail.iter().map(String::as_str).collect();
        match (call.method.as_str(), tail.as_slice()) {
            ("GET", []) => {
                let mut drive = r.drive_json(at);
                drive.insert("@odata.context".into(), json!(r.context("drives/$entity")));
                Ok(Reply::json(200, Value::Object(drive)))
            }
            ("GET", ["special"]) => self.specials(call, at),
            ("GET", ["sharedWithMe" | "sharedWithMe()"]) if at == 0 => {
                Ok(r.collection("Collection(driveItem)", r.shared_with_me()))
            }
            (
                "GET",
                ["recent" | "recent()" | "sharedWithMe" | "sharedWithMe()" | "following" | "bundles"],
            ) => Ok(r.collection("Collection(driveItem)", Vec::new())),
            ("GET", [search]) if function(search).is_some_and(|(name, _)| name == "search") => {
                self.search(call, at, ROOT, search)
            }
            ("GET", ["items"]) => Err(ApiError::invalid("An item id is needed.")),
            ("GET", _) => Err(ApiError::no_route()),
            _ => Err(ApiError::method("GET")),
        }
    }

    fn specials(&self, call: &Call, at: usize) -> ApiResult<Reply> {
        let r = self.renderer(call);
        let tree = &self.drives[at].tree;
        let special = |s: &Slot| tree.node(*s).extra.as_ref().is_some_and(|e| e.special.is_some());
        let top = tree.children(ROOT);
        let all = top.iter().filter(special);
        let items = all.map(|s| Value::Object(r.item(at, s, super::render::Within::Item))).collect();
        Ok(r.collection("Collection(driveItem)", items))
    }

    fn on_collection(&self, call: &Call, route: &Route) -> ApiResult<Reply> {
        if call.method != "GET" {
            return Err(ApiError::method("GET"));
        }
        let r = self.renderer(call);
        let drives = |which: &[usize]| {
            let all = which.iter().map(|at| Value::Object(r.drive_json(*at))).collect();
            r.collection("drives", all)
        };
        let sites =
            |which: Vec<&Site>| r.collection("sites", which.into_iter().map(|s| self.site_json(s)).collect());
        let tail: Vec<&str> = route.tail.iter().map(String::as_str).collect();
        match (&route.base, tail.as_slice()) {
            (Base::MyDrives, []) => Ok(drives(&[0])),
            (Base::Drives, []) => {
                let seen = |at: &usize| !self.drives[*at].gone && self.drives[*at].has_access(ROOT);
                Ok(drives(&(0..self.drives.len()).filter(seen).collect::<Vec<_>>()))
            }
            (Base::UserDrives(user), []) => Ok(drives(&[self.user(user)?])),
            (Base::GroupDrives(group), []) => Ok(drives(&self.group(group)?.drives)),
            (Base::Groups, []) => Ok(r.collection("groups", self.groups(call)?)),
            (Base::SiteDrives(addr), []) => {
                let all = self.site(addr)?.drives.iter();
                Ok(drives(&all.copied().filter(|at| !self.drives[*at].gone).collect::<Vec<_>>()))
            }
            (Base::Site(SiteAddr::Id(f)), []) if f.starts_with("getAllSites") => {
                Ok(sites(self.sites.iter().collect()))
            }
            (Base::Site(addr), []) => {
                let mut site = self.site_json(self.site(addr)?);
                site["@odata.context"] = json!(r.context("sites/$entity"));
                Ok(Reply::json(200, site))
            }
            (Base::Site(addr), ["sites"]) => self.site(addr).map(|_| sites(Vec::new())),
            (Base::Sites, []) => {
                let word = call.option("search").unwrap_or("*").to_lowercase();
                let named = |s: &Site| word == "*" || s.display_name.to_lowercase().contains(&word);
                let hit = |s: &&Site| s.group.is_some() && named(s);
                Ok(sites(self.sites.iter().filter(hit).collect()))
            }
            (Base::FollowedSites, []) => {
                Ok(sites(self.sites.iter().filter(|site| site.group.is_some()).collect()))
            }
            (Base::Me, []) => {
                let me = &self.identities[usize::from(ME)];
                Ok(Reply::json(
                    200,
                    json!({
                        "@odata.context": r.context("users/$entity"), "id": me.id, "displayName": me.display_name,
                        "mail": me.email, "userPrincipalName": me.email,
                    }),
                ))
            }
            _ => Err(ApiError::no_route()),
        }
    }

    fn site_json(&self, site: &Site) -> Value {
        json!({
            "id": site.id,
            "name": site.path.rsplit('/').next().unwrap_or_default(),
            "displayName": site.display_name,
            "webUrl": format!("https://{}/{}", site.hostname, site.path),
            "createdDateTime": rfc3339(site.created, Fraction::None),
            "lastModifiedDateTime": rfc3339(site.created, Fraction::None),
            "siteCollection": {"hostname": site.hostname},
        })
    }

    /// Operations on one item. What may create takes the place, all else needs the item to exist.
    fn on_item(
        &mut self,
        call: &Call,
        at: usize,
        addr: &ItemAddr,
        tail: &[String],
        payload: Payload,
        act: Act,
    ) -> ApiResult<Reply> {
        let tail: Vec<&str> = tail.iter().map(String::as_str).collect();
        let place = self.place(at, addr)?;
        let (Place::Item(slot) | Place::Missing { parent: slot, .. }) = &place;
        if !self.drives[at].has_access(*slot) {
            return Err(ApiError::new(403, "accessDenied", "Access denied"));
        }
        match (call.method.as_str(), tail.as_slice(), payload) {
            ("PUT", ["content"], Payload::Content(blob)) => {
                return self.put_content(call, at, place, blob, act);
            }
            ("POST", ["createUploadSession" | "microsoft.graph.createUploadSession"], body) => {
                return self.create_session(call, at, place, body, act);
            }
            // Commit of a kept session on personal drives (graph-api 7.4).
            ("PUT", [], Payload::Json(body)) => return self.commit_source_url(call, at, place, &body, act),
            ("GET" | "HEAD", [], _) => {
                let slot = self.item_for_get(call, at, &place)?;
                return self.get_item(call, at, slot);
            }
            ("POST", ["restore" | "microsoft.graph.restore"], body) => {
                return self.restore_item(call, at, &place, &body, act);
            }
            ("GET", ["content"], _) => {}
            (method, tail, payload) => {
                let slot = self.existing(at, &place)?;
                return self.on_existing(call, at, slot, (method, tail), payload, act);
            }
        }
        let slot = self.existing(at, &place)?;
        self.get_content(call, at, slot)
    }

    pub(crate) fn existing(&self, at: usize, place: &Place) -> ApiResult<Slot> {
        match place {
            Place::Item(slot) => self.drives[at].live(*slot).map(|_| *slot),
            Place::Missing { .. } => Err(ApiError::not_found()),
        }
    }

    fn on_existing(
        &mut self,
        call: &Call,
        at: usize,
        slot: Slot,
        what: (&str, &[&str]),
        payload: Payload,
        act: Act,
    ) -> ApiResult<Reply> {
        let (method, tail) = what;
        match (method, tail) {
            ("GET", ["children"]) => self.children(call, at, slot),
            ("POST", ["children"]) => self.make_child(call, at, slot, payload.json()?, act),
            ("PATCH", []) => self.patch(call, at, slot, payload.json()?, act),
            ("DELETE", []) => self.delete_item(call, at, slot, act),
            ("GET", ["delta" | "delta()" | "microsoft.graph.delta()"]) => {
                let page = delta::delta(&self.renderer(call), at, slot, call, call.option("token"))?;
                Ok(Reply::json(200, page))
            }
            ("GET", [one]) if function(one).is_some_and(|(name, _)| name == "delta") => {
                let args = function(one).map(|(_, args)| args).unwrap_or_default();
                let token = args.get("token").map(String::as_str);
                Ok(Reply::json(200, delta::delta(&self.renderer(call), at, slot, call, token)?))
            }
            ("GET", [one]) if function(one).is_some_and(|(name, _)| name == "search") => {
                self.search(call, at, slot, one)
            }
            _ => self.on_existing_rare(call, at, slot, what, payload, act),
        }
    }

    /// Substring search over names below `top` (graph-api 12).
    fn search(&self, call: &Call, at: usize, top: Slot, segment: &str) -> ApiResult<Reply> {
        let args = function(segment).map(|(_, args)| args).unwrap_or_default();
        let word =
            args.get("q").ok_or_else(|| ApiError::invalid("The parameter q is missing."))?.to_lowercase();
        let r = self.renderer(call);
        let tree = &self.drives[at].tree;
        let hit = |s: &u32| *s != ROOT && tree.node(*s).name.to_lowercase().contains(&word);
        let limit = call.option("top").and_then(|t| t.parse().ok()).unwrap_or(200usize);
        let found = tree.subtree(top).into_iter().filter(hit).take(limit);
        let items = found.map(|s| Value::Object(r.item(at, s, super::render::Within::Item))).collect();
        Ok(r.collection("Collection(driveItem)", items))
    }

    /// The absolute URL of an item's metadata.
    pub(crate) fn item_url(&self, call: &Call, at: usize, slot: Slot) -> String {
        let drive = &self.drives[at];
        format!("{}/v1.0/drives/{}/items/{}", call.base, escape(&drive.id), escape(&drive.ids.item_id(slot)))
    }

    pub(crate) fn flavour(&self, at: usize) -> Flavour {
        self.drives[at].flavour()
    }
}

/// The conflict behaviour of a call: in the URL or in the body (graph-api 7.6, 15 row 4).
pub(crate) fn conflict(call: &Call, body: Option<&Value>) -> ApiResult<Option<Conflict>> {
    let name = "microsoft.graph.conflictBehavior";
    let from_body = body.and_then(|b| b.get(format!("@{name}")));
    match call.annotation(name).or_else(|| from_body.and_then(Value::as_str)) {
        Some(text) => Conflict::parse(text).map(Some),
        None => Ok(None),
    }
}

impl Renderer<'_> {
    pub(crate) fn collection(&self, what: &str, items: Vec<Value>) -> Reply {
        Reply::json(200, json!({"@odata.context": self.context(what), "value": items}))
    }
}
