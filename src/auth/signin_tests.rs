use std::collections::VecDeque;
use std::sync::Mutex;

use super::super::testing::Endpoint;
use super::*;

fn application() -> Application {
    Application {
        login_url: Url::parse("https://login.example/").expect("an address"),
        tenant: "common".into(),
        client_id: "client".into(),
        scope: "offline_access Files.ReadWrite.All".into(),
    }
}

fn endpoint(answers: &[(u16, &str)]) -> Endpoint {
    let answers: VecDeque<_> = answers.iter().map(|(status, body)| Ok((*status, body.to_string()))).collect();
    Endpoint { answers: Mutex::new(answers), ..Endpoint::default() }
}

const CODE: &str = r#"{"device_code":"d","user_code":"HJ7K","verification_uri":"https://microsoft.com/devicelogin",
    "expires_in":900,"interval":5,"message":"To sign in …"}"#;
const PENDING: (u16, &str) = (400, r#"{"error":"authorization_pending","error_codes":[70016]}"#);
const GRANT: (u16, &str) =
    (200, r#"{"access_token":"a","refresh_token":"r","expires_in":3599,"token_type":"Bearer"}"#);

async fn wait_for(answers: &[(u16, &str)]) -> (Result<SignIn, AuthError>, u64) {
    let endpoint = endpoint(answers);
    let code = serde_json::from_str(CODE).expect("a device code");
    let began = tokio::time::Instant::now();
    let result = application().await_device(&endpoint, &code).await;
    (result, began.elapsed().as_secs())
}

// S230.
#[tokio::test(start_paused = true)]
async fn a_device_code_is_waited_for_at_the_pace_the_service_asks_for() {
    let (done, seconds) = wait_for(&[PENDING, (400, r#"{"error":"slow_down"}"#), PENDING, GRANT]).await;
    assert_eq!(done.expect("signed in").stored.refresh_token.expose(), "r");
    // Two waits of 5 s, two of 10 s, and a second for each answer.
    assert_eq!(seconds, 34);
}

// S230.
#[tokio::test(start_paused = true)]
async fn a_device_code_that_is_declined_or_too_old_is_not_asked_for_again() {
    for (error, words) in
        [("authorization_declined", "declined"), ("access_denied", "declined"), ("expired_token", "in time")]
    {
        let (refused, _) = wait_for(&[PENDING, (400, &format!(r#"{{"error":"{error}"}}"#))]).await;
        let Err(AuthError::SignedOut { reason }) = refused else { panic!("{error}: {refused:?}") };
        assert!(reason.contains(words), "{error}: {reason}");
    }
    let (refused, _) = wait_for(&[(401, r#"{"error":"invalid_client","error_codes":[7000218]}"#)]).await;
    assert!(
        matches!(&refused, Err(AuthError::Refused { remedy, .. }) if remedy.contains("public client flows"))
    );
    let pending = [PENDING; 400];
    let (refused, seconds) = wait_for(&pending).await;
    assert!(matches!(refused, Err(AuthError::SignedOut { .. })) && seconds < 910, "{seconds}");
}

// S230.
#[tokio::test(start_paused = true)]
async fn a_service_that_says_nonsense_about_times_is_neither_pressed_nor_waited_for_for_ever() {
    for (interval, life, seconds) in [(0, 900, 4), (u64::MAX, u64::MAX, 122)] {
        let endpoint = endpoint(&[PENDING, GRANT]);
        let text = CODE
            .replace("900", &life.to_string())
            .replace("\"interval\":5", &format!("\"interval\":{interval}"));
        let code = serde_json::from_str(&text).expect("a device code");
        let began = tokio::time::Instant::now();
        application().await_device(&endpoint, &code).await.expect("signed in");
        assert_eq!(began.elapsed().as_secs(), seconds, "{interval}");
    }
}

// S230.
#[tokio::test(start_paused = true)]
async fn a_network_that_is_away_for_a_while_does_not_end_a_sign_in() {
    let (done, _) = wait_for(&[(503, "busy"), PENDING, (502, ""), GRANT]).await;
    done.expect("signed in");
}

// S231.
#[tokio::test(start_paused = true)]
async fn a_browser_sign_in_proves_that_who_redeems_the_code_is_who_asked_for_it() {
    let request = application().begin_in_browser("http://localhost:5000/").expect("an address");
    let said = |name: &str| {
        request.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    assert_eq!(request.url.path(), "/common/oauth2/v2.0/authorize");
    assert_eq!(said("code_challenge_method").as_deref(), Some("S256"));
    let state = said("state").expect("a state");
    assert!(state.len() >= 43 && Some(&state) != said("code_challenge").as_ref());
    assert!(request.answer("code=c&state=other").is_none(), "somebody else's");
    assert!(request.answer("code=c").is_none() && request.answer(&format!("state={state}")).is_none());
    let code = request.answer(&format!("code=c%2B1&state={state}")).expect("ours").expect("a code");
    let endpoint = endpoint(&[GRANT]);
    application().redeem(&endpoint, &request, code).await.expect("signed in");
    let forms = endpoint.forms.lock().expect("unpoisoned");
    let sent = |name: &str| forms[0].iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
    assert_eq!(sent("code").as_deref(), Some("c+1"));
    assert_eq!(sent("redirect_uri").as_deref(), Some("http://localhost:5000/"));
    let verifier = sent("code_verifier").expect("a verifier");
    assert!((43..=128).contains(&verifier.len()));
    assert_eq!(said("code_challenge"), Some(URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))));
}

// S231.
#[test]
fn what_the_browser_was_refused_with_is_said_without_its_trace() {
    let request = application().begin_in_browser("http://localhost:5000/").expect("an address");
    let refused = |error: &str, words: &str| {
        let query = format!("error={error}&error_description={words}&state={}", request.state);
        request.answer(&query).expect("ours").expect_err("refused")
    };
    assert!(matches!(refused("access_denied", "AADSTS65004"), AuthError::SignedOut { .. }));
    let AuthError::Configuration { what } =
        refused("invalid_client", "AADSTS700016%3A+not+found.+Trace+ID%3A+1")
    else {
        panic!("a mistake of the settings");
    };
    assert_eq!(what, "AADSTS700016: not found.");
}

// S231.
#[tokio::test(start_paused = true)]
async fn a_sign_in_without_a_token_to_keep_is_refused() {
    let (refused, _) = wait_for(&[(200, r#"{"access_token":"a"}"#)]).await;
    assert!(matches!(&refused, Err(AuthError::Configuration { what }) if what.contains("offline_access")));
}

// S232.
#[test]
fn every_code_of_the_sign_in_service_has_a_sentence_with_a_remedy() {
    // graph-api 1.3 to 1.7.
    let codes = [
        50001, 50011, 50020, 50034, 50057, 50074, 50076, 50078, 50079, 50105, 50128, 50131, 50132, 50133,
        50173, 50194, 50196, 51004, 53000, 53001, 53003, 53004, 54005, 65001, 65004, 65005, 70000, 70008,
        70011, 70016, 70019, 70020, 90002, 90094, 500_011, 700_016, 700_021, 700_023, 700_024, 700_027,
        700_082, 700_211, 700_212, 700_213, 900_023, 1_002_012, 7_000_112, 7_000_215, 7_000_216, 7_000_218,
        7_000_222, 7_000_229, 9_002_346,
    ];
    for code in codes {
        assert!(super::super::aadsts::explain(code).is_some(), "AADSTS{code}");
    }
}
