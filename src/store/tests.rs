use super::*;
use crate::model::{ContentVersion, ETag, Timestamp};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn view(item: &str, parent: NodeId, name: &str) -> RemoteView {
    RemoteView {
        item: ItemId::new(item),
        parent: Some(parent),
        name: name.into(),
        version: ContentVersion { etag: Some(ETag::new("e1")), size: Some(5), ..ContentVersion::default() },
        mtime: Some(Timestamp(7)),
        btime: None,
        malware: false,
        actual_size: None,
    }
}

fn local(parent: NodeId, name: &str) -> LocalView {
    LocalView {
        parent,
        name: name.into(),
        deleted: false,
        content: None,
        size: 0,
        mtime: Timestamp(9),
        mtime_set: false,
        seal: None,
        changed_at: Timestamp(9),
        changed_seq: 1,
        parked: None,
        tries: 0,
        retry_at: Timestamp(0),
        local_only: false,
    }
}

fn file(tx: &mut Tx<'_>, item: &str, parent: NodeId, name: &str) -> Result<NodeId, StoreError> {
    let id = tx.insert(NodeKind::File)?;
    tx.set_remote(id, Some(&view(item, parent, name)))?;
    Ok(id)
}

#[test]
fn reading_what_is_unsent_does_not_go_through_every_node() {
    let (_dir, store) = store();
    let plan: Vec<String> = store
        .reader(|db| {
            db.prepare(&format!("EXPLAIN QUERY PLAN {} {}", rows::NODE, rows::DIRTY))?
                .query_map([], |row| row.get(3))?
                .collect()
        })
        .unwrap();
    assert!(plan.iter().all(|step| !step.starts_with("SCAN n")), "{plan:?}");
}

#[test]
fn a_statement_is_made_once_however_often_it_is_run() {
    let (_dir, store) = store();
    let children = format!("{} {}", rows::NODE, rows::CHILDREN_AFTER);
    let of_some_rows = "SELECT id FROM nodes WHERE parent = ?1 AND want = ?2 AND id <> ?3".to_owned();
    for connection in [&store.writer, &store.readers[0], &store.inspector] {
        for sql in [&children, &of_some_rows] {
            let db = lock(connection);
            let mut statement = db.prepare(sql).unwrap();
            for number in 1..5 {
                let mut found = statement.query([number, 1, number]).unwrap();
                assert!(found.next().unwrap().is_none());
            }
            assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0, "{sql}");
        }
    }
}

#[test]
fn a_look_at_several_things_is_of_one_moment_and_holds_up_no_change() {
    let (_dir, store) = store();
    let seen = store
        .inspect(|look| {
            let before = look.find(NodeId::ROOT)?.map(|root| root.id);
            let (done, wait) = std::sync::mpsc::channel();
            let changed = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let made = store.write(Durability::Process, |tx| file(tx, "I1", NodeId::ROOT, "a.txt"));
                    done.send(made.expect("a change")).expect("somebody waits");
                });
                wait.recv_timeout(Duration::from_secs(60)).expect("the change waits for the look")
            });
            Ok((before, look.find(changed)?.is_some()))
        })
        .unwrap();
    assert_eq!(seen, (Some(NodeId::ROOT), false));
    let refused = store.inspect(|tx| file(tx, "I2", NodeId::ROOT, "b.txt"));
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
}

