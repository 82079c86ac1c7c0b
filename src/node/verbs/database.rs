//! MariaDB as a node of a Galera cluster: what its data say, one start by order, an orderly end.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::MINUTE;
use crate::base::Scope;
use crate::config::Config;
use crate::db::galera::ground::Order;
use crate::db::galera::group::Group;
use crate::db::galera::{Orders, writer};
use crate::host::account;
use crate::host::verb::{Answer, GROUP, How};
use crate::node::{galera, prepare};

const NONE: &str = "MariaDB is no node of a Galera cluster here";

pub fn state(orders: Option<&Orders>) -> Answer {
    match orders {
        None => Answer::refused(NONE),
        Some(orders) => Answer::Database {
            state: serde_json::to_string(&orders.state()).expect("plain data"),
        },
    }
}

pub async fn start(orders: Option<&Orders>, how: How, epoch: u64, position: &str, group: Vec<IpAddr>) -> Answer {
    let Some(orders) = orders else {
        return Answer::refused(NONE);
    };
    let Ok(position) = position.parse() else {
        return Answer::refused("that is no position");
    };
    let is_usable = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
    if group.is_empty() || group.len() > GROUP || !group.iter().all(is_usable) {
        return Answer::refused("that is no group of nodes");
    }
    let order = Order {
        how,
        epoch,
        position,
        group,
    };
    match orders.give(order).await {
        Ok(()) => Answer::Done,
        Err(why) => Answer::refused(why),
    }
}

pub async fn group(orders: Option<&Orders>, group: &Group, weight: u8) -> Answer {
    if orders.is_none() {
        return Answer::refused(NONE);
    }
    if !(1..=2).contains(&weight) {
        return Answer::refused("that is no weight");
    }
    match group.ask(weight).await {
        Ok(nodes) => Answer::Group { nodes },
        Err(error) => Answer::refused(format!("{error:#}")),
    }
}

pub fn end(orders: Option<&Orders>) -> Answer {
    let Some(orders) = orders else {
        return Answer::refused(NONE);
    };
    info!("the agent has MariaDB end: it is in no Primary component, and another node waits to begin");
    orders.end();
    Answer::Done
}

/// Has MariaDB use this node's certificate each time there is a new one, until the scope drains. `goes_on`: it runs since before this
/// supervisor, which does not know what it uses.
pub async fn renew(config: Arc<Config>, renewed: watch::Receiver<()>, goes_on: bool, scope: Scope) {
    let act = || async {
        let account = account::require(prepare::DB_USER)?;
        galera::trust(&config, &account).context("copy the certificate for MariaDB")?;
        writer::renew(&config.db_socket()).await
    };
    repeat(renewed, goes_on, act, scope).await;
}

/// For each new certificate, and again each minute until it is done: the one before ends ten days later.
async fn repeat<F: Future<Output = anyhow::Result<()>>>(
    mut renewed: watch::Receiver<()>,
    mut is_owed: bool,
    act: impl Fn() -> F,
    scope: Scope,
) {
    loop {
        let is_new = tokio::select! {
            () = scope.draining() => return,
            changed = renewed.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            () = sleep(MINUTE), if is_owed => false,
        };
        is_owed = match act().await {
            Ok(()) => false,
            Err(error) => {
                let error = format!("{error:#}");
                // Once; one that does not run is not told before it does.
                match is_new {
                    true => warn!(
                        error,
                        "MariaDB does not take this node's new certificate; it is told again each minute"
                    ),
                    false => debug!(error, "MariaDB does not take this node's certificate yet"),
                }
                true
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn a_new_certificate_is_told_until_it_is_taken() {
        for is_owed in [false, true] {
            let (renewed, scope) = (watch::Sender::new(()), Scope::new());
            let (told, mut acts) = mpsc::unbounded_channel();
            let answers = std::sync::Mutex::new([Ok(()), Err("busy"), Err("away")].to_vec());
            let act = move || {
                let answer = answers.lock().expect("whole").pop().expect("no more than that");
                told.send(answer).expect("heard");
                std::future::ready(answer.map_err(anyhow::Error::msg))
            };
            scope.spawn(repeat(renewed.subscribe(), is_owed, act, scope.clone()));
            if !is_owed {
                sleep(10 * MINUTE).await;
                assert!(acts.try_recv().is_err(), "there is nothing new");
                renewed.send_replace(());
            }
            for expected in [Err("away"), Err("busy"), Ok(())] {
                assert_eq!(acts.recv().await, Some(expected));
            }
            sleep(10 * MINUTE).await;
            assert!(acts.try_recv().is_err(), "it is done");
            scope.stop(std::time::Duration::ZERO).await;
        }
    }
}
