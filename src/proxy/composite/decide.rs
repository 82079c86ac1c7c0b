//! Whether a request may be answered by a stored page, and by which. Pure.
//!
//! The portal's own early script asks the same before anything else of it runs, and the web server of its appliance asks a little
//! more. Where the two differ, or PHP would read a request in a way that is hard to tell, the request goes to PHP: that costs time
//! and never a wrong page.

use http::Method;
use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, USER_AGENT};
use http::request::Parts;

use super::mask::fits;
use super::options::{Cookies, Options, bare_host};
use super::query::{Query, variable};
use crate::proxy::path::Path;

const ACTION: HeaderName = HeaderName::from_static("bx-action-type");
const AJAX: HeaderName = HeaderName::from_static("bx-ajax");
const MODE: HeaderName = HeaderName::from_static("bx-cache-mode");
const WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// Parameters by which the portal's own scripts ask for something else than the page.
const PARAMETERS: [&str; 4] = ["ncc", "bxajaxid", "sessid", "bxrand"];

/// Why PHP answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    Method,
    /// A part of a page is asked for.
    Part,
    Parameter,
    Browser,
    /// The portal's own folder, its controller, or outside the masks.
    Place,
    /// The cookies say so.
    Cookie,
    Host,
    /// Written in a way that PHP may read otherwise.
    Unusual,
}

/// The page for a request, as a path below the document root. `hosts`: those that the operator lets be answered so; `*` is any.
pub fn page(options: &Options, hosts: &[String], request: &Parts) -> Result<Path, Bypass> {
    let headers = &request.headers;
    if request.method != Method::GET {
        return Err(Bypass::Method);
    }
    let is_ajax = headers.get(WITH).is_some_and(|value| value == "XMLHttpRequest");
    if is_ajax
        || [ACTION, AJAX, MODE, AUTHORIZATION]
            .iter()
            .any(|name| headers.contains_key(name))
    {
        return Err(Bypass::Part);
    }
    if is_ancient(headers) {
        return Err(Bypass::Browser);
    }
    let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
    if ["//", "/./", "/../", "\\"].iter().any(|odd| path.contains(odd)) || path.ends_with("/..") {
        return Err(Bypass::Unusual);
    }
    let host = host(headers).ok_or(Bypass::Host)?;
    is_served(options, hosts, &host)?;
    is_place(options, path)?;
    let private_key = cookies(&options.cookies, headers)?;
    let (path, query) = trimmed(path, query);
    let query = parameters(options, query)?;
    name(&host, path, &query, &private_key)
}

/// The name of a stored page. PHP forms it from the target as the client wrote it.
fn name(host: &str, path: &str, query: &str, private_key: &str) -> Result<Path, Bypass> {
    let lower = path.to_ascii_lowercase();
    let end = ["/index.php", "/index.html"].iter().find(|end| lower.ends_with(**end));
    let path = path.get(..path.len() - end.map_or(0, |end| end.len()));
    let path = path.unwrap_or_default().replace("..", "__");
    let path = path.trim_end_matches('/');
    let host = match host.rsplit_once(':') {
        Some((name, port)) => format!("{name}-{port}"),
        None => host.to_string(),
    };
    let query = query.replace('.', "_");
    let file = format!("{host}{path}/index@{query}{private_key}.html").replace(['?', '*'], "_");
    // `%` stays itself in the name of a file.
    let escaped = format!("/bitrix/html_pages/{file}").replace('%', "%25");
    let path = Path::parse(&escaped).map_err(|_| Bypass::Unusual)?;
    // Nothing may have moved: no `..`, no doubled slash.
    (path.as_str().strip_prefix("/bitrix/html_pages/") == Some(file.as_str()))
        .then_some(path)
        .ok_or(Bypass::Unusual)
}

/// PHP takes the slashes at both ends of the whole target away.
fn trimmed<'a>(path: &'a str, query: &'a str) -> (&'a str, &'a str) {
    match query.is_empty() {
        true => (path.trim_end_matches('/'), query),
        false => (path, query.trim_end_matches('/')),
    }
}

fn is_served(options: &Options, hosts: &[String], host: &str) -> Result<(), Bypass> {
    let name = host.split(':').next().unwrap_or_default();
    let is_let = hosts.iter().any(|known| known == "*" || known == name);
    let is_stored = options.domains.iter().any(|domain| domain == host);
    (is_let && is_stored).then_some(()).ok_or(Bypass::Host)
}

/// In lower case only: PHP compares letter by letter, and would not find its own page.
fn host(headers: &HeaderMap) -> Option<String> {
    let host = bare_host(headers.get(HOST)?.to_str().ok()?);
    let is_plain = host
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_:".contains(&byte));
    is_plain.then(|| host.to_string())
}

