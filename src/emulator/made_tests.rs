//! A computed drive against an ordinary one with the same items, through every answer that shows them.

use std::sync::Arc;

use http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::*;
use crate::clock::SeededClock;
use crate::emulator::{Emulator, EmulatorConfig, Flavour, Seed, empty_body, full_body};

const FLAVOURS: [Flavour; 4] =
    [Flavour::Personal, Flavour::PersonalNew, Flavour::Business, Flavour::DocumentLibrary];

fn emulator(flavour: Flavour, seed: Seed) -> Emulator {
    let clock = Arc::new(SeededClock::with_seed(1));
    let config = EmulatorConfig { flavour, seed, clock, page_size: 7, ..EmulatorConfig::default() };
    Emulator::new(config).unwrap()
}

/// A computed drive, and one into which the same items were put one by one.
fn twins(flavour: Flavour, files: u32, per_folder: u32) -> [Emulator; 2] {
    let computed = emulator(flavour, Seed::Synthetic { files, per_folder, size: 1000 });
    let ordinary = emulator(flavour, Seed::Empty);
    let mut state = ordinary.shared.lock();
    let now = state.drives[0].created;
    let made = Made::new(files, per_folder, 1000, now, flavour.is_business());
    let tree = &mut state.drives[0].tree;
    tree.seeding = true;
    for slot in 1..made.len() as Slot {
        let Node { parent, name, kind, created, .. } = made.node(slot);
        let kind = match kind {
            Kind::Folder(_) => Kind::Folder(Box::default()),
            file => file,
        };
        assert_eq!(tree.add(NewNode { parent, name: &name, kind, now: created, by: 0 }), slot);
    }
    tree.seeding = false;
    drop(state);
    [computed, ordinary]
}

