//! What a demo came to: a row for each act, and whether all went as told.

use std::fmt;
use std::time::Duration;

/// One act.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was broken.
    pub broke: &'static str,
    /// What the watchdog did about it.
    pub did: &'static str,
    /// From the fault to its repair.
    pub took: Option<Duration>,
    /// The messages that it sent to homu.
    pub messages: usize,
    /// How many of them made homu build again.
    pub reruns: usize,
    /// What was not as told, one sentence each.
    pub differed: Vec<String>,
}

/// A whole demo.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The acts in their order.
    pub rows: Vec<Row>,
    /// Retries that homu obeyed while somebody was at work on the build.
    pub live_restarted: usize,
    /// What was not as told outside of the acts.
    pub differed: Vec<String>,
    /// How long it all took.
    pub took: Duration,
}

impl Summary {
    /// Whether everything went as told.
    pub fn is_as_told(&self) -> bool {
        self.live_restarted == 0
            && self.differed.is_empty()
            && self.rows.iter().all(|row| row.differed.is_empty())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "what broke",
            "what the watchdog did",
            "repaired in",
            "messages",
            "reruns",
        ];
        let cells: Vec<[String; 5]> = self
            .rows
            .iter()
            .map(|row| {
                let took = row.took.map(|took| format!("{:.1} s", took.as_secs_f64()));
                [
                    row.broke.to_owned(),
                    row.did.to_owned(),
                    took.unwrap_or_else(|| "-".to_owned()),
                    row.messages.to_string(),
                    row.reruns.to_string(),
                ]
            })
            .collect();
        let all = std::iter::once(head.map(str::to_owned)).chain(cells);
        let widths = all.clone().fold([0; 5], |mut widths, line| {
            for (width, cell) in widths.iter_mut().zip(&line) {
                *width = cell.chars().count().max(*width);
            }
            widths
        });
        for line in all {
            let padded = line
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            let padded: Vec<String> = padded.collect();
            writeln!(f, "  {}", padded.join("  ").trim_end())?;
        }
        writeln!(f)?;
        writeln!(f, "  {} live runs restarted.", self.live_restarted)?;
        if self.is_as_told() {
            return write!(
                f,
                "  Everything went as told, in {:.0} s.",
                self.took.as_secs_f64()
            );
        }
        let of_acts = self.rows.iter().flat_map(|row| &row.differed);
        write!(f, "  Not everything went as told:")?;
        for what in of_acts.chain(&self.differed) {
            write!(f, "\n  - {what}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            broke: "nothing",
            did: "nothing",
            took: None,
            messages: 0,
            reruns: 0,
            differed: vec![],
        }
    }

    #[test]
    fn one_thing_that_differs_is_told_and_spoils_it_all() {
        let mut summary = Summary {
            rows: vec![row()],
            ..Summary::default()
        };
        assert!(summary.is_as_told());
        assert!(summary.to_string().contains("0 live runs restarted"));

        summary.rows[0]
            .differed
            .push("the moon fell down".to_owned());
        assert!(!summary.is_as_told());
        assert!(summary.to_string().contains("- the moon fell down"));

        let live = Summary {
            live_restarted: 1,
            ..Summary::default()
        };
        assert!(!live.is_as_told());
    }
}
