//! An image's checksum: CRC32C over all its bytes, in the four bytes of the header that SQLite leaves to applications
//! (`user_version`, offset 60 of the database header). `sqlite3` opens a sealed image like any other; an image that was
//! edited in place is no longer sealed.

/// Where `user_version` lies, big-endian, and counts as zero for the sum.
const AT: std::ops::Range<usize> = 60..64;

/// Sets the checksum. An image has at least a header of 100 bytes.
pub fn seal(image: &mut [u8]) {
    let sum = sum(image);
    if let Some(place) = image.get_mut(AT) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

pub fn is_sealed(image: &[u8]) -> bool {
    image.get(AT).is_some_and(|place| place == sum(image).to_be_bytes())
}

fn sum(image: &[u8]) -> u32 {
    let before = image.get(..AT.start).unwrap_or_default();
    let behind = image.get(AT.end..).unwrap_or_default();
    let parts = [before, &[0; 4], behind];
    parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_breaks_the_seal() {
        let mut image: Vec<u8> = (0..=255).collect();
        assert!(!is_sealed(&image));
        seal(&mut image);
        assert!(is_sealed(&image));
        for at in 0..image.len() {
            image[at] ^= 1;
            assert!(!is_sealed(&image), "byte {at}");
            image[at] ^= 1;
        }
        for length in 0..image.len() {
            assert!(!is_sealed(&image[..length]), "cut to {length}");
        }
    }
}
