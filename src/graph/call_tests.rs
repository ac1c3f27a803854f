//! The rules that hold for every call: repeats, deadlines, tokens, redirects, silence, redaction.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::testing::*;
use super::*;
use crate::auth::StaticToken;

const ITEM: &str = r#"{"id":"01A","name":"a.txt","file":{},"size":5}"#;
const P: Priority = Priority::Interactive;

#[tokio::test(start_paused = true)]
async fn every_request_carries_token_ids_and_agent_to_graph() {
    let (graph, script) = graph([get("/v1.0/drives/b!D/items/01A?$select=", json(200, ITEM))]);
    let found = graph.item(&drive(), &item("01A"), P).await.expect("found");
    assert_eq!(found.name.as_deref(), Some("a.txt"));
    let seen = &script.seen()[0];
    assert!(seen.url.starts_with("https://graph.microsoft.com/v1.0/"));
    assert_eq!(seen.header("authorization"), Some("Bearer secret-token"));
    assert_eq!(seen.header("client-request-id").map(str::len), Some(36));
    assert!(seen.header("user-agent").is_some_and(|agent| agent.contains("onedrivefs")));
}

#[tokio::test(start_paused = true)]
async fn a_read_is_repeated_after_failures_of_the_service_with_a_new_id_each_time() {
    let (graph, script) = graph([
        get("/items/01A", json(503, "")),
        get("/items/01A", Say::Reset),
        get("/items/01A", Say::Broken(200, vec![], "{\"id\":".into())),
        get("/items/01A", json(200, ITEM)),
    ]);
    graph.item(&drive(), &item("01A"), P).await.expect("found at last");
    script.done();
    let mut ids: Vec<_> =
        script.seen().iter().map(|seen| seen.header("client-request-id").map(str::to_owned)).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    assert_eq!((graph.counters().requests, graph.counters().retries), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_unknown_outcome_is_reported_and_not_repeated() {
    for say in [
        Say::Reset,
        Say::Silence,
        json(500, ""),
        json(503, ""),
        json(504, ""),
        Say::Broken(201, vec![], "{".into()),
    ] {
        let (graph, script) = graph([step(Method::POST, "/children", say.clone())]);
        let error = graph.mkdir(&drive(), &item("01P"), "x", None).await.expect_err("unknown");
        assert!(error.outcome_unknown(), "{say:?}: {error:?}");
        script.done();
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_refused_for_load_or_never_sent_is_repeated() {
    let made = json(201, r#"{"id":"01N","folder":{}}"#);
    for say in [
        with(429, &[("retry-after", "3")], ""),
        with(503, &[("retry-after", "2.5")], ""),
        Say::NotSent,
        json(429, ""),
    ] {
        let (graph, script) =
            graph([step(Method::POST, "/children", say), step(Method::POST, "/children", made.clone())]);
        graph.mkdir(&drive(), &item("01P"), "x", None).await.expect("made");
        script.done();
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_answer_that_may_come_from_something_on_the_way_leaves_a_change_unknown() {
    let busy = with(503, &[("retry-after", "1")], "");
    for then in
        [with(429, &[("retry-after", "900")], ""), json(409, r#"{"error":{"code":"nameAlreadyExists"}}"#)]
    {
        let (graph, script) =
            graph([step(Method::POST, "/children", busy.clone()), step(Method::POST, "/children", then)]);
        let error = graph.mkdir(&drive(), &item("01P"), "x", None).await.expect_err("unknown");
        assert!(error.outcome_unknown(), "{error:?}");
        script.done();
    }
    let (graph, script) = graph([step(Method::POST, "/children", with(503, &[("retry-after", "900")], ""))]);
    let error = graph.mkdir(&drive(), &item("01P"), "x", None).await.expect_err("unknown");
    assert!(error.outcome_unknown(), "{error:?}");
    script.done();
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_everyone_is_silent_as_long_as_was_asked() {
    let (graph, script) = graph([
        get("/items/01A", with(429, &[("retry-after", "7")], "")),
        get("/items/01", json(200, ITEM)),
        get("/items/01", json(200, ITEM)),
    ]);
    let began = Instant::now();
    let first = tokio::spawn({
        let graph = graph.clone();
        async move { graph.item(&drive(), &item("01A"), P).await }
    });
    tokio::time::sleep(SECOND).await;
    assert_eq!(graph.silence(), Some(Duration::from_secs(6)));
    graph.item(&drive(), &item("01B"), P).await.expect("found after the silence");
    assert!(began.elapsed() >= Duration::from_secs(7));
    first.await.expect("joined").expect("found after the silence");
    script.done();
    assert_eq!(graph.counters().throttled, 1);
}

#[tokio::test(start_paused = true)]
async fn a_silence_longer_than_the_caller_can_wait_is_told_at_once_and_nothing_is_sent() {
    let (graph, script) = graph([get("/items/01A", with(429, &[("retry-after", "120")], ""))]);
    let began = Instant::now();
    for _ in 0..2 {
        let error = graph.item(&drive(), &item("01A"), P).await.expect_err("throttled");
        assert!(
            matches!(error, GraphError::Throttled { retry_after: Some(wait), .. } if wait > 100 * SECOND),
            "{error:?}"
        );
        assert!(!error.outcome_unknown());
    }
    assert!(began.elapsed() < SECOND);
    script.done();
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_over_all_repeats() {
    let (graph, _script) = graph([get("/items/01A", Say::Silence), get("/items/01A", Say::Silence)]);
    let began = Instant::now();
    let error = graph.item(&drive(), &item("01A"), P).await.expect_err("no answer");
    assert!(matches!(error, GraphError::Deadline { sent: true }), "{error:?}");
    assert!(began.elapsed() <= 20 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_hanging_request_leaves_time_for_a_second() {
    let (graph, script) = graph([get("/items/01A", Say::Silence), get("/items/01A", json(200, ITEM))]);
    graph.item(&drive(), &item("01A"), P).await.expect("found");
    script.done();
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_the_caller_hears_it_soon() {
    let (graph, script) = graph([get("", Say::NotSent), get("", Say::NotSent)]);
    let began = Instant::now();
    let error = graph.item(&drive(), &item("01A"), P).await.expect_err("offline");
    assert!(matches!(error, GraphError::Offline { sent: false, .. }) && !error.outcome_unknown());
    assert!(began.elapsed() < SECOND);
    script.done();
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_refreshed_once_and_the_challenge_passed_on() {
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1"}}}"#;
    let encoded = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(claims)
    };
    let challenge = format!(r#"Bearer realm="", error="insufficient_claims", claims="{encoded}""#);
    let script = Script::new([
        get("/items/01A", with(401, &[("www-authenticate", &challenge)], "")),
        get("/items/01A", json(200, ITEM)),
    ]);
    let tokens = Arc::new(Counted::default());
    let graph = graph_with(&script, tokens.clone(), GraphConfig::default());
    graph.item(&drive(), &item("01A"), P).await.expect("found");
    let seen = script.seen();
    assert_eq!(seen[0].header("authorization"), Some("Bearer token-1"));
    assert_eq!(seen[1].header("authorization"), Some("Bearer token-2"));
    let refreshes = tokens.refreshes.lock().expect("unpoisoned").clone();
    assert_eq!(refreshes.len(), 1);
    let told = refreshes[0].1.as_deref().expect("claims are passed on");
    assert!(told.contains("nbf") && told.contains("cp1"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_again_and_again_means_signed_out() {
    let script = Script::new([get("", json(401, "")), get("", json(401, "")), get("", json(401, ""))]);
    let graph = graph_with(&script, Arc::new(Counted::default()), GraphConfig::default());
    let error = graph.item(&drive(), &item("01A"), P).await.expect_err("refused");
    assert!(matches!(error, GraphError::SignedOut { .. }), "{error:?}");
    script.done();
}

#[tokio::test(start_paused = true)]
async fn links_to_other_services_never_see_the_token() {
    for link in [
        "https://evil.example/v1.0/x",
        "http://graph.microsoft.com/v1.0/x",
        "https://graph.microsoft.com:444/x",
        "x",
    ] {
        let (graph, script) = graph([]);
        let from = DeltaFrom::Link(PageLink::new(link));
        let error = graph.delta(&drive(), &from, P).await.expect_err("refused");
        assert!(matches!(error, GraphError::Protocol { .. }), "{link}: {error:?}");
        assert!(script.seen().is_empty());
    }
    let page = r#"{"value":[],"@odata.nextLink":"https://evil.example/v1.0/x"}"#;
    let (graph, _) = graph([get("/children", json(200, page))]);
    assert!(graph.children(&drive(), &item("01A"), None, P).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_redirect_to_another_host_is_not_followed_with_the_token() {
    let (graph, script) = graph([get("/items/01A", with(302, &[("location", "https://evil.example/")], ""))]);
    let error = graph.item(&drive(), &item("01A"), P).await.expect_err("refused");
    assert!(matches!(error, GraphError::Protocol { .. }), "{error:?}");
    script.done();
}

#[tokio::test(start_paused = true)]
async fn a_redirect_within_the_service_is_followed_for_reads_but_not_for_ever() {
    let here = with(307, &[("location", "/v1.0/elsewhere")], "");
    let (first, script) =
        graph([get("/items/01A", here.clone()), get("com/v1.0/elsewhere", json(200, ITEM))]);
    first.item(&drive(), &item("01A"), P).await.expect("found");
    script.done();
    let (second, _) = graph(std::iter::repeat_n(get("", here.clone()), 6));
    assert!(second.item(&drive(), &item("01A"), P).await.is_err());
    let (third, script) = graph([step(Method::POST, "/children", here)]);
    assert!(third.mkdir(&drive(), &item("01A"), "x", None).await.is_err());
    script.done();
}

#[tokio::test(start_paused = true)]
async fn plain_http_is_refused_for_every_kind_of_address() {
    let config = GraphConfig {
        graph_url: "http://graph.microsoft.com".parse().expect("address"),
        ..GraphConfig::default()
    };
    let clock: Arc<dyn Clock> = Arc::new(crate::clock::SeededClock::with_seed(1));
    let made = Graph::new(config, Arc::new(Script::new([])), Arc::new(StaticToken::new("t")), clock);
    assert!(matches!(made, Err(GraphError::InsecureUrl)));
    let (graph, script) = graph([]);
    let content = crate::model::remote::DownloadUrl::new("http://data.example/x");
    assert!(matches!(graph.download(&content, None, P).await, Err(GraphError::InsecureUrl)));
    let session = SessionUrl::new("http://data.example/x");
    assert!(matches!(graph.session_status(&session).await, Err(GraphError::InsecureUrl)));
    assert!(script.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_change_whose_first_try_may_have_worked_stays_unknown() {
    let (graph, script) = graph([
        step(Method::DELETE, "/items/01A", json(500, "")),
        step(Method::DELETE, "/items/01A", with(429, &[("retry-after", "900")], "")),
    ]);
    let error = graph.delete(&drive(), &item("01A"), None).await.expect_err("unknown");
    assert!(error.outcome_unknown(), "{error:?}");
    script.done();
}

#[tokio::test(start_paused = true)]
async fn a_signed_out_account_is_told_before_anything_is_sent() {
    let script = Script::new([]);
    let graph = graph_with(&script, Arc::new(Out), GraphConfig::default());
    let error = graph.item(&drive(), &item("01A"), P).await.expect_err("signed out");
    assert!(matches!(error, GraphError::SignedOut { reason } if reason == "gone"));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_frees_its_slot() {
    let limits = LimiterConfig { max_metadata: 1, ..LimiterConfig::default() };
    let script = Script::new([
        get("/items/01A", Say::Silence),
        get("/items/01B", Say::Silence),
        get("/items/01C", json(200, ITEM)),
    ]);
    let graph = graph_with(
        &script,
        Arc::new(StaticToken::new("t")),
        GraphConfig { limits, ..GraphConfig::default() },
    );
    for id in ["01A", "01B"] {
        let call = graph.item(&drive(), &item(id), Priority::Upload).await_for(SECOND).await;
        assert!(call.is_none(), "it hangs");
    }
    graph.item(&drive(), &item("01C"), Priority::Upload).await.expect("the slot is free");
    script.done();
}

/// Polls a future for a while, then drops it.
trait AwaitFor: Future + Sized {
    async fn await_for(self, time: Duration) -> Option<Self::Output> {
        tokio::time::timeout(time, self).await.ok()
    }
}

impl<F: Future> AwaitFor for F {}

#[tokio::test(start_paused = true)]
async fn nothing_shown_holds_a_secret() {
    let (graph, script) = graph([get(
        "/items/01A",
        with(404, &[("request-id", "r-1")], r#"{"error":{"code":"itemNotFound"}}"#),
    )]);
    let error = graph.item(&drive(), &item("01A"), P).await.expect_err("not there");
    let shown = format!(
        "{graph:?} {error:?} {error} {:?} {:?} {:?}",
        PageLink::new("https://g/secret"),
        SessionUrl::new("https://g/secret"),
        crate::model::remote::DownloadUrl::new("https://g/secret"),
    );
    assert!(!shown.contains("secret"), "{shown}");
    assert!(
        error.to_string().contains("request-id=r-1") && error.to_string().contains("code=itemNotFound"),
        "{error}"
    );
    script.done();
}
