//! Versions, permissions, check-out, links and other operations on one item (graph-api 8).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::drive::Act;
use super::error::{ApiError, ApiResult};
use super::graph::Payload;
use super::http::{Call, Reply};
use super::ids::mix;
use super::state::State;
use super::tree::{ROOT, Slot};

impl State {
    /// What [`State::on_existing`] does not name.
    pub(crate) fn on_existing_rare(
        &mut self,
        call: &Call,
        at: usize,
        slot: Slot,
        what: (&str, &[&str]),
        payload: Payload,
        act: Act,
    ) -> ApiResult<Reply> {
        let (method, tail) = what;
        let tail: Vec<&str> = tail.iter().map(|s| s.strip_prefix("microsoft.graph.").unwrap_or(s)).collect();
        let business = self.flavour(at).is_business();
        match (method, tail.as_slice()) {
            (_, ["versions", rest @ ..]) => self.versions(call, at, slot, (method, rest), act),
            ("POST", ["copy"]) => self.copy(call, at, slot, payload.json()?, act),
            ("POST", ["permanentDelete"]) if business => {
                self.preconditions(call, at, Some(slot))?;
                self.drives[at].permanent_delete(slot, act)?;
                Ok(Reply::empty(204))
            }
            ("POST", ["permanentDelete"]) => {
                Err(ApiError::not_supported("permanentDelete is not supported."))
            }
            ("POST", ["checkout" | "checkin" | "discardCheckout"]) => self.checkout(at, slot, tail[0], act),
            ("GET", ["thumbnails"]) => {
                let sets = self.thumbnail_sets(call, at, slot);
                Ok(self.renderer(call).collection("Collection(thumbnailSet)", sets))
            }
            ("POST", ["createLink"]) => self.create_link(call, at, slot, payload.json()?, act),
            ("POST", ["invite"]) => self.invite(call, at, slot, payload.json()?, act),
            (_, ["permissions", rest @ ..]) => self.permissions(call, at, slot, (method, rest), act),
            ("POST", ["follow"]) if business => Ok(Reply::json(200, self.renderer(call).entity(at, slot))),
            ("POST", ["unfollow"]) if business => Ok(Reply::empty(204)),
            ("POST", ["preview"]) if business => {
                let context = self.renderer(call).context("microsoft.graph.itemPreviewInfo");
                let url = format!("{}/_data/preview", call.base);
                Ok(Reply::json(200, json!({"@odata.context": context, "getUrl": url})))
            }
            ("POST", ["extractSensitivityLabels"]) if business => {
                let context = self.renderer(call).context("microsoft.graph.extractSensitivityLabelsResult");
                Ok(Reply::json(200, json!({"@odata.context": context, "labels": []})))
            }
            ("GET", ["retentionLabel"]) if business => {
                let context = self.renderer(call).context("retentionLabel/$entity");
                Ok(Reply::json(200, json!({"@odata.context": context, "name": ""})))
            }
            ("GET", ["subscriptions", "socketIo"]) => self.socket_io(call, at, slot),
            ("POST" | "PUT" | "PATCH" | "DELETE", []) => Err(ApiError::method("GET, PATCH, DELETE")),
            ("POST" | "PATCH" | "DELETE", ["content"]) => Err(ApiError::method("GET, PUT")),
            ("POST", _) => Err(ApiError::not_supported("The operation is not supported.")),
            _ => Err(ApiError::no_route()),
        }
    }

