//! The least of a storage's FUSE door: an empty file system that takes new folders, from raw messages of `<linux/fuse.h>`. It answers
//! from a thread of its own, and leaves without a word, as a process that was killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use bitrix_node::host::mount::Handed;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const ROOT: u64 = 1;
/// Larger than any request that it allows.
const LARGEST: usize = 64 << 10;
const FOLDER: u32 = 0o040_755;

/// Message numbers.
mod code {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const MKDIR: u32 = 9;
    pub const STATFS: u32 = 17;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
}

pub struct Door {
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    pub fn open(handed: &Handed) -> Self {
        let device = File::from(handed.device.try_clone().unwrap());
        let (stop, told) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || serve(device, &told));
        let thread = Some(thread);
        Door { stop, thread }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.stop.write_all(&[1]);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Until it is told to leave, or nothing is mounted any more.
fn serve(mut device: File, told: &UnixStream) {
    let mut message = vec![0; LARGEST];
    let mut names = BTreeMap::new();
    loop {
        let mut waits = [
            PollFd::new(told.as_fd(), PollFlags::POLLIN),
            PollFd::new(device.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut waits, PollTimeout::NONE).unwrap();
        if waits[0].any() == Some(true) {
            return;
        }
        match device
            .read(&mut message)
            .map_err(|error| error.raw_os_error().map(Errno::from_raw))
        {
            Ok(length) => answer(&device, &message[..length], &mut names),
            // It is not mounted yet, and nothing tells when it is.
            Err(Some(Errno::EPERM)) => std::thread::sleep(Duration::from_millis(5)),
            Err(Some(Errno::ENODEV)) => return,
            Err(Some(Errno::EAGAIN | Errno::EINTR | Errno::ENOENT)) => {}
            Err(error) => panic!("read from the device: {error:?}"),
        }
    }
}

fn answer(mut device: &File, message: &[u8], names: &mut BTreeMap<Vec<u8>, u64>) {
    let number = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_ne_bytes(message[at..at + 8].try_into().unwrap());
    let (code, node) = (number(4), long(16));
    let name = |at: usize| message[at..].split(|byte| *byte == 0).next().unwrap().to_vec();
    let reply = match code {
        code::FORGET | code::BATCH_FORGET | code::INTERRUPT => return,
        code::INIT => Ok(init()),
        code::GETATTR | code::SETATTR => Ok(attributes(node)),
        code::STATFS => Ok(room()),
        code::LOOKUP => names.get(&name(40)).map(|node| entry(*node)).ok_or(Errno::ENOENT),
        code::MKDIR => {
            let made = ROOT + 1 + names.len() as u64;
            names.insert(name(48), made);
            Ok(entry(made))
        }
        _ => Err(Errno::ENOSYS),
    };
    let (error, body) = match reply {
        Ok(body) => (0, body),
        Err(errno) => (-(errno as i32), Vec::new()),
    };
    let length = u32::try_from(16 + body.len()).unwrap();
    let head = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &message[8..16]].concat();
    // ENOENT: whoever asked has been killed meanwhile.
    let _ = device.write(&[head, body].concat());
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Version 7.31, no features, small requests.
fn init() -> Vec<u8> {
    let mut body = words(&[7, 31, 0, 0, 0x000c_000c, 32 << 10, 1, 0]);
    body.resize(64, 0);
    body
}

/// Not to be kept by the kernel.
fn attributes(node: u64) -> Vec<u8> {
    [vec![0; 16], attribute(node)].concat()
}

fn entry(node: u64) -> Vec<u8> {
    [node.to_ne_bytes().to_vec(), vec![0; 32], attribute(node)].concat()
}

fn attribute(node: u64) -> Vec<u8> {
    let mut body = node.to_ne_bytes().to_vec();
    body.resize(60, 0);
    body.extend(words(&[FOLDER, 2, 0, 0, 0, 4096, 0]));
    body
}

fn room() -> Vec<u8> {
    let mut body: Vec<u8> = [1000_u64, 500, 500, 1000, 900]
        .into_iter()
        .flat_map(u64::to_ne_bytes)
        .collect();
    body.extend(words(&[4096, 255, 4096, 0]));
    body.resize(80, 0);
    body
}
