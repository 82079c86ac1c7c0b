//! Compares what is there with what was promised: over every door, and in each replica's mirror.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use nfs3_types::nfs3::nfs_fh3;

use super::client::Client;
use super::cluster::Cluster;
use super::history::History;
use super::workload::Model;

impl Model {
    fn expected(&self, path: &str) -> Option<Vec<u8>> {
        let made = self.files.get(path).map(|content| content.bytes());
        made.or_else(|| self.exact.get(path).cloned())
    }

    /// All names that must be there.
    fn names(&self) -> BTreeSet<String> {
        let files = self.files.keys().chain(self.exact.keys());
        files.chain(&self.folders).cloned().collect()
    }

    /// Says what is missing, what is too much, and what differs, of the folders that the model knows.
    fn compare(&self, where_: &str, found: &BTreeSet<String>, read: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<String> {
        let names = self.names();
        let mut faults: Vec<String> = Vec::new();
        for missing in names.difference(found).filter(|path| !self.is_open(path)) {
            faults.push(format!("{where_}: {missing} is missing"));
        }
        for more in found.difference(&names).filter(|path| !self.is_open(path)) {
            faults.push(format!("{where_}: {more} should not be there"));
        }
        for path in names.intersection(found) {
            if let Some(expected) = self.expected(path)
                && read(path).as_ref() != Some(&expected)
            {
                faults.push(format!("{where_}: {path} has other content"));
            }
        }
        faults
    }
}

/// Everything that was promised is there, and nothing else: over each door, and in each replica's mirror.
pub async fn everything(cluster: &Cluster, model: &Model, history: &Arc<History>) {
    for at in 0..cluster.machines.len() {
        over_door(cluster, at, model, history).await;
    }
    for machine in &cluster.machines {
        let tree = machine.storage().join("state/tree");
        let look = || in_mirror(&tree, &machine.name, model);
        // A follower applies what is acknowledged with the leader's next message.
        let start = tokio::time::Instant::now();
        let mut faults = look();
        while !faults.is_empty() && start.elapsed() < super::cluster::PATIENCE / 4 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            faults = look();
        }
        faults.into_iter().for_each(|fault| history.violation(fault));
    }
    println!(
        "compared {} files and {} folders over 3 doors and in 3 mirrors",
        model.files.len() + model.exact.len(),
        model.folders.len()
    );
}

/// What differs in a mirror.
pub fn in_mirror(tree: &Path, name: &str, model: &Model) -> Vec<String> {
    let mut found = BTreeSet::new();
    walk(tree, "", &mut found);
    model.compare(&format!("mirror of {name}"), &found, |path| {
        std::fs::read(tree.join(path)).ok()
    })
}

fn walk(root: &Path, folder: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let path = if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(root, &path, found);
        }
        found.insert(path);
    }
}

async fn over_door(cluster: &Cluster, at: usize, model: &Model, history: &Arc<History>) {
    let machine = &cluster.machines[at];
    let mut client = Client::new(
        format!("check{at}-{}", history.now().as_millis()),
        at,
        machine.door(),
        history.clone(),
    );
    let root = client.mount().await;
    let (mut found, mut contents) = (BTreeSet::new(), std::collections::BTreeMap::new());
    let mut folders: Vec<(String, nfs_fh3)> = vec![(String::new(), root)];
    while let Some((folder, handle)) = folders.pop() {
        for name in client.list(&handle, &folder).await.unwrap() {
            let path = if folder.is_empty() {
                name.clone()
            } else {
                format!("{folder}/{name}")
            };
            found.insert(path.clone());
            let (object, attributes) = client.look_up(&handle, &name).await.unwrap();
            if attributes.type_ == nfs3_types::nfs3::ftype3::NF3DIR {
                folders.push((path, object));
                continue;
            }
            let mut content = Vec::new();
            loop {
                let (data, is_end) = client.read(&object, &path, content.len() as u64).await.unwrap();
                content.extend(data);
                if is_end {
                    break;
                }
            }
            contents.insert(path, content);
        }
    }
    let faults = model.compare(&format!("door of {}", machine.name), &found, |path| {
        contents.get(path).cloned()
    });
    faults.into_iter().for_each(|fault| history.violation(fault));
}
