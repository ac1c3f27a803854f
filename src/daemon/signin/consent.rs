//! An administrator's consent for a whole organisation (docs: v2-admin-consent).

use super::{
    BROWSER_LIMIT, DaemonError, LoginRequest, Prompt, client_id, known, loopback, no_application, refused,
};
use crate::auth::{Application, AuthError};
use crate::daemon::{exit, lifecycle};

/// How asking an administrator ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consent {
    /// It was given for this organisation.
    Given {
        /// Its id.
        tenant: String,
    },
    /// The link was shown; whoever opens it sees how it ends.
    Asked,
}

/// Shows the link for an administrator. Blocks until it was answered where `has_browser`, which then comes back here.
pub fn admin_consent(
    request: &LoginRequest,
    has_browser: bool,
    prompt: &mut dyn FnMut(Prompt),
) -> Result<Consent, DaemonError> {
    let (settings, last) = known(request);
    let known = last.as_ref().filter(|last| last.login_url == settings.login_url);
    let client_id = client_id(request, &settings, known).ok_or_else(|| no_application(request))?;
    let tenant = request.tenant.clone().or(known.map(|last| last.tenant.clone()));
    // Only organisations have administrators.
    let tenant = tenant.filter(|tenant| !matches!(tenant.as_str(), "" | "common" | "consumers"));
    let application = Application {
        login_url: settings.login_url.clone(),
        tenant: tenant.unwrap_or_else(|| "organizations".into()),
        client_id,
        scope: format!("{}.default", settings.graph_url),
    };
    let failed = |error: AuthError| refused(&application, &error);
    if !has_browser {
        let request = application.begin_consent("http://localhost/").map_err(failed)?;
        prompt(Prompt::Consent(request.url));
        return Ok(Consent::Asked);
    }
    lifecycle::runtime()?.block_on(async {
        let page = loopback::Page::listen().await.map_err(|error| DaemonError {
            what: "login".into(),
            why: format!("no browser could come back to this machine: {error}"),
            remedy: "try again without a screen (DISPLAY, BROWSER): the link is shown then".into(),
            exit_code: exit::SYSTEM,
        })?;
        let request = application.begin_consent(&page.address()).map_err(failed)?;
        prompt(Prompt::Browser(request.url.clone()));
        let finish = page.answer("Consent given", |query| request.answer(query), async |tenant| Ok(tenant));
        let answer = tokio::time::timeout(BROWSER_LIMIT, finish).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(AuthError::SignedOut { reason: "no administrator answered in the browser".into() })
        });
        answer.map(|tenant| Consent::Given { tenant: tenant.expose().to_owned() }).map_err(failed)
    })
}
