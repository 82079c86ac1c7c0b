//! Which addresses in a page are led to the network, and to what. Pure.

use std::sync::Arc;
use std::time::SystemTime;

use super::signature::Signer;

/// Longer ones are none.
const LONGEST: usize = 8 << 10;

pub struct Rules {
    /// Folders, with a slash at both ends.
    folders: Vec<String>,
    /// Ends of names, in lower case and without the dot.
    ends: Vec<String>,
}

/// The rules for one page.
pub struct Change {
    rules: Arc<Rules>,
    host: String,
    signer: Option<Arc<Signer>>,
    wall: SystemTime,
}

impl Rules {
    pub fn new(folders: &[String], ends: &[String]) -> Self {
        Rules {
            folders: folders.to_vec(),
            ends: ends.to_vec(),
        }
    }

    /// Whether a path is one of the network's.
    pub fn has(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or_default();
        let end = name.rsplit_once('.').map_or("", |(_, end)| end);
        let is_below = self.folders.iter().any(|folder| path.starts_with(folder.as_str()));
        // A script in the middle of a path is asked, not a file.
        is_below && self.ends.iter().any(|known| known.eq_ignore_ascii_case(end)) && !path.contains(".php/")
    }

    pub fn change(self: Arc<Self>, host: &str, signer: Option<Arc<Signer>>, wall: SystemTime) -> Change {
        Change {
            rules: self,
            host: host.to_string(),
            signer,
            wall,
        }
    }
}

impl Change {
    /// An address as an attribute has it. `None`: it stays.
    pub fn address(&self, written: &str) -> Option<String> {
        let address = written.trim_ascii();
        let is_ours = address.starts_with('/') && !address.starts_with("//");
        if !is_ours || address.len() > LONGEST || !address.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        {
            return None;
        }
        // A character reference with a number looks like a fragment.
        if address.contains("&#") {
            return None;
        }
        let (target, fragment) = address.split_at(address.find('#').unwrap_or(address.len()));
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        // What must be decoded to be understood is left alone but for single characters of names.
        if ["/../", "/./", "//", "&"].iter().any(|odd| path.contains(odd)) || !self.rules.has(path) {
            return None;
        }
        let signature = match &self.signer {
            Some(signer) => {
                let path = decoded(path)?;
                match signer.has(&path) {
                    true => signer.query(&path, self.wall),
                    false => String::new(),
                }
            }
            None => String::new(),
        };
        let separator = match (signature.is_empty(), query.is_empty()) {
            (true, _) => "",
            (false, true) => "?",
            // In an attribute a bare & may begin a character reference.
            (false, false) => "&amp;",
        };
        let signature = signature.replace('&', "&amp;");
        Some(format!("//{}{path}{query}{separator}{signature}{fragment}", self.host))
    }

    /// A list of addresses with what they are for (`srcset`).
    pub fn addresses(&self, written: &str) -> Option<String> {
        let (mut out, mut is_changed, mut is_start) = (String::with_capacity(written.len() + 64), false, true);
        for piece in written.split_inclusive(|letter: char| letter.is_ascii_whitespace()) {
            let word = piece.trim_ascii_end();
            let bare = word.trim_end_matches(',');
            match self.address(bare).filter(|_| is_start) {
                Some(led) => {
                    is_changed = true;
                    out.push_str(&led);
                    out.push_str(piece.get(bare.len()..).unwrap_or_default());
                }
                None => out.push_str(piece),
            }
            if !word.is_empty() {
                is_start = word.ends_with(',');
            }
        }
        is_changed.then_some(out)
    }
}

/// A path as the front reads it. `None`: it does not.
fn decoded(path: &str) -> Option<String> {
    let path = crate::proxy::path::Path::parse(path).ok()?;
    Some(path.as_str().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proxy::cdn::Key;
    use std::time::Duration;

    fn rules() -> Arc<Rules> {
        let of = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        Arc::new(Rules::new(&of(&["/bitrix/", "/upload/"]), &of(&["css", "js", "png"])))
    }

    fn change() -> Change {
        rules().change("cdn.example", None, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn listed_files_are_led_to_the_network_and_nothing_else() {
        for (address, led) in [
            ("/bitrix/js/main/core.js", Some("//cdn.example/bitrix/js/main/core.js")),
            ("/bitrix/a.css?1234", Some("//cdn.example/bitrix/a.css?1234")),
            (" /upload/A.PNG#x ", Some("//cdn.example/upload/A.PNG#x")),
            ("/upload/a%20b.png", Some("//cdn.example/upload/a%20b.png")),
            ("/upload/a.pdf", None),
            ("/upload/png", None),
            ("/docs/a.png", None),
            ("upload/a.png", None),
            ("//other.example/upload/a.png", None),
            ("https://portal.example/upload/a.png", None),
            ("/bitrix/tools/x.php/a.png", None),
            ("/upload/../bitrix/a.js", None),
            ("/upload//a.png", None),
            ("/\\evil/upload/a.png", None),
            ("/upload/\u{444}.png", None),
            ("/upload/a b.png", None),
            ("/upload/a.png?x=1&#38;y=2", None),
            ("data:image/png;base64,AA", None),
            ("", None),
        ] {
            assert_eq!(change().address(address).as_deref(), led, "{address}");
        }
    }

    #[test]
    fn each_candidate_of_a_list_is_looked_at() {
        for (list, led) in [
            (
                "/upload/a.png, /upload/b.png 2x",
                Some("//cdn.example/upload/a.png, //cdn.example/upload/b.png 2x"),
            ),
            (
                "/docs/a.png 1x, /upload/b.png 2x",
                Some("/docs/a.png 1x, //cdn.example/upload/b.png 2x"),
            ),
            (
                "/upload/a,b.png 1x,\n  /upload/c.png 2x",
                Some("//cdn.example/upload/a,b.png 1x,\n  //cdn.example/upload/c.png 2x"),
            ),
            ("/docs/a.png", None),
        ] {
            assert_eq!(change().addresses(list).as_deref(), led, "{list}");
        }
    }

    #[test]
    fn what_needs_a_signature_gets_one_that_holds() {
        let key = Key::new(&[7; 32]).expect("long enough");
        let signer = Arc::new(Signer::new(key, vec!["/upload/".into()], Duration::from_secs(60)));
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let change = rules().change("cdn.example", Some(signer.clone()), wall);
        assert_eq!(
            change.address("/bitrix/a.js").as_deref(),
            Some("//cdn.example/bitrix/a.js")
        );
        for address in ["/upload/a%20b.png", "/upload/a%20b.png?v=1"] {
            let led = change.address(address).expect("led").replace("&amp;", "&");
            let (path, query) = led.split_once('?').expect("a query");
            assert_eq!(path, "//cdn.example/upload/a%20b.png");
            assert!(signer.allows("/upload/a b.png", query, wall), "{led}");
        }
    }
}
