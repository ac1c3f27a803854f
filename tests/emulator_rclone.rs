//! Debian's rclone against the emulator over TLS (see `interop/rclone.sh`).
//!
//! Where rclone is missing the test is left out and says so; with `CI=true` that is a failure.

use std::process::Command;

use onedrivefs::emulator::{Emulator, EmulatorConfig, Flavour, TlsFiles};

fn missing() -> Option<&'static str> {
    ["rclone", "openssl", "curl", "unshare", "ip"]
        .into_iter()
        .find(|tool| Command::new(tool).arg("--help").output().is_err())
}

fn run(drive_type: &str) {
    if let Some(tool) = missing() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{tool} is missing, and this is CI");
        eprintln!("left out: {tool} is not installed");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/rclone.sh");
    let server = std::env::current_exe().expect("a test program has a path");
    let output = Command::new(script)
        .arg(drive_type)
        .arg(server)
        .args(["--exact", "the_server_of_the_script", "--nocapture"])
        .env("EMULATOR_NO_ARGS", "1")
        .output()
        .expect("the script starts");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("all is well"), "{text}");
}

#[test]
fn rclone_works_with_a_personal_drive() {
    run("personal");
}

#[test]
fn rclone_works_with_a_business_drive() {
    run("business");
}

#[test]
fn rclone_works_with_a_document_library() {
    run("documentLibrary");
}

/// Does nothing unless the script started it.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_of_the_script() {
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let Some(flavour) = Flavour::from_name(&var("EMULATOR_DRIVE_TYPE")) else { return };
    let tls = TlsFiles::read(var("EMULATOR_TLS_CERT").as_ref(), var("EMULATOR_TLS_KEY").as_ref());
    let config = EmulatorConfig { flavour, ..EmulatorConfig::default() };
    let emulator = Emulator::new(config).expect("the emulator starts");
    let listener = tokio::net::TcpListener::bind(var("EMULATOR_LISTEN")).await.expect("the port is free");
    emulator
        .serve_tls(listener, tls.expect("the files are good"), std::future::pending())
        .await
        .expect("it serves");
}
