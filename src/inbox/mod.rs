//! The page for agents: what a browser loads of it is in this binary.

pub mod demo;
pub mod http;

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// A file of the page.
#[derive(Debug)]
pub struct Asset {
    /// Its name below `/inbox/`; the page itself has none.
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

macro_rules! file {
    ($name:literal, $content_type:expr) => {
        ($name, $content_type, include_bytes!($name))
    };
}

/// The files: name, content type, content.
const FILES: &[(&str, &str, &[u8])] = &[
    ("", HTML, include_bytes!("index.html")),
    file!("api.js", JS),
    file!("app.js", JS),
    file!("base.css", CSS),
    file!("bubble.js", JS),
    file!("clock.js", JS),
    file!("composer.js", JS),
    file!("dialogs.js", JS),
    file!("dom.js", JS),
    file!("drafts.js", JS),
    file!("feed.js", JS),
    file!("format.js", JS),
    file!("icon.svg", SVG),
    file!("keys.js", JS),
    file!("links.js", JS),
    file!("list.css", CSS),
    file!("list.js", JS),
    file!("log.js", JS),
    file!("login.js", JS),
    file!("main.js", JS),
    file!("merge.js", JS),
    file!("notices.js", JS),
    file!("outbox.js", JS),
    file!("pages.js", JS),
    file!("parts.css", CSS),
    file!("prefs.js", JS),
    file!("route.js", JS),
    file!("row.js", JS),
    file!("seen.js", JS),
    file!("select.js", JS),
    file!("sender.js", JS),
    file!("sse.js", JS),
    file!("storage.js", JS),
    file!("store.js", JS),
    file!("sync.js", JS),
    file!("tabs.js", JS),
    file!("thread.css", CSS),
    file!("thread.js", JS),
    file!("trouble.js", JS),
    file!("types.js", JS),
    file!("welcome.js", JS),
];

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

/// The file with this name.
#[must_use]
pub fn asset(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
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
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            assert!(lines < MOST_LINES, "{name}: {lines}");
            let embedded = asset(if name == "index.html" { "" } else { name });
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
