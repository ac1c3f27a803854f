//! Upload sessions (graph-api 7.2 to 7.5). The bytes are moved in `transfer.rs`; the rules are here.

use serde_json::{Value, json};

use super::content::{Blob, BlobWriter};
use super::drive::{Act, Conflict, FsTimes};
use super::error::{ApiError, ApiResult};
use super::flavour::Flavour;
use super::graph::{Payload, Place, conflict};
use super::http::{Call, Reply};
use super::ids::{Guid, mix};
use super::items::times;
use super::names;
use super::render::expiry;
use super::state::State;
use super::time::Ms;
use super::tree::Slot;

/// Fragments but the last end at a multiple of this (graph-api 7.3).
pub(crate) const UNIT: u64 = 320 << 10;
/// A fragment must be smaller than this (graph-api 7.3).
const FRAGMENT_LIMIT: u64 = 60 << 20;
/// 250 GB (graph-api 4.4).
const MAX_FILE: u64 = 250 << 30;

const MINUTE: Ms = 60_000;

/// Where the bytes of a session stand.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// `None` while a fragment is being written.
    Open(Option<Box<BlobWriter>>),
    /// All there, not committed: deferred, or the commit failed (graph-api 7.4).
    Complete(Blob),
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) drive: usize,
    /// The item to replace by id, or the place of a name.
    pub(crate) target: Target,
    pub(crate) behaviour: Conflict,
    pub(crate) times: FsTimes,
    pub(crate) description: Option<String>,
    pub(crate) defer: bool,
    /// Declared with the session or by the first fragment.
    pub(crate) total: Option<u64>,
    pub(crate) received: u64,
    pub(crate) bytes: Bytes,
    pub(crate) created: Ms,
    /// Slides with each fragment (graph-api 7.3).
    pub(crate) expires: Ms,
    pub(crate) expired: bool,
    /// Requests still answered 404 (graph-api 7.5).
    pub(crate) hidden_for: u32,
    pub(crate) act_by: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Existing(Slot),
    Named { parent: Slot, name: String },
}

/// A fragment admitted by [`State::begin_fragment`].
pub(crate) struct Fragment {
    pub(crate) writer: Box<BlobWriter>,
    pub(crate) length: u64,
    pub(crate) total: u64,
}

impl Session {
    fn slide(&mut self, flavour: Flavour, now: Ms) {
        self.expires = now + if flavour.is_business() { 15 * MINUTE } else { 7 * 24 * 60 * MINUTE };
    }

    fn ranges(&self) -> Vec<String> {
        match (&self.bytes, self.total) {
            (Bytes::Complete(_), _) => Vec::new(),
            (_, Some(total)) if self.received > 0 => vec![format!("{}-{}", self.received, total - 1)],
            _ => vec![format!("{}-", self.received)],
        }
    }
}

impl State {
    /// POST createUploadSession (graph-api 7.2).
    pub(crate) fn create_session(
        &mut self,
        call: &Call,
        at: usize,
        place: Place,
        payload: Payload,
        act: Act,
    ) -> ApiResult<Reply> {
        let body = if let Payload::Json(v) = payload { v } else { Value::Null };
        let none = Value::Null;
        let item = body.get("item").unwrap_or(&none);
        self.check_session_item(item)?;
        let given = conflict(call, Some(item))?;
        let default =
            if self.switches.session_replaces_by_default { Conflict::Replace } else { Conflict::Fail };
        let existing = if let Place::Item(slot) = &place { Some(*slot) } else { None };
        self.preconditions(call, at, existing)?;
        let by_id = existing.is_some() && !call.path.contains(":/") && !call.path.contains("children");
        if by_id && self.switches.refuse_session_by_id {
            return Err(ApiError::invalid("File name not provided in url"));
        }
        // A session made by the item's id replaces that item.
        let behaviour = given.unwrap_or(if by_id { Conflict::Replace } else { default });
        let (target, name) = self.session_target(at, place, by_id, behaviour, act)?;
        if let Some(named) = item.get("name").and_then(Value::as_str)
            && !names::same(named, &name)
        {
            return Err(ApiError::invalid("The name in the body is not the name in the URL."));
        }
        let size = item.get("fileSize").and_then(Value::as_u64);
        self.check_session_size(at, existing, size)?;
        let times = times(item)?;
        self.drives[at].check_times(times)?;
        self.check_open_sessions(call, at, &target)?;
        let flavour = self.flavour(at);
        let mut session = Session {
            drive: at,
            target,
            behaviour,
            times,
            description: item.get("description").and_then(Value::as_str).map(str::to_owned),
            defer: body.get("deferCommit").and_then(Value::as_bool).unwrap_or(false),
            total: size,
            received: 0,
            bytes: Bytes::Open(Some(Box::new(BlobWriter::new(&self.dir.clone(), &self.file_name())))),
            created: call.now,
            expires: 0,
            expired: false,
            hidden_for: self.switches.session_404_first,
            act_by: act.by,
        };
        session.slide(flavour, call.now);
        let expires = session.expires;
        let n = self.log.next_session();
        let id = Guid::derived(mix(self.config.id_seed ^ 0x5E55) ^ n).text();
        self.sessions.insert(id.clone(), session);
        Ok(Reply::json(
            200,
            json!({
                "@odata.context": self.renderer(call).context("microsoft.graph.uploadSession"),
                "uploadUrl": format!("{}/_data/upload/{id}?tempauth=v1.{:016x}", call.base, mix(n ^ 0x7E)),
                "expirationDateTime": expiry(expires),
                "nextExpectedRanges": ["0-"],
            }),
        ))
    }

