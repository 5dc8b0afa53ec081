//! The page for agents: what a browser loads of it is in this binary.

pub mod demo;
pub mod http;

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// A file of the page.
#[derive(Debug)]
pub struct Asset {
    /// Its name below `/inbox/`.
    pub name: &'static str,
    /// The content type.
    pub content_type: &'static str,
    /// What it holds.
    pub bytes: &'static [u8],
    /// What it holds, in short: the same for the same content only.
    pub etag: String,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Embeds files, each with its content type.
macro_rules! files {
    ($($content_type:expr => $($name:literal)+;)+) => {
        &[$($(($name, $content_type, include_bytes!($name)),)+)+]
    };
}

/// The files: name, content type, content.
const FILES: &[(&str, &str, &[u8])] = files! {
    HTML => "index.html";
    CSS => "base.css" "list.css" "message.css" "parts.css" "thread.css";
    JS => "api.js" "app.js" "bubble.js" "channels.js" "clock.js" "composer.js" "contents.js"
        "dialogs.js" "dom.js" "drafts.js" "feed.js" "files.js" "filters.js" "format.js" "jobs.js"
        "keys.js" "links.js" "list.js" "log.js" "login.js" "main.js" "marks.js" "merge.js"
        "notices.js" "outbox.js" "pages.js" "person.js" "prefs.js" "reasons.js" "route.js"
        "row.js" "seen.js" "select.js" "sender.js" "sse.js" "storage.js" "store.js" "sync.js"
        "tabs.js" "thread.js" "ticks.js" "timeline.js" "trouble.js" "types.js" "welcome.js"
        "window.js";
    SVG => "icon.svg";
};

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let files = FILES.iter();
    let assets = files.map(|&(name, content_type, bytes)| Asset {
        name,
        content_type,
        bytes,
        etag: format!("\"{}\"", hex::encode(Sha256::digest(bytes))),
    });
    assets.collect()
});

/// The page itself, which is at `/inbox`.
const PAGE: &str = "index.html";

/// The page.
#[must_use]
pub fn page() -> &'static Asset {
    let page = ASSETS.iter().find(|asset| asset.name == PAGE);
    page.expect("the page is among its files")
}

/// Another file, by its name.
#[must_use]
pub fn asset(name: &str) -> Option<&'static Asset> {
    let mut others = ASSETS.iter().filter(|asset| asset.name != PAGE);
    others.find(|asset| asset.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_page_is_embedded_and_short() {
        const MOST_LINES: usize = 300;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/inbox");
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.extension().is_none_or(|extension| extension != "rs") {
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
        for (name, bytes) in &files {
            let lines = bytes.split(|byte| *byte == b'\n').count();
            assert!(lines < MOST_LINES, "{name}: {lines}");
            let embedded = ASSETS.iter().find(|asset| asset.name == name);
            let embedded = embedded.unwrap_or_else(|| panic!("{name} is not embedded"));
            assert_eq!(embedded.bytes, bytes, "{name}");
            let (_, extension) = name.rsplit_once('.').unwrap();
            let expected = match extension {
                "html" => HTML,
                "css" => CSS,
                "js" => JS,
                "svg" => SVG,
                "json" | "webmanifest" => "application/manifest+json",
                "png" => "image/png",
                other => panic!("{other}: nobody has said which content type this has"),
            };
            assert_eq!(embedded.content_type, expected, "{name}");
        }
        assert_eq!(files.len(), FILES.len());
    }
}
