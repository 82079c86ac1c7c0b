//! `multipart/form-data` (RFC 7578): fields are arguments; of files, names, sizes and part headers are kept, not the content.
//! Written for inspection: read as PHP does (its main/rfc1867.c), with raw header lines kept, and told where another reader may come to
//! something else. A part of which it is not sure that it is a file is an argument, too.

use bytes::Bytes;
use memchr::{memchr, memmem};

use super::super::store::Store;
use super::super::variable::Variable;
use super::form::key;
use super::{Fault, bound};

const BOUNDARY: &[u8] = b"boundary";
/// Longest boundary of RFC 2046, section 5.1.1.
const LONGEST_BOUNDARY: usize = 70;
const MOST_HEADERS: usize = 32;
/// PHP takes a line of a head beyond 5120 bytes for two.
const LONGEST_LINE: usize = 4096;

pub fn parse(content_type: &[u8], body: &Bytes, is_cut: bool, store: &mut Store) -> Result<(), Fault> {
    let mut found = Found {
        store,
        strict: None,
        is_sure: true,
        files: 0,
    };
    let read = found.read(content_type, body);
    let Found {
        strict, files, store, ..
    } = found;
    let fault = match &read {
        Err(Fault::Broken(what)) => Some(what.clone()),
        Ok(Ending::Open) if !is_cut => Some("the last boundary is missing".to_string()),
        _ => strict,
    };
    store.set(Variable::MultipartStrictError, if fault.is_some() { "1" } else { "0" });
    store.set(Variable::FilesCombinedSize, files.to_string());
    match (fault, read) {
        (Some(what), _) => Err(Fault::Broken(format!("multipart: {what}"))),
        (None, Err(full)) => Err(full),
        (None, Ok(_)) => Ok(()),
    }
}

enum Ending {
    Closed,
    Open,
}

struct Found<'a> {
    store: &'a mut Store,
    /// What is not as it should be, although it can be read.
    strict: Option<String>,
    /// There was nothing of that kind in the head of this part.
    is_sure: bool,
    files: usize,
}

#[derive(Default)]
struct Part {
    headers: Vec<Bytes>,
    name: Option<Bytes>,
    file: Option<Bytes>,
}

