//! Trees that PHP serves as file shares (WebDAV, CalDAV): what is asked of them by other methods than a browser's is PHP's business, even where
//! a file or folder of that name lies on the disk. Pure.

use http::Method;

use super::path::Path;

/// With at most one folder before them, of a site or a department.
const TREES: [&[&str]; 7] = [
    &["docs"],
    &["workgroups"],
    &["company", "profile"],
    &["company", "personal", "user"],
    &["bitrix", "tools"],
    &["mobile", "webdav"],
    &["contacts", "personal"],
];

/// Whether PHP answers without a look at the disk.
pub fn is_phps(path: &Path, method: &Method) -> bool {
    if matches!(*method, Method::GET | Method::HEAD) {
        return false;
    }
    let names: Vec<&str> = path.segments().take(4).collect();
    let below = names.get(1..).unwrap_or_default();
    TREES
        .iter()
        .any(|tree| names.starts_with(tree) || below.starts_with(tree))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_phps() {
        for (method, path, expected) in [
            ("PROPFIND", "/docs/", true),
            ("PUT", "/docs/shared/report.docx", true),
            ("OPTIONS", "/extranet/workgroups/group/1/disk/", true),
            ("MKCOL", "/company/personal/user/1/files/x", true),
            ("LOCK", "/mobile/webdav/x", true),
            ("POST", "/docs/x.txt", true),
            ("GET", "/docs/shared/report.docx", false),
            ("HEAD", "/docs/", false),
            ("PROPFIND", "/upload/x", false),
            ("PROPFIND", "/documents/", false),
            ("PUT", "/a/b/docs/x", false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(
                is_phps(&Path::parse(path).expect("a path"), &method),
                expected,
                "{method} {path}"
            );
        }
    }
}
