//! Proxy, certificates, names, TLS and the clock: what lies between this machine and the service.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, header};
use url::Url;

use super::{Finding, PATIENCE};
use crate::config::{Environment, MountSettings};
use crate::daemon::exit;
use crate::graph::transport::{HttpTransport, Lane, Transport, TransportError};
use crate::graph::url::is_loopback;

/// Beyond this the sign-in service may refuse what an application signs, and beyond the second everybody.
const SKEW_NOTED: Duration = Duration::from_secs(60);
const SKEW_MAX: Duration = Duration::from_secs(300);

/// A variable in either case; the small one counts first, as with most programs.
fn said<'a>(environment: &'a Environment, name: &str) -> Option<(String, &'a str)> {
    [name.to_ascii_lowercase(), name.to_owned()].into_iter().find_map(|name| {
        let value = environment.variable(&name)?.to_str().filter(|value| !value.is_empty())?;
        Some((name, value))
    })
}

/// The variable and the proxy by which a host is reached; none: directly.
fn proxy_for(host: &str, environment: &Environment) -> Option<(String, Result<Url, String>)> {
    if is_loopback(host) || said(environment, "NO_PROXY").is_some_and(|(_, list)| is_excepted(host, list)) {
        return None;
    }
    let (name, value) = said(environment, "HTTPS_PROXY").or_else(|| said(environment, "ALL_PROXY"))?;
    let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let parsed = Url::parse(&text).ok().filter(|url| url.host_str().is_some());
    let proxy = match parsed {
        None => Err("it is no address".to_owned()),
        Some(url) if !["http", "https"].contains(&url.scheme()) => {
            Err(format!("{} is not spoken here", url.scheme()))
        }
        Some(url) => Ok(url),
    };
    Some((name, proxy))
}

/// Whether a list as in `NO_PROXY` names a host: itself, a domain it is in, or `*`.
fn is_excepted(host: &str, list: &str) -> bool {
    list.split(',').map(|entry| entry.trim().trim_start_matches("*.").trim_start_matches('.')).any(|entry| {
        entry == "*"
            || !entry.is_empty()
                && (host.eq_ignore_ascii_case(entry) || {
                    let end = format!(".{}", entry.to_ascii_lowercase());
                    host.to_ascii_lowercase().ends_with(&end)
                })
    })
}

fn hosts(settings: &MountSettings) -> Vec<(&'static str, Url)> {
    let mut all = vec![("Graph", settings.graph_url.clone())];
    if settings.login_url.host_str() != settings.graph_url.host_str() {
        all.push(("the sign-in service", settings.login_url.clone()));
    }
    all
}

/// Which proxy is used; its password is not shown.
pub(super) fn proxies(settings: &MountSettings, environment: &Environment) -> Vec<Finding> {
    let mut all = Vec::new();
    for (_, url) in hosts(settings) {
        let host = url.host_str().unwrap_or_default();
        all.push(match proxy_for(host, environment) {
            None => Finding::ok("proxy", format!("{host} is reached without one")),
            Some((name, Ok(proxy))) => {
                let port = proxy.port_or_known_default().unwrap_or(0);
                let found =
                    format!("{host} is reached by {}:{port} ({name})", proxy.host_str().unwrap_or_default());
                Finding::ok("proxy", found)
            }
            Some((name, Err(why))) => {
                let remedy = format!("set {name} to http://HOST:PORT, or unset it");
                Finding::bad("proxy", exit::USAGE, format!("{name}: {why}"), remedy)
            }
        });
    }
    all
}

