//! The figures of a run: a JSON line when each is known, and a table at the end.

use comfy_table::Table;
use serde::Serialize;

use super::BoxError;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What it is to be held against, from this run or from the targets.
    pub(crate) baseline: String,
    /// Value over baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
}

impl Row {
    /// A figure with nothing to hold it against.
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        let (baseline, ratio, detail) = (String::new(), None, String::new());
        Self { name: name.into(), value, unit, baseline, ratio, detail }
    }

    /// Holds it against `baseline`.
    pub(crate) fn against(mut self, name: &str, baseline: f64) -> Self {
        self.baseline = format!("{name} {}", number(baseline));
        self.ratio = Some(self.value / baseline);
        self
    }

    /// Says more.
    pub(crate) fn detail(mut self, detail: String) -> Self {
        self.detail = detail;
        self
    }
}

/// The figures so far.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn add(&mut self, row: Row) -> Result<(), BoxError> {
        println!("{}", serde_json::to_string(&row)?);
        self.rows.push(row);
        Ok(())
    }

    pub(crate) fn print(&self) {
        let mut table = Table::new();
        table.set_header(["figure", "value", "unit", "against", "ratio", "detail"]);
        for row in &self.rows {
            let ratio = row.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
            table.add_row([
                row.name.clone(),
                number(row.value),
                row.unit.to_owned(),
                row.baseline.clone(),
                ratio,
                row.detail.clone(),
            ]);
        }
        println!("{table}");
    }
}

/// A number as people read it.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 1000.0 {
        return format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(number(1_234_567.4), "1,234,567");
        assert_eq!(number(12_345.0), "12,345");
        assert_eq!(number(999.5), "999.5");
        assert_eq!(number(0.0), "0");
    }
}
