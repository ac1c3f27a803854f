use super::*;

const BUSINESS: &str = r#"{
  "@odata.context": "x", "@microsoft.graph.downloadUrl": "https://data/x?tempauth=1",
  "createdBy": {"user": {"id": "u1", "displayName": "Ann"}},
  "createdDateTime": "2026-03-01T08:15:30Z",
  "eTag": "\"{7C9E6679-7425-40DE-944B-E07FC1F90AE7},3\"",
  "@odata.etag": "\"{7C9E6679-7425-40DE-944B-E07FC1F90AE7},3\"",
  "cTag": "\"c:{7C9E6679-7425-40DE-944B-E07FC1F90AE7},2\"",
  "id": "01LI6JDZDZM2PHYJLU3ZAJIS7AP7A7SCXH",
  "lastModifiedDateTime": "2026-03-01T09:00:00Z",
  "lastModifiedBy": {"application": {"id": "app", "displayName": "Tool"}, "user": {"id": "u2", "displayName": "Bob"}},
  "name": "report 1.txt", "size": 5,
  "parentReference": {"driveType": "business", "driveId": "b!ERER", "id": "01LI6JDZA4VOH7HSHRQVHKJG43HR6F2KQQ", "path": "/x"},
  "file": {"mimeType": "text/plain", "hashes": {"quickXorHash": "aCgDG9jwBgAAAAAABQAAAAAAAAA="}},
  "fileSystemInfo": {"createdDateTime": "2026-03-01T08:15:30Z", "lastModifiedDateTime": "2026-02-28T22:10:00Z"},
  "shared": {"scope": "users"}, "somethingNew": [1, {"x": null}]
}"#;

fn read(json: &str) -> RemoteItem {
    item(json.as_bytes()).expect("an item")
}

#[test]
fn a_business_file_is_read_in_full() {
    let found = read(BUSINESS);
    assert_eq!(found.kind, Some(ItemKind::File));
    assert_eq!(found.name.as_deref(), Some("report 1.txt"));
    assert_eq!(found.etag.as_ref().map(ETag::as_str), Some("\"{7C9E6679-7425-40DE-944B-E07FC1F90AE7},3\""));
    assert_eq!(found.ctag.as_ref().map(CTag::as_str), Some("\"c:{7C9E6679-7425-40DE-944B-E07FC1F90AE7},2\""));
    assert_eq!(found.size, Some(5));
    assert_eq!(
        found.mtime,
        Timestamp::parse_rfc3339("2026-02-28T22:10:00Z"),
        "the client's time, not the server's"
    );
    assert_eq!(found.hashes.quick_xor, quick_xor_from_base64("aCgDG9jwBgAAAAAABQAAAAAAAAA="));
    assert_eq!(found.drive, Some(DriveId::new("b!ERER")));
    assert_eq!(found.parent, Some(ItemId::new("01LI6JDZA4VOH7HSHRQVHKJG43HR6F2KQQ")));
    let by = found.last_modified_by.expect("someone");
    assert_eq!(
        (by.user.as_deref(), by.application.as_deref(), by.display_name.as_deref()),
        (Some("u2"), Some("app"), Some("Bob"))
    );
    assert!(found.download_url.is_some() && !found.deleted && !found.root && !found.malware);
}

#[test]
fn a_classic_personal_file_is_read_with_fractions_and_strong_hashes() {
    let found = read(
        r#"{"id":"2F9D11C0A1B2C3D4!107","eTag":"aMkY5","cTag":"aYzoy","lastModifiedDateTime":"2026-03-01T08:15:30.217Z",
        "parentReference":{"driveId":"2f9d11c0a1b2c3d4","id":"2F9D11C0A1B2C3D4!104","path":"/drive/root:/A"},
        "file":{"hashes":{"sha1Hash":"AAF4C61DDCC5E8A2DABEDE0F3B482CD9AEA9434D","crc32Hash":"86A61036",
        "sha256Hash":"2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824"}}}"#,
    );
    assert!(found.hashes.sha1.is_some() && found.hashes.sha256.is_some() && found.hashes.quick_xor.is_none());
    assert_eq!(found.mtime.map(Timestamp::subsec_nanos), Some(217_000_000));
    assert_eq!((found.name, found.size), (None, None));
}

