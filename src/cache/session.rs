//! One client's conversation without its socket: bytes in, commands executed, replies queued in their order.
//!
//! A command that another node has a part in becomes an order: its reply, and all after it, are kept until `settle` finds them whole.
//! All requests of one read are looked at before anybody waits; no further ones are until all of these are answered.
//!
//! A value that is not all there when its head is read gets its record at once and is read into it, so that a large value
//! is never copied. Nothing else keeps more than one unfinished line or header: an idle client costs no buffer.

use super::command::{Command, Delete, Get, Mode, Reply, Set};
use super::council::Shard;
use super::desk::{Desk, Taken, Way};
use super::engine::Engine;
use super::late::{Entry, Late, Line, Told};
use super::output::Output;
use super::request::{Decoded, Form, Head, Many, Refusal, Request, SCRATCH, Scratch};
use super::router::{OnKey, Order, Work};
use super::store::{Moment, Record, SHARE_FROM};
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
    /// Requests that wait for other nodes.
    late: Option<Box<Late>>,
}

impl Default for Session {
    fn default() -> Self {
        Session {
            dialect: Dialect::Unknown,
            state: State::Request,
            input: Vec::new(),
            output: Output::default(),
            late: None,
        }
    }
}

impl Session {
    /// No more will be executed; close once the output is written.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed) && self.late.is_none()
    }

    /// What other nodes must be asked before anything more is read.
    pub fn orders(&mut self) -> Option<&mut [Order]> {
        self.late.as_deref_mut().map(|late| &mut late.orders[..])
    }

    /// Between requests, with nothing to say.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Request) && self.input.is_empty() && self.output.is_empty() && self.late.is_none()
    }

    /// Something was received that `resume` may go on with.
    pub fn is_waiting(&self) -> bool {
        !self.input.is_empty() || matches!(self.state, State::Many { .. })
    }

    /// Output must be written, or other nodes heard, before anything more is executed.
    pub fn is_full(&self) -> bool {
        self.output.len() >= OUTPUT_HIGH || self.late.as_ref().is_some_and(|late| late.is_full())
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
            let used = self.attend(bytes, engine, moment);
            self.input.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            self.input.extend_from_slice(bytes);
            self.resume(engine, moment);
        }
    }

    /// Goes on with what was received before; call when output has been written and nobody is waited for.
    pub fn resume(&mut self, engine: &Engine, moment: Moment) {
        let mut input = std::mem::take(&mut self.input);
        let used = self.attend(&input, engine, moment);
        if used < input.len() {
            input.drain(..used);
            self.input = input;
        }
    }

    /// Writes what has been answered, in its order.
    pub fn settle(&mut self) {
        let Some(mut late) = self.late.take() else { return };
        while self.output.len() < OUTPUT_HIGH
            && !self.is_closed()
            && let Some(entry) = late.pop()
        {
            match entry {
                Entry::One { line } => late.tell(|told| match told {
                    Told::Reply(reply) => self.settle_one(&line, reply),
                    Told::Said(said) => self.output.put(said),
                }),
                Entry::Many { form, count, is_last } => self.settle_many(form, (&mut late, count), is_last),
            }
        }
        match late.is_empty() || self.is_closed() {
            true => late.give_back(),
            false => self.late = Some(late),
        }
    }

    fn settle_one(&mut self, line: &[u8], reply: &Reply) {
        let mut scratch = SCRATCH;
        // Only its form is looked at, which depends on no time.
        let moment = Moment { now: 0, unix: 0 };
        let Decoded::Whole { request, .. } = self.decode(line, moment, &mut scratch) else {
            return;
        };
        match request {
            Request::One(_, form) => self.tell(reply, &form),
            Request::Store(head) => head.form.encode(reply, &mut self.output),
            Request::Refusal(refusal) => refusal.form.encode(reply, &mut self.output),
            Request::Many(_) => {}
        }
    }

    fn settle_many(&mut self, form: ascii::Form, (late, count): (&mut Late, usize), is_last: bool) {
        let mut has_failed = false;
        for _ in 0..count {
            late.tell(|told| match told {
                Told::Said(said) => self.output.put(said),
                Told::Reply(reply @ Reply::Hit(_)) => ascii::encode(&form, reply, &mut self.output),
                Told::Reply(Reply::Unavailable) => has_failed = true,
                Told::Reply(Reply::Silence) => self.state = State::Closed,
                Told::Reply(_) => {}
            });
        }
        match (is_last, has_failed) {
            _ if matches!(self.state, State::Closed) => {}
            (true, true) => ascii::encode(&form, &Reply::Unavailable, &mut self.output),
            (true, false) => ascii::encode_end(&mut self.output),
            (false, _) => {}
        }
    }

    fn tell(&mut self, reply: &Reply, form: &Form<'_>) {
        match reply {
            Reply::Silence => self.state = State::Closed,
            reply => form.encode(reply, &mut self.output),
        }
    }

    /// Executes under one look at this node's part in the cluster.
    fn attend(&mut self, input: &[u8], engine: &Engine, moment: Moment) -> usize {
        let desk = Desk::new(engine, moment);
        let used = self.run(input, &desk);
        if !desk.is_sound() {
            // The process stood still in between: others may serve these keys by now.
            (self.output, self.late, self.state) = (Output::default(), None, State::Closed);
        }
        used
    }

    /// Executes all that is whole; returns the bytes used.
    fn run(&mut self, input: &[u8], desk: &Desk<'_>) -> usize {
        let mut used = 0;
        while !self.is_full() {
            let rest = input.get(used..).unwrap_or_default();
            let step = match self.state {
                State::Closed => return input.len(),
                State::Request => self.request(rest, desk),
                State::Value { .. } => self.value(rest, desk),
                State::Skip(left) => self.skip(left, rest),
                State::Many { .. } => self.go_on(desk),
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

    fn request(&mut self, input: &[u8], desk: &Desk<'_>) -> Step {
        let mut scratch = SCRATCH;
        let (size, request) = match self.decode(input, desk.moment, &mut scratch) {
            Decoded::Partial => return Step::Starved(0),
            Decoded::Hopeless => {
                self.state = State::Closed;
                return Step::Used(0);
            }
            Decoded::Whole { size, request } => (size, request),
        };
        match request {
            Request::One(command, form) => {
                let is_quit = matches!(command, Command::Quit);
                let line = Line::new(input.get(..size).unwrap_or_default());
                let taken = desk.take(command, &line, self.late.as_deref());
                self.answer(taken, &form, &line);
                if is_quit {
                    self.state = State::Closed;
                }
            }
            Request::Many(many) => {
                let line = Line::new(input.get(..size).unwrap_or_default());
                self.many(&many, &line, 0, desk);
            }
            Request::Refusal(refusal) => self.refuse(refusal, &Line::new(input.get(..size).unwrap_or_default())),
            Request::Store(head) => {
                let (line, value) = input.split_at_checked(size).unwrap_or((input, &[]));
                return Step::Used(size + self.store(&head, &Line::new(line), value, desk));
            }
        }
        Step::Used(size)
    }

    /// Writes a reply, or keeps it behind those that are not there yet.
    fn answer(&mut self, taken: Taken, form: &Form<'_>, line: &Line<'_>) {
        let late = match (taken, &mut self.late) {
            (Taken::Answered(reply), None) => return self.tell(&reply, form),
            (Taken::Answered(reply), Some(late)) => {
                late.ready(reply);
                late
            }
            (Taken::Later(space, work), late) => {
                let late = late.get_or_insert_with(Late::new);
                late.order(space, work);
                late
            }
        };
        late.push(Entry::One { line: line.whole() }, line);
    }

    fn refuse(&mut self, refusal: Refusal<'_>, line: &Line<'_>) {
        self.answer(Taken::Answered(refusal.reply), &refusal.form, line);
        self.state = match (refusal.is_last, refusal.skip) {
            (true, _) => State::Closed,
            (false, 0) => State::Request,
            (false, skip) => State::Skip(skip),
        };
    }

    /// Starts a storage command with the part of its value that is there; returns how much of that was used.
    fn store(&mut self, head: &Head<'_>, line: &Line<'_>, value: &[u8], desk: &Desk<'_>) -> usize {
        let length = head.length + head.form.trailer();
        if !desk.engine.store.fits(head.key.len(), head.length) {
            self.refuse_too_large(head, line, desk);
            self.state = State::Skip(length);
            return 0;
        }
        let mut record = Record::reserve(head.key, head.length);
        let there = fill(&mut record, 0, length, value);
        if there == length {
            self.finish(head, record, line, desk);
        } else {
            self.state = State::Value {
                line: line.bytes().into(),
                record,
                filled: there,
                length,
            };
        }
        there
    }

    /// Goes on reading a value.
    fn value(&mut self, input: &[u8], desk: &Desk<'_>) -> Step {
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
                } = self.decode(&line, desk.moment, &mut scratch)
                {
                    self.finish(&head, record, &Line::new(&line), desk);
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
    fn finish(&mut self, head: &Head<'_>, record: Record, line: &Line<'_>, desk: &Desk<'_>) {
        let taken = if record.is_terminated() {
            let terms = head.terms;
            desk.take(Command::Set(Set { terms, record }), line, self.late.as_deref())
        } else {
            Taken::Answered(Reply::BadChunk)
        };
        self.answer(taken, &head.form, line);
    }

    /// A client that failed to replace an item must not find the old one.
    fn refuse_too_large(&mut self, head: &Head<'_>, line: &Line<'_>, desk: &Desk<'_>) {
        let forget = head.terms.mode == Mode::Set && head.terms.compare.is_none();
        if desk.is_alone() || !forget {
            desk.engine.store.refuse_too_large(head.key, forget, desk.moment.now);
            return self.answer(Taken::Answered(Reply::TooLarge), &head.form, line);
        }
        let delete = Delete {
            key: head.key,
            compare: None,
            new_cas: None,
            invalidate: None,
            keep_item: false,
        };
        match desk.take(Command::Delete(delete), line, self.late.as_deref()) {
            Taken::Answered(_) => self.answer(Taken::Answered(Reply::TooLarge), &head.form, line),
            Taken::Later(space, work) => {
                let late = self.late.get_or_insert_with(Late::new);
                late.after(space, work, Reply::TooLarge);
                late.push(Entry::One { line: line.whole() }, line);
            }
        }
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
    fn many(&mut self, many: &Many<'_>, line: &Line<'_>, done: usize, desk: &Desk<'_>) {
        // Answers that are kept: from the first key on that another node is asked for.
        let mut kept = 0;
        for (number, key) in many.keys.enumerate().skip(done) {
            if self.is_full() {
                self.keep_many(many, line, kept, false);
                let line = line.bytes().into();
                self.state = State::Many { line, done: number };
                return;
            }
            let way = match many.touch {
                None => desk.way(key, self.late.as_deref()),
                Some(_) => Way::Desk,
            };
            let is_kept = match way {
                Way::Here(shard) => self.show(key, shard, (many, line), desk),
                Way::Later(shard) => self.order(key, shard, line, desk),
                Way::Desk => self.take_one(key, (many, line), desk),
            };
            kept += usize::from(is_kept);
        }
        match self.late {
            None => ascii::encode_end(&mut self.output),
            Some(_) => self.keep_many(many, line, kept, true),
        }
    }

    /// Answers a key of a text `get` that this node may answer. Whether an answer is kept.
    fn show(
        &mut self,
        key: &[u8],
        shard: Option<Shard>,
        (many, line): (&Many<'_>, &Line<'_>),
        desk: &Desk<'_>,
    ) -> bool {
        let (output, late) = (&mut self.output, &mut self.late);
        let shown = desk.show(key, shard, |hit| {
            let Some(hit) = hit else { return false };
            let (form, record) = (&many.form, hit.record);
            let (key, value) = (record.key(), record.value());
            match late {
                Some(late) if value.len() < SHARE_FROM => {
                    late.say(|said| ascii::put_block(form, (key, value), &hit, said))
                }
                None if value.len() < SHARE_FROM => output.write(ascii::block_max(key, value), |tail| {
                    ascii::put_block(form, (key, value), &hit, tail);
                }),
                Some(late) => late.ready(Reply::Hit(hit.with(record.clone().into()))),
                None => ascii::encode(form, &Reply::Hit(hit.with(record.clone().into())), output),
            }
            late.is_some()
        });
        match (shown, shard) {
            (Some(is_kept), _) => is_kept,
            (None, Some(shard)) => self.order(key, shard, line, desk),
            (None, None) => false,
        }
    }

    fn order(&mut self, key: &[u8], shard: Shard, line: &Line<'_>, desk: &Desk<'_>) -> bool {
        let late = self.late.get_or_insert_with(Late::new);
        late.order(desk.space(), Work::Key(OnKey::plain_get(shard, line.part(key))));
        true
    }

    /// The same by way of a command.
    fn take_one(&mut self, key: &[u8], (many, line): (&Many<'_>, &Line<'_>), desk: &Desk<'_>) -> bool {
        let get = Get {
            touch: many.touch,
            ..Get::plain(key)
        };
        let taken = desk.take(Command::Get(get), line, self.late.as_deref());
        match (taken, &mut self.late) {
            (Taken::Answered(reply @ Reply::Hit(_)), None) => {
                ascii::encode(&many.form, &reply, &mut self.output);
                return false;
            }
            (Taken::Answered(reply @ (Reply::Unavailable | Reply::Silence)), late) => {
                late.get_or_insert_with(Late::new).ready(reply);
            }
            (Taken::Answered(_), None) => return false,
            (Taken::Answered(reply), Some(late)) => late.ready(reply),
            (Taken::Later(space, work), late) => late.get_or_insert_with(Late::new).order(space, work),
        }
        true
    }

    fn keep_many(&mut self, many: &Many<'_>, line: &Line<'_>, count: usize, is_last: bool) {
        if let Some(late) = &mut self.late {
            let form = many.form;
            late.push(Entry::Many { form, count, is_last }, line);
        }
    }

    /// Goes on with a text `get` of many keys.
    fn go_on(&mut self, desk: &Desk<'_>) -> Step {
        if let State::Many { line, done } = std::mem::replace(&mut self.state, State::Request) {
            let mut scratch = SCRATCH;
            if let Decoded::Whole {
                request: Request::Many(many),
                ..
            } = self.decode(&line, desk.moment, &mut scratch)
            {
                self.many(&many, &Line::new(&line), done, desk);
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