    fn versions(
        &mut self,
        call: &Call,
        at: usize,
        slot: Slot,
        what: (&str, &[&str]),
        act: Act,
    ) -> ApiResult<Reply> {
        let node = self.drives[at].live(slot)?;
        if node.blob().is_none() {
            return Err(ApiError::not_supported("The item has no versions."));
        }
        let current = node.version;
        let number = |id: &str| -> ApiResult<u32> {
            let n = id.strip_suffix(".0").unwrap_or(id).parse();
            n.map_err(|_| ApiError::not_found())
        };
        match what {
            ("GET", []) => {
                let r = self.renderer(call);
                Ok(r.collection("Collection(driveItemVersion)", r.versions(at, slot)))
            }
            ("GET", [id]) => {
                let (r, n) = (self.renderer(call), number(id)?);
                let wanted = format!("{n}.0");
                let found = r.versions(at, slot).into_iter().find(|v| v["id"] == wanted.as_str());
                let mut version = found.ok_or_else(ApiError::not_found)?;
                version["@odata.context"] = json!(r.context("driveItemVersion/$entity"));
                Ok(Reply::json(200, version))
            }
            // Not for the current version on some tenants (graph-api 6.3).
            ("GET", [id, "content"]) => {
                let n = number(id)?;
                if n == current && self.switches.refuse_current_version {
                    return Err(ApiError::invalid("You cannot get the content of the current version."));
                }
                if n != current {
                    self.drives[at].version(slot, n)?;
                }
                let url = self.renderer(call).download_url(at, slot, n);
                Ok(Reply::empty(302).header("location", url))
            }
            ("POST", [id, "restoreVersion" | "microsoft.graph.restoreVersion"]) => {
                let n = number(id)?;
                self.drives[at].restore_version(slot, n, act)?;
                Ok(Reply::empty(204))
            }
            // Personal: "API not found" (graph-api 8).
            ("DELETE", [id]) if self.flavour(at).is_business() => {
                let n = number(id)?;
                if n == current {
                    return Err(ApiError::invalid("You cannot delete the current version."));
                }
                self.drives[at].version(slot, n)?;
                if let Some(versions) = self.drives[at].tree.versions.get_mut(&slot) {
                    versions.retain(|v| v.number != n);
                }
                Ok(Reply::empty(204))
            }
            ("DELETE", [_]) => Err(ApiError::new(404, "itemNotFound", "API not found")),
            _ => Err(ApiError::no_route()),
        }
    }

    /// Business: others get 423 while a file is checked out (graph-api 8).
    fn checkout(&mut self, at: usize, slot: Slot, what: &str, act: Act) -> ApiResult<Reply> {
        let drive = &mut self.drives[at];
        if !drive.flavour().is_business() {
            return Err(ApiError::not_supported("Check-out is not supported."));
        }
        if drive.live(slot)?.blob().is_none() {
            return Err(ApiError::invalid("Only files can be checked out."));
        }
        drive.check_lock(slot, act.by)?;
        let out = drive.tree.node(slot).extra.as_ref().and_then(|e| e.checked_out);
        if what != "checkout" && out.is_none() {
            return Err(ApiError::invalid("The file is not checked out."));
        }
        drive.tree.node_mut(slot).extra_mut().checked_out = (what == "checkout").then_some(act.by);
        Ok(Reply::empty(204))
    }

    pub(crate) fn permission_list(&self, at: usize, slot: Slot) -> Vec<Value> {
        let drive = &self.drives[at];
        let owner = &self.identities[usize::from(drive.owner)];
        let user = json!({"user": {"id": owner.id, "displayName": owner.display_name}});
        let granted = if drive.flavour().is_business() { "grantedToV2" } else { "grantedTo" };
        let mut first = json!({"id": "owner", "roles": ["owner"]});
        first[granted] = user;
        let node = drive.tree.node(slot);
        let extra = node.extra.as_ref();
        let rest = extra.into_iter().flat_map(|e| e.permissions.values().cloned());
        std::iter::once(first).chain(rest).collect()
    }

    fn permissions(
        &mut self,
        call: &Call,
        at: usize,
        slot: Slot,
        what: (&str, &[&str]),
        act: Act,
    ) -> ApiResult<Reply> {
        let all = self.permission_list(at, slot);
        let find = |id: &str| all.iter().find(|p| p["id"] == id).cloned().ok_or_else(ApiError::not_found);
        match what {
            ("GET", []) => Ok(self.renderer(call).collection("Collection(permission)", all)),
            ("GET", [id]) => find(id).map(|p| Reply::json(200, p)),
            ("DELETE", [id]) => {
                find(id)?;
                let extra = self.drives[at].tree.node_mut(slot).extra_mut();
                extra.permissions.remove(*id).ok_or_else(|| {
                    ApiError::new(403, "accessDenied", "The owner's permission cannot be removed.")
                })?;
                if extra.permissions.is_empty() {
                    extra.shared = None;
                }
                // People added or removed may move the eTag; links do not (graph-api 3.4).
                self.drives[at].tree.touch(slot, act.now);
                Ok(Reply::empty(204))
            }
            _ => Err(ApiError::method("GET, DELETE")),
        }
    }

