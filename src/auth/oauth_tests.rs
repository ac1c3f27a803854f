use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::testing::{Answer, Endpoint};
use super::*;
use crate::auth::TokenSource as _;
use crate::clock::SeededClock;

#[derive(Debug, Default)]
struct Memory {
    token: Mutex<Option<StoredToken>>,
    saves: AtomicUsize,
    broken: bool,
}

impl TokenStore for Memory {
    fn load(&self) -> std::io::Result<Option<StoredToken>> {
        Ok(self.token.lock().expect("unpoisoned").clone())
    }

    fn save(&self, token: &StoredToken) -> std::io::Result<()> {
        if self.broken {
            return Err(std::io::Error::other("disk full"));
        }
        self.saves.fetch_add(1, Ordering::SeqCst);
        *self.token.lock().expect("unpoisoned") = Some(token.clone());
        Ok(())
    }
}

struct Setup {
    source: CachedToken,
    endpoint: Arc<Endpoint>,
    store: Arc<Memory>,
}

impl Setup {
    fn with(answers: Vec<Answer>, stored: Option<&str>, broken: bool) -> Self {
        let endpoint = Arc::new(Endpoint { answers: Mutex::new(answers.into()), ..Endpoint::default() });
        let token = stored.map(|text| StoredToken { refresh_token: Secret::new(text) });
        let store = Arc::new(Memory { token: Mutex::new(token), broken, ..Memory::default() });
        let client = OAuthClient {
            token_url: "https://login.example/token".into(),
            client_id: "client".into(),
            scope: "offline_access Files.ReadWrite.All".into(),
        };
        let clock = Arc::new(SeededClock::with_seed(1));
        let source = CachedToken::refreshed(client, endpoint.clone(), store.clone(), clock);
        Self { source, endpoint, store }
    }

    fn new(answers: Vec<Answer>) -> Self {
        Self::with(answers, Some("r0"), false)
    }

    fn sent(&self, name: &str) -> Vec<Option<String>> {
        let forms = self.endpoint.forms.lock().expect("unpoisoned");
        forms
            .iter()
            .map(|form| form.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone()))
            .collect()
    }

    fn stored(&self) -> Option<String> {
        self.store
            .token
            .lock()
            .expect("unpoisoned")
            .as_ref()
            .map(|token| token.refresh_token.expose().to_owned())
    }
}

fn granted(access: &str, refresh: &str) -> Answer {
    Ok((
        200,
        format!(
            r#"{{"token_type":"Bearer","expires_in":3600,"access_token":"{access}","refresh_token":"{refresh}"}}"#
        ),
    ))
}

