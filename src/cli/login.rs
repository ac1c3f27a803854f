//! `onedrivefs login`.

use std::io::{BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};

use clap::ValueEnum;

use super::output::{CliError, print, print_json};
use super::{proof, settings};
use crate::config::{Choices, ConfigFile, Environment, MountSettings};
use crate::daemon::exit;
use crate::daemon::signin::{self, Account, Consent, Flow, LoginRequest, Prompt, Proof};

/// Sign in to an account.
///
/// Opens the browser; where there is none, or with --device-code, shows a code to enter on any device. The sign-in is
/// kept in the state directory, readable by you only, and is renewed by itself. Mounts that are signed out go on by
/// themselves.
///
/// Needs an application registered with the service, once; without one this says how to register it. An application
/// may sign in without a person, by a certificate, a secret, or what the machine is to Azure; nothing secret is kept then.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs login                                    your account
  onedrivefs login --client-id 1b4e28ba-2fa1-11d2-883f-0016d3cca427
  onedrivefs login work --tenant contoso.com          another one, of an organisation
  onedrivefs login --device-code                      on a machine without a browser
  onedrivefs login archive --read-only                never changes anything
  onedrivefs login files --tenant contoso.com --client-id ID --certificate file:/etc/app.pem
  onedrivefs login --admin-consent                    asks an administrator to allow it
  onedrivefs login files --managed-identity           as what this machine is to Azure
  onedrivefs mount me ~/work --account work

Exit codes: 2 if something is missing, or an address is wrong; 5 if nobody finished the sign-in, or it was declined;
6 if the service cannot be reached; 9 if a secret or a certificate cannot be used; 10 if the service refuses the
application.")]
pub struct Args {
    /// What the account is called here [default: default]
    account: Option<String>,
    /// Show a code to enter on any device, instead of opening the browser
    #[arg(long, group = "proof")]
    device_code: bool,
    /// Id of the registered application [default: that of the last sign-in]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Whose accounts: common, organizations, consumers, an organisation's id or domain [default: common]
    #[arg(long, value_name = "T")]
    tenant: Option<String>,
    /// Show the link by which an administrator consents for the whole organisation, and open it
    #[arg(long, group = "proof", conflicts_with = "scopes")]
    admin_consent: bool,
    /// Which of the service's clouds
    #[arg(long, value_enum, default_value_t = Cloud::Global)]
    cloud: Cloud,
    /// What to ask for, separated by spaces [default: files and sites, to read and write]
    #[arg(long, value_name = "S", conflicts_with_all = WITHOUT_SCOPES)]
    scopes: Option<String>,
    /// Ask only for what reading needs; mounts of the account are read-only
    #[arg(long)]
    read_only: bool,
    /// Where sign-ins are kept
    #[arg(long, value_name = "D")]
    state_dir: Option<String>,
    /// Root of the Graph service, instead of the cloud's
    #[arg(long, value_name = "U")]
    graph_url: Option<String>,
    /// Root of the sign-in service, instead of the cloud's
    #[arg(long, value_name = "U")]
    login_url: Option<String>,
    /// Print who signed in as JSON
    #[arg(long)]
    json: bool,
    // Last: its heading would be that of all that follows.
    #[command(flatten)]
    proof: proof::Args,
}

/// Ways to sign in that ask for what an administrator has allowed, and nothing else.
const WITHOUT_SCOPES: [&str; 4] =
    ["client_secret", "certificate", "managed_identity", "federated_token_file"];

/// The service's clouds (graph-api 1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cloud {
    Global,
    Usgov,
    Dod,
    China,
}

