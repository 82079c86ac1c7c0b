//! May it join? Pure: the registry's newest version, who asks, and the time, to a change of the registry or a refusal.

use std::net::SocketAddr;

use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::net::mesh::Name;
use crate::registry::{Change, Guard, Key, Node, NodeState, Record, Token, View, Write};

/// Label of a joining node: the id of the token with which it was let in.
pub const TOKEN: &str = "token";
/// Label of a node: SHA-256 of its public key, in hexadecimal digits.
pub const KEY: &str = "key";

/// Who asks, and what he shows.
pub struct Applicant<'a> {
    /// Of the token.
    pub id: &'a str,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    pub node: &'a Name,
    pub address: SocketAddr,
    /// SHA-256 of the public key, in hexadecimal digits.
    pub key: &'a str,
    pub version: &'a str,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Let in by this change.
    Admit(Change),
    /// It was let in before, and did not get to know or to use it.
    Again,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The asker is told no more than this.
    #[error(
        "the token is not valid: it is unknown, used up, expired or revoked; make one with `bitrix-node token create`"
    )]
    Token(Fault),
    #[error("a node called {0} was removed, and names are not given again; choose another one with --name")]
    Left(Name),
    #[error("{0} is a node already; choose another name with --name")]
    Taken(Name),
    #[error(
        "a machine with another key is joining as {0}; choose another name with --name, or remove that one with \
         `bitrix-node node remove {0} --force`"
    )]
    Joining(Name),
    #[error(
        "the token was used for {0}, which is joining; make another one with `bitrix-node token create`, or go on there \
         with `bitrix-node join`"
    )]
    Spent(String),
    #[error("{0} cannot be a node's address; name the right one with --address")]
    Address(SocketAddr),
    #[error("{address} is the address of {node} already; name the right one with --address")]
    AddressTaken { address: SocketAddr, node: String },
}

/// What is wrong with a token; for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Or used up, or revoked.
    Unknown,
    Secret,
    Expired,
}

/// `now`: milliseconds since 1970. It decides about the age of a token, nothing else.
pub fn decide(view: &View, applicant: &Applicant, now: u64) -> Result<Decision, Refusal> {
    let token = check_token(view, applicant, now).map_err(Refusal::Token)?;
    let name = applicant.node;
    match view.node(name.as_str()) {
        None => {}
        Some(node) if node.state == NodeState::Left => return Err(Refusal::Left(name.clone())),
        Some(node) if node.state != NodeState::Joining => return Err(Refusal::Taken(name.clone())),
        Some(node) if node.labels.get(KEY).is_none_or(|key| key != applicant.key) => {
            return Err(Refusal::Joining(name.clone()));
        }
        Some(_) => {}
    }
    if let Some(other) = holder(view, applicant) {
        return Err(Refusal::Spent(other.name.clone()));
    }
    check_address(view, applicant)?;
    let fresh = joining(applicant);
    let key = Key::Node(name.to_string());
    let guard = match view.get(&key) {
        Some(Record::Node(known)) if *known == fresh => return Ok(Decision::Again),
        // Another address or token than the first time.
        Some(known) => Guard::Is(known.clone()),
        None => Guard::Absent(key),
    };
    let event = format!("{name} at {} joins with token {}", applicant.address, token.id);
    let change = Change::put(Record::Node(fresh)).and(Write::Event(event));
    // That nobody else holds the token is known of this version only.
    let guards = [
        Guard::Is(Record::Token(token.clone())),
        guard,
        Guard::Revision(view.revision),
    ];
    Ok(Decision::Admit(guards.into_iter().fold(change, Change::when)))
}

/// Who was let in with the token under another name and has not used it up yet.
fn holder<'a>(view: &'a View, applicant: &Applicant) -> Option<&'a Node> {
    view.nodes().find(|node| {
        node.name != applicant.node.as_str()
            && node.state != NodeState::Left
            && node.labels.get(TOKEN).is_some_and(|id| id == applicant.id)
    })
}

fn check_token<'a>(view: &'a View, applicant: &Applicant, now: u64) -> Result<&'a Token, Fault> {
    let token = view
        .tokens()
        .find(|token| token.id == applicant.id)
        .ok_or(Fault::Unknown)?;
    if !bool::from(token.hash.ct_eq(&applicant.hash)) {
        return Err(Fault::Secret);
    }
    match now < token.expires {
        true => Ok(token),
        false => Err(Fault::Expired),
    }
}

fn check_address(view: &View, applicant: &Applicant) -> Result<(), Refusal> {
    let address = applicant.address;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        return Err(Refusal::Address(address));
    }
    let holder = view.nodes().find(|node| {
        node.state != NodeState::Left && node.name != applicant.node.as_str() && node.address.parse() == Ok(address)
    });
    match holder {
        Some(node) => Err(Refusal::AddressTaken {
            address,
            node: node.name.clone(),
        }),
        None => Ok(()),
    }
}

