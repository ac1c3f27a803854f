//! Accounts: signing in, signing out, and what is stored of each below the state directory.
//!
//! `<state>/<account>/account.json` says who and by which application; `token.json` beside it is the secret of a
//! person. Of an application that signs in without a person nothing secret is kept (`application.rs`).

mod application;
mod consent;
mod loopback;
mod register;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::assemble::{self, disk_error, make_private, replace_file};
use super::{DaemonError, exit, lifecycle};
pub use consent::{Consent, admin_consent};

pub use crate::auth::certificate::Signing;
use crate::auth::{
    Application, AuthError, CachedToken, FileTokenStore, SignIn, StaticToken, TokenSource, TokenStore,
};
pub use crate::auth::{Proof, SecretSource};
use crate::clock::{Clock, SystemClock};
use crate::config::MountSettings;
use crate::disk::Disk;
use crate::graph::{GraphError, HttpTransport, TransportTokenEndpoint};
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
    /// How.
    pub flow: Flow,
}

/// How somebody signs in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flow {
    /// A person, in a browser that comes back to this machine.
    #[default]
    Browser,
    /// A person, who enters a code on any device.
    DeviceCode,
    /// An application, without a person.
    Application(Proof),
}

impl fmt::Display for Flow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Browser => "browser",
            Self::DeviceCode => "device code",
            Self::Application(Proof::ClientSecret { .. }) => "client secret",
            Self::Application(Proof::Certificate { .. }) => "certificate",
            Self::Application(Proof::FederatedToken { .. }) => "federated token",
            Self::Application(Proof::ManagedIdentity { .. }) => "managed identity",
        })
    }
}

/// What the person has to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Open this in a browser of this machine.
    Browser(Url),
    /// An administrator opens this in any browser.
    Consent(Url),
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
    /// When it signed in.
    pub since: Timestamp,
    /// How.
    #[serde(default)]
    pub flow: Flow,
    /// When what proves the application ends, where that is known.
    #[serde(default)]
    pub ends: Option<Timestamp>,
    /// An application that was signed out.
    #[serde(default)]
    signed_out: bool,
    /// Whether there is a sign-in now.
    #[serde(skip)]
    pub is_signed_in: bool,
}

impl Account {
    /// Whether it is an application's, which signs in without a person and has no drive of its own.
    pub fn is_application(&self) -> bool {
        matches!(self.flow, Flow::Application(_))
    }

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
    let is_signed_in = match account.flow {
        Flow::Application(_) => !account.signed_out,
        Flow::Browser | Flow::DeviceCode => matches!(token_store(state_dir, name).load(), Ok(Some(_))),
    };
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
    let removed = token_store(state_dir, name).remove().map_err(failed)?;
    // A damaged account has nothing else to sign out.
    match read_account(state_dir, name).unwrap_or_default() {
        Some(account) if account.is_application() && account.is_signed_in => {
            write_account(state_dir, &Account { signed_out: true, ..account })?;
            Ok(true)
        }
        _ => Ok(removed),
    }
}

fn write_account(state_dir: &Path, account: &Account) -> Result<(), DaemonError> {
    let path = account_file(state_dir, &account.name);
    let text = serde_json::to_vec_pretty(account).expect("plain data is always written");
    replace_file(&path, &text).map_err(|error| disk_error(&path, &error))
}

/// Signs in and keeps that. Blocks until a person is done; `prompt` says what there is to do.
pub fn login(request: &LoginRequest, prompt: &mut dyn FnMut(Prompt)) -> Result<Account, DaemonError> {
    let (settings, last) = known(request);
    let settings = &settings;
    let account = wanted(request, settings, last.as_ref())?;
    make_private(&settings.state_dir.join(&settings.account))?;
    let runtime = lifecycle::runtime()?;
    runtime.block_on(async {
        if account.is_application() {
            return application::sign_in(settings, account).await;
        }
        let signed_in = sign_in(&account.application(), account.flow == Flow::DeviceCode, prompt).await?;
        keep(settings, account, &signed_in).await
    })
}

