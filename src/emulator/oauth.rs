//! Tokens: the check of bearer tokens and the token endpoint (graph-api 1.3, 1.5, 1.7, 1.9).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::applications::{self, Registered};
use super::config::{EmulatorConfig, Tokens};
use super::error::{ApiError, ApiResult};
use super::http::{Call, Reply};
use super::ids::{Guid, mix};
use super::machine::Machine;
use super::time::Ms;

/// A device code works this long (graph-api 1.3).
const DEVICE_CODE_SECONDS: i64 = 900;

#[derive(Debug)]
struct DeviceCode {
    expires: Ms,
    state: DeviceState,
    offline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceState {
    Pending,
    Approved,
    Declined,
}

/// A code that a browser was sent back with: good once (graph-api 1.4).
#[derive(Debug)]
struct BrowserCode {
    client: String,
    redirect: String,
    challenge: String,
    offline: bool,
    used: bool,
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    Graph,
    Vault,
}

#[derive(Debug)]
struct Issued {
    end: Ms,
    audience: Audience,
    is_application: bool,
}

#[derive(Debug)]
pub(crate) struct Auth {
    accepted: Tokens,
    /// Applications that may sign in without a person; none: any may.
    pub(crate) applications: Vec<Registered>,
    pub(crate) machine: Machine,
    /// Tenant and application id of what administrators consented to.
    pub(crate) consents: Vec<(String, String)>,
    /// What Arc's agent wrote into files and was not shown yet.
    pub(crate) arc_proofs: BTreeSet<String>,
    /// Issued by the endpoint.
    issued: BTreeMap<String, Issued>,
    /// Seen and then expired by a test.
    expired: BTreeSet<String>,
    seen: BTreeSet<String>,
    refresh: BTreeSet<String>,
    devices: BTreeMap<String, DeviceCode>,
    codes: BTreeMap<String, BrowserCode>,
    lifetime: Ms,
    key: u64,
    count: u64,
    pub(crate) rotation_strict: bool,
    pub(crate) invalid_grant: bool,
    /// Device codes are approved at the first poll, and browsers sent back with a code; off: device codes wait until a
    /// test approves them, and browsers are sent back as declined.
    pub(crate) approve_devices: bool,
}

impl Auth {
    pub(crate) fn new(config: &EmulatorConfig) -> Self {
        Self {
            accepted: config.tokens.clone(),
            applications: config.applications.clone(),
            machine: config.machine.clone(),
            arc_proofs: BTreeSet::new(),
            consents: Vec::new(),
            issued: BTreeMap::new(),
            expired: BTreeSet::new(),
            seen: BTreeSet::new(),
            refresh: BTreeSet::new(),
            devices: BTreeMap::new(),
            codes: BTreeMap::new(),
            lifetime: config.token_lifetime.as_millis() as Ms,
            key: mix(config.id_seed ^ 0x70CE),
            count: 0,
            rotation_strict: false,
            invalid_grant: false,
            approve_devices: true,
        }
    }

    /// 401 `InvalidAuthenticationToken` for missing, malformed and expired tokens (graph-api 1.9).
    pub(crate) fn check(&mut self, call: &Call, claims_challenge: bool) -> ApiResult<()> {
        let fail = |message: &'static str| {
            let mut e = ApiError::new(401, "InvalidAuthenticationToken", message);
            let mut value = "Bearer realm=\"\", authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\"".to_owned();
            if claims_challenge {
                let claims =
                    STANDARD.encode(r#"{"access_token":{"nbf":{"essential":true,"value":"1790000000"}}}"#);
                value.push_str(&format!(", error=\"insufficient_claims\", claims=\"{claims}\""));
            }
            e = e.header("www-authenticate", value);
            Err(e)
        };
        let Some(header) = call.header("authorization") else {
            return fail("Access token is empty.");
        };
        let scheme = header.split_at_checked(7);
        let Some((_, token)) =
            scheme.filter(|(s, t)| s.eq_ignore_ascii_case("bearer ") && !t.trim().is_empty())
        else {
            return fail("Access token is empty.");
        };
        let token = token.trim();
        if self.expired.contains(token) {
            return fail("Lifetime validation failed, the token is expired.");
        }
        let good = match (self.issued.get(token), &self.accepted) {
            (Some(issued), _) if call.now >= issued.end => {
                return fail("Lifetime validation failed, the token is expired.");
            }
            (Some(issued), _) if issued.audience != Audience::Graph => {
                return fail("Access token validation failure. Invalid audience.");
            }
            (Some(_), _) | (None, Tokens::Any) => true,
            (None, Tokens::List(list)) => list.iter().any(|t| t == token),
        };
        if !good {
            return fail("CompactToken parsing failed.");
        }
        self.seen.insert(token.to_owned());
        Ok(())
    }

