//! The program as a person uses it: one clear line, the right exit code, nothing changed.

use std::process::{Command, Output};
use std::time::Instant;

fn ministryctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ministryctl"))
        .args(arguments)
        .env_remove("MINISTRY_ADMIN")
        .output()
        .unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// The only line on standard error.
fn line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("ministryctl: "), "{text}");
    text
}

const COMMANDS: &[&[&str]] = &[
    &["network", "create"],
    &["invite"],
    &["client", "join"],
    &["operator", "join"],
    &["status"],
    &["roles"],
    &["events"],
    &["ministries"],
    &["ministry", "create"],
    &["pgs"],
    &["where"],
    &["node", "list"],
    &["mount"],
    &["umount"],
];

#[test]
fn every_command_explains_itself_within_a_hundred_columns() {
    for command in COMMANDS.iter().copied().chain([&[][..]]) {
        let output = ministryctl(&[command, &["--help"]].concat());
        assert_eq!(code(&output), Some(0), "{command:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{command:?}: {line}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_two() {
    for arguments in [
        &[][..],
        &["fly"],
        &["status", "--timeout", "soon"],
        &["status", "--address", "nowhere"],
        &["invite"],
        &["invite", "--node", "--operator"],
        &["where"],
        &["client", "join", "hello", "--identity", "/nonexistent/x"],
        &["where", "--fs-path", "a/b"],
    ] {
        assert_eq!(code(&ministryctl(arguments)), Some(2), "{arguments:?}");
    }
}

#[test]
fn missing_credentials_end_with_four_and_say_what_to_do() {
    for command in [&["status"][..], &["invite", "--node"], &["events"], &["pgs"]] {
        let output = ministryctl(&[&["--admin", "/nonexistent/admin"], command].concat());
        assert_eq!(code(&output), Some(4), "{command:?}");
        let line = line(&output);
        assert!(line.contains("/nonexistent/admin") && line.contains("--admin"), "{line}");
    }
}

#[test]
fn a_path_outside_of_every_mount_is_refused() {
    let output = ministryctl(&["where", "/etc/passwd"]);
    assert_eq!(code(&output), Some(1));
    assert!(line(&output).contains("--fs-path"));
}

#[test]
fn a_cluster_that_does_not_answer_ends_with_three_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, admin) = (at("data"), at("admin"));
    // A port that nobody has: taken and given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = port.to_string();
    let made = ministryctl(&[
        "--admin", &admin, "network", "create", "--data", &data, "--listen", &listen,
    ]);
    assert_eq!(code(&made), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
    for command in [&["status"][..], &["invite", "--node"]] {
        let begun = Instant::now();
        let flags = ["--admin", &admin, "--timeout", "300ms"];
        let output = ministryctl(&[&flags[..], command].concat());
        assert_eq!(code(&output), Some(3), "{command:?}");
        assert!(line(&output).contains(&listen), "it names the node");
        assert!(begun.elapsed().as_secs() < 3, "{command:?} took {:?}", begun.elapsed());
    }
}
