//! The rules of upload: simple PUT and sessions (graph-api 7).

mod emulator_support;

use std::time::Duration;

use emulator_support::{Client, FLAVOURS, UNIT, config};
use onedrivefs::emulator::{Edit, Flavour, Rewrite};
use serde_json::json;

const BUSINESS: [Flavour; 2] = [Flavour::Business, Flavour::DocumentLibrary];

fn range(start: usize, end: usize, total: usize) -> String {
    format!("bytes {start}-{end}/{total}")
}

#[tokio::test(start_paused = true)]
async fn a_fragment_that_breaks_a_rule_is_refused_with_its_status() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        let total = 4 * UNIT;
        let url = c.session("f.bin", json!({"@microsoft.graph.conflictBehavior": "replace"})).await;
        c.fragment(&url, 0, &vec![1; UNIT], total).await.ok(202);
        // status, inner code, Content-Range, length
        for (what, status, inner, header, len) in [
            ("no multiple of 320 KiB", 400, "fragmentLengthMismatch", range(UNIT, 2 * UNIT, total), UNIT + 1),
            ("received already", 416, "fragmentOverlap", range(0, UNIT - 1, total), UNIT),
            ("a gap", 400, "fragmentOutOfOrder", range(2 * UNIT, 3 * UNIT - 1, total), UNIT),
            ("another total", 400, "invalidRange", range(UNIT, 2 * UNIT - 1, total + 1), UNIT),
            ("beyond the total", 400, "invalidRange", range(UNIT, 5 * UNIT - 1, total), 4 * UNIT),
            (
                "length and range differ",
                400,
                "fragmentLengthMismatch",
                range(UNIT, 2 * UNIT - 1, total),
                UNIT - 1,
            ),
            ("malformed", 400, "invalidRange", "bytes x-y/z".into(), UNIT),
            ("backwards", 400, "invalidRange", range(UNIT, UNIT - 1, total), UNIT),
        ] {
            let answer = c.send("PUT", &url, &[("content-range", &header)], vec![0; len]).await;
            assert_eq!(answer.status, status, "{flavour:?} {what}");
            assert_eq!(answer.json()["error"]["innerError"]["code"], inner, "{flavour:?} {what}");
        }
        let none = c.send("PUT", &url, &[], vec![0; UNIT]).await;
        none.fails(400, "invalidRequest");
        let authorized = [("authorization", "Bearer t"), ("content-range", "bytes 327680-655359/1310720")];
        c.send("PUT", &url, &authorized, vec![0; UNIT]).await.fails(401, "unauthenticated");
        let status = c.send("GET", &url, &[], "").await.ok(200);
        assert_eq!(status["nextExpectedRanges"][0], format!("{UNIT}-{}", total - 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_fragment_of_sixty_mebibytes_is_too_large() {
    let c = Client::new(Flavour::Business);
    let url = c.session("f.bin", json!({})).await;
    let size = 60 << 20;
    let answer = c.fragment(&url, 0, &vec![0; size], 2 * size).await;
    answer.fails(413, "maxFragmentLengthExceeded");
    let largest = 191 * UNIT;
    c.fragment(&url, 0, &vec![0; largest], 2 * size).await.ok(202);
    c.control().switch(|s| s.fragment_limit = false);
    c.fragment(&url, largest, &vec![0; 2 * size - largest], 2 * size).await.ok(201);
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_session_is_checked() {
    let c = Client::new(Flavour::Business);
    for item in [
        json!({"@odata.type": "microsoft.graph.driveItemUploadableProperties"}),
        json!({"name": "other.bin"}),
        json!({"parentReference": {}}),
        json!({"@microsoft.graph.conflictBehavior": "overwrite"}),
        json!({"fileSystemInfo": {"lastModifiedDateTime": "yesterday"}}),
        json!({"fileSystemInfo": {"lastModifiedDateTime": "1850-01-01T00:00:00Z"}}),
    ] {
        let path = "/me/drive/root:/a.bin:/createUploadSession";
        let answer = c.json("POST", path, json!({"item": item})).await;
        answer.fails(400, "invalidRequest");
    }
    // The body is optional.
    c.graph("POST", "/me/drive/root:/a.bin:/createUploadSession", &[], "").await.ok(200);
}

#[tokio::test(start_paused = true)]
async fn a_declared_size_above_the_quota_is_507_at_once() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        c.control().set_quota(1000);
        let body = json!({"item": {"fileSize": 1001}});
        let path = "/me/drive/root:/a.bin:/createUploadSession";
        c.json("POST", path, body).await.fails(507, "quotaLimitReached");
        c.put("b.bin", vec![0; 1001]).await.fails(507, "quotaLimitReached");
        c.put("b.bin", vec![0; 1000]).await.ok(201);
        // Replacing needs room for the difference only.
        c.put("b.bin", vec![1; 1000]).await.ok(200);
        assert_eq!(c.get("/me/drive").await.ok(200)["quota"]["state"], "exceeded");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_session_for_a_name_is_409_on_business_until_the_first_ends() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        let first = c.session("a.bin", json!({})).await;
        let path = "/me/drive/root:/A.BIN:/createUploadSession";
        let second = c.json("POST", path, json!({})).await;
        if !BUSINESS.contains(&flavour) {
            second.ok(200);
            continue;
        }
        second.fails(409, "nameAlreadyExists");
        assert_eq!(c.send("DELETE", &first, &[], "").await.status, 204);
        c.json("POST", path, json!({})).await.ok(200);
        tokio::time::advance(Duration::from_secs(15 * 60 + 1)).await;
        c.json("POST", path, json!({})).await.ok(200);
    }
}

#[tokio::test(start_paused = true)]
async fn with_fail_a_taken_name_is_409_at_the_last_fragment_and_the_bytes_are_kept() {
    let c = Client::new(Flavour::Personal);
    let url = c.session("a.bin", json!({"@microsoft.graph.conflictBehavior": "fail"})).await;
    c.put("a.bin", "in the way").await.ok(201);
    c.fragment(&url, 0, b"mine", 4).await.fails(409, "nameAlreadyExists");
    c.send("GET", &url, &[], "").await.ok(200);
    let body = json!({"name": "b.bin", "@microsoft.graph.sourceUrl": url,
        "@microsoft.graph.conflictBehavior": "replace"});
    c.json("PUT", "/me/drive/root:/b.bin", body).await.ok(201);
    assert_eq!(c.control().content("b.bin").unwrap(), "mine");
    assert_eq!(c.control().content("a.bin").unwrap(), "in the way");
}

#[tokio::test(start_paused = true)]
async fn a_deferred_commit_waits_for_the_post_on_business() {
    let c = Client::new(Flavour::Business);
    let body = json!({"item": {}, "deferCommit": true});
    let session = c.json("POST", "/me/drive/root:/a.bin:/createUploadSession", body).await.ok(200);
    let url = session["uploadUrl"].as_str().unwrap();
    assert_eq!(c.send("POST", url, &[], "").await.status, 400);
    c.fragment(url, 0, b"abc", 3).await.ok(202);
    assert_eq!(c.control().content("a.bin"), None);
    c.send("POST", url, &[], "").await.ok(201);
    assert_eq!(c.control().content("a.bin").unwrap(), "abc");
}

#[tokio::test(start_paused = true)]
async fn an_upload_url_ends_after_a_day_on_business_and_slides_on_personal() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        let url = c.session("a.bin", json!({})).await;
        let total = 30 * UNIT;
        tokio::time::advance(Duration::from_secs(3600)).await;
        // Past the announced quarter of an hour it still works.
        c.fragment(&url, 0, &vec![0; UNIT], total).await.ok(202);
        tokio::time::advance(Duration::from_secs(24 * 3600)).await;
        let late = c.fragment(&url, UNIT, &vec![0; UNIT], total).await;
        if BUSINESS.contains(&flavour) {
            late.fails(401, "unauthenticated");
            continue;
        }
        late.ok(202);
        tokio::time::advance(Duration::from_secs(8 * 24 * 3600)).await;
        c.fragment(&url, 2 * UNIT, &vec![0; UNIT], total).await.fails(404, "itemNotFound");
    }
}

