//! Everything the service remembers, behind one lock that is never held across an await.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::config::{EmulatorConfig, Rewrite, Switches};
use super::content::Blob;
use super::copy::CopyJob;
use super::drive::{Act, Drive};
use super::error::{ApiError, ApiResult};
use super::faults::Faults;
use super::flavour::Flavour;
use super::ids::{DriveIds, Guid, mix};
use super::log::Log;
use super::mime;
use super::oauth::Auth;
use super::time::Ms;
use super::tree::Slot;
use super::upload::Session;

/// A person with the application they act through.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) display_name: String,
    pub(crate) email: String,
    pub(crate) application_id: String,
    pub(crate) application: String,
}

/// The signed-in user; owner of drive 0.
pub(crate) const ME: u8 = 0;
/// Whoever `edit_as_other` stands for.
pub(crate) const OTHER: u8 = 1;

#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) id: String,
    pub(crate) hostname: String,
    pub(crate) path: String,
    pub(crate) display_name: String,
    pub(crate) created: Ms,
    /// Indexes of its libraries, the default one first.
    pub(crate) drives: Vec<usize>,
    /// Id of the group that it belongs to; none: a person's own site, which search does not find.
    pub(crate) group: Option<String>,
}

impl Site {
    /// Mail address of its group.
    pub(crate) fn mail(&self) -> String {
        let name = self.path.rsplit('/').next().unwrap_or_default().to_lowercase();
        format!("{name}@contoso.com")
    }
}

/// Something that happens by itself at a time.
#[derive(Debug, Clone)]
pub(crate) enum Due {
    /// A library writes its metadata into a file (graph-api 7.8).
    Rewrite { drive: usize, slot: Slot, c_rev: u32 },
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: EmulatorConfig,
    pub(crate) switches: Switches,
    pub(crate) drives: Vec<Drive>,
    pub(crate) sites: Vec<Site>,
    pub(crate) identities: Vec<Identity>,
    pub(crate) sessions: BTreeMap<String, Session>,
    pub(crate) jobs: BTreeMap<String, CopyJob>,
    pub(crate) auth: Auth,
    pub(crate) urls: Urls,
    pub(crate) faults: Faults,
    pub(crate) log: Log,
    due: BTreeMap<(Ms, u64), Due>,
    next_due: u64,
    /// Directory for contents.
    pub(crate) dir: PathBuf,
    next_file: u64,
}

