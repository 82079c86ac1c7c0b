//! `storage.external`: an NFS server's export, or a path where a clustered file system is mounted.

use std::path::PathBuf;

use super::Storage;

/// What the operator named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum External {
    Path(PathBuf),
    /// `nfs://host[:port]/export[?mount=port]`; ports that are not given are asked of the server's portmapper.
    Server {
        host: String,
        export: String,
        nfs: Option<u16>,
        mount: Option<u16>,
    },
}

impl Storage {
    /// `None`: it is neither of the two.
    pub fn external(&self) -> Option<External> {
        parse(&self.external)
    }
}

fn parse(text: &str) -> Option<External> {
    if text.starts_with('/') {
        return Some(External::Path(text.into()));
    }
    let rest = text.strip_prefix("nfs://")?;
    let (rest, mount) = match rest.split_once("?mount=") {
        Some((rest, port)) => (rest, Some(port.parse().ok()?)),
        None => (rest, None),
    };
    let slash = rest.find('/')?;
    let (authority, export) = rest.split_at(slash);
    let authority: http::uri::Authority = authority.parse().ok()?;
    let host = authority.host().to_string();
    let nfs = authority.port_u16();
    // Nothing but a host, or a host and a port that is one.
    let is_plain = authority.as_str() == host || nfs.is_some() && !authority.as_str().contains('@');
    (is_plain && !host.is_empty() && !export.contains('?')).then(|| External::Server {
        host,
        export: export.to_string(),
        nfs,
        mount,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_paths_are_told_apart() {
        let server = |host: &str, export: &str, nfs, mount| {
            Some(External::Server {
                host: host.into(),
                export: export.into(),
                nfs,
                mount,
            })
        };
        assert_eq!(parse("/mnt/files"), Some(External::Path("/mnt/files".into())));
        assert_eq!(parse("nfs://nas/a/b"), server("nas", "/a/b", None, None));
        assert_eq!(
            parse("nfs://10.0.0.5:2049/a?mount=20048"),
            server("10.0.0.5", "/a", Some(2049), Some(20048))
        );
        assert_eq!(parse("nfs://[::1]/a"), server("[::1]", "/a", None, None));
        for bad in [
            "",
            "nas:/a",
            "nfs://nas",
            "nfs:///a",
            "nfs://u@nas/a",
            "nfs://nas/a?x=1",
            "nfs://nas:x/a",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
