//! What people write, or paste, for a drive or a folder of one (graph-api 2). Reading it asks nobody.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::model::{DriveId, ItemId};

/// Which drive somebody means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriveSelector {
    /// `me`: the account's own drive.
    Me,
    /// By id.
    Id(DriveId),
    /// `HOST:/sites/NAME[:LIBRARY]`: a document library.
    Site {
        /// Such as `contoso.sharepoint.com`.
        host: String,
        /// Server-relative, such as `/sites/Team`; `/` is the host's root site.
        path: String,
        /// By name; the site's default library if none.
        library: Option<String>,
    },
    /// An address of a site, a library, or a folder in one, as a browser shows it.
    Page {
        /// Such as `contoso.sharepoint.com`.
        host: String,
        /// Server-relative, decoded: site, library, folders.
        path: Vec<String>,
    },
    /// What somebody shares. Who has the link may have access: it is a secret.
    Link(String),
    /// An item of a drive, which a browser's address names by its id.
    Item(DriveId, ItemId),
    /// `user@domain`: that person's drive.
    User(String),
    /// `group:NAME`: the library of a group or team, by its name, mail address or id.
    Group(String),
}

/// A drive, or a folder of it: `DRIVE[:/FOLDER/…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveAddress {
    /// The drive, or what of it an address leads to.
    pub drive: DriveSelector,
    /// Names of folders below that.
    pub below: Vec<String>,
}

/// Why a text names no drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a drive: give `me`, a drive id, an address of the browser, a sharing link, HOST:/sites/NAME[:LIBRARY], \
     USER@DOMAIN or group:NAME"
)]
pub struct BadSelector;

type Result<T> = std::result::Result<T, BadSelector>;

impl From<DriveSelector> for DriveAddress {
    fn from(drive: DriveSelector) -> Self {
        Self { drive, below: Vec::new() }
    }
}

impl FromStr for DriveAddress {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.starts_with("https://") || text.starts_with("http://") {
            return of_browser(text);
        }
        if let Some(rest) = text.strip_prefix("group:") {
            let (name, below) = split_folder(rest)?;
            let is_name = !name.is_empty() && !name.contains(char::is_control);
            return if is_name {
                Ok(Self { drive: DriveSelector::Group(name.into()), below })
            } else {
                Err(BadSelector)
            };
        }
        match text.split_once(':') {
            Some((host, rest)) if is_host(host) && rest.starts_with('/') => of_site(host, rest),
            _ => {
                let (name, below) = split_folder(text)?;
                Ok(Self { drive: of_word(name)?, below })
            }
        }
    }
}

impl DriveAddress {
    /// What may be shown and logged: a sharing link is not.
    pub fn shown(text: &str) -> String {
        match text.parse::<Self>() {
            Ok(Self { drive: DriveSelector::Link(link), .. }) => {
                let host = Url::parse(&link).ok().and_then(|url| url.host_str().map(str::to_owned));
                format!("link at {}", host.unwrap_or_default())
            }
            _ => text.to_owned(),
        }
    }

    /// What it would be called among others.
    pub fn usual_name(&self) -> String {
        if let Some(folder) = self.below.last() {
            return folder.clone();
        }
        match &self.drive {
            DriveSelector::Me => "OneDrive".into(),
            DriveSelector::Id(id) | DriveSelector::Item(id, _) => id.as_str().to_owned(),
            DriveSelector::Site { host, path, library } => {
                let site = path.rsplit('/').next().filter(|part| !part.is_empty()).unwrap_or(host);
                match library {
                    Some(library) => format!("{site} - {library}"),
                    None => site.to_owned(),
                }
            }
            DriveSelector::Page { host, path } => path.last().unwrap_or(host).clone(),
            DriveSelector::Link(_) => "Shared".into(),
            DriveSelector::User(user) => user.clone(),
            DriveSelector::Group(name) => name.clone(),
        }
    }
}

