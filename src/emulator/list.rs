//! Listings with paging, and `$expand` (graph-api 5).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::error::{ApiError, ApiResult};
use super::http::{Call, Reply};
use super::render::{Within, escape};
use super::state::State;
use super::tree::Slot;

/// `$expand=children` brings one page of this size (graph-api 5).
const EXPANDED: usize = 200;

/// Where a listing goes on.
enum Skip {
    Start,
    /// After this name, in name order.
    After(String),
    /// At this index, in another order.
    At(usize),
}

impl Skip {
    fn parse(text: &str) -> Option<Self> {
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        match plain.split_at_checked(1)? {
            ("0", "") => Some(Skip::Start),
            ("n", name) => Some(Skip::After(name.to_owned())),
            ("i", index) => Some(Skip::At(index.parse().ok()?)),
            _ => None,
        }
    }

    fn text(&self) -> String {
        let plain = match self {
            Skip::Start => "0".to_owned(),
            Skip::After(name) => format!("n{name}"),
            Skip::At(index) => format!("i{index}"),
        };
        URL_SAFE_NO_PAD.encode(plain)
    }
}

impl State {
    /// GET children.
    pub(crate) fn children(&self, call: &Call, at: usize, slot: Slot) -> ApiResult<Reply> {
        self.check_list_options(call)?;
        let drive = &self.drives[at];
        let node = drive.live(slot)?;
        let remote = node.extra.as_ref().is_some_and(|e| e.remote.is_some());
        if node.folder().is_none() || remote {
            return Err(ApiError::invalid("The item has no children here."));
        }
        // Personal only (graph-api 5).
        if !drive.flavour().is_business()
            && let Some(tag) = call.header("if-none-match")
            && [drive.e_tag(slot), drive.c_tag(slot)]
                .into_iter()
                .flatten()
                .any(|t| t == tag.trim_matches('"'))
        {
            return Ok(Reply::empty(304));
        }
        let skip = match call.option("skiptoken") {
            None if self.switches.empty_list_pages => {
                return Ok(Reply::json(200, self.page(call, at, slot, Vec::new(), Some(Skip::Start))));
            }
            None => Skip::Start,
            Some(text) => {
                Skip::parse(text).ok_or_else(|| ApiError::invalid("The skiptoken is malformed."))?
            }
        };
        let limit = self.limit(call, at)?;
        let all = drive.tree.children(slot);
        let order = self.order(call, at)?;
        let (items, next) = match order {
            None => {
                let from = match &skip {
                    Skip::After(name) => drive.tree.children_after(slot, name),
                    _ => 0,
                };
                let page: Vec<Slot> = all.from(from).take(limit).collect();
                let more = from + page.len() < all.len();
                let last = page.last().map(|s| drive.tree.node(*s).name.to_string());
                (page, last.filter(|_| more).map(Skip::After))
            }
            Some((key, descending)) => {
                let mut sorted: Vec<Slot> = all.iter().collect();
                match key {
                    Key::Name => {}
                    Key::Size => sorted.sort_by_key(|s| drive.tree.node(*s).weight()),
                    Key::Modified => sorted.sort_by_key(|s| drive.tree.node(*s).modified),
                }
                if descending {
                    sorted.reverse();
                }
                let from = if let Skip::At(index) = skip { index.min(sorted.len()) } else { 0 };
                let page: Vec<Slot> = sorted[from..].iter().take(limit).copied().collect();
                let end = from + page.len();
                (page, (end < sorted.len()).then_some(Skip::At(end)))
            }
        };
        Ok(Reply::json(200, self.page(call, at, slot, items, next)))
    }

    /// What listings do not know is refused, not ignored (graph-api 5).
    fn check_list_options(&self, call: &Call) -> ApiResult<()> {
        for option in ["skip", "filter", "search"] {
            if call.option(option).is_some() {
                let message = format!("The query option ${option} is not supported.");
                return Err(ApiError::invalid(message).inner("invalidQueryOption"));
            }
        }
        Ok(())
    }