impl Cloud {
    /// Roots of the Graph and of the sign-in service.
    fn roots(self) -> (&'static str, &'static str) {
        match self {
            Self::Global => ("https://graph.microsoft.com", "https://login.microsoftonline.com"),
            Self::Usgov => ("https://graph.microsoft.us", "https://login.microsoftonline.us"),
            Self::Dod => ("https://dod-graph.microsoft.us", "https://login.microsoftonline.us"),
            Self::China => ("https://microsoftgraph.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
        }
    }
}

pub fn run(args: Args) -> Result<u8, CliError> {
    let environment = Environment::of_process();
    let args = with_file(args, &environment)?;
    let proof = args.proof.proof()?;
    let workload = match &proof {
        Some(Proof::FederatedToken { .. }) => proof::of_workload(&environment),
        _ => [const { None }; 3],
    };
    let [client_id, tenant, login_url] = workload;
    let settings = settings(&args, login_url, &environment)?;
    let browser = if args.device_code { None } else { browser(&environment) };
    let mut request = LoginRequest {
        settings,
        client_id: args.client_id.or(client_id),
        tenant: args.tenant.or(tenant),
        scopes: args.scopes,
        read_only: args.read_only,
        flow: match (proof, &browser) {
            (Some(proof), _) => Flow::Application(proof),
            (None, Some(_)) => Flow::Browser,
            (None, None) => Flow::DeviceCode,
        },
    };
    if request.client_id.is_none()
        && std::io::stdin().is_terminal()
        && let Some(steps) = signin::steps_to_register(&request)
    {
        request.client_id = ask_for_application(&steps, std::io::stdin().lock(), std::io::stderr());
    }
    if args.admin_consent {
        let consent = signin::admin_consent(&request, browser.is_some(), &mut |prompt| {
            ask(&prompt, browser.as_deref());
        })?;
        return consented(&consent, args.json);
    }
    let account = signin::login(&request, &mut |prompt| ask(&prompt, browser.as_deref()))?;
    if args.json {
        print_json(&serde_json::json!({ "account": account.name, "user": account.user }))?;
    } else {
        print(&welcome(&account))?;
    }
    Ok(exit::OK)
}

/// What nobody says here is as the configuration file says it of the account.
fn with_file(mut args: Args, environment: &Environment) -> Result<Args, CliError> {
    let file = ConfigFile::read(environment)?;
    let flags = settings::given(&[("account", &args.account)])?;
    let name = settings::without_mount(flags, environment)?.account;
    let Some(account) = file.account(&name) else { return Ok(args) };
    let word = |name: &str| account.word(name).map(ToOwned::to_owned);
    args.client_id = args.client_id.or_else(|| word("client-id"));
    args.tenant = args.tenant.or_else(|| word("tenant"));
    if !args.device_code {
        args.proof = args.proof.or(word);
    }
    if !args.proof.is_given() {
        args.scopes = args.scopes.or_else(|| word("scopes"));
    }
    Ok(args)
}

/// What somebody at the terminal enters; none where that is nothing.
fn ask_for_application(steps: &str, mut from: impl BufRead, mut to: impl Write) -> Option<String> {
    let mut line = String::new();
    write!(to, "{steps}\nApplication (client) id: ").and_then(|()| to.flush()).ok()?;
    from.read_line(&mut line).ok()?;
    Some(line.trim().to_owned()).filter(|id| !id.is_empty())
}

fn consented(consent: &Consent, json: bool) -> Result<u8, CliError> {
    match consent {
        Consent::Given { tenant } if json => print_json(&serde_json::json!({ "consent": tenant }))?,
        Consent::Given { tenant } => print(&format!("consent given: {tenant}\n"))?,
        Consent::Asked if json => print_json(&serde_json::json!({ "consent": null }))?,
        Consent::Asked => {}
    }
    Ok(exit::OK)
}

/// Account, addresses and directories. `login_url`: of the surroundings, where nothing is said.
fn settings(
    args: &Args,
    login_url: Option<String>,
    environment: &Environment,
) -> Result<MountSettings, CliError> {
    let mut flags = settings::given(&[
        ("account", &args.account),
        ("state-dir", &args.state_dir),
        ("graph-url", &args.graph_url),
        ("login-url", &args.login_url),
    ])?;
    if args.cloud != Cloud::Global {
        let mut roots = Choices::default();
        let (graph, login) = args.cloud.roots();
        settings::set(&mut roots, "graph-url", graph)?;
        settings::set(&mut roots, "login-url", login)?;
        flags = flags.over(roots);
    } else if let Some(url) = login_url {
        let mut roots = Choices::default();
        settings::set(&mut roots, "login-url", &url)?;
        flags = flags.over(roots);
    }
    settings::without_mount(flags, environment)
}

/// The command that opens a browser, if there is a screen for one.
fn browser(environment: &Environment) -> Option<String> {
    let said = |name: &str| environment.variable(name).filter(|value| !value.is_empty());
    if let Some(command) = said("BROWSER") {
        return Some(command.to_string_lossy().into_owned());
    }
    said("DISPLAY").or(said("WAYLAND_DISPLAY")).map(|_| "xdg-open".to_owned())
}

fn ask(prompt: &Prompt, browser: Option<&str>) {
    let words = match prompt {
        Prompt::Code { code, address } => {
            format!("Open {address} in a browser and enter the code {code}\n")
        }
        Prompt::Consent(url) => format!(
            "An administrator opens this in a browser: {url}\nIt ends at http://localhost, where nothing answers: it \
             was given if that address says admin_consent=True.\n"
        ),
        Prompt::Browser(url) => {
            let opened = browser.is_some_and(|command| {
                let mut command = Command::new(command);
                command.arg(url.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                command.spawn().is_ok()
            });
            match opened {
                true => format!("The sign-in continues in your browser. If none opened, open there: {url}\n"),
                false => {
                    format!("Open this in a browser of this machine: {url}\n(elsewhere: --device-code)\n")
                }
            }
        }
    };
    // Nowhere is left to say that stderr is closed.
    let _ = std::io::stderr().write_all(words.as_bytes());
}

fn welcome(account: &Account) -> String {
    let name = if account.name == "default" { String::new() } else { format!(" --account {}", account.name) };
    let (who, drive) = match (&account.user, account.is_application()) {
        (Some(user), _) => (user.as_str(), "me"),
        (None, false) => ("an account without a drive of its own", "DRIVE"),
        (None, true) => ("an application", "DRIVE"),
    };
    let next = if std::io::stdout().is_terminal() {
        format!("Mount it with: onedrivefs mount {drive} DIR{name}\n")
    } else {
        String::new()
    };
    format!("signed in: {who}\n{next}")
}

#[cfg(test)]
mod tests {
    use super::*;

    // S244.
    #[test]
    fn somebody_at_a_terminal_is_shown_the_steps_and_asked_for_the_id() {
        let ask = |typed: &str| {
            let mut shown = Vec::new();
            let id = ask_for_application("steps\n", typed.as_bytes(), &mut shown);
            (id, String::from_utf8(shown).expect("text"))
        };
        let (id, shown) = ask(" 1b4e28ba \n");
        assert_eq!(id.as_deref(), Some("1b4e28ba"));
        assert!(shown.starts_with("steps\n") && shown.ends_with("id: "), "{shown}");
        assert_eq!(ask("\n").0, None);
        assert_eq!(ask("").0, None);
    }
}
