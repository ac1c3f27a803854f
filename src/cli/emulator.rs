//! `onedrivefs emulator`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::output::{CliError, print, print_json};
use super::{demo, mount, seed};
use crate::daemon::{self, EmulatorSettings, SeedTree, exit};
use crate::model::{DriveType, units};

/// Run the emulated service alone, for tests and for other clients.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs emulator --listen 127.0.0.1:8080
  onedrivefs emulator --listen 127.0.0.1:0 --seed ~/Documents --drive-type personal
  onedrivefs emulator --listen 127.0.0.1:8443 --tls-cert cert.pem --tls-key key.pem

Any bearer token is good. Mount it with:
  ONEDRIVEFS_ACCESS_TOKEN=x onedrivefs mount me DIR --graph-url http://127.0.0.1:8080")]
pub struct Args {
    /// Loopback address and port; port 0 lets the system choose
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen)]
    listen: SocketAddr,
    /// What the drive holds: a directory, 'sample', 'empty', or files=N[,per-folder=N][,size=S]
    #[arg(long, value_name = "TREE", default_value = "empty", value_parser = seed::parse)]
    seed: SeedTree,
    /// Flavour of the user's drive
    #[arg(long, value_name = "TYPE", default_value = "business", value_parser = parse_drive_type)]
    drive_type: DriveType,
    /// Certificate chain (PEM): serve HTTPS
    #[arg(long, value_name = "F", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM)
    #[arg(long, value_name = "F", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Milliseconds added to every answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    latency_ms: u64,
    /// Quota of each drive
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    quota: Option<u64>,
    /// Where contents are kept [default: a temporary directory]
    #[arg(long, value_name = "D")]
    data_dir: Option<PathBuf>,
    /// Turn a behaviour on or off: NAME or NAME=VALUE, the value in JSON; may be repeated
    #[arg(long = "switch", value_name = "NAME[=VALUE]", value_parser = parse_switch)]
    switches: Vec<(String, Value)>,
    /// Print the address as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<u8, CliError> {
    mount::start_log(&demo::log_filter());
    let settings = EmulatorSettings {
        listen: args.listen,
        drive_type: args.drive_type,
        seed: args.seed,
        tls: args.tls_cert.zip(args.tls_key),
        latency: Duration::from_millis(args.latency_ms),
        quota: args.quota,
        data_dir: args.data_dir,
        switches: args.switches,
    };
    daemon::run_emulator(settings, |address| {
        let shown = if args.json {
            print_json(&json!({ "address": address, "pid": std::process::id() }))
        } else {
            print(&format!("listening on {address}\n"))
        };
        if let Err(error) = shown {
            error.print();
        }
    })?;
    Ok(exit::OK)
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "write it as 127.0.0.1:8080".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("it would be open to the network; listen on 127.0.0.1 or [::1]".to_owned())
    }
}

fn parse_drive_type(text: &str) -> Result<DriveType, String> {
    serde_json::from_value(Value::String(text.to_owned()))
        .map_err(|_| "write personal, business or documentLibrary".to_owned())
}

fn parse_switch(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, "true"));
    // A word that is no JSON is a string: rewrite=off.
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    if name.is_empty() { Err("the name is missing".to_owned()) } else { Ok((name.to_owned(), value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emulator_listens_on_this_machine_only() {
        assert!(parse_listen("127.0.0.1:0").is_ok() && parse_listen("[::1]:80").is_ok());
        assert!(parse_listen("0.0.0.0:80").is_err() && parse_listen("8080").is_err());
    }

    #[test]
    fn drive_types_and_switches_are_read() {
        assert_eq!(parse_drive_type("documentLibrary"), Ok(DriveType::DocumentLibrary));
        assert!(parse_drive_type("sharepoint").is_err());
        assert_eq!(parse_switch("deltaLagMs=200"), Ok(("deltaLagMs".into(), json!(200))));
        assert_eq!(parse_switch("noHashes"), Ok(("noHashes".into(), json!(true))));
        assert_eq!(parse_switch("rewrite=off"), Ok(("rewrite".into(), json!("off"))));
    }
}
