use super::*;
use crate::engine::conflict::NameTaken;
use crate::engine::testing::{local_at, node, remote_at};
use crate::model::ETag;
use crate::store::{ParkKind, Parked, Seal};

const ROOT: NodeId = NodeId::ROOT;
const DIR: NodeId = NodeId(2);

fn world() -> World {
    let mut world = World { now: Timestamp(100), settle: 10, looked: Some(50), ..World::default() };
    world.folders.insert(ROOT, Folder { item: Some(ItemId::new("ROOT")), ..Folder::default() });
    let dir = Folder { item: Some(ItemId::new("DIR")), remote_parent: Some(ROOT), ..Folder::default() };
    world.folders.insert(DIR, Folder { visible_parent: Some(ROOT), ..dir });
    world
}

fn add(world: &mut World, id: i64, kind: NodeKind, remote: Option<RemoteView>, local: LocalView) -> NodeId {
    let id = NodeId(id);
    let base = remote.clone();
    let node = Node { remote, base, local: Some(local), ..node(id, kind) };
    world.dirty.insert(id, Item { node, attempt: None, open: false, writer: false, held: None });
    id
}

fn sealed(mut local: LocalView, content: u64) -> LocalView {
    local.content = Some(content);
    local.seal = Some(Seal { size: 5, blake3: [0; 32], quick_xor: [0; 20] });
    local
}

fn deleted(mut local: LocalView) -> LocalView {
    local.deleted = true;
    local
}

fn ops(world: &World) -> Vec<(i64, Op)> {
    plan(world).ops.into_iter().map(|(id, op)| (id.0, op)).collect()
}

#[test]
fn a_new_file_is_sealed_and_then_created() {
    let mut world = world();
    let unsealed = LocalView { content: Some(1), ..local_at(ROOT, "a") };
    let id = add(&mut world, 10, NodeKind::File, None, unsealed.clone());
    assert_eq!(ops(&world), [(10, Op::Seal { content: 1 })]);
    world.dirty.get_mut(&id).unwrap().node.local = Some(sealed(unsealed, 1));
    assert!(matches!(&ops(&world)[..], [(10, Op::Send(Send::Create { content: 1, size: 5, .. }))]));
}

#[test]
fn a_file_with_a_writer_open_is_not_sealed() {
    let mut world = world();
    let id = add(&mut world, 10, NodeKind::File, None, LocalView { content: Some(1), ..local_at(ROOT, "a") });
    world.dirty.get_mut(&id).unwrap().writer = true;
    assert_eq!(ops(&world), []);
}

#[test]
fn a_change_rests_until_it_is_settled_and_not_when_someone_waits() {
    let mut world = world();
    add(
        &mut world,
        10,
        NodeKind::Folder,
        None,
        LocalView { changed_at: Timestamp(95), ..local_at(ROOT, "d") },
    );
    let first = plan(&world);
    assert_eq!((first.ops.len(), first.wake_at), (0, Some(Timestamp(105))));
    world.hurry = true;
    assert_eq!(ops(&world).len(), 1);
}

#[test]
fn a_delete_waits_for_those_that_follow_below_the_same_folder_but_not_for_ever() {
    let mut world = world();
    let inner = |name: &str, at: i64| deleted(LocalView { changed_at: Timestamp(at), ..local_at(DIR, name) });
    add(&mut world, 10, NodeKind::File, Some(remote_at("A", DIR, "a", 1)), inner("a", 20));
    add(&mut world, 11, NodeKind::File, Some(remote_at("B", DIR, "b", 1)), inner("b", 95));
    let elsewhere = deleted(LocalView { changed_at: Timestamp(20), ..local_at(NodeId(3), "c") });
    add(&mut world, 12, NodeKind::File, Some(remote_at("C", NodeId(3), "c", 1)), elsewhere);
    let first = plan(&world);
    assert_eq!(first.ops.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [12]);
    assert_eq!(first.wake_at, Some(Timestamp(105)));
    world.now = Timestamp(125);
    world.dirty.get_mut(&NodeId(11)).unwrap().node.local = Some(inner("b", 124));
    assert!(ops(&world).iter().any(|(id, _)| *id == 10));
}

#[test]
fn a_change_from_the_future_rests_no_longer_than_the_settle_time() {
    let mut world = world();
    let local = LocalView { changed_at: Timestamp(9_000), ..local_at(ROOT, "d") };
    add(&mut world, 10, NodeKind::Folder, None, local);
    assert_eq!(plan(&world).wake_at, Some(Timestamp(110)));
}

