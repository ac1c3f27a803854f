//! The rules of everything but upload, on the flavours that have them.

mod emulator_support;

use std::time::Duration;

use emulator_support::{Client, FLAVOURS, config, names};
use onedrivefs::emulator::{Edit, EmulatorConfig, Flavour, LockShape, Mark, Resync, ResyncLocation, Tokens};
use serde_json::{Value, json};

fn is_business(flavour: Flavour) -> bool {
    matches!(flavour, Flavour::Business | Flavour::DocumentLibrary)
}

fn id(item: &Value) -> String {
    format!("/me/drive/items/{}", item["id"].as_str().unwrap())
}

fn write(path: &str) -> Edit {
    Edit::Write { path: path.into(), content: path.as_bytes().to_vec() }
}

#[tokio::test(start_paused = true)]
async fn listings_are_paged_by_top_and_select_leaves_what_was_named() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        for n in 0..25 {
            c.control().edit_as_other(&write(&format!("d/{n:02}.txt"))).unwrap();
        }
        let mut url = "/me/drive/root:/d:/children?$top=10&$select=id,name".to_owned();
        let mut seen = Vec::new();
        loop {
            let page = c.get(&url).await.ok(200);
            let items = page["value"].as_array().unwrap();
            assert!(items.len() <= 10);
            assert!(items.iter().all(|i| i.get("size").is_none() && i.get("id").is_some()));
            seen.extend(names(items));
            match page["@odata.nextLink"].as_str() {
                Some(next) => url = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, (0..25).map(|n| format!("{n:02}.txt")).collect::<Vec<_>>());
        for bad in ["$skip=1", "$filter=name eq 'x'", "$top=x", "$orderby=cTag", "$skiptoken=!"] {
            let url = format!("/me/drive/root/children?{}", bad.replace(' ', "%20"));
            assert_eq!(c.get(&url).await.status, 400, "{bad}");
        }
        let ordered = c.get("/me/drive/root:/d:/children?$orderby=name%20desc&$top=1").await.ok(200);
        assert_eq!(ordered["value"][0]["name"], "24.txt");
        assert_eq!(c.get("/me/drive/root/children?$orderby=size").await.status == 400, is_business(flavour));
        let chosen = "/me/drive/root:/d/00.txt?$select=id,@microsoft.graph.downloadUrl";
        assert!(c.get(chosen).await.ok(200).get("@microsoft.graph.downloadUrl").is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_page_may_have_a_next_link() {
    let c = Client::new(Flavour::Business);
    c.put("a", "1").await.ok(201);
    c.control().switch(|s| (s.empty_list_pages, s.delta_empty_pages) = (true, true));
    let first = c.get("/me/drive/root/children").await.ok(200);
    assert_eq!(first["value"], json!([]));
    let next = c.get(first["@odata.nextLink"].as_str().unwrap()).await.ok(200);
    assert_eq!(names(next["value"].as_array().unwrap()), ["a"]);
    let (all, _) = c.delta("/me/drive/root/delta").await;
    assert_eq!(names(&all), ["root", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_download_url_serves_ranges_refuses_tokens_and_expires() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        let item = c.put("a.bin", "0123456789").await.ok(201);
        let url = item["@microsoft.graph.downloadUrl"].as_str().unwrap();
        for (range, status, body) in [
            ("bytes=2-4", 206, "234"),
            ("bytes=7-", 206, "789"),
            ("bytes=-2", 206, "89"),
            ("bytes=0-1,3-4", 200, "0123456789"),
        ] {
            let answer = c.send("GET", url, &[("range", range)], "").await;
            assert_eq!((answer.status, &answer.body[..]), (status, body.as_bytes()), "{range}");
        }
        assert_eq!(c.send("GET", url, &[("range", "bytes=10-")], "").await.status, 416);
        c.send("GET", url, &[("authorization", "Bearer t")], "").await.fails(401, "unauthenticated");
        let whole = c.send("GET", url, &[], "").await;
        assert_eq!(whole.header("etag").is_empty(), !is_business(flavour));
        c.control().switch(|s| s.ignore_range = true);
        assert_eq!(c.send("GET", url, &[("range", "bytes=2-4")], "").await.status, 200);
        tokio::time::advance(Duration::from_secs(3601)).await;
        let late = c.send("GET", url, &[], "").await;
        assert_eq!(late.status, if is_business(flavour) { 401 } else { 403 });
        let fresh = c.get(&format!("{}/content", id(&item))).await;
        let url = fresh.header("location").to_owned();
        assert_eq!(c.send("GET", &url, &[], "").await.status, 200);
        c.control().expire_download_urls();
        assert!(c.send("GET", &url, &[], "").await.status >= 400);
        assert!(c.send("GET", &format!("{url}x"), &[], "").await.status >= 400);
    }
}

#[tokio::test(start_paused = true)]
async fn a_download_url_names_the_item_and_not_a_version() {
    let c = Client::new(Flavour::Business);
    let item = c.put("a", "old").await.ok(201);
    let url = item["@microsoft.graph.downloadUrl"].as_str().unwrap();
    c.put("a", "new").await.ok(200);
    assert_eq!(c.send("GET", url, &[], "").await.body, "new");
    let version = c.get(&format!("{}/versions/1.0/content", id(&item))).await;
    assert_eq!(c.send("GET", version.header("location"), &[], "").await.body, "old");
    c.get(&format!("{}/versions/2.0/content", id(&item))).await.fails(400, "invalidRequest");
}

#[tokio::test(start_paused = true)]
async fn versions_are_kept_restored_and_deleted_as_the_flavour_does() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        let item = c.put("a", "1").await.ok(201);
        c.put("a", "22").await.ok(200);
        let path = id(&item);
        let sizes = |v: &Value| {
            v["value"].as_array().unwrap().iter().map(|v| v["size"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&c.get(&format!("{path}/versions")).await.ok(200)), [2, 1]);
        let times = json!({"fileSystemInfo": {"lastModifiedDateTime": "2020-01-01T00:00:00Z"}});
        let patched = c.json("PATCH", &path, times).await.ok(200);
        let count = sizes(&c.get(&format!("{path}/versions")).await.ok(200)).len();
        assert_eq!(
            count,
            if is_business(flavour) { 3 } else { 2 },
            "PATCH of times makes a version on Business"
        );
        assert_eq!(patched["lastModifiedDateTime"] == "2020-01-01T00:00:00Z", is_business(flavour));
        let restored = c.graph("POST", &format!("{path}/versions/1.0/restoreVersion"), &[], "").await;
        assert_eq!(restored.status, 204);
        assert_eq!(c.control().content("a").unwrap(), "1");
        let deleted = c.graph("DELETE", &format!("{path}/versions/1.0"), &[], "").await.status;
        assert_eq!(deleted, if is_business(flavour) { 204 } else { 404 });
    }
}

#[tokio::test(start_paused = true)]
async fn tags_move_as_the_table_says() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        let folder = c.mkdir("root", "d").await.ok(201);
        let file = c.put("d/a", "1").await.ok(201);
        let path = id(&file);
        let after = |c: Client, path: String| async move { c.get(&path).await.ok(200) };
        c.json("PATCH", &path, json!({"name": "b"})).await.ok(200);
        let renamed = after(c.clone(), path.clone()).await;
        assert_ne!(renamed["eTag"], file["eTag"]);
        assert_eq!(renamed["cTag"], file["cTag"]);
        c.json("PATCH", &path, json!({"fileSystemInfo": {"lastModifiedDateTime": "2020-01-01T00:00:00Z"}}))
            .await
            .ok(200);
        let touched = after(c.clone(), path.clone()).await;
        assert_ne!(touched["eTag"], renamed["eTag"]);
        assert_eq!(touched["cTag"] != renamed["cTag"], is_business(flavour));
        c.control().edit_as_other(&Edit::Stir { path: "d/b".into() }).unwrap();
        let stirred = after(c.clone(), path.clone()).await;
        assert_ne!(stirred["eTag"], touched["eTag"]);
        assert_eq!(stirred["cTag"], touched["cTag"]);
        let now = after(c.clone(), id(&folder)).await;
        assert_eq!(now["eTag"], folder["eTag"], "a change below leaves the folder's eTag");
        assert_eq!(now["cTag"] != folder["cTag"], flavour == Flavour::Personal);
    }
}