/// Certificates of one's own, which take the place of the system's.
pub(super) fn certificates(environment: &Environment) -> Option<Finding> {
    let file = environment.variable("SSL_CERT_FILE").filter(|value| !value.is_empty());
    let dir = environment.variable("SSL_CERT_DIR").filter(|value| !value.is_empty());
    if let Some(path) = file.map(Path::new) {
        return Some(match fs::read_to_string(path) {
            Ok(text) => match text.matches("-----BEGIN CERTIFICATE-----").count() {
                0 => {
                    let found = format!("SSL_CERT_FILE: {} holds no certificate", path.display());
                    Finding::bad("certificates", exit::SYSTEM, found, "give it a PEM file, or unset it")
                }
                count => {
                    Finding::ok("certificates", format!("{count} of SSL_CERT_FILE, in place of the system's"))
                }
            },
            Err(error) => {
                let found = format!("SSL_CERT_FILE: {}: {error}", path.display());
                Finding::bad("certificates", exit::SYSTEM, found, "give it a PEM file, or unset it")
            }
        });
    }
    let dirs = std::env::split_paths(dir?).collect::<Vec<_>>();
    Some(match dirs.iter().find(|dir| !dir.is_dir()) {
        None => Finding::ok("certificates", "those of SSL_CERT_DIR, in place of the system's"),
        Some(missing) => {
            let found = format!("SSL_CERT_DIR: {} is no directory", missing.display());
            Finding::bad("certificates", exit::SYSTEM, found, "give it a directory, or unset it")
        }
    })
}

/// Names, connections and the clock; whether Graph is reached.
pub(super) async fn services(
    settings: &MountSettings,
    environment: &Environment,
    tell: &mut dyn FnMut(Finding),
) -> bool {
    let transport = match HttpTransport::new() {
        Ok(transport) => Arc::new(transport),
        Err(error) => {
            let found = reasons(&error);
            let remedy = "install the package ca-certificates, or correct SSL_CERT_FILE";
            tell(Finding::bad("certificates", exit::SYSTEM, found, remedy));
            return false;
        }
    };
    let mut reached = true;
    let mut date = None;
    for (name, url) in hosts(settings) {
        let host = url.host_str().unwrap_or_default();
        if proxy_for(host, environment).is_none() {
            let found = name_found(&url).await;
            let is_lost = found.exit_code != exit::OK;
            tell(found);
            if is_lost {
                reached = false;
                continue;
            }
        }
        match answer(&transport, &url).await {
            Ok(said) => {
                tell(Finding::ok(
                    if url.scheme() == "https" { "TLS" } else { "connection" },
                    format!("{name} at {host} answers"),
                ));
                date = date.or(said);
            }
            Err(finding) => {
                reached = false;
                tell(finding);
            }
        }
    }
    if let Some(date) = date {
        tell(clock(date, SystemTime::now()));
    }
    reached
}

async fn name_found(url: &Url) -> Finding {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(443);
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let remedy = "check the network and /etc/resolv.conf";
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((bare, port))).await {
        Ok(Ok(mut found)) => match found.next() {
            Some(address) => Finding::ok("DNS", format!("{host} is {}", address.ip())),
            None => Finding::bad("DNS", exit::SERVICE, format!("{host} has no address"), remedy),
        },
        Ok(Err(error)) => Finding::bad("DNS", exit::SERVICE, format!("{host}: {error}"), remedy),
        Err(_) => Finding::bad("DNS", exit::SERVICE, format!("{host}: no answer in time"), remedy),
    }
}

/// What the service says the time is; any answer will do.
async fn answer(transport: &HttpTransport, url: &Url) -> Result<Option<SystemTime>, Finding> {
    let host = url.host_str().unwrap_or_default();
    let bad =
        |why: String, remedy: &str| Finding::bad("TLS", exit::SERVICE, format!("{host}: {why}"), remedy);
    let request = Request::builder().method(Method::GET).uri(url.as_str()).body(Bytes::new());
    let request = request.map_err(|error| bad(error.to_string(), "correct the address"))?;
    match tokio::time::timeout(PATIENCE, transport.send(request, Lane::Metadata)).await {
        Ok(Ok(answer)) => {
            let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
            Ok(date.and_then(|date| httpdate::parse_http_date(date).ok()))
        }
        Ok(Err(error)) => {
            let why = reasons(&error);
            let remedy = match why.contains("certificate") {
                true => {
                    "a proxy may look into connections: put its certificate into the system's, or SSL_CERT_FILE"
                }
                false => "check the network, firewall and proxy (HTTPS_PROXY, NO_PROXY)",
            };
            Err(bad(why, remedy))
        }
        Err(_) => Err(bad("no answer in time".into(), "check the network, firewall and proxy")),
    }
}