#[test]
fn what_was_created_and_deleted_before_it_was_sent_costs_nothing() {
    let mut world = world();
    add(&mut world, 10, NodeKind::File, None, deleted(sealed(local_at(ROOT, "a"), 1)));
    assert_eq!(ops(&world), [(10, Op::Forget)]);
}

#[test]
fn children_wait_until_their_folder_exists() {
    let mut world = world();
    add(&mut world, 10, NodeKind::Folder, None, local_at(ROOT, "d"));
    world.folders.insert(NodeId(10), Folder { visible_parent: Some(ROOT), ..Folder::default() });
    add(&mut world, 11, NodeKind::File, None, sealed(local_at(NodeId(10), "a"), 1));
    assert!(matches!(&ops(&world)[..], [(10, Op::Send(Send::Mkdir { .. }))]));
}

#[test]
fn an_edit_is_one_replace_on_the_tag_it_started_from() {
    let mut world = world();
    let remote = remote_at("I", ROOT, "a", 1);
    add(&mut world, 10, NodeKind::File, Some(remote), sealed(local_at(ROOT, "a"), 1));
    let expected = Send::Replace {
        item: ItemId::new("I"),
        content: 1,
        size: 5,
        quick_xor: [0; 20],
        mtime: None,
        if_match: Some(ETag::new("e1")),
    };
    assert_eq!(ops(&world), [(10, Op::Send(expected))]);
}

#[test]
fn an_unknown_outcome_is_verified_before_anything_else() {
    let mut world = world();
    let id = add(&mut world, 10, NodeKind::Folder, None, deleted(local_at(ROOT, "d")));
    let send = Send::Mkdir { parent: ItemId::new("ROOT"), name: "d".into() };
    world.dirty.get_mut(&id).unwrap().attempt = Some(AttemptState::Unknown(send.clone()));
    assert_eq!(ops(&world), [(10, Op::Verify(send))]);
}

#[test]
fn a_name_is_taken_only_after_its_holder_has_left() {
    let mut world = world();
    add(&mut world, 10, NodeKind::File, Some(remote_at("A", ROOT, "a", 1)), local_at(ROOT, "b"));
    add(&mut world, 11, NodeKind::File, None, sealed(local_at(ROOT, "A"), 1));
    assert!(matches!(&ops(&world)[..], [(10, Op::Send(Send::Move { .. }))]));
}

#[test]
fn a_swap_of_two_names_goes_through_one_temporary_name() {
    let mut world = world();
    add(&mut world, 10, NodeKind::File, Some(remote_at("A", ROOT, "a", 1)), local_at(ROOT, "b"));
    let second = add(&mut world, 11, NodeKind::File, Some(remote_at("B", ROOT, "b", 1)), local_at(ROOT, "a"));
    let first = ops(&world);
    let [(10, Op::Send(Send::Move { name: Some(name), .. }))] = &first[..] else { panic!("{first:?}") };
    assert!(is_swap_name(name));
    let moved = remote_at("A", ROOT, name, 1);
    let item = world.dirty.get_mut(&NodeId(10)).unwrap();
    item.node.remote = Some(moved.clone());
    item.node.base = Some(moved);
    let then = ops(&world);
    let [(11, Op::Send(Send::Move { name: Some(name), .. }))] = &then[..] else { panic!("{then:?}") };
    assert_eq!(name, "a");
    world.dirty.remove(&second);
    assert!(matches!(&ops(&world)[..], [(10, Op::Send(Send::Move { name: Some(name), .. }))] if name == "b"));
}

#[test]
fn a_circle_of_three_names_breaks_at_one_place_only() {
    let mut world = world();
    add(&mut world, 10, NodeKind::File, Some(remote_at("A", ROOT, "a", 1)), local_at(ROOT, "b"));
    add(&mut world, 11, NodeKind::File, Some(remote_at("B", ROOT, "b", 1)), local_at(ROOT, "c"));
    add(&mut world, 12, NodeKind::File, Some(remote_at("C", ROOT, "c", 1)), local_at(ROOT, "a"));
    assert_eq!(ops(&world).len(), 1);
}

