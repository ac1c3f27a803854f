//! Accounts: signing in, signing out, and what is stored of each below the state directory.
//!
//! `<state>/<account>/account.json` says who and by which application; `token.json` beside it is the secret.

mod loopback;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::assemble::{self, disk_error, make_private, replace_file};
use super::{DaemonError, exit, lifecycle};
use crate::auth::{
    Application, AuthError, FileTokenStore, RefreshTokenSource, SignIn, StaticToken, TokenSource, TokenStore,
};
use crate::clock::{Clock, SystemClock};
use crate::config::MountSettings;
use crate::disk::Disk;
use crate::graph::{DriveSelector, GraphError, HttpTransport, TransportTokenEndpoint};
use crate::model::{Drive, Timestamp};

/// So long a browser is waited for: the service's code does not live longer (graph-api 1.4).
const BROWSER_LIMIT: Duration = Duration::from_secs(600);

/// A sign-in that somebody asks for.
#[derive(Clone, Debug)]
pub struct LoginRequest {
    /// Account, addresses and directories; the drive and the mount point say nothing.
    pub settings: MountSettings,
    /// Application id; without one, that of the account's last sign-in, or the built-in one.
    pub client_id: Option<String>,
    /// Whose accounts: `common`, a tenant's id or domain; without, as at the last sign-in, or `common`.
    pub tenant: Option<String>,
    /// Scopes instead of the usual ones.
    pub scopes: Option<String>,
    /// Asks only for what reading needs.
    pub read_only: bool,
    /// The person enters a code on any device, instead of a browser that comes to this machine.
    pub device_code: bool,
}

/// What the person has to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Open this in a browser of this machine.
    Browser(Url),
    /// Enter the code at the address.
    Code {
        /// To enter.
        code: String,
        /// Where.
        address: String,
    },
}

/// An account that is known here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name here; a directory name.
    #[serde(skip)]
    pub name: String,
    /// Root of the Graph service.
    pub graph_url: Url,
    /// Root of the sign-in service.
    pub login_url: Url,
    /// Whose accounts may sign in.
    pub tenant: String,
    /// Application id.
    pub client_id: String,
    /// Scopes that were asked for.
    pub scope: String,
    /// Only reading was asked for.
    pub read_only: bool,
    /// Who owns the account's own drive, where the service told.
    pub user: Option<String>,
    /// When the person signed in.
    pub since: Timestamp,
    /// Whether there is a sign-in now.
    #[serde(skip)]
    pub is_signed_in: bool,
}

impl Account {
    fn application(&self) -> Application {
        Application {
            login_url: self.login_url.clone(),
            tenant: self.tenant.clone(),
            client_id: self.client_id.clone(),
            scope: self.scope.clone(),
        }
    }
}

fn account_file(state_dir: &Path, name: &str) -> PathBuf {
    state_dir.join(name).join("account.json")
}

fn token_store(state_dir: &Path, name: &str) -> FileTokenStore {
    FileTokenStore::new(Disk::new(), state_dir.join(name).join("token.json"))
}

fn read_account(state_dir: &Path, name: &str) -> Result<Option<Account>, DaemonError> {
    let path = account_file(state_dir, name);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(disk_error(&path, &error)),
    };
    let account: Account = serde_json::from_slice(&text).map_err(|error| DaemonError {
        what: path.display().to_string(),
        why: format!("it is damaged: {error}"),
        remedy: format!("sign in again: onedrivefs login {name}"),
        exit_code: exit::SIGNED_OUT,
    })?;
    let is_signed_in = matches!(token_store(state_dir, name).load(), Ok(Some(_)));
    Ok(Some(Account { name: name.to_owned(), is_signed_in, ..account }))
}

/// The accounts known below a state directory, by their names.
pub fn accounts(state_dir: &Path) -> Result<Vec<Account>, DaemonError> {
    let entries = match fs::read_dir(state_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(disk_error(state_dir, &error)),
    };
    let mut accounts = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| disk_error(state_dir, &error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        accounts.extend(read_account(state_dir, &name)?);
    }
    accounts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(accounts)
}

