//! Every call of the client against the emulator, on every flavour of drive.

mod graph_support;

use bytes::Bytes;
use graph_support::*;
use onedrivefs::emulator::{
    Edit, Fault, FaultAction, Flavour, LockShape, Mark, Resync, SiteConfig, Throttle,
};
use onedrivefs::graph::*;
use onedrivefs::model::{ByteRange, DriveType, ItemId, ItemKind, QuickXor, RemoteItem, Timestamp};

fn time(text: &str) -> Option<Timestamp> {
    Some(Timestamp::parse_rfc3339(text).expect("a time"))
}

fn fault(op: &str, action: FaultAction) -> Fault {
    Fault { method: None, path: None, op: Some(op.into()), skip: 0, count: Some(1), action }
}

fn etag(item: &RemoteItem) -> &str {
    item.etag.as_ref().expect("files have an eTag").as_str()
}

impl World {
    async fn put(&self, name: &str, content: &'static str) -> RemoteItem {
        let body = Bytes::from_static(content.as_bytes());
        self.graph
            .put_new(&self.drive, &self.root, name, body, ConflictBehavior::Fail)
            .await
            .unwrap_or_else(|error| panic!("{:?}: {name}: {error:?}", self.flavour))
    }

    async fn read(&self, item: &ItemId) -> Vec<u8> {
        let found = self.graph.item(&self.drive, item, P).await.expect("the item");
        let url = found.download_url.expect("files have an address");
        drain(self.graph.download(&url, None, P).await.expect("begun").body).await.expect("all of it")
    }

    async fn delta_round(&self, from: DeltaFrom) -> (Vec<RemoteItem>, PageLink) {
        let (mut from, mut items) = (from, Vec::new());
        loop {
            let page = self.graph.delta(&self.drive, &from, P).await.expect("a page");
            items.extend(page.items);
            match page.link {
                DeltaLink::Next(link) => from = DeltaFrom::Link(link),
                DeltaLink::Done(link) => return (items, link),
            }
        }
    }
}

// ---- drives ----

#[tokio::test(start_paused = true)]
async fn the_users_drive_is_found_with_its_type_and_space() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let found = world.graph.drive(&world.drive).await.expect("by id");
        let expected = match flavour {
            Flavour::Personal | Flavour::PersonalNew => DriveType::Personal,
            Flavour::Business => DriveType::Business,
            Flavour::DocumentLibrary => DriveType::DocumentLibrary,
        };
        assert_eq!((found.drive_type, found.id == world.drive), (expected, true), "{flavour:?}");
        let quota = found.quota.expect("space is told");
        assert!(quota.total > 0 && !quota.exceeded);
        let root = world.graph.root(&world.drive, P).await.expect("the root");
        assert!(root.root && root.kind == Some(ItemKind::Folder) && root.parent.is_none());
        world.control.switch(|switches| switches.zero_quota = true);
        assert_eq!(world.graph.drive(&world.drive).await.expect("by id").quota, None, "unknown is not full");
    }
}

#[tokio::test(start_paused = true)]
async fn libraries_are_found_by_site_and_name() {
    let world = World::with(Flavour::Business, |config| {
        config.sites = vec![SiteConfig {
            hostname: "contoso.sharepoint.com".into(),
            path: "sites/Team A".into(),
            display_name: "Team A".into(),
            libraries: vec!["Documents".into(), "Plans & more".into()],
        }];
    })
    .await;
    let resolve = async |text: &str| {
        let address = text.parse::<DriveAddress>().expect("an address");
        world.graph.find(&address).await.map(|found| found.drive)
    };
    let default = resolve("contoso.sharepoint.com:/sites/Team A").await.expect("the default library");
    let named = resolve("contoso.sharepoint.com:/sites/Team A:Plans & more").await.expect("by name");
    assert_eq!((default.name.as_str(), named.name.as_str()), ("Documents", "Plans & more"));
    assert_ne!(default.id, named.id);
    assert_eq!(resolve(named.id.as_str()).await.expect("by id").id, named.id);
    for absent in ["contoso.sharepoint.com:/sites/Team A:Nope", "contoso.sharepoint.com:/sites/Nope"] {
        assert!(matches!(resolve(absent).await, Err(FindError::Missing { .. })), "{absent}");
    }
}

/// A drive of one's own, one of somebody else, and a site with two libraries; a folder in each.
async fn company() -> World {
    let world = World::with(Flavour::Business, |config| {
        config.others_drives = 1;
        config.sites = vec![SiteConfig {
            hostname: "contoso.sharepoint.com".into(),
            path: "sites/Team".into(),
            display_name: "Team".into(),
            libraries: vec!["Documents".into(), "Plans & more".into()],
        }];
    })
    .await;
    for drive in world.control.drive_ids() {
        for path in ["Work", "Work/2026 (50%)", "Work/2026 (50%)/Q1"] {
            let edit = Edit::Mkdir { path: path.into() };
            world.control.edit_drive_as_other(&drive, &edit).expect("a folder");
        }
        let edit = Edit::Write { path: "Work/file".into(), content: b"x".as_slice().into() };
        world.control.edit_drive_as_other(&drive, &edit).expect("a file");
    }
    world
}

