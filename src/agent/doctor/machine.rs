//! Rules about one machine: its services, disk, memory, PHP, ports, certificates. Pure.

use super::{Facts, Findings, heard, on};
use crate::agent::overview::{NODE_DAYS, PORTAL_DAYS, Row};
use crate::base::Health;
use crate::host::package::{self, Family, Need};

/// Percent of the disk from which it is warned, and from which it fails.
const DISK: (u8, u8) = (85, 95);
const MEMORY: u8 = 95;
/// Something that restarts so often and ran so shortly does so again.
const RESTARTS: (u32, u64) = (3, 600);
/// Has a rule of its own, or is told by one.
const ELSEWHERE: [&str; 2] = ["mount", "agent"];

fn is_ill(row: &Row) -> bool {
    matches!(row.health, Health::Degraded | Health::Failed)
}

fn logs(row: &Row) -> String {
    format!("bitrix-node logs --module {} -n 50", row.name)
}

pub fn service(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        for row in &overview.services {
            if !is_ill(row) || ELSEWHERE.contains(&row.name.as_str()) {
                continue;
            }
            let phase = format!("{:?}", row.phase).to_lowercase();
            let evidence = match row.detail.as_str() {
                "" => phase,
                detail => format!("{phase}: {detail}"),
            };
            let cause = format!("{} on {} is not well", row.name, node.name);
            let remedy = on(facts, &node.name, &logs(row));
            match row.health {
                Health::Failed => findings.fail(cause, evidence, remedy),
                _ => findings.warn(cause, evidence, remedy),
            }
        }
    }
}

pub fn restarts(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let (count, seconds) = RESTARTS;
    for (node, overview) in heard(facts) {
        let again = overview.services.iter();
        for row in again.filter(|row| row.restarts >= count && row.seconds < seconds && !is_ill(row)) {
            findings.warn(
                format!("{} on {} ends again and again", row.name, node.name),
                format!("{} restarts, the last one {} s ago", row.restarts, row.seconds),
                on(facts, &node.name, &logs(row)),
            );
        }
    }
}

pub fn mount(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        let mut rows = overview.services.iter();
        if let Some(row) = rows.find(|row| row.name == "mount" && is_ill(row)) {
            findings.fail(
                format!("PHP on {} cannot use the portal's files", node.name),
                row.detail.clone(),
                on(
                    facts,
                    &node.name,
                    "bitrix-node storage status; bitrix-node logs --module storage -n 50",
                ),
            );
        }
    }
}

pub fn extension(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        let missing = &overview.facts.missing_extensions;
        if missing.is_empty() {
            continue;
        }
        let needs: Vec<Need> = package::PHP_EXTENSIONS
            .iter()
            .filter(|name| missing.iter().any(|missing| missing == *name))
            .map(|name| Need::PhpExtension(name))
            .collect();
        let names = package::names(Family::Debian, &needs).join(" ");
        findings.fail(
            format!("PHP on {} lacks extensions that the portal needs", node.name),
            format!("php-fpm -m does not list {}", missing.join(", ")),
            on(
                facts,
                &node.name,
                &format!("bitrix-node init --yes installs them (on Debian: apt-get install {names}), then: systemctl restart bitrix-node"),
            ),
        );
    }
}

/// Without them the node runs, and its database does not.
pub fn package(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        let missing = &overview.facts.missing_packages;
        if missing.is_empty() {
            continue;
        }
        findings.fail(
            format!("{} lacks what its part in the database needs", node.name),
            format!("not installed: {}", missing.join(", ")),
            on(
                facts,
                &node.name,
                "bitrix-node init --yes installs it, then: systemctl restart bitrix-node",
            ),
        );
    }
}

pub fn disk(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        let Some(share) = overview.facts.disk.filter(|share| *share >= DISK.0) else {
            continue;
        };
        let cause = format!("the disk of {} is nearly full", node.name);
        let evidence = format!("{share} % of the file system of node.data_dir are used");
        let remedy = on(
            facts,
            &node.name,
            "du -xh --max-depth 2 /var/lib/bitrix-node | sort -h | tail; enlarge it or free some",
        );
        match share >= DISK.1 {
            true => findings.fail(cause, evidence, remedy),
            false => findings.warn(cause, evidence, remedy),
        }
    }
}

pub fn memory(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        if let Some(share) = overview.facts.memory.filter(|share| *share >= MEMORY) {
            findings.warn(
                format!("{} runs out of memory", node.name),
                format!("{share} % are used"),
                "give it more, or lower php.children, db.buffer_pool or cache.memory in its configuration",
            );
        }
    }
}

/// In a container they are the host's to set.
pub fn sysctl(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        let wanted = &overview.facts.sysctl;
        if wanted.is_empty() {
            continue;
        }
        findings.warn(
            format!("{} may run out of ports for short connections", node.name),
            format!("the kernel should have {}", wanted.join(", ").replace('\t', " ")),
            on(
                facts,
                &node.name,
                "bitrix-node sysctl sets it; where /proc/sys is read-only, as in a container, give it these when it is started (--sysctl), or set node.sysctl = false",
            ),
        );
    }
}

/// A port that refuses is told by the rules about services, where its node was heard; here is what a network swallows.
pub fn port(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for reach in facts.ports {
        let Some(error) = &reach.error else { continue };
        let known = facts.cluster.nodes.iter().find(|node| node.name == reach.to);
        if known.is_none_or(|node| node.overview.is_none()) {
            continue;
        }
        findings.fail(
            format!("{} does not reach the {} of {}", reach.from, reach.module, reach.to),
            format!("{}: {error}", reach.address),
            format!(
                "let TCP to {} through on {} and between both; on {}: ss -ltn",
                reach.address, reach.to, reach.to
            ),
        );
    }
}

pub fn portal_certificate(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        let Some(certificate) = overview.facts.portal_certificate else {
            continue;
        };
        let days = certificate.days(facts.cluster.now);
        if days < PORTAL_DAYS {
            let cause = format!("the portal's certificate on {} is at its end", node.name);
            let remedy = on(
                facts,
                &node.name,
                "put a new one where proxy.certificate and proxy.key say, then: systemctl reload bitrix-node",
            );
            match days < 0 {
                true => findings.fail(cause, format!("it ended {} d ago", -days), remedy),
                false => findings.warn(cause, format!("it ends in {days} d"), remedy),
            }
        } else if certificate.is_self_signed {
            findings.warn(
                format!("browsers do not trust the portal's certificate on {}", node.name),
                "it is self-signed",
                on(
                    facts,
                    &node.name,
                    "set proxy.certificate and proxy.key to one that an authority signed",
                ),
            );
        }
    }
}

pub fn node_certificate(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        let Some(certificate) = overview.facts.node_certificate else {
            continue;
        };
        let days = certificate.days(facts.cluster.now);
        if days < NODE_DAYS {
            findings.fail(
                format!("{} does not renew its certificate for other nodes", node.name),
                format!("it has {days} d left, and was due at two thirds of its life"),
                on(facts, &node.name, "bitrix-node logs --module agent -n 50"),
            );
        } else if facts.cluster.now < certificate.from {
            findings.fail(
                format!("the clock of {} is behind its own certificate", node.name),
                "its certificate for other nodes is not valid yet",
                on(facts, &node.name, "timedatectl set-ntp true"),
            );
        }
    }
}
