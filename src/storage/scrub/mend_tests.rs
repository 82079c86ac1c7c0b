//! Three replicas on real disks, one of them damaged.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::base::Scope;
use crate::storage::call::PORTAL;
use crate::storage::operation::Operation;
use crate::storage::state::Shared;
use crate::storage::state::tests::world::World;

/// The other replicas, in this process.
#[derive(Default)]
struct Near {
    machines: BTreeMap<NodeId, Shared>,
    /// Done before the next fetch.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Replicas for Near {
    fn others(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    fn checksums(&self, node: NodeId, inodes: Vec<Inode>) -> BoxFuture<'_, io::Result<Vec<Checked>>> {
        let answer = answer_checksums(&self.machines[&node].get(), &inodes);
        Box::pin(std::future::ready(answer.map_err(io::Error::other)))
    }

    fn fetch(&self, node: NodeId, inode: Inode, offset: u64) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        if let Some(work) = self.meanwhile.lock().unwrap().take() {
            work();
        }
        let answer = answer_fetch(&self.machines[&node].get(), inode, offset);
        Box::pin(std::future::ready(answer.map_err(io::Error::other)))
    }
}

const LARGE: usize = 700 << 10;

/// A replica with a small and a large file; all replicas are made the same way.
fn replica(mut world: World) -> (World, Inode, Inode) {
    let small = world.create(PORTAL, "small").unwrap();
    world.write(small, 0, b"content").unwrap();
    let large = world.create(PORTAL, "large").unwrap();
    world.write(large, 0, &vec![3; LARGE]).unwrap();
    (world, small, large)
}

struct Scene {
    scrub: Scrub,
    near: Arc<Near>,
    worlds: Vec<World>,
    small: Inode,
    large: Inode,
}

fn scene(count: usize) -> Scene {
    scene_on(count, World::real)
}

/// The first of `count` replicas is scrubbed.
fn scene_on(count: usize, world: impl Fn() -> World) -> Scene {
    let (mut worlds, mut inodes) = (Vec::new(), (Inode(0), Inode(0)));
    let mut machines = Vec::new();
    for _ in 0..count {
        let (mut world, small, large) = replica(world());
        inodes = (small, large);
        machines.push(Shared::new(world.machine.take().unwrap()));
        worlds.push(world);
    }
    let (own, disk) = (machines.remove(0), worlds[0].disk.clone());
    let near = Arc::new(Near {
        machines: (2..).zip(machines).collect(),
        ..Near::default()
    });
    Scene {
        scrub: Scrub::new(own, disk, near.clone()),
        near,
        worlds,
        small: inodes.0,
        large: inodes.1,
    }
}

impl Scene {
    fn machine(&self) -> Arc<Machine> {
        self.scrub.machine.get()
    }

    fn path(&self, inode: Inode) -> std::path::PathBuf {
        self.machine().content_path(inode)
    }

    async fn all(&self) {
        let mut after = Some(Inode(0));
        while let Some(inode) = after {
            after = self.scrub.unit(inode).await.unwrap();
        }
    }

    /// The content is as on the other replicas, and the mirror shows that file.
    fn assert_good(&self, inode: Inode, name: &str) {
        let right = self.near.machines[&2].get().verify(inode).unwrap();
        assert_eq!(self.machine().verify(inode).unwrap(), right);
        let shown = self.worlds[0].folder.path().join("tree").join(name);
        let number = |path: &std::path::Path| std::fs::metadata(path).unwrap().ino();
        assert_eq!(number(&shown), number(&self.path(inode)));
    }
}