    pub(crate) fn add_permission(&mut self, at: usize, slot: Slot, scope: &str, permission: Value, act: Act) {
        let drive = &mut self.drives[at];
        let extra = drive.tree.node_mut(slot).extra_mut();
        let id = permission["id"].as_str().unwrap_or_default().to_owned();
        extra.permissions.insert(id, permission);
        extra.shared = Some(scope.to_owned());
        drive.tree.touch(slot, act.now);
    }

    /// 201 new, 200 existing (graph-api 8).
    fn create_link(
        &mut self,
        call: &Call,
        at: usize,
        slot: Slot,
        body: &Value,
        act: Act,
    ) -> ApiResult<Reply> {
        let business = self.flavour(at).is_business();
        let kind = body.get("type").and_then(Value::as_str).unwrap_or("view");
        let scope = body.get("scope").and_then(Value::as_str);
        let scope = scope.unwrap_or(if business { "organization" } else { "anonymous" });
        let known = match kind {
            "view" | "edit" => true,
            "embed" => !business,
            _ => false,
        };
        let scope_known = matches!(scope, "anonymous" | "users") || (scope == "organization" && business);
        if !known || !scope_known {
            return Err(ApiError::invalid("The link type or scope is not supported."));
        }
        let id = format!("link-{kind}-{scope}");
        let old = self.permission_list(at, slot).into_iter().find(|p| p["id"] == id.as_str());
        if let Some(old) = old {
            return Ok(Reply::json(200, old));
        }
        let url = self.share_url(at, slot, kind);
        let permission = json!({
            "@odata.context": self.renderer(call).context("permission/$entity"),
            "id": id,
            "roles": [if kind == "edit" { "write" } else { "read" }],
            "shareId": share_token(&url),
            "link": {"type": kind, "scope": scope, "webUrl": url},
        });
        self.add_permission(at, slot, scope, permission.clone(), act);
        Ok(Reply::json(201, permission))
    }

    fn invite(&mut self, call: &Call, at: usize, slot: Slot, body: &Value, act: Act) -> ApiResult<Reply> {
        let recipients = body.get("recipients").and_then(Value::as_array).filter(|r| !r.is_empty());
        let recipients = recipients.ok_or_else(|| ApiError::invalid("recipients are missing."))?.clone();
        let roles = body.get("roles").cloned().unwrap_or_else(|| json!(["read"]));
        let granted = if self.flavour(at).is_business() { "grantedToV2" } else { "grantedTo" };
        let mut all = Vec::new();
        for who in recipients {
            let email = who.get("email").and_then(Value::as_str).unwrap_or_default().to_owned();
            let mut permission = json!({"id": format!("grant-{email}"), "roles": roles});
            permission[granted] = json!({"user": {"displayName": email}});
            self.drives[at].stir(slot, act.now);
            self.add_permission(at, slot, "users", permission.clone(), act);
            all.push(permission);
        }
        Ok(self.renderer(call).collection("Collection(permission)", all))
    }

    pub(crate) fn share_url(&self, at: usize, slot: Slot, kind: &str) -> String {
        let drive = &self.drives[at];
        let host = drive.web_path.split('/').next().unwrap_or_default();
        let code = mix((u64::from(slot) << 8) ^ at as u64 ^ 0x5AFE);
        format!("https://{host}/:{}:/s/{code:016x}-{at}-{slot}", &kind[..1])
    }

