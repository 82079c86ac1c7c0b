//! The section `acme`: where the portal's certificates come from.

use std::path::PathBuf;

use serde::Deserialize;

use super::Config;

/// Directories that are called by a word.
const KNOWN: [(&str, &str); 2] = [
    ("production", "https://acme-v02.api.letsencrypt.org/directory"),
    ("staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
];

/// Names of a certificate: public directories give no more.
const NAMES: usize = 100;
/// Letters of them all: each name stands in the certificate, in what is wanted and in the order, and all that in one setting of the registry.
const LETTERS: usize = 8 << 10;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// Empty: none.
    pub directory: String,
    pub contact: String,
    /// Empty: `portal.domain`, and those of `proxy.sites`.
    pub names: Vec<String>,
    pub ca: PathBuf,
    pub challenge: Proof,
}

/// How a directory looks whether a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Proof {
    #[serde(rename = "http-01")]
    Http,
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
}

impl Acme {
    /// The directory's URL; `None`: there is none.
    pub fn url(&self) -> Option<String> {
        let known = KNOWN.iter().find(|(word, _)| *word == self.directory);
        match (known, self.directory.as_str()) {
            (Some((_, url)), _) => Some((*url).to_string()),
            (None, "") => None,
            (None, url) => Some(url.to_string()),
        }
    }

    /// What is wrong with it: key and message.
    pub(super) fn faults(&self, config: &Config) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut require = |holds: bool, key, message: &str| {
            if !holds {
                faults.push((key, message.to_string()));
            }
        };
        let Some(url) = self.url() else {
            require(
                self.names.is_empty(),
                "acme.names",
                "name the directory that they come from in acme.directory, like \"production\"",
            );
            return faults;
        };
        let is_url = url.parse::<http::Uri>().is_ok_and(|url| {
            let authority = url
                .authority()
                .is_some_and(|authority| !authority.as_str().contains('@'));
            url.scheme_str() == Some("https") && authority
        });
        let message = "must be \"production\", \"staging\" or the https URL of a directory";
        require(is_url, "acme.directory", message);
        let message = "certificates are kept in the registry: set storage.engine to \"replicated\" or \"external\"";
        require(config.storage.engine != super::Engine::None, "acme.directory", message);
        let message = "the directory looks whether the names are ours at a front: give an address in proxy.http for \
                       \"http-01\", in proxy.https for \"tls-alpn-01\"";
        let is_met = match self.challenge {
            Proof::Http => !config.proxy.http.is_empty(),
            Proof::TlsAlpn => !config.proxy.https.is_empty(),
        };
        require(is_met, "acme.challenge", message);
        let mail = self.contact.as_str();
        let is_mail =
            mail.is_empty() || (mail.contains('@') && !mail.contains([' ', ':', ',', '?']) && mail.is_ascii());
        require(
            is_mail,
            "acme.contact",
            "must be one mail address, like \"admin@example.org\", or empty",
        );
        let ca = &self.ca;
        let is_absolute = ca.as_os_str().is_empty() || ca.is_absolute();
        require(is_absolute, "acme.ca", "must be an absolute path");
        if let Some(message) = excess(&config.acme_names()) {
            require(false, "acme.names", &message);
        }
        for name in &self.names {
            let message = match name.starts_with("*.") {
                true => format!(
                    "\"{name}\" is a wildcard, which is issued over DNS only: get it elsewhere, then `bitrix-node cert import`"
                ),
                false => format!("\"{name}\" is no host name of the public DNS"),
            };
            require(is_host(name), "acme.names", &message);
        }
        faults
    }
}

impl Config {
    /// Names of the certificate that the configuration wants; none where it wants none.
    pub fn acme_names(&self) -> Vec<String> {
        match self.acme.names.as_slice() {
            _ if self.acme.url().is_none() => Vec::new(),
            [] => {
                let domain = Some(&self.portal.domain).filter(|domain| is_host(domain));
                domain.cloned().into_iter().chain(self.site_names()).collect()
            }
            names => names.to_vec(),
        }
    }

