//! How programs save, and which row holds the item afterwards (design 3).

use super::tests::{World, view};
use super::*;
use crate::store::{Durability, RemoteView};

/// The file was made on the service by this program just now.
fn made_here(world: &World, item: &str, name: &str) -> NodeId {
    let id = world.sent(item, name);
    world
        .store
        .write(Durability::Process, |tx| {
            let remote = RemoteView { btime: Some(world.now), ..view(item, NodeId::ROOT, name) };
            tx.set_remote(id, Some(&remote))?;
            tx.set_own(id, 3, world.now)
        })
        .unwrap();
    id
}

#[test]
fn a_temporary_file_renamed_over_the_document_takes_its_item() {
    let world = World::new();
    let old = world.sent("DOC", "report.docx");
    let new = world.create("report.docx.tmp").unwrap();
    let content = world.node(new).local.unwrap().content;
    world.rename("report.docx.tmp", "report.docx").unwrap();
    assert!(world.is_gone(old), "nothing had it open");
    let node = world.node(new);
    assert_eq!(world.at("report.docx"), Some(new), "the inode is the source's");
    assert_eq!(node.remote, Some(view("DOC", NodeId::ROOT, "report.docx")));
    assert_eq!(node.base, node.remote);
    assert_eq!(node.local.unwrap().content, content);
    assert_eq!(world.store.dirty().unwrap().len(), 1, "one content replacement is all there is to send");
    world.check();
}

#[test]
fn the_document_that_is_still_open_keeps_its_row_as_an_orphan() {
    let mut world = World::new();
    let old = world.sent("DOC", "doc");
    let staged = world.write(old);
    world.open.insert(old);
    world.create("tmp").unwrap();
    assert!(world.rename("tmp", "doc").unwrap().dropped.is_empty());
    let orphan = world.node(old);
    assert_eq!((orphan.remote, orphan.base), (None, None));
    let local = orphan.local.unwrap();
    assert!(local.deleted);
    assert_eq!(local.content, Some(staged), "its bytes are read until the last close");
    assert_eq!(world.item_at("doc").as_deref(), Some("DOC"));
}

#[test]
fn unsent_content_of_the_document_goes_and_the_base_of_its_first_edit_stays() {
    let world = World::new();
    let old = world.sent("DOC", "doc");
    let staged = world.write(old);
    let newer = RemoteView { mtime: Some(Timestamp(8)), ..view("DOC", NodeId::ROOT, "doc") };
    world.store.write(Durability::Process, |tx| tx.set_remote(old, Some(&newer))).unwrap();
    world.create("tmp").unwrap();
    assert_eq!(world.rename("tmp", "doc").unwrap().dropped, [staged]);
    let node = world.node(world.at("doc").unwrap());
    assert_eq!(node.base, Some(view("DOC", NodeId::ROOT, "doc")), "a conflict stays a conflict");
    assert_eq!(node.remote, Some(newer));
}

#[test]
fn a_renamed_document_is_replaced_from_the_content_the_user_saw() {
    let world = World::new();
    let old = world.sent("DOC", "was");
    world.rename("was", "doc").unwrap();
    let newer = RemoteView { mtime: Some(Timestamp(8)), ..view("DOC", NodeId::ROOT, "was") };
    world.store.write(Durability::Process, |tx| tx.set_remote(old, Some(&newer))).unwrap();
    world.create("tmp").unwrap();
    world.rename("tmp", "doc").unwrap();
    let node = world.node(world.at("doc").unwrap());
    assert_eq!(node.base, Some(newer));
}

