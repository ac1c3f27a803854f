//! What each operation asks for, and what it makes of the answers.

use bytes::Bytes;
use http::Method;
use tokio::time::Instant;

use super::testing::*;
use super::transport::Lane;
use super::*;
use crate::model::remote::DownloadUrl;
use crate::model::{ByteRange, ETag, ItemKind, Timestamp};

const FILE: &str = r#"{"id":"01A","name":"a.txt","file":{},"size":5}"#;
const P: Priority = Priority::Interactive;

fn content() -> DownloadUrl {
    DownloadUrl::new("https://data.example/x?tempauth=secret")
}

fn session() -> SessionUrl {
    SessionUrl::new("https://data.example/up?id=secret")
}

fn put(part: &'static str, say: Say) -> Step {
    step(Method::PUT, part, say)
}

fn post(part: &'static str, say: Say) -> Step {
    step(Method::POST, part, say)
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

// ---- upload ----

#[tokio::test(start_paused = true)]
async fn a_small_file_is_one_put_with_its_conflict_behaviour_in_the_address() {
    let (graph, script) = graph([
        put("/items/01P:/a%20b.txt:/content?%40microsoft.graph.conflictBehavior=fail", json(201, FILE)),
        put("/items/01A/content", json(200, FILE)),
    ]);
    let body = Bytes::from_static(b"hello");
    graph
        .put_new(&drive(), &item("01P"), "a b.txt", body.clone(), ConflictBehavior::Fail)
        .await
        .expect("made");
    graph.put_replace(&drive(), &item("01A"), body, Some("aMkY5")).await.expect("replaced");
    let seen = script.seen();
    assert_eq!(seen[0].header("content-length"), Some("5"));
    assert_eq!(seen[0].header("if-match"), None);
    assert_eq!(seen[1].header("if-match"), Some("\"aMkY5\""));
}

#[tokio::test(start_paused = true)]
async fn an_empty_file_says_that_it_is_empty() {
    let (graph, script) = graph([put(":/content", json(201, FILE))]);
    graph.put_new(&drive(), &item("01P"), "e", Bytes::new(), ConflictBehavior::Fail).await.expect("made");
    assert_eq!(script.seen()[0].header("content-length"), Some("0"));
}

#[tokio::test(start_paused = true)]
async fn tags_go_back_as_they_came() {
    for (tag, sent) in
        [("\"{GUID},3\"", "\"{GUID},3\""), ("*", "*"), ("W/\"x\"", "W/\"x\""), ("bare", "\"bare\"")]
    {
        let (graph, script) = graph([step(Method::DELETE, "/items/01A", json(204, ""))]);
        graph.delete(&drive(), &item("01A"), Some(tag)).await.expect("deleted");
        assert_eq!(script.seen()[0].header("if-match"), Some(sent));
    }
}

const SESSION: &str = r#"{"uploadUrl":"https://data.example/up?id=secret","expirationDateTime":"2026-03-08T08:15:30Z","nextExpectedRanges":["0-"]}"#;

fn spec() -> SessionSpec {
    SessionSpec { size: 7, mtime: Timestamp::parse_rfc3339("2026-02-28T22:10:00Z"), ..SessionSpec::default() }
}

fn new_target(conflict: ConflictBehavior) -> UploadTarget {
    UploadTarget::New { parent: item("01P"), name: "b.bin".into(), conflict }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_made_with_size_and_times() {
    let (graph, script) = graph([post("/items/01P:/b.bin:/createUploadSession", json(200, SESSION))]);
    let made =
        graph.create_session(&drive(), &new_target(ConflictBehavior::Fail), &spec()).await.expect("made");
    assert_eq!(
        (made.url.expose(), made.next, made.mtime_applied),
        ("https://data.example/up?id=secret", 0, true)
    );
    let item = &script.seen()[0].json()["item"];
    assert_eq!(item["fileSize"], 7);
    assert_eq!(item["@microsoft.graph.conflictBehavior"], "fail");
    assert_eq!(item["fileSystemInfo"]["lastModifiedDateTime"], "2026-02-28T22:10:00Z");
    assert!(!format!("{made:?}").contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_refused_with_times_or_size_is_made_without_and_says_so() {
    let no = || post("/createUploadSession", refusal(400, "invalidRequest"));
    let (graph, script) = graph([no(), no(), post("/createUploadSession", json(200, SESSION))]);
    let made =
        graph.create_session(&drive(), &new_target(ConflictBehavior::Fail), &spec()).await.expect("made");
    assert!(!made.mtime_applied);
    let last = script.seen()[2].json();
    assert!(last["item"].get("fileSystemInfo").is_none() && last["item"].get("fileSize").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refused_name_is_not_asked_for_again_in_another_form() {
    let (graph, script) =
        graph([post("/createUploadSession", refusal(400, "nameContainsInvalidCharacters"))]);
    let error = graph
        .create_session(&drive(), &new_target(ConflictBehavior::Fail), &spec())
        .await
        .expect_err("refused");
    assert!(matches!(error, GraphError::NameRefused { .. }), "{error:?}");
    script.done();
}

#[tokio::test(start_paused = true)]
async fn a_replacing_session_by_id_falls_back_to_the_name() {
    let no = || post("/items/01A/createUploadSession", refusal(400, "invalidRequest"));
    let found = r#"{"id":"01A","name":"old.bin","file":{},"parentReference":{"id":"01P","driveId":"b!D"}}"#;
    let (graph, script) = graph([
        no(),
        no(),
        no(),
        get("/items/01A?", json(200, found)),
        post("/items/01P:/old.bin:/createUploadSession", json(200, SESSION)),
    ]);
    let target = UploadTarget::Replace { item: item("01A"), if_match: Some("\"t\"".into()) };
    let made = graph.create_session(&drive(), &target, &spec()).await.expect("made");
    assert!(!made.mtime_applied);
    let last = &script.seen()[4];
    assert_eq!(last.header("if-match"), Some("\"t\""));
    assert_eq!(last.json()["item"]["@microsoft.graph.conflictBehavior"], "replace");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_and_a_name_that_is_being_filled_are_told_apart() {
    let taken = || post("/createUploadSession", refusal(409, "nameAlreadyExists"));
    let look = |say| get("/items/01P:/b.bin?", say);
    let cases = [
        (ConflictBehavior::Fail, json(200, FILE), true),
        (ConflictBehavior::Fail, refusal(404, "itemNotFound"), false),
        (ConflictBehavior::Replace, json(200, FILE), false),
        (ConflictBehavior::Replace, json(200, r#"{"id":"01F","folder":{}}"#), true),
    ];
    for (conflict, found, exists) in cases {
        let (graph, script) = graph([taken(), look(found.clone())]);
        let error = graph.create_session(&drive(), &new_target(conflict), &spec()).await.expect_err("taken");
        assert_eq!(matches!(error, GraphError::Exists { .. }), exists, "{found:?}: {error:?}");
        assert_eq!(matches!(error, GraphError::SessionConflict { .. }), !exists);
        script.done();
    }
}

#[tokio::test(start_paused = true)]
async fn fragments_say_where_they_belong_and_learn_where_to_go_on() {
    let part = Bytes::from_static(b"0123");
    let (graph, script) = graph([
        put("data.example/up", json(202, r#"{"nextExpectedRanges":["4-"]}"#)),
        put("data.example/up", json(202, r#"{"nextExpectedRanges":["6-7","9-"]}"#)),
        put("data.example/up", json(202, "")),
        put("data.example/up", json(201, FILE)),
        put("data.example/up", json(200, "")),
    ]);
    let url = session();
    let send = |offset| graph.put_fragment(&url, offset, 100, part.clone());
    assert_eq!(send(0).await.expect("taken"), FragmentOutcome::More { next: 4 });
    assert_eq!(send(4).await.expect("taken"), FragmentOutcome::More { next: 6 });
    assert_eq!(send(8).await.expect("taken"), FragmentOutcome::More { next: 12 });
    assert!(
        matches!(send(12).await.expect("done"), FragmentOutcome::Done(Some(item)) if item.id.as_str() == "01A")
    );
    assert_eq!(send(16).await.expect("done"), FragmentOutcome::Done(None));
    let seen = &script.seen()[1];
    assert_eq!(seen.header("content-range"), Some("bytes 4-7/100"));
    assert_eq!((seen.header("authorization"), seen.header("if-match")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn errors_of_fragments_say_what_to_do() {
    let part = Bytes::from_static(b"0123");
    type Check = fn(&GraphError) -> bool;
    let cases: Vec<(Say, Check)> = vec![
        (json(401, r#"{"error":{"code":"unauthenticated"}}"#), |error| {
            matches!(error, GraphError::SessionGone { .. })
        }),
        (refusal(404, "itemNotFound"), |error| matches!(error, GraphError::SessionGone { .. })),
        (refusal(416, "invalidRange"), |error| matches!(error, GraphError::FragmentRange { .. })),
        (
            json(400, r#"{"error":{"code":"invalidRequest","innererror":{"code":"fragmentOverlap"}}}"#),
            |error| matches!(error, GraphError::FragmentRange { .. }),
        ),
        (refusal(409, "nameAlreadyExists"), |error| matches!(error, GraphError::Exists { .. })),
        (refusal(409, "conflict"), |error| matches!(error, GraphError::EditConflict { .. })),
        (refusal(412, "resourceModified"), |error| matches!(error, GraphError::PreconditionFailed { .. })),
        (refusal(413, "maxFragmentLengthExceeded"), |error| matches!(error, GraphError::TooLarge { .. })),
        (json(423, r#"{"error":{"code":"notAllowed","innerError":{"code":"resourceLocked"}}}"#), |error| {
            matches!(error, GraphError::Locked { .. })
        }),
        (refusal(507, "quotaLimitReached"), |error| matches!(error, GraphError::QuotaExceeded { .. })),
        (json(504, ""), GraphError::outcome_unknown),
        (Say::Reset, GraphError::outcome_unknown),
    ];
    for (say, check) in cases {
        let (graph, script) = graph([put("data.example/up", say.clone())]);
        let error = graph.put_fragment(&session(), 4, 100, part.clone()).await.expect_err("refused");
        assert!(check(&error), "{say:?}: {error:?}");
        script.done();
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_not_yet_known_to_the_data_host_is_given_a_moment() {
    let gone = || put("data.example/up", refusal(404, "itemNotFound"));
    let part = Bytes::from_static(b"0123");
    let (first, script) =
        graph([gone(), gone(), put("data.example/up", json(202, r#"{"nextExpectedRanges":["4-"]}"#))]);
    first.put_fragment(&session(), 0, 100, part.clone()).await.expect("taken");
    script.done();
    let (second, script) = graph([gone(), gone(), gone()]);
    assert!(matches!(
        second.put_fragment(&session(), 0, 100, part).await,
        Err(GraphError::SessionGone { .. })
    ));
    script.done();
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_session_is_where_to_go_on() {
    let (graph, script) = graph([
        get(
            "data.example/up",
            json(200, r#"{"nextExpectedRanges":["12-"],"expirationDateTime":"2026-03-08T08:15:30Z"}"#),
        ),
        get("data.example/up", json(200, r#"{"nextExpectedRanges":[]}"#)),
        get("data.example/up", json(200, "{}")),
        get("data.example/up", json(404, "")),
        step(Method::DELETE, "data.example/up", json(204, "")),
        step(Method::DELETE, "data.example/up", json(404, "")),
    ]);
    assert_eq!(graph.session_status(&session()).await.expect("known").next, 12);
    assert_eq!(graph.session_status(&session()).await.expect("complete").next, u64::MAX);
    assert!(matches!(graph.session_status(&session()).await, Err(GraphError::Protocol { .. })));
    assert!(matches!(graph.session_status(&session()).await, Err(GraphError::SessionGone { .. })));
    graph.cancel_session(&session()).await.expect("cancelled");
    graph.cancel_session(&session()).await.expect("gone is cancelled");
    assert!(script.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_deferred_session_is_ended_as_its_flavour_wants_it() {
    let (graph, script) =
        graph([post("data.example/up", json(201, FILE)), put("/items/01P:/b.bin", json(200, ""))]);
    let ended = graph.commit_session(&session(), &Commit::Business).await.expect("ended");
    assert_eq!(ended.expect("an item").id.as_str(), "01A");
    let how = Commit::Personal {
        drive: drive(),
        parent: item("01P"),
        name: "b.bin".into(),
        conflict: ConflictBehavior::Replace,
        if_match: None,
    };
    assert!(graph.commit_session(&session(), &how).await.expect("ended").is_none());
    let seen = script.seen();
    assert_eq!((seen[0].header("content-length"), seen[0].header("authorization")), (Some("0"), None));
    assert_eq!(seen[1].json()["@microsoft.graph.sourceUrl"], "https://data.example/up?id=secret");
    assert!(seen[1].header("authorization").is_some());
}

// ---- other changes ----

#[tokio::test(start_paused = true)]
async fn a_folder_is_made_without_its_time_where_that_is_refused() {
    let made = json(201, r#"{"id":"01N","folder":{}}"#);
    let (graph, script) =
        graph([post("/items/01P/children", refusal(400, "invalidRequest")), post("/children", made)]);
    let time = Timestamp::parse_rfc3339("2026-02-28T22:10:00Z");
    let found = graph.mkdir(&drive(), &item("01P"), "d", time).await.expect("made");
    assert_eq!(found.kind, Some(ItemKind::Folder));
    assert!(script.seen()[0].json().get("fileSystemInfo").is_some());
    assert!(script.seen()[1].json().get("fileSystemInfo").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rename_says_what_to_do_with_a_taken_name_in_both_places() {
    let (graph, script) = graph([step(
        Method::PATCH,
        "/items/01A?%40microsoft.graph.conflictBehavior=replace",
        json(200, FILE),
    )]);
    let patch = Patch { name: Some("b".into()), parent: Some(item("01Q")), ..Patch::default() };
    graph
        .update(&drive(), &item("01A"), &patch, Some("\"t\""), ConflictBehavior::Replace)
        .await
        .expect("moved");
    let sent = script.seen()[0].json();
    assert_eq!((&sent["name"], &sent["parentReference"]["id"]), (&"b".into(), &"01Q".into()));
    assert_eq!(sent["@microsoft.graph.conflictBehavior"], "replace");
}

#[tokio::test(start_paused = true)]
async fn a_conditional_change_is_not_repeated_after_an_unknown_outcome() {
    let patch = Patch { name: Some("b".into()), ..Patch::default() };
    let (first, script) = graph([step(Method::PATCH, "/items/01A", json(500, ""))]);
    let error = first.update(&drive(), &item("01A"), &patch, Some("\"t\""), ConflictBehavior::Fail).await;
    assert!(error.expect_err("unknown").outcome_unknown());
    script.done();
    let (second, script) = graph([
        step(Method::PATCH, "/items/01A", json(500, "")),
        step(Method::PATCH, "/items/01A", json(200, FILE)),
    ]);
    second.update(&drive(), &item("01A"), &patch, None, ConflictBehavior::Fail).await.expect("renamed");
    script.done();
}

#[tokio::test(start_paused = true)]
async fn a_change_answered_without_a_body_is_read_back() {
    let (graph, script) =
        graph([step(Method::PATCH, "/items/01A", json(204, "")), get("/items/01A?", json(200, FILE))]);
    let patch = Patch { mtime: Timestamp::parse_rfc3339("2026-02-28T22:10:00Z"), ..Patch::default() };
    graph.update(&drive(), &item("01A"), &patch, None, ConflictBehavior::Fail).await.expect("set");
    assert!(!script.seen()[0].url.contains("conflictBehavior"));
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_already_is_deleted() {
    let (graph, _) = graph([
        step(Method::DELETE, "/items/01A", json(504, "")),
        step(Method::DELETE, "/items/01A", refusal(404, "itemNotFound")),
        step(Method::DELETE, "/items/01A", json(204, "")),
        step(Method::DELETE, "/items/01A", refusal(412, "resourceModified")),
    ]);
    assert_eq!(graph.delete(&drive(), &item("01A"), None).await.expect("gone"), Deleted::AlreadyGone);
    assert_eq!(graph.delete(&drive(), &item("01A"), None).await.expect("done"), Deleted::Done);
    let stale = graph.delete(&drive(), &item("01A"), Some("\"t\"")).await;
    assert!(matches!(stale, Err(GraphError::PreconditionFailed { .. })));
}

#[tokio::test(start_paused = true)]
async fn names_that_cannot_be_addressed_are_refused_here() {
    let (graph, script) = graph([]);
    for name in ["", ".", ".."] {
        let made = graph.put_new(&drive(), &item("01P"), name, Bytes::new(), ConflictBehavior::Fail).await;
        assert!(matches!(made, Err(GraphError::NameRefused { .. })));
        let made = graph.mkdir(&drive(), &item("01P"), name, None).await;
        assert!(matches!(made, Err(GraphError::NameRefused { .. })));
    }
    assert!(script.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn refusals_of_changes_say_what_can_be_done_about_them() {
    type Check = fn(&GraphError) -> bool;
    let cases: Vec<(Say, Check)> = vec![
        (refusal(409, "nameAlreadyExists"), |error| matches!(error, GraphError::Exists { .. })),
        (refusal(403, "accessDenied"), |error| {
            matches!(error, GraphError::AccessDenied { read_only: false, .. })
        }),
        (refusal(403, "serviceReadOnly"), |error| {
            matches!(error, GraphError::AccessDenied { read_only: true, .. })
        }),
        (refusal(423, "accessDenied"), |error| matches!(error, GraphError::Locked { .. })),
        (json(403, r#"{"error":{"code":"accessDenied","innererror":{"code":"lockMismatch"}}}"#), |error| {
            matches!(error, GraphError::Locked { .. })
        }),
        (refusal(403, "quotaLimitReached"), |error| matches!(error, GraphError::QuotaExceeded { .. })),
        (refusal(402, "x"), |error| matches!(error, GraphError::QuotaExceeded { .. })),
        (refusal(400, "pathIsTooLong"), |error| matches!(error, GraphError::TooLong { .. })),
        (json(400, r#"{"error":{"code":"invalidRequest","innererror":{"code":"invalidPath"}}}"#), |error| {
            matches!(error, GraphError::NameRefused { .. })
        }),
        (refusal(400, "invalidRequest"), |error| matches!(error, GraphError::Invalid { .. })),
        (refusal(507, "insufficientStorage"), |error| matches!(error, GraphError::QuotaExceeded { .. })),
        (json(413, "<html>"), |error| matches!(error, GraphError::TooLarge { .. })),
        (json(409, ""), |error| matches!(error, GraphError::EditConflict { .. })),
        (json(422, ""), |error| matches!(error, GraphError::Invalid { .. })),
        (json(404, "<html>"), |error| matches!(error, GraphError::NotFound { .. })),
    ];
    for (say, check) in cases {
        let (graph, script) = graph([post("/children", say.clone())]);
        let error = graph.mkdir(&drive(), &item("01P"), "d", None).await.expect_err("refused");
        assert!(check(&error), "{say:?}: {error:?}");
        assert!(!error.outcome_unknown());
        script.done();
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_followed_without_the_token() {
    let (graph, script) = graph([
        post(
            "/items/01A/copy?%40microsoft.graph.conflictBehavior=fail",
            with(202, &[("location", "https://monitor.example/1")], ""),
        ),
        get("https://monitor.example/1", json(202, r#"{"status":"inProgress","percentageComplete":3}"#)),
        get(
            "https://monitor.example/1",
            with(303, &[("location", "https://x.example/")], r#"{"status":"completed","resourceId":"01N"}"#),
        ),
        get("https://monitor.example/1", with(303, &[("location", "https://x.example/")], "")),
    ]);
    let (to, folder) = (drive(), item("01Q"));
    let monitor = graph
        .copy(&drive(), &item("01A"), (&to, &folder), Some("n"), ConflictBehavior::Fail)
        .await
        .expect("begun");
    assert!(matches!(graph.copy_status(&monitor).await.expect("known"), CopyStatus::Running { .. }));
    assert_eq!(
        graph.copy_status(&monitor).await.expect("done"),
        CopyStatus::Done { item: Some(item("01N")) }
    );
    assert_eq!(graph.copy_status(&monitor).await.expect("done"), CopyStatus::Done { item: None });
    assert!(script.seen()[1..].iter().all(|seen| seen.header("authorization").is_none()));
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
        let (graph, selector) = (graph.clone(), text.parse::<DriveSelector>().expect("a selector"));
        async move { graph.resolve_drive(&selector).await }
    };
    assert_eq!(resolve("me").await.expect("found").name, "OneDrive");
    resolve("b!D").await.expect("found");
    resolve("contoso.sharepoint.com:/sites/Team A").await.expect("found");
    assert_eq!(
        resolve("contoso.sharepoint.com:/sites/Team A:plans").await.expect("found").id.as_str(),
        "b!2"
    );
    assert!(matches!(resolve("contoso.sharepoint.com:/:Nope").await, Err(GraphError::NotFound { .. })));
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