fn refused(status: u16, error: &str, code: u64) -> Answer {
    Ok((
        status,
        format!(r#"{{"error":"{error}","error_description":"secret words","error_codes":[{code}]}}"#),
    ))
}

async fn at(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_kept_until_five_minutes_before_its_end_and_rotation_is_stored() {
    let setup = Setup::new(vec![granted("a1", "r1"), granted("a2", "r2")]);
    assert_eq!(setup.source.token().await.expect("a token").expose(), "a1");
    assert_eq!(setup.stored().as_deref(), Some("r1"));
    at(3200).await;
    assert_eq!(setup.source.token().await.expect("the same").expose(), "a1");
    at(110).await;
    assert_eq!(setup.source.token().await.expect("the next").expose(), "a2");
    assert_eq!(setup.sent("refresh_token"), [Some("r0".into()), Some("r1".into())]);
    assert_eq!(setup.sent("grant_type")[0].as_deref(), Some("refresh_token"));
    assert_eq!(setup.stored().as_deref(), Some("r2"));
}

#[tokio::test(start_paused = true)]
async fn all_waiters_share_one_request() {
    let setup = Setup::new(vec![granted("a1", "r1"), granted("a2", "r2")]);
    let first = futures_util::future::join_all((0..10).map(|_| setup.source.token())).await;
    assert!(first.iter().all(|token| token.as_ref().is_ok_and(|token| token.expose() == "a1")));
    let stale = AccessToken::new("a1");
    let second = futures_util::future::join_all((0..10).map(|_| setup.source.refresh(&stale, None))).await;
    assert!(second.iter().all(|token| token.as_ref().is_ok_and(|token| token.expose() == "a2")));
    assert_eq!(setup.endpoint.forms.lock().expect("unpoisoned").len(), 2);
    let late = setup.source.refresh(&stale, None).await.expect("already replaced");
    assert_eq!(late.expose(), "a2");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_lose_the_rotated_token() {
    let setup = Setup::new(vec![granted("a1", "r1")]);
    let dropped = tokio::time::timeout(Duration::from_millis(10), setup.source.token()).await;
    assert!(dropped.is_err());
    at(5).await;
    assert_eq!(setup.stored().as_deref(), Some("r1"));
    assert_eq!(setup.source.token().await.expect("cached").expose(), "a1");
}

#[tokio::test(start_paused = true)]
async fn an_invalid_grant_means_signed_out_without_asking_again_until_someone_signs_in() {
    let setup = Setup::new(vec![refused(400, "invalid_grant", 50173), granted("a1", "r9")]);
    for _ in 0..3 {
        match setup.source.token().await {
            Err(AuthError::SignedOut { reason }) => {
                assert!(reason.contains("revoked") && reason.contains("AADSTS50173"), "{reason}");
                assert!(!reason.contains("secret"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(setup.stored().as_deref(), Some("r0"), "what is stored is not thrown away");
    setup.store.save(&StoredToken { refresh_token: Secret::new("r8") }).expect("a new sign-in");
    assert_eq!(setup.source.token().await.expect("signed in again").expose(), "a1");
}

#[tokio::test(start_paused = true)]
async fn a_token_rotated_by_another_process_is_used_instead() {
    let setup = Setup::new(vec![refused(400, "invalid_grant", 70000), granted("a1", "r3")]);
    let waiting = setup.source.token();
    let other = async {
        at(0).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        setup.store.save(&StoredToken { refresh_token: Secret::new("r2") }).expect("saved");
    };
    let (token, ()) = tokio::join!(waiting, other);
    assert_eq!(token.expect("the other's token works").expose(), "a1");
    assert_eq!(setup.sent("refresh_token"), [Some("r0".into()), Some("r2".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_network_changes_nothing_and_a_token_that_still_lives_is_used() {
    let setup = Setup::new(vec![
        Err(()),
        granted("a1", "r1"),
        Err(()),
        Ok((503, "<html>".into())),
        Ok((200, "<html>".into())),
        refused(400, "temporarily_unavailable", 0),
        granted("a2", "r2"),
    ]);
    assert!(matches!(setup.source.token().await, Err(AuthError::Network(_))));
    assert_eq!(setup.stored().as_deref(), Some("r0"));
    setup.source.token().await.expect("back again");
    at(3400).await;
    assert_eq!(setup.source.token().await.expect("still good").expose(), "a1");
    at(300).await;
    for _ in 0..3 {
        assert!(matches!(setup.source.token().await, Err(AuthError::Network(_))));
    }
    assert_eq!(setup.source.token().await.expect("back again").expose(), "a2");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_save_does_not_stop_the_work() {
    let setup = Setup::with(vec![granted("a1", "r1"), granted("a2", "r2")], Some("r0"), true);
    setup.source.token().await.expect("a token");
    at(3600).await;
    setup.source.token().await.expect("another");
    assert_eq!(setup.sent("refresh_token"), [Some("r0".into()), Some("r1".into())]);
}

#[tokio::test(start_paused = true)]
async fn other_refusals_are_told_apart() {
    let cases = [
        ("interaction_required", 50076, true),
        ("invalid_client", 7_000_215, false),
        ("invalid_scope", 0, false),
    ];
    for (error, code, user) in cases {
        let setup = Setup::new(vec![refused(401, error, code)]);
        match setup.source.token().await {
            Err(AuthError::SignedOut { reason }) => {
                assert!(user && reason.contains("second factor"), "{reason}")
            }
            Err(AuthError::Refused { why, .. }) => assert!(!user && why.contains(error), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let setup = Setup::with(vec![], None, false);
    assert!(matches!(setup.source.token().await, Err(AuthError::SignedOut { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_challenge_is_sent_along_and_nothing_secret_is_shown() {
    let setup = Setup::new(vec![granted("hush-a", "hush-r")]);
    let stale = AccessToken::new("old");
    setup.source.refresh(&stale, Some("{\"x\":1}".into())).await.expect("a token");
    assert_eq!(setup.sent("claims"), [Some("{\"x\":1}".into())]);
    assert!(!format!("{:?}", setup.source).contains("hush"));
    assert!(!format!("{:?}", setup.store).contains("hush"));
}

#[test]
fn challenges_are_decoded_in_both_alphabets_and_keep_our_capability() {
    let claims = r#"{"access_token":{"acrs":{"essential":true,"value":"c1??>>"}}}"#;
    for engine in [&base64::engine::general_purpose::STANDARD, &base64::engine::general_purpose::URL_SAFE] {
        let decoded = decode_claims(&engine.encode(claims)).expect("decoded");
        assert!(decoded.contains("cp1") && decoded.contains("c1??>>"), "{decoded}");
    }
    assert!(decode_claims("%%%").is_none() && decode_claims("").is_none());
}
