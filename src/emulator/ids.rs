//! Identifiers and tags of drives and items (graph-api 2.2, 3.4, 3.7).
//!
//! An item's id is computed from its slot in the drive by an invertible function of the drive's seed, so
//! that ids need no index and a drive of millions of items stays small. Slots are never reused.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::flavour::Flavour;

/// Item GUID of every Business root (graph-api 3.7).
const ROOT_GUID: Guid =
    Guid([0xea, 0x8c, 0xc6, 0xbe, 0xff, 0xdb, 0x43, 0xd7, 0x97, 0x6f, 0xbc, 0x7d, 0xa4, 0x45, 0xc6, 0x39]);

/// Number of the root in classic personal ids (graph-api 3.7).
const CLASSIC_ROOT: u64 = 101;

/// A GUID in the order of its text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Guid(pub(crate) [u8; 16]);

impl Guid {
    /// A version 4 GUID determined by `value`.
    pub(crate) fn derived(value: u64) -> Self {
        let mut b = [0u8; 16];
        b[..8].copy_from_slice(&mix(value ^ 0xA5A5_5A5A_1234_9876).to_be_bytes());
        b[8..].copy_from_slice(&mix(value.wrapping_add(0x51_7CC1)).to_be_bytes());
        b[6] = b[6] & 0x0f | 0x40;
        b[8] = b[8] & 0x3f | 0x80;
        Self(b)
    }

    /// .NET's byte order: the first three fields little-endian.
    fn little_endian(self) -> [u8; 16] {
        let b = self.0;
        [b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]
    }

