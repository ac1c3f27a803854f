//! Settings of commands that are about an account rather than a mount.

use std::path::Path;

use super::output::CliError;
use crate::config::{Choices, Environment, MountSettings};
use crate::daemon::exit;

/// Sets what a flag, named without its dashes, gives.
pub(super) fn set(flags: &mut Choices, name: &str, value: &str) -> Result<(), CliError> {
    flags
        .set(name, value)
        .map_err(|(why, remedy)| CliError::new(exit::USAGE, format!("--{name}"), why, remedy))
}

/// The choices of those `flags`, named without their dashes, that are given.
pub(super) fn given(flags: &[(&str, &Option<String>)]) -> Result<Choices, CliError> {
    let mut choices = Choices::default();
    for (name, value) in flags {
        if let Some(value) = value {
            set(&mut choices, name, value)?;
        }
    }
    Ok(choices)
}

/// Settings where no drive is mounted: of its own drive, nowhere.
pub(super) fn without_mount(choices: Choices, environment: &Environment) -> Result<MountSettings, CliError> {
    Ok(MountSettings::resolve("me", Path::new("/"), choices, environment)?)
}
