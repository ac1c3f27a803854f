//! System calls whose results are written down, so that two file systems can be compared.

use std::fmt::Debug;
use std::path::Path;

use super::Mounted;

/// What a sequence of calls answered.
#[derive(Debug, Default)]
pub struct Trace(Vec<String>);

impl Trace {
    /// Writes down an answer: the value, or the errno's name.
    pub fn call<T: Debug, E: Into<std::io::Error>>(&mut self, what: &str, answer: Result<T, E>) -> Option<T> {
        match answer {
            Ok(value) => {
                self.0.push(format!("{what} = {value:?}"));
                Some(value)
            }
            Err(error) => {
                let number = error.into().raw_os_error().unwrap_or_default();
                self.0.push(format!("{what} = {:?}", rustix::io::Errno::from_raw_os_error(number)));
                None
            }
        }
    }

    /// Writes down whether a call worked, but not what it answered.
    pub fn done<T, E: Into<std::io::Error>>(&mut self, what: &str, answer: Result<T, E>) -> Option<T> {
        match answer {
            Ok(value) => {
                self.0.push(format!("{what} = ok"));
                Some(value)
            }
            Err(error) => {
                self.call::<(), E>(what, Err(error));
                None
            }
        }
    }

    /// Writes down a fact.
    pub fn note(&mut self, what: &str, value: impl Debug) {
        self.0.push(format!("{what}: {value:?}"));
    }
}

/// Runs `calls` in a directory of the mount and in an ordinary one; both must answer the same.
///
/// Afterwards what is in the directory is on the service too.
pub fn same_as_local(name: &str, calls: impl Fn(&Path, &mut Trace)) {
    let Some(mounted) = Mounted::shared() else { return };
    same_on(&mounted, name, calls);
}

pub fn same_on(mounted: &Mounted, name: &str, calls: impl Fn(&Path, &mut Trace)) {
    let (there, here) = (mounted.path(name), mounted.local().join(name));
    let (mut expected, mut answered) = (Trace::default(), Trace::default());
    std::fs::create_dir(&here).expect("an ordinary directory");
    std::fs::create_dir(&there).expect("a directory of the mount");
    calls(&here, &mut expected);
    calls(&there, &mut answered);
    if expected.0 != answered.0 {
        let pairs = expected.0.iter().zip(&answered.0);
        let lines: Vec<String> = pairs
            .map(|(local, mount)| match local == mount {
                true => format!("    {local}"),
                false => format!(">>> local: {local}\n>>> mount: {mount}"),
            })
            .collect();
        panic!(
            "the mount answers otherwise than a local directory ({} and {} calls):\n{}\n{}",
            expected.0.len(),
            answered.0.len(),
            lines.join("\n"),
            mounted.log_tail()
        );
    }
    mounted.sync_path(name);
    mounted.assert_truth_equals_tree(name, super::tree::Times::Any);
}
