//! A certificate with its key, and the proof that an application gives by it (graph-api 1.5).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use x509_parser::pem::Pem;

use super::Secret;
use super::secrets::SecretBytes;

/// A proof is good for so long: the service takes five to ten minutes.
const PROOF_LIFE: Duration = Duration::from_secs(540);

/// How proofs are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signing {
    /// `PS256`, the certificate named by its SHA-256.
    #[default]
    Ps256,
    /// `RS256`, the certificate named by its SHA-1: for services that know nothing newer.
    Rs256,
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError {
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub remedy: &'static str,
}

/// A certificate with its RSA key. Its `Debug` form shows neither.
pub struct ClientCertificate {
    key: RsaKeyPair,
    certificate: Vec<u8>,
    ends: SystemTime,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientCertificate").field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// Keys and certificates as they were found.
#[derive(Default)]
struct Found {
    key: Option<RsaKeyPair>,
    certificates: Vec<Vec<u8>>,
}

impl ClientCertificate {
    /// Reads PEM (certificate and key, also an encrypted one) or PKCS#12, as it is or in base64.
    ///
    /// The certificate may have expired: [`ClientCertificate::ends`] says.
    pub fn read(bytes: &SecretBytes, password: Option<&Secret>) -> Result<Self, CertificateError> {
        let bytes = bytes.expose();
        let is_pem = bytes.windows(11).any(|window| window == b"-----BEGIN ");
        let found = if is_pem {
            from_pem(bytes, password)?
        } else if bytes.first() == Some(&0x30) {
            from_pkcs12(bytes, password)?
        } else {
            let packed: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let der = STANDARD.decode(packed).map_err(|_| unreadable("it is neither PEM nor PKCS#12"))?;
            from_pkcs12(&der, password)?
        };
        Self::matched(found)
    }

    fn matched(found: Found) -> Result<Self, CertificateError> {
        let key = found.key.ok_or_else(|| {
            error("it has no private key", "give a file with the certificate and its private key")
        })?;
        if found.certificates.is_empty() {
            return Err(error(
                "it has no certificate",
                "give a file with the certificate and its private key",
            ));
        }
        for certificate in found.certificates {
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
                .map_err(|_| unreadable("its certificate is damaged"))?;
            if parsed.public_key().subject_public_key.data.as_ref() == key.public_key().as_ref() {
                let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
                let ends = UNIX_EPOCH + Duration::from_secs(seconds);
                return Ok(Self { key, certificate, ends });
            }
        }
        Err(error(
            "its key belongs to another certificate",
            "give a file with one certificate and its own key",
        ))
    }

    /// When the certificate is no longer valid.
    pub fn ends(&self) -> SystemTime {
        self.ends
    }

    /// Tells it from others.
    pub(super) fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate).into()
    }

    /// A proof for `audience` (the token endpoint) that whoever shows it is `client_id`; good for nine minutes.
    pub fn assertion(
        &self,
        signing: Signing,
        client_id: &str,
        audience: &str,
        now: SystemTime,
    ) -> Result<Secret, CertificateError> {
        let (algorithm, name, digest): (&dyn RsaEncoding, _, _) = match signing {
            Signing::Ps256 => (&RSA_PSS_SHA256, "x5t#S256", Sha256::digest(&self.certificate).to_vec()),
            Signing::Rs256 => (&RSA_PKCS1_SHA256, "x5t", Sha1::digest(&self.certificate).to_vec()),
        };
        let alg = if signing == Signing::Ps256 { "PS256" } else { "RS256" };
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = serde_json::json!({ "alg": alg, "typ": "JWT", name: URL_SAFE_NO_PAD.encode(digest) });
        let claims = serde_json::json!({
            "aud": audience, "iss": client_id, "sub": client_id, "jti": Uuid::new_v4().to_string(),
            "nbf": now, "iat": now, "exp": now + PROOF_LIFE.as_secs(),
        });
        let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(algorithm, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| error("its key cannot sign", "make a new certificate"))?;
        Ok(Secret::new(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

fn error(why: &str, remedy: &'static str) -> CertificateError {
    CertificateError { why: why.to_owned(), remedy }
}

fn unreadable(why: &str) -> CertificateError {
    error(why, "give the certificate with its private key as PEM or PKCS#12 (.pfx)")
}

fn wrong_password(has_one: bool) -> CertificateError {
    if has_one {
        error("it is damaged, or the password is wrong", "check --certificate-password")
    } else {
        error("its key is encrypted", "give its password with --certificate-password SOURCE")
    }
}

fn from_pem(bytes: &[u8], password: Option<&Secret>) -> Result<Found, CertificateError> {
    let mut found = Found::default();
    for block in Pem::iter_from_buffer(bytes) {
        let block = block.map_err(|_| unreadable("its PEM is damaged"))?;
        match block.label.as_str() {
            "CERTIFICATE" => found.certificates.push(block.contents),
            "PRIVATE KEY" => found.key = Some(pkcs8_key(&block.contents)?),
            "RSA PRIVATE KEY" => {
                found.key = Some(RsaKeyPair::from_der(&block.contents).map_err(|_| bad_key())?);
            }
            "ENCRYPTED PRIVATE KEY" => {
                let wrong = || wrong_password(password.is_some());
                let encrypted = pkcs8::EncryptedPrivateKeyInfoRef::try_from(block.contents.as_slice());
                let encrypted = encrypted.map_err(|_| unreadable("its key is damaged"))?;
                let password = password.ok_or_else(wrong)?;
                let key = encrypted.decrypt(password.expose()).map_err(|_| wrong())?;
                found.key = Some(pkcs8_key(key.as_bytes())?);
            }
            "EC PRIVATE KEY" => return Err(bad_key()),
            _ => {}
        }
    }
    Ok(found)
}

fn from_pkcs12(der: &[u8], password: Option<&Secret>) -> Result<Found, CertificateError> {
    // What the service itself gives out has an empty password.
    let words = password.map(Secret::expose).unwrap_or_default();
    let archive = p12_keystore::Pkcs12Archive::from_pkcs12(der, words)
        .map_err(|_| wrong_password(password.is_some()))?;
    let mut found = Found::default();
    for bag in &archive.keys {
        found.key = Some(pkcs8_key(bag.key.as_der())?);
    }
    found.certificates = archive.certs.iter().map(|bag| bag.cert.as_der().to_vec()).collect();
    Ok(found)
}

fn pkcs8_key(der: &[u8]) -> Result<RsaKeyPair, CertificateError> {
    RsaKeyPair::from_pkcs8(der).map_err(|_| bad_key())
}

fn bad_key() -> CertificateError {
    error("its key is no RSA key of 2048 to 4096 bits", "make a certificate with an RSA key")
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
