//! The binary protocol (memcached wiki, "BinaryProtocolRevamped"; protocol_binary.h): packets to requests, replies to packets.
//! No I/O. Quiet commands hide success and misses of reads; errors are always answered, as the protocol says.

use super::ascii::flush_delay;
use super::command::{Arithmetic, Command, Delete, Get, Hit, Mode, Reply, Terms};
use super::output::Output;
use super::request::{Decoded, Form as AnyForm, Head, Refusal, Request, VERSION};
use super::store::{Expiry, KEY_MAX, Moment};

/// First byte of a request; no text command begins with it.
pub const MAGIC: u8 = 0x80;
const MAGIC_REPLY: u8 = 0x81;
const HEADER: usize = 24;

mod opcode {
    pub const GET: u8 = 0x00;
    pub const SET: u8 = 0x01;
    pub const ADD: u8 = 0x02;
    pub const REPLACE: u8 = 0x03;
    pub const DELETE: u8 = 0x04;
    pub const INCREMENT: u8 = 0x05;
    pub const DECREMENT: u8 = 0x06;
    pub const QUIT: u8 = 0x07;
    pub const FLUSH: u8 = 0x08;
    pub const GETQ: u8 = 0x09;
    pub const NOOP: u8 = 0x0a;
    pub const VERSION: u8 = 0x0b;
    pub const GETK: u8 = 0x0c;
    pub const GETKQ: u8 = 0x0d;
    pub const APPEND: u8 = 0x0e;
    pub const PREPEND: u8 = 0x0f;
    pub const STAT: u8 = 0x10;
    pub const SETQ: u8 = 0x11;
    pub const PREPENDQ: u8 = 0x1a;
    pub const VERBOSITY: u8 = 0x1b;
    pub const TOUCH: u8 = 0x1c;
    pub const GAT: u8 = 0x1d;
    pub const GATQ: u8 = 0x1e;
    pub const GATK: u8 = 0x23;
    pub const GATKQ: u8 = 0x24;
}

/// Status of a reply and the text that goes with it.
type Status = (u16, &'static [u8]);
const NOT_FOUND: Status = (0x01, b"Not found");
const EXISTS: Status = (0x02, b"Data exists for key.");
const TOO_LARGE: Status = (0x03, b"Too large.");
const INVALID: Status = (0x04, b"Invalid arguments");
const NOT_STORED: Status = (0x05, b"Not stored.");
const NOT_NUMERIC: Status = (0x06, b"Non-numeric server-side value for incr or decr");
/// Also the answer to SASL: there are no mechanisms, and clients take this for "not needed".
const UNKNOWN: Status = (0x81, b"Unknown command");
const UNAVAILABLE: Status = (0x86, b"Temporary failure");

/// An expiry of an increment that says: fail if there is no item.
const NO_INITIAL: u32 = u32::MAX;

/// What a reply repeats from its request.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a> {
    opcode: u8,
    opaque: [u8; 4],
    key: &'a [u8],
}

/// A request's header, and what stands behind it before the value.
struct Packet<'a> {
    opcode: u8,
    opaque: [u8; 4],
    cas: u64,
    extras: &'a [u8],
    key: &'a [u8],
    value_len: usize,
}

/// Decodes the packet at the front of the input, without the value of a storage command.
pub fn decode(input: &[u8], moment: Moment) -> Decoded<'_> {
    let Some((header, rest)) = input.split_at_checked(HEADER) else {
        return if input.first().is_some_and(|magic| *magic != MAGIC) {
            Decoded::Hopeless
        } else {
            Decoded::Partial
        };
    };
    let byte = |at: usize| header.get(at).copied().unwrap_or_default();
    if byte(0) != MAGIC {
        return Decoded::Hopeless;
    }
    let key_len = usize::from(u16::from_be_bytes([byte(2), byte(3)]));
    let extras_len = usize::from(byte(4));
    let body_len = number(header.get(8..12)) as usize;
    let front = extras_len + key_len;
    let form = Form {
        opcode: byte(1),
        opaque: [byte(12), byte(13), byte(14), byte(15)],
        key: &[],
    };
    if front > body_len || key_len > KEY_MAX {
        let reply = if front > body_len {
            Reply::Unknown
        } else {
            Reply::Malformed
        };
        return refuse(form, reply, HEADER, 0, true);
    }
    let Some((front, _)) = rest.split_at_checked(front) else {
        return Decoded::Partial;
    };
    let (extras, key) = front.split_at_checked(extras_len).unwrap_or((front, &[]));
    let size = HEADER + front.len();
    let packet = Packet {
        opcode: form.opcode,
        opaque: form.opaque,
        cas: number(header.get(16..24)),
        extras,
        key,
        value_len: body_len - front.len(),
    };
    match packet.request(moment) {
        Ok(request) => Decoded::Whole { size, request },
        Err(Reply::Unknown) => refuse(form, Reply::Unknown, size, packet.value_len, false),
        Err(reply) => refuse(form, reply, size, 0, true),
    }
}

