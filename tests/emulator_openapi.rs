//! The emulator's answers against Graph's schema, checked by `interop/openapi.py` with the jsonschema package.
//!
//! Where Python or the package cannot be had the test is left out and says so; with `CI=true` that is a failure.

mod emulator_support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use emulator_support::{Client, FLAVOURS, UNIT, config};
use onedrivefs::emulator::{Flavour, Seed};
use serde_json::{Value, json};

/// A Python that has jsonschema: the system's, or one in a virtual environment made here.
fn python() -> Option<PathBuf> {
    let works = |python: &Path| {
        let probe = Command::new(python).args(["-c", "import jsonschema"]).output();
        probe.is_ok_and(|o| o.status.success())
    };
    let system = PathBuf::from("python3");
    if works(&system) {
        return Some(system);
    }
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi-venv");
    let python = venv.join("bin/python");
    if works(&python) {
        return Some(python);
    }
    Command::new("python3").arg("-m").arg("venv").arg(&venv).output().ok()?;
    Command::new(venv.join("bin/pip")).args(["install", "--quiet", "jsonschema>=4,<5"]).output().ok()?;
    works(&python).then_some(python)
}

/// One line for each exchange.
fn check(python: &Path, calls: &[Value]) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("transcript");
    let lines: String = calls.iter().map(|c| format!("{c}\n")).collect();
    std::fs::write(&file, lines).expect("it is written");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/openapi.py");
    Command::new(python).arg(script).arg(&file).arg("-v").output().expect("python starts")
}

/// Calls every operation that the flavour has, and some that it refuses.
async fn scenario(c: &Client, flavour: Flavour) {
    let business = matches!(flavour, Flavour::Business | Flavour::DocumentLibrary);
    for path in [
        "/me/drive",
        "/me/drives",
        "/drives",
        "/users/me/drive",
        "/users/me/drives",
        "/sites",
        "/sites?search=team",
        "/sites/contoso.sharepoint.com:/sites/Team",
        "/sites/contoso.sharepoint.com:/sites/Team:/drives",
        "/sites/root/drive",
        "/sites/root/drives",
        "/sites/root/sites",
        "/sites/root/getByPath(path='/sites/Team')",
        "/sites/root/getByPath(path='/sites/Team')/drive",
        "/sites/root/getByPath(path='/sites/Team')/drives",
        "/sites/getAllSites()",
        "/me/followedSites",
        "/groups/g/drive",
        "/groups/g/drives",
        "/me",
        "/nowhere",
    ] {
        c.get(path).await;
    }
    let drive = c.get("/me/drive").await.json()["id"].as_str().unwrap().to_owned();
    let d = format!("/drives/{drive}");
    let team = c.get("/sites/root/drive").await.json();
    let (group, team) = (team["owner"]["group"]["id"].as_str().unwrap(), team["id"].as_str().unwrap());
    for path in [
        d.clone(),
        format!("/me/drives/{drive}"),
        format!("/sites/root/drives/{team}"),
        format!("/groups/{group}/drive"),
        format!("/groups/{group}/drives"),
        format!("{d}/root"),
        format!("{d}/special"),
        format!("{d}/special/documents"),
        format!("{d}/recent()"),
        format!("{d}/sharedWithMe()"),
        format!("{d}/following"),
        format!("{d}/search(q='sample')"),
        format!("{d}/items/root/search(q='e')"),
        format!("{d}/root/children"),
        format!("{d}/root/children?$top=2&$select=id,name,size"),
        format!("{d}/root/children?$skip=3"),
        format!("{d}/root/delta()"),
        format!("{d}/root/delta?token=latest"),
        format!("{d}/root/delta(token='latest')"),
        format!("{d}/root/subscriptions/socketIo"),
        format!("{d}/items/nonsense"),
        format!("{d}/root:/Documents?$expand=children"),
        format!("{d}/root:/Pictures:/children"),
        format!("{d}/root/content"),
        format!("{d}/special/documents:/notes.md:/content"),
        format!("{d}/root:/Documents:/children('notes.md')"),
    ] {
        c.get(&path).await;
    }
    let file = c.put("Folder/%C3%9Cbung%201.docx", "not a document").await.ok(201);
    let (i, parent) = (file["id"].as_str().unwrap(), file["parentReference"]["id"].as_str().unwrap());
    let i = format!("{d}/items/{i}");
    c.graph("PUT", &format!("{i}/content"), &[], "second").await.ok(200);
    let child = format!("{d}/items/{parent}/children/{}/content", file["id"].as_str().unwrap());
    c.graph("PUT", &child, &[], "third").await.ok(200);
    c.json("PATCH", &i, json!({"fileSystemInfo": {"lastModifiedDateTime": "2020-01-01T00:00:00Z"}}))
        .await
        .ok(200);
    c.json("PATCH", &i, json!({"name": "renamed.docx"})).await.ok(200);
    c.json("PATCH", &i, json!({"name": "no:good"})).await.fails(400, "invalidRequest");
    c.graph("PATCH", &i, &[("if-match", "\"stale\""), ("content-type", "application/json")], "{}").await;
    for path in [
        i.clone(),
        format!("{i}/content"),
        format!("{i}/versions"),
        format!("{i}/versions/1.0"),
        format!("{i}/versions/1.0/content"),
        format!("{i}/thumbnails"),
        format!("{i}/permissions"),
        format!("{i}/permissions/owner"),
        format!("{i}/retentionLabel"),
        format!("{i}/children"),
        format!("{i}?$select=id,publication,sharepointIds,webDavUrl,name"),
        format!("{d}/items/{parent}/children/renamed.docx"),
        format!("{d}/items/{parent}/children/renamed.docx/content"),
        format!("{d}/items/{parent}/delta"),
        format!("{d}/items/{parent}/delta()"),
    ] {
        c.get(&path).await;
    }
    for (what, body) in [
        ("versions/1.0/restoreVersion", json!({})),
        ("follow", json!({})),
        ("unfollow", json!({})),
        ("preview", json!({})),
        ("extractSensitivityLabels", json!({})),
        ("checkout", json!({})),
        ("checkin", json!({"comment": ""})),
        ("discardCheckout", json!({})),
        ("createLink", json!({"type": "view"})),
        ("createLink", json!({"type": "view"})),
        ("createLink", json!({"type": "nonsense"})),
        ("invite", json!({"recipients": [{"email": "bob@contoso.com"}], "roles": ["read"]})),
    ] {
        c.json("POST", &format!("{i}/{what}"), body).await;
    }
    let permissions = c.get(&format!("{i}/permissions")).await.ok(200);
    if let Some(link) = permissions["value"].as_array().unwrap().iter().find(|p| p.get("link").is_some()) {
        let share = link["shareId"].as_str().unwrap();
        for rest in ["", "/driveItem", "/driveItem/content", "/root", "/items", "/permission"] {
            c.get(&format!("/shares/{share}{rest}")).await;
        }
        c.get(&format!("/shares/{share}/items/{}", file["id"].as_str().unwrap())).await;
        c.graph("DELETE", &format!("{i}/permissions/{}", link["id"].as_str().unwrap()), &[], "").await;
    }
    c.graph("DELETE", &format!("{i}/versions/1.0"), &[], "").await;
    let target = c.mkdir("root", "Target").await.ok(201);
    c.mkdir("root", "target").await.fails(409, "nameAlreadyExists");
    let copy = json!({"parentReference": {"id": target["id"]}, "name": "copy.docx"});
    assert_eq!(c.json("POST", &format!("{i}/copy"), copy).await.status, 202);
    sessions(c, &d).await;
    let one = |id: &str, url: String| json!({"id": id, "method": "GET", "url": url});
    let batch = json!({"requests": [one("1", i.clone()), one("2", format!("{i}/content"))]});
    c.json("POST", "/$batch", batch).await.ok(200);
    assert_eq!(c.graph("DELETE", &i, &[], "").await.status, 204);
    if business {
        let copy = c.get(&format!("{d}/root:/Target/copy.docx")).await.ok(200);
        let id = copy["id"].as_str().unwrap();
        assert_eq!(c.graph("POST", &format!("{d}/items/{id}/permanentDelete"), &[], "").await.status, 204);
    } else {
        c.json("POST", &format!("{i}/restore"), json!({})).await.ok(200);
        c.graph("DELETE", &i, &[], "").await;
    }
    c.get(&format!("{d}/root/delta")).await;
    c.control().delta_resync(onedrivefs::emulator::Resync::ApplyDifferences);
    let (_, link) = c.delta(&format!("{d}/root/delta?token=latest")).await;
    c.control().delta_resync(onedrivefs::emulator::Resync::ApplyDifferences);
    assert_eq!(c.get(&link).await.status, 410);
    c.control().expire_tokens();
    c.get("/me/drive").await.fails(401, "InvalidAuthenticationToken");
}