#[tokio::test(start_paused = true)]
async fn moves_respect_conflicts_cycles_and_drives() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        let (a, b) = (c.mkdir("root", "a").await.ok(201), c.mkdir("root", "b").await.ok(201));
        let file = c.put("a/f", "source").await.ok(201);
        let other = c.put("b/F", "target").await.ok(201);
        let into_b = json!({"parentReference": {"id": b["id"]}});
        c.json("PATCH", &id(&file), into_b.clone()).await.fails(409, "nameAlreadyExists");
        let mut replace = into_b.clone();
        replace["@microsoft.graph.conflictBehavior"] = json!("replace");
        c.json("PATCH", &id(&file), replace).await.ok(200);
        assert_eq!(c.control().content("b/f").unwrap(), "source");
        assert_eq!(c.get(&id(&other)).await.status, 404);
        let folder = json!({"name": "B", "@microsoft.graph.conflictBehavior": "replace"});
        c.json("PATCH", &id(&a), folder).await.fails(409, "nameAlreadyExists");
        c.json("PATCH", &id(&b), json!({"parentReference": {"id": b["id"]}}))
            .await
            .fails(400, "invalidRequest");
        c.json("PATCH", &id(&b), json!({"name": "B"})).await.ok(200);
        let team = c.get("/sites/root/drive").await.ok(200)["id"].clone();
        let away = json!({"parentReference": {"driveId": team, "id": b["id"]}});
        c.json("PATCH", &id(&file), away).await.fails(400, "notSupported");
        c.json("PATCH", "/me/drive/root", json!({"name": "x"})).await.fails(403, "accessDenied");
    }
}