fn is_place(options: &Options, path: &str) -> Result<(), Bypass> {
    let lower = path.to_ascii_lowercase();
    let is_own = lower.starts_with("/bitrix/") || lower.starts_with("/index_controller.php");
    let has = |masks: &[String]| masks.iter().any(|mask| fits(mask, path));
    (!is_own && !has(&options.exclude) && has(&options.include))
        .then_some(())
        .ok_or(Bypass::Place)
}

/// What of the query is part of the page's name.
fn parameters(options: &Options, raw: &str) -> Result<String, Bypass> {
    let query = Query::read(raw).ok_or(Bypass::Unusual)?;
    let excluded = options.excluded_parameters.iter().map(String::as_str);
    if PARAMETERS.into_iter().chain(excluded).any(|name| query.has(name)) {
        return Err(Bypass::Parameter);
    }
    if let Some(only) = &options.only_parameters
        && !query.is_within(only, &options.ignored_parameters)
    {
        return Err(Bypass::Parameter);
    }
    query.without(&options.ignored_parameters).ok_or(Bypass::Unusual)
}

/// Whether the cookies let a stored page be; if so, whose: empty, or `/key`.
fn cookies(names: &Cookies, headers: &HeaderMap) -> Result<String, Bypass> {
    let mut cookies: Vec<(String, &str)> = Vec::new();
    for field in headers.get_all(COOKIE) {
        let field = field.to_str().map_err(|_| Bypass::Unusual)?;
        for cookie in field.split(';') {
            let (name, value) = cookie.split_once('=').unwrap_or((cookie, ""));
            cookies.push((variable(name.trim()), value.trim()));
        }
    }
    let get = |wanted: &str| cookies.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
    let is_known = get(&names.login).is_some() && get(&names.pass).is_some();
    if get(&names.ncc).is_some() || is_known && get(&names.cc) != Some("Y") {
        return Err(Bypass::Cookie);
    }
    let Some(key) = get(&names.private_key) else {
        return Ok(String::new());
    };
    let is_twice = cookies.iter().filter(|(name, _)| *name == names.private_key).count() > 1;
    if is_twice || key.contains(['%', '+']) {
        return Err(Bypass::Unusual);
    }
    let mut key = key.to_string();
    key.retain(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '/' | '_'));
    let key = key.trim_matches('/');
    Ok(if key.is_empty() {
        String::new()
    } else {
        format!("/{key}")
    })
}

