//! Where an order of PHP leads. Pure.

use crate::proxy::deny::deny;
use crate::proxy::host::Host;
use crate::proxy::path::Path;

const RESIZED: &str = "/upload/resize_cache/x/";
const CLOUD: &str = "/upload/bx_cloud_upload/";
const CLOUD_RESIZED: &str = "/upload/resize_cache/c/upload/bx_cloud_upload/";

/// Folders that visitors reach by PHP alone: the deny list has them, and this is the way around it.
const HANDED_OVER: [&str; 1] = ["/upload/support/not_image/"];

#[derive(Debug, PartialEq, Eq)]
pub enum Aim {
    File(Path),
    Object(Object),
}

/// An object at a cloud store.
#[derive(Debug, PartialEq, Eq)]
pub struct Object {
    pub is_tls: bool,
    /// In lower case.
    pub host: String,
    pub port: u16,
    /// Escaped path with its query.
    pub target: String,
}

impl Object {
    /// As `Host` names it.
    pub fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// Whether it lies at one of these stores: `host`, a name below it, or the same with another port than the usual one.
    pub fn is_at(&self, stores: &[String]) -> bool {
        let authority = self.authority();
        stores.iter().any(|store| {
            let front = authority.strip_suffix(store.as_str());
            front.is_some_and(|front| front.is_empty() || front.ends_with('.'))
        })
    }
}

/// Reads the target of an order: an escaped path, perhaps with a query.
pub fn aim(target: &str) -> Result<Aim, &'static str> {
    let (raw, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    let path = Path::parse(raw)?;
    let text = path.as_str();
    if let Some(rest) = text.strip_prefix(CLOUD_RESIZED).or_else(|| text.strip_prefix(CLOUD)) {
        return object(rest, query).map(Aim::Object);
    }
    let path = match text.strip_prefix(RESIZED) {
        Some(rest) => Path::parse(&escaped(&format!("/upload/resize_cache/{rest}"))?)?,
        None => path,
    };
    let is_handed_over = HANDED_OVER.iter().any(|folder| path.as_str().starts_with(folder));
    if deny(&path).is_some() && !is_handed_over {
        return Err("the target is on the deny list");
    }
    if path.is_folder() {
        return Err("the target is a folder");
    }
    Ok(Aim::File(path))
}

/// `<scheme>.<host>[:port]/<key>`.
fn object(rest: &str, query: Option<&str>) -> Result<Object, &'static str> {
    let (place, key) = rest.split_once('/').ok_or("an object without a name")?;
    let (scheme, authority) = place.split_once('.').ok_or("an object without a host")?;
    let is_tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err("an object of another scheme"),
    };
    let host = Host::parse(authority).ok_or("an object with a host that is none")?;
    if host.is_address() && host.port.is_none() {
        return Err("an object at a bare address");
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Ok(Object {
        is_tls,
        host: host.normal(),
        port: host.port.unwrap_or(if is_tls { 443 } else { 80 }),
        target: format!("{}{query}", escaped(&format!("/{key}"))?),
    })
}

/// A decoded path as a target has it.
fn escaped(decoded: &str) -> Result<String, &'static str> {
    let path = Path::parse(&decoded.replace('%', "%25"))?;
    Ok(path.escaped())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Result<Aim, &'static str> {
        Ok(Aim::File(Path::parse(path).expect("a path")))
    }

    fn object_at(target: &str) -> Object {
        match aim(target) {
            Ok(Aim::Object(object)) => object,
            other => panic!("{target}: {other:?}"),
        }
    }

    #[test]
    fn files_are_found() {
        for (target, path) in [
            ("/upload/a%20b.jpg", "/upload/a%20b.jpg"),
            ("/upload/x.jpg?a=b", "/upload/x.jpg"),
            (
                "/upload/resize_cache/x/iblock/1/x%25.jpg",
                "/upload/resize_cache/iblock/1/x%25.jpg",
            ),
            ("/upload/support/not_image/7/x.pdf", "/upload/support/not_image/7/x.pdf"),
            ("/bitrix/backup.tar", "/bitrix/backup.tar"),
        ] {
            assert_eq!(aim(target), file(path), "{target}");
        }
    }

    #[test]
    fn nothing_else_is_handed_out() {
        for target in [
            "",
            "@named",
            "upload/x",
            "http://evil.example/x",
            "/upload/",
            "/bitrix/.settings.php",
            "/bitrix/php_interface/dbconn.php",
            "/upload/../bitrix/.settings.php",
            "/upload/support/not_image/../../../bitrix/.settings.php",
            "/upload/resize_cache/x/../../../bitrix/.settings.php",
            "/upload/x.php",
            "/../etc/passwd",
            "/upload/bx_cloud_upload/",
            "/upload/bx_cloud_upload/ftp.store.example/x",
            "/upload/bx_cloud_upload/https.u@store.example/x",
            "/upload/bx_cloud_upload/http.127.0.0.1/x",
        ] {
            assert!(aim(target).is_err(), "{target}");
        }
    }

    #[test]
    fn objects_are_found() {
        let object = object_at("/upload/bx_cloud_upload/https.Bucket.store.example/a%20b/x%25.jpg?sig=1");
        assert_eq!(
            (object.is_tls, object.host.as_str(), object.port),
            (true, "bucket.store.example", 443)
        );
        assert_eq!(object.target, "/a%20b/x%25.jpg?sig=1");
        assert_eq!(object.authority(), "bucket.store.example");
        let resized = object_at("/upload/resize_cache/c/upload/bx_cloud_upload/http.store.example:8080/x.jpg");
        assert_eq!(resized.authority(), "store.example:8080");
    }

    #[test]
    fn stores_are_those_of_the_configuration() {
        let stores = ["store.example".to_string(), "127.0.0.1:9000".to_string()];
        for (place, expected) in [
            ("https.store.example", true),
            ("https.bucket.store.example", true),
            ("http.store.example", true),
            ("https.evilstore.example", false),
            ("https.store.example.evil.example", false),
            ("https.store.example:8443", false),
            ("http.127.0.0.1:9000", true),
            ("http.127.0.0.1:9001", false),
        ] {
            let object = object_at(&format!("/upload/bx_cloud_upload/{place}/x"));
            assert_eq!(object.is_at(&stores), expected, "{place}");
            assert!(!object.is_at(&[]));
        }
    }
}