#[test]
fn what_is_visible_is_counted_as_it_comes_and_goes() {
    let (dir, store) = store();
    let agrees = |store: &Store, expected: u64| {
        let sql = "SELECT count(*) FROM nodes WHERE parent IS NOT NULL";
        let counted = store.inspect(|tx| Ok(tx.db.query_row(sql, [], |row| row.get::<_, i64>(0))?)).unwrap();
        assert_eq!((store.count().unwrap(), counted as u64), (expected, expected));
    };
    agrees(&store, 0);
    let (first, second) = store
        .write(Durability::Process, |tx| {
            let first = file(tx, "I1", NodeId::ROOT, "a.txt")?;
            // One that has to step aside, one that is not described, and one that is new to an enumeration.
            let second = file(tx, "I2", NodeId::ROOT, "a.txt")?;
            tx.node_of_item(&ItemId::new("I3"))?;
            assert!(tx.introduce(NodeKind::File, &view("I4", NodeId::ROOT, "b.txt"), None, 1)?);
            Ok((first, second))
        })
        .unwrap();
    agrees(&store, 3);
    let gone = LocalView { deleted: true, ..local(NodeId::ROOT, "a.txt") };
    store.write(Durability::Process, |tx| tx.set_local(first, Some(&gone))).unwrap();
    agrees(&store, 2);
    store.write(Durability::Process, |tx| tx.remove(first)).unwrap();
    store.write(Durability::Process, |tx| tx.remove(second)).unwrap();
    agrees(&store, 1);
    let undone = store.write(Durability::Process, |tx| {
        file(tx, "I5", NodeId::ROOT, "c.txt")?;
        Err::<(), _>(StoreError::NoNode(NodeId(99)))
    });
    assert!(undone.is_err());
    drop(store);
    agrees(&Store::open(dir.path()).unwrap(), 1);
}

#[test]
fn the_folders_of_a_large_drive_are_marked_in_pieces_and_none_is_left_out() {
    let (_dir, store) = store();
    let last = store
        .write(Durability::Process, |tx| {
            (0..20_100).try_fold(NodeId::ROOT, |_, _| tx.insert(NodeKind::Folder))
        })
        .unwrap();
    assert!(!store.node(last).unwrap().unwrap().listed);
    let (mut from, mut pieces) = (Some(NodeId(0)), 0);
    while let Some(here) = from {
        from = store.write(Durability::Process, |tx| tx.set_listed_from(here)).unwrap();
        pieces += 1;
    }
    assert_eq!(pieces, 2);
    assert!(store.node(last).unwrap().unwrap().listed && store.node(NodeId::ROOT).unwrap().unwrap().listed);
    let left = "SELECT count(*) FROM nodes WHERE kind = 2 AND listed = 0";
    assert_eq!(store.inspect(|tx| Ok(tx.db.query_row(left, [], |row| row.get::<_, i64>(0))?)).unwrap(), 0);
}

#[test]
fn views_survive_a_reopen_exactly() {
    let (dir, store) = store();
    let id = store
        .write(Durability::Power, |tx| {
            let id = file(tx, "I1", NodeId::ROOT, "a.txt")?;
            let mut base = view("I1", NodeId::ROOT, "a.txt");
            base.version.hashes.quick_xor = Some([3; 20]);
            tx.set_base(id, Some(&base))?;
            let seal = Some(Seal { size: 4, blake3: [1; 32], quick_xor: [2; 20] });
            let parked = Some(Parked { kind: ParkKind::Quota, detail: "full".into() });
            tx.set_local(
                id,
                Some(&LocalView { content: Some(3), seal, parked, ..local(NodeId::ROOT, "b.txt") }),
            )?;
            Ok(id)
        })
        .unwrap();
    let before = store.node(id).unwrap().unwrap();
    drop(store);
    let again = Store::open(dir.path()).unwrap();
    assert_eq!(again.node(id).unwrap().unwrap(), before);
    assert_eq!(again.child(NodeId::ROOT, "b.txt").unwrap().unwrap().id, id);
    assert!(again.child(NodeId::ROOT, "a.txt").unwrap().is_none());
    assert_eq!(before.base.as_ref().unwrap().version.hashes.quick_xor, Some([3; 20]));
}