/// Internet Explorer 5 to 9 cannot put a page together.
fn is_ancient(headers: &HeaderMap) -> bool {
    let Some(agent) = headers.get(USER_AGENT) else {
        return false;
    };
    let agent = agent.as_bytes();
    let mut found = memchr::memmem::find_iter(agent, "MSIE ");
    found.any(|at| matches!(agent.get(at + 5), Some(b'5'..=b'9')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(more: &str) -> Options {
        let source = format!(
            "<? $arHTMLPagesOptions = array(\"DOMAINS\" => array(\"s1\" => \"portal.example\", \"s2\" => \"portal.example:8080\"), {more});"
        );
        Options::read(&source).expect("on")
    }

    fn ask(options: &Options, method: &str, target: &str, fields: &[(&str, &str)]) -> Result<String, Bypass> {
        let mut request = http::Request::builder().method(method).uri(target);
        if !fields.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "portal.example");
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (request, ()) = request.body(()).expect("a request").into_parts();
        let page = page(options, &["*".into()], &request)?;
        Ok(page
            .as_str()
            .strip_prefix("/bitrix/html_pages")
            .expect("below")
            .to_string())
    }

    #[test]
    fn pages_have_the_portals_names() {
        let options = options("");
        for (target, file) in [
            ("/", "/portal.example/index@.html"),
            ("/index.php", "/portal.example/index@.html"),
            ("/INDEX.html", "/portal.example/index@.html"),
            ("/aa/bb/", "/portal.example/aa/bb/index@.html"),
            ("/aa/bb", "/portal.example/aa/bb/index@.html"),
            ("/aa/bb/index.php", "/portal.example/aa/bb/index@.html"),
            ("/aa/news.php", "/portal.example/aa/news.php/index@.html"),
            ("/?a=b&b=c", "/portal.example/index@a=b&b=c.html"),
            ("/?v=1.5", "/portal.example/index@v=1_5.html"),
            ("/a/?b=c/", "/portal.example/a/index@b=c.html"),
            ("/?utm_source=x&yclid=7", "/portal.example/index@.html"),
            ("/?p=a?b", "/portal.example/index@p=a%3Fb.html"),
            ("/a..b/", "/portal.example/a..b/index@.html"),
            ("/%D1%84/", "/portal.example/%D1%84/index@.html"),
        ] {
            // PHP writes `__` for two dots.
            let file = file.replace("a..b", "a__b");
            assert_eq!(ask(&options, "GET", target, &[]), Ok(file), "{target}");
        }
        let port = [("host", "portal.example:8080")];
        assert_eq!(
            ask(&options, "GET", "/", &port),
            Ok("/portal.example-8080/index@.html".into())
        );
        let default = [("host", "portal.example:443")];
        assert_eq!(
            ask(&options, "GET", "/", &default),
            Ok("/portal.example/index@.html".into())
        );
        let private = [("cookie", "BITRIX_SM_PK=/page_re.gion_5/")];
        assert_eq!(
            ask(&options, "GET", "/?a=1", &private),
            Ok("/portal.example/index@a=1/page_region_5.html".into())
        );
    }

    #[test]
    fn conditions_of_the_portal_hold() {
        use Bypass::*;
        let options =
            options("\"EXCLUDE_MASK\" => \"/bitrix/*; /404.php; /private/*\", \"EXCLUDE_PARAMS\" => \"ncc; clear\"");
        for (method, target, fields, why) in [
            ("POST", "/", &[][..], Method),
            ("HEAD", "/", &[], Method),
            ("GET", "/", &[("bx-action-type", "get_dynamic")], Part),
            ("GET", "/", &[("bx-ajax", "true")], Part),
            ("GET", "/", &[("bx-cache-mode", "HTMLCACHE")], Part),
            ("GET", "/", &[("x-requested-with", "XMLHttpRequest")], Part),
            ("GET", "/", &[("authorization", "Basic eA==")], Part),
            ("GET", "/?ncc=1", &[], Parameter),
            ("GET", "/?a=1&bxajaxid=x", &[], Parameter),
            ("GET", "/?sessid", &[], Parameter),
            ("GET", "/?bxrand=123", &[], Parameter),
            ("GET", "/?clear[]=1", &[], Parameter),
            (
                "GET",
                "/",
                &[("user-agent", "Mozilla/4.0 (compatible; MSIE 8.0)")],
                Browser,
            ),
            ("GET", "/bitrix/admin/", &[], Place),
            ("GET", "/Bitrix/x", &[], Place),
            ("GET", "/index_controller.php", &[], Place),
            ("GET", "/404.php", &[], Place),
            ("GET", "/private/x", &[], Place),
            ("GET", "/", &[("cookie", "BITRIX_SM_NCC=Y")], Cookie),
            ("GET", "/", &[("cookie", "a=1; BITRIX.SM.NCC=Y")], Cookie),
            ("GET", "/", &[("cookie", "BITRIX_SM_LOGIN=x; BITRIX_SM_UIDH=y")], Cookie),
            (
                "GET",
                "/",
                &[("cookie", "BITRIX_SM_LOGIN=x; BITRIX_SM_UIDH=y; BITRIX_SM_CC=N")],
                Cookie,
            ),
            ("GET", "/", &[("host", "other.example")], Host),
            ("GET", "/", &[("host", "portal.example:81")], Host),
            ("GET", "/", &[("host", "Portal.example")], Host),
            ("GET", "/a//b", &[], Unusual),
            ("GET", "/a/../b", &[], Unusual),
            ("GET", "/?a[]=1", &[], Unusual),
            ("GET", "/?a=%ff", &[], Unusual),
            ("GET", "/", &[("cookie", "BITRIX_SM_PK=a%2Fb")], Unusual),
        ] {
            assert_eq!(
                ask(&options, method, target, fields),
                Err(why),
                "{method} {target} {fields:?}"
            );
        }
        for fields in [
            &[("user-agent", "Mozilla/5.0 (compatible; MSIE 10.0)")][..],
            &[("cookie", "BITRIX_SM_LOGIN=x; BITRIX_SM_UIDH=y; BITRIX_SM_CC=Y")],
            &[("cookie", "BITRIX_SM_LOGIN=x; PHPSESSID=1")],
        ] {
            assert!(ask(&options, "GET", "/", fields).is_ok(), "{fields:?}");
        }
    }

    #[test]
    fn no_target_leaves_the_folder_of_its_host() {
        let options = options("");
        for target in [
            "/%2e%2e/%2e%2e/x",
            "/?a=/../../../.settings.php",
            "/?/../x",
            "/a%2f..%2f",
            "/?a=%2f%2e%2e%2f",
            "/?x=//y",
            "/?x=/",
        ] {
            if let Ok(file) = ask(&options, "GET", target, &[]) {
                assert!(file.starts_with("/portal.example/"), "{target}: {file}");
                assert!(!file.contains("/../") && !file.contains("//"), "{target}: {file}");
            }
        }
    }

    #[test]
    fn a_site_is_served_where_the_operator_lets_it() {
        let (request, ()) = http::Request::get("/")
            .header("host", "portal.example:8080")
            .body(())
            .expect("a request")
            .into_parts();
        let allowed = |hosts: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
            page(&options(""), &hosts, &request).is_ok()
        };
        assert!(allowed(&["*"]) && allowed(&["other.example", "portal.example"]));
        assert!(!allowed(&[]) && !allowed(&["other.example"]));
    }
}
