//! Human-readable tables.

use std::io::Write;

use anyhow::Result;

/// Writes `lines` in aligned columns.
pub(super) fn write_table<const N: usize>(
    lines: &[[String; N]],
    out: &mut impl Write,
) -> Result<()> {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
