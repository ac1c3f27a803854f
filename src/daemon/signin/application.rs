//! Accounts of applications, which sign in without a person (graph-api 1.5, 1.6).
//!
//! What is kept is who, by which application, and where its secret is; the secret is read whenever a token is needed.
//! An account that changes is followed by mounts that run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    Account, DaemonError, Flow, LoginRequest, endpoint, no_application, read_account, refused, token_store,
    write_account,
};
use crate::auth::secrets::Variables;
use crate::auth::vault::Vault;
use crate::auth::{
    AuthError, CachedToken, Proof, Registration, SecretReader, SecretSource, TokenEndpoint, TokenSource,
    Unattended, identity, unattended,
};
use crate::clock::{Clock, SystemClock};
use crate::config::MountSettings;
use crate::daemon::{assemble, exit};
use crate::model::Timestamp;

/// Who the application is. A managed identity is known to its machine.
pub(super) fn identified(
    request: &LoginRequest,
    proof: &Proof,
    client_id: Option<String>,
    tenant: Option<String>,
) -> Result<(String, String), DaemonError> {
    if matches!(proof, Proof::ManagedIdentity { .. }) {
        return Ok((String::new(), tenant.unwrap_or_default()));
    }
    let client_id = client_id.ok_or_else(|| no_application(request))?;
    let tenant = tenant.filter(|tenant| !matches!(tenant.as_str(), "common" | "organizations" | "consumers"));
    let tenant = tenant.ok_or_else(|| DaemonError {
        what: "login".into(),
        why: "an application without a person signs in to one organisation".into(),
        remedy: "give its id or domain: --tenant contoso.com".into(),
        exit_code: exit::USAGE,
    })?;
    Ok((client_id, tenant))
}

/// Signs in once, to see that it works, and keeps how.
pub(super) async fn sign_in(settings: &MountSettings, mut account: Account) -> Result<Account, DaemonError> {
    let application = account.application();
    let failed = |error: AuthError| refused(&application, &error);
    if assemble::known_drive(settings, "me").is_some() {
        return Err(DaemonError {
            what: format!("account '{}'", settings.account),
            why: "its state belongs to a person's drive".into(),
            remedy: "give the application a name: onedrivefs login NAME".into(),
            exit_code: exit::USAGE,
        });
    }
    let endpoint: Arc<dyn TokenEndpoint> = Arc::new(endpoint(&account.login_url)?);
    let what = registered(&settings.state_dir, &account, &endpoint).map_err(failed)?;
    if let Proof::Certificate { source, password, .. } = &what.proof {
        let now = SystemClock.wall();
        let read = unattended::certificate(&what.secrets, source, password.as_ref(), now).await;
        account.ends = Some(Timestamp::from(read.map_err(failed)?.ends()));
    }
    let source = CachedToken::unattended(Arc::new(what), endpoint, Arc::new(SystemClock));
    source.token().await.map_err(failed)?;
    write_account(&settings.state_dir, &account)?;
    let left = token_store(&settings.state_dir, &account.name).remove();
    left.map_err(|error| assemble::disk_error(&settings.state_dir.join(&account.name), &error))?;
    Ok(account)
}

/// The tokens of an application's account.
pub(super) fn tokens(state_dir: &Path, account: &Account) -> Result<Arc<dyn TokenSource>, DaemonError> {
    let endpoint: Arc<dyn TokenEndpoint> = Arc::new(endpoint(&account.login_url)?);
    let kept =
        Kept { state_dir: state_dir.to_owned(), name: account.name.clone(), endpoint: Arc::clone(&endpoint) };
    Ok(Arc::new(CachedToken::unattended(Arc::new(kept), endpoint, Arc::new(SystemClock))))
}

/// The account as it is kept, read at each renewal.
#[derive(Debug)]
struct Kept {
    state_dir: PathBuf,
    name: String,
    endpoint: Arc<dyn TokenEndpoint>,
}

impl Registration for Kept {
    fn load(&self) -> Result<Option<Unattended>, AuthError> {
        let known = read_account(&self.state_dir, &self.name)
            .map_err(|error| AuthError::SignedOut { reason: error.to_string() })?;
        match known {
            Some(account) if account.is_signed_in && account.is_application() => {
                registered(&self.state_dir, &account, &self.endpoint).map(Some)
            }
            _ => Ok(None),
        }
    }
}

fn variables() -> Variables {
    Arc::new(|name| std::env::var_os(name))
}

/// What the account needs to get tokens for its Graph service.
fn registered(
    state_dir: &Path,
    account: &Account,
    endpoint: &Arc<dyn TokenEndpoint>,
) -> Result<Unattended, AuthError> {
    let Flow::Application(proof) = &account.flow else {
        return Err(AuthError::SignedOut { reason: "a person signed in for this account".into() });
    };
    let vault = vault(state_dir, proof, endpoint)?;
    Ok(made(account, proof, account.graph_url.to_string(), vault))
}

fn made(account: &Account, proof: &Proof, resource: String, vault: Option<Vault>) -> Unattended {
    Unattended {
        application: account.application(),
        proof: proof.clone(),
        resource,
        secrets: SecretReader::new(variables(), vault),
        arc_tokens: PathBuf::from(identity::ARC_TOKENS),
    }
}

/// The vault that a proof needs, and who reads it: the machine, or another account.
fn vault(
    state_dir: &Path,
    proof: &Proof,
    endpoint: &Arc<dyn TokenEndpoint>,
) -> Result<Option<Vault>, AuthError> {
    let mut needed = proof.sources().into_iter().filter_map(|source| match source {
        SecretSource::KeyVault(secret) => Some(secret),
        _ => None,
    });
    let Some(secret) = needed.next() else { return Ok(None) };
    if needed.any(|other| other.account != secret.account || other.resource() != secret.resource()) {
        let what = "certificate and password are in vaults that different accounts read: use one account";
        return Err(AuthError::Configuration { what: what.into() });
    }
    let reader = match &secret.account {
        None => machine(),
        Some(name) => reader(state_dir, name)?,
    };
    let Flow::Application(proof) = &reader.flow else {
        let what = format!("'{}' is a person's account: a vault is read by an application's", reader.name);
        return Err(AuthError::Configuration { what });
    };
    if proof.sources().iter().any(|source| matches!(source, SecretSource::KeyVault(_))) {
        let what = format!("the secret of '{}', which reads the vault, is itself in a vault", reader.name);
        return Err(AuthError::Configuration { what });
    }
    let who = made(&reader, proof, secret.resource(), None);
    let tokens = CachedToken::unattended(Arc::new(who), Arc::clone(endpoint), Arc::new(SystemClock));
    Ok(Some(Vault::new(Arc::clone(endpoint), Arc::new(tokens))))
}

fn reader(state_dir: &Path, name: &str) -> Result<Account, AuthError> {
    let known = read_account(state_dir, name).ok().flatten().filter(|account| account.is_signed_in);
    known.ok_or_else(|| AuthError::Credential {
        what: format!("account '{name}'"),
        why: "it reads the vault, and is not signed in".into(),
        remedy: format!("sign it in first: onedrivefs login {name}"),
    })
}

/// The machine's own identity.
fn machine() -> Account {
    Account {
        name: "this machine".into(),
        graph_url: MountSettings::default_graph_url(),
        login_url: MountSettings::default_login_url(),
        tenant: String::new(),
        client_id: String::new(),
        scope: String::new(),
        read_only: false,
        user: None,
        since: Timestamp::from(SystemClock.wall()),
        flow: Flow::Application(Proof::ManagedIdentity { id: None }),
        ends: None,
        signed_out: false,
        is_signed_in: true,
    }
}
