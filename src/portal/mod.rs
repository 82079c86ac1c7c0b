//! The portal on disk: putting an application into the document root, and its settings.
//!
//! All of it runs as root on behalf of the portal's user, who may own a hostile tree: archives are read by `source`
//! as mere names and bytes, and only `tree` touches the disk.

pub mod demo;
pub mod install;
pub mod settings;
mod source;
mod tree;
