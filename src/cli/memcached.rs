//! `memcached`: the embedded cache under memcached's flags (memcached(1)), so that programs which start a memcached of their own,
//! above all its tests, can start this one. Also chosen by the name of the executable. Listens on loopback unless told otherwise.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::base::error::EXIT_OK;
use crate::cache::Compat;
use crate::net::listen;

/// Names of the executable that mean this verb.
const NAMES: [&str; 2] = ["memcached", "memcached-debug"];
const MIB: usize = 1 << 20;
/// Clients look at the first words; tests for `unix-socket`.
const HELP: &str = "\
memcached flags of bitrix-node
-p <port>, -l <address,...>, -s, --unix-socket=<file>
-m <megabytes>, -M (no eviction), -I <size>, -c <connections>, -t <threads>, -F (no flush_all)
-U must be 0 to mean anything: there is no UDP. Other flags of memcached are read and ignored.
";

/// The flags, whatever of them has a meaning here.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Memcached {
    /// 0 is any free port
    #[arg(short, default_value_t = 11211)]
    port: u16,
    #[arg(short, value_delimiter = ',', default_value = "127.0.0.1")]
    listen: Vec<String>,
    /// Instead of TCP
    #[arg(short = 's', long)]
    unix_socket: Option<PathBuf>,
    /// MiB
    #[arg(short, default_value_t = 64)]
    memory: usize,
    #[arg(short = 'M')]
    is_bounded: bool,
    #[arg(short, default_value = "1024", value_parser = positive, allow_hyphen_values = true)]
    connections: usize,
    #[arg(short, default_value = "4", value_parser = positive)]
    threads: usize,
    #[arg(short = 'I', default_value = "1m", value_parser = size)]
    item: usize,
    #[arg(short = 'F')]
    refuses_flush: bool,
    #[arg(short = 'h')]
    help: bool,
    #[arg(short = 'V')]
    version: bool,
    #[arg(short = 'i')]
    license: bool,
    #[command(flatten)]
    ignored: Ignored,
}

/// Read, and said to be ignored where a terminal listens.
#[derive(Debug, Args)]
struct Ignored {
    #[arg(short = 'U')]
    udp: Option<u16>,
    /// All dialects are always spoken
    #[arg(short = 'B')]
    binding: Vec<Binding>,
    /// Uniques are always kept
    #[arg(short = 'C')]
    without_cas: bool,
    /// `shutdown` is never obeyed
    #[arg(short = 'A')]
    with_shutdown: bool,
    #[arg(short = 'Y')]
    passwords: Option<PathBuf>,
    #[arg(short = 'R')]
    requests: Option<usize>,
    #[arg(short)]
    backlog: Option<usize>,
    #[arg(short)]
    user: Option<String>,
    #[arg(short, action = clap::ArgAction::Append)]
    options: Vec<String>,
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Binding {
    Auto,
    Ascii,
    Binary,
}

/// Puts the verb in where the executable's name is memcached's.
pub fn renamed(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    if name.and_then(OsStr::to_str).is_some_and(|name| NAMES.contains(&name)) {
        arguments.insert(1, "memcached".into());
    }
    arguments
}

impl Memcached {
    pub fn perform(self) -> anyhow::Result<u8> {
        let mut stdout = std::io::stdout();
        if self.help || self.license {
            stdout.write_all(HELP.as_bytes())?;
            return Ok(EXIT_OK);
        }
        if self.version {
            writeln!(stdout, "bitrix-node {}", env!("CARGO_PKG_VERSION"))?;
            return Ok(EXIT_OK);
        }
        if std::io::stderr().is_terminal() {
            eprintln!("flags without a meaning here: {:?}", self.ignored);
        }
        ensure!(
            self.item <= self.memory.saturating_mul(MIB) / 2,
            "an item may take half of the memory at most"
        );
        let compat = Compat {
            tcp: match self.unix_socket {
                Some(_) => Vec::new(),
                None => self.bind()?,
            },
            unix: self.unix_socket.as_deref().map(listen::unix).transpose()?,
            memory: self.memory.saturating_mul(MIB),
            max_item: self.item,
            max_connections: self.connections,
            workers: self.threads,
            evicts: !self.is_bounded,
            allows_flush: !self.refuses_flush,
        };
        compat.run(stopped()).map(|()| EXIT_OK)
    }

    fn bind(&self) -> anyhow::Result<Vec<TcpListener>> {
        let mut listeners = Vec::new();
        for name in &self.listen {
            let address = address(name, self.port)?;
            listeners.push(listen::tcp(address).with_context(|| format!("listen on {address}"))?);
        }
        Ok(listeners)
    }
}

/// In digits, with a port of its own or the one of `-p`: names are not looked up, because the executable is static.
fn address(text: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let own = text.parse::<SocketAddr>().ok();
    own.or_else(|| text.parse::<IpAddr>().ok().map(|ip| (ip, port).into()))
        .with_context(|| format!("\"{text}\" is no address"))
}

/// Resolves at a signal to end.
async fn stopped() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a number above 0".into()),
        Ok(number) => Ok(number),
    }
}

/// Bytes, or with `k` or `m` so many KiB or MiB. At least 1 KiB and at most 1 GiB, as in memcached.
fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], MIB),
        _ => (text, 1),
    };
    digits
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|bytes| (1 << 10..=1 << 30).contains(bytes))
        .ok_or_else(|| "must be between 1k and 1024m".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::tree::{Cli, Verb};
    use super::*;

    fn parsed(line: &str) -> Result<Memcached, clap::Error> {
        let arguments = renamed(line.split(' ').map(OsString::from));
        Cli::try_parse_from(arguments).map(|cli| match cli.verb {
            Verb::Memcached(flags) => flags,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn flags_are_read_as_memcached_reads_them() {
        let flags =
            parsed("/x/memcached-debug -m64 -vv -o modern,a=1 -o b -U 0 -l 127.0.0.1 -p 0 -I 512k -B ascii -u root")
                .unwrap();
        assert_eq!((flags.memory, flags.port, flags.item), (64, 0, 512 << 10));
        assert_eq!((flags.ignored.verbose, flags.ignored.options.len()), (2, 2));
        let flags = parsed("bitrix-node memcached -s /tmp/x -M -F").unwrap();
        assert!(flags.is_bounded && flags.refuses_flush && flags.unix_socket.is_some());
        for wrong in ["-c 0", "-c -1", "-t 0", "-B http", "-I 1023", "-I 2000m", "-Q"] {
            assert!(parsed(&format!("memcached {wrong}")).is_err(), "{wrong}");
        }
    }
}
