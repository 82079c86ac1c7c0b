//! `Upgrade`: another version of this executable, which the agent laid into the staging folder. The agent's word counts for nothing: the file
//! is installed only with the signature of the key that this node trusts, and never an older version than this one.

use tokio::sync::oneshot;
use tracing::info;

use crate::config::Config;
use crate::host::verb::Answer;
use crate::node::reexec::{Request, Requests};
use crate::node::upgrade::{Candidate, Key, Place};

/// Answered only when it does not happen: else the agent is replaced together with us.
pub async fn upgrade(config: &Config, place: &Place, requests: &Requests, hash: &str) -> Answer {
    match attempt(config, place, requests, hash).await {
        Ok(why) | Err(why) => Answer::refused(why),
    }
}

async fn attempt(config: &Config, place: &Place, requests: &Requests, hash: &str) -> Result<String, String> {
    let candidate = staged(config, hash)?;
    // Reserved first, for what is in place would be taken by whoever asks next.
    let permit = requests
        .try_reserve()
        .map_err(|_| "another version is taking its place".to_owned())?;
    info!(hash, "the agent brings another version, signed by the key of this node");
    place.install(&candidate).map_err(|error| error.to_string())?;
    let (refused, hears) = oneshot::channel();
    permit.send(Request {
        may_go_back: false,
        refused: Some(refused),
    });
    hears.await.map_err(|_| "the node is stopping".to_owned())
}

fn staged(config: &Config, hash: &str) -> Result<Candidate, String> {
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash {
        return Err("this is no hash".to_owned());
    }
    let key = Key::read(&config.upgrade.key).map_err(|error| error.to_string())?;
    let key = key.ok_or_else(|| {
        let key = config.upgrade.key.display();
        format!("nobody's word counts here: put the release key into {key}, or use `bitrix-node upgrade apply --from FILE` on each node")
    })?;
    let path = config.staging().join(hash);
    let candidate = Candidate::read(&path).map_err(|error| error.to_string())?;
    if candidate.hash != hash {
        return Err(format!("{} is another file", path.display()));
    }
    candidate.verify(&path, &key)?;
    Ok(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn refusal(answer: Answer) -> String {
        match answer {
            Answer::Refused { why } => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn nothing_is_installed_without_the_word_of_the_key() {
        let folder = tempfile::tempdir().expect("temp dir");
        let key = folder.path().join("release.pem");
        let text = format!("[node]\ndata_dir = {:?}\n[upgrade]\nkey = {key:?}\n", folder.path());
        let config = crate::config::parse(&text, std::iter::empty()).expect("valid").config;
        let place = Place::new(folder.path().join("program"));
        fs::write(&place.executable, "one").expect("written");
        fs::create_dir(config.staging()).expect("made");
        let hash = blake3::hash(b"two").to_hex().to_string();
        fs::write(config.staging().join(&hash), "two").expect("written");
        let (requests, mut wishes) = tokio::sync::mpsc::channel(1);
        let ask = async |hash: &str| refusal(upgrade(&config, &place, &requests, hash).await);
        assert_eq!(ask("../../../etc/passwd").await, "this is no hash");
        assert!(ask(&hash).await.contains("nobody's word counts"));
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        fs::write(&key, pem).expect("written");
        assert!(ask(&hash).await.starts_with("no signature"));
        fs::write(config.staging().join(format!("{hash}.sig")), [7; 64]).expect("written");
        assert!(ask(&hash).await.contains("is no signature of"));
        fs::write(config.staging().join(&hash), "three").expect("written");
        assert!(ask(&hash).await.ends_with("is another file"));
        assert_eq!(fs::read(&place.executable).expect("there"), b"one");
        assert!(wishes.try_recv().is_err(), "nobody was asked to give way");
    }
}