impl fmt::Display for DriveAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.usual_name())
    }
}

fn is_host(text: &str) -> bool {
    text.contains('.') && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

/// `me`, an id, or a person.
fn of_word(text: &str) -> Result<DriveSelector> {
    if text == "me" {
        return Ok(DriveSelector::Me);
    }
    if let Some((person, domain)) = text.split_once('@') {
        let is_person = !person.is_empty()
            && person.bytes().all(|byte| byte.is_ascii_graphic() && !b"/\\:,@".contains(&byte));
        return if is_person && is_host(domain) {
            Ok(DriveSelector::User(text.into()))
        } else {
            Err(BadSelector)
        };
    }
    let is_id =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!-_".contains(&byte));
    if is_id { Ok(DriveSelector::Id(DriveId::new(text))) } else { Err(BadSelector) }
}

/// `/sites/NAME[:LIBRARY][:/FOLDER]` of a host. No library's name holds a slash.
fn of_site(host: &str, rest: &str) -> Result<DriveAddress> {
    let (path, rest) = rest.split_once(':').map_or((rest, None), |(path, rest)| (path, Some(rest)));
    let (library, below) = match rest {
        None => (None, Vec::new()),
        Some(folder) if folder.starts_with('/') => (None, folders(folder)?),
        Some(library) => {
            let (library, below) = split_folder(library)?;
            if library.is_empty() {
                return Err(BadSelector);
            }
            (Some(library.to_owned()), below)
        }
    };
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    Ok(DriveAddress { drive: DriveSelector::Site { host: host.to_owned(), path, library }, below })
}

/// What stands before `:/`, and the folders after it.
fn split_folder(text: &str) -> Result<(&str, Vec<String>)> {
    match text.split_once(":/") {
        Some((drive, folder)) => Ok((drive, folders(folder)?)),
        None => Ok((text, Vec::new())),
    }
}

fn folders(path: &str) -> Result<Vec<String>> {
    let names: Vec<String> = path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.iter().any(|name| name == "." || name == "..") { Err(BadSelector) } else { Ok(names) }
}

/// The address without the `:/FOLDER` that was put after it. `/:f:/` marks a sharing link, and no folder.
fn without_folder(text: &str) -> Result<(&str, Vec<String>)> {
    let is_mark = |at: usize| at >= 3 && text.as_bytes()[at - 3] == b'/' && text.as_bytes()[at - 2] == b':';
    let found = text
        .match_indices(":/")
        .map(|(at, _)| at)
        .find(|at| !text[at + 2..].starts_with('/') && !is_mark(*at));
    match found {
        Some(at) => Ok((&text[..at], folders(&text[at + 2..])?)),
        None => Ok((text, Vec::new())),
    }
}

/// What a browser shows in its address line, or somebody sends as a link.
fn of_browser(text: &str) -> Result<DriveAddress> {
    let (text, below) = without_folder(text)?;
    let url = Url::parse(text).map_err(|_| BadSelector)?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    let Some(host) = url.host_str().filter(|host| is_plain && url.scheme() == "https" && is_host(host))
    else {
        return Err(BadSelector);
    };
    let link = || DriveSelector::Link(text.to_owned());
    let drive = match host {
        "1drv.ms" => link(),
        "onedrive.live.com" => return of_personal(&url, link(), below),
        _ => of_organisation(host, &url, link())?,
    };
    Ok(DriveAddress { drive, below })
}

/// A value of the address, whatever the case of its name.
fn query(url: &Url, wanted: &[&str]) -> Option<String> {
    let is = |name: &str| wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted));
    url.query_pairs().find(|(name, value)| is(name) && !value.is_empty()).map(|(_, value)| value.into_owned())
}