fn joining(applicant: &Applicant) -> Node {
    Node {
        name: applicant.node.to_string(),
        address: applicant.address.to_string(),
        state: NodeState::Joining,
        labels: [(TOKEN, applicant.id), (KEY, applicant.key)]
            .map(|(label, value)| (label.to_string(), value.to_string()))
            .into(),
        version: applicant.version.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::MemoryRegistry;
    use crate::registry::Registry;

    const NOW: u64 = 1_000_000;

    struct Case {
        records: Vec<Record>,
        id: &'static str,
        hash: [u8; 32],
        node: Name,
        address: SocketAddr,
        key: &'static str,
    }

    fn node(name: &str, address: &str, state: NodeState, labels: &[(&str, &str)]) -> Record {
        Record::Node(Node {
            name: name.into(),
            address: address.into(),
            state,
            labels: labels
                .iter()
                .map(|(label, value)| (label.to_string(), value.to_string()))
                .collect(),
            version: "1".into(),
        })
    }

    impl Case {
        fn new() -> Self {
            let token = Token {
                id: "t1".into(),
                hash: [7; 32],
                expires: NOW + 1,
            };
            Case {
                records: vec![
                    Record::Token(token),
                    node("n1", "10.0.0.1:7400", NodeState::Member, &[]),
                ],
                id: "t1",
                hash: [7; 32],
                node: "n2".parse().unwrap(),
                address: "10.0.0.2:7400".parse().unwrap(),
                key: "k2",
            }
        }

        fn decide(&self, now: u64) -> Result<Decision, Refusal> {
            let applicant = Applicant {
                id: self.id,
                hash: self.hash,
                node: &self.node,
                address: self.address,
                key: self.key,
                version: "1",
            };
            decide(&View::from_records(self.records.clone()), &applicant, now)
        }

        fn with(mut self, record: Record) -> Self {
            self.records.push(record);
            self
        }
    }

    #[test]
    fn a_good_token_admits_and_the_same_machine_may_ask_again() {
        let Ok(Decision::Admit(change)) = Case::new().decide(NOW) else {
            panic!("it is admitted")
        };
        let expected = node("n2", "10.0.0.2:7400", NodeState::Joining, &[(TOKEN, "t1"), (KEY, "k2")]);
        assert_eq!(change.writes[0], Write::Put(expected.clone()));
        assert_eq!(
            change.guards.len(),
            3,
            "the token, the name and that nobody else came meanwhile"
        );
        let mut again = Case::new().with(expected);
        assert_eq!(again.decide(NOW), Ok(Decision::Again));
        again.address = "10.0.0.3:7400".parse().unwrap();
        assert!(matches!(again.decide(NOW), Ok(Decision::Admit(_))), "it has moved");
        again.key = "k3";
        assert_eq!(again.decide(NOW), Err(Refusal::Joining("n2".parse().unwrap())));
    }

    #[test]
    fn a_token_lets_no_second_machine_in_while_the_first_one_joins() {
        let labels = [(TOKEN, "t1"), (KEY, "k9")];
        let other = |state| Case::new().with(node("n9", "10.0.0.9:7400", state, &labels));
        let refused = other(NodeState::Joining).decide(NOW);
        assert_eq!(refused, Err(Refusal::Spent("n9".into())));
        assert!(matches!(other(NodeState::Left).decide(NOW), Ok(Decision::Admit(_))));
    }

    #[tokio::test]
    async fn a_token_that_was_used_up_meanwhile_admits_nobody() {
        let Ok(Decision::Admit(change)) = Case::new().decide(NOW) else {
            panic!("it is admitted")
        };
        assert!(MemoryRegistry::new("n1").commit(change).await.is_err());
    }

    #[test]
    fn every_fault_of_a_token_reads_the_same() {
        let mut unknown = Case::new();
        unknown.id = "t2";
        let mut wrong = Case::new();
        wrong.hash = [8; 32];
        let refused = [
            unknown.decide(NOW).unwrap_err(),
            wrong.decide(NOW).unwrap_err(),
            Case::new().decide(NOW + 1).unwrap_err(),
        ];
        assert_eq!(
            refused,
            [Fault::Unknown, Fault::Secret, Fault::Expired].map(Refusal::Token)
        );
        let texts: std::collections::BTreeSet<String> = refused.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 1);
    }

    #[test]
    fn names_and_addresses_have_one_owner() {
        let name = || -> Name { "n2".parse().unwrap() };
        for (state, refusal) in [
            (NodeState::Left, Refusal::Left(name())),
            (NodeState::Member, Refusal::Taken(name())),
            (NodeState::Draining, Refusal::Taken(name())),
            (NodeState::Joining, Refusal::Joining(name())),
        ] {
            let case = Case::new().with(node("n2", "", state, &[]));
            assert_eq!(case.decide(NOW), Err(refusal));
        }
        let mut case = Case::new();
        case.address = "10.0.0.1:7400".parse().unwrap();
        assert!(matches!(case.decide(NOW), Err(Refusal::AddressTaken { node, .. }) if node == "n1"));
        for bad in ["0.0.0.0:7400", "224.0.0.1:7400", "10.0.0.2:0"] {
            case.address = bad.parse().unwrap();
            assert_eq!(case.decide(NOW), Err(Refusal::Address(case.address)));
        }
    }
}
