//! Reads Graph paths: which drive, which item, and what follows (graph-api 2.1, 4.1, 4.2).

use percent_encoding::percent_decode_str;

use super::error::{ApiError, ApiResult};

/// Path addressing breaks beyond about this many levels (graph-api 4.1).
pub(crate) const MAX_PATH_LEVELS: usize = 26;

/// The part of a path that names a drive or a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    MyDrive,
    MyDrives,
    Drives,
    Drive(String),
    UserDrive(String),
    UserDrives(String),
    GroupDrive(String),
    GroupDrives(String),
    Groups,
    Sites,
    Site(SiteAddr),
    SiteDrive(SiteAddr),
    SiteDrives(SiteAddr),
    Shared(String),
    FollowedSites,
    Me,
    Batch,
    Subscriptions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SiteAddr {
    Id(String),
    /// Host and server-relative path.
    Path(String, Vec<String>),
}

/// How an item is named below a drive (graph-api 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ItemAddr {
    pub(crate) start: Start,
    /// Names below `start`, decoded.
    pub(crate) path: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    Root,
    Id(String),
    Special(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) base: Base,
    pub(crate) item: Option<ItemAddr>,
    /// Decoded segments after the item or the base.
    pub(crate) tail: Vec<String>,
}

struct Segments<'a> {
    rest: std::iter::Peekable<std::vec::IntoIter<&'a str>>,
}

/// Cuts at slashes, but not within the quoted argument of a function.
fn split(path: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut rest = path;
    loop {
        let is_call = |name: &str| {
            let name = name.strip_prefix("microsoft.graph.").unwrap_or(name);
            matches!(name, "getByPath" | "search" | "delta" | "children")
        };
        let quoted = rest.split_once('(').is_some_and(|(name, _)| is_call(name));
        let from = if quoted { rest.find("')").unwrap_or(0) } else { 0 };
        match rest[from..].find('/') {
            Some(at) => {
                all.push(&rest[..from + at]);
                rest = &rest[from + at + 1..];
            }
            None => {
                all.push(rest);
                return all;
            }
        }
    }
}

impl<'a> Segments<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.rest.next().filter(|s| !s.is_empty())
    }

    fn decoded(&mut self) -> ApiResult<String> {
        decode(self.next().ok_or_else(ApiError::no_route)?)
    }

    /// The names of a `:/a/b:` part whose first colon has been read.
    fn names(&mut self) -> ApiResult<Vec<String>> {
        let mut names = Vec::new();
        while let Some(raw) = self.next() {
            let (raw, last) = match raw.strip_suffix(':') {
                Some(name) => (name, true),
                None => (raw, false),
            };
            if raw.is_empty() || raw.contains(':') {
                return Err(ApiError::invalid("The path is malformed.").inner("invalidPath"));
            }
            names.push(decode(raw)?);
            if last {
                break;
            }
        }
        Ok(names)
    }
}

pub(crate) fn decode(raw: &str) -> ApiResult<String> {
    let text = percent_decode_str(raw).decode_utf8();
    text.map(std::borrow::Cow::into_owned).map_err(|_| ApiError::invalid("The URL is not valid UTF-8."))
}

/// Parses what follows `/v1.0`, percent-encoded.
pub(crate) fn parse(path: &str) -> ApiResult<Route> {
    let mut s = Segments { rest: split(path.trim_start_matches('/')).into_iter().peekable() };
    let base = base(&mut s)?;
    let takes_item = matches!(
        base,
        Base::MyDrive | Base::Drive(_) | Base::UserDrive(_) | Base::GroupDrive(_) | Base::SiteDrive(_)
    );
    let item = if takes_item { item(&mut s)? } else { None };
    let mut tail = Vec::new();
    while let Some(raw) = s.next() {
        tail.push(decode(raw)?);
    }
    if s.rest.next().is_some() {
        return Err(ApiError::no_route());
    }
    Ok(child_in_tail(Route { base, item, tail }))
}

