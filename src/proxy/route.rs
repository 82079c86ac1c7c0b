//! Which target answers a path. Pure: what is on disk comes in as an argument.

use super::deny::deny;
use super::error::Kind;
use super::path::Path;

/// Name of the folder's own pages, in the order in which they are tried.
pub const SCRIPT_INDEX: &str = "index.php";
pub const STATIC_INDEX: &str = "index.html";

/// Prefixes of further upstreams.
#[derive(Debug, Default)]
pub struct Prefixes {
    /// Longest first, each with its place in the configuration.
    sorted: Vec<(String, usize)>,
}

/// What a path asks for, before anybody looks at the disk.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    Deny(Kind),
    /// Place of the route in the configuration.
    Upstream(usize),
    /// A PHP script by its path, and what follows it.
    Script {
        script: Path,
        path_info: String,
    },
    /// A file or folder.
    File,
}

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    File,
    Folder,
    Missing,
}

/// What to do about a file or folder.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Serve,
    /// The same path with a slash at its end.
    AddSlash,
    /// A folder: its index pages, then the fallback.
    Index,
    /// The portal's script for paths without a file.
    Fallback,
}

impl Prefixes {
    /// In the order of the configuration; each starts and ends with `/`.
    pub fn new<'a>(prefixes: impl Iterator<Item = &'a str>) -> Self {
        let mut sorted: Vec<(String, usize)> = prefixes
            .zip(0..)
            .map(|(prefix, place)| (prefix.to_string(), place))
            .collect();
        sorted.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Prefixes { sorted }
    }

    /// Place of the upstream that answers for a path.
    pub fn find(&self, path: &str) -> Option<usize> {
        let found = self.sorted.iter().find(|(prefix, _)| path.starts_with(prefix));
        found.map(|(_, place)| *place)
    }
}

/// The first decision. An upstream answers for all of its prefix: the portal's deny list is not its business.
pub fn plan(prefixes: &Prefixes, path: &Path) -> Plan {
    if let Some(place) = prefixes.find(path.as_str()) {
        return Plan::Upstream(place);
    }
    if let Some(kind) = deny(path) {
        return Plan::Deny(kind);
    }
    match script_end(path.as_str()) {
        Some(end) => Plan::Script {
            script: path.up_to(end),
            path_info: path.as_str().get(end..).unwrap_or_default().to_string(),
        },
        None => Plan::File,
    }
}

/// The second decision, for `Plan::File`.
pub fn settle(path: &Path, seen: Seen) -> Step {
    match (seen, path.is_folder()) {
        (Seen::File, false) => Step::Serve,
        (Seen::Folder, false) => Step::AddSlash,
        (Seen::Folder, true) => Step::Index,
        (Seen::File, true) | (Seen::Missing, _) => Step::Fallback,
    }
}

/// Where the first name that ends in `.php` ends; what follows is its PATH_INFO (RFC 3875 §4.1.5).
fn script_end(path: &str) -> Option<usize> {
    let mut end = 0;
    for name in path.split('/') {
        end += name.len();
        if name.ends_with(".php") {
            return Some(end);
        }
        end += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(raw: &str) -> Path {
        Path::parse(raw).expect("a valid path")
    }

    fn script(script: &str, path_info: &str) -> Plan {
        Plan::Script {
            script: path(script),
            path_info: path_info.to_string(),
        }
    }

    #[test]
    fn paths_find_their_target() {
        let prefixes = Prefixes::new(["/app/", "/app/deep/", "/bitrix/subws/"].into_iter());
        for (raw, wanted) in [
            ("/", Plan::File),
            ("/logo.png", Plan::File),
            ("/index.php", script("/index.php", "")),
            ("/rest/api.php/user/get", script("/rest/api.php", "/user/get")),
            ("/a.php/", script("/a.php", "/")),
            ("/a.php/b.php", script("/a.php", "/b.php")),
            ("/%D1%84.php/x", script("/ф.php", "/x")),
            ("/app/x.php", Plan::Upstream(0)),
            ("/app/deep/x", Plan::Upstream(1)),
            ("/app/../app/deep/", Plan::Upstream(1)),
            ("/app", Plan::File),
            ("/bitrix/subws/", Plan::Upstream(2)),
            ("/upload/x.php", Plan::Deny(Kind::Forbidden)),
            ("/.git/HEAD", Plan::Deny(Kind::NotFound)),
            ("/a.php.txt", Plan::File),
        ] {
            assert_eq!(plan(&prefixes, &path(raw)), wanted, "{raw}");
        }
    }

    #[test]
    fn files_and_folders_are_told_apart() {
        for (raw, seen, step) in [
            ("/a", Seen::File, Step::Serve),
            ("/a/", Seen::File, Step::Fallback),
            ("/a", Seen::Folder, Step::AddSlash),
            ("/a/", Seen::Folder, Step::Index),
            ("/a", Seen::Missing, Step::Fallback),
            ("/a/", Seen::Missing, Step::Fallback),
        ] {
            assert_eq!(settle(&path(raw), seen), step, "{raw} {seen:?}");
        }
    }
}
