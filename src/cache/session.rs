//! One client's conversation without its socket: bytes in, commands executed, replies queued in their order.
//!
//! A value that is not all there when its head is read gets its record at once and is read into it, so that a large value
//! is never copied. Nothing else keeps more than one unfinished line or header: an idle client costs no buffer.

use super::command::{Command, Get, Mode, Reply, Set};
use super::engine::Engine;
use super::output::Output;
use super::request::{Decoded, Head, Many, Refusal, Request, SCRATCH, Scratch};
use super::store::{Moment, Record};
use super::{ascii, binary};

/// While so much output waits, no further command is executed: a client that does not read gets no more memory.
/// One reply more may be added to it, of at most one item or one answer to `stats`; a text `get` of many keys is cut in
/// pieces at this mark.
pub const OUTPUT_HIGH: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// Told by the first byte.
    Unknown,
    Text,
    Binary,
}

#[derive(Debug)]
enum State {
    /// At the start of a request.
    Request,
    /// A value is being read into its record. `line` is the request's line or header, decoded again when all is there.
    Value {
        line: Box<[u8]>,
        record: Record,
        filled: usize,
        length: usize,
    },
    /// So many bytes of a refused value are still to be dropped.
    Skip(usize),
    /// A long text `get` whose replies have reached the mark, and how many keys are answered.
    Many {
        line: Box<[u8]>,
        done: usize,
    },
    Closed,
}

/// How far one step came in the input.
enum Step {
    Used(usize),
    /// Used so much, and more bytes are needed.
    Starved(usize),
}

#[derive(Debug)]
pub struct Session {
    dialect: Dialect,
    state: State,
    /// The unfinished request, or requests that wait until output is written.
    input: Vec<u8>,
    pub output: Output,
}

impl Default for Session {
    fn default() -> Self {
        Session {
            dialect: Dialect::Unknown,
            state: State::Request,
            input: Vec::new(),
            output: Output::default(),
        }
    }
}

