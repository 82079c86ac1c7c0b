//! `Renew`: replaces this node's certificate by one of the same authority, for the same key and name. The modules follow it.

use tracing::info;

use crate::config::Config;
use crate::host::account::Account;
use crate::host::verb::Answer;
use crate::net::mesh::trust::Trust;

/// Ours have less than 1 KiB.
const LONGEST: usize = 8 << 10;

pub fn renew(config: &Config, user: &Account, certificate: &str) -> Answer {
    if certificate.len() > LONGEST {
        return Answer::refused("the certificate is too long");
    }
    let trust = Trust::new(config.trust());
    match trust.renew(certificate, Some(user.gid)) {
        Ok(()) => {
            info!("this node's certificate is replaced by the one that its agent got");
            Answer::Done
        }
        Err(error) => Answer::refused(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::mesh::identity::{NodeKey, requested_key};

    #[test]
    fn a_certificate_for_another_key_changes_nothing() {
        let folder = tempfile::tempdir().expect("temp dir");
        let text = format!("[node]\ndata_dir = {:?}\n", folder.path());
        let config = crate::config::parse(&text, std::iter::empty()).expect("valid").config;
        let gid = nix::unistd::getegid().as_raw();
        let user = Account {
            name: "nobody".into(),
            uid: 65534,
            gid,
        };
        let trust = Trust::new(config.trust());
        let name = |text: &str| text.parse().expect("a name");
        trust.found(name("c1"), &name("n1"), None).expect("founded");
        let before = std::fs::read(config.trust().join("node.pem")).expect("there");
        let foreign = NodeKey::generate().expect("made").public();
        let foreign = trust.sign(&name("n1"), &foreign).expect("signed");
        for bad in [&foreign, "", &"x".repeat(LONGEST + 1)] {
            assert!(matches!(renew(&config, &user, bad), Answer::Refused { .. }));
        }
        assert_eq!(std::fs::read(config.trust().join("node.pem")).expect("there"), before);
        let own = requested_key(&trust.request().expect("made")).expect("sound");
        let renewed = trust.sign(&name("n1"), &own).expect("signed");
        assert_eq!(renew(&config, &user, &renewed), Answer::Done);
        let after = std::fs::read_to_string(config.trust().join("node.pem")).expect("there");
        assert_eq!(after, renewed);
    }
}
