//! The portal's masks of paths: `*` stands for any text, `?` for one letter. Pure.

/// Whether a mask fits all of a path. Takes time in proportion to both lengths, whatever they hold.
pub fn fits(mask: &str, path: &str) -> bool {
    let (mask, path) = (mask.as_bytes(), path.as_bytes());
    let (mut at, mut in_mask) = (0, 0);
    // The last `*`, and how much it covers so far.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = path.get(at) {
        match (mask.get(in_mask), star) {
            (Some(b'*'), _) => {
                star = Some((in_mask, at));
                in_mask += 1;
            }
            (Some(wanted), _) if *wanted == b'?' || wanted == byte => {
                at += 1;
                in_mask += 1;
            }
            (_, Some((place, covered))) => {
                star = Some((place, covered + 1));
                at = covered + 1;
                in_mask = place + 1;
            }
            (_, None) => return false,
        }
    }
    mask.get(in_mask..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_fit_whole_paths() {
        for (mask, path, expected) in [
            ("/*", "/", true),
            ("/*", "/a/b.php", true),
            ("*", "", true),
            ("", "", true),
            ("", "/", false),
            ("/bitrix/*", "/bitrix/admin/", true),
            ("/bitrix/*", "/bitrix", false),
            ("/404.php", "/404.php", true),
            ("/404.php", "/404-php", false),
            ("/a?c", "/abc", true),
            ("/a?c", "/ac", false),
            ("*.html", "/x.html.html", true),
            ("*/x/*", "/a/x/x/", true),
            ("/a*b*c", "/aXbYbZ", false),
            ("/a", "/a/", false),
        ] {
            assert_eq!(fits(mask, path), expected, "{mask} {path}");
        }
        let long = "a".repeat(60_000);
        assert!(!fits(&"a*".repeat(30), &format!("{long}b")[..60_000].replace('a', "c")));
    }
}
