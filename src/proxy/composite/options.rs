//! What the portal's settings say of stored pages. Pure.

use std::collections::BTreeMap;

use super::php_array::{self, Value};

const NAME: &str = "arHTMLPagesOptions";

/// Values that hold where the file says nothing: the portal's own.
const INCLUDE: &str = "/*";
const EXCLUDE: &str = "/bitrix/*; /404.php; ";
const IGNORED: &str = "utm_source; utm_medium; utm_campaign; utm_content; fb_action_ids; utm_term; yclid; gclid; _openstat; from; \
                       referrer1; r1; referrer2; r2; referrer3; r3; ";
const EXCLUDED_PARAMETERS: &str = "ncc; ";
const ONLY_PARAMETERS: &str = "id; ELEMENT_ID; SECTION_ID; PAGEN_1; ";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Hosts whose pages are stored, as browsers name them, without the ports 80 and 443.
    pub domains: Vec<String>,
    pub storage: Storage,
    /// Masks with `*` and `?`, of a path as the client wrote it.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// A request with one of these goes to PHP.
    pub excluded_parameters: Vec<String>,
    /// Not part of a page's name.
    pub ignored_parameters: Vec<String>,
    /// `Some`: a request with any other one goes to PHP.
    pub only_parameters: Option<Vec<String>>,
    pub cookies: Cookies,
}

/// Where the pages lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    Files,
    /// In memcached, at this host and port where the portal says so; else where the operator's composite door is.
    Cache(Option<(String, u16)>),
}

/// Names of the cookies that decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookies {
    /// The browser knows user and password.
    pub login: String,
    pub pass: String,
    /// No stored pages.
    pub ncc: String,
    /// Stored pages although it knows them.
    pub cc: String,
    /// Which pages: users of some groups have their own.
    pub private_key: String,
}

/// Why no page is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// The file is more than an array of texts.
    Unreadable,
    /// The portal stores no pages, or in a way that is PHP's own business.
    NotWanted,
}

impl Options {
    /// Reads the portal's `.config.php`.
    pub fn read(source: &str) -> Result<Self, Off> {
        let read = php_array::parse(source, NAME).ok_or(Off::Unreadable)?;
        let text = |key: &str, other: &str| text(&read, key).unwrap_or_else(|| other.to_string());
        let is_set = |key: &str| !matches!(text(key, "").as_str(), "" | "0" | "N");
        let is_wanted = text("COMPOSITE", "Y") == "Y" && !is_set("SPA_MODE");
        let storage = match text("STORAGE", "files").as_str() {
            "files" => Storage::Files,
            // A list of servers that the portal keeps elsewhere; what it says of one server is not about them.
            "memcached_cluster" => Storage::Cache(None),
            "memcached" => Storage::Cache(match text("MEMCACHED_HOST", "") {
                host if host.is_empty() => None,
                host => Some((
                    host,
                    text("MEMCACHED_PORT", "11211").parse().map_err(|_| Off::NotWanted)?,
                )),
            }),
            _ => return Err(Off::NotWanted),
        };
        let domains = read.get("DOMAINS").map(Value::texts).unwrap_or_default();
        if !is_wanted || domains.is_empty() {
            return Err(Off::NotWanted);
        }
        let are_bound = is_set("NO_PARAMETERS") || is_set("INDEX_ONLY");
        let cookie = |key: &str, end: &str| match text(key, "") {
            name if name.is_empty() => format!("BITRIX_SM_{end}"),
            name => name,
        };
        Ok(Options {
            storage,
            domains: domains
                .iter()
                .map(|domain| bare_host(domain).to_ascii_lowercase())
                .collect(),
            include: list(&text("INCLUDE_MASK", INCLUDE).replace('\\', "/")),
            exclude: list(&text("EXCLUDE_MASK", EXCLUDE).replace('\\', "/")),
            excluded_parameters: list(&text("EXCLUDE_PARAMS", EXCLUDED_PARAMETERS)),
            ignored_parameters: list(&text("IGNORED_PARAMETERS", IGNORED)),
            only_parameters: are_bound.then(|| list(&text("ONLY_PARAMETERS", ONLY_PARAMETERS))),
            cookies: Cookies {
                login: cookie("COOKIE_LOGIN", "LOGIN"),
                pass: cookie("COOKIE_PASS", "UIDH"),
                ncc: cookie("COOKIE_NCC", "NCC"),
                cc: cookie("COOKIE_CC", "CC"),
                private_key: cookie("COOKIE_PK", "PK"),
            },
        })
    }
}