    /// Lower case with hyphens.
    pub(crate) fn text(self) -> String {
        let hex = self.plain();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// Lower case without hyphens.
    fn plain(self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// SplitMix64's finaliser: a bijection on `u64`.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The inverse of [`mix`].
fn unmix(mut z: u64) -> u64 {
    z = (z ^ (z >> 31) ^ (z >> 62)).wrapping_mul(0x3196_42B2_D24D_8EC3);
    z = (z ^ (z >> 27) ^ (z >> 54)).wrapping_mul(0x96DE_1B17_3F11_9089);
    z ^ (z >> 30) ^ (z >> 60)
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn base32_encode(bytes: &[u8; 20]) -> String {
    let mut out = String::with_capacity(32);
    for five in bytes.chunks_exact(5) {
        let word = five.iter().fold(0u64, |w, b| w << 8 | u64::from(*b));
        for k in (0..8).rev() {
            out.push(BASE32[(word >> (5 * k) & 31) as usize] as char);
        }
    }
    out
}

fn base32_decode(text: &str) -> Option<[u8; 20]> {
    if text.len() != 32 {
        return None;
    }
    let mut out = [0u8; 20];
    for (eight, five) in text.as_bytes().chunks_exact(8).zip(out.chunks_exact_mut(5)) {
        let mut word = 0u64;
        for c in eight {
            word = word << 5 | BASE32.iter().position(|b| b == c)? as u64;
        }
        five.copy_from_slice(&word.to_be_bytes()[3..]);
    }
    Some(out)
}

/// What the ids of one drive and of its items are computed from.
#[derive(Debug, Clone)]
pub(crate) struct DriveIds {
    pub(crate) flavour: Flavour,
    seed: u64,
    /// Personal: the account's CID.
    cid: u64,
    pub(crate) site: Guid,
    pub(crate) web: Guid,
    pub(crate) list: Guid,
}

impl DriveIds {
    pub(crate) fn new(flavour: Flavour, seed: u64) -> Self {
        Self {
            flavour,
            seed: mix(seed),
            cid: mix(seed ^ 0xC1D),
            site: Guid::derived(seed ^ 0x517E),
            web: Guid::derived(seed ^ 0x3EB),
            list: Guid::derived(seed ^ 0x1157),
        }
    }

    /// Uses the site and web of an existing site.
    pub(crate) fn in_site(mut self, site: Guid, web: Guid) -> Self {
        self.site = site;
        self.web = web;
        self
    }

    /// Gives every item another id; the drive keeps its own. Personal: the form of an account on the SharePoint
    /// backend (graph-api 3.7, 15 row 25). Elsewhere no source tells of it: as after the restore of a library from
    /// a backup, which makes all items anew.
    pub(crate) fn change_form(&mut self) {
        match self.flavour {
            Flavour::Personal => self.flavour = Flavour::PersonalNew,
            Flavour::PersonalNew | Flavour::Business | Flavour::DocumentLibrary => {
                self.seed = mix(self.seed ^ 0xF0_124A);
            }
        }
    }

    /// Uses this CID, for instance one with a leading zero (graph-api 2.2).
    pub(crate) fn with_cid(mut self, cid: u64) -> Self {
        self.cid = cid;
        self
    }

    /// `driveId` (graph-api 2.2): the CID in lower-case hex without leading zeros, or `b!` + 48 bytes.
    pub(crate) fn drive_id(&self) -> String {
        if self.flavour.is_business() {
            let parts = [self.site.little_endian(), self.web.little_endian(), self.list.little_endian()];
            format!("b!{}", URL_SAFE_NO_PAD.encode(parts.concat()))
        } else {
            format!("{:x}", self.cid)
        }
    }

    /// Whether `text` names this drive. Personal ids compare without case and padding (graph-api 2.2).
    pub(crate) fn is_drive(&self, text: &str) -> bool {
        if self.flavour.is_business() {
            return text == self.drive_id();
        }
        (1..=16).contains(&text.len()) && u64::from_str_radix(text, 16) == Ok(self.cid)
    }

    /// The GUID behind an item: the one packed in Business ids and tags (graph-api 3.4).
    pub(crate) fn guid(&self, slot: u32) -> Guid {
        if slot == 0 {
            return ROOT_GUID;
        }
        let code = mix(u64::from(slot) ^ self.seed);
        let [c0, c1, c2, c3, c4, c5, c6, c7] = code.to_be_bytes();
        let [h0, h1, h2, h3, h4, h5, h6, h7] = mix(code ^ self.seed.rotate_left(17)).to_be_bytes();
        Guid([c0, c1, c2, c3, c4, c5, h0 & 0x0f | 0x40, h1, h2 & 0x3f | 0x80, h3, c6, c7, h4, h5, h6, h7])
    }

    fn slot_of_guid(&self, guid: Guid) -> Option<u32> {
        if guid == ROOT_GUID {
            return Some(0);
        }
        let b = guid.0;
        let code = u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[10], b[11]]);
        let slot = u32::try_from(unmix(code) ^ self.seed).ok()?;
        (slot != 0 && self.guid(slot) == guid).then_some(slot)
    }

    /// 4 bytes that all ids of one Business drive share.
    fn prefix(&self) -> [u8; 4] {
        let s = mix(self.seed ^ 0x9F1).to_be_bytes();
        [s[0], s[1], s[2], s[3]]
    }

    /// The item's id (graph-api 3.7).
    pub(crate) fn item_id(&self, slot: u32) -> String {
        match self.flavour {
            Flavour::Personal => format!("{:016X}!{}", self.cid, u64::from(slot) + CLASSIC_ROOT),
            Flavour::PersonalNew => format!("{:016X}!s{}", self.cid, self.guid(slot).plain()),
            Flavour::Business | Flavour::DocumentLibrary => {
                let mut raw = [0u8; 20];
                raw[..4].copy_from_slice(&self.prefix());
                raw[4..].copy_from_slice(&self.guid(slot).little_endian());
                format!("01{}", base32_encode(&raw))
            }
        }
    }

    /// The slot that `id` stands for, if the id has the form of this drive. Ids are case-sensitive
    /// (graph-api 3.2) but for the CID part.
    pub(crate) fn slot(&self, id: &str) -> Option<u32> {
        if self.flavour.is_business() {
            let raw = base32_decode(id.strip_prefix("01")?)?;
            let (prefix, guid) = raw.split_at(4);
            let little = Guid(guid.try_into().ok()?).little_endian();
            return (prefix == self.prefix()).then(|| self.slot_of_guid(Guid(little)))?;
        }
        let (cid, rest) = id.split_once('!')?;
        if !self.is_drive(cid) {
            return None;
        }
        if self.flavour == Flavour::PersonalNew {
            let hex = rest.strip_prefix('s')?;
            let code = u128::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 32)?;
            return self.slot_of_guid(Guid(code.to_be_bytes()));
        }
        let n: u64 = rest.parse().ok().filter(|_| rest.bytes().all(|b| b.is_ascii_digit()))?;
        u32::try_from(n.checked_sub(CLASSIC_ROOT)?).ok()
    }

    /// The eTag (graph-api 3.4); Business roots have none.
    pub(crate) fn e_tag(&self, slot: u32, rev: u32) -> Option<String> {
        match self.flavour {
            Flavour::Personal => Some(classic(&format!("{}.{rev}", self.item_id(slot)))),
            _ if slot == 0 => None,
            _ => Some(format!("\"{{{}}},{rev}\"", self.guid(slot).text().to_uppercase())),
        }
    }

    /// The cTag of a file (graph-api 3.4).
    pub(crate) fn file_c_tag(&self, slot: u32, rev: u32) -> String {
        match self.flavour {
            Flavour::Personal => classic(&format!("c:{}.{}", self.item_id(slot), u64::from(rev) + 256)),
            _ => format!("\"c:{{{}}},{rev}\"", self.guid(slot).text().to_uppercase()),
        }
    }

    /// The cTag of a folder: ODC only, moves with every change below (graph-api 3.4).
    pub(crate) fn folder_c_tag(&self, slot: u32, ticks: i64) -> Option<String> {
        match self.flavour {
            Flavour::Personal => Some(classic(&format!("t:{}.{ticks}", self.item_id(slot)))),
            _ => None,
        }
    }
}

fn classic(text: &str) -> String {
    format!("a{}", STANDARD_NO_PAD.encode(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_foreign_ids_do_not_resolve() {
        for flavour in [Flavour::Personal, Flavour::PersonalNew, Flavour::Business, Flavour::DocumentLibrary]
        {
            let ids = DriveIds::new(flavour, 7);
            let other = DriveIds::new(flavour, 8);
            for slot in [0, 1, 2, 77, 5_000_000, u32::MAX - 200] {
                let id = ids.item_id(slot);
                assert_eq!(ids.slot(&id), Some(slot), "{id}");
                if slot != 0 {
                    assert_eq!(other.slot(&id), None, "{id}");
                }
            }
            assert_eq!(ids.slot("nonsense"), None);
            assert!(ids.is_drive(&ids.drive_id()));
            assert!(!ids.is_drive(&other.drive_id()));
        }
    }

    #[test]
    fn all_items_change_their_ids_and_the_drive_keeps_its_own() {
        for flavour in [Flavour::Personal, Flavour::PersonalNew, Flavour::Business, Flavour::DocumentLibrary]
        {
            let old = DriveIds::new(flavour, 7);
            let mut new = old.clone();
            new.change_form();
            assert_eq!(new.drive_id(), old.drive_id());
            for slot in [1, 2, 77] {
                assert_eq!(new.slot(&old.item_id(slot)), None);
                assert_eq!(new.slot(&new.item_id(slot)), Some(slot));
            }
        }
    }

    #[test]
    fn business_ids_are_packed_as_decoded_from_published_ones() {
        let raw = base32_decode("LI6JDZDZM2PHYJLU3ZAJIS7AP7A7SCXH").unwrap();
        let guid = Guid(raw[4..].try_into().unwrap());
        assert_eq!(Guid(guid.little_endian()).text(), "7c9e6679-7425-40de-944b-e07fc1f90ae7");
        let ids = DriveIds::new(Flavour::Business, 3);
        assert!(ids.item_id(0).ends_with("6Y2GOVW7725BZO354PWSELRRZ"));
        assert_eq!(ids.item_id(1).len(), 34);
        assert_eq!(ids.drive_id().len(), 66);
        assert!(ids.e_tag(1, 3).unwrap().starts_with("\"{"));
        assert_eq!(ids.e_tag(0, 1), None);
    }

    #[test]
    fn classic_ids_and_tags_have_the_published_form() {
        let ids = DriveIds::new(Flavour::Personal, 1).with_cid(0x2F9D_11C0_A1B2_C3D4);
        assert_eq!(ids.drive_id(), "2f9d11c0a1b2c3d4");
        assert_eq!(ids.item_id(6), "2F9D11C0A1B2C3D4!107");
        assert_eq!(ids.e_tag(6, 3).unwrap(), "aMkY5RDExQzBBMUIyQzNENCExMDcuMw");
        assert_eq!(ids.file_c_tag(6, 1), "aYzoyRjlEMTFDMEExQjJDM0Q0ITEwNy4yNTc");
        let zero = DriveIds::new(Flavour::Personal, 1).with_cid(0x0244_7005_6F5C_3E43);
        assert_eq!(zero.drive_id(), "24470056f5c3e43");
        assert_eq!(zero.item_id(0), "024470056F5C3E43!101");
        assert!(zero.is_drive("024470056F5C3E43"));
        let new = DriveIds::new(Flavour::PersonalNew, 1);
        assert!(new.item_id(0).ends_with("!sea8cc6beffdb43d7976fbc7da445c639"));
    }
}
