//! The emulator's daily work, on every flavour, in process and under a paused clock.

mod emulator_support;

use emulator_support::{Client, FLAVOURS, UNIT, names};
use onedrivefs::emulator::{Edit, Flavour, Seed};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_file_is_put_read_listed_renamed_and_deleted() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        let drive = c.get("/me/drive").await.ok(200);
        assert_eq!(drive["driveType"], flavour.drive_type());
        let folder = c.mkdir("root", "A").await.ok(201);
        c.mkdir("root", "a").await.fails(409, "nameAlreadyExists");
        let file = c.put("A/hello.txt", "hello").await.ok(201);
        assert_eq!(file["file"]["hashes"]["quickXorHash"], "aCgDG9jwBgAAAAAABQAAAAAAAAA=");
        assert_eq!(file["parentReference"]["id"], folder["id"]);
        assert_eq!(c.put("A/HELLO.txt", "hello!").await.ok(200)["id"], file["id"]);
        let id = file["id"].as_str().unwrap();
        let answer = c.download(&format!("items/{id}")).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello!"[..]));
        let page = c.get("/me/drive/root:/A:/children").await.ok(200);
        assert_eq!(page["value"][0]["name"], "hello.txt");
        let renamed =
            c.json("PATCH", &format!("/me/drive/items/{id}"), json!({"name": "b.txt"})).await.ok(200);
        assert_eq!(renamed["id"], id);
        assert_ne!(renamed["eTag"], file["eTag"]);
        assert_eq!(c.graph("DELETE", &format!("/me/drive/items/{id}"), &[], "").await.status, 204);
        c.get(&format!("/me/drive/items/{id}")).await.fails(404, "itemNotFound");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_takes_fragments_and_makes_the_file() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        let data: Vec<u8> = (0..2 * UNIT + 77).map(|i| (i % 251) as u8).collect();
        let item = json!({"@microsoft.graph.conflictBehavior": "replace", "fileSize": data.len(),
            "fileSystemInfo": {"lastModifiedDateTime": "2020-02-02T02:02:02Z"}});
        let url = c.session("big.bin", item).await;
        let first = c.fragment(&url, 0, &data[..UNIT], data.len()).await.ok(202);
        assert!(first["nextExpectedRanges"][0].as_str().unwrap().starts_with("327680-"));
        c.fragment(&url, UNIT, &data[UNIT..2 * UNIT], data.len()).await.ok(202);
        let done = c.fragment(&url, 2 * UNIT, &data[2 * UNIT..], data.len()).await.ok(201);
        assert_eq!(done["fileSystemInfo"]["lastModifiedDateTime"], "2020-02-02T02:02:02Z");
        assert_eq!(done["size"], data.len());
        assert_eq!(c.control().content("big.bin").unwrap(), data);
        assert_eq!(c.send("GET", &url, &[], "").await.status, 404);
    }
}

#[tokio::test(start_paused = true)]
async fn delta_tells_changes_with_their_ancestors_and_deletions() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        c.put("A/B/one.txt", "1").await.ok(201);
        let (all, link) = c.delta("/me/drive/root/delta").await;
        assert_eq!(names(&all), ["root", "A", "B", "one.txt"]);
        let (none, link) = c.delta(&link).await;
        assert_eq!(names(&none), Vec::<String>::new());
        c.control()
            .edit_as_other(&Edit::Write { path: "A/B/one.txt".into(), content: b"22".to_vec() })
            .unwrap();
        let (changed, link) = c.delta(&link).await;
        assert_eq!(names(&changed), ["root", "A", "B", "one.txt"]);
        assert_eq!(changed[3]["cTag"].is_null(), flavour.drive_type() != "personal");
        c.control().edit_as_other(&Edit::Delete { path: "A/B".into() }).unwrap();
        let (gone, _) = c.delta(&link).await;
        let deleted: Vec<_> = gone.iter().filter(|i| i.get("deleted").is_some()).collect();
        assert_eq!(deleted.len(), 2);
        let business = matches!(flavour, Flavour::Business | Flavour::DocumentLibrary);
        assert_eq!(deleted[0].get("name").is_none(), business);
    }
}

#[tokio::test(start_paused = true)]
async fn the_sample_drive_has_a_large_file_that_costs_nothing() {
    let mut config = emulator_support::config(Flavour::Business);
    config.seed = Seed::Sample;
    let c = Client::with(config);
    let (all, _) = c.delta("/me/drive/root/delta?$top=7").await;
    assert!(all.len() > 45, "{}", all.len());
    let large = c.get("/me/drive/root:/Videos/large%20sample.bin").await.ok(200);
    assert_eq!(large["size"], 300_000_000);
    let url = large["@microsoft.graph.downloadUrl"].as_str().unwrap();
    let part = c.send("GET", url, &[("range", "bytes=299999990-")], "").await;
    assert_eq!((part.status, part.body.len()), (206, 10));
    assert_eq!(part.header("content-range"), "bytes 299999990-299999999/300000000");
    let odd = "/me/drive/root:/Documents/plan%20%231%20%2850%25%20%2B%20tax%29%20%26%20%27more%27.txt";
    c.get(odd).await.ok(200);
}

#[tokio::test(start_paused = true)]
async fn two_runs_with_one_seed_are_the_same() {
    async fn run() -> Vec<String> {
        let c = Client::new(Flavour::Business);
        let mut seen = Vec::new();
        for n in 0..5 {
            seen.push(format!("{:?}", c.put(&format!("d/{n}.txt"), "x").await.json()));
        }
        seen.push(c.session("s", json!({})).await);
        seen.push(c.control().truth().to_string());
        seen
    }
    assert_eq!(run().await, run().await);
}
