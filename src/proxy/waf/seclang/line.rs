//! Text to directives: continued lines are joined, comments dropped, words unquoted. Knows no directive by name.

/// One directive with its words, and the line where it starts.
#[derive(Debug, PartialEq, Eq)]
pub struct Directive {
    pub line: u32,
    pub name: String,
    pub words: Vec<String>,
}

/// `Err`: the line of a quote that is never closed.
pub fn directives(text: &str) -> Result<Vec<Directive>, u32> {
    let mut found = Vec::new();
    let mut lines = text.lines().zip(1u32..);
    while let Some((first, line)) = lines.next() {
        let first = first.trim_start();
        if first.is_empty() || first.starts_with('#') {
            continue;
        }
        let mut joined = String::new();
        let mut part = first;
        while let Some(start) = part.trim_end().strip_suffix('\\') {
            joined.push_str(start);
            let Some((next, _)) = lines.next() else {
                part = "";
                break;
            };
            part = next.trim_start();
        }
        joined.push_str(part);
        let mut words = words(&joined).ok_or(line)?;
        if words.is_empty() {
            continue;
        }
        let name = words.remove(0);
        found.push(Directive { line, name, words });
    }
    Ok(found)
}

/// Words are parted by blanks; in quotes, a quote mark is written with a backslash before it. Other backslashes are the word's own.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        if first != '"' && first != '\'' {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(rest[..end].to_string());
            rest = rest[end..].trim_start();
            continue;
        }
        let mut word = String::new();
        let mut chars = rest.char_indices().skip(1).peekable();
        let end = loop {
            let (at, char) = chars.next()?;
            match char {
                '\\' if chars.peek().is_some_and(|&(_, next)| next == first) => {
                    word.push(first);
                    chars.next();
                }
                _ if char == first => break at + 1,
                _ => word.push(char),
            }
        };
        words.push(word);
        rest = rest[end..].trim_start();
    }
    Some(words)
}

/// Splits at `mark` where it is not within single quotes.
pub fn split(text: &str, mark: char) -> Vec<&str> {
    let (mut parts, mut start, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, char) in text.char_indices() {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '\'' => is_quoted = !is_quoted,
            _ if char == mark && !is_quoted => {
                parts.push(text[start..at].trim());
                start = at + mark.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// A value without the single quotes around it; within them, `\'` is a quote mark.
pub fn unquote(text: &str) -> String {
    let inner = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    inner.map_or_else(|| text.to_string(), |inner| inner.replace("\\'", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_words_unquoted() {
        let text =
            "# no\n\nSecRule ARGS|!ARGS:x \\\n  \"@rx a\\\"b\\d\" \\\n  \"id:1,\\\n  msg:'a, b'\"\nSecMarker END\n";
        let found = directives(text).unwrap();
        assert_eq!(found[0].line, 3);
        assert_eq!(found[0].words, ["ARGS|!ARGS:x", "@rx a\"b\\d", "id:1,msg:'a, b'"]);
        assert_eq!((found[1].line, found[1].words[0].as_str()), (7, "END"));
    }

    #[test]
    fn an_open_quote_is_told_with_its_line() {
        assert_eq!(directives("\nSecRule ARGS \"@rx a"), Err(2));
    }

    #[test]
    fn commas_in_quotes_do_not_split() {
        assert_eq!(split("id:1,msg:'a, b',pass", ','), ["id:1", "msg:'a, b'", "pass"]);
        assert_eq!(unquote("'it\\'s'"), "it's");
    }
}
