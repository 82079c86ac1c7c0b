//! What this node does next about another version of bitrix-node in the whole cluster. Pure.
//!
//! One node at a time: whose turn it is stands in the registry, and only a free turn can be taken. Nodes that hold nothing go first,
//! the storage's leader last, for each change of the leader makes the files wait. Whoever is silent is passed over; once the others
//! are done, its operator resumes the roll when it is back. Whoever fails gives the turn back and stops the whole: a version that
//! one node cannot run is not tried on the next. A node that runs it and is not well goes back to the version before.

use std::time::Duration;

/// A node whose turn it is must be well for so long before it is given work again.
pub const SETTLED: Duration = Duration::from_secs(10);

/// A turn that has not come to its end after so long has failed: a machine may be slow, but the others wait for it.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// What the operator wants, and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    #[default]
    Nothing,
    Running,
    /// By the operator, or because a node failed.
    Paused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub is_live: bool,
    /// It serves: front, PHP and its copy of the files.
    pub is_well: bool,
    /// Of the new version.
    pub is_new: bool,
    /// It takes no new work.
    pub is_draining: bool,
    /// Exclusive seats that it holds and others can take.
    pub seats: usize,
    /// Its storage leads.
    pub leads: bool,
}

/// How this node's own last attempt went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Attempt {
    #[default]
    None,
    UnderWay,
    Failed(String),
}

#[derive(Clone, Debug, Default)]
pub struct Sight {
    pub own: String,
    pub nodes: Vec<Node>,
    pub plan: Plan,
    /// Whose turn it is.
    pub turn: Option<String>,
    pub attempt: Attempt,
    /// Since this node's turn began.
    pub waited: Duration,
    /// For how long this node has been well, as the new version.
    pub settled: Duration,
    /// The operator said that it may cost service: there is nobody else who could serve.
    pub may_stop: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing, and why.
    Wait(String),
    /// Take the turn, and drain this node.
    Begin,
    /// Replace this node's executable.
    Replace,
    /// Give the turn back and take work again.
    Finish,
    /// The same, and nobody else tries.
    Fail(String),
    /// The same, and this node takes the version before back.
    GoBack(String),
    /// All that live are of the new version.
    Complete,
}

pub fn decide(sight: &Sight) -> Act {
    let Some(own) = sight.nodes.iter().find(|node| node.name == sight.own) else {
        return wait("this node is not enrolled");
    };
    match &sight.turn {
        Some(turn) if *turn == sight.own => mine(sight, own),
        // One that has left for good does not end its turn.
        Some(turn) if sight.nodes.iter().any(|node| node.name == *turn) => wait(format!("it is the turn of {turn}")),
        _ if sight.plan != Plan::Running => wait("nobody asked for another version, or it is paused"),
        _ => free(sight, own),
    }
}

/// What was begun is brought to its end, also when the plan was paused meanwhile: a node is not left drained.
fn mine(sight: &Sight, own: &Node) -> Act {
    let is_late = sight.waited > PATIENCE;
    if own.is_new {
        return match sight.settled >= SETTLED {
            true => Act::Finish,
            false if is_late => Act::GoBack("it runs the new version, and is not well".to_owned()),
            false => wait("this node is of the new version, and not well for long enough"),
        };
    }
    match &sight.attempt {
        Attempt::Failed(why) => Act::Fail(why.clone()),
        Attempt::UnderWay => wait("this node is being replaced"),
        Attempt::None if sight.plan != Plan::Running => Act::Finish,
        Attempt::None if own.is_draining && own.seats == 0 => Act::Replace,
        // Seats that nobody else can take are left while the node restarts, which its operator accepted or which costs a moment only.
        Attempt::None if own.is_draining && !can_anybody_take(sight) => Act::Replace,
        Attempt::None if is_late => Act::Fail("nobody takes over what it holds".to_owned()),
        Attempt::None => wait("this node is not empty yet"),
    }
}

fn free(sight: &Sight, own: &Node) -> Act {
    let live = || sight.nodes.iter().filter(|node| node.is_live);
    if live().all(|node| node.is_new) {
        return Act::Complete;
    }
    if let Some(ill) = live().find(|node| !node.is_well) {
        return wait(format!("{} is not well", ill.name));
    }
    if live().count() < 2 && !sight.may_stop {
        return wait("nobody else could serve meanwhile");
    }
    let first = live()
        .filter(|node| !node.is_new)
        .min_by_key(|node| (node.leads, node.seats, node.name.clone()));
    match first {
        Some(first) if first.name == own.name => Act::Begin,
        Some(first) => wait(format!("{} is before this node", first.name)),
        None => Act::Complete,
    }
}

fn can_anybody_take(sight: &Sight) -> bool {
    let mut others = sight.nodes.iter().filter(|node| node.name != sight.own);
    others.any(|node| node.is_live && node.is_well && !node.is_draining)
}