/// The account as it was, and settings that follow it.
fn known(request: &LoginRequest) -> (MountSettings, Option<Account>) {
    let mut settings = request.settings.clone();
    let last = read_account(&settings.state_dir, &settings.account).unwrap_or_default();
    if let Some(last) = &last
        && settings.graph_url == MountSettings::default_graph_url()
    {
        (settings.graph_url, settings.login_url) = (last.graph_url.clone(), last.login_url.clone());
    }
    (settings, last)
}

/// The application that signs in: as said, as at the last time, as another person here does, or as built in.
fn client_id(request: &LoginRequest, settings: &MountSettings, known: Option<&Account>) -> Option<String> {
    let own = || known.map(|last| last.client_id.clone()).filter(|id| !id.is_empty());
    if matches!(request.flow, Flow::Application(_)) {
        return request.client_id.clone().or_else(own);
    }
    let others = || {
        let mut all = accounts(&settings.state_dir).unwrap_or_default();
        all.retain(|one| one.login_url == settings.login_url && !one.is_application());
        all.into_iter().max_by_key(|one| one.since).map(|one| one.client_id)
    };
    let built_in = option_env!("ONEDRIVEFS_CLIENT_ID").map(str::to_owned);
    request.client_id.clone().or_else(own).or_else(others).or(built_in)
}

fn needs(request: &LoginRequest) -> register::Needs {
    let is_application = matches!(request.flow, Flow::Application(_));
    register::Needs { is_application, read_only: request.read_only }
}

fn no_application(request: &LoginRequest) -> DaemonError {
    let needs = needs(request);
    let why = match needs.is_application {
        true => "it is not said which application signs in (--client-id)",
        false => "no application is registered for this program yet",
    };
    DaemonError { what: "login".into(), why: why.into(), remedy: needs.in_one_line(), exit_code: exit::USAGE }
}

/// How to register an application, step by step, where none is known for this sign-in of a person.
pub fn steps_to_register(request: &LoginRequest) -> Option<String> {
    let (settings, last) = known(request);
    let known = last.as_ref().filter(|last| last.login_url == settings.login_url);
    let is_person = !matches!(request.flow, Flow::Application(_));
    (is_person && client_id(request, &settings, known).is_none()).then(|| needs(request).in_steps())
}

/// What the sign-in is to be for, with nothing left open.
fn wanted(
    request: &LoginRequest,
    settings: &MountSettings,
    last: Option<&Account>,
) -> Result<Account, DaemonError> {
    let known = last.filter(|last| last.login_url == settings.login_url);
    let client_id = client_id(request, settings, known);
    let tenant = request.tenant.clone().or(known.map(|last| last.tenant.clone()));
    let (client_id, tenant) = match &request.flow {
        Flow::Application(proof) => application::identified(request, proof, client_id, tenant)?,
        Flow::Browser | Flow::DeviceCode => {
            let client_id = client_id.ok_or_else(|| no_application(request))?;
            (client_id, tenant.unwrap_or("common".into()))
        }
    };
    Ok(Account {
        name: settings.account.clone(),
        graph_url: settings.graph_url.clone(),
        login_url: settings.login_url.clone(),
        tenant,
        client_id,
        scope: scope(request, settings),
        read_only: request.read_only,
        user: None,
        since: Timestamp::from(SystemClock.wall()),
        flow: request.flow.clone(),
        ends: None,
        signed_out: false,
        is_signed_in: true,
    })
}

