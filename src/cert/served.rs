//! What the fronts make of the entries: which certificate for which name, and the answers to challenges under way.

use std::collections::BTreeMap;

use super::entry::{Challenge, Entry, Kind, entries};
use super::{Facts, Sealer};

#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Names, PEM chain, PEM key; the better ones first.
    pub certificates: Vec<(Vec<String>, String, String)>,
    /// http-01: token → answer.
    pub answers: BTreeMap<String, String>,
    /// tls-alpn-01: name → key authorization.
    pub challenges: BTreeMap<String, String>,
    /// Entries that cannot be used, and why.
    pub faults: Vec<String>,
}

/// Of one name, the operator's own certificate goes before others, and the one that holds longer before the other.
pub fn served(settings: &BTreeMap<String, String>, sealer: &Sealer) -> Served {
    let mut served = Served::default();
    let mut usable = Vec::new();
    for entry in entries(settings) {
        for challenge in entry.order.iter().flat_map(|order| &order.challenges) {
            served.answer(challenge);
        }
        match usable_of(&entry, sealer) {
            Some(Ok((facts, chain, key))) => usable.push((!entry.is_imported(), facts, chain, key)),
            Some(Err(fault)) => served.faults.push(format!("{}: {fault}", entry.name())),
            None => {}
        }
    }
    usable.sort_by_key(|(is_issued, facts, ..)| (*is_issued, std::cmp::Reverse(facts.ends)));
    let certificates = usable
        .into_iter()
        .map(|(_, facts, chain, key)| (facts.names, chain, key));
    served.certificates = certificates.collect();
    served
}

impl Served {
    fn answer(&mut self, challenge: &Challenge) {
        let (name, text) = (challenge.name.clone(), challenge.authorization.clone());
        match challenge.kind {
            Kind::Http => self.answers.insert(challenge.token.clone(), text),
            Kind::TlsAlpn => self.challenges.insert(name, text),
        };
    }
}

/// `None`: there is no certificate yet.
fn usable_of(entry: &Entry, sealer: &Sealer) -> Option<std::io::Result<(Facts, String, String)>> {
    let certificate = entry.certificate.as_ref()?;
    let open = || {
        let key = sealer.open(&entry.sealed_as(), &certificate.key)?;
        Ok((Facts::of(&certificate.chain)?, certificate.chain.clone(), key))
    };
    Some(open())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::{ByWhom, Certificate, Order, Sealed, Source};
    use crate::net::tls;

    fn entry(names: &[&str], source: Source, sealer: &Sealer) -> Entry {
        let mut entry = Entry::new(names.iter().map(ToString::to_string).collect(), source);
        let (chain, key) = tls::self_signed(entry.names.clone()).unwrap();
        let key = sealer.seal(&entry.sealed_as(), &key).unwrap();
        entry.certificate = Some(Certificate { chain, key });
        entry
    }

    #[test]
    fn own_certificates_come_first_and_foreign_keys_are_faults() {
        let (sealer, foreign) = (Sealer::new("a"), Sealer::new("b"));
        let acme = Source::Acme {
            directory: String::new(),
            by: ByWhom::Operator,
        };
        let entries = [
            entry(&["a.example"], acme.clone(), &sealer),
            entry(&["*.example", "a.example"], Source::Import, &sealer),
            entry(&["b.example"], acme, &foreign),
        ];
        let settings = entries.iter().map(|entry| (entry.key(), entry.to_string()));
        let served = served(&settings.collect(), &sealer);
        let names: Vec<_> = served.certificates.iter().map(|(names, ..)| names.join(" ")).collect();
        assert_eq!(names, ["*.example a.example", "a.example"]);
        assert!(served.faults.len() == 1 && served.faults[0].starts_with("b.example: "));
        for (_, chain, key) in &served.certificates {
            tls::check_pair(chain, key).unwrap();
        }
    }

    #[test]
    fn challenges_under_way_are_answered_by_their_kind() {
        let sealer = Sealer::new("a");
        let source = Source::Acme {
            directory: String::new(),
            by: ByWhom::Operator,
        };
        let mut entry = Entry::new(vec!["a.example".into()], source);
        let challenge = |kind| Challenge {
            kind,
            name: "a.example".into(),
            token: "t".into(),
            authorization: "t.k".into(),
        };
        entry.order = Some(Order {
            url: String::new(),
            key: Sealed(String::new()),
            since: 0,
            challenges: vec![challenge(Kind::Http), challenge(Kind::TlsAlpn)],
        });
        let served = served(&[(entry.key(), entry.to_string())].into(), &sealer);
        assert_eq!(served.answers, [("t".to_string(), "t.k".to_string())].into());
        assert_eq!(served.challenges, [("a.example".to_string(), "t.k".to_string())].into());
        assert!(served.certificates.is_empty() && served.faults.is_empty());
    }
}
