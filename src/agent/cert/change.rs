//! What is changed in the registry for certificates, with the guards. Pure.

use std::collections::BTreeMap;

use crate::cert::tickets::TICKETS;
use crate::cert::{ACCOUNT, ByWhom, Entry, Failure, Sealed, Source, after_failure, entries, key};
use crate::registry::{Change, Guard, Key, Record, Setting, Write};

/// Of a failure that is kept: it stands in a table.
const LONGEST: usize = 300;

type Settings = BTreeMap<String, String>;

/// What must be changed so that there is an entry for the names of the configuration and none for earlier ones of it; `None`: nothing.
pub fn wanted(settings: &Settings, names: &[String], directory: &str) -> Option<Change> {
    if names.is_empty() {
        return None;
    }
    let source = Source::Acme {
        directory: directory.to_string(),
        by: ByWhom::Config,
    };
    let fresh = Entry::new(names.to_vec(), source.clone());
    let Some(text) = settings.get(&fresh.key()) else {
        return Some(put(settings, &fresh));
    };
    let known = Entry::parse(text)?;
    if let Source::Acme { directory: other, .. } = &known.source
        && other != directory
    {
        // What there is serves until there is one of the new directory.
        let certificate = known.certificate;
        return Some(put(settings, &Entry { certificate, ..fresh }));
    }
    known.certificate.as_ref()?;
    let mut all = entries(settings).into_iter();
    let is_earlier = |entry: &Entry| {
        let by_config = matches!(&entry.source, Source::Acme { by: ByWhom::Config, .. });
        by_config && entry.key() != known.key()
    };
    let earlier = all.find(is_earlier)?;
    remove(settings, &earlier.key())
}

/// Puts a new key of session tickets in place of what there is now.
pub fn tickets(settings: &Settings, value: String) -> Change {
    set(settings, TICKETS, value)
}

/// Writes the entry down in place of what is there now.
pub fn put(settings: &Settings, entry: &Entry) -> Change {
    set(settings, &entry.key(), entry.to_string())
}

/// Takes a setting out, if it is there.
pub fn remove(settings: &Settings, key: &str) -> Option<Change> {
    let old = setting(key, settings.get(key)?.clone());
    let change = Change::default().and(Write::Remove(Key::Setting(key.to_string())));
    Some(change.when(Guard::Is(old)))
}

fn set(settings: &Settings, key: &str, value: String) -> Change {
    let guard = match settings.get(key) {
        Some(old) => Guard::Is(setting(key, old.clone())),
        None => Guard::Absent(Key::Setting(key.to_string())),
    };
    Change::put(setting(key, value)).when(guard)
}

fn setting(key: &str, value: String) -> Record {
    Record::Setting(Setting {
        key: key.to_string(),
        value,
    })
}

/// Of the setting with the account at that directory.
pub fn account_key(directory: &str) -> String {
    format!("{ACCOUNT}{}", key(&[directory.to_string()]))
}

/// What an account is sealed as.
pub fn account_sealed_as(directory: &str) -> String {
    format!("account at {directory}")
}

/// Keeps the account, unless there is one already.
pub fn account(directory: &str, sealed: Sealed) -> Change {
    set(&Settings::new(), &account_key(directory), sealed.0)
}

