//! Bytes that a transformation needs to change anything: most values have none of them, and most transformations are never run.

use super::{Reading, Transform, space};
use crate::proxy::waf::operator::ByteSet;

impl Transform {
    /// A value without any of these stays as it is. `None`: nothing can be said.
    pub fn triggers(self, reading: Reading) -> Option<ByteSet> {
        let blanks = || ByteSet::all(|byte| space::is_space(byte, reading));
        Some(match self {
            Transform::Base64Decode
            | Transform::Base64DecodeExt
            | Transform::Base64Encode
            | Transform::HexDecode
            | Transform::HexEncode
            | Transform::Length
            | Transform::Sha1
            | Transform::UrlEncode => return None,
            Transform::CmdLine => ByteSet::all(|byte| byte.is_ascii_uppercase() || b"\"'\\^ ,;\t\r\n".contains(&byte)),
            Transform::CompressWhitespace | Transform::RemoveWhitespace => blanks(),
            Transform::CssDecode | Transform::EscapeSeqDecode | Transform::JsDecode => ByteSet::of(b"\\"),
            Transform::HtmlEntityDecode => ByteSet::of(b"&"),
            Transform::Lowercase => ByteSet::all(|byte| byte.is_ascii_uppercase()),
            Transform::NormalizePath => ByteSet::of(b"/."),
            Transform::NormalizePathWin => ByteSet::of(b"/.\\"),
            Transform::RemoveComments | Transform::RemoveCommentsChar => ByteSet::of(b"*-#"),
            Transform::ReplaceComments => ByteSet::of(b"*"),
            Transform::RemoveNulls | Transform::ReplaceNulls => ByteSet::of(b"\0"),
            Transform::SqlHexDecode => ByteSet::of(b"xX"),
            Transform::Trim | Transform::TrimLeft | Transform::TrimRight => {
                ByteSet::all(|byte| byte.is_ascii_whitespace())
            }
            Transform::Uppercase => ByteSet::all(|byte| byte.is_ascii_lowercase()),
            Transform::UrlDecode | Transform::UrlDecodeUni => ByteSet::of(b"%+"),
            Transform::Utf8ToUnicode => match reading {
                Reading::Strict => ByteSet::all(|byte| !byte.is_ascii()),
                // All full-width forms start so.
                Reading::Text => ByteSet::of(b"\xef"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Transform; 23] = [
        Transform::CmdLine,
        Transform::CompressWhitespace,
        Transform::CssDecode,
        Transform::EscapeSeqDecode,
        Transform::HtmlEntityDecode,
        Transform::JsDecode,
        Transform::Lowercase,
        Transform::NormalizePath,
        Transform::NormalizePathWin,
        Transform::RemoveComments,
        Transform::RemoveCommentsChar,
        Transform::RemoveNulls,
        Transform::RemoveWhitespace,
        Transform::ReplaceComments,
        Transform::ReplaceNulls,
        Transform::SqlHexDecode,
        Transform::Trim,
        Transform::TrimLeft,
        Transform::TrimRight,
        Transform::Uppercase,
        Transform::UrlDecode,
        Transform::UrlDecodeUni,
        Transform::Utf8ToUnicode,
    ];

    proptest! {
        #[test]
        fn without_its_triggers_a_value_stays(
            text in proptest::collection::vec(prop_oneof![
                proptest::sample::select(b"\0 \t\n\x0b\xa0\xef%+&;#x0*/-<>!\\.'\"^,(aAzZ19u".to_vec()),
                any::<u8>(),
            ], 0..8),
            at in 0..ALL.len(),
            strict in any::<bool>(),
        ) {
            let reading = if strict { Reading::Strict } else { Reading::Text };
            let triggers = ALL[at].triggers(reading).expect("all of these have some");
            if !triggers.meets(&ByteSet::of(&text)) {
                let changed = ALL[at].apply(&text, reading).filter(|changed| *changed != text);
                prop_assert_eq!(changed, None, "{:?}", ALL[at]);
            }
        }
    }
}
