//! The worker's side: does one order in this process, which may hang for ever and be killed.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::order::{Answer, Order, Refusal, Room, Space};
use super::table::{Entry, Placed, Table};
use super::{abort, fuse, nfs};
use crate::config::Export;
use crate::host::command;
use crate::net::name::Names;

/// Starts rpc.statd where it does not run, as mount.nfs would; it waits for nothing but the daemon's own start.
const START_LOCKS: &str = "start-statd";
const LOCKS_DEADLINE: Duration = Duration::from_secs(10);

/// Nothing on shared files may change who a program runs as, or be a device.
const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// Does an order; returns the answer as `Worker` reads it. Must be called before this process has any other thread.
pub fn serve(order: &str) -> anyhow::Result<String> {
    // Nobody would kill us when we hang.
    set_pdeathsig(Signal::SIGKILL)?;
    let answer = perform(serde_json::from_str(order)?);
    Ok(serde_json::to_string(&answer)?)
}

fn perform(order: Order) -> Result<Answer, Refusal> {
    match order {
        Order::Mount {
            export,
            at,
            space,
            renew,
        } => {
            enter(space)?;
            ensure(&export, &at, renew)
        }
        Order::Fuse { at, space } => {
            enter(space)?;
            ensure_fuse(&at)
        }
        Order::Detach { at, space } => {
            enter(space)?;
            detach(&at).map(Answer::Detached)
        }
        Order::Leave { at, space } => {
            enter(space)?;
            leave(&at).map(|was_there| Answer::Detached(was_there.into()))
        }
        Order::Abort { connection } => abort::abort(io::stdin(), connection),
        Order::Probe { folder } => probe(&folder),
        Order::Folder { path, uid, gid } => make(&path, uid, gid),
    }
}

/// Mounts are changed in this namespace from here on.
fn enter(space: Space) -> Result<(), Refusal> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Refusal::of(
            Errno::EPERM,
            "mounts are changed by root; try it with sudo",
        ));
    }
    if space == Space::Own {
        return Ok(());
    }
    let path = space.process().join("ns/mnt");
    let entered = fs::File::open(&path).and_then(|namespace| Ok(setns(namespace, CloneFlags::CLONE_NEWNS)?));
    entered.map_err(|error| Refusal::new(format!("enter {}: {error}", path.display())))
}

fn table() -> Result<Table, Refusal> {
    Table::read(Space::Own).map_err(|error| Refusal::new(format!("the table of mounts: {error}")))
}

fn ensure(export: &Export, at: &Path, renew: bool) -> Result<Answer, Refusal> {
    let is_ours = |entry: &Entry| export.is(entry);
    if !clear(at, is_ours, renew)? {
        return Ok(Answer::Mounted(false));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Refusal::new(error.to_string()))?;
    let addresses = runtime.block_on(async {
        if export.has_locks {
            start_locks().await?;
        }
        addresses(export).await
    })?;
    let mut last = Refusal::new(format!("{} has no address", export.host));
    for address in addresses {
        match place(export, address, at) {
            Ok(()) => return confirm(at, is_ours),
            Err(errno) => last = Refusal::of(errno, explain(errno, export, address)),
        }
    }
    Err(last)
}

/// mount(2) sends the first request and does not wait for its answer.
fn ensure_fuse(at: &Path) -> Result<Answer, Refusal> {
    leave(at)?;
    clear(at, fuse::is, true)?;
    let placed = mount(Some(fuse::SOURCE), at, Some(fuse::KIND), FLAGS, Some(fuse::OPTIONS));
    placed.map_err(|errno| Refusal::of(errno, fuse::explain(errno)))?;
    confirm(at, fuse::is)
}

/// Ends whatever hangs on it, too: a thread that does could have the last device open.
fn leave(at: &Path) -> Result<bool, Refusal> {
    let is_there = table()?.placed(at, fuse::is) == Placed::Ours;
    if is_there {
        let flags = MntFlags::MNT_FORCE | MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        umount2(at, flags).map_err(|errno| Refusal::of(errno, format!("{}: {}", at.display(), errno.desc())))?;
    }
    Ok(is_there)
}

