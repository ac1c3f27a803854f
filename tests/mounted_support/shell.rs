//! Programs run in the mount and in an ordinary directory, with the same outcome.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::tree::{Times, Tree};
use super::{Mounted, process, text};

/// Runs a shell script with `directory` as its working directory.
pub fn run_in(mounted: &Mounted, directory: &Path, script: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(directory).stdin(Stdio::null());
    command
        .env("HOME", mounted.scratch().join("home"))
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("SCRATCH", mounted.scratch())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_DATE", "2024-03-01T10:00:00Z")
        .env("GIT_COMMITTER_DATE", "2024-03-01T10:00:00Z")
        .env("GIT_CONFIG_COUNT", "4")
        .envs([("GIT_CONFIG_KEY_0", "user.name"), ("GIT_CONFIG_VALUE_0", "T")])
        .envs([("GIT_CONFIG_KEY_1", "user.email"), ("GIT_CONFIG_VALUE_1", "t@example.org")])
        .envs([("GIT_CONFIG_KEY_2", "init.defaultBranch"), ("GIT_CONFIG_VALUE_2", "main")])
        .envs([("GIT_CONFIG_KEY_3", "gc.auto"), ("GIT_CONFIG_VALUE_3", "0")]);
    process::output(command)
}

/// What a script said, without where it ran.
fn said(output: &Output, directory: &Path) -> String {
    let place = text(directory);
    let stream = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&place, "DIR");
    format!("{}\nstdout:\n{}stderr:\n{}", output.status, stream(&output.stdout), stream(&output.stderr))
}

/// Runs the script in both places: same exit code, same words, same trees. Then everything is on the service.
pub fn same_as_local(mounted: &Mounted, name: &str, times: Times, script: &str) {
    let (there, here) = (mounted.path(name), mounted.local().join(name));
    std::fs::create_dir(&here).expect("an ordinary directory");
    std::fs::create_dir(&there).expect("a directory of the mount");
    let expected = run_in(mounted, &here, script);
    assert!(expected.status.success(), "the script fails locally: {}", said(&expected, &here));
    let answered = run_in(mounted, &there, script);
    assert_eq!(said(&answered, &there), said(&expected, &here), "{}", mounted.log_tail());
    let flavour = mounted.service.flavour;
    let (expected, answered) = (Tree::of_directory(&here, flavour), Tree::of_directory(&there, flavour));
    assert_eq!(answered.lines(times), expected.lines(times), "{}", mounted.log_tail());
    mounted.sync_path(name);
    mounted.assert_truth_equals_tree(name, times);
}
