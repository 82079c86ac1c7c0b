//! The meta commands of the text protocol: mn mg ms md ma me (protocol.txt, "Meta Commands"). No I/O.

use super::ascii::{BAD_FORMAT, Refused, Words, is_key, length_of, line};
use super::command::{Arithmetic, Command, Delete, Get, Hit, Mode, Number, Reply, Terms};
use super::number::{self, Digits};
use super::output::Output;
use super::request::{Form as AnyForm, Head, Request, Scratch};
use super::store::{Expiry, KEY_MAX, Moment};

/// Flags in one command (memcached's limit, less the command, the key and its own end mark).
const FLAGS_MAX: usize = 17;
/// Longest opaque, its letter included.
const OPAQUE_MAX: usize = 32;

const TOO_MANY_FLAGS: &str = "CLIENT_ERROR options flags are too long";
const DUPLICATE: &str = "CLIENT_ERROR duplicate flag";
const INVALID: &str = "CLIENT_ERROR invalid flag";
const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
const BAD_OPAQUE: &str = "CLIENT_ERROR opaque token too long";
const BAD_BASE64: &str = "CLIENT_ERROR error decoding key";
const BAD_MODE_LENGTH: &str = "CLIENT_ERROR incorrect length for M token";
const BAD_SET_MODE: &str = "CLIENT_ERROR invalid mode for ms M token";
const BAD_SUM_MODE: &str = "CLIENT_ERROR invalid mode for ma M token";
const BAD_INITIAL: &str = "CLIENT_ERROR invalid numeric initial value";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta value";

/// Which reply, and what the client wants to see in it.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a> {
    /// Second letter of the command.
    verb: u8,
    /// The key as it was sent, in base64 perhaps.
    key: &'a [u8],
    flags: Words<'a>,
    is_base64: bool,
    is_quiet: bool,
    wants_value: bool,
    /// `mg` with C: no value if this is still the unique.
    known: Option<u64>,
}

/// All flags of one command. Each command takes what it knows and ignores the rest, as memcached does.
#[derive(Debug, Default)]
struct Options {
    is_base64: bool,
    is_quiet: bool,
    wants_value: bool,
    is_peek: bool,
    invalidate: bool,
    keep_item: bool,
    touch: Option<Expiry>,
    vivify: Option<Expiry>,
    recache: Option<Expiry>,
    flags: u32,
    compare: Option<u64>,
    new_cas: Option<u64>,
    mode: Option<u8>,
    initial: u64,
    delta: Option<u64>,
}

/// Decodes a command `m<verb>` from the words after it.
pub fn decode<'a>(
    verb: u8,
    mut words: Words<'a>,
    moment: Moment,
    scratch: &'a mut Scratch,
) -> Result<Request<'a>, Refused> {
    if verb == b'n' {
        return Ok(Request::One(Command::Noop, form(verb, b"", words, &Options::default())));
    }
    if !b"gsdae".contains(&verb) {
        return Err(Refused::Unknown);
    }
    let sent = words.next().ok_or(Refused::Unknown)?;
    if sent.len() > KEY_MAX {
        return Err(Refused::loud(BAD_FORMAT));
    }
    if verb != b's' {
        let options = Options::parse(words, moment).map_err(Refused::loud)?;
        let key = real_key(sent, &options, scratch).map_err(Refused::loud)?;
        let form = form(verb, sent, words, &options);
        return command(verb, key, &options)
            .map(|command| Request::One(command, form))
            .map_err(Refused::loud);
    }
    let length = words.next().and_then(length_of).ok_or(Refused::loud(BAD_FORMAT))?;
    // From here on the value that follows is dropped after an error.
    let refuse = |text| Refused::Error {
        text,
        is_quiet: false,
        skip: length + 2,
    };
    let options = Options::parse(words, moment).map_err(refuse)?;
    let key = real_key(sent, &options, scratch).map_err(refuse)?;
    Ok(Request::Store(Head {
        key,
        terms: options.terms().map_err(refuse)?,
        length,
        form: form(verb, sent, words, &options),
    }))
}

fn form<'a>(verb: u8, key: &'a [u8], flags: Words<'a>, options: &Options) -> AnyForm<'a> {
    AnyForm::Meta(Form {
        verb,
        key,
        flags,
        is_base64: options.is_base64,
        is_quiet: options.is_quiet,
        wants_value: options.wants_value,
        known: options.compare,
    })
}

