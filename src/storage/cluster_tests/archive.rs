//! Import and export through a running node.

use std::collections::BTreeMap;
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

/// A node alone and a session with it.
async fn session(scope: &Scope) -> (Node, client::Client, Arc<dyn Calls>) {
    let mut node = Node::new(1, None);
    node.start();
    node.until("leads", |report| report.role == Role::Leader).await;
    let stream = UnixStream::connect(node.path("storage.sock")).await.unwrap();
    let way = Arc::new(ToSocket::new(Caller::start(stream, LIMITS, scope)));
    let client = client::Client::start(way, Place("n1/test".into()), false, scope);
    let calls: Arc<dyn Calls> = Arc::new(client.clone());
    (node, client, calls)
}

/// Of an archive, in its order.
enum Put<'a> {
    File(&'a str, Vec<u8>),
    HardLink(&'a str, &'a str),
    Link(&'a str, &'a str),
}

fn archive(puts: &[Put<'_>]) -> std::io::Cursor<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for put in puts {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        let appended = match put {
            Put::File(path, data) => {
                header.set_size(data.len() as u64);
                archive.append_data(&mut header, path, &data[..])
            }
            Put::HardLink(path, target) => {
                header.set_entry_type(tar::EntryType::Link);
                archive.append_link(&mut header, path, target)
            }
            Put::Link(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, path, target)
            }
        };
        appended.unwrap();
    }
    std::io::Cursor::new(archive.into_inner().unwrap())
}

/// What is to be read under each name: a hard link has its file's content, a symbolic one the target.
async fn tree(calls: &Arc<dyn Calls>) -> BTreeMap<String, Vec<u8>> {
    let written = Written::default();
    export(calls.clone(), PORTAL, written.clone(), Arc::default())
        .await
        .unwrap();
    let out = written.0.lock().unwrap().clone();
    let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    // A file comes before its other names.
    let mut archive = tar::Archive::new(&out[..]);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let target = entry
            .link_name()
            .unwrap()
            .map(|target| target.to_str().unwrap().to_owned());
        let content = match (entry.header().entry_type(), target) {
            (tar::EntryType::Link, Some(target)) => found[&target].clone(),
            (_, Some(target)) => target.into_bytes(),
            (tar::EntryType::Directory, _) => continue,
            _ => {
                let mut data = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
                data
            }
        };
        found.insert(path, content);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_path_that_comes_again_the_last_counts_and_other_names_keep_their_content() {
    let scope = Scope::new();
    let (_node, client, calls) = session(&scope).await;
    let put = async |puts: &[Put<'_>]| {
        let put = import(calls.clone(), archive(puts), PORTAL, Arc::default(), &scope);
        put.await.unwrap();
    };
    let file = |name, content: &str| Put::File(name, content.as_bytes().to_vec());
    let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut expect = |name: &str, content: &[u8]| drop(expected.insert(name.into(), content.to_vec()));

    // As `tar -r` leaves it: many parts, then few bytes.
    let paths: Vec<_> = (0..6).map(|number| format!("again/{number}")).collect();
    let mut puts = Vec::new();
    for path in &paths {
        puts.push(Put::File(path, vec![1; (2 << 20) + 5]));
        puts.push(Put::File(path, vec![2; 1024]));
        expect(path, &[2; 1024]);
    }
    puts.push(file("again/link", "a file before"));
    puts.push(Put::Link("again/link", "0"));
    expect("again/link", b"0");
    puts.push(Put::Link("again/file", "0"));
    puts.push(file("again/file", "a link before"));
    expect("again/file", b"a link before");
    put(&puts).await;

    // A name of the tree that is another file's than in the archive.
    put(&[file("hard/a", "one"), file("hard/b", "another")]).await;
    put(&[file("hard/a", "one"), Put::HardLink("hard/b", "hard/a")]).await;
    expect("hard/a", b"one");
    expect("hard/b", b"one");

    // One file in the tree, two in the archive; and a third name that the archive does not have.
    put(&[
        file("shared/x", "old content"),
        Put::HardLink("shared/y", "shared/x"),
        Put::HardLink("shared/z", "shared/x"),
    ])
    .await;
    put(&[Put::File("shared/x", vec![7; (1 << 20) + 5]), file("shared/y", "y")]).await;
    expect("shared/x", &vec![7; (1 << 20) + 5]);
    expect("shared/y", b"y");
    expect("shared/z", b"old content");

    let found = tree(&calls).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, content) in expected {
        assert!(found[&name] == content, "{name}: {} bytes", found[&name].len());
    }
    client.end().await;
    scope.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_in_and_comes_out_as_an_archive() {
    let scope = Scope::new();
    let (_node, client, calls) = session(&scope).await;
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
