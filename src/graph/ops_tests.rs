//! What the operations that read ask for, and what they make of the answers.

use bytes::Bytes;
use tokio::time::Instant;

use super::testing::*;
use super::transport::Lane;
use super::*;
use crate::model::remote::DownloadUrl;
use crate::model::{ByteRange, ETag};

const FILE: &str = r#"{"id":"01A","name":"a.txt","file":{},"size":5}"#;
const P: Priority = Priority::Interactive;

fn content() -> DownloadUrl {
    DownloadUrl::new("https://data.example/x?tempauth=secret")
}

// ---- listing and delta ----

#[tokio::test(start_paused = true)]
async fn a_listing_follows_its_links_word_for_word_with_the_same_headers() {
    let next = "https://graph.microsoft.com/v1.0/drives/b!D/items/01P/children?$top=200&$skiptoken=A%2bB";
    let (graph, script) = graph([
        get(
            "/drives/b!D/items/01P/children?$top=999&$select=",
            json(200, &format!(r#"{{"value":[{FILE}],"@odata.nextLink":"{next}"}}"#)),
        ),
        get("$skiptoken=A%2bB", json(200, r#"{"value":[]}"#)),
    ]);
    let first = graph.children(&drive(), &item("01P"), None, P).await.expect("first");
    assert_eq!(first.items.len(), 1);
    let second = graph.children(&drive(), &item("01P"), first.next.as_ref(), P).await.expect("second");
    assert!(second.items.is_empty() && second.next.is_none());
    assert_eq!(script.seen()[1].url, next);
    let prefer: Vec<_> = script.seen().iter().map(|seen| seen.header("prefer").map(str::to_owned)).collect();
    assert!(prefer[0].is_some() && prefer[0] == prefer[1]);
    assert!(script.seen()[0].url.contains("@microsoft.graph.downloadUrl"));
}

#[tokio::test(start_paused = true)]
async fn an_expired_page_of_a_listing_asks_to_begin_again() {
    let link = PageLink::new("https://graph.microsoft.com/v1.0/x?$skiptoken=1");
    for status in [400, 410] {
        let (graph, _) = graph([get("skiptoken", refusal(status, "invalidRequest"))]);
        let error = graph.children(&drive(), &item("01P"), Some(&link), P).await.expect_err("expired");
        assert!(matches!(error, GraphError::Resync { .. }), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn delta_begins_at_the_start_at_now_or_at_a_link() {
    let done = r#"{"value":[],"@odata.deltaLink":"https://graph.microsoft.com/v1.0/d?token=2"}"#;
    let next = r#"{"value":[],"@odata.nextLink":"https://graph.microsoft.com/v1.0/d?token=1"}"#;
    let (graph, script) = graph([
        get("/drives/b!D/root/delta?$top=", json(200, next)),
        get("/v1.0/d?token=1", json(200, done)),
        get("/drives/b!D/root/delta?token=latest", json(200, done)),
    ]);
    let first = graph.delta(&drive(), &DeltaFrom::Start, P).await.expect("first");
    let DeltaLink::Next(link) = first.link else { panic!("more to come") };
    let second = graph.delta(&drive(), &DeltaFrom::Link(link), P).await.expect("second");
    assert!(matches!(second.link, DeltaLink::Done(_)));
    graph.delta(&drive(), &DeltaFrom::Latest, P).await.expect("latest");
    script.done();
}

#[tokio::test(start_paused = true)]
async fn every_form_of_a_lost_delta_link_is_a_resync() {
    let here = "https://graph.microsoft.com/v1.0/drives/b!D/root/delta?token=fresh";
    let body =
        |inner: &str| format!(r#"{{"error":{{"code":"resyncRequired","innerError":{{"code":"{inner}"}}}}}}"#);
    let cases = [
        (with(410, &[("location", here)], &body("resyncApplyDifferences")), true, false),
        (with(410, &[("location", here)], &body("resyncChangesUploadDifferences")), true, true),
        (with(410, &[("location", "/v1.0/relative")], &body("resyncChangesApplyDifferences")), true, false),
        (with(410, &[("location", "https://evil.example/x")], &body("")), false, true),
        (json(410, ""), false, true),
        (refusal(410, "syncStateNotFound"), false, true),
        (refusal(400, "invalidRequest"), false, true),
    ];
    for (say, expect_location, expect_upload) in cases {
        let (graph, _) = graph([get("token=old", say.clone())]);
        let from = DeltaFrom::Link(PageLink::new("https://graph.microsoft.com/v1.0/d?token=old"));
        match graph.delta(&drive(), &from, P).await {
            Err(GraphError::Resync { location, upload_differences, .. }) => {
                assert_eq!(
                    (location.is_some(), upload_differences),
                    (expect_location, expect_upload),
                    "{say:?}"
                );
            }
            other => panic!("{say:?}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_not_found_is_tried_once_more() {
    let done = r#"{"value":[],"@odata.deltaLink":"https://graph.microsoft.com/v1.0/d?token=2"}"#;
    let from = DeltaFrom::Link(PageLink::new("https://graph.microsoft.com/v1.0/d?token=1"));
    let lost = refusal(404, "itemNotFound");
    let (first, script) = graph([get("token=1", lost.clone()), get("token=1", json(200, done))]);
    first.delta(&drive(), &from, P).await.expect("found");
    script.done();
    let (second, _) = graph([get("token=1", lost.clone()), get("token=1", lost.clone())]);
    assert!(matches!(second.delta(&drive(), &from, P).await, Err(GraphError::Resync { .. })));
    let (third, _) = graph([get("/root/delta", lost)]);
    assert!(matches!(third.delta(&drive(), &DeltaFrom::Start, P).await, Err(GraphError::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_cloud_without_delta_says_so_and_a_page_without_a_link_is_nonsense() {
    for say in [refusal(501, "notSupported"), refusal(400, "notSupported"), json(405, "")] {
        let (graph, _) = graph([get("/root/delta", say)]);
        let error = graph.delta(&drive(), &DeltaFrom::Start, P).await.expect_err("unsupported");
        assert!(matches!(error, GraphError::Unsupported { .. }), "{error:?}");
    }
    let (graph, _) = graph([get("/root/delta", json(200, r#"{"value":[]}"#))]);
    assert!(matches!(graph.delta(&drive(), &DeltaFrom::Start, P).await, Err(GraphError::Protocol { .. })));
}

// ---- download ----

#[tokio::test(start_paused = true)]
async fn content_is_asked_for_without_token_and_uncompressed() {
    let headers = [("content-range", "bytes 2-4/10"), ("content-length", "3"), ("etag", "\"t\"")];
    let (graph, script) = graph([get("https://data.example/x?tempauth=secret", with(206, &headers, "cde"))]);
    let download = graph.download(&content(), Some(ByteRange::new(2, 5)), P).await.expect("begun");
    assert_eq!((download.range, download.total), (ByteRange::new(2, 5), Some(10)));
    assert_eq!(download.etag, Some(ETag::new("\"t\"")));
    let (bytes, error) = drain(download.body).await;
    assert_eq!((bytes.as_slice(), error.is_none()), (b"cde".as_slice(), true));
    let seen = &script.seen()[0];
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("range"), Some("bytes=2-4"));
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert!(matches!(seen.lane, Lane::Content { .. }));
}

#[tokio::test(start_paused = true)]
async fn the_whole_content_in_place_of_a_range_is_told_to_the_caller() {
    let (graph, _) = graph([get("data.example", with(200, &[("content-length", "6")], "abcdef"))]);
    let download = graph.download(&content(), Some(ByteRange::new(2, 4)), P).await.expect("begun");
    assert_eq!((download.range, download.total), (ByteRange::new(0, 6), Some(6)));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_was_not_asked_for_is_refused() {
    for (range, length) in [
        ("bytes 0-2/10", "3"),
        ("bytes 2-9/10", "8"),
        ("bytes 2-4/10", "2"),
        ("bytes 2-4/4", "3"),
        ("nonsense", "3"),
    ] {
        let (graph, _) = graph([get(
            "data.example",
            with(206, &[("content-range", range), ("content-length", length)], "cde"),
        )]);
        let error = graph.download(&content(), Some(ByteRange::new(2, 5)), P).await.expect_err("refused");
        assert!(matches!(error, GraphError::Protocol { .. }), "{range}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_ends_early_ends_in_an_error() {
    let headers = vec![("content-length", "6".to_owned())];
    let short = Bytes::from("abc");
    for say in [
        Say::Answer(200, headers.clone(), short.clone()),
        Say::Broken(200, headers.clone(), short.clone()),
        Say::Stuck(200, headers.clone(), short.clone()),
    ] {
        let (graph, _) = graph([get("data.example", say.clone())]);
        let download = graph.download(&content(), None, P).await.expect("begun");
        let began = Instant::now();
        let (bytes, error) = drain(download.body).await;
        assert_eq!(bytes, b"abc");
        match (say, error.expect("an error at the end")) {
            (Say::Answer(..), GraphError::Truncated { expected: 6, got: 3 })
            | (Say::Broken(..), GraphError::Offline { .. }) => {}
            (Say::Stuck(..), GraphError::Deadline { .. }) => assert_eq!(began.elapsed(), 30 * SECOND),
            (say, error) => panic!("{say:?}: {error:?}"),
        }
    }
    let (graph, _) =
        graph([get("data.example", Say::Answer(200, vec![("content-length", "2".into())], short))]);
    let (_, error) = drain(graph.download(&content(), None, P).await.expect("begun").body).await;
    assert!(matches!(error, Some(GraphError::Protocol { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_expired_address_a_short_content_and_malware_are_told_apart() {
    for status in [401, 403, 404, 410] {
        let (graph, _) = graph([get("data.example", json(status, "<html>"))]);
        let error = graph.download(&content(), None, P).await.expect_err("expired");
        assert!(matches!(error, GraphError::UrlExpired { .. }), "{status}: {error:?}");
    }
    let (first, _) = graph([get("data.example", with(416, &[("content-range", "bytes */7")], ""))]);
    let error = first.download(&content(), Some(ByteRange::new(9, 10)), P).await.expect_err("beyond");
    assert!(matches!(error, GraphError::RangeNotSatisfiable { total: Some(7), .. }));
    let (second, _) = graph([get("data.example", refusal(403, "malwareDetected"))]);
    assert!(matches!(second.download(&content(), None, P).await, Err(GraphError::Malware { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_data_host_may_redirect_to_another_one() {
    let (graph, script) = graph([
        get("data.example", with(302, &[("location", "https://cdn.example/y")], "")),
        get("https://cdn.example/y", with(200, &[("content-length", "1")], "a")),
    ]);
    graph.download(&content(), None, P).await.expect("begun");
    assert!(script.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_content_address_is_where_graph_redirects_to() {
    let (graph, script) = graph([
        get("/items/01A/content", with(302, &[("location", "https://data.example/z")], "")),
        get("/items/01A/versions/2.0/content", with(302, &[("location", "https://data.example/v")], "")),
        get("https://data.example/v", with(200, &[("content-length", "1")], "a")),
    ]);
    let url = graph.content_url(&drive(), &item("01A"), P).await.expect("an address");
    assert_eq!(url.expose(), "https://data.example/z");
    let version = graph.version_download(&drive(), &item("01A"), "2.0", None, P).await.expect("begun");
    assert_eq!(drain(version.body).await.0, b"a");
    assert_eq!(script.seen()[2].header("authorization"), None);
}

#[tokio::test(start_paused = true)]
async fn a_transfer_holds_its_slot_until_it_is_dropped() {
    let limits = LimiterConfig { max_content: 1, ..LimiterConfig::default() };
    let open = || get("data.example", with(200, &[("content-length", "1")], "a"));
    let script = Script::new([open(), open()]);
    let tokens = Arc::new(crate::auth::StaticToken::new("t"));
    let graph = graph_with(&script, tokens, GraphConfig { limits, ..GraphConfig::default() });
    let first = graph.download(&content(), None, Priority::Prefetch).await.expect("begun");
    let url = content();
    let waiting = graph.download(&url, None, Priority::Prefetch);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(SECOND, &mut waiting).await.is_err(), "the slot is taken");
    drop(first);
    waiting.await.expect("the slot is free");
}

// ---- drives ----

#[tokio::test(start_paused = true)]
async fn drives_are_found_by_account_id_and_library_name() {
    let own = r#"{"id":"b!D","driveType":"business","name":"OneDrive"}"#;
    let libraries = r#"{"value":[{"id":"b!1","name":"Documents","driveType":"documentLibrary"},{"id":"b!2","name":"Plans"}]}"#;
    let site = r#"{"id":"contoso.sharepoint.com,1,2"}"#;
    let (graph, script) = graph([
        get("/v1.0/me/drive", json(200, own)),
        get("/v1.0/drives/b!D", json(200, own)),
        get("/v1.0/sites/contoso.sharepoint.com:/sites/Team%20A", json(200, site)),
        get("/v1.0/sites/contoso.sharepoint.com%2C1%2C2/drive", json(200, own)),
        get("/v1.0/sites/contoso.sharepoint.com:/sites/Team%20A", json(200, site)),
        get("/v1.0/sites/contoso.sharepoint.com%2C1%2C2/drives", json(200, libraries)),
        get("/v1.0/sites/contoso.sharepoint.com", json(200, site)),
        get("/drives", json(200, libraries)),
    ]);
    let resolve = |text: &str| {
        let (graph, selector) = (graph.clone(), text.parse::<DriveAddress>().expect("an address"));
        async move { graph.find(&selector).await.map(|found| found.drive) }
    };
    assert_eq!(resolve("me").await.expect("found").name, "OneDrive");
    resolve("b!D").await.expect("found");
    resolve("contoso.sharepoint.com:/sites/Team A").await.expect("found");
    assert_eq!(
        resolve("contoso.sharepoint.com:/sites/Team A:plans").await.expect("found").id.as_str(),
        "b!2"
    );
    let missing = resolve("contoso.sharepoint.com:/:Nope").await.expect_err("no such library");
    assert!(missing.to_string().contains("there are: Documents, Plans"), "{missing}");
    script.done();
}

#[tokio::test(start_paused = true)]
async fn the_push_channel_hides_its_address() {
    let (graph, _) = graph([get(
        "/root/subscriptions/socketIo",
        json(200, r#"{"id":"x","notificationUrl":"https://n/?token=secret"}"#),
    )]);
    let channel = graph.push_channel(&drive()).await.expect("a channel");
    assert_eq!(channel.expose(), "https://n/?token=secret");
    assert!(!format!("{channel:?}").contains("secret"));
}