/// A new folder takes the name of one that is moved into it: `mv a x; mkdir a; mv x a/b`.
#[test]
fn a_folder_that_goes_into_a_new_one_under_its_own_name_makes_room_for_it() {
    let mut world = world();
    let new = add(&mut world, 11, NodeKind::Folder, None, local_at(ROOT, "a"));
    world.folders.insert(new, Folder { visible_parent: Some(ROOT), ..Folder::default() });
    add(&mut world, 10, NodeKind::Folder, Some(remote_at("A", ROOT, "a", 0)), local_at(new, "b"));
    let planned = ops(&world);
    let [(10, Op::Send(Send::Move { parent: None, name: Some(name), .. }))] = &planned[..] else {
        panic!("{planned:?}")
    };
    assert!(is_swap_name(name));
}

/// What was inside a folder takes its name when that is gone: `mv a/b x; rmdir a; mv x a`.
#[test]
fn what_takes_the_name_of_the_deleted_folder_that_it_was_in_leaves_that_first() {
    let mut world = world();
    let top =
        add(&mut world, 10, NodeKind::Folder, Some(remote_at("A", DIR, "a", 0)), deleted(local_at(DIR, "a")));
    add(&mut world, 11, NodeKind::Folder, Some(remote_at("B", top, "b", 0)), local_at(DIR, "a"));
    let planned = ops(&world);
    let [(11, Op::Send(Send::Move { parent: Some(parent), name: Some(name), .. }))] = &planned[..] else {
        panic!("{planned:?}")
    };
    assert!(is_swap_name(name) && *parent == ItemId::new("DIR"));
}

#[test]
fn a_case_only_rename_does_not_wait_for_itself() {
    let mut world = world();
    add(&mut world, 10, NodeKind::File, Some(remote_at("A", ROOT, "readme", 1)), local_at(ROOT, "README"));
    assert!(matches!(&ops(&world)[..], [(10, Op::Send(Send::Move { .. }))]));
}

#[test]
fn a_folder_is_not_moved_below_itself_before_what_is_between_has_moved() {
    let mut world = world();
    let (a, b) = (NodeId(10), NodeId(11));
    add(&mut world, 10, NodeKind::Folder, Some(remote_at("A", ROOT, "a", 0)), local_at(b, "a"));
    add(&mut world, 11, NodeKind::Folder, Some(remote_at("B", a, "b", 0)), local_at(ROOT, "b"));
    let folder = |item: &str, parent| Folder {
        item: Some(ItemId::new(item)),
        remote_parent: Some(parent),
        ..Folder::default()
    };
    world.folders.insert(a, folder("A", ROOT));
    world.folders.insert(b, folder("B", a));
    assert!(matches!(&ops(&world)[..], [(11, Op::Send(Send::Move { .. }))]));
}

#[test]
fn a_deleted_tree_is_one_delete_of_its_top_after_a_look() {
    let mut world = world();
    let top = remote_at("D", ROOT, "d", 0);
    add(
        &mut world,
        10,
        NodeKind::Folder,
        Some(top),
        deleted(LocalView { changed_seq: 60, ..local_at(ROOT, "d") }),
    );
    let inner = remote_at("E", NodeId(10), "e", 0);
    add(&mut world, 11, NodeKind::Folder, Some(inner), deleted(local_at(NodeId(10), "e")));
    add(
        &mut world,
        12,
        NodeKind::File,
        Some(remote_at("F", NodeId(11), "f", 1)),
        deleted(local_at(NodeId(11), "f")),
    );
    let first = plan(&world);
    assert_eq!((first.ops.len(), first.wants_look), (0, true));
    world.looked = Some(61);
    assert!(matches!(&ops(&world)[..], [(10, Op::Send(Send::Delete { folder: true, .. }))]));
}

/// A folder whose answer was lost is found by its name, and may be another client's: what is inside was never seen.
#[test]
fn a_folder_that_was_found_on_the_service_after_the_look_is_looked_at_before_it_is_deleted() {
    let mut world = world();
    let id = add(
        &mut world,
        10,
        NodeKind::Folder,
        Some(remote_at("D", ROOT, "d", 0)),
        deleted(local_at(ROOT, "d")),
    );
    world.dirty.get_mut(&id).unwrap().node.own_seq = 55;
    let first = plan(&world);
    assert_eq!((first.ops.len(), first.wants_look), (0, true), "the look was sent at 50");
    world.looked = Some(55);
    assert!(matches!(&ops(&world)[..], [(10, Op::Send(Send::Delete { folder: true, .. }))]));
}

