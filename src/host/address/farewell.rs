//! The last moments of a floating address on this machine: no connection is begun by it any more, and those that are there come to
//! their end. Who asks to connect meanwhile is not answered, asks again after a second (RFC 6298 §2.1), and finds the next holder.
//!
//! What has been agreed on is not touched: the last segment of a handshake passes, or a client would send its request to nobody.

use std::fs::File;
use std::io::{self, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use procfs_core::net::{TcpNetEntries, TcpState};
use procfs_core::{ExplicitSystemInfo, FromBufReadSI};
use socket2::{SockFilter, SockRef};

/// Offset of the IP header for a filter's loads (filter.h: SKF_NET_OFF); other offsets count from the TCP header.
const NETWORK: u32 = 0xfff0_0000;
/// Flags of a segment (RFC 9293 §3.1).
const FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;
const WHOLE: u32 = u32::MAX;
/// For these tables only the order of octets counts.
const SYSTEM: ExplicitSystemInfo = ExplicitSystemInfo {
    boot_time_secs: 0,
    ticks_per_second: 0,
    page_size: 0,
    is_little_endian: cfg!(target_endian = "little"),
};
/// Of the calling thread's network namespace.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

/// Listening sockets of the front.
#[derive(Clone, Default)]
pub struct Doors(Arc<Vec<OwnedFd>>);

/// While it lives, nobody connects by the address.
pub struct Shut(Doors);

impl Doors {
    pub fn new(sockets: Vec<OwnedFd>) -> Self {
        Doors(Arc::new(sockets))
    }

    /// One address at a time.
    pub fn shut(&self, address: IpAddr) -> io::Result<Shut> {
        let shut = Shut(self.clone());
        let filter = filter(address);
        for socket in &*self.0 {
            SockRef::from(socket).attach_filter(&filter)?;
        }
        Ok(shut)
    }

    /// Connections by the address that are not over: what was sent is not all acknowledged, or more may be.
    pub fn connections(&self, address: IpAddr) -> io::Result<usize> {
        let mut ports = Vec::new();
        for socket in &*self.0 {
            ports.extend(SockRef::from(socket).local_addr()?.as_socket().map(|own| own.port()));
        }
        let mut open = 0;
        for table in TABLES {
            let file = match File::open(table) {
                // A kernel without IPv6 has no such table.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let read = TcpNetEntries::from_buf_read(BufReader::new(file), &SYSTEM);
            let TcpNetEntries(entries) = read.map_err(|error| io::Error::other(error.to_string()))?;
            let ours = |local: SocketAddr| local.ip().to_canonical() == address && ports.contains(&local.port());
            open += entries
                .iter()
                .filter(|entry| is_open(&entry.state) && ours(entry.local_address))
                .count();
        }
        Ok(open)
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        for socket in &*self.0.0 {
            // One that has none of it needs nothing.
            let _ = SockRef::from(socket).detach_filter();
        }
    }
}

fn is_open(state: &TcpState) -> bool {
    matches!(
        state,
        TcpState::SynRecv
            | TcpState::NewSynRecv
            | TcpState::Established
            | TcpState::CloseWait
            | TcpState::FinWait1
            | TcpState::LastAck
    )
}

/// Drops the first segment of a handshake that is addressed there.
fn filter(address: IpAddr) -> Vec<SockFilter> {
    let (version, at, words) = match address {
        IpAddr::V4(address) => (4, 16, vec![address.to_bits()]),
        IpAddr::V6(address) => {
            let octets = address.octets();
            let words = octets.chunks_exact(4);
            let words = words.map(|word| word.iter().fold(0, |word, octet| word << 8 | u32::from(*octet)));
            (6, 24, words.collect())
        }
    };
    let mut tests = vec![
        Test::new(load_byte(FLAGS), Some(mask(SYN | ACK)), SYN),
        Test::new(load_byte(NETWORK), Some(mask(0xf0)), version << 4),
    ];
    for (index, word) in (0..).zip(words) {
        tests.push(Test::new(load_word(NETWORK + at + 4 * index), None, word));
    }
    let length: usize = tests.iter().map(Test::length).sum();
    let mut program = Vec::with_capacity(length + 2);
    for test in tests {
        program.push(test.load);
        program.extend(test.mask);
        // To the end, where a segment that is none of these passes.
        let rest = length - program.len();
        program.push(jump_unless(test.wanted, u8::try_from(rest).expect("a dozen steps")));
    }
    program.extend([give(0), give(WHOLE)]);
    program
}

/// What is loaded is what is wanted.
struct Test {
    load: SockFilter,
    mask: Option<SockFilter>,
    wanted: u32,
}

impl Test {
    fn new(load: SockFilter, mask: Option<SockFilter>, wanted: u32) -> Self {
        Test { load, mask, wanted }
    }

    fn length(&self) -> usize {
        2 + usize::from(self.mask.is_some())
    }
}

fn load_byte(at: u32) -> SockFilter {
    step(nix::libc::BPF_LD | nix::libc::BPF_B | nix::libc::BPF_ABS, 0, at)
}

fn load_word(at: u32) -> SockFilter {
    step(nix::libc::BPF_LD | nix::libc::BPF_W | nix::libc::BPF_ABS, 0, at)
}

fn mask(bits: u32) -> SockFilter {
    step(nix::libc::BPF_ALU | nix::libc::BPF_AND | nix::libc::BPF_K, 0, bits)
}

fn jump_unless(wanted: u32, steps: u8) -> SockFilter {
    step(
        nix::libc::BPF_JMP | nix::libc::BPF_JEQ | nix::libc::BPF_K,
        steps,
        wanted,
    )
}

fn give(length: u32) -> SockFilter {
    step(nix::libc::BPF_RET | nix::libc::BPF_K, 0, length)
}

fn step(code: u32, otherwise: u8, operand: u32) -> SockFilter {
    SockFilter::new(u16::try_from(code).expect("sixteen bits"), 0, otherwise, operand)
}
