//! A repository with history, and a crate that cargo builds, on a mount.

use std::path::Path;
use std::time::Instant;

use ministry_tests::{Cluster, Program, tree};

use crate::{MINUTE, healthy, text};

fn git(folder: &Path, words: &[&str]) -> String {
    Program::new("git")
        .args(["-c", "user.name=Tester", "-c", "user.email=tester@example.org"])
        .args(["-c", "gc.auto=0", "-c", "init.defaultBranch=main", "-c", "safe.directory=*"])
        .args(words)
        .dir(folder)
        .within(10 * MINUTE)
        .ok()
}

/// Two branches of many commits, merged, with tags; made by `git fast-import` from a stream, on
/// the local disk.
fn history(folder: &Path, commits: usize) {
    git(folder, &["init", "-q"]);
    let mut stream = String::new();
    for number in 1..=commits {
        let branch = if number % 3 == 0 { "side" } else { "main" };
        let folder = number % 17;
        let body = format!("line of {number}\n").repeat(1 + number * 7 % 90);
        let message = format!("change {number}");
        stream.push_str(&format!(
            "commit refs/heads/{branch}\nmark :{number}\n\
             committer Tester <tester@example.org> {} +0000\ndata {}\n{message}\n",
            1_700_000_000 + number * 60,
            message.len()
        ));
        if number == 3 {
            stream.push_str("from :2\n");
        }
        if number % 40 == 1 && number > 3 {
            stream.push_str(&format!("merge :{}\n", number - 1 - (number - 1) % 3));
        }
        stream.push_str(&format!(
            "M 100644 inline d{folder}/file-{}.txt\ndata {}\n{body}\n",
            number % 101,
            body.len()
        ));
        if number % 50 == 0 {
            let name = format!("v{number}");
            stream.push_str(&format!(
                "tag {name}\nfrom :{number}\ntagger Tester <tester@example.org> {} +0000\n\
                 data {}\n{name}\n",
                1_700_000_000 + number * 60,
                name.len()
            ));
        }
    }
    let path = folder.join(".git/stream");
    std::fs::write(&path, stream).unwrap();
    let import = Program::script("git fast-import --quiet < .git/stream; rm .git/stream");
    import.dir(folder).ok();
    git(folder, &["checkout", "-q", "-f", "main"]);
}

