//! What a machine of Azure can ask about itself, and its key vault (graph-api 1.6).
//!
//! `/metadata/identity/oauth2/token` is a virtual machine's, `/msi/token` that of App Service and Container Apps,
//! `/arc/metadata/identity/oauth2/token` Arc's. `/secrets/NAME` is a vault.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::http::{Call, Reply};
use super::oauth::{Audience, Auth};

/// Where the vault's tokens come from.
const VAULT: &str = "https://vault.azure.net";

/// The machine that asks, and its vault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Identities that it has: application ids, object ids, resource ids. None: it has no identity at all.
    pub identities: Vec<String>,
    /// So many requests are answered 410, as while the service updates itself.
    pub updating: u32,
    /// What callers of App Service show.
    pub header: String,
    /// Where Arc's agent puts its proofs.
    pub arc_dir: Option<PathBuf>,
    /// The vault's secrets by their names.
    pub vault: BTreeMap<String, String>,
    /// The vault lets nobody read.
    pub vault_refuses: bool,
}

/// Whether a path is one of these.
pub(crate) fn op_name(path: &str) -> Option<&'static str> {
    match path {
        "/metadata/identity/oauth2/token" | "/msi/token" | "/arc/metadata/identity/oauth2/token" => {
            Some("identity.token")
        }
        path if path.starts_with("/secrets/") => Some("vault.secret"),
        _ => None,
    }
}

fn refused(status: u16, error: &str, words: &str) -> Reply {
    Reply::json(status, json!({ "error": error, "error_description": words }))
}

impl Auth {
    pub(crate) fn machine(&mut self, call: &Call) -> Reply {
        if call.method != "GET" {
            return Reply::empty(405);
        }
        match call.path.strip_prefix("/secrets/") {
            Some(name) => self.vault(call, name.split('/').next().unwrap_or_default()),
            None => self.identity(call),
        }
    }

    fn identity(&mut self, call: &Call) -> Reply {
        let says = |name: &str, value: &str| call.header(name) == Some(value);
        let (is_app_service, is_arc) = (call.path.starts_with("/msi"), call.path.starts_with("/arc"));
        if is_app_service && !says("x-identity-header", &self.machine.header) {
            return Reply::json(401, json!({ "statusCode": 401, "message": "wrong X-IDENTITY-HEADER" }));
        }
        if !is_app_service && !says("metadata", "true") {
            return refused(400, "invalid_request", "Required metadata header not specified");
        }
        let version = if is_app_service { "2019-08-01" } else { "2018-02-01" };
        let old = call.option("api-version").is_none_or(|said| said < version);
        if old || call.header("x-forwarded-for").is_some() {
            return refused(400, "bad_request", "api-version or a header does not fit");
        }
        if self.machine.updating > 0 {
            self.machine.updating -= 1;
            return Reply::empty(410);
        }
        if is_arc && let Some(challenge) = self.arc_challenge(call) {
            return challenge;
        }
        let resource = call.option("resource").unwrap_or_default().to_owned();
        // An address, not a scope.
        let is_address = url::Url::parse(&resource).is_ok_and(|url| url.has_host());
        if !is_address || resource.contains(".default") {
            let words = format!("AADSTS500011: The resource principal named {resource} was not found.");
            return refused(400, "invalid_resource", &words);
        }
        let names: &[&str] = match (is_app_service, is_arc) {
            (_, true) => &[],
            (true, _) => &["client_id", "principal_id", "mi_res_id"],
            (false, _) => &["client_id", "object_id", "msi_res_id"],
        };
        let wanted = names.iter().find_map(|name| call.option(name));
        let has = match wanted {
            Some(id) => self.machine.identities.iter().any(|known| known == id),
            None => !self.machine.identities.is_empty(),
        };
        if !has {
            return refused(400, "invalid_request", "Identity not found");
        }
        Reply::json(200, self.identity_grant(call, &resource, is_app_service))
    }

    /// Numbers are strings, and there is no refresh token.
    fn identity_grant(&mut self, call: &Call, resource: &str, is_app_service: bool) -> Value {
        let audience = if resource.starts_with(VAULT) { Audience::Vault } else { Audience::Graph };
        let (token, seconds) = self.issue(call, audience, true);
        let ends = (call.now / 1000 + seconds).to_string();
        let mut body = json!({
            "access_token": token, "expires_on": ends, "resource": resource, "token_type": "Bearer",
        });
        if !is_app_service {
            body["expires_in"] = json!(seconds.to_string());
            body["not_before"] = json!((call.now / 1000).to_string());
            body["refresh_token"] = json!("");
        }
        body
    }

    /// Who can read a file of the agent's may act as the machine.
    fn arc_challenge(&mut self, call: &Call) -> Option<Reply> {
        let directory = self.machine.arc_dir.clone()?;
        let name = self.fresh("arc").replace('.', "-");
        let shown = call.header("authorization").and_then(|it| it.strip_prefix("Basic "));
        if shown.is_some_and(|proof| self.arc_proofs.remove(proof)) {
            return None;
        }
        let proof = self.fresh("proof");
        let path = directory.join(format!("{name}.key"));
        if std::fs::write(&path, &proof).is_err() {
            return Some(Reply::empty(500));
        }
        self.arc_proofs.insert(proof);
        Some(Reply::empty(401).header("www-authenticate", format!("Basic realm={}", path.display())))
    }

    fn vault(&mut self, call: &Call, name: &str) -> Reply {
        let error = |status: u16, code: &str, words: &str| {
            Reply::json(status, json!({ "error": { "code": code, "message": words } }))
        };
        let token = call.header("authorization").and_then(|it| it.strip_prefix("Bearer "));
        if !token.is_some_and(|token| self.is_good(call, token, Audience::Vault)) {
            let challenge = format!("Bearer authorization=\"{}/tenant\", resource=\"{VAULT}\"", call.base);
            return error(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
                .header("www-authenticate", challenge);
        }
        if call.option("api-version").is_none() {
            return error(400, "BadParameter", "api-version must be specified");
        }
        if self.machine.vault_refuses {
            return error(403, "Forbidden", "Caller is not authorized to perform action on resource.");
        }
        match self.machine.vault.get(name) {
            Some(value) => {
                let id = format!("{}/secrets/{name}/1", call.base);
                Reply::json(200, json!({ "value": value, "id": id, "attributes": { "enabled": true } }))
            }
            None => error(404, "SecretNotFound", "A secret with that name was not found in this key vault."),
        }
    }
}
