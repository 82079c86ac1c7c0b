//! An executable with its signature on the registry's files: pieces that never change, under names that are used once. What comes
//! out is only as good as its hash, which the target names; whose word it is the supervisor checks.

use bytes::Bytes;

use crate::registry::{Failure, Files};

/// Of one piece: some READs or WRITEs.
const PIECE: usize = 1 << 20;
/// As root reads at most.
const PIECES: usize = 256;
const SIGNATURE: usize = 64;

/// What to run, as the setting says it: version, hash, number of the parcel, pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub version: String,
    /// BLAKE3, in hexadecimal digits.
    pub hash: String,
    /// Random: the same file may be sent twice.
    pub number: u64,
    pub pieces: usize,
}

impl Target {
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let target = Target {
            version: fields.next()?.to_owned(),
            hash: fields.next()?.to_owned(),
            number: u64::from_str_radix(fields.next()?, 16).ok()?,
            pieces: fields.next()?.parse().ok()?,
        };
        let is_hash = target.hash.len() == 64 && target.hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_hash && (1..=PIECES).contains(&target.pieces) && fields.next().is_none()).then_some(target)
    }

    fn name(&self, piece: &str) -> String {
        format!("upgrade-{:016x}-{piece}", self.number)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Target {
            version,
            hash,
            number,
            pieces,
        } = self;
        write!(out, "{version} {hash} {number:016x} {pieces}")
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Parcel {
    pub content: Vec<u8>,
    pub signature: Vec<u8>,
}

impl Parcel {
    /// Lays it onto the files; returns what names it.
    pub async fn send(&self, files: &dyn Files, version: &str, number: u64) -> Result<Target, Failure> {
        let pieces: Vec<&[u8]> = self.content.chunks(PIECE).collect();
        let target = Target {
            version: version.to_owned(),
            hash: blake3::hash(&self.content).to_hex().to_string(),
            number,
            pieces: pieces.len(),
        };
        if !(1..=PIECES).contains(&target.pieces) {
            return Err(Failure("the file is empty or too large".to_owned()));
        }
        for (at, piece) in pieces.into_iter().enumerate() {
            let name = target.name(&at.to_string());
            files.create(&name, Bytes::copy_from_slice(piece)).await?;
        }
        let signature = Bytes::copy_from_slice(&self.signature);
        files.create(&target.name("sig"), signature).await?;
        Ok(target)
    }

    /// Fails when a piece is missing, or the whole is another file.
    pub async fn fetch(files: &dyn Files, target: &Target) -> Result<Self, Failure> {
        let piece = async |name: String, most: usize| {
            let read = files.read(&name, most).await?;
            read.ok_or_else(|| Failure(format!("{name} is not there; send the version again")))
        };
        let mut content = Vec::new();
        for at in 0..target.pieces {
            content.extend_from_slice(&piece(target.name(&at.to_string()), PIECE).await?);
        }
        let signature = piece(target.name("sig"), SIGNATURE).await?.to_vec();
        match blake3::hash(&content).to_hex().as_str() == target.hash {
            true => Ok(Parcel { content, signature }),
            false => Err(Failure(
                "what lies on the files is another version than was named".to_owned(),
            )),
        }
    }

    /// Nobody needs it any more.
    pub async fn remove(files: &dyn Files, target: &Target) -> Result<(), Failure> {
        for at in 0..target.pieces {
            files.remove(&target.name(&at.to_string())).await?;
        }
        files.remove(&target.name("sig")).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::PathFiles;

    #[tokio::test]
    async fn a_parcel_comes_out_as_it_went_in_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let files = PathFiles::open(folder.path()).await.unwrap();
        let parcel = Parcel {
            content: (0..PIECE * 2 + 7).map(|at| (at % 251) as u8).collect(),
            signature: vec![9; SIGNATURE],
        };
        let target = parcel.send(&files, "0.2.0", 77).await.unwrap();
        assert_eq!(
            (target.pieces, Target::parse(&target.to_string())),
            (3, Some(target.clone()))
        );
        assert_eq!(Parcel::fetch(&files, &target).await.unwrap(), parcel);
        // Another one of the same file does not get in its way.
        let second = parcel.send(&files, "0.2.0", 78).await.unwrap();
        Parcel::remove(&files, &second).await.unwrap();
        std::fs::write(folder.path().join(target.name("1")), "x").unwrap();
        assert!(Parcel::fetch(&files, &target).await.is_err());
        Parcel::remove(&files, &target).await.unwrap();
        assert!(Parcel::fetch(&files, &target).await.is_err());
        let left: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(
            left.iter().all(|name| !name.to_string_lossy().starts_with("upgrade-")),
            "{left:?}"
        );
    }

    #[test]
    fn a_target_is_bounded() {
        let hash = "ab".repeat(32);
        assert!(Target::parse(&format!("0.2.0 {hash} 4d 20")).is_some());
        for bad in [
            String::new(),
            format!("0.2.0 {hash} 4d 0"),
            format!("0.2.0 {hash} 4d 257"),
            format!("0.2.0 {hash} 4d 20 more"),
            "0.2.0 ../x 4d 20".to_owned(),
        ] {
            assert_eq!(Target::parse(&bad), None, "{bad}");
        }
    }
}
