//! The cluster's certificates as this front shows them, and the answers to a directory that looks whether names are ours
//! (http-01, RFC 8555 §8.3), and the keys of session tickets that all its fronts have. Follows the snapshots; connections that are open
//! stay as they are.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use tracing::{info, warn};

use super::service::Front;
use crate::base::{Scope, clock};
use crate::cert::tickets::{TICKETS, opened};
use crate::cert::{PREFIX, Sealer, Served, served};
use crate::cluster::Snapshots;
use crate::net::tls::{Named, Store, TicketKey};

/// Where a directory looks. Who asks for another token there is answered by the portal.
const PLACE: &str = "/.well-known/acme-challenge/";

/// Answers by token.
#[derive(Debug, Default)]
pub struct Answers(RwLock<Arc<BTreeMap<String, String>>>);

impl Answers {
    /// The key authorization that belongs at this path.
    pub fn get(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(PLACE)?;
        let known = self.0.read().expect("nothing panics under this lock");
        known.get(token).cloned()
    }

    fn replace(&self, answers: BTreeMap<String, String>) {
        *self.0.write().expect("nothing panics under this lock") = Arc::new(answers);
    }
}

/// Runs until the scope drains. Without a `store` there are no listeners with TLS.
pub async fn follow(
    sealer: Sealer,
    front: Arc<Front>,
    store: Option<Arc<Store>>,
    mut snapshots: Snapshots,
    scope: Scope,
) {
    let (mut known, mut tickets) = (None, None);
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let ours = snapshot.settings.iter().filter(|(key, _)| key.starts_with(PREFIX));
        let ours: BTreeMap<String, String> = ours.map(|(key, text)| (key.clone(), text.clone())).collect();
        let domain = front.setup().domain.clone();
        // An agent that has just started knows nothing yet: what was known holds.
        if snapshot.revision > 0 && known.as_ref() != Some(&(domain.clone(), ours.clone())) {
            let served = served(&ours, &sealer);
            show(&served, &domain, store.as_deref());
            front.answers.replace(served.answers);
            known = Some((domain, ours));
        }
        let setting = snapshot.settings.get(TICKETS);
        if let Some(store) = &store
            && snapshot.revision > 0
            && tickets.as_ref() != setting
        {
            give_keys(setting, &sealer, store);
            tickets = setting.cloned();
        }
        tokio::select! {
            () = scope.draining() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}

/// Tickets are made and opened by these keys from now on.
fn give_keys(setting: Option<&String>, sealer: &Sealer, store: &Store) {
    let keys = setting.map(|setting| opened(setting, clock::unix().as_secs(), sealer));
    let keys = keys.transpose().unwrap_or_else(|error| {
        warn!(%error, "sessions are resumed in this process alone");
        None
    });
    let keys = keys.unwrap_or_default().into_iter();
    let keys = keys.map(|key| TicketKey::new(key.name, &key.secret, key.left));
    store.tickets().replace(keys.collect());
}

fn show(served: &Served, domain: &str, store: Option<&Store>) {
    for fault in &served.faults {
        warn!(fault, "a certificate of the cluster is not shown");
    }
    let Some(store) = store else { return };
    let mut named = Named::new(domain);
    for (names, chain, key) in &served.certificates {
        if let Err(error) = named.add(names, chain, key) {
            warn!(name = names.first(), %error, "a certificate of the cluster is not shown");
        }
    }
    for (name, authorization) in &served.challenges {
        if let Err(error) = named.add_challenge(name, authorization) {
            warn!(name, %error, "a challenge cannot be answered");
        }
    }
    info!(
        certificates = served.certificates.len(),
        challenges = served.answers.len() + served.challenges.len(),
        "certificates are taken from the cluster"
    );
    store.replace(named);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_token_at_its_place_is_answered() {
        let answers = Answers::default();
        answers.replace([("t1".to_string(), "t1.k".to_string())].into());
        assert_eq!(answers.get("/.well-known/acme-challenge/t1").as_deref(), Some("t1.k"));
        for path in [
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/t2",
            "/t1",
            "/x/.well-known/acme-challenge/t1",
        ] {
            assert_eq!(answers.get(path), None, "{path}");
        }
    }
}