/// It may hold what another client put there, and a DELETE of a folder above would not ask.
#[test]
fn a_folder_of_which_nobody_knows_what_is_inside_is_deleted_by_itself_before_the_tree_around_it() {
    let mut world = world();
    add(&mut world, 10, NodeKind::Folder, Some(remote_at("D", ROOT, "d", 0)), deleted(local_at(ROOT, "d")));
    let inner = remote_at("E", NodeId(10), "e", 0);
    let id = add(&mut world, 11, NodeKind::Folder, Some(inner), deleted(local_at(NodeId(10), "e")));
    let below = remote_at("F", NodeId(11), "f", 1);
    add(&mut world, 12, NodeKind::File, Some(below), deleted(local_at(NodeId(11), "f")));
    world.dirty.get_mut(&id).unwrap().node.listed = false;
    assert!(matches!(&ops(&world)[..], [(11, Op::Send(Send::Delete { folder: true, .. }))]));
    world.dirty.get_mut(&id).unwrap().node.listed = true;
    assert!(matches!(&ops(&world)[..], [(10, Op::Send(Send::Delete { folder: true, .. }))]));
}

#[test]
fn a_tree_is_deleted_from_the_bottom_where_no_look_at_the_drive_is_to_be_had() {
    let mut world = world();
    world.looked = None;
    add(&mut world, 10, NodeKind::Folder, Some(remote_at("D", ROOT, "d", 0)), deleted(local_at(ROOT, "d")));
    let file = add(
        &mut world,
        11,
        NodeKind::File,
        Some(remote_at("F", NodeId(10), "f", 1)),
        deleted(local_at(NodeId(10), "f")),
    );
    assert!(matches!(&ops(&world)[..], [(11, Op::Send(Send::Delete { folder: false, .. }))]));
    world.dirty.remove(&file);
    assert!(matches!(&ops(&world)[..], [(10, Op::Send(Send::Delete { folder: true, .. }))]));
}

#[test]
fn a_tree_is_not_deleted_while_something_that_left_it_is_still_inside_remotely() {
    let mut world = world();
    add(&mut world, 10, NodeKind::Folder, Some(remote_at("D", ROOT, "d", 0)), deleted(local_at(ROOT, "d")));
    add(&mut world, 11, NodeKind::File, Some(remote_at("F", NodeId(10), "f", 1)), local_at(ROOT, "f"));
    assert!(matches!(&ops(&world)[..], [(11, Op::Send(Send::Move { .. }))]));
}

#[test]
fn a_deleted_folder_in_which_something_new_appeared_returns() {
    let mut world = world();
    add(&mut world, 10, NodeKind::Folder, Some(remote_at("D", ROOT, "d", 0)), deleted(local_at(ROOT, "d")));
    world.folders.insert(NodeId(10), Folder { has_children: true, ..Folder::default() });
    let planned = ops(&world);
    assert!(
        matches!(&planned[..], [(10, Op::Settle(Outcome::TakeRemote { notice: Some(_) }))]),
        "{planned:?}"
    );
}

#[test]
fn a_deleted_tree_in_whose_depth_something_new_appeared_is_not_deleted() {
    let mut world = world();
    add(&mut world, 10, NodeKind::Folder, Some(remote_at("D", ROOT, "d", 0)), deleted(local_at(ROOT, "d")));
    let inner = remote_at("E", NodeId(10), "e", 0);
    add(&mut world, 11, NodeKind::Folder, Some(inner), deleted(local_at(NodeId(10), "e")));
    world.folders.insert(NodeId(11), Folder { has_children: true, ..Folder::default() });
    let planned = ops(&world);
    assert!(
        matches!(&planned[..], [(11, Op::Settle(Outcome::TakeRemote { notice: Some(_) }))]),
        "{planned:?}"
    );
}

#[test]
fn a_tree_is_not_deleted_before_what_happened_elsewhere_to_something_inside_is_settled() {
    let mut world = world();
    add(&mut world, 10, NodeKind::Folder, Some(remote_at("D", ROOT, "d", 0)), deleted(local_at(ROOT, "d")));
    let inside =
        add(&mut world, 11, NodeKind::File, Some(remote_at("F", ROOT, "f", 1)), deleted(local_at(ROOT, "f")));
    // Edited elsewhere, and moved into the folder.
    world.dirty.get_mut(&inside).unwrap().node.remote = Some(remote_at("F", NodeId(10), "f", 2));
    let planned = ops(&world);
    assert!(matches!(&planned[..], [(11, Op::Settle(Outcome::TakeRemote { .. }))]), "{planned:?}");
}

