//! Which act each verb is.

use std::sync::Arc;

use tokio::sync::watch;

use super::holder::Holder;
use super::{database, renew, secrets, sign, upgrade};
use crate::config::Config;
use crate::db::galera::Orders;
use crate::db::galera::group::Group;
use crate::host::account::Account;
use crate::host::verb::{Answer, Verb};
use crate::node::reexec::Requests;
use crate::node::upgrade::Place;

/// What the acts need.
pub struct Acts {
    pub config: Arc<Config>,
    /// The user of the modules.
    pub user: Account,
    pub holder: Arc<Holder>,
    /// Where MariaDB is a node of a Galera cluster.
    pub orders: Option<Arc<Orders>>,
    pub group: Group,
    /// For those that read this node's certificate only when they are told to.
    pub renewed: watch::Sender<()>,
    /// How another executable takes this one's place.
    pub upgrade: Option<(Place, Requests)>,
}

impl Acts {
    pub async fn perform(&self, verb: Verb) -> Answer {
        match verb {
            Verb::Hold { task, epoch, until } => self.holder.hold(task, epoch, until).await,
            Verb::Release { task, is_orderly } => self.holder.release(task, is_orderly).await,
            Verb::Sign { node, key } => sign::sign(&self.config, &node, &key),
            Verb::Secrets => secrets::gather(&self.config),
            Verb::Renew { certificate } => {
                let answer = renew::renew(&self.config, &self.user, &certificate);
                if answer == Answer::Done {
                    self.renewed.send_replace(());
                }
                answer
            }
            Verb::Database => database::state(self.orders.as_deref()),
            Verb::Start {
                how,
                epoch,
                position,
                group,
            } => database::start(self.orders.as_deref(), how, epoch, &position, group).await,
            Verb::Group { weight } => database::group(self.orders.as_deref(), &self.group, weight).await,
            Verb::End => database::end(self.orders.as_deref()),
            Verb::Upgrade { hash } => self.replace(Some(&hash)).await,
            Verb::Revert => self.replace(None).await,
        }
    }

    /// By the staged executable of that hash, or by the one before this.
    async fn replace(&self, hash: Option<&str>) -> Answer {
        match (&self.upgrade, hash) {
            (None, _) => Answer::refused("nothing takes the place of this executable"),
            (Some((place, requests)), Some(hash)) => upgrade::upgrade(&self.config, place, requests, hash).await,
            (Some((place, requests)), None) => upgrade::revert(&self.config, place, requests).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    use crate::host::address::farewell::Doors;
    use crate::host::verb::{Root, Supervisor};
    use crate::net::mesh::identity::requested_key;
    use crate::net::mesh::trust::Trust;
    use crate::node::leftover;
    use crate::node::output::Output;
    use crate::node::verbs::{Parts, Verbs};

    #[tokio::test]
    async fn who_reads_the_certificate_once_is_told_of_a_new_one_and_of_no_other() {
        let folder = tempfile::tempdir().expect("temp dir");
        let text = format!("[node]\nrun_dir = {0:?}\ndata_dir = {0:?}\n", folder.path());
        let config = crate::config::parse(&text, std::iter::empty()).expect("valid").config;
        let trust = Trust::new(config.trust());
        let name = |text: &str| text.parse().expect("a name");
        trust.found(name("c1"), &name("n1"), None).expect("founded");
        let own = requested_key(&trust.request().expect("made")).expect("sound");
        let certificate = trust.sign(&name("n1"), &own).expect("signed");
        let user = Account {
            name: "nobody".into(),
            uid: 65534,
            gid: nix::unistd::getegid().as_raw(),
        };
        let renewed = watch::Sender::new(());
        let told = renewed.subscribe();
        let (verbs, end) = Verbs::start(Parts {
            config: &Arc::new(config),
            executable: Path::new("/nonexistent"),
            user: &user,
            output: Output::journal(),
            leftover: Arc::new(leftover::Note::new(folder.path())),
            doors: Doors::default(),
            period: Duration::from_secs(60),
            past: None,
            upgrade: None,
            orders: None,
            renewed,
        })
        .expect("started");
        let agent = Supervisor::new(end).expect("an end");
        let bad = Verb::Renew {
            certificate: "none".into(),
        };
        assert!(matches!(agent.ask(&bad).await, Ok(Answer::Refused { .. })));
        assert!(!told.has_changed().expect("it lives"));
        assert!(matches!(
            agent.ask(&Verb::Renew { certificate }).await,
            Ok(Answer::Done)
        ));
        assert!(told.has_changed().expect("it lives"));
        verbs.stop().await;
    }
}
