//! The keys of `proxy` about a content delivery network: what is wrong with them.

use super::Config;

type Faults = Vec<(&'static str, String)>;

/// The host of `host` or `host:port`.
pub fn host_of(network: &str) -> &str {
    network.split_once(':').map_or(network, |(host, _)| host)
}

impl Config {
    pub(super) fn cdn_faults(&self) -> Faults {
        let (mut faults, proxy) = (Faults::new(), &self.proxy);
        let own = self.hosts();
        let sites = proxy.sites.iter().filter_map(|site| site.cdn_host.as_deref());
        for network in std::iter::once(proxy.cdn_host.as_str()).chain(sites) {
            if !network.is_empty() && !is_network(network) {
                let message =
                    format!("\"{network}\" must be a host in lower case, perhaps with a port, like cdn.example.com");
                faults.push(("proxy.cdn_host", message));
            }
            if own.iter().any(|host| host == host_of(network)) {
                let message = format!("\"{network}\" is a site's own name; the network needs one of its own");
                faults.push(("proxy.cdn_host", message));
            }
        }
        for (key, folders) in [
            ("proxy.cdn_paths", &proxy.cdn_paths),
            ("proxy.cdn_signed", &proxy.cdn_signed),
        ] {
            for folder in folders {
                if !folder.starts_with('/') || !folder.ends_with('/') {
                    faults.push((key, format!("\"{folder}\" must start and end with /")));
                }
            }
        }
        let is_end = |end: &String| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if let Some(end) = proxy.cdn_extensions.iter().find(|end| !is_end(end)) {
            let message = format!("\"{end}\" must be the end of a name without its dot, like \"png\"");
            faults.push(("proxy.cdn_extensions", message));
        }
        if !proxy.cdn_signed.is_empty() && !proxy.cdn_key.is_absolute() {
            let message = "name the file of the key that signs addresses by its absolute path; make one by \
                           `openssl rand -hex 32`, the same on all nodes";
            faults.push(("proxy.cdn_key", message.into()));
        }
        if !(60..=30 * 86_400).contains(&proxy.cdn_signed_for.0.as_secs()) {
            faults.push(("proxy.cdn_signed_for", "must be between 1m and 720h".into()));
        }
        faults
    }
}

fn is_network(network: &str) -> bool {
    let (host, port) = match network.split_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().is_ok_and(|port| port > 0)),
        None => (network, true),
    };
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    port && !host.is_empty() && host.split('.').all(|label| !label.is_empty()) && host.bytes().all(is_letter)
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn each_fault_names_its_key() {
        for (line, key) in [
            ("cdn_host = \"https://cdn.example\"", "proxy.cdn_host"),
            ("cdn_host = \"CDN.example\"", "proxy.cdn_host"),
            ("cdn_host = \"cdn.example:0\"", "proxy.cdn_host"),
            ("cdn_host = \"portal.example:8443\"", "proxy.cdn_host"),
            ("cdn_paths = [\"upload\"]", "proxy.cdn_paths"),
            ("cdn_extensions = [\".png\"]", "proxy.cdn_extensions"),
            ("cdn_signed = [\"/upload/private/\"]", "proxy.cdn_key"),
            ("cdn_signed_for = \"1s\"", "proxy.cdn_signed_for"),
            (
                "[[proxy.sites]]\nhosts = [\"a.example\"]\ncdn_host = \"a.example\"",
                "proxy.cdn_host",
            ),
        ] {
            let text = format!("[portal]\ndomain = \"portal.example\"\n[proxy]\n{line}\n");
            let problems = parse(&text, std::iter::empty()).expect_err(line);
            assert_eq!(
                problems.iter().map(|problem| &problem.key).collect::<Vec<_>>(),
                [key],
                "{line}"
            );
        }
        let good =
            "[proxy]\ncdn_host = \"cdn.example:8443\"\ncdn_signed = [\"/upload/a/\"]\ncdn_key = \"/etc/cdn.key\"\n";
        assert!(parse(good, std::iter::empty()).is_ok());
    }
}
