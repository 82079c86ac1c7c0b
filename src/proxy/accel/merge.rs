//! An answer out of two: the file, and what PHP says of it. Pure.

use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, EXPIRES, HeaderMap, HeaderName,
    HeaderValue, SET_COOKIE,
};

/// What PHP knows better than the name of the file. All else, like length, tag and ranges, is the file's.
const PHPS: [HeaderName; 4] = [
    CACHE_CONTROL,
    EXPIRES,
    CONTENT_SECURITY_POLICY,
    HeaderName::from_static("x-frame-options"),
];

/// Puts PHP's fields into the answer with the file.
pub fn merge(answer: &mut HeaderMap, php: &HeaderMap) {
    // How long a browser may keep it, PHP alone knows.
    answer.remove(CACHE_CONTROL);
    // A file that could act in the portal's name stays a download, and a drawing stays without scripts.
    let is_disarmed = answer.contains_key(CONTENT_DISPOSITION);
    let is_drawing = answer.contains_key(CONTENT_SECURITY_POLICY);
    for name in PHPS {
        if let Some(value) = php.get(&name)
            && !(is_drawing && name == CONTENT_SECURITY_POLICY)
        {
            answer.insert(name, value.clone());
        }
    }
    if !answer.contains_key(CACHE_CONTROL) {
        answer.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    for cookie in php.get_all(SET_COOKIE) {
        answer.append(SET_COOKIE, cookie.clone());
    }
    if let Some(value) = php.get(CONTENT_DISPOSITION) {
        let text = value.as_bytes().to_ascii_lowercase();
        if !is_disarmed || text.starts_with(b"attachment") {
            answer.insert(CONTENT_DISPOSITION, value.clone());
        }
    }
    let kind = answer.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_vec());
    let is_joined = kind.is_some_and(|kind| kind.starts_with(b"multipart/"));
    if let Some(value) = php.get(CONTENT_TYPE)
        && answer.contains_key(CONTENT_TYPE)
        && !is_joined
        && !is_disarmed
    {
        answer.insert(CONTENT_TYPE, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proxy::fixture::headers;

    #[test]
    fn php_says_what_it_knows_better() {
        let mut answer = headers(&[
            ("content-type", "image/jpeg"),
            ("content-length", "7"),
            ("etag", "\"file\""),
            ("cache-control", "max-age=2592000"),
        ]);
        let php = headers(&[
            ("content-type", "image/png"),
            ("content-length", "0"),
            ("etag", "\"php\""),
            ("cache-control", "private"),
            ("content-disposition", "inline; filename=a.png"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-powered-by", "PHP"),
        ]);
        merge(&mut answer, &php);
        let expected = headers(&[
            ("content-type", "image/png"),
            ("content-length", "7"),
            ("etag", "\"file\""),
            ("cache-control", "private"),
            ("content-disposition", "inline; filename=a.png"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        assert_eq!(answer, expected);
    }

    #[test]
    fn a_dangerous_upload_stays_harmless() {
        let page = &[
            ("content-type", "text/plain"),
            ("content-disposition", "attachment"),
            ("cache-control", "private"),
        ];
        let mut answer = headers(page);
        merge(
            &mut answer,
            &headers(&[("content-type", "text/html"), ("content-disposition", "inline")]),
        );
        assert_eq!(answer, headers(page));
        let named = headers(&[("content-disposition", "attachment; filename=\"x.html\"")]);
        merge(&mut answer, &named);
        assert_eq!(answer["content-disposition"], "attachment; filename=\"x.html\"");
        let mut drawing = headers(&[("content-security-policy", "sandbox")]);
        merge(&mut drawing, &headers(&[("content-security-policy", "default-src *")]));
        assert_eq!(drawing["content-security-policy"], "sandbox");
        let mut parts = headers(&[("content-type", "multipart/byteranges; boundary=x")]);
        merge(&mut parts, &headers(&[("content-type", "video/mp4")]));
        assert_eq!(parts["content-type"], "multipart/byteranges; boundary=x");
    }
}