async fn found(world: &World, text: &str) -> std::result::Result<FoundDrive, FindError> {
    let address = text.parse::<DriveAddress>().unwrap_or_else(|_| panic!("{text}"));
    world.graph.find(&address).await
}

// S287.
#[tokio::test(start_paused = true)]
async fn every_way_to_write_a_drive_leads_to_the_drive_or_the_folder_that_is_meant() {
    let world = company().await;
    let [own, documents, plans, theirs] = world.control.drive_ids().try_into().expect("four drives");
    let link = world.control.link(&theirs, "Work").expect("a link");
    let below = format!("{link}:/2026 (50%)");
    for (text, drive, folder) in [
        ("me", &own, ""),
        (own.as_str(), &own, ""),
        ("ann@contoso.com", &own, ""),
        ("me:/Work/2026 (50%)/Q1", &own, "Work/2026 (50%)/Q1"),
        ("https://contoso-my.sharepoint.com/personal/ann_contoso_com/Documents/Work", &own, "Work"),
        (
            "https://contoso-my.sharepoint.com/personal/ann_contoso_com/_layouts/15/onedrive.aspx?id=%2Fpersonal%2Fann%5Fcontoso%5Fcom%2FDocuments%2FWork%2F2026%20%2850%25%29&ga=1",
            &own,
            "Work/2026 (50%)",
        ),
        ("https://contoso-my.sharepoint.com/", &own, ""),
        ("contoso.sharepoint.com:/sites/Team", &documents, ""),
        ("contoso.sharepoint.com:/sites/Team:/Work", &documents, "Work"),
        ("contoso.sharepoint.com:/sites/Team:plans & more:/Work", &plans, "Work"),
        ("https://contoso.sharepoint.com/sites/Team", &documents, ""),
        ("https://contoso.sharepoint.com/sites/Team/Shared%20Documents", &documents, ""),
        ("https://contoso.sharepoint.com/sites/team/shared%20documents/work", &documents, "Work"),
        ("https://contoso.sharepoint.com/sites/Team/Documents/Work", &documents, "Work"),
        (
            "https://contoso.sharepoint.com/sites/Team/Plans%20%26%20more/Forms/AllItems.aspx?RootFolder=%2Fsites%2FTeam%2FPlans%20%26%20more%2FWork",
            &plans,
            "Work",
        ),
        (
            "https://contoso.sharepoint.com/sites/Team/Plans%20%26%20more:/Work/2026 (50%)",
            &plans,
            "Work/2026 (50%)",
        ),
        ("group:Team", &documents, ""),
        ("group:team@contoso.com:/Work", &documents, "Work"),
        (link.as_str(), &theirs, "Work"),
        (below.as_str(), &theirs, "Work/2026 (50%)"),
    ] {
        let there = found(&world, text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(there.drive.id.as_str(), drive, "{text}");
        let expected = (!folder.is_empty()).then(|| world.control.id_in(drive, folder).expect("it is there"));
        assert_eq!(there.folder.map(|id| id.as_str().to_owned()), expected, "{text}");
    }
}

// S288.
#[tokio::test(start_paused = true)]
async fn an_address_that_leads_nowhere_says_where_it_ends() {
    let world = company().await;
    let theirs = world.control.drive_ids()[3].clone();
    for (text, words) in [
        ("me:/Work/Gone", "folder 'Gone'"),
        ("b!none", "drive with this id"),
        ("nobody@contoso.com", "drive of 'nobody@contoso.com'"),
        ("group:Nobody's", "group 'Nobody's'"),
        ("contoso.sharepoint.com:/sites/Gone", "site /sites/Gone at contoso.sharepoint.com"),
        ("contoso.sharepoint.com:/sites/Team:Gone", "there are: Documents, Plans & more"),
        ("https://contoso.sharepoint.com/sites/Team/Gone/x", "library at /sites/Team/Gone/x"),
    ] {
        let error = found(&world, text).await.expect_err(text);
        assert!(
            matches!(error, FindError::Missing { .. }) && error.to_string().contains(words),
            "{text}: {error}"
        );
    }
    for text in ["bob@contoso.com", theirs.as_str()] {
        let error = found(&world, text).await.expect_err(text);
        assert!(matches!(error, FindError::Refused { .. }), "{text}: {error}");
    }
    let error = found(&world, "me:/Work/file").await.expect_err("a file");
    assert!(matches!(error, FindError::NoFolder { .. }), "{error}");
    let link = world.control.link(&theirs, "Work/file").expect("a link");
    let error = found(&world, &link).await.expect_err("a file");
    assert!(matches!(error, FindError::NoFolder { .. }), "{error}");
    let link = world.control.link(&theirs, "Work").expect("a link");
    world.control.unlink(&theirs, "Work").expect("it was there");
    let error = found(&world, &link).await.expect_err("it has ended");
    assert!(matches!(error, FindError::Link { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("sharepoint"), "{error:?}");
}

// ---- items, listings ----

#[tokio::test(start_paused = true)]
async fn a_file_is_the_same_by_id_by_name_and_in_the_listing() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        for name in ["a.txt", "plan #1 (50% + tax) & 'more';=[x].txt", "日本語 é.txt", "%41.txt", "a+b.txt"]
        {
            let made = world.put(name, "hello").await;
            let by_id = world.graph.item(&world.drive, &made.id, P).await.expect("by id");
            let by_name = world.graph.child(&world.drive, &world.root, name, P).await.expect("by name");
            assert_eq!((by_id.id.clone(), by_id.name.as_deref()), (by_name.id, Some(name)), "{flavour:?}");
            assert_eq!((by_id.kind, by_id.size), (Some(ItemKind::File), Some(5)));
            assert_eq!(by_id.parent.as_ref(), Some(&world.root));
            assert_eq!(by_id.drive.as_ref(), Some(&world.drive));
            assert_eq!(by_id.hashes.quick_xor, Some(QuickXor::of(b"hello")), "{flavour:?}");
            let page = world.graph.children(&world.drive, &world.root, None, P).await.expect("a listing");
            let listed = page.items.into_iter().find(|item| item.id == made.id).expect("in the listing");
            assert_eq!((listed.name, listed.etag), (by_id.name, by_id.etag));
            assert!(listed.download_url.is_some(), "listings bring addresses");
            let upper = world.graph.child(&world.drive, &world.root, &name.to_uppercase(), P).await;
            assert_eq!(upper.expect("whatever its case").id, made.id);
        }
        let absent = world.graph.child(&world.drive, &world.root, "absent", P).await;
        assert!(matches!(absent, Err(GraphError::NotFound { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_listing_comes_in_pages_without_gaps() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        for number in 0..1203 {
            let path = format!("many/{number}");
            world.control.edit_as_other(&Edit::Write { path, content: Vec::new() }).expect("written");
        }
        world.control.switch(|switches| switches.empty_list_pages = true);
        let folder = ItemId::new(world.control.id_of("many").expect("the folder"));
        let (mut next, mut names, mut pages) = (None, std::collections::BTreeSet::new(), 0);
        loop {
            let page = world.graph.children(&world.drive, &folder, next.as_ref(), P).await.expect("a page");
            names.extend(page.items.into_iter().filter_map(|item| item.name));
            pages += 1;
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        assert!(names.len() == 1203 && pages >= 2, "{flavour:?}: {} names on {pages} pages", names.len());
    }
}

#[tokio::test(start_paused = true)]
async fn odd_items_are_what_they_are() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        for (path, mark) in
            [("bad.exe", Mark::Malware(true)), ("Book", Mark::OneNote(true)), ("plain", Mark::NoHash(true))]
        {
            let edit = match path {
                "Book" => Edit::Mkdir { path: path.into() },
                _ => Edit::Write { path: path.into(), content: b"x".to_vec() },
            };
            world.control.edit_as_other(&edit).expect("made");
            world.control.mark(path, mark).expect("marked");
        }
        let find =
            async |name: &str| world.graph.child(&world.drive, &world.root, name, P).await.expect("found");
        let bad = find("bad.exe").await;
        assert!(bad.malware && bad.download_url.is_none(), "{flavour:?}");
        assert_eq!(find("Book").await.kind, Some(ItemKind::Package));
        assert!(find("plain").await.hashes.is_empty());
        let content = world.graph.content_url(&world.drive, &bad.id, P).await;
        assert!(matches!(content, Err(GraphError::Malware { .. })), "{flavour:?}: {content:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shortcut_leads_to_another_drive() {
    let world = World::new(Flavour::Business).await;
    let other =
        world.control.drive_ids().into_iter().find(|id| id != world.drive.as_str()).expect("a library");
    let edit = Edit::Write { path: "Shared/inside.txt".into(), content: b"x".to_vec() };
    world.control.edit_drive_as_other(&other, &edit).expect("written");
    world.control.add_shortcut("Link", &other, "Shared").expect("linked");
    let page = world.graph.children(&world.drive, &world.root, None, P).await.expect("a listing");
    let link = page.items.into_iter().find(|item| item.name.as_deref() == Some("Link")).expect("shown");
    assert_eq!(link.kind, Some(ItemKind::Shortcut));
    let (drive, folder) = link.target.expect("leads somewhere");
    let inside = world.graph.children(&drive, &folder, None, P).await.expect("listed there");
    assert_eq!(inside.items[0].name.as_deref(), Some("inside.txt"));
}

// ---- delta ----

#[tokio::test(start_paused = true)]
async fn changes_come_by_delta_and_only_once() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let kept = world.put("kept.txt", "1").await;
        let gone = world.put("gone.txt", "2").await;
        let (all, link) = world.delta_round(DeltaFrom::Start).await;
        assert!(all.iter().any(|item| item.root) && all.iter().any(|item| item.id == kept.id), "{flavour:?}");
        let (nothing, _) = world.delta_round(DeltaFrom::Latest).await;
        assert!(nothing.is_empty());
        world
            .control
            .edit_as_other(&Edit::Move { path: "kept.txt".into(), to: "moved.txt".into() })
            .expect("moved");
        world.control.edit_as_other(&Edit::Delete { path: "gone.txt".into() }).expect("deleted");
        let (changes, link) = world.delta_round(DeltaFrom::Link(link)).await;
        let moved = changes.iter().rfind(|item| item.id == kept.id).expect("the rename");
        assert_eq!(moved.name.as_deref(), Some("moved.txt"));
        assert!(changes.iter().rfind(|item| item.id == gone.id).expect("the delete").deleted);
        let (nothing, _) = world.delta_round(DeltaFrom::Link(link)).await;
        assert!(nothing.iter().all(|item| item.root), "{flavour:?}: {nothing:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn delta_survives_duplicates_empty_pages_and_a_large_drive() {
    for flavour in FLAVOURS {
        let world = World::with(flavour, |config| {
            config.seed = onedrivefs::emulator::Seed::Synthetic { files: 1100, per_folder: 100, size: 1 };
            config.switches.delta_duplicates = true;
            config.switches.delta_empty_pages = true;
        })
        .await;
        let (all, _) = world.delta_round(DeltaFrom::Start).await;
        let files: std::collections::BTreeSet<_> =
            all.iter().filter(|item| item.kind == Some(ItemKind::File)).map(|item| item.id.clone()).collect();
        assert_eq!(files.len(), 1100, "{flavour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_delta_state_is_a_resync_in_each_of_its_forms() {
    use onedrivefs::emulator::ResyncLocation;
    let kinds = [
        (Resync::Plain, true),
        (Resync::ApplyDifferences, false),
        (Resync::UploadDifferences, true),
        (Resync::ChangesApplyDifferences, false),
        (Resync::ChangesUploadDifferences, true),
        (Resync::StateNotFound, true),
    ];
    for flavour in FLAVOURS {
        for (kind, keep_ours) in kinds {
            for place in [ResyncLocation::Usable, ResyncLocation::Missing] {
                let world = World::new(flavour).await;
                world.control.switch(|switches| switches.resync_location = place);
                let (_, link) = world.delta_round(DeltaFrom::Start).await;
                world.control.delta_resync(kind);
                match world.graph.delta(&world.drive, &DeltaFrom::Link(link), P).await {
                    Err(GraphError::Resync { location, upload_differences, .. }) => {
                        assert_eq!(upload_differences, keep_ours, "{flavour:?} {kind:?}");
                        assert_eq!(
                            location.is_some(),
                            place == ResyncLocation::Usable,
                            "{flavour:?} {kind:?}"
                        );
                        let from = location.map_or(DeltaFrom::Start, DeltaFrom::Link);
                        let (all, _) = world.delta_round(from).await;
                        assert!(all.iter().any(|item| item.root));
                    }
                    other => panic!("{flavour:?} {kind:?}: {other:?}"),
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cloud_without_delta_says_so() {
    let world = World::with(Flavour::Business, |config| config.switches.delta = false).await;
    let answer = world.graph.delta(&world.drive, &DeltaFrom::Start, P).await;
    assert!(matches!(answer, Err(GraphError::Unsupported { .. })), "{answer:?}");
}

// ---- download ----

#[tokio::test(start_paused = true)]
async fn content_comes_whole_in_parts_and_never_with_the_token() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        world
            .control
            .edit_as_other(&Edit::WritePattern { path: "big".into(), size: 100_000, seed: 3 })
            .expect("made");
        let expected = world.control.content("big").expect("its content");
        let item = world.graph.child(&world.drive, &world.root, "big", P).await.expect("found");
        let url = item.download_url.expect("an address");
        let part = world.graph.download(&url, Some(ByteRange::new(1000, 3000)), P).await.expect("a part");
        assert_eq!((part.range, part.total), (ByteRange::new(1000, 3000), Some(100_000)));
        if let Some(tag) = &part.etag {
            assert_eq!(Some(tag), item.etag.as_ref(), "{flavour:?}");
        }
        assert_eq!(drain(part.body).await.expect("its bytes"), expected[1000..3000]);
        let end =
            world.graph.download(&url, Some(ByteRange::new(99_999, 200_000)), P).await.expect("the end");
        assert_eq!(end.range, ByteRange::new(99_999, 100_000));
        let beyond = world.graph.download(&url, Some(ByteRange::new(100_000, 100_001)), P).await;
        assert!(matches!(beyond, Err(GraphError::RangeNotSatisfiable { .. })), "{beyond:?}");
        world.control.switch(|switches| switches.ignore_range = true);
        let whole = world.graph.download(&url, Some(ByteRange::new(1000, 3000)), P).await.expect("the whole");
        assert_eq!(whole.range, ByteRange::new(0, 100_000));
        assert_eq!(drain(whole.body).await.expect("its bytes"), expected);
        let requests = world.control.requests();
        assert!(requests.iter().filter(|seen| seen.op == "download").all(|seen| !seen.authorized));
        let again = world.graph.content_url(&world.drive, &item.id, P).await.expect("another address");
        let body = world.graph.download(&again, None, P).await.expect("begun").body;
        assert_eq!(drain(body).await.expect("its bytes"), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_file_has_empty_content() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let made = world.put("empty", "").await;
        assert_eq!(made.size, Some(0));
        assert!(world.read(&made.id).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_address_is_told_and_another_one_works() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let made = world.put("a", "hello").await;
        let url = world
            .graph
            .item(&world.drive, &made.id, P)
            .await
            .expect("found")
            .download_url
            .expect("an address");
        world.control.expire_download_urls();
        let expired = world.graph.download(&url, None, P).await;
        assert!(matches!(expired, Err(GraphError::UrlExpired { .. })), "{flavour:?}: {expired:?}");
        assert_eq!(world.read(&made.id).await, b"hello");
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_breaks_off_ends_in_an_error() {
    let world = World::new(Flavour::Business).await;
    let made = world.put("a", "hello").await;
    for action in [
        FaultAction::ResetBody { at: 2 },
        FaultAction::TruncateBody { at: 2 },
        FaultAction::StallBody { at: 2 },
    ] {
        let url = world
            .graph
            .item(&world.drive, &made.id, P)
            .await
            .expect("found")
            .download_url
            .expect("an address");
        world.control.inject(fault("download", action.clone()));
        let download = world.graph.download(&url, None, P).await.expect("begun");
        assert!(drain(download.body).await.is_err(), "{action:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn earlier_versions_are_listed_read_and_restored() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let made = world.put("v.bin", "one").await;
        world
            .graph
            .put_replace(&world.drive, &made.id, Bytes::from_static(b"three"), None)
            .await
            .expect("replaced");
        let versions = world.graph.versions(&world.drive, &made.id, P).await.expect("versions");
        let sizes: Vec<_> = versions.iter().map(|version| version.size).collect();
        assert_eq!(sizes, [Some(5), Some(3)], "{flavour:?}");
        let old = &versions[1].id;
        let body =
            world.graph.version_download(&world.drive, &made.id, old, None, P).await.expect("begun").body;
        assert_eq!(drain(body).await.expect("its bytes"), b"one");
        world.graph.restore_version(&world.drive, &made.id, old).await.expect("restored");
        assert_eq!(world.read(&made.id).await, b"one");
    }
}

// ---- upload ----

#[tokio::test(start_paused = true)]
async fn small_files_are_made_and_replaced_under_their_conditions() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let made = world.put("a.bin", "one").await;
        let body = Bytes::from_static(b"other");
        let taken = world
            .graph
            .put_new(&world.drive, &world.root, "A.BIN", body.clone(), ConflictBehavior::Fail)
            .await;
        assert!(matches!(taken, Err(GraphError::Exists { .. })), "{flavour:?}: {taken:?}");
        let second = world
            .graph
            .put_new(&world.drive, &world.root, "a.bin", body.clone(), ConflictBehavior::Rename)
            .await;
        let second = second.expect("under another name");
        assert!(second.id != made.id && second.name.as_deref() != Some("a.bin"));
        let replaced = world.graph.put_replace(&world.drive, &made.id, body.clone(), Some(etag(&made))).await;
        let replaced = replaced.expect("replaced");
        assert_eq!((&replaced.id, replaced.size), (&made.id, Some(5)));
        assert_ne!(replaced.etag, made.etag);
        let stale = world.graph.put_replace(&world.drive, &made.id, body, Some(etag(&made))).await;
        assert!(matches!(stale, Err(GraphError::PreconditionFailed { .. })), "{flavour:?}: {stale:?}");
    }
}

async fn send(world: &World, target: UploadTarget, content: &Bytes, wanted: u64) -> RemoteItem {
    let total = content.len() as u64;
    let spec = SessionSpec { size: total, mtime: time("2020-02-03T04:05:06Z"), ..SessionSpec::default() };
    let made = world.graph.create_session(&world.drive, &target, &spec).await.expect("a session");
    let mut next = made.next;
    loop {
        let len = fragment_len(next, total, wanted, FRAGMENT_UNIT);
        let part = content.slice(next as usize..(next + len) as usize);
        match world.graph.put_fragment(&made.url, next, total, part).await.expect("taken") {
            FragmentOutcome::More { next: more } => next = more,
            FragmentOutcome::Done(Some(item)) => {
                if made.mtime_applied {
                    assert_eq!(item.mtime, spec.mtime, "{:?}", world.flavour);
                }
                return *item;
            }
            FragmentOutcome::Done(None) => {
                return world.graph.child(&world.drive, &world.root, "big", P).await.expect("it is there");
            }
        }
    }
}

fn new_target(world: &World, conflict: ConflictBehavior) -> UploadTarget {
    UploadTarget::New { parent: world.root.clone(), name: "big".into(), conflict }
}

#[tokio::test(start_paused = true)]
async fn large_files_go_up_in_fragments_whatever_the_service_refuses_at_first() {
    type Turn = fn(&mut onedrivefs::emulator::Switches);
    let turns: [Turn; 6] = [
        |_| {},
        |switches| switches.refuse_session_times = true,
        |switches| switches.refuse_file_size = true,
        |switches| switches.refuse_session_by_id = true,
        |switches| switches.session_404_first = 2,
        |switches| switches.empty_final_body = true,
    ];
    let content = ramp(1_000_000);
    for flavour in FLAVOURS {
        for turn in turns {
            let world = World::new(flavour).await;
            world.control.switch(turn);
            let made = send(&world, new_target(&world, ConflictBehavior::Fail), &content, FRAGMENT).await;
            assert_eq!(made.hashes.quick_xor, Some(QuickXor::of(&content)), "{flavour:?}");
            let shorter = content.slice(..700_000);
            let target =
                UploadTarget::Replace { item: made.id.clone(), if_match: Some(etag(&made).to_owned()) };
            let replaced = send(&world, target, &shorter, FRAGMENT).await;
            assert_eq!((&replaced.id, replaced.size), (&made.id, Some(700_000)), "{flavour:?}");
            assert_eq!(world.read(&made.id).await, shorter);
            let data: Vec<_> =
                world.control.requests().into_iter().filter(|seen| seen.op == "upload.fragment").collect();
            assert!(!data.is_empty() && data.iter().all(|seen| !seen.authorized && seen.if_match.is_none()));
        }
    }
}

const FRAGMENT: u64 = 320 << 10;

#[tokio::test(start_paused = true)]
async fn a_session_is_resumed_where_the_service_says() {
    let content = ramp(1_000_000);
    for flavour in FLAVOURS {
        for keep in [false, true] {
            let world = World::new(flavour).await;
            world.control.switch(|switches| switches.keep_partial_fragment = keep);
            let spec = SessionSpec { size: 1_000_000, ..SessionSpec::default() };
            let target = new_target(&world, ConflictBehavior::Fail);
            let made = world.graph.create_session(&world.drive, &target, &spec).await.expect("a session");
            let first = content.slice(..FRAGMENT as usize);
            world.graph.put_fragment(&made.url, 0, 1_000_000, first.clone()).await.expect("taken");
            let twice = world.graph.put_fragment(&made.url, 0, 1_000_000, first).await;
            assert!(matches!(twice, Err(GraphError::FragmentRange { .. })), "{flavour:?}: {twice:?}");
            world.control.inject(fault("upload.fragment", FaultAction::Reset { after: false }));
            let part = content.slice(FRAGMENT as usize..2 * FRAGMENT as usize);
            let lost =
                world.graph.put_fragment(&made.url, FRAGMENT, 1_000_000, part).await.expect_err("lost");
            assert!(lost.outcome_unknown(), "{lost:?}");
            let mut next = world.graph.session_status(&made.url).await.expect("its status").next;
            assert!((FRAGMENT..2 * FRAGMENT).contains(&next), "{flavour:?} {keep}: {next}");
            let item = loop {
                let len = fragment_len(next, 1_000_000, FRAGMENT, FRAGMENT_UNIT);
                let part = content.slice(next as usize..(next + len) as usize);
                match world.graph.put_fragment(&made.url, next, 1_000_000, part).await.expect("taken") {
                    FragmentOutcome::More { next: more } => next = more,
                    FragmentOutcome::Done(item) => break item.expect("the item"),
                }
            };
            assert_eq!(world.read(&item.id).await, content);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_end_are_cancelled_and_stand_in_each_others_way() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let spec = SessionSpec { size: 1_000_000, ..SessionSpec::default() };
        let target = new_target(&world, ConflictBehavior::Fail);
        let first = world.graph.create_session(&world.drive, &target, &spec).await.expect("a session");
        let second = world.graph.create_session(&world.drive, &target, &spec).await;
        match second {
            Ok(second) => {
                assert!(!world.is_business());
                world.graph.cancel_session(&second.url).await.expect("cancelled");
            }
            Err(error) => {
                assert!(matches!(error, GraphError::SessionConflict { .. }), "{flavour:?}: {error:?}");
            }
        }
        world.graph.cancel_session(&first.url).await.expect("cancelled");
        world.graph.cancel_session(&first.url).await.expect("again");
        let gone = world.graph.session_status(&first.url).await;
        assert!(matches!(gone, Err(GraphError::SessionGone { .. })), "{flavour:?}: {gone:?}");
        let third = world.graph.create_session(&world.drive, &target, &spec).await.expect("free again");
        world.control.expire_sessions();
        let part = ramp(FRAGMENT as usize);
        let expired = world.graph.put_fragment(&third.url, 0, 1_000_000, part).await;
        assert!(matches!(expired, Err(GraphError::SessionGone { .. })), "{flavour:?}: {expired:?}");
        world.put("big", "x").await;
        let taken = world.graph.create_session(&world.drive, &target, &spec).await;
        if let Err(error) = taken {
            assert!(matches!(error, GraphError::Exists { .. }), "{flavour:?}: {error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deferred_session_changes_the_item_only_when_it_is_committed() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let content = ramp(400_000);
        let spec = SessionSpec { size: 400_000, defer_commit: true, ..SessionSpec::default() };
        let target = new_target(&world, ConflictBehavior::Fail);
        let made = world.graph.create_session(&world.drive, &target, &spec).await.expect("a session");
        let sent = world.graph.put_fragment(&made.url, 0, 400_000, content.clone()).await.expect("taken");
        assert!(matches!(sent, FragmentOutcome::More { .. }), "{flavour:?}: {sent:?}");
        let before = world.graph.child(&world.drive, &world.root, "big", P).await;
        assert!(matches!(before, Err(GraphError::NotFound { .. })), "{flavour:?}: {before:?}");
        let how = match world.is_business() {
            true => Commit::Business,
            false => Commit::Personal {
                drive: world.drive.clone(),
                parent: world.root.clone(),
                name: "big".into(),
                conflict: ConflictBehavior::Fail,
                if_match: None,
            },
        };
        world
            .graph
            .commit_session(&made.url, &how)
            .await
            .unwrap_or_else(|error| panic!("{flavour:?}: {error:?}"));
        let item = world.graph.child(&world.drive, &world.root, "big", P).await.expect("there");
        assert_eq!(world.read(&item.id).await, content);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_drive_refuses_content_in_every_way() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        world.control.set_quota(10);
        let body = ramp(100);
        let put = world.graph.put_new(&world.drive, &world.root, "a", body, ConflictBehavior::Fail).await;
        assert!(matches!(put, Err(GraphError::QuotaExceeded { .. })), "{flavour:?}: {put:?}");
        let spec = SessionSpec { size: 1_000_000, ..SessionSpec::default() };
        let session = world
            .graph
            .create_session(&world.drive, &new_target(&world, ConflictBehavior::Fail), &spec)
            .await;
        assert!(matches!(session, Err(GraphError::QuotaExceeded { .. })), "{flavour:?}: {session:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_locked_file_is_locked_in_each_shape() {
    for flavour in FLAVOURS {
        for shape in [LockShape::EditedByAnother, LockShape::LockToken, LockShape::ResourceLocked] {
            let world = World::new(flavour).await;
            let made = world.put("a.docx", "x").await;
            world.control.mark("a.docx", Mark::Lock(Some(shape))).expect("locked");
            let body = Bytes::from_static(b"new");
            let put = world.graph.put_replace(&world.drive, &made.id, body, None).await;
            assert!(matches!(put, Err(GraphError::Locked { .. })), "{flavour:?} {shape:?}: {put:?}");
        }
    }
}

// ---- other changes ----

#[tokio::test(start_paused = true)]
async fn folders_are_made_once() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let made = world.graph.mkdir(&world.drive, &world.root, "Dir", time("2020-02-03T04:05:06Z")).await;
        let made = made.unwrap_or_else(|error| panic!("{flavour:?}: {error:?}"));
        assert_eq!((made.kind, made.ctag), (Some(ItemKind::Folder), None));
        for name in ["Dir", "DIR"] {
            let again = world.graph.mkdir(&world.drive, &world.root, name, None).await;
            assert!(matches!(again, Err(GraphError::Exists { .. })), "{flavour:?}: {again:?}");
        }
        let refused = world.graph.mkdir(&world.drive, &world.root, "a:b", None).await;
        assert!(
            matches!(refused, Err(GraphError::NameRefused { .. } | GraphError::Invalid { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn items_are_renamed_moved_and_dated_in_one_request() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let made = world.put("a.txt", "hello").await;
        let folder = world.graph.mkdir(&world.drive, &world.root, "Dir", None).await.expect("a folder");
        let patch = Patch {
            name: Some("B #1.txt".into()),
            parent: Some(folder.id.clone()),
            mtime: time("2020-02-03T04:05:06Z"),
            ..Patch::default()
        };
        let moved = world
            .graph
            .update(&world.drive, &made.id, &patch, Some(etag(&made)), ConflictBehavior::Fail)
            .await;
        let moved = moved.unwrap_or_else(|error| panic!("{flavour:?}: {error:?}"));
        assert_eq!((&moved.id, moved.name.as_deref()), (&made.id, Some("B #1.txt")));
        assert_eq!((moved.parent.as_ref(), moved.mtime), (Some(&folder.id), patch.mtime));
        let stale = world
            .graph
            .update(&world.drive, &made.id, &patch, Some(etag(&made)), ConflictBehavior::Fail)
            .await;
        assert!(matches!(stale, Err(GraphError::PreconditionFailed { .. })), "{flavour:?}: {stale:?}");
        let other = world.put("c.txt", "x").await;
        let clash =
            Patch { name: Some("b #1.TXT".into()), parent: Some(folder.id.clone()), ..Patch::default() };
        let taken = world.graph.update(&world.drive, &other.id, &clash, None, ConflictBehavior::Fail).await;
        assert!(matches!(taken, Err(GraphError::Exists { .. })), "{flavour:?}: {taken:?}");
        let back = Patch { name: Some("b #1.TXT".into()), ..Patch::default() };
        let cased = world.graph.update(&world.drive, &made.id, &back, None, ConflictBehavior::Fail).await;
        assert_eq!(cased.expect("only its case").name.as_deref(), Some("b #1.TXT"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rename_over_a_file_replaces_it_where_the_flavour_can() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let (from, _to) = (world.put("from", "new").await, world.put("to", "old").await);
        let patch = Patch { name: Some("to".into()), ..Patch::default() };
        match world.graph.update(&world.drive, &from.id, &patch, None, ConflictBehavior::Replace).await {
            Ok(moved) => assert_eq!(world.read(&moved.id).await, b"new"),
            Err(error) => assert!(
                matches!(error, GraphError::Exists { .. }) && world.is_business(),
                "{flavour:?}: {error:?}"
            ),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn items_are_deleted_under_their_conditions_and_restored_where_possible() {
    for flavour in FLAVOURS {
        let world = World::new(flavour).await;
        let made = world.put("a", "hello").await;
        world
            .control
            .edit_as_other(&Edit::Write { path: "a".into(), content: b"theirs".to_vec() })
            .expect("written");
        let stale = world.graph.delete(&world.drive, &made.id, Some(etag(&made))).await;
        assert!(matches!(stale, Err(GraphError::PreconditionFailed { .. })), "{flavour:?}: {stale:?}");
        assert_eq!(world.graph.delete(&world.drive, &made.id, None).await.expect("deleted"), Deleted::Done);
        assert_eq!(
            world.graph.delete(&world.drive, &made.id, None).await.expect("gone"),
            Deleted::AlreadyGone
        );
        match world.graph.restore(&world.drive, &made.id, None, None).await {
            Ok(back) => {
                assert!(!world.is_business());
                assert_eq!((back.id, back.name.as_deref()), (made.id, Some("a")));
            }
            Err(error) => assert!(
                world.is_business()
                    && matches!(error, GraphError::Unsupported { .. } | GraphError::NotFound { .. }),
                "{flavour:?}: {error:?}"
            ),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_on_the_service_ends_with_a_new_item() {
    for flavour in FLAVOURS {
        let world =
            World::with(flavour, |config| config.copy_duration = std::time::Duration::from_secs(3)).await;
        let made = world.put("a", "hello").await;
        let to = (&world.drive, &world.root);
        let monitor = world.graph.copy(&world.drive, &made.id, to, Some("b"), ConflictBehavior::Fail).await;
        let monitor = monitor.unwrap_or_else(|error| panic!("{flavour:?}: {error:?}"));
        let mut polls = 0;
        loop {
            match world.graph.copy_status(&monitor).await.expect("known") {
                CopyStatus::Running { .. } => tokio::time::sleep(std::time::Duration::from_secs(1)).await,
                CopyStatus::Done { .. } => break,
                CopyStatus::Failed { code } => panic!("{flavour:?}: {code}"),
            }
            polls += 1;
            assert!(polls < 10);
        }
        let copy = world.graph.child(&world.drive, &world.root, "b", P).await.expect("the copy");
        assert_eq!(world.read(&copy.id).await, b"hello");
    }
}

#[tokio::test(start_paused = true)]
async fn the_push_channel_is_given_or_passingly_refused() {
    let world = World::new(Flavour::Business).await;
    let channel = world.graph.push_channel(&world.drive).await.expect("a channel");
    assert!(channel.expose().contains("://"));
    world.control.switch(|switches| switches.socket_io = false);
    let refused = world.graph.push_channel(&world.drive).await;
    assert!(matches!(refused, Err(GraphError::Unsupported { .. })), "{refused:?}");
}

// ---- the rules of every call ----

#[tokio::test(start_paused = true)]
async fn expired_tokens_are_replaced_without_the_caller_noticing() {
    for challenge in [false, true] {
        let world = World::new(Flavour::Business).await;
        world.control.switch(|switches| switches.claims_challenge = challenge);
        world.control.expire_tokens();
        world.put("a", "hello").await;
        assert_eq!(world.control.content("a").as_deref(), Some(b"hello".as_slice()));
    }
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_through_throttling_and_nothing_is_done_twice() {
    let forms = [None, Some("2"), Some("1.5"), Some("")];
    for status in [429, 503, 509] {
        for retry_after in forms {
            if status == 503 && retry_after == Some("") {
                continue;
            }
            let world = World::new(Flavour::Business).await;
            let retry_after = retry_after.map(str::to_owned);
            world.control.set_throttle(Some(Throttle { limit: 3, window_ms: 4000, status, retry_after }));
            for number in 0..8 {
                let made = world
                    .graph
                    .mkdir(&world.drive, &world.root, &format!("d{number}"), None)
                    .await
                    .unwrap_or_else(|error| panic!("{status}: {error:?}"));
                assert_eq!(made.kind, Some(ItemKind::Folder));
            }
            assert!(world.graph.counters().throttled > 0, "{status}");
            world.control.set_throttle(None);
            let page = world.graph.children(&world.drive, &world.root, None, P).await.expect("a listing");
            assert_eq!(page.items.len(), 8);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_after_the_change_is_an_unknown_outcome() {
    for action in [FaultAction::Reset { after: true }, FaultAction::Stall { after: true }] {
        let world = World::new(Flavour::Business).await;
        world.control.inject(fault("folder.create", action.clone()));
        let error = world.graph.mkdir(&world.drive, &world.root, "d", None).await.expect_err("no answer");
        assert!(error.outcome_unknown(), "{action:?}: {error:?}");
        world.control.clear_faults();
        world.control.release_stalls();
        assert!(
            !world
                .graph
                .children(&world.drive, &world.root, None, P)
                .await
                .expect("a listing")
                .items
                .is_empty()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn reads_go_on_through_every_passing_failure() {
    let status =
        |status| FaultAction::Status { status, code: None, inner: None, retry_after: None, after: false };
    let actions = [
        status(500),
        status(502),
        status(503),
        status(504),
        FaultAction::Html { status: 503 },
        FaultAction::Reset { after: false },
        FaultAction::Stall { after: false },
        FaultAction::ResetBody { at: 10 },
        FaultAction::StallBody { at: 10 },
    ];
    for action in actions {
        let world = World::new(Flavour::Personal).await;
        world.control.inject(Fault { op: None, ..fault("", action.clone()) });
        world.graph.root(&world.drive, P).await.unwrap_or_else(|error| panic!("{action:?}: {error:?}"));
    }
}