/// What an attempt that failed leaves. `keeps_order`: it is gone on with then.
pub fn failed(entry: &Entry, why: &str, keeps_order: bool, is_limited: bool, (now, draw): (u64, u64)) -> Entry {
    let count = entry
        .failure
        .as_ref()
        .map_or(0, |failure| failure.count)
        .saturating_add(1);
    let why: String = why.replace(char::is_control, " ").chars().take(LONGEST).collect();
    Entry {
        order: entry.order.clone().filter(|_| keeps_order),
        failure: Some(Failure {
            why,
            count,
            at: now,
            again: after_failure(now, count, is_limited, draw),
        }),
        ..entry.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::{Certificate, Challenge, Kind, Order, PREFIX, Sealer};
    use crate::cluster::CERTIFICATES;
    use crate::config::excess;
    use crate::net::tls;
    use crate::registry::{MemoryRegistry, Registry};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    /// The settings after the change; `None`: it was refused.
    async fn tried(settings: &Settings, change: &Change) -> Option<Settings> {
        let registry = MemoryRegistry::new("n1");
        for (key, value) in settings {
            registry.commit(Change::put(setting(key, value.clone()))).await.unwrap();
        }
        let view = registry.commit(change.clone()).await.ok()?;
        Some(
            view.settings()
                .map(|one| (one.key.clone(), one.value.clone()))
                .collect(),
        )
    }

    async fn after(settings: &Settings, change: &Change) -> Settings {
        tried(settings, change).await.unwrap()
    }

    fn issued(entry: &Entry) -> Entry {
        Entry {
            certificate: Some(Certificate {
                chain: "chain".into(),
                key: Sealed("key".into()),
            }),
            renew_at: 9,
            ..entry.clone()
        }
    }

    #[test]
    fn the_seat_is_there_where_something_is_renewed() {
        let source = Source::Acme {
            directory: "d".into(),
            by: ByWhom::Operator,
        };
        for (source, is_renewed) in [(source, true), (Source::Import, false)] {
            let text = Entry::new(names(&["a.example"]), source).to_string();
            assert_eq!((PREFIX, text.contains(CERTIFICATES.1)), (CERTIFICATES.0, is_renewed));
        }
    }

    #[tokio::test]
    async fn the_configurations_names_have_one_entry_and_earlier_ones_go_when_it_is_served() {
        let (old, new) = (names(&["a.example"]), names(&["a.example", "b.example"]));
        let settings = after(&Settings::new(), &wanted(&Settings::new(), &old, "d").unwrap()).await;
        assert_eq!(wanted(&settings, &old, "d"), None);
        let settings = after(&settings, &wanted(&settings, &new, "d").unwrap()).await;
        assert_eq!(
            wanted(&settings, &new, "d"),
            None,
            "the old one serves until the new one is there"
        );
        let entry = entries(&settings).into_iter().find(|entry| entry.names == new).unwrap();
        let settings = after(&settings, &put(&settings, &issued(&entry))).await;
        let settings = after(&settings, &wanted(&settings, &new, "d").unwrap()).await;
        assert_eq!(entries(&settings), [issued(&entry)]);
        assert_eq!(wanted(&settings, &[], "d"), None);
    }

    #[tokio::test]
    async fn another_directory_is_asked_at_once_and_what_there_is_serves_until_then() {
        let names = names(&["a.example"]);
        let settings = after(&Settings::new(), &wanted(&Settings::new(), &names, "staging").unwrap()).await;
        let entry = issued(&entries(&settings)[0]);
        let settings = after(&settings, &put(&settings, &entry)).await;
        let settings = after(&settings, &wanted(&settings, &names, "production").unwrap()).await;
        let now = &entries(&settings)[0];
        assert!(now.is_due(1) && now.certificate == entry.certificate);
        let imported = Entry {
            source: Source::Import,
            ..entry
        };
        let settings = after(&settings, &put(&settings, &imported)).await;
        assert_eq!(wanted(&settings, &names, "staging"), None, "the operator's own stays");
    }

    #[test]
    fn an_entry_with_all_names_that_the_configuration_allows_fits_while_it_is_renewed() {
        let name = |at| format!("{at:03}-{}.{}.example", "a".repeat(40), "b".repeat(28));
        let mut names: Vec<String> = (0..100).map(name).collect();
        assert_eq!(excess(&names), None);
        names[0].insert_str(0, &"c.".repeat(50));
        assert!(excess(&names).is_some(), "they are as long as they may be");
        names[0] = name(0);
        let source = Source::Acme {
            directory: "https://acme-v02.api.letsencrypt.org/directory".into(),
            by: ByWhom::Config,
        };
        let (sealer, mut entry) = (Sealer::new("secret"), Entry::new(names.clone(), source));
        let (leaf, key) = tls::self_signed(names.clone()).unwrap();
        let key = sealer.seal(&entry.sealed_as(), &key).unwrap();
        // What a public authority adds to the leaf, and two intermediates with long RSA keys.
        let chain = leaf + &"x".repeat(8 << 10);
        entry.certificate = Some(Certificate {
            chain,
            key: key.clone(),
        });
        let challenge = |name: &String| Challenge {
            kind: Kind::TlsAlpn,
            name: name.clone(),
            token: "t".repeat(43),
            authorization: format!("{}.{}", "t".repeat(43), "k".repeat(43)),
        };
        entry.order = Some(Order {
            url: format!("https://acme-v02.api.letsencrypt.org/acme/order/{}", "9".repeat(40)),
            key,
            since: 1_800_000_000,
            challenges: names.iter().map(challenge).collect(),
        });
        let entry = failed(&entry, &"ä".repeat(LONGEST), true, false, (1_800_000_000, 0));
        let record = setting(&entry.key(), entry.to_string());
        assert!(
            record.check().is_ok(),
            "{:?} of {} bytes",
            record.check(),
            entry.to_string().len()
        );
    }

    #[tokio::test]
    async fn what_changed_meanwhile_is_not_written_over() {
        let empty = Settings::new();
        let change = wanted(&empty, &names(&["a.example"]), "d").unwrap();
        let settings = after(&empty, &change).await;
        let entry = entries(&settings)[0].clone();
        let late = put(&settings, &entry);
        let settings = after(&settings, &put(&settings, &issued(&entry))).await;
        assert_eq!(tried(&settings, &late).await, None);
    }

    #[test]
    fn failures_are_counted_and_an_order_is_kept_where_it_can_go_on() {
        let source = Source::Acme {
            directory: "d".into(),
            by: ByWhom::Operator,
        };
        let mut entry = Entry::new(names(&["a.example"]), source);
        entry.order = Some(Order {
            url: "u".into(),
            key: Sealed("k".into()),
            since: 1,
            challenges: Vec::new(),
        });
        let first = failed(&entry, "no\nway", true, false, (100, 0));
        let failure = first.failure.clone().unwrap();
        assert_eq!((failure.why.as_str(), failure.count, failure.again), ("no way", 1, 115));
        assert!(first.order.is_some() && !first.is_due(114) && first.is_due(115));
        let second = failed(&first, &"x".repeat(999), false, false, (200, 0));
        let failure = second.failure.clone().unwrap();
        assert_eq!((failure.count, failure.again, failure.why.len()), (2, 260, LONGEST));
        assert!(second.order.is_none());
    }
}