#[test]
fn what_an_item_is_follows_from_its_facets() {
    let cases = [
        (r#"{"id":"1","file":{}}"#, Some(ItemKind::File)),
        (r#"{"id":"1","folder":{"childCount":3}}"#, Some(ItemKind::Folder)),
        (r#"{"id":"1","root":{}}"#, Some(ItemKind::Folder)),
        (r#"{"id":"1","package":{"type":"oneNote"}}"#, Some(ItemKind::Package)),
        (r#"{"id":"1","package":{"type":"oneNote"},"folder":{}}"#, Some(ItemKind::Package)),
        (
            r#"{"id":"1","remoteItem":{"id":"2","folder":{},"parentReference":{"driveId":"b!O"}}}"#,
            Some(ItemKind::Shortcut),
        ),
        (r#"{"id":"1","folder":null,"file":{"hashes":null}}"#, Some(ItemKind::File)),
        (r#"{"id":"1"}"#, None),
    ];
    for (json, kind) in cases {
        assert_eq!(read(json).kind, kind, "{json}");
    }
    let shortcut = read(cases[5].0);
    assert_eq!(shortcut.target, Some((DriveId::new("b!O"), ItemId::new("2"))));
}

#[test]
fn sites_and_shared_items_are_read_with_what_they_say() {
    let page = sites(
        br#"{"value":[{"id":"h,1,2","name":"team","displayName":"Team"},{"id":"h,3,4","name":"x","displayName":" "},
        {"id":"h,5,6"},{"displayName":"no id"}]}"#,
    );
    let names: Vec<String> = page.unwrap().entries.into_iter().map(|site| site.name).collect();
    assert_eq!(names, ["Team", "x", "h,5,6"]);
    let page = far_items(
        br#"{"value":[
        {"id":"s1","name":"mine","remoteItem":{"id":"F","name":"theirs","folder":{},
            "parentReference":{"driveId":"b!O","driveType":"business"}}},
        {"id":"s2","remoteItem":{"id":"G","name":"file","file":{},"parentReference":{"driveId":"ab12"}}},
        {"id":"s3","remoteItem":{"id":"H"}},
        {"id":"s4","folder":{}}]}"#,
    );
    let page = page.unwrap();
    assert_eq!((page.entries.len(), page.skipped), (2, 2), "what says too little is left out");
    let far = &page.entries[0];
    assert_eq!((far.name.as_str(), far.drive_type), ("mine", Some(DriveType::Business)));
    assert_eq!((&far.drive, &far.item, far.is_folder), (&DriveId::new("b!O"), &ItemId::new("F"), true));
    let far = &page.entries[1];
    assert_eq!((far.name.as_str(), far.drive_type, far.is_folder), ("file", None, false));
    assert!(far_item(br#"{"id":"1","folder":{}}"#).is_none(), "a folder leads nowhere");
}

#[test]
fn deleted_entries_need_nothing_but_their_id() {
    let found = read(
        r#"{"id":"01","deleted":{"state":"deleted"},"parentReference":{"driveId":"b!D","id":"01P"},
        "file":{"hashes":{"quickXorHash":"AAAAAAAAAAAAAAAAAAAAAAAAAAA="}}}"#,
    );
    assert!(found.deleted && found.hashes.is_empty() && found.name.is_none());
    assert!(read(r#"{"id":"01","deleted":{}}"#).deleted);
}

#[test]
fn the_zero_hash_is_the_hash_of_empty_content_only() {
    let json = |size: &str| {
        format!(
            r#"{{"id":"1","size":{size},"file":{{"hashes":{{"quickXorHash":"AAAAAAAAAAAAAAAAAAAAAAAAAAA="}}}}}}"#
        )
    };
    assert_eq!(read(&json("0")).hashes.quick_xor, Some([0; 20]));
    assert_eq!(read(&json("7")).hashes.quick_xor, None);
}

#[test]
fn odd_members_are_dropped_and_the_rest_is_kept() {
    let cases = [
        r#"{"id":"1","name":"n","file":{},"size":-7}"#,
        r#"{"id":"1","name":"n","file":{},"size":"many"}"#,
        r#"{"id":"1","name":"n","file":{},"size":1e40}"#,
        r#"{"id":"1","name":"n","file":{"hashes":[1]},"size":null}"#,
        r#"{"id":"1","name":"n","file":{},"eTag":7,"lastModifiedDateTime":"yesterday"}"#,
        r#"{"id":"1","name":"n","file":{},"name":"n"}"#,
        r#"{"id":"1","name":"n","file":{},"parentReference":"/drive/root:"}"#,
        r#"{"id":"1","name":"n","file":{},"fileSystemInfo":{"lastModifiedDateTime":{"x":1}}}"#,
    ];
    for json in cases {
        let found = read(json);
        assert_eq!((found.name.as_deref(), found.kind), (Some("n"), Some(ItemKind::File)), "{json}");
        assert_eq!((found.size, found.etag, found.mtime), (None, None, None), "{json}");
    }
    for json in ["", "[]", "null", "<html>", r#"{"name":"n"}"#, r#"{"id":""}"#, r#"{"id":7}"#] {
        assert!(item(json.as_bytes()).is_none(), "{json}");
    }
}

#[test]
fn tags_of_folders_do_not_claim_to_be_about_content() {
    let found = read(r#"{"id":"1","folder":{},"cTag":"\"c:{X},0\"","@odata.etag":"\"{X},1\""}"#);
    assert_eq!(found.ctag, None);
    assert_eq!(found.etag, Some(ETag::new("\"{X},1\"")));
}

#[test]
fn one_bad_entry_does_not_spoil_its_page() {
    let json = r#"{"value":[{"id":"1","size":"x","name":"a"},7,{"name":"no id"},{"id":"2"}],"@odata.nextLink":"https://n","new":1}"#;
    let page = items(json.as_bytes()).expect("a page");
    let ids: Vec<_> = page.entries.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!((ids, page.skipped), (vec!["1", "2"], 2));
    assert_eq!((page.next.as_deref(), page.delta), (Some("https://n"), None));
    let empty = items(br#"{"value":[],"@odata.deltaLink":"https://d"}"#).expect("an empty page is a page");
    assert_eq!(empty.delta.as_deref(), Some("https://d"));
    assert!(items(b"{}").is_none() && items(b"").is_none() && items(br#"{"value":{}}"#).is_none());
}

#[test]
fn error_codes_are_found_in_every_form_of_error_body() {
    let cases: &[(&str, &[&str])] = &[
        (
            r#"{"error":{"code":"itemNotFound","message":"x","innerError":{"date":"d","request-id":"r"}}}"#,
            &["itemNotFound"],
        ),
        (r#"{"error":{"code":"a","innerError":{"code":"b","innererror":{"code":"c"}}}}"#, &["a", "b", "c"]),
        (r#"{"error":{"code":"a","innererror":{"innerError":{"code":"c"}}}}"#, &["a", "c"]),
        (
            r#"{"error":{"code":"-2147024891, System.UnauthorizedAccessException","message":{"lang":"en-US","value":"v"}}}"#,
            &["-2147024891, System.UnauthorizedAccessException"],
        ),
        (r#"{"odata.error":{"code":"x","message":{"value":"v"}}}"#, &["x"]),
        (r#"{"error":"invalid_grant"}"#, &["invalid_grant"]),
        (r#"{"error":{"code":7}}"#, &[]),
        (r#"{"error":{"code":""}}"#, &[]),
        ("<html><body>Service Unavailable</body></html>", &[]),
        ("", &[]),
        ("null", &[]),
        ("[]", &[]),
    ];
    for (json, expected) in cases {
        assert_eq!(error_codes(json.as_bytes()), *expected, "{json}");
    }
    let deep = format!(
        "{}{{}}{}",
        r#"{"error":"#.to_owned() + &r#"{"code":"x","innerError":"#.repeat(60),
        "}".repeat(61)
    );
    assert!(error_codes(deep.as_bytes()).len() <= 16);
}

#[test]
fn sessions_are_read_with_and_without_ranges() {
    let found = session(br#"{"uploadUrl":"https://u","expirationDateTime":"2026-03-08T08:15:30.123Z","nextExpectedRanges":["100-200","50-"]}"#);
    let found = found.expect("a session");
    assert_eq!((found.url.as_deref(), found.missing), (Some("https://u"), Some(vec![50, 100])));
    assert!(found.expires.is_some());
    assert_eq!(session(b"{}"), Some(Session::default()));
    assert_eq!(session(br#"{"nextExpectedRanges":[]}"#).and_then(|found| found.missing), Some(vec![]));
    assert_eq!(session(br#"{"nextExpectedRanges":["x"]}"#), None, "nonsense must not become byte 0");
}

#[test]
fn an_unknown_space_is_not_a_full_drive() {
    let quota = |json: &str| drive(json.as_bytes()).expect("a drive").quota;
    assert_eq!(quota(r#"{"id":"d","driveType":"business"}"#), None);
    assert_eq!(quota(r#"{"id":"d","quota":{"total":0,"used":0,"remaining":0,"state":"normal"}}"#), None);
    let full =
        quota(r#"{"id":"d","quota":{"total":10,"used":10,"remaining":0,"state":"exceeded"}}"#).expect("told");
    assert!(full.exceeded && full.remaining == 0);
    let partial = quota(r#"{"id":"d","quota":{"total":10,"used":4,"remaining":-1}}"#).expect("told");
    assert_eq!(partial.remaining, 6);
}

#[test]
fn the_status_of_a_copy_is_in_its_body() {
    let read = |json: &str| copy_status(json.as_bytes());
    assert_eq!(
        read(r#"{"status":"inProgress","percentageComplete":27.8}"#),
        Some(CopyStatus::Running { percent: Some(27.8) })
    );
    assert_eq!(read(r#"{"status":"waiting"}"#), Some(CopyStatus::Running { percent: None }));
    assert_eq!(
        read(r#"{"status":"completed","resourceId":"01X"}"#),
        Some(CopyStatus::Done { item: Some(ItemId::new("01X")) })
    );
    assert_eq!(
        read(r#"{"status":"failed","error":{"code":"nameAlreadyExists"}}"#),
        Some(CopyStatus::Failed { code: "nameAlreadyExists".into() })
    );
    assert_eq!(read(""), None);
}

#[test]
fn what_is_sent_has_the_documented_form() {
    let time = Timestamp::parse_rfc3339("2026-02-28T22:10:00.9Z");
    assert_eq!(
        session_body(
            SessionFields { name: Some("b"), size: Some(7), mtime: time, btime: None },
            ConflictBehavior::Fail,
            false
        ),
        json!({"item": {"@microsoft.graph.conflictBehavior": "fail", "name": "b", "fileSize": 7,
            "fileSystemInfo": {"lastModifiedDateTime": "2026-02-28T22:10:00Z"}}})
    );
    assert_eq!(
        patch_body(Some("n"), Some(&ItemId::new("01P")), None, None, Some(ConflictBehavior::Replace)),
        json!({"name": "n", "parentReference": {"id": "01P"}, "@microsoft.graph.conflictBehavior": "replace"})
    );
    assert_eq!(
        mkdir_body("d", None),
        json!({"name": "d", "folder": {}, "@microsoft.graph.conflictBehavior": "fail"})
    );
    assert_eq!(patch_body(None, None, None, None, None), json!({}));
}
