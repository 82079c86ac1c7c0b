//! How a request comes from the kernel to where it is noted, so that none is lost whenever this process is killed.
//!
//! ```text
//! device ─splice─► pipe ─read─► landing ─► answered, or noted elsewhere ─► struck out
//! ```
//! A plain read of the device copies into memory of this process. Where the kernel must look for its pages (they moved, were
//! swapped, or it knows no fast way to them, as User-mode Linux) it does not for a process that is being killed, and whoever had
//! asked gets EIO. By splice a request goes into pages of the kernel's own, whole or not at all; both ends of the pipe are kept by
//! the supervisor. The next request is taken when the last one is struck out, so there is one at most. A read takes a buffer out of
//! the pipe when all of it was copied. Of a process that was killed there are, with the length that the landing's first word says
//! (0: struck out) and the bytes in the pipe:
//!
//! | landing | pipe | |
//! |---|---|---|
//! | 0 | 0 | nothing |
//! | 0 | all | it was spliced; nothing of it was copied |
//! | length | up to all of it | so much is still to be read; what was read lies before that. All: the first buffer was copied and not taken out |
//! | length | 0 | it lies here whole; it may have been answered, or be noted elsewhere, too |
//!
//! This costs a request of 8 µs 1.3 µs more, so it is done with kernels before RESEND (6.9) only. Later ones run on real machines, which
//! copy to mapped pages without looking for them, and the landing's pages are mapped from the beginning: of hundreds of kills
//! none failed a read there (tests/fuse/splice.py). A page that is swapped out, or moves, just when the process is killed, would.
//!
//! The device is also read where there are no pipes (a supervisor of an older version, or one that may not make them so large), and where
//! an older version has agreed to larger requests than fit into them: the kernel wants room for the largest, in pages.

use std::io;

use super::device::{Device, Nothing};
use super::memory::{Area, PAGE, noted, strike};
use super::wire::init::{Agreed, PAGES_MOST};
use crate::host::mount::Pipe;

/// One reader's way.
pub struct Landing {
    area: Area,
    pipe: Option<Pipe>,
}

/// To how many pages of a request may be agreed, and the pipes that take what is agreed.
pub fn ways(pipes: Vec<Pipe>, agreed: Option<Agreed>) -> io::Result<(u16, Vec<Pipe>)> {
    let rooms = pipes.iter().map(|pipe| Ok(pipe.room()? / PAGE - HEAD_PAGES));
    let room = rooms.collect::<io::Result<Vec<_>>>()?.into_iter().min();
    let pages = room
        .and_then(|room| u16::try_from(room).ok())
        .unwrap_or(PAGES_MOST)
        .min(PAGES_MOST);
    let fits = agreed.is_none_or(|agreed| agreed.pages <= pages);
    Ok((pages, if fits { pipes } else { Vec::new() }))
}

/// A request's head has one for itself.
const HEAD_PAGES: usize = 1;

/// What a process that was killed left.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    Whole,
    /// The pipe has the rest, which belongs there.
    Rest {
        at: usize,
    },
    /// The pipe holds what is no part of one request.
    Foreign,
}

/// `length`: by the first word of a landing of the size `room`.
fn left(length: usize, in_pipe: usize, room: usize) -> Left {
    match (length, in_pipe) {
        (0, 0) => Left::Nothing,
        (_, 0) => Left::Whole,
        (0, _) if in_pipe <= room => Left::Rest { at: 0 },
        (_, _) if in_pipe <= length => Left::Rest { at: length - in_pipe },
        _ => Left::Foreign,
    }
}

impl Landing {
    pub fn new(area: Area, pipe: Option<Pipe>) -> Self {
        Landing { area, pipe }
    }

    /// The request that lies here.
    pub fn request(&self) -> Option<&[u8]> {
        noted(self.area.bytes())
    }

    /// It was answered, or lies elsewhere by now.
    pub fn strike(&mut self) {
        strike(&mut self.area);
    }

    /// Before the first `take`: what the process before was taking is a request here, if there is one.
    pub fn resume(&mut self) -> io::Result<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        // Where a thread of the process before is still about to end in the kernel, this waits for it.
        let in_pipe = pipe.held()?;
        let length = noted(self.area.bytes()).map_or(0, <[u8]>::len);
        match left(length, in_pipe, self.area.bytes().len()) {
            Left::Nothing | Left::Whole => Ok(()),
            Left::Rest { at } => fetch(pipe, &mut self.area.bytes_mut()[at..at + in_pipe]),
            Left::Foreign => {
                tracing::error!(
                    length,
                    in_pipe,
                    "what was left of a request is none: its caller waits until it is interrupted"
                );
                strike(&mut self.area);
                Ok(pipe.empty()?)
            }
        }
    }

    /// Waits for the next request, with the whole thread. The last one must be struck out.
    pub fn take(&mut self, device: &Device) -> Result<(), Nothing> {
        let room = self.area.bytes_mut();
        let Some(pipe) = self.pipe.as_ref().filter(|_| device.is_spliced()) else {
            return device.read(room);
        };
        let length = device.splice(pipe, room.len())?;
        // Where this fails, the next process finds it in the pipe.
        fetch(pipe, &mut room[..length]).map_err(|error| {
            tracing::error!(%error, "a request cannot be read from its pipe");
            Nothing::Gone
        })
    }
}

