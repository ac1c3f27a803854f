//! Delta: the latest state of each changed item, in pages (graph-api 9).
//!
//! A first enumeration walks the slots and ends with a token for the change number at which it began, so that
//! whatever changed meanwhile comes again. Later rounds walk the change numbers.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::config::ResyncLocation;
use super::drive::Drive;
use super::error::{ApiError, ApiResult};
use super::http::Call;
use super::render::{Renderer, Within, escape};
use super::time;
use super::tree::{Life, ROOT, Slot};

/// Where a round stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// First enumeration: next slot, and the change number it began at.
    Full { next: Slot, began: u64 },
    /// Everything after this change number.
    Since { change: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    generation: u64,
    position: Position,
    page: u32,
}

impl Token {
    fn text(self) -> String {
        let Self { generation, position, page } = self;
        let plain = match position {
            Position::Full { next, began } => format!("f.{generation}.{page}.{next}.{began}"),
            Position::Since { change } => format!("s.{generation}.{page}.{change}"),
        };
        URL_SAFE_NO_PAD.encode(plain)
    }

    fn parse(text: &str) -> Option<Self> {
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = plain.split('.');
        let kind = parts.next()?;
        let generation = parts.next()?.parse().ok()?;
        let page = parts.next()?.parse().ok()?;
        let position = match kind {
            "f" => Position::Full { next: parts.next()?.parse().ok()?, began: parts.next()?.parse().ok()? },
            "s" => Position::Since { change: parts.next()?.parse().ok()? },
            _ => return None,
        };
        parts.next().is_none().then_some(Self { generation, position, page })
    }
}

/// Which 410 a stale token gets (graph-api 9.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Resync {
    /// `resyncRequired` without an inner code, as wire traces show.
    Plain,
    /// Inner `resyncApplyDifferences`: the server wins.
    ApplyDifferences,
    /// Inner `resyncUploadDifferences`: keep both.
    UploadDifferences,
    /// Outer `resyncChangesApplyDifferences`, as the documentation spells it.
    ChangesApplyDifferences,
    /// Outer `resyncChangesUploadDifferences`.
    ChangesUploadDifferences,
    /// `syncStateNotFound`.
    StateNotFound,
}

fn gone(kind: Resync, location: Option<String>) -> ApiError {
    let message = "Resync required. Replace any local items with the server's version.";
    let (code, inner) = match kind {
        Resync::Plain => ("resyncRequired", None),
        Resync::ApplyDifferences => ("resyncRequired", Some("resyncApplyDifferences")),
        Resync::UploadDifferences => ("resyncRequired", Some("resyncUploadDifferences")),
        Resync::ChangesApplyDifferences => ("resyncChangesApplyDifferences", None),
        Resync::ChangesUploadDifferences => ("resyncChangesUploadDifferences", None),
        Resync::StateNotFound => ("syncStateNotFound", None),
    };
    let mut e = ApiError::new(410, code, message);
    if let Some(inner) = inner {
        e = e.inner(inner);
    }
    match location {
        Some(url) => e.header("location", url),
        None => e,
    }
}

/// Answers one delta request below `scope`. `token`: from the query or the function's argument.
pub(crate) fn delta(
    r: &Renderer<'_>,
    at: usize,
    scope: Slot,
    call: &Call,
    token: Option<&str>,
) -> ApiResult<Value> {
    let state = r.state;
    let drive = &state.drives[at];
    if !state.switches.delta {
        return Err(ApiError::new(501, "notSupported", "Delta is not supported in this cloud."));
    }
    if scope != ROOT && drive.flavour().is_business() && !state.switches.folder_delta_on_business {
        let message = "view.delta can only be called on the root.";
        return Err(ApiError::new(501, "notSupported", message));
    }
    let visible = visible(drive, r.now - state.switches.delta_lag_ms as time::Ms);
    let latest = token == Some("latest");
    let token = match token {
        None | Some("") => start(drive, visible),
        Some("latest") => Token { position: Position::Since { change: visible }, ..start(drive, visible) },
        Some(text) => known(r, at, scope, text, visible)?,
    };
    let links = Links { r, at, scope, call };
    if state.switches.delta_empty_pages && token.page % 2 == 0 && !latest {
        let next = Token { page: token.page + 1, ..token };
        return Ok(links.page(Vec::new(), next, false));
    }
    let (items, position, done) = match token.position {
        Position::Full { next, began } => enumerate(r, at, scope, next, began, limit(r, drive, call)),
        Position::Since { change } => {
            let exclude = call.header("deltaexcludeparent").is_some() || call.prefers("deltaExcludeParent");
            changed(r, at, scope, (change, visible.max(change)), limit(r, drive, call), exclude)
        }
    };
    let next = Token { position, page: if done { 0 } else { token.page + 1 }, ..token };
    Ok(links.page(items, next, done))
}