#[tokio::test(start_paused = true)]
async fn deletion_is_recursive_restore_is_personal_and_for_good_is_business() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        let file = c.put("d/e/f", "1").await.ok(201);
        let top = c.get("/me/drive/root:/d").await.ok(200);
        assert_eq!(c.graph("DELETE", &id(&top), &[], "").await.status, 204);
        c.get(&id(&file)).await.fails(404, "itemNotFound");
        let asked = c.get(&format!("{}?includeDeletedItems=true", id(&top))).await;
        let restored = c.json("POST", &format!("{}/restore", id(&top)), json!({})).await;
        if is_business(flavour) {
            assert_eq!(asked.status, 404);
            restored.fails(400, "notSupported");
        } else {
            asked.ok(200);
            assert_eq!(restored.ok(200)["id"], top["id"]);
            assert_eq!(c.control().content("d/e/f").unwrap(), "1");
        }
        let again = c.put("x", "1").await.ok(201);
        let gone = c.graph("POST", &format!("{}/permanentDelete", id(&again)), &[], "").await;
        assert_eq!(gone.status, if is_business(flavour) { 204 } else { 400 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_locked_file_answers_423_in_each_shape() {
    let c = Client::new(Flavour::Business);
    let file = c.put("a", "1").await.ok(201);
    for (shape, code) in [
        (LockShape::EditedByAnother, "accessDenied"),
        (LockShape::LockToken, "accessDenied"),
        (LockShape::ResourceLocked, "notAllowed"),
    ] {
        c.control().mark("a", Mark::Lock(Some(shape))).unwrap();
        c.put("a", "2").await.fails(423, code);
        c.json("PATCH", &id(&file), json!({"name": "b"})).await.fails(423, code);
        c.graph("DELETE", &id(&file), &[], "").await.fails(423, code);
    }
    c.control().mark("a", Mark::Lock(None)).unwrap();
    c.control().mark("a", Mark::CheckedOut(true)).unwrap();
    c.put("a", "2").await.fails(423, "accessDenied");
    let facet = c.get(&format!("{}?$select=publication", id(&file))).await.ok(200);
    assert_eq!(facet["publication"]["level"], "checkout");
}

#[tokio::test(start_paused = true)]
async fn what_is_special_about_an_item_shows() {
    let c = Client::new(Flavour::Business);
    let file = c.put("a", "1").await.ok(201);
    c.mkdir("root", "book").await.ok(201);
    c.control().mark("book", Mark::OneNote(true)).unwrap();
    let book = c.get("/me/drive/root:/book").await.ok(200);
    assert_eq!(book["package"]["type"], "oneNote");
    assert!(book.get("folder").is_none() && book.get("file").is_none());
    c.put("book", "x").await.fails(409, "nameAlreadyExists");
    c.control().mark("a", Mark::Malware(true)).unwrap();
    c.get(&format!("{}/content", id(&file))).await.fails(403, "malwareDetected");
    c.control().mark("a", Mark::Malware(false)).unwrap();
    c.control().mark("a", Mark::Size(Some(99))).unwrap();
    c.control().mark("a", Mark::NoHash(true)).unwrap();
    let odd = c.get(&id(&file)).await.ok(200);
    assert_eq!(odd["size"], 99);
    assert!(odd["file"].get("hashes").is_none());
    c.control().switch(|s| (s.zero_quota, s.negative_folder_size) = (true, true));
    assert_eq!(c.get("/me/drive").await.ok(200)["quota"]["total"], 0);
    c.mkdir("root", "d").await.ok(201);
    assert!(c.get("/me/drive/root:/d").await.ok(200)["size"].as_i64().unwrap() < 0);
}

#[tokio::test(start_paused = true)]
async fn a_stale_delta_token_gets_the_410_that_was_asked_for() {
    for (kind, code, inner) in [
        (Resync::Plain, "resyncRequired", None),
        (Resync::ApplyDifferences, "resyncRequired", Some("resyncApplyDifferences")),
        (Resync::UploadDifferences, "resyncRequired", Some("resyncUploadDifferences")),
        (Resync::ChangesApplyDifferences, "resyncChangesApplyDifferences", None),
        (Resync::ChangesUploadDifferences, "resyncChangesUploadDifferences", None),
        (Resync::StateNotFound, "syncStateNotFound", None),
    ] {
        let c = Client::new(Flavour::Business);
        c.put("a", "1").await.ok(201);
        let (_, link) = c.delta("/me/drive/root/delta").await;
        c.control().delta_resync(kind);
        let answer = c.get(&link).await;
        answer.fails(410, code);
        assert_eq!(answer.json()["error"]["innerError"]["code"].as_str(), inner);
        let (all, _) = c.delta(answer.header("location")).await;
        assert_eq!(names(&all), ["root", "a"]);
        c.control().switch(|s| s.resync_location = ResyncLocation::Missing);
        assert_eq!(c.get(&link).await.header("location"), "");
    }
    let c = Client::new(Flavour::Business);
    c.get("/me/drive/root/delta?token=nonsense").await.fails(400, "invalidRequest");
}

#[tokio::test(start_paused = true)]
async fn delta_has_lag_duplicates_scopes_and_timestamps() {
    let c = Client::new(Flavour::Personal);
    c.put("in/a", "1").await.ok(201);
    c.put("out/b", "1").await.ok(201);
    let (scoped, link) = c.delta("/me/drive/root:/in:/delta").await;
    assert_eq!(names(&scoped), ["in", "a"]);
    c.control().edit_as_other(&Edit::Move { path: "in/a".into(), to: "out/a".into() }).unwrap();
    let (moved, _) = c.delta(&link).await;
    assert!(moved.iter().any(|i| i.get("deleted").is_some()), "{moved:?}");
    let (_, link) = c.delta("/me/drive/root/delta?token=latest").await;
    c.control().set_delta_lag(Duration::from_secs(5));
    c.put("late", "1").await.ok(201);
    let (none, link) = c.delta(&link).await;
    assert_eq!(none, Vec::<Value>::new());
    tokio::time::advance(Duration::from_secs(6)).await;
    let (some, link) = c.delta(&link).await;
    assert_eq!(names(&some), ["root", "late"]);
    c.control().switch(|s| (s.delta_duplicates, s.delta_lag_ms) = (true, 0));
    c.put("twice", "1").await.ok(201);
    let (twice, _) = c.delta(&link).await;
    assert_eq!(names(&twice), ["root", "twice", "twice"]);

    let c = Client::new(Flavour::Business);
    c.put("early/a", "1").await.ok(201);
    c.get("/me/drive/root:/early:/delta").await.fails(501, "notSupported");
    tokio::time::advance(Duration::from_secs(60)).await;
    c.put("later", "1").await.ok(201);
    let (since, _) = c.delta("/me/drive/root/delta?token=2026-01-01T00%3A00%3A30Z").await;
    assert_eq!(names(&since), ["root", "later"]);
    c.control().switch(|s| s.delta = false);
    c.get("/me/drive/root/delta").await.fails(501, "notSupported");
}

#[tokio::test(start_paused = true)]
async fn a_paged_round_loses_nothing_that_changes_meanwhile() {
    let mut config = config(Flavour::Business);
    config.page_size = 4;
    let c = Client::with(config);
    for n in 0..20 {
        c.control().edit_as_other(&write(&format!("d/{n:02}"))).unwrap();
    }
    let first = c.get("/me/drive/root/delta").await.ok(200);
    c.control().edit_as_other(&write("d/00")).unwrap();
    c.control().edit_as_other(&Edit::Delete { path: "d/01".into() }).unwrap();
    c.control().edit_as_other(&write("new")).unwrap();
    let (_, link) = c.delta(first["@odata.nextLink"].as_str().unwrap()).await;
    let (changes, _) = c.delta(&link).await;
    assert_eq!(changes.iter().filter(|i| i.get("deleted").is_some()).count(), 1);
    let seen = names(&changes);
    assert!(seen.contains(&"00".into()) && seen.contains(&"new".into()), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn ids_change_form_when_a_personal_account_migrates() {
    let c = Client::new(Flavour::Personal);
    let file = c.put("a", "1").await.ok(201);
    c.control().migrate_personal();
    c.get(&id(&file)).await.fails(404, "itemNotFound");
    let new = c.get("/me/drive/root:/a").await.ok(200);
    assert!(new["id"].as_str().unwrap().contains("!s"));
    assert_eq!(new["file"], file["file"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_watched_through_its_monitor() {
    for flavour in FLAVOURS {
        let mut config = config(flavour);
        config.copy_duration = Duration::from_secs(4);
        let c = Client::with(config);
        c.put("d/e/f", "1").await.ok(201);
        let folder = c.get("/me/drive/root:/d").await.ok(200);
        let started = c.json("POST", &format!("{}/copy", id(&folder)), json!({"name": "copy"})).await;
        assert_eq!(started.status, 202);
        let url = started.header("location").to_owned();
        tokio::time::advance(Duration::from_secs(1)).await;
        let running = c.send("GET", &url, &[], "").await.ok(202);
        assert_eq!(
            (&running["status"], &running["percentageComplete"]),
            (&json!("inProgress"), &json!(25.0))
        );
        tokio::time::advance(Duration::from_secs(4)).await;
        let done = c.send("GET", &url, &[], "").await.ok(200);
        assert_eq!(done["status"], "completed");
        assert_ne!(done["resourceId"], folder["id"]);
        assert_eq!(c.control().content("copy/e/f").unwrap(), "1");
        let again = c.json("POST", &format!("{}/copy", id(&folder)), json!({"name": "copy"})).await;
        tokio::time::advance(Duration::from_secs(5)).await;
        let state = c.send("GET", again.header("location"), &[], "").await.ok(200)["status"].clone();
        assert_eq!(state, if is_business(flavour) { "failed" } else { "completed" });
        c.control().switch(|s| s.monitor_see_other = true);
        let other = c.send("GET", &url, &[], "").await;
        assert_eq!(other.status, 303);
        c.get(other.header("location")).await.ok(200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_runs_each_request_by_itself() {
    let c = Client::new(Flavour::Business);
    let file = c.put("a", "1").await.ok(201);
    let i = file["id"].as_str().unwrap();
    let get = |id: &str, url: String| json!({"id": id, "method": "GET", "url": url});
    let answer = c
        .json(
            "POST",
            "/$batch",
            json!({"requests": [
                get("1", format!("/me/drive/items/{i}?$select=id")),
                get("2", format!("/me/drive/items/{i}/content")),
                get("3", "/me/drive/items/none".into()),
                {"id": "4", "method": "GET", "url": "/me/drive", "dependsOn": ["3"]},
                {"id": "5", "method": "PATCH", "url": format!("/me/drive/items/{i}"), "body": {"name": "b"},
                 "headers": {"Content-Type": "application/json"}},
                {"id": "6", "method": "PATCH", "url": format!("/me/drive/items/{i}"), "body": {"name": "c"}},
                {"id": "7", "method": "PUT", "url": "/me/drive/root:/new:/content", "body": "aGVsbG8=",
                 "headers": {"Content-Type": "text/plain"}},
            ]}),
        )
        .await
        .ok(200);
    let one =
        |id: &str| answer["responses"].as_array().unwrap().iter().find(|r| r["id"] == id).unwrap().clone();
    assert_eq!((&one("1")["status"], &one("1")["body"]["id"]), (&json!(200), &json!(i)));
    assert_eq!(one("2")["status"], 302);
    assert!(one("2")["headers"]["Location"].is_string());
    assert_eq!((&one("3")["status"], &one("4")["status"]), (&json!(404), &json!(424)));
    assert_eq!((&one("5")["status"], &one("6")["status"]), (&json!(200), &json!(400)));
    assert_eq!(c.control().content("new").unwrap(), "hello");
    let many: Vec<_> = (0..21).map(|n| get(&n.to_string(), "/me/drive".into())).collect();
    assert_eq!(c.json("POST", "/$batch", json!({"requests": many})).await.status, 400);
    let twins = json!({"requests": [get("1", "/me/drive".into()), get("1", "/me/drive".into())]});
    assert_eq!(c.json("POST", "/$batch", twins).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_checked_issued_rotated_and_expired() {
    let mut config = config(Flavour::Business);
    config.tokens = Tokens::List(vec!["good".into()]);
    let c = Client::with(config);
    let with = |token: &str| {
        let (c, header) = (c.clone(), format!("Bearer {token}"));
        async move { c.send("GET", "/v1.0/me/drive", &[("authorization", &header)], "").await }
    };
    c.send("GET", "/v1.0/me/drive", &[], "").await.fails(401, "InvalidAuthenticationToken");
    with("bad").await.fails(401, "InvalidAuthenticationToken");
    with("good").await.ok(200);
    let form = |body: &'static str| {
        let c = c.clone();
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        async move { c.send("POST", "/common/oauth2/v2.0/token", &kind, body).await }
    };
    let refused = form("grant_type=refresh_token&refresh_token=r&client_id=x").await;
    assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_grant")));
    c.control().add_refresh_token("r");
    let granted =
        form("grant_type=refresh_token&refresh_token=r&client_id=x&scope=offline_access").await.ok(200);
    with(granted["access_token"].as_str().unwrap()).await.ok(200);
    assert_ne!(granted["refresh_token"], "r");
    c.control().expire_tokens();
    with(granted["access_token"].as_str().unwrap()).await.fails(401, "InvalidAuthenticationToken");
    let common = form("grant_type=client_credentials&client_id=x&client_secret=s&scope=a%2F.default").await;
    assert_eq!(common.status, 400);
    c.control().switch(|s| s.claims_challenge = true);
    let challenge = with("good").await;
    assert!(challenge.header("www-authenticate").contains("insufficient_claims"));
    c.control().hold_devices();
    let device = c
        .send("POST", "/common/oauth2/v2.0/devicecode", &[], "client_id=x&scope=offline_access")
        .await
        .ok(200);
    let poll = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:device_code&client_id=x&device_code={}",
        device["device_code"].as_str().unwrap()
    );
    let polled =
        |c: Client, poll: String| async move { c.send("POST", "/common/oauth2/v2.0/token", &[], poll).await };
    assert_eq!(polled(c.clone(), poll.clone()).await.json()["error"], "authorization_pending");
    c.control().decide_devices(true);
    assert!(polled(c.clone(), poll.clone()).await.ok(200)["refresh_token"].is_string());
    assert_eq!(polled(c.clone(), poll).await.json()["error"], "bad_verification_code");
}

#[tokio::test(start_paused = true)]
async fn names_the_service_refuses_are_400_wherever_they_come_from() {
    let c = Client::new(Flavour::Business);
    let file = c.put("a", "1").await.ok(201);
    for name in ["CON", "a*b", "trail ", "dot.", "~$x", "x_vti_y", "forms"] {
        c.mkdir("root", name).await.fails(400, "invalidRequest");
        c.json("PATCH", &id(&file), json!({"name": name})).await.fails(400, "invalidRequest");
        let escaped = name.replace(' ', "%20").replace('*', "%2A");
        c.put(&escaped, "x").await.fails(400, "invalidRequest");
    }
    c.control().switch(|s| s.reserved_names_403 = true);
    c.mkdir("root", "CON").await.fails(403, "accessDenied");
    let long = "n".repeat(250);
    c.put(&format!("{long}/{}", "m".repeat(160)), "x").await.fails(400, "pathIsTooLong");
}

#[tokio::test(start_paused = true)]
async fn of_another_persons_drive_only_what_is_shared_can_be_seen() {
    let config = EmulatorConfig { others_drives: 1, ..config(Flavour::Business) };
    let c = Client::with(config);
    let bobs = c.control().drive_ids().pop().unwrap();
    c.control().edit_drive_as_other(&bobs, &write("given/gift.txt")).unwrap();
    c.control().edit_drive_as_other(&bobs, &write("secret.txt")).unwrap();
    assert_eq!(c.get("/me/drive/sharedWithMe").await.ok(200)["value"], json!([]));
    c.control().share_with_me(&bobs, "given", true).unwrap();
    let shared = c.get("/me/drive/sharedWithMe?allowexternal=true").await.ok(200);
    assert_eq!(names(shared["value"].as_array().unwrap()), ["given"]);
    let remote = &shared["value"][0]["remoteItem"];
    assert_eq!(remote["parentReference"]["driveId"], bobs.as_str());
    let item = format!("/drives/{bobs}/items/{}", remote["id"].as_str().unwrap());
    assert_eq!(
        names(c.get(&format!("{item}/children")).await.ok(200)["value"].as_array().unwrap()),
        ["gift.txt"]
    );
    for path in ["", "/root", "/root/children", "/root/delta", "/root:/secret.txt"] {
        assert_eq!(c.get(&format!("/drives/{bobs}{path}")).await.status, 403, "{path}");
    }
    c.control().share_with_me(&bobs, "given", false).unwrap();
    assert_eq!(c.get(&item).await.status, 403);
    c.control().delete_drive(&bobs).unwrap();
    assert_eq!(c.get(&item).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn shortcuts_lead_to_another_drive() {
    let c = Client::new(Flavour::Business);
    let team = c.get("/sites/contoso.sharepoint.com:/sites/Team:/drive").await.ok(200);
    let drive = team["id"].as_str().unwrap();
    c.control().edit_drive_as_other(drive, &write("Plans/p.txt")).unwrap();
    c.control().add_shortcut("Team plans", drive, "Plans").unwrap();
    let link = c.get("/me/drive/root:/Team%20plans").await.ok(200);
    assert!(link.get("folder").is_none());
    let remote = &link["remoteItem"];
    assert_eq!(remote["parentReference"]["driveId"], drive);
    assert_eq!(c.get(&format!("{}/children", id(&link))).await.status, 400);
    let url = format!("/drives/{drive}/items/{}/children", remote["id"].as_str().unwrap());
    assert_eq!(names(c.get(&url).await.ok(200)["value"].as_array().unwrap()), ["p.txt"]);
}
