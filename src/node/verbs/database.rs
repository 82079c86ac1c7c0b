//! MariaDB as a node of a Galera cluster: what its data say, one start by order, an orderly end.

use std::net::IpAddr;

use anyhow::Context;
use tracing::{info, warn};

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

/// Has MariaDB use this node's new certificate, too. What fails is tried again with the next one, long before this one's end.
pub async fn renew(config: &Config) {
    let work = async {
        let account = account::require(prepare::DB_USER)?;
        galera::trust(config, &account).context("copy the certificate for MariaDB")?;
        writer::renew(&config.db_socket()).await
    };
    if let Err(error) = work.await {
        warn!(
            error = format!("{error:#}"),
            "MariaDB goes on with the certificate that it had; it takes the new one at its next start"
        );
    }
}
