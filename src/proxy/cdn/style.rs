//! Addresses in CSS: `url(…)` of an attribute or of a piece of a style sheet (CSS Syntax 3, §4.3.6). Pure, by the crate `cssparser`.
//!
//! What is written with an escape stays as it is: unescaped it could end the element that it stands in.

use cssparser::{ParseError, Parser, ParserInput, SourcePosition, ToCss, Token};

/// Blocks within blocks that are looked into.
const DEPTH: usize = 16;

/// How an attribute writes quotes.
const QUOTES: [(&str, &str); 5] = [
    ("&quot;", "\""),
    ("&#34;", "\""),
    ("&#39;", "'"),
    ("&#039;", "'"),
    ("&apos;", "'"),
];

/// The value of a `style` attribute with its addresses changed. `None`: it stays.
pub fn attribute(written: &str, change: &impl Fn(&str) -> Option<String>) -> Option<String> {
    if !written.contains('&') {
        return sheet(written, change);
    }
    let mut plain = written.to_string();
    for (reference, quote) in QUOTES {
        plain = plain.replace(reference, quote);
    }
    sheet(&plain, change)
}

/// A style sheet, or a piece of one, with its addresses changed. `None`: it stays.
///
/// What the piece cuts through stays, too.
pub fn sheet(css: &str, change: &impl Fn(&str) -> Option<String>) -> Option<String> {
    if !css.contains('(') {
        return None;
    }
    let mut input = ParserInput::new(css);
    let mut led = Led {
        css,
        change,
        out: String::new(),
        done: 0,
    };
    led.walk(&mut Parser::new(&mut input), DEPTH);
    let Led { mut out, done, .. } = led;
    (done > 0).then(|| {
        out.push_str(css.get(done..).unwrap_or_default());
        out
    })
}

struct Led<'a, C> {
    css: &'a str,
    change: &'a C,
    out: String,
    /// So much of the input is in `out`.
    done: usize,
}

impl<C: Fn(&str) -> Option<String>> Led<'_, C> {
    fn walk(&mut self, css: &mut Parser<'_, '_>, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        loop {
            let start = css.position();
            let Ok(token) = css.next_including_whitespace_and_comments() else {
                return;
            };
            match token.clone() {
                Token::UnquotedUrl(address) => {
                    let written = css.slice_from(start);
                    let is_plain = written.ends_with(')') && !written.contains('\\');
                    if is_plain && let Some(led) = (self.change)(&address) {
                        self.put(css, start, &format!("url({led})"));
                    }
                }
                Token::Function(name) => {
                    let is_address = name.eq_ignore_ascii_case("url");
                    self.nested(css, |me, css| match is_address {
                        true => me.quoted(css),
                        false => me.walk(css, depth),
                    });
                }
                Token::ParenthesisBlock | Token::SquareBracketBlock | Token::CurlyBracketBlock => {
                    self.nested(css, |me, css| me.walk(css, depth));
                }
                _ => {}
            }
        }
    }

    fn nested(&mut self, css: &mut Parser<'_, '_>, look: impl FnOnce(&mut Self, &mut Parser<'_, '_>)) {
        // What was not looked at is an error to the parser, which passes over it.
        let _: Result<(), ParseError<'_, ()>> = css.parse_nested_block(|css| {
            look(self, css);
            Ok(())
        });
    }

    /// The one string of `url("…")`.
    fn quoted(&mut self, css: &mut Parser<'_, '_>) {
        css.skip_whitespace();
        let start = css.position();
        let Ok(Token::QuotedString(address)) = css.next_including_whitespace_and_comments().cloned() else {
            return;
        };
        let written = css.slice_from(start);
        let is_whole = written.len() > 1 && written.chars().next() == written.chars().next_back();
        let is_plain = is_whole && !written.contains('\\');
        if is_plain && let Some(led) = (self.change)(&address) {
            self.put(css, start, &Token::QuotedString(led.into()).to_css_string());
        }
    }

    /// Puts something in place of what was read since `start`.
    fn put(&mut self, css: &Parser<'_, '_>, start: SourcePosition, led: &str) {
        self.out
            .push_str(self.css.get(self.done..start.byte_index()).unwrap_or_default());
        self.out.push_str(led);
        self.done = css.position().byte_index();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(address: &str) -> Option<String> {
        address
            .starts_with("/upload/")
            .then(|| format!("//cdn.example{address}"))
    }

    #[test]
    fn addresses_are_changed_however_they_are_written() {
        for (css, led) in [
            (
                "background: url(/upload/a.png) no-repeat",
                Some("background: url(//cdn.example/upload/a.png) no-repeat"),
            ),
            (
                "background:URL( '/upload/a.png' )",
                Some("background:URL( \"//cdn.example/upload/a.png\" )"),
            ),
            (
                "@media print { b { src: url(\"/upload/a.woff\") format(\"woff\"), url(/upload/b.woff) } } i{}",
                Some(
                    "@media print { b { src: url(\"//cdn.example/upload/a.woff\") format(\"woff\"), url(//cdn.example/upload/b.woff) } } i{}",
                ),
            ),
            (
                "background-image: image-set(url(/upload/a.png) 1x)",
                Some("background-image: image-set(url(//cdn.example/upload/a.png) 1x)"),
            ),
            ("background: url(/upload/\\61.png)", None),
            ("background: url(/upload/\\3c/style\\3e\\3cscript\\3e.png)", None),
            ("background: url('/upload/\\3c/style\\3e\\3cscript\\3e.png')", None),
            ("background: url(/docs/a.png)", None),
            ("content: \"url(/upload/a.png)\"", None),
            ("/* url(/upload/a.png) */ b{}", None),
            ("my-url(/upload/a.png)", None),
            ("", None),
        ] {
            assert_eq!(sheet(css, &change).as_deref(), led, "{css}");
        }
    }

    #[test]
    fn what_is_cut_or_broken_stays() {
        for css in [
            "b{background:url(/upload/a.png",
            "b{background:url(\"/upload/a.png",
            "b{background:url(/upload/a b.png)}",
            "b{background:url(/upload/a\"b.png)}",
            "b{background:url(\"/upload/a.png\n\")}",
            ")}](/upload/a.png)",
        ] {
            assert_eq!(sheet(css, &change), None, "{css}");
        }
    }

    #[test]
    fn blocks_without_end_are_passed_over() {
        let deep = format!("{}url(/upload/a.png)", "(".repeat(100_000));
        assert_eq!(sheet(&deep, &change), None);
        let after = format!(
            "b{{{}{}}} i{{background:url(/upload/a.png)}}",
            "(".repeat(1000),
            ")".repeat(1000)
        );
        assert!(
            sheet(&after, &change)
                .expect("led")
                .ends_with("i{background:url(//cdn.example/upload/a.png)}")
        );
    }

    #[test]
    fn an_attribute_has_quotes_of_its_own() {
        for (written, led) in [
            (
                "background-image: url(&quot;/upload/a.png&quot;)",
                Some("background-image: url(\"//cdn.example/upload/a.png\")"),
            ),
            ("background-image: url(&#39;/docs/a.png&#39;)", None),
        ] {
            assert_eq!(attribute(written, &change).as_deref(), led, "{written}");
        }
    }
}
