//! Copy with a monitor (graph-api 8.1).

use serde_json::{Value, json};

use super::drive::{Act, Conflict};
use super::error::{ApiError, ApiResult};
use super::flavour::Flavour;
use super::graph::conflict;
use super::http::{Call, Reply};
use super::ids::Guid;
use super::names;
use super::state::State;
use super::time::Ms;
use super::tree::{Kind, NewNode, Slot, folder};

/// Items of one copy job (graph-api 4.4).
const MAX_ITEMS: usize = 30_000;

/// A copy under way or done; the work is done at once and shown when it is due.
#[derive(Debug)]
pub(crate) struct CopyJob {
    started: Ms,
    due: Ms,
    outcome: Result<(usize, Slot), ApiError>,
}

impl State {
    /// POST copy: always 202, whatever will become of it.
    pub(crate) fn copy(
        &mut self,
        call: &Call,
        at: usize,
        slot: Slot,
        body: &Value,
        act: Act,
    ) -> ApiResult<Reply> {
        let reference = body.get("parentReference").unwrap_or(&Value::Null);
        let text = |key: &str| reference.get(key).and_then(Value::as_str);
        let to = match text("driveId") {
            Some(id) => self.drive_by_id(id)?,
            None => at,
        };
        // Not between two ODB drives nor between services (graph-api 8.1).
        let (from, into) = (self.flavour(at), self.flavour(to));
        if to != at && (from.is_business() != into.is_business() || from == Flavour::Business && into == from)
        {
            return Err(ApiError::not_supported("Copying to this drive is not supported."));
        }
        let theirs = &self.drives[to];
        let parent = match text("id") {
            Some(id) => theirs.tree.resolve(&theirs.ids, id).ok_or_else(ApiError::not_found)?,
            None if to == at => self.drives[at].tree.node(slot).parent,
            None => return Err(ApiError::invalid("parentReference needs an id.")),
        };
        theirs.live(parent)?;
        let name = body.get("name").and_then(Value::as_str).map(str::to_owned);
        let name = name.unwrap_or_else(|| self.drives[at].tree.node(slot).name.to_string());
        names::check(into, &name, parent == super::tree::ROOT)?;
        // Personal ignores conflictBehavior and renames (graph-api 7.6).
        let behaviour = match into.is_business() {
            true => conflict(call, None)?.unwrap_or(Conflict::Fail),
            false => Conflict::Rename,
        };
        let outcome = self.copy_now((at, slot), (to, parent), &name, behaviour, act);
        let id = Guid::derived(call.now as u64 ^ (self.jobs.len() as u64) << 48 ^ self.config.id_seed).text();
        let due = call.now + self.config.copy_duration.as_millis() as Ms;
        self.jobs.insert(id.clone(), CopyJob { started: call.now, due, outcome });
        Ok(Reply::empty(202).header("location", format!("{}/_data/monitor/{id}", call.base)))
    }

    fn copy_now(
        &mut self,
        from: (usize, Slot),
        to: (usize, Slot),
        name: &str,
        behaviour: Conflict,
        act: Act,
    ) -> ApiResult<(usize, Slot)> {
        let source = &self.drives[from.0];
        if from.0 == to.0 && source.tree.is_below(to.1, from.1) {
            return Err(ApiError::invalid("A folder cannot be copied into itself."));
        }
        let all = source.tree.subtree(from.1);
        if all.len() > MAX_ITEMS {
            return Err(ApiError::new(400, "totalAffectedItemCountExceeded", "Too many items."));
        }
        self.drives[to.0].check_quota(source.tree.node(from.1).weight())?;
        let top = match source.tree.node(from.1).blob().cloned() {
            Some(blob) => self.drives[to.0].put(to.1, name, blob, behaviour, Default::default(), act)?.0,
            None => self.drives[to.0].mkdir(to.1, name, behaviour, act)?,
        };
        // Parents come before children in `all`.
        let mut copies = std::collections::BTreeMap::from([(from.1, top)]);
        for slot in all.into_iter().skip(1) {
            let node = self.drives[from.0].tree.node(slot);
            let kind = match node.blob() {
                Some(blob) => Kind::File(blob.clone()),
                None => folder(),
            };
            let (name, parent) = (node.name.clone(), copies[&node.parent]);
            let drive = &mut self.drives[to.0];
            let new = NewNode { parent, name: &name, kind, now: drive.round(act.now), by: act.by };
            let copy = drive.tree.add(new);
            copies.insert(slot, copy);
        }
        Ok((to.0, top))
    }

    /// The monitor: no Authorization; 202 while running, then 200 or 303 (graph-api 8.1).
    pub(crate) fn monitor(&self, call: &Call, id: &str) -> ApiResult<Reply> {
        let job = self.jobs.get(id).ok_or_else(ApiError::not_found)?;
        if call.now < job.due {
            let done = (call.now - job.started) as f64 / (job.due - job.started).max(1) as f64;
            let percent = (done * 1000.0).round() / 10.0;
            let body =
                json!({"operation": "itemCopy", "percentageComplete": percent, "status": "inProgress"});
            return Ok(Reply::json(202, body));
        }
        match &job.outcome {
            Ok((drive, slot)) => {
                let body = json!({
                    "operation": "itemCopy",
                    "percentageComplete": 100.0,
                    "resourceId": self.drives[*drive].ids.item_id(*slot),
                    "status": "completed",
                });
                let status = if self.switches.monitor_see_other { 303 } else { 200 };
                let reply = Reply::json(status, body);
                Ok(if status == 303 {
                    reply.header("location", self.item_url(call, *drive, *slot))
                } else {
                    reply
                })
            }
            Err(e) => Ok(Reply::json(
                200,
                json!({
                    "operation": "itemCopy",
                    "percentageComplete": 0.0,
                    "status": "failed",
                    "errorCode": e.code,
                    "error": {"code": e.code, "message": e.message},
                }),
            )),
        }
    }
}
