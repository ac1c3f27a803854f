//! `onedrivefs man`.

use std::path::{Path, PathBuf};

use clap_mangen::roff::{Roff, bold, italic, roman};

use super::output::CliError;
use crate::config::{ACCOUNT_KEYS, KEYS, Key, MOUNT_KEYS};
use crate::daemon::exit;

/// Write manual pages: one for each command, and onedrivefs-config.toml(5).
///
/// In a directory called man1, the page of section 5 goes to man5 beside it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs man /usr/local/share/man/man1")]
pub struct Args {
    /// Where to
    dir: PathBuf,
}

pub fn run(args: &Args, command: clap::Command) -> Result<u8, CliError> {
    let written = std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(command, &args.dir))
        .and_then(|()| write_format(&args.dir));
    written.map_err(|error| {
        CliError::new(exit::FAILURE, args.dir.display(), error, "give a directory that can be written")
    })?;
    Ok(exit::OK)
}

fn write_format(dir: &Path) -> std::io::Result<()> {
    let dir = if dir.ends_with("man1") { dir.with_file_name("man5") } else { dir.to_owned() };
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("onedrivefs-config.toml.5"), format_page())
}

/// The page of the configuration file, from the tables that its parser reads.
fn format_page() -> String {
    let mut page = Roff::default();
    page.control(
        "TH",
        ["onedrivefs-config.toml", "5", "", concat!("onedrivefs ", env!("CARGO_PKG_VERSION"))],
    );
    page.control("SH", ["NAME"]);
    page.text([roman("onedrivefs-config.toml - accounts, mounts and settings of onedrivefs")]);
    page.control("SH", ["DESCRIPTION"]);
    for paragraph in INTRODUCTION {
        page.control("PP", []);
        page.text([roman(*paragraph)]);
    }
    for (title, about, keys) in SECTIONS {
        page.control("SH", [*title]);
        page.text([roman(*about)]);
        for key in *keys {
            page.control("TP", []);
            page.text([bold(key.name), roman(" = "), italic(written(key))]);
            let default = match key.default {
                "" => String::new(),
                default => format!(" [default: {default}]"),
            };
            page.text([roman(format!("{}{default}", key.about))]);
        }
    }
    page.control("SH", ["EXAMPLE"]);
    page.control("nf", []);
    for line in EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("onedrivefs-mount(1), onedrivefs-config(1), onedrivefs-login(1)")]);
    page.render()
}

/// The example of a key as TOML has it.
fn written(key: &Key) -> String {
    let is_plain =
        matches!(key.example, "true" | "false") || key.example.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { key.example.to_owned() } else { format!("\"{}\"", key.example) }
}

const INTRODUCTION: &[&str] = &[
    "TOML, at ~/.config/onedrivefs/config.toml ($XDG_CONFIG_HOME), of root at /etc/onedrivefs/config.toml, or where \
     ONEDRIVEFS_CONFIG says; 'onedrivefs config path' shows where. Nobody needs one.",
    "Of a setting that is said more than once, this order holds: flags of a command, -o, ONEDRIVEFS_NAME in the \
     environment, [mounts.NAME], [accounts.NAME], [defaults], what is built in. 'onedrivefs config show' tells which \
     values hold, and who said them.",
    "What is not listed here is a mistake: no mount is made before it is put right. 'onedrivefs config check' tells all \
     mistakes, each with its line.",
    "Sizes are written 4096, 500MB, 64MiB, 1GiB; durations 500ms, 60s, 5m, 2h, 1d. Directories begin with / or ~/.",
];

const SECTIONS: &[(&str, &str, &[Key])] = &[
    (
        "SETTINGS",
        "In [defaults] for all mounts, in [accounts.NAME] for those of an account (but for 'account'), in \
         [mounts.NAME] for one. As -o NAME=VALUE and ONEDRIVEFS_NAME (capitals, _ for -) too.",
        KEYS,
    ),
    (
        "MOUNTS",
        "[mounts.NAME] describes a mount for 'onedrivefs mount NAME', 'mount --all', and NAME in /etc/fstab. It holds \
         settings, and:",
        MOUNT_KEYS,
    ),
    (
        "ACCOUNTS",
        "[accounts.NAME] describes an account for 'onedrivefs login NAME'. It holds settings, and what that command's \
         flags of these names say. Where a secret is, is written as for --client-secret.",
        ACCOUNT_KEYS,
    ),
];

const EXAMPLE: &str = r#"[defaults]
cache-size = "10GiB"

[accounts.work]
tenant = "contoso.com"
client-id = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"

[mounts.own]
drive = "me"
mountpoint = "~/OneDrive"

[mounts.plans]
drive = "contoso.sharepoint.com:/sites/Team:Plans"
mountpoint = "~/plans"
account = "work"
read-only = true
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Environment};

    // S283.
    #[test]
    fn the_page_of_the_file_has_every_key_and_its_example_is_a_valid_file() {
        let page = format_page().replace("\\-", "-");
        for key in KEYS.iter().chain(MOUNT_KEYS).chain(ACCOUNT_KEYS) {
            assert!(page.contains(&format!("\\fB{}\\fR", key.name)), "{}: {page}", key.name);
        }
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config.toml");
        std::fs::write(&path, EXAMPLE).unwrap();
        let variables =
            [("ONEDRIVEFS_CONFIG".to_owned(), path.into()), ("HOME".to_owned(), home.path().into())];
        let (file, mistakes) = ConfigFile::examine(&Environment::new(1000, 100, variables)).unwrap();
        assert_eq!(mistakes, []);
        assert_eq!(file.mounts().count(), 2);
    }

    #[test]
    fn every_example_of_the_page_is_a_valid_line() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config.toml");
        let lines = |keys: &[Key]| {
            keys.iter().map(|key| format!("{} = {}\n", key.name, written(key))).collect::<String>()
        };
        let text = format!(
            "[defaults]\n{}[mounts.one]\n{}[accounts.one]\n{}",
            lines(KEYS),
            lines(MOUNT_KEYS),
            lines(ACCOUNT_KEYS)
        );
        std::fs::write(&path, text).unwrap();
        let variables =
            [("ONEDRIVEFS_CONFIG".to_owned(), path.into()), ("HOME".to_owned(), home.path().into())];
        let (_, mistakes) = ConfigFile::examine(&Environment::new(1000, 100, variables)).unwrap();
        assert_eq!(mistakes, []);
    }
}