/// `https://onedrive.live.com/?id=…&cid=…` (graph-api 3.7: the id of an item begins with that of its drive).
fn of_personal(url: &Url, link: DriveSelector, below: Vec<String>) -> Result<DriveAddress> {
    if query(url, &["authkey", "redeem"]).is_some() {
        return Ok(DriveAddress { drive: link, below });
    }
    let item = query(url, &["id", "resid"]);
    let cid = query(url, &["cid"]);
    let drive = match (item, cid) {
        (Some(path), _) if path.starts_with('/') => {
            // /personal/CID/Documents/…
            let mut path = folders(&path)?.into_iter();
            let drive = path.nth(1).ok_or(BadSelector)?;
            let below = path.skip(1).chain(below).collect();
            return Ok(DriveAddress { drive: of_id(&drive)?, below });
        }
        (Some(item), cid) if item.contains('!') => {
            let of_item = item.split('!').next().unwrap_or_default().to_owned();
            DriveSelector::Item(DriveId::new(cid.unwrap_or(of_item)), ItemId::new(item))
        }
        (_, Some(cid)) => of_id(&cid)?,
        (Some(_), None) => return Err(BadSelector),
        (None, None) if url.path() == "/" => DriveSelector::Me,
        (None, None) => link,
    };
    Ok(DriveAddress { drive, below })
}

fn of_id(text: &str) -> Result<DriveSelector> {
    match of_word(text)? {
        id @ DriveSelector::Id(_) => Ok(id),
        _ => Err(BadSelector),
    }
}

/// OneDrive of an organisation, and SharePoint.
fn of_organisation(host: &str, url: &Url, link: DriveSelector) -> Result<DriveSelector> {
    let decoded = |part: &str| percent_decode_str(part).decode_utf8().map(|text| text.into_owned());
    let parts = url.path_segments().into_iter().flatten().filter(|part| !part.is_empty());
    let mut parts: Vec<String> =
        parts.map(decoded).collect::<std::result::Result<_, _>>().map_err(|_| BadSelector)?;
    let page = |path: Vec<String>| DriveSelector::Page { host: host.to_owned(), path };
    if let [mark, kind, ..] = parts.as_slice()
        && mark.starts_with(':')
        && mark.ends_with(':')
    {
        // `/:f:/r/` leads to the path that follows; all others are what somebody shares.
        return Ok(if kind == "r" { page(parts.split_off(2)) } else { link });
    }
    if let Some(path) = query(url, &["id", "RootFolder"]).filter(|path| path.starts_with('/')) {
        return Ok(page(folders(&path)?));
    }
    let is = |part: &String, word: &str| part.eq_ignore_ascii_case(word);
    let ends_page = parts.last().is_some_and(|last| last.to_ascii_lowercase().ends_with(".aspx"));
    if let Some(at) = parts.iter().position(|part| is(part, "_layouts")) {
        let is_drive = parts.last().is_some_and(|last| is(last, "onedrive.aspx"));
        parts.truncate(at);
        return Ok(if is_drive { own_or(page(parts), host) } else { link });
    }
    if ends_page {
        let at = parts.iter().rposition(|part| is(part, "Forms") || is(part, "SitePages"));
        parts.truncate(at.ok_or(BadSelector)?);
    }
    if matches!(parts.as_slice(), [one] if is(one, "my")) {
        parts.clear();
    }
    Ok(own_or(page(parts), host))
}