impl Session {
    /// No more will be executed; close once the output is written.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Between requests, with nothing to say.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Request) && self.input.is_empty() && self.output.is_empty()
    }

    /// Something was received that `resume` may go on with.
    pub fn is_waiting(&self) -> bool {
        !self.input.is_empty() || matches!(self.state, State::Many { .. })
    }

    /// Output must be written before anything more is read.
    pub fn is_full(&self) -> bool {
        self.output.len() >= OUTPUT_HIGH
    }

    /// Where the next bytes of a value belong; after filling some of it call `filled`.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        match &mut self.state {
            State::Value {
                record, filled, length, ..
            } if self.input.is_empty() => record.room().get_mut(*filled..*length),
            _ => None,
        }
    }

    /// `count` bytes were put into `room`.
    pub fn filled(&mut self, count: usize, engine: &Engine, moment: Moment) {
        if let State::Value { filled, .. } = &mut self.state {
            *filled += count;
        }
        self.resume(engine, moment);
    }

    /// Bytes from the client.
    pub fn receive(&mut self, bytes: &[u8], engine: &Engine, moment: Moment) {
        if self.input.is_empty() && !self.is_full() {
            let used = self.run(bytes, engine, moment);
            self.input.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            self.input.extend_from_slice(bytes);
            self.resume(engine, moment);
        }
    }

    /// Goes on with what was received before; call when output has been written.
    pub fn resume(&mut self, engine: &Engine, moment: Moment) {
        let mut input = std::mem::take(&mut self.input);
        let used = self.run(&input, engine, moment);
        if used < input.len() {
            input.drain(..used);
            self.input = input;
        }
    }

    /// Executes all that is whole; returns the bytes used.
    fn run(&mut self, input: &[u8], engine: &Engine, moment: Moment) -> usize {
        let mut used = 0;
        while !self.is_full() {
            let rest = input.get(used..).unwrap_or_default();
            let step = match self.state {
                State::Closed => return input.len(),
                State::Request => self.request(rest, engine, moment),
                State::Value { .. } => self.value(rest, engine, moment),
                State::Skip(left) => self.skip(left, rest),
                State::Many { .. } => self.go_on(engine, moment),
            };
            match step {
                Step::Used(count) => used += count,
                Step::Starved(count) => return used + count,
            }
        }
        used
    }

    fn decode<'a>(&mut self, input: &'a [u8], moment: Moment, scratch: &'a mut Scratch) -> Decoded<'a> {
        if let (Dialect::Unknown, Some(first)) = (self.dialect, input.first()) {
            self.dialect = if *first == binary::MAGIC {
                Dialect::Binary
            } else {
                Dialect::Text
            };
        }
        match self.dialect {
            Dialect::Binary => binary::decode(input, moment),
            Dialect::Text | Dialect::Unknown => ascii::decode(input, moment, scratch),
        }
    }

    fn request(&mut self, input: &[u8], engine: &Engine, moment: Moment) -> Step {
        let mut scratch = SCRATCH;
        let (size, request) = match self.decode(input, moment, &mut scratch) {
            Decoded::Partial => return Step::Starved(0),
            Decoded::Hopeless => {
                self.state = State::Closed;
                return Step::Used(0);
            }
            Decoded::Whole { size, request } => (size, request),
        };
        match request {
            Request::One(command, form) => {
                let reply = engine.execute(command, moment);
                form.encode(&reply, &mut self.output);
                if matches!(reply, Reply::Quit) {
                    self.state = State::Closed;
                }
            }
            Request::Many(many) => {
                let line = input.get(..size).unwrap_or_default();
                self.many(&many, line, 0, engine, moment);
            }
            Request::Refusal(refusal) => self.refuse(&refusal),
            Request::Store(head) => {
                let (line, value) = input.split_at_checked(size).unwrap_or((input, &[]));
                return Step::Used(size + self.store(&head, line, value, engine, moment));
            }
        }
        Step::Used(size)
    }

    fn refuse(&mut self, refusal: &Refusal<'_>) {
        refusal.form.encode(&refusal.reply, &mut self.output);
        self.state = match (refusal.is_last, refusal.skip) {
            (true, _) => State::Closed,
            (false, 0) => State::Request,
            (false, skip) => State::Skip(skip),
        };
    }

    /// Starts a storage command with the part of its value that is there; returns how much of that was used.
    fn store(&mut self, head: &Head<'_>, line: &[u8], value: &[u8], engine: &Engine, moment: Moment) -> usize {
        let length = head.length + head.form.trailer();
        if !engine.store.fits(head.key.len(), head.length) {
            // A client that failed to replace an item must not find the old one.
            let forget = head.terms.mode == Mode::Set && head.terms.compare.is_none();
            engine.store.refuse_too_large(head.key, forget, moment.now);
            head.form.encode(&Reply::TooLarge, &mut self.output);
            self.state = State::Skip(length);
            return 0;
        }
        let mut record = Record::reserve(head.key, head.length);
        let there = fill(&mut record, 0, length, value);
        if there == length {
            self.finish(head, record, engine, moment);
        } else {
            self.state = State::Value {
                line: line.into(),
                record,
                filled: there,
                length,
            };
        }
        there
    }

    /// Goes on reading a value.
    fn value(&mut self, input: &[u8], engine: &Engine, moment: Moment) -> Step {
        match std::mem::replace(&mut self.state, State::Request) {
            State::Value {
                line,
                mut record,
                filled,
                length,
            } => {
                let there = fill(&mut record, filled, length, input);
                let filled = filled + there;
                if filled < length {
                    self.state = State::Value {
                        line,
                        record,
                        filled,
                        length,
                    };
                    return Step::Starved(there);
                }
                let mut scratch = SCRATCH;
                if let Decoded::Whole {
                    request: Request::Store(head),
                    ..
                } = self.decode(&line, moment, &mut scratch)
                {
                    self.finish(&head, record, engine, moment);
                }
                Step::Used(there)
            }
            other => {
                self.state = other;
                Step::Used(0)
            }
        }
    }

    /// Stores a record that is all there.
    fn finish(&mut self, head: &Head<'_>, record: Record, engine: &Engine, moment: Moment) {
        let reply = if record.is_terminated() {
            let terms = head.terms;
            engine.execute(Command::Set(Set { terms, record }), moment)
        } else {
            Reply::BadChunk
        };
        head.form.encode(&reply, &mut self.output);
    }

    fn skip(&mut self, left: usize, input: &[u8]) -> Step {
        match left.checked_sub(input.len()) {
            None | Some(0) => {
                self.state = State::Request;
                Step::Used(left)
            }
            Some(left) => {
                self.state = State::Skip(left);
                Step::Starved(input.len())
            }
        }
    }

    /// Answers the keys of a text `get` from number `done` on, until the output is full.
    fn many(&mut self, many: &Many<'_>, line: &[u8], done: usize, engine: &Engine, moment: Moment) {
        for (count, key) in many.keys.enumerate().skip(done) {
            if self.is_full() {
                let line = line.into();
                self.state = State::Many { line, done: count };
                return;
            }
            let get = Get {
                touch: many.touch,
                ..Get::plain(key)
            };
            if let reply @ Reply::Hit(_) = engine.execute(Command::Get(get), moment) {
                many.form.encode(&reply, &mut self.output);
            }
        }
        ascii::encode_end(&mut self.output);
    }

    /// Goes on with a text `get` of many keys.
    fn go_on(&mut self, engine: &Engine, moment: Moment) -> Step {
        if let State::Many { line, done } = std::mem::replace(&mut self.state, State::Request) {
            let mut scratch = SCRATCH;
            if let Decoded::Whole {
                request: Request::Many(many),
                ..
            } = self.decode(&line, moment, &mut scratch)
            {
                self.many(&many, &line, done, engine, moment);
            }
        }
        Step::Used(0)
    }
}

/// Puts bytes into a record from `filled` on; returns how many fitted.
fn fill(record: &mut Record, filled: usize, length: usize, bytes: &[u8]) -> usize {
    let count = bytes.len().min(length.saturating_sub(filled));
    let room = record.room().get_mut(filled..filled + count);
    if let (Some(room), Some(bytes)) = (room, bytes.get(..count)) {
        room.copy_from_slice(bytes);
    }
    count
}
