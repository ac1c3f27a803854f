//! Addresses: building them from ids and names, escaping (graph-api 4.2), and which may be spoken to.
//!
//! Items are addressed by id, children by the id of their parent and one name; never by a path, which breaks
//! when it is deep or its parts are renamed (graph-api 4.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::error::{GraphError, Ids};
use crate::model::{DriveId, ItemId};

/// Everything but RFC 3986 `unreserved` and `!`, which ids contain.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'!');

/// The root of all addresses of Graph itself: `{graph url}/v1.0`.
#[derive(Clone)]
pub struct Root {
    base: Url,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Root({})", self.base.host_str().unwrap_or("?"))
    }
}

impl Root {
    /// `graph_url` is the root without `/v1.0`.
    pub fn new(graph_url: &Url) -> Result<Self, GraphError> {
        check_encrypted(graph_url)?;
        let text = format!("{}/v1.0", graph_url.as_str().trim_end_matches('/'));
        match Url::parse(&text) {
            Ok(base) if graph_url.query().is_none() && graph_url.fragment().is_none() => Ok(Self { base }),
            _ => Err(GraphError::Configuration { what: "the Graph address has no plain path".into() }),
        }
    }

    /// The address of `path`, which is escaped already and begins with `/`.
    pub fn at(&self, path: &str) -> Result<Url, GraphError> {
        Url::parse(&format!("{}{path}", self.base))
            .map_err(|_| protocol("an address could not be built from the service's ids"))
    }

    /// Refuses addresses of any other service: the account's token must not go there.
    pub fn require_same_service(&self, url: &Url) -> Result<(), GraphError> {
        if url.origin() == self.base.origin() {
            return Ok(());
        }
        Err(protocol("a link to another service"))
    }
}

/// `/drives/{drive}`
pub fn drive(drive: &DriveId) -> Result<String, GraphError> {
    Ok(format!("/drives/{}", id(drive.as_str())?))
}

/// `/drives/{drive}/items/{item}`
pub fn item(of: &DriveId, item: &ItemId) -> Result<String, GraphError> {
    Ok(format!("{}/items/{}", drive(of)?, id(item.as_str())?))
}

/// `/drives/{drive}/items/{parent}:/{name}`: follow it with `:/` and an operation, or with nothing.
pub fn child(of: &DriveId, parent: &ItemId, name: &str) -> Result<String, GraphError> {
    Ok(format!("{}:/{}", item(of, parent)?, segment(name)?))
}

/// One path segment that is a name. Refuses names that cannot be addressed at all.
pub fn segment(name: &str) -> Result<String, GraphError> {
    // Addresses are normalised on the way: a dot segment would climb to another item.
    if matches!(name, "" | "." | "..") {
        return Err(GraphError::NameRefused { ids: Ids::default() });
    }
    Ok(escape(name))
}

/// A query value.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A sharing link as `/shares` takes it (graph-api 2.6).
pub fn share(link: &str) -> String {
    format!("u!{}", URL_SAFE_NO_PAD.encode(link))
}

/// The names in the path of an address.
pub fn decoded_segments(url: &Url) -> Option<Vec<String>> {
    let parts = url.path_segments()?.filter(|part| !part.is_empty());
    parts.map(|part| Some(percent_decode_str(part).decode_utf8().ok()?.into_owned())).collect()
}

fn id(raw: &str) -> Result<String, GraphError> {
    segment(raw).map_err(|_| protocol("an id is not an id"))
}

fn protocol(what: &'static str) -> GraphError {
    GraphError::Protocol { what, executed: false, ids: Ids::default() }
}

/// Refuses plain http except to this machine.
pub fn check_encrypted(url: &Url) -> Result<(), GraphError> {
    match url.scheme() {
        "https" => Ok(()),
        "http" if url.host_str().is_some_and(is_loopback) => Ok(()),
        _ => Err(GraphError::InsecureUrl),
    }
}

/// `localhost`, 127.0.0.0/8 or ::1.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// 169.254.0.0/16: this machine's own surroundings, such as a cloud's metadata service.
pub fn is_link_local(host: &str) -> bool {
    host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("an address")
    }

    #[test]
    fn plain_http_is_refused_except_to_this_machine() {
        for good in
            ["https://graph.microsoft.com", "http://localhost:80", "http://127.0.0.9:1", "http://[::1]:1/x"]
        {
            assert!(Root::new(&url(good)).is_ok(), "{good}");
        }
        for bad in [
            "http://graph.microsoft.com",
            "http://localhost.example.com",
            "http://10.0.0.1",
            "ftp://localhost",
        ] {
            assert!(matches!(Root::new(&url(bad)), Err(GraphError::InsecureUrl)), "{bad}");
        }
    }

    #[test]
    fn names_are_escaped_so_that_none_can_leave_its_segment() {
        let cases = [
            ("report 1.txt", "report%201.txt"),
            ("50% #1+2=3;a&b'c", "50%25%20%231%2B2%3D3%3Ba%26b%27c"),
            ("a/b", "a%2Fb"),
            ("häß", "h%C3%A4%C3%9F"),
            ("%41", "%2541"),
            ("x!y~z_-.", "x!y~z_-."),
            ("..a", "..a"),
        ];
        for (name, expected) in cases {
            assert_eq!(segment(name).expect("a name"), expected);
        }
        for name in ["", ".", ".."] {
            assert!(matches!(segment(name), Err(GraphError::NameRefused { .. })));
        }
    }

    #[test]
    fn addresses_stand_under_the_version_and_keep_a_path_prefix() {
        for (given, expected) in [
            ("https://graph.microsoft.com", "https://graph.microsoft.com/v1.0/drives/b!x/items/01A:/a%20b"),
            ("http://127.0.0.1:8080/fake/", "http://127.0.0.1:8080/fake/v1.0/drives/b!x/items/01A:/a%20b"),
        ] {
            let root = Root::new(&url(given)).expect("root");
            let path = child(&DriveId::new("b!x"), &ItemId::new("01A"), "a b").expect("path");
            assert_eq!(root.at(&path).expect("address").as_str(), expected);
        }
    }

    #[test]
    fn a_sharing_link_is_named_as_the_service_documents_it() {
        let link = "https://contoso.sharepoint.com/:f:/s/Team/Eabc?e=x1";
        assert_eq!(share(link), "u!aHR0cHM6Ly9jb250b3NvLnNoYXJlcG9pbnQuY29tLzpmOi9zL1RlYW0vRWFiYz9lPXgx");
    }

    #[test]
    fn the_token_belongs_to_one_origin() {
        let root = Root::new(&url("https://graph.microsoft.com")).expect("root");
        assert!(root.require_same_service(&url("https://graph.microsoft.com/v1.0/x?y")).is_ok());
        for other in [
            "https://graph.microsoft.com:444/",
            "http://graph.microsoft.com/",
            "https://graph.microsoft.com.evil.example/",
        ] {
            assert!(root.require_same_service(&url(other)).is_err(), "{other}");
        }
    }
}