    fn check_session_item(&self, item: &Value) -> ApiResult<()> {
        if item.get("@odata.type").is_some() {
            return Err(ApiError::invalid("Unexpected annotation @odata.type."));
        }
        const KNOWN: [&str; 6] =
            ["name", "description", "fileSize", "fileSystemInfo", "driveItemSource", "mediaSource"];
        let unknown = item.as_object().into_iter().flatten();
        if let Some((key, _)) =
            unknown.into_iter().find(|(k, _)| !k.starts_with('@') && !KNOWN.contains(&k.as_str()))
        {
            return Err(ApiError::invalid(format!("The property '{key}' is not uploadable.")));
        }
        let refused = (self.switches.refuse_file_size && item.get("fileSize").is_some())
            || (self.switches.refuse_session_times && item.get("fileSystemInfo").is_some());
        if refused { Err(ApiError::invalid("Annotation or property not allowed.")) } else { Ok(()) }
    }

    fn session_target(
        &self,
        at: usize,
        place: Place,
        by_id: bool,
        behaviour: Conflict,
        act: Act,
    ) -> ApiResult<(Target, String)> {
        let drive = &self.drives[at];
        match place {
            Place::Item(slot) => {
                let node = drive.live(slot)?;
                let name = node.name.to_string();
                if by_id {
                    drive.check_replace(slot, act.by)?;
                    return Ok((Target::Existing(slot), name));
                }
                if behaviour == Conflict::Replace {
                    drive.check_replace(slot, act.by)?;
                }
                // With `fail` the 409 comes at the last fragment only (graph-api 7.2).
                Ok((Target::Named { parent: node.parent, name: name.clone() }, name))
            }
            Place::Missing { parent, rest } => match rest.as_slice() {
                [name] => {
                    drive.check_put(parent, name, behaviour, act.by)?;
                    Ok((Target::Named { parent, name: name.clone() }, name.clone()))
                }
                _ => Err(ApiError::not_found()),
            },
        }
    }

    fn check_session_size(&self, at: usize, existing: Option<Slot>, size: Option<u64>) -> ApiResult<()> {
        let Some(size) = size else { return Ok(()) };
        if size > MAX_FILE {
            return Err(ApiError::new(400, "maxFileSizeExceeded", "The file is too large."));
        }
        let old = existing.map_or(0, |s| self.drives[at].tree.node(s).weight());
        self.drives[at].check_quota(size as i64 - old)
    }

    /// Business: one open session for a name (graph-api 7.5).
    fn check_open_sessions(&self, call: &Call, at: usize, target: &Target) -> ApiResult<()> {
        if !self.flavour(at).is_business() {
            return Ok(());
        }
        let place = |t: &Target| match t {
            Target::Existing(slot) => {
                let node = self.drives[at].tree.node(*slot);
                (node.parent, node.name.to_string())
            }
            Target::Named { parent, name } => (*parent, name.clone()),
        };
        let wanted = place(target);
        let clash = self.sessions.values().any(|s| {
            let other = place(&s.target);
            s.drive == at
                && !s.expired
                && call.now < s.expires
                && other.0 == wanted.0
                && names::same(&other.1, &wanted.1)
        });
        if clash {
            let message = "The file is currently being uploaded by another session.";
            return Err(ApiError::new(409, "nameAlreadyExists", message));
        }
        Ok(())
    }

