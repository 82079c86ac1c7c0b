//! Tables without frames, as wide as their content.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

/// A table with this heading.
pub fn new(heading: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(heading.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

/// The table's text without trailing blanks.
pub fn text(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
