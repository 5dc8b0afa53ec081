//! A reader goes from the top down: no module imports, over however many steps, one that imports it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What may import what: each of these only what stands below it. A feature's `http.rs` is a layer of its own.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["telemetry", "config"],
    &["router"],
    &["*::http"],
    &["api_state"],
    &["app"],
    &["operations"],
    &["feed"],
    &[
        "webhook",
        "conversation",
        "forget",
        "seed",
        "inbox",
        "media",
    ],
    &["message"],
    &["receipt"],
    &["delivery"],
    &["alias", "amendment"],
    &["provider"],
    &["channel"],
    &["http"],
    &["session"],
    &["caller", "share"],
    &["database"],
    &["handles", "trace", "tasks"],
    &["peer", "log_throttle"],
    &["error"],
    &["cursor"],
    &["id", "json", "crash", "edge", "process"],
];

#[test]
fn no_module_imports_what_imports_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "mock-meta-provider/src"] {
        let graph = Graph::read(&root.join(folder));
        assert!(graph.imports.len() > 10, "{folder}: {graph:?}");
        let circles = graph.circles();
        assert!(circles.is_empty(), "{folder}: {circles:#?}");
    }
}

#[test]
fn each_layer_imports_only_what_stands_below_it() {
    let graph = Graph::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let layer = |module: &str| {
        let top = module.split("::").next().unwrap();
        let is_feature_http = !["http", "cli"].contains(&top) && module.ends_with("::http");
        let name = if is_feature_http { "*::http" } else { top };
        let layer = LAYERS.iter().position(|names| names.contains(&name));
        (
            name.to_owned(),
            layer.unwrap_or_else(|| panic!("{module} is in no layer")),
        )
    };
    let mut upwards = Vec::new();
    for (module, imports) in &graph.imports {
        // The crate's root and the guide only name what there is.
        if ["lib", "guide"].contains(&&**module) {
            continue;
        }
        for imported in imports {
            let (from, to) = (layer(module), layer(imported));
            if from.0 != to.0 && from.1 >= to.1 {
                upwards.push(format!("{module} imports {imported}"));
            }
        }
    }
    assert!(upwards.is_empty(), "{upwards:#?}");
}

#[test]
fn only_the_command_line_knows_the_mock() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed = ["cli/", "config/mock.rs", "guide.rs", "telemetry/"];
    let knows: Vec<String> = rust_files(&src)
        .into_iter()
        .filter(|path| code(path).contains("mock_meta_provider"))
        .map(|path| path.strip_prefix(&src).unwrap().display().to_string())
        .filter(|path| !allowed.iter().any(|allowed| path.starts_with(allowed)))
        .collect();
    assert!(knows.is_empty(), "{knows:?}");
}

/// Which modules each module imports; a module is a file.
#[derive(Debug)]
struct Graph {
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read(src: &Path) -> Self {
        let files = rust_files(src);
        let modules: BTreeSet<String> = files.iter().map(|file| module(src, file)).collect();
        let imports = files.iter().map(|file| {
            let module = module(src, file);
            let mut imports: BTreeSet<String> = paths(&code(file), &module)
                .into_iter()
                .filter_map(|path| file_of(&path, &modules))
                .collect();
            imports.remove(&module);
            (module, imports)
        });
        Self {
            imports: imports.collect(),
        }
    }

    /// The modules that lead to themselves, each with those of its imports that lead back to it.
    fn circles(&self) -> BTreeMap<&str, Vec<&str>> {
        let reach: BTreeMap<&str, BTreeSet<&str>> = self
            .imports
            .keys()
            .map(|name| (&**name, self.reach(name)))
            .collect();
        let back = |name: &str| -> Vec<&str> {
            let imports = self.imports[name].iter().map(|imported| &**imported);
            imports
                .filter(|imported| reach[imported].contains(name))
                .collect()
        };
        let circles = reach.keys().map(|name| (*name, back(name)));
        circles.filter(|(_, back)| !back.is_empty()).collect()
    }

    /// All that a module imports, over however many steps.
    fn reach(&self, name: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![name];
        while let Some(name) = open.pop() {
            for imported in &self.imports[name] {
                if reached.insert(&**imported) {
                    open.push(imported);
                }
            }
        }
        reached
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A file without its comments and its own tests.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

fn module(src: &Path, file: &Path) -> String {
    let path = file.strip_prefix(src).unwrap().with_extension("");
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    let parts = parts.strip_suffix(&["mod"]).unwrap_or(&parts);
    parts.join("::")
}

/// The longest beginning of a path that is a module.
fn file_of(path: &[String], modules: &BTreeSet<String>) -> Option<String> {
    (1..=path.len())
        .rev()
        .map(|length| path[..length].join("::"))
        .find(|name| modules.contains(name))
}

/// The paths of this crate that a module names, from the crate's root.
fn paths(code: &str, module: &str) -> Vec<Vec<String>> {
    let here: Vec<String> = module.split("::").map(str::to_owned).collect();
    let parent = &here[..here.len() - 1];
    let mut found = Vec::new();
    for (keyword, base) in [
        ("crate::", &[][..]),
        ("gateway::", &[][..]),
        ("super::", parent),
        ("self::", &here[..]),
    ] {
        for (at, _) in code.match_indices(keyword) {
            let is_whole =
                !code[..at].ends_with(|last: char| last.is_alphanumeric() || "_:".contains(last));
            if is_whole {
                let mut path = base.to_vec();
                expand(&mut path, &code[at + keyword.len()..], &mut found);
            }
        }
    }
    // What a module declares, it may name without a keyword.
    for (at, _) in code.match_indices("use ") {
        let mut path = here.clone();
        expand(&mut path, &code[at + "use ".len()..], &mut found);
    }
    found
}

/// Adds the paths that begin here, such as `a::{b, c::d}`, and returns what follows.
fn expand<'a>(path: &mut Vec<String>, text: &'a str, found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = expand(&mut path.clone(), rest, found).trim_start();
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text
        .find(|next: char| !next.is_alphanumeric() && next != '_')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name != "self" && !name.is_empty() {
        path.push(name.to_owned());
    }
    if let Some(rest) = rest.strip_prefix("::") {
        return expand(path, rest, found);
    }
    found.push(path.clone());
    rest
}
