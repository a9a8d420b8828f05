//! The program as a person uses it: one clear line, the right exit code, nothing changed.

use std::path::Path;
use std::process::{Command, Output};

fn ministryd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ministryd")).args(arguments).output().unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// The only line on standard error.
fn line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("ministryd: "), "{text}");
    text
}

fn path(folder: &Path) -> &str {
    folder.to_str().unwrap()
}

#[test]
fn help_shows_commands_examples_and_exit_codes() {
    let output = ministryd(&["--help"]);
    assert_eq!(code(&output), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for wanted in ["run", "join", "check", "Examples:", "Exit codes:"] {
        assert!(text.contains(wanted), "{wanted} is missing in {text}");
    }
    for command in ["run", "join", "check"] {
        let output = ministryd(&[command, "--help"]);
        assert_eq!(code(&output), Some(0), "{command}");
    }
}

#[test]
fn wrong_usage_ends_with_two() {
    for arguments in [
        &[][..],
        &["fly"],
        &["run"],
        &["run", "--data"],
        &["run", "--data", "d", "--listen", "nowhere"],
        &["run", "--data", "d", "--weight", "-3"],
        &["join", "--data", "d"],
        &["check"],
    ] {
        assert_eq!(code(&ministryd(arguments)), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_folder_that_is_not_a_nodes_is_refused_with_three_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let here = path(folder.path());
    for command in ["run", "check"] {
        let flags = [command, "--data", here];
        let flags = match command {
            "run" => [&flags[..], &["--listen", "127.0.0.1:1"]].concat(),
            _ => flags.to_vec(),
        };
        let output = ministryd(&flags);
        match command {
            // Without settings there is no address that others could call.
            "check" => assert_eq!(code(&output), Some(2), "{}", line(&output)),
            _ => {
                assert_eq!(code(&output), Some(3));
                assert!(line(&output).contains("is empty"));
            }
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let output = ministryd(&["run", "--data", "/nonexistent/x", "--listen", "127.0.0.1:1"]);
    assert_eq!(code(&output), Some(3));
    assert!(line(&output).contains("does not exist"));
}

#[test]
fn corrupt_settings_are_refused_with_two_and_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ministryd.toml");
    for text in ["listen = [\n", "colour = \"red\"\n", "storage_weight = -2\n", "\u{7}\u{0}"] {
        std::fs::write(&file, text).unwrap();
        let output = ministryd(&["run", "--data", path(folder.path())]);
        assert_eq!(code(&output), Some(2), "{text:?}: {}", line(&output));
    }
    let output =
        ministryd(&["run", "--data", path(folder.path()), "--config", "/nonexistent/file"]);
    assert_eq!(code(&output), Some(2));
    assert!(line(&output).contains("/nonexistent/file"));
}

#[test]
fn a_wrong_token_is_refused_before_a_folder_is_made() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("node");
    for token in ["hello", "ministry1-abc", "ministry9-abc", ""] {
        let flags = ["join", token, "--data", path(&folder), "--listen", "127.0.0.1:7400"];
        let output = ministryd(&flags);
        assert_eq!(code(&output), Some(2), "{token}: {}", line(&output));
    }
    assert!(!folder.exists());
}
