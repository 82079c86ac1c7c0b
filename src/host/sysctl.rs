//! What the kernel is told for many short connections: PHP opens one to the database for each request. sysctl(8), of this network
//! namespace, until the machine is switched off.
//!
//! Whoever closes a connection keeps its port for a minute (TIME_WAIT). After 27 000 of them no port was left, and a connection took 50
//! ms and more. So more ports are given out, none of them one that we listen on, and one that waits may be taken again.
//!
//! What is wider already stays: the operator may have his reasons.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Serialize;

const FOLDER: &str = "/proc/sys/net/ipv4";
/// Ports for outgoing connections.
const RANGE: (u16, u16) = (10_000, 65_000);
/// One that waits may be taken again for any address; 2, the kernel's default, is for loopback alone.
const REUSE: &str = "1";

const RESERVED: &str = "ip_local_reserved_ports";
const LOCAL: &str = "ip_local_port_range";
const TIME_WAIT: &str = "tcp_tw_reuse";
/// More than a list of all ports takes.
const LONGEST: usize = 512 << 10;
/// The kernel takes less than a page at a time.
const PAGE: usize = 4096;
/// In this order they are changed: first what must not be given out is kept.
const NAMES: [&str; 3] = [RESERVED, LOCAL, TIME_WAIT];

/// A value that is to be another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    name: &'static str,
    pub from: String,
    pub to: String,
}

impl Change {
    /// As sysctl(8) has it.
    pub fn key(&self) -> String {
        format!("net.ipv4.{}", self.name)
    }

    /// Root's, and refused where /proc/sys is read-only, as in most containers.
    pub fn make(&self) -> io::Result<()> {
        if self.to.len() >= PAGE {
            return Err(io::Error::other("the list is longer than the kernel takes"));
        }
        fs::write(Path::new(FOLDER).join(self.name), &self.to)
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} = \"{}\"", self.key(), self.to)
    }
}

/// What is to be changed now. `ports`: those that we listen on. What this kernel does not have is left out.
pub fn wanted(ports: &BTreeSet<u16>) -> Vec<Change> {
    plan(read, ports)
}

/// In one piece: of a list the kernel gives what fits into the first read, and nothing after that.
fn read(name: &str) -> Option<String> {
    let mut file = File::open(Path::new(FOLDER).join(name)).ok()?;
    let mut bytes = vec![0; LONGEST];
    let length = file.read(&mut bytes).ok()?;
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

/// Pure.
fn plan(now: impl Fn(&str) -> Option<String>, ports: &BTreeSet<u16>) -> Vec<Change> {
    let range = now(LOCAL).as_deref().and_then(range).map(wider);
    let change = |name: &'static str| {
        let text = now(name)?.trim().to_string();
        let to = match name {
            RESERVED => {
                let inside = range.clone()?;
                let ours = ports.iter().filter(|port| inside.contains(port));
                let kept = reserved(&text)?;
                let all: BTreeSet<u16> = kept.iter().chain(ours).copied().collect();
                if all == kept {
                    return None;
                }
                spans(&all)
            }
            LOCAL => {
                let is_wide = self::range(&text)? == range.clone()?;
                let (low, high) = range.clone()?.into_inner();
                if is_wide {
                    return None;
                }
                format!("{low}\t{high}")
            }
            _ => REUSE.to_string(),
        };
        let from = text;
        (from != to).then_some(Change { name, from, to })
    };
    NAMES.into_iter().filter_map(change).collect()
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(low)), Some(Ok(high))) => Some(low..=high),
        _ => None,
    }
}

fn wider(now: RangeInclusive<u16>) -> RangeInclusive<u16> {
    let (low, high) = now.into_inner();
    low.min(RANGE.0)..=high.max(RANGE.1)
}

/// `8080,9148-9150`; `None`: it is written in a way that is not known, and left alone.
fn reserved(text: &str) -> Option<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        ports.extend(low.parse::<u16>().ok()?..=high.parse().ok()?);
    }
    Some(ports)
}

fn spans(ports: &BTreeSet<u16>) -> String {
    let mut spans: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match spans.last_mut() {
            Some((_, high)) if high.checked_add(1) == Some(*port) => *high = *port,
            _ => spans.push((*port, *port)),
        }
    }
    let spans = spans.into_iter().map(|(low, high)| match low == high {
        true => low.to_string(),
        false => format!("{low}-{high}"),
    });
    spans.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(reserved: &str, range: &str, reuse: &str) -> Vec<String> {
        let now = |name: &str| {
            let text = match name {
                RESERVED => reserved,
                LOCAL => range,
                _ => reuse,
            };
            Some(format!("{text}\n"))
        };
        let ports = [443, 7400, 7401, 7402, 11211, 40001].into();
        plan(now, &ports).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ports_that_we_listen_on_are_kept_before_more_are_given_out() {
        let all = [
            "net.ipv4.ip_local_reserved_ports = \"11211,40001\"",
            "net.ipv4.ip_local_port_range = \"10000\t65000\"",
            "net.ipv4.tcp_tw_reuse = \"1\"",
        ];
        assert_eq!(planned("", "32768\t60999", "2"), all);
        assert_eq!(planned("11211,40001", "10000\t65000", "1"), [""; 0]);
    }

    #[test]
    fn what_is_wider_already_stays_so() {
        assert_eq!(
            planned("8080,9148-9150", "1024\t65535", "1"),
            ["net.ipv4.ip_local_reserved_ports = \"7400-7402,8080,9148-9150,11211,40001\""]
        );
        assert_eq!(
            planned("11211,40001", "5000 40000", "1"),
            [
                "net.ipv4.ip_local_reserved_ports = \"7400-7402,11211,40001\"",
                "net.ipv4.ip_local_port_range = \"5000\t65000\""
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        assert_eq!(plan(|_| None, &[443].into()), []);
        assert_eq!(planned("all", "everything", "1"), [""; 0]);
    }

    #[test]
    fn spans_are_written_as_they_are_read() {
        for text in ["", "1", "1-3,5,7-65535"] {
            assert_eq!(spans(&reserved(text).expect("ports")), text);
        }
    }
}
