//! The end of the demo: what was measured, and whether it may be called a success.

use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use crate::Outcome;

use super::event::LoadResult;
use super::screen::{grouped, latency};

/// What the demo has seen.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    /// What the client says.
    pub(crate) result: LoadResult,
    /// The agents that took part.
    pub(crate) agents: u64,
    /// The node that was killed, and the time from its new start until it hosted groups again.
    pub(crate) killed: Option<(String, Duration)>,
}

impl Verdict {
    /// The table for the reader.
    pub(crate) fn table(&self) -> Table {
        let result = &self.result;
        let mut rows = vec![
            ["agents".to_owned(), grouped(self.agents)],
            ["commands".to_owned(), grouped(result.commands)],
            ["commands/s".to_owned(), grouped(result.per_second as u64)],
            ["latency p50".to_owned(), latency(result.p50_us)],
            ["latency p99".to_owned(), latency(result.p99_us)],
            ["longest outage".to_owned(), format!("{:.0} ms", result.outage_ms)],
        ];
        if let Some((name, after)) = &self.killed {
            rows.push(["killed with SIGKILL".to_owned(), name.clone()]);
            rows.push(["hosts groups again after".to_owned(), format!("{} ms", after.as_millis())]);
        }
        rows.push(["acknowledged".to_owned(), grouped(result.acknowledged)]);
        rows.push(["unknown".to_owned(), grouped(result.unknown)]);
        rows.push(["lost".to_owned(), grouped(result.lost)]);
        rows.push(["doubled".to_owned(), grouped(result.doubled)]);
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).add_rows(rows);
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// Success is that nothing acknowledged was lost, nothing happened twice, and something happened at all.
    ///
    /// # Errors
    /// Says what went wrong.
    pub(crate) fn judge(&self) -> Outcome {
        let LoadResult { acknowledged, lost, doubled, .. } = self.result;
        match (acknowledged, lost, doubled) {
            (0, _, _) => Err("no command was acknowledged".into()),
            (_, 0, 0) => Ok(()),
            _ => Err(format!("{lost} acknowledged commands lost, {doubled} doubled").into()),
        }
    }
}
