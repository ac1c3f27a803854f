//! Programs that may read what is here, and nothing else: indexers and thumbnailers would download a drive.

use std::path::Path;

use super::Caller;

/// Whether the caller's program is one of these, by the name of its executable.
pub(super) fn is_listed(names: &[String], caller: Caller) -> bool {
    !names.is_empty() && caller.pid != 0 && {
        let program = std::fs::read_link(format!("/proc/{}/exe", caller.pid));
        program.is_ok_and(|program| is_one_of(names, &program))
    }
}

fn is_one_of(names: &[String], program: &Path) -> bool {
    let Some(name) = program.file_name().and_then(|name| name.to_str()) else { return false };
    // So the kernel calls one that was replaced since it was started.
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    names.iter().any(|one| one == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_the_name_of_its_executable() {
        let names = ["tracker-extract-3".to_owned(), "baloo_file".to_owned()];
        for (program, listed) in [
            ("/usr/libexec/tracker-extract-3", true),
            ("/usr/libexec/tracker-extract-3 (deleted)", true),
            ("/usr/bin/baloo_file_extractor", false),
            ("/usr/bin/BALOO_FILE", false),
            ("/", false),
        ] {
            assert_eq!(is_one_of(&names, Path::new(program)), listed, "{program}");
        }
        assert!(!is_listed(&names, Caller { uid: 0, gid: 0, pid: 0 }));
    }
}