impl Found<'_> {
    fn read(&mut self, content_type: &[u8], body: &Bytes) -> Result<Ending, Fault> {
        let (boundary, is_sure) = boundary(content_type)?;
        if !is_sure {
            self.blame("a boundary that others may read otherwise");
        }
        let mark = [b"--".as_slice(), boundary].concat();
        let Some(start) = marks(body, &mark).next() else {
            return Err(broken("no boundary in the body"));
        };
        if !body[..start].trim_ascii().is_empty() {
            self.blame("text before the first boundary");
        }
        let mut at = start + mark.len();
        loop {
            if body[at..].starts_with(b"--") {
                let is_end = body[at + 2..].trim_ascii().is_empty();
                if !is_end {
                    self.blame("text after the last boundary");
                }
                return Ok(Ending::Closed);
            }
            let Some(line) = memchr(b'\n', &body[at..]) else {
                return Ok(Ending::Open);
            };
            if !matches!(&body[at..at + line], b"" | b"\r") {
                self.blame("text behind a boundary");
            }
            let Some((part, content)) = self.headers(body, at + line + 1)? else {
                return Ok(Ending::Open);
            };
            let next = marks(&body[content..], &mark).next();
            if next == Some(0) {
                // For PHP it is the content.
                self.blame("a boundary right behind a head");
            }
            let end = next.map_or(body.len(), |next| content + next);
            bound(Variable::MultipartName, self.store)?;
            self.add(part, body.slice(content..without_break(body, content, end)))?;
            match next {
                Some(_) => at = end + mark.len(),
                None => return Ok(Ending::Open),
            }
        }
    }

    fn blame(&mut self, what: &str) {
        self.is_sure = false;
        self.strict.get_or_insert_with(|| what.to_string());
    }

    /// The head of a part, and where its content starts. `None`: the body ends before.
    fn headers(&mut self, body: &Bytes, start: usize) -> Result<Option<(Part, usize)>, Fault> {
        self.is_sure = true;
        let mut lines: Vec<Bytes> = Vec::new();
        let mut at = start;
        loop {
            let Some(end) = memchr(b'\n', &body[at..]) else {
                return Ok(None);
            };
            let raw = &body[at..at + end];
            let line = body.slice_ref(raw.strip_suffix(b"\r").unwrap_or(raw));
            at += end + 1;
            if line.is_empty() {
                break;
            }
            if line.len() > LONGEST_LINE || line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
                self.blame("a header that is too long or not text");
            }
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                self.blame("a folded header");
                let Some(last) = lines.last_mut() else {
                    return Err(broken("a part starts with a folded header"));
                };
                *last = [last.as_ref(), b" ", line.trim_ascii()].concat().into();
                continue;
            }
            if lines.len() == MOST_HEADERS {
                return Err(broken(&format!("more than {MOST_HEADERS} headers of a part")));
            }
            lines.push(line);
        }
        let mut part = Part::default();
        let mut is_found = false;
        for line in &lines {
            let Some(colon) = memchr(b':', line) else {
                self.blame("a header without a colon");
                continue;
            };
            let name = &line[..colon];
            if !name.trim_ascii().eq_ignore_ascii_case(b"content-disposition") {
                continue;
            }
            if name != name.trim_ascii() || is_found {
                self.blame("two dispositions of a part, or one with blanks in its name");
            }
            // The first counts.
            if !std::mem::replace(&mut is_found, true) {
                self.disposition(&line[colon + 1..], &mut part);
            }
        }
        part.headers = lines;
        Ok(Some((part, at)))
    }

    /// `form-data; name="a"; filename=b`. PHP takes a parameter in the place of the type, too, and knows no `filename*`.
    fn disposition(&mut self, text: &[u8], part: &mut Part) {
        let mut rest = text.trim_ascii_start();
        if word(rest, b';').0.contains(&b'=') {
            self.blame("a disposition without a type");
        }
        while !rest.is_empty() {
            let (pair, behind) = word(rest, b';');
            rest = behind.trim_ascii_start();
            if pair.contains(&b'=') {
                let (name, value) = word(pair, b'=');
                self.parameter(name, unquoted(value), part);
            }
        }
    }

    fn parameter(&mut self, name: &[u8], value: Vec<u8>, part: &mut Part) {
        let plain = name.trim_ascii();
        let own = match plain.to_ascii_lowercase().as_slice() {
            b"name" => &mut part.name,
            b"filename" => &mut part.file,
            _ => return,
        };
        if name != plain {
            return self.blame("a parameter with blanks behind its name");
        }
        if own.replace(value.into()).is_some() {
            self.blame("a parameter that is there twice");
        }
    }

    fn add(&mut self, part: Part, content: Bytes) -> Result<(), Fault> {
        if part.name.is_none() {
            self.blame("a part without a name");
        }
        let name = part.name.unwrap_or_default();
        for line in part.headers {
            bound(Variable::MultipartPartHeaders, self.store)?;
            self.store.add(Variable::MultipartPartHeaders, name.clone(), line);
        }
        self.store.add(Variable::MultipartName, name.clone(), name.clone());
        let Some(file) = part.file else {
            self.store.add_argument(Variable::ArgsPost, key(&name), name, content);
            return Ok(());
        };
        if !self.is_sure {
            self.store
                .add_argument(Variable::ArgsPost, key(&name), name.clone(), content.clone());
        }
        self.files += content.len();
        self.store.add(Variable::MultipartFilename, name.clone(), file.clone());
        self.store.add(Variable::Files, name.clone(), file);
        self.store.add(Variable::FilesNames, name.clone(), name.clone());
        self.store.add(Variable::FilesSizes, name, content.len().to_string());
        Ok(())
    }
}

