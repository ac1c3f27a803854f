//! How an application is registered with the service: the exact steps, with one command.

use serde_json::json;

/// Microsoft Graph, as applications name it.
const GRAPH: &str = "00000003-0000-0000-c000-000000000000";

/// What an application is registered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// It signs in without a person.
    pub is_application: bool,
    /// It only reads.
    pub read_only: bool,
}

impl Needs {
    /// Names and ids of the permissions (graph-api 1.8), as the person's or the application's own.
    fn permissions(self) -> Vec<(&'static str, &'static str)> {
        match (self.is_application, self.read_only) {
            (false, false) => vec![
                ("Files.ReadWrite.All", "863451e7-0667-486c-a5d6-d135439485f0"),
                ("Sites.ReadWrite.All", "89fe6a52-be36-487e-b7d8-d061c450a026"),
                ("offline_access", "7427e0e9-2fba-42fe-b0c0-848c9e6a8182"),
            ],
            (false, true) => vec![
                ("Files.Read.All", "df85f4d6-205c-4ac5-a5ea-6bf408dba283"),
                ("Sites.Read.All", "205e70e5-aba6-4c52-a976-6d2d46c48043"),
                ("offline_access", "7427e0e9-2fba-42fe-b0c0-848c9e6a8182"),
            ],
            (true, false) => vec![
                ("Files.ReadWrite.All", "75359482-378d-4052-8f01-80520e7db3cd"),
                ("Sites.ReadWrite.All", "9492366f-7969-46a4-8d15-ed1a20078fff"),
            ],
            (true, true) => vec![
                ("Files.Read.All", "01d4889c-1287-42c6-ac1f-5d1e02578ef6"),
                ("Sites.Read.All", "332a536c-c7ef-4017-ab91-336970924f0d"),
            ],
        }
    }

    /// The one command that registers it, and prints its id.
    pub fn command(self) -> String {
        let kind = if self.is_application { "Role" } else { "Scope" };
        let access: Vec<_> =
            self.permissions().iter().map(|(_, id)| json!({ "id": id, "type": kind })).collect();
        let needed = json!([{ "resourceAppId": GRAPH, "resourceAccess": access }]);
        let who = if self.is_application {
            "--sign-in-audience AzureADMyOrg"
        } else {
            "--sign-in-audience AzureADandPersonalMicrosoftAccount --is-fallback-public-client true \
             --public-client-redirect-uris http://localhost"
        };
        format!(
            "az ad app create --display-name onedrivefs {who} --required-resource-accesses '{needed}' \
             --query appId -o tsv"
        )
    }

    /// What to do in a browser instead.
    fn by_hand(self) -> String {
        let names: Vec<_> = self.permissions().iter().map(|(name, _)| *name).collect();
        let (names, kind) = (names.join(", "), if self.is_application { "application" } else { "delegated" });
        let who = if self.is_application {
            "accounts of this organisation"
        } else {
            "accounts of any organisation and personal ones, redirect address http://localhost for mobile and desktop \
             applications, 'Allow public client flows'"
        };
        format!(
            "https://entra.microsoft.com, App registrations, New registration: {who}; API permissions, Microsoft \
             Graph, {kind}: {names}"
        )
    }

    /// What follows the registration.
    fn afterwards(self) -> &'static str {
        if self.is_application {
            "upload a certificate or make a secret there, and have an administrator consent: onedrivefs login \
             --admin-consent --client-id ID --tenant T"
        } else {
            "run: onedrivefs login --client-id ID (it is remembered)"
        }
    }

    /// All in one sentence.
    pub fn in_one_line(self) -> String {
        let (command, by_hand, afterwards) = (self.command(), self.by_hand(), self.afterwards());
        format!(
            "register one once, with the Azure command line: {command} (or at {by_hand}), then {afterwards}"
        )
    }

    /// Step by step, for somebody who is at a terminal.
    pub fn in_steps(self) -> String {
        let (command, by_hand) = (self.command(), self.by_hand());
        format!(
            "No application is registered for this program yet. Register one, once, with the Azure command line\n\
             ('az login' first):\n\n  {command}\n\nor at {by_hand}.\n\nIts application id is remembered.\n"
        )
    }
}
