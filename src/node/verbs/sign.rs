//! `Sign`: a certificate of the cluster's authority for a node's key. Whether that node may have one is the agent's decision.

use tracing::info;

use crate::config::Config;
use crate::host::verb::Answer;
use crate::net::mesh::Name;
use crate::net::mesh::trust::Trust;

/// A key of NIST P-256, the kind that `NodeKey` has, begins with this in SubjectPublicKeyInfo (RFC 5480 §2.1.1), and a point
/// without compression follows: only bytes that can be nothing else reach the reader of DER.
const P256: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// Both coordinates.
const POINT: usize = 64;

pub fn sign(config: &Config, node: &str, key: &[u8]) -> Answer {
    let name: Name = match node.parse() {
        Ok(name) => name,
        Err(error) => return Answer::refused(error),
    };
    if !is_key(key) {
        return Answer::refused("the key is not one of NIST P-256; the program that asks makes no other");
    }
    let trust = Trust::new(config.trust());
    if !trust.is_founder() {
        return Answer::refused("this node has not the authority's key; ask another one");
    }
    match trust.sign(&name, key) {
        Ok(certificate) => {
            let fingerprint = blake3::hash(key).to_hex();
            info!(
                node,
                key = &fingerprint[..16],
                "signed a node's certificate for the agent"
            );
            Answer::Certificate { certificate }
        }
        Err(error) => Answer::refused(error),
    }
}

fn is_key(key: &[u8]) -> bool {
    key.len() == P256.len() + POINT && key.starts_with(&P256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::mesh::identity::{Identity, NodeKey, certificate_from_pem, certified_key};

    fn config(folder: &tempfile::TempDir) -> Config {
        let text = format!("[node]\ndata_dir = {:?}\n", folder.path());
        crate::config::parse(&text, std::iter::empty()).expect("valid").config
    }

    fn why(answer: Answer) -> String {
        match answer {
            Answer::Refused { why } => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_names_and_whole_keys_are_signed_and_only_where_the_authority_is() {
        let folder = tempfile::tempdir().expect("temp dir");
        let config = config(&folder);
        let key = NodeKey::generate().expect("made").public();
        assert!(why(sign(&config, "n2", &key)).contains("ask another one"));
        let (cluster, own) = ("c1".parse().expect("a name"), "n1".parse().expect("a name"));
        Trust::new(config.trust()).found(cluster, &own, None).expect("founded");
        let Answer::Certificate { certificate } = sign(&config, "n2", &key) else {
            panic!("signed")
        };
        let certificate = certificate_from_pem(&certificate).expect("PEM");
        assert_eq!(certified_key(&certificate).expect("has one"), key);
        let identity = Identity::of(&certificate).expect("has one");
        assert_eq!(identity.to_string(), "bitrix-node://c1/n2");
        assert!(why(sign(&config, "c1/n2", &key)).contains("is no name"));
        let short = &key[..key.len() - 1];
        let long = [&key[..], b"\0"].concat();
        let mut other = key.clone();
        other[20] ^= 1;
        for bad in [&b""[..], short, &long, &other] {
            assert!(why(sign(&config, "n2", bad)).contains("P-256"));
        }
    }
}
