//! The command line: one file per command, arguments in, words out; no logic of its own.

mod accounts;
mod cache;
mod completions;
mod config;
mod confirm;
mod conflicts;
mod demo;
mod doctor;
mod drives;
mod emulator;
mod free;
mod get;
mod helper;
mod journal;
mod login;
mod logout;
mod ls;
mod man;
mod mount;
mod mountpoint;
mod output;
mod pin;
mod proof;
mod put;
mod refresh;
mod remote;
mod rescue;
mod retry;
mod rm;
mod seed;
mod settings;
mod status;
mod sync;
mod target;
mod thumbnails;
mod umount;
mod unpin;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

use crate::daemon::exit;
use output::CliError;

/// OneDrive and SharePoint document libraries as a local directory.
#[derive(Debug, Parser)]
#[command(
    name = "onedrivefs",
    version,
    about,
    disable_help_subcommand = true,
    after_help = after_help(),
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mount(Box<mount::Args>),
    #[command(visible_alias = "unmount")]
    Umount(umount::Args),
    Status(status::Args),
    Sync(sync::Args),
    Refresh(refresh::Args),
    Retry(retry::Args),
    Conflicts(conflicts::Args),
    Rescue(rescue::Args),
    Pin(pin::Args),
    Unpin(unpin::Args),
    Free(free::Args),
    Cache(cache::Args),
    Thumbnails(thumbnails::Args),
    Confirm(confirm::Args),
    Login(Box<login::Args>),
    Logout(logout::Args),
    Accounts(accounts::Args),
    Drives(drives::Args),
    Config(config::Args),
    Doctor(doctor::Args),
    Ls(ls::Args),
    Get(get::Args),
    Put(put::Args),
    Rm(rm::Args),
    Demo(demo::Args),
    Emulator(Box<emulator::Args>),
    #[command(hide = true)]
    Completions(completions::Args),
    #[command(hide = true)]
    Man(man::Args),
}

/// Runs the program with these arguments, the program's own name first, and returns its exit code.
pub fn run(arguments: Vec<OsString>) -> u8 {
    if let Some(helper) = helper::Helper::named(&arguments) {
        return helper::run(helper, arguments);
    }
    match attempt(arguments) {
        Ok(code) => code,
        Err(error) => {
            error.print();
            error.exit_code
        }
    }
}

fn attempt(arguments: Vec<OsString>) -> Result<u8, CliError> {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => execute(cli.command),
        Err(error) => Ok(output::usage(&error)),
    }
}

/// Does of `mount` everything but mount.
fn check_mount(arguments: Vec<OsString>) -> Result<u8, CliError> {
    match Cli::try_parse_from(arguments) {
        Ok(Cli { command: Command::Mount(args) }) => args.settings().map(|_| exit::OK),
        Ok(_) => Ok(exit::USAGE),
        Err(error) => Ok(output::usage(&error)),
    }
}

fn execute(command: Command) -> Result<u8, CliError> {
    match command {
        Command::Mount(args) => mount::run(*args),
        Command::Umount(args) => umount::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Sync(args) => sync::run(&args),
        Command::Refresh(args) => refresh::run(&args),
        Command::Retry(args) => retry::run(&args),
        Command::Conflicts(args) => conflicts::run(&args),
        Command::Rescue(args) => rescue::run(&args),
        Command::Pin(args) => pin::run(&args),
        Command::Unpin(args) => unpin::run(&args),
        Command::Free(args) => free::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Thumbnails(args) => thumbnails::run(&args),
        Command::Confirm(args) => confirm::run(&args),
        Command::Login(args) => login::run(*args),
        Command::Logout(args) => logout::run(&args),
        Command::Accounts(args) => accounts::run(&args),
        Command::Drives(args) => drives::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Put(args) => put::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Emulator(args) => emulator::run(*args),
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
        Command::Man(args) => man::run(&args, Cli::command()),
    }
}

fn after_help() -> String {
    let codes: String = exit::TABLE.iter().map(|(code, meaning)| format!("  {code}  {meaning}\n")).collect();
    format!(
        "Examples:\n  \
         onedrivefs demo ~/demo           try it without an account\n  \
         onedrivefs login                 sign in\n  \
         onedrivefs mount me ~/OneDrive   mount your drive\n  \
         onedrivefs status                what is mounted, and what is unsent\n  \
         onedrivefs umount ~/OneDrive     send what is unsent, then unmount\n\n\
         Exit codes:\n{codes}\n\
         Errors are one line on stderr: 'onedrivefs: what: why; remedy'."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples_and_the_help_shows_every_exit_code() {
        let mut cli = Cli::command();
        let help = cli.render_long_help().to_string();
        for (code, meaning) in exit::TABLE {
            assert!(help.contains(&format!("{code}  {meaning}")), "{help}");
        }
        for command in cli.get_subcommands() {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("onedrivefs "), "{} shows no example", command.get_name());
        }
    }
}