#[tokio::test(start_paused = true)]
async fn preconditions_hold_for_put_session_patch_and_delete() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        let old = c.put("a.txt", "1").await.ok(201);
        c.control().edit_as_other(&Edit::Write { path: "a.txt".into(), content: b"2".to_vec() }).unwrap();
        let new = c.get("/me/drive/root:/a.txt").await.ok(200);
        let path = format!("/me/drive/items/{}", new["id"].as_str().unwrap());
        for tag in [&old["eTag"], &old["cTag"]] {
            let stale = [("if-match", tag.as_str().unwrap()), ("content-type", "application/json")];
            c.graph("PUT", &format!("{path}/content"), &stale, "x").await.fails(412, "resourceModified");
            c.graph("PATCH", &path, &stale, r#"{"name":"b"}"#).await.fails(412, "resourceModified");
            c.graph("DELETE", &path, &stale, "").await.fails(412, "resourceModified");
            let session = c.graph("POST", &format!("{path}/createUploadSession"), &stale, "{}").await;
            session.fails(412, "resourceModified");
        }
        for tag in [new["eTag"].as_str().unwrap(), new["cTag"].as_str().unwrap(), "*"] {
            let good = [("if-match", tag), ("content-type", "application/json")];
            c.graph("PATCH", &path, &good, "{}").await.ok(200);
        }
        let cached = c.graph("GET", &path, &[("if-none-match", new["eTag"].as_str().unwrap())], "").await;
        assert_eq!(cached.status, 304);
        c.graph("PUT", "/me/drive/root:/none.txt:/content", &[("if-match", "*")], "x")
            .await
            .fails(412, "resourceModified");
    }
}

