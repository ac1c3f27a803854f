//! Bytes, sizes and times through handles.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_was_written_is_read_back_sized_and_recorded_at_close() {
    let world = World::new();
    let file = world.create(Ino::ROOT, "a").await;
    world.write(file, 3, b"abc").await;
    let (attr, ttl) = world.vfs.getattr(file.0, None).await.unwrap();
    assert_eq!((attr.size, ttl), (6, Duration::ZERO), "a writer is at work");
    assert_eq!(world.read_all(file).await, b"\0\0\0abc");
    world.close(file).await;
    let local = world.row(file.0).local.unwrap();
    assert_eq!((local.size, local.mtime_set), (6, false));
    let (attr, ttl) = world.vfs.getattr(file.0, None).await.unwrap();
    assert_eq!((attr.size, ttl), (6, world.vfs.config.attr_ttl));
    assert_eq!(world.cat(file.0).await, b"\0\0\0abc");
    world.check_staging();
}

use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn everything_local_answers_at_the_first_poll() {
    let world = World::new();
    *world.service.offline.lock().unwrap() = true;
    let vfs = &world.vfs;
    let dir = vfs.mkdir(CALLER, Ino::ROOT, OsStr::new("d"), 0o755).now_or_never().unwrap().unwrap().attr.ino;
    let (entry, opened) =
        vfs.create(CALLER, dir, OsStr::new("f"), 0o644, WRITE).now_or_never().unwrap().unwrap();
    let (ino, handle) = (entry.attr.ino, opened.handle);
    vfs.write(ino, handle, 0, Bytes::from_static(b"x")).now_or_never().unwrap().unwrap();
    vfs.read(ino, handle, 0, 10).now_or_never().unwrap().unwrap();
    vfs.fsync(ino, handle, false).now_or_never().unwrap().unwrap();
    vfs.flush(ino, handle).now_or_never().unwrap().unwrap();
    vfs.release(ino, handle).now_or_never().unwrap();
    vfs.rename(CALLER, dir, OsStr::new("f"), Ino::ROOT, OsStr::new("g"), RenameMode::Replace)
        .now_or_never()
        .unwrap()
        .unwrap();
    vfs.lookup(CALLER, Ino::ROOT, OsStr::new("none")).now_or_never().unwrap().unwrap();
    vfs.rmdir(CALLER, Ino::ROOT, OsStr::new("d")).now_or_never().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_file_is_written_over_the_version_it_was_opened_with() {
    let world = World::new();
    let old: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
    let ino = world.sent(Ino::ROOT, "a", "A", &old);
    let start = world.row(ino).remote;
    let file = (ino, world.open(ino, WRITE).await);
    world.write(file, 100, b"new").await;
    let row = world.row(ino);
    assert_eq!(row.base, start);
    assert_eq!(row.local.unwrap().size, 20_000);
    let mut expected = old;
    expected[100..103].copy_from_slice(b"new");
    assert_eq!(world.read_all(file).await, expected);
    world.close(file).await;
    assert!(world.seal(ino).await);
    assert_eq!(world.cat(ino).await, expected);
    world.check_staging();
}

#[tokio::test(start_paused = true)]
async fn truncation_at_open_needs_nothing_of_the_service() {
    let world = World::new();
    let ino = world.sent(Ino::ROOT, "a", "A", b"old content");
    *world.service.offline.lock().unwrap() = true;
    let file = (ino, world.open(ino, TRUNCATE).await);
    assert_eq!(world.read_all(file).await, b"");
    world.write(file, 0, b"new").await;
    world.close(file).await;
    assert!(world.seal(ino).await);
    assert_eq!(world.cat(ino).await, b"new");
}

#[tokio::test(start_paused = true)]
async fn a_reader_finishes_on_the_version_it_began_with_and_the_next_one_sees_the_new() {
    let world = World::new();
    let ino = world.sent(Ino::ROOT, "a", "A", b"first");
    let handle = world.open(ino, READ).await;
    assert_eq!(world.read_all((ino, handle)).await, b"first");
    world.edit_remotely(ino, b"second version");
    assert_eq!(world.read_all((ino, handle)).await, b"first");
    assert_eq!(world.vfs.getattr(ino, None).await.unwrap().0.size, 5, "size and bytes agree");
    world.vfs.release(ino, handle).await;
    assert!(
        world.drive().changes.lock().unwrap().contains(&Change::Node { id: ino.node(), content: true }),
        "the kernel must forget the old pages"
    );
    let opened = world.vfs.open(CALLER, ino, READ).await.unwrap();
    assert!(!opened.keep_cache);
    assert_eq!(world.read_all((ino, opened.handle)).await, b"second version");
    world.vfs.release(ino, opened.handle).await;
    assert!(world.vfs.open(CALLER, ino, READ).await.unwrap().keep_cache);
}

// S12.
#[tokio::test(start_paused = true)]
async fn who_opens_a_file_right_after_its_content_changed_is_given_no_pages_of_the_old_one() {
    let world = World::new();
    let ino = world.sent(Ino::ROOT, "a", "A", b"first");
    let open = || async { world.vfs.open(CALLER, ino, READ).await.unwrap() };
    let first = open().await;
    assert!(first.keep_cache, "nothing changed since the mount");
    assert_eq!(world.read_all((ino, first.handle)).await, b"first");
    world.vfs.release(ino, first.handle).await;
    // The kernel was not told yet.
    world.edit_remotely(ino, b"second");
    let (one, other) = (open().await, open().await);
    assert!(!one.keep_cache && !other.keep_cache, "the kernel may not have ended the first open");
    assert_eq!(world.read_all((ino, other.handle)).await, b"second");
    assert!(open().await.keep_cache, "who reads has opened");
    let (again, last) = (open().await, open().await);
    assert!(again.keep_cache && last.keep_cache);
}

#[tokio::test(start_paused = true)]
async fn a_write_on_an_older_version_starts_from_that_version_and_so_is_a_conflict() {
    let world = World::new();
    let ino = world.sent(Ino::ROOT, "a", "A", b"first");
    let start = world.row(ino).remote.unwrap();
    let file = (ino, world.open(ino, WRITE).await);
    assert_eq!(world.read_all(file).await, b"first");
    world.edit_remotely(ino, b"second");
    world.write(file, 0, b"F").await;
    world.close(file).await;
    let row = world.row(ino);
    assert_eq!(row.base.unwrap().version, start.version);
    assert_ne!(row.remote.unwrap().version, start.version);
    assert_eq!(world.cat(ino).await, b"First");
}

#[tokio::test(start_paused = true)]
async fn sealed_content_is_written_on_in_place_while_nobody_sends_it() {
    let world = World::new();
    let ino = world.put(Ino::ROOT, "a", b"one").await;
    assert!(world.seal(ino).await);
    let before = world.row(ino).local.unwrap().content;
    let file = (ino, world.open(ino, WRITE).await);
    world.write(file, 3, b" two").await;
    let local = world.row(ino).local.unwrap();
    assert_eq!((local.content, local.seal), (before, None));
    world.close(file).await;
    assert_eq!(world.cat(ino).await, b"one two");
    world.check_staging();
}

#[tokio::test(start_paused = true)]
async fn content_that_is_being_sent_is_not_touched_and_the_next_generation_goes_on_from_it() {
    let world = World::new();
    let ino = world.put(Ino::ROOT, "a", b"one").await;
    assert!(world.seal(ino).await);
    world.attempt(ino);
    let sent = world.row(ino).local.unwrap().content.unwrap();
    let file = (ino, world.open(ino, WRITE).await);
    world.write(file, 3, b" two").await;
    assert_ne!(world.row(ino).local.unwrap().content, Some(sent));
    let path = world.drive().staging.path(StagingId(sent));
    assert_eq!(std::fs::read(path).unwrap(), b"one");
    world.finish_upload(ino);
    world.close(file).await;
    let row = world.row(ino);
    assert_eq!(row.base, row.remote, "the upload was ours: no conflict");
    assert_eq!(world.cat(ino).await, b"one two");
    world.check_staging();
}

#[tokio::test(start_paused = true)]
async fn a_log_that_somebody_follows_is_appended_to_after_each_upload() {
    let world = World::new();
    let ino = world.put(Ino::ROOT, "log", b"1").await;
    let reader = (ino, world.open(ino, READ).await);
    for round in 2..5u8 {
        assert!(world.seal(ino).await);
        world.attempt(ino);
        world.finish_upload(ino);
        let writer = (ino, world.open(ino, WRITE).await);
        world.write(writer, u64::from(round) - 1, &[b'0' + round]).await;
        world.close(writer).await;
        let row = world.row(ino);
        assert_eq!(row.base, row.remote, "round {round}: no conflict with our own upload");
        assert_eq!(world.read_all(reader).await.len(), usize::from(round));
    }
    assert_eq!(world.read_all(reader).await, b"1234");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_ends_while_the_file_is_opened_for_writing_is_no_conflict() {
    for flags in [WRITE, TRUNCATE] {
        let world = Arc::new(World::new());
        let ino = world.put(Ino::ROOT, "a", b"1234").await;
        let reader = (ino, world.open(ino, READ).await);
        assert!(world.seal(ino).await);
        world.attempt(ino);
        let service = Arc::downgrade(&world);
        world.when_asked_the_time(move || service.upgrade().unwrap().finish_upload(ino));
        let writer = (ino, world.open(ino, flags).await);
        world.write(writer, 0, b"O").await;
        world.close(writer).await;
        let row = world.row(ino);
        assert!(row.remote.is_some(), "the upload ended");
        assert_eq!(row.base, row.remote, "no conflict with our own upload");
        assert_eq!(world.read_all(reader).await, if flags.truncate { &b"O"[..] } else { b"O234" });
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_upload_ends_while_it_is_opened_is_read() {
    let world = Arc::new(World::new());
    let ino = world.put(Ino::ROOT, "a", b"1234").await;
    assert!(world.seal(ino).await);
    world.attempt(ino);
    let service = Arc::downgrade(&world);
    world.before_staging(move || service.upgrade().unwrap().finish_upload(ino));
    let reader = (ino, world.open(ino, READ).await);
    assert!(world.row(ino).local.is_none(), "the upload ended");
    assert_eq!(world.read_all(reader).await, b"1234");
}

#[tokio::test(start_paused = true)]
async fn a_write_on_bytes_that_the_service_does_not_have_keeps_both() {
    let world = World::new();
    let ino = world.put(Ino::ROOT, "a", b"ours").await;
    let reader = (ino, world.open(ino, READ).await);
    assert!(world.seal(ino).await);
    world.attempt(ino);
    world.finish_upload(ino);
    world.edit_remotely(ino, b"theirs");
    let writer = (ino, world.open(ino, WRITE).await);
    world.write(writer, 0, b"O").await;
    world.close(writer).await;
    let row = world.row(ino);
    let (base, remote) = (row.base.unwrap(), row.remote.unwrap());
    assert_eq!(base.version.compare(&remote.version), crate::model::Comparison::Unknown);
    assert_eq!(world.read_all(reader).await, b"Ours");
}

#[tokio::test(start_paused = true)]
async fn a_time_set_after_the_last_write_survives_close_and_one_set_before_does_not() {
    let world = World::new();
    let set = SetAttr { mtime: Some(SetTime::At(Timestamp(77))), ..SetAttr::default() };
    let file = world.create(Ino::ROOT, "a").await;
    world.vfs.setattr(CALLER, file.0, set).await.unwrap();
    world.write(file, 0, b"x").await;
    world.close(file).await;
    let local = world.row(file.0).local.unwrap();
    assert!(!local.mtime_set && local.mtime != Timestamp(77));
    let file = (file.0, world.open(file.0, WRITE).await);
    world.write(file, 0, b"y").await;
    let (attr, _) = world.vfs.setattr(CALLER, file.0, set).await.unwrap();
    assert_eq!(attr.mtime, Timestamp(77));
    world.close(file).await;
    let local = world.row(file.0).local.unwrap();
    assert_eq!((local.mtime, local.mtime_set), (Timestamp(77), true));
}

#[tokio::test(start_paused = true)]
async fn an_unlinked_file_lives_until_its_last_close_and_then_leaves_nothing() {
    let world = World::new();
    let file = world.create(Ino::ROOT, "a").await;
    world.write(file, 0, b"abc").await;
    world.unlink(Ino::ROOT, "a").await.unwrap();
    world.write(file, 3, b"def").await;
    assert_eq!(world.read_all(file).await, b"abcdef");
    assert_eq!(world.vfs.getattr(file.0, None).await.unwrap().0.nlink, 0);
    world.close(file).await;
    assert_eq!(errno(world.vfs.getattr(file.0, None).await), libc::ESTALE);
    world.check_staging();
}

#[tokio::test(start_paused = true)]
async fn a_file_deleted_elsewhere_while_it_is_written_is_kept_where_it_was() {
    let world = World::new();
    let ino = world.sent(Ino::ROOT, "a", "A", b"first");
    let file = (ino, world.open(ino, WRITE).await);
    world.drive().store.write(Durability::Process, |tx| tx.set_remote(ino.node(), None)).unwrap();
    assert_eq!(world.find(Ino::ROOT, "a").await, None);
    world.write(file, 0, b"F").await;
    world.close(file).await;
    assert_eq!(world.find(Ino::ROOT, "a").await, Some(ino));
    assert_eq!(world.cat(ino).await, b"First");
}

#[tokio::test(start_paused = true)]
async fn truncate_by_path_and_by_handle_cut_and_extend() {
    let world = World::new();
    let ino = world.sent(Ino::ROOT, "a", "A", b"0123456789");
    let resize = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    assert_eq!(world.vfs.setattr(CALLER, ino, resize(10)).await.unwrap().0.size, 10);
    assert!(!world.row(ino).is_dirty(), "the same size changes nothing");
    assert_eq!(world.vfs.setattr(CALLER, ino, resize(4)).await.unwrap().0.size, 4);
    assert_eq!(world.row(ino).local.unwrap().size, 4);
    let file = (ino, world.open(ino, WRITE).await);
    let through = SetAttr { handle: Some(file.1), ..resize(6) };
    world.vfs.setattr(CALLER, ino, through).await.unwrap();
    assert_eq!(world.read_all(file).await, b"0123\0\0");
    world.close(file).await;
    assert_eq!(errno(world.vfs.setattr(CALLER, ino, resize(1 << 50)).await), libc::EFBIG);
    assert_eq!(errno(world.vfs.setattr(CALLER, Ino::ROOT, resize(0)).await), libc::EISDIR);
}

#[tokio::test(start_paused = true)]
async fn holes_are_punched_found_and_zeros_made() {
    let world = World::new();
    let file = world.create(Ino::ROOT, "a").await;
    world.write(file, 0, &[7; 20_000]).await;
    let (ino, handle) = file;
    world.vfs.fallocate(ino, handle, 4096, 8192, Allocate::PunchHole).await.unwrap();
    assert_eq!(world.vfs.lseek(ino, handle, 0, Seek::Hole).await.unwrap(), 4096);
    assert_eq!(world.vfs.lseek(ino, handle, 4096, Seek::Data).await.unwrap(), 12_288);
    assert_eq!(errno(world.vfs.lseek(ino, handle, 20_000, Seek::Data).await), libc::ENXIO);
    world.vfs.fallocate(ino, handle, 0, 30_000, Allocate::KeepSize).await.unwrap();
    assert_eq!(world.vfs.getattr(ino, None).await.unwrap().0.size, 20_000);
    world.vfs.fallocate(ino, handle, 0, 30_000, Allocate::Extend).await.unwrap();
    assert_eq!(world.vfs.getattr(ino, None).await.unwrap().0.size, 30_000);
    let zero = Allocate::ZeroRange { keep_size: false };
    world.vfs.fallocate(ino, handle, 0, 31_000, zero).await.unwrap();
    assert_eq!(world.read_all(file).await, vec![0; 31_000]);
    assert_eq!(errno(world.vfs.fallocate(ino, handle, 0, 0, zero).await), libc::EINVAL);
}

#[tokio::test(start_paused = true)]
async fn a_range_is_copied_between_files() {
    let world = World::new();
    let from = world.sent(Ino::ROOT, "a", "A", &[9; 3_000_000]);
    let source = world.open(from, READ).await;
    let target = world.create(Ino::ROOT, "b").await;
    let copied =
        world.vfs.copy_file_range(from, source, 1_000_000, target.0, target.1, 5, 9_000_000).await.unwrap();
    assert_eq!(copied, 2_000_000);
    assert_eq!(world.vfs.getattr(target.0, None).await.unwrap().0.size, 2_000_005);
    let backwards = world.vfs.copy_file_range(target.0, target.1, 0, from, source, 0, 5).await;
    assert_eq!(errno(backwards), libc::EBADF, "not open for writing");
}

#[tokio::test(start_paused = true)]
async fn with_sync_close_waits_for_the_service_and_later_writes_still_work() {
    let world = World::with(VfsConfig { sync: true, ..VfsConfig::default() });
    let file = world.create(Ino::ROOT, "a").await;
    world.write(file, 0, b"one").await;
    world.vfs.flush(file.0, file.1).await.unwrap();
    assert!(!world.drive().has_writer(file.0.node()), "closed as far as the engine goes");
    assert!(world.seal(file.0).await);
    world.write(file, 3, b" two").await;
    assert!(world.drive().has_writer(file.0.node()));
    world.close(file).await;
    assert_eq!(world.cat(file.0).await, b"one two");
    assert!(!world.drive().is_open(file.0.node()));
}

#[tokio::test(start_paused = true)]
async fn a_read_only_mount_refuses_every_change() {
    let world = World::with(VfsConfig { read_only: true, ..VfsConfig::default() });
    let ino = world.sent(Ino::ROOT, "a", "A", b"first");
    let vfs = &world.vfs;
    let (name, root) = (OsStr::new("a"), Ino::ROOT);
    let refused = [
        errno(vfs.create(CALLER, root, OsStr::new("b"), 0o644, WRITE).await),
        errno(vfs.open(CALLER, ino, WRITE).await),
        errno(vfs.mkdir(CALLER, root, OsStr::new("b"), 0o755).await),
        errno(vfs.symlink(CALLER, root, OsStr::new("b"), "x".as_ref()).await),
        errno(vfs.unlink(CALLER, root, name).await),
        errno(vfs.rmdir(CALLER, root, name).await),
        errno(vfs.rename(CALLER, root, name, root, OsStr::new("b"), RenameMode::Replace).await),
        errno(vfs.setattr(CALLER, ino, SetAttr { mode: Some(0), ..SetAttr::default() }).await),
        errno(vfs.setxattr(CALLER, ino, OsStr::new("user.x"), b"", XattrMode::Set).await),
        errno(vfs.removexattr(CALLER, ino, OsStr::new("user.x")).await),
    ];
    assert_eq!(refused, [libc::EROFS; 10]);
    assert_eq!(world.cat(ino).await, b"first");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_fetched_says_why() {
    let world = World::new();
    let ino = world.sent(Ino::ROOT, "a", "A", b"first");
    *world.service.offline.lock().unwrap() = true;
    let handle = world.open(ino, READ).await;
    assert_eq!(errno(world.vfs.read(ino, handle, 0, 5).await), libc::ENETUNREACH);
    *world.service.offline.lock().unwrap() = false;
    world.service.contents.lock().unwrap().clear();
    assert_eq!(errno(world.vfs.read(ino, handle, 0, 5).await), libc::EIO);
}

#[tokio::test(start_paused = true)]
async fn emacs_saves_keep_the_item_and_the_backup_has_the_old_bytes() {
    let world = World::new();
    let old = world.sent(Ino::ROOT, "notes", "DOC", b"old text");
    assert_eq!(world.cat(old).await, b"old text");
    world.rename((Ino::ROOT, "notes"), (Ino::ROOT, "notes~")).await.unwrap();
    let new = world.put(Ino::ROOT, "notes", b"new text").await;
    assert_eq!(world.row(new).remote.unwrap().item.as_str(), "DOC");
    assert_eq!(world.row(old).remote, None);
    assert_eq!(world.cat(old).await, b"old text");
    assert_eq!(world.cat(new).await, b"new text");
    assert!(world.seal(new).await && world.seal(old).await);
    world.check_staging();
}

#[tokio::test(start_paused = true)]
async fn a_mount_that_ended_leaves_no_file_open() {
    let world = World::new();
    let written = world.create(Ino::ROOT, "a").await;
    world.write(written, 0, b"one").await;
    let read = world.sent(Ino::ROOT, "b", "B", b"first");
    world.open(read, READ).await;
    assert!(world.drive().has_writer(written.0.node()) && world.drive().is_open(read.node()));
    world.vfs.release_all();
    assert!(!world.drive().is_open(written.0.node()) && !world.drive().is_open(read.node()));
    assert!(world.seal(written.0).await, "it can be sent");
    assert_eq!(world.row(written.0).size(), 3);
}
