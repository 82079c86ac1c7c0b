//! What every registry does.

use std::time::Instant;

use bitrix_node::registry::{Change, Error, Guard, Key, Record, Role, Setting, Token, View, Write};

use super::Open;

pub fn setting(key: &str, value: &str) -> Record {
    Record::Setting(Setting {
        key: key.into(),
        value: value.into(),
    })
}

fn role(holder: Option<&str>, epoch: u64) -> Record {
    Record::Role(Role {
        role: "cron".into(),
        seat: String::new(),
        holder: holder.map(str::to_string),
        epoch,
    })
}

/// One behaviour after the other on a fresh registry.
pub async fn holds(open: Open<'_>) {
    let (one, two) = (open("n1"), open("n2"));
    let empty = two.read().await.unwrap();
    assert_eq!((two.revision().await.unwrap(), empty.records().count()), (0, 0));

    // What one commits, the other reads; what was read before stays as it was.
    let first = one.commit(Change::put(setting("a", "1"))).await.unwrap();
    assert_eq!((first.revision, first.setting("a")), (1, Some("1")));
    assert_eq!(two.read().await.unwrap(), first);
    assert_eq!((two.revision().await.unwrap(), empty.revision), (1, 0));
    assert!(!first.is_last_seen);

    // Guards: all of them must hold, or nothing happens.
    let change = Change::put(setting("a", "2")).and(Write::Put(setting("b", "1")));
    let broken = change
        .clone()
        .when(Guard::Revision(1))
        .when(Guard::Is(setting("a", "0")));
    assert!(matches!(two.commit(broken).await, Err(Error::Stale(_))));
    assert_eq!(one.read().await.unwrap(), first);
    let held = change
        .when(Guard::Is(setting("a", "1")))
        .when(Guard::Absent(setting("b", "").key()));
    let second = two.commit(held.clone()).await.unwrap();
    assert_eq!(
        (second.revision, second.setting("a"), second.setting("b")),
        (2, Some("2"), Some("1"))
    );
    assert!(
        matches!(one.commit(held).await, Err(Error::Stale(_))),
        "its own success broke its guards"
    );

    // Rules: all of them must be kept, or nothing happens.
    one.commit(Change::put(role(Some("n1"), 3))).await.unwrap();
    let before = two.read().await.unwrap();
    for invalid in [
        Change::put(setting("c", "1")).and(Write::Put(role(Some("n2"), 3))),
        Change::put(setting("c", "1")).and(Write::Remove(role(None, 1).key())),
        Change::put(setting("c/d", "1")),
        Change::put(setting("c", &"x".repeat(70_000))),
        Change::default().and(Write::Event("two\nlines".into())),
    ] {
        assert!(
            matches!(two.commit(invalid.clone()).await, Err(Error::Invalid(_))),
            "{invalid:?}"
        );
    }
    assert_eq!(one.read().await.unwrap(), before);

    removal_and_history(open, before.revision).await;
}

async fn removal_and_history(open: Open<'_>, start: u64) {
    let one = open("n1");
    let token = Record::Token(Token {
        id: "t1".into(),
        hash: [9; 32],
        expires: 5,
    });
    let made = one
        .commit(Change::put(token.clone()).and(Write::Event("token made".into())))
        .await
        .unwrap();
    assert_eq!(made.get(&Key::Token("t1".into())), Some(&token));
    let event = made.events.last().unwrap();
    assert_eq!(
        (event.node.as_str(), event.text.as_str(), event.revision),
        ("n1", "token made", start + 1)
    );
    let removed = Change::default().and(Write::Remove(token.key()));
    let removed = one.commit(removed).await.unwrap();
    assert_eq!(removed.tokens().count(), 0);
    let last = removed.history.last().unwrap();
    assert_eq!(
        (last.revision, last.author.as_str(), last.summary.as_str()),
        (start + 2, "n1", "-token t1")
    );
    let revisions: Vec<u64> = removed.history.iter().map(|commit| commit.revision).collect();
    assert_eq!(
        revisions,
        (1..=start + 2).collect::<Vec<_>>(),
        "one commit each, none left out"
    );
}

/// Writers at once. Each acknowledged commit is one version, one row, and, where it counts, one step of the counter.
pub async fn race(open: Open<'_>, writers: u64, commits: u64) {
    let registries: Vec<_> = (0..writers).map(|writer| open(&format!("w{writer}"))).collect();
    let start = registries[0].read().await.unwrap();
    let round = format!("r{}", start.revision);
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for (writer, registry) in registries.iter().cloned().enumerate() {
        let round = round.clone();
        #[allow(clippy::disallowed_methods)]
        running.spawn(async move {
            let mut stale = 0_u64;
            for number in 0..commits {
                let row = Write::Put(setting(&format!("{round}.{writer}.{number}"), ""));
                // Every other commit has no guard that a second execution would break.
                if number % 2 == 0 {
                    registry.commit(Change::default().and(row)).await.unwrap();
                    continue;
                }
                loop {
                    let view = registry.read().await.unwrap();
                    match registry.commit(step(&view, &round).and(row.clone())).await {
                        Ok(_) => break,
                        Err(Error::Stale(_)) => stale += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            stale
        });
    }
    let stale: u64 = running.join_all().await.into_iter().sum();
    let end = registries[0].read().await.unwrap();
    let acknowledged = writers * commits;
    let rows = end
        .settings()
        .filter(|setting| setting.key.starts_with(&format!("{round}.")))
        .count() as u64;
    println!(
        "{writers} writers: {acknowledged} commits, {stale} stale guards, {:.0} commits/s",
        acknowledged as f64 / started.elapsed().as_secs_f64()
    );
    assert_eq!(end.revision - start.revision, acknowledged, "one version each");
    assert_eq!(rows, acknowledged, "one row each");
    assert_eq!(count(&end, &round), writers * (commits / 2), "one step each");
    for registry in registries {
        assert_eq!(registry.read().await.unwrap(), end, "all see the same");
    }
    // The next round shall not carry this one's rows.
    let first = open("w0");
    let gone = end
        .settings()
        .map(|setting| Write::Remove(Key::Setting(setting.key.clone())));
    first.commit(gone.fold(Change::default(), Change::and)).await.unwrap();
}

fn count(view: &View, round: &str) -> u64 {
    view.setting(round).map_or(0, |value| value.parse().unwrap())
}

/// Counts on from what the view says.
fn step(view: &View, round: &str) -> Change {
    let value = count(view, round);
    let guard = match value {
        0 => Guard::Absent(Key::Setting(round.into())),
        value => Guard::Is(setting(round, &value.to_string())),
    };
    Change::put(setting(round, &(value + 1).to_string())).when(guard)
}
