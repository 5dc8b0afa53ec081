//! What a file is called, and what it is: only what is on a short list, and begins like it, is more
//! than bytes.

/// What is known of nothing else.
const BYTES: &str = "application/octet-stream";
/// The longest name of a file, in characters.
const LONGEST_NAME: usize = 100;
/// As much of a file's beginning as tells what it is, in bytes.
pub const TELLING: usize = 12;

type BeginsLike = fn(&[u8]) -> bool;

/// What may be said of a file, and how such a file begins.
const TYPES: [(&str, BeginsLike); 11] = [
    ("image/jpeg", |start| start.starts_with(b"\xFF\xD8\xFF")),
    ("image/png", |start| start.starts_with(b"\x89PNG\r\n\x1A\n")),
    ("image/webp", |start| {
        start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP")
    }),
    ("audio/ogg", |start| start.starts_with(b"OggS")),
    ("audio/mpeg", |start| {
        let is_frame =
            matches!(start, [0xFF, second, ..] if second & 0xE0 == 0xE0 && second & 0x06 != 0);
        is_frame || start.starts_with(b"ID3")
    }),
    ("audio/mp4", is_mp4),
    (
        "audio/aac",
        |start| matches!(start, [0xFF, second, ..] if second & 0xF6 == 0xF0),
    ),
    ("audio/amr", |start| start.starts_with(b"#!AMR")),
    ("video/mp4", is_mp4),
    ("video/3gpp", |start| {
        is_mp4(start) && start.get(8..10) == Some(b"3g")
    }),
    ("application/pdf", |start| start.starts_with(b"%PDF-")),
];

fn is_mp4(start: &[u8]) -> bool {
    start.get(4..8) == Some(b"ftyp")
}

/// The type of a file that begins so and is declared to be that.
#[must_use]
pub fn of(declared: Option<&str>, start: &[u8]) -> &'static str {
    let essence = declared.and_then(|declared| declared.split(';').next());
    let essence = essence.unwrap_or_default().trim();
    let known = TYPES
        .iter()
        .find(|(name, begins_like)| name.eq_ignore_ascii_case(essence) && begins_like(start));
    known.map_or(BYTES, |(name, _)| name)
}

/// The value of `Content-Disposition`, unless a page may show it.
#[must_use]
pub fn disposition(kind: &str, file_name: Option<&str>) -> Option<String> {
    let is_shown = ["image/", "audio/", "video/"]
        .iter()
        .any(|family| kind.starts_with(family));
    (!is_shown).then(|| {
        let name = file_name.map(reduced).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| "file".to_owned());
        format!("attachment; filename=\"{name}\"")
    })
}

/// A name of letters, digits and `.-_` that hides nothing and leads nowhere. Of a long one the end
/// stays, where its extension is.
fn reduced(name: &str) -> String {
    let is_kept = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let kept: Vec<char> = name
        .chars()
        .map(|c| if is_kept(c) { c } else { '_' })
        .collect();
    let end: String = kept[kept.len().saturating_sub(LONGEST_NAME)..]
        .iter()
        .collect();
    let name = end.trim_start_matches(['.', '_', '-']);
    name.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_what_was_declared_if_the_file_begins_like_it() {
        for (declared, start, expected) in [
            ("image/jpeg", &b"\xFF\xD8\xFF\xE0...."[..], "image/jpeg"),
            ("IMAGE/JPEG ", b"\xFF\xD8\xFF", "image/jpeg"),
            ("image/png", b"\x89PNG\r\n\x1A\n", "image/png"),
            ("image/webp", b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
            ("audio/ogg; codecs=opus", b"OggS\0\x02", "audio/ogg"),
            ("audio/mpeg", b"ID3\x04", "audio/mpeg"),
            ("audio/mpeg", b"\xFF\xFB\x90", "audio/mpeg"),
            ("audio/aac", b"\xFF\xF1\x50", "audio/aac"),
            ("audio/mp4", b"\0\0\0\x1CftypM4A ", "audio/mp4"),
            ("audio/amr", b"#!AMR\n", "audio/amr"),
            ("video/mp4", b"\0\0\0\x18ftypisom", "video/mp4"),
            ("video/3gpp", b"\0\0\0\x18ftyp3gp5", "video/3gpp"),
            ("application/pdf", b"%PDF-1.7", "application/pdf"),
            // Something else than it was declared to be, or than is on the list.
            ("image/png", b"\xFF\xD8\xFF\xE0", BYTES),
            ("audio/mpeg", b"\xFF\xF1\x50", BYTES),
            ("video/3gpp", b"\0\0\0\x18ftypisom", BYTES),
            ("image/jpeg", b"<svg onload=", BYTES),
            ("image/svg+xml", b"<svg>", BYTES),
            ("text/html", b"<html>", BYTES),
            ("text/html, image/png", b"\x89PNG\r\n\x1A\n", BYTES),
            ("application/pdf", b"<!-- %PDF-1.7", BYTES),
            ("image/jpeg", b"", BYTES),
            ("", b"\xFF\xD8\xFF", BYTES),
        ] {
            assert_eq!(of(Some(declared), start), expected, "{declared} {start:?}");
        }
        assert_eq!(of(None, b"\xFF\xD8\xFF"), BYTES);
    }

    #[test]
    fn what_no_page_shows_is_an_attachment_with_a_harmless_name() {
        for (name, expected) in [
            (Some("Rechnung 12.pdf"), "Rechnung_12.pdf"),
            (Some("../../etc/passwd"), "etc_passwd"),
            (
                Some("a\"; filename*=UTF-8''x.exe\r\nSet-Cookie: a"),
                "a___filename__UTF-8__x.exe__Set-Cookie__a",
            ),
            (Some("fatura\u{202E}fdp.exe"), "fatura_fdp.exe"),
            (Some("счёт.pdf"), "pdf"),
            (Some(".htaccess"), "htaccess"),
            (Some("..."), "file"),
            (Some(""), "file"),
            (None, "file"),
        ] {
            let expected = format!("attachment; filename=\"{expected}\"");
            assert_eq!(disposition("application/pdf", name), Some(expected));
        }
        let long = disposition(BYTES, Some(&format!("{}.pdf", "x".repeat(500)))).unwrap();
        assert!(long.ends_with("xxx.pdf\"") && long.len() < 140, "{long}");
        for shown in ["image/png", "audio/ogg", "video/mp4"] {
            assert_eq!(disposition(shown, Some("a.png")), None);
        }
    }
}
