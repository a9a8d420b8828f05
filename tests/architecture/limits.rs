//! The page of limits is made of the file of limits, so that they cannot differ.

use std::fmt::Write as _;

use crate::root;

/// One constant of the file.
struct Limit {
    name: String,
    value: String,
    why: String,
    when_met: Option<String>,
}

/// Reads the constants with the comments above them. A line "When met:" begins what is seen then.
fn limits(source: &str) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("///") {
            comment.push(text.trim());
        } else if let Some(rest) = line.strip_prefix("pub const ") {
            let (name, rest) = rest.split_once(':').expect("a constant has a type");
            let (_, value) = rest.split_once('=').expect("a constant has a value on its line");
            let text = comment.join("\n");
            let (why, when_met) = match text.split_once("When met:") {
                Some((why, when_met)) => (why, Some(flow(when_met))),
                None => (text.as_str(), None),
            };
            let (name, value) = (name.to_owned(), shown(name, value.trim().trim_end_matches(';')));
            limits.push(Limit { name, value, why: flow(why), when_met });
            comment.clear();
        } else {
            comment.clear();
        }
    }
    limits
}

/// Text without the ends of lines, and links of the code's documentation as plain names.
fn flow(text: &str) -> String {
    let text: Vec<&str> = text.split_whitespace().collect();
    text.join(" ").replace("[`crate::limits::", "[`").replace("[`", "`").replace("`]", "`")
}

/// A value as people write it.
fn shown(name: &str, value: &str) -> String {
    for (call, unit) in [("Duration::from_secs(", "s"), ("Duration::from_millis(", "ms")] {
        if let Some(number) = value.strip_prefix(call) {
            return format!("{} {unit}", number.trim_end_matches(')'));
        }
    }
    if value == "i64::MAX as u64" {
        return "2^63 - 1".to_owned();
    }
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
    let known = match value.split_once("<<") {
        Some((base, shift)) => number(base).zip(number(shift)).map(|(base, shift)| base << shift),
        None => number(value),
    };
    let Some(known) = known else { return format!("`{value}`") };
    if name.contains("BYTES") {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if known >= 1 << shift && known.is_multiple_of(1 << shift) {
                return format!("{} {unit}", grouped(known >> shift));
            }
        }
    }
    grouped(known)
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn page() -> String {
    let path = root().join("src/types/src/limits.rs");
    let source = std::fs::read_to_string(path).expect("the file of limits");
    let limits = limits(&source);
    assert!(limits.len() > 40, "the constants are found");
    let mut page = String::from(
        "# Limits\n\nEvery bound of the system, what is seen when it is met, and why it is there. Within a cluster \"busy\" means: \
         come again\nafter a pause; a program sees that as slowness, up to the time of an operation.\n\n\
         This page is made from `src/types/src/limits.rs`; `MINISTRY_UPDATE_DOCS=1 tests/run unit` writes it anew.\n\n\
         Of the kernel, and met before it asks anybody: a path in one system call has 4,096 bytes with its closing zero \
         (`ENAMETOOLONG`)\nand follows 40 symbolic links (`ELOOP`); a process has its own number of open files (`EMFILE`) and its own \
         largest file (`EFBIG`\nwith `SIGXFSZ`). A directory has as many entries as there is room for; `df` shows \
         what files\nmay still take, and where a disk is full the answer is `ENOSPC` (operations/disks.md). Quotas (`EDQUOT`) are not raised yet.\n\n\
         | limit | value | when it is met | why |\n|---|---|---|---|\n",
    );
    for limit in limits.iter().filter(|limit| limit.when_met.is_some()) {
        let when_met = limit.when_met.as_deref().unwrap_or_default();
        let _ =
            writeln!(page, "| `{}` | {} | {when_met} | {} |", limit.name, limit.value, limit.why);
    }
    page.push_str(
        "\n## Sizes and times\n\nNothing meets these; they say how much is done at a time, and how long is waited.\n\n\
         | name | value | meaning |\n|---|---|---|\n",
    );
    for limit in limits.iter().filter(|limit| limit.when_met.is_none()) {
        let _ = writeln!(page, "| `{}` | {} | {} |", limit.name, limit.value, limit.why);
    }
    page
}

#[test]
fn the_page_of_limits_says_what_the_code_has() {
    let path = root().join("docs/reference/limits.md");
    if std::env::var_os("MINISTRY_UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "the page is out of date: set MINISTRY_UPDATE_DOCS=1 once");
}

#[test]
fn what_is_called_a_maximum_says_what_happens_when_it_is_met() {
    let path = root().join("src/types/src/limits.rs");
    let source = std::fs::read_to_string(path).expect("the file of limits");
    // Bounds of batches: the rest goes in the next.
    let batches = [
        "APPEND_BYTES_MAX",
        "ELECTION_TIMEOUT_MAX",
        "ELECTORS_MAX",
        "ENTRY_BYTES_MAX",
        "ENTRY_COMMANDS_MAX",
    ];
    for limit in limits(&source) {
        let named = limit.name.ends_with("_MAX") && !batches.contains(&limit.name.as_str());
        let says = limit.when_met.is_some();
        assert!(says || !named, "{}: add a line \"When met: ...\" to its comment", limit.name);
    }
}