#[test]
fn the_visible_place_is_local_over_remote_and_nowhere_when_deleted() {
    let (_dir, store) = store();
    let id = store.write(Durability::Process, |tx| file(tx, "I1", NodeId::ROOT, "a")).unwrap();
    assert!(store.child(NodeId::ROOT, "a").unwrap().is_some());
    store.write(Durability::Process, |tx| tx.set_local(id, Some(&local(NodeId::ROOT, "b")))).unwrap();
    assert!(store.child(NodeId::ROOT, "a").unwrap().is_none());
    assert!(store.child(NodeId::ROOT, "b").unwrap().is_some());
    store
        .write(Durability::Process, |tx| {
            tx.set_local(id, Some(&LocalView { deleted: true, ..local(NodeId::ROOT, "b") }))
        })
        .unwrap();
    assert!(store.child(NodeId::ROOT, "b").unwrap().is_none());
    store.write(Durability::Process, |tx| tx.set_local(id, None)).unwrap();
    assert!(store.child(NodeId::ROOT, "a").unwrap().is_some());
}

#[test]
fn a_visible_collision_is_shown_with_a_suffix_that_goes_when_the_name_is_free() {
    let (_dir, store) = store();
    let (first, second) = store
        .write(Durability::Process, |tx| {
            Ok((file(tx, "I1", NodeId::ROOT, "a")?, file(tx, "I2", NodeId::ROOT, "a")?))
        })
        .unwrap();
    assert_eq!(store.child(NodeId::ROOT, "a").unwrap().unwrap().id, first);
    let shown = store.node(second).unwrap().unwrap().place.clone().unwrap();
    assert_ne!(shown.name, "a");
    let done = store
        .write_changes(Durability::Process, |tx| tx.set_remote(first, Some(&view("I1", NodeId::ROOT, "z"))))
        .unwrap();
    assert_eq!(store.child(NodeId::ROOT, "a").unwrap().unwrap().id, second);
    for name in ["a", "z", shown.name.as_str()] {
        let change = Change::Entry { parent: NodeId::ROOT, name: name.into() };
        assert!(done.changes.contains(&change), "{name}");
    }
}

#[test]
fn a_failed_transaction_changes_nothing_and_the_cache_does_not_remember_it() {
    let (_dir, store) = store();
    let before = store.sequence();
    let failed: Result<(), _> = store.write(Durability::Process, |tx| {
        tx.next_sequence();
        file(tx, "I1", NodeId::ROOT, "a")?;
        Err(StoreError::Foreign)
    });
    assert!(failed.is_err());
    assert!(store.child(NodeId::ROOT, "a").unwrap().is_none());
    assert_eq!(store.sequence(), before);
}

#[test]
fn an_item_named_as_parent_before_it_was_described_is_a_stub_that_shows_its_children_later() {
    let (_dir, store) = store();
    let (folder, child) = store
        .write(Durability::Process, |tx| {
            let folder = tx.node_of_item(&ItemId::new("F"))?;
            Ok((folder, file(tx, "I1", folder, "a")?))
        })
        .unwrap();
    assert!(store.node(folder).unwrap().unwrap().place.is_none());
    store
        .write(Durability::Process, |tx| {
            tx.set_kind(folder, NodeKind::Folder)?;
            tx.set_remote(folder, Some(&view("F", NodeId::ROOT, "dir")))
        })
        .unwrap();
    assert_eq!(store.child(folder, "a").unwrap().unwrap().id, child);
    assert_eq!(store.path_of(child).unwrap(), "dir/a");
}

#[test]
fn row_ids_are_never_reused() {
    let (_dir, store) = store();
    let first = store.write(Durability::Process, |tx| file(tx, "I1", NodeId::ROOT, "a")).unwrap();
    store.write(Durability::Process, |tx| tx.remove(first)).unwrap();
    let second = store.write(Durability::Process, |tx| file(tx, "I2", NodeId::ROOT, "b")).unwrap();
    assert!(second > first);
    assert!(store.node(first).unwrap().is_none());
}

