//! Whose REST call a request is. Pure.

use http::header::AUTHORIZATION;

use crate::proxy::exchange::Exchange;
use crate::proxy::path::Path;

/// Where the portal answers REST calls.
const PREFIX: &str = "/rest/";

pub fn is_call(path: &Path) -> bool {
    path.as_str().starts_with(PREFIX)
}

/// The webhook (`/rest/USER/SECRET/method`), else the token in the query or in `Authorization`. `None`: it is in the body, or there
/// is none.
pub fn token(exchange: &Exchange) -> Option<&str> {
    hook(exchange.path.as_str())
        .or_else(|| parameter(exchange.request.uri.query()?))
        .or_else(|| {
            let field = exchange.request.headers.get(AUTHORIZATION)?.to_str().ok()?;
            field.strip_prefix("Bearer ")
        })
        .filter(|token| !token.is_empty())
}

fn hook(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(PREFIX)?;
    let mut words = rest.split('/');
    let (user, secret, _method) = (words.next()?, words.next()?, words.next()?);
    let is_hook = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit()) && !secret.is_empty();
    rest.get(..user.len() + 1 + secret.len()).filter(|_| is_hook)
}

fn parameter(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("auth="))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proxy::fixture::exchange;

    #[test]
    fn calls_are_known_by_hook_or_token() {
        for (target, bearer, wanted) in [
            ("/rest/1/abc/crm.deal.list.json", "", Some("1/abc")),
            ("/rest/1/abc/crm.deal.list?auth=t", "", Some("1/abc")),
            ("/rest/1/abc/", "", Some("1/abc")),
            ("/rest/user.get?a=b&auth=token", "", Some("token")),
            ("/rest/user.get", "Bearer token", Some("token")),
            ("/rest/user.get?auth=", "", None),
            ("/rest/user.get", "Basic x", None),
            ("/rest/a/abc/user.get", "", None),
            ("/rest/api/user.get", "", None),
        ] {
            let exchange = exchange("GET", target, &[("authorization", bearer)]);
            assert!(is_call(&exchange.path));
            assert_eq!(token(&exchange), wanted, "{target} {bearer}");
        }
        assert!(!is_call(&exchange("GET", "/restore/", &[]).path));
    }
}