    /// Whether the caller is an application without a person.
    pub(crate) fn is_application(&self, call: &Call) -> bool {
        let token = call.header("authorization").and_then(|header| header.get(7..));
        token.and_then(|token| self.issued.get(token.trim())).is_some_and(|issued| issued.is_application)
    }

    /// Whether a token was issued for this service and still lives.
    pub(crate) fn is_good(&self, call: &Call, token: &str, audience: Audience) -> bool {
        self.issued.get(token).is_some_and(|issued| call.now < issued.end && issued.audience == audience)
    }

    /// A new access token, and for how many seconds it is good.
    pub(crate) fn issue(&mut self, call: &Call, audience: Audience, is_application: bool) -> (String, i64) {
        let access = self.fresh("EwB");
        let issued = Issued { end: call.now + self.lifetime, audience, is_application };
        self.issued.insert(access.clone(), issued);
        (access, self.lifetime / 1000 - 1)
    }

    /// All access tokens seen or issued so far stop working.
    pub(crate) fn expire_tokens(&mut self) {
        self.expired.append(&mut self.seen);
        self.expired.extend(std::mem::take(&mut self.issued).into_keys());
    }

    /// Refresh tokens given out before stop working.
    pub(crate) fn revoke_refresh_tokens(&mut self) {
        self.refresh.clear();
    }

    /// A refresh token that works without a sign-in before it.
    pub(crate) fn add_refresh_token(&mut self, token: &str) {
        self.refresh.insert(token.to_owned());
    }

    /// Decides all pending device codes.
    pub(crate) fn decide_devices(&mut self, approve: bool) {
        for code in self.devices.values_mut().filter(|c| c.state == DeviceState::Pending) {
            code.state = if approve { DeviceState::Approved } else { DeviceState::Declined };
        }
    }

    pub(crate) fn fresh(&mut self, prefix: &str) -> String {
        self.count += 1;
        let a = mix(self.key ^ self.count);
        format!("{prefix}.{:016x}{:016x}", a, mix(a ^ 0x5EC2E7))
    }

    /// POST `{tenant}/oauth2/v2.0/devicecode` and `/token`, GET `/authorize`; `None` when the path is none of these.
    pub(crate) fn endpoint(&mut self, call: &Call, form: &BTreeMap<String, String>) -> Option<Reply> {
        let (tenant, what) = call.path.trim_start_matches('/').split_once("/oauth2/v2.0/")?;
        let known = matches!(what, "devicecode" | "token" | "authorize");
        if !known || tenant.contains('/') {
            return None;
        }
        if what == "authorize" {
            return Some(self.authorize(call));
        }
        if call.method != "POST" {
            return Some(Reply::empty(405));
        }
        let answer = match (what, form.get("client_id")) {
            (_, None) if what == "devicecode" => Err(("invalid_request", 900_144)),
            ("devicecode", _) => Ok(self.device_code(call, form)),
            _ => self.token(call, tenant, form),
        };
        Some(
            match answer {
                Ok(body) => Reply::json(200, body),
                Err((error, code)) => oauth_error(call, error, code),
            }
            .header("cache-control", "no-store"),
        )
    }

