//! One figure: its samples, what it is compared with, and what it should reach.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::turns::median;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds of wall time unless the line says otherwise.
    Seconds,
    /// Bytes.
    Bytes,
    /// Turns of a conversation.
    Trips,
    /// Rows a second.
    RowsPerSecond,
    /// Transactions a second.
    TransactionsPerSecond,
    /// MiB of memory.
    MiB,
}

impl Unit {
    /// A figure as people read it.
    pub fn show(self, figure: f64) -> String {
        match self {
            Unit::Seconds if figure < 0.000_1 => format!("{:.1} µs", figure * 1e6),
            Unit::Seconds if figure < 0.001 => format!("{:.0} µs", figure * 1e6),
            Unit::Seconds if figure < 0.1 => format!("{:.2} ms", figure * 1e3),
            Unit::Seconds if figure < 1.0 => format!("{:.0} ms", figure * 1e3),
            Unit::Seconds => format!("{figure:.2} s"),
            Unit::Bytes => format!("{figure:.0} B"),
            Unit::Trips => format!("{figure:.0} trips"),
            Unit::RowsPerSecond => format!("{figure:.0} rows/s"),
            Unit::TransactionsPerSecond => format!("{figure:.0}/s"),
            Unit::MiB => format!("{figure:.1} MiB"),
        }
    }
}

/// What a figure or ratio should reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Not more than this.
    AtMost(f64),
    /// Not less than this.
    AtLeast(f64),
}

impl Limit {
    /// Whether a value reaches it; one that is not a number does not.
    pub fn met_by(self, value: f64) -> bool {
        match self {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => value >= limit,
        }
    }

    fn show(self, show: impl Fn(f64) -> String) -> String {
        match self {
            Limit::AtMost(limit) => format!("≤ {}", show(limit)),
            Limit::AtLeast(limit) => format!("≥ {}", show(limit)),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (key, limit) = match self {
            Limit::AtMost(limit) => ("at_most", limit),
            Limit::AtLeast(limit) => ("at_least", limit),
        };
        serializer.collect_map([(key, limit)])
    }
}

/// Whether a bar was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Better than the bar: the aim, too.
    AimMet,
    /// The bar was reached.
    BarMet,
    /// The bar was not reached.
    Missed,
    /// There is no bar.
    NoBar,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::AimMet => "aim met",
            Verdict::BarMet => "bar met",
            Verdict::Missed => "MISSED",
            Verdict::NoBar => "",
        })
    }
}

/// One figure. Bar and aim are on the ratio where there is one, else on the median.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    what: String,
    unit: Unit,
    median: f64,
    min: f64,
    max: f64,
    samples: Vec<f64>,
    /// What the ratio compares with.
    against: Option<String>,
    /// The median of the rounds' ratios: both sides of each come from one round.
    ratio: Option<f64>,
    /// How the ratio is meant.
    ratio_means: Option<&'static str>,
    bar: Option<Limit>,
    aim: Option<Limit>,
    verdict: Verdict,
}

impl Line {
    /// A figure from its samples, one a round.
    pub fn new(what: impl Into<String>, unit: Unit, samples: &[f64]) -> Self {
        Line {
            what: what.into(),
            unit,
            median: median(samples),
            min: samples.iter().copied().fold(f64::INFINITY, f64::min),
            max: samples.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            samples: samples.to_vec(),
            against: None,
            ratio: None,
            ratio_means: None,
            bar: None,
            aim: None,
            verdict: Verdict::NoBar,
        }
    }

    /// Compares times: the ratio says how many times as fast this is as `baseline`.
    pub fn faster_than(self, name: &str, baseline: &[f64]) -> Self {
        let ratios = pairs(baseline, &self.samples);
        self.compared(name, ratios, "times as fast")
    }

    /// Compares times, or whatever is better when less: the ratio says how many times `baseline` this takes.
    pub fn times(self, name: &str, baseline: &[f64]) -> Self {
        let ratios = pairs(&self.samples, baseline);
        self.compared(name, ratios, "times that")
    }

    /// Compares rates: the ratio says how many times as much an operation costs as in `baseline`.
    pub fn cost_by_rate(self, name: &str, baseline: &[f64]) -> Self {
        let ratios = pairs(baseline, &self.samples);
        self.compared(name, ratios, "times the cost")
    }

