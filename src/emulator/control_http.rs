//! The control interface over HTTP: `/_control/{command}`, JSON both ways, for tests in other processes.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Shared;
use super::config::Switches;
use super::control::{Control, Edit, Mark};
use super::delta::Resync;
use super::faults::{Fault, Throttle};
use super::http::{Body, Call, Reply};
use super::shape::Link;
use super::transfer;

pub(crate) async fn answer(shared: &Arc<Shared>, call: &Call, body: Body, link: &Link) -> Reply {
    let bytes = match transfer::small(shared, link, body).await {
        Ok(bytes) => bytes,
        Err(e) => return Reply::json(e.status, json!({"error": e.message})),
    };
    let command = call.path.trim_start_matches("/_control").trim_matches('/');
    match run(&Control::new(Arc::clone(shared)), &call.method, command, &bytes) {
        Ok(value) => Reply::json(200, value),
        Err(message) => Reply::json(400, json!({"error": message})),
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Millis {
    ms: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bandwidth {
    bytes_per_second: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EditOf {
    drive_id: Option<String>,
    edit: Edit,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MarkOf {
    path: String,
    mark: Mark,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shortcut {
    name: String,
    drive_id: String,
    path: String,
}

#[derive(Deserialize)]
struct Kind {
    kind: Resync,
}

#[derive(Deserialize)]
struct Total {
    total: i64,
}

#[derive(Deserialize)]
struct Approve {
    approve: bool,
}

fn run(control: &Control, method: &str, command: &str, bytes: &[u8]) -> Result<Value, String> {
    let ok = json!({"ok": true});
    match (method, command) {
        ("GET", "truth") => Ok(control.truth()),
        ("GET", "requests") => serde_json::to_value(control.requests()).map_err(|e| e.to_string()),
        ("GET", "counts") => serde_json::to_value(control.counts()).map_err(|e| e.to_string()),
        ("GET", "switches") => serde_json::to_value(control.switches()).map_err(|e| e.to_string()),
        ("GET", "drives") => Ok(json!(control.drive_ids())),
        ("POST", "inject") => Ok(json!({"number": control.inject(read::<Fault>(bytes)?)})),
        ("POST", "edit") => {
            let EditOf { drive_id, edit } = read(bytes)?;
            let id = match drive_id {
                Some(drive) => control.edit_drive_as_other(&drive, &edit),
                None => control.edit_as_other(&edit),
            }?;
            Ok(json!({"id": id}))
        }
        ("POST", _) => act(control, command, bytes).map(|()| ok),
        _ => Err(format!("unknown command {method} {command}")),
    }
}

fn act(control: &Control, command: &str, bytes: &[u8]) -> Result<(), String> {
    match command {
        "clear-faults" => control.clear_faults(),
        "release-stalls" => control.release_stalls(),
        "close-push" => control.close_push(),
        "reset-log" => control.reset_log(),
        "expire-tokens" => control.expire_tokens(),
        "revoke-refresh-tokens" => control.revoke_refresh_tokens(),
        "expire-download-urls" => control.expire_download_urls(),
        "expire-sessions" => control.expire_sessions(),
        "migrate-personal" => control.migrate_personal(),
        "change-item-ids" => control.change_item_ids(),
        "hold-devices" => control.hold_devices(),
        "decide-devices" => control.decide_devices(read::<Approve>(bytes)?.approve),
        "latency" => control.set_latency(Duration::from_millis(read::<Millis>(bytes)?.ms)),
        "bandwidth" => control.set_bandwidth(read::<Bandwidth>(bytes)?.bytes_per_second),
        "throttle" => control.set_throttle(read::<Option<Throttle>>(bytes)?),
        "quota" => control.set_quota(read::<Total>(bytes)?.total),
        "delta-lag" => control.set_delta_lag(Duration::from_millis(read::<Millis>(bytes)?.ms)),
        "delta-resync" => control.delta_resync(read::<Kind>(bytes)?.kind),
        "mark" => {
            let MarkOf { path, mark } = read(bytes)?;
            control.mark(&path, mark)?;
        }
        "shortcut" => {
            let Shortcut { name, drive_id, path } = read(bytes)?;
            control.add_shortcut(&name, &drive_id, &path)?;
        }
        "switches" => {
            // What is given is changed, the rest stays.
            let mut all = serde_json::to_value(control.switches()).map_err(|e| e.to_string())?;
            let given: serde_json::Map<String, Value> = read(bytes)?;
            for (key, value) in given {
                all[key] = value;
            }
            let all: Switches = serde_json::from_value(all).map_err(|e| e.to_string())?;
            control.switch(|s| *s = all);
        }
        _ => return Err(format!("unknown command POST {command}")),
    }
    Ok(())
}
