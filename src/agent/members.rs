//! The storage's group follows the registry: whoever joins the cluster gets a copy of the files, and who left is let go. The agent
//! of the node whose storage leads does it. Members that the registry does not know were added by hand, and stay.
//!
//! Every node is a data replica: the storage knows no node without one but a witness. Which replicas vote is the storage's own
//! matter (`storage::membership`): three by default, the others learn.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::base::Scope;
use crate::config::{Config, Engine, Port};
use crate::net::mesh::Caller;
use crate::registry::{NodeState, View};
use crate::storage::command::{Command, Report, Role, ask};
use crate::storage::mesh::LIMITS;

/// A node waits so long for its copy to begin.
const LOOK: Duration = Duration::from_secs(2);
/// Keeps the group as the registry says, while this node's storage leads, until the scope drains.
pub async fn keep(config: Arc<Config>, views: watch::Receiver<Option<Arc<View>>>, scope: Scope) {
    if config.storage.engine != Engine::Replicated || config.storage_mesh().is_none() {
        return;
    }
    let mut last_trouble = String::new();
    loop {
        tokio::select! {
            () = scope.draining() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let view = views.borrow().clone();
        let Some(view) = view.filter(|view| !view.is_last_seen) else {
            continue;
        };
        match look(&config, &view).await {
            Ok(()) => last_trouble.clear(),
            Err(error) => {
                let error = format!("{error:#}");
                // Said once: it is tried again and again.
                if error == last_trouble {
                    debug!(error, "the storage's members are not as the registry has them");
                } else {
                    warn!(error, "the storage's members are not as the registry has them");
                    last_trouble = error;
                }
            }
        }
    }
}

async fn look(config: &Config, view: &View) -> anyhow::Result<()> {
    // While the storage starts there is nothing to do.
    let Ok(stream) = UnixStream::connect(config.storage_socket()).await else {
        return Ok(());
    };
    let scope = Scope::new();
    let caller = Caller::start(stream, LIMITS, &scope);
    let done = follow(&caller, view).await;
    drop(caller);
    scope.stop(Duration::ZERO).await;
    done
}

async fn follow(caller: &Caller, view: &View) -> anyhow::Result<()> {
    let report: Report = ask(caller, &Command::Status).await.context("ask the storage")?;
    if report.role != Role::Leader {
        return Ok(());
    }
    let mut trouble = Ok(());
    for command in wanted(&report, view) {
        let text = match &command {
            Command::Add { name, address, .. } => format!("take {name} at {address} in"),
            Command::Remove { name } => format!("let {name} go"),
            _ => String::new(),
        };
        // One that is away must not keep the others waiting.
        match ask::<()>(caller, &command).await {
            Ok(()) => info!(done = text, "the storage follows the registry"),
            Err(error) => trouble = Err(error.context(text)),
        }
    }
    trouble
}

/// What the leader has to do. Pure.
fn wanted(report: &Report, view: &View) -> Vec<Command> {
    let is_member = |name: &str| report.members.iter().any(|member| member.name == name);
    let mut commands = Vec::new();
    for node in view.nodes() {
        if node.state == NodeState::Left {
            // It cannot let itself go; when it stops, another one leads and does.
            if is_member(&node.name) && node.name != report.node {
                let name = node.name.clone();
                commands.push(Command::Remove { name });
            }
            continue;
        }
        let agent = node.address.parse().ok();
        let Some(address) = agent.and_then(|agent| Port::Storage.counted_from(agent)) else {
            continue;
        };
        if is_member(&node.name) {
            continue;
        }
        commands.push(Command::Add {
            name: node.name.clone(),
            address: address.to_string(),
            witness: false,
        });
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Node, Record};
    use crate::storage::command::Member;

    fn node(name: &str, address: &str, state: NodeState) -> Record {
        Record::Node(Node {
            name: name.into(),
            address: address.into(),
            state,
            labels: Default::default(),
            version: String::new(),
        })
    }

    #[test]
    fn nodes_are_taken_in_and_let_go_as_the_registry_says() {
        let report = Report {
            node: "n1".into(),
            role: Role::Leader,
            members: ["n1", "n3", "by-hand"]
                .map(|name| Member {
                    name: name.into(),
                    ..Member::default()
                })
                .into(),
            ..Report::default()
        };
        let view = View::from_records([
            node("n1", "10.0.0.1:7400", NodeState::Left),
            node("n2", "10.0.0.2:7400", NodeState::Joining),
            node("n3", "10.0.0.3:7400", NodeState::Left),
            node("n4", "", NodeState::Member),
            node("n5", "[fd00::5]:7400", NodeState::Draining),
            node("n6", "10.0.0.6:7400", NodeState::Left),
        ]);
        let done: Vec<String> = wanted(&report, &view)
            .into_iter()
            .map(|command| match command {
                Command::Add { name, address, witness } => format!("+{name} {address} {witness}"),
                Command::Remove { name } => format!("-{name}"),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(done, ["+n2 10.0.0.2:7401 false", "-n3", "+n5 [fd00::5]:7401 false"]);
    }
}