#[test]
fn a_name_held_by_someone_else_on_the_service_is_yielded() {
    let mut world = world();
    add(&mut world, 10, NodeKind::File, None, sealed(local_at(ROOT, "a"), 1));
    let holder = Occupant { node: NodeId(30), kind: NodeKind::File };
    world.occupants.insert((ROOT, names::fold("a")), holder);
    assert_eq!(ops(&world), [(10, Op::Yield { to: NodeId(30), how: NameTaken::ConflictName })]);
}

#[test]
fn a_parked_change_waits_and_does_not_hold_up_its_neighbours() {
    let mut world = world();
    let parked = Some(Parked { kind: ParkKind::Name, detail: String::new() });
    let stuck = LocalView { parked, retry_at: Timestamp(i64::MAX), ..sealed(local_at(ROOT, "a"), 1) };
    add(&mut world, 10, NodeKind::File, None, stuck);
    add(&mut world, 11, NodeKind::File, None, sealed(local_at(ROOT, "b"), 2));
    assert!(matches!(&ops(&world)[..], [(11, Op::Send(Send::Create { .. }))]));
    assert_eq!(plan(&world).wake_at, None);
}

#[test]
fn a_conflict_copy_waits_for_the_writer_to_close_and_is_sealed_before_it_parts_with_its_base() {
    let mut world = world();
    let id = add(
        &mut world,
        10,
        NodeKind::File,
        Some(remote_at("I", ROOT, "a", 1)),
        LocalView { content: Some(1), ..local_at(ROOT, "a") },
    );
    let item = world.dirty.get_mut(&id).unwrap();
    item.node.remote = Some(remote_at("I", ROOT, "a", 2));
    item.writer = true;
    assert_eq!(ops(&world), []);
    world.dirty.get_mut(&id).unwrap().writer = false;
    assert_eq!(ops(&world), [(10, Op::Seal { content: 1 })]);
    let item = world.dirty.get_mut(&id).unwrap();
    item.node.local = Some(sealed(local_at(ROOT, "a"), 1));
    assert_eq!(ops(&world), [(10, Op::Settle(Outcome::ConflictCopy))]);
}

#[test]
fn a_change_that_was_undone_sends_nothing() {
    let mut world = world();
    add(&mut world, 10, NodeKind::File, Some(remote_at("I", ROOT, "a", 1)), local_at(ROOT, "a"));
    assert_eq!(ops(&world), [(10, Op::Settle(Outcome::TakeRemote { notice: None }))]);
}

#[test]
fn an_item_that_changed_rows_waits_for_what_its_former_row_has_sent() {
    let mut world = world();
    let id = add(&mut world, 10, NodeKind::File, Some(remote_at("I", ROOT, "a", 1)), local_at(ROOT, "b"));
    let send = Send::SetTime { item: ItemId::new("I"), mtime: Timestamp(1), if_match: None };
    world.sent.insert(NodeId(11), send.clone());
    assert_eq!(ops(&world), []);
    world.sent.clear();
    world.sent.insert(id, send);
    assert_eq!(ops(&world).len(), 1);
}

/// Many deletes that were made before the drive was read again.
fn guarded() -> World {
    let mut world = world();
    world.guard = Guard { reread: 40, confirmed: 0, above: 1, items: 1000 };
    for id in 10..13 {
        let name = format!("f{id}");
        let local = LocalView { changed_seq: 30, ..deleted(local_at(DIR, &name)) };
        add(&mut world, id, NodeKind::File, Some(remote_at(&name, DIR, &name, 1)), local);
    }
    world
}

#[test]
fn many_deletes_from_before_the_drive_was_read_again_wait() {
    let mut world = guarded();
    let first = plan(&world);
    assert_eq!((first.ops.len(), first.unconfirmed.len()), (0, 3));
    world.guard.confirmed = 30;
    assert_eq!(ops(&world).len(), 3);
}

#[test]
fn a_folder_does_not_take_unconfirmed_deletes_with_it() {
    let mut world = guarded();
    let local = LocalView { changed_seq: 45, ..deleted(local_at(ROOT, "dir")) };
    let mut remote = remote_at("DIR", ROOT, "dir", 1);
    remote.version = Default::default();
    add(&mut world, 2, NodeKind::Folder, Some(remote), local);
    world.folders.entry(DIR).and_modify(|folder| folder.visible_parent = None);
    assert_eq!(ops(&world), []);
}