/// Removes the sign-in of an account; false if there was none. What is unsent or cached stays.
pub fn logout(state_dir: &Path, name: &str) -> Result<bool, DaemonError> {
    let failed = |error: std::io::Error| disk_error(&state_dir.join(name).join("token.json"), &error);
    if !state_dir.join(name).is_dir() {
        return Ok(false);
    }
    token_store(state_dir, name).remove().map_err(failed)
}

/// Signs a person in and keeps that. Blocks until the person is done; `prompt` says what there is to do.
pub fn login(request: &LoginRequest, prompt: &mut dyn FnMut(Prompt)) -> Result<Account, DaemonError> {
    let mut settings = request.settings.clone();
    let last = read_account(&settings.state_dir, &settings.account).unwrap_or_default();
    if let Some(last) = &last
        && settings.graph_url == MountSettings::default_graph_url()
    {
        (settings.graph_url, settings.login_url) = (last.graph_url.clone(), last.login_url.clone());
    }
    let settings = &settings;
    let account = wanted(request, settings, last.as_ref())?;
    make_private(&settings.state_dir.join(&settings.account))?;
    let runtime = lifecycle::runtime()?;
    runtime.block_on(async {
        let signed_in = sign_in(&account.application(), request.device_code, prompt).await?;
        keep(settings, account, &signed_in).await
    })
}

/// What the sign-in is to be for, with nothing left open.
fn wanted(
    request: &LoginRequest,
    settings: &MountSettings,
    last: Option<&Account>,
) -> Result<Account, DaemonError> {
    let known = last.filter(|last| last.login_url == settings.login_url);
    let built_in = option_env!("ONEDRIVEFS_CLIENT_ID").map(str::to_owned);
    let client_id = request.client_id.clone().or(known.map(|last| last.client_id.clone())).or(built_in);
    let client_id = client_id.ok_or_else(|| DaemonError {
        what: "login".into(),
        why: "no application is registered for this program yet".into(),
        remedy: REGISTER.into(),
        exit_code: exit::USAGE,
    })?;
    let usual = |access: &str| {
        let root = settings.graph_url.as_str();
        let scopes = ["Files", "Sites"].map(|what| format!("{root}{what}.{access}.All"));
        format!("offline_access {}", scopes.join(" "))
    };
    let read_only = request.read_only;
    let scope = request.scopes.clone().unwrap_or_else(|| usual(if read_only { "Read" } else { "ReadWrite" }));
    let has_offline = scope.split_whitespace().any(|one| one == "offline_access");
    Ok(Account {
        name: settings.account.clone(),
        graph_url: settings.graph_url.clone(),
        login_url: settings.login_url.clone(),
        tenant: request.tenant.clone().or(known.map(|last| last.tenant.clone())).unwrap_or("common".into()),
        client_id,
        scope: if has_offline { scope } else { format!("offline_access {scope}") },
        read_only,
        user: None,
        since: Timestamp::from(SystemClock.wall()),
        is_signed_in: true,
    })
}

/// How to get an application id.
const REGISTER: &str = "register one once, with the Azure command line: \
    az ad app create --display-name onedrivefs --sign-in-audience AzureADandPersonalMicrosoftAccount \
    --is-fallback-public-client true --public-client-redirect-uris http://localhost --query appId -o tsv \
    (or at https://entra.microsoft.com, App registrations, New: any account, public client, redirect address \
    http://localhost), then run: onedrivefs login --client-id ID (it is remembered)";

async fn sign_in(
    application: &Application,
    device_code: bool,
    prompt: &mut dyn FnMut(Prompt),
) -> Result<SignIn, DaemonError> {
    let refused = |error: AuthError| refused(application, &error);
    let endpoint = endpoint(&application.login_url)?;
    if device_code {
        let code = application.ask_device_code(&endpoint).await.map_err(refused)?;
        prompt(Prompt::Code { code: code.user_code.clone(), address: code.verification_uri.clone() });
        return application.await_device(&endpoint, &code).await.map_err(refused);
    }
    let page = loopback::Page::listen().await.map_err(|error| DaemonError {
        what: "login".into(),
        why: format!("no browser could come back to this machine: {error}"),
        remedy: "use --device-code".into(),
        exit_code: exit::SYSTEM,
    })?;
    let request = application.begin_in_browser(&page.address()).map_err(refused)?;
    prompt(Prompt::Browser(request.url.clone()));
    let redeem = async |code| application.redeem(&endpoint, &request, code).await;
    let finish = page.answer(|query| request.answer(query), redeem);
    match tokio::time::timeout(BROWSER_LIMIT, finish).await {
        Ok(done) => done.map_err(refused),
        Err(_) => Err(refused(AuthError::SignedOut {
            reason: "nobody finished the sign-in in the browser: begin again, or use --device-code".into(),
        })),
    }
}

