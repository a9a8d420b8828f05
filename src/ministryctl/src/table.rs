//! Tables for people: at most 100 columns, plain where nobody looks.

use std::io::IsTerminal;

use comfy_table::{ContentArrangement, Table, presets};

/// Columns of the widest table.
pub const COLUMNS: u16 = 100;

/// A table with these headings; fill it with `add_row`.
pub fn table(headings: &[&str]) -> Table {
    styled(headings, std::io::stdout().is_terminal())
}

fn styled(headings: &[&str], terminal: bool) -> Table {
    let mut table = Table::new();
    let style = if terminal { presets::UTF8_BORDERS_ONLY } else { presets::NOTHING };
    table.load_style(style);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
    table.set_header(headings.iter().copied());
    table
}

/// The text of a table, without blanks at the ends of lines.
pub fn text(table: &Table) -> String {
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

/// Bytes as people read them: 1.5 GiB.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// The first eight digits of an identity.
pub fn short(identity: &str) -> &str {
    identity.get(..8).unwrap_or(identity)
}

/// A list in one cell.
pub fn list(items: &[String]) -> String {
    match items {
        [] => "-".to_owned(),
        items => items.join(", "),
    }
}

/// A value, or a dash.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_whatever_is_in_it() {
        for terminal in [false, true] {
            let mut table = styled(&["NODE", "TEXT", "REASON"], terminal);
            table.add_row(["abcdef01", &"word ".repeat(60), &"x".repeat(300)]);
            table.add_row(["é".repeat(80), "日本".repeat(40), String::new()]);
            for line in text(&table).lines() {
                assert!(line.chars().count() <= usize::from(COLUMNS), "{line}");
            }
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (count, wanted) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (64 << 20, "64.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), wanted);
        }
    }
}
