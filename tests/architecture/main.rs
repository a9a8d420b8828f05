//! The direction of dependencies between the crates, and rules about the source as a whole.

mod limits;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie below the root").to_owned()
}

/// What each of our crates uses (without what only its own tests use).
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let short = |name: &str| name.strip_prefix("ministry-").unwrap_or(name).to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let used = dependencies
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .filter_map(|dependency| dependency["name"].as_str())
                .map(str::to_owned);
            (short(package["name"].as_str().expect("name")), used.collect())
        })
        .collect()
}

/// Which of our crates each crate uses.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let ours = |name: String| name.strip_prefix("ministry-").map(str::to_owned);
    let only_ours = |uses: BTreeSet<String>| uses.into_iter().filter_map(ours).collect();
    dependencies().into_iter().map(|(name, uses)| (name, only_ours(uses))).collect()
}

#[test]
fn dependencies_point_in_one_direction() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("types", &[][..]),
        ("wire", &["types"]),
        ("transport", &["types", "wire"]),
        ("namespace", &["types"]),
        ("storage", &["types", "telemetry"]),
        ("telemetry", &[]),
        ("raft", &["types", "wire", "transport", "namespace", "storage", "telemetry"]),
        ("roles", &["types", "wire", "transport", "namespace", "storage", "raft", "telemetry"]),
        ("client", &["types", "wire", "transport", "telemetry"]),
        ("fuse", &["types", "wire", "client", "telemetry"]),
        ("ministryd", &["types", "wire", "transport", "storage", "raft", "roles", "telemetry"]),
        ("ministryctl", &["types", "wire", "transport", "client", "fuse", "telemetry", "storage"]),
    ]);
    for (name, uses) in arrows() {
        if name == "tests" {
            continue;
        }
        let allowed = allowed.get(name.as_str());
        let allowed = allowed.unwrap_or_else(|| panic!("{name} is not in the table of arrows"));
        for other in uses {
            assert!(allowed.contains(&other.as_str()), "{name} must not use {other}");
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.clone(), std::fs::read_to_string(&path).expect("text")));
        }
    }
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in ["src", "raft", "roles"] {
        sources(&root().join(folder), &mut found);
    }
    assert!(found.len() > 50, "the sources were found");
    found
}

#[test]
fn the_raft_crate_alone_uses_openraft() {
    for (name, uses) in dependencies() {
        let uses_openraft = uses.iter().any(|dependency| dependency.starts_with("openraft"));
        assert_eq!(uses_openraft, name == "raft", "{name}");
    }
}

#[test]
fn clock_and_network_are_passed_into_the_state_machines_and_the_offices() {
    let forbidden = ["SystemTime::now", "std::time::Instant::now", "tokio::net::", "thread_rng"];
    for (path, text) in all_sources() {
        let pure = ["src/namespace", "src/types", "roles", "raft"];
        if !pure.iter().any(|folder| path.starts_with(root().join(folder))) {
            continue;
        }
        for word in forbidden {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn every_metric_in_the_code_is_declared() {
    let declared: BTreeSet<&str> =
        ministry_telemetry::names::ALL.iter().map(|metric| metric.name).collect();
    for (path, text) in all_sources() {
        for macro_name in ["counter!(", "gauge!(", "histogram!("] {
            for use_of in text.split(macro_name).skip(1) {
                let Some(rest) = use_of.trim_start().strip_prefix('"') else { continue };
                let name = rest.split('"').next().unwrap_or_default();
                assert!(declared.contains(name), "{}: {name} is not declared", path.display());
            }
        }
    }
}

/// The reference of the metrics, as it must stand in the documentation.
fn metrics_page() -> String {
    let mut page = String::from(
        "# Metrics\n\nEvery node and, with `--metrics`, every mount shows them at `/metrics` for Prometheus; `/health` \
         says in JSON\nwhether the process serves. Stable names change only with a note in the changelog.\n\n\
         This page is made from `src/telemetry/src/names.rs`; \
         `MINISTRY_UPDATE_DOCS=1 tests/run unit` writes it anew.\n\n\
         | name | kind | unit | labels | stability | meaning |\n|---|---|---|---|---|---|\n",
    );
    for metric in ministry_telemetry::names::ALL {
        page.push_str(&format!(
            "| `{}` | {} | {} | {} | {} | {} |\n",
            metric.name,
            metric.kind.word(),
            metric.unit.as_str(),
            metric.labels.join(", "),
            metric.stability.word(),
            metric.help,
        ));
    }
    page
}

#[test]
fn the_metrics_page_says_what_the_code_declares() {
    let path = root().join("docs/reference/metrics.md");
    if std::env::var_os("MINISTRY_UPDATE_DOCS").is_some() {
        std::fs::write(&path, metrics_page()).expect("the page can be written");
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(page == metrics_page(), "the page is out of date: set MINISTRY_UPDATE_DOCS=1 once");
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("text");
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let target_path = page.parent().expect("a folder").join(target);
            assert!(target_path.exists(), "{} links to {target}", page.display());
        }
    }
}