    /// The session behind an upload URL: 404 when gone, 401 when its token has ended (graph-api 7.3, 7.5).
    pub(crate) fn session(&mut self, call: &Call, id: &str) -> ApiResult<&mut Session> {
        let missing = || {
            ApiError::new(404, "itemNotFound", "The upload session was not found.")
                .inner("uploadSessionNotFound")
        };
        let business = match self.sessions.get(id) {
            Some(s) => self.flavour(s.drive).is_business(),
            None => return Err(missing()),
        };
        let session = self.sessions.get_mut(id).ok_or_else(missing)?;
        if session.hidden_for > 0 {
            session.hidden_for -= 1;
            return Err(missing());
        }
        let ended = match business {
            true => call.now >= session.created + 24 * 60 * MINUTE,
            false => call.now >= session.expires,
        };
        if (session.expired || ended) && business {
            return Err(
                ApiError::new(401, "unauthenticated", "The upload URL has expired.").inner("expiredToken")
            );
        }
        if session.expired || ended {
            return Err(missing());
        }
        Ok(session)
    }

    /// GET uploadUrl (graph-api 7.4).
    pub(crate) fn session_status(&mut self, call: &Call, id: &str) -> ApiResult<Reply> {
        let session = self.session(call, id)?;
        Ok(Reply::json(
            200,
            json!({
                "expirationDateTime": expiry(session.expires),
                "nextExpectedRanges": session.ranges(),
            }),
        ))
    }

    /// DELETE uploadUrl (graph-api 7.4).
    pub(crate) fn session_cancel(&mut self, call: &Call, id: &str) -> ApiResult<Reply> {
        self.session(call, id)?;
        self.sessions.remove(id);
        Ok(Reply::empty(204))
    }

    /// Checks a fragment's headers and hands out the writer (graph-api 7.3, 7.5).
    pub(crate) fn begin_fragment(&mut self, call: &Call, id: &str) -> ApiResult<Fragment> {
        let (limited, unit) = (self.switches.fragment_limit, self.config.fragment_unit);
        let session = self.session(call, id)?;
        let invalid = |inner: &'static str, m: &'static str| ApiError::invalid(m).inner(inner);
        let range = call
            .header("content-range")
            .ok_or_else(|| invalid("invalidRange", "Content-Range is missing."))?;
        let (start, end, total) =
            parse_range(range).ok_or_else(|| invalid("invalidRange", "Content-Range is malformed."))?;
        let length =
            call.length.ok_or_else(|| ApiError::new(411, "lengthRequired", "Content-Length is required."))?;
        if end >= total {
            return Err(invalid("invalidRange", "The range ends beyond the total."));
        }
        if end - start + 1 != length {
            return Err(invalid("fragmentLengthMismatch", "Content-Length does not match Content-Range."));
        }
        if session.total.is_some_and(|t| t != total) {
            return Err(invalid("invalidRange", "The total is not that of the session."));
        }
        if limited && length >= FRAGMENT_LIMIT {
            return Err(ApiError::new(413, "maxFragmentLengthExceeded", "The fragment is too large."));
        }
        if total > MAX_FILE {
            return Err(ApiError::new(400, "maxFileSizeExceeded", "The file is too large."));
        }
        if start < session.received || matches!(session.bytes, Bytes::Complete(_)) {
            return Err(ApiError::new(416, "invalidRange", "The fragment was received already.")
                .inner("fragmentOverlap"));
        }
        if start > session.received {
            return Err(invalid("fragmentOutOfOrder", "Fragments must be sent in order."));
        }
        if end + 1 != total && (end + 1) % unit != 0 {
            return Err(invalid("fragmentLengthMismatch", "The fragment is no multiple of the unit."));
        }
        let Bytes::Open(writer) = &mut session.bytes else { return Err(ApiError::not_found()) };
        let writer = writer.take().ok_or_else(|| {
            ApiError::new(409, "conflict", "Another fragment of the session is being received.")
        })?;
        session.total = Some(total);
        Ok(Fragment { writer, length, total })
    }