fn command<'a>(verb: u8, key: &'a [u8], options: &Options) -> Result<Command<'a>, &'static str> {
    Ok(match verb {
        b'g' => Command::Get(Get {
            key,
            touch: options.touch,
            vivify: options.vivify,
            recache: match options.recache {
                Some(Expiry::In(within)) => Some(within),
                _ => None,
            },
            is_peek: options.is_peek,
            new_cas: options.new_cas,
        }),
        b'd' => Command::Delete(Delete {
            key,
            compare: options.compare,
            new_cas: options.new_cas,
            invalidate: options.invalidate.then_some(options.touch),
            keep_item: options.keep_item,
        }),
        b'a' => Command::Arithmetic(Arithmetic {
            key,
            delta: options.delta.unwrap_or(1),
            is_decrement: match options.mode {
                None | Some(b'I' | b'i' | b'+') => false,
                Some(b'D' | b'd' | b'-') => true,
                Some(_) => return Err(BAD_SUM_MODE),
            },
            compare: options.compare,
            new_cas: options.new_cas,
            initial: options.vivify.map(|expiry| (options.initial, expiry)),
            touch: options.touch,
        }),
        _ => Command::Get(Get {
            is_peek: true,
            ..Get::plain(key)
        }),
    })
}

impl Options {
    fn parse(flags: Words<'_>, moment: Moment) -> Result<Self, &'static str> {
        let mut options = Options::default();
        let mut seen = 0u128;
        for (count, word) in flags.enumerate() {
            let Some((letter, token)) = word.split_first() else {
                continue;
            };
            if count >= FLAGS_MAX {
                return Err(TOO_MANY_FLAGS);
            }
            let bit = 1u128.checked_shl(u32::from(*letter)).ok_or(DUPLICATE)?;
            if seen & bit != 0 {
                return Err(DUPLICATE);
            }
            seen |= bit;
            options.take(*letter, token, moment)?;
        }
        Ok(options)
    }

    fn take(&mut self, letter: u8, token: &[u8], moment: Moment) -> Result<(), &'static str> {
        let expiry = || {
            let seconds = number::parse_signed(token).ok_or(BAD_TOKEN)?;
            Ok::<_, &'static str>(Some(Expiry::from_wire(seconds, moment)))
        };
        let unique = || number::parse(token).ok_or(BAD_TOKEN).map(Some);
        match letter {
            b'b' => self.is_base64 = true,
            b'q' => self.is_quiet = true,
            b'v' => self.wants_value = true,
            b'u' => self.is_peek = true,
            b'I' => self.invalidate = true,
            b'x' => self.keep_item = true,
            b'N' => self.vivify = expiry()?,
            b'T' => self.touch = expiry()?,
            b'R' => self.recache = expiry()?,
            b'C' => self.compare = unique()?,
            b'E' => self.new_cas = unique()?,
            b'F' => self.flags = number::parse_u32(token).ok_or(BAD_FORMAT)?,
            b'J' => self.initial = number::parse(token).ok_or(BAD_INITIAL)?,
            b'D' => self.delta = Some(number::parse(token).ok_or(BAD_DELTA)?),
            b'M' => match token {
                [mode] => self.mode = Some(*mode),
                _ => return Err(BAD_MODE_LENGTH),
            },
            b'O' if token.len() >= OPAQUE_MAX => return Err(BAD_OPAQUE),
            // Known, and seen again when the reply is written; P and L are for proxies.
            b'O' | b'P' | b'L' | b'k' | b's' | b't' | b'c' | b'f' | b'l' | b'h' => {}
            _ => return Err(INVALID),
        }
        Ok(())
    }

    fn terms(&self) -> Result<Terms, &'static str> {
        let mode = match self.mode {
            None | Some(b'S' | b's') => Mode::Set,
            Some(b'E' | b'e') => Mode::Add,
            Some(b'A' | b'a') => Mode::Append,
            Some(b'P' | b'p') => Mode::Prepend,
            Some(b'R' | b'r') => Mode::Replace,
            Some(_) => return Err(BAD_SET_MODE),
        };
        Ok(Terms {
            mode,
            flags: self.flags,
            expiry: self.touch.unwrap_or(Expiry::Never),
            compare: self.compare,
            new_cas: self.new_cas,
            invalidate: self.invalidate,
            vivify: self.vivify,
        })
    }
}

fn real_key<'a>(sent: &'a [u8], options: &Options, scratch: &'a mut Scratch) -> Result<&'a [u8], &'static str> {
    if options.is_base64 {
        let length = decode_base64(sent, scratch)
            .filter(|length| *length > 0)
            .ok_or(BAD_BASE64)?;
        return Ok(scratch.get(..length).unwrap_or_default());
    }
    if is_key(sent) { Ok(sent) } else { Err(BAD_FORMAT) }
}

/// RFC 4648 §4, padded. Returns how many bytes were written.
fn decode_base64(text: &[u8], room: &mut [u8]) -> Option<usize> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let (mut bits, mut held, mut length) = (0u32, 0, 0);
    for byte in text.get(..text.len() - padding)? {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            *room.get_mut(length)? = u8::try_from(bits >> held & 0xff).ok()?;
            length += 1;
        }
    }
    Some(length)
}

