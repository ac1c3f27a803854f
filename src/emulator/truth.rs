//! The whole truth about every drive, for tests to compare with.

use serde_json::{Value, json};

use super::content::Blob;
use super::drive::Drive;
use super::hash;
use super::state::State;
use super::time::{Fraction, rfc3339};
use super::tree::{ROOT, Slot};

fn hex(bytes: &[u8]) -> String {
    hash::hex_upper(bytes).to_lowercase()
}

/// Hashes of a content; sha256 is null where it would be expensive.
fn content(blob: &Blob) -> Value {
    let sha = blob.sha_is_cheap().then(|| hex(&blob.sha().1));
    json!({"size": blob.len(), "quickXorHash": hash::base64(&blob.quick_xor()), "sha256": sha})
}

fn item(state: &State, drive: &Drive, slot: Slot) -> Value {
    let node = drive.tree.node(slot);
    let who = |w: u8| state.identities[usize::from(w)].display_name.clone();
    let mut one = json!({
        "id": drive.ids.item_id(slot),
        "parentId": (slot != ROOT).then(|| drive.ids.item_id(node.parent)),
        "path": format!("/{}", drive.tree.path(slot).join("/")),
        "name": node.name,
        "kind": if node.blob().is_some() { "file" } else { "folder" },
        "size": node.weight(),
        "eTag": drive.e_tag(slot),
        "cTag": drive.c_tag(slot),
        "mtime": rfc3339(node.fs_modified, Fraction::Trimmed),
        "btime": rfc3339(node.fs_created, Fraction::Trimmed),
        "createdBy": who(node.created_by),
        "lastModifiedBy": who(node.modified_by),
    });
    if let Some(blob) = node.blob() {
        let hashes = content(blob);
        one["quickXorHash"] = hashes["quickXorHash"].clone();
        one["sha256"] = hashes["sha256"].clone();
        one["version"] = json!(format!("{}.0", node.version));
        let old = drive.tree.versions.get(&slot).into_iter().flatten();
        one["versions"] = old
            .map(|v| {
                let mut one = content(&v.blob);
                one["id"] = json!(format!("{}.0", v.number));
                one
            })
            .collect();
    }
    one
}

/// Every drive with its live items (root first, then by path depth) and its recycle bin.
pub(crate) fn truth(state: &State) -> Value {
    let drives: Vec<Value> = state
        .drives
        .iter()
        .map(|drive| {
            let items: Vec<Value> =
                drive.tree.subtree(ROOT).into_iter().map(|s| item(state, drive, s)).collect();
            let bin = drive.tree.bin.keys().flat_map(|top| drive.tree.subtree(*top));
            let bin: Vec<Value> = bin.map(|s| item(state, drive, s)).collect();
            json!({
                "id": drive.id,
                "driveType": drive.flavour().drive_type(),
                "name": drive.name,
                "used": drive.tree.node(ROOT).weight(),
                "items": items,
                "recycleBin": bin,
            })
        })
        .collect();
    json!({"drives": drives, "openSessions": state.sessions.len()})
}
