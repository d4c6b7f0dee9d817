//! Tables for people: columns as wide as their widest cell, the last one as wide as it is.

/// Lays out rows under their heads.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    // A line break in a cell would look like another row.
    let flat = |row: &Vec<String>| row.iter().map(|cell| cell.replace('\n', " ")).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(flat).collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain(heads.get(column).map(|head| head.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    std::iter::once(&heads)
        .chain(&rows)
        .map(|row| line(row, &widths))
        .collect::<Vec<_>>()
        .join("\n")
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, width)| {
        let pad = width.saturating_sub(cell.chars().count());
        format!("{cell}{}", " ".repeat(pad))
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_with_several_lines_stays_one_row() {
        let rows = vec![vec!["a\nb".to_owned()]];
        assert_eq!(table(&["X"], &rows), "X\na b");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            vec!["servo#7".to_owned(), "no_show".to_owned()],
            vec!["a#1".to_owned(), "alive".to_owned()],
        ];
        assert_eq!(
            table(&["BUILD", "VERDICT"], &rows),
            "BUILD    VERDICT\nservo#7  no_show\na#1      alive"
        );
    }
}
