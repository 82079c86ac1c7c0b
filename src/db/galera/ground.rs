//! `Ground`: the data folder of a server that does not run. Looks at it, and makes it ready for one start. Root's; the folder is the
//! database user's, so nothing in it is followed or believed beyond its form.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::libc::O_NOFOLLOW;

use super::render;
use crate::base::file::{Access, replace};
use crate::config::Config;
use crate::db::recovery::{How, Position, Report, Uuid, grastate, recovered, view};
use crate::host::account::Account;
use crate::host::command::Program;
use crate::net::listen;

/// Both files have some hundred bytes.
const LONGEST: u64 = 16 << 10;
/// The server applies its redo log for it, as at each start; a large one takes minutes.
const RECOVERY: Duration = Duration::from_secs(3600);

const GRASTATE: &str = "grastate.dat";
const VIEW: &str = "gvwstate.dat";

pub struct Ground {
    pub config: Arc<Config>,
    /// `mariadbd`.
    pub binary: PathBuf,
    /// The configuration that we rendered.
    pub defaults: PathBuf,
    pub account: Account,
}

/// One start, as the agent orders it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub how: How,
    /// Of the election that it belongs to.
    pub epoch: u64,
    /// That of the report which the decision was made from.
    pub position: Position,
    /// Of all nodes of the group.
    pub group: Vec<IpAddr>,
}

impl Ground {
    /// Takes as long as the server needs to recover its data.
    pub async fn look(&self) -> anyhow::Result<Report> {
        let data = self.config.db_data();
        let kept = bytes(&data.join(GRASTATE))?;
        let state = kept.as_deref().and_then(grastate::parse);
        let position = match (&kept, state) {
            (None, _) => Position::NONE,
            // Emptied for a copy of another node's data that did not come to its end.
            (_, Some(state)) if state.position.uuid.is_zero() => Position::NONE,
            (_, Some(state)) if state.position.is_known() => state.position,
            _ => self.recovered(state.map(|state| state.position.uuid)).await?,
        };
        let view = bytes(&data.join(VIEW))?;
        Ok(Report {
            position,
            is_safe: state.is_some_and(|state| state.is_safe),
            is_galera: kept.is_some(),
            has_portal: data.join(&self.config.portal.database).is_dir(),
            view: view.as_deref().and_then(view::parse),
            epoch: self.epoch()?,
            was_restored: false,
        })
    }

    /// Data without a number are not empty: they are told as such, and where not even their history is known they are no report.
    async fn recovered(&self, history: Option<Uuid>) -> anyhow::Result<Position> {
        let found = self.recover().await?;
        match history {
            _ if found.is_known() => Ok(found),
            Some(uuid) => Ok(Position { uuid, seqno: -1 }),
            None => anyhow::bail!("there are data, and neither {GRASTATE} nor they themselves say of which history"),
        }
    }

    async fn recover(&self) -> anyhow::Result<Position> {
        let run = Program::new(&self.binary)
            .arg(format!("--defaults-file={}", self.defaults.display()))
            .arg(format!("--user={}", self.account.name))
            // The configured method wants to be told of the others, whom it does not meet now; this one does not.
            .args(["--wsrep-recover", "--disable-log-error", "--wsrep-sst-method=mysqldump"]);
        let finished = run.run(RECOVERY).await.context("read the position of the data")?;
        let found = recovered::parse(&finished.errors).or_else(|| recovered::parse(&finished.output));
        found.with_context(|| {
            let last = finished
                .errors
                .lines()
                .rev()
                .find(|line| line.contains("[ERROR]"))
                .unwrap_or_default();
            format!("the data cannot be recovered: {last}")
        })
    }

    /// Of a server that runs.
    pub fn history(&self) -> Option<Uuid> {
        let kept = bytes(&self.config.db_data().join(GRASTATE)).ok()??;
        let uuid = grastate::parse(&kept)?.position.uuid;
        (!uuid.is_zero()).then_some(uuid)
    }

