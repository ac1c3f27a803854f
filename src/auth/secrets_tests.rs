use std::path::Path;

use super::*;

fn reader(variables: &'static [(&'static str, &'static str)]) -> SecretReader {
    let found = move |name: &str| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
    };
    SecretReader::new(Arc::new(found), None)
}

fn parsed(text: &str) -> SecretSource {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

async fn read(source: &str) -> Result<Secret, AuthError> {
    reader(&[("ONE", "hush\n"), ("EMPTY", " \n"), ("TWO", "a\nb")]).text(&parsed(source)).await
}

// S238.
#[tokio::test]
async fn a_secret_is_read_where_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("secret");
    std::fs::write(&path, "hush\n").expect("written");
    for source in
        [format!("file:{}", path.display()), "env:ONE".into(), "command:printf hush; echo no >&2".into()]
    {
        assert_eq!(read(&source).await.expect(&source).expose(), "hush", "{source}");
    }
    let place = directory.path().display().to_string();
    let found = move |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| OsString::from(&place));
    let systemd = SecretReader::new(Arc::new(found), None);
    assert_eq!(systemd.text(&parsed("credential:secret")).await.expect("it is there").expose(), "hush");
    // Nothing is remembered: a new secret is found.
    std::fs::write(&path, "new").expect("written");
    assert_eq!(systemd.text(&parsed("credential:secret")).await.expect("it is there").expose(), "new");
}

// S239.
#[tokio::test]
async fn a_secret_that_is_not_there_says_what_to_do() {
    let cases = [
        ("file:/nowhere/at/all", "cannot be read", "/nowhere/at/all"),
        ("env:NONE", "not set", "daemon"),
        ("env:EMPTY", "empty", "put the secret there"),
        ("env:TWO", "several lines", "only the secret"),
        ("credential:c", "no credentials", "LoadCredential=c:PATH"),
        ("command:echo hush; exit 3", "exit status: 3", "by hand"),
        ("command:true", "empty", "put the secret there"),
        ("command:head -c 2000000 /dev/zero", "larger", "only the secret"),
        ("command:printf '\\377'", "no text", "value"),
        ("keyvault:v/n", "no vault", "file"),
    ];
    for (source, why_has, remedy_has) in cases {
        let Err(AuthError::Credential { what, why, remedy }) = read(source).await else {
            panic!("{source} is no secret");
        };
        assert_eq!(what, source);
        assert!(why.contains(why_has) && remedy.contains(remedy_has), "{source}: {why}; {remedy}");
        assert!(!format!("{why}{remedy}").contains("hush"));
    }
}

// S239.
#[test]
fn what_is_no_place_of_a_secret_is_not_repeated() {
    for text in ["abc~Hush.123", "hush:", "", "file:", "secret:hush", "credential:../hush", "env:A=hush"] {
        let error = text.parse::<SecretSource>().expect_err(text);
        assert!(
            error.contains("write ") && !error.contains("hush") && !error.contains("Hush"),
            "{text}: {error}"
        );
    }
    for text in [
        "keyvault:v",
        "keyvault:/n",
        "keyvault:v/",
        "keyvault:v/a.b",
        "keyvault:@v/n",
        "keyvault:https://v/x/y/n",
    ] {
        assert!(text.parse::<SecretSource>().is_err(), "{text}");
    }
}

// S240.
#[test]
fn a_source_is_kept_in_the_words_it_was_said_in_and_shows_no_secret() {
    for text in [
        "file:/a",
        "credential:c",
        "env:E",
        "command:pass show x",
        "keyvault:v/n",
        "keyvault:who@v.vault.azure.cn/n",
    ] {
        let source = parsed(text);
        assert_eq!(source.to_string(), text);
        let json = serde_json::to_string(&source).expect("JSON");
        assert_eq!(serde_json::from_str::<SecretSource>(&json).expect("the same"), source);
    }
    let SecretSource::File(path) = parsed("file:/a") else { panic!("a file") };
    assert_eq!(path, Path::new("/a"));
    assert!(!format!("{:?}", SecretBytes::new(b"hush".to_vec())).contains("104"));
}

#[test]
fn a_vault_is_asked_with_a_token_for_its_own_cloud() {
    for (source, resource) in [
        ("keyvault:v/n", "https://vault.azure.net"),
        ("keyvault:v.vault.azure.cn/n", "https://vault.azure.cn"),
        ("keyvault:v.vault.usgovcloudapi.net/n", "https://vault.usgovcloudapi.net"),
        ("keyvault:http://127.0.0.1:8080/n", "https://vault.azure.net"),
    ] {
        let SecretSource::KeyVault(secret) = parsed(source) else { panic!("a vault's secret") };
        assert_eq!(secret.resource(), resource, "{source}");
    }
}
