//! The fields by which PHP hands a file over. Pure.

use http::header::{HeaderMap, HeaderName, HeaderValue};

const REDIRECT: HeaderName = HeaderName::from_static("x-accel-redirect");
const SOURCE: HeaderName = HeaderName::from_static("x-gen-src");
const DISPOSITION: HeaderName = HeaderName::from_static("x-cd-info");

/// What PHP wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Escaped path, perhaps with a query.
    pub target: String,
    /// What to ask for when there is nothing at the target: a path with a query.
    pub source: Option<String>,
    /// `Content-Disposition` of the target, where it is no file of ours.
    pub disposition: Option<HeaderValue>,
}

/// Takes an order out of an answer.
pub fn take(headers: &mut HeaderMap) -> Option<Order> {
    let text = |value: HeaderValue| value.to_str().ok().map(str::to_string);
    let target = headers.remove(REDIRECT).and_then(text)?;
    let source = headers
        .remove(SOURCE)
        .and_then(text)
        .filter(|source| !source.is_empty());
    Some(Order {
        target,
        source: source.map(|source| format!("/{}", source.trim_start_matches('/'))),
        disposition: headers.remove(DISPOSITION),
    })
}

/// Fields between PHP and its web server are nobody else's business.
pub fn strip(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-accel-") || [SOURCE, DISPOSITION].contains(name))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_taken_whole() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-accel-redirect", "/upload/a%20b.jpg"),
            ("x-gen-src", "bitrix/tools/resize.php?x=1"),
            ("x-cd-info", "attachment"),
            ("x-accel-buffering", "no"),
            ("content-type", "image/jpeg"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let order = take(&mut headers).expect("one");
        assert_eq!(order.target, "/upload/a%20b.jpg");
        assert_eq!(order.source.as_deref(), Some("/bitrix/tools/resize.php?x=1"));
        assert_eq!(order.disposition, Some(HeaderValue::from_static("attachment")));
        strip(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["content-type"]);
        assert_eq!(take(&mut headers), None);
    }
}
