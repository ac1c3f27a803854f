//! What the operations that change something ask for, and what they make of the answers.

use bytes::Bytes;
use http::Method;

use super::testing::*;
use super::*;
use crate::model::{ItemKind, Timestamp};

const FILE: &str = r#"{"id":"01A","name":"a.txt","file":{},"size":5}"#;

fn session() -> SessionUrl {
    SessionUrl::new("https://data.example/up?id=secret")
}

fn put(part: &'static str, say: Say) -> Step {
    step(Method::PUT, part, say)
}

fn post(part: &'static str, say: Say) -> Step {
    step(Method::POST, part, say)
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
async fn an_answer_to_the_end_of_an_upload_that_may_come_from_something_on_the_way_leaves_it_unknown() {
    let busy = with(503, &[("retry-after", "900")], "");
    let part = Bytes::from_static(b"0123");
    for (offset, is_unknown) in [(0, false), (4, true)] {
        let (graph, script) = graph([put("data.example/up", busy.clone())]);
        let error = graph.put_fragment(&session(), offset, 8, part.clone()).await.expect_err("busy");
        assert_eq!(error.outcome_unknown(), is_unknown, "{offset}: {error:?}");
        script.done();
    }
    let (graph, script) = graph([step(Method::POST, "data.example/up", busy)]);
    let error = graph.commit_session(&session(), &Commit::Business).await.expect_err("busy");
    assert!(error.outcome_unknown(), "{error:?}");
    script.done();
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

#[tokio::test(start_paused = true)]
async fn a_copy_that_failed_says_why_whatever_its_status() {
    let failed = r#"{"status":"failed","error":{"code":"nameAlreadyExists"}}"#;
    for status in [200, 500] {
        let (graph, script) = graph([
            post("/copy?", with(202, &[("location", "https://monitor.example/1")], "")),
            get("https://monitor.example/1", json(status, failed)),
            get("https://monitor.example/1", json(500, "")),
        ]);
        let (to, folder) = (drive(), item("01Q"));
        let to = (&to, &folder);
        let monitor =
            graph.copy(&drive(), &item("01A"), to, None, ConflictBehavior::Fail).await.expect("begun");
        let told = graph.copy_status(&monitor).await.expect("told");
        assert_eq!(told, CopyStatus::Failed { code: "nameAlreadyExists".into() });
        assert!(matches!(graph.copy_status(&monitor).await, Err(GraphError::Server { .. })));
        script.done();
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_of_anything_that_changes_something_is_refused() {
    let away = || with(307, &[("location", "https://data.example/elsewhere")], "");
    let (graph, script) = graph([
        put("data.example/up", away()),
        post("data.example/up", away()),
        step(Method::DELETE, "data.example/up", away()),
    ]);
    let url = session();
    assert!(graph.put_fragment(&url, 0, 4, Bytes::from_static(b"0123")).await.is_err());
    assert!(graph.commit_session(&url, &Commit::Business).await.is_err());
    assert!(graph.cancel_session(&url).await.is_err());
    script.done();
}
