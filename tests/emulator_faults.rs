//! What a test can make go wrong, in process and over TCP.

mod emulator_support;

use std::time::Duration;

use emulator_support::{Client, FLAVOURS};
use http_body_util::BodyExt as _;
use onedrivefs::emulator::{
    Body, Emulator, EmulatorConfig, Fault, FaultAction, Flavour, Seed, Throttle, empty_body,
};
use serde_json::json;

fn fault(op: &str, action: FaultAction) -> Fault {
    Fault { method: None, path: None, op: Some(op.into()), skip: 0, count: Some(1), action }
}

fn status(status: u16, after: bool) -> FaultAction {
    FaultAction::Status { status, code: None, inner: None, retry_after: Some("2.128".into()), after }
}

#[tokio::test(start_paused = true)]
async fn a_failure_comes_before_or_after_the_effect() {
    let c = Client::new(Flavour::Business);
    for (after, exists) in [(false, false), (true, true)] {
        let name = format!("after-{after}");
        c.control().inject(fault("folder.create", status(503, after)));
        let answer = c.mkdir("root", &name).await;
        answer.fails(503, "serviceNotAvailable");
        assert_eq!(answer.header("retry-after"), "2.128");
        assert_eq!(c.control().id_of(&name).is_some(), exists);
        c.control().inject(fault("folder.create", FaultAction::Reset { after }));
        let body = json!({"name": format!("{name} reset"), "folder": {}}).to_string();
        let headers = [("authorization", "Bearer t"), ("content-type", "application/json")];
        let sent = onedrivefs::emulator::full_body(body);
        assert!(c.raw("POST", "/v1.0/me/drive/root/children", &headers, sent).await.is_err());
        assert_eq!(c.control().id_of(&format!("{name} reset")).is_some(), exists);
    }
}

async fn collect(body: Body) -> (Vec<u8>, bool) {
    let (mut all, mut body) = (Vec::new(), body);
    loop {
        match body.frame().await {
            Some(Ok(frame)) => all.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d)),
            Some(Err(_)) => return (all, false),
            None => return (all, true),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_cut_stalled_or_changed_where_it_was_asked() {
    let c = Client::new(Flavour::Business);
    let content: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let item = c.put("a", content.clone()).await.ok(201);
    let url = item["@microsoft.graph.downloadUrl"].as_str().unwrap().to_owned();
    let at = 150_000;
    for (action, announced, clean) in [
        (FaultAction::ResetBody { at }, 300_000, false),
        (FaultAction::TruncateBody { at }, 300_000, true),
        (FaultAction::ShortenBody { at }, 150_000, true),
    ] {
        c.control().inject(fault("download", action.clone()));
        let answer = c.raw("GET", &url, &[], empty_body()).await.unwrap();
        assert_eq!(answer.headers()["content-length"], announced.to_string(), "{action:?}");
        let (got, ended) = collect(answer.into_body()).await;
        assert_eq!((got.len(), ended), (150_000, clean), "{action:?}");
        assert_eq!(got, content[..150_000]);
    }
    c.control().inject(fault("download", FaultAction::CorruptBody { at }));
    let (got, _) = collect(c.raw("GET", &url, &[], empty_body()).await.unwrap().into_body()).await;
    let wrong: Vec<usize> = (0..content.len()).filter(|i| got[*i] != content[*i]).collect();
    assert_eq!(wrong, [150_000]);
    c.control().inject(fault("download", FaultAction::StallBody { at }));
    let answer = c.raw("GET", &url, &[], empty_body()).await.unwrap();
    let reading = tokio::spawn(collect(answer.into_body()));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!reading.is_finished());
    c.control().release_stalls();
    assert_eq!(reading.await.unwrap().0, content);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_request_is_answered_when_released() {
    let c = Client::new(Flavour::Business);
    c.control().inject(fault("drive.get", FaultAction::Stall { after: false }));
    let asking = tokio::spawn({
        let c = c.clone();
        async move { c.get("/me/drive").await.status }
    });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!asking.is_finished());
    c.control().release_stalls();
    assert_eq!(asking.await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn latency_bandwidth_and_throttling_cost_what_they_say() {
    let c = Client::new(Flavour::Business);
    let item = c.put("a", vec![1; 1_000_000]).await.ok(201);
    let start = tokio::time::Instant::now();
    c.control().set_latency(Duration::from_millis(150));
    c.get("/me/drive").await.ok(200);
    assert_eq!(start.elapsed().as_millis(), 150);
    c.control().set_latency(Duration::ZERO);
    c.control().set_bandwidth(Some(100_000));
    let start = tokio::time::Instant::now();
    c.send("GET", item["@microsoft.graph.downloadUrl"].as_str().unwrap(), &[], "").await;
    assert_eq!(start.elapsed().as_secs(), 10);
    let start = tokio::time::Instant::now();
    c.put("b", vec![1; 500_000]).await.ok(201);
    assert_eq!(start.elapsed().as_secs(), 5);
    c.control().set_bandwidth(None);
    c.control().set_throttle(Some(Throttle { limit: 3, window_ms: 60_000, status: 429, retry_after: None }));
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(c.get("/me/drive").await.status);
    }
    assert_eq!(seen, [200, 200, 200, 429, 429]);
    let answer = c.get("/me/drive").await;
    answer.fails(429, "activityLimitReached");
    tokio::time::advance(Duration::from_secs(answer.header("retry-after").parse().unwrap())).await;
    c.get("/me/drive").await.ok(200);
}

#[tokio::test(start_paused = true)]
async fn throttling_and_faults_reach_into_a_batch() {
    let c = Client::new(Flavour::Business);
    c.control().inject(fault("drive.get", status(429, false)));
    let one = |id: &str| json!({"id": id, "method": "GET", "url": "/me/drive"});
    let answer = c.json("POST", "/$batch", json!({"requests": [one("1"), one("2")]})).await.ok(200);
    assert_eq!(answer["responses"][0]["status"], 429);
    assert_eq!(answer["responses"][0]["headers"]["Retry-After"], "2.128");
    assert_eq!(answer["responses"][1]["status"], 200);
}

#[tokio::test(start_paused = true)]
async fn the_log_counts_requests_and_the_truth_tells_all() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        c.put("d/a", "1").await.ok(201);
        c.put("d/a", "22").await.ok(200);
        c.put("gone", "x").await.ok(201);
        c.control().edit_as_other(&onedrivefs::emulator::Edit::Delete { path: "gone".into() }).unwrap();
        assert_eq!(c.control().counts()["content.put"], 3);
        let log = c.control().requests();
        assert_eq!((log[1].status, log[1].op.as_str(), log[1].authorized), (200, "content.put", true));
        c.control().reset_log();
        assert!(c.control().requests().is_empty());
        let truth = c.control().truth();
        let items = truth["drives"][0]["items"].as_array().unwrap();
        let file = items.iter().find(|i| i["path"] == "/d/a").unwrap();
        assert_eq!(file["sha256"], "785f3ec7eb32f30b90cd0fcf3657d388b5ff4297f2f9716ff66e9b69c05ddd09");
        assert_eq!(file["versions"][0]["size"], 1);
        assert_eq!(truth["drives"][0]["recycleBin"][0]["name"], "gone");
    }
}

