//! `Upgrade`: another version of this executable, which the agent laid into the staging folder. The agent's word counts for nothing: the file
//! is installed only with the signature of the key that this node trusts, and never an older version than this one. `Revert`: back to the
//! executable before this one, soon after it came.

use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::base::clock;
use crate::config::Config;
use crate::host::verb::Answer;
use crate::node::reexec::{Request, Requests};
use crate::node::upgrade::{Candidate, Key, Place, Record, Stage};

/// So long after it came an executable can be taken back by the agent's word. Who has the agent could else bring an old fault back at any
/// time.
const TRIAL: Duration = Duration::from_secs(900);

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

/// Answered only when it does not happen.
pub async fn revert(config: &Config, place: &Place, requests: &Requests) -> Answer {
    match go_back(config, place, requests).await {
        Ok(why) | Err(why) => Answer::refused(why),
    }
}

async fn go_back(config: &Config, place: &Place, requests: &Requests) -> Result<String, String> {
    is_on_trial(Record::read(config).as_ref(), clock::boot())?;
    let permit = requests
        .try_reserve()
        .map_err(|_| "another version is taking its place".to_owned())?;
    warn!("the agent says that this executable does not serve: the one before it comes back");
    place.restore(true).map_err(|error| error.to_string())?;
    let (refused, hears) = oneshot::channel();
    permit.send(Request {
        may_go_back: true,
        refused: Some(refused),
    });
    hears.await.map_err(|_| "the node is stopping".to_owned())
}

/// Whether this executable came by that change, and lately.
fn is_on_trial(last: Option<&Record>, now: Duration) -> Result<(), String> {
    let Some(last) = last.filter(|last| last.stage == Stage::Done && !last.hash.is_empty()) else {
        return Err("this executable did not come by the last change".to_owned());
    };
    // A later boot's clock has begun anew.
    match now.checked_sub(Duration::from_millis(last.begun)) {
        Some(age) if age <= TRIAL => Ok(()),
        _ => Err("it came too long ago: `bitrix-node upgrade rollback` takes it back".to_owned()),
    }
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

    #[test]
    fn only_what_came_lately_is_taken_back() {
        let record = |stage, hash: &str| Record {
            begun: 5000,
            stage,
            ..Record::begin("2", hash.into())
        };
        let at = |record: Option<&Record>, seconds| is_on_trial(record, Duration::from_secs(seconds)).is_ok();
        let done = record(Stage::Done, "ab");
        assert!(at(Some(&done), 5) && at(Some(&done), 905));
        assert!(!at(Some(&done), 906) && !at(Some(&done), 4) && !at(None, 5));
        assert!(!at(Some(&record(Stage::Failed, "ab")), 6) && !at(Some(&record(Stage::Trial, "ab")), 6));
        assert!(!at(Some(&record(Stage::Done, "")), 6), "a restart of the same");
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
