//! The rescue export before an independent client.

use std::os::unix::fs::symlink;

use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, Nfs3Client};
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::Opaque;
use tokio::net::TcpStream;

use super::rescue::Rescue;
use crate::base::Scope;

type Client = Nfs3Client<TokioIo<TcpStream>>;

fn credential() -> opaque_auth<'static> {
    opaque_auth::auth_unix(&auth_unix::default())
}

struct World {
    folder: tempfile::TempDir,
    scope: Scope,
    client: Client,
    root: nfs_fh3,
}

/// A folder with a file, a link that leads out, and many names.
async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    std::fs::create_dir_all(tree.join("upload")).unwrap();
    std::fs::write(tree.join("upload/file"), b"content").unwrap();
    std::fs::write(folder.path().join("secret"), b"secret").unwrap();
    symlink("../secret", tree.join("out")).unwrap();
    for number in 0..300 {
        std::fs::write(tree.join(format!("upload/n{number}")), b"").unwrap();
    }
    let rescue = Rescue::bind(&tree, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, scope) = (rescue.address, Scope::new());
    let served = scope.clone();
    scope.spawn(async move { rescue.run(&served).await });
    let connect = async || TokioIo::new(TcpStream::connect(address).await.unwrap());
    let mut mount = MountClient::new(connect().await);
    let mounted = mount.mnt(dirpath(Opaque::borrowed(b"/"))).await.unwrap();
    World {
        folder,
        scope,
        client: Nfs3Client::new_with_auth(connect().await, credential(), opaque_auth::default()),
        root: nfs_fh3 {
            data: mounted.fhandle.0,
        },
    }
}

impl World {
    async fn look_up(&mut self, folder: &nfs_fh3, name: &'static str) -> nfs_fh3 {
        let what = at(folder, name);
        self.client.lookup(&LOOKUP3args { what }).await.unwrap().unwrap().object
    }

    async fn read(&mut self, file: &nfs_fh3) -> Result<Vec<u8>, nfsstat3> {
        let read = READ3args {
            file: file.clone(),
            offset: 0,
            count: 100,
        };
        match self.client.read(&read).await.unwrap() {
            Nfs3Result::Ok(read) => Ok(read.data.as_ref().to_vec()),
            Nfs3Result::Err((status, _)) => Err(status),
        }
    }
}

fn at(folder: &nfs_fh3, name: &'static str) -> diropargs3<'static> {
    diropargs3 {
        dir: folder.clone(),
        name: filename3(Opaque::borrowed(name.as_bytes())),
    }
}

#[tokio::test]
async fn files_are_listed_and_read_and_links_are_not_followed() {
    let mut world = world().await;
    let root = world.root.clone();
    let upload = world.look_up(&root, "upload").await;
    let file = world.look_up(&upload, "file").await;
    assert_eq!(world.read(&file).await, Ok(b"content".to_vec()));
    let out = world.look_up(&root, "out").await;
    let link = READLINK3args { symlink: out.clone() };
    let target = world.client.readlink(&link).await.unwrap().unwrap().data;
    assert_eq!(target.0.as_ref(), b"../secret");
    assert!(world.read(&out).await.is_err());
    let (mut names, mut cookie, mut verifier) = (Vec::new(), 0, cookieverf3::default());
    loop {
        let page = READDIRPLUS3args {
            dir: upload.clone(),
            cookie,
            cookieverf: verifier,
            dircount: 2048,
            maxcount: 8192,
        };
        let page = world.client.readdirplus(&page).await.unwrap().unwrap();
        verifier = page.cookieverf;
        for entry in page.reply.entries.into_inner() {
            cookie = entry.cookie;
            names.push(entry.name.0.as_ref().to_vec());
        }
        if page.reply.eof {
            break;
        }
    }
    names.sort();
    names.dedup();
    names.retain(|name| name != b"." && name != b"..");
    assert_eq!(names.len(), 301);
    world.scope.stop(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn nothing_can_be_written_and_a_folder_that_became_a_link_leads_nowhere() {
    let mut world = world().await;
    let root = world.root.clone();
    let upload = world.look_up(&root, "upload").await;
    let file = world.look_up(&upload, "file").await;
    let write = WRITE3args {
        file: file.clone(),
        offset: 0,
        count: 1,
        stable: stable_how::FILE_SYNC,
        data: Opaque::borrowed(b"x"),
    };
    let written = world.client.write(&write).await.unwrap();
    assert!(
        matches!(written, Nfs3Result::Err((nfsstat3::NFS3ERR_ROFS, _))),
        "{written:?}"
    );
    let remove = REMOVE3args {
        object: at(&upload, "file"),
    };
    let removed = world.client.remove(&remove).await.unwrap();
    assert!(
        matches!(removed, Nfs3Result::Err((nfsstat3::NFS3ERR_ROFS, _))),
        "{removed:?}"
    );
    assert_eq!(world.read(&file).await, Ok(b"content".to_vec()));
    let tree = world.folder.path().join("tree");
    std::fs::create_dir(world.folder.path().join("outside")).unwrap();
    std::fs::write(world.folder.path().join("outside/file"), b"secret").unwrap();
    std::fs::rename(tree.join("upload"), tree.join("moved")).unwrap();
    symlink("../outside", tree.join("upload")).unwrap();
    assert_eq!(world.read(&file).await, Err(nfsstat3::NFS3ERR_STALE));
    world.scope.stop(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn only_loopback_is_served() {
    let folder = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "192.0.2.1:2049", "[::]:0"] {
        let refused = Rescue::bind(folder.path(), address.parse().unwrap()).await;
        assert_eq!(
            refused.err().map(|error| error.kind()),
            Some(std::io::ErrorKind::InvalidInput)
        );
    }
}