impl State {
    pub(crate) fn new(config: EmulatorConfig, dir: PathBuf, now: Ms) -> Self {
        let personal = !config.flavour.is_business();
        let identities =
            vec![identity(1, "Ann", "onedrivefs", personal), identity(2, "Bob", "Other Client", personal)];
        let seed = config.id_seed;
        let ids = |n: u64| config.personal_cid.unwrap_or(mix(seed ^ n));
        let mut state = Self {
            switches: config.switches.clone(),
            drives: Vec::new(),
            sites: Vec::new(),
            identities,
            sessions: BTreeMap::new(),
            jobs: BTreeMap::new(),
            auth: Auth::new(&config),
            urls: Urls {
                key: mix(seed ^ 0x0511),
                lifetime: config.download_url_lifetime.as_millis() as Ms,
                epoch: 0,
            },
            faults: Faults::default(),
            log: Log::default(),
            due: BTreeMap::new(),
            next_due: 0,
            dir,
            next_file: 0,
            config: config.clone(),
        };
        let mine = DriveIds::new(config.flavour, seed).with_cid(ids(0xC1D));
        let (name, web) = match config.flavour {
            Flavour::Personal | Flavour::PersonalNew => ("OneDrive", "onedrive.live.com".to_owned()),
            Flavour::Business => {
                ("OneDrive", "contoso-my.sharepoint.com/personal/ann_contoso_com/Documents".to_owned())
            }
            Flavour::DocumentLibrary => {
                ("Documents", "contoso.sharepoint.com/sites/Main/Shared%20Documents".to_owned())
            }
        };
        state.add_drive(mine, name, &web, now);
        for (n, site) in config.sites.iter().enumerate() {
            let (guid, web) =
                (Guid::derived(seed ^ (0x1000 + n as u64)), Guid::derived(seed ^ (0x2000 + n as u64)));
            let mut drives = Vec::new();
            for (k, library) in site.libraries.iter().enumerate() {
                let ids =
                    DriveIds::new(Flavour::DocumentLibrary, mix(seed ^ (0x3000 + (n * 100 + k) as u64)));
                let url = match k {
                    0 => format!("{}/{}/Shared%20Documents", site.hostname, site.path),
                    _ => format!("{}/{}/{}", site.hostname, site.path, super::render::escape(library)),
                };
                drives.push(state.add_drive(ids.in_site(guid, web), library, &url, now));
            }
            state.sites.push(Site {
                id: format!("{},{},{}", site.hostname, guid.text(), web.text()),
                hostname: site.hostname.clone(),
                path: site.path.trim_matches('/').to_owned(),
                display_name: site.display_name.clone(),
                created: now,
                drives,
                group: Some(Guid::derived(seed ^ (0x4000 + n as u64)).text()),
            });
        }
        if config.flavour == Flavour::Business {
            state.add_personal_site(0, "ann_contoso_com", now);
        }
        for n in 0..config.others_drives {
            let ids = DriveIds::new(config.flavour, mix(seed ^ (0x9000 + n as u64)));
            let ids = ids.with_cid(mix(seed ^ (0xB0B + n as u64)));
            let web = match config.flavour.is_business() {
                true => format!("contoso-my.sharepoint.com/personal/bob{n}_contoso_com/Documents"),
                false => "onedrive.live.com".to_owned(),
            };
            let at = state.add_drive(ids, "OneDrive", &web, now);
            state.drives[at].owner = OTHER;
            state.drives[at].private = true;
            if config.flavour == Flavour::Business {
                state.add_personal_site(at, &format!("bob{n}_contoso_com"), now);
            }
        }
        state
    }

    /// A person's OneDrive is a library of a site of their own (graph-api 2.4).
    fn add_personal_site(&mut self, at: usize, name: &str, now: Ms) {
        let guid = |n: u64| Guid::derived(mix(self.config.id_seed ^ 0x5000 ^ at as u64) ^ n).text();
        let hostname = "contoso-my.sharepoint.com".to_owned();
        self.sites.push(Site {
            id: format!("{hostname},{},{}", guid(1), guid(2)),
            hostname,
            path: format!("personal/{name}"),
            display_name: name.to_owned(),
            created: now,
            drives: vec![at],
            group: None,
        });
    }

    fn add_drive(&mut self, ids: DriveIds, name: &str, web_path: &str, now: Ms) -> usize {
        let mut drive = Drive::new(ids, name, web_path, now);
        drive.quota_total = self.config.quota_total;
        drive.tree.seeding = false;
        self.drives.push(drive);
        self.drives.len() - 1
    }

    /// Copies the switches that drives act on.
    pub(crate) fn apply_switches(&mut self) {
        for drive in &mut self.drives {
            drive.c_tag_moves_on_rename = self.switches.c_tag_on_rename;
            drive.reserved_names_403 = self.switches.reserved_names_403;
            drive.report_descendants = self.switches.delta_reports_descendants;
        }
        self.auth.rotation_strict = self.switches.refresh_rotation_strict;
        self.auth.invalid_grant = self.switches.invalid_grant;
    }

    /// A file name in the data directory that was never used.
    pub(crate) fn file_name(&mut self) -> String {
        self.next_file += 1;
        format!("c{}", self.next_file)
    }

    pub(crate) fn drive_by_id(&self, id: &str) -> ApiResult<usize> {
        let found = self.drives.iter().position(|d| d.ids.is_drive(id) && !d.gone);
        found.ok_or_else(ApiError::not_found)
    }

    pub(crate) fn schedule(&mut self, at: Ms, due: Due) {
        self.next_due += 1;
        self.due.insert((at, self.next_due), due);
    }