    /// What private keys are sealed with in the registry.
    pub fn cert_key(&self) -> PathBuf {
        self.secrets().join("cert.key")
    }
}

/// Why there can be no certificate with all these names; `None`: there can.
pub fn excess(names: &[String]) -> Option<String> {
    let letters: usize = names.iter().map(String::len).sum();
    let found = match () {
        () if names.len() > NAMES => format!("a certificate has at most {NAMES} names, here are {}", names.len()),
        () if letters > LETTERS => {
            format!("the names of a certificate have at most {LETTERS} letters, here are {letters}")
        }
        () => return None,
    };
    Some(format!(
        "{found}: name fewer, and get another certificate for the others (`bitrix-node cert issue`)"
    ))
}

/// A host name of the public DNS (RFC 1123 §2.1), with two labels at least.
pub fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label) && !is_address
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn hosts_of_the_public_dns_are_told_from_others() {
        for good in ["a.example", "xn--e1afmkfd.xn--p1ai", "1.a-b.example"] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "",
            "localhost",
            "a..b",
            "-a.example",
            "*.a.example",
            "10.0.0.1",
            "a b.example",
            "ä.example",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn each_fault_names_its_key_and_the_portals_own_name_is_enough() {
        let of = |text: &str| {
            parse(
                &format!("[storage]\nengine = \"replicated\"\n{text}"),
                std::iter::empty(),
            )
        };
        let good = of("[portal]\ndomain = \"p.example\"\n[acme]\ndirectory = \"staging\"")
            .unwrap()
            .config;
        assert_eq!(good.acme_names(), ["p.example"]);
        assert!(good.acme.url().unwrap().contains("staging"));
        let sites = "[portal]\ndomain = \"p.example\"\n[acme]\ndirectory = \"staging\"\n[[proxy.sites]]\nhosts = [\"s.example\", \"*.s.example\"]";
        assert_eq!(of(sites).unwrap().config.acme_names(), ["p.example", "s.example"]);
        for (text, key) in [
            ("[acme]\nnames = [\"a.example\"]", "acme.names"),
            ("[acme]\ndirectory = \"http://ca.example/dir\"", "acme.directory"),
            ("[acme]\ndirectory = \"prod\"", "acme.directory"),
            (
                "[acme]\ndirectory = \"staging\"\nnames = [\"*.a.example\"]",
                "acme.names",
            ),
            (
                "[acme]\ndirectory = \"staging\"\ncontact = \"mailto:a@b.example\"",
                "acme.contact",
            ),
            ("[acme]\ndirectory = \"staging\"\nca = \"ca.pem\"", "acme.ca"),
            (
                "[acme]\ndirectory = \"staging\"\nchallenge = \"tls-alpn-01\"\n[proxy]\nhttps = []",
                "acme.challenge",
            ),
        ] {
            let problems = of(text).unwrap_err();
            assert!(
                problems.iter().any(|problem| problem.key == key),
                "{text}: {problems:?}"
            );
        }
        let many = |count: usize, length: usize| {
            let name = |at| format!("{at:03}{}.example", "a".repeat(length - 11));
            let names: Vec<String> = (0..count).map(name).collect();
            of(&format!("[acme]\ndirectory = \"staging\"\nnames = {names:?}")).map(|loaded| loaded.config.acme_names())
        };
        assert_eq!(many(NAMES, 60).map(|names| names.len()), Ok(NAMES));
        for (count, length, expected) in [(NAMES + 1, 20, "at most 100 names"), (NAMES, 82, "here are 8200")] {
            let problems = many(count, length).unwrap_err();
            let is_told =
                |problem: &super::super::Problem| problem.key == "acme.names" && problem.to_string().contains(expected);
            assert!(problems.iter().any(is_told), "{problems:?}");
        }
        let none = parse("[acme]\ndirectory = \"staging\"", std::iter::empty()).unwrap_err();
        assert!(none.iter().any(|problem| problem.key == "acme.directory"), "{none:?}");
    }
}