/// What is asked for. An application has what its administrator gave it.
fn scope(request: &LoginRequest, settings: &MountSettings) -> String {
    let root = settings.graph_url.as_str();
    if matches!(request.flow, Flow::Application(_)) {
        return format!("{root}.default");
    }
    let access = if request.read_only { "Read" } else { "ReadWrite" };
    let usual = || ["Files", "Sites"].map(|what| format!("{root}{what}.{access}.All")).join(" ");
    let scope = request.scopes.clone().unwrap_or_else(usual);
    let has_offline = scope.split_whitespace().any(|one| one == "offline_access");
    if has_offline { scope } else { format!("offline_access {scope}") }
}

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
    let finish = page.answer(loopback::SIGNED_IN, |query| request.answer(query), redeem);
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
    let own = match graph.own_drive().await {
        Ok(drive) => Some(drive),
        // An account without a drive of its own may still reach others'.
        Err(GraphError::NotFound { .. } | GraphError::AccessDenied { .. }) => None,
        Err(error) => return Err(assemble::service_error(settings, &error)),
    };
    check_same_drive(settings, own.as_ref())?;
    let account = Account { user: own.and_then(|drive| drive.owner), ..account };
    write_account(&settings.state_dir, &account)?;
    let store = token_store(&settings.state_dir, &account.name);
    let path = settings.state_dir.join(&account.name).join("token.json");
    store.save(&signed_in.stored).map_err(|error| disk_error(&path, &error))?;
    Ok(account)
}

/// What is unsent of one person's drive is not sent to another's.
fn check_same_drive(settings: &MountSettings, own: Option<&Drive>) -> Result<(), DaemonError> {
    let known = assemble::known_drive(settings, "me");
    match (known, own) {
        (Some(known), Some(own)) if known.drive.id.canonical() != own.id.canonical() => Err(DaemonError {
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
    if known.is_application() {
        return application::tokens(&settings.state_dir, &known);
    }
    let refused = |error: AuthError| refused(&known.application(), &error);
    let client = known.application().client().map_err(refused)?;
    let store = Arc::new(token_store(&settings.state_dir, &name));
    let endpoint = Arc::new(endpoint(&known.login_url)?);
    Ok(Arc::new(CachedToken::refreshed(client, endpoint, store, Arc::new(SystemClock))))
}

/// Whether the settings' account is an application's, which has no drive of its own.
pub(super) fn is_application(settings: &MountSettings) -> bool {
    let known = read_account(&settings.state_dir, &settings.account).unwrap_or_default();
    known.is_some_and(|account| account.is_application())
}

/// Of an application no own drive can be mounted.
pub(super) fn check_own_drive(settings: &MountSettings) -> Result<(), DaemonError> {
    let is_own = settings.drive == "me" || settings.drive.starts_with("me:");
    if !is_own || !is_application(settings) {
        return Ok(());
    }
    Err(DaemonError {
        what: format!("account '{}'", settings.account),
        why: "it is an application's, which has no drive of its own".into(),
        remedy: format!("mount one that 'onedrivefs drives --account {}' lists", settings.account),
        exit_code: exit::USAGE,
    })
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
    // A machine is known to its surroundings, and to no sign-in service.
    let is_machine = application.client_id.is_empty();
    let (why, remedy, exit_code) = match error {
        AuthError::SignedOut { reason } => (reason.clone(), "run 'onedrivefs login' again", exit::SIGNED_OUT),
        AuthError::Network(source) => {
            let remedy = match is_machine {
                true => "a managed identity is there on machines of Azure only",
                false => "check the network and --login-url",
            };
            (format!("it cannot be reached: {source}"), remedy, exit::SERVICE)
        }
        AuthError::Configuration { what } => (what.clone(), "see 'onedrivefs login --help'", exit::USAGE),
        AuthError::Refused { why, remedy } => (why.clone(), remedy.as_str(), exit::APPLICATION),
        AuthError::Credential { what, why, remedy } => {
            let (what, why, remedy) = (what.clone(), why.clone(), remedy.clone());
            return DaemonError { what, why, remedy, exit_code: exit::SECRET };
        }
    };
    let what =
        if is_machine { "this machine's identity".to_owned() } else { application.login_url.to_string() };
    DaemonError { what, why, remedy: remedy.to_owned(), exit_code }
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
            flow: Flow::DeviceCode,
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
