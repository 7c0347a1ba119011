//! Columns that stand below each other, in cells of the terminal.

use unicode_width::UnicodeWidthStr;

use super::Paint;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

#[derive(Debug)]
pub struct Table {
    head: Vec<&'static str>,
    align: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&'static str]) -> Table {
        Table {
            head: head.to_vec(),
            align: vec![Align::Left; head.len()],
            rows: Vec::new(),
        }
    }

    /// Columns of numbers, counted from 0.
    pub fn right(&mut self, columns: &[usize]) {
        columns
            .iter()
            .for_each(|&column| self.align[column] = Align::Right);
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.head.len());
        self.rows.push(cells.into());
    }

    pub fn text(&self, paint: Paint) -> String {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].width());
                cells.chain([self.head[column].width()]).max().unwrap_or(0)
            })
            .collect();
        let mut text = paint.bold(&self.line(&widths, |column| self.head[column]));
        text.push('\n');
        for row in &self.rows {
            text += &self.line(&widths, |column| &row[column]);
            text.push('\n');
        }
        text
    }

    fn line<'a>(&self, widths: &[usize], cell: impl Fn(usize) -> &'a str) -> String {
        let mut line = String::new();
        for (column, &width) in widths.iter().enumerate() {
            let cell = cell(column);
            let gap = " ".repeat(width.saturating_sub(cell.width()));
            match self.align[column] {
                Align::Left => line += &format!("{cell}{gap}  "),
                Align::Right => line += &format!("{gap}{cell}  "),
            }
        }
        line.trim_end().to_owned()
    }
}