    /// The page that a person would sign in on: sends the browser back at once.
    fn authorize(&mut self, call: &Call) -> Reply {
        let said = |key: &str| {
            call.query
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.clone())
                .unwrap_or_default()
        };
        let wrong = |code: u32, words: &str| Reply::text(400, "text/html", format!("AADSTS{code}: {words}"));
        if call.method != "GET" {
            return Reply::empty(405);
        }
        let redirect = said("redirect_uri");
        let Ok(mut back) = url::Url::parse(&redirect) else {
            return wrong(50_011, "The redirect URI does not match.");
        };
        if said("client_id").is_empty() || said("response_type") != "code" {
            return wrong(900_144, "The request body must contain client_id and response_type.");
        }
        // The port of a loopback address is not compared, its path is.
        let is_loopback = matches!(back.host_str(), Some("localhost" | "127.0.0.1")) && back.path() == "/";
        if !is_loopback || said("code_challenge_method") != "S256" || said("code_challenge").len() != 43 {
            return wrong(50_011, "The redirect URI or the code challenge does not fit.");
        }
        let answer = if self.approve_devices {
            let code = self.fresh("0.AX");
            let offline = said("scope").contains("offline_access");
            let known = BrowserCode {
                client: said("client_id"),
                redirect,
                challenge: said("code_challenge"),
                offline,
                used: false,
            };
            self.codes.insert(code.clone(), known);
            ("code", code)
        } else {
            ("error", "access_denied".to_owned())
        };
        back.query_pairs_mut().append_pair(answer.0, &answer.1).append_pair("state", &said("state"));
        Reply::empty(302).header("location", back.to_string()).header("cache-control", "no-store")
    }

    /// GET `{tenant}/v2.0/adminconsent`: an administrator who consents at once, or declines.
    pub(crate) fn consent(&mut self, call: &Call) -> Reply {
        let wrong = |code: u32, words: &str| Reply::text(400, "text/html", format!("AADSTS{code}: {words}"));
        let tenant = call.path.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
        let said = |key: &str| call.query.iter().find(|(name, _)| name == key).map(|(_, it)| it.clone());
        if matches!(tenant.as_str(), "common" | "consumers") {
            return wrong(50_194, "Only organisations have administrators.");
        }
        let (Some(client), Some(scope), Some(redirect)) =
            (said("client_id"), said("scope"), said("redirect_uri"))
        else {
            return wrong(900_144, "The request must contain client_id, scope and redirect_uri.");
        };
        let back = url::Url::parse(&redirect).ok();
        let is_loopback = |it: &url::Url| matches!(it.host_str(), Some("localhost")) && it.path() == "/";
        let Some(mut back) = back.filter(is_loopback).filter(|_| scope.ends_with("/.default")) else {
            return wrong(50_011, "The redirect URI or the scope does not fit.");
        };
        let mut pairs = back.query_pairs_mut();
        if self.approve_devices {
            pairs.append_pair("admin_consent", "True").append_pair("tenant", &tenant);
            self.consents.push((tenant, client));
        } else {
            pairs.append_pair("error", "access_denied");
            pairs.append_pair("error_description", "AADSTS65004: The resource owner denied the request.");
        }
        pairs.append_pair("state", &said("state").unwrap_or_default());
        drop(pairs);
        Reply::empty(302).header("location", back.to_string())
    }

