//! What a supervisor must know of the one before it: the epochs that were seen, and the floating addresses that may be up. Of this
//! boot and this cluster only: the clock and the epochs of another one mean nothing.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::holdings::Holdings;
use crate::base::file::{Access, replace};
use crate::host::verb::Task;

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Debug, Serialize, Deserialize)]
struct Text {
    boot: String,
    cluster: String,
    epochs: Vec<(Task, u64)>,
}

pub struct Note {
    path: PathBuf,
    boot: String,
    cluster: String,
}

impl Note {
    /// `cluster`: its name; empty where there is none.
    pub fn new(run_dir: &Path, cluster: String) -> io::Result<Self> {
        Ok(Note {
            path: run_dir.join("holdings.json"),
            boot: std::fs::read_to_string(BOOT)?.trim().to_owned(),
            cluster,
        })
    }

    /// Nothing where there is none, or one of another boot, cluster or format.
    pub fn read(&self) -> io::Result<Holdings> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holdings::default()),
            Err(error) => return Err(error),
        };
        let read = serde_json::from_slice(&text).ok();
        let ours = read.filter(|text: &Text| text.boot == self.boot && text.cluster == self.cluster);
        Ok(ours.map(|text| Holdings::of(text.epochs)).unwrap_or_default())
    }

    pub fn write(&self, holdings: &Holdings) -> io::Result<()> {
        let text = Text {
            boot: self.boot.clone(),
            cluster: self.cluster.clone(),
            epochs: holdings.epochs().map(|(task, epoch)| (task.clone(), epoch)).collect(),
        };
        let text = serde_json::to_vec(&text).expect("plain data");
        replace(&self.path, &text, Access::mode(0o600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_outlive_a_supervisor_but_no_boot_and_no_cluster() {
        let folder = tempfile::tempdir().expect("temp dir");
        let note = |cluster: &str| Note::new(folder.path(), cluster.to_owned()).expect("made");
        assert_eq!(note("c1").read().expect("read"), Holdings::default());
        let address = Task::Address("fd00::10/64".parse().expect("a network"));
        let holdings = Holdings::of([(address, 3), (Task::Cron, 9)]);
        note("c1").write(&holdings).expect("written");
        assert_eq!(note("c1").read().expect("read"), holdings);
        assert_eq!(note("c2").read().expect("read"), Holdings::default());
        let mut later = note("c1");
        later.boot = "another".into();
        assert_eq!(later.read().expect("read"), Holdings::default());
        std::fs::write(folder.path().join("holdings.json"), "{\"boot\"").expect("written");
        assert_eq!(note("c1").read().expect("read"), Holdings::default());
    }
}
