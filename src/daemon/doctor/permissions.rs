//! What a token allows, against what a mount needs (graph-api 1.8).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::Finding;
use crate::daemon::exit;

/// What a token of an organisation says; those of personal accounts say nothing.
#[derive(Deserialize)]
struct Claims {
    /// Of a person.
    scp: Option<String>,
    /// Of an application.
    #[serde(default)]
    roles: Vec<String>,
}

/// Looks into a token, of which nothing but the names of permissions is shown.
pub(super) fn finding(token: &str, read_only: bool) -> Finding {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let Some(claims) = payload.and_then(|payload| serde_json::from_slice::<Claims>(&payload).ok()) else {
        return Finding::ok("permissions", "the token does not tell (usual for personal accounts)");
    };
    let mut all: Vec<&str> = claims.scp.iter().flat_map(|scopes| scopes.split_whitespace()).collect();
    all.extend(claims.roles.iter().map(String::as_str));
    judge(&all, read_only)
}

fn judge(all: &[&str], read_only: bool) -> Finding {
    let has = |names: &[&str]| names.iter().any(|name| all.iter().any(|one| one.eq_ignore_ascii_case(name)));
    let shown = all.join(" ");
    let writes =
        has(&["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.Manage.All", "Sites.FullControl.All"]);
    let reads = writes || has(&["Files.Read.All", "Sites.Read.All"]);
    let selected = all.iter().any(|one| one.to_ascii_lowercase().contains("selected"));
    let (own, reads_own) = (has(&["Files.ReadWrite"]), has(&["Files.ReadWrite", "Files.Read"]));
    match () {
        () if writes || read_only && reads => Finding::ok("permissions", shown),
        () if selected => Finding::note(
            "permissions",
            shown,
            "an administrator has to grant each site to the application; 'drives' cannot list them",
        ),
        () if own || read_only && reads_own => Finding::note(
            "permissions",
            shown,
            "enough for the account's own drive; for others and for sites, sign in with Files.ReadWrite.All",
        ),
        () if reads || reads_own => Finding::bad(
            "permissions",
            exit::NO_ACCESS,
            format!("{shown}: nothing can be written"),
            "sign in with Files.ReadWrite.All, or mount with --read-only",
        ),
        () => Finding::bad(
            "permissions",
            exit::NO_ACCESS,
            format!("{shown}: files cannot be reached"),
            "sign in again with Files.ReadWrite.All and Sites.ReadWrite.All",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::doctor::Health;

    // S293.
    #[test]
    fn what_a_token_allows_is_held_against_what_is_needed() {
        for (all, read_only, health) in [
            ("Files.ReadWrite.All offline_access", false, Health::Ok),
            ("Sites.FullControl.All", false, Health::Ok),
            ("Files.Read.All", true, Health::Ok),
            ("Files.Read.All Sites.Read.All", false, Health::Bad),
            ("Files.ReadWrite", false, Health::Note),
            ("Files.Read", true, Health::Note),
            ("Sites.Selected", false, Health::Note),
            ("User.Read", false, Health::Bad),
            ("", true, Health::Bad),
        ] {
            let all: Vec<&str> = all.split_whitespace().collect();
            assert_eq!(judge(&all, read_only).health, health, "{all:?}");
        }
    }

    // S293.
    #[test]
    fn nothing_of_a_token_is_shown_but_permissions() {
        let token = |claims: &str| format!("x.{}.secret", URL_SAFE_NO_PAD.encode(claims));
        let found = finding(&token(r#"{"scp":"Files.ReadWrite.All","upn":"ann@contoso.com"}"#), false);
        assert_eq!((found.health, found.found.as_str()), (Health::Ok, "Files.ReadWrite.All"));
        let found = finding(&token(r#"{"roles":["User.Read.All"]}"#), false);
        assert_eq!(found.health, Health::Bad);
        assert_eq!(finding("EwB4opaque", false).health, Health::Ok);
        assert_eq!(finding("a.b.c", false).health, Health::Ok);
    }
}