    /// A code is for who asked for it, and good once (AADSTS54005).
    fn redeem(&mut self, form: &BTreeMap<String, String>) -> Result<bool, (&'static str, u32)> {
        let field = |key: &str| form.get(key).map(String::as_str).unwrap_or_default();
        let known = self.codes.get_mut(field("code")).ok_or(("invalid_grant", 70_000))?;
        if known.used {
            return Err(("invalid_grant", 54_005));
        }
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(field("code_verifier")));
        let fits = known.client == field("client_id") && known.redirect == field("redirect_uri");
        if !fits || known.challenge != challenge {
            return Err(("invalid_grant", 70_000));
        }
        known.used = true;
        Ok(known.offline)
    }

    fn device_code(&mut self, call: &Call, form: &BTreeMap<String, String>) -> Value {
        let code = self.fresh("DAQAB");
        let user = format!("{:09X}", mix(self.count) & 0xF_FFFF_FFFF);
        let state = if self.approve_devices { DeviceState::Approved } else { DeviceState::Pending };
        let expires = call.now + DEVICE_CODE_SECONDS * 1000;
        let offline = form.get("scope").is_some_and(|s| s.contains("offline_access"));
        self.devices.insert(code.clone(), DeviceCode { expires, state, offline });
        let uri = "https://microsoft.com/devicelogin";
        json!({
            "device_code": code, "user_code": user, "verification_uri": uri,
            "expires_in": DEVICE_CODE_SECONDS, "interval": 5,
            "message": format!("To sign in, use a web browser to open the page {uri} and enter the code {user} to authenticate."),
        })
    }

    fn token(
        &mut self,
        call: &Call,
        tenant: &str,
        form: &BTreeMap<String, String>,
    ) -> Result<Value, (&'static str, u32)> {
        let field = |key: &str| form.get(key).map(String::as_str).unwrap_or_default();
        let scope = field("scope").to_owned();
        match field("grant_type") {
            "refresh_token" => {
                let old = field("refresh_token").to_owned();
                if self.invalid_grant || !self.refresh.contains(&old) {
                    return Err(("invalid_grant", 50_173));
                }
                if self.rotation_strict {
                    self.refresh.remove(&old);
                }
                Ok(self.grant(call, &scope, true))
            }
            // `common` and its kind are refused, and there is no refresh token (graph-api 1.5).
            "client_credentials" => {
                if matches!(tenant, "common" | "organizations" | "consumers") {
                    return Err(("invalid_request", 50_194));
                }
                let basic = call.header("authorization").is_some_and(|h| h.starts_with("Basic "));
                let secret =
                    !field("client_secret").is_empty() || !field("client_assertion").is_empty() || basic;
                if !secret {
                    return Err(("invalid_client", 7_000_216));
                }
                if !self.applications.is_empty() {
                    applications::check(&self.applications, call, tenant, form)?;
                }
                let Some(resource) = scope.strip_suffix("/.default") else {
                    return Err(("invalid_scope", 1_002_012));
                };
                let audience = if resource.contains("vault") { Audience::Vault } else { Audience::Graph };
                let (access, seconds) = self.issue(call, audience, true);
                Ok(granted(&access, seconds))
            }
            "urn:ietf:params:oauth:grant-type:device_code" => {
                let Some(code) = self.devices.get(field("device_code")) else {
                    return Err(("bad_verification_code", 70_019));
                };
                let offline = code.offline;
                match code.state {
                    _ if call.now >= code.expires => Err(("expired_token", 70_020)),
                    DeviceState::Pending => Err(("authorization_pending", 70_016)),
                    DeviceState::Declined => Err(("authorization_declined", 70_017)),
                    DeviceState::Approved => {
                        self.devices.remove(field("device_code"));
                        Ok(self.grant(call, &scope, offline))
                    }
                }
            }
            "authorization_code" if field("code").is_empty() || field("code_verifier").is_empty() => {
                Err(("invalid_request", 900_144))
            }
            "authorization_code" => {
                let offline = self.redeem(form)?;
                Ok(self.grant(call, &scope, offline))
            }
            _ => Err(("unsupported_grant_type", 70_003)),
        }
    }

    fn grant(&mut self, call: &Call, scope: &str, refresh: bool) -> Value {
        let (access, seconds) = self.issue(call, Audience::Graph, false);
        let mut body = granted(&access, seconds);
        if !scope.is_empty() {
            body["scope"] = json!(scope);
        }
        if refresh {
            let token = self.fresh("M.R3");
            self.refresh.insert(token.clone());
            body["refresh_token"] = json!(token);
        }
        body
    }
}

fn granted(access: &str, seconds: i64) -> Value {
    json!({ "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": access })
}

/// The error body of the login service (graph-api 1.7).
fn oauth_error(call: &Call, error: &str, code: u32) -> Reply {
    let trace = Guid::derived(call.now as u64 ^ u64::from(code)).text();
    let stamp = super::time::rfc3339(call.now, super::time::Fraction::None).replace('T', " ");
    let mut body = json!({
        "error": error,
        "error_description": format!("AADSTS{code}: {error}. Trace ID: {trace} Correlation ID: {trace} Timestamp: {stamp}"),
        "error_codes": [code],
        "timestamp": stamp,
        "trace_id": trace,
        "correlation_id": trace,
        "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
    });
    if error == "invalid_grant" {
        body["suberror"] = json!("bad_token");
    }
    Reply::json(if error == "invalid_client" { 401 } else { 400 }, body)
}
