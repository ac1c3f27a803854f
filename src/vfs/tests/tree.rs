//! Lookups, listings, attributes.

use super::*;

fn names(entries: &[DirEntry]) -> Vec<String> {
    entries.iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_read_in_pieces_of_any_size_and_can_be_resumed_anywhere() {
    let world = World::new();
    let dir = world.mkdir(Ino::ROOT, "d").await.unwrap();
    for name in ["x", "y", "z"] {
        world.put(dir, name, b"").await;
    }
    let opened = world.vfs.opendir(dir).await.unwrap();
    assert!(opened.cache);
    for step in 1..7 {
        let (mut seen, mut after) = (Vec::new(), 0);
        loop {
            let page = world.vfs.readdir(dir, opened.handle, after, step).await.unwrap();
            assert!(page.len() <= step);
            let Some(last) = page.last() else { break };
            after = last.cookie;
            seen.extend(names(&page));
        }
        assert_eq!(seen, [".", "..", "x", "y", "z"], "pieces of {step}");
    }
    let all = world.vfs.readdir(dir, opened.handle, 0, 100).await.unwrap();
    assert_eq!((all[0].ino, all[1].ino), (dir, Ino::ROOT));
    assert!(all[2].entry.is_some() && all[0].entry.is_none());
    world.vfs.releasedir(dir, opened.handle).await;
    assert!(!world.drive().is_open(dir.node()));
}

#[tokio::test(start_paused = true)]
async fn a_folder_is_listed_only_when_something_in_it_is_not_known() {
    let world = World::new();
    world.drive().store.write(Durability::Process, |tx| tx.set_listed(NodeId::ROOT, false)).unwrap();
    let ino = world.sent(Ino::ROOT, "a", "A", b"");
    let listed = || world.drive().listings.lock().unwrap().len();
    assert_eq!(world.find(Ino::ROOT, "a").await, Some(ino));
    assert_eq!(listed(), 0, "what is known is known");
    assert_eq!(world.find(Ino::ROOT, "b").await, None);
    assert_eq!(listed(), 1);
    assert_eq!(world.find(Ino::ROOT, "c").await, None);
    world.vfs.opendir(Ino::ROOT).await.unwrap();
    assert_eq!(listed(), 1);
    let dir = world.mkdir(Ino::ROOT, "d").await.unwrap();
    assert_eq!(world.find(dir, "x").await, None);
    assert_eq!(listed(), 1, "a new folder has nothing on the service");
}

#[tokio::test(start_paused = true)]
async fn names_are_mapped_on_the_way_in_and_out() {
    let world = World::new();
    let ino = world.put(Ino::ROOT, "what?.txt", b"").await;
    assert_ne!(world.row(ino).place.unwrap().name, "what?.txt");
    assert_eq!(world.find(Ino::ROOT, "what?.txt").await, Some(ino));
    let opened = world.vfs.opendir(Ino::ROOT).await.unwrap();
    let page = world.vfs.readdir(Ino::ROOT, opened.handle, 2, 10).await.unwrap();
    assert_eq!(names(&page), ["what?.txt"]);
}

#[tokio::test(start_paused = true)]
async fn create_opens_what_exists_unless_it_must_not() {
    let world = World::new();
    let ino = world.sent(Ino::ROOT, "a", "A", b"first");
    let (entry, opened) = world.vfs.create(CALLER, Ino::ROOT, OsStr::new("a"), 0o600, WRITE).await.unwrap();
    assert_eq!(entry.attr.ino, ino);
    assert_eq!(world.read_all((ino, opened.handle)).await, b"first");
    let exclusive = OpenFlags { exclusive: true, ..WRITE };
    let again = world.vfs.create(CALLER, Ino::ROOT, OsStr::new("a"), 0o600, exclusive).await;
    assert_eq!(errno(again), libc::EEXIST);
}

#[tokio::test(start_paused = true)]
async fn mode_and_owner_are_kept_here_and_never_make_a_file_dirty() {
    let world = World::new();
    let ino = world.sent(Ino::ROOT, "a", "A", b"first");
    let change = SetAttr { mode: Some(0o4711), uid: Some(7), gid: Some(8), ..SetAttr::default() };
    let (attr, _) = world.vfs.setattr(CALLER, ino, change).await.unwrap();
    assert_eq!((attr.mode, attr.uid, attr.gid), (0o4711, 7, 8));
    assert!(!world.row(ino).is_dirty());
    let caller = Caller { uid: 1000, gid: 1000, pid: 1 };
    let made = world.vfs.mkdir(caller, Ino::ROOT, OsStr::new("d"), 0o2700).await.unwrap().attr;
    assert_eq!((made.mode, made.uid, made.gid, made.nlink), (0o2700, 1000, 1000, 2));
    let plain = world.vfs.mkdir(CALLER, Ino::ROOT, OsStr::new("e"), 0o755).await.unwrap().attr;
    assert_eq!(world.row(plain.ino).attrs, Default::default(), "defaults are not worth a row");
}

#[tokio::test(start_paused = true)]
async fn a_package_is_an_empty_read_only_directory() {
    let world = World::new();
    let id = world
        .drive()
        .store
        .write(Durability::Process, |tx| {
            let id = tx.insert(NodeKind::Package)?;
            let view = RemoteView { ..world.upload(ItemId::new("P"), Some(NodeId::ROOT), "Notes", b"") };
            tx.set_remote(id, Some(&view))?;
            Ok(id)
        })
        .unwrap();
    let ino = Ino::new(0, id);
    let attr = world.vfs.getattr(ino, None).await.unwrap().0;
    assert_eq!((attr.file_type, attr.mode), (FileType::Directory, 0o555));
    let opened = world.vfs.opendir(ino).await.unwrap();
    assert_eq!(world.vfs.readdir(ino, opened.handle, 2, 10).await.unwrap(), []);
    assert_eq!(world.find(ino, "x").await, None);
    assert!(world.drive().listings.lock().unwrap().is_empty());
    assert_eq!(errno(world.mkdir(ino, "x").await), libc::EPERM);
    let chmod = SetAttr { mode: Some(0o777), ..SetAttr::default() };
    assert_eq!(errno(world.vfs.setattr(CALLER, ino, chmod).await), libc::EPERM);
}

#[tokio::test(start_paused = true)]
async fn symbolic_links_are_read_back() {
    let world = World::new();
    let made = world.vfs.symlink(CALLER, Ino::ROOT, OsStr::new("l"), "../up/there".as_ref()).await.unwrap();
    assert_eq!((made.attr.file_type, made.attr.size, made.attr.mode), (FileType::Symlink, 11, 0o777));
    assert_eq!(world.vfs.readlink(made.attr.ino).await.unwrap(), b"../up/there");
    assert_eq!(errno(world.vfs.readlink(Ino::ROOT).await), libc::EINVAL);
}

#[tokio::test(start_paused = true)]
async fn attributes_of_the_item_are_shown_and_those_of_the_user_kept() {
    let world = World::new();
    let ino = world.sent(Ino::ROOT, "a", "A", b"first");
    let get = |name: &'static str| world.vfs.getxattr(ino, OsStr::new(name));
    assert_eq!(get("user.onedrive.id").await.unwrap(), b"A");
    assert_eq!(get("user.onedrive.state").await.unwrap(), b"synced");
    assert!(get("user.onedrive.hash").await.unwrap().starts_with(b"quickxor:"));
    let absent = [
        ("user.onedrive.weburl", libc::ENODATA),
        ("user.x", libc::ENODATA),
        ("security.capability", libc::ENODATA),
        ("security.selinux", libc::EOPNOTSUPP),
        ("system.posix_acl_access", libc::EOPNOTSUPP),
    ];
    for (name, expected) in absent {
        assert_eq!(errno(get(name).await), expected, "{name}");
    }
    let set = |name: &'static str, mode| world.vfs.setxattr(CALLER, ino, OsStr::new(name), b"v", mode);
    assert_eq!(errno(set("user.x", XattrMode::Replace).await), libc::ENODATA);
    assert_eq!(errno(set("user.x", XattrMode::Create).await), 0);
    assert_eq!(errno(set("user.x", XattrMode::Create).await), libc::EEXIST);
    assert_eq!(get("user.x").await.unwrap(), b"v", "a refused change leaves the old value");
    assert_eq!(errno(set("user.x", XattrMode::Replace).await), 0);
    assert_eq!(errno(set("user.onedrive.id", XattrMode::Set).await), libc::EOPNOTSUPP);
    assert_eq!(errno(set("system.posix_acl_access", XattrMode::Set).await), libc::EOPNOTSUPP);
    let list = String::from_utf8(world.vfs.listxattr(ino).await.unwrap()).unwrap();
    assert!(list.contains("user.onedrive.id\0") && list.ends_with("user.x\0"));
    let remove = || world.vfs.removexattr(CALLER, ino, OsStr::new("user.x"));
    assert_eq!((errno(remove().await), errno(remove().await)), (0, libc::ENODATA));
    assert!(!world.row(ino).is_dirty());
}

#[tokio::test(start_paused = true)]
async fn space_is_the_quota_or_plenty() {
    let world = World::new();
    assert!(world.vfs.statfs(Ino::ROOT).free > 1 << 40);
    let quota = Quota { total: 100, used: 60, remaining: 40, exceeded: false };
    *world.drive().quota.lock().unwrap() = Some(quota);
    assert_eq!((world.vfs.statfs(Ino::ROOT).total, world.vfs.statfs(Ino::ROOT).free), (100, 40));
    *world.drive().quota.lock().unwrap() = Some(Quota { exceeded: true, ..quota });
    assert_eq!(world.vfs.statfs(Ino::ROOT).free, 0);
    *world.drive().quota.lock().unwrap() = Some(Quota::default());
    assert!(world.vfs.statfs(Ino::ROOT).free > 1 << 40, "all zero means unknown, never full");
}

#[tokio::test(start_paused = true)]
async fn neighbours_that_had_to_step_aside_are_told_to_the_kernel() {
    let world = World::new();
    world.sent(Ino::ROOT, "a", "A", b"1");
    let second = world.sent(Ino::ROOT, "a", "B", b"2");
    let aside = world.row(second).place.unwrap().name;
    world.drive().changes.lock().unwrap().clear();
    world.unlink(Ino::ROOT, "a").await.unwrap();
    assert_eq!(world.find(Ino::ROOT, "a").await, Some(second));
    let told = world.drive().changes.lock().unwrap().clone();
    assert_eq!(told, [Change::Entry { parent: NodeId::ROOT, name: aside }]);
}

#[tokio::test(start_paused = true)]
async fn another_drive_of_the_mount_is_not_this_one() {
    let world = World::new();
    let other = Ino::new(3, NodeId::ROOT);
    assert_eq!(errno(world.vfs.getattr(other, None).await), libc::ESTALE);
}