#[test]
fn who_makes_a_name_again_under_an_unconfirmed_delete_takes_its_item() {
    let mut world = guarded();
    let local = sealed(LocalView { changed_seq: 50, ..local_at(DIR, "f10") }, 7);
    add(&mut world, 20, NodeKind::File, None, local);
    assert_eq!(ops(&world), [(20, Op::Yield { to: NodeId(10), how: NameTaken::TakeBack })]);
}

#[test]
fn nothing_is_deleted_or_made_again_while_ids_may_have_changed() {
    let mut world = world();
    let remote = remote_at("A", DIR, "a", 1);
    add(&mut world, 10, NodeKind::File, Some(remote.clone()), deleted(local_at(DIR, "a")));
    let id = add(&mut world, 11, NodeKind::File, Some(remote), sealed(local_at(DIR, "b"), 3));
    world.dirty.get_mut(&id).unwrap().node.remote = None;
    assert_eq!(ops(&world).len(), 2);
    world.held = true;
    assert_eq!(ops(&world), []);
}

#[test]
fn whatever_is_to_be_sent_of_a_change_whose_folder_has_no_place_it_is_brought_to_the_root_first() {
    // A row that is gone, and one of which only the id is known.
    for is_stub in [false, true] {
        let mut world = world();
        let nowhere = NodeId(3);
        if is_stub {
            world.folders.insert(nowhere, Folder::default());
        }
        let set =
            |name| LocalView { mtime_set: true, mtime: Timestamp(7_000_000_000), ..local_at(nowhere, name) };
        let there = |item, name| Some(remote_at(item, nowhere, name, 1));
        add(&mut world, 10, NodeKind::File, None, sealed(local_at(nowhere, "create"), 1));
        add(&mut world, 11, NodeKind::Folder, None, local_at(nowhere, "mkdir"));
        add(&mut world, 12, NodeKind::Folder, Some(remote_at("M", ROOT, "m", 1)), local_at(nowhere, "move"));
        add(&mut world, 13, NodeKind::File, there("R", "replace"), sealed(local_at(nowhere, "replace"), 2));
        add(&mut world, 14, NodeKind::File, there("T", "time"), set("time"));
        add(
            &mut world,
            15,
            NodeKind::File,
            None,
            LocalView { content: Some(3), ..local_at(nowhere, "seal") },
        );
        add(
            &mut world,
            16,
            NodeKind::File,
            None,
            LocalView { local_only: true, ..local_at(nowhere, "only") },
        );
        let parked = Some(Parked { kind: ParkKind::TooLarge, detail: String::new() });
        let parked = LocalView { parked, retry_at: Timestamp(i64::MAX), ..local_at(nowhere, "parked") };
        add(&mut world, 17, NodeKind::File, None, parked);
        let open = LocalView { content: Some(4), ..local_at(nowhere, "open") };
        let open = add(&mut world, 18, NodeKind::File, None, open);
        world.dirty.get_mut(&open).unwrap().writer = true;
        let expected: Vec<_> = (10..=18).map(|id| (id, Op::BringHome)).collect();
        assert_eq!(ops(&world), expected, "stub: {is_stub}");
    }
}

#[test]
fn what_was_deleted_in_a_folder_that_has_no_place_goes_from_the_service_nevertheless() {
    let mut world = world();
    let nowhere = NodeId(3);
    add(
        &mut world,
        10,
        NodeKind::File,
        Some(remote_at("D", nowhere, "d", 1)),
        deleted(local_at(nowhere, "d")),
    );
    add(&mut world, 11, NodeKind::File, None, deleted(local_at(nowhere, "n")));
    assert!(matches!(&ops(&world)[..], [(10, Op::Send(Send::Delete { .. })), (11, Op::Forget)]));
}

#[test]
fn a_folder_that_is_to_be_made_is_a_place_and_one_that_cannot_be_looked_at_is_looked_at_again_later() {
    let mut world = world();
    add(&mut world, 10, NodeKind::Folder, None, local_at(ROOT, "d"));
    world.folders.insert(NodeId(10), Folder { visible_parent: Some(ROOT), ..Folder::default() });
    add(&mut world, 11, NodeKind::File, None, sealed(local_at(NodeId(10), "a"), 1));
    let later = LocalView { retry_at: Timestamp(900), ..local_at(NodeId(3), "b") };
    add(&mut world, 12, NodeKind::Folder, None, later);
    let plan = plan(&world);
    assert!(matches!(&plan.ops[..], [(NodeId(10), Op::Send(Send::Mkdir { .. }))]));
    assert_eq!(plan.wake_at, Some(Timestamp(900)));
}