#[test]
fn git_collects_and_checks_a_repository_with_history() {
    let mut cluster = Cluster::with_two_mounts();
    let origin = cluster.scratch().join("origin");
    std::fs::create_dir(&origin).unwrap();
    history(&origin, 600);
    let began = Instant::now();
    git(cluster.mount(0), &["clone", "-q", "--no-local", text(&origin), "clone"]);
    let (clone, twin) = (cluster.mount(0).join("clone"), cluster.mount(1).join("clone"));
    git(&clone, &["fetch", "-q", "--tags"]);
    git(&clone, &["branch", "-q", "side", "origin/side"]);
    // Every object a file of its own: what gc is for.
    Program::script(
        "mv .git/objects/pack .git/packs; mkdir .git/objects/pack
        for pack in .git/packs/*.pack; do git unpack-objects -q < $pack; done; rm -rf .git/packs",
    )
    .dir(&clone)
    .within(10 * MINUTE)
    .ok();
    let count = |folder: &Path, what: &str| {
        let answer = git(folder, &["count-objects", "-v"]);
        let line = answer.lines().find_map(|line| line.strip_prefix(what)).unwrap().to_owned();
        line.trim_start_matches(": ").parse::<u64>().unwrap()
    };
    let loose = count(&clone, "count");
    assert!(loose > 1_500, "{loose} loose objects");
    println!("{loose} loose objects after {:.1} s", began.elapsed().as_secs_f64());
    git(&twin, &["fsck", "--full", "--strict"]);
    git(&clone, &["gc", "-q", "--prune=now"]);
    assert_eq!((count(&twin, "count"), count(&twin, "in-pack")), (0, loose));
    git(&twin, &["fsck", "--full", "--strict"]);
    // Work on one mount while the other repacks; nothing is lost.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..3 {
                git(&twin, &["repack", "-q", "-a", "-d"]);
                println!("repacked, round {round}");
            }
        });
        for number in 0..15 {
            std::fs::write(clone.join("mine.txt"), format!("{number}\n")).unwrap();
            git(&clone, &["add", "mine.txt"]);
            git(&clone, &["commit", "-q", "-m", &format!("mine {number}")]);
        }
    });
    git(&clone, &["gc", "-q", "--prune=now"]);
    for folder in [&clone, &twin] {
        git(folder, &["fsck", "--full", "--strict"]);
        assert_eq!(git(folder, &["status", "--porcelain"]), "");
    }
    let tree_of =
        |folder: &Path, name: &str| git(folder, &["rev-parse", &format!("{name}^{{tree}}")]);
    for name in ["side", "v100", "v500", "v600"] {
        let from = if name == "side" { "refs/heads/side" } else { name };
        assert_eq!(tree_of(&twin, from), tree_of(&origin, from), "{name}");
    }
    println!("git: {:.1} s", began.elapsed().as_secs_f64());
    healthy(&mut cluster);
}

/// A crate of several modules and a binary, without dependencies.
fn crate_source(folder: &Path) {
    let modules = 12;
    std::fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
                    build = \"build.rs\"\n[workspace]\n";
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    let script = "fn main() {\n    println!(\"cargo:rerun-if-changed=seed.txt\");\n    \
        let seed = std::fs::read_to_string(\"seed.txt\").unwrap();\n    \
        let out = std::env::var(\"OUT_DIR\").unwrap();\n    \
        let code = format!(\"pub const SEED: u64 = {};\", seed.trim());\n    \
        std::fs::write(format!(\"{out}/seed.rs\"), code).unwrap();\n}\n";
    std::fs::write(folder.join("build.rs"), script).unwrap();
    std::fs::write(folder.join("seed.txt"), "5\n").unwrap();
    let mut library = String::from("include!(concat!(env!(\"OUT_DIR\"), \"/seed.rs\"));\n");
    let mut calls = String::new();
    for number in 0..modules {
        library.push_str(&format!("pub mod part{number};\n"));
        calls.push_str(&format!("    value = small::part{number}::step(value);\n"));
        let code = format!(
            "//! Part {number}.\nuse std::collections::BTreeMap;\n\
             pub fn step(value: u64) -> u64 {{\n    let mut seen = BTreeMap::new();\n    \
             for place in 0..10u64 {{ seen.insert(value ^ place, place); }}\n    \
             value.wrapping_mul(31) + {number} + seen.len() as u64 - 10\n}}\n\
             #[cfg(test)]\nmod tests {{\n    #[test]\n    fn steps() {{ \
             assert_eq!(super::step(0), {number}); }}\n}}\n"
        );
        std::fs::write(folder.join(format!("src/part{number}.rs")), code).unwrap();
    }
    std::fs::write(folder.join("src/lib.rs"), library).unwrap();
    let main = format!(
        "fn main() {{\n    let mut value = small::SEED;\n{calls}    println!(\"{{value}}\");\n}}\n"
    );
    std::fs::write(folder.join("src/main.rs"), main).unwrap();
}

fn expected(seed: u64) -> String {
    (0..12).fold(seed, |value, number| value * 31 + number).to_string()
}

#[test]
fn cargo_builds_a_crate_again_only_where_it_changed() {
    let mut cluster = Cluster::with_two_mounts();
    let folder = cluster.mount(0).join("small");
    let twin = cluster.mount(1).join("small");
    crate_source(&folder);
    let cargo = |folder: &Path, words: &[&str]| {
        let began = Instant::now();
        let ended = Program::new("cargo")
            .args(words)
            .args(["--offline", "--color=never"])
            .env("CARGO_TARGET_DIR", folder.join("target"))
            .env("CARGO_INCREMENTAL", "1")
            .env("RUSTFLAGS", "")
            .dir(folder)
            .within(10 * MINUTE)
            .run();
        assert!(ended.status.success(), "{ended}");
        println!("cargo {}: {:.1} s", words.join(" "), began.elapsed().as_secs_f64());
        ended
    };
    let run = |folder: &Path| Program::new(folder.join("target/debug/small")).ok();
    assert!(cargo(&folder, &["build"]).err.contains("Compiling small"));
    assert_eq!(run(&folder).trim(), expected(5));
    // Nothing changed: nothing is compiled, though the times come from the servers.
    assert!(!cargo(&folder, &["build"]).err.contains("Compiling"));
    // A change of one module, from the other mount; then of what the build script reads.
    let part = twin.join("src/part3.rs");
    let changed = std::fs::read_to_string(&part).unwrap().replace("+ 3 +", "+ 4 +");
    std::fs::write(&part, changed).unwrap();
    assert!(cargo(&folder, &["build"]).err.contains("Compiling small"));
    assert_ne!(run(&folder).trim(), expected(5));
    std::fs::write(&part, std::fs::read_to_string(&part).unwrap().replace("+ 4 +", "+ 3 +"))
        .unwrap();
    std::fs::write(twin.join("seed.txt"), "9\n").unwrap();
    assert!(cargo(&folder, &["build"]).err.contains("Compiling small"));
    assert_eq!(run(&twin).trim(), expected(9));
    assert!(cargo(&folder, &["test", "-q"]).out.contains("12 passed"));
    let before = tree::read(&folder.join("src"));
    assert!(cargo(&folder, &["clean"]).status.success());
    assert!(!twin.join("target").exists());
    tree::compare(&before, &tree::read(&twin.join("src")));
    healthy(&mut cluster);
}
