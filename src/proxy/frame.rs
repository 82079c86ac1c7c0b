//! Which pages other sites may show inside their own. Pure.

use http::header::{HeaderMap, HeaderValue, X_FRAME_OPTIONS};

use super::path::Path;

/// Made to be shown elsewhere: forms, open lines, and what telephony calls.
const SHOWN: [&str; 4] = [
    "/pub/",
    "/online/",
    "/services/telephony/info_receiver.php",
    "/bitrix/tools/voximplant/",
];

/// A page that another site shows could be clicked on unseen, so only the portal itself may, unless PHP says otherwise.
pub fn guard(path: &Path, headers: &mut HeaderMap) {
    if SHOWN.iter().any(|place| path.as_str().starts_with(place)) {
        headers.remove(X_FRAME_OPTIONS);
    } else if !headers.contains_key(X_FRAME_OPTIONS) {
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(path: &str, said: Option<&'static str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.extend(said.map(|said| (X_FRAME_OPTIONS, HeaderValue::from_static(said))));
        guard(&Path::parse(path).expect("a path"), &mut headers);
        let value = headers.get(X_FRAME_OPTIONS)?.to_str().expect("text");
        Some(value.to_string())
    }

    #[test]
    fn a_page_is_shown_by_the_portal_alone() {
        for (path, said, expected) in [
            ("/", None, Some("SAMEORIGIN")),
            ("/", Some("DENY"), Some("DENY")),
            ("/pub/form/7/", None, None),
            ("/online/", Some("SAMEORIGIN"), None),
            ("/publication/", None, Some("SAMEORIGIN")),
        ] {
            assert_eq!(guarded(path, said).as_deref(), expected, "{path} {said:?}");
        }
    }
}