fn fetch(pipe: &Pipe, room: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    while at < room.len() {
        at += pipe.read(&mut room[at..])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::memory::LANDING;
    use super::*;
    use nix::fcntl::{SpliceFFlags, vmsplice};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::io::IoSlice;

    /// As the kernel splices a WRITE: its head in one buffer, then pages, the first and the last of them not whole.
    fn request() -> Vec<Vec<u8>> {
        let mut buffers = vec![vec![1; 80], vec![2; 96], vec![3; 4096], vec![4; 4096], vec![5; 17]];
        let length: usize = buffers.iter().map(Vec::len).sum();
        buffers[0][..4].copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
        buffers
    }

    fn landing() -> Landing {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        Landing::new(Area::map(memory, LANDING).unwrap(), Some(Pipe::new().unwrap()))
    }

    fn splice(landing: &Landing, buffers: &[Vec<u8>]) {
        let [_, into] = landing.pipe.as_ref().unwrap().ends();
        for buffer in buffers {
            let given = vmsplice(into, &[IoSlice::new(buffer)], SpliceFFlags::empty());
            assert_eq!(given, Ok(buffer.len()));
        }
    }

    #[test]
    fn whenever_the_process_before_was_killed_the_request_is_whole() {
        let buffers = request();
        let whole = buffers.concat();
        for taken in 0..=buffers.len() {
            let at: usize = buffers[..taken].iter().map(Vec::len).sum();
            let next = buffers.get(taken).map_or(0, Vec::len);
            // Of the next buffer so much was copied before the copy failed.
            for torn in [0, 3.min(next), 4.min(next), next / 2, next] {
                let mut landing = landing();
                splice(&landing, &buffers);
                let pipe = landing.pipe.take().unwrap();
                fetch(&pipe, &mut landing.area.bytes_mut()[..at]).unwrap();
                // The first word is copied at once or not at all.
                if at > 0 || torn >= 4 {
                    landing.area.put(at, &whole[at..at + torn]);
                }
                landing.pipe = Some(pipe);
                landing.resume().unwrap();
                assert_eq!(landing.request(), Some(&whole[..]), "{taken} buffers and {torn} bytes");
                assert_eq!(landing.pipe.as_ref().unwrap().held().unwrap(), 0);
                // Killed before it was struck out, it is there again.
                landing.resume().unwrap();
                assert_eq!(landing.request(), Some(&whole[..]));
                landing.strike();
                landing.resume().unwrap();
                assert_eq!(landing.request(), None);
            }
        }
    }

    #[test]
    fn pipes_take_what_was_agreed_or_are_not_used() {
        let agreed = |pages| Agreed {
            features: 0,
            minor: 38,
            pages,
        };
        let small = || {
            let pipe = Pipe::new().unwrap();
            let [_, into] = pipe.ends();
            nix::fcntl::fcntl(into, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
            vec![pipe]
        };
        let ways = |pipes, agreed| ways(pipes, agreed).map(|(pages, pipes)| (pages, pipes.len())).unwrap();
        assert_eq!(ways(small(), None), (255, 1));
        assert_eq!(ways(small(), Some(agreed(255))), (255, 1));
        assert_eq!(ways(small(), Some(agreed(256))), (255, 0), "by a version without pipes");
        assert_eq!(ways(Vec::new(), None), (PAGES_MOST, 0));
    }

    #[test]
    fn what_cannot_be_a_request_is_thrown_away() {
        assert_eq!(left(100, 101, 4096), Left::Foreign);
        assert_eq!(left(0, 4097, 4096), Left::Foreign);
        let mut landing = landing();
        splice(&landing, &[vec![1; 100]]);
        landing.area.put(0, &99u32.to_ne_bytes());
        landing.resume().unwrap();
        assert_eq!(
            (landing.request(), landing.pipe.as_ref().unwrap().held().unwrap()),
            (None, 0)
        );
    }

    #[test]
    fn without_a_pipe_what_lies_in_the_landing_is_there() {
        let mut landing = landing();
        landing.pipe = None;
        let whole = request().concat();
        landing.area.put(0, &whole);
        landing.resume().unwrap();
        assert_eq!(landing.request(), Some(&whole[..]));
    }
}