fn base(s: &mut Segments<'_>) -> ApiResult<Base> {
    let first = s.next().ok_or_else(ApiError::no_route)?;
    Ok(match first {
        "me" => match s.rest.peek().copied().unwrap_or_default() {
            "drive" => {
                s.next();
                Base::MyDrive
            }
            "drives" => {
                s.next();
                drive_or(s, Base::MyDrives)?
            }
            "followedSites" => {
                s.next();
                Base::FollowedSites
            }
            _ => Base::Me,
        },
        "drives" => drive_or(s, Base::Drives)?,
        "groups" if s.rest.peek().is_none_or(|next| next.is_empty()) => Base::Groups,
        "users" | "groups" => {
            let owner = s.decoded()?;
            let user = first == "users";
            match s.next() {
                Some("drive") => {
                    if user {
                        Base::UserDrive(owner)
                    } else {
                        Base::GroupDrive(owner)
                    }
                }
                Some("drives") => {
                    drive_or(s, if user { Base::UserDrives(owner) } else { Base::GroupDrives(owner) })?
                }
                _ => return Err(ApiError::no_route()),
            }
        }
        "sites" => return sites(s),
        "shares" => Base::Shared(s.decoded()?),
        "$batch" => Base::Batch,
        "subscriptions" => Base::Subscriptions,
        _ => return Err(ApiError::no_route()),
    })
}

fn drive_or(s: &mut Segments<'_>, collection: Base) -> ApiResult<Base> {
    match s.next() {
        Some(id) => Ok(Base::Drive(decode(id)?)),
        None => Ok(collection),
    }
}

/// `/sites/{id}`, `/sites/{host}:/{path}` and `/sites/{id}/getByPath(path='..')` (graph-api 2.4).
fn sites(s: &mut Segments<'_>) -> ApiResult<Base> {
    let Some(first) = s.next() else { return Ok(Base::Sites) };
    let mut site = match first.strip_suffix(':') {
        Some(host) => SiteAddr::Path(decode(host)?, s.names()?),
        None => SiteAddr::Id(decode(first)?),
    };
    let next = s.rest.peek().copied().unwrap_or_default();
    if let Some((name, args)) = function(&decode(next)?)
        && name == "getByPath"
    {
        s.next();
        let path = args.get("path").cloned().unwrap_or_default();
        let SiteAddr::Id(host) = site else { return Err(ApiError::no_route()) };
        let host = host.split(',').next().unwrap_or_default().to_owned();
        site = SiteAddr::Path(host, path.split('/').filter(|p| !p.is_empty()).map(Into::into).collect());
    }
    Ok(match s.rest.peek().copied().unwrap_or_default() {
        "drive" => {
            s.next();
            Base::SiteDrive(site)
        }
        "drives" => {
            s.next();
            drive_or(s, Base::SiteDrives(site))?
        }
        _ => Base::Site(site),
    })
}

/// `root`, `root:/a/b:`, `items/{id}`, `items/{id}:/a:`, `special/{name}` (graph-api 4.1).
fn item(s: &mut Segments<'_>) -> ApiResult<Option<ItemAddr>> {
    let head = s.rest.peek().copied().unwrap_or_default();
    let (start, has_path) = match head {
        "root" | "root:" => {
            s.next();
            (Start::Root, head == "root:")
        }
        "items" | "special" => {
            let mut ahead = s.rest.clone().skip(1).filter(|next| !next.is_empty());
            if ahead.next().is_none() {
                return Ok(None);
            }
            s.next();
            let raw = s.next().unwrap_or_default();
            let (raw, has_path) = match raw.strip_suffix(':') {
                Some(raw) => (raw, true),
                None => (raw, false),
            };
            let id = decode(raw)?;
            let start = match (head, id.as_str()) {
                ("special", _) => Start::Special(id),
                (_, "root") => Start::Root,
                _ => Start::Id(id),
            };
            (start, has_path)
        }
        _ => return Ok(None),
    };
    // `items/{id}:/` is the item itself: rclone's directory move asks so.
    let slash_ends = s.rest.peek() == Some(&"") && s.rest.len() == 1 && head == "items";
    let path = if has_path { s.names()? } else { Vec::new() };
    if has_path && path.is_empty() && !slash_ends {
        return Err(ApiError::invalid("The path is empty.").inner("invalidPath"));
    }
    if path.len() > MAX_PATH_LEVELS {
        return Err(ApiError::new(404, "UnknownError", "The resource you are looking for has been removed."));
    }
    Ok(Some(ItemAddr { start, path }))
}

/// `children('{name}')` and `children/{id or name}` name an item too.
fn child_in_tail(mut route: Route) -> Route {
    let Some(item) = &mut route.item else { return route };
    while let Some(first) = route.tail.first() {
        if let Some((name, args)) = function(first)
            && name == "children"
            && let Some(child) = args.get("")
        {
            item.path.push(child.clone());
            route.tail.remove(0);
        } else if first == "children" && route.tail.len() > 1 {
            // Ids and names do not look alike; the lookup tries both.
            item.path.push(route.tail[1].clone());
            route.tail.drain(..2);
        } else {
            break;
        }
    }
    route
}