/// Where boundaries stand: at the start of a line.
fn marks<'a>(body: &'a [u8], mark: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    memmem::find_iter(body, mark).filter(|at| *at == 0 || body[at - 1] == b'\n')
}

/// The line break before a boundary belongs to it.
fn without_break(body: &[u8], start: usize, end: usize) -> usize {
    let content = &body[start..end.max(start)];
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    start + content.strip_suffix(b"\r").unwrap_or(content).len()
}

fn broken(what: &str) -> Fault {
    Fault::Broken(what.to_string())
}

/// As PHP finds it: behind the first `boundary` and the next `=`. The second: others may find another one.
fn boundary(content_type: &[u8]) -> Result<(&[u8], bool), Fault> {
    let lower = content_type.to_ascii_lowercase();
    let exact = memmem::find(content_type, BOUNDARY);
    let start = exact.or_else(|| memmem::find(&lower, BOUNDARY));
    let equals = start.and_then(|start| Some(start + memchr(b'=', &content_type[start..])?));
    let (Some(start), Some(equals)) = (start, equals) else {
        return Err(broken("no boundary is announced"));
    };
    let text = &content_type[equals + 1..];
    let (boundary, rest) = match text.strip_prefix(b"\"") {
        Some(quoted) => {
            let end = memchr(b'"', quoted).ok_or_else(|| broken("the boundary does not end"))?;
            (&quoted[..end], &quoted[end + 1..])
        }
        None => text.split_at(memchr::memchr2(b',', b';', text).unwrap_or(text.len())),
    };
    if boundary.is_empty() || boundary.len() > LONGEST_BOUNDARY {
        return Err(broken("the boundary is empty or too long"));
    }
    let others = [&lower[..start], &lower[lower.len() - rest.len()..]];
    let is_sure = equals == start + BOUNDARY.len()
        && content_type[..start].trim_ascii_end().ends_with(b";")
        && (rest.is_empty() || rest.trim_ascii_start().starts_with(b";"))
        && others.iter().all(|other| memmem::find(other, BOUNDARY).is_none())
        && boundary.iter().all(is_of_boundary);
    Ok((boundary, is_sure))
}

/// As in RFC 2046, section 5.1.1, but for the comma and the blank.
fn is_of_boundary(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"'()+_-./:=?".contains(byte)
}

/// Up to a mark outside of quotes, and what is behind it.
fn word(text: &[u8], mark: u8) -> (&[u8], &[u8]) {
    let mut at = 0;
    while at < text.len() && text[at] != mark {
        let quote = text[at];
        at += 1;
        if !matches!(quote, b'"' | b'\'') {
            continue;
        }
        while at < text.len() && text[at] != quote {
            let is_escape = text[at] == b'\\' && text.get(at + 1) == Some(&quote);
            at += if is_escape { 2 } else { 1 };
        }
        at = text.len().min(at + 1);
    }
    let (word, rest) = text.split_at(at);
    let marks = rest.iter().take_while(|byte| **byte == mark).count();
    (word, &rest[marks..])
}

/// Without its quotes, and without what is behind them.
fn unquoted(text: &[u8]) -> Vec<u8> {
    let text = text.trim_ascii_start();
    let (quote, text) = match text {
        [quote @ (b'"' | b'\''), rest @ ..] => (Some(quote), rest),
        _ => (None, text.split(u8::is_ascii_whitespace).next().unwrap_or_default()),
    };
    let mut value = Vec::new();
    let mut bytes = text.iter().peekable();
    while let Some(byte) = bytes.next().filter(|byte| Some(*byte) != quote) {
        let escaped = bytes.next_if(|next| *byte == b'\\' && (**next == b'\\' || Some(*next) == quote));
        value.push(*escaped.unwrap_or(byte));
    }
    value
}