#[tokio::test]
async fn flipped_cut_and_missing_contents_are_mended() {
    let scene = scene(3);
    let (small, large) = (scene.path(scene.small), scene.path(scene.large));
    std::fs::write(&small, b"c0ntent").unwrap();
    std::fs::File::options()
        .write(true)
        .open(&large)
        .unwrap()
        .set_len(300_000)
        .unwrap();
    scene.all().await;
    assert_eq!(scene.scrub.counts().mended, 2);
    std::fs::remove_file(&small).unwrap();
    let mut bytes = std::fs::read(&large).unwrap();
    bytes[LARGE - 1] ^= 1;
    std::fs::write(&large, bytes).unwrap();
    scene.all().await;
    scene.assert_good(scene.small, "small");
    scene.assert_good(scene.large, "large");
    scene.all().await;
    let counts = scene.scrub.counts();
    assert_eq!(
        (counts.files, counts.mended, counts.unmended, counts.undecided),
        (6, 4, 0, 0)
    );
}

#[tokio::test]
async fn a_bad_sector_is_mended_and_ends_neither_the_pass_nor_the_answers_to_others() {
    let scene = scene_on(3, World::new);
    let (small, large) = (scene.path(scene.small), scene.path(scene.large));
    scene.worlds[0].faulty.spoil(&small, 3);
    // Behind it, beyond a chunk; and another replica has one of its own, in a file that others want.
    scene.worlds[0].faulty.spoil(&large, 300_000);
    let others = scene.near.machines[&2].get().content_path(scene.large);
    scene.worlds[1].faulty.spoil(&others, LARGE - 1);
    let found = scene.machine().verify(scene.large).unwrap().unwrap().found;
    assert!(found > 0 && found <= 300_000, "{found}");
    scene.all().await;
    for inode in [scene.small, scene.large] {
        let right = scene.near.machines[&3].get().verify(inode).unwrap();
        assert_eq!(scene.machine().verify(inode).unwrap(), right);
    }
    let counts = scene.scrub.counts();
    assert_eq!((counts.files, counts.mended, counts.unmended), (2, 2, 0));
}

#[tokio::test]
async fn two_that_differ_are_reported_and_a_cut_one_is_mended() {
    let scene = scene(2);
    let (small, large) = (scene.path(scene.small), scene.path(scene.large));
    std::fs::write(&small, b"c0ntent").unwrap();
    std::fs::remove_file(&large).unwrap();
    scene.all().await;
    let counts = scene.scrub.counts();
    assert_eq!((counts.mended, counts.undecided), (1, 1));
    assert_eq!(std::fs::read(small).unwrap(), b"c0ntent", "it is left alone");
    scene.assert_good(scene.large, "large");
}

#[tokio::test]
async fn a_content_that_changes_meanwhile_is_not_exchanged() {
    let mut scene = scene(3);
    std::fs::write(scene.path(scene.small), b"c0ntent").unwrap();
    let (machine, inode) = (scene.machine(), scene.small);
    let write = crate::storage::call::Mutation::Write {
        inode,
        offset: 0,
        data: Bytes::from_static(b"newer"),
    };
    let operation: Operation = scene.worlds[0].operation(write);
    let index = scene.worlds[0].index + 1;
    let changes = move || assert!(machine.apply(index, &[operation]).unwrap()[0].is_ok());
    *scene.near.meanwhile.lock().unwrap() = Some(Box::new(changes));
    scene.all().await;
    let counts = scene.scrub.counts();
    assert_eq!((counts.mended, counts.unmended), (0, 1));
    assert_eq!(std::fs::read(scene.path(scene.small)).unwrap(), b"newernt");
    assert_eq!(std::fs::read_dir(scene.machine().mending()).unwrap().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pass_begins_when_asked_and_ends_with_the_scope() {
    let scene = scene(1);
    let scope = Scope::new();
    let scrub = Arc::new(scene.scrub);
    let runs = scrub.clone();
    let (draining, day) = (scope.clone(), Duration::from_secs(86_400));
    let run = scope.spawn(async move { runs.run(day, draining).await });
    scrub.start_now();
    while scrub.counts().passes == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(scrub.counts().files, 2);
    assert!(scope.stop(day).await);
    assert_eq!(run.await.unwrap(), Some(()));
}
