//! Which act each verb is.

use std::sync::Arc;

use super::holder::Holder;
use super::{renew, secrets, sign, upgrade};
use crate::config::Config;
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
            Verb::Renew { certificate } => renew::renew(&self.config, &self.user, &certificate),
            Verb::Upgrade { hash } => match &self.upgrade {
                Some((place, requests)) => upgrade::upgrade(&self.config, place, requests, &hash).await,
                None => Answer::refused("nothing takes the place of this executable"),
            },
        }
    }
}
