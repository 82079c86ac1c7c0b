//! Asks the network whether somebody has an address (RFC 5227 §2.1, RFC 4862 §5.4), before it is put up. What the network answers is
//! read by a process of its own: root opens the socket, and the process drops its rights before it looks.
//!
//! Only who answers lives: what neighbours remember of a dead holder is not asked for. Much shorter than the standards want it,
//! for an address that floats is awaited: neighbours of one network answer within a millisecond.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde::{Deserialize, Serialize};

use super::{Mac, Place, arp, ndp, wire};
use crate::host::account::Account;
use crate::host::command::Program;

/// The hidden verb of this executable.
const VERB: &str = "address-worker";
/// When it is asked, and how long the last question may take.
const QUESTIONS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(60), Duration::from_millis(120)];
const END: Duration = Duration::from_millis(240);
/// With the start of a process on a busy machine.
const DEADLINE: Duration = Duration::from_secs(2);
/// Longer than any frame that says something here.
const FRAME: usize = 256;

#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    own: Mac,
    address: IpAddr,
    uid: u32,
    gid: u32,
}

/// Who has the address; `None`: nobody who lives, or nobody can be asked on this interface. `user`: whose rights the process gets.
pub async fn probe(executable: &Path, place: &Place, user: &Account) -> io::Result<Option<Mac>> {
    let Some(own) = place.mac else { return Ok(None) };
    let order = Order {
        own,
        address: place.address.addr(),
        uid: user.uid,
        gid: user.gid,
    };
    let order = serde_json::to_string(&order).map_err(io::Error::other)?;
    let program = Program::new(executable).arg(VERB).arg(order);
    let answer = program.input(Some(wire::ear(place)?)).check(DEADLINE).await?;
    serde_json::from_str(&answer).map_err(io::Error::other)
}

/// The worker: its standard input is the socket; returns the answer.
pub fn serve(order: &str) -> anyhow::Result<String> {
    let order: Order = serde_json::from_str(order)?;
    give_up_rights(&order)?;
    let holder = ask(&order)?;
    Ok(serde_json::to_string(&holder)?)
}

fn give_up_rights(order: &Order) -> anyhow::Result<()> {
    anyhow::ensure!(
        order.uid != 0 && order.gid != 0,
        "what the network says is not read by root"
    );
    setgroups(&[])?;
    setgid(Gid::from_raw(order.gid))?;
    setuid(Uid::from_raw(order.uid))?;
    prctl::set_no_new_privs()?;
    // Cleared by the change of user.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}

fn ask(order: &Order) -> io::Result<Option<Mac>> {
    let socket = io::stdin();
    let begun = Instant::now();
    let mut questions = QUESTIONS.iter();
    let mut next = questions.next();
    loop {
        let passed = begun.elapsed();
        if next.is_some_and(|at| *at <= passed) {
            rustix::net::send(&socket, &question(order), SendFlags::NOSIGNAL)?;
            next = questions.next();
            continue;
        }
        if passed >= END {
            return Ok(None);
        }
        let wait = next.unwrap_or(&END).saturating_sub(passed);
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&wait))? == 0 {
            continue;
        }
        let mut frame = [0; FRAME];
        let heard = match rustix::net::recv(socket.as_fd(), &mut frame, RecvFlags::DONTWAIT) {
            Ok((heard, _)) => heard,
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let heard = frame.get(..heard).unwrap_or_default();
        let holder = match order.address {
            IpAddr::V4(address) => arp::holder(heard, order.own, address),
            IpAddr::V6(address) => ndp::holder(heard, order.own, address),
        };
        if holder.is_some() {
            return Ok(holder);
        }
    }
}

fn question(order: &Order) -> Vec<u8> {
    match order.address {
        IpAddr::V4(address) => arp::probe(order.own, address).to_vec(),
        IpAddr::V6(address) => ndp::probe(order.own, address),
    }
}
