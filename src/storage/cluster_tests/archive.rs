//! Import and export through a running node.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;

use super::node::*;
use crate::base::Scope;
use crate::net::mesh::Caller;
use crate::storage::archive::{Progress, export, import};
use crate::storage::call::PORTAL;
use crate::storage::client;
use crate::storage::command::Role;
use crate::storage::door::Calls;
use crate::storage::mesh::{LIMITS, ToSocket};
use crate::storage::operation::Place;

/// A tree with what archives hold: folders, many small files, one of several parts, an empty one, links of both kinds.
fn sample(folder: &Path) -> Vec<u8> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for number in 0..300 {
        let place = folder.join(format!("a/{}", number % 7));
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join(number.to_string()), format!("file {number}")).unwrap();
    }
    let large: Vec<u8> = (0..(2 << 20) + 5_u32).map(|byte| byte as u8).collect();
    std::fs::write(folder.join("large"), large).unwrap();
    std::fs::write(folder.join("empty"), "").unwrap();
    std::fs::set_permissions(folder.join("empty"), std::fs::Permissions::from_mode(0o640)).unwrap();
    symlink("a/1", folder.join("link")).unwrap();
    std::fs::hard_link(folder.join("large"), folder.join("twin")).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    archive.append_dir_all("", folder).unwrap();
    archive.into_inner().unwrap()
}

/// What an archive holds, in order of paths.
fn contents(archive: &[u8]) -> Vec<(String, u32, u64, u8, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let mut found: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
            let mut data = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
            if let Some(target) = entry.link_name().unwrap() {
                data = target.to_str().unwrap().into();
            }
            let header = entry.header();
            (
                path,
                header.mode().unwrap() & 0o7777,
                header.mtime().unwrap(),
                header.entry_type().as_byte(),
                data,
            )
        })
        .filter(|(path, ..)| !path.is_empty())
        .collect();
    found.sort();
    found
}

#[derive(Clone, Default)]
struct Written(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_in_and_comes_out_as_an_archive() {
    let mut node = Node::new(1, None);
    node.start();
    node.until("leads", |report| report.role == Role::Leader).await;
    let scope = Scope::new();
    let stream = UnixStream::connect(node.path("storage.sock")).await.unwrap();
    let way = Arc::new(ToSocket::new(Caller::start(stream, LIMITS, &scope)));
    let client = client::Client::start(way, Place("n1/test".into()), false, &scope);
    let calls: Arc<dyn Calls> = Arc::new(client.clone());
    let folder = tempfile::tempdir().unwrap();
    let archive = sample(folder.path());
    // Twice: what is there is replaced.
    for _ in 0..2 {
        let progress = Arc::new(Progress::default());
        let source = std::io::Cursor::new(archive.clone());
        import(calls.clone(), source, PORTAL, progress.clone(), &scope)
            .await
            .unwrap();
        assert!(progress.files() > 300 && progress.bytes() > 2 << 20);
    }
    let written = Written::default();
    export(calls.clone(), PORTAL, written.clone(), Arc::default())
        .await
        .unwrap();
    let out = written.0.lock().unwrap().clone();
    let (expected, found) = (contents(&archive), contents(&out));
    let kinds =
        |all: &[(String, u32, u64, u8, Vec<u8>)]| all.iter().map(|each| (each.0.clone(), each.3)).collect::<Vec<_>>();
    assert_eq!(kinds(&found).len(), kinds(&expected).len());
    // Which of two names of one file comes first is the walk's choice.
    let is_twin = |path: &str| matches!(path, "large" | "twin");
    for (one, other) in expected.iter().zip(&found).filter(|(one, _)| !is_twin(&one.0)) {
        let is_link = one.3 == b'2';
        assert_eq!((&one.0, one.3, &one.4), (&other.0, other.3, &other.4));
        assert!(
            is_link || (one.1, one.2) == (other.1, other.2),
            "{}: mode and time",
            one.0
        );
    }
    let outside = {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        header.as_mut_bytes()[..9].copy_from_slice(b"../escape");
        header.set_cksum();
        builder.append(&header, std::io::empty()).unwrap();
        builder.into_inner().unwrap()
    };
    let refused = import(calls, std::io::Cursor::new(outside), PORTAL, Arc::default(), &scope).await;
    assert!(refused.unwrap_err().to_string().contains("leads out of it"));
    client.end().await;
    scope.stop(Duration::ZERO).await;
}
