//! Applications that sign in without a person, and how the sign-in service checks what they show (graph-api 1.5, 1.6).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::http::Call;
use super::time::Ms;

/// Clocks may differ by so much, in seconds.
const SKEW: i64 = 300;
/// An application's own proof lives no longer, in seconds.
const PROOF_LIFE: i64 = 600 + SKEW;
/// Whom a token of another service must be for.
const EXCHANGE: &str = "api://AzureADTokenExchange";

/// An application as it is registered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registered {
    /// The organisation's id or domain.
    pub tenant: String,
    /// Application id.
    pub client_id: String,
    /// Secrets that were made for it.
    pub secrets: Vec<AppSecret>,
    /// Certificates that were uploaded, DER.
    pub certificates: Vec<Vec<u8>>,
    /// Other services whose tokens are taken for it.
    pub federated: Vec<Federation>,
}

/// A secret of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSecret {
    /// The secret itself.
    pub value: String,
    /// Whether it is too old.
    pub expired: bool,
}

/// Another service whose tokens are taken for an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Federation {
    /// `iss` of its tokens.
    pub issuer: String,
    /// `sub` of its tokens.
    pub subject: String,
    /// What it signs with, as a certificate (DER); the real service reads it from the issuer's address.
    pub certificate: Vec<u8>,
}

/// The OAuth error and the AADSTS code.
pub(crate) type Refusal = (&'static str, u32);

const UNKNOWN_CERTIFICATE: Refusal = ("invalid_client", 700_027);

/// Whether the request comes from an application that may have a token.
pub(crate) fn check(
    known: &[Registered],
    call: &Call,
    tenant: &str,
    form: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let field = |key: &str| form.get(key).map(String::as_str).unwrap_or_default();
    let mut of_tenant = known.iter().filter(|app| app.tenant == tenant).peekable();
    if of_tenant.peek().is_none() {
        return Err(("invalid_request", 90_002));
    }
    let (basic_id, basic_secret) = basic(call).unwrap_or_default();
    let client_id = if basic_id.is_empty() { field("client_id").to_owned() } else { basic_id };
    let app = of_tenant.find(|app| app.client_id == client_id).ok_or(("unauthorized_client", 700_016))?;
    let secret = if basic_secret.is_empty() { field("client_secret").to_owned() } else { basic_secret };
    if !secret.is_empty() {
        return match app.secrets.iter().find(|known| known.value == secret) {
            None => Err(("invalid_client", 7_000_215)),
            Some(known) if known.expired => Err(("invalid_client", 7_000_222)),
            Some(_) => Ok(()),
        };
    }
    if field("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
        return Err(("invalid_request", 900_144));
    }
    let audience = format!("{}/{tenant}/oauth2/v2.0/token", call.base);
    Assertion::read(field("client_assertion"))?.check(app, &audience, call.now)
}

/// HTTP Basic, its parts form-encoded.
fn basic(call: &Call) -> Option<(String, String)> {
    let packed = call.header("authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(packed).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain = |text: &str| {
        let mut pairs = url::form_urlencoded::parse(text.as_bytes());
        pairs.next().map(|(name, _)| name.into_owned()).unwrap_or_default()
    };
    Some((plain(id), plain(secret)))
}

/// A JWT that vouches for an application.
struct Assertion<'a> {
    header: Value,
    claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Assertion<'a> {
    fn read(text: &'a str) -> Result<Self, Refusal> {
        let malformed = ("invalid_client", 50_027);
        let (signed, signature) = text.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(malformed)?;
        let json = |part: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object)
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed)?;
        let (header, claims) = (json(header).ok_or(malformed)?, json(claims).ok_or(malformed)?);
        Ok(Self { header, claims, signed, signature })
    }

    fn claim(&self, name: &str) -> &str {
        self.claims[name].as_str().unwrap_or_default()
    }

    fn check(&self, app: &Registered, audience: &str, now: Ms) -> Result<(), Refusal> {
        // Another service's tokens say so themselves: they are issued by somebody else than the application.
        if self.claim("iss") != app.client_id && self.claim("iss").contains("://") {
            return self.check_federated(app, now);
        }
        let certificate = self.named(app).ok_or(UNKNOWN_CERTIFICATE)?;
        self.check_signature(certificate)?;
        if self.claim("iss") != app.client_id || self.claim("sub") != app.client_id {
            return Err(("invalid_client", 700_021));
        }
        if self.claim("aud") != audience {
            return Err(("invalid_client", 700_023));
        }
        let issued = self.claims["iat"].as_i64().or(self.claims["nbf"].as_i64()).unwrap_or_default();
        let lives_too_long = self.claims["exp"].as_i64().is_none_or(|end| end - issued > PROOF_LIFE);
        if lives_too_long || self.claim("jti").is_empty() {
            return Err(("invalid_client", 700_024));
        }
        self.check_time(now)
    }

    fn check_federated(&self, app: &Registered, now: Ms) -> Result<(), Refusal> {
        let mut of_issuer = app.federated.iter().filter(|known| known.issuer == self.claim("iss")).peekable();
        if of_issuer.peek().is_none() {
            return Err(("invalid_client", 700_211));
        }
        let known =
            of_issuer.find(|known| known.subject == self.claim("sub")).ok_or(("invalid_client", 700_213))?;
        let audiences = match &self.claims["aud"] {
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            one => vec![one.as_str().unwrap_or_default()],
        };
        if !audiences.contains(&EXCHANGE) {
            return Err(("invalid_client", 700_212));
        }
        self.check_signature(&known.certificate)?;
        self.check_time(now)
    }

    /// The certificate that the header names by its thumbprint.
    fn named<'r>(&self, app: &'r Registered) -> Option<&'r Vec<u8>> {
        let (sha256, sha1) = (self.header["x5t#S256"].as_str(), self.header["x5t"].as_str());
        app.certificates.iter().find(|der| match (sha256, sha1) {
            (Some(print), _) => print == URL_SAFE_NO_PAD.encode(Sha256::digest(der)),
            (None, Some(print)) => print == URL_SAFE_NO_PAD.encode(Sha1::digest(der)),
            (None, None) => false,
        })
    }

    fn check_signature(&self, certificate: &[u8]) -> Result<(), Refusal> {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| UNKNOWN_CERTIFICATE)?;
        let key = parsed.public_key().subject_public_key.data.as_ref();
        let (text, signature) = (self.signed.as_bytes(), &self.signature);
        let good = match self.header["alg"].as_str() {
            // Documented with the SHA-256 thumbprint only.
            Some("PS256") if self.header["x5t#S256"].is_string() => {
                UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key).verify(text, signature)
            }
            Some("RS256") => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(text, signature),
            _ => return Err(UNKNOWN_CERTIFICATE),
        };
        good.map_err(|_| UNKNOWN_CERTIFICATE)
    }

    fn check_time(&self, now: Ms) -> Result<(), Refusal> {
        let now = now / 1000;
        let starts = self.claims["nbf"].as_i64().unwrap_or(now);
        let fits = self.claims["exp"].as_i64().is_some_and(|end| now < end + SKEW) && starts <= now + SKEW;
        if fits { Ok(()) } else { Err(("invalid_client", 700_024)) }
    }
}
