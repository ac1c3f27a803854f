//! Saving as editors do: what arrives is one file with its identity, and nothing else.

use std::fs;

use onedrivefs::emulator::Flavour;

use crate::mounted_support::shell::{run_in, same_as_local};
use crate::mounted_support::tree::Times;
use crate::mounted_support::{Mounted, Options, have};

/// Makes `name`/`file` on the service, saves it by `script` three times; the item stays the same one.
fn saves_keep_the_item(name: &str, file: &str, script: &str) {
    // A mount of its own: somebody else's sync would send in the middle of a save.
    let options = Options { mount: "settle=5s".into(), ..Options::default() };
    let Some(mounted) = Mounted::new(Flavour::Business, options) else { return };
    let (folder, path) = (mounted.path(name), format!("{name}/{file}"));
    fs::create_dir(&folder).expect("a directory");
    fs::write(folder.join(file), "first content\n").expect("a file");
    mounted.sync_path(name);
    let id = mounted.control().id_of(&path).expect("it was sent");
    for round in 1..=3 {
        let output = run_in(&mounted, &folder, &script.replace("ROUND", &round.to_string()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        mounted.sync_path(name);
        mounted.assert_truth_equals_tree(name, Times::Any);
        let content = mounted.control().content(&path).expect("it is there");
        assert_eq!(content, format!("content of save {round}\n"));
        assert_eq!(mounted.control().id_of(&path).as_ref(), Some(&id), "round {round}: the item stays");
    }
    let left: Vec<_> = fs::read_dir(&folder).expect("it can be listed").collect();
    assert!(left.len() <= 2, "{left:?}");
}

// S44.
#[test]
fn a_save_by_temporary_file_and_rename_keeps_the_item() {
    saves_keep_the_item(
        "save rename",
        "doc.txt",
        "echo 'content of save ROUND' >.doc.txt.tmp; mv .doc.txt.tmp doc.txt",
    );
}

// S46.
#[test]
fn a_save_as_vim_does_keeps_the_item() {
    saves_keep_the_item(
        "save vim",
        "doc.txt",
        "echo swap >.doc.txt.swp; : >4913; rm 4913; mv doc.txt doc.txt~; echo 'content of save ROUND' >doc.txt; sync doc.txt
         chmod 644 doc.txt; rm doc.txt~; rm .doc.txt.swp",
    );
}

// S46.
#[test]
fn a_save_as_emacs_does_keeps_the_item() {
    saves_keep_the_item(
        "save emacs",
        "doc.txt",
        "ln -s 'user@host.123:1' '.#doc.txt'; echo auto >'#doc.txt#'; [ -e doc.txt~ ] || mv doc.txt doc.txt~
         echo 'content of save ROUND' >doc.txt; rm '#doc.txt#' '.#doc.txt'",
    );
}

#[test]
fn a_save_as_libreoffice_does_keeps_the_item() {
    saves_keep_the_item(
        "save office",
        "doc.odt",
        "echo ',user,host,;' >'.~lock.doc.odt#'; echo 'content of save ROUND' >lu1234abc.tmp; cat doc.odt >backup.tmp
         mv lu1234abc.tmp doc.odt; rm backup.tmp; rm '.~lock.doc.odt#'",
    );
}

#[test]
fn a_save_as_gnome_does_keeps_the_item() {
    saves_keep_the_item(
        "save gnome",
        "doc.txt",
        "echo 'content of save ROUND' >.goutputstream-ABC123; mv .goutputstream-ABC123 doc.txt",
    );
}

#[test]
fn a_save_in_place_keeps_the_item() {
    saves_keep_the_item("save inplace", "doc.txt", "echo 'content of save ROUND' >doc.txt");
}

#[test]
fn sed_keeps_the_item() {
    saves_keep_the_item("save sed", "doc.txt", "sed -i 's/.*/content of save ROUND/' doc.txt");
}

#[test]
fn vim_saves_in_it() {
    if !have(&["vim"]) {
        return;
    }
    let Some(mounted) = Mounted::shared() else { return };
    let script = r#"printf 'one\ntwo\n' >doc
        vim -u NONE -N -es -c 'set backup writebackup backupcopy=no' -c '%s/one/1/' -c wq doc </dev/null
        vim -u NONE -N -es -c 'set nobackup writebackup backupcopy=yes' -c '%s/two/2/' -c wq doc </dev/null
        vim -u NONE -N -es -c 'set nobackup nowritebackup' -c 'normal Gothree' -c wq doc </dev/null
        cat doc; ls -A"#;
    same_as_local(&mounted, "vim", Times::Any, script);
}

// S7.
#[test]
fn what_is_gone_before_it_was_sent_costs_no_request() {
    let options = Options { mount: "settle=30s,poll-interval=60s".into(), ..Default::default() };
    let Some(mounted) = Mounted::new(Flavour::Business, options) else { return };
    mounted.await_online();
    mounted.control().reset_log();
    let script =
        "for n in $(seq 20); do echo $n >tmp$n; mv tmp$n tmp; done; rm tmp; mkdir d; echo x >d/x; rm -r d";
    assert!(run_in(&mounted, &mounted.root(), script).status.success());
    mounted.sync();
    let requests = mounted.control().counts();
    let changing =
        requests.keys().filter(|op| !op.starts_with("delta") && !op.contains("get") && !op.contains("list"));
    let changing: Vec<_> = changing.collect();
    assert!(changing.is_empty(), "{requests:?}");
}

// S6.
#[test]
fn many_saves_in_a_row_cost_one_upload() {
    let options = Options { mount: "settle=30s,poll-interval=60s".into(), ..Default::default() };
    let Some(mounted) = Mounted::new(Flavour::Business, options) else { return };
    mounted.await_online();
    fs::write(mounted.path("doc"), "first").expect("a file");
    mounted.sync();
    mounted.control().reset_log();
    for n in 0..10 {
        fs::write(mounted.path("doc"), format!("save {n}")).expect("a save");
        fs::write(mounted.path("doc.tmp"), format!("save {n} by rename")).expect("a save");
        fs::rename(mounted.path("doc.tmp"), mounted.path("doc")).expect("a save");
    }
    mounted.sync();
    assert_eq!(mounted.control().content("doc").as_deref(), Some(&b"save 9 by rename"[..]));
    let requests = mounted.control().requests();
    let changing: Vec<_> = requests.iter().filter(|request| request.method != "GET").collect();
    assert!(changing.len() <= 3, "{changing:#?}");
}
