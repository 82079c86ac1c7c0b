//! The demo portal of `assets/demo`, embedded in the executable.

use rust_embed::Embed;

use super::install::{Summary, Target, fill};
use super::tree::Progress;

#[derive(Embed)]
#[folder = "assets/demo/"]
struct Files;

/// Installs the demo portal by the same path as any other.
pub fn install(target: &Target, progress: Progress) -> anyhow::Result<Summary> {
    fill(target, progress, |tree| {
        for name in Files::iter() {
            let file = Files::get(&name).expect("the name was listed");
            tree.file(name.as_ref().as_ref(), &mut &*file.data)?;
        }
        Ok(())
    })
}
