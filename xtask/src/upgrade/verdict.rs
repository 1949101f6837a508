//! The end of the upgrade: what was seen, and whether it may be called a success.

use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Deserialize;

use crate::Outcome;
use crate::demo::event::LoadResult;
use crate::demo::screen::{grouped, latency};

/// What a client of the next build was told by all counters, and by the note.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Asked {
    /// Counters that answered what only the next build can.
    pub(crate) migrated: u64,
    /// Those that did not.
    pub(crate) unanswered: u64,
    /// What one of those said.
    pub(crate) why: Option<String>,
    /// What became of a command for an agent of a type that only the next build knows.
    pub(crate) note: String,
}

/// How one node was replaced.
#[derive(Debug, Clone)]
pub(crate) struct Replaced {
    pub(crate) name: String,
    /// How long it took to hand over what it held.
    pub(crate) drained: Duration,
    /// From the start of the next build until it held all groups.
    pub(crate) hosting: Duration,
}

/// What the upgrade has seen.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) result: LoadResult,
    pub(crate) agents: u64,
    pub(crate) replaced: Vec<Replaced>,
    pub(crate) before: Asked,
    pub(crate) after: Asked,
}

/// What the build that does not know the note says of it.
const UNKNOWN: &str = "unknown agent type";
const WRITTEN: &str = "written";

impl Verdict {
    /// The table for the reader.
    pub(crate) fn table(&self) -> Table {
        let Self { result, before, after, .. } = self;
        let mut rows = Vec::new();
        for Replaced { name, drained, hosting } in &self.replaced {
            let (drained, hosting) = (drained.as_millis(), hosting.as_millis());
            rows.push([
                format!("{name} replaced"),
                format!("empty after {drained} ms, whole after {hosting} ms"),
            ]);
        }
        rows.extend([
            ["commands".to_owned(), grouped(result.commands)],
            ["latency p50".to_owned(), latency(result.p50_us)],
            ["latency p99".to_owned(), latency(result.p99_us)],
            ["longest without a completed command".to_owned(), format!("{:.0} ms", result.outage_ms)],
            ["acknowledged".to_owned(), grouped(result.acknowledged)],
            ["unknown".to_owned(), grouped(result.unknown)],
            ["lost".to_owned(), grouped(result.lost)],
            ["doubled".to_owned(), grouped(result.doubled)],
            ["counters in the new form, before".to_owned(), self.of_all(before.migrated)],
            ["counters in the new form, after".to_owned(), self.of_all(after.migrated)],
            ["a type that is new, before".to_owned(), before.note.clone()],
            ["a type that is new, after".to_owned(), after.note.clone()],
        ]);
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).add_rows(rows);
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn of_all(&self, counters: u64) -> String {
        format!("{} of {}", grouped(counters), grouped(self.agents))
    }

    /// Success is that nothing acknowledged was lost and nothing happened twice, that the first build said of what it
    /// does not know that it does not, and that the next one has all states in their new form.
    ///
    /// # Errors
    /// Says what went wrong.
    pub(crate) fn judge(&self) -> Outcome {
        let Self { agents, before, after, .. } = self;
        let LoadResult { acknowledged, lost, doubled, .. } = self.result;
        if (lost, doubled) != (0, 0) {
            return Err(format!("{lost} acknowledged commands lost, {doubled} doubled").into());
        }
        if acknowledged == 0 {
            return Err("no command was acknowledged".into());
        }
        if before.migrated != 0 || before.note != UNKNOWN {
            return Err(format!("the first build did what only the next can: {before:?}").into());
        }
        if after.migrated != *agents || after.note != WRITTEN {
            return Err(format!("the next build does not have all that it must: {after:?}").into());
        }
        Ok(())
    }
}
