//! What a worker is told.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A bucket, a folder in it, and how to get in.
#[derive(Clone, Serialize, Deserialize)]
pub struct Place {
    pub bucket: String,
    /// Empty: the whole bucket.
    pub folder: String,
    /// Empty: Amazon's, of the region.
    pub endpoint: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    /// PEM of authorities that are trusted besides the public ones.
    pub authority: Option<PathBuf>,
}

/// Keys are below the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// Names of what is in the folder, one a line.
    List,
    /// Content comes in frames.
    Put {
        key: String,
    },
    /// Content goes out as it is.
    Get {
        key: String,
    },
    Remove {
        backup: String,
    },
}

#[derive(Serialize, Deserialize)]
pub struct Order {
    pub place: Place,
    pub act: Act,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "s3://{}/{}", self.bucket, self.folder)
    }
}