    /// Whether the server listens for the others. A visit would tell no more, and leave an error in its log.
    pub fn meets(&self) -> bool {
        let address = self.config.cluster.address.parse();
        let taken = address.map(|address| listen::is_taken(SocketAddr::new(address, render::PORTS[0])));
        // What cannot be looked at is taken for well.
        !matches!(taken, Ok(Ok(false)))
    }

    /// 0: it was not started under any.
    fn epoch(&self) -> anyhow::Result<u64> {
        let kept = bytes(&self.config.db_epoch())?;
        let text = kept.as_deref().map(String::from_utf8_lossy);
        text.map_or(Ok(0), |text| {
            text.trim()
                .parse()
                .with_context(|| self.config.db_epoch().display().to_string())
        })
    }

    /// Makes the folder ready; returns what the server is told beside its configuration. `report`: the last look.
    pub fn prepare(&self, order: &Order, report: &Report) -> anyhow::Result<Vec<OsString>> {
        ensure!(
            order.position == report.position,
            "the data are at {}, not at {}",
            report.position,
            order.position
        );
        ensure!(
            order.epoch >= report.epoch,
            "the data are from election {}, which is later",
            report.epoch
        );
        let data = self.config.db_data();
        if order.how == How::Anew {
            // Before the epoch that its data have nothing to do with: one that ends in between is empty, and takes a copy all the same.
            self.keep(&grastate::render(Position::NONE, false))?;
        }
        if order.how != How::Restore {
            // First the view, then the epoch that it is not of.
            remove(&data.join(VIEW))?;
            let epoch = format!("{}\n", order.epoch);
            replace(&self.config.db_epoch(), epoch.as_bytes(), Access::mode(0o600))?;
        }
        if order.how == How::Bootstrap && report.is_galera {
            self.keep(&grastate::render(order.position, true))?;
        }
        // What it says of its last run holds no more.
        remove(&self.config.db_galera_status())?;
        let mut arguments = vec![format!("--wsrep-cluster-address={}", render::group(&order.group)).into()];
        if order.position.is_known() && order.how != How::Anew {
            arguments.push(format!("--wsrep-start-position={}", order.position).into());
        }
        if order.how == How::Bootstrap {
            // On the command line of this one start, and nowhere else.
            arguments.push("--wsrep-new-cluster".into());
        }
        Ok(arguments)
    }

    fn keep(&self, state: &str) -> anyhow::Result<()> {
        let access = Access::owned(0o660, self.account.uid, self.account.gid);
        replace(&self.config.db_data().join(GRASTATE), state.as_bytes(), access).context(GRASTATE)
    }
}

/// `None`: there is no such file.
fn bytes(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let named = || path.display().to_string();
    let file = match OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(named),
    };
    ensure!(file.metadata()?.is_file(), "{} is no file", path.display());
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).with_context(named)?;
    Ok(Some(bytes))
}

