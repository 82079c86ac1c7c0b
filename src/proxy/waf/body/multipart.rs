//! `multipart/form-data` (RFC 7578): fields are arguments; of files, names, sizes and part headers are kept, not the content.
//! Written for inspection: it keeps raw header lines, takes bare line feeds as PHP does, and says what is not as it should be.

use bytes::Bytes;
use memchr::{memchr, memmem};

use super::super::store::Store;
use super::super::variable::Variable;
use super::{Fault, bound};

/// Longest boundary of RFC 2046, section 5.1.1.
const LONGEST_BOUNDARY: usize = 70;
const MOST_HEADERS: usize = 32;

pub fn parse(content_type: &[u8], body: &Bytes, is_cut: bool, store: &mut Store) -> Result<(), Fault> {
    let mut found = Found {
        store,
        strict: None,
        files: 0,
    };
    let read = found.read(content_type, body);
    let Found { strict, files, store } = found;
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
        let boundary = boundary(content_type)?;
        let mark = [b"--".as_slice(), &boundary].concat();
        let Some(start) = marks(body, &mark).next() else {
            return Err(broken("no boundary in the body"));
        };
        if start > 0 {
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
            if !body[at..at + line].trim_ascii().is_empty() {
                self.blame("text behind a boundary");
            }
            let (part, content) = self.headers(body, at + line + 1)?;
            let next = marks(&body[content..], &mark).next();
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
        self.strict.get_or_insert_with(|| what.to_string());
    }

    /// The head of a part, and where its content starts.
    fn headers(&mut self, body: &Bytes, start: usize) -> Result<(Part, usize), Fault> {
        let mut part = Part::default();
        let mut at = start;
        loop {
            let end = memchr(b'\n', &body[at..]).map_or(body.len(), |end| at + end);
            let raw = &body[at..end];
            let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
            let line = body.slice_ref(raw);
            at = (end + 1).min(body.len());
            if line.is_empty() || at >= body.len() && end == body.len() {
                break;
            }
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                self.blame("a folded header");
                let Some(last) = part.headers.last_mut() else {
                    return Err(broken("a part starts with a folded header"));
                };
                *last = [last.as_ref(), b" ", line.trim_ascii()].concat().into();
                continue;
            }
            if part.headers.len() == MOST_HEADERS {
                return Err(broken(&format!("more than {MOST_HEADERS} headers of a part")));
            }
            part.headers.push(line);
        }
        for line in std::mem::take(&mut part.headers) {
            self.header(&line, &mut part);
            part.headers.push(line);
        }
        Ok((part, at))
    }

    fn header(&mut self, line: &Bytes, part: &mut Part) {
        let Some(colon) = memchr(b':', line) else {
            return self.blame("a header without a colon");
        };
        if !line[..colon].trim_ascii().eq_ignore_ascii_case(b"content-disposition") {
            return;
        }
        if part.name.is_some() {
            self.blame("two dispositions of a part");
        }
        for (name, value) in parameters(&line[colon + 1..]) {
            match name.as_slice() {
                b"name" => part.name = Some(value.into()),
                b"filename" => part.file = Some(value.into()),
                // Who reads this form and who does not, disagree.
                b"filename*" => {
                    self.blame("a file name in the extended form");
                    part.file.get_or_insert_with(|| value.into());
                }
                _ => {}
            }
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
            self.store.add_argument(Variable::ArgsPost, name, content);
            return Ok(());
        };
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

fn boundary(content_type: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut found = parameters(content_type)
        .into_iter()
        .filter(|(name, _)| name == b"boundary");
    let boundary = found.next().map(|(_, value)| value).filter(|value| !value.is_empty());
    match (boundary, found.next()) {
        (Some(_), Some(_)) => Err(broken("two boundaries are announced")),
        (Some(boundary), None) if boundary.len() <= LONGEST_BOUNDARY => Ok(boundary),
        (Some(_), None) => Err(broken("the boundary is too long")),
        (None, _) => Err(broken("no boundary is announced")),
    }
}

/// `form-data; name="a"; filename=b`: names in lower case, values unquoted.
fn parameters(text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = memchr(b';', text).map_or(b"".as_slice(), |at| &text[at + 1..]);
    while !rest.is_empty() {
        let mark = memchr::memchr2(b'=', b';', rest).unwrap_or(rest.len());
        let name = rest[..mark].trim_ascii().to_ascii_lowercase();
        if rest.get(mark) != Some(&b'=') {
            rest = rest.get(mark + 1..).unwrap_or(b"");
            continue;
        }
        let (value, after) = value(rest[mark + 1..].trim_ascii_start());
        found.push((name, value));
        rest = memchr(b';', after).map_or(b"", |at| &after[at + 1..]);
    }
    found
}

/// A value, and what is behind it.
fn value(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let quote = match text.first() {
        Some(quote @ (b'"' | b'\'')) => *quote,
        _ => {
            let end = memchr(b';', text).unwrap_or(text.len());
            return (text[..end].trim_ascii().to_vec(), &text[end..]);
        }
    };
    let mut value = Vec::new();
    let mut bytes = text.iter().enumerate().skip(1).peekable();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if bytes.peek().is_some_and(|(_, next)| **next == quote || **next == b'\\') => {
                value.extend(bytes.next().map(|(_, next)| *next));
            }
            _ if *byte == quote => return (value, &text[at + 1..]),
            _ => value.push(*byte),
        }
    }
    (value, b"")
}
