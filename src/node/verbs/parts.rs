//! `Parts`: what a supervisor does the acts with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Pair;
use crate::config::Config;
use crate::db::galera::Orders;
use crate::host::account::Account;
use crate::host::address::farewell::Doors;
use crate::node::leftover::Note;
use crate::node::output::Output;
use crate::node::reexec::Requests;
use crate::node::upgrade::Place;

pub struct Parts<'a> {
    pub config: &'a Arc<Config>,
    /// This program.
    pub executable: &'a Path,
    /// The user of the modules.
    pub user: &'a Account,
    pub output: Output,
    pub leftover: Arc<Note>,
    /// Of the front.
    pub doors: Doors,
    /// How often the portal's jobs run.
    pub period: Duration,
    /// The pair that the executable before this one had, where the supervisor replaced itself: what it holds stays.
    pub past: Option<Pair>,
    /// How another executable takes this one's place.
    pub upgrade: Option<(Place, Requests)>,
    /// Where MariaDB is a node of a Galera cluster.
    pub orders: Option<Arc<Orders>>,
    /// Told when this node has a new certificate.
    pub renewed: watch::Sender<()>,
}