fn start(drive: &Drive, visible: u64) -> Token {
    let position = Position::Full { next: 0, began: visible };
    Token { generation: drive.delta_generation, position, page: 0 }
}

/// Business pages stay at about 200 whatever `$top` says; personal honours it (graph-api 9.1).
fn limit(r: &Renderer<'_>, drive: &Drive, call: &Call) -> usize {
    let page = r.state.config.page_size;
    match call.option("top").and_then(|t| t.parse::<usize>().ok()).filter(|t| *t > 0) {
        Some(top) if drive.flavour().is_business() => top.min(page),
        Some(top) => top.min(drive.flavour().max_top()),
        None => page,
    }
}

/// The last change number older than `until`.
fn visible(drive: &Drive, until: time::Ms) -> u64 {
    let tree = &drive.tree;
    let hidden = tree.changes.iter().rev().take_while(|(_, (_, at))| *at > until).last();
    hidden.map_or(tree.last_change, |(first, _)| first - 1)
}

/// A token from outside: ours, a timestamp, too old, or nonsense.
fn known(r: &Renderer<'_>, at: usize, scope: Slot, text: &str, visible: u64) -> ApiResult<Token> {
    let drive = &r.state.drives[at];
    if let Some(token) = Token::parse(text) {
        if token.generation == drive.delta_generation {
            return Ok(token);
        }
        let fresh = Links::path(r, at, scope);
        let location = match r.state.switches.resync_location {
            ResyncLocation::Usable => Some(format!("{fresh}?token=")),
            ResyncLocation::Broken => Some(format!("{}/v1.0/broken%2525resync", r.base)),
            ResyncLocation::Missing => None,
        };
        return Err(gone(drive.resync, location));
    }
    // Business only (graph-api 9.1, 9.3).
    if let (Some(ms), true) = (time::parse(text), drive.flavour().is_business()) {
        if ms <= drive.created {
            return Ok(start(drive, visible));
        }
        let before = drive.tree.changes.iter().take_while(|(_, (_, at))| *at < ms).last();
        let change = before.map_or(0, |(n, _)| *n);
        return Ok(Token { position: Position::Since { change }, ..start(drive, visible) });
    }
    Err(ApiError::invalid("The delta token is malformed."))
}

type Page = (Vec<Map<String, Value>>, Position, bool);

/// A page of the first enumeration: parents before children (graph-api 9.2).
fn enumerate(r: &Renderer<'_>, at: usize, scope: Slot, next: Slot, began: u64, limit: usize) -> Page {
    let tree = &r.state.drives[at].tree;
    let (mut items, mut seen) = (Vec::new(), BTreeSet::new());
    let mut slot = next;
    while slot < tree.len() && items.len() < limit {
        if tree.live(slot).is_some() && (scope == ROOT || tree.is_below(slot, scope)) {
            let mut late: Vec<Slot> = tree.ancestors(slot).filter(|a| *a > slot && *a != scope).collect();
            late.reverse();
            for each in late.into_iter().chain([slot]) {
                if seen.insert(each) || r.state.switches.delta_duplicates {
                    items.push(r.item(at, each, Within::Delta));
                }
            }
            if r.state.switches.delta_duplicates {
                items.push(r.item(at, slot, Within::Delta));
            }
        }
        slot += 1;
    }
    if slot < tree.len() {
        (items, Position::Full { next: slot, began }, false)
    } else {
        (items, Position::Since { change: began }, true)
    }
}

