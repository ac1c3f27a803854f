//! `-o` lists, as `mount(8)`, `/etc/fstab` and systemd write them.

use super::choices::Choices;
use super::keys::{KEYS, closest};

/// Options that `mount(8)`, systemd or users of fstab write for others to read.
const IGNORED: &[&str] = &[
    "defaults",
    "async",
    "auto",
    "noauto",
    "nofail",
    "fail",
    "user",
    "users",
    "nouser",
    "owner",
    "group",
    "_netdev",
    "_rnetdev",
    "silent",
    "loud",
    "default_permissions",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "norelatime",
    "nostrictatime",
    "nolazytime",
    "nosymfollow",
    "symfollow",
    "sloppy",
];
/// Options the kernel acts on.
const KERNEL: &[&str] = &[
    "exec",
    "noexec",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "strictatime",
    "lazytime",
    "dirsync",
];
/// `name=…` options that are for others to read.
const IGNORED_VALUES: &[&str] = &["comment", "fsname", "subtype", "user", "uhelper", "helper"];
/// Settings that are switches: the bare name means `true`.
const SWITCHES: &[&str] = &["read-only", "sync", "case-insensitive", "allow-other"];

/// Reads a comma list of options; a comma inside a value is written `\,`.
///
/// The error is one line: what is wrong, and what to write instead.
pub fn parse_options(list: &str) -> Result<Choices, String> {
    let mut choices = Choices::default();
    for option in split(list) {
        parse_option(&option, &mut choices)?;
    }
    Ok(choices)
}

/// The list without the options that nobody knows, as `mount -s` wants it.
pub fn without_unknown_options(list: &str) -> String {
    let mut options = split(list);
    options.retain(|option| {
        let name = option.split('=').next().unwrap_or(option);
        let refused = parse_option(option, &mut Choices::default());
        !refused.is_err_and(|message| message.starts_with(&format!("there is no mount option '{name}'")))
    });
    options.iter().map(|option| option.replace(',', "\\,")).collect::<Vec<_>>().join(",")
}

fn parse_option(option: &str, choices: &mut Choices) -> Result<(), String> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    let setting = name.replace('_', "-");
    match (name, value) {
        ("ro", None) => choices.read_only = Some(true),
        ("rw", None) => choices.read_only = Some(false),
        (_, None) if IGNORED.contains(&name) => {}
        (_, None) if KERNEL.contains(&name) => choices.kernel_options.push(name.to_owned()),
        (_, Some(_)) if IGNORED_VALUES.contains(&name) => {}
        _ if name.starts_with("x-") || name.starts_with("X-") => {}
        (_, None) if SWITCHES.contains(&setting.as_str()) => {
            choices.set(&setting, "true").map_err(|(why, remedy)| format!("{why}; {remedy}"))?;
        }
        (_, None) if KEYS.iter().any(|key| key.name == setting) => {
            return Err(format!("'{name}' needs a value; write {name}=VALUE"));
        }
        (_, None) => return Err(format!("there is no mount option '{name}'; {}", suggestion(&setting))),
        (_, Some(value)) => match choices.set(&setting, value) {
            Ok(()) => {}
            Err((_, _)) if !KEYS.iter().any(|key| key.name == setting) => {
                return Err(format!("there is no mount option '{name}'; {}", suggestion(&setting)));
            }
            Err((why, remedy)) => return Err(format!("{name}: {why}; {remedy}")),
        },
    }
    Ok(())
}

fn suggestion(name: &str) -> String {
    let known = KEYS.iter().map(|key| key.name).chain(["ro", "rw"]);
    let known = known.chain(IGNORED.iter().copied()).chain(KERNEL.iter().copied());
    match closest(name, known) {
        Some(near) => format!("did you mean '{near}'?"),
        None => "see 'onedrivefs mount --help' for those there are".to_owned(),
    }
}

fn split(list: &str) -> Vec<String> {
    let mut options = vec![String::new()];
    let mut symbols = list.chars().peekable();
    while let Some(symbol) = symbols.next() {
        let current = options.last_mut().expect("the list begins with one option");
        match symbol {
            '\\' if symbols.peek() == Some(&',') => current.extend(symbols.next()),
            ',' => options.push(String::new()),
            other => current.push(other),
        }
    }
    options.retain(|option| !option.is_empty());
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_settings_are_taken_in_either_spelling() {
        let choices = parse_options("allow_other,file-mode=600,uid=12,sync,cache_size=1GiB").unwrap();
        assert_eq!(choices.allow_other, Some(true));
        assert_eq!(choices.file_mode, Some(0o600));
        assert_eq!(choices.uid, Some(12));
        assert_eq!(choices.sync, Some(true));
        assert_eq!(choices.cache_size, Some(1 << 30));
    }

    #[test]
    fn what_is_for_mount_and_systemd_is_ignored() {
        let list = "defaults,_netdev,nofail,noauto,auto,users,x-systemd.automount,x-gvfs-show,user,comment=mine,\
                    nodev,suid,user=ada,X-mount.mkdir";
        assert_eq!(parse_options(list), Ok(Choices::default()));
    }

    #[test]
    fn what_is_for_the_kernel_is_kept() {
        assert_eq!(parse_options("noexec,noatime").unwrap().kernel_options, ["noexec", "noatime"]);
    }

    #[test]
    fn the_last_of_ro_and_rw_counts() {
        assert_eq!(parse_options("ro").unwrap().read_only, Some(true));
        assert_eq!(parse_options("ro,rw").unwrap().read_only, Some(false));
    }

    #[test]
    fn an_unknown_option_is_refused_with_a_suggestion() {
        let message = parse_options("alow_other").unwrap_err();
        assert_eq!(message, "there is no mount option 'alow_other'; did you mean 'allow-other'?");
        assert!(parse_options("quux=1").unwrap_err().contains("there is no mount option 'quux'"));
        assert!(parse_options("uid").unwrap_err().contains("needs a value"));
        assert!(parse_options("uid=root").unwrap_err().contains("'root' is no id"));
    }

    #[test]
    fn sloppy_means_that_only_what_nobody_knows_is_left_out() {
        assert_eq!(
            without_unknown_options(r"ro,quux,uid=root,cache-dir=/a\,b,f=1"),
            r"ro,uid=root,cache-dir=/a\,b"
        );
    }

    #[test]
    fn an_escaped_comma_belongs_to_the_value() {
        let choices = parse_options(r"cache-dir=/a\,b,ro").unwrap();
        assert_eq!(choices.cache_dir.as_deref(), Some(std::path::Path::new("/a,b")));
        assert_eq!(choices.read_only, Some(true));
    }
}