/// One HTTP/1.1 exchange over a socket, without a client library.
async fn exchange(address: std::net::SocketAddr, request: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end like any other here.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn over_tcp_it_speaks_http_and_is_controlled_by_json() {
    let emulator = Emulator::new(EmulatorConfig { seed: Seed::Sample, ..EmulatorConfig::default() }).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn({
        let emulator = emulator.clone();
        async move { emulator.serve(listener, async { drop(stopped.await) }).await }
    });
    let head = "host: emu.test\r\nauthorization: Bearer t\r\nconnection: close\r\n";
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\n{head}\r\n");
    let answer = exchange(address, &get("/v1.0/me/drive/root:/Welcome.txt")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("http://emu.test/_data/download"),
        "{answer}"
    );
    let body = r#"{"op":"item.get","action":{"kind":"reset"}}"#;
    let inject =
        format!("POST /_control/inject HTTP/1.1\r\n{head}content-length: {}\r\n\r\n{body}", body.len());
    assert!(exchange(address, &inject).await.contains("\"number\":1"));
    assert_eq!(exchange(address, &get("/v1.0/me/drive/root:/Welcome.txt")).await, "");
    let body = r#"{"edit":{"kind":"write","path":"x.txt","content":"hello"}}"#;
    let edit = format!("POST /_control/edit HTTP/1.1\r\n{head}content-length: {}\r\n\r\n{body}", body.len());
    assert!(exchange(address, &edit).await.contains("\"id\""));
    assert_eq!(emulator.control().content("x.txt").unwrap(), "hello");
    assert!(exchange(address, &get("/_control/truth")).await.contains("Welcome.txt"));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_hundred_thousand_items_are_seeded_and_paged() {
    let seed = Seed::Synthetic { files: 100_000, per_folder: 500, size: 12_345 };
    let c = Client::with(EmulatorConfig { seed, ..emulator_support::config(Flavour::Business) });
    let first = c.get("/me/drive/root/delta").await.ok(200);
    assert_eq!(first["value"].as_array().unwrap().len(), 200);
    let deep = c.get("/me/drive/root:/group%2000000/folder%20000199/file%2000099999.bin").await.ok(200);
    assert_eq!(deep["size"], 12_345);
    assert_eq!(c.get("/me/drive").await.ok(200)["quota"]["used"], 100_000u64 * 12_345);
}