#[test]
fn a_file_sent_moments_ago_gives_its_own_item_to_a_tombstone() {
    let world = World::new();
    let old = world.sent("DOC", "doc");
    let new = made_here(&world, "TMP", "tmp");
    let content = world.write(new);
    world.rename("tmp", "doc").unwrap();
    assert!(world.is_gone(old));
    assert_eq!(world.at("doc"), Some(new));
    assert_eq!(world.item_at("doc").as_deref(), Some("DOC"));
    let node = world.node(new);
    assert_eq!(node.local.unwrap().content, Some(content));
    assert_eq!(node.base.unwrap().item.as_str(), "DOC");
    let left = world.store.by_item(&crate::model::ItemId::new("TMP")).unwrap().unwrap();
    assert!(left.local.as_ref().unwrap().deleted && left.place.is_none());
    assert_eq!(left.base, left.remote);
    assert_eq!(left.own_seq, 3, "an older page must not bring it back");
    assert_eq!(world.names(), ["doc"]);
    world.check();
}

#[test]
fn a_file_sent_moments_ago_whose_bytes_are_in_the_cache_is_staged_again() {
    for complete in [true, false] {
        let mut world = World::new();
        let old = world.sent("DOC", "doc");
        let new = made_here(&world, "TMP", "tmp");
        if complete {
            world.complete.insert(new);
        }
        let effect = world.rename("tmp", "doc").unwrap();
        assert_eq!(effect.took_offer, complete);
        assert_eq!(world.item_at("doc").as_deref(), Some(if complete { "DOC" } else { "TMP" }));
        assert_eq!(world.is_gone(old), complete);
        world.check();
    }
}

#[test]
fn a_partly_written_file_is_not_torn_from_its_own_item() {
    let mut world = World::new();
    let old = world.sent("DOC", "doc");
    let new = made_here(&world, "TMP", "tmp");
    let content = world.write(new);
    world.overlays.insert(content);
    world.rename("tmp", "doc").unwrap();
    assert_eq!(world.item_at("doc").as_deref(), Some("TMP"));
    assert!(world.node(old).local.unwrap().deleted);
}

#[test]
fn an_older_file_keeps_its_item_and_the_target_is_deleted() {
    let world = World::new();
    let target = world.sent("B", "b");
    let source = world.sent("A", "a");
    world.rename("a", "b").unwrap();
    assert_eq!(world.at("b"), Some(source));
    assert_eq!(world.item_at("b").as_deref(), Some("A"));
    let node = world.node(source);
    assert_eq!(node.local.unwrap().content, None, "a move, not an upload");
    let gone = world.node(target);
    assert!(gone.local.unwrap().deleted);
    assert_eq!(gone.remote.unwrap().item.as_str(), "B");
    world.check();
}

#[test]
fn libreoffice_and_glib_saves_through_a_scratch_name_keep_the_item() {
    for scratch in [".goutputstream-X1Y2Z3", "lu1234.tmp"] {
        let world = World::new();
        world.sent("DOC", "doc.odt");
        world.create(".~lock.doc.odt#").unwrap();
        let new = world.create(scratch).unwrap();
        world.rename(scratch, "doc.odt").unwrap();
        world.unlink(".~lock.doc.odt#").unwrap();
        assert_eq!(world.at("doc.odt"), Some(new));
        assert_eq!(world.item_at("doc.odt").as_deref(), Some("DOC"));
        assert!(world.node(new).is_dirty());
        assert_eq!(world.store.dirty().unwrap().len(), 1, "{scratch}");
        world.check();
    }
}

#[test]
fn vim_moves_the_file_aside_writes_anew_and_unlinks_the_backup() {
    for complete in [true, false] {
        let mut world = World::new();
        let old = world.sent("DOC", "notes");
        if complete {
            world.complete.insert(old);
        }
        world.rename("notes", "notes~").unwrap();
        let new = world.create("notes").unwrap();
        assert_eq!(world.item_at("notes").is_some(), complete);
        world.check();
        world.unlink("notes~").unwrap();
        assert_eq!(world.item_at("notes").as_deref(), Some("DOC"), "complete: {complete}");
        assert!(world.is_gone(old));
        assert_eq!(world.node(new).base, Some(view("DOC", NodeId::ROOT, "notes")));
        assert_eq!(world.store.dirty().unwrap().len(), 1, "one content replacement");
        world.check();
    }
}

