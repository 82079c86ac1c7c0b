//! Which act each verb is.

use std::sync::Arc;

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
                if answer == Answer::Done && self.config.db.galera {
                    database::renew(&self.config).await;
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
