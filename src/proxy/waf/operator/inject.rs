//! `@detectSQLi` and `@detectXSS`: the seam to libinjection. Values that cannot be an attack never reach it.
//!
//! libinjection turns a value into a fingerprint, a letter for each of its first words and marks, and knows which of those are attacks. Not one
//! of them is made only of numbers, words that mean nothing in SQL, and the marks in `MARKS` (a test goes through all of them): most
//! values are no more than that, and looking their words up here is a tenth of the work.

use std::collections::HashSet;
use std::sync::LazyLock;

use libinjectionrs::sqli::sqli_data::SQL_KEYWORDS;

use super::Captures;

const MARKS: &[u8] = b",.:;-/+";
/// The longest word of SQL.
const LONGEST: usize = 32;

/// Words of SQL, and the parts of those that are more than a word, in upper case.
static WORDS: LazyLock<HashSet<&'static [u8]>> = LazyLock::new(|| {
    // The table holds the fingerprints, too.
    let words = SQL_KEYWORDS.iter().filter(|keyword| keyword.token_type != b'F');
    let words = words.map(|keyword| keyword.word.as_bytes());
    let parts = words.flat_map(|word| word.split(|byte| !is_letter(*byte)));
    parts.filter(|part| !part.is_empty()).collect()
});

/// Nothing but numbers, words that are none of SQL, and marks that make no difference.
fn is_plain(value: &[u8]) -> bool {
    // A comment may begin with two.
    if memchr::memmem::find(value, b"--").is_some() {
        return false;
    }
    let mut at = 0;
    while let Some(byte) = value.get(at).copied() {
        if byte.is_ascii_whitespace() || !byte.is_ascii() || MARKS.contains(&byte) {
            at += 1;
            continue;
        }
        let rest = &value[at..];
        let word = &rest[..rest.iter().take_while(|byte| is_letter(**byte)).count()];
        // Where a number ends and a word begins is libinjection's to say.
        let is_number = word.iter().all(u8::is_ascii_digit);
        let is_mixed = byte.is_ascii_digit() && !is_number;
        let follows_number = at >= 2 && value[at - 1] == b'.' && value[at - 2].is_ascii_digit() && !is_number;
        if word.is_empty() || is_mixed || follows_number || is_of_sql(word) {
            return false;
        }
        at += word.len();
    }
    true
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_of_sql(word: &[u8]) -> bool {
    let mut upper = [0; LONGEST];
    let Some(upper) = upper.get_mut(..word.len()) else {
        return false;
    };
    upper.copy_from_slice(word);
    upper.make_ascii_uppercase();
    WORDS.contains(&*upper)
}

pub fn is_sqli(value: &[u8], captures: Option<&mut Captures>) -> bool {
    // One word or number alone is none, whatever it is.
    let is_word = value.iter().all(|byte| is_letter(*byte) || *byte == b'.');
    if is_word || is_plain(value) {
        return false;
    }
    let found = libinjectionrs::detect_sqli(value);
    if !found.is_injection() {
        return false;
    }
    if let (Some(captures), Some(fingerprint)) = (captures, found.fingerprint) {
        *captures = vec![fingerprint.as_str().as_bytes().to_vec()];
    }
    true
}

pub fn is_xss(value: &[u8], captures: Option<&mut Captures>) -> bool {
    if memchr::memchr2(b'<', b'=', value).is_none() {
        return false;
    }
    let is_found = libinjectionrs::detect_xss(value).is_injection();
    if let (true, Some(captures)) = (is_found, captures) {
        *captures = vec![value.to_vec()];
    }
    is_found
}

#[cfg(test)]
mod tests {
    use libinjectionrs::sqli::blacklist::is_blacklisted;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_fingerprint_is_of_plain_parts_alone() {
        // Number, word, operator; the rest are marks for themselves.
        let letters = ["1", "n", "o", ",", ".", ":", ";"];
        let mut all = vec![String::new()];
        for _ in 0..5 {
            let longer = all
                .iter()
                .flat_map(|text| letters.map(|letter| format!("{text}{letter}")));
            all = longer.collect();
            assert_eq!(all.iter().find(|text| is_blacklisted(text)), None);
        }
        assert!(is_blacklisted("1&1") && is_blacklisted("1UE"), "the list is there");
        assert!(WORDS.iter().all(|word| word.len() <= LONGEST));
    }

    #[test]
    fn words_of_sql_are_not_plain() {
        for plain in [
            "name 12",
            "2026-07-24 12:00",
            "Отчёт за неделю, 5/7",
            "a.b;c",
            "selected items",
        ] {
            assert!(is_plain(plain.as_bytes()), "{plain}");
        }
        for other in [
            "a union b",
            "1 or 2",
            "a--b",
            "12and 3",
            "1.e5select",
            "a'b",
            "(a)",
            "@a",
            "x=1",
            "0x41 a",
            "a.select",
        ] {
            assert!(!is_plain(other.as_bytes()), "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn what_is_plain_is_no_attack(parts in proptest::collection::vec((
            prop_oneof![
                proptest::sample::select(SQL_KEYWORDS.iter().map(|keyword| keyword.word.to_string()).collect::<Vec<_>>()),
                "[0-9]{1,3}", "[a-zA-Z_]{1,4}", "[0-9]{0,2}[.]?e?[0-9]{0,2}", "[nNbBeExXqQuU]{1,2}", "[а-яё]{1,3}", "[\u{a0}\u{420}]",
            ],
            proptest::sample::select(vec![" ", "", ",", ".", ":", ";", "-", "/", "+", "\t", "\n"]),
        ), 0..7)) {
            let text: String = parts.iter().map(|(part, mark)| format!("{part}{mark}")).collect();
            if is_plain(text.as_bytes()) {
                prop_assert!(!libinjectionrs::detect_sqli(text.as_bytes()).is_injection(), "{text}");
            }
        }
    }
}
