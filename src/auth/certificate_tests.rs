use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

use super::*;

fn file(name: &str) -> SecretBytes {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    SecretBytes::new(std::fs::read(directory.join(name)).expect("it is there"))
}

fn read(name: &str, password: Option<&str>) -> Result<ClientCertificate, CertificateError> {
    ClientCertificate::read(&file(name), password.map(Secret::new).as_ref())
}

// S238.
#[test]
fn a_certificate_is_read_from_pem_and_from_pkcs12() {
    let app = read("app.pem", None).expect("PEM").digest();
    for (name, password) in [
        ("chain.pem", None),
        ("encrypted.pem", Some("opensesame")),
        ("app.pfx", Some("opensesame")),
        ("legacy.pfx", None),
    ] {
        let found = read(name, password).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(found.digest(), app, "{name}");
    }
    // As a key vault gives it out.
    let packed = STANDARD.encode(file("legacy.pfx").expose());
    let vault = ClientCertificate::read(&SecretBytes::new((packed + "\n").into()), None).expect("base64");
    assert_eq!(vault.digest(), app);
}

// S239.
#[test]
fn a_certificate_that_cannot_be_used_says_why() {
    let cases = [
        ("app.pfx", None, "--certificate-password"),
        ("app.pfx", Some("wrong"), "password is wrong"),
        ("encrypted.pem", None, "--certificate-password"),
        ("encrypted.pem", Some("wrong"), "password is wrong"),
        ("ec.pem", None, "no RSA key"),
        ("README.md", None, "neither PEM nor PKCS#12"),
    ];
    for (name, password, words) in cases {
        let error = read(name, password).expect_err(name);
        let said = format!("{}; {}", error.why, error.remedy);
        assert!(said.contains(words) && !said.contains("opensesame"), "{name}: {said}");
    }
    let text = |name: &str| String::from_utf8(file(name).expose().to_vec()).expect("text");
    let (app, other) = (text("app.pem"), text("other.pem"));
    let key_at = |text: &str| text.find("-----BEGIN PRIVATE").expect("a key");
    let mixed = format!("{}{}", &app[..key_at(&app)], &other[key_at(&other)..]);
    let (no_key, no_certificate) = (&app[..key_at(&app)], &app[key_at(&app)..]);
    for (text, words) in [
        (mixed.as_str(), "another certificate"),
        (no_key, "no private key"),
        (no_certificate, "no certificate"),
    ] {
        let error = ClientCertificate::read(&SecretBytes::new(text.into()), None).expect_err(words);
        assert!(error.why.contains(words), "{error:?}");
    }
}

#[test]
fn when_a_certificate_ends_is_known() {
    let year = |certificate: &ClientCertificate| {
        certificate.ends().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() / 31_556_952 + 1970
    };
    assert_eq!(year(&read("expired.pem", None).expect("readable")), 2021);
    assert!(year(&read("app.pem", None).expect("readable")) > 2100);
}

// S238.
#[test]
fn a_proof_names_its_certificate_and_is_signed_by_its_key() {
    let certificate = read("app.pem", None).expect("PEM");
    let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    for (signing, alg, print) in [(Signing::Ps256, "PS256", "x5t#S256"), (Signing::Rs256, "RS256", "x5t")] {
        let proof = certificate.assertion(signing, "client", "https://login/token", now).expect("signed");
        let (signed, signature) = proof.expose().rsplit_once('.').expect("a JWT");
        let part = |text: &str| -> serde_json::Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("base64")).expect("JSON")
        };
        let (header, claims) = signed.split_once('.').expect("a JWT");
        let (header, claims) = (part(header), part(claims));
        assert_eq!(header["alg"], alg);
        assert!(header[print].is_string() && header.as_object().expect("an object").len() == 3, "{header}");
        assert_eq!((&claims["iss"], &claims["sub"]), (&"client".into(), &"client".into()));
        assert_eq!(claims["aud"], "https://login/token");
        assert_eq!(claims["nbf"], 1_790_000_000_u64);
        assert_eq!(claims["exp"], 1_790_000_540_u64);
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate.certificate).expect("X.509");
        let key = parsed.public_key().subject_public_key.data.to_vec();
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        let good =
            match signing {
                Signing::Ps256 => UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key)
                    .verify(signed.as_bytes(), &signature),
                Signing::Rs256 => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
                    .verify(signed.as_bytes(), &signature),
            };
        good.expect("signed by the certificate's key");
    }
    let jti = |proof: Secret| proof.expose().to_owned();
    let twice = || jti(certificate.assertion(Signing::Rs256, "c", "a", now).expect("signed"));
    assert_ne!(twice(), twice(), "each is good once");
}