#[tokio::test(start_paused = true)]
async fn conflict_behaviour_of_a_put_comes_from_the_url() {
    for flavour in FLAVOURS {
        let c = Client::new(flavour);
        c.put("a.txt", "1").await.ok(201);
        let put = |what: &'static str| {
            let url = format!("/me/drive/root:/A.txt:/content?%40microsoft.graph.conflictBehavior={what}");
            let c = c.clone();
            async move { c.graph("PUT", &url, &[], "2").await }
        };
        put("fail").await.fails(409, "nameAlreadyExists");
        assert_eq!(put("rename").await.ok(201)["name"], "a 1.txt");
        assert_eq!(put("replace").await.ok(200)["name"], "a.txt");
        assert_eq!(put("nonsense").await.status, 400);
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_needs_its_length_and_respects_the_limit() {
    let mut config = config(Flavour::Business);
    config.simple_put_limit = 4 << 20;
    let c = Client::with(config);
    c.put("big", vec![0; (4 << 20) + 1]).await.fails(413, "maxFileSizeExceeded");
    c.put("big", vec![0; 4 << 20]).await.ok(201);
    let stream = http_body_util::StreamBody::new(futures_util::stream::empty());
    let body = http_body_util::BodyExt::boxed_unsync(stream);
    let headers = [("authorization", "Bearer t")];
    let answer = c.raw("PUT", "/v1.0/me/drive/root:/x:/content", &headers, body).await.unwrap();
    assert_eq!(answer.status(), 411);
}

#[tokio::test(start_paused = true)]
async fn the_session_switches_do_what_they_say() {
    let c = Client::new(Flavour::Business);
    c.control().switch(|s| (s.session_404_first, s.empty_final_body) = (1, true));
    let url = c.session("a.bin", json!({})).await;
    c.fragment(&url, 0, b"abc", 3).await.fails(404, "itemNotFound");
    let done = c.fragment(&url, 0, b"abc", 3).await;
    assert_eq!((done.status, done.body.len()), (201, 0));
    c.control().switch(|s| (s.session_404_first, s.refuse_file_size) = (0, true));
    let path = "/me/drive/root:/b.bin:/createUploadSession";
    c.json("POST", path, json!({"item": {"fileSize": 3}})).await.fails(400, "invalidRequest");
    let url = c.session("c.bin", json!({})).await;
    c.control().expire_sessions();
    c.fragment(&url, 0, b"abc", 3).await.fails(401, "unauthenticated");
}

#[tokio::test(start_paused = true)]
async fn a_library_rewrites_an_office_file_after_upload() {
    for (flavour, rewrites) in
        [(Flavour::Personal, false), (Flavour::Business, false), (Flavour::DocumentLibrary, true)]
    {
        let c = Client::new(flavour);
        let at_once = c.put("a.docx", "document").await.ok(201);
        c.put("a.txt", "text").await.ok(201);
        assert_eq!(at_once["size"], 8);
        tokio::time::advance(Duration::from_secs(3)).await;
        let later = c.get("/me/drive/root:/a.docx").await.ok(200);
        for key in ["size", "eTag", "cTag", "file"] {
            assert_eq!(later[key] != at_once[key], rewrites, "{flavour:?} {key}");
        }
        assert_eq!(later["lastModifiedBy"], at_once["lastModifiedBy"]);
        assert_eq!(c.get("/me/drive/root:/a.txt").await.ok(200)["size"], 4);
    }
    let c = Client::new(Flavour::Business);
    c.control().switch(|s| s.rewrite = Rewrite::AtOnce);
    assert_ne!(c.put("a.docx", "document").await.ok(201)["size"], 8);
}

#[tokio::test(start_paused = true)]
async fn a_broken_fragment_is_void_or_partly_kept() {
    for keep in [false, true] {
        let c = Client::new(Flavour::Business);
        c.control().switch(|s| s.keep_partial_fragment = keep);
        let url = c.session("a.bin", json!({})).await;
        let pieces = [Ok(vec![1u8; 1000]), Err(std::io::Error::other("gone"))];
        let frames = pieces.map(|p| p.map(|b| http_body::Frame::data(bytes::Bytes::from(b))));
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let body = http_body_util::BodyExt::boxed_unsync(body);
        let headers = [("content-range", "bytes 0-327679/655360"), ("content-length", "327680")];
        assert_eq!(c.raw("PUT", &url, &headers, body).await.unwrap().status(), 400);
        let status = c.send("GET", &url, &[], "").await.ok(200);
        let from = if keep { 1000 } else { 0 };
        let ranges = status["nextExpectedRanges"][0].as_str().unwrap().to_owned();
        assert!(ranges.starts_with(&format!("{from}-")), "{ranges}");
        // The end must be a multiple of 320 KiB, whatever the start.
        c.fragment(&url, from, &vec![1; UNIT - from], 2 * UNIT).await.ok(202);
        c.fragment(&url, UNIT, &vec![1; UNIT], 2 * UNIT).await.ok(201);
        assert_eq!(c.control().content("a.bin").unwrap(), vec![1; 2 * UNIT]);
    }
}
