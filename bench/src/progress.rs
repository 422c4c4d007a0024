//! What is being measured, for whoever waits.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A line that says what is going on: in place on a terminal, one line a step elsewhere.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    lines: bool,
}

impl Progress {
    /// On standard error.
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
        let lines = bar.is_hidden();
        if !lines {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Progress { bar, lines }
    }

    /// Nothing is shown.
    pub fn silent() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Progress { bar, lines: false }
    }

    /// Says what happens now.
    pub fn step(&self, what: &str) {
        if self.lines {
            eprintln!("  {what}");
        }
        self.bar.set_message(what.to_owned());
    }

    /// Says how far a step has come; shown on a terminal only.
    pub fn update(&self, how_far: &str) {
        self.bar.set_message(how_far.to_owned());
    }

    /// Says something that stays.
    pub fn say(&self, what: &str) {
        if self.lines {
            eprintln!("{what}");
        }
        self.bar.println(what);
    }

    /// Takes the line away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