/// `name(arg='value',..)`: the name without its namespace, and the arguments with `''` undone.
/// A single unnamed argument has the empty key.
pub(crate) fn function(segment: &str) -> Option<(&str, std::collections::BTreeMap<String, String>)> {
    let (name, rest) = segment.split_once('(')?;
    let inner = rest.strip_suffix(')')?;
    let name = name.strip_prefix("microsoft.graph.").unwrap_or(name);
    let mut args = std::collections::BTreeMap::new();
    let mut rest = inner;
    while !rest.is_empty() {
        let quote = rest.find('\'')?;
        let key = rest[..quote].trim_matches([',', ' ']).trim_end_matches('=').to_owned();
        let mut value = String::new();
        let mut chars = rest[quote + 1..].char_indices().peekable();
        let mut end = None;
        while let Some((at, c)) = chars.next() {
            if c != '\'' {
                value.push(c);
            } else if chars.peek().is_some_and(|(_, c)| *c == '\'') {
                chars.next();
                value.push('\'');
            } else {
                end = Some(quote + 1 + at + 1);
                break;
            }
        }
        args.insert(key, value);
        rest = &rest[end?..];
    }
    Some((name, args))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str) -> (Start, Vec<String>, Vec<String>) {
        let r = parse(path).unwrap();
        let i = r.item.unwrap();
        (i.start, i.path, r.tail)
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn every_form_of_item_address_is_understood() {
        let id = || Start::Id("X!1".into());
        for (path, want) in [
            ("/me/drive/root", (Start::Root, list(&[]), list(&[]))),
            ("/drives/d/items/root/children", (Start::Root, list(&[]), list(&["children"]))),
            ("/drives/d/root:/A/B%20c.txt", (Start::Root, list(&["A", "B c.txt"]), list(&[]))),
            ("/drives/d/root:/A/B.txt:/content", (Start::Root, list(&["A", "B.txt"]), list(&["content"]))),
            ("/drives/d/root:/A/B.txt:", (Start::Root, list(&["A", "B.txt"]), list(&[]))),
            ("/drives/d/items/X!1", (id(), list(&[]), list(&[]))),
            ("/drives/d/items/X!1:/", (id(), list(&[]), list(&[]))),
            (
                "/drives/d/items/X%211:/n+m:/createUploadSession",
                (id(), list(&["n+m"]), list(&["createUploadSession"])),
            ),
            ("/drives/d/items/X!1/children('it''s')/content", (id(), list(&["it's"]), list(&["content"]))),
            ("/drives/d/items/X!1/children/Y/content", (id(), list(&["Y"]), list(&["content"]))),
            (
                "/drives/d/special/documents:/x:/content",
                (Start::Special("documents".into()), list(&["x"]), list(&["content"])),
            ),
        ] {
            assert_eq!(item(path), want, "{path}");
        }
    }

    #[test]
    fn sites_are_found_by_id_by_path_and_by_function() {
        let by_path = SiteAddr::Path("h".into(), list(&["sites", "Team A"]));
        assert_eq!(parse("/sites/h:/sites/Team%20A").unwrap().base, Base::Site(by_path.clone()));
        assert_eq!(
            parse("/sites/h:/sites/Team%20A:/drives").unwrap().base,
            Base::SiteDrives(by_path.clone())
        );
        assert_eq!(
            parse("/sites/h/getByPath(path='/sites/Team A')/drive").unwrap().base,
            Base::SiteDrive(by_path)
        );
        assert_eq!(parse("/sites/a,b,c").unwrap().base, Base::Site(SiteAddr::Id("a,b,c".into())));
    }

    #[test]
    fn empty_and_overlong_paths_are_refused() {
        assert_eq!(parse("/me/drive/root:/").unwrap_err().status, 400);
        assert_eq!(parse("/me/drive/root:/:/children").unwrap_err().status, 400);
        let deep = format!("/me/drive/root:{}", "/x".repeat(MAX_PATH_LEVELS + 1));
        assert_eq!(parse(&deep).unwrap_err().code, "UnknownError");
        assert!(parse("/nowhere").is_err());
    }

    #[test]
    fn functions_give_their_arguments() {
        let (name, args) = function("delta(token='a''b')").unwrap();
        assert_eq!((name, args["token"].as_str()), ("delta", "a'b"));
        assert_eq!(function("microsoft.graph.delta()").unwrap().0, "delta");
        assert_eq!(function("children"), None);
    }
}