fn wait(why: impl Into<String>) -> Act {
    Act::Wait(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        Node {
            name: name.into(),
            is_live: true,
            is_well: true,
            is_new: false,
            is_draining: false,
            seats: 0,
            leads: false,
        }
    }

    fn three() -> Vec<Node> {
        let mut nodes = ["n1", "n2", "n3"].map(node);
        nodes[0].leads = true;
        nodes[1].seats = 2;
        nodes.into()
    }

    fn sight(own: &str) -> Sight {
        Sight {
            own: own.into(),
            nodes: three(),
            plan: Plan::Running,
            ..Sight::default()
        }
    }

    /// Who begins, of all nodes that see the same.
    fn beginners(nodes: &[Node]) -> Vec<String> {
        let begins = |own: &&Node| {
            let sight = Sight {
                nodes: nodes.to_vec(),
                ..sight(&own.name)
            };
            decide(&sight) == Act::Begin
        };
        nodes.iter().filter(begins).map(|node| node.name.clone()).collect()
    }

    #[test]
    fn holders_of_nothing_go_first_and_the_leader_last() {
        let mut nodes = three();
        for expected in ["n3", "n2", "n1"] {
            assert_eq!(beginners(&nodes), [expected]);
            let done = nodes.iter_mut().find(|node| node.name == expected).unwrap();
            done.is_new = true;
        }
        assert!(beginners(&nodes).is_empty());
        let sight = Sight { nodes, ..sight("n1") };
        assert_eq!(decide(&sight), Act::Complete);
    }

    #[test]
    fn nobody_begins_while_one_is_ill_and_the_silent_are_passed_over() {
        let mut nodes = three();
        nodes[0].is_well = false;
        assert!(beginners(&nodes).is_empty());
        nodes[0].is_live = false;
        assert_eq!(beginners(&nodes), ["n3"]);
        nodes[2].is_live = false;
        // The last one that serves.
        assert!(beginners(&nodes).is_empty());
        let mut alone = Sight { nodes, ..sight("n2") };
        alone.may_stop = true;
        assert_eq!(decide(&alone), Act::Begin);
    }

    #[test]
    fn one_node_takes_its_turn_step_by_step() {
        let mut sight = sight("n3");
        assert_eq!(decide(&sight), Act::Begin);
        sight.turn = Some("n3".into());
        sight.nodes[2].is_draining = true;
        sight.nodes[2].seats = 1;
        assert!(matches!(decide(&sight), Act::Wait(_)), "it holds a seat still");
        sight.nodes[2].seats = 0;
        assert_eq!(decide(&sight), Act::Replace);
        sight.attempt = Attempt::UnderWay;
        assert!(matches!(decide(&sight), Act::Wait(_)));
        sight.attempt = Attempt::None;
        sight.nodes[2].is_new = true;
        sight.settled = SETTLED / 2;
        assert!(matches!(decide(&sight), Act::Wait(_)));
        sight.settled = SETTLED;
        assert_eq!(decide(&sight), Act::Finish);
        let others = Sight {
            own: "n2".into(),
            ..sight
        };
        assert!(matches!(decide(&others), Act::Wait(why) if why.contains("n3")));
    }

    #[test]
    fn a_turn_does_not_last_for_ever() {
        let mut sight = sight("n3");
        sight.turn = Some("n3".into());
        sight.nodes[2].is_draining = true;
        sight.nodes[2].seats = 1;
        sight.waited = PATIENCE * 2;
        assert!(matches!(decide(&sight), Act::Fail(_)), "nobody takes its seat");
        sight.nodes[2].is_new = true;
        assert!(matches!(decide(&sight), Act::GoBack(_)), "it is not well");
        // Whose turn it is has left the cluster.
        (sight.turn, sight.nodes[2].is_new) = (Some("n9".into()), false);
        assert_eq!(decide(&sight), Act::Begin);
    }

    #[test]
    fn a_failure_stops_the_whole() {
        let mut sight = sight("n3");
        sight.turn = Some("n3".into());
        sight.attempt = Attempt::Failed("it ended".into());
        assert_eq!(decide(&sight), Act::Fail("it ended".into()));
        sight.turn = None;
        sight.plan = Plan::Paused;
        for own in ["n1", "n2", "n3"] {
            sight.own = own.into();
            assert!(matches!(decide(&sight), Act::Wait(_)), "{own}");
        }
    }

    #[test]
    fn a_pause_leaves_no_node_drained() {
        let mut sight = sight("n3");
        (sight.turn, sight.plan) = (Some("n3".into()), Plan::Paused);
        sight.nodes[2].is_draining = true;
        assert_eq!(decide(&sight), Act::Finish);
        // What has begun is waited for.
        sight.attempt = Attempt::UnderWay;
        assert!(matches!(decide(&sight), Act::Wait(_)));
    }

    #[test]
    fn seats_that_nobody_can_take_do_not_hold_it_up() {
        let mut sight = sight("n3");
        sight.turn = Some("n3".into());
        sight.nodes[2].is_draining = true;
        sight.nodes[2].seats = 1;
        sight.nodes[0].is_live = false;
        sight.nodes[1].is_well = false;
        assert_eq!(decide(&sight), Act::Replace);
    }
}
