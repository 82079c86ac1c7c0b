//! Descriptors that a process hands to the executable by which it replaces itself, and what it says of them: a text in a memfd
//! whose number is in the environment. An executable that does not know of it is not disturbed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, fchmod};

use super::command;

/// Holds the number of the memfd.
pub const VARIABLE: &str = "BITRIX_NODE_ESTATE";
const NAME: &str = "bitrix-estate";
/// Far more than a node has to say.
const LONGEST: u64 = 1 << 20;

/// What would end a process that does not listen to it yet. Kept waiting from before the exec until the successor listens.
const HELD_BACK: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Replaces this process by another executable, which inherits these descriptors and the text about them. Returns only when that
/// fails; then nothing has changed. Must be called on the main thread: children are bound to it.
pub fn hand_over(
    program: &Path,
    arguments: &[OsString],
    text: &str,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<std::convert::Infallible> {
    let memory = write(text)?;
    let mut open: Vec<BorrowedFd<'_>> = descriptors.to_vec();
    open.push(memory.as_fd());
    let held_back: SigSet = HELD_BACK.into_iter().collect();
    let tried = close_on_exec(&open, false)
        .and_then(|()| Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(&held_back), None)?))
        .map(|()| command::become_with(program, arguments, VARIABLE, &number(&memory)));
    let failure = match tried {
        Ok(error) | Err(error) => error,
    };
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&held_back), None)?;
    close_on_exec(&open, true)?;
    Err(io::Error::new(
        failure.kind(),
        format!("{}: {failure}", program.display()),
    ))
}

/// A text for the program that replaces this process, as a file that other accounts cannot open; its path there.
pub fn leave(text: &str) -> io::Result<(OwnedFd, PathBuf)> {
    let memory = write(text)?;
    fchmod(&memory, Mode::S_IRUSR)?;
    close_on_exec(&[memory.as_fd()], false)?;
    let path = Path::new("/proc/self/fd").join(number(&memory));
    Ok((memory, path))
}

/// The signals that were held back are taken from here on. To be called by the successor when it listens to them.
pub fn listen() -> io::Result<()> {
    let held_back: SigSet = HELD_BACK.into_iter().collect();
    Ok(sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&held_back), None)?)
}

/// What a predecessor said, where there was one. `number`: what the environment holds.
pub fn text(number: &str) -> io::Result<String> {
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{VARIABLE} is not a number"));
    let mut memory = File::from(take(number.parse().map_err(invalid)?)?);
    let mut text = String::new();
    memory.rewind()?;
    memory.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Takes an inherited descriptor, once; from here on it is not inherited any more. Fails when it is not open.
pub fn take(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor <= 2 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a standard stream is nobody's",
        ));
    }
    // SAFETY: borrowed for one call, which fails if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and the predecessor left it to whoever takes it; each number is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn close_on_exec(descriptors: &[BorrowedFd<'_>], is_closed: bool) -> io::Result<()> {
    let flag = if is_closed { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    for descriptor in descriptors {
        fcntl(descriptor, FcntlArg::F_SETFD(flag))?;
    }
    Ok(())
}

fn write(text: &str) -> io::Result<OwnedFd> {
    let memory = memfd_create(NAME, MFdFlags::MFD_CLOEXEC)?;
    File::from(memory.try_clone()?).write_all(text.as_bytes())?;
    Ok(memory)
}

fn number(descriptor: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    descriptor.as_raw_fd().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn what_was_said_is_read_once() {
        let memory = write("{\"format\":1}").expect("written");
        let number = memory.into_raw_fd().to_string();
        assert_eq!(text(&number).expect("read"), "{\"format\":1}");
        assert!(text("nothing").is_err());
        assert!(text("1").is_err(), "standard output is not taken");
    }

    #[test]
    fn a_failed_exec_changes_nothing() {
        let (end, _other) = nix::unistd::pipe().expect("made");
        let error = hand_over(Path::new("/no/such/program"), &[], "", &[end.as_fd()]).expect_err("it is not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let flags = fcntl(&end, FcntlArg::F_GETFD).expect("open");
        assert_eq!(
            FdFlag::from_bits_truncate(flags),
            FdFlag::empty().union(FdFlag::FD_CLOEXEC)
        );
        let mut blocked = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, None, Some(&mut blocked)).expect("read");
        assert!(!blocked.contains(Signal::SIGTERM));
    }
}