/// The start page of OneDrive for an organisation shows who looks their own drive.
fn own_or(page: DriveSelector, host: &str) -> DriveSelector {
    match &page {
        DriveSelector::Page { path, .. } if path.is_empty() && host.contains("-my.") => DriveSelector::Me,
        _ => page,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> DriveAddress {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    fn page(host: &str, path: &str) -> DriveSelector {
        let path = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        DriveSelector::Page { host: host.into(), path }
    }

    const TEAM: &str = "contoso.sharepoint.com";
    const MY: &str = "contoso-my.sharepoint.com";

    // S286.
    #[test]
    fn a_drive_is_me_an_id_a_person_a_group_or_a_library_of_a_site() {
        let site = |path: &str, library: Option<&str>| DriveSelector::Site {
            host: TEAM.into(),
            path: path.into(),
            library: library.map(str::to_owned),
        };
        let id = |text: &str| DriveSelector::Id(DriveId::new(text));
        for (text, drive, below) in [
            ("me", DriveSelector::Me, ""),
            ("me:/Documents/My Work", DriveSelector::Me, "Documents/My Work"),
            ("me:/", DriveSelector::Me, ""),
            ("b!AbC-_9", id("b!AbC-_9"), ""),
            ("2f9d11c0a1b2c3d4:/a:b", id("2f9d11c0a1b2c3d4"), "a:b"),
            ("contoso.sharepoint.com:/sites/Team A", site("/sites/Team A", None), ""),
            ("contoso.sharepoint.com:/sites/Team/:Shared Docs", site("/sites/Team", Some("Shared Docs")), ""),
            ("contoso.sharepoint.com:/sites/Team:Docs:/a/b", site("/sites/Team", Some("Docs")), "a/b"),
            ("contoso.sharepoint.com:/sites/Team:/a/b", site("/sites/Team", None), "a/b"),
            ("contoso.sharepoint.com:/", site("/", None), ""),
            ("ann@contoso.com", DriveSelector::User("ann@contoso.com".into()), ""),
            ("ann_x.com#EXT#@contoso.com:/A", DriveSelector::User("ann_x.com#EXT#@contoso.com".into()), "A"),
            ("group:Sales & Co", DriveSelector::Group("Sales & Co".into()), ""),
            ("group:sales@contoso.com:/2026", DriveSelector::Group("sales@contoso.com".into()), "2026"),
        ] {
            let found = read(text);
            assert_eq!((&found.drive, found.below.join("/").as_str()), (&drive, below), "{text}");
        }
        for bad in [
            "",
            "a b",
            "../x",
            "contoso.sharepoint.com:sites/x",
            "a.b:/sites/x:",
            "me:/../x",
            "@contoso.com",
            "ann@contoso",
            "group:",
            "x:y",
            "https://",
            "https://a b/c",
            "https://ann:pw@a.b/c",
            "http://contoso.sharepoint.com/sites/Team",
            "https://contoso.sharepoint.com/sites/Team/odd.aspx",
        ] {
            assert_eq!(bad.parse::<DriveAddress>(), Err(BadSelector), "{bad}");
        }
    }

    // S286.
    #[test]
    fn an_address_of_the_browser_is_a_site_a_library_or_a_folder() {
        for (text, drive, below) in [
            ("https://contoso.sharepoint.com/sites/Team", page(TEAM, "sites/Team"), ""),
            ("https://contoso.sharepoint.com/sites/Team/", page(TEAM, "sites/Team"), ""),
            ("https://contoso.sharepoint.com/sites/Team/SitePages/Home.aspx", page(TEAM, "sites/Team"), ""),
            ("https://contoso.sharepoint.com", page(TEAM, ""), ""),
            (
                "https://contoso.sharepoint.com/sites/Team/Shared%20Documents/a%26b",
                page(TEAM, "sites/Team/Shared Documents/a&b"),
                "",
            ),
            (
                "https://contoso.sharepoint.com/sites/Team/Plans:/2026/Q1",
                page(TEAM, "sites/Team/Plans"),
                "2026/Q1",
            ),
            (
                "https://contoso.sharepoint.com/sites/Team/Plans/Forms/AllItems.aspx",
                page(TEAM, "sites/Team/Plans"),
                "",
            ),
            (
                "https://contoso.sharepoint.com/sites/Team/Shared%20Documents/Forms/AllItems.aspx?id=%2Fsites%2FTeam%2FShared%20Documents%2FGeneral&viewid=1",
                page(TEAM, "sites/Team/Shared Documents/General"),
                "",
            ),
            (
                "https://contoso.sharepoint.com/sites/Team/Plans/Forms/AllItems.aspx?RootFolder=%2Fsites%2FTeam%2FPlans%2F2026&FolderCTID=0x1",
                page(TEAM, "sites/Team/Plans/2026"),
                "",
            ),
            (
                "https://contoso-my.sharepoint.com/personal/ann_contoso_com/_layouts/15/onedrive.aspx?id=%2Fpersonal%2Fann%5Fcontoso%5Fcom%2FDocuments%2FWork&ga=1",
                page(MY, "personal/ann_contoso_com/Documents/Work"),
                "",
            ),
            (
                "https://contoso-my.sharepoint.com/personal/ann_contoso_com/_layouts/15/onedrive.aspx",
                page(MY, "personal/ann_contoso_com"),
                "",
            ),
            (
                "https://contoso-my.sharepoint.com/my?id=%2Fpersonal%2Fann%2FDocuments",
                page(MY, "personal/ann/Documents"),
                "",
            ),
            ("https://contoso-my.sharepoint.com/my", DriveSelector::Me, ""),
            ("https://contoso-my.sharepoint.com/", DriveSelector::Me, ""),
            (
                "https://contoso.sharepoint.com/:f:/r/sites/Team/Plans/2026?csf=1&web=1",
                page(TEAM, "sites/Team/Plans/2026"),
                "",
            ),
            ("https://onedrive.live.com/", DriveSelector::Me, ""),
            (
                "https://onedrive.live.com/?id=2F9D11C0A1B2C3D4%21107&cid=2F9D11C0A1B2C3D4",
                DriveSelector::Item(DriveId::new("2F9D11C0A1B2C3D4"), ItemId::new("2F9D11C0A1B2C3D4!107")),
                "",
            ),
            (
                "https://onedrive.live.com/?id=root&cid=2f9d11c0a1b2c3d4",
                DriveSelector::Id(DriveId::new("2f9d11c0a1b2c3d4")),
                "",
            ),
            (
                "https://onedrive.live.com/?id=%2Fpersonal%2F2f9d11c0a1b2c3d4%2FDocuments%2FA:/B",
                DriveSelector::Id(DriveId::new("2f9d11c0a1b2c3d4")),
                "A/B",
            ),
        ] {
            let found = read(text);
            assert_eq!((&found.drive, found.below.join("/").as_str()), (&drive, below), "{text}");
        }
    }

    // S286, S289.
    #[test]
    fn a_sharing_link_is_kept_whole_and_shown_to_nobody() {
        for (text, link, below) in [
            ("https://1drv.ms/f/s!AbC", "https://1drv.ms/f/s!AbC", ""),
            ("https://1drv.ms/f/s!AbC:/In/it", "https://1drv.ms/f/s!AbC", "In/it"),
            (
                "https://contoso.sharepoint.com/:f:/s/Team/Eabc?e=x1",
                "https://contoso.sharepoint.com/:f:/s/Team/Eabc?e=x1",
                "",
            ),
            (
                "https://contoso.sharepoint.com/:f:/s/Team/Eabc?e=x1:/a",
                "https://contoso.sharepoint.com/:f:/s/Team/Eabc?e=x1",
                "a",
            ),
            (
                "https://onedrive.live.com/?authkey=x&id=1%212",
                "https://onedrive.live.com/?authkey=x&id=1%212",
                "",
            ),
            (
                "https://contoso.sharepoint.com/sites/Team/_layouts/15/guestaccess.aspx?share=Eabc",
                "https://contoso.sharepoint.com/sites/Team/_layouts/15/guestaccess.aspx?share=Eabc",
                "",
            ),
        ] {
            let found = read(text);
            assert_eq!(
                (&found.drive, found.below.join("/").as_str()),
                (&DriveSelector::Link(link.into()), below),
                "{text}"
            );
            assert!(DriveAddress::shown(text).starts_with("link at "), "{text}");
            assert!(!found.usual_name().contains("Eabc"));
        }
        assert_eq!(DriveAddress::shown("me:/A"), "me:/A");
    }
}