fn refuse(form: Form<'_>, reply: Reply, size: usize, skip: usize, is_last: bool) -> Decoded<'_> {
    let request = Request::Refusal(Refusal {
        reply,
        form: AnyForm::Binary(form),
        skip,
        is_last,
    });
    Decoded::Whole { size, request }
}

/// A number in network order, as long as the slice is.
fn number(bytes: Option<&[u8]>) -> u64 {
    bytes
        .unwrap_or_default()
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// The command without its quietness.
fn loud(opcode: u8) -> u8 {
    match opcode {
        opcode::GETQ => opcode::GET,
        opcode::GETKQ => opcode::GETK,
        opcode::SETQ..=0x18 => opcode - 0x10,
        0x19 | opcode::PREPENDQ => opcode - 0x0b,
        opcode::GATQ => opcode::GAT,
        opcode::GATKQ => opcode::GATK,
        other => other,
    }
}

impl<'a> Packet<'a> {
    /// `Unknown`: no such command; another reply: its parts do not fit.
    fn request(&self, moment: Moment) -> Result<Request<'a>, Reply> {
        let form = AnyForm::Binary(Form {
            opcode: self.opcode,
            opaque: self.opaque,
            key: self.key,
        });
        let compare = Some(self.cas).filter(|cas| *cas != 0);
        let command = match loud(self.opcode) {
            opcode::GET | opcode::GETK => {
                self.expect(0, true, false)?;
                Command::Get(Get::plain(self.key))
            }
            opcode::SET | opcode::ADD | opcode::REPLACE | opcode::APPEND | opcode::PREPEND => {
                return self.store(moment, compare, form);
            }
            opcode::DELETE => {
                self.expect(0, true, false)?;
                Command::Delete(Delete {
                    key: self.key,
                    compare,
                    new_cas: None,
                    invalidate: None,
                    keep_item: false,
                })
            }
            opcode::INCREMENT | opcode::DECREMENT => self.arithmetic(moment, compare)?,
            opcode::TOUCH => {
                self.expect(4, true, false)?;
                Command::Touch {
                    key: self.key,
                    expiry: self.expiry(0, moment),
                }
            }
            opcode::GAT | opcode::GATK => {
                self.expect(4, true, false)?;
                Command::Get(Get {
                    touch: Some(self.expiry(0, moment)),
                    ..Get::plain(self.key)
                })
            }
            opcode::FLUSH => {
                self.expect(if self.extras.is_empty() { 0 } else { 4 }, false, false)?;
                let delay = number(self.extras.get(..4)).cast_signed();
                Command::Flush {
                    after: flush_delay(delay, moment),
                }
            }
            opcode::STAT => {
                if !self.extras.is_empty() || self.value_len > 0 {
                    return Err(Reply::Malformed);
                }
                let words = self.key.split(|byte| *byte == b' ');
                Command::Stats(words.filter(|word| !word.is_empty()).collect())
            }
            opcode::VERBOSITY => {
                self.expect(4, false, false)?;
                Command::Verbosity
            }
            opcode::NOOP => self.bare(Command::Noop)?,
            opcode::VERSION => self.bare(Command::Version)?,
            opcode::QUIT => self.bare(Command::Quit)?,
            _ => return Err(Reply::Unknown),
        };
        Ok(Request::One(command, form))
    }

    fn expect(&self, extras: usize, has_key: bool, has_value: bool) -> Result<(), Reply> {
        let fits = self.extras.len() == extras && self.key.is_empty() != has_key && (has_value || self.value_len == 0);
        if fits { Ok(()) } else { Err(Reply::Malformed) }
    }

    fn bare(&self, command: Command<'a>) -> Result<Command<'a>, Reply> {
        self.expect(0, false, false).map(|()| command)
    }

    fn expiry(&self, at: usize, moment: Moment) -> Expiry {
        // Unsigned on this wire, so never in the past by its sign.
        Expiry::from_wire(number(self.extras.get(at..at + 4)).cast_signed(), moment)
    }

    fn store(&self, moment: Moment, compare: Option<u64>, form: AnyForm<'a>) -> Result<Request<'a>, Reply> {
        let joins = matches!(loud(self.opcode), opcode::APPEND | opcode::PREPEND);
        self.expect(if joins { 0 } else { 8 }, true, true)?;
        let mode = match loud(self.opcode) {
            opcode::APPEND => Mode::Append,
            opcode::PREPEND => Mode::Prepend,
            // With a unique all three mean "only if it is still that item".
            _ if compare.is_some() => Mode::Set,
            opcode::ADD => Mode::Add,
            opcode::REPLACE => Mode::Replace,
            _ => Mode::Set,
        };
        let terms = Terms {
            mode,
            flags: u32::try_from(number(self.extras.get(..4))).unwrap_or_default(),
            expiry: self.expiry(4, moment),
            compare,
            new_cas: None,
            invalidate: false,
            vivify: None,
        };
        Ok(Request::Store(Head {
            key: self.key,
            terms,
            length: self.value_len,
            form,
        }))
    }

    fn arithmetic(&self, moment: Moment, compare: Option<u64>) -> Result<Command<'a>, Reply> {
        self.expect(20, true, false)?;
        let fails_on_miss = number(self.extras.get(16..20)) == u64::from(NO_INITIAL);
        let initial = number(self.extras.get(8..16));
        Ok(Command::Arithmetic(Arithmetic {
            key: self.key,
            delta: number(self.extras.get(..8)),
            is_decrement: loud(self.opcode) == opcode::DECREMENT,
            compare,
            new_cas: None,
            initial: (!fails_on_miss).then(|| (initial, self.expiry(16, moment))),
            touch: None,
        }))
    }
}

/// Writes a reply.
pub fn encode(form: &Form<'_>, reply: &Reply, out: &mut Output) {
    let is_quiet = loud(form.opcode) != form.opcode;
    let done = |cas, value: &[u8], out: &mut Output| {
        if !is_quiet {
            packet(form, 0, cas, &[&[], &[], value], out);
        }
    };
    match reply {
        Reply::Hit(hit) => encode_hit(form, hit, out),
        Reply::Touched(hit) => packet(form, 0, hit.cas, &[&hit.flags.to_be_bytes(), &[], &[]], out),
        Reply::Miss
            if is_quiet
                && matches!(
                    loud(form.opcode),
                    opcode::GET | opcode::GETK | opcode::GAT | opcode::GATK
                ) => {}
        Reply::Miss if returns_key(form.opcode) => packet(form, NOT_FOUND.0, 0, &[&[], form.key, &[]], out),
        Reply::Stored { cas, .. } => done(*cas, &[], out),
        Reply::Number(number) => done(number.cas, &number.value.to_be_bytes(), out),
        Reply::Deleted | Reply::Done | Reply::Quit => done(0, &[], out),
        Reply::Version => done(0, VERSION.as_bytes(), out),
        Reply::Reset => packet(form, 0, 0, &[&[], &[], &[]], out),
        Reply::Table(rows) => {
            for (name, value) in rows {
                packet(form, 0, 0, &[&[], name.as_bytes(), value.as_bytes()], out);
            }
            packet(form, 0, 0, &[&[], &[], &[]], out);
        }
        other => {
            let (status, text) = status(form.opcode, other);
            packet(form, status, 0, &[&[], &[], text], out);
        }
    }
}

fn encode_hit(form: &Form<'_>, hit: &Hit, out: &mut Output) {
    let key = if returns_key(form.opcode) { form.key } else { &[] };
    let extras = hit.flags.to_be_bytes();
    header(
        form,
        0,
        hit.cas,
        [extras.len(), key.len(), hit.record.value().len()],
        out,
    );
    out.put(&extras);
    out.put(key);
    out.put_value(&hit.record, false);
}

fn returns_key(opcode: u8) -> bool {
    matches!(loud(opcode), opcode::GETK | opcode::GATK)
}

fn status(opcode: u8, reply: &Reply) -> Status {
    match (reply, loud(opcode)) {
        (Reply::Exists, _) | (Reply::NotStored, opcode::ADD) => EXISTS,
        (Reply::Miss | Reply::NotFound, _) | (Reply::NotStored, opcode::REPLACE) => NOT_FOUND,
        (Reply::NotStored, _) => NOT_STORED,
        (Reply::NotNumeric, _) => NOT_NUMERIC,
        (Reply::TooLarge, _) => TOO_LARGE,
        (Reply::Unavailable, _) => UNAVAILABLE,
        // Sub-commands of STAT that do not exist, or have no form here.
        (Reply::Unknown | Reply::Refused(_) | Reply::Dump(_), opcode::STAT) => NOT_FOUND,
        (Reply::Unknown, _) => UNKNOWN,
        _ => INVALID,
    }
}

/// A packet of extras, key and value.
fn packet(form: &Form<'_>, status: u16, cas: u64, parts: &[&[u8]; 3], out: &mut Output) {
    header(form, status, cas, parts.map(<[u8]>::len), out);
    for part in parts {
        out.put(part);
    }
}

fn header(form: &Form<'_>, status: u16, cas: u64, [extras, key, value]: [usize; 3], out: &mut Output) {
    let body = u32::try_from(extras + key + value).unwrap_or(u32::MAX);
    let mut bytes = [0u8; HEADER];
    let parts: [&[u8]; 8] = [
        &[MAGIC_REPLY, form.opcode],
        &u16::try_from(key).unwrap_or_default().to_be_bytes(),
        &[u8::try_from(extras).unwrap_or_default(), 0],
        &status.to_be_bytes(),
        &body.to_be_bytes(),
        &form.opaque,
        &cas.to_be_bytes(),
        &[],
    ];
    let mut rest = &mut bytes[..];
    for part in parts {
        let (place, after) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = after;
    }
    out.put(&bytes);
}