    fn compared(mut self, name: &str, ratios: Vec<f64>, means: &'static str) -> Self {
        self.against = Some(name.to_owned());
        self.ratio = Some(median(&ratios));
        self.ratio_means = Some(means);
        self
    }

    /// What it must reach.
    pub fn bar(mut self, bar: Limit) -> Self {
        self.bar = Some(bar);
        self.judged()
    }

    /// What it should reach.
    pub fn aim(mut self, aim: Limit) -> Self {
        self.aim = Some(aim);
        self.judged()
    }

    fn judged(mut self) -> Self {
        let value = self.ratio.unwrap_or(self.median);
        self.verdict = match (self.bar, self.aim) {
            (_, Some(aim)) if aim.met_by(value) => Verdict::AimMet,
            (Some(bar), _) if bar.met_by(value) => Verdict::BarMet,
            (Some(_), _) => Verdict::Missed,
            (None, _) => Verdict::NoBar,
        };
        self
    }

    /// Whether the bar was reached.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What it says.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The middle of the samples.
    pub fn median(&self) -> f64 {
        self.median
    }

    /// The cells of a table: what, median, range, ratio, against, bar, aim, verdict.
    pub fn cells(&self) -> [String; 8] {
        let limit = |limit: Option<Limit>| match (limit, self.ratio) {
            (None, _) => String::new(),
            (Some(limit), Some(_)) => limit.show(|ratio| ratio.to_string()),
            (Some(limit), None) => limit.show(|figure| self.unit.show(figure)),
        };
        let range = match self.samples.len() {
            0 | 1 => String::new(),
            _ => format!("{} to {}", self.unit.show(self.min), self.unit.show(self.max)),
        };
        let ratio = match (self.ratio, self.ratio_means) {
            (Some(ratio), Some(means)) => format!("{ratio:.2} {means}"),
            _ => String::new(),
        };
        [
            self.what.clone(),
            self.unit.show(self.median),
            range,
            ratio,
            self.against.clone().unwrap_or_default(),
            limit(self.bar),
            limit(self.aim),
            self.verdict.to_string(),
        ]
    }
}

/// The ratios of the samples of the same rounds.
fn pairs(dividends: &[f64], divisors: &[f64]) -> Vec<f64> {
    dividends.iter().zip(divisors).map(|(dividend, divisor)| dividend / divisor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_and_judged_by_the_bar() {
        let line = Line::new("ours", Unit::Seconds, &[1.0, 2.0, 1.0]).faster_than("theirs", &[5.0, 6.0, 8.0]);
        assert_eq!(line.ratio, Some(5.0));
        assert_eq!(line.clone().bar(Limit::AtLeast(5.0)).aim(Limit::AtLeast(8.0)).verdict(), Verdict::BarMet);
        assert_eq!(line.clone().bar(Limit::AtLeast(5.1)).verdict(), Verdict::Missed);
        assert_eq!(line.bar(Limit::AtLeast(3.0)).aim(Limit::AtLeast(4.0)).verdict(), Verdict::AimMet);
        let cost =
            Line::new("with", Unit::TransactionsPerSecond, &[800.0]).cost_by_rate("without", &[1000.0]);
        assert_eq!(cost.ratio, Some(1.25));
    }

    #[test]
    fn a_figure_without_a_ratio_is_judged_itself_and_nothing_is_never_met() {
        let line = Line::new("version", Unit::Seconds, &[0.000_9, 0.002]);
        assert_eq!(line.clone().bar(Limit::AtMost(0.001)).verdict(), Verdict::Missed);
        assert_eq!(line.verdict(), Verdict::NoBar);
        assert_eq!(Line::new("none", Unit::Bytes, &[]).bar(Limit::AtMost(1.0)).verdict(), Verdict::Missed);
    }

    #[test]
    fn figures_are_shown_as_people_read_them() {
        assert_eq!(Unit::Seconds.show(0.000_012_3), "12.3 µs");
        assert_eq!(Unit::Seconds.show(0.012_3), "12.30 ms");
        assert_eq!(Unit::Seconds.show(0.45), "450 ms");
        assert_eq!(Unit::Seconds.show(2.5), "2.50 s");
        let line = Line::new("x", Unit::Bytes, &[900.0]).bar(Limit::AtMost(2048.0));
        assert_eq!(line.cells().map(|cell| cell), ["x", "900 B", "", "", "", "≤ 2048 B", "", "bar met"]);
    }
}
