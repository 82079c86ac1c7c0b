//! The rules of the house, read from the source: imports point downward, siblings do not know each other,
//! files have heads and bounds, each power has one owner. The list of exceptions is empty.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by rank: one may name itself and lower ranks, never a sibling.
const RANKS: [&[&str]; 9] = [
    &["base"],
    &["config", "metrics"],
    &["net"],
    &["host"],
    &["registry", "cluster", "cert"],
    &[
        "proxy", "cache", "push", "php", "db", "portal", "storage", "acme", "backup",
    ],
    &["agent"],
    &["node"],
    &["cli"],
];

/// Lines of code in one file; a trailing `mod tests` is not counted.
const LONGEST_FILE: usize = 600;
/// A `mod.rs` holds the head and the central types.
const LONGEST_MOD: usize = 150;

/// A word and the only places that may hold it.
const OWNERS: &[(&str, &[&str])] = &[
    ("tokio::spawn", &["src/base/scope.rs"]),
    ("SystemTime::now", &["src/base/clock.rs"]),
    // The second: which seeds a developer wants to be run.
    ("env::var", &["src/config/load.rs", "src/base/seeded.rs"]),
    ("process::Command", &["src/host/command.rs", "src/host/child.rs"]),
    ("mysql_async", &["src/db/"]),
    ("rusqlite", &["src/storage/state/", "src/registry/image.rs"]),
    // Its lines are turned off in the log.
    ("openraft", &["src/storage/", "src/base/log.rs"]),
    (
        "nfs3_types",
        &["src/storage/door/nfs/", "src/storage/rescue.rs", "src/registry/nfs_"],
    ),
    ("nfs3_client", &["src/registry/nfs_"]),
    ("nfs3_server", &["src/storage/rescue.rs"]),
    ("rust_embed", &["src/portal/demo.rs"]),
    ("instant_acme", &["src/acme/"]),
    ("rustls::", &["src/net/tls/", "src/net/mesh/", "src/net/quic.rs"]),
    // Of QUIC each connection and each request is one.
    (".accept()", &["src/net/serve.rs", "src/proxy/http3/"]),
    ("process::exit", &[]),
    ("println!", &["src/cli/"]),
    (
        "unsafe {",
        &[
            "src/host/child.rs",
            "src/host/command.rs",
            "src/host/address/wire.rs",
            "src/host/inheritance.rs",
            "src/host/process.rs",
            "src/net/listen.rs",
            "src/storage/door/fuse/memory/area.rs",
        ],
    ),
    ("mimalloc", &["src/main.rs"]),
    ("allocator_api2", &["src/cache/store/record.rs"]),
    ("object_store::", &["src/backup/s3/"]),
    ("use age::", &["src/backup/key.rs", "src/backup/part.rs"]),
    ("netlink_packet", &["src/host/address/"]),
    ("memcache_async", &["src/cache/backend/server.rs"]),
    ("memmap2", &["src/storage/door/fuse/memory/area.rs"]),
    ("zerocopy", &["src/storage/door/fuse/"]),
    ("quinn::", &["src/net/quic.rs", "src/proxy/http3/"]),
    ("use h3::", &["src/proxy/http3/"]),
    ("landlock::", &["src/host/confine.rs"]),
    ("pre_exec", &["src/host/child.rs"]),
    ("libinjectionrs", &["src/proxy/waf/operator/inject.rs"]),
    ("use hashbrown", &["src/proxy/waf/engine/"]),
    ("json_event_parser", &["src/proxy/waf/body/json.rs"]),
    ("fancy_regex", &["src/proxy/waf/operator/pattern.rs"]),
    ("lol_html", &["src/proxy/cdn/body.rs"]),
    ("cssparser", &["src/proxy/cdn/style.rs"]),
    ("encoding_rs", &["src/proxy/cdn/body.rs"]),
    ("quick_xml", &["src/proxy/waf/body/xml.rs"]),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Code without comments and without the trailing tests module.
    fn code(&self) -> String {
        let end = self.text.find("#[cfg(test)]\nmod tests").unwrap_or(self.text.len());
        let lines = self.text[..end]
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn lines(&self) -> usize {
        let end = self.text.find("#[cfg(test)]\nmod tests").unwrap_or(self.text.len());
        self.text[..end].lines().count()
    }

    /// Tests in a file of their own.
    fn is_test(&self) -> bool {
        self.path.ends_with("_tests.rs") || self.path.contains("_tests/") || self.path.contains("/tests/")
    }

    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        inside.split_once('/').map(|(module, _)| module)
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 30, "the test does not see the source");
    found
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn imports_point_downward_and_siblings_are_strangers() {
    let ranks: BTreeMap<&str, usize> = RANKS
        .iter()
        .enumerate()
        .flat_map(|(rank, modules)| modules.iter().map(move |module| (*module, rank)))
        .collect();
    let mut faults = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        let Some(own) = ranks.get(module) else {
            faults.push(format!("{}: the module has no rank", source.path));
            continue;
        };
        let code = source.code();
        for (at, _) in code.match_indices("crate::") {
            let named: String = code[at + 7..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            // A group is read below.
            let allowed =
                named.is_empty() || named == module || ranks.get(named.as_str()).is_some_and(|rank| rank < own);
            if !allowed {
                faults.push(format!("{}: imports crate::{named}", source.path));
            }
        }
        if code.contains("use crate::{") {
            for group in code.split("use crate::{").skip(1) {
                let names = group.split('}').next().unwrap_or_default();
                for named in names
                    .split(',')
                    .map(|name| name.trim().split("::").next().unwrap_or_default())
                {
                    if !named.is_empty() && named != module && ranks.get(named).is_none_or(|rank| rank >= own) {
                        faults.push(format!("{}: imports crate::{named}", source.path));
                    }
                }
            }
        }
    }
    report(faults);
}

#[test]
fn every_file_opens_with_a_head_and_stays_small() {
    let mut faults = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            faults.push(format!("{}: does not open with a //! head", source.path));
        }
        let (lines, most) = (
            source.lines(),
            if source.path.ends_with("/mod.rs") && !source.is_test() {
                LONGEST_MOD
            } else {
                LONGEST_FILE
            },
        );
        if lines > most {
            faults.push(format!("{}: {lines} lines, at most {most}", source.path));
        }
    }
    report(faults);
}

#[test]
fn each_power_has_one_owner() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let code = source.code();
        for (word, owners) in OWNERS {
            if code.contains(word) && !owners.iter().any(|owner| source.path.starts_with(owner)) {
                faults.push(format!("{}: {word} belongs to {owners:?}", source.path));
            }
        }
    }
    report(faults);
}

#[test]
fn top_level_holds_what_the_card_lists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "assets",
        "packaging",
        "systemd",
        "tests",
        "Makefile",
        "README.md",
        "LICENSE",
        "target",
    ];
    let mut faults = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().to_str().unwrap().to_string();
        if !name.starts_with('.') && !listed.contains(&name.as_str()) {
            faults.push(format!("{name} is not on the list of the top level"));
        }
    }
    report(faults);
}