/// An error with all its causes.
fn reasons(error: &TransportError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text += &format!(": {more}");
        }
        cause = error.source();
    }
    text
}

/// This machine's clock beside the service's, which tells whole seconds.
fn clock(theirs: SystemTime, ours: SystemTime) -> Finding {
    let (skew, word) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let found = format!("{} s {word} the service's", skew.as_secs());
    let remedy = "set it: timedatectl set-ntp true";
    match skew {
        _ if skew > SKEW_MAX => Finding::bad("clock", exit::SYSTEM, found, remedy),
        _ if skew > SKEW_NOTED => Finding::note("clock", found, remedy),
        _ => Finding::ok("clock", "agrees with the service's"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::doctor::Health;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(1000, 100, pairs.iter().map(|(name, value)| (name.to_string(), value.into())))
    }

    // S292.
    #[test]
    fn the_proxy_is_the_one_that_the_variables_name_and_none_for_what_they_except() {
        let host = "graph.microsoft.com";
        let of = |pairs: &[(&str, &str)]| {
            proxy_for(host, &environment(pairs))
                .map(|(name, proxy)| (name, proxy.map(|url| url.host_str().unwrap_or_default().to_owned())))
        };
        assert_eq!(of(&[]), None);
        let by = |name: &str, host: &str| Some((name.to_owned(), Ok(host.to_owned())));
        assert_eq!(of(&[("HTTPS_PROXY", "http://ann:pw@proxy:3128")]), by("HTTPS_PROXY", "proxy"));
        assert_eq!(of(&[("ALL_PROXY", "proxy:3128")]), by("ALL_PROXY", "proxy"));
        assert_eq!(of(&[("https_proxy", "http://a"), ("HTTPS_PROXY", "http://b")]), by("https_proxy", "a"));
        for list in ["*", "graph.microsoft.com", ".microsoft.com", "x, *.microsoft.com", "MICROSOFT.com"] {
            assert_eq!(of(&[("HTTPS_PROXY", "http://p"), ("NO_PROXY", list)]), None, "{list}");
        }
        for list in ["soft.com", "", "login.microsoftonline.com"] {
            assert!(of(&[("HTTPS_PROXY", "http://p"), ("NO_PROXY", list)]).is_some(), "{list}");
        }
        assert!(of(&[("HTTPS_PROXY", "ftp://p")]).is_some_and(|(_, proxy)| proxy.is_err()));
        assert!(proxy_for("127.0.0.1", &environment(&[("HTTPS_PROXY", "http://p")])).is_none());
    }

    // S292.
    #[test]
    fn a_clock_that_is_wrong_is_told() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
        for (theirs, ours, health) in [
            (0, 2, Health::Ok),
            (100, 0, Health::Note),
            (0, 100, Health::Note),
            (0, 400, Health::Bad),
            (400, 0, Health::Bad),
        ] {
            assert_eq!(clock(at(theirs), at(ours)).health, health, "{theirs} {ours}");
        }
    }

    // S292.
    #[test]
    fn certificates_of_ones_own_are_looked_at() {
        assert_eq!(certificates(&environment(&[])), None);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ca.pem");
        let text = path.to_str().unwrap();
        let health = |pairs: &[(&str, &str)]| certificates(&environment(pairs)).unwrap().health;
        assert_eq!(health(&[("SSL_CERT_FILE", text)]), Health::Bad);
        fs::write(&path, "x").unwrap();
        assert_eq!(health(&[("SSL_CERT_FILE", text)]), Health::Bad);
        fs::write(&path, "-----BEGIN CERTIFICATE-----\n").unwrap();
        assert_eq!(health(&[("SSL_CERT_FILE", text)]), Health::Ok);
        assert_eq!(health(&[("SSL_CERT_DIR", home.path().to_str().unwrap())]), Health::Ok);
        assert_eq!(health(&[("SSL_CERT_DIR", text)]), Health::Bad);
    }
}
