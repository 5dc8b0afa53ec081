//! The pages for people: every link leads somewhere, lines are short, and the front page has every
//! route.

use std::path::{Path, PathBuf};

use crate::api::openapi::ROUTES;

const FOLDERS: [&str; 5] = ["", "src/docs", "tests", "mock-meta-provider", ".github"];
/// As wide as prose may be; tables, code and the targets of links are not prose.
const WIDTH: usize = 100;
const FRONT_PAGE_LINES: usize = 200;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<(PathBuf, String)> {
    let folders = FOLDERS.iter().map(|folder| root().join(folder));
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|name| name == "md"));
    let pages: Vec<_> = pages
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    assert!(pages.len() >= 10, "{pages:?}");
    pages
}

/// The lines of a page that are not code.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(page.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// What a line such as `[label]: target` defines.
fn definition(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('[')?.split_once("]: ")
}

/// Where the links of a line lead.
fn targets(line: &str) -> Vec<&str> {
    let inline = line.split("](").skip(1).map(|rest| {
        let end = rest.find(')').unwrap_or(rest.len());
        &rest[..end]
    });
    inline
        .chain(definition(line).map(|(_, target)| target))
        .collect()
}

/// The names by which a page's headings can be linked to.
fn anchors(page: &str) -> Vec<String> {
    let headings = prose(page).filter_map(|(_, line)| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| heading.trim())
    });
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase();
        let kept = kept
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_of_a_page_leads_to_a_file_and_a_heading_that_exist() {
    for (path, page) in pages() {
        for (number, line) in prose(&page) {
            for target in targets(line) {
                if target.contains("://") {
                    continue;
                }
                let place = format!("{}:{number}: {target}", path.display());
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let file = if file.is_empty() {
                    path.clone()
                } else {
                    path.parent().unwrap().join(file)
                };
                assert!(file.exists(), "{place}");
                if !anchor.is_empty() {
                    let text = std::fs::read_to_string(&file).unwrap();
                    assert!(anchors(&text).iter().any(|name| name == anchor), "{place}");
                }
            }
        }
    }
}

#[test]
fn prose_is_narrow_and_the_front_page_short() {
    for (path, page) in pages() {
        for (number, line) in prose(&page) {
            let is_free = line.trim_start().starts_with('|') || definition(line).is_some();
            let width = line.chars().count();
            assert!(
                is_free || width <= WIDTH,
                "{}:{number} has {width} columns",
                path.display()
            );
        }
    }
    let front = include_str!("../../README.md");
    let lines = front.lines().count();
    assert!(lines <= FRONT_PAGE_LINES, "README.md has {lines} lines");
    let needs = concat!("Rust ", env!("CARGO_PKG_RUST_VERSION"), " ");
    assert!(front.contains(needs), "README.md does not say {needs}");
}

#[test]
fn every_block_of_code_says_its_language_so_that_rustdoc_takes_none_for_rust() {
    for (path, page) in pages() {
        let fences = page
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("```"));
        for language in fences.step_by(2) {
            assert!(!language.is_empty(), "{}", path.display());
        }
    }
}

#[test]
fn the_front_page_has_every_route_and_no_other() {
    let front = include_str!("../../README.md");
    let (_, table) = front.split_once("\n## Routes").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows = table.lines().filter_map(|line| {
        let (route, _) = line.strip_prefix("| `")?.split_once('`')?;
        route.split_once(' ')
    });
    let mut told: Vec<_> = rows.collect();
    let mut routes = ROUTES.to_vec();
    routes.extend([("GET", "/api"), ("GET", "/inbox")]);
    told.sort_unstable();
    routes.sort_unstable();
    assert_eq!(told, routes);
}

#[test]
fn links_between_pages_of_the_guide_also_lead_somewhere_in_its_rustdoc() {
    let guide = include_str!("../../src/guide.rs");
    let in_guide = pages()
        .into_iter()
        .filter(|(path, _)| path.parent().unwrap().ends_with("src/docs"));
    for (path, page) in in_guide {
        for (_, line) in prose(&page) {
            if let Some((label, target)) = definition(line) {
                let is_page = target.contains(".md") || target == "alerts.yml";
                assert!(
                    !is_page || guide.contains(&format!("\n[{label}]: ")),
                    "{}: {label}",
                    path.display()
                );
            } else {
                let other = targets(line)
                    .into_iter()
                    .find(|target| !target.starts_with('#') && !target.contains("://"));
                assert_eq!(other, None, "{}: define it below", path.display());
            }
        }
    }
}