    /// Larger values of `$top` are capped, not rejected (graph-api 5).
    fn limit(&self, call: &Call, at: usize) -> ApiResult<usize> {
        match call.option("top") {
            None => Ok(self.config.page_size),
            Some(text) => match text.parse::<usize>() {
                Ok(top) if top > 0 => Ok(top.min(self.flavour(at).max_top())),
                _ => Err(ApiError::invalid("$top must be a positive number.").inner("invalidQueryOption")),
            },
        }
    }

    fn order(&self, call: &Call, at: usize) -> ApiResult<Option<(Key, bool)>> {
        let Some(text) = call.option("orderby") else { return Ok(None) };
        let mut words = text.split_whitespace();
        let key = match (words.next(), self.flavour(at).is_business()) {
            (Some("name"), _) | (Some("url"), true) => Key::Name,
            (Some("size"), false) => Key::Size,
            (Some("lastModifiedDateTime"), false) => Key::Modified,
            _ => {
                return Err(
                    ApiError::invalid("The $orderby key is not supported.").inner("invalidQueryOption")
                );
            }
        };
        match words.next() {
            None | Some("asc") => Ok(if matches!(key, Key::Name) { None } else { Some((key, false)) }),
            Some("desc") => Ok(Some((key, true))),
            Some(_) => Err(ApiError::invalid("The $orderby direction is unknown.")),
        }
    }

    fn page(&self, call: &Call, at: usize, folder: Slot, items: Vec<Slot>, next: Option<Skip>) -> Value {
        let r = self.renderer(call);
        let drive = &self.drives[at];
        let value: Vec<Value> = items.iter().map(|s| self.child_json(call, at, *s)).collect();
        let id = escape(&drive.ids.item_id(folder));
        let mut page = json!({
            "@odata.context": r.context(&format!("drives('{}')/items('{id}')/children", escape(&drive.id))),
            "@odata.count": drive.tree.children(folder).len(),
            "value": value,
        });
        if let Some(next) = next {
            let mut url = format!("{}/children?$skiptoken={}", self.item_url(call, at, folder), next.text());
            for option in ["select", "top", "orderby", "expand"] {
                if let Some(value) = call.option(option) {
                    url.push_str(&format!("&${option}={}", escape(value)));
                }
            }
            page["@odata.nextLink"] = json!(url);
        }
        page
    }

    fn child_json(&self, call: &Call, at: usize, slot: Slot) -> Value {
        let mut item = Value::Object(self.renderer(call).item(at, slot, Within::Item));
        // Options that do not fit are refused for single items; here they were checked with the folder.
        let _ = self.expand(call, at, slot, &mut item);
        item
    }

    /// `$expand` of an item (graph-api 5).
    pub(crate) fn expand(&self, call: &Call, at: usize, slot: Slot, item: &mut Value) -> ApiResult<()> {
        let Some(expand) = call.option("expand") else { return Ok(()) };
        let drive = &self.drives[at];
        for what in expand.split(',') {
            match what.split('(').next().unwrap_or_default().trim() {
                "children" if drive.tree.node(slot).folder().is_some() => {
                    let all = drive.tree.children(slot);
                    let r = self.renderer(call);
                    let first = all.iter().take(EXPANDED);
                    let value: Vec<Value> =
                        first.map(|s| Value::Object(r.item(at, s, Within::Item))).collect();
                    item["children"] = json!(value);
                    if all.len() > EXPANDED {
                        let last = drive.tree.node(all.at(EXPANDED - 1)).name.to_string();
                        let token = Skip::After(last).text();
                        let url = format!("{}/children?$skiptoken={token}", self.item_url(call, at, slot));
                        item["children@odata.nextLink"] = json!(url);
                    }
                }
                "children" => {}
                "thumbnails" => item["thumbnails"] = self.thumbnail_sets(call, at, slot).into(),
                "permissions" => item["permissions"] = json!(self.permission_list(at, slot)),
                "listItem" if drive.flavour().is_business() => {
                    item["listItem"] = json!({"id": slot.to_string()});
                }
                _ => {
                    return Err(
                        ApiError::invalid("The $expand option is not supported.").inner("invalidQueryOption")
                    );
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Key {
    Name,
    Size,
    Modified,
}
