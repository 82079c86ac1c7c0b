//! Each transformation by example, and all of them on anything.

use proptest::prelude::*;

use super::name::NAMES;
use super::*;

fn apply(name: &str, value: &str) -> String {
    let value = value.as_bytes();
    let transform = Transform::named(name).unwrap();
    let out = transform.apply(value, Reading::Text).unwrap_or_else(|| value.to_vec());
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn transformations_do_as_their_names_say() {
    let table = [
        ("lowercase", "aBC", "abc"),
        ("urlDecodeUni", "a%20b+c%u0041%zz%", "a b cA%zz%"),
        ("urlDecodeUni", "%uff1cx", "<x"),
        ("urlDecode", "%u0041%41", "%u0041A"),
        ("htmlEntityDecode", "&lt;a&#x41;&#66&amp;&nope;&", "<aAB&&nope;&"),
        ("jsDecode", r"\u0041\x42\103\n\q\", "ABC\nq\\"),
        ("jsDecode", r"\uff1c", "<"),
        ("cssDecode", "\\41 b\\\nc\\q", "Abcq"),
        ("escapeSeqDecode", r"\x41\102\n\q", "AB\n\\q"),
        ("cmdLine", "C^aT  \"/etc\" ; (ls", "cat/etc(ls"),
        ("compressWhitespace", "a \t\n b", "a b"),
        ("removeWhitespace", "a \t\nb", "ab"),
        ("removeNulls", "a\0b", "ab"),
        ("replaceComments", "a/*x*/b/*c", "a b "),
        ("removeCommentsChar", "a/*b*/c--#d<!--", "abcd"),
        ("removeComments", "a/*b*/c--d", "ac"),
        ("normalizePath", "/a/./b/../c//d/", "/a/c/d/"),
        ("normalizePath", "../../x", "../../x"),
        ("normalizePathWin", "\\a\\..\\b", "/b"),
        ("length", "abc", "3"),
        ("base64Decode", "YWJj!YWJj", "abc"),
        ("base64DecodeExt", "YW!Jj", "abc"),
        ("base64Encode", "abc", "YWJj"),
        ("hexEncode", "abc", "616263"),
        ("hexDecode", "616263", "abc"),
        ("sqlHexDecode", "x0x4142y", "xABy"),
        ("trim", " a ", "a"),
        ("utf8toUnicode", "\u{ff1c}я", "%uff1cя"),
    ];
    for (name, value, expected) in table {
        assert_eq!(apply(name, value), expected, "{name} of {value:?}");
    }
    let digest = Transform::Sha1.apply(b"abc", Reading::Text).unwrap();
    assert_eq!(encode::hex(&digest), b"a9993e364706816aba3e25717850c26c9cd0d89d");
}

#[test]
fn cyrillic_stays_what_it_is_unless_reading_is_strict() {
    let read = |value: &str, reading| {
        let once = Transform::Utf8ToUnicode.apply(value.as_bytes(), reading);
        let once = once.unwrap_or_else(|| value.as_bytes().to_vec());
        Transform::UrlDecodeUni.apply(&once, reading).unwrap_or(once)
    };
    assert_eq!(read("договор", Reading::Text), "договор".as_bytes());
    assert_eq!(read("договор", Reading::Strict), b"4>3>2>@");
    assert_eq!(
        Transform::JsDecode.apply(br"\u0434", Reading::Text),
        Some("д".as_bytes().to_vec())
    );
    assert_eq!(
        Transform::CompressWhitespace.apply("Рад".as_bytes(), Reading::Text),
        None
    );
}

proptest! {
    #[test]
    fn nothing_panics_and_unchanged_means_unchanged(value in proptest::collection::vec(any::<u8>(), 0..64)) {
        for (_, transform) in NAMES {
            for reading in [Reading::Text, Reading::Strict] {
                let _ = transform.apply(&value, reading);
            }
        }
    }

    #[test]
    fn escapes_in_any_mixture_end(value in "[\\\\%&#xu0-9a-fA-F;+*/<!-]{0,40}") {
        for (_, transform) in NAMES {
            let _ = transform.apply(value.as_bytes(), Reading::Text);
        }
    }
}