    /// Lets happen what is due; called before every request.
    pub(crate) fn advance(&mut self, now: Ms) {
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let at = entry.key().0;
            match entry.remove() {
                Due::Rewrite { drive, slot, c_rev } => {
                    let unchanged =
                        self.drives[drive].tree.live(slot).is_some_and(|node| node.c_rev == c_rev);
                    if unchanged {
                        self.rewrite(drive, slot, at);
                    }
                }
            }
        }
    }

    /// What the service does by itself to a file just uploaded (graph-api 7.8).
    pub(crate) fn after_upload(&mut self, at: usize, slot: Slot, act: Act) {
        let drive = &self.drives[at];
        let node = drive.tree.node(slot);
        let flavour = drive.flavour();
        if !mime::is_rewritten(&node.name) || node.weight() == 0 {
            return;
        }
        match self.switches.rewrite {
            Rewrite::AtOnce if flavour.is_business() => self.rewrite(at, slot, act.now),
            Rewrite::LibraryLater if flavour == Flavour::DocumentLibrary => {
                let when = act.now + self.switches.rewrite_delay_ms as Ms;
                let c_rev = node.c_rev;
                self.schedule(when, Due::Rewrite { drive: at, slot, c_rev });
            }
            _ => {}
        }
    }

    /// Appends what a library writes: the size, the hash and the tags move.
    pub(crate) fn rewrite(&mut self, at: usize, slot: Slot, now: Ms) {
        let drive = &mut self.drives[at];
        let Some(Ok(bytes)) = drive.tree.node(slot).blob().map(Blob::to_bytes) else { return };
        let mut bytes = bytes.to_vec();
        bytes.extend_from_slice(format!("<!--promoted:{}-->", drive.ids.guid(slot).text()).as_bytes());
        drive.rewrite(slot, Blob::from_bytes(bytes), now);
    }
}

fn identity(n: u64, name: &str, application: &str, personal: bool) -> Identity {
    let lower = name.to_lowercase();
    let id = match personal {
        true => format!("{:016x}", mix(n)),
        false => Guid::derived(n).text(),
    };
    Identity {
        id,
        display_name: name.to_owned(),
        email: format!("{lower}@{}", if personal { "outlook.com" } else { "contoso.com" }),
        application_id: Guid::derived(n ^ 0xA99).text(),
        application: application.to_owned(),
    }
}

/// Pre-authenticated download URLs: the token says it all, nothing is stored (graph-api 6.1).
#[derive(Debug)]
pub(crate) struct Urls {
    key: u64,
    pub(crate) lifetime: Ms,
    /// URLs of an older epoch have expired.
    pub(crate) epoch: u64,
}

/// What a download URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Download {
    pub(crate) drive: usize,
    pub(crate) slot: Slot,
    /// 0: whatever is current.
    pub(crate) version: u32,
}

impl Urls {
    fn mac(&self, text: &str) -> u64 {
        text.bytes().fold(self.key, |sum, b| mix(sum ^ u64::from(b)))
    }

    pub(crate) fn issue(&self, drive: usize, slot: Slot, version: u32, now: Ms) -> String {
        let text = format!("{drive}.{slot}.{version}.{now}.{}", self.epoch);
        let mac = self.mac(&text);
        URL_SAFE_NO_PAD.encode(format!("{text}.{mac:x}"))
    }

    /// `None`: not one of ours, or expired.
    pub(crate) fn open(&self, token: &str, now: Ms) -> Option<Download> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let (signed, mac) = text.rsplit_once('.')?;
        if u64::from_str_radix(mac, 16) != Ok(self.mac(signed)) {
            return None;
        }
        let mut parts = signed.split('.');
        let (drive, slot) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let version = parts.next()?.parse().ok()?;
        let issued: Ms = parts.next()?.parse().ok()?;
        let epoch: u64 = parts.next()?.parse().ok()?;
        let good = epoch >= self.epoch && now < issued + self.lifetime;
        good.then_some(Download { drive, slot, version })
    }
}