/// Writes a reply. Quiet hides what the client expects (a miss of `mg`, the success of the others), never an error.
pub fn encode(form: &Form<'_>, reply: &Reply, out: &mut Output) {
    let hides = match reply {
        Reply::Miss => form.verb == b'g',
        Reply::Stored { .. } | Reply::Deleted | Reply::Number(_) => true,
        _ => false,
    };
    if form.is_quiet && hides {
        return;
    }
    match (reply, form.verb) {
        (Reply::Hit(hit), b'e') => return encode_inspection(form, hit, out),
        (Reply::Hit(hit), _) => return encode_hit(form, hit, out),
        (Reply::Number(number), _) => return encode_number(form, number, out),
        (Reply::Done, b'n') => return out.put(b"MN\r\n"),
        (Reply::Miss, b'e') => return out.put(b"EN\r\n"),
        (Reply::Miss, b'g') => out.put(b"EN"),
        (Reply::Stored { .. } | Reply::Deleted, _) => out.put(b"HD"),
        (Reply::NotStored, _) => out.put(b"NS"),
        (Reply::Exists, _) => out.put(b"EX"),
        (Reply::Miss | Reply::NotFound, _) => out.put(b"NF"),
        (other, _) => {
            out.put(line(other).as_bytes());
            return out.put(b"\r\n");
        }
    }
    let (cas, size) = match reply {
        Reply::Stored { cas, size } => (*cas, Some(*size)),
        _ => (0, None),
    };
    for flag in form.flags {
        match (flag.first(), size) {
            (Some(b'c'), _) if form.verb == b's' => put_flag(out, b" c", cas),
            (Some(b's'), Some(size)) => put_flag(out, b" s", size as u64),
            _ => put_echo(form, flag, out),
        }
    }
    out.put(b"\r\n");
}

fn encode_hit(form: &Form<'_>, hit: &Hit, out: &mut Output) {
    let size = hit.record.value().len() as u64;
    let shows_value = form.wants_value && form.known != Some(hit.cas);
    put_head(out, shows_value.then_some(size));
    for flag in form.flags {
        match flag.first() {
            Some(b's') => put_flag(out, b" s", size),
            Some(b't') => put_left(out, hit.left),
            Some(b'c') => put_flag(out, b" c", hit.cas),
            Some(b'f') => put_flag(out, b" f", u64::from(hit.flags)),
            Some(b'l') => put_flag(out, b" l", u64::from(hit.idle)),
            Some(b'h') => put_flag(out, b" h", u64::from(hit.was_fetched)),
            _ => put_echo(form, flag, out),
        }
    }
    for (is_set, mark) in [(hit.had_winner, b" Z"), (hit.is_stale, b" X"), (hit.is_winner, b" W")] {
        if is_set {
            out.put(mark);
        }
    }
    out.put(b"\r\n");
    if shows_value {
        out.put_value(&hit.record, true);
    }
}

fn encode_number(form: &Form<'_>, number: &Number, out: &mut Output) {
    let digits = Digits::of(number.value);
    let digits = digits.as_bytes();
    put_head(out, form.wants_value.then_some(digits.len() as u64));
    for flag in form.flags {
        match flag.first() {
            Some(b't') => put_left(out, number.left),
            Some(b'c') => put_flag(out, b" c", number.cas),
            _ => put_echo(form, flag, out),
        }
    }
    out.put(b"\r\n");
    if form.wants_value {
        out.put(digits);
        out.put(b"\r\n");
    }
}

/// `me`: what the store knows of an item, for people.
fn encode_inspection(form: &Form<'_>, hit: &Hit, out: &mut Output) {
    let left = hit.left.map_or("-1".to_string(), |left| left.to_string());
    let text = format!(
        " exp={left} la={} cas={} fetch={} cls=1 size={}\r\n",
        hit.idle,
        hit.cas,
        if hit.was_fetched { "yes" } else { "no" },
        hit.record.footprint(),
    );
    out.put(b"ME ");
    out.put(form.key);
    out.put(text.as_bytes());
}

fn put_head(out: &mut Output, size: Option<u64>) {
    match size {
        Some(size) => put_flag(out, b"VA ", size),
        None => out.put(b"HD"),
    }
}

fn put_flag(out: &mut Output, flag: &[u8], number: u64) {
    out.put(flag);
    out.put_number(number);
}

fn put_left(out: &mut Output, left: Option<u64>) {
    match left {
        Some(left) => put_flag(out, b" t", left),
        None => out.put(b" t-1"),
    }
}

/// The flags that every reply carries back.
fn put_echo(form: &Form<'_>, flag: &[u8], out: &mut Output) {
    match flag.first() {
        Some(b'O') => {
            out.put(b" ");
            out.put(flag);
        }
        Some(b'k') => {
            out.put(b" k");
            out.put(form.key);
            if form.is_base64 {
                out.put(b" b");
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_follows_the_rfc() {
        let decode = |text: &str| {
            let mut room = [0; 8];
            decode_base64(text.as_bytes(), &mut room).map(|length| room[..length].to_vec())
        };
        // RFC 4648 §10.
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
        ] {
            assert_eq!(decode(text), Some(bytes.as_bytes().to_vec()), "{text}");
        }
        for bad in ["Z", "Zg=", "Zg", "Z===", "Zm9v====", "Zm-v", "=m9v", "Zm9vYmFyYmFy"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