/// Status and body of one request, which both must answer alike.
async fn both(twins: &[Emulator; 2], method: &str, target: &str, body: &str) -> (u16, Vec<u8>) {
    let mut answers = Vec::new();
    for emulator in twins {
        let target = target.strip_prefix("http://twin").unwrap_or(target);
        let target =
            if target.starts_with('/') { target.to_owned() } else { format!("/v1.0/me/drive/{target}") };
        let request =
            Request::builder().method(method).uri(format!("http://twin{target}")).header("host", "twin");
        let request =
            if target.starts_with("/_data") { request } else { request.header("authorization", "Bearer x") };
        let sent = match body {
            "" => empty_body(),
            text => full_body(text.to_owned()),
        };
        let answer = emulator.handle(request.body(sent).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        answers.push((head.status.as_u16(), body.collect().await.unwrap().to_bytes().to_vec()));
    }
    let text = |answer: &(u16, Vec<u8>)| format!("{} {}", answer.0, String::from_utf8_lossy(&answer.1));
    assert!(answers[0] == answers[1], "{method} {target}:\n{}\n{}", text(&answers[0]), text(&answers[1]));
    answers.remove(0)
}

/// All pages from `first` on; the address after the last one.
async fn pages(twins: &[Emulator; 2], first: &str) -> (Vec<Value>, String) {
    let (mut items, mut next) = (Vec::new(), first.to_owned());
    loop {
        let (status, body) = both(twins, "GET", &next, "").await;
        assert_eq!(status, 200, "{next}");
        let page: Value = serde_json::from_slice(&body).unwrap();
        items.extend(page["value"].as_array().unwrap().iter().cloned());
        match page["@odata.nextLink"].as_str() {
            Some(link) => next = link.to_owned(),
            None => return (items, page["@odata.deltaLink"].as_str().unwrap_or_default().to_owned()),
        }
    }
}

fn text<'a>(item: &'a Value, member: &str) -> &'a str {
    item[member].as_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_answer_is_that_of_an_ordinary_drive_with_the_same_items() {
    for (files, per_folder) in [(0, 3), (1, 1), (2, 1), (9, 3), (10, 3), (31, 3), (40, 100)] {
        for flavour in FLAVOURS {
            let twins = twins(flavour, files, per_folder);
            let (items, _) = pages(&twins, "root/delta").await;
            assert_eq!(items.len(), twins[0].shared.lock().drives[0].tree.len() as usize);
            both(&twins, "GET", "/v1.0/me/drive", "").await;
            for item in &items {
                let id = text(item, "id");
                let (_, body) = both(&twins, "GET", &format!("items/{id}?$expand=children"), "").await;
                let item: Value = serde_json::from_slice(&body).unwrap();
                if item.get("folder").is_some() {
                    pages(&twins, &format!("items/{id}/children")).await;
                } else {
                    let path =
                        text(&item["parentReference"], "path").split_once("root:").unwrap().1.to_owned();
                    let path = format!("root:{path}/{}", text(&item, "name").replace(' ', "%20"));
                    assert_eq!(both(&twins, "GET", &path, "").await.0, 200, "{path}");
                    let url = text(&item, "@microsoft.graph.downloadUrl");
                    assert_eq!(both(&twins, "GET", url, "").await.1.len(), 1000);
                }
            }
            assert_eq!(both(&twins, "GET", "root:/none", "").await.0, 404);
            assert_eq!(twins[0].shared.lock().drives[0].tree.held(), 0, "looking stores nothing");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_computed_drive_is_changed_as_an_ordinary_one_is() {
    for flavour in FLAVOURS {
        let twins = twins(flavour, 31, 3);
        let (items, link) = pages(&twins, "root/delta").await;
        let id = |name: &str| {
            let found = items.iter().find(|item| text(item, "name") == name);
            text(found.unwrap(), "id").to_owned()
        };
        let (folder, file) = (id("folder 000008"), id("file 00000007.bin"));
        let into = format!(r#"{{"parentReference":{{"id":"{folder}"}},"name":"moved.bin"}}"#);
        both(&twins, "PATCH", &format!("items/{file}"), &into).await;
        both(&twins, "PUT", &format!("items/{}/content", id("file 00000001.bin")), "other").await;
        both(&twins, "PUT", &format!("items/{folder}:/new%20file.txt:/content"), "new").await;
        both(&twins, "POST", &format!("items/{folder}/children"), r#"{"name":"made","folder":{}}"#).await;
        both(&twins, "DELETE", &format!("items/{}", id("folder 000001")), "").await;
        both(&twins, "DELETE", &format!("items/{}", id("group 00001")), "").await;
        pages(&twins, &format!("items/{folder}/children?$top=2")).await;
        pages(&twins, "root/children").await;
        let (changed, _) = pages(&twins, &link).await;
        assert!(changed.len() > 6, "{changed:?}");
        pages(&twins, "root/delta").await;
        let truth = twins.each_ref().map(|emulator| emulator.control().truth());
        assert_eq!(truth[0], truth[1]);
    }
}

#[tokio::test(start_paused = true)]
async fn five_million_items_are_served_without_being_stored() {
    let seed = Seed::Synthetic { files: 5_000_000, per_folder: 1000, size: 4096 };
    let one = emulator(Flavour::Business, seed);
    let get = |target: &str| {
        let request = Request::get(format!("http://twin/v1.0/me/drive/{target}"));
        let request = request.header("host", "twin").header("authorization", "Bearer x");
        let answer = one.handle(request.body(empty_body()).unwrap());
        async move {
            let body = answer.await.unwrap().into_body().collect().await.unwrap().to_bytes();
            serde_json::from_slice::<Value>(&body).unwrap()
        }
    };
    let deep = get("root:/group%2000004/folder%20004999/file%2004999999.bin").await;
    assert_eq!(deep["size"], 4096);
    assert_eq!(get(&format!("items/{}", text(&deep, "id"))).await["name"], deep["name"]);
    assert_eq!(get("root").await["folder"]["childCount"], 5);
    assert_eq!(get("root").await["size"], 5_000_000u64 * 4096);
    let listed = get("root:/group%2000004/folder%20004999:/children?$top=3").await;
    assert_eq!(listed["@odata.count"], 1000);
    assert_eq!(one.shared.lock().drives[0].tree.held(), 0);
}