#[test]
fn a_newer_or_foreign_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let path = dir.path().join("store.sqlite");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Newer { found: 99, .. })));
    let other = tempfile::tempdir().unwrap();
    let foreign = other.path().join("store.sqlite");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
    assert!(matches!(Store::open(other.path()), Err(StoreError::Foreign)));
    let garbage = tempfile::tempdir().unwrap();
    std::fs::write(garbage.path().join("store.sqlite"), [7u8; 8192]).unwrap();
    assert!(matches!(Store::open(garbage.path()), Err(StoreError::Database(_))));
}

#[test]
fn a_second_holder_of_the_state_is_refused_with_the_first_ones_process() {
    let dir = tempfile::tempdir().unwrap();
    let held = StateLock::take(dir.path()).unwrap();
    match StateLock::take(dir.path()) {
        Err(StoreError::InUse { pid }) => assert_eq!(pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    drop(held);
    StateLock::take(dir.path()).unwrap();
}

#[test]
fn pages_of_a_listing_miss_and_repeat_nothing_while_names_change() {
    let (_dir, store) = store();
    let ids = store
        .write(Durability::Process, |tx| {
            (0..50)
                .map(|n| file(tx, &format!("I{n}"), NodeId::ROOT, &format!("f{n}")))
                .collect::<Result<Vec<_>, _>>()
        })
        .unwrap();
    let first = store.children_after(NodeId::ROOT, NodeId(0), 20).unwrap();
    store
        .write(Durability::Process, |tx| {
            tx.remove(ids[3])?;
            tx.set_remote(ids[30], Some(&view("I30", NodeId::ROOT, "renamed")))?;
            file(tx, "new", NodeId::ROOT, "new")
        })
        .unwrap();
    let rest = store.children_after(NodeId::ROOT, first.last().unwrap().id, 1000).unwrap();
    let seen: Vec<NodeId> = first.iter().chain(&rest).map(|node| node.id).collect();
    assert_eq!(seen.len(), 51);
    assert!(ids.iter().all(|id| seen.contains(id)));
}

#[test]
fn staged_content_is_to_be_unlinked_once_nothing_refers_to_it_and_not_before() {
    let (_dir, store) = store();
    let staged = |content| LocalView { content: Some(content), ..local(NodeId::ROOT, "a") };
    let id = store
        .write(Durability::Process, |tx| {
            let id = tx.insert(NodeKind::File)?;
            tx.set_local(id, Some(&staged(1)))?;
            Ok(id)
        })
        .unwrap();
    assert_eq!((store.staged().unwrap(), store.unlinks().unwrap()), (vec![1], vec![]));
    // A conflict copy: the content moves to another row.
    store
        .write(Durability::Process, |tx| {
            tx.set_local(id, None)?;
            let copy = tx.insert(NodeKind::File)?;
            tx.set_local(copy, Some(&LocalView { name: "b".into(), ..staged(1) }))?;
            tx.set_local(copy, Some(&LocalView { name: "b".into(), ..staged(2) }))
        })
        .unwrap();
    assert_eq!((store.staged().unwrap(), store.unlinks().unwrap()), (vec![2], vec![1]));
    let attempt = Attempt {
        node: id,
        op: "{}".into(),
        content: Some(1),
        sent_seq: 1,
        started_at: Timestamp(0),
        unknown: false,
    };
    store.write(Durability::Process, |tx| tx.put_attempt(&attempt)).unwrap();
    assert_eq!(store.unlinks().unwrap(), Vec::<u64>::new());
    store.write(Durability::Process, |tx| tx.remove_attempt(id)).unwrap();
    store.write(Durability::Process, |tx| tx.unlinked(1)).unwrap();
    assert_eq!(store.unlinks().unwrap(), Vec::<u64>::new());
}

#[test]
fn a_bound_on_memory_changes_no_answer() {
    let stores = [u64::MAX, 3000, 0].map(|bytes| {
        let (dir, store) = store();
        store.limit_memory(bytes);
        (dir, store)
    });
    let mut random = 1u64;
    let mut next = |below: i64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as i64 % below
    };
    for step in 0..400 {
        let (id, parent) = (NodeId(2 + next(40)), if next(3) == 0 { NodeId(2) } else { NodeId::ROOT });
        let (name, what) = (format!("name {}", next(30)), next(6));
        let answers = stores.each_ref().map(|(_, store)| {
            let changed = store.write_changes(Durability::Process, |tx| -> Result<_, StoreError> {
                match (what, tx.find(id)?) {
                    (0, _) => file(tx, &format!("item {step}"), parent, &name).map(drop)?,
                    (1, Some(node)) if node.place.is_some() => tx.remove(id)?,
                    (2, Some(_)) => tx.set_local(id, Some(&local(parent, &name)))?,
                    (3, Some(_)) => tx.set_attrs(id, Some(0o600), None, None)?,
                    _ => {}
                }
                Ok(())
            });
            let nodes: Vec<_> = (1..50).map(|id| store.node(NodeId(id)).unwrap()).collect();
            let names: Vec<_> = (0..30).map(|n| store.child(parent, &format!("name {n}")).unwrap()).collect();
            (changed.unwrap().changes, nodes, names, store.children_after(parent, NodeId(3), 20).unwrap())
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
}

#[test]
fn an_item_introduced_at_once_is_the_same_as_step_by_step() {
    let (_dir, at_once) = store();
    let (_dir, by_step) = store();
    for (item, name) in [("i1", "Name"), ("i2", "other\u{ff1a}"), ("i3", "third")] {
        let view = view(item, NodeId::ROOT, name);
        let one = at_once
            .write_changes(Durability::Process, |tx| -> Result<_, StoreError> {
                assert!(!tx.knows(&view.item)?);
                assert!(tx.introduce(NodeKind::File, &view, Some("url"), 7)?);
                assert!(tx.knows(&view.item)?);
                Ok(())
            })
            .unwrap();
        let two = by_step
            .write_changes(Durability::Process, |tx| -> Result<_, StoreError> {
                let id = tx.node_of_item(&view.item)?;
                tx.set_kind(id, NodeKind::File)?;
                tx.set_remote(id, Some(&view))?;
                tx.set_web_url(id, Some("url"))?;
                tx.set_mark(id, 7)
            })
            .unwrap();
        assert_eq!(one.changes, two.changes);
    }
    for id in 1..6 {
        assert_eq!(at_once.node(NodeId(id)).unwrap(), by_step.node(NodeId(id)).unwrap());
    }
    let mark = |store: &Store| store.inspect(|tx| tx.mark(NodeId(3))).unwrap();
    assert_eq!((mark(&at_once), mark(&by_step)), (7, 7));
    let taken = view("i4", NodeId::ROOT, "Name");
    assert!(!at_once.write(Durability::Process, |tx| tx.introduce(NodeKind::File, &taken, None, 7)).unwrap());
    assert!(at_once.by_item(&taken.item).unwrap().is_none(), "the caller goes step by step");
}

#[test]
fn a_pin_follows_its_item_and_reaches_what_is_below_it() {
    let (dir, store) = store();
    let (folder, inside, other, fresh) = store
        .write(Durability::Process, |tx| {
            let folder = tx.insert(NodeKind::Folder)?;
            tx.set_remote(folder, Some(&view("F", NodeId::ROOT, "folder")))?;
            let inside = file(tx, "I", folder, "inside")?;
            let other = file(tx, "O", NodeId::ROOT, "other")?;
            let fresh = tx.insert(NodeKind::File)?;
            tx.set_local(fresh, Some(&local(NodeId::ROOT, "fresh")))?;
            Ok((folder, inside, other, fresh))
        })
        .unwrap();
    assert!(!store.has_pins());
    let pin = |id| store.write(Durability::Process, |tx| tx.pin(id)).unwrap();
    assert!(pin(folder) && pin(fresh) && !pin(folder));
    let pinned = |id| store.pinned(id).unwrap();
    assert_eq!(pinned(folder), Some(Pinned::Itself));
    assert_eq!(pinned(inside), Some(Pinned::Within(folder)));
    assert_eq!((pinned(other), pinned(NodeId::ROOT)), (None, None));
    // Moved into it here, moved out of it there; sent; renamed.
    store
        .write(Durability::Process, |tx| {
            tx.set_local(other, Some(&local(folder, "other")))?;
            tx.set_remote(inside, Some(&view("I", NodeId::ROOT, "inside")))?;
            tx.set_remote(fresh, Some(&view("N", NodeId::ROOT, "fresh")))?;
            tx.set_local(fresh, None)?;
            tx.set_remote(folder, Some(&view("F", NodeId::ROOT, "renamed")))
        })
        .unwrap();
    assert_eq!((pinned(other), pinned(inside)), (Some(Pinned::Within(folder)), None));
    // Another row takes the item, as when a program saves by renaming over it.
    store
        .write(Durability::Process, |tx| {
            tx.set_remote(fresh, None)?;
            tx.set_remote(inside, None)?;
            tx.set_remote(inside, Some(&view("N", NodeId::ROOT, "fresh")))
        })
        .unwrap();
    assert_eq!((pinned(fresh), pinned(inside)), (None, Some(Pinned::Itself)));
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.has_pins());
    let mut below = Vec::new();
    store
        .inspect(|tx| {
            let tops = tx.pins()?;
            assert_eq!(tops, [folder, inside]);
            tx.each_below(&tops, |node| below.push(node.id))
        })
        .unwrap();
    below.sort();
    assert_eq!(below, [folder, inside, other]);
    store
        .write(Durability::Process, |tx| {
            tx.rename_pins(&ItemId::new("N"), &ItemId::new("N2"))?;
            tx.set_remote(inside, Some(&view("N2", NodeId::ROOT, "fresh")))
        })
        .unwrap();
    assert_eq!(store.pinned(inside).unwrap(), Some(Pinned::Itself));
    // Deleted there while it is changed here: it is made again, and pinned as it was.
    store
        .write(Durability::Process, |tx| {
            tx.set_local(inside, Some(&local(NodeId::ROOT, "fresh")))?;
            tx.item_went(inside, &ItemId::new("N2"))?;
            tx.set_remote(inside, None)?;
            tx.set_remote(inside, Some(&view("N3", NodeId::ROOT, "fresh")))
        })
        .unwrap();
    assert_eq!(store.pinned(inside).unwrap(), Some(Pinned::Itself));
    assert!(store.write(Durability::Process, |tx| tx.unpin(inside)).unwrap());
    store
        .write(Durability::Process, |tx| {
            tx.remove(other)?;
            tx.remove(folder)
        })
        .unwrap();
    assert!(store.inspect(|tx| tx.pins()).unwrap().is_empty());
}

#[test]
fn what_was_asked_of_an_item_before_another_row_took_it_over_may_be_older_than_that_row() {
    let (_dir, store) = store();
    let ids = store.write(Durability::Process, |tx| {
        Ok::<_, StoreError>((file(tx, "item", NodeId::ROOT, "a")?, tx.insert(NodeKind::File)?))
    });
    let (from, to) = ids.unwrap();
    let asked = store.sequence();
    let moved = store.write(Durability::Process, |tx| {
        let view = tx.node(from)?.remote;
        tx.set_remote(from, None)?;
        tx.set_remote(to, view.as_ref())?;
        tx.seen(to)
    });
    assert!(moved.unwrap() > asked);
    let same = store.write(Durability::Process, |tx| {
        let (view, before) = (tx.node(to)?.remote, tx.seen(to)?);
        tx.set_remote(to, view.as_ref())?;
        Ok::<_, StoreError>(tx.seen(to)? == before)
    });
    assert!(same.unwrap(), "nothing else of the item is known by that");
}