/// Stores the sign-in, unless it is another person's than what the account's state belongs to.
async fn keep(
    settings: &MountSettings,
    account: Account,
    signed_in: &SignIn,
) -> Result<Account, DaemonError> {
    let tokens = Arc::new(StaticToken::new(signed_in.access.expose()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let graph = assemble::graph(settings, tokens, &clock)?;
    let own = match graph.resolve_drive(&DriveSelector::Me).await {
        Ok(drive) => Some(drive),
        // An account without a drive of its own may still reach others'.
        Err(GraphError::NotFound { .. } | GraphError::AccessDenied { .. }) => None,
        Err(error) => return Err(assemble::service_error(settings, &error)),
    };
    check_same_drive(settings, own.as_ref())?;
    let account = Account { user: own.and_then(|drive| drive.owner), ..account };
    let path = account_file(&settings.state_dir, &account.name);
    let text = serde_json::to_vec_pretty(&account).expect("plain data is always written");
    replace_file(&path, &text).map_err(|error| disk_error(&path, &error))?;
    let store = token_store(&settings.state_dir, &account.name);
    store.save(&signed_in.stored).map_err(|error| disk_error(&path.with_file_name("token.json"), &error))?;
    Ok(account)
}

/// What is unsent of one person's drive is not sent to another's.
fn check_same_drive(settings: &MountSettings, own: Option<&Drive>) -> Result<(), DaemonError> {
    let known = assemble::known_drive(settings, "me");
    match (known, own) {
        (Some(known), Some(own)) if known.id.canonical() != own.id.canonical() => Err(DaemonError {
            what: format!("account '{}'", settings.account),
            why: "its state belongs to the drive of somebody else than who signed in now".into(),
            remedy: "sign in as the same person, or give this one a name: onedrivefs login NAME".into(),
            exit_code: exit::USAGE,
        }),
        _ => Ok(()),
    }
}

/// The tokens of the settings' account; the settings follow what it signed in for.
pub(super) fn tokens(settings: &mut MountSettings) -> Result<Arc<dyn TokenSource>, DaemonError> {
    let name = settings.account.clone();
    let known = read_account(&settings.state_dir, &name)?.ok_or_else(|| DaemonError {
        what: format!("account '{name}'"),
        why: "nobody signed in for it".into(),
        remedy: format!("run 'onedrivefs login {name}'"),
        exit_code: exit::SIGNED_OUT,
    })?;
    adopt(settings, &known)?;
    let refused = |error: AuthError| refused(&known.application(), &error);
    let client = known.application().client().map_err(refused)?;
    let store = Arc::new(token_store(&settings.state_dir, &name));
    let endpoint = Arc::new(endpoint(&known.login_url)?);
    Ok(Arc::new(RefreshTokenSource::new(client, endpoint, store, Arc::new(SystemClock))))
}

/// A token goes to the service that it was given for, and nowhere else.
fn adopt(settings: &mut MountSettings, account: &Account) -> Result<(), DaemonError> {
    let is_said = settings.graph_url != MountSettings::default_graph_url();
    if is_said && settings.graph_url != account.graph_url {
        return Err(DaemonError {
            what: format!("account '{}'", account.name),
            why: format!("it is signed in at {}, not at {}", account.graph_url, settings.graph_url),
            remedy: format!(
                "leave --graph-url out, or sign in there under another name: onedrivefs login NAME --graph-url {}",
                settings.graph_url
            ),
            exit_code: exit::USAGE,
        });
    }
    settings.graph_url = account.graph_url.clone();
    settings.login_url = account.login_url.clone();
    settings.read_only |= account.read_only;
    Ok(())
}

fn endpoint(login_url: &Url) -> Result<TransportTokenEndpoint, DaemonError> {
    let transport = HttpTransport::new().map_err(|error| DaemonError {
        what: login_url.to_string(),
        why: error.to_string(),
        remedy: "check the system's certificates and proxy settings".into(),
        exit_code: exit::SYSTEM,
    })?;
    Ok(TransportTokenEndpoint::new(Arc::new(transport)))
}

fn refused(application: &Application, error: &AuthError) -> DaemonError {
    let (why, remedy, exit_code) = match error {
        AuthError::SignedOut { reason } => (reason.clone(), "run 'onedrivefs login' again", exit::SIGNED_OUT),
        AuthError::Network(source) => {
            (format!("it cannot be reached: {source}"), "check the network and --login-url", exit::SERVICE)
        }
        AuthError::Configuration { what } => (what.clone(), "see 'onedrivefs login --help'", exit::USAGE),
    };
    DaemonError { what: application.login_url.to_string(), why, remedy: remedy.into(), exit_code }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Choices, Environment};
    use crate::model::{DriveId, DriveType};

    fn settings(state_dir: &Path, graph_url: Option<&str>) -> MountSettings {
        let mut flags = Choices::default();
        flags.set("state-dir", &state_dir.display().to_string()).expect("a directory");
        if let Some(url) = graph_url {
            flags.set("graph-url", url).expect("an address");
        }
        let environment = Environment::new(1000, 100, []).without_settings();
        MountSettings::resolve("me", Path::new("/mnt"), flags, &environment).expect("settings")
    }

    fn account(graph_url: &str, read_only: bool) -> Account {
        let request = LoginRequest {
            settings: settings(Path::new("/s"), Some(graph_url)),
            client_id: Some("c".into()),
            tenant: None,
            scopes: None,
            read_only,
            device_code: true,
        };
        wanted(&request, &request.settings, None).expect("all is said")
    }

    // S236.
    #[test]
    fn a_token_goes_only_to_the_service_it_was_given_for() {
        let known = account("https://graph.microsoft.us", true);
        let mut quiet = settings(Path::new("/s"), None);
        adopt(&mut quiet, &known).expect("the account says where");
        assert_eq!(quiet.graph_url, known.graph_url);
        assert!(quiet.read_only);
        let mut other = settings(Path::new("/s"), Some("https://evil.example"));
        let refused = adopt(&mut other, &known).expect_err("another service");
        assert_eq!(refused.exit_code, exit::USAGE);
    }

    // S230.
    #[test]
    fn what_is_asked_for_fits_the_service_and_the_use() {
        let known = account("https://graph.microsoft.us", true);
        let scope = "offline_access https://graph.microsoft.us/Files.Read.All https://graph.microsoft.us/Sites.Read.All";
        assert_eq!(known.scope, scope);
        assert!(account("https://graph.microsoft.com", false).scope.contains("Files.ReadWrite.All"));
    }

    // S235.
    #[test]
    fn the_state_of_one_persons_drive_is_not_given_to_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = settings(dir.path(), None);
        let drive = |id: &str| Drive::bare(DriveId::new(id), DriveType::Business, "OneDrive".into());
        check_same_drive(&settings, Some(&drive("b!one"))).expect("nothing is known yet");
        let account_dir = dir.path().join("default");
        fs::create_dir(&account_dir).expect("a directory");
        let known =
            r#"{"https://graph.microsoft.com/ me":{"id":"b!one","drive_type":"business","name":"OneDrive"}}"#;
        fs::write(account_dir.join("drives.json"), known).expect("written");
        check_same_drive(&settings, Some(&drive("b!one"))).expect("the same");
        check_same_drive(&settings, None).expect("none of its own");
        let refused = check_same_drive(&settings, Some(&drive("b!two"))).expect_err("another's");
        assert!(refused.remedy.contains("login NAME"), "{refused}");
    }

    // S234.
    #[test]
    fn a_damaged_account_says_to_sign_in_again() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("work")).expect("a directory");
        assert_eq!(accounts(dir.path()).expect("no account is none"), []);
        fs::write(dir.path().join("work/account.json"), "{").expect("written");
        let refused = accounts(dir.path()).expect_err("damaged");
        assert!(refused.remedy.contains("onedrivefs login work"), "{refused}");
        assert!(
            !logout(dir.path(), "work").expect("no token") && !logout(dir.path(), "other").expect("none")
        );
    }
}