async fn sessions(c: &Client, d: &str) {
    let item = json!({"item": {"@microsoft.graph.conflictBehavior": "replace"}});
    let session = c.json("POST", &format!("{d}/root:/big.bin:/createUploadSession"), item).await.ok(200);
    let url = session["uploadUrl"].as_str().unwrap();
    let data = vec![7; UNIT + 5];
    c.fragment(url, 0, &data[..UNIT], data.len()).await.ok(202);
    c.fragment(url, UNIT, &data[UNIT..], data.len()).await.ok(201);
    let path = format!("{d}/root:/big.bin:/createUploadSession");
    c.json("POST", &path, json!({"item": {"@odata.type": "x"}})).await.fails(400, "invalidRequest");
}

#[tokio::test]
async fn every_answer_fits_the_schema_and_a_wrong_one_would_not() {
    let Some(python) = python() else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "python with jsonschema is missing, and this is CI"
        );
        eprintln!("left out: no python3 with jsonschema");
        return;
    };
    let mut calls = Vec::new();
    for flavour in FLAVOURS {
        let mut config = config(flavour);
        config.seed = Seed::Sample;
        let c = Client::with(config);
        scenario(&c, flavour).await;
        calls.append(&mut c.transcript.lock().unwrap());
    }
    let output = check(&python, &calls);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    println!("{text}");
    for (what, spoil) in spoilers() {
        let mut spoilt = calls.clone();
        let hit = spoilt.iter_mut().filter(|c| c["status"] == 200 && c["body"]["file"].is_object());
        hit.for_each(spoil);
        assert!(!check(&python, &spoilt).status.success(), "not noticed: {what}");
    }
}

type Spoiler = (&'static str, fn(&mut Value));

/// Mistakes an emulator could make.
fn spoilers() -> [Spoiler; 5] {
    [
        ("a size that is text", |c| c["body"]["size"] = json!("5")),
        ("a time without zone", |c| {
            c["body"]["fileSystemInfo"]["createdDateTime"] = json!("2026-01-01 00:00")
        }),
        ("a misspelt facet", |c| c["body"]["sharePointIds"] = json!({})),
        ("a facet of the wrong kind", |c| c["body"]["file"] = json!("yes")),
        ("an undeclared status", |c| c["status"] = json!(302)),
    ]
}