    /// A fragment broke: by default all of it is void (graph-api 7.5).
    pub(crate) fn fragment_broke(&mut self, id: &str, writer: Box<BlobWriter>) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.received = writer.len();
            session.bytes = Bytes::Open(Some(writer));
        }
    }

    /// A fragment is complete: 202, or the commit (graph-api 7.3).
    pub(crate) fn end_fragment(
        &mut self,
        call: &Call,
        id: &str,
        writer: Box<BlobWriter>,
    ) -> ApiResult<Reply> {
        let flavour = match self.sessions.get(id) {
            Some(s) => self.flavour(s.drive),
            None => return Err(ApiError::new(404, "itemNotFound", "The upload session was cancelled.")),
        };
        let session = self.sessions.get_mut(id).ok_or_else(ApiError::not_found)?;
        session.slide(flavour, call.now);
        session.received = writer.len();
        if session.total != Some(session.received) {
            session.bytes = Bytes::Open(Some(writer));
            return Ok(accepted(session));
        }
        session.bytes = Bytes::Complete(writer.finish());
        if session.defer { Ok(accepted(session)) } else { self.commit(call, id) }
    }

    /// POST uploadUrl with an empty body: explicit commit, Business (graph-api 7.4).
    pub(crate) fn session_commit(&mut self, call: &Call, id: &str) -> ApiResult<Reply> {
        let session = self.session(call, id)?;
        if !matches!(session.bytes, Bytes::Complete(_)) {
            return Err(ApiError::invalid("The upload is not complete."));
        }
        let at = session.drive;
        if !self.flavour(at).is_business() {
            return Err(ApiError::method("GET, PUT, DELETE"));
        }
        self.commit(call, id)
    }

    /// PUT with `@microsoft.graph.sourceUrl`: commits a kept session on a personal drive (graph-api 7.4).
    pub(crate) fn commit_source_url(
        &mut self,
        call: &Call,
        at: usize,
        place: Place,
        body: &Value,
        act: Act,
    ) -> ApiResult<Reply> {
        let url = body.get("@microsoft.graph.sourceUrl").and_then(Value::as_str);
        if self.flavour(at).is_business() || url.is_none() {
            return Err(ApiError::not_supported("PUT of an item is not supported."));
        }
        let path = url.unwrap_or_default().split('?').next().unwrap_or_default();
        let id = path.rsplit('/').next().unwrap_or_default().to_owned();
        let existing = if let Place::Item(slot) = &place { Some(*slot) } else { None };
        self.preconditions(call, at, existing)?;
        let behaviour = conflict(call, Some(body))?.unwrap_or(Conflict::Fail);
        let (target, _) = self.session_target(at, place, false, behaviour, act)?;
        let session = self.session(call, &id)?;
        if !matches!(session.bytes, Bytes::Complete(_)) || session.drive != at {
            return Err(ApiError::invalid("The upload is not complete."));
        }
        session.target = target;
        session.behaviour = behaviour;
        self.commit(call, &id)
    }

    /// Makes the file; on failure the bytes are kept until the session ends (graph-api 7.4).
    fn commit(&mut self, call: &Call, id: &str) -> ApiResult<Reply> {
        let session = self.sessions.get(id).ok_or_else(ApiError::not_found)?;
        let Bytes::Complete(blob) = &session.bytes else { return Err(ApiError::not_found()) };
        let (at, blob, times) = (session.drive, blob.clone(), session.times);
        let act = Act { now: call.now, by: session.act_by };
        let (target, behaviour) = (session.target.clone(), session.behaviour);
        let description = session.description.clone();
        let drive = &mut self.drives[at];
        let (slot, created) = match target {
            Target::Existing(slot) => {
                drive.replace(slot, blob, times, act)?;
                (slot, false)
            }
            Target::Named { parent, name } => drive.put(parent, &name, blob, behaviour, times, act)?,
        };
        if let (Some(text), false) = (description, drive.flavour().is_business()) {
            drive.tree.node_mut(slot).extra_mut().description = Some(text);
        }
        self.sessions.remove(id);
        self.after_upload(at, slot, act);
        let status = if created { 201 } else { 200 };
        if self.switches.empty_final_body {
            return Ok(Reply::empty(status));
        }
        Ok(Reply::json(status, self.renderer(call).entity(at, slot)))
    }
}

fn accepted(session: &Session) -> Reply {
    Reply::json(
        202,
        json!({
            "expirationDateTime": expiry(session.expires),
            "nextExpectedRanges": session.ranges(),
        }),
    )
}

/// `bytes a-b/total`, with a not after b.
pub(crate) fn parse_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let parsed = (start.trim().parse().ok()?, end.trim().parse().ok()?, total.trim().parse().ok()?);
    (parsed.0 <= parsed.1).then_some(parsed)
}