/// A host without the ports that a browser leaves out.
pub fn bare_host(host: &str) -> &str {
    let bare = host.strip_suffix(":80").or_else(|| host.strip_suffix(":443"));
    bare.unwrap_or(host)
}

fn text(read: &BTreeMap<String, Value>, key: &str) -> Option<String> {
    match read.get(key)? {
        Value::Text(text) => Some(text.clone()),
        Value::Array(_) => None,
    }
}

fn list(text: &str) -> Vec<String> {
    let items = text.split(';').map(str::trim).filter(|item| !item.is_empty());
    items.map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(items: &str) -> Result<Options, Off> {
        Options::read(&format!("<?\n$arHTMLPagesOptions = array({items});\n?>"))
    }

    const DOMAINS: &str = "\"DOMAINS\" => array(\"s1\" => \"Portal.example:80\", \"s2\" => \"shop.example:8080\")";

    #[test]
    fn missing_settings_are_the_portals_defaults() {
        let options = read(DOMAINS).expect("on");
        assert_eq!(options.domains, ["portal.example", "shop.example:8080"]);
        assert_eq!(
            (options.include, options.exclude),
            (vec!["/*".into()], vec!["/bitrix/*".into(), "/404.php".into()])
        );
        assert_eq!(options.only_parameters, None);
        assert_eq!(options.ignored_parameters.len(), 16);
        assert_eq!(options.cookies.ncc, "BITRIX_SM_NCC");
        let own = read(&format!(
            "{DOMAINS}, \"COOKIE_NCC\" => \"X_NCC\", \"NO_PARAMETERS\" => \"Y\""
        ))
        .expect("on");
        assert_eq!(own.cookies.ncc, "X_NCC");
        assert_eq!(own.only_parameters.map(|all| all.len()), Some(4));
    }

    #[test]
    fn pages_that_lie_elsewhere_are_phps_business() {
        for more in [
            "\"STORAGE\" => \"redis\"",
            "\"STORAGE\" => \"memcached\", \"MEMCACHED_HOST\" => \"a\", \"MEMCACHED_PORT\" => \"x\"",
            "\"COMPOSITE\" => \"N\"",
            "\"SPA_MODE\" => \"Y\"",
        ] {
            assert_eq!(read(&format!("{DOMAINS}, {more}")), Err(Off::NotWanted), "{more}");
        }
        let of = |more: &str| read(&format!("{DOMAINS}, {more}")).map(|options| options.storage);
        assert_eq!(read(DOMAINS).map(|options| options.storage), Ok(Storage::Files));
        for (more, place) in [
            ("\"STORAGE\" => \"memcached_cluster\"", None),
            ("\"STORAGE\" => \"memcached\"", None),
            (
                "\"STORAGE\" => \"memcached\", \"MEMCACHED_HOST\" => \"localhost\", \"MEMCACHED_PORT\" => \"11212\"",
                Some(("localhost".to_string(), 11212)),
            ),
        ] {
            assert_eq!(of(more), Ok(Storage::Cache(place)), "{more}");
        }
        assert_eq!(read(""), Err(Off::NotWanted));
        assert_eq!(read("\"DOMAINS\" => domains()"), Err(Off::Unreadable));
    }
}