/// Makes room for a mount. False: it is there, and shall stay.
fn clear(at: &Path, is_ours: impl Fn(&Entry) -> bool, renew: bool) -> Result<bool, Refusal> {
    match table()?.placed(at, is_ours) {
        Placed::Ours if !renew => return Ok(false),
        // Detached first: mount(2) walks to the folder, and the dead mount would answer.
        Placed::Ours => drop(detach(at)?),
        Placed::Foreign(what) => {
            let text = format!(
                "{what} is mounted at {} already; unmount it, or name another folder",
                at.display()
            );
            return Err(Refusal::of(Errno::EBUSY, text));
        }
        Placed::Nothing => {}
    }
    prepare(at)?;
    Ok(true)
}

/// Whether the table of mounts shows it under the name that it will be looked for.
fn confirm(at: &Path, is_ours: impl Fn(&Entry) -> bool) -> Result<Answer, Refusal> {
    if table()?.placed(at, is_ours) == Placed::Ours {
        return Ok(Answer::Mounted(true));
    }
    let text = format!(
        "{} is not its own name; name the folder without symbolic links",
        at.display()
    );
    let _ = detach_once(at);
    Err(Refusal::new(text))
}

/// The folder must be there and empty: whatever it has would be hidden. Root's own, so that nothing is written into it while
/// nothing is mounted.
fn prepare(at: &Path) -> Result<(), Refusal> {
    let refuse = |error: io::Error| Refusal::new(format!("{}: {error}", at.display()));
    match fs::symlink_metadata(at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return fs::DirBuilder::new().mode(0o755).create(at).map_err(refuse);
        }
        Err(error) => return Err(refuse(error)),
        Ok(found) if !found.is_dir() => {
            return Err(Refusal::of(Errno::ENOTDIR, format!("{} is not a folder", at.display())));
        }
        Ok(_) => {}
    }
    match fs::read_dir(at).map_err(refuse)?.next() {
        None => Ok(()),
        Some(_) => {
            let text = format!(
                "{} is not empty, and a mount would hide what is there; move it away, or name another folder",
                at.display()
            );
            Err(Refusal::of(Errno::ENOTEMPTY, text))
        }
    }
}

async fn addresses(export: &Export) -> Result<Vec<IpAddr>, Refusal> {
    let found = async { Names::system()?.resolve(&export.host, 0).await }.await;
    let found = found.map_err(|error| Refusal::new(format!("{}: {error}", export.host)))?;
    Ok(found.into_iter().map(|address| address.ip()).collect())
}

async fn start_locks() -> Result<(), Refusal> {
    let Some(program) = command::find(START_LOCKS) else {
        return Err(Refusal::new(
            "locks of the server need rpc.statd here: install nfs-common (nfs-utils on RHEL), or set \
             storage.external_locks = false",
        ));
    };
    let started = command::Program::new(program).check(LOCKS_DEADLINE).await;
    started.map_err(|error| Refusal::new(format!("rpc.statd does not start; does rpcbind run here? {error}")))?;
    Ok(())
}

fn place(export: &Export, address: IpAddr, at: &Path) -> Result<(), Errno> {
    let (source, options) = (export.source(), export.options(address));
    mount(
        Some(source.as_str()),
        at,
        Some(nfs::KIND),
        FLAGS,
        Some(options.as_str()),
    )
}

fn explain(errno: Errno, export: &Export, address: IpAddr) -> String {
    let Export { host, path, .. } = export;
    let source = export.source();
    match errno {
        Errno::ENODEV => {
            "this kernel has no NFS client (no \"nfs\" in /proc/filesystems): install the distribution's full kernel \
                          package, and in a container load the module \"nfs\" on the host"
                .into()
        }
        Errno::EPERM => format!(
            "{source}: this process may not mount; a container needs CAP_SYS_ADMIN and a profile that allows it"
        ),
        Errno::EACCES => format!("{host} does not let this node mount {path}; look at the server's list of exports"),
        Errno::ENOENT => format!("{host} has no export {path}"),
        Errno::ECONNREFUSED if export.has_locks => {
            format!(
                "{source}: connection refused; does {address} serve NFSv3, and does rpcbind run here for the locks?"
            )
        }
        Errno::ECONNREFUSED => format!("{source}: connection refused; does {address} serve NFSv3?"),
        Errno::EPROTONOSUPPORT => format!("{host} does not serve NFS version 3 over TCP"),
        other => format!("{source} ({address}): {}", other.desc()),
    }
}

