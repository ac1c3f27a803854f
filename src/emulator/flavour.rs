//! The kinds of drive, which differ in ids, tags, times, hashes and delta fields.

use serde::{Deserialize, Serialize};

use super::time::Fraction;

/// Which service stands behind a drive (graph-api, "Short names").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Flavour {
    /// OneDrive personal, classic backend: `CID!n` ids.
    Personal,
    /// OneDrive personal, migrated to the SharePoint backend: `CID!s{guid}` ids, tags as Business.
    PersonalNew,
    /// OneDrive for Business.
    Business,
    /// A SharePoint document library: as Business, and it rewrites Office files after upload.
    DocumentLibrary,
}

impl Flavour {
    /// The value of `driveType` (graph-api 2.2).
    pub fn drive_type(self) -> &'static str {
        match self {
            Flavour::Personal | Flavour::PersonalNew => "personal",
            Flavour::Business => "business",
            Flavour::DocumentLibrary => "documentLibrary",
        }
    }

    /// The flavour of a `driveType` as users name it; `personalNew` for a migrated account.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "personal" => Some(Flavour::Personal),
            "personalNew" => Some(Flavour::PersonalNew),
            "business" => Some(Flavour::Business),
            "documentLibrary" => Some(Flavour::DocumentLibrary),
            _ => None,
        }
    }

    /// The SharePoint backend as seen through work accounts: ODB and SPO.
    pub(crate) fn is_business(self) -> bool {
        matches!(self, Flavour::Business | Flavour::DocumentLibrary)
    }

    /// Business writes whole seconds, personal up to milliseconds (graph-api 3.8).
    pub(crate) fn fraction(self) -> Fraction {
        if self.is_business() { Fraction::None } else { Fraction::Trimmed }
    }

    /// Largest listing page that `$top` can ask for (graph-api 5).
    pub(crate) fn max_top(self) -> usize {
        if self.is_business() { 5000 } else { 1000 }
    }

    /// Versions kept besides the current one (graph-api 4.4).
    pub(crate) fn version_limit(self) -> usize {
        if self.is_business() { 500 } else { 25 }
    }
}
