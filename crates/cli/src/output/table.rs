//! Tables in text: columns two spaces apart, no frames, so that they can be cut with ordinary tools.

/// To which side a column leans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under headers.
#[derive(Debug)]
pub(crate) struct TextTable {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
    nothing: &'static str,
}

impl TextTable {
    /// With these columns. `nothing` is written in the place of a table without rows.
    pub(crate) fn new(nothing: &'static str, columns: &[(&str, Align)]) -> Self {
        Self { columns: columns.iter().map(|(name, align)| ((*name).to_owned(), *align)).collect(), rows: Vec::new(), nothing }
    }

    /// Adds a row; cells that are missing are empty.
    pub(crate) fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) -> &mut Self {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
        self
    }

    /// As text. Cells keep their line's length in characters; the last column is not padded.
    pub(crate) fn render(&self) -> String {
        if self.rows.is_empty() {
            return format!("{}\n", self.nothing);
        }
        let width = |text: &str| text.chars().count();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|i| self.rows.iter().map(|r| width(&r[i])).chain([width(&self.columns[i].0)]).max().unwrap_or(0))
            .collect();
        let mut out = String::new();
        let headers: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        for row in std::iter::once(&headers).chain(&self.rows) {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[i] - width(cell));
                let gap = if i == 0 { "" } else { "  " };
                match self.columns[i].1 {
                    Align::Left => line.push_str(&format!("{gap}{cell}{pad}")),
                    Align::Right => line.push_str(&format!("{gap}{pad}{cell}")),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Names and values below one another; pairs without a value are left out.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(k, _)| k.len()).max().unwrap_or(0);
    let shown = pairs.iter().filter(|(_, v)| !v.is_empty());
    shown.map(|(key, value)| format!("{key:<widest$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_letters() {
        let mut table = TextTable::new("none", &[("NAME", Align::Left), ("COUNT", Align::Right), ("WHY", Align::Left)]);
        table.row(["caf\u{e9}", "7", ""]).row(["a-long-name", "12,345", "full"]);
        assert_eq!(table.render(), "NAME          COUNT  WHY\ncaf\u{e9}              7\na-long-name  12,345  full\n");
    }

    #[test]
    fn nothing_is_said_and_not_drawn() {
        assert_eq!(TextTable::new("no jobs", &[("NAME", Align::Left)]).render(), "no jobs\n");
        assert_eq!(fields(&[("state", "running".into()), ("reason", String::new())]), "state  running\n");
    }
}