    /// `/shares/{token}` (graph-api 2.6).
    pub(crate) fn shared(&mut self, call: &Call, token: &str, rest: &[String]) -> ApiResult<Reply> {
        let (at, slot) = self.open_share(token)?;
        // What was redeemed is the account's to see from then on, also without the link.
        let redeemed = call.header("prefer").is_some_and(|wishes| {
            wishes.split(',').any(|wish| wish.trim().eq_ignore_ascii_case("redeemSharingLink"))
        });
        if redeemed && self.drives[at].private {
            self.drives[at].tree.node_mut(slot).extra_mut().shared_with_me = true;
        }
        let r = self.renderer(call);
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        match rest.as_slice() {
            [] => {
                let drive = &self.drives[at];
                let owner = r.identity_set(drive, drive.owner);
                Ok(Reply::json(
                    200,
                    json!({
                        "@odata.context": r.context("shares/$entity"), "id": token,
                        "name": drive.tree.node(slot).name, "owner": owner,
                    }),
                ))
            }
            ["driveItem" | "root"] => Ok(Reply::json(200, r.entity(at, slot))),
            ["driveItem", "children"] => self.children(call, at, slot),
            ["driveItem", "content"] => self.get_content(call, at, slot),
            ["items"] => {
                let item = Value::Object(r.item(at, slot, super::render::Within::Item));
                Ok(r.collection("Collection(driveItem)", vec![item]))
            }
            ["items", id] => {
                let drive = &self.drives[at];
                let found = drive.tree.resolve(&drive.ids, id).filter(|s| drive.tree.is_below(*s, slot));
                let found = found.ok_or_else(ApiError::not_found)?;
                drive.live(found)?;
                Ok(Reply::json(200, r.entity(at, found)))
            }
            ["permission"] => {
                let all = self.permission_list(at, slot);
                let own = all.into_iter().find(|p| p["shareId"] == token);
                own.map(|p| Reply::json(200, p)).ok_or_else(ApiError::not_found)
            }
            _ => Err(ApiError::no_route()),
        }
    }

    /// `u!` + base64url of a sharing URL (graph-api 2.6).
    fn open_share(&self, token: &str) -> ApiResult<(usize, Slot)> {
        let raw = token.strip_prefix("u!").and_then(|t| URL_SAFE_NO_PAD.decode(t).ok());
        let url = raw.and_then(|r| String::from_utf8(r).ok());
        let url = url.ok_or_else(|| ApiError::invalid("The sharing token is malformed."))?;
        let code = url.rsplit('/').next().unwrap_or_default();
        let code = code.split('?').next().unwrap_or_default();
        let mut parts = code.split('-').skip(1);
        let at: Option<usize> = parts.next().and_then(|p| p.parse().ok());
        let slot: Option<Slot> = parts.next().and_then(|p| p.parse().ok());
        let (Some(at), Some(slot)) = (at, slot) else { return Err(ApiError::not_found()) };
        let drive = self.drives.get(at).ok_or_else(ApiError::not_found)?;
        let shared =
            drive.tree.live(slot).is_some_and(|n| n.extra.as_ref().is_some_and(|e| e.shared.is_some()));
        if shared { Ok((at, slot)) } else { Err(ApiError::not_found()) }
    }

    /// graph-api 10.2: the channel's address; the root only.
    fn socket_io(&self, call: &Call, at: usize, slot: Slot) -> ApiResult<Reply> {
        if slot != ROOT || !self.switches.socket_io {
            return Err(ApiError::not_supported("Operation not supported"));
        }
        let token = super::push::token(at);
        let url = format!("{}/notifications?token={token}&applicationId=emulator&drive={at}", call.base);
        Ok(Reply::json(
            200,
            json!({
                "@odata.context": self.renderer(call).context("subscriptions/$entity"),
                "id": token,
                "notificationUrl": url,
                "expirationDateTime": super::render::expiry(call.now + 24 * 3600 * 1000),
            }),
        ))
    }
}

fn share_token(url: &str) -> String {
    format!("u!{}", URL_SAFE_NO_PAD.encode(url))
}