#[test]
fn emacs_keeps_the_backup_which_becomes_the_new_item_with_its_bytes_and_time() {
    let mut world = World::new();
    let old = world.sent("DOC", "notes");
    world.complete.insert(old);
    world.rename("notes", "notes~").unwrap();
    world.create("notes").unwrap();
    assert_eq!(world.item_at("notes").as_deref(), Some("DOC"));
    let backup = world.node(old);
    assert_eq!((backup.remote.clone(), backup.base.clone()), (None, None));
    assert_eq!(world.at("notes~"), Some(old));
    let local = backup.local.unwrap();
    assert!(local.content.is_some() && local.size == 5 && local.mtime_set);
    assert_eq!(local.mtime, Timestamp(7_000_000_000));
    world.check();
}

#[test]
fn a_backup_that_is_not_whole_here_keeps_the_item() {
    let world = World::new();
    world.sent("DOC", "notes");
    world.rename("notes", "notes~").unwrap();
    world.create("notes").unwrap();
    assert_eq!(world.item_at("notes"), None, "a new item");
    assert_eq!(world.item_at("notes~").as_deref(), Some("DOC"));
    world.check();
}

#[test]
fn a_file_deleted_and_made_again_moments_later_is_the_same_item() {
    let mut world = World::new();
    let old = world.sent("DOC", "notes");
    world.unlink("notes").unwrap();
    world.create("notes").unwrap();
    assert_eq!(world.item_at("notes").as_deref(), Some("DOC"));
    assert!(world.is_gone(old));
    world.unlink("notes").unwrap();
    world.pass(11);
    world.create("notes").unwrap();
    assert_eq!(world.item_at("notes"), None, "eleven minutes later it is another file");
    world.check();
}

#[test]
fn the_base_of_a_deleted_file_is_what_its_delete_started_from() {
    let world = World::new();
    let old = world.sent("DOC", "notes");
    world.unlink("notes").unwrap();
    let newer = RemoteView { mtime: Some(Timestamp(8)), ..view("DOC", NodeId::ROOT, "notes") };
    world.store.write(Durability::Process, |tx| tx.set_remote(old, Some(&newer))).unwrap();
    world.create("notes").unwrap();
    let node = world.node(world.at("notes").unwrap());
    assert_eq!(node.base, Some(view("DOC", NodeId::ROOT, "notes")), "the other's edit stays a conflict");
    assert_eq!(node.remote, Some(newer));
}

#[test]
fn a_new_file_renamed_to_the_name_of_one_moved_aside_takes_its_item() {
    let world = World::new();
    world.sent("DOC", "book.xlsx");
    world.create("A1B2C3.tmp").unwrap();
    world.rename("book.xlsx", "D4E5.tmp").unwrap();
    world.rename("A1B2C3.tmp", "book.xlsx").unwrap();
    world.unlink("D4E5.tmp").unwrap();
    assert_eq!(world.item_at("book.xlsx").as_deref(), Some("DOC"));
    assert_eq!(world.names(), ["book.xlsx"]);
    assert_eq!(world.store.dirty().unwrap().len(), 1);
    world.check();
}

#[test]
fn ten_saves_in_a_row_are_one_change_of_one_item() {
    let world = World::new();
    world.sent("DOC", "doc");
    for _ in 0..10 {
        world.create("tmp").unwrap();
        world.rename("tmp", "doc").unwrap();
    }
    assert_eq!(world.item_at("doc").as_deref(), Some("DOC"));
    assert_eq!(world.store.dirty().unwrap().len(), 1);
    assert_eq!(world.dropped.borrow().len(), 9);
    world.check();
}

#[test]
fn attributes_of_this_machine_are_those_of_the_new_file() {
    let world = World::new();
    let old = world.sent("DOC", "doc");
    let new = world.create("tmp").unwrap();
    world
        .store
        .write(Durability::Process, |tx| {
            tx.set_attrs(old, Some(0o600), None, None)?;
            tx.set_attrs(new, Some(0o755), None, None)
        })
        .unwrap();
    world.rename("tmp", "doc").unwrap();
    assert_eq!(world.node(new).attrs.mode, Some(0o755));
}