/// A page of changes in `range.0 + 1 ..= range.1`, ancestors first (graph-api 9.2).
fn changed(
    r: &Renderer<'_>,
    at: usize,
    scope: Slot,
    range: (u64, u64),
    limit: usize,
    no_parents: bool,
) -> Page {
    let tree = &r.state.drives[at].tree;
    let switches = &r.state.switches;
    let (mut items, mut seen) = (Vec::new(), BTreeSet::new());
    let mut last = range.0;
    let mut changes = tree.changes.range((Excluded(range.0), Included(range.1))).peekable();
    if changes.peek().is_some() && scope == ROOT && switches.delta_ancestors {
        // The root came even when parents were to be left out.
        seen.insert(ROOT);
        items.push(r.item(at, ROOT, Within::Delta));
    }
    let mut taken = 0;
    while taken < limit {
        let Some((number, (slot, _))) = changes.next() else { break };
        (last, taken) = (*number, taken + 1);
        let inside = scope == ROOT || tree.is_below(*slot, scope);
        if !inside {
            items.extend(moved_out(r, at, scope, *slot));
            continue;
        }
        if switches.delta_ancestors && !no_parents {
            let mut above: Vec<Slot> = tree.ancestors(*slot).collect();
            above.reverse();
            for each in above {
                let shown =
                    tree.node(each).life == Life::Live && (scope == ROOT || tree.is_below(each, scope));
                if shown && seen.insert(each) {
                    items.push(r.item(at, each, Within::Delta));
                }
            }
        }
        if seen.insert(*slot) {
            items.push(r.item(at, *slot, Within::Delta));
        }
        if switches.delta_duplicates {
            items.push(r.item(at, *slot, Within::Delta));
        }
    }
    if changes.peek().is_some() {
        (items, Position::Since { change: last }, false)
    } else {
        (items, Position::Since { change: range.1 }, true)
    }
}

/// Moved out of the scope is deleted to who watches the scope (graph-api 9.2).
fn moved_out(r: &Renderer<'_>, at: usize, scope: Slot, slot: Slot) -> Option<Map<String, Value>> {
    let drive = &r.state.drives[at];
    let node = drive.tree.node(slot);
    let was_inside =
        node.extra.as_ref()?.former_parents.iter().any(|parent| drive.tree.is_below(*parent, scope));
    was_inside.then(|| {
        let mut item = Map::new();
        item.insert("id".into(), json!(drive.ids.item_id(slot)));
        item.insert("deleted".into(), json!({}));
        item.insert("name".into(), json!(node.name));
        item.insert("parentReference".into(), json!({"driveId": drive.id}));
        item
    })
}

struct Links<'a> {
    r: &'a Renderer<'a>,
    at: usize,
    scope: Slot,
    call: &'a Call,
}

impl Links<'_> {
    fn path(r: &Renderer<'_>, at: usize, scope: Slot) -> String {
        let drive = &r.state.drives[at];
        let item = match scope {
            ROOT => "root".to_owned(),
            slot => format!("items/{}", escape(&drive.ids.item_id(slot))),
        };
        r.url(&format!("/drives/{}/{item}/delta", escape(&drive.id)))
    }

    /// Exactly one of nextLink and deltaLink; links repeat `$select` (graph-api 9.1).
    fn page(&self, items: Vec<Map<String, Value>>, token: Token, done: bool) -> Value {
        let mut url = Self::path(self.r, self.at, self.scope);
        url.push_str(&format!("?token={}", token.text()));
        for option in ["select", "top"] {
            if let Some(value) = self.call.option(option) {
                url.push_str(&format!("&${option}={}", escape(value)));
            }
        }
        let link = if done { "@odata.deltaLink" } else { "@odata.nextLink" };
        let mut page = json!({
            "@odata.context": self.r.context("Collection(driveItem)"),
            "value": items,
        });
        page[link] = json!(url);
        page
    }
}
