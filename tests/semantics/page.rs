//! docs/semantics.md and the cases say the same, sentence by sentence.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use crate::cases;
use crate::differences::DIFFERENCES;

/// Columns of the page's text.
const COLUMNS: usize = 118;

const OPENING: &str = "\
# Semantics

What the file system does, sentence by sentence. Each sentence has a name, and a case of that name in `tests/semantics` runs
it: on the mount, where every sentence must hold, and on a local ext4, where every sentence must hold but those listed under
[Differences](#differences-from-a-local-file-system). `tests/run semantics` runs all of them as root and as three plain users
(one with a further group), `MINISTRY_CASES=rename tests/run semantics` those of one name.

This page is written out of the cases: `MINISTRY_WRITE_PAGE=1` with the test `the_page_says_what_the_cases_run` writes it
anew. Where a call is not mentioned it does what Linux does on a local disk.
";

const DIFFERENCES_INTRO: &str = "\
These sentences do not hold on ext4; the suite fails when another one does not, and when one of these does.
";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/semantics.md")
}

fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        if column > 0 && column + 1 + word.chars().count() > COLUMNS {
            let _ = write!(lines, "\n{indent}");
            column = indent.len();
        } else if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += word.chars().count();
    }
    lines
}

fn rendered() -> String {
    let mut page = String::from(OPENING);
    for section in cases::SECTIONS {
        let _ = write!(page, "\n## {}\n\n", section.title);
        if !section.intro.is_empty() {
            let _ = write!(page, "{}\n\n", wrapped(section.intro, ""));
        }
        for case in section.cases {
            let sentence = wrapped(&format!("* `{}` {}", case.id, case.says), "  ");
            let _ = writeln!(page, "{sentence}");
        }
    }
    let _ = write!(page, "\n## Differences from a local file system\n\n{DIFFERENCES_INTRO}\n");
    let _ = write!(page, "| sentence | on ext4 | reason |\n|---|---|---|\n");
    for one in DIFFERENCES {
        let _ = writeln!(page, "| `{}` | {} | {} |", one.sentence, one.there, one.reason);
    }
    page
}

#[test]
fn the_page_says_what_the_cases_run() {
    let wanted = rendered();
    if std::env::var_os("MINISTRY_WRITE_PAGE").is_some() {
        std::fs::write(path(), &wanted).unwrap();
    }
    let found = std::fs::read_to_string(path()).expect("docs/semantics.md is there");
    for (number, (found, wanted)) in found.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(found, wanted, "docs/semantics.md, line {}", number + 1);
    }
    assert_eq!(found.lines().count(), wanted.lines().count(), "docs/semantics.md");
}

#[test]
fn every_sentence_has_a_name_of_its_own_and_every_difference_a_sentence() {
    let mut ids = BTreeSet::new();
    for case in cases::all() {
        assert!(ids.insert(case.id), "two sentences are called {}", case.id);
        assert!(case.says.ends_with('.') && !case.says.contains("  "), "{}", case.id);
    }
    assert!(ids.len() >= 300, "{} sentences", ids.len());
    let mut listed = BTreeSet::new();
    for difference in DIFFERENCES {
        assert!(ids.contains(difference.sentence), "{}", difference.sentence);
        assert!(listed.insert(difference.sentence), "{} is listed twice", difference.sentence);
    }
}