/// Only mounts of ours and of NFS: whatever else is there is somebody else's.
fn detach(at: &Path) -> Result<usize, Refusal> {
    let mut count = 0;
    while let Some(entry) = table()?.at(at) {
        if ![nfs::KIND, fuse::KIND].contains(&entry.kind.as_str()) {
            if count > 0 {
                break;
            }
            let text = format!(
                "{} ({}) is mounted at {}; leave it to umount(8)",
                entry.source,
                entry.kind,
                at.display()
            );
            return Err(Refusal::of(Errno::EBUSY, text));
        }
        detach_once(at).map_err(|errno| Refusal::of(errno, format!("{}: {}", at.display(), errno.desc())))?;
        count += 1;
    }
    Ok(count)
}

/// Gone from the tree at once; from the kernel when its last user is gone.
fn detach_once(at: &Path) -> Result<(), Errno> {
    umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
}

/// statfs always asks the other side; attributes alone could come from the kernel's cache.
fn probe(folder: &Path) -> Result<Answer, Refusal> {
    let started = Instant::now();
    let refuse = |errno: Errno| Refusal::of(errno, format!("{}: {}", folder.display(), errno.desc()));
    let found = statvfs(folder).map_err(refuse)?;
    let attributes =
        fs::metadata(folder).map_err(|error| refuse(Errno::from_raw(error.raw_os_error().unwrap_or_default())))?;
    if !attributes.is_dir() {
        return Err(refuse(Errno::ENOTDIR));
    }
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    Ok(Answer::Probed(Room {
        total_bytes: bytes(found.blocks()),
        free_bytes: bytes(found.blocks_available()),
        is_read_only: found.flags().contains(FsFlags::ST_RDONLY),
        took: started.elapsed(),
    }))
}

fn make(path: &Path, uid: u32, gid: u32) -> Result<Answer, Refusal> {
    let made = fs::DirBuilder::new().mode(0o755).create(path);
    // Of a folder that was just made; a link that took its place meanwhile is not followed.
    match made.and_then(|()| lchown(path, Some(uid), Some(gid))) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            let remedy = match errno {
                Errno::EPERM | Errno::EACCES => "; the server must keep root's rights, or have this folder already",
                _ => "",
            };
            let text = format!("cannot make {} for uid {uid}: {error}{remedy}", path.display());
            Err(Refusal::of(errno, text))
        }
        _ => Ok(Answer::Made),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export() -> Export {
        Export {
            host: "127.0.0.1".into(),
            path: "/portal".into(),
            nfs: Some(1),
            mount: Some(1),
            has_locks: false,
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_not_mounted_over() {
        let folder = tempfile::tempdir().expect("temp dir");
        fs::write(folder.path().join("file"), "precious").expect("written");
        let refusal = ensure(&export(), folder.path(), false).expect_err("refused");
        assert_eq!(refusal.errno, Some(Errno::ENOTEMPTY as i32), "{}", refusal.text);
        let refusal = ensure(&export(), &folder.path().join("file"), false).expect_err("refused");
        assert_eq!(refusal.errno, Some(Errno::ENOTDIR as i32), "{}", refusal.text);
        let refusal = ensure(&export(), &folder.path().join("a/b"), false).expect_err("refused");
        assert!(refusal.text.contains("No such file"), "{}", refusal.text);
    }

    #[test]
    fn something_elses_mount_is_left_alone() {
        let refusal = ensure(&export(), Path::new("/proc"), true).expect_err("refused");
        assert!(
            refusal.text.starts_with("proc (proc) is mounted at /proc already"),
            "{}",
            refusal.text
        );
        let refusal = detach(Path::new("/proc")).expect_err("refused");
        assert!(refusal.text.contains("leave it to umount(8)"), "{}", refusal.text);
        assert_eq!(detach(Path::new("/nowhere")), Ok(0));
    }

    #[test]
    fn a_probe_says_how_much_room_there_is() {
        let folder = tempfile::tempdir().expect("temp dir");
        let Ok(Answer::Probed(room)) = probe(folder.path()) else {
            panic!("probed")
        };
        assert!(room.total_bytes > 0 && room.free_bytes <= room.total_bytes);
        let absent = probe(&folder.path().join("absent")).expect_err("absent");
        assert_eq!(absent.errno, Some(Errno::ENOENT as i32));
    }

    #[test]
    fn folders_are_made_once_and_left_alone_then() {
        let folder = tempfile::tempdir().expect("temp dir");
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let path = folder.path().join("portal");
        assert_eq!(make(&path, uid, gid), Ok(Answer::Made));
        fs::write(path.join("file"), "kept").expect("written");
        assert_eq!(make(&path, uid, gid), Ok(Answer::Made));
        assert!(make(&path.join("a/b"), uid, gid).is_err());
    }
}