/// For good, also after a power cut.
fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| path.display().to_string());
        }
        _ => {}
    }
    let parent = path.parent().context("a file needs a folder")?;
    File::open(parent)?.sync_all().context("keep what was removed away")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const UUID: &str = "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b";

    fn ground(folder: &Path) -> Ground {
        let text = format!("[node]\ndata_dir = {folder:?}\nrun_dir = {folder:?}");
        let config = Arc::new(parse(&text, std::iter::empty()).unwrap().config);
        fs::create_dir_all(config.db_data()).unwrap();
        Ground {
            config,
            binary: "/bin/false".into(),
            defaults: folder.join("my.cnf"),
            account: Account {
                name: "nobody".into(),
                uid: nix::unistd::geteuid().as_raw(),
                gid: nix::unistd::getegid().as_raw(),
            },
        }
    }

    fn put(ground: &Ground, name: &str, text: &str) {
        fs::write(ground.config.db_data().join(name), text).unwrap();
    }

    fn stopped(seqno: &str) -> String {
        format!("# GALERA saved state\nversion: 2.1\nuuid:    {UUID}\nseqno:   {seqno}\nsafe_to_bootstrap: 0\n")
    }

    #[tokio::test]
    async fn a_new_folder_is_empty_and_one_that_stopped_in_order_knows_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let ground = ground(folder.path());
        let report = ground.look().await.unwrap();
        assert_eq!(
            (report.position, report.is_galera, report.epoch),
            (Position::NONE, false, 0)
        );
        put(&ground, GRASTATE, &stopped("77"));
        let report = ground.look().await.unwrap();
        assert_eq!((report.position.seqno, report.is_galera, report.view), (77, true, None));
    }

    #[tokio::test]
    async fn data_whose_number_cannot_be_found_are_no_report() {
        let folder = tempfile::tempdir().unwrap();
        let ground = ground(folder.path());
        for text in [&stopped("-1"), "half a fi"] {
            put(&ground, GRASTATE, text);
            ground.look().await.expect_err("nothing recovers");
        }
        fs::remove_file(ground.config.db_data().join(GRASTATE)).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", ground.config.db_data().join(GRASTATE)).unwrap();
        ground.look().await.expect_err("a link is not followed");
    }

    #[tokio::test]
    async fn data_that_are_given_up_are_of_their_old_election_until_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let ground = ground(folder.path());
        put(&ground, GRASTATE, &stopped("77"));
        put(&ground, VIEW, "old");
        let report = ground.look().await.unwrap();
        let order = |how, epoch| Order {
            how,
            epoch,
            position: report.position,
            group: vec!["10.0.0.1".parse().unwrap()],
        };
        ground.prepare(&order(How::Join, 2), &report).unwrap();
        // What cannot be replaced stands for an end at this moment.
        let path = ground.config.db_data().join(GRASTATE);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        ground.prepare(&order(How::Anew, 5), &report).unwrap_err();
        fs::remove_dir(&path).unwrap();
        put(&ground, GRASTATE, &stopped("77"));
        assert_eq!(ground.look().await.unwrap().epoch, 2);
        ground.prepare(&order(How::Anew, 5), &report).unwrap();
        let now = ground.look().await.unwrap();
        assert_eq!((now.epoch, now.position), (5, Position::NONE));
    }

    #[tokio::test]
    async fn only_a_bootstrap_says_new_cluster_and_joining_forgets_the_old_view() {
        let folder = tempfile::tempdir().unwrap();
        let ground = ground(folder.path());
        put(&ground, GRASTATE, &stopped("77"));
        put(&ground, VIEW, "old");
        let report = ground.look().await.unwrap();
        let order = |how, epoch| Order {
            how,
            epoch,
            position: report.position,
            group: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
        };
        let address = "--wsrep-cluster-address=gcomm://10.0.0.1:4567,10.0.0.2:4567";
        let position = format!("--wsrep-start-position={UUID}:77");
        let has_view = || ground.config.db_data().join(VIEW).exists();
        assert_eq!(
            ground.prepare(&order(How::Restore, 0), &report).unwrap(),
            [address, &position]
        );
        assert!(has_view());
        assert_eq!(
            ground.prepare(&order(How::Join, 3), &report).unwrap(),
            [address, &position]
        );
        assert!(!has_view());
        assert_eq!(ground.prepare(&order(How::Anew, 3), &report).unwrap(), [address]);
        assert_eq!(
            ground.look().await.unwrap().position,
            Position::NONE,
            "it has nothing any more"
        );
        let begin = ground.prepare(&order(How::Bootstrap, 4), &report).unwrap();
        assert_eq!(begin, [address, &position, "--wsrep-new-cluster"]);
        let now = ground.look().await.unwrap();
        assert_eq!((now.is_safe, now.epoch, now.position), (true, 4, report.position));
        ground
            .prepare(&order(How::Join, 3), &now)
            .expect_err("an election that is over");
        let elsewhere = Order {
            position: Position::NONE,
            ..order(How::Join, 5)
        };
        ground.prepare(&elsewhere, &now).expect_err("decided from other data");
    }
}
